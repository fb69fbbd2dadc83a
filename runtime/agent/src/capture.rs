//! The log of an attempt: what its scripts wrote, with bounds.
//!
//! The log is UTF-8 whatever a script writes, so that a position in it means the same to everybody who reads it as
//! text. A line longer than [`MAX_LINE`] is cut, and so is everything after [`MAX_OUTPUT`]; what is cut is still read,
//! so that no script ever blocks on it.

use std::fs::File;
use std::io::Write;

/// The most output kept of one attempt, in bytes.
pub(crate) const MAX_OUTPUT: u64 = 4 << 20;

/// The most kept of one line, in bytes.
pub(crate) const MAX_LINE: usize = 16 << 10;

/// The most of a line that is quoted in a reason, in characters.
const MAX_QUOTE: usize = 200;

/// Writes an attempt's log.
pub(crate) struct Capture {
    file: File,
    /// Taken but not written yet.
    pending: Vec<u8>,
    /// How much of the scripts' output has been kept.
    kept: u64,
    /// The bytes of a character whose end has not been read yet.
    carry: Vec<u8>,
    /// How much of the current line has been kept.
    column: usize,
    line_is_cut: bool,
    output_is_cut: bool,
    /// The current line as far as it can be quoted.
    line: String,
    /// The last line that is not blank, as far as it can be quoted.
    last_line: String,
}

impl Capture {
    /// Writes into a fresh file.
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            pending: Vec::new(),
            kept: 0,
            carry: Vec::new(),
            column: 0,
            line_is_cut: false,
            output_is_cut: false,
            line: String::new(),
            last_line: String::new(),
        }
    }

    /// Takes a line of the agent's own. It forgets the quotable output before it, is not cut, and is written with what
    /// follows or by [`Capture::flush`].
    pub(crate) fn say(&mut self, line: &str) {
        self.finish_line();
        self.last_line.clear();
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
    }

    /// Takes output and writes it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let joined;
        let bytes = if self.carry.is_empty() {
            bytes
        } else {
            joined = [std::mem::take(&mut self.carry).as_slice(), bytes].concat();
            &joined
        };
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.text(chunk.valid());
            let broken = chunk.invalid();
            if chunks.peek().is_none() && is_unfinished(broken) {
                self.carry.extend_from_slice(broken);
            } else if !broken.is_empty() {
                self.text("\u{fffd}");
            }
        }
        self.flush();
    }

    /// Whether lines have been taken that are not written yet.
    pub(crate) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes what has been taken.
    pub(crate) fn flush(&mut self) {
        // A full disk costs the log, not the release: the script's own outcome still counts.
        let _ = self.file.write_all(&self.pending);
        self.pending.clear();
    }

    /// The last line that is not blank since the agent's own, as far as it can be quoted.
    pub(crate) fn last_line(&self) -> Option<&str> {
        let open = self.line.trim();
        let last = if open.is_empty() {
            self.last_line.as_str()
        } else {
            open
        };
        Some(last).filter(|line| !line.is_empty())
    }

    fn text(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            let line = piece.strip_suffix('\n').unwrap_or(piece);
            self.quote(line);
            self.keep(line);
            if line.len() < piece.len() {
                self.end_line();
            }
        }
    }

    fn quote(&mut self, line: &str) {
        let room = MAX_QUOTE.saturating_sub(self.line.chars().count());
        let visible = if self.line.is_empty() {
            line.trim_start()
        } else {
            line
        };
        self.line
            .extend(visible.chars().filter(|c| !c.is_control()).take(room));
    }

    fn keep(&mut self, line: &str) {
        if self.output_is_cut || self.line_is_cut {
            return;
        }
        let end = line.floor_char_boundary(MAX_LINE.saturating_sub(self.column));
        let (kept, cut) = line.split_at(end);
        if self.kept + kept.len() as u64 + 1 > MAX_OUTPUT {
            self.output_is_cut = true;
            if self.column > 0 {
                self.pending.push(b'\n');
            }
            self.column = 0;
            let notice = format!(
                "[output is cut here: {} MiB are kept of an attempt]\n",
                MAX_OUTPUT >> 20
            );
            self.pending.extend_from_slice(notice.as_bytes());
            return;
        }
        self.pending.extend_from_slice(kept.as_bytes());
        self.column += kept.len();
        self.kept += kept.len() as u64;
        if !cut.is_empty() {
            self.line_is_cut = true;
            let notice = format!(
                " [line is cut here: {} KiB are kept of a line]",
                MAX_LINE >> 10
            );
            self.pending.extend_from_slice(notice.as_bytes());
        }
    }

    fn end_line(&mut self) {
        if !self.output_is_cut {
            self.pending.push(b'\n');
            self.kept += 1;
        }
        self.column = 0;
        self.line_is_cut = false;
        if !self.line.trim().is_empty() {
            self.last_line = self.line.trim_end().to_owned();
        }
        self.line.clear();
    }

    fn finish_line(&mut self) {
        if !self.carry.is_empty() {
            self.carry.clear();
            self.text("\u{fffd}");
        }
        if self.column > 0 || self.line_is_cut {
            self.end_line();
        }
        self.line.clear();
    }
}

/// Whether bytes are the beginning of a character rather than none at all.
fn is_unfinished(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    fn log(steps: impl FnOnce(&mut Capture)) -> (String, Option<String>) {
        let mut file = tempfile::tempfile().unwrap();
        let mut capture = Capture::new(file.try_clone().unwrap());
        steps(&mut capture);
        let last = capture.last_line().map(str::to_owned);
        capture.say("<== end");
        capture.flush();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        (text, last)
    }

    #[test]
    fn output_is_kept_as_it_is() {
        let (text, last) = log(|capture| {
            capture.say("==> a");
            capture.feed(b"one\n\ntw");
            capture.feed(b"o");
        });

        assert_eq!(text, "==> a\none\n\ntwo\n<== end\n");
        assert_eq!(last.as_deref(), Some("two"));
    }

    #[test]
    fn a_character_split_between_reads_is_one_character_and_garbage_is_replaced() {
        let (text, last) = log(|capture| {
            capture.feed(b"\xe6\x89");
            capture.feed(b"\xa7!\n\xff\xfe\n\xe6");
        });

        assert_eq!(text, "执!\n\u{fffd}\u{fffd}\n\u{fffd}\n<== end\n");
        assert_eq!(last.as_deref(), Some("\u{fffd}\u{fffd}"));
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let (text, last) = log(|capture| {
            for _ in 0..5 {
                capture.feed(&[b'x'; 10_000]);
            }
            capture.feed(b"\nshort\n");
        });

        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with(&"x".repeat(MAX_LINE))
                && lines[0].ends_with("[line is cut here: 16 KiB are kept of a line]")
        );
        assert_eq!(&lines[1..], ["short", "<== end"]);
        assert_eq!(last.as_deref(), Some("short"));
    }

    #[test]
    fn the_whole_is_bounded_but_the_last_line_is_still_known() {
        let (text, last) = log(|capture| {
            for number in 0..600_000 {
                capture.feed(format!("line {number}\n").as_bytes());
            }
        });

        assert!(text.len() as u64 <= MAX_OUTPUT + 200, "{}", text.len());
        assert!(text.ends_with("\n[output is cut here: 4 MiB are kept of an attempt]\n<== end\n"));
        assert_eq!(last.as_deref(), Some("line 599999"));
    }

    #[test]
    fn quotes_are_short_and_printable() {
        let (_, last) =
            log(|capture| capture.feed(format!("\x1b[31m{}\n  \n", "é".repeat(300)).as_bytes()));

        assert_eq!(last.map(|line| line.chars().count()), Some(200));
    }
}
