//! What a build is made of, and how it is known again.

use std::collections::BTreeMap;
use std::path::Path;

use plugin_host::package_source::Checkout;
use sha2::{Digest as _, Sha256};
use spec::workspace::Group;

use super::scratch::Scratch;

/// Where programs are looked for when this process was not told.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that decides what a build gives, but for the machine that it runs on.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// The source, which does not move.
    pub(crate) pinned: String,
    /// For a shell; absent where the source itself is the package.
    pub(crate) command: Option<String>,
    /// Relative to the folder that the source is in.
    pub(crate) output: String,
    /// What the build sees beside what every build does.
    pub(crate) variables: BTreeMap<String, String>,
}

impl Recipe {
    pub(crate) fn new(pinned: &str, checkout: &Checkout, group: &Group) -> Self {
        let mut variables = BTreeMap::from([
            ("APPLICATION_NAME", group.reference.application.to_string()),
            ("DEPLOYMENT_GROUP_NAME", group.reference.group.to_string()),
            ("CUTOVER_SOURCE", pinned.to_owned()),
        ])
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect::<BTreeMap<_, _>>();
        variables.extend(checkout.facts.iter().cloned());
        let build = group.build.as_ref();
        variables.extend(build.map(|build| build.env.clone()).unwrap_or_default());
        Self {
            pinned: pinned.to_owned(),
            command: build.map(|build| build.command.clone()),
            output: build.map_or_else(|| ".".to_owned(), |build| build.output.clone()),
            variables,
        }
    }

    /// What the recipe is known by: two that differ in anything have different keys.
    pub(crate) fn key(&self) -> String {
        let Self {
            pinned,
            command,
            output,
            variables,
        } = self;
        let mut digest = Sha256::new();
        let mut add = |text: &str| {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        };
        add(pinned);
        add(if command.is_some() { "command" } else { "none" });
        add(command.as_deref().unwrap_or_default());
        add(output);
        for (name, value) in variables {
            add(name);
            add(value);
        }
        let digest = digest.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What every command of a build sees, with what it is given beside that.
pub(crate) fn environment<'v>(
    scratch: &Scratch,
    given: impl IntoIterator<Item = (&'v String, &'v String)>,
) -> Vec<(String, String)> {
    let shown = |path: &Path| path.display().to_string();
    let path = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
    let mut variables = BTreeMap::from(
        [
            ("PATH", path),
            ("HOME", shown(&scratch.home())),
            ("TMPDIR", shown(&scratch.temporary())),
            ("LANG", "C.UTF-8".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let given = given.into_iter();
    variables.extend(given.map(|(name, value)| (name.clone(), value.clone())));
    variables.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_command_or_variable_is_another_build() {
        let recipe = Recipe {
            pinned: "git+file:///r#1".to_owned(),
            command: Some("make".to_owned()),
            output: ".".to_owned(),
            variables: BTreeMap::from([("CI".to_owned(), "1".to_owned())]),
        };
        let others = [
            Recipe {
                pinned: "git+file:///r#2".to_owned(),
                ..recipe.clone()
            },
            Recipe {
                command: None,
                ..recipe.clone()
            },
            Recipe {
                command: Some("make all".to_owned()),
                ..recipe.clone()
            },
            Recipe {
                output: "dist".to_owned(),
                ..recipe.clone()
            },
            Recipe {
                variables: BTreeMap::from([("C".to_owned(), "I1".to_owned())]),
                ..recipe.clone()
            },
        ];

        for other in others {
            assert_ne!(recipe.key(), other.key(), "{other:?}");
        }
    }
}
