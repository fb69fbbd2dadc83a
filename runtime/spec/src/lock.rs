//! The lock file, `cutover.lock`: what each plugin of a workspace is, byte for byte.
//!
//! It is YAML with one block per plugin in the order of their names, so that a change reads well in a review.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use model::{Digest, PluginName};

use crate::fields::{Field, Fields, Shape};
use crate::problem::{Collector, Parsed, Problems};
use crate::{template, yaml};

static LOCK: Shape = Shape {
    name: "lock",
    keys: &["version", "plugins"],
    aliases: &[],
};

static ENTRY: Shape = Shape {
    name: "entry",
    keys: &["component", "digest", "size"],
    aliases: &[],
};

const HEADER: &str = "# Written by cutover. Keep it under version control: it pins the plugins of this workspace.\nversion: 1\n";

/// The content of a lock file. Its `Display` is the text of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    pub plugins: BTreeMap<PluginName, Entry>,
}

/// What one plugin is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The `component` of the workspace that was resolved.
    pub component: String,
    /// Digest of the component's bytes.
    pub digest: Digest,
    /// Number of the component's bytes.
    pub size: u64,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        if self.plugins.is_empty() {
            return f.write_str("plugins: {}\n");
        }
        f.write_str("plugins:\n")?;
        for (
            name,
            Entry {
                component,
                digest,
                size,
            },
        ) in &self.plugins
        {
            // Quoted, for a plugin may be called `null`.
            writeln!(f, "  \"{name}\":")?;
            writeln!(f, "    component: {}", template::quoted(component))?;
            writeln!(f, "    digest: {digest}")?;
            writeln!(f, "    size: {size}")?;
        }
        Ok(())
    }
}

/// Reads a lock file. `file` is only named in messages.
///
/// # Errors
/// Every problem of the text.
pub fn parse(text: &str, file: &Path) -> Result<Parsed<Lock>, Problems> {
    let mut problems = Collector::new(file);
    let lock = yaml::parse(text, &mut problems).and_then(|root| {
        let fields = Fields::of_root(&root, &LOCK, &mut problems)?;
        if let Some(field) = fields.required("version", &mut problems) {
            field.word(&[("1", ())], &mut problems);
        }
        let field = fields.required("plugins", &mut problems)?;
        let entries = field.entries("names to plugins", &mut problems);
        Some(Lock {
            plugins: entries
                .into_iter()
                .filter_map(|field| entry(field, &mut problems))
                .collect(),
        })
    });
    problems.finish(lock)
}

fn entry(field: Field<'_>, problems: &mut Collector) -> Option<(PluginName, Entry)> {
    let fields = field.fields(&ENTRY, problems)?;
    let name = field.name_as::<PluginName>(problems);
    let component = fields
        .required("component", problems)
        .and_then(|field| field.raw_text(problems));
    let digest = fields
        .required("digest", problems)
        .and_then(|field| field.parsed(Digest::parse, problems));
    let size = fields
        .required("size", problems)
        .and_then(|field| field.number(0..=u64::MAX, problems));
    Some((
        name?,
        Entry {
            component: component?.to_owned(),
            digest: digest?,
            size: size?,
        },
    ))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str) -> String {
        match parse(text, Path::new("cutover.lock")) {
            Ok(parsed) => parsed.value.to_string(),
            Err(problems) => problems.to_string(),
        }
    }

    /// A lock file as the first version writes it.
    const VERSION_1: &str = "\
# Written by cutover. Keep it under version control: it pins the plugins of this workspace.
version: 1
plugins:
  \"haproxy\":
    component: \"plugins/haproxy.wasm\"
    digest: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
    size: 25123
";

    #[test]
    fn writes_what_it_reads() {
        assert_eq!(check(VERSION_1), VERSION_1);
        assert_eq!(
            check("version: 1\nplugins: {}\n"),
            format!("{HEADER}plugins: {{}}\n")
        );
    }

    #[test]
    fn reports_what_is_wrong() {
        assert_snapshot!(check("version: 2\nplugins:\n  -x: {component: a, digest: sha256:0, size: -1, name: x}\n"), @"
        cutover.lock:1:10: `version`: expected `1`, found number `2`
        cutover.lock:3:3: `-x` is not a valid name: use at most 64 letters, digits, `-`, `_` and `.`, not starting with `.` or `-`
        cutover.lock:3:30: `digest`: `sha256:0` is not a digest: write sha256: and 64 hexadecimal digits
        cutover.lock:3:46: `size`: expected a whole number of at least 0, found number `-1`
        cutover.lock:3:50: unknown key `name`; expected one of `component`, `digest`, `size`
        ");
    }

    prop_compose! {
        fn any_entry()(component in "[^\0]+", hex in "[0-9a-f]{64}", size in any::<u64>()) -> Entry {
            Entry { component, digest: Digest::parse(&format!("sha256:{hex}")).unwrap(), size }
        }
    }

    proptest! {
        #[test]
        fn round_trips(entries in prop::collection::btree_map("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,8}|null|<<", any_entry(), 0..4)) {
            let plugins =
                entries.into_iter().filter_map(|(name, entry)| Some((PluginName::parse(name).ok()?, entry))).collect();
            let lock = Lock { plugins };

            let parsed = parse(&lock.to_string(), Path::new("cutover.lock")).unwrap();

            prop_assert_eq!(parsed.value, lock);
        }

        #[test]
        fn never_panics(text in "(?s).{0,80}") {
            parse(&text, Path::new("cutover.lock")).ok();
        }
    }
}
