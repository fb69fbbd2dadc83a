//! The processes that a script started and who holds its output, as the control group and `/proc` tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid,
};

use crate::control_group::ControlGroup;

/// How many processes a message names.
const MAX_NAMED: usize = 5;

/// A process, told apart from a later one with the same number by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pid: i32,
    started: u64,
}

struct Stat {
    process: Process,
    parent: i32,
    is_dead: bool,
}

impl Process {
    #[cfg(feature = "confine")]
    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return;
        };
        // From here on the descriptor is the process; the look at its start makes sure that it is the one meant.
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
            && stat(self.pid).is_some_and(|stat| stat.process == self)
        {
            // It ended by itself in between, or has become another user's by a set-user-id program.
            let _ = pidfd_send_signal(pidfd, signal);
        }
    }
}

/// Everything that one script started.
pub(crate) struct Family<'a> {
    /// Descendants of this process that the script did not start.
    pub(crate) earlier: BTreeSet<Process>,
    /// Where the script started.
    pub(crate) group: Option<&'a ControlGroup>,
}

impl Family<'_> {
    /// Those that are alive.
    pub(crate) fn living(&self) -> BTreeSet<Process> {
        let mut found = descendants(&self.earlier);
        let members = self.group.map(ControlGroup::processes).unwrap_or_default();
        let members = members.into_iter().filter_map(stat);
        found.extend(
            members
                .filter(|stat| !stat.is_dead)
                .map(|stat| stat.process),
        );
        found
    }

    /// Asks all of them to end.
    pub(crate) fn terminate(&self) {
        for process in self.living() {
            process.signal(Signal::TERM);
        }
    }

    /// Kills all of them and says how many there were.
    pub(crate) fn kill(&self) -> usize {
        let processes = self.living();
        if let Some(group) = self.group {
            // Those that it does not reach are killed one by one.
            let _ = group.kill();
        }
        for process in &processes {
            process.signal(Signal::KILL);
        }
        processes.len()
    }
}

/// The living descendants of this process, without those in `except` and theirs.
///
/// INVARIANT: this process is the reaper of its descendants, so a process whose parent ended is found as its child.
pub(crate) fn descendants(except: &BTreeSet<Process>) -> BTreeSet<Process> {
    // Most scripts leave nothing behind, and one question to the kernel is cheaper than a look at every process.
    if !has_children() {
        return BTreeSet::new();
    }
    let mut children: BTreeMap<i32, Vec<Stat>> = BTreeMap::new();
    for pid in pids() {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(stat);
        }
    }
    let mut found = BTreeSet::new();
    let mut parents = vec![getpid().as_raw_pid()];
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            if except.contains(&child.process) {
                continue;
            }
            parents.push(child.process.pid);
            if !child.is_dead {
                found.insert(child.process);
            }
        }
    }
    found
}

/// Whether this process has children, dead ones that nobody has waited for included.
fn has_children() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, options), Err(Errno::CHILD))
}

/// The processes but this one that hold a pipe, as text for people.
pub(crate) fn holders_of_pipe(inode: u64) -> Vec<String> {
    let target = format!("pipe:[{inode}]");
    let own = getpid().as_raw_pid();
    let holds = |pid: &i32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        fds.into_iter()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(&target)))
    };
    let mut holders: Vec<String> = pids()
        .filter(|pid| *pid != own)
        .filter(holds)
        .map(|pid| format!("{pid} (`{}`)", command_line(pid)))
        .collect();
    if holders.len() > MAX_NAMED {
        let more = holders.len() - MAX_NAMED;
        holders.truncate(MAX_NAMED);
        holders.push(format!("{more} more"));
    }
    holders
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn stat(pid: i32) -> Option<Stat> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    // The second field is a name in parentheses, which may hold anything, parentheses and spaces included.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        process: Process { pid, started },
        parent,
        is_dead: matches!(state, "Z" | "X" | "x"),
    })
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    let text: String = text
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(80)
        .collect();
    if text.is_empty() {
        "?".to_owned()
    } else {
        text
    }
}
