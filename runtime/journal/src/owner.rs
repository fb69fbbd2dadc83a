//! Who drives a release: a process, named so exactly that its death can be told from its absence.

use std::fmt;
use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// A process that may own releases.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    pub host: String,
    /// The kernel's boot id and the process's pid namespace: together they say what `pid` means.
    pub boot_id: String,
    pub pid: u32,
    /// Start of the process in clock ticks since boot, so that a pid that is used again is not taken for it.
    pub process_start: u64,
    /// Who it works for, `user@host`.
    pub name: String,
}

impl Owner {
    /// The process that calls.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub fn current() -> io::Result<Self> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname")?
            .trim()
            .to_owned();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        // Containers share the boot id of their machine, but each counts its processes for itself.
        let namespace = fs::read_link("/proc/self/ns/pid")?;
        let stat = Stat::parse(&fs::read_to_string("/proc/self/stat")?)?;
        let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
        let user = user.unwrap_or_else(|_| rustix::process::getuid().as_raw().to_string());
        Ok(Self {
            name: format!("{user}@{host}"),
            host,
            boot_id: format!("{} {}", boot.trim(), namespace.display()),
            pid: std::process::id(),
            process_start: stat.start,
        })
    }

    /// Whether the process is certainly gone: it ran here, since this boot, and is not running.
    ///
    /// False means "cannot tell" as often as "alive".
    #[must_use]
    pub fn is_known_dead(&self) -> bool {
        let Ok(here) = Self::current() else {
            return false;
        };
        if self.host != here.host || self.boot_id != here.boot_id {
            return false;
        }
        match fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Ok(text) => Stat::parse(&text)
                .is_ok_and(|stat| stat.start != self.process_start || stat.has_exited()),
            // `/proc` may hide the processes of other accounts, so its silence is not proof.
            Err(_) => i32::try_from(self.pid)
                .ok()
                .and_then(Pid::from_raw)
                .is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH)),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, process {} on {}", self.name, self.pid, self.host)
    }
}

/// The two fields of `/proc/PID/stat` that matter here.
struct Stat {
    state: char,
    start: u64,
}

impl Stat {
    fn parse(text: &str) -> io::Result<Self> {
        let broken = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "unexpected content of `/proc/PID/stat`",
            )
        };
        // The second field is the program's name in brackets, and may itself hold spaces and brackets.
        let (_, rest) = text.rsplit_once(')').ok_or_else(broken)?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields
            .next()
            .and_then(|field| field.chars().next())
            .ok_or_else(broken)?;
        // Field 22 of the line; `state` was field 3.
        let start = fields
            .nth(18)
            .and_then(|field| field.parse().ok())
            .ok_or_else(broken)?;
        Ok(Self { state, start })
    }

    /// Whether only its parent's question is missing.
    fn has_exited(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_program_name_with_brackets_does_not_shift_the_fields() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 98765 10 20";

        let stat = Stat::parse(line).unwrap();

        assert_eq!((stat.state, stat.start), ('S', 98765));
    }

    #[test]
    fn only_a_process_of_this_boot_can_be_known_dead() {
        let me = Owner::current().unwrap();
        let gone = Owner {
            process_start: me.process_start + 1,
            ..me.clone()
        };
        let elsewhere = Owner {
            host: "elsewhere".into(),
            ..gone.clone()
        };
        let before_boot = Owner {
            boot_id: "another".into(),
            ..gone.clone()
        };

        assert!(!me.is_known_dead());
        assert!(gone.is_known_dead());
        assert!(!elsewhere.is_known_dead());
        assert!(!before_boot.is_known_dead());
    }

    #[test]
    fn a_killed_process_is_dead_before_and_after_it_is_reaped() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stat = Stat::parse(&fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap())
            .unwrap();
        let owner = Owner {
            pid: child.id(),
            process_start: stat.start,
            ..Owner::current().unwrap()
        };
        let was_dead_while_alive = owner.is_known_dead();

        child.kill().unwrap();
        let pid = Pid::from_child(&child);
        let options =
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        let dead_unreaped = owner.is_known_dead();
        child.wait().unwrap();

        assert!(!was_dead_while_alive);
        assert!(dead_unreaped);
        assert!(owner.is_known_dead());
    }
}
