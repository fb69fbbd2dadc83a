//! Why a host was not reached, from what `ssh` says, and whether it is worth another try.

use model::SshAddress;

/// Why a host was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In one line.
    pub(crate) reason: String,
    pub(crate) outlook: Outlook,
}

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// The host or the network may come back.
    Passing,
    /// Somebody has to change something.
    Lasting,
}

impl Trouble {
    pub(crate) fn passing(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            outlook: Outlook::Passing,
        }
    }

    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            outlook: Outlook::Lasting,
        }
    }

    /// What the program said on stderr before it ended without a connection.
    pub(crate) fn of_client(address: &SshAddress, said: &str) -> Self {
        let has = |text: &str| said.contains(text);
        let line = |text: &str| {
            said.lines()
                .map(str::trim)
                .find(|line| line.contains(text))
                .unwrap_or(text)
                .to_owned()
        };
        if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            let known = said
                .lines()
                .find_map(|line| line.trim().strip_prefix("Offending "))
                .map(|place| format!(" (known: {})", place.trim()))
                .unwrap_or_default();
            return Self::lasting(format!(
                "`{address}` is refused: its host key is not the one that is known{known}; find out why before you remove the known one"
            ));
        }
        if has("REVOKED HOST KEY") {
            return Self::lasting(format!("`{address}` is refused: its host key is revoked"));
        }
        if has("Host key verification failed") {
            return Self::lasting(format!(
                "`{address}` is refused: its host key is not known; check its fingerprint and make it known, for example by `ssh {}` from here",
                by_hand(address)
            ));
        }
        for denial in [
            "Permission denied",
            "Too many authentication failures",
            "No more authentication methods",
        ] {
            if has(denial) {
                return Self::lasting(format!(
                    "`{address}` does not let this user in: {}",
                    line(denial)
                ));
            }
        }
        for mistake in [
            "Bad configuration option",
            "Bad owner or permissions",
            "terminating, ",
            "command-line line",
            "Bad port",
        ] {
            if has(mistake) {
                return Self::lasting(format!("ssh cannot be used as it is: {}", line(mistake)));
            }
        }
        let last = said
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty());
        Self::passing(last.map_or_else(
            || "ssh ended without a word".to_owned(),
            |line| line.trim_start_matches("ssh: ").to_owned(),
        ))
    }
}

/// How a person connects.
fn by_hand(address: &SshAddress) -> String {
    let mut words = String::new();
    if let Some(port) = address.port {
        words.push_str(&format!("-p {port} "));
    }
    if let Some(user) = &address.user {
        words.push_str(&format!("{user}@"));
    }
    words + &address.host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(said: &str, outlook: Outlook, reason: &str) {
        let address = SshAddress::parse("ssh://deploy@web-1:2222").unwrap();
        let trouble = Trouble::of_client(&address, said);
        assert_eq!(trouble.outlook, outlook, "{}", trouble.reason);
        assert_eq!(trouble.reason, reason);
    }

    #[test]
    fn what_somebody_has_to_change_is_not_tried_again() {
        check(
            "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@\nAdd correct host key in /h/k to get rid of this message.\nOffending ED25519 key in /h/k:3\nHost key verification failed.\r\n",
            Outlook::Lasting,
            "`ssh://deploy@web-1:2222` is refused: its host key is not the one that is known (known: ED25519 key in /h/k:3); find out why before you remove the known one",
        );
        check(
            "No ED25519 host key is known for web-1 and you have requested strict checking.\r\nHost key verification failed.\r\n",
            Outlook::Lasting,
            "`ssh://deploy@web-1:2222` is refused: its host key is not known; check its fingerprint and make it known, for example by `ssh -p 2222 deploy@web-1` from here",
        );
        check(
            "deploy@web-1: Permission denied (publickey).\r\n",
            Outlook::Lasting,
            "`ssh://deploy@web-1:2222` does not let this user in: deploy@web-1: Permission denied (publickey).",
        );
        check(
            "/h/config: line 1: Bad configuration option: colour\r\n/h/config: terminating, 1 bad configuration options\r\n",
            Outlook::Lasting,
            "ssh cannot be used as it is: /h/config: line 1: Bad configuration option: colour",
        );
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for (said, reason) in [
            (
                "ssh: connect to host web-1 port 2222: Connection refused\r\n",
                "connect to host web-1 port 2222: Connection refused",
            ),
            (
                "ssh: connect to host web-1 port 2222: Connection timed out\r\n",
                "connect to host web-1 port 2222: Connection timed out",
            ),
            (
                "ssh: connect to host web-1 port 2222: No route to host\r\n",
                "connect to host web-1 port 2222: No route to host",
            ),
            (
                "kex_exchange_identification: Connection closed by remote host\r\nConnection closed by 10.0.0.2 port 2222\r\n",
                "Connection closed by 10.0.0.2 port 2222",
            ),
            ("", "ssh ended without a word"),
        ] {
            check(said, Outlook::Passing, reason);
        }
    }
}
