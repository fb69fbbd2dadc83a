//! Names of statuses, outcomes and causes on disk.

use model::{Cause, Ending, InstanceOutcome, ReleaseStatus};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(remote = "ReleaseStatus", rename_all = "UPPERCASE")]
pub(super) enum ReleaseStatusName {
    Running,
    Succeeded,
    Failed,
    Pausing,
    Paused,
    Stopping,
    Stopped,
    Interrupted,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "InstanceOutcome", rename_all = "UPPERCASE")]
pub(super) enum InstanceOutcomeName {
    Succeeded,
    Failed,
    Unreachable,
    Skipped,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Cause", rename_all = "kebab-case")]
pub(super) enum CauseCode {
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

#[derive(Serialize, Deserialize)]
#[serde(remote = "Ending", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum EndingBody {
    Succeeded {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    Failed {
        #[serde(with = "CauseCode")]
        cause: Cause,
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        script: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log: Option<String>,
    },
    Lost {
        reason: String,
    },
    Unreachable {
        reason: String,
    },
}
