//! What a command fails with, and the exit status that says it.

use conductor::{DriveError, FetchError, PlanError, PreflightError};
use journal::FindError;

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
            hints: Vec::new(),
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
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
        let (kind, hint) = match &error {
            PlanError::Busy { holder, .. } => (
                Kind::Busy,
                Some(format!("see what it does: cutover show {}", holder.release)),
            ),
            PlanError::Driven { release, .. } => (
                Kind::Busy,
                Some(format!("follow it: cutover watch {release}")),
            ),
            PlanError::UnknownGroup(unknown) => (Kind::Invalid, unknown_group(unknown)),
            PlanError::VersionTaken { .. } => (
                Kind::Invalid,
                Some("give another --version, or leave it out to have one generated".to_owned()),
            ),
            PlanError::Fetch(FetchError::WrongDigest { .. }) => (
                Kind::Invalid,
                Some("check that the package is the one that was meant".to_owned()),
            ),
            PlanError::Balancer(PreflightError::Status { hint, .. }) => {
                (Kind::Invalid, hint.clone())
            }
            PlanError::Journal(_)
            | PlanError::Owner(_)
            | PlanError::Random(_)
            | PlanError::Misfit(_) => (Kind::Bug, None),
            _ => (Kind::Invalid, None),
        };
        let failure = Self::new(kind, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn unknown_group(unknown: &spec::workspace::UnknownGroup) -> Option<String> {
    if let Some(suggestion) = &unknown.suggestion {
        return Some(format!("did you mean `{suggestion}`?"));
    }
    let known: Vec<_> = unknown.known.iter().map(ToString::to_string).collect();
    (!known.is_empty()).then(|| format!("choose one of {}", known.join(", ")))
}

impl From<DriveError> for Failure {
    fn from(error: DriveError) -> Self {
        Self::new(Kind::Bug, error).hint("go on when the cause is gone: cutover resume ID")
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

impl From<journal::Error> for Failure {
    fn from(error: journal::Error) -> Self {
        let kind = match &error {
            journal::Error::Foreign { .. }
            | journal::Error::Newer { .. }
            | journal::Error::Create { .. } => Kind::Invalid,
            _ => Kind::Bug,
        };
        Self::new(kind, error)
    }
}

impl From<engine::Misfit> for Failure {
    fn from(error: engine::Misfit) -> Self {
        Self::new(Kind::Bug, error)
    }
}
