//! What a command fails with, and the exit status that says it.

use conductor::{
    BuildError, ChoiceError, DriveError, FetchError, LiveError, OrderError, PlanError, PluginError,
    PreflightError, RetryError, ReturnError, TemplateError,
};
use journal::{DeleteError, FindError};
use model::{GroupRef, ReleaseId};
use spec::Position;
use spec::workspace::{Plugin, UnknownGroup};

use crate::workspace::Opened;

/// Exit statuses are public (DESIGN.md §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bug,
    Usage,
    Invalid,
    Failed,
    NeedsPerson,
    Busy,
    Unfinished,
    Interrupted,
}

impl Kind {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Kind::Bug => 1,
            Kind::Usage => 2,
            Kind::Invalid => 3,
            Kind::Failed => 4,
            Kind::NeedsPerson => 5,
            Kind::Busy => 6,
            Kind::Unfinished => 7,
            Kind::Interrupted => 130,
        }
    }
}

/// An error for people: what happened, the causes, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) error: Box<dyn std::error::Error + Send + Sync>,
    /// The file, line and column that it is about, where it is about one.
    pub(crate) place: Option<String>,
    /// Each starts with a verb.
    pub(crate) hints: Vec<String>,
}

impl Failure {
    pub(crate) fn new(
        kind: Kind,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            error: error.into(),
            place: None,
            hints: Vec::new(),
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// A failure to plan, with its place in the workspace file.
    pub(crate) fn planning(opened: &Opened, group: &GroupRef, error: PlanError) -> Self {
        let plugin = |error: &PluginError| {
            let declared = &opened.workspace.plugins;
            let is_meant = |plugin: &&Plugin| match error {
                PluginError::NotFound { component, .. } => plugin.component == *component,
                PluginError::Unknown { name }
                | PluginError::Remote { name, .. }
                | PluginError::Load { name, .. }
                | PluginError::Changed { name, .. }
                | PluginError::NotTheSame { name, .. }
                | PluginError::Secret { name, .. } => plugin.name == *name,
                _ => false,
            };
            declared.iter().find(is_meant).map(|plugin| plugin.at)
        };
        let at = match &error {
            PlanError::Plugin(error) | PlanError::Balancer(PreflightError::Plugin(error)) => {
                plugin(error)
            }
            PlanError::Live(_)
            | PlanError::Balancer(
                PreflightError::NotARouter { .. }
                | PreflightError::RouterConfig { .. }
                | PreflightError::Sides { .. }
                | PreflightError::Split { .. }
                | PreflightError::Apart { .. },
            ) => opened
                .workspace
                .group(group)
                .ok()
                .map(|group| group.router_at),
            PlanError::Balancer(error) if error.gate().is_some() => {
                let group = opened.workspace.group(group).ok();
                group
                    .zip(error.gate())
                    .map(|(group, gate)| group.gate_at(gate))
            }
            PlanError::Balancer(_) => opened
                .workspace
                .group(group)
                .ok()
                .map(|group| group.balancer_at),
            _ => None,
        };
        let failure = Self::from(error);
        match at {
            Some(at) => failure.at(opened, at),
            None => failure,
        }
    }

    /// Says where in the workspace file the failure has its cause.
    pub(crate) fn at(mut self, opened: &Opened, at: Position) -> Self {
        let Position { line, column } = at;
        self.place = Some(format!("{}:{line}:{column}", opened.file.display()));
        self
    }

    /// A failure to read or write what the operator named.
    pub(crate) fn io(attempted: String, source: std::io::Error) -> Self {
        Self::new(Kind::Invalid, IoFailure { attempted, source })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{attempted}")]
struct IoFailure {
    attempted: String,
    source: std::io::Error,
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        let kind = kind_of(&error);
        let hints = hints_of(&error);
        let mut failure = Self::new(kind, error);
        failure.hints = hints;
        failure
    }
}

fn kind_of(error: &PlanError) -> Kind {
    match error {
        PlanError::Busy { .. } | PlanError::Driven { .. } | PlanError::Outdated { .. } => {
            Kind::Busy
        }
        PlanError::Journal(error) | PlanError::Drive(DriveError::Journal(error)) => {
            kind_of_journal(error)
        }
        PlanError::Owner(_)
        | PlanError::Random(_)
        | PlanError::Misfit(_)
        | PlanError::Drive(DriveError::Refusal(_))
        | PlanError::Exists { .. } => Kind::Bug,
        _ => Kind::Invalid,
    }
}

/// What to do about an error, each a sentence that starts with a verb.
pub(crate) fn hints_of(error: &PlanError) -> Vec<String> {
    let hint = match error {
        PlanError::Busy { holder, .. } => {
            let see = format!("see where it stands: cutover show {}", holder.release);
            return match &holder.owner {
                Some(owner) if !owner.is_known_dead() => {
                    let follow = format!("follow it to its end: cutover watch {}", holder.release);
                    vec![see, follow]
                }
                // The message has told how to go on with it.
                _ => vec![see],
            };
        }
        PlanError::Outdated { .. } => {
            "give the command again: it plans on what is installed by now".to_owned()
        }
        PlanError::Driven { release, .. } => format!("follow it: cutover watch {release}"),
        PlanError::UnknownGroup(unknown) => return unknown_group(unknown).into_iter().collect(),
        PlanError::VersionTaken { .. } => {
            "give another --version, or leave it out to have one generated".to_owned()
        }
        PlanError::Choice(error) => return choice(error),
        PlanError::Template(TemplateError::NoPackage { brought_by, .. }) => {
            let hint = brought_by.as_ref().map(|brought_by| {
                format!("name the deployment that brought it: cutover redeploy {brought_by}")
            });
            return hint.into_iter().collect();
        }
        PlanError::Template(TemplateError::RolledBack { by, .. })
        | PlanError::Retry(RetryError::RolledBack { by, .. }) => {
            return vec![
                format!("see why: cutover report {by}"),
                "deploy the package itself, if it is good after all: cutover deploy".to_owned(),
            ];
        }
        PlanError::Template(TemplateError::Unknown { .. }) => {
            "list releases: cutover ls".to_owned()
        }
        PlanError::Retry(RetryError::Several { .. }) => {
            "name one of the deployments instead of the release".to_owned()
        }
        PlanError::Retry(RetryError::Superseded {
            release, is_retry, ..
        }) => {
            if *is_retry {
                format!("retry that one: cutover retry {release} --failed")
            } else {
                format!("see what it did: cutover show {release}")
            }
        }
        PlanError::Retry(RetryError::OtherSides { group, .. }) => {
            format!("name them as they were, or take it back: cutover rollback {group}")
        }
        PlanError::Retry(RetryError::Live { deployment, .. }) => {
            format!("deploy it to the other side: cutover redeploy {deployment}")
        }
        PlanError::Retry(RetryError::NoDeployment { release }) => {
            format!("see what it did: cutover report {release}")
        }
        PlanError::Return(
            ReturnError::UnknownVersion { group, .. } | ReturnError::AlreadyThere { group, .. },
        ) => format!("see what it has had: cutover history {group}"),
        PlanError::Return(ReturnError::Latest { deployment, .. }) => format!(
            "bring it to the instances that did not get it: cutover retry {deployment} --failed"
        ),
        PlanError::Return(ReturnError::OtherSide { deployment, .. }) => {
            format!("deploy it once more: cutover redeploy {deployment}")
        }
        PlanError::NotOver { release, .. } => {
            format!("end it first: cutover stop {release}")
        }
        PlanError::NothingToUndo { release } => {
            format!("see what it did: cutover report {release}")
        }
        PlanError::Superseded { group, .. } => {
            format!("take back what came later first: cutover rollback {group}")
        }
        PlanError::NothingInstalled { group } => {
            format!("deploy something first: cutover deploy {group} --package URI")
        }
        PlanError::NothingToRollBack { group } => {
            format!("see what it has had: cutover history {group}")
        }
        PlanError::NoEarlierVersion { deployment } => {
            format!("see what it did: cutover report {deployment}")
        }
        PlanError::Fetch(FetchError::WrongDigest { .. }) => {
            "check that the package is the one that was meant".to_owned()
        }
        PlanError::Fetch(FetchError::WrongChecksum { file, .. }) => format!(
            "find out which of the two is out of date; name another file in `checksums` of the plugin's config, or `none`, where `{file}` is not meant"
        ),
        PlanError::Fetch(FetchError::NoChecksum { .. }) => {
            "put the digest there, as `sha256sum FILE` prints it, or change `checksums` of the plugin's config".to_owned()
        }
        PlanError::Fetch(FetchError::Changed { .. } | FetchError::Restless { .. }) => {
            "wait until nobody uploads it, and run this again: it is looked up anew".to_owned()
        }
        PlanError::Fetch(FetchError::Answer { source, .. })
            if matches!(source.status, 401 | 403) =>
        {
            "give credentials: `headers` with `{{secret:NAME}}` in the plugin's config, and a grant of the secret".to_owned()
        }
        PlanError::Fetch(FetchError::Unpack {
            source: agent::unpack::Error::TooLarge { .. },
            ..
        }) => {
            "raise `packages.limits` in the workspace file, if the package is meant to be like that"
                .to_owned()
        }
        PlanError::Fetch(FetchError::RefusedAddress { grant, .. }) => {
            return grant.as_deref().map(plugins_hint).into_iter().collect();
        }
        PlanError::Build(error) => return build(error),
        PlanError::Source { source, .. } => {
            let hint = source.failure().and_then(|failure| failure.hint.as_deref());
            return hint.map(plugins_hint).into_iter().collect();
        }
        PlanError::UngrantedPlace { .. } => {
            "grant the origin in the plugin's `grants.http`, if it is trusted".to_owned()
        }
        PlanError::Live(error) => return live_hints(error),
        PlanError::Balancer(
            PreflightError::Status { hint, .. }
            | PreflightError::Split { hint, .. }
            | PreflightError::AskGate { hint, .. },
        ) => {
            return hint.as_deref().map(plugins_hint).into_iter().collect();
        }
        PlanError::Balancer(PreflightError::Apart { .. }) => {
            "find out who moved it, and bring the place that is wrong to where the other one is"
                .to_owned()
        }
        PlanError::Balancer(
            PreflightError::NotABalancer { .. }
            | PreflightError::NotARouter { .. }
            | PreflightError::NotAGate { .. },
        ) => "see what each plugin implements: cutover plugin ls".to_owned(),
        PlanError::Plugin(PluginError::NoSource { scheme }) if scheme.starts_with("git+") => {
            "declare the plugin that does: plugins: {git-build: {component: git-build, grants: {programs: [git]}}}"
                .to_owned()
        }
        PlanError::Plugin(PluginError::NoSource { .. }) => {
            "name a folder, an archive or an http: address, or declare a plugin that serves it"
                .to_owned()
        }
        PlanError::NotResumable { release, .. } => {
            format!("see how it ended: cutover report {release}")
        }
        _ => return Vec::new(),
    };
    vec![hint]
}

/// What to do about a build that gave no package. Nothing has changed by it.
fn build(error: &BuildError) -> Vec<String> {
    let hint = match error {
        BuildError::Checkout { hint, .. } => return hint.iter().map(ToString::to_string).collect(),
        BuildError::Failed { log, .. } => format!("read all of it: less {}", log.display()),
        BuildError::NoOutput { .. } | BuildError::OutputLeaves { .. } => {
            "name what the build makes as `build.output` of the group".to_owned()
        }
        BuildError::NoProgram { program, .. } => {
            format!("install `{program}` on this machine")
        }
        BuildError::NotReproduced { .. } => {
            "deploy the branch, which gives a version of its own: cutover deploy APP/GROUP --package URI"
                .to_owned()
        }
        BuildError::NoGroup { .. }
        | BuildError::NoConfiner { .. }
        | BuildError::Scratch { .. }
        | BuildError::Confiner { .. }
        | BuildError::Lost { .. } => return Vec::new(),
    };
    vec![hint]
}

/// What settles which side is live.
fn live_hints(error: &LiveError) -> Vec<String> {
    let hint = match error {
        LiveError::Disagreement {
            live: Some(side), ..
        } => format!("find out who moved it; if `{side}` is meant to be live, add --live {side}"),
        LiveError::Disagreement { live: None, .. } => {
            "find out who moved it, and bring it back to where the journal says".to_owned()
        }
        LiveError::Split { .. } => {
            "end what splits it, or name the side to go on from: --live SIDE".to_owned()
        }
        LiveError::Unknown { .. } => "give the command again when the router answers".to_owned(),
        LiveError::Replaced { group, .. } => {
            format!("deploy the version that is wanted: cutover deploy {group} --package URI")
        }
        LiveError::UnknownSide { .. } | LiveError::NotLive { .. } | LiveError::NotTwo { .. } => {
            return Vec::new();
        }
    };
    vec![hint]
}

fn choice(error: &ChoiceError) -> Vec<String> {
    let hint = match error {
        ChoiceError::UnknownInstance(unknown) => match &unknown.suggestion {
            Some(suggestion) => format!("did you mean `{suggestion}`?"),
            None => {
                let known: Vec<_> = unknown.known.iter().map(ToString::to_string).collect();
                format!("choose one of {}", known.join(", "))
            }
        },
        ChoiceError::Strategy { .. } => {
            "leave --strategy out to deploy as the file says".to_owned()
        }
        ChoiceError::PartOfSide { .. }
        | ChoiceError::NothingLeft { .. }
        | ChoiceError::TooFew { .. } => return Vec::new(),
    };
    vec![hint]
}

/// What a plugin, or its host, advises. The host names the line that would grant what it denied.
fn plugins_hint(hint: &str) -> String {
    if hint.starts_with("plugins.") {
        format!("grant it in the workspace file: {hint}")
    } else {
        hint.to_owned()
    }
}

impl From<UnknownGroup> for Failure {
    fn from(unknown: UnknownGroup) -> Self {
        PlanError::from(unknown).into()
    }
}

fn unknown_group(unknown: &UnknownGroup) -> Option<String> {
    if let Some(suggestion) = &unknown.suggestion {
        return Some(format!("did you mean `{suggestion}`?"));
    }
    let known: Vec<_> = unknown.known.iter().map(ToString::to_string).collect();
    (!known.is_empty()).then(|| format!("choose one of {}", known.join(", ")))
}

impl Failure {
    /// Driving broke off. What the journal holds is in order, and the release can be gone on with.
    pub(crate) fn driving(release: &ReleaseId, error: DriveError) -> Self {
        let kind = match &error {
            DriveError::Journal(journal::Error::Storage { .. }) => Kind::Unfinished,
            DriveError::Journal(error) => kind_of_journal(error),
            DriveError::Refusal(_) => Kind::Bug,
        };
        let hint = match kind {
            Kind::Busy => format!("follow it: cutover watch {release}"),
            _ => format!("go on when the cause is gone: cutover resume {release}"),
        };
        Self::new(kind, error).hint(hint)
    }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Journal(error) => error.into(),
            FindError::NotFound { .. } => {
                Self::new(Kind::Invalid, error).hint("list releases: cutover ls")
            }
            FindError::Ambiguous { .. } => {
                Self::new(Kind::Invalid, error).hint("give more of the id")
            }
        }
    }
}

impl From<OrderError> for Failure {
    fn from(error: OrderError) -> Self {
        let hints = match error {
            OrderError::Journal(error) => return error.into(),
            OrderError::Refused { ref release, .. } => {
                vec![format!("see where it stands: cutover show {release}")]
            }
            OrderError::Ended { ref release, .. } => {
                vec![format!("see how it ended: cutover report {release}")]
            }
            OrderError::NotDriven { ref release, .. } => vec![
                format!("go on with it: cutover resume {release}"),
                format!("or end it: cutover stop {release}"),
            ],
        };
        let mut failure = Self::new(Kind::Invalid, error);
        failure.hints = hints;
        failure
    }
}

impl From<DeleteError> for Failure {
    fn from(error: DeleteError) -> Self {
        let hint = match error {
            DeleteError::Journal(error) => return error.into(),
            DeleteError::Active { ref release, .. } => {
                format!("end it first: cutover stop {release}")
            }
            DeleteError::StillInstalled { ref group, .. } => {
                format!("deploy something else to it first: cutover deploy {group} --package URI")
            }
        };
        Self::new(Kind::Invalid, error).hint(hint)
    }
}

impl From<journal::Error> for Failure {
    fn from(error: journal::Error) -> Self {
        Self::new(kind_of_journal(&error), error)
    }
}

fn kind_of_journal(error: &journal::Error) -> Kind {
    use journal::Error;
    match error {
        // What the operator named, or the disk under it.
        Error::Create { .. }
        | Error::Foreign { .. }
        | Error::Newer { .. }
        | Error::Damaged { .. }
        | Error::Storage { .. }
        | Error::Record { .. }
        | Error::Missing { .. }
        | Error::UnknownRelease { .. }
        | Error::UnknownOrder { .. }
        | Error::Ended { .. } => Kind::Invalid,
        // Another process has it.
        Error::Owned { .. } | Error::Fenced { .. } | Error::QueueFull { .. } => Kind::Busy,
        Error::Headless
        | Error::Misordered { .. }
        | Error::Inconsistent { .. }
        | Error::Order { .. }
        | Error::NotHeld { .. }
        | Error::Poisoned { .. }
        | Error::Closed => Kind::Bug,
    }
}

impl From<engine::Misfit> for Failure {
    fn from(error: engine::Misfit) -> Self {
        Self::new(Kind::Bug, error)
    }
}

impl From<PluginError> for Failure {
    fn from(error: PluginError) -> Self {
        PlanError::from(error).into()
    }
}

impl From<plugin_host::Error> for Failure {
    /// Of starting the host: its cache is the operator's disk, the engine is ours.
    fn from(error: plugin_host::Error) -> Self {
        let kind = match &error {
            plugin_host::Error::Cache(_) => Kind::Invalid,
            _ => Kind::Bug,
        };
        Self::new(kind, error)
    }
}
