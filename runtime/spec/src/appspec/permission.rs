//! One entry of `permissions`.

use model::{Kinds, Permission};

use super::dialect::Dialect;
use super::file::instance_path;
use crate::fields::{Field, Shape};
use crate::problem::{Collector, excerpt};

static PERMISSION: Shape = Shape {
    name: "permission",
    keys: &[
        "object", "pattern", "except", "owner", "group", "mode", "type",
    ],
    aliases: &[],
    unsupported: &["acls", "context"],
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
}

pub(super) fn parse(
    item: Field<'_>,
    dialect: Dialect,
    problems: &mut Collector,
) -> Option<Permission> {
    let fields = item.fields(&PERMISSION, problems)?;
    let object = fields
        .required("object", problems)
        .and_then(|field| instance_path(field, problems));
    let pattern = match fields.get("pattern") {
        Some(field) => glob(field, dialect, problems),
        None => Some("**".to_owned()),
    };
    let except = match fields.get("except") {
        Some(field) => {
            let items = field.items("names", problems);
            items
                .into_iter()
                .filter_map(|item| glob(item, dialect, problems))
                .collect()
        }
        None => Vec::new(),
    };
    let kinds = fields
        .get("type")
        .map_or(Kinds::Both, |field| kinds(field, problems));
    let mut text = |name| {
        fields
            .get(name)
            .and_then(|field| field.text(problems))
            .map(str::to_owned)
    };
    let owner = text("owner");
    let group = text("group");
    let mode = match fields.get("mode") {
        Some(field) => mode(field, problems).map(Some),
        None => Some(None),
    };
    if !["owner", "group", "mode", "acls", "context"]
        .iter()
        .any(|name| fields.has(name))
    {
        problems.warn(
            item.at(),
            "the permission changes nothing",
            "add `owner`, `group` or `mode`",
        );
    }
    Some(Permission {
        object: object?,
        pattern: pattern?,
        except,
        kinds,
        owner,
        group,
        mode: mode?,
        acls: Vec::new(),
        context: None,
    })
}

/// A pattern on names. The AWS dialect has no wildcard but `*`, and whoever writes another one expects it to work.
fn glob(field: Field<'_>, dialect: Dialect, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    if dialect == Dialect::Aws && text.contains(['/', '?', '[', ']']) {
        let message = format!(
            "`{}`: the pattern `{}` is not a name with `*` in it",
            field.name,
            excerpt(text)
        );
        problems.error(field.at(), message);
        return None;
    }
    Some(text.to_owned())
}

fn kinds(field: Field<'_>, problems: &mut Collector) -> Kinds {
    let items = field.items("`file` and `directory`", problems);
    let words = [("file", Kind::File), ("directory", Kind::Directory)];
    let kinds: Vec<_> = items
        .into_iter()
        .filter_map(|item| item.word(&words, problems))
        .collect();
    match (
        kinds.contains(&Kind::File),
        kinds.contains(&Kind::Directory),
    ) {
        (true, false) => Kinds::Files,
        (false, true) => Kinds::Directories,
        _ => Kinds::Both,
    }
}

/// Permission bits. The digits are octal however they are written; a YAML parser that types scalars takes `0644`
/// for another number.
fn mode(field: Field<'_>, problems: &mut Collector) -> Option<u32> {
    let text = field.text(problems)?;
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let bits = u32::from_str_radix(digits, 8)
        .ok()
        .filter(|bits| *bits <= 0o7777 && !digits.starts_with('+'));
    if bits.is_none() {
        field.mismatch("permission bits as octal digits such as `0644`", problems);
    }
    bits
}
