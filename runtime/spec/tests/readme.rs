//! The workspaces that the README shows are workspaces.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use spec::workspace::parse;

const README: &str = include_str!("../../../README.md");

/// The YAML in a text, block by block.
fn blocks(text: &str) -> Vec<&str> {
    text.split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn the_readme_has_a_workspace_for_each_strategy() {
    let mut strategies = Vec::new();

    for block in blocks(README) {
        match parse(block, Path::new("README.md")) {
            Ok(parsed) => {
                let groups = parsed.value.groups;
                strategies.extend(groups.into_iter().map(|group| group.strategy.name()));
            }
            Err(problems) => panic!("{problems:#}\n{block}"),
        }
    }

    assert_eq!(strategies, ["rolling", "rolling", "blue-green", "canary"]);
}
