//! The workspaces and release plans that the README shows are some.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use spec::release_plan;
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
    let mut strategies = BTreeSet::new();

    for block in blocks(README) {
        if release_plan::is_likely(block) {
            let plan = release_plan::parse(block, Path::new("README.md"));
            assert_eq!(plan.unwrap().warnings.to_string(), "");
            continue;
        }
        match parse(block, Path::new("README.md")) {
            Ok(parsed) => {
                let groups = parsed.value.groups;
                strategies.extend(groups.into_iter().map(|group| group.strategy.name()));
            }
            Err(problems) => panic!("{problems:#}\n{block}"),
        }
    }

    assert!(
        strategies
            .into_iter()
            .eq(["blue-green", "canary", "rolling"])
    );
}
