//! How a script ended, as logs and messages say it.

use std::time::Duration;

use rustix::process::WaitStatus;

use crate::protocol::Cause;
use crate::shim::Failure;

/// How a script ended.
#[derive(Debug)]
pub(crate) enum End {
    /// By itself, or by a signal that the agent did not send.
    Exited(WaitStatus),
    /// It took too long.
    TimedOut {
        /// How many of its processes outlived being killed.
        left: usize,
    },
    /// It exited with 0, and others kept its output open.
    LeftOpen {
        /// Who they are, as far as can be seen.
        holders: Vec<String>,
    },
}

impl End {
    /// The end of the line in the log.
    pub(crate) fn mark(&self) -> String {
        match self {
            End::Exited(status) => match status.terminating_signal() {
                Some(signal) => format!("killed by {}", signal_name(signal)),
                None => format!("exit {}", status.exit_status().unwrap_or_default()),
            },
            End::TimedOut { .. } => "timed out".to_owned(),
            End::LeftOpen { .. } => "exit 0, output left open".to_owned(),
        }
    }

    /// What is wrong with it, if anything is.
    pub(crate) fn failure(&self, title: &str, timeout: Duration) -> Option<Failure> {
        match self {
            End::Exited(status) => match (status.exit_status(), status.terminating_signal()) {
                (Some(0), _) => None,
                (Some(code), _) => {
                    let reason = format!("`{title}` exited with {code}");
                    Some(Failure {
                        exit_code: Some(code),
                        ..Failure::new(Cause::ScriptFailed, reason)
                    })
                }
                (None, signal) => {
                    let signal = signal_name(signal.unwrap_or_default());
                    Some(Failure::new(
                        Cause::ScriptFailed,
                        format!("`{title}` was killed by {signal}"),
                    ))
                }
            },
            End::TimedOut { left } => {
                let mut reason = format!(
                    "`{title}` was ended because it took longer than {}",
                    spoken(timeout)
                );
                if *left > 0 {
                    reason.push_str(&format!(", and {left} of its processes cannot be killed"));
                }
                Some(Failure::new(Cause::TimedOut, reason))
            }
            End::LeftOpen { holders } => {
                let by = match holders.as_slice() {
                    [] => "a process that cannot be seen still holds".to_owned(),
                    [holder] => format!("process {holder} still holds"),
                    holders => format!("processes {} still hold", holders.join(", ")),
                };
                let reason = format!(
                    "`{title}` exited with 0 but {by} its output; let it write to a file or /dev/null"
                );
                Some(Failure {
                    exit_code: Some(0),
                    ..Failure::new(Cause::OutputsLeftOpen, reason)
                })
            }
        }
    }
}

/// A duration as an operator would write it.
fn spoken(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// The names of signals 1 to 31.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

pub(crate) fn signal_name(number: i32) -> String {
    let name = usize::try_from(number - 1)
        .ok()
        .and_then(|index| SIGNALS.get(index));
    match name {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_names() {
        let named = [
            (libc::SIGHUP, "SIGHUP"),
            (libc::SIGSEGV, "SIGSEGV"),
            (libc::SIGTERM, "SIGTERM"),
            (libc::SIGXFSZ, "SIGXFSZ"),
            (libc::SIGSYS, "SIGSYS"),
            (0, "signal 0"),
            (34, "signal 34"),
        ];
        for (number, name) in named {
            assert_eq!(signal_name(number), name);
        }
    }

    #[test]
    fn durations_are_short() {
        assert_eq!(spoken(Duration::from_secs(90)), "90s");
        assert_eq!(spoken(Duration::from_millis(1_500)), "1500ms");
    }
}
