//! What a build prints: into its log, to whoever watches, and the last of it into what is said of a failure.

use std::collections::VecDeque;

use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use super::run::LastLines;
use crate::progress::{OnProgress, Progress};

/// How many lines are told of a failure.
const LAST: usize = 20;
/// How much of one, in characters.
const LONGEST: usize = 300;
/// How many lines a watcher is shown of one step.
const SHOWN: usize = 2000;
/// What the log of a step begins with.
const BEGINNING: &str = "==> ";
const END: &str = "<== ";

/// Takes in a log as it comes. What confines the build has bounded it and made it plain text.
pub(super) struct Log {
    file: File,
    progress: OnProgress,
    /// The line that has no end yet.
    line: Vec<u8>,
    shown: usize,
    last: VecDeque<String>,
}

impl Log {
    pub(super) fn new(file: std::fs::File, progress: OnProgress) -> Self {
        Self {
            file: File::from_std(file),
            progress,
            line: Vec::new(),
            shown: 0,
            last: VecDeque::new(),
        }
    }

    /// Reads to the end. A disk that takes nothing costs the log and not the build.
    pub(super) async fn take(&mut self, mut source: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = source.read(&mut buffer).await {
            self.write(&buffer[..length]).await;
        }
        self.end_line();
        // Nothing is left to do about it.
        let _ = self.file.flush().await;
    }

    /// Writes a line of the conductor's own.
    pub(super) async fn say(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes()).await;
    }

    /// The last lines that the last step printed.
    pub(super) fn last_lines(self) -> LastLines {
        LastLines(self.last.into())
    }

    async fn write(&mut self, bytes: &[u8]) {
        if let Err(error) = self.file.write_all(bytes).await {
            tracing::warn!(%error, "cannot write the log of a build");
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line
                .extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.starts_with(BEGINNING) {
            self.last.clear();
            self.shown = 0;
        } else if !text.is_empty() && !text.starts_with(END) {
            if self.last.len() == LAST {
                self.last.pop_front();
            }
            self.last.push_back(text.chars().take(LONGEST).collect());
        }
        if text.is_empty() || self.shown == SHOWN {
            return;
        }
        self.shown += 1;
        let line = if self.shown == SHOWN {
            "… the rest is in the log alone".to_owned()
        } else {
            text.chars().take(LONGEST).collect()
        };
        (self.progress)(&Progress::BuildSaid { line });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn the_last_lines_of_the_last_step_are_kept_and_a_flood_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("log")).unwrap();
        let shown = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&shown);
        let mut log = Log::new(file, Arc::new(move |_| *counted.lock().unwrap() += 1));
        let lines: String = (0..10_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        let text = format!("==> fetch\nfetched\n==> make\n{lines}\nthe end");

        log.take(text.as_bytes()).await;

        assert_eq!(*shown.lock().unwrap(), 2 + SHOWN);
        let written = std::fs::read_to_string(folder.path().join("log")).unwrap();
        assert_eq!(written, text);
        let LastLines(last) = log.last_lines();
        assert_eq!(last.len(), LAST);
        assert_eq!(
            (last[0].as_str(), last[19].as_str()),
            ("line 9981", "the end")
        );
    }
}
