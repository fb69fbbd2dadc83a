//! The scripts of a package: whether they can be executed.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::package::neighbour;
use crate::problem::{Collector, Position, excerpt};

/// How much of a script is looked at: what the kernel reads of it, and enough to tell text from a program.
const HEAD: u64 = 512;

/// The longest first line that the kernel takes.
const MAX_SHEBANG: usize = 255;

/// Checks a script that is in the package.
pub(super) fn check(path: &Path, location: &str, at: Position, problems: &mut Collector) {
    let script = format!("the script `{}`", excerpt(location));
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            problems.error(at, format!("{script} cannot be read: {error}"));
            return;
        }
    };
    if !metadata.is_file() {
        problems.error(at, format!("{script} is not a file"));
        return;
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        problems.warn(
            at,
            format!("{script} is not executable; it is made so on the instance"),
            format!("run `chmod +x {}` before packing", excerpt(location)),
        );
    }
    match head_of(path) {
        Ok(head) => check_head(&head, &script, at, problems),
        Err(error) => problems.error(at, format!("{script} cannot be read: {error}")),
    }
}

fn check_head(head: &[u8], script: &str, at: Position, problems: &mut Collector) {
    if let Some(rest) = head.strip_prefix(b"\xef\xbb\xbf") {
        if rest.starts_with(b"#!") {
            problems.error_with_hint(
                at,
                format!("{script} begins with a byte order mark, which hides its `#!` line"),
                "save the file as UTF-8 without a byte order mark",
            );
        }
        return;
    }
    let line_end = head.iter().position(|byte| *byte == b'\n');
    let line = &head[..line_end.unwrap_or(head.len())];
    let Some(words) = line.strip_prefix(b"#!") else {
        // A shell reads it, unless it is a program.
        if head.contains(&0) {
            return;
        }
        if line.ends_with(b"\r") {
            problems.error_with_hint(
                at,
                format!("the lines of {script} end in carriage returns"),
                "save the file with Unix line ends",
            );
        } else {
            problems.warn(
                at,
                format!("{script} has no `#!` line; `/bin/sh` reads it"),
                "begin it with a line such as `#!/bin/sh`",
            );
        }
        return;
    };
    // The kernel takes the carriage return for a part of the interpreter's name and finds no such file.
    if line.ends_with(b"\r") {
        problems.error_with_hint(
            at,
            format!("the first line of {script} ends in a carriage return"),
            "save the file with Unix line ends",
        );
        return;
    }
    let hint =
        "write the interpreter's full path, for example `#!/bin/sh` or `#!/usr/bin/env python3`";
    match interpreter(words) {
        None => {
            problems.error_with_hint(
                at,
                format!("the `#!` line of {script} names no interpreter"),
                hint,
            );
        }
        Some(interpreter) if !interpreter.starts_with('/') => {
            let message = format!(
                "the interpreter `{}` of {script} is not an absolute path",
                excerpt(&interpreter)
            );
            problems.error_with_hint(at, message, hint);
        }
        Some(_) if line.len() > MAX_SHEBANG => {
            let message = format!("the `#!` line of {script} is longer than {MAX_SHEBANG} bytes");
            problems.error_with_hint(at, message, hint);
        }
        Some(interpreter) if interpreter.ends_with("/env") && words_of(words).count() < 2 => {
            problems.error_with_hint(
                at,
                format!("the `#!` line of {script} names no interpreter"),
                hint,
            );
        }
        Some(_) => {}
    }
}

/// The interpreter of the script at a path, if it has one.
pub(super) fn interpreter_of(path: &Path) -> Option<String> {
    // Opening a pipe would wait for somebody to write into it.
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let head = head_of(path).ok()?;
    let line = head.split(|byte| *byte == b'\n').next()?;
    interpreter(line.strip_prefix(b"#!")?)
}

fn interpreter(words: &[u8]) -> Option<String> {
    words_of(words)
        .next()
        .map(|word| String::from_utf8_lossy(word).into_owned())
}

fn words_of(words: &[u8]) -> impl Iterator<Item = &[u8]> {
    words
        .split(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
        .filter(|word| !word.is_empty())
}

fn head_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}

/// Checks a command line as far as it begins with a path within the package.
pub(super) fn check_command(root: &Path, command: &str, at: Position, problems: &mut Collector) {
    let mut words = command.split_whitespace();
    let first = words.next().unwrap_or_default();
    let is_shell = matches!(first, "sh" | "bash" | "/bin/sh" | "/bin/bash");
    let word = if is_shell {
        words.next().unwrap_or_default()
    } else {
        first
    };
    if !names_a_file_of_the_package(word) {
        return;
    }
    let relative = word.trim_start_matches("./");
    let path = root.join(relative);
    let Ok(metadata) = fs::metadata(&path) else {
        let message = format!(
            "the command begins with `{}`, which is not in the package",
            excerpt(word)
        );
        let hint = match neighbour(root, relative) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "paths in a command are relative to the package".to_owned(),
        };
        problems.warn(at, message, hint);
        return;
    };
    if !metadata.is_file() {
        problems.error(
            at,
            format!("`{}` of the command is not a file", excerpt(word)),
        );
    } else if word == command {
        check(&path, relative, at, problems);
    } else if !is_shell && metadata.permissions().mode() & 0o111 == 0 {
        // A command of several words is the shell's, which does not make it executable.
        problems.error_with_hint(
            at,
            format!("`{}` of the command is not executable", excerpt(word)),
            format!(
                "run `chmod +x {}` before packing, or write `sh {}`",
                excerpt(relative),
                excerpt(command)
            ),
        );
    }
}

/// Whether a word is a relative path without anything that a shell would expand.
fn names_a_file_of_the_package(word: &str) -> bool {
    word.contains('/')
        && !word.starts_with('/')
        && word.split('/').all(|part| part != "..")
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/'))
}
