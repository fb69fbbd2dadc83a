//! The appspec that a deployment goes by: the package's own, with the group's form in the place of its hooks.

use std::path::Path;

use model::AppSpec;
use spec::Problems;
use spec::appspec::FindError;
use spec::workspace::Group;

use crate::plan::PlanError;

/// Reads and checks the package's appspec, with the group's form in the place of its hooks where there is one.
pub(crate) fn read_appspec(
    package: &str,
    tree: &Path,
    group: &Group,
    warnings: &mut Vec<String>,
) -> Result<AppSpec, PlanError> {
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| PlanError::ReadAppSpec {
        package: package.to_owned(),
        source,
    };
    let path = spec::appspec::find(tree).map_err(|error| match error {
        // The operator knows the package by its own name, not by where the store keeps it.
        FindError::Missing { .. } => FindError::Missing {
            package: package.into(),
        },
        other => other,
    });
    let path = path.map_err(|error| unreadable(Box::new(error)))?;
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(Box::new(error)))?;
    let shown = path
        .strip_prefix(tree)
        .map_or_else(|_| path.clone(), |name| Path::new(package).join(name));
    let problems = |source: Problems| PlanError::AppSpec {
        package: package.to_owned(),
        source,
    };
    let parsed = spec::appspec::parse(&text, &shown).map_err(problems)?;
    warnings.extend(parsed.warnings.iter().map(ToString::to_string));
    let found = spec::appspec::check(&parsed.value, tree);
    if found.has_errors() {
        return Err(problems(found));
    }
    let mut appspec = parsed.value.appspec;
    if let Some(form) = &group.form {
        if !appspec.hooks.is_empty() {
            warnings.push(format!(
                "{} has scripts of its own (the form): the hooks of `{}` are not used",
                group.reference,
                shown.display()
            ));
        }
        appspec.hooks.clone_from(form);
    }
    Ok(appspec)
}
