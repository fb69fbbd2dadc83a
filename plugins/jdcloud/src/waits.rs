//! What the plugin has the host wait for, with all that is needed to go on in the token.

use std::time::Duration;

use cutover_plugin_sdk::{Failure, Outcome, Pending};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Something that takes its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until this time, in milliseconds since 1970.
    Drain { until_ms: u64 },
    /// For the health check of a backend to find the targets of a group well.
    Probe(Probe),
}

/// A switch that is made, and whose new targets have not been probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) until_ms: u64,
    pub(crate) backend: String,
    pub(crate) group: String,
    /// The group that had the traffic before.
    pub(crate) before: Option<String>,
}

/// Lets what is open go on until a time.
pub(crate) fn drain(until_ms: u64, now_ms: u64) -> Outcome {
    let left = Duration::from_millis(until_ms.saturating_sub(now_ms));
    let token = Wait::Drain { until_ms }.token();
    let words = format!(
        "deregistered; open connections have {} s left",
        left.as_millis().div_ceil(1000)
    );
    Outcome::Pending(Pending::new(token, left.min(LOOK), words))
}

/// Looks at a group again after a while.
pub(crate) fn probe(probe: &Probe, words: String) -> Outcome {
    let token = Wait::Probe(probe.clone()).token();
    Outcome::Pending(Pending::new(token, LOOK / 4, words))
}

impl Wait {
    fn token(&self) -> String {
        match self {
            Self::Drain { until_ms } => format!("drain/{until_ms}"),
            Self::Probe(Probe {
                until_ms,
                backend,
                group,
                before,
            }) => {
                let before = before.as_deref().unwrap_or("-");
                format!("probe/{until_ms}/{backend}/{group}/{before}")
            }
        }
    }

    pub(crate) fn parse(token: &str) -> Result<Self, Failure> {
        let parts: Vec<_> = token.split('/').collect();
        let time = |text: &str| text.parse().ok();
        let wait = match parts.as_slice() {
            ["drain", until] => time(until).map(|until_ms| Self::Drain { until_ms }),
            ["probe", until, backend, group, before] => time(until).map(|until_ms| {
                Self::Probe(Probe {
                    until_ms,
                    backend: (*backend).to_owned(),
                    group: (*group).to_owned(),
                    before: Some((*before).to_owned()).filter(|it| it != "-"),
                })
            }),
            _ => None,
        };
        wait.ok_or_else(|| {
            Failure::invalid("jd.token", format!("`{token}` is no token of this plugin"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_all_that_it_was_made_of() {
        let probe = |before: Option<&str>| {
            Wait::Probe(Probe {
                until_ms: 7,
                backend: "backend-1".to_owned(),
                group: "tg-1".to_owned(),
                before: before.map(str::to_owned),
            })
        };
        for wait in [
            Wait::Drain { until_ms: 5 },
            probe(None),
            probe(Some("tg-0")),
        ] {
            assert_eq!(Wait::parse(&wait.token()), Ok(wait));
        }
        for token in ["", "drain", "drain/x", "probe/1/b/g", "other/1"] {
            assert!(Wait::parse(token).is_err(), "{token}");
        }
    }
}
