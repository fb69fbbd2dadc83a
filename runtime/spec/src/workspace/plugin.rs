//! The plugins of a workspace and what each is granted.
//!
//! A directory is granted as `PATH`, as `NAME: PATH`, or with its access as `{name, path, access}`; a secret as
//! A path on instances is granted as `PATH`, or with its access as `{path, access}`; a secret as
//! `NAME` (the environment variable of that name) or as `NAME: env:VARIABLE` or `NAME: file:PATH`.

use model::PluginName;

use crate::fields::{Field, Shape, is_variable_name};
use crate::json;
use crate::problem::{Collector, Position, excerpt, quoted_list, suggestion};
use crate::yaml::Value;

pub(super) static PLUGIN: Shape = Shape {
    name: "plugin",
    keys: &["component", "config", "grants"],
    aliases: &[],
};

pub(super) static GRANTS: Shape = Shape {
    name: "grants",
    keys: &[
        "sockets",
        "http",
        "directories",
        "secrets",
        "programs",
        "commands",
        "paths",
    ],
    aliases: &[],
};

pub(super) static PATH: Shape = Shape {
    name: "path",
    keys: &["path", "access"],
    aliases: &[],
};

pub(super) static DIRECTORY: Shape = Shape {
    name: "directory",
    keys: &["name", "path", "access"],
    aliases: &[],
};

/// A WebAssembly component that the workspace uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    pub name: PluginName,
    /// A path relative to the workspace file, a URL, or the bare name of a first-party plugin.
    pub component: String,
    /// What it is given as a package source: a JSON document. Balancers have theirs in the group.
    pub config: String,
    pub grants: Grants,
    /// Where the plugin's name is.
    pub at: Position,
}

/// What the operator allows a plugin. Nothing is allowed that is not listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// `tcp:HOST:PORT` or `unix:/PATH`.
    pub sockets: Vec<String>,
    /// Origins, with their scheme.
    pub http: Vec<String>,
    pub directories: Vec<Directory>,
    pub secrets: Vec<Secret>,
    pub programs: Vec<String>,
    /// Programs on instances: names, absolute paths, or paths of files in the package.
    pub commands: Vec<String>,
    /// Files and folders on instances.
    pub paths: Vec<InstancePath>,
}

/// A file or folder on instances that a plugin may use, with all that is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancePath {
    /// Absolute, or below the instance's `rootdir`; `.` is that folder.
    pub path: String,
    pub access: Access,
}

/// A folder that a plugin may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// How the plugin calls it.
    pub name: String,
    /// Relative to the workspace file when not absolute.
    pub path: String,
    pub access: Access,
}

/// What may be done in a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    Read,
    ReadWrite,
}

/// A secret that the host uses for a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// How the plugin calls it.
    pub name: String,
    pub source: SecretSource,
}

/// Where the host finds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable of the conductor.
    Variable(String),
    /// A file, relative to the workspace file when not absolute.
    File(String),
}

pub(super) fn parse(field: Field<'_>, problems: &mut Collector) -> Option<Plugin> {
    let fields = field.fields(&PLUGIN, problems)?;
    let name = field.name_as::<PluginName>(problems);
    let component = fields
        .required("component", problems)
        .and_then(|field| field.text(problems));
    let config = json::config(fields.get("config"), problems);
    let grants = fields
        .get("grants")
        .map_or(Some(Grants::default()), |field| grants(field, problems));
    Some(Plugin {
        name: name?,
        component: component?.to_owned(),
        config: config?,
        grants: grants?,
        at: field.name_at,
    })
}

fn grants(field: Field<'_>, problems: &mut Collector) -> Option<Grants> {
    let fields = field.fields(&GRANTS, problems)?;
    let mut items = |name, what| {
        fields
            .get(name)
            .map(|field| field.items(what, problems))
            .unwrap_or_default()
    };
    let sockets = items("sockets", "addresses");
    let http = items("http", "origins");
    let directories = items("directories", "folders");
    let secrets = items("secrets", "secrets");
    let programs = items("programs", "programs");
    let commands = items("commands", "commands");
    let paths = items("paths", "paths");
    Some(Grants {
        sockets: prefixed(
            &sockets,
            &["tcp:", "unix:/"],
            "`tcp:HOST:PORT` or `unix:/PATH`",
            problems,
        ),
        http: prefixed(
            &http,
            &["https://", "http://"],
            "an origin such as `https://api.example.com`",
            problems,
        ),
        directories: directories
            .into_iter()
            .filter_map(|item| directory(item, problems))
            .collect(),
        secrets: secrets
            .into_iter()
            .filter_map(|item| secret(item, problems))
            .collect(),
        programs: programs
            .into_iter()
            .filter_map(|item| item.text(problems))
            .map(str::to_owned)
            .collect(),
        commands: commands
            .into_iter()
            .filter_map(|item| command(item, problems))
            .collect(),
        paths: paths
            .into_iter()
            .filter_map(|item| path(item, problems))
            .collect(),
    })
}

fn prefixed(
    items: &[Field<'_>],
    prefixes: &[&str],
    expected: &str,
    problems: &mut Collector,
) -> Vec<String> {
    let mut texts = Vec::new();
    for item in items {
        match item.text(problems) {
            Some(text) if prefixes.iter().any(|prefix| text.starts_with(prefix)) => {
                texts.push(text.to_owned());
            }
            Some(_) => item.mismatch(expected, problems),
            None => {}
        }
    }
    texts
}

fn command(item: Field<'_>, problems: &mut Collector) -> Option<String> {
    let text = item.text(problems)?;
    let path = text.strip_prefix('/').unwrap_or(text);
    if text == "*" || is_plain(path) {
        return Some(text.to_owned());
    }
    item.mismatch(
        "a name, an absolute path, or the path of a file in the package",
        problems,
    );
    None
}

fn path(item: Field<'_>, problems: &mut Collector) -> Option<InstancePath> {
    let (field, access) = match &item.node.value {
        Value::Mapping(_) => {
            let fields = item.fields(&PATH, problems)?;
            let field = fields.required("path", problems);
            let access = match fields.get("access") {
                Some(field) => access(field, problems),
                None => Some(Access::default()),
            };
            (field?, access?)
        }
        _ => (item, Access::default()),
    };
    let text = field.text(problems)?;
    let path = text.strip_prefix('/').unwrap_or(text);
    if matches!(text, "*" | "." | "/") || is_plain(path) {
        let path = text.to_owned();
        return Some(InstancePath { path, access });
    }
    field.mismatch(
        "an absolute path or one below the instance's `rootdir`, without `..`",
        problems,
    );
    None
}

/// Whether a relative path has one spelling and leads nowhere but down.
fn is_plain(path: &str) -> bool {
    !path.contains(['*', '\0'])
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

fn access(field: Field<'_>, problems: &mut Collector) -> Option<Access> {
    let words = [("read", Access::Read), ("read-write", Access::ReadWrite)];
    field.word(&words, problems)
}

fn directory(item: Field<'_>, problems: &mut Collector) -> Option<Directory> {
    if let Some(pair) = single_pair(item).filter(|pair| !DIRECTORY.keys.contains(&pair.name)) {
        let path = pair.text(problems)?.to_owned();
        return Some(Directory {
            name: pair.name.to_owned(),
            path,
            access: Access::default(),
        });
    }
    if matches!(item.node.value, Value::Mapping(_)) {
        let fields = item.fields(&DIRECTORY, problems)?;
        let path = fields
            .required("path", problems)
            .and_then(|field| field.text(problems));
        let name = match fields.get("name") {
            Some(field) => field.text(problems),
            None => path,
        };
        let access = match fields.get("access") {
            Some(field) => access(field, problems),
            None => Some(Access::default()),
        };
        return Some(Directory {
            name: name?.to_owned(),
            path: path?.to_owned(),
            access: access?,
        });
    }
    let path = item.text(problems)?;
    Some(Directory {
        name: path.to_owned(),
        path: path.to_owned(),
        access: Access::default(),
    })
}

fn secret(item: Field<'_>, problems: &mut Collector) -> Option<Secret> {
    let Some(pair) = single_pair(item) else {
        let Value::Scalar { .. } = item.node.value else {
            item.mismatch(
                "`NAME`, `NAME: env:VARIABLE` or `NAME: file:PATH`",
                problems,
            );
            return None;
        };
        let name = item.text(problems)?;
        if !is_variable_name(name) {
            let message = format!(
                "`{}` is not a name of an environment variable",
                excerpt(name)
            );
            problems.error_with_hint(
                item.at(),
                message,
                format!("write `{}: env:VARIABLE`", excerpt(name)),
            );
            return None;
        }
        return Some(Secret {
            name: name.to_owned(),
            source: SecretSource::Variable(name.to_owned()),
        });
    };
    let text = pair.text(problems)?;
    let variable = text
        .strip_prefix("env:")
        .filter(|name| is_variable_name(name));
    let file = text.strip_prefix("file:").filter(|path| !path.is_empty());
    let source = match (variable, file) {
        (Some(name), _) => SecretSource::Variable(name.to_owned()),
        (None, Some(path)) => SecretSource::File(path.to_owned()),
        (None, None) => {
            pair.mismatch("`env:VARIABLE` or `file:PATH`", problems);
            return None;
        }
    };
    Some(Secret {
        name: pair.name.to_owned(),
        source,
    })
}

/// The pair of a mapping that has just one.
fn single_pair(item: Field<'_>) -> Option<Field<'_>> {
    match &item.node.value {
        Value::Mapping(entries) if entries.len() == 1 => entries.first().map(Field::of),
        _ => None,
    }
}

/// The name of a plugin that the workspace declares.
pub(super) fn declared(
    field: Field<'_>,
    plugins: &[&str],
    problems: &mut Collector,
) -> Option<PluginName> {
    let text = field.text(problems)?;
    if plugins.contains(&text) {
        // A declared plugin with a bad name is reported where it is declared.
        return PluginName::parse(text).ok();
    }
    let message = match plugins {
        [] => format!(
            "the plugin `{}` is not declared; `plugins` has none",
            excerpt(text)
        ),
        _ => format!(
            "the plugin `{}` is not declared; `plugins` has {}",
            excerpt(text),
            quoted_list(plugins)
        ),
    };
    let hint = match suggestion(text, plugins) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!(
            "declare it: `plugins: {{{}: {{component: …}}}}`",
            excerpt(text)
        ),
    };
    problems.error_with_hint(field.at(), message, hint);
    None
}
