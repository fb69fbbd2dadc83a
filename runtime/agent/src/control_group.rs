//! Control groups: where the kernel keeps what a script started together, whatever becomes of sessions and parents.
//!
//! A script starts in a group of its own where the agent's own group is one of the unified hierarchy (version 2) in
//! which it may make others. Killing such a group is one step that nothing in it can get out of. Elsewhere, and for
//! whatever was moved out of the group, [`crate::descendants`] has to do.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};
#[cfg(feature = "confine")]
use rustix::process::Pid;
use rustix::rand::{GetRandomFlags, getrandom};

/// What the names of the agent's groups begin with.
const PREFIX: &str = "cutover-";

/// The longest beginning of a job's name that a group's name has, in bytes.
#[cfg(feature = "confine")]
const MAX_JOB: usize = 150;

/// How deep below a group its processes are looked for.
const MAX_DEPTH: usize = 8;

/// A group that a script started in. It is removed when it is dropped, unless something lives in it.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    dir: PathBuf,
    folder: File,
}

/// The names of a worker's groups. `nonce` makes them different from those of every other worker on this host.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    nonce: String,
    stem: String,
}

impl Names {
    pub(crate) fn new(nonce: &str) -> Self {
        Self {
            nonce: nonce.to_owned(),
            stem: format!("{PREFIX}{nonce}-"),
        }
    }

    /// The names of the groups of a job that a process carries out.
    #[cfg(feature = "confine")]
    pub(crate) fn of_job(job: &str, process: Pid) -> Self {
        let job = &job[..job.floor_char_boundary(MAX_JOB)];
        Self::new(&format!("{job}-{}", process.as_raw_nonzero()))
    }

    /// Names that nobody else has.
    pub(crate) fn unique() -> io::Result<Self> {
        let mut nonce = [0; 8];
        getrandom(&mut nonce, GetRandomFlags::empty())?;
        Ok(Self::new(&format!("{:016x}", u64::from_ne_bytes(nonce))))
    }

    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// The agent's own group, where it is one that others can be made in. Looked for once.
fn base() -> Option<&'static Path> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    BASE.get_or_init(|| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        unified(&mounts, &own)
    })
    .as_deref()
}

/// Where a process is in the unified hierarchy, as `/proc/self/mountinfo` and `/proc/self/cgroup` tell.
fn unified(mounts: &str, own: &str) -> Option<PathBuf> {
    let own = Path::new(own.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = place.split(' ').skip(3);
        let (root, mounted_at) = (fields.next()?, fields.next()?);
        let below = own.strip_prefix(root).ok()?;
        Some(Path::new(&unescaped(mounted_at)).join(below))
    })
}

/// A path of `/proc/self/mountinfo`, which writes blanks and the like as `\` and three octal digits.
fn unescaped(path: &str) -> String {
    let mut text = path.to_owned();
    for (escaped, plain) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        text = text.replace(escaped, plain);
    }
    text
}

/// Looks for the agent's own group and removes the groups in it that nothing lives in any more.
pub(crate) fn prepare() {
    for dir in groups(PREFIX) {
        // What is busy stays: a service, which a hook is there to start, or a hook at work. So does what a worker keeps
        // for its next script.
        if let Ok(folder) = File::open(&dir)
            && flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Ends what an attempt left behind whose worker was killed.
pub(crate) fn end_remains(names: &Names) {
    for dir in groups(&names.stem) {
        // It is empty, or was emptied and removed by somebody who looks after the same attempt.
        let _ = fs::write(dir.join("cgroup.kill"), "1");
        let _ = fs::remove_dir(dir);
    }
}

fn groups(stem: &str) -> Vec<PathBuf> {
    let entries = base().and_then(|base| fs::read_dir(base).ok());
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(stem))
        .map(|entry| entry.path())
        .collect()
}

impl ControlGroup {
    /// Makes a worker's group with this number, where that is possible.
    pub(crate) fn make(names: &Names, number: usize) -> Option<Self> {
        let dir = base()?.join(format!("{}{number}", names.stem));
        // Somebody who tidies up may find it before it is locked.
        let group = taken(&dir).or_else(|_| taken(&dir)).map(|folder| Self {
            dir: dir.clone(),
            folder,
        });
        // What the kernel can do with one group it can do with all.
        static CAN_KILL: OnceLock<bool> = OnceLock::new();
        let can_kill = || *CAN_KILL.get_or_init(|| dir.join("cgroup.kill").exists());
        match group {
            Ok(group) if can_kill() => Some(group),
            // The kernel is too old to kill a group.
            _ => {
                let _ = fs::remove_dir(dir);
                None
            }
        }
    }

    /// Kills everything in it.
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.kill"), "1")
    }

    /// The processes in it and in the groups below it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        processes_below(&self.dir, MAX_DEPTH, &mut found);
        found
    }
}

/// Makes a group and locks it, so that nobody takes it for one that is left over.
fn taken(dir: &Path) -> io::Result<File> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let folder = File::open(dir)?;
    flock(&folder, FlockOperation::NonBlockingLockShared)?;
    // It may have gone in between.
    fs::metadata(dir)?;
    Ok(folder)
}

fn processes_below(dir: &Path, depth: usize, found: &mut Vec<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if depth > 0 {
            processes_below(&entry.path(), depth - 1, found);
        }
    }
}

impl AsFd for ControlGroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A service that lives in it keeps it; `prepare` finds it when that has ended.
        let _ = fs::remove_dir(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mounts: &str, own: &str, expected: Option<&str>) {
        assert_eq!(unified(mounts, own), expected.map(PathBuf::from));
    }

    #[test]
    fn the_unified_hierarchy_is_found_wherever_it_is_mounted() {
        let pure = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw";
        let agent = "9:name=systemd:/x\n0::/system.slice/cutover-agent.service\n";

        check(pure, "0::/\n", Some("/sys/fs/cgroup/"));
        check(
            pure,
            agent,
            Some("/sys/fs/cgroup/system.slice/cutover-agent.service"),
        );
        check(hybrid, "8:pids:/x\n0::/\n", Some("/sys/fs/cgroup/unified/"));
        check(
            "1 2 0:3 /pods/a /sys/fs/my\\040group rw - cgroup2 cgroup2 rw",
            "0::/pods/a/b\n",
            Some("/sys/fs/my group/b"),
        );
    }

    #[test]
    fn a_host_without_one_has_none() {
        check(
            "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
            "4:cpu:/\n",
            None,
        );
        check(
            "1 2 0:3 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "4:cpu:/\n",
            None,
        );
        check(
            "1 2 0:3 /pods/a /g rw - cgroup2 cgroup2 rw",
            "0::/../other\n",
            None,
        );
        check("", "0::/\n", None);
    }
}
