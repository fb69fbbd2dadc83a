//! Packages that are built out of a git repository: `git+URL#BRANCH`.
//!
//! The plugin asks git which commit a branch is at, which makes the reference one that does not move, and says which
//! commands bring that commit. The host runs them, and the command that the group has for building it. Start at
//! [`GitBuild`]; what git is told is in `git`, what a reference may look like in `reference`.

mod config;
mod git;
mod reference;

use cutover_plugin_sdk::{
    Attribute, Checkout, Diagnostic, Failure, FailureClass, FetchPlan, OpContext, PackageSource,
    Plugin, Resolved, Variable, export, programs,
};

use config::Config;
use reference::{Reference, Revision};

/// What a commit is.
const FOLDER: &str = "inode/directory";
/// How long git may take to list references. The host's own limit comes after it.
const TIMEOUT_MS: u64 = 25_000;

struct GitBuild;

impl Plugin for GitBuild {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        config.check()
    }
}

impl PackageSource for GitBuild {
    fn resolve(_ctx: &OpContext, reference: &str) -> Result<Resolved, Failure> {
        let reference = Reference::parse(reference)?;
        let (commit, name) = match &reference.revision {
            Revision::Commit(commit) => (commit.clone(), None),
            Revision::Name(name) => {
                let found = ask(&cutover_plugin_sdk::config()?, &reference, name)?;
                (found.commit, Some(found.name))
            }
        };
        let version = name.as_deref().and_then(version_of_tag);
        let attribute = |key: &str, value: String| Attribute {
            key: key.to_owned(),
            value,
        };
        let name = name.map(|name| attribute("git.reference", name));
        Ok(Resolved {
            pinned: reference.pinned(&commit),
            version,
            media_type: FOLDER.to_owned(),
            size: None,
            digest: reference.digest,
            attributes: [attribute("git.commit", commit)]
                .into_iter()
                .chain(name)
                .collect(),
        })
    }

    fn plan_fetch(_ctx: &OpContext, pinned: &str) -> Result<FetchPlan, Failure> {
        plan(&cutover_plugin_sdk::config()?, pinned)
    }
}

fn plan(config: &Config, pinned: &str) -> Result<FetchPlan, Failure> {
    let reference = Reference::parse(pinned)?;
    let Revision::Commit(commit) = &reference.revision else {
        return Err(Failure::invalid(
            "git-build.pinned",
            format!("`{pinned}` names no commit, and a branch may move"),
        ));
    };
    let variable = |name: &str, value: String| Variable {
        name: name.to_owned(),
        value,
    };
    Ok(FetchPlan::Build(Checkout {
        commands: git::checkout(config, reference.transport, reference.url, commit),
        environment: git::environment(config, reference.transport)
            .into_iter()
            .map(|(name, value)| variable(name, value))
            .collect(),
        facts: vec![variable("CUTOVER_COMMIT", commit.clone())],
        leave_out: vec![".git".to_owned()],
    }))
}

/// Asks the repository which commit a name stands for.
fn ask(config: &Config, reference: &Reference<'_>, name: &str) -> Result<git::Found, Failure> {
    let listed = list(config, reference, &git::candidates(name))?;
    if let Some(found) = git::find(&listed, name)? {
        return Ok(found);
    }
    let all = list(config, reference, &[])?;
    if git::is_short_id(name)
        && let Some(found) = git::find_short(&all, name)?
    {
        return Ok(found);
    }
    Err(git::missing(reference.url, name, &all))
}

fn list(config: &Config, reference: &Reference<'_>, names: &[String]) -> Result<String, Failure> {
    let environment: Vec<_> = git::environment(config, reference.transport)
        .into_iter()
        .map(|(name, value)| programs::Variable {
            name: name.to_owned(),
            value,
        })
        .collect();
    let output = programs::run_with(
        &config.program,
        &git::list(reference.url, names),
        &environment,
        None,
        TIMEOUT_MS,
    )
    .map_err(|failure| match failure.class {
        FailureClass::NotFound => failure.hint(format!(
            "install `{}` on the machine that runs the release",
            config.program
        )),
        _ => failure,
    })?;
    if output.exit_code == 0 {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(git::unreadable(reference, &stderr))
    }
}

/// The version that a tag is named after.
fn version_of_tag(name: &str) -> Option<String> {
    let tag = name.strip_prefix("refs/tags/")?;
    let version = tag.strip_prefix('v').unwrap_or(tag);
    let parts: Vec<&str> = version.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (matches!(parts.len(), 3 | 4) && parts.iter().all(is_number)).then(|| version.to_owned())
}

export!(GitBuild: PackageSource);

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_commit_needs_nobody_to_be_asked() {
        let ctx = OpContext {
            run_id: String::new(),
            step_id: String::new(),
            idempotency_key: String::new(),
            attempt: 1,
            deadline: 0,
            dry_run: false,
            traceparent: None,
        };
        let reference = format!("git+https://h/shop.git#{COMMIT}");

        let resolved = GitBuild::resolve(&ctx, &reference).unwrap();

        assert_eq!((resolved.pinned, resolved.version), (reference, None));
    }

    #[test]
    fn a_plan_fetches_one_commit_and_leaves_git_s_own_folder_out() {
        let plan = plan(
            &Config::default(),
            &format!("git+file:///srv/shop#{COMMIT}"),
        )
        .unwrap();

        let FetchPlan::Build(checkout) = plan else {
            panic!("{plan:?}");
        };
        let fetch = &checkout.commands[1];
        assert_eq!(fetch.program, "git");
        assert!(
            fetch
                .arguments
                .ends_with(&["--", "file:///srv/shop", COMMIT].map(str::to_owned))
        );
        assert_eq!(checkout.leave_out, [".git"]);
        assert!(plan_of_branch().is_err());
    }

    fn plan_of_branch() -> Result<FetchPlan, Failure> {
        plan(&Config::default(), "git+file:///srv/shop#main")
    }

    #[test]
    fn a_tag_may_be_named_after_a_version() {
        for (name, version) in [
            ("refs/tags/v1.2.0", Some("1.2.0")),
            ("refs/tags/1.2.0.4", Some("1.2.0.4")),
            ("refs/tags/v1.2", None),
            ("refs/tags/v1.2.0-rc1", None),
            ("refs/heads/1.2.0", None),
        ] {
            assert_eq!(version_of_tag(name).as_deref(), version, "{name}");
        }
    }
}
