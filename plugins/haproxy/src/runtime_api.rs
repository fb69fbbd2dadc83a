//! Talking to HAProxy: one command, one connection, one answer.

use std::time::Duration;

use cutover_plugin_sdk::{Connection, Failure, FailureClass};

use crate::config::Config;

/// How long HAProxy may take to accept a connection. It is local or near, and its one thread never blocks for long.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The longest answer read. `show stat` of a backend with ten thousand servers stays below it.
const ANSWER_LIMIT: usize = 8 << 20;

/// Something that answers HAProxy's commands.
pub(crate) trait Control {
    /// Sends a command line and reads the whole answer.
    fn ask(&self, command: &str) -> Result<String, Failure>;
}

/// The runtime API's socket.
pub(crate) struct Socket<'a> {
    address: &'a str,
}

impl<'a> Socket<'a> {
    pub(crate) fn of(config: &'a Config) -> Self {
        Self {
            address: &config.socket,
        }
    }
}

impl Control for Socket<'_> {
    fn ask(&self, command: &str) -> Result<String, Failure> {
        let connection = Connection::connect(self.address, CONNECT_LIMIT)?;
        let answer = connection
            .write_all(format!("{command}\n").as_bytes())
            .and_then(|()| connection.read_to_end(ANSWER_LIMIT))
            .map_err(|failure| after_sending(command, failure))?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// An order that was sent may have been carried out, whatever happened to its answer.
fn after_sending(command: &str, mut failure: Failure) -> Failure {
    if !command.starts_with("show ") && failure.class == FailureClass::Transient {
        failure.class = FailureClass::UnknownOutcome;
    }
    failure
}

/// Gives orders in one go. HAProxy says nothing when all are carried out.
pub(crate) fn order(control: &dyn Control, commands: &[String]) -> Result<(), Failure> {
    let line = commands.join("; ");
    let answer = control.ask(&line)?;
    match answer.trim() {
        "" => Ok(()),
        refusal => Err(refused(&line, refusal)),
    }
}

/// Makes a failure of what HAProxy says when it does not do what it was told.
pub(crate) fn refused(command: &str, answer: &str) -> Failure {
    let words = answer.lines().next().unwrap_or_default().trim();
    let message = format!("HAProxy refused `{command}`: {words}");
    if words.starts_with("No such backend") || words.starts_with("Can't find backend") {
        Failure::not_found("haproxy.backend", message)
    } else if words.starts_with("Unknown map identifier") {
        Failure::not_found("haproxy.map", message)
            .hint("name the map's file as HAProxy's configuration does; `show map` lists them")
    } else if words.starts_with("No such server") {
        Failure::not_found("haproxy.server", message)
    } else if words.starts_with("Permission denied") {
        Failure::denied("haproxy.permission", message)
            .hint("give the socket `level admin` in HAProxy's configuration")
    } else if words.starts_with("Unknown command") {
        Failure::unsupported("haproxy.command", message).hint("use HAProxy 2.2 or later")
    } else if words.contains("weight") {
        Failure::invalid("haproxy.weight", message)
    } else {
        Failure::permanent("haproxy.refused", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str, class: FailureClass) {
        assert_eq!(
            refused("set server app/web-1 state drain", answer).class,
            class,
            "{answer}"
        );
    }

    #[test]
    fn known_refusals_have_their_class() {
        check("No such server.\n\n", FailureClass::NotFound);
        check("No such backend.\n\n", FailureClass::NotFound);
        check("Can't find backend.\n\n", FailureClass::NotFound);
        check(
            "Unknown map identifier. Please use #<id> or <file>.\n\n",
            FailureClass::NotFound,
        );
        check("Permission denied\n\n", FailureClass::Denied);
        check(
            "Absolute weight can only be between 0 and 256 inclusive.\n\n",
            FailureClass::Invalid,
        );
        check(
            "Unknown command, but maybe one of the following ones is a better match:\n",
            FailureClass::Unsupported,
        );
        check(
            "'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n\n",
            FailureClass::Permanent,
        );
    }

    #[test]
    fn a_lost_answer_to_an_order_leaves_the_outcome_open() {
        let lost = || Failure::transient("socket.reset", "connection reset");

        assert_eq!(
            after_sending("set server app/web-1 state maint", lost()).class,
            FailureClass::UnknownOutcome
        );
        assert_eq!(
            after_sending("show stat app 4 -1", lost()).class,
            FailureClass::Transient
        );
    }
}
