//! The line in front of an instance: the attempts of an application's group are carried out one at a time, and of those
//! that wait only the one that was asked for last.
//!
//! A host that was cut off goes on with what it was given. Its conductor may have given that up, and asks for something
//! else when the host is back: that waits until the other has ended, and whatever waited before it does not begin any
//! more. `ROOTDIR/.cutover/fences/APPLICATION/GROUP.asked` names the attempt that was asked for last, and whoever works
//! holds a lock on `GROUP.work`, which names the attempt. Neither needs to outlive the host: nothing waits after that.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::attempt::{self, Attempt};
use crate::control_group;
use crate::fences::Shelf;
use crate::protocol::Run;

/// The longest attempt id, in bytes, with some room.
const MAX_ID: usize = 256;

/// How an attempt comes out of the line.
pub(crate) enum Place {
    /// It is the only one that works until this is dropped.
    First(Option<File>),
    /// This attempt was asked for after it, so it must not begin any more.
    Passed(String),
}

/// Takes note of the attempt that is asked for. Whoever calls holds the turn of the group.
pub(crate) fn ask(run: &Run) -> io::Result<()> {
    let Some(shelf) = Shelf::of(run) else {
        return Ok(());
    };
    let file = open(&shelf, &shelf.file("asked"))?;
    write(&file, &run.attempt)
}

/// Whether something else has been asked for since a command was.
pub(crate) fn is_passed(run: &Run) -> bool {
    let asked = Shelf::of(run).and_then(|shelf| fs::read(shelf.file("asked")).ok());
    asked
        .and_then(|asked| attempt_in(&asked))
        .is_some_and(|asked| asked != run.attempt)
}

/// Waits until nobody else works on the group. `wait` is told once, and only if there is somebody, who that is.
pub(crate) fn queue(run: &Run, wait: impl FnOnce(&str)) -> io::Result<Place> {
    let Some(shelf) = Shelf::of(run) else {
        return Ok(Place::First(None));
    };
    let work = open(&shelf, &shelf.file("work"))?;
    if !lock(&work, FlockOperation::NonBlockingLockExclusive)? {
        wait(&read(&work));
        lock(&work, FlockOperation::LockExclusive)?;
        let asked = fs::read(shelf.file("asked")).unwrap_or_default();
        match attempt_in(&asked) {
            Some(asked) if asked != run.attempt => return Ok(Place::Passed(asked)),
            _ => {}
        }
    }
    let before = read(&work);
    if before != run.attempt {
        end_remains(run, &before);
        write(&work, &run.attempt)?;
    }
    Ok(Place::First(Some(work)))
}

/// Ends what an attempt has left running whose worker was killed.
fn end_remains(run: &Run, before: &str) {
    if let Ok(attempt) = Attempt::at(&run.rootdir, before)
        && !attempt.has_ended()
        && let Some(groups) = attempt.groups()
    {
        control_group::end_remains(&groups);
    }
}

fn open(shelf: &Shelf, path: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    };
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            shelf.make()?;
            open()
        }
        opened => opened,
    }
}

/// Whether the lock was taken; one that is waited for always is.
fn lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Replaces the id in a file by one write, so that whoever reads finds one or the other.
fn write(file: &File, id: &str) -> io::Result<()> {
    let mut line = [b' '; MAX_ID];
    let id = id.as_bytes();
    let length = id.len().min(MAX_ID);
    line[..length].copy_from_slice(&id[..length]);
    file.write_all_at(&line, 0)
}

fn read(file: &File) -> String {
    let mut line = [0; MAX_ID];
    let length = file.read_at(&mut line, 0).unwrap_or_default();
    attempt_in(&line[..length]).unwrap_or_default()
}

/// The id that a file holds, if it holds one: the host may have gone down when it was written.
fn attempt_in(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    attempt::is_name(text).then(|| text.to_owned())
}
