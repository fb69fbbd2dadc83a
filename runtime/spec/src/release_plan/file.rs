//! The file as a whole.

use std::path::Path;

use super::item;
use super::keys::PLAN;
use super::plan::ReleasePlan;
use crate::fields::Fields;
use crate::problem::{Collector, Parsed, Position, Problems};
use crate::yaml::{self, Node};

/// Reads a release plan. `file` is only named in messages.
///
/// # Errors
/// Every problem of the text, when at least one of them is an error.
pub fn parse(text: &str, file: &Path) -> Result<Parsed<ReleasePlan>, Problems> {
    let mut problems = Collector::new(file);
    let mut root = yaml::parse(text, &mut problems);
    if root.is_none() {
        root = parse_around_gaps(text, file, &mut problems);
    }
    let plan = root.and_then(|root| plan(&root, file, &mut problems));
    problems.about(None);
    problems.finish(plan)
}

/// Reads a release plan that may be in any encoding. Only UTF-8 is taken.
///
/// # Errors
/// As [`parse`], and where the bytes are no UTF-8.
pub fn parse_bytes(bytes: &[u8], file: &Path) -> Result<Parsed<ReleasePlan>, Problems> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, file),
        Err(error) => {
            let (good, _) = bytes.split_at(error.valid_up_to());
            let at = yaml::position_after(&String::from_utf8_lossy(good));
            let mut problems = Collector::new(file);
            problems.error_with_hint(at, "the file is not UTF-8 text", "save it as UTF-8");
            problems.finish(None)
        }
    }
}

/// Reads what is around lines of dots, which examples have in the place of what they leave out. Where there are any they
/// are reported instead of what reading the whole text has found.
fn parse_around_gaps(text: &str, file: &Path, problems: &mut Collector) -> Option<Node> {
    let mut around = Collector::new(file);
    let mut rest = String::with_capacity(text.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let content = line.trim();
        if !matches!(content.trim_start_matches("- "), "..." | "…" | "……") {
            rest.push_str(line);
            continue;
        }
        let indent = line.chars().take_while(|c| c.is_whitespace()).count();
        let at = Position {
            line: index + 1,
            column: indent + 1,
        };
        let message =
            format!("`{content}` stands for what an example leaves out, and is no part of a plan");
        around.error_with_hint(
            at,
            message,
            "write what belongs there, or leave the line out",
        );
        rest.extend(line.ends_with('\n').then_some('\n'));
    }
    if !around.has_errors() {
        return None;
    }
    *problems = around;
    yaml::parse(&rest, problems)
}

fn plan(root: &Node, file: &Path, problems: &mut Collector) -> Option<ReleasePlan> {
    let mut fields = Fields::of_open_root(root, &PLAN, problems)?;
    for other in fields.others() {
        if !item::refuse_wrong_case(&mut fields, other, problems) {
            fields.refuse(other, problems);
        }
    }
    let comment = fields.optional("comment", |field| field.raw_text(problems));
    let items = fields
        .required("deployPlanItems", problems)
        .and_then(|field| item::parse_all(field, problems));
    Some(ReleasePlan {
        file: file.to_owned(),
        comment: comment?.unwrap_or_default().trim().to_owned(),
        items: items?,
    })
}
