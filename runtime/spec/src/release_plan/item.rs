//! One item: which service, what is done to it, and with what.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::keys::{ITEM, KINDS, Needs};
use super::plan::{Compile, ExecMethod, Item, subject};
use crate::fields::{Field, Fields};
use crate::json;
use crate::problem::{Collector, excerpt, suggestion};
use crate::yaml::Value;

const EXEC_METHODS: [(&str, ExecMethod); 2] = [
    ("PARALLEL", ExecMethod::Parallel),
    ("SEQUENTIAL", ExecMethod::Sequential),
];

pub(super) fn parse_all(field: Field<'_>, problems: &mut Collector) -> Option<Vec<Item>> {
    let items = field.items("items, one for each service", problems);
    if items.is_empty() {
        if matches!(field.node.value, Value::Sequence(_)) {
            let message = format!("`{}` is empty: the plan releases nothing", field.name);
            let hint = "give each service an item: `- {serviceId: ID, deployment: KIND}`";
            problems.error_with_hint(field.at(), message, hint);
        }
        return None;
    }
    let mut lines = HashMap::new();
    let mut parsed = Vec::new();
    for item in &items {
        parsed.extend(parse(*item, &mut lines, problems));
        problems.about(None);
    }
    (parsed.len() == items.len()).then_some(parsed)
}

/// `lines` has the services of the items before this one, each with its line.
fn parse(
    item: Field<'_>,
    lines: &mut HashMap<u64, usize>,
    problems: &mut Collector,
) -> Option<Item> {
    let mut fields = item.open_fields(&ITEM, problems)?;
    let written = |name| fields.get(name).and_then(Field::scalar);
    let service = written("serviceId").and_then(|(text, _)| number(text));
    let kind = written("deployment").map(|(text, _)| text.trim());
    let needs = kind.map(Needs::of);
    problems.about(service.map(subject));
    judge_others(&mut fields, needs, problems);

    let service_id = fields
        .required("serviceId", problems)
        .and_then(|field| service_id(field, lines, problems));
    let kind = fields
        .required("deployment", problems)
        .and_then(|field| text_without_blanks(field, "a kind such as `RESTART`", problems));
    let priority = fields.optional("priority", |field| field.integer(problems));
    let exec_method = fields.optional("containerExecMethod", |field| {
        field.word(&EXEC_METHODS, problems)
    });
    let labels = match fields.written("deployLabel") {
        Some(field) => labels(field, problems),
        None => Some(Vec::new()),
    };
    if let (Some(needs), Some(kind)) = (needs, kind) {
        warn_of_idle_keys(&fields, needs, kind, problems);
    }
    let package = match needs {
        Some(Needs::Package | Needs::Own) => fields.optional("httpSrcUri", |field| {
            without_password(field, problems)?;
            text_without_blanks(field, "a URI", problems)
        }),
        _ => Some(None),
    };
    let compile = match needs {
        Some(Needs::Sources | Needs::Own) => compile(&fields, problems),
        _ => Some(None),
    };
    if let Some(needs) = needs {
        require(&fields, needs, problems);
    }
    let (extra, json) = as_json(item, problems)?;
    Some(Item {
        service_id: service_id?,
        kind: kind?.to_owned(),
        priority: priority?.unwrap_or_default(),
        exec_method: exec_method?,
        labels: labels?,
        http_src_uri: package?.map(str::to_owned),
        compile: compile?,
        extra,
        json,
        at: item.at(),
        node: item.node.clone(),
    })
}

/// Reports the keys that neither the format nor a plugin's kind can have.
fn judge_others(fields: &mut Fields<'_>, needs: Option<Needs>, problems: &mut Collector) {
    for other in fields.others() {
        if refuse_wrong_case(fields, other, problems) {
            continue;
        }
        match needs {
            // The schema of the kind says which keys there are.
            Some(Needs::Own) => {}
            Some(Needs::Nothing | Needs::Package | Needs::Sources) => {
                fields.refuse(other, problems);
            }
            // Whose kind it is cannot be known: only what is nearly a key of the format is sure to be wrong.
            None if suggestion(other.name, ITEM.keys).is_some() => fields.refuse(other, problems),
            None => {}
        }
    }
}

/// Reports a key that differs from a known one in case alone, and answers whether it does.
pub(super) fn refuse_wrong_case(
    fields: &mut Fields<'_>,
    other: Field<'_>,
    problems: &mut Collector,
) -> bool {
    let mut known = fields.keys().iter();
    let Some(right) = known.find(|key| key.eq_ignore_ascii_case(other.name)) else {
        return false;
    };
    let message = format!(
        "unknown key `{}`: upper and lower case matter",
        excerpt(other.name)
    );
    problems.error_with_hint(other.name_at, message, format!("write `{right}`"));
    fields.note_misspelt(right);
    true
}

fn service_id(
    field: Field<'_>,
    lines: &mut HashMap<u64, usize>,
    problems: &mut Collector,
) -> Option<u64> {
    let id = field.scalar().and_then(|(text, _)| number(text));
    let Some(id) = id else {
        field.mismatch("the `service_id` of a group, a whole number", problems);
        return None;
    };
    if let Some(first) = lines.get(&id) {
        let message = format!("the service has two items, the first on line {first}");
        let hint = "leave one of them out: a plan releases each service once";
        problems.error_with_hint(field.at(), message, hint);
        return None;
    }
    lines.insert(id, field.at().line);
    Some(id)
}

/// A number without a sign.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let is_natural = text.bytes().all(|byte| byte.is_ascii_digit());
    is_natural.then(|| text.parse().ok()).flatten()
}

/// Labels between commas.
fn labels(field: Field<'_>, problems: &mut Collector) -> Option<Vec<String>> {
    const EXPECTED: &str = "labels separated by commas";
    if field.node.is_null() {
        // Without labels all instances are meant, and whoever writes the key means some.
        let message = format!("`{}` has no value", field.name);
        let hint = "leave the key out to release all instances";
        problems.error_with_hint(field.name_at, message, hint);
        return None;
    }
    let Some((text, _)) = field.scalar() else {
        field.mismatch(EXPECTED, problems);
        return None;
    };
    if text.contains(['，', '、', '；', ';']) {
        let message = field.mismatch_message(EXPECTED);
        problems.error_with_hint(field.at(), message, "separate labels by `,`");
        return None;
    }
    let mut labels: Vec<String> = Vec::new();
    for label in text.split(',').map(str::trim) {
        if label.is_empty() {
            let message = format!(
                "`{}`: one of the labels in `{}` is empty",
                field.name,
                excerpt(text)
            );
            problems.error_with_hint(field.at(), message, "leave out the comma too many");
            return None;
        }
        if !labels.iter().any(|known| known == label) {
            labels.push(label.to_owned());
        }
    }
    Some(labels)
}

fn compile(fields: &Fields<'_>, problems: &mut Collector) -> Option<Option<Compile>> {
    let path = fields.optional("compileRepoPath", |field| repository(field, problems));
    let branch = fields.optional("compileRepoBranch", |field| branch(field, problems));
    let (path, branch) = (path?, branch?);
    Some(path.zip(branch).map(|(path, branch)| Compile {
        repo_path: path.to_owned(),
        repo_branch: branch.to_owned(),
    }))
}

fn repository<'n>(field: Field<'n>, problems: &mut Collector) -> Option<&'n str> {
    const EXPECTED: &str = "the URL of a Git repository";
    without_password(field, problems)?;
    let text = text_without_blanks(field, EXPECTED, problems)?;
    if text.starts_with('-') {
        field.mismatch(EXPECTED, problems);
        return None;
    }
    Some(text)
}

/// Refuses a URL with a password in it: what a plan says is recorded and reported. The text is not repeated.
fn without_password(field: Field<'_>, problems: &mut Collector) -> Option<()> {
    let place = field.scalar().and_then(|(text, _)| text.split_once("://"));
    let authority = place.and_then(|(_, place)| place.split(['/', '?', '#']).next());
    let user = authority.and_then(|authority| authority.rsplit_once('@'));
    if user.is_some_and(|(user, _)| user.contains(':')) {
        let message = format!("`{}` carries a password", field.name);
        let hint = "leave it out: what a plan says is recorded and reported";
        problems.error_with_hint(field.at(), message, hint);
        return None;
    }
    Some(())
}

/// A name that Git takes for a branch.
fn branch<'n>(field: Field<'n>, problems: &mut Collector) -> Option<&'n str> {
    let text = field.text(problems)?;
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && !part.ends_with(".lock")
    };
    let has_foreign = text.chars().any(|character| {
        character.is_control() || character.is_whitespace() || "~^:?*[\\".contains(character)
    });
    let is_branch = !has_foreign
        && !text.starts_with('-')
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
        && text.split('/').all(is_part);
    if !is_branch {
        field.mismatch("the name of a branch, such as `main`", problems);
        return None;
    }
    Some(text)
}

fn text_without_blanks<'n>(
    field: Field<'n>,
    expected: &str,
    problems: &mut Collector,
) -> Option<&'n str> {
    let text = field.text(problems)?;
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        field.mismatch(&format!("{expected}, without blanks"), problems);
        return None;
    }
    Some(text)
}

/// Reports the keys that the kind needs and the item lacks.
fn require(fields: &Fields<'_>, needs: Needs, problems: &mut Collector) {
    let [_, _, _, upload, compile] = KINDS;
    match needs {
        Needs::Package => fields.required_for(
            "httpSrcUri",
            &format!("`{upload}` deploys the package that is there"),
            "write `httpSrcUri: https://…`",
            problems,
        ),
        Needs::Sources => {
            fields.required_for(
                "compileRepoPath",
                &format!("`{compile}` builds what is in that Git repository"),
                "write `compileRepoPath: https://…`",
                problems,
            );
            fields.required_for(
                "compileRepoBranch",
                &format!("`{compile}` builds what is on that branch"),
                "write `compileRepoBranch: main`, or whichever it is",
                problems,
            );
        }
        Needs::Nothing | Needs::Own => {}
    }
}

fn warn_of_idle_keys(fields: &Fields<'_>, needs: Needs, kind: &str, problems: &mut Collector) {
    let (idle, reason): (&[&str], _) = match needs {
        Needs::Nothing => (
            &["httpSrcUri", "compileRepoPath", "compileRepoBranch"],
            format!("`{kind}` installs nothing"),
        ),
        Needs::Package => (
            &["compileRepoPath", "compileRepoBranch"],
            format!("`{kind}` deploys what is at `httpSrcUri`"),
        ),
        Needs::Sources => (
            &["httpSrcUri"],
            format!("`{kind}` builds what is in `compileRepoPath`"),
        ),
        Needs::Own => return,
    };
    for field in idle.iter().filter_map(|key| fields.get(key)) {
        let message = format!("`{}` has no effect: {reason}", field.name);
        problems.warn(field.name_at, message, "leave it out");
    }
}

/// The keys that only a plugin knows, and the whole item as text.
fn as_json(item: Field<'_>, problems: &mut Collector) -> Option<(Map<String, Json>, String)> {
    let Value::Mapping(entries) = &item.node.value else {
        return None;
    };
    let mut whole = Map::new();
    let mut extra = Map::new();
    for field in entries.iter().map(Field::of) {
        if !ITEM.keys.contains(&field.name) {
            let value = json::from_node(field.node, problems)?;
            extra.insert(field.name.to_owned(), value);
        } else if !field.node.is_null() {
            whole.insert(field.name.to_owned(), known_value(field, problems)?);
        }
    }
    whole.extend(extra.clone());
    Some((extra, Json::Object(whole).to_string()))
}

/// The value of a key of the format: whatever its text looks like, only two of them are numbers.
fn known_value(field: Field<'_>, problems: &mut Collector) -> Option<Json> {
    let Some((text, _)) = field.scalar() else {
        return json::from_node(field.node, problems);
    };
    let text = text.trim();
    let number = match field.name {
        "serviceId" => number(text).map(Json::from),
        "priority" => text.parse::<i64>().ok().map(Json::from),
        _ => None,
    };
    Some(number.unwrap_or_else(|| Json::from(text)))
}
