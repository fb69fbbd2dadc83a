use cutover_plugin_sdk::FailureClass;

use super::*;
use crate::fake::{BLUE, Fake, Trouble, config, member, pool};

const READ: &str = "DescribeTargetHealth";

fn with<T>(fake: &Fake, more: &str, operation: impl FnOnce(&Group<'_>) -> T) -> T {
    let config = config(more);
    operation(&Group {
        api: fake,
        config: &config,
        arn: BLUE,
    })
}

/// What a call came to for one member, in a word or in its failure's.
fn word(results: Result<Vec<MemberResult>, Failure>) -> String {
    let outcome = results.and_then(|mut results| results.remove(0).outcome);
    match outcome {
        Ok(Outcome::Unchanged) => "unchanged".to_owned(),
        Ok(Outcome::Changed(_)) => "changed".to_owned(),
        Ok(Outcome::Pending(pending)) => format!("pending: {}", pending.message),
        Err(failure) => {
            let text = format!("{:?} {}: {}", failure.class, failure.code, failure.message);
            text.trim_start_matches("FailureClass::").to_owned()
        }
    }
}

fn register(fake: &Fake) -> String {
    word(with(fake, "", |group| {
        group.register(&[member("a", 80)], false)
    }))
}

fn deregister(fake: &Fake) -> String {
    word(with(fake, "", |group| {
        group.deregister(&[member("a", 80)], false)
    }))
}

fn phase(fake: &Fake) -> (Phase, Option<String>) {
    let members = [member("a", 80)];
    let statuses = with(fake, "", |group| {
        group.status(&pool(&members), &["a".to_owned()])
    });
    let status = statuses.unwrap().remove(0);
    (status.phase, status.reason)
}

#[test]
fn a_target_comes_drains_and_goes() {
    let fake = Fake::new();
    assert_eq!(phase(&fake), (Phase::Absent, None));

    assert_eq!(register(&fake), "changed");
    assert_eq!(phase(&fake).0, Phase::Registering);
    assert_eq!(register(&fake), "unchanged");
    fake.put("i-a:80", "healthy", "");
    assert_eq!(phase(&fake), (Phase::InService, None));

    assert_eq!(deregister(&fake), "changed");
    assert_eq!(
        phase(&fake),
        (
            Phase::Draining,
            Some("Target.DeregistrationInProgress".to_owned())
        )
    );
    assert_eq!(deregister(&fake), "unchanged");
    assert_eq!(
        register(&fake),
        "changed",
        "one that drains is brought back"
    );
    assert_eq!(fake.targets(), ["i-a:80 initial"]);
}

#[test]
fn only_the_difference_is_written_in_one_call() {
    let fake = Fake::new();
    fake.put("i-b:80", "healthy", "");
    let members = [member("a", 80), member("b", 80), member("c", 80)];

    let results = with(&fake, r#", "availability_zone": "all""#, |group| {
        group.register(&members, false)
    })
    .unwrap();

    let outcomes: Vec<_> = results
        .iter()
        .map(|it| it.outcome.clone().unwrap())
        .collect();
    assert_eq!(
        outcomes,
        [Outcome::changed(), Outcome::Unchanged, Outcome::changed()]
    );
    let calls = fake.calls();
    assert_eq!(calls.len(), 2);
    let (_, targets) = calls[1].split_once("&Targets").unwrap();
    assert_eq!(
        targets,
        ".member.1.Id=i-a&Targets.member.1.Port=80&Targets.member.1.AvailabilityZone=all\
         &Targets.member.2.Id=i-c&Targets.member.2.Port=80&Targets.member.2.AvailabilityZone=all"
    );
}

#[test]
fn a_rehearsal_changes_nothing() {
    let fake = Fake::new();
    fake.put("i-a:80", "healthy", "");

    let out = with(&fake, "", |group| {
        group.deregister(&[member("a", 80)], true)
    });
    let into = with(&fake, "", |group| group.register(&[member("b", 80)], true));

    assert_eq!(
        (word(out), word(into)),
        ("changed".to_owned(), "changed".to_owned())
    );
    assert_eq!(fake.called(), [READ, READ]);
}

#[test]
fn a_deregistration_counts_when_the_target_group_knows_of_it() {
    let fake = Fake::new();
    fake.put("i-a:80", "unhealthy", "Target.Timeout");
    fake.trouble(3, Trouble::Stale);
    fake.trouble(4, Trouble::Stale);
    let config = config("");

    let results = with(&fake, "", |group| {
        group.deregister(&[member("a", 80)], false)
    });

    let Ok(Outcome::Pending(pending)) = results.unwrap().remove(0).outcome else {
        panic!("it is not pending");
    };
    assert_eq!(
        pending.message,
        "`i-a:80` is deregistered, and target group `tg-blue` does not tell yet"
    );
    let again = Group::poll(&fake, &config, &pending.token).unwrap();
    assert!(matches!(again, Outcome::Pending(_)));
    let done = Group::poll(&fake, &config, &pending.token).unwrap();
    assert_eq!(done, Outcome::changed());
    assert_eq!(fake.called(), [READ, "DeregisterTargets", READ, READ, READ]);
    let foreign = Group::poll(&fake, &config, "{}").unwrap_err();
    assert_eq!(foreign.code, "aws.token");
}

#[test]
fn a_read_that_fails_after_a_deregistration_does_not_hide_it() {
    let fake = Fake::new();
    fake.put("i-a:80", "healthy", "");
    fake.trouble(3, Trouble::Refused(400, "Throttling"));

    assert_eq!(
        deregister(&fake),
        "pending: `i-a:80` is deregistered, and target group `tg-blue` does not tell yet"
    );
    assert_eq!(deregister(&fake), "unchanged");
}

#[test]
fn what_became_of_a_change_without_an_answer_is_not_known() {
    for taken in [true, false] {
        let fake = Fake::new();
        fake.trouble(1, Trouble::Lost { taken: false });
        assert_eq!(
            register(&fake),
            "Transient http.broken: no answer to `DescribeTargetHealth`: the connection broke off"
        );
        fake.trouble(2, Trouble::Lost { taken });
        assert_eq!(
            register(&fake),
            "UnknownOutcome http.broken: no answer to `RegisterTargets`: the connection broke off"
        );
        let again = if taken { "unchanged" } else { "changed" };
        assert_eq!(register(&fake), again);
        assert_eq!(fake.targets(), ["i-a:80 initial"]);
    }
}

#[test]
fn a_machine_that_is_registered_with_another_port_is_told_and_left() {
    let fake = Fake::new();
    fake.put("i-a:8080", "healthy", "");
    let told = "`i-a` is registered in target group `tg-blue` with port 8080, not with port 80";

    assert_eq!(register(&fake), format!("Permanent aws.other-port: {told}"));
    assert_eq!(
        deregister(&fake),
        format!("Permanent aws.other-port: {told}")
    );
    assert_eq!(phase(&fake), (Phase::Absent, Some(told.to_owned())));
    assert_eq!(fake.targets(), ["i-a:8080 healthy"]);

    let several = r#", "several_per_host": true"#;
    let results = with(&fake, several, |group| {
        group.register(&[member("a", 80)], false)
    });
    assert_eq!(word(results), "changed");
    assert_eq!(fake.targets(), ["i-a:80 initial", "i-a:8080 healthy"]);
}

#[test]
fn one_member_that_cannot_be_named_keeps_no_other_from_changing() {
    let fake = Fake::new();
    let nameless = Member {
        provider_id: None,
        address: "web-1.internal".to_owned(),
        ..member("b", 80)
    };
    let weighted = Member {
        weight: Some(3),
        ..member("c", 80)
    };

    let results = with(&fake, "", |group| {
        group.register(&[nameless, member("a", 80), weighted], false)
    })
    .unwrap();

    let classes: Vec<_> = results
        .iter()
        .map(|it| it.outcome.as_ref().map_err(|failure| failure.class))
        .collect();
    assert_eq!(
        classes,
        [
            Err(FailureClass::Invalid),
            Ok(&Outcome::changed()),
            Err(FailureClass::Unsupported)
        ]
    );
}

#[test]
fn all_targets_are_told_by_their_ids_where_nobody_is_named() {
    let fake = Fake::new();
    fake.put("i-a:80", "healthy", "");
    fake.put("10.0.0.2:81", "unused", "Target.NotInUse");

    let statuses = with(&fake, "", |group| group.status(&pool(&[]), &[])).unwrap();

    let told: Vec<_> = statuses
        .iter()
        .map(|it| (it.target_id.as_str(), it.phase))
        .collect();
    assert_eq!(
        told,
        [
            ("10.0.0.2:81", Phase::OutOfService),
            ("i-a:80", Phase::InService)
        ]
    );
}

#[test]
fn that_aws_cannot_tell_at_the_moment_is_no_word_on_the_target() {
    let fake = Fake::new();
    fake.put("i-a:80", "unavailable", "Elb.InternalError");
    let members = [member("a", 80)];

    let failure = with(&fake, "", |group| {
        group.status(&pool(&members), &["a".to_owned()])
    })
    .unwrap_err();

    assert_eq!(failure.class, FailureClass::Transient);
    assert_eq!(
        failure.message,
        "target group `tg-blue` does not tell how `i-a:80` is: Elb.InternalError"
    );
    assert_eq!(register(&fake), "unchanged");
}

#[test]
fn what_could_never_be_healthy_is_refused_beforehand() {
    let examine = |fake: &Fake, members: &[Member]| {
        let names: Vec<_> = members.iter().map(|it| it.target_id.clone()).collect();
        let examined = with(fake, "", |group| group.examine(&pool(members), &names));
        examined.map_err(|failure| (failure.class, failure.message))
    };
    let mut fake = Fake::new();
    let instance = [member("a", 80)];
    let address = [Member {
        provider_id: None,
        ..member("a", 80)
    }];

    assert_eq!(examine(&fake, &instance), Ok(()));
    fake.put("i-a:80", "healthy", "");
    assert_eq!(examine(&fake, &instance), Ok(()));
    fake.clear();
    let invalid = |message: &str| Err((FailureClass::Invalid, message.to_owned()));
    assert_eq!(
        examine(&fake, &address),
        invalid("target group `tg-blue` has targets of type `instance`, and `10.0.0.1` is none")
    );
    fake.target_type = "ip";
    assert_eq!(examine(&fake, &address), Ok(()));
    assert_eq!(
        examine(&fake, &instance),
        invalid("target group `tg-blue` has targets of type `ip`, and `i-a` is none")
    );
    fake.target_type = "lambda";
    assert_eq!(
        examine(&fake, &instance).unwrap_err().0,
        FailureClass::Unsupported
    );
    fake.target_type = "instance";
    fake.put("i-a:81", "healthy", "");
    assert_eq!(
        examine(&fake, &instance).unwrap_err().1,
        "`i-a` is registered in target group `tg-blue` with port 81, not with port 80"
    );
    fake.attached = false;
    assert_eq!(
        examine(&fake, &instance),
        invalid(
            "target group `tg-blue` is attached to no load balancer, so its targets are never healthy"
        )
    );
}

#[test]
fn the_limits_tell_how_long_a_target_drains() {
    let fake = Fake::new();

    let limits = with(&fake, "", |group| group.limits()).unwrap();

    assert_eq!(limits.deregistration_delay, Some(300_000));
    assert_eq!(limits.max_members_per_call, 100);
}

#[test]
fn a_quota_is_told_and_not_tried_again() {
    let fake = Fake::new();
    fake.trouble(2, Trouble::Refused(400, "TooManyTargets"));

    assert_eq!(
        register(&fake),
        "Permanent aws.TooManyTargets: aws refused `RegisterTargets` with `TooManyTargets`: no (request id `r`)"
    );
}
