//! The log of an attempt: what its scripts wrote, with bounds.
//!
//! The log is plain UTF-8 whatever a script writes, so that a position in it means the same to everybody who reads it
//! as text. A line longer than [`MAX_LINE`] is cut. The first [`HEAD`] bytes of an attempt go into the file at once;
//! of what comes after them the end of each script's output is kept in memory until the script has ended, and written
//! then. What is left out is still read, so that no script ever blocks on it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};

use crate::plain::Plain;

/// How much of an attempt's output is written as it comes, in bytes.
pub(crate) const HEAD: u64 = 3 << 20;

/// The most that is kept of the end of a longer output, in bytes.
pub(crate) const TAIL: usize = 1 << 20;

/// The most that the log of an attempt grows to, but for [`MIN_TAIL`] a script, in bytes.
pub(crate) const MAX_LOG: u64 = 8 << 20;

/// What is kept of the end of any script's output, in bytes.
const MIN_TAIL: usize = 4 << 10;

/// The most kept of one line, in bytes.
pub(crate) const MAX_LINE: usize = 16 << 10;

/// The most of a line that is quoted in a reason, in characters.
const MAX_QUOTE: usize = 200;

/// How many lines a reason quotes.
const QUOTED_LINES: usize = 3;

/// Writes an attempt's log.
pub(crate) struct Capture {
    file: File,
    /// Taken but not written yet.
    pending: Vec<u8>,
    /// How many bytes have been taken for the file.
    taken: u64,
    /// How many bytes could not be written, and why.
    unwritten: Option<(u64, io::Error)>,
    /// The end of the current script's output, once there has been too much of it.
    tail: Option<Tail>,
    plain: Plain,
    /// The bytes of a character whose end has not been read yet.
    carry: Vec<u8>,
    /// How much of the current line has been kept.
    column: usize,
    line_is_cut: bool,
    /// The current line as far as it can be quoted.
    line: String,
    /// The last lines that are not blank, as far as they can be quoted.
    last_lines: VecDeque<String>,
}

/// The end of an output, in whole lines.
struct Tail {
    kept: VecDeque<u8>,
    room: usize,
    /// How many bytes were left out before it.
    dropped: u64,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        // Rarely and much at a time: each time costs as much as what is kept.
        if self.kept.len() > self.room + self.room / 4 {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let excess = self.kept.len().saturating_sub(self.room);
        if excess == 0 {
            return;
        }
        let rest = self.kept.iter().skip(excess);
        let line = rest.take_while(|byte| **byte != b'\n').count();
        let end = (excess + line + 1).min(self.kept.len());
        self.kept.drain(..end);
        self.dropped += end as u64;
    }
}

impl Capture {
    /// Writes into a fresh file.
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            pending: Vec::new(),
            taken: 0,
            unwritten: None,
            tail: None,
            plain: Plain::default(),
            carry: Vec::new(),
            column: 0,
            line_is_cut: false,
            line: String::new(),
            last_lines: VecDeque::new(),
        }
    }

    /// Takes a line of the agent's own. It forgets the quotable output before it, is not cut, and is written with what
    /// follows or by [`Capture::flush`].
    pub(crate) fn say(&mut self, line: &str) {
        self.finish_line();
        self.finish_tail();
        self.last_lines.clear();
        self.write(line.as_bytes());
        self.write(b"\n");
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

    /// Writes what has been taken. What cannot be written costs the log, not the release: the script's own outcome
    /// still counts. The log says so as soon as it can be written again.
    pub(crate) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        if let Some((lost, error)) = &self.unwritten {
            let notice = format!("\n[{lost} bytes could not be written here: {error}]\n");
            if self.file.write_all(notice.as_bytes()).is_ok() {
                self.unwritten = None;
            }
        }
        let pending = std::mem::take(&mut self.pending);
        if let Some((lost, _)) = &mut self.unwritten {
            *lost += pending.len() as u64;
            return;
        }
        let mut rest = pending.as_slice();
        while !rest.is_empty() {
            let error = match self.file.write(rest) {
                Ok(written @ 1..) => {
                    rest = &rest[written..];
                    continue;
                }
                Ok(_) => io::ErrorKind::WriteZero.into(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.unwritten = Some((rest.len() as u64, error));
            return;
        }
    }

    /// The last lines that are not blank since the agent's own, as far as they can be quoted, as one.
    pub(crate) fn quote(&self) -> Option<String> {
        let mut lines: Vec<&str> = self.last_lines.iter().map(String::as_str).collect();
        lines.extend(Some(self.line.trim()).filter(|line| !line.is_empty()));
        let from = lines.len().saturating_sub(QUOTED_LINES);
        (!lines.is_empty()).then(|| lines[from..].join(" | "))
    }

    fn text(&mut self, text: &str) {
        let text = self.plain.text(text);
        for piece in text.split_inclusive('\n') {
            let line = piece.strip_suffix('\n').unwrap_or(piece);
            self.note(line);
            self.keep(line);
            if line.len() < piece.len() {
                self.end_line();
            }
        }
    }

    fn note(&mut self, line: &str) {
        let room = MAX_QUOTE.saturating_sub(self.line.chars().count());
        let visible = if self.line.is_empty() {
            line.trim_start()
        } else {
            line
        };
        self.line.extend(visible.chars().take(room));
    }

    fn keep(&mut self, line: &str) {
        if self.line_is_cut {
            return;
        }
        let end = line.floor_char_boundary(MAX_LINE.saturating_sub(self.column));
        let (kept, cut) = line.split_at(end);
        self.put(kept.as_bytes());
        self.column += kept.len();
        if !cut.is_empty() {
            self.line_is_cut = true;
            let notice = format!(
                " [line is cut here: {} KiB are kept of a line]",
                MAX_LINE >> 10
            );
            self.put(notice.as_bytes());
        }
    }

    /// Takes output for the file, or for the tail when the file has had enough.
    fn put(&mut self, bytes: &[u8]) {
        if let Some(tail) = &mut self.tail {
            return tail.push(bytes);
        }
        if self.taken + bytes.len() as u64 <= HEAD {
            return self.write(bytes);
        }
        if self.column > 0 {
            self.write(b"\n");
        }
        self.write(
            b"[there is more output than is kept: its end follows when the script has ended]\n",
        );
        // Half of what is left, so that something is left for however many scripts come after this one.
        let left = MAX_LOG.saturating_sub(self.taken) as usize / 2;
        let mut tail = Tail {
            kept: VecDeque::new(),
            room: left.clamp(MIN_TAIL, TAIL),
            dropped: 0,
        };
        tail.push(bytes);
        self.tail = Some(tail);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        self.taken += bytes.len() as u64;
    }

    fn end_line(&mut self) {
        self.put(b"\n");
        self.column = 0;
        self.line_is_cut = false;
        if !self.line.trim().is_empty() {
            if self.last_lines.len() == QUOTED_LINES {
                self.last_lines.pop_front();
            }
            self.last_lines.push_back(self.line.trim_end().to_owned());
        }
        self.line.clear();
    }

    fn finish_line(&mut self) {
        self.plain.reset();
        if !self.carry.is_empty() {
            self.carry.clear();
            self.text("\u{fffd}");
        }
        if self.column > 0 || self.line_is_cut {
            self.end_line();
        }
        self.line.clear();
    }

    fn finish_tail(&mut self) {
        let Some(mut tail) = self.tail.take() else {
            return;
        };
        tail.trim();
        if tail.dropped > 0 {
            self.write(format!("[{} bytes are left out here]\n", tail.dropped).as_bytes());
        }
        let (front, back) = tail.kept.as_slices();
        self.write(front);
        self.write(back);
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
        let quote = capture.quote();
        capture.say("<== end");
        capture.flush();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        (text, quote)
    }

    #[test]
    fn output_is_kept_as_it_is() {
        let (text, quote) = log(|capture| {
            capture.say("==> a");
            capture.feed(b"one\n\ntw");
            capture.feed(b"o");
        });

        assert_eq!(text, "==> a\none\n\ntwo\n<== end\n");
        assert_eq!(quote.as_deref(), Some("one | two"));
    }

    #[test]
    fn a_character_split_between_reads_is_one_character_and_garbage_is_replaced() {
        let (text, quote) = log(|capture| {
            capture.feed(b"\xe6\x89");
            capture.feed(b"\xa7!\n\xff\xfe\n\xe6");
        });

        assert_eq!(text, "执!\n\u{fffd}\u{fffd}\n\u{fffd}\n<== end\n");
        assert_eq!(quote.as_deref(), Some("执! | \u{fffd}\u{fffd}"));
    }

    #[test]
    fn what_is_for_a_terminal_is_left_out_across_reads() {
        let (text, quote) = log(|capture| {
            capture.feed(b"\x1b[1;3");
            capture.feed(b"1mred\x1b[0m\r");
            capture.feed(b"\n\x1b]0;never ended");
        });

        assert_eq!(text, "red\n<== end\n");
        assert_eq!(quote.as_deref(), Some("red"));
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let (text, quote) = log(|capture| {
            for _ in 0..5 {
                capture.feed("é".repeat(5_000).as_bytes());
            }
            capture.feed(b"\nshort\n");
        });

        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with(&"é".repeat(MAX_LINE / 2))
                && lines[0].ends_with("[line is cut here: 16 KiB are kept of a line]")
        );
        assert_eq!(&lines[1..], ["short", "<== end"]);
        assert_eq!(quote, Some(format!("{} | short", "é".repeat(200))));
    }

    #[test]
    fn the_beginning_and_the_end_of_a_flood_are_kept() {
        let (text, quote) = log(|capture| {
            for start in (0..600_000).step_by(1000) {
                let lines = (start..start + 1000).map(|number| format!("line {number}\n"));
                capture.feed(lines.collect::<String>().as_bytes());
            }
        });

        assert!(
            text.len() as u64 <= HEAD + TAIL as u64 + 200,
            "{}",
            text.len()
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["line 0", "line 1"]);
        assert_eq!(lines[lines.len() - 2..], ["line 599999", "<== end"]);
        let gap = lines.iter().position(|line| line.starts_with('[')).unwrap();
        assert!(lines[gap].starts_with("[there is more output"));
        let dropped: usize = lines[gap + 1]
            .trim_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .unwrap();
        let all: usize = (0..600_000)
            .map(|number| format!("line {number}\n").len())
            .sum();
        let kept: usize = lines
            .iter()
            .filter(|line| line.starts_with("line"))
            .map(|line| line.len() + 1)
            .sum();
        assert_eq!(
            kept + dropped,
            all,
            "what is said to be left out is what is left out"
        );
        assert_eq!(
            quote.as_deref(),
            Some("line 599997 | line 599998 | line 599999")
        );
    }

    #[test]
    fn many_floods_keep_the_log_in_its_bounds_and_the_end_of_each() {
        let (text, _) = log(|capture| {
            for script in 0..20 {
                capture.say(&format!("==> {script}"));
                for _ in 0..300 {
                    capture.feed(&[b"0123456789abcde\n".repeat(1_024)].concat());
                }
                capture.feed(format!("end of {script}\n").as_bytes());
            }
        });

        assert!(
            text.len() as u64 <= MAX_LOG + 20 * (MIN_TAIL as u64 + 200),
            "{}",
            text.len()
        );
        for script in 0..20 {
            assert!(text.contains(&format!("\nend of {script}\n")), "{script}");
        }
    }

    #[test]
    fn output_that_is_a_little_too_long_is_all_there() {
        let (text, _) = log(|capture| {
            for _ in 0..200 {
                capture.feed(&[b'x'; 16_000]);
                capture.feed(b"\n");
            }
        });

        assert_eq!(text.matches('x').count(), 200 * 16_000);
        assert!(!text.contains("left out"));
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_the_log_and_no_more() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut capture = Capture::new(full);

        capture.say("==> a");
        capture.feed(b"one\n");
        capture.feed(b"two\n");

        assert_eq!(capture.unwritten.as_ref().map(|(lost, _)| *lost), Some(14));
        assert_eq!(capture.quote().as_deref(), Some("one | two"));

        let mut file = tempfile::tempfile().unwrap();
        capture.file = file.try_clone().unwrap();
        capture.feed(b"three\n");

        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("\n[14 bytes could not be written here: No space left")
                && text.ends_with("]\nthree\n"),
            "{text}"
        );
    }
}
