//! Statuses of releases, instances and steps.

use std::fmt;

/// The status of a release (and of a deployment in it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReleaseStatus {
    Running,
    Succeeded,
    Failed,
    Pausing,
    Paused,
    Stopping,
    Stopped,
    Interrupted,
}

impl ReleaseStatus {
    /// The name used in files, JSON and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Pausing => "PAUSING",
            Self::Paused => "PAUSED",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
            Self::Interrupted => "INTERRUPTED",
        }
    }

    /// The Chinese name, as the source product shows it.
    #[must_use]
    pub fn chinese_name(self) -> &'static str {
        match self {
            Self::Running => "执行中",
            Self::Succeeded => "执行成功",
            Self::Failed => "执行失败",
            Self::Pausing => "暂停中",
            Self::Paused => "已暂停",
            Self::Stopping => "停止中",
            Self::Stopped => "已停止",
            Self::Interrupted => "被中断",
        }
    }

    /// Finds a status by its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        use ReleaseStatus::{
            Failed, Interrupted, Paused, Pausing, Running, Stopped, Stopping, Succeeded,
        };
        [
            Running,
            Succeeded,
            Failed,
            Pausing,
            Paused,
            Stopping,
            Stopped,
            Interrupted,
        ]
        .into_iter()
        .find(|status| status.name() == name)
    }

    /// Whether nothing more can happen but deletion.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }

    /// Whether a conductor is, or should be, at work on it.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Pausing | Self::Stopping)
    }
}

impl fmt::Display for ReleaseStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepStatus {
    Succeeded,
    Failed,
    Skipped,
    /// The host went down in the middle: nobody knows the outcome.
    Lost,
}

impl StepStatus {
    /// The name used in files, JSON and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
            Self::Lost => "LOST",
        }
    }
}

/// What became of an instance in a deployment. Failed, unreachable and skipped are three different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstanceOutcome {
    Succeeded,
    Failed,
    /// The instance could not be reached; what it does is not known.
    Unreachable,
    /// It never started, because the deployment ended or an operator left it out.
    Skipped,
}

impl InstanceOutcome {
    /// The name used in files, JSON and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Unreachable => "UNREACHABLE",
            Self::Skipped => "SKIPPED",
        }
    }
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Succeeded {
        /// Exit code of the last script, where scripts ran.
        exit_code: Option<i32>,
        /// Where the captured output is.
        log: Option<String>,
        /// What is worth telling, for example that nothing had to change.
        note: Option<String>,
    },
    Failed {
        cause: Cause,
        /// One line for people: what was attempted, on what, and why it failed.
        reason: String,
        /// The script that failed, where one did: its path in the package, or the beginning of its command.
        script: Option<String>,
        exit_code: Option<i32>,
        log: Option<String>,
    },
    /// The host went down in the middle of the attempt.
    Lost { reason: String },
    /// The host did not answer; the attempt may still be running there.
    Unreachable { reason: String },
}

/// Why an attempt failed, as a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    ScriptMissing,
    NotExecutable,
    TimedOut,
    ScriptFailed,
    OutputsLeftOpen,
    Invalid,
    FetchFailed,
    InstallFailed,
    BalancerFailed,
    CallFailed,
    Interrupted,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 11] = [
        Cause::ScriptMissing,
        Cause::NotExecutable,
        Cause::TimedOut,
        Cause::ScriptFailed,
        Cause::OutputsLeftOpen,
        Cause::Invalid,
        Cause::FetchFailed,
        Cause::InstallFailed,
        Cause::BalancerFailed,
        Cause::CallFailed,
        Cause::Interrupted,
    ];

    /// The code used in files, JSON and reports.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::ScriptMissing => "script-missing",
            Self::NotExecutable => "not-executable",
            Self::TimedOut => "timed-out",
            Self::ScriptFailed => "script-failed",
            Self::OutputsLeftOpen => "outputs-left-open",
            Self::Invalid => "invalid",
            Self::FetchFailed => "fetch-failed",
            Self::InstallFailed => "install-failed",
            Self::BalancerFailed => "balancer-failed",
            Self::CallFailed => "call-failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// Finds a cause by its code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }
}
