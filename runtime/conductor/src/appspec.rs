//! The appspec that a deployment goes by: the package's own, with the group's form in the place of its hooks.

use std::path::Path;

use model::AppSpec;
use spec::Problem;
use spec::appspec::Located;
use spec::workspace::Group;

use crate::plan::PlanError;

/// Reads and checks the package's appspec, with the group's form in the place of its hooks where there is one.
pub(crate) fn read_appspec(
    package: &str,
    tree: &Path,
    group: &Group,
    warnings: &mut Vec<String>,
) -> Result<AppSpec, PlanError> {
    Ok(read_located(package, tree, group, warnings)?.appspec)
}

/// As [`read_appspec`], with what the file itself says of where its parts are.
pub(crate) fn read_located(
    package: &str,
    tree: &Path,
    group: &Group,
    warnings: &mut Vec<String>,
) -> Result<Located, PlanError> {
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| PlanError::ReadAppSpec {
        package: package.to_owned(),
        source,
    };
    // The operator knows the package by its own name, not by where the store keeps it.
    let shown = Path::new(package);
    let examined = spec::appspec::examine(tree, shown, group.appspec.as_deref())
        .map_err(|error| unreadable(Box::new(error)))?;
    let located = match examined.located {
        Some(located) if !examined.problems.has_errors() => located,
        _ => {
            return Err(PlanError::AppSpec {
                package: package.to_owned(),
                source: examined.problems,
            });
        }
    };
    warnings.extend(examined.problems.iter().map(warning));
    let file = located.file().display().to_string();
    let mut located = located;
    if let Some(form) = &group.form {
        if !located.appspec.hooks.is_empty() {
            warnings.push(format!(
                "{} has scripts of its own (the form): the hooks of `{file}` are not used",
                group.reference
            ));
        }
        located.appspec.hooks.clone_from(form);
    }
    Ok(located)
}

/// A warning on one line. Whoever prints it says that it is one.
fn warning(problem: &Problem) -> String {
    let Problem {
        file,
        line,
        column,
        message,
        hint,
        ..
    } = problem;
    let place = format!("{}:{line}:{column}", file.display());
    match hint {
        Some(hint) => format!("{place}: {message} ({hint})"),
        None => format!("{place}: {message}"),
    }
}
