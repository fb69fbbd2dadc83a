//! One front at a time for each conductor: the agent of a fresh connection ends the one of the connection before.
//!
//! A host that was cut off does not know that its connection broke, so the agent at this end of it may wait for hours,
//! and hold back the worker that it has made ready. The conductor gives every agent that it starts on a host the same
//! word; whoever comes with it succeeds whoever came with it before. Nothing is lost by that: an agent holds no work.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::attempt;

/// How long the one before may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

const PREFIX: &str = "front-";

/// Succeeds the agent that came with the same word, and is in charge as long as the result is held. Its file is in this
/// folder.
///
/// # Errors
/// When the folder cannot be written to, the word is not one, or the one before does not end.
pub fn succeed(folder: &Path, word: &str) -> io::Result<File> {
    if !attempt::is_name(word) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let name = format!("{PREFIX}{word}");
    remove_others(folder, &name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(name))?;
    let begun = Instant::now();
    while let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if errno != Errno::WOULDBLOCK || begun.elapsed() > PATIENCE {
            return Err(errno.into());
        }
        if let Some(holder) = holder(&file) {
            // It may have ended since.
            let _ = kill_process(holder, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    file.set_len(0)?;
    file.write_all_at(std::process::id().to_string().as_bytes(), 0)?;
    Ok(file)
}

/// Removes the files of agents that have ended.
fn remove_others(folder: &Path, own: &str) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(PREFIX) || name == own {
            continue;
        }
        let is_free = File::open(entry.path())
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if is_free {
            // One that stays is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The process that wrote its number into a file whose lock it holds.
pub(crate) fn holder(lock: &File) -> Option<Pid> {
    let mut text = [0; 16];
    let length = lock.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_agents_that_have_ended_goes() {
        let folder = tempfile::tempdir().unwrap();
        drop(succeed(folder.path(), "one").unwrap());
        let two = succeed(folder.path(), "two").unwrap();

        let _three = succeed(folder.path(), "three").unwrap();

        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["front-three", "front-two"]);
        drop(two);
        assert!(succeed(folder.path(), "../x").is_err());
    }
}
