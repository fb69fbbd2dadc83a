//! A canary that failed with its traffic split, and the retry that goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine::retry::remainder;
use engine::{Action, State};
use model::{
    Amount, Batching, Capacity, Deployment, Direction, Fact, Gate, GateCheck, GatePolicy,
    GatePosition, Instance, LifecycleEvent, OnFailure, Order, Promote, Record, ReleaseStatus,
    Shares, SideGroup, Strategy,
};
use proptest::prelude::*;

use crate::world::site::{Site, canary};
use crate::world::{Behaviour, fail, succeed};

/// Everything that was switched and awaited, one a line, each switch with who is on the side that gains by it.
fn told(site: &Site) -> String {
    let mut members = site.world.members.iter();
    let lines = site.journal.iter().filter_map(|record| match &record.fact {
        Fact::SwitchStarted { to, .. } => {
            let on = members
                .next()
                .and_then(|sides| sides.get("new"))
                .map(|ids| ids.join(" "));
            Some(format!(
                "switch to {to}; on new: {}",
                on.unwrap_or_default()
            ))
        }
        Fact::SwitchSkipped { reason, .. } => Some(format!("no switch: {reason}")),
        Fact::HoldOpened { hold, .. } => Some(format!("wait {hold:?}")),
        Fact::InstanceEnded {
            instance, outcome, ..
        } => Some(format!("{instance} {}", outcome.name())),
        Fact::DeploymentEnded { status, .. } => Some(status.to_string()),
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn failing<'a>(ids: &'a [&'a str]) -> impl Fn(&Action) -> model::Ending + 'a {
    move |action| {
        let deploys = action.deployment.direction == Direction::Deploy;
        match action.event {
            LifecycleEvent::ValidateService
                if deploys && ids.contains(&action.target.instance.id.as_str()) =>
            {
                fail("no")
            }
            _ => succeed(action),
        }
    }
}

fn in_one_group(mut plan: Deployment) -> Deployment {
    for side in &mut plan.sides.as_mut().unwrap().list {
        side.group = "{}".to_owned();
    }
    plan
}

fn instances(plan: &Deployment) -> Vec<Instance> {
    let targets = plan.targets.iter().map(|target| target.instance.clone());
    let sides = plan.sides.iter().flat_map(|sides| &sides.list);
    targets
        .chain(sides.flat_map(|side| side.instances.clone()))
        .collect()
}

/// The retry of the deployment that a release ended with.
fn retry(site: &Site) -> Deployment {
    let of = site.engine.state().deployments.last().unwrap();
    let left = remainder(of).unwrap();
    let groups = of.plan.sides.as_ref().unwrap().list.iter();
    let groups = groups.map(|side| SideGroup {
        instances: Vec::new(),
        ..side.clone()
    });
    let gates = of.plan.gates.iter();
    let targets = of.plan.targets.iter();
    let targets = targets.filter(|target| left.left.contains(&target.instance.id));
    Deployment {
        strategy: left.strategy,
        batching: left.batching.clone(),
        gates: gates
            .filter(|gate| left.has_ahead(gate.after))
            .cloned()
            .collect(),
        sides: Some(left.sides(groups.collect(), &instances(&of.plan), of.shares.clone())),
        down: left.down.clone(),
        targets: targets.cloned().collect(),
        ..Deployment::clone(&of.plan)
    }
}

/// A deployment that fails, with a person who promotes it.
fn failed(plan: Deployment, behaviour: Behaviour<'_>) -> Site {
    let mut site = Site::open(plan);
    site.run_promoting(behaviour);
    assert_eq!(site.status(), ReleaseStatus::Failed);
    site
}

fn retried(site: &Site) -> Site {
    let mut again = Site::open(retry(site));
    again.run_promoting(&succeed);
    assert_eq!(again.status(), ReleaseStatus::Succeeded);
    again
}

#[test]
fn a_canary_that_was_promoted_goes_on_without_another_promotion() {
    let site = failed(
        canary(6, 1, 3, Some(10), Promote::Manual),
        &failing(&["web-3"]),
    );
    insta::assert_snapshot!(told(&site), @"
    no switch: the traffic is split so already: current 100%
    web-1 SUCCEEDED
    switch to current 90%, new 10%; on new: web-1
    wait Promotion
    switch to current 75%, new 25%; on new: web-1
    web-3 FAILED
    web-2 SUCCEEDED
    FAILED
    ");
    insta::assert_snapshot!(told(&retried(&site)), @"
    switch to current 50%, new 50%; on new: web-1 web-2
    web-3 SUCCEEDED
    web-4 SUCCEEDED
    switch to new 100%; on new: web-1 web-2 web-3 web-4
    web-5 SUCCEEDED
    web-6 SUCCEEDED
    no switch: the traffic is split so already: new 100%
    SUCCEEDED
    ");
}

#[test]
fn in_one_group_too() {
    let plan = in_one_group(canary(6, 1, 3, Some(10), Promote::Manual));
    let site = failed(plan, &failing(&["web-3"]));
    insta::assert_snapshot!(told(&retried(&site)), @"
    switch to current 50%, new 50%; on new: web-1 web-2
    web-3 SUCCEEDED
    web-4 SUCCEEDED
    switch to new 100%; on new: web-1 web-2 web-3 web-4
    web-5 SUCCEEDED
    web-6 SUCCEEDED
    switch to new 100%; on new: web-1 web-2 web-3 web-4 web-5 web-6
    SUCCEEDED
    ");
}

#[test]
fn a_canary_of_which_nothing_came_up_begins_again() {
    let site = failed(
        canary(4, 1, 1, Some(10), Promote::Manual),
        &failing(&["web-1"]),
    );
    insta::assert_snapshot!(told(&retried(&site)), @"
    no switch: the traffic is split so already: current 100%
    web-1 SUCCEEDED
    switch to current 90%, new 10%; on new: web-1
    wait Promotion
    switch to new 100%; on new: web-1
    web-2 SUCCEEDED
    web-3 SUCCEEDED
    web-4 SUCCEEDED
    no switch: the traffic is split so already: new 100%
    SUCCEEDED
    ");
}

#[test]
fn a_first_batch_of_which_a_part_came_up_is_completed_and_promoted() {
    for plan in [
        canary(6, 2, 2, Some(20), Promote::Manual),
        in_one_group(canary(6, 2, 2, Some(20), Promote::Manual)),
    ] {
        let site = failed(plan, &failing(&["web-2"]));
        let again = told(&retried(&site));
        assert!(again.contains("wait Promotion"), "{again}");
    }
    let site = failed(
        canary(6, 2, 2, Some(20), Promote::Manual),
        &failing(&["web-2"]),
    );
    insta::assert_snapshot!(told(&retried(&site)), @"
    no switch: the traffic is split so already: current 100%
    web-2 SUCCEEDED
    switch to current 80%, new 20%; on new: web-1 web-2
    wait Promotion
    switch to current 50%, new 50%; on new: web-1 web-2
    web-3 SUCCEEDED
    web-4 SUCCEEDED
    switch to new 100%; on new: web-1 web-2 web-3 web-4
    web-5 SUCCEEDED
    web-6 SUCCEEDED
    no switch: the traffic is split so already: new 100%
    SUCCEEDED
    ");
}

#[test]
fn a_canary_that_was_not_promoted_is_promoted_before_anything_else_starts() {
    let after = |position, name: &str| Gate {
        name: name.to_owned(),
        after: position,
        check: GateCheck::Approval { ask: "?".into() },
        timeout: None,
        interval: Duration::from_secs(1),
        on_fail: GatePolicy::Stop,
        on_inconclusive: GatePolicy::Pause,
    };
    let plan = Deployment {
        gates: vec![
            after(GatePosition::First, "first"),
            after(GatePosition::Last, "last"),
        ],
        ..canary(4, 1, 2, Some(20), Promote::Manual)
    };
    let mut site = Site::open(plan);
    site.run(&succeed);
    site.order(Order::Reject {
        gate: None,
        comment: None,
    })
    .unwrap();
    site.run(&succeed);
    insta::assert_snapshot!(told(&site), @"
    no switch: the traffic is split so already: current 100%
    web-1 SUCCEEDED
    switch to current 80%, new 20%; on new: web-1
    wait Gate { index: 0 }
    FAILED
    ");
    insta::assert_snapshot!(told(&retried(&site)), @"
    no switch: the traffic is split so already: current 80%, new 20%
    wait Gate { index: 0 }
    wait Promotion
    switch to current 50%, new 50%; on new: web-1
    web-2 SUCCEEDED
    web-3 SUCCEEDED
    switch to new 100%; on new: web-1 web-2 web-3
    web-4 SUCCEEDED
    wait Gate { index: 1 }
    no switch: the traffic is split so already: new 100%
    SUCCEEDED
    ");
}

#[test]
fn a_share_that_an_operator_gave_is_never_less_in_the_retry() {
    let mut site = Site::open(canary(4, 1, 1, Some(10), Promote::Manual));
    site.run(&succeed);
    site.order(Order::Weight {
        percent: 60,
        capacity: Capacity::Exceed,
    })
    .unwrap();
    site.run(&succeed);
    site.order(Order::Promote).unwrap();
    site.run(&failing(&["web-2"]));

    insta::assert_snapshot!(told(&retried(&site)), @"
    no switch: the traffic is split so already: new 100%
    web-2 SUCCEEDED
    no switch: the traffic is split so already: new 100%
    SUCCEEDED
    ");
}

#[test]
fn a_retry_that_fails_is_retried_as_well() {
    let site = failed(
        canary(6, 1, 3, Some(10), Promote::Manual),
        &failing(&["web-3"]),
    );
    let mut again = Site::open(retry(&site));
    again.run_promoting(&failing(&["web-5"]));

    let left = remainder(&again.engine.state().deployments[0]).unwrap();

    let names = |ids: &[model::InstanceId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&left.left), ["web-5"]);
    assert_eq!(
        names(&left.upgraded),
        ["web-1", "web-2", "web-3", "web-4", "web-6"]
    );
    // Nobody is left on the other side.
    insta::assert_snapshot!(told(&retried(&again)), @"
    no switch: the traffic is split so already: new 100%
    web-5 SUCCEEDED
    no switch: the traffic is split so already: new 100%
    SUCCEEDED
    ");
}

#[test]
fn the_way_back_from_a_retry_leaves_what_came_up_before_it_without_traffic() {
    let site = failed(
        canary(6, 1, 3, Some(10), Promote::Manual),
        &failing(&["web-3"]),
    );
    for plan in [retry(&site), in_one_group(retry(&site))] {
        let mut again = Site::open(Deployment {
            on_failure: OnFailure::Rollback,
            ..plan
        });
        again.run_promoting(&failing(&["web-3"]));

        let deploying = |record: &&Record| matches!(&record.fact, Fact::SwitchStarted { deployment, .. } if deployment.as_str() == "r2-1");
        let members_before = again.journal.iter().filter(deploying).count();
        assert_eq!(again.status(), ReleaseStatus::Failed);
        let state = again.engine.state();
        assert_eq!(state.deployments[1].status, ReleaseStatus::Succeeded);
        assert_eq!(state.deployments[1].shares.to_string(), "current 100%");
        let trace = &again.world.trace;
        let blocked = trace
            .iter()
            .rposition(|line| line == "web-4 BlockTraffic -");
        let given_back = trace
            .iter()
            .position(|line| line == "SwitchTraffic current 100%");
        assert!(
            given_back.is_some() && given_back < blocked,
            "the traffic goes back first: {trace:?}"
        );
        let last = again.world.members.last().unwrap();
        // Between two groups nothing is switched once everybody is back.
        let back = usize::from(again.world.members.len() > members_before + 1);
        assert_eq!(last["new"].len(), 3 - back, "{last:?}");
        assert_eq!(last["current"].len(), 2 + 2 * back, "{last:?}");
    }
}

/// In one group an instance that is to be taken back must not be weighed as if it had come back.
#[test]
fn a_canary_taken_back_in_one_group_has_no_weight_before_it_changes() {
    let mut site = Site::open(in_one_group(canary(4, 1, 1, Some(10), Promote::Manual)));
    site.run(&succeed);
    let before = site.world.members.len();

    site.order(Order::Rollback { reason: None }).unwrap();
    site.run(&succeed);

    let first = &site.world.members[before];
    assert_eq!(first["current"], ["web-2", "web-3", "web-4"]);
    assert_eq!(first["new"], ["web-1"]);
}

#[test]
fn the_splits_that_a_failed_switch_may_have_left_are_all_known() {
    let mut site = Site::open(canary(4, 1, 1, Some(10), Promote::Manual));
    site.world.switch_endings.push_back(fail("away"));
    site.run(&succeed);

    let left = remainder(&site.engine.state().deployments[0]).unwrap();

    let shares: Vec<_> = left.shares.iter().map(Shares::to_string).collect();
    assert_eq!(shares, ["current 100%", "current 90%, new 10%"]);
}

#[test]
fn what_is_no_canary_between_two_sides_has_nothing_to_go_on_from() {
    let state = |plan: Deployment| Site::open(plan).engine.state().deployments[0].clone();
    let rolling = crate::world::site::deployment(2);
    let unrouted = Deployment {
        router: None,
        sides: None,
        ..canary(3, 1, 1, None, Promote::Manual)
    };

    assert_eq!(remainder(&state(rolling)), None);
    assert_eq!(remainder(&state(crate::world::site::colours(2))), None);
    assert_eq!(remainder(&state(unrouted)), None);
}

/// The instances that ended well, by the records.
fn upgraded(journal: &[Record]) -> Vec<String> {
    let ended = journal.iter().filter_map(|record| match &record.fact {
        Fact::InstanceEnded {
            instance,
            outcome: model::InstanceOutcome::Succeeded,
            ..
        } => Some(instance.to_string()),
        _ => None,
    });
    ended.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever fails, and however often, retries bring the revision to everybody once and all traffic to it, and no
    /// side ever gets more than its instances carry by their number, but for the share that was asked for.
    #[test]
    fn retries_end_with_everything_on_the_side_that_was_meant(
        total in 2..9usize,
        first in 1..4u32,
        rest in 1..4u32,
        asked in proptest::option::of(0..=50u8),
        one_group in any::<bool>(),
        // Nothing is live before it.
        is_first in any::<bool>(),
        failures in proptest::collection::vec(proptest::collection::btree_set(1..9usize, 0..3), 0..5),
        crash in 2..400usize,
    ) {
        let first = first.min(u32::try_from(total - 1).unwrap());
        let mut plan = canary(total, first, rest, asked, Promote::Manual);
        plan.failure_threshold = Amount::Count(1);
        if one_group {
            plan = in_one_group(plan);
        }
        if is_first && let Some(sides) = &mut plan.sides {
            (sides.from, sides.shares) = (None, Shares::default());
        }
        let mut done: Vec<String> = Vec::new();
        for failing in failures.into_iter().chain([BTreeSet::new()]) {
            let behaviour = |action: &Action| {
                let number: usize = action.target.instance.id.as_str()[4..].parse().unwrap();
                match action.event {
                    LifecycleEvent::ValidateService if failing.contains(&number) => fail("no"),
                    _ => succeed(action),
                }
            };
            let began = plan.sides.as_ref().unwrap().shares.of(&"new".parse().unwrap());
            let mut site = Site::open(plan.clone());
            site.run_to_record(&behaviour, crash);
            let records = site.journal.len().min(crash);
            if site.status() == ReleaseStatus::Running {
                site.crash(records);
            }
            site.run_promoting(&behaviour);
            done.extend(upgraded(&site.journal));
            let mut share = began;
            for record in &site.journal {
                if let Fact::SwitchStarted { from, to, .. } = &record.fact {
                    let new = to.of(&"new".parse().unwrap());
                    prop_assert_eq!(from.of(&"new".parse().unwrap()), share);
                    prop_assert!(new >= share, "the share of the side falls");
                    share = new;
                }
            }
            prop_assert_eq!(&State::fold(&site.journal).unwrap(), site.engine.state());
            if !is_first {
                check_capacity(&site, total, asked)?;
            }
            if site.status() == ReleaseStatus::Succeeded {
                prop_assert_eq!(share, 100);
                done.sort();
                let everybody: Vec<_> = (1..=total).map(|number| format!("web-{number}")).collect();
                prop_assert_eq!(done, everybody);
                return Ok(());
            }
            plan = retry(&site);
        }
        prop_assert!(false, "the last one fails nothing");
    }
}

/// At each switch the side has at most what its members carry, what it has already, or what was asked for.
fn check_capacity(site: &Site, total: usize, asked: Option<u8>) -> Result<(), TestCaseError> {
    let switches = site.journal.iter().filter_map(|record| match &record.fact {
        Fact::SwitchStarted { from, to, .. } => Some((from, to)),
        _ => None,
    });
    let new = "new".parse().unwrap();
    for ((from, to), members) in switches.zip(&site.world.members) {
        let on = members.get("new").map_or(0, Vec::len);
        let away = members.get("current").map_or(0, Vec::len);
        let has_more = to.of(&new) > from.of(&new).max(asked.unwrap_or(0));
        prop_assert!(
            !has_more || on > 0,
            "{to} with nobody on the side, of {total} with {away} on the other"
        );
    }
    Ok(())
}

#[test]
fn a_rolling_batching_says_nothing_of_a_first_batch() {
    let plan = canary(6, 2, 2, None, Promote::Manual);
    let site = failed(plan, &failing(&["web-4"]));
    let left = remainder(&site.engine.state().deployments[0]).unwrap();

    assert_eq!(left.batching, Batching::Even(2));
    let canary = |promote| Strategy::Canary {
        traffic: None,
        promote,
    };
    assert_eq!(left.strategy, canary(Promote::Given));
    assert_eq!(
        left.down
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["web-4"]
    );
    assert_eq!(
        left.members(&[]),
        BTreeMap::from(["current", "new"].map(|name| (name.parse().unwrap(), vec![])))
    );
}
