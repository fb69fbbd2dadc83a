//! A router that tells whatever its configuration says, true or not: `{"shares": [["blue", 90]]}`, with `differs` in the
//! same form for another place. It writes nothing.

use cutover_plugin_sdk::{
    Diagnostic, Disagreement, Failure, HOST_STAMPS, OpContext, Outcome, Plugin, Purpose, Router,
    Share, Side, Split, export,
};

struct Misrouting;

impl Plugin for Misrouting {
    type Config = serde_json::Value;
}

impl Router for Misrouting {
    fn check(
        _ctx: &OpContext,
        sides: &[Side],
        purpose: Purpose,
    ) -> Result<Vec<Diagnostic>, Failure> {
        let finding = |side: &Side| {
            let place = format!("/sides/{}", side.name);
            Diagnostic::error(&place, &format!("{purpose:?} with {}", side.group))
        };
        Ok(sides.iter().map(finding).collect())
    }

    fn get(_ctx: &OpContext, _sides: &[Side]) -> Result<Split, Failure> {
        let config: serde_json::Value = cutover_plugin_sdk::config()?;
        let shares = |told: &serde_json::Value| -> Vec<Share> {
            let told = told.as_array().map(Vec::as_slice).unwrap_or_default();
            told.iter().map(share).collect()
        };
        let differs = config.get("differs").map(|told| Disagreement {
            shares: shares(told),
            message: "the places\u{1b}[31m disagree".to_owned(),
        });
        Ok(Split {
            shares: shares(&config["shares"]),
            differs,
            revision: config["revision"].as_str().map(str::to_owned),
            settled: true,
            observed_at: HOST_STAMPS,
        })
    }

    fn set(
        _ctx: &OpContext,
        _sides: &[Side],
        expected_revision: Option<&str>,
        shares: &[Share],
    ) -> Result<Outcome, Failure> {
        let message = format!("expected {expected_revision:?} and {} shares", shares.len());
        Err(Failure::conflict("misrouting.set", message))
    }
}

fn share(told: &serde_json::Value) -> Share {
    Share {
        side: told[0].as_str().unwrap_or_default().to_owned(),
        percent: told[1]
            .as_u64()
            .and_then(|n| n.try_into().ok())
            .unwrap_or(0),
    }
}

export!(Misrouting: Router);
