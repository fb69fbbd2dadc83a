//! Blue-green, canary, batches, gates and orders, decided over a simulated fleet.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::world::site::{Site, canary, colours, deployment};
use crate::world::{ended, fail, succeed};
use engine::{Action, Input, Refusal, State};
use model::{
    Amount, Batching, Capacity, Decision, Deployment, Direction, Fact, Gate, GateCheck, GatePolicy,
    GatePosition, InstanceOutcome, LifecycleEvent, OnFailure, Order, Promote, Record,
    ReleaseStatus, Retire, Shares, Strategy, Timestamp, Verdict,
};

const MINUTE: Duration = Duration::from_secs(60);

fn shares(state: &State) -> String {
    state.deployments.last().unwrap().shares.to_string()
}

/// The switches and holds of a release's records, one a line.
fn stops(journal: &[Record]) -> Vec<String> {
    journal
        .iter()
        .filter_map(|record| match &record.fact {
            Fact::SwitchStarted { to, .. } => Some(format!("switch to {to}")),
            Fact::SwitchSkipped { reason, .. } => Some(format!("no switch: {reason}")),
            Fact::HoldOpened { hold, .. } => Some(format!("wait {hold:?}")),
            Fact::HoldClosed { decision, .. } => Some(decision.verdict.to_string()),
            _ => None,
        })
        .collect()
}

fn gate(name: &str, check: GateCheck) -> Gate {
    Gate {
        name: name.into(),
        after: GatePosition::Each,
        check,
        timeout: Some(MINUTE),
        interval: Duration::from_secs(10),
        on_fail: GatePolicy::Stop,
        on_inconclusive: GatePolicy::Pause,
    }
}

fn command(name: &str) -> Gate {
    gate(
        name,
        GateCheck::Command {
            command: "check".into(),
        },
    )
}

fn decided(verdict: Verdict, reason: &str) -> Decision {
    Decision {
        verdict,
        by: None,
        reason: Some(reason.into()),
        evidence: vec![],
    }
}

#[test]
fn blue_green_changes_the_idle_colour_and_then_switches_once() {
    let mut site = Site::open(colours(3));

    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    assert_eq!(stops(&site.journal), ["switch to green 100%"]);
    assert_eq!(site.world.trace.last().unwrap(), "SwitchTraffic green 100%");
    let about_traffic =
        |line: &&String| line.contains("BlockTraffic") || line.contains("AllowTraffic");
    assert_eq!(site.world.trace.iter().filter(about_traffic).count(), 0);
}

#[test]
fn blue_green_stays_where_it_is_when_an_instance_failed() {
    let plan = Deployment {
        failure_threshold: Amount::Count(3),
        on_failure: OnFailure::Rollback,
        ..colours(3)
    };
    let mut site = Site::open(plan);

    site.run(&|action: &Action| match action.event {
        LifecycleEvent::ValidateService if action.target.instance.id.as_str() == "green-2" => {
            fail("no answer")
        }
        _ => succeed(action),
    });

    assert_eq!(site.status(), ReleaseStatus::Failed);
    assert_eq!(stops(&site.journal), [""; 0]);
    let state = site.engine.state();
    assert_eq!(state.deployments.len(), 1, "nothing is to be taken back");
    assert!(
        state.reason.as_ref().unwrap().contains("stays where it is"),
        "{:?}",
        state.reason
    );
}

#[test]
fn the_first_blue_green_deployment_has_no_way_back() {
    let mut plan = colours(2);
    let sides = plan.sides.as_mut().unwrap();
    sides.from = None;
    sides.shares = Shares::default();
    sides.installed.clear();
    let mut site = Site::open(plan);

    site.run(&succeed);

    assert_eq!(stops(&site.journal), ["switch to green 100%"]);
    let id = "r2-2".parse().unwrap();
    let none = engine::rollback::plan(&site.engine.state().deployments[0], id, |_, _, _| None);
    assert!(none.is_none());
}

#[test]
fn a_bake_validates_again_and_passes() {
    let plan = Deployment {
        strategy: Strategy::BlueGreen {
            bake: 5 * MINUTE,
            retire: Retire::Keep,
        },
        ..colours(1)
    };
    let mut site = Site::open(plan);

    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    assert_eq!(
        stops(&site.journal),
        ["switch to green 100%", "wait Bake", "PASSED"]
    );
    let validations = |line: &&String| line.contains("ValidateService");
    assert_eq!(site.world.trace.iter().filter(validations).count(), 6);
    assert!(site.now.0 >= 300_000);
}

#[test]
fn a_validation_that_fails_in_the_bake_switches_back() {
    let plan = Deployment {
        strategy: Strategy::BlueGreen {
            bake: 5 * MINUTE,
            retire: Retire::Stop,
        },
        ..colours(2)
    };
    let mut site = Site::open(plan);

    site.run(&|action: &Action| match action.attempt {
        3 => fail("too many errors"),
        _ => succeed(action),
    });

    assert_eq!(site.status(), ReleaseStatus::Failed);
    assert_eq!(
        stops(&site.journal),
        [
            "switch to green 100%",
            "wait Bake",
            "FAILED",
            "switch to blue 100%"
        ]
    );
    assert_eq!(shares(site.engine.state()), "blue 100%");
    assert_eq!(
        site.engine.state().reason.as_deref(),
        Some(
            "green-1: ValidateService after the switch: too many errors; the traffic went back: blue 100%"
        )
    );
}

#[test]
fn an_instance_that_the_balancer_loses_in_the_bake_switches_back() {
    let plan = Deployment {
        strategy: Strategy::BlueGreen {
            bake: 5 * MINUTE,
            retire: Retire::Keep,
        },
        ..colours(2)
    };
    let mut site = Site::open(plan);
    site.run_until(&succeed, |state| {
        state.deployments[0].current_hold().is_some()
    });

    let down = BTreeMap::from([("green-2".parse().unwrap(), "out of service".to_owned())]);
    site.give(Input::HealthObserved {
        deployment: "r2-1".parse().unwrap(),
        down,
    });
    site.run(&succeed);

    assert_eq!(shares(site.engine.state()), "blue 100%");
    assert_eq!(
        site.engine.state().reason.as_deref(),
        Some(
            "green-2: the balancer calls it out of service after the switch; the traffic went back: blue 100%"
        )
    );
}

#[test]
fn a_bake_that_failed_stays_so_when_the_instance_recovers_meanwhile() {
    let plan = Deployment {
        strategy: Strategy::BlueGreen {
            bake: 5 * MINUTE,
            retire: Retire::Stop,
        },
        ..colours(2)
    };
    let mut site = Site::open(plan);
    site.run_until(&succeed, |state| {
        state.deployments[0].current_hold().is_some()
    });
    let observed = |down: &[&str]| Input::HealthObserved {
        deployment: "r2-1".parse().unwrap(),
        down: down
            .iter()
            .map(|id| (id.parse().unwrap(), "out of service".to_owned()))
            .collect(),
    };

    site.give(observed(&["green-2"]));
    site.give(observed(&[]));
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Failed);
    assert_eq!(shares(site.engine.state()), "blue 100%");
    assert_eq!(
        site.engine.state().deployments.len(),
        1,
        "the colour that serves is not retired"
    );
}

#[test]
fn a_bake_ends_when_validations_take_as_long_as_their_rounds() {
    let plan = Deployment {
        strategy: Strategy::BlueGreen {
            bake: Duration::from_secs(5),
            retire: Retire::Keep,
        },
        ..colours(3)
    };
    let mut site = Site::open(plan);
    site.run_until(&succeed, |state| {
        state.deployments[0].current_hold().is_some()
    });
    let mut engine = site.engine.clone();
    let mut in_flight = VecDeque::new();
    let mut now = site.now;

    for _ in 0..40 {
        now = Timestamp(now.0 + 700);
        if engine.state().status != ReleaseStatus::Running {
            break;
        }
        in_flight.extend(engine.handle(now, Input::Tick).unwrap().actions);
        if let Some(action) = in_flight.pop_front() {
            let answer = ended(&action, succeed(&action));
            in_flight.extend(engine.handle(now, answer).unwrap().actions);
        }
    }

    assert_eq!(engine.state().status, ReleaseStatus::Succeeded);
}

#[test]
fn an_outcome_that_is_told_again_changes_nothing() {
    let plan = Deployment {
        strategy: Strategy::BlueGreen {
            bake: 5 * MINUTE,
            retire: Retire::Keep,
        },
        ..colours(1)
    };
    let mut site = Site::open(plan);
    site.run_until(&succeed, |state| {
        state.deployments[0].current_hold().is_some()
    });
    let records = site.journal.clone();
    let told = records
        .iter()
        .filter_map(|record| match record.fact.clone() {
            Fact::StepEnded {
                deployment,
                instance,
                event,
                attempt,
                ending,
            } => Some(Input::StepEnded {
                deployment,
                instance,
                event,
                attempt,
                ending,
            }),
            Fact::SwitchEnded {
                deployment,
                attempt,
                ending,
            } => Some(Input::SwitchEnded {
                deployment,
                attempt,
                ending,
            }),
            _ => None,
        });

    for again in told {
        site.give(again);
    }

    assert_eq!(site.journal, records);
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Succeeded);
}

#[test]
fn the_old_colour_is_stopped_where_that_is_asked_for_and_started_again_on_the_way_back() {
    let plan = Deployment {
        strategy: Strategy::BlueGreen {
            bake: Duration::ZERO,
            retire: Retire::Stop,
        },
        ..colours(2)
    };
    let mut site = Site::open(plan);
    site.run(&succeed);

    assert_eq!(
        site.world.trace[site.world.trace.len() - 3..],
        [
            "SwitchTraffic green 100%",
            "blue-1 ApplicationStop 1.0.0",
            "blue-2 ApplicationStop 1.0.0"
        ]
    );
    let state = site.engine.state();
    assert_eq!(state.status, ReleaseStatus::Succeeded);
    assert_eq!(
        state.deployments[1].plan.direction,
        Direction::Retire {
            of: "r2-1".parse().unwrap()
        }
    );
    let back = engine::rollback::plan(&state.deployments[0], "r3-1".parse().unwrap(), |_, _, _| {
        None
    })
    .unwrap();
    assert_eq!(
        back.sequence,
        [
            LifecycleEvent::ApplicationStart,
            LifecycleEvent::ValidateService
        ]
    );
}

#[test]
fn a_blue_green_rollback_validates_what_still_runs_and_switches_back() {
    let mut site = Site::open(colours(2));
    site.run(&succeed);
    let state = &site.engine.state().deployments[0];
    let back = engine::rollback::plan(state, "r2-1".parse().unwrap(), |_, _, _| None).unwrap();

    let mut site = Site::open(back);
    site.run(&succeed);

    assert_eq!(
        site.world.trace,
        [
            "blue-1 ValidateService 1.0.0",
            "blue-2 ValidateService 1.0.0",
            "SwitchTraffic blue 100%"
        ]
    );
}

#[test]
fn a_canary_gets_its_share_waits_and_goes_on_when_it_is_promoted() {
    let mut site = Site::open(canary(6, 1, 3, Some(20), Promote::Manual));

    site.run(&succeed);
    assert_eq!(
        site.status(),
        ReleaseStatus::Running,
        "it waits for a person"
    );
    assert_eq!(shares(site.engine.state()), "current 80%, new 20%");
    site.order(Order::Promote).unwrap();
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    assert_eq!(
        stops(&site.journal),
        [
            "no switch: the traffic is split so already: current 100%",
            "switch to current 80%, new 20%",
            "wait Promotion",
            "PASSED",
            // One of four that stay while two are away.
            "switch to current 75%, new 25%",
            "switch to current 25%, new 75%",
            "switch to new 100%",
            "no switch: the traffic is split so already: new 100%",
        ]
    );
}

#[test]
fn a_canary_in_one_group_is_told_apart_before_it_changes_and_weighed_at_the_end() {
    let mut plan = canary(3, 1, 1, None, Promote::After(MINUTE));
    for side in &mut plan.sides.as_mut().unwrap().list {
        side.group = "{}".into();
    }
    let mut site = Site::open(plan);

    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    assert_eq!(
        stops(&site.journal),
        [
            "switch to current 100%",
            "switch to current 66%, new 34%",
            "wait Promotion",
            "PASSED",
            "switch to new 100%",
            "switch to new 100%",
        ]
    );
    assert_eq!(site.world.members[0]["new"], ["web-1"]);
    assert_eq!(site.world.members[1]["new"], ["web-1"]);
    assert_eq!(site.world.members[3]["new"], ["web-1", "web-2", "web-3"]);
}

#[test]
fn a_canary_where_nothing_runs_yet_gives_nothing_to_the_side_that_has_nobody() {
    let mut plan = canary(3, 1, 1, Some(20), Promote::After(MINUTE));
    let ids = plan.targets.iter().map(|target| target.instance.id.clone());
    plan.down = ids.map(|id| (id, "maintenance".to_owned())).collect();
    let mut site = Site::open(plan);

    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    let already = "no switch: the traffic is split so already: new 100%";
    assert_eq!(
        stops(&site.journal),
        [
            "no switch: no instance has traffic that could stay where it is",
            "switch to new 100%",
            "wait Promotion",
            "PASSED",
            already,
            already
        ]
    );
}

#[test]
fn a_canary_where_no_side_is_live_moves_nothing_before_its_first_batch() {
    let mut plan = canary(3, 1, 1, Some(20), Promote::After(MINUTE));
    let sides = plan.sides.as_mut().unwrap();
    sides.from = None;
    sides.shares = Shares::default();
    let mut site = Site::open(plan);

    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    assert_eq!(
        stops(&site.journal)[..2],
        [
            "no switch: no instance has traffic that could stay where it is",
            "switch to new 100%",
        ]
    );
}

#[test]
fn a_canary_without_a_router_has_only_its_batches_and_its_promotion() {
    let plan = Deployment {
        router: None,
        sides: None,
        ..canary(3, 1, 1, None, Promote::After(MINUTE))
    };
    let mut site = Site::open(plan);

    site.run(&succeed);

    assert_eq!(stops(&site.journal), ["wait Promotion", "PASSED"]);
}

#[test]
fn the_share_of_a_waiting_canary_can_be_changed_within_what_its_instances_carry() {
    let mut site = Site::open(canary(4, 1, 1, Some(10), Promote::Manual));
    site.run(&succeed);
    let weight = |percent, capacity| Order::Weight { percent, capacity };

    let refused = site.order(weight(50, Capacity::Respect)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot weight: the healthy instances of `new` carry 25% by their number; `--force` gives them more"
    );
    site.order(weight(25, Capacity::Respect)).unwrap();
    site.run(&succeed);
    assert_eq!(shares(site.engine.state()), "current 75%, new 25%");
    site.order(weight(50, Capacity::Exceed)).unwrap();
    site.run(&succeed);
    assert_eq!(shares(site.engine.state()), "current 50%, new 50%");
    site.order(weight(0, Capacity::Respect)).unwrap();
    site.run(&succeed);
    assert_eq!(shares(site.engine.state()), "current 100%");
    assert_eq!(site.status(), ReleaseStatus::Running, "it still waits");
}

#[test]
fn a_share_change_that_fails_leaves_the_canary_waiting() {
    let mut site = Site::open(canary(4, 1, 1, Some(10), Promote::Manual));
    site.run(&succeed);
    site.world
        .switch_endings
        .push_back(fail("the balancer is away"));

    site.order(Order::Weight {
        percent: 20,
        capacity: Capacity::Respect,
    })
    .unwrap();
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Running);
    assert_eq!(shares(site.engine.state()), "current 90%, new 10%");
    site.order(Order::Promote).unwrap();
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Succeeded);
}

#[test]
fn a_canary_taken_back_loses_its_traffic_first() {
    let mut site = Site::open(canary(4, 1, 1, Some(10), Promote::Manual));
    site.run(&succeed);
    let from = site.world.trace.len();

    site.order(Order::Rollback {
        reason: Some("errors".into()),
    })
    .unwrap();
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Failed);
    assert_eq!(shares(site.engine.state()), "current 100%");
    assert_eq!(
        site.engine.state().reason.as_deref(),
        Some("taken back by ann: errors; rolled back to 1.0.0")
    );
    assert_eq!(site.world.trace[from], "SwitchTraffic current 100%");
    assert!(
        site.world.trace[from + 1..]
            .iter()
            .all(|line| line.starts_with("web-1 "))
    );
}

#[test]
fn a_canary_that_is_complete_goes_back_by_growing_shares() {
    let mut site = Site::open(canary(4, 1, 2, Some(10), Promote::After(MINUTE)));
    site.run(&succeed);
    let state = &site.engine.state().deployments[0];
    let installed = |_: &_, target: &model::Target, _| Some(target.incoming.clone());
    let back = engine::rollback::plan(state, "r2-1".parse().unwrap(), installed).unwrap();

    let mut site = Site::open(back);
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    assert_eq!(
        stops(&site.journal),
        [
            "no switch: the traffic is split so already: new 100%",
            "switch to current 50%, new 50%",
            "switch to current 100%",
            "no switch: the traffic is split so already: current 100%",
        ]
    );
}

#[test]
fn batches_end_before_the_next_begins_and_wait_between() {
    let plan = Deployment {
        batching: Batching::Growing(vec![Amount::Count(1), Amount::Percent(100)]),
        wait_between: MINUTE,
        ..deployment(5)
    };
    let mut site = Site::open(plan);

    let most = site.run(&succeed);

    assert_eq!(most, 4);
    assert_eq!(stops(&site.journal), ["wait Interval", "PASSED"]);
    assert!(
        site.world.trace[..7]
            .iter()
            .all(|line| line.starts_with("web-1 "))
    );
    assert!(site.now.0 >= 60_000);
}

#[test]
fn a_batch_with_too_many_failures_fails_the_deployment() {
    let plan = Deployment {
        batching: Batching::Even(2),
        failure_threshold: Amount::Count(4),
        batch_failure_threshold: Some(Amount::Count(2)),
        ..deployment(6)
    };
    let mut site = Site::open(plan);

    site.run(&|action: &Action| match action.event {
        LifecycleEvent::ValidateService if action.target.instance.id.as_str() != "web-3" => {
            fail("no")
        }
        _ => succeed(action),
    });

    assert_eq!(site.status(), ReleaseStatus::Failed);
    let state = &site.engine.state().deployments[0];
    assert_eq!(state.failed, 2);
    assert_eq!(state.instances[3].outcome, Some(InstanceOutcome::Skipped));
    assert!(
        state
            .reason
            .as_ref()
            .unwrap()
            .contains("batch_failure_threshold is 2")
    );
}

#[test]
fn instances_wait_until_enough_are_healthy() {
    let plan = Deployment {
        batching: Batching::Window(Amount::Count(3)),
        minimum_healthy: Some(Amount::Count(3)),
        down: BTreeMap::from([("web-4".parse().unwrap(), "absent".to_owned())]),
        ..deployment(5)
    };
    let mut site = Site::open(plan);

    let most = site.run_until(&succeed, |state| {
        state.deployments[0].instances[0].outcome.is_some()
    });

    assert_eq!(most, 1, "one is down already, so one more may be");
}

#[test]
fn a_wait_for_healthy_instances_ends_with_them_or_in_time() {
    let plan = Deployment {
        minimum_healthy: Some(Amount::Count(2)),
        down: BTreeMap::from([("web-3".parse().unwrap(), "draining".to_owned())]),
        ..deployment(3)
    };
    let mut site = Site::open(plan.clone());
    site.run_until(&succeed, |state| {
        state.deployments[0].current_hold().is_some()
    });
    site.give(Input::HealthObserved {
        deployment: "r2-1".parse().unwrap(),
        down: BTreeMap::new(),
    });
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Succeeded);

    let mut site = Site::open(plan);
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Failed);
    assert_eq!(
        site.engine.state().reason.as_deref(),
        Some("web-1 may not start while 2 of 3 have to be healthy: web-3 is draining")
    );
    assert_eq!(site.world.trace, [""; 0]);
}

#[test]
fn a_gate_passes_fails_or_pauses_by_its_policy() {
    let plan = Deployment {
        batching: Batching::Even(2),
        gates: vec![command("smoke")],
        ..deployment(2)
    };

    let mut site = Site::open(plan.clone());
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    assert_eq!(
        site.world.gates,
        ["smoke after 1 of 2", "smoke after 2 of 2"]
    );

    let mut site = Site::open(plan.clone());
    site.world
        .decisions
        .push_back(decided(Verdict::Failed, "500"));
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Failed);
    assert_eq!(
        site.engine.state().reason.as_deref(),
        Some("gate `smoke` failed: 500")
    );

    let mut site = Site::open(plan);
    site.world
        .decisions
        .push_back(decided(Verdict::Inconclusive, "no data"));
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Paused);
    assert_eq!(
        site.engine.state().reason.as_deref(),
        Some("gate `smoke` is inconclusive: no data")
    );
    site.give(Input::Resume {
        operator: "bob".into(),
    });
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    assert_eq!(site.world.gates.len(), 3, "it was evaluated again");
}

#[test]
fn a_gate_may_ask_for_a_rollback() {
    let plan = Deployment {
        gates: vec![Gate {
            on_fail: GatePolicy::Rollback,
            ..command("smoke")
        }],
        ..deployment(2)
    };
    let mut site = Site::open(plan);
    site.world
        .decisions
        .push_back(decided(Verdict::Failed, "500"));

    site.run(&succeed);

    assert_eq!(
        site.engine.state().reason.as_deref(),
        Some("gate `smoke` failed: 500; rolled back to 1.0.0")
    );
}

#[test]
fn a_person_decides_with_who_and_why_or_nobody_in_time() {
    let ask = GateCheck::Approval {
        ask: "is it quiet?".into(),
    };
    let plan = Deployment {
        gates: vec![Gate {
            after: GatePosition::Last,
            ..gate("board", ask)
        }],
        ..deployment(1)
    };

    let mut site = Site::open(plan.clone());
    site.run_until(&succeed, |state| {
        state.deployments[0].current_hold().is_some()
    });
    let other = Order::Approve {
        gate: Some("other".into()),
        comment: None,
    };
    assert_eq!(
        site.order(other).unwrap_err().to_string(),
        "cannot approve: gate `other` is not open; `board` is"
    );
    site.order(Order::Approve {
        gate: None,
        comment: Some("all quiet".into()),
    })
    .unwrap();
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    let (_, decision) = site.engine.state().deployments[0].holds[0]
        .closed
        .clone()
        .unwrap();
    assert_eq!(
        (decision.by.as_deref(), decision.reason.as_deref()),
        (Some("ann"), Some("all quiet"))
    );

    let mut site = Site::open(plan.clone());
    site.run_until(&succeed, |state| {
        state.deployments[0].current_hold().is_some()
    });
    site.order(Order::Reject {
        gate: None,
        comment: Some("too loud".into()),
    })
    .unwrap();
    site.run(&succeed);
    assert_eq!(
        site.engine.state().reason.as_deref(),
        Some("gate `board` failed: too loud (by ann)")
    );

    let mut site = Site::open(plan);
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Paused);
    assert_eq!(
        site.engine.state().reason.as_deref(),
        Some("gate `board` is inconclusive: nobody decided in time")
    );
}

#[test]
fn an_instance_can_be_left_out_before_it_starts() {
    let plan = Deployment {
        batching: Batching::Even(3),
        wait_between: MINUTE,
        ..deployment(3)
    };
    let mut site = Site::open(plan);
    site.run_until(&succeed, |state| {
        state.deployments[0].current_hold().is_some()
    });

    let skip = |id: &str| Order::Skip {
        instance: id.parse().unwrap(),
    };
    assert_eq!(
        site.order(skip("web-1")).unwrap_err().to_string(),
        "cannot skip: `web-1` is SUCCEEDED already"
    );
    site.order(skip("web-2")).unwrap();
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    let instances = &site.engine.state().deployments[0].instances;
    assert_eq!(instances[1].outcome, Some(InstanceOutcome::Skipped));
    assert_eq!(instances[1].reason.as_deref(), Some("left out by ann"));
    assert!(
        !site
            .world
            .trace
            .iter()
            .any(|line| line.starts_with("web-2"))
    );
}

#[test]
fn orders_that_do_not_fit_are_refused_with_what_it_waits_for() {
    let mut site = Site::open(deployment(1));
    let refused: [(Order, &str); 3] = [
        (Order::Promote, "cannot promote: it waits for nothing"),
        (
            Order::Weight {
                percent: 5,
                capacity: Capacity::Respect,
            },
            "cannot weight: it is no canary whose traffic can be shared",
        ),
        (
            Order::Approve {
                gate: None,
                comment: None,
            },
            "cannot approve: no gate is open; it waits for nothing",
        ),
    ];

    for (order, expected) in refused {
        assert_eq!(site.order(order).unwrap_err().to_string(), expected);
    }
    site.run(&succeed);
    assert!(matches!(
        site.order(Order::Pause { at: None }),
        Err(Refusal::Status { .. })
    ));
}

#[test]
fn an_order_that_comes_with_a_resume_is_heard_before_anything_starts() {
    let plan = Deployment {
        router: None,
        sides: None,
        ..canary(4, 1, 3, None, Promote::After(MINUTE))
    };
    let mut site = Site::open(plan);
    site.run_until(&succeed, |state| {
        state.deployments[0].instances[1].outcome.is_some()
    });
    let ended = site.journal.iter().rposition(|record| {
        matches!(&record.fact, Fact::InstanceEnded { instance, .. } if instance.as_str() == "web-2")
    });
    // Its conductor died before what followed was durable.
    site.journal.truncate(ended.unwrap() + 1);
    let resumed = |input: Input| {
        let mut engine = engine::Engine::from_records(&site.journal).unwrap();
        let output = engine.handle(site.now, input);
        let started = output.map(|output| {
            let actions = output.actions.iter();
            let action =
                |action: &Action| format!("{} {}", action.deployment.id, action.target.instance.id);
            actions.map(action).collect::<Vec<_>>()
        });
        (started, engine)
    };
    let with = |order| Input::ResumeWith {
        operator: "bob".into(),
        order,
        by: "ann".into(),
    };

    let (plain, _) = resumed(Input::Resume {
        operator: "bob".into(),
    });
    let (ordered, engine) = resumed(with(Order::Rollback { reason: None }));
    let (refused, untouched) = resumed(with(Order::Promote));

    assert_eq!(plain.unwrap(), ["r2-1 web-3"]);
    assert_eq!(ordered.unwrap(), ["r2-2 web-1"]);
    assert_eq!(engine.state().orders[0].operator, "ann");
    assert!(refused.is_err());
    assert_eq!(untouched.state(), &State::fold(&site.journal).unwrap());
}

/// A crash after each record: the one who takes over shows instances and balancer what one undisturbed run shows.
fn check_crashes(plan: &Deployment) {
    let mut undisturbed = Site::open(plan.clone());
    undisturbed.run_promoting(&succeed);
    let mut expected = undisturbed.world.trace.clone();
    expected.sort();
    assert_eq!(undisturbed.status(), ReleaseStatus::Succeeded);

    for crash in 2..undisturbed.journal.len() {
        let mut site = Site::open(plan.clone());
        site.run_to_record(&succeed, crash);
        site.crash(crash);
        site.run_promoting(&succeed);

        let mut seen = site.world.trace.clone();
        seen.sort();
        assert_eq!(seen, expected, "crash after record {crash}");
        assert_eq!(
            site.status(),
            ReleaseStatus::Succeeded,
            "crash after record {crash}"
        );
        assert_eq!(&State::fold(&site.journal).unwrap(), site.engine.state());
    }
}

#[test]
fn a_crash_after_any_record_of_any_strategy_changes_nothing_that_anybody_sees() {
    let bake = Strategy::BlueGreen {
        bake: 3 * MINUTE,
        retire: Retire::Stop,
    };
    let approval = Gate {
        timeout: None,
        ..gate("board", GateCheck::Approval { ask: "go?".into() })
    };
    check_crashes(&Deployment {
        strategy: bake,
        ..colours(2)
    });
    check_crashes(&canary(4, 1, 2, Some(10), Promote::Manual));
    check_crashes(&Deployment {
        batching: Batching::Even(2),
        wait_between: MINUTE,
        gates: vec![command("smoke"), approval],
        ..deployment(3)
    });
}

#[test]
fn health_is_watched_where_it_matters_and_only_until_the_deployment_ends() {
    let watched = |site: &Site| site.engine.watched().len();
    let mut canary = Site::open(canary(2, 1, 1, None, Promote::After(MINUTE)));
    let rolling = Site::open(deployment(2));
    let guarded = Site::open(Deployment {
        minimum_healthy: Some(Amount::Count(1)),
        ..deployment(2)
    });

    assert_eq!(
        (watched(&canary), watched(&rolling), watched(&guarded)),
        (1, 0, 1)
    );
    canary.run(&succeed);
    assert_eq!(watched(&canary), 0);
}

#[test]
fn an_approval_that_takes_up_a_release_decides_the_gate_that_paused_it() {
    let mut plan = deployment(2);
    plan.batching = Batching::Window(Amount::Count(1));
    plan.gates = vec![command("errors")];
    let mut site = Site::open(plan);
    site.world
        .decisions
        .push_back(decided(Verdict::Inconclusive, "no data"));
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Paused);

    let order = Order::Approve {
        gate: Some("errors".into()),
        comment: None,
    };
    site.give(Input::ResumeWith {
        operator: "bob".into(),
        order,
        by: "bob".into(),
    });
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
}
