use cutover_plugin_sdk::Severity;

use super::*;
use crate::fake::{BLUE, Fake, GREEN, LISTENER, RULE, Trouble, config, side};

const READ: &str = "DescribeListeners";

fn with<T>(fake: &Fake, operation: impl FnOnce(&Router<'_>) -> T) -> T {
    let config = config(&format!(r#", "listener": "{LISTENER}""#));
    let sides = [side("blue", BLUE), side("green", GREEN)];
    operation(&Router::new(fake, &config, &sides).unwrap())
}

fn shares(percents: [u8; 2]) -> Vec<Share> {
    let share = |(side, percent): (&str, u8)| Share {
        side: side.to_owned(),
        percent,
    };
    ["blue", "green"]
        .into_iter()
        .zip(percents)
        .map(share)
        .collect()
}

fn set(fake: &Fake, expected: Option<&str>, percents: [u8; 2]) -> Result<Outcome, Failure> {
    with(fake, |router| {
        router.set(expected, &shares(percents), false)
    })
}

fn get(fake: &Fake) -> (Vec<u8>, String) {
    let split = with(fake, |router| router.get()).unwrap();
    let percents = split.shares.iter().map(|share| share.percent).collect();
    (percents, split.revision.unwrap())
}

#[test]
fn weights_split_the_traffic() {
    let fake = Fake::new();

    for percents in [[80, 20], [1, 99], [0, 100], [100, 0]] {
        assert_eq!(set(&fake, None, percents), Ok(Outcome::changed()));
        assert_eq!(get(&fake).0, percents);
    }
    fake.calls();
    assert_eq!(set(&fake, None, [100, 0]), Ok(Outcome::Unchanged));
    assert_eq!(fake.called(), [READ]);
    fake.weigh(&[(BLUE, 2), (GREEN, 1)]);
    assert_eq!(get(&fake).0, [67, 33]);
    fake.weigh(&[(BLUE, 0), (GREEN, 0)]);
    assert!(get(&fake).0.is_empty());
}

#[test]
fn a_rule_is_split_as_a_listener_is() {
    let fake = Fake::new();
    let config = config(&format!(r#", "rule": "{RULE}""#));
    let sides = [side("blue", BLUE), side("green", GREEN)];

    let router = Router::new(&fake, &config, &sides).unwrap();
    let outcome = router.set(None, &shares([0, 100]), false);

    assert_eq!(outcome, Ok(Outcome::changed()));
    assert_eq!(
        fake.called(),
        ["DescribeRules", "ModifyRule", "DescribeRules"]
    );
}

#[test]
fn a_rehearsal_changes_nothing() {
    let fake = Fake::new();

    let outcome = with(&fake, |router| router.set(None, &shares([0, 100]), true));

    assert_eq!(outcome, Ok(Outcome::changed()));
    assert_eq!(fake.called(), [READ]);
}

#[test]
fn weights_that_nobody_expected_are_a_conflict() {
    let fake = Fake::new();
    let (_, revision) = get(&fake);
    fake.weigh(&[(BLUE, 70), (GREEN, 30)]);

    let failure = set(&fake, Some(&revision), [80, 20]).unwrap_err();

    assert_eq!(failure.class, FailureClass::Conflict);
    assert_eq!(
        failure.message,
        "`listener/app/lb1/50dc6c495c0c9188/f2f7dc8efc522ab2` has the weights `tg-blue=70 tg-green=30`, and they were others \
         when the change was planned"
    );
    assert_eq!(get(&fake).0, [70, 30]);
    fake.weigh(&[(BLUE, 80), (GREEN, 20)]);
    assert_eq!(
        set(&fake, Some(&revision), [80, 20]),
        Ok(Outcome::Unchanged),
        "what is wanted is there already"
    );
}

#[test]
fn a_change_counts_when_it_is_read_back() {
    let fake = Fake::new();
    let config = config(&format!(r#", "listener": "{LISTENER}""#));
    fake.trouble(3, Trouble::Stale);
    fake.trouble(4, Trouble::Refused(400, "Throttling"));

    let Ok(Outcome::Pending(pending)) = set(&fake, None, [0, 100]) else {
        panic!("it is not pending");
    };
    assert_eq!(
        pending.message,
        "`listener/app/lb1/50dc6c495c0c9188/f2f7dc8efc522ab2` is changed, and does not tell yet"
    );
    let throttled = Router::poll(&fake, &config, &pending.token).unwrap_err();
    assert_eq!(throttled.class, FailureClass::Throttled);
    let done = Router::poll(&fake, &config, &pending.token);
    assert_eq!(done, Ok(Outcome::changed()));
    fake.weigh(&[(BLUE, 50), (GREEN, 50)]);
    let moved = Router::poll(&fake, &config, &pending.token).unwrap_err();
    assert_eq!(moved.class, FailureClass::Conflict);
}

#[test]
fn what_became_of_a_change_without_an_answer_is_told_by_reading() {
    for taken in [true, false] {
        let fake = Fake::new();
        let (_, revision) = get(&fake);
        fake.trouble(2, Trouble::Lost { taken });

        let failure = set(&fake, Some(&revision), [0, 100]).unwrap_err();

        assert_eq!(failure.class, FailureClass::UnknownOutcome);
        let again = if taken {
            Outcome::Unchanged
        } else {
            Outcome::changed()
        };
        assert_eq!(set(&fake, Some(&revision), [0, 100]), Ok(again));
    }
}

#[test]
fn traffic_to_a_target_group_of_no_side_is_found_and_replaced_only_without_a_revision() {
    let fake = Fake::new();
    let third = BLUE.replace("tg-blue", "tg-third");
    fake.weigh(&[(BLUE, 50), (GREEN, 0), (&third, 50)]);

    let failure = with(&fake, |router| router.get()).unwrap_err();

    assert_eq!(failure.class, FailureClass::Conflict);
    assert_eq!(
        failure.message,
        "`listener/app/lb1/50dc6c495c0c9188/f2f7dc8efc522ab2` gives traffic to target groups of no side: `tg-third=50`"
    );
    set(&fake, None, [100, 0]).unwrap();
    assert_eq!(get(&fake).0, [100, 0]);
}

#[test]
fn what_cannot_work_is_found_before_a_release() {
    let mut fake = Fake::new();
    let errors = |fake: &Fake| {
        let findings = with(fake, |router| router.check()).unwrap();
        let told = findings
            .into_iter()
            .map(|it| (it.severity, it.path, it.message));
        told.collect::<Vec<_>>()
    };
    assert_eq!(errors(&fake), []);

    fake.attached = false;
    let found = errors(&fake);
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].1, "/sides/green");
    assert_eq!(
        found[1].2,
        "target group `tg-green` is attached to no load balancer, so nothing tells whether its targets are healthy; add it to the \
         forward action of `listener/app/lb1/50dc6c495c0c9188/f2f7dc8efc522ab2` with weight 0"
    );
    fake.attached = true;

    fake.target_type = "ip";
    let found = errors(&fake);
    assert!(
        found[0]
            .2
            .starts_with("target group `tg-blue` has targets of type `ip`"),
        "{found:?}"
    );
    fake.target_type = "instance";

    fake.act("<member><Type>fixed-response</Type></member>");
    assert_eq!(
        errors(&fake)[0].2,
        "`listener/app/lb1/50dc6c495c0c9188/f2f7dc8efc522ab2` forwards to no target group; its actions are `fixed-response`; name a \
         listener or rule that forwards, or let this one forward to the target groups of the sides"
    );

    fake.act(&format!(
        "<member><Type>forward</Type><ForwardConfig><TargetGroups><member><TargetGroupArn>{BLUE}</TargetGroupArn></member></TargetGroups>\
         <TargetGroupStickinessConfig><Enabled>true</Enabled><DurationSeconds>600</DurationSeconds></TargetGroupStickinessConfig>\
         </ForwardConfig></member>"
    ));
    let found = errors(&fake);
    assert_eq!(found[0].0, Severity::Warning);
    assert!(found[0].2.contains("for 600 s"), "{found:?}");

    fake.trouble(1, Trouble::Refused(400, "ListenerNotFound"));
    assert!(errors(&fake)[0].2.contains("check `listener` and `region`"));
    fake.trouble(1, Trouble::Refused(403, "AccessDenied"));
    let denied = with(&fake, |router| router.check()).unwrap_err();
    assert_eq!(denied.class, FailureClass::Denied);
}

#[test]
fn sides_with_one_target_group_are_refused() {
    let fake = Fake::new();
    let config = config(&format!(r#", "listener": "{LISTENER}""#));

    let failure = Router::new(&fake, &config, &[side("current", BLUE), side("new", BLUE)])
        .map(|_| ())
        .unwrap_err();

    assert_eq!(failure.class, FailureClass::Unsupported);
    assert_eq!(
        failure.message,
        "sides `current` and `new` have one target group, `tg-blue`, and AWS has no weights for targets"
    );
}
