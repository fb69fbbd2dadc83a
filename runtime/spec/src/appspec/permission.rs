//! One entry of `permissions`.

use model::{Kinds, Permission};

use super::dialect::Dialect;
use super::file::instance_path;
use super::{acl, context};
use crate::account;
use crate::fields::{Field, Shape};
use crate::problem::{Collector, Position, excerpt};

static PERMISSION: Shape = Shape {
    name: "permission",
    keys: &[
        "object", "pattern", "except", "owner", "group", "mode", "acls", "context", "type",
    ],
    aliases: &[],
};

/// Where the parts of a permission are written, and what a check of the package needs besides the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PermissionAt {
    pub(super) whole: Position,
    pub(super) object: Position,
    pub(super) pattern: Option<Position>,
    pub(super) except: Option<Position>,
    pub(super) owner: Option<Position>,
    pub(super) group: Option<Position>,
    pub(super) mode: Option<Position>,
    pub(super) acls: Option<Position>,
    pub(super) acl: Vec<acl::Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
}

/// Reads an entry. What does not fit is reported and left out, and the rest of the entry is still checked.
pub(super) fn parse(
    item: Field<'_>,
    dialect: Dialect,
    problems: &mut Collector,
) -> Option<(Permission, PermissionAt)> {
    let fields = item.shared_fields(&PERMISSION, problems)?;
    let object_field = fields.required("object", problems);
    let pattern_field = fields.get("pattern");
    let except_field = fields.get("except");
    let object = object_field.and_then(|field| instance_path(field, problems));
    let pattern = pattern_field.and_then(|field| glob(field, dialect, problems));
    let except = except_field
        .map(|field| field.items("names", problems))
        .unwrap_or_default()
        .into_iter()
        .filter_map(|item| glob(item, dialect, problems))
        .collect();
    let kinds = fields
        .get("type")
        .map_or(Kinds::Both, |field| kinds(field, problems));
    let (owner, group) = (fields.get("owner"), fields.get("group"));
    let mode_field = fields.get("mode");
    let acls = fields.get("acls");
    let acl = acls
        .map(|field| acl::parse(field, problems))
        .unwrap_or_default();
    if let Some(field) = acls.filter(|_| kinds == Kinds::Files)
        && let Some(entry) = acl.iter().find(|entry| entry.is_default)
    {
        let message = format!("`acls`: `{entry}` is a default entry, which files do not have");
        problems.error_with_hint(
            field.at(),
            message,
            "add `directory` to `type`, or give files an entry of their own",
        );
    }
    let permission = Permission {
        object: object?,
        pattern: pattern.unwrap_or_else(|| "**".to_owned()),
        except,
        kinds,
        owner: owner.and_then(|field| account::name(field, problems)),
        group: group.and_then(|field| account::name(field, problems)),
        mode: mode_field.and_then(|field| mode(field, problems)),
        acls: acl.iter().map(ToString::to_string).collect(),
        context: fields
            .get("context")
            .and_then(|field| context::parse(field, problems)),
    };
    if !["owner", "group", "mode", "acls", "context"]
        .iter()
        .any(|name| fields.get(name).is_some())
    {
        problems.warn(
            item.at(),
            "the permission changes nothing",
            "add `owner`, `group`, `mode`, `acls` or `context`",
        );
    }
    let at = PermissionAt {
        whole: item.at(),
        object: object_field?.at(),
        pattern: pattern_field.map(Field::at),
        except: except_field.map(Field::at),
        owner: owner.map(Field::at),
        group: group.map(Field::at),
        mode: mode_field.map(Field::at),
        acls: acls.map(Field::at),
        acl,
    };
    Some((permission, at))
}

/// A pattern on names, or in the JD dialect on paths. There is no wildcard but `*`, and whoever writes another one
/// expects it to work.
fn glob(field: Field<'_>, dialect: Dialect, problems: &mut Collector) -> Option<String> {
    let text = field.text(problems)?;
    let (is_refused, expected) = match dialect {
        Dialect::Aws => (text.contains(['/', '?', '[', ']']), "a name"),
        Dialect::Jd => (text.contains(['?', '[', ']']), "a name or a path"),
    };
    if is_refused {
        let message = format!(
            "`{}`: the pattern `{}` is not {expected} with `*` in it",
            field.name,
            excerpt(text)
        );
        problems.error_with_hint(
            field.at(),
            message,
            "name the folder as `object`, and what is directly in it as pattern; `**` is everything below",
        );
        return None;
    }
    Some(text.to_owned())
}

fn kinds(field: Field<'_>, problems: &mut Collector) -> Kinds {
    let items = field.items("`file` and `directory`", problems);
    if matches!(&field.node.value, crate::yaml::Value::Sequence(items) if items.is_empty()) {
        problems.error_with_hint(
            field.at(),
            "`type` is an empty list, so the permission applies to nothing",
            "leave `type` out for files and folders",
        );
    }
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
        .filter(|_| digits.len() <= 4 && !digits.starts_with('+'));
    if bits.is_none() {
        field.mismatch(
            "permission bits as at most four octal digits such as `0644`",
            problems,
        );
    }
    bits
}
