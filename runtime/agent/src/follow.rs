//! Following an attempt: its log as it grows.

use std::fs::File;

use rustix::buffer::spare_capacity;
use rustix::io::pread;

use crate::attempt::Attempt;
use crate::protocol::{Outcome, Run};

/// The most of a log that one message carries, in bytes.
const MAX_CHUNK: usize = 32 << 10;

/// An attempt that somebody on the connection waits for.
pub(crate) struct Follow {
    pub(crate) attempt: Attempt,
    pub(crate) run: Run,
    /// The inotify watch on its folder.
    pub(crate) watch: i32,
    /// How many times this agent has started a worker for it.
    pub(crate) launches: u32,
    /// What was found of it last.
    pub(crate) outcome: Option<Outcome>,
    is_told_to_wait: bool,
    log: Option<File>,
    offset: u64,
}

impl Follow {
    pub(crate) fn new(attempt: Attempt, run: Run, watch: i32) -> Self {
        Self {
            attempt,
            offset: run.log_from,
            run,
            watch,
            launches: 0,
            outcome: None,
            is_told_to_wait: false,
            log: None,
        }
    }

    /// Looks for the outcome, unless it was found before.
    pub(crate) fn look_for_outcome(&mut self) {
        if self.outcome.is_none() {
            self.outcome = self.attempt.outcome();
        }
    }

    /// What the attempt waits for, if that has not been handed out and it still does.
    pub(crate) fn next_wait(&mut self) -> Option<String> {
        if self.is_told_to_wait || self.has_log() {
            return None;
        }
        let what = self.attempt.waited_for()?;
        self.is_told_to_wait = true;
        Some(what)
    }

    /// Whether there is a log, which is opened then.
    fn has_log(&mut self) -> bool {
        if self.log.is_none() {
            self.log = File::open(self.attempt.log()).ok();
        }
        self.log.is_some()
    }

    /// The next part of the log that has not been handed out, with its position. A log that cannot be read has none:
    /// the outcome counts without it.
    pub(crate) fn next_chunk(&mut self) -> Option<(u64, String)> {
        self.has_log();
        let mut bytes = Vec::with_capacity(MAX_CHUNK);
        pread(self.log.as_ref()?, spare_capacity(&mut bytes), self.offset).ok()?;
        if bytes.is_empty() {
            return None;
        }
        let text = whole_characters(bytes);
        let at = self.offset;
        self.offset += text.len() as u64;
        Some((at, text))
    }
}

/// The text up to the last whole character. A byte that belongs to none, which a log does not have unless somebody
/// else wrote into it, becomes a `?`, so that positions in the text stay positions in the file.
fn whole_characters(mut bytes: Vec<u8>) -> String {
    let mut from = 0;
    while let Err(error) = std::str::from_utf8(&bytes[from..]) {
        let bad = from + error.valid_up_to();
        if error.error_len().is_none() && bad > 0 {
            bytes.truncate(bad);
            break;
        }
        bytes[bad] = b'?';
        from = bad + 1;
    }
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_ends_with_a_whole_character_and_keeps_positions() {
        assert_eq!(whole_characters(b"abc".to_vec()), "abc");
        assert_eq!(whole_characters("ab执".as_bytes()[..4].to_vec()), "ab");
        assert_eq!(whole_characters("执b".as_bytes()[1..].to_vec()), "??b");
        assert_eq!(whole_characters(b"\xe6".to_vec()), "?");
        assert_eq!(whole_characters(b"a\xffb\xff\xe6\x89".to_vec()), "a?b?");
    }
}
