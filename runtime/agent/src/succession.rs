//! One front at a time for each conductor: the agent of a fresh connection ends the one of the connection before.
//!
//! A host that was cut off does not know that its connection broke, so the agent at this end of it may wait for hours,
//! and hold back the worker that it has made ready. The conductor gives every agent that it starts on a host the same
//! word; whoever comes with it succeeds whoever came with it before. Nothing is lost by that: an agent holds no work.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
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
    let path = folder.join(name);
    let begun = Instant::now();
    let mut is_held = false;
    let file = loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // An agent with another word may have removed it before it was locked.
            Ok(()) if is_at(&file, &path) => break file,
            Ok(()) => continue,
            Err(Errno::WOULDBLOCK) if begun.elapsed() < PATIENCE => {}
            Err(errno) => return Err(errno.into()),
        }
        // Who tidies up has it for a moment, when the number in it may be somebody else's by now.
        if let Some(holder) = holder(&file).filter(|_| is_held) {
            // It may have ended since.
            let _ = kill_process(holder, Signal::KILL);
        }
        is_held = true;
        std::thread::sleep(Duration::from_millis(5));
    };
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
        // The lock is held until the name is gone: whoever locks the file after that sees that it has none.
        if let Ok(file) = File::open(entry.path())
            && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && is_at(&file, &entry.path())
        {
            // One that stays is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether an open file is the one that has this name.
fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => place(open) == place(named),
        _ => false,
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_word_keeps_its_file_while_others_tidy_up() {
        let folder = tempfile::tempdir().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for word in ["front-one", "front-two"] {
                let (folder, is_over) = (folder.path(), &is_over);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        remove_others(folder, word);
                    }
                });
            }
            let mine = folder.path().join("front-mine");
            let kept = (0..1000).all(|_| {
                let file = succeed(folder.path(), "mine").unwrap();
                // The next one would take this process for the one before it.
                file.set_len(0).unwrap();
                is_at(&file, &mine)
            });
            is_over.store(true, Ordering::Relaxed);
            assert!(kept);
        });
    }

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
