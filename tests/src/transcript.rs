//! Transcripts: what a command was, said and ended with, without what differs from run to run.

use std::fs;

use crate::Site;

/// Stands for the id of a release, and is as long as one.
const RELEASE: &str = "RELEASE-ID";

impl Site {
    /// Runs the program and tells everything that a person would see of it: the command, stdout, stderr after a line
    /// `--- stderr`, and the exit status where it is not 0.
    #[must_use]
    pub fn transcript(&self, arguments: &[&str]) -> String {
        let answer = self.cutover(arguments);
        let mut text = format!("$ cutover {}\n{}", arguments.join(" "), answer.stdout);
        if !answer.stderr.is_empty() {
            text.push_str("--- stderr\n");
            text.push_str(&answer.stderr);
        }
        if answer.code != 0 {
            text.push_str(&format!("--- exit status {}\n", answer.code));
        }
        self.normalised(&text)
    }

    /// Replaces what differs from run to run: the workspace's own path, ids of releases, digests, times, durations and
    /// the name of the machine. A time keeps its width, and so does a duration within a line, so that columns stay.
    #[must_use]
    pub fn normalised(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let here = self.path("");
        let real = fs::canonicalize(&here).unwrap_or_else(|_| here.clone());
        for path in [real, here] {
            text = text.replace(path.display().to_string().trim_end_matches('/'), "SITE");
        }
        for id in self.release_ids() {
            text = text.replace(&id, RELEASE);
        }
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        text = text.replace(&format!("ann@{}", host.trim()), "ann@HOST");
        text.lines()
            .map(|line| {
                let line = without_times(line);
                // How wide this column is depends on the machine's name.
                let line = without_padding_after(&line, "ann@HOST");
                format!("{}\n", without_padding_after(&line, "OPERATOR"))
            })
            .collect()
    }

    fn release_ids(&self) -> Vec<String> {
        if !self.path(".cutover/journal.db").exists() {
            return Vec::new();
        }
        let answer = self.cutover(&["ls", "--limit", "1000", "--output", "json"]);
        let list: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
        let releases = list["releases"].as_array().cloned().unwrap_or_default();
        releases
            .iter()
            .filter_map(|release| release["id"].as_str().map(str::to_owned))
            .collect()
    }
}

fn without_times(line: &str) -> String {
    let mut kept = String::new();
    let mut rest = line;
    while let Some(next) = rest.chars().next() {
        let is_inside_word =
            kept.ends_with(|last: char| last.is_ascii_alphanumeric() || last == '.');
        if let Some(length) = digest(rest) {
            kept.push_str("sha256:DIGEST");
            rest = &rest[length..];
        } else if let Some((placeholder, length)) = time(rest).filter(|_| !is_inside_word) {
            kept.push_str(placeholder);
            rest = &rest[length..];
        } else if let Some(length) = duration(rest).filter(|_| !is_inside_word) {
            rest = &rest[length..];
            // In a column a duration stands on the right of it; elsewhere it has no width to keep.
            let is_in_column = kept.ends_with("  ") && !rest.starts_with(" ago");
            let width = if is_in_column { length } else { 0 };
            kept.push_str(&format!("{:>width$}", "TOOK"));
        } else {
            kept.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    kept
}

fn without_padding_after(line: &str, column: &str) -> String {
    match line.split_once(column) {
        Some((before, after)) if after.starts_with("  ") => {
            format!("{before}{column}  {}", after.trim_start())
        }
        _ => line.to_owned(),
    }
}

fn digest(text: &str) -> Option<usize> {
    let hex = text.strip_prefix("sha256:")?;
    let length = hex
        .find(|c: char| !c.is_ascii_hexdigit())
        .unwrap_or(hex.len());
    (length == 64).then_some("sha256:".len() + length)
}

/// The placeholder for a time and the length of the time.
fn time(text: &str) -> Option<(&'static str, usize)> {
    let forms = ["YYYY-MM-DDTHH:MM:SSZ", "YYYY-MM-DDTHH:MM:SS.mmmZ"];
    forms.into_iter().find_map(|form| {
        let candidate = text.get(..form.len())?;
        let fits = candidate
            .chars()
            .zip(form.chars())
            .all(|(found, form)| match form {
                'T' | 'Z' | '-' | ':' | '.' => found == form,
                _ => found.is_ascii_digit(),
            });
        fits.then_some((form, form.len()))
    })
}

/// The length of a duration such as `12 ms` or `2 min 5 s`.
fn duration(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    if digits == 0 || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let unit = text[digits..].strip_prefix(' ')?;
    let length = unit
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(unit.len());
    let end = digits + 1 + length;
    match &unit[..length] {
        "ms" | "s" => Some(end),
        "min" | "h" => {
            let more = text.get(end + 1..).and_then(duration);
            Some(more.map_or(end, |more| end + 1 + more))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        assert_eq!(without_times(line), expected);
    }

    #[test]
    fn times_keep_their_width_and_so_do_durations_in_columns() {
        check(
            "at 2026-11-21T11:49:18Z  334 ms  x",
            "at YYYY-MM-DDTHH:MM:SSZ    TOOK  x",
        );
        check("Install     9 ms", "Install     TOOK");
        check("Install   1.2 s", "Install    TOOK");
    }

    #[test]
    fn a_duration_in_a_sentence_has_no_width() {
        check("in 9 ms", "in TOOK");
        check("in 2 min 5 s.", "in TOOK.");
        check("heartbeat    112 ms ago", "heartbeat    TOOK ago");
    }

    #[test]
    fn other_numbers_stay() {
        check("3 instances, 1 at a time", "3 instances, 1 at a time");
        check("1.2.0 to 2 sites", "1.2.0 to 2 sites");
    }
}
