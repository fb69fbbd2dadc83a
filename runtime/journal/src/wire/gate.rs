//! Gates, holds and their decisions on disk.

use std::time::Duration;

use model::PluginName;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gate {
    name: String,
    #[serde(with = "Position")]
    after: model::GatePosition,
    #[serde(with = "Check")]
    check: model::GateCheck,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<Duration>,
    interval: Duration,
    #[serde(with = "Policy")]
    on_fail: model::GatePolicy,
    #[serde(with = "Policy")]
    on_inconclusive: model::GatePolicy,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::GatePosition", rename_all = "kebab-case")]
enum Position {
    First,
    Each,
    Last,
}

#[derive(Serialize, Deserialize)]
#[serde(
    remote = "model::GateCheck",
    rename_all = "kebab-case",
    deny_unknown_fields
)]
enum Check {
    Approval { ask: String },
    Command { command: String },
    Plugin { plugin: PluginName, config: String },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::GatePolicy", rename_all = "kebab-case")]
enum Policy {
    Continue,
    Pause,
    Stop,
    Rollback,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::Hold", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Hold {
    Interval,
    Promotion,
    Gate { index: u32 },
    Bake,
    Health,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::Stage", deny_unknown_fields)]
pub(super) struct Stage {
    boundary: u32,
    index: u32,
}

/// A stage where there may be none.
pub(super) mod optional_stage {
    use super::{Deserialize, Serialize, Stage};

    #[derive(Serialize, Deserialize)]
    struct Present(#[serde(with = "Stage")] model::Stage);

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(in crate::wire) fn serialize<S: serde::Serializer>(
        stage: &Option<model::Stage>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        stage.map(Present).serialize(serializer)
    }

    pub(in crate::wire) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<model::Stage>, D::Error> {
        Ok(Option::<Present>::deserialize(deserializer)?.map(|Present(stage)| stage))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "model::Verdict", rename_all = "UPPERCASE")]
enum Verdict {
    Passed,
    Failed,
    Inconclusive,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decision {
    #[serde(with = "Verdict")]
    verdict: model::Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    evidence: Vec<Evidence>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Evidence {
    name: String,
    value: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threshold: Option<String>,
    #[serde(with = "Verdict")]
    verdict: model::Verdict,
}

impl From<model::Gate> for Gate {
    fn from(gate: model::Gate) -> Self {
        let model::Gate {
            name,
            after,
            check,
            timeout,
            interval,
            on_fail,
            on_inconclusive,
        } = gate;
        Self {
            name,
            after,
            check,
            timeout,
            interval,
            on_fail,
            on_inconclusive,
        }
    }
}

impl From<Gate> for model::Gate {
    fn from(gate: Gate) -> Self {
        let Gate {
            name,
            after,
            check,
            timeout,
            interval,
            on_fail,
            on_inconclusive,
        } = gate;
        Self {
            name,
            after,
            check,
            timeout,
            interval,
            on_fail,
            on_inconclusive,
        }
    }
}

impl From<model::Decision> for Decision {
    fn from(decision: model::Decision) -> Self {
        let model::Decision {
            verdict,
            by,
            reason,
            evidence,
        } = decision;
        let evidence = evidence.into_iter().map(|one| Evidence {
            name: one.name,
            value: one.value,
            threshold: one.threshold,
            verdict: one.verdict,
        });
        Self {
            verdict,
            by,
            reason,
            evidence: evidence.collect(),
        }
    }
}

impl From<Decision> for model::Decision {
    fn from(decision: Decision) -> Self {
        let Decision {
            verdict,
            by,
            reason,
            evidence,
        } = decision;
        let evidence = evidence.into_iter().map(|one| model::Evidence {
            name: one.name,
            value: one.value,
            threshold: one.threshold,
            verdict: one.verdict,
        });
        Self {
            verdict,
            by,
            reason,
            evidence: evidence.collect(),
        }
    }
}
