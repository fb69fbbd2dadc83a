//! What the documents claim to be tested is tested.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The texts of all Rust files below a folder that are the project's own.
fn sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                sources(&path, texts);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// The names of the functions that are tests, property tests and scenarios on each balancer included.
fn tests_of(texts: &[String]) -> BTreeSet<&str> {
    let lines = texts.iter().flat_map(|text| text.lines());
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    let mut is_listed = false;
    for line in lines.map(str::trim) {
        is_listed = match line {
            "on_each_balancer! {" => true,
            "}" => false,
            _ => is_listed,
        };
        if let Some(name) = line.strip_suffix(',').filter(|_| is_listed) {
            tests.insert(name);
        }
        if line.starts_with("#[") {
            is_test |=
                line == "#[test]" || line == "#[tokio::test]" || line.starts_with("#[tokio::test(");
            continue;
        }
        let function = line
            .trim_start_matches("async ")
            .strip_prefix("fn ")
            .and_then(|rest| rest.split('(').next());
        if let Some(name) = function.filter(|_| is_test) {
            tests.insert(name);
        }
        is_test = false;
    }
    tests
}

#[test]
fn every_test_that_the_table_of_compatibility_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut texts = Vec::new();
    for folder in ["runtime", "tests"] {
        sources(&root.join(folder), &mut texts);
    }
    let tests = tests_of(&texts);
    let table = fs::read_to_string(root.join("runtime/docs/compatibility.md")).unwrap();
    // A test's name is a sentence in lower case; the keys of files have fewer words.
    let named = table.split('`').skip(1).step_by(2).filter(|name| {
        name.split('_').count() > 3
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    });

    let missing: Vec<&str> = named.filter(|name| !tests.contains(name)).collect();

    assert!(missing.is_empty(), "{missing:?}");
    assert!(tests.len() > 100, "the tests were found");
}
