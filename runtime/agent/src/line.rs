//! The line in front of an instance: the attempts of an application's group are carried out one at a time, and of those
//! that wait only the one that was asked for last.
//!
//! A host that was cut off goes on with what it was given. Its conductor may have given that up, and asks for something
//! else when the host is back: that waits until the other has ended, and whatever waited before it does not begin any
//! more. `ROOTDIR/.cutover/fences/APPLICATION/GROUP.asked` names the attempt that was asked for last, and whoever works
//! holds a lock on `GROUP.work`, which names the attempt. Neither needs to outlive the host: nothing waits after that.
//!
//! An attempt that followed another one by itself stands in `GROUP.asked` as if it had been asked for, with the other one
//! behind it until somebody does ask for it: so long nobody is known to have the other one's outcome.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::attempt::{self, Attempt};
use crate::control_group;
use crate::fences::Shelf;
use crate::protocol::Run;
use crate::small;

/// The longest line, in bytes: two attempt ids, with some room.
const MAX_LINE: usize = 512;

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

/// Takes note of an attempt that follows another one by itself, unless something else has been asked for since; answers
/// whether it may. Whoever calls holds the turn of the group.
pub(crate) fn follow(run: &Run, before: &str) -> io::Result<bool> {
    let Some(shelf) = Shelf::of(run) else {
        return Ok(false);
    };
    let file = open(&shelf, &shelf.file("asked"))?;
    let is_last = read(&file).is_some_and(|asked| asked.attempt == before);
    if is_last {
        write(&file, &format!("{} {before}", run.attempt))?;
    }
    Ok(is_last)
}

/// Whether something else has been asked for since a command was, so that its outcome is known.
pub(crate) fn is_passed(run: &Run) -> bool {
    let asked = Shelf::of(run).and_then(|shelf| small::read(&shelf.file("asked")).ok());
    asked
        .and_then(|asked| line_in(&asked))
        .is_some_and(|asked| asked.attempt != run.attempt && asked.after != run.attempt)
}

/// Waits until nobody else works on the group. `wait` is told once, and only if there is somebody, who that is.
pub(crate) fn queue(run: &Run, wait: impl FnOnce(&str)) -> io::Result<Place> {
    let Some(shelf) = Shelf::of(run) else {
        return Ok(Place::First(None));
    };
    let work = open(&shelf, &shelf.file("work"))?;
    if !lock(&work, FlockOperation::NonBlockingLockExclusive)? {
        wait(&worker(&work));
        lock(&work, FlockOperation::LockExclusive)?;
        let asked = small::read(&shelf.file("asked")).unwrap_or_default();
        match line_in(&asked) {
            Some(asked) if asked.attempt != run.attempt => {
                return Ok(Place::Passed(asked.attempt));
            }
            _ => {}
        }
    }
    let before = worker(&work);
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

/// What a file of the line holds.
struct Line {
    attempt: String,
    /// The attempt that it followed by itself; empty when it was asked for.
    after: String,
}

/// Replaces the text of a file by one write, so that whoever reads finds one or the other.
fn write(file: &File, text: &str) -> io::Result<()> {
    let mut line = [b' '; MAX_LINE];
    let text = text.as_bytes();
    let length = text.len().min(MAX_LINE);
    line[..length].copy_from_slice(&text[..length]);
    file.write_all_at(&line, 0)
}

fn read(file: &File) -> Option<Line> {
    let mut line = [0; MAX_LINE];
    let length = file.read_at(&mut line, 0).ok()?;
    line_in(&line[..length])
}

/// The attempt that works, or the last one that did.
fn worker(work: &File) -> String {
    read(work).map(|line| line.attempt).unwrap_or_default()
}

/// What a text says, if it says something: the host may have gone down when it was written.
fn line_in(text: &[u8]) -> Option<Line> {
    let text = std::str::from_utf8(text).ok()?.trim_end();
    let (attempt, after) = text.split_once(' ').unwrap_or((text, ""));
    attempt::is_name(attempt).then(|| Line {
        attempt: attempt.to_owned(),
        after: after.to_owned(),
    })
}
