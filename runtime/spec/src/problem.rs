//! What is wrong with a file, and where.
//!
//! [`Problem`] is for people; [`Collector`] gathers problems so that one run shows all of them.

use std::fmt;
use std::path::{Path, PathBuf};

/// The most problems kept of one file. A person fixes the first few, and hostile input must not fill memory.
const LIMIT: usize = 100;

/// The longest piece of input quoted in a message, in characters.
const EXCERPT: usize = 60;

/// A place in a file; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    /// The first character of a file.
    pub const START: Position = Position { line: 1, column: 1 };
}

/// Whether a problem stops the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong in a file. `{}` shows the place and the message, `{:#}` the hint as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
    pub severity: Severity,
    pub message: String,
    /// What the author may have meant or can do.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) if f.alternate() => write!(f, "\n  hint: {hint}"),
            _ => Ok(()),
        }
    }
}

/// All problems of a file, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them stops the work.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// The problems in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(problem, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A file that could be read, with what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<T> {
    pub value: T,
    /// Warnings only.
    pub warnings: Problems,
}

/// Gathers the problems of one file.
#[derive(Debug)]
pub(crate) struct Collector {
    file: PathBuf,
    /// What the messages are about, in front of each.
    subject: Option<String>,
    problems: Vec<Problem>,
    failed: bool,
    omitted: usize,
}

impl Collector {
    pub(crate) fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            subject: None,
            problems: Vec::new(),
            failed: false,
            omitted: 0,
        }
    }

    /// Puts what they are about in front of the messages that follow.
    pub(crate) fn about(&mut self, subject: Option<String>) {
        self.subject = subject;
    }

    /// Whether an error has been reported.
    pub(crate) fn has_errors(&self) -> bool {
        self.failed
    }

    pub(crate) fn error(&mut self, at: Position, message: impl Into<String>) {
        self.report(at, Severity::Error, message.into(), None);
    }

    pub(crate) fn error_with_hint(
        &mut self,
        at: Position,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report(at, Severity::Error, message.into(), Some(hint.into()));
    }

    /// Reports an error whose hint names the likely intention, where there is one.
    pub(crate) fn error_with_suggestion(
        &mut self,
        at: Position,
        message: impl Into<String>,
        text: &str,
        known: &[&str],
    ) {
        let hint = suggestion(text, known).map(|meant| format!("did you mean `{meant}`?"));
        self.report(at, Severity::Error, message.into(), hint);
    }

    pub(crate) fn warn(
        &mut self,
        at: Position,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report(at, Severity::Warning, message.into(), Some(hint.into()));
    }

    /// The value with its warnings, or everything that is wrong.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<Parsed<T>, Problems> {
        debug_assert!(
            value.is_some() || self.failed,
            "a missing value has a reason"
        );
        let failed = self.failed;
        let problems = self.into_problems();
        match value {
            Some(value) if !failed => Ok(Parsed {
                value,
                warnings: problems,
            }),
            _ => Err(problems),
        }
    }

    pub(crate) fn into_problems(mut self) -> Problems {
        self.problems
            .sort_by_key(|problem| (problem.line, problem.column));
        if self.omitted > 0
            && let Some(last) = self.problems.last()
        {
            let message = format!("{} more problems are not shown", self.omitted);
            let severity = if self.failed {
                Severity::Error
            } else {
                Severity::Warning
            };
            let summary = Problem {
                message,
                severity,
                hint: None,
                ..last.clone()
            };
            self.problems.push(summary);
        }
        Problems(self.problems)
    }

    fn report(&mut self, at: Position, severity: Severity, message: String, hint: Option<String>) {
        self.failed |= severity == Severity::Error;
        if self.problems.len() >= LIMIT {
            self.omitted += 1;
            return;
        }
        let Position { line, column } = at;
        let message = match &self.subject {
            Some(subject) => format!("{subject}: {message}"),
            None => message,
        };
        self.problems.push(Problem {
            file: self.file.clone(),
            line,
            column,
            severity,
            message,
            hint,
        });
    }
}

/// The known name that a misspelt one stands for, if one is near enough.
pub(crate) fn suggestion<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    let length = text.chars().count();
    // Comparing takes the product of the lengths, and nobody misspells a text this long into a key.
    if length > 64 {
        return None;
    }
    let folded = text.to_lowercase();
    let near = |name: &str| strsim::damerau_levenshtein(&folded, &name.to_lowercase());
    let (distance, best) = known
        .iter()
        .map(|name| (near(name), *name))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= (length.max(best.chars().count()) / 3).max(1)).then_some(best)
}

/// A piece of input that is fit for one line of a message.
pub(crate) fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(EXCERPT).flat_map(printable).collect();
    if text.chars().nth(EXCERPT).is_some() {
        short.push('…');
    }
    short
}

fn printable(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control().then(|| character.escape_default());
    let plain = escaped.is_none().then_some(character);
    escaped.into_iter().flatten().chain(plain)
}

/// The names in backticks, separated by commas.
pub(crate) fn quoted_list(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_near_misses_only() {
        let known = ["concurrency", "failure_threshold", "type"];

        assert_eq!(suggestion("concurency", &known), Some("concurrency"));
        assert_eq!(suggestion("Type", &known), Some("type"));
        assert_eq!(suggestion("colour", &known), None);
        assert_eq!(suggestion("", &known), None);
    }

    #[test]
    fn keeps_the_first_problems_and_counts_the_rest() {
        let mut collector = Collector::new(Path::new("f.yaml"));
        for line in 1..=LIMIT + 7 {
            collector.error(Position { line, column: 1 }, "wrong");
        }

        let problems = collector.into_problems();

        assert_eq!(problems.0.len(), LIMIT + 1);
        assert_eq!(
            problems.0[LIMIT].to_string(),
            "f.yaml:100:1: 7 more problems are not shown"
        );
    }

    #[test]
    fn quotes_input_on_one_line() {
        assert_eq!(excerpt("a\nb\u{0}"), "a\\nb\\u{0}");
        assert_eq!(excerpt(&"é".repeat(61)).chars().count(), 61);
    }
}
