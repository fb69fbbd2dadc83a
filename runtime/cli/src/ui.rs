//! The only writer: data to stdout, everything else to stderr.

use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use report::{Line, Tone};
use serde::Serialize;

use crate::args::{Color, Global, Output};
use crate::failure::Failure;

/// Column to which the verb of a progress line is padded.
const VERB_WIDTH: usize = 11;

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

    /// Writes text to stdout as it is. A closed pipe ends the program quietly.
    pub(crate) fn answer(self, text: &str) {
        let mut stdout = AutoStream::new(io::stdout().lock(), self.color);
        let written = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            std::process::exit(0);
        }
    }

    /// Writes bytes to stdout as they are.
    pub(crate) fn answer_bytes(self, bytes: &[u8]) {
        let written = io::stdout().lock().write_all(bytes);
        if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            std::process::exit(0);
        }
    }

    /// Writes one JSON value to stdout: pretty on a terminal, else on one line.
    pub(crate) fn answer_json(self, value: &impl Serialize) {
        let text = if io::stdout().is_terminal() {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string(value)
        };
        match text {
            Ok(text) => self.answer(&format!("{text}\n")),
            Err(error) => self.error_line(&format!("write the answer as JSON: {error}")),
        }
    }

    fn error_line(self, text: &str) {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.color);
        // Nothing is left to do when stderr is gone.
        let _ = writeln!(stderr, "{text}");
    }

    /// A progress line.
    pub(crate) fn progress(self, line: &Line) {
        if !self.quiet {
            self.error_line(&self.styled(line));
        }
    }

    /// A progress line with its colours, to be printed by whoever owns the terminal.
    pub(crate) fn styled(self, line: &Line) -> String {
        let style = style_of(line.tone);
        let verb = format!("{:>VERB_WIDTH$}", line.verb);
        let (target, detail) = (&line.target, &line.detail);
        let cyan = AnsiColor::Cyan.on_default();
        format!("{style}{verb}{style:#} {cyan}{target}{cyan:#}  {detail}")
            .trim_end()
            .to_owned()
    }

    /// Something that the operator should know.
    pub(crate) fn warn(self, text: &str) {
        let yellow = AnsiColor::Yellow.on_default().bold();
        if !self.quiet {
            self.error_line(&format!("{yellow}warning:{yellow:#} {text}"));
        }
    }

    /// What to do next.
    pub(crate) fn hint(self, text: &str) {
        let cyan = AnsiColor::Cyan.on_default().bold();
        self.error_line(&format!("{cyan}hint:{cyan:#} {text}"));
    }

    /// Prints a failure with its causes and hints.
    pub(crate) fn failure(self, failure: &Failure) {
        let red = AnsiColor::Red.on_default().bold();
        self.error_line(&format!("{red}error:{red:#} {}", failure.error));
        let mut cause = failure.error.source();
        while let Some(error) = cause {
            self.error_line(&format!("  because: {error}"));
            cause = error.source();
        }
        for hint in &failure.hints {
            self.hint(hint);
        }
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
