//! The only writer: data to stdout, everything else to stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::adapter::strip_str;
use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use conductor::LastLines;
use report::{Line, Table, Tone};
use serde::Serialize;
use spec::Problems;

use crate::args::{Color, Global, Output};
use crate::failure::{Failure, Kind};

/// Column to which the verb of a progress line is padded.
const VERB_WIDTH: usize = 11;

/// Set when the reader of stdout has gone.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Speaks to the operator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ui {
    color: ColorChoice,
    pub(crate) output: Output,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
}

impl Ui {
    pub(crate) fn new(global: &Global) -> Self {
        let color = match global.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        Self {
            color,
            output: global.output,
            quiet: global.quiet,
            verbose: global.verbose,
        }
    }

    /// Whether stderr can show something that moves.
    pub(crate) fn is_live(self) -> bool {
        !self.quiet && io::stderr().is_terminal() && std::env::var_os("CI").is_none()
    }

    /// Writes text to stdout as it is. When its reader has gone the rest is dropped quietly, so that the exit status
    /// still tells how the command ended.
    pub(crate) fn answer(self, text: &str) {
        let mut stdout = AutoStream::new(io::stdout().lock(), self.color);
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        self.note_closed(written);
    }

    /// Writes bytes to stdout as they are.
    pub(crate) fn answer_bytes(self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        self.note_closed(stdout.write_all(bytes).and_then(|()| stdout.flush()));
    }

    fn note_closed(self, written: io::Result<()>) {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                IS_CLOSED.store(true, Ordering::Relaxed);
            }
            Err(error) if !IS_CLOSED.swap(true, Ordering::Relaxed) => {
                self.warn(&format!("the answer could not be written: {error}"));
            }
            _ => {}
        }
    }

    /// Whether anybody reads what is written to stdout. Who goes on writing for long should ask.
    pub(crate) fn is_heard(self) -> bool {
        !IS_CLOSED.load(Ordering::Relaxed)
    }

    /// Writes a table whose first column holds ids, each with this many characters at its beginning highlighted.
    pub(crate) fn answer_ids(self, table: &Table, prefixes: &[usize]) {
        let cyan = AnsiColor::Cyan.on_default().bold();
        let text = table.to_string();
        let mut lines = text.lines();
        if let Some(heading) = lines.next() {
            self.answer(&format!("{heading}\n"));
        }
        for (line, prefix) in lines.zip(prefixes) {
            let (head, tail) = line.split_at_checked(*prefix).unwrap_or(("", line));
            self.answer(&format!("{cyan}{head}{cyan:#}{tail}\n"));
        }
    }

    /// Whether stdout shows colours.
    pub(crate) fn is_coloured(self) -> bool {
        choice(self.color, &io::stdout()) != ColorChoice::Never
    }

    /// Writes the one JSON value that is the answer to stdout: pretty on a terminal, else on one line.
    pub(crate) fn answer_json(self, value: &impl Serialize) {
        if io::stdout().is_terminal() {
            self.answer_text_of(serde_json::to_string_pretty(value));
        } else {
            self.answer_json_line(value);
        }
    }

    /// Writes one JSON value of a stream to stdout, always on one line.
    pub(crate) fn answer_json_line(self, value: &impl Serialize) {
        self.answer_text_of(serde_json::to_string(value));
    }

    fn answer_text_of(self, json: serde_json::Result<String>) {
        match json {
            Ok(text) => self.answer(&format!("{text}\n")),
            Err(error) => self.error_line(&format!("write the answer as JSON: {error}")),
        }
    }

    fn error_line(self, text: &str) {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.color);
        // Nothing is left to do when stderr is gone.
        let _ = writeln!(stderr, "{text}");
    }

    /// A progress line, its target padded to `width`.
    pub(crate) fn progress(self, line: &Line, width: usize) {
        if !self.quiet {
            self.error_line(&styled(line, width));
        }
    }

    /// A line that a build printed.
    pub(crate) fn build_line(self, line: &str) {
        if !self.quiet {
            let dim = Style::new().dimmed();
            self.error_line(&format!("{:VERB_WIDTH$} {dim}{line}{dim:#}", ""));
        }
    }

    /// A progress line as stderr shows it, to be printed by whoever owns the terminal.
    pub(crate) fn progress_text(self, line: &Line, width: usize) -> String {
        let text = styled(line, width);
        match choice(self.color, &io::stderr()) {
            ColorChoice::Never => strip_str(&text).to_string(),
            _ => text,
        }
    }

    /// What is about to happen.
    pub(crate) fn plan(self, text: &str) {
        if !self.quiet {
            self.error_line(text.trim_end());
        }
    }

    /// Something that the operator should know.
    pub(crate) fn warn(self, text: &str) {
        let yellow = AnsiColor::Yellow.on_default().bold();
        if !self.quiet {
            self.error_line(&format!("{yellow}warning:{yellow:#} {text}"));
        }
    }

    /// What to do next where nothing has failed.
    pub(crate) fn advise(self, text: &str) {
        if !self.quiet {
            self.hint(text);
        }
    }

    fn hint(self, text: &str) {
        let cyan = AnsiColor::Cyan.on_default().bold();
        self.error_line(&format!("{cyan}hint:{cyan:#} {text}"));
    }

    /// Prints a failure with its causes and hints.
    pub(crate) fn failure(self, failure: &Failure) {
        let red = AnsiColor::Red.on_default().bold();
        let place = failure.place.as_ref().map(|place| format!("{place}: "));
        let place = place.unwrap_or_default();
        self.error_line(&format!("{red}error:{red:#} {place}{}", failure.error));
        let mut cause = failure.error.source();
        while let Some(error) = cause {
            if let Some(problems) = error.downcast_ref::<Problems>() {
                for problem in problems {
                    self.error_line(&format!("{problem:#}"));
                }
            } else if let Some(lines) = error.downcast_ref::<Box<LastLines>>().map(|last| &last.0) {
                for line in lines {
                    self.error_line(&format!("  | {line}"));
                }
            } else {
                self.error_line(&format!("  because: {error}"));
            }
            cause = error.source();
        }
        for hint in &failure.hints {
            self.hint(hint);
        }
        if failure.kind == Kind::Bug {
            self.hint("report this as a bug of cutover, with the lines above and the answer of: cutover --version");
        }
    }

    /// Asks for a line of text. `None` when there is no terminal to ask on, or nothing was said.
    pub(crate) fn ask_text(self, question: &str) -> Option<String> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{question} ");
        let _ = stderr.flush();
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).ok()?;
        let answer = answer.trim();
        (!answer.is_empty()).then(|| answer.to_owned())
    }

    /// Asks a yes-or-no question. `None` when there is no terminal to ask on.
    pub(crate) fn ask(self, question: &str) -> Option<bool> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{question} [y/N] ");
        let _ = stderr.flush();
        let mut answer = String::new();
        match io::stdin().read_line(&mut answer) {
            Ok(_) => Some(matches!(answer.trim(), "y" | "Y" | "yes")),
            Err(_) => Some(false),
        }
    }
}

/// What a stream gets under a choice, the environment (`NO_COLOR` and others) and the terminal considered.
fn choice<S: RawStream>(chosen: ColorChoice, stream: &S) -> ColorChoice {
    match chosen {
        ColorChoice::Auto => AutoStream::choice(stream),
        chosen => chosen,
    }
}

/// A progress line with its colours: the verb padded, the target padded, the duration last.
fn styled(line: &Line, width: usize) -> String {
    let style = style_of(line.tone);
    let Line { verb, target, .. } = line;
    let cyan = AnsiColor::Cyan.on_default();
    let dim = Style::new().dimmed();
    let mut text = format!("{style}{verb:>VERB_WIDTH$}{style:#} {cyan}{target}{cyan:#}");
    let detail = (!line.detail.is_empty()).then(|| line.detail.clone());
    let took = line
        .took
        .map(|took| format!("{dim}{}{dim:#}", report::column_duration(took)));
    let rest: Vec<_> = detail.into_iter().chain(took).collect();
    if !rest.is_empty() {
        let padding = width.saturating_sub(target.chars().count());
        text.push_str(&format!("{:padding$}  {}", "", rest.join("  ")));
    }
    text
}

/// Green done, red failed, yellow needs attention, dim detail.
fn style_of(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new().bold(),
        Tone::Done => AnsiColor::Green.on_default().bold(),
        Tone::Failed => AnsiColor::Red.on_default().bold(),
        Tone::Attention => AnsiColor::Yellow.on_default().bold(),
        Tone::Dim => Style::new().dimmed(),
    }
}
