//! How much memory processes have.
//!
//! A control group can only be given a limit where its parent has handed the controller down, which a parent with
//! processes of its own cannot. So the processes are looked at, which every kernel and every account can do.

use std::collections::BTreeSet;
use std::fs;

use crate::descendants::Process;

/// The memory that processes have together, in bytes, where it is more than a limit.
pub(super) fn over(processes: &BTreeSet<Process>, limit: u64) -> Option<u64> {
    // What is resident counts shared pages once for each process, and costs next to nothing to ask for.
    if sum(processes, "status", "VmRSS:") <= limit {
        return None;
    }
    let bytes = sum(processes, "smaps_rollup", "Pss:");
    (bytes > limit).then_some(bytes)
}

/// The sum of a field of all processes, which the kernel gives in units of 1024 bytes. One that has ended has nothing.
fn sum(processes: &BTreeSet<Process>, file: &str, field: &str) -> u64 {
    let of = |process: &Process| {
        let text = fs::read_to_string(format!("/proc/{}/{file}", process.pid())).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix(field))?;
        let number: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
        number.checked_mul(1024)
    };
    processes.iter().filter_map(of).sum()
}
