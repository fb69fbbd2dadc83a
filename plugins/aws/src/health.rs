//! How targets are, in the words of AWS and in those of cutover.

use cutover_plugin_sdk::Phase;

use crate::target::Target;
use crate::xml::Element;

/// A target as a target group tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) target: Target,
    pub(crate) phase: Phase,
    /// The reason and its description, where AWS gives one.
    pub(crate) reason: Option<String>,
}

/// The targets of an answer to `DescribeTargetHealth`. Those that are not registered are left out.
pub(crate) fn registered(document: &Element) -> Vec<Registered> {
    let members = document.members(&["DescribeTargetHealthResult", "TargetHealthDescriptions"]);
    members
        .filter_map(of_description)
        .filter(|registered| registered.phase != Phase::Absent)
        .collect()
}

fn of_description(description: &Element) -> Option<Registered> {
    let target = Target {
        id: description.text_at(&["Target", "Id"])?.to_owned(),
        port: description.text_at(&["Target", "Port"])?.parse().ok()?,
    };
    let state = description.text_at(&["TargetHealth", "State"])?;
    let reason = description.text_at(&["TargetHealth", "Reason"]);
    let words = description.text_at(&["TargetHealth", "Description"]);
    let told = match (reason, words) {
        (Some(reason), Some(words)) => Some(format!("{reason}: {words}")),
        (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
        (None, None) => None,
    };
    let phase = phase(state, reason);
    Some(Registered {
        target,
        phase,
        // A state that says more than the phase is told as it is.
        reason: told.or_else(|| (phase == Phase::Unknown).then(|| state.to_owned())),
    })
}

fn phase(state: &str, reason: Option<&str>) -> Phase {
    match (state, reason) {
        ("healthy", _) => Phase::InService,
        ("initial", _) => Phase::Registering,
        ("unhealthy", _) => Phase::OutOfService,
        // Connections go on, to a target that gets no others.
        ("draining" | "unhealthy.draining", _) => Phase::Draining,
        ("unused", Some("Target.NotRegistered")) => Phase::Absent,
        // The target group is attached to nothing, or the target cannot be reached: it is registered, and gets no traffic.
        ("unused", _) => Phase::OutOfService,
        _ => Phase::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(state: &str, reason: &str, words: &str, phase: Phase, told: Option<&str>) {
        let text = format!(
            "<DescribeTargetHealthResponse><DescribeTargetHealthResult><TargetHealthDescriptions><member>\
             <HealthCheckPort>80</HealthCheckPort><Target><Id>i-1</Id><Port>80</Port></Target>\
             <TargetHealth><State>{state}</State><Reason>{reason}</Reason><Description>{words}</Description></TargetHealth>\
             </member></TargetHealthDescriptions></DescribeTargetHealthResult></DescribeTargetHealthResponse>"
        );

        let found = registered(&Element::parse(&text).unwrap());

        let found: Vec<_> = found
            .iter()
            .map(|it| (it.phase, it.reason.as_deref()))
            .collect();
        let expected = match phase {
            Phase::Absent => vec![],
            phase => vec![(phase, told)],
        };
        assert_eq!(found, expected, "{state} {reason}");
    }

    #[test]
    fn each_state_has_its_phase_and_keeps_its_reason() {
        check("healthy", "", "", Phase::InService, None);
        check(
            "initial",
            "Elb.InitialHealthChecking",
            "Initial health checks in progress",
            Phase::Registering,
            Some("Elb.InitialHealthChecking: Initial health checks in progress"),
        );
        check(
            "initial",
            "Elb.RegistrationInProgress",
            "",
            Phase::Registering,
            Some("Elb.RegistrationInProgress"),
        );
        for reason in [
            "Target.FailedHealthChecks",
            "Target.Timeout",
            "Target.ResponseCodeMismatch",
        ] {
            check("unhealthy", reason, "", Phase::OutOfService, Some(reason));
        }
        check(
            "draining",
            "Target.DeregistrationInProgress",
            "",
            Phase::Draining,
            Some("Target.DeregistrationInProgress"),
        );
        check(
            "unhealthy.draining",
            "Target.FailedHealthChecks",
            "",
            Phase::Draining,
            Some("Target.FailedHealthChecks"),
        );
        check("unused", "Target.NotRegistered", "", Phase::Absent, None);
        for reason in [
            "Target.NotInUse",
            "Target.InvalidState",
            "Target.IpUnusable",
        ] {
            check("unused", reason, "", Phase::OutOfService, Some(reason));
        }
        check(
            "unavailable",
            "Target.HealthCheckDisabled",
            "",
            Phase::Unknown,
            Some("Target.HealthCheckDisabled"),
        );
        check("unavailable", "", "", Phase::Unknown, Some("unavailable"));
        check("of tomorrow", "", "", Phase::Unknown, Some("of tomorrow"));
    }
}
