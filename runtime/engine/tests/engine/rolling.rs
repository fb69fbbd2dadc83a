//! Rolling deployments: order, whose revision, thresholds, rollback, and a crash after every record.

use crate::world::{Setting, World, drive, ended, fail, jobs, opening, run, succeed};
use engine::{Engine, Input, State};
use model::{Amount, Ending, InstanceOutcome, OnFailure, Order, ReleaseStatus, Timestamp};
use proptest::prelude::*;

fn pause() -> Input {
    Input::Order {
        order: Order::Pause { at: None },
        operator: "ann".into(),
    }
}

fn trace_of(setting: &Setting) -> String {
    run(setting, &succeed).2.trace.join("\n")
}

#[test]
fn deploys_without_a_balancer_in_the_contract_order() {
    insta::assert_snapshot!(trace_of(&Setting { instances: 1, ..Setting::default() }), @r"
    web-1 DownloadBundle 2.0.0
    web-1 ApplicationStop 1.0.0
    web-1 BeforeInstall 2.0.0
    web-1 Install 2.0.0
    web-1 AfterInstall 2.0.0
    web-1 ApplicationStart 2.0.0
    web-1 ValidateService 2.0.0
    ");
}

#[test]
fn deploys_with_a_balancer_in_the_contract_order() {
    insta::assert_snapshot!(trace_of(&Setting { instances: 1, with_balancer: true, ..Setting::default() }), @r"
    web-1 DownloadBundle 2.0.0
    web-1 BeforeBlockTraffic 1.0.0
    web-1 BlockTraffic -
    web-1 AfterBlockTraffic 1.0.0
    web-1 ApplicationStop 1.0.0
    web-1 BeforeInstall 2.0.0
    web-1 Install 2.0.0
    web-1 AfterInstall 2.0.0
    web-1 ApplicationStart 2.0.0
    web-1 ValidateService 2.0.0
    web-1 BeforeAllowTraffic 2.0.0
    web-1 AllowTraffic -
    web-1 AfterAllowTraffic 2.0.0
    ");
}

#[test]
fn a_blue_green_deployment_has_no_traffic_hooks_and_one_switch_at_the_end() {
    let setting = Setting {
        instances: 2,
        with_balancer: true,
        is_blue_green: true,
        ..Setting::default()
    };

    insta::assert_snapshot!(trace_of(&setting), @"
    web-1 DownloadBundle 2.0.0
    web-1 ApplicationStop 1.0.0
    web-1 BeforeInstall 2.0.0
    web-1 Install 2.0.0
    web-1 AfterInstall 2.0.0
    web-1 ApplicationStart 2.0.0
    web-1 ValidateService 2.0.0
    web-2 DownloadBundle 2.0.0
    web-2 ApplicationStop 1.0.0
    web-2 BeforeInstall 2.0.0
    web-2 Install 2.0.0
    web-2 AfterInstall 2.0.0
    web-2 ApplicationStart 2.0.0
    web-2 ValidateService 2.0.0
    SwitchTraffic 2.0.0
    ");
}

#[test]
fn a_failed_switch_fails_the_deployment_and_a_lost_one_is_tried_again() {
    let setting = Setting {
        instances: 1,
        is_blue_green: true,
        ..Setting::default()
    };
    let run_with = |ending: Ending| {
        let mut journal = opening(&setting);
        let mut engine = Engine::from_records(&journal).unwrap();
        let mut world = World {
            switch_endings: [ending].into(),
            ..World::default()
        };
        drive(
            &mut engine,
            &mut journal,
            &mut world,
            Input::Begin,
            &succeed,
        );
        let state = engine.state();
        (
            state.status,
            state.deployments[0].switches.len(),
            state.reason.clone().unwrap_or_default(),
        )
    };

    let (status, attempts, reason) = run_with(fail("the balancer is away"));
    assert_eq!((status, attempts), (ReleaseStatus::Failed, 1));
    assert_eq!(reason, "SwitchTraffic: the balancer is away");
    let reason = "power cut".to_owned();
    let (status, attempts, _) = run_with(Ending::Lost { reason });
    assert_eq!((status, attempts), (ReleaseStatus::Succeeded, 2));
}

#[test]
fn no_switch_to_a_side_with_a_failed_instance() {
    let setting = Setting {
        is_blue_green: true,
        failure_threshold: Amount::Count(2),
        ..Setting::default()
    };
    let (engine, _, world, _) = run(&setting, &|action| {
        if action.target.instance.id.as_str() == "web-2" {
            fail("broken")
        } else {
            succeed(action)
        }
    });

    assert_eq!(engine.state().status, ReleaseStatus::Failed);
    assert!(
        !world
            .trace
            .iter()
            .any(|line| line.starts_with("SwitchTraffic"))
    );
}

#[test]
fn a_stop_before_the_switch_leaves_the_traffic_where_it_is() {
    let setting = Setting {
        instances: 1,
        is_blue_green: true,
        ..Setting::default()
    };
    let mut journal = opening(&setting);
    let mut engine = Engine::from_records(&journal).unwrap();
    let mut world = World::default();
    let (records, first) = jobs(engine.handle(Timestamp(1), Input::Begin).unwrap());
    journal.extend(records);
    journal.extend(engine.handle(Timestamp(2), Input::Stop).unwrap().records);

    let input = world.carry_out(&first[0], &succeed);
    drive(&mut engine, &mut journal, &mut world, input, &succeed);

    assert_eq!(engine.state().status, ReleaseStatus::Stopped);
    assert_eq!(world.trace.last().unwrap(), "web-1 ValidateService 2.0.0");
}

#[test]
fn a_failure_of_the_version_being_left_is_ignored_only_where_that_is_asked_for() {
    let fails_to_stop = |action: &engine::Action| {
        if action.event == model::LifecycleEvent::ApplicationStop {
            fail("`stop.sh` exited with code 3")
        } else {
            succeed(action)
        }
    };
    let check = |stop_failures| {
        let setting = Setting {
            instances: 1,
            stop_failures,
            ..Setting::default()
        };
        let (engine, ..) = run(&setting, &fails_to_stop);
        let state = engine.state();
        (state.status, state.reason.clone().unwrap_or_default())
    };

    let (status, reason) = check(model::StopFailures::Fail);
    assert_eq!(status, ReleaseStatus::Failed);
    assert!(
        reason.starts_with(
            "web-1: ApplicationStop of outgoing revision 1.0.0: `stop.sh` exited with code 3"
        ),
        "{reason}"
    );
    assert_eq!(
        check(model::StopFailures::Ignore).0,
        ReleaseStatus::Succeeded
    );
}

#[test]
fn skips_the_outgoing_events_of_a_first_deployment_with_a_reason() {
    let (engine, ..) = run(
        &Setting {
            instances: 1,
            first: true,
            with_balancer: true,
            ..Setting::default()
        },
        &succeed,
    );

    let skipped: Vec<_> = engine.state().deployments[0].instances[0]
        .steps
        .iter()
        .filter_map(|step| Some(format!("{}: {}", step.event, step.reason()?)))
        .collect();
    insta::assert_snapshot!(skipped.join("\n"), @r"
    BeforeBlockTraffic: no revision is installed on the instance
    AfterBlockTraffic: no revision is installed on the instance
    ApplicationStop: no revision is installed on the instance
    ");
}

#[test]
fn a_failed_rollout_goes_back_with_each_instance_leaving_what_it_has_installed() {
    let setting = Setting {
        concurrency: Amount::Count(2),
        on_failure: OnFailure::Rollback,
        ..Setting::default()
    };
    let (engine, _, world, _) = run(&setting, &|action| {
        let is_new_start = action.event == model::LifecycleEvent::BeforeInstall
            && action.target.instance.id.as_str() == "web-2"
            && action.deployment.direction == model::Direction::Deploy;
        if is_new_start {
            fail("exit 1")
        } else {
            succeed(action)
        }
    });

    let state = engine.state();
    let back: Vec<_> = world
        .trace
        .iter()
        .filter(|line| line.starts_with("web-2"))
        .cloned()
        .collect();
    assert_eq!(state.status, ReleaseStatus::Failed);
    assert_eq!(state.deployments[1].status, ReleaseStatus::Succeeded);
    assert!(
        !world.trace.iter().any(|line| line.starts_with("web-3")),
        "web-3 was never touched"
    );
    assert!(
        world
            .trace
            .contains(&"web-1 ApplicationStop 2.0.0".to_owned()),
        "web-1 leaves 2.0.0"
    );
    insta::assert_snapshot!(back.join("\n"), @r"
    web-2 DownloadBundle 2.0.0
    web-2 ApplicationStop 1.0.0
    web-2 BeforeInstall 2.0.0
    web-2 ApplicationStop 1.0.0
    web-2 BeforeInstall 1.0.0
    web-2 Install 1.0.0
    web-2 AfterInstall 1.0.0
    web-2 ApplicationStart 1.0.0
    web-2 ValidateService 1.0.0
    ");
    insta::assert_snapshot!(state.reason.as_deref().unwrap(), @"web-2: BeforeInstall of incoming revision 2.0.0: exit 1; 1 of 3 instances failed, failure_threshold is 1; rolled back to 1.0.0");
}

#[test]
fn a_failed_instance_is_never_put_back_in_the_balancer() {
    let setting = Setting {
        with_balancer: true,
        failure_threshold: Amount::Count(3),
        ..Setting::default()
    };
    let (_, _, world, _) = run(&setting, &|action| {
        if action.event == model::LifecycleEvent::ValidateService {
            fail("unhealthy")
        } else {
            succeed(action)
        }
    });

    assert!(
        !world.trace.iter().any(|line| line.contains("AllowTraffic")),
        "{:?}",
        world.trace
    );
}

#[test]
fn a_lost_outcome_is_tried_again_as_the_next_attempt() {
    let (engine, _, world, _) = run(
        &Setting {
            instances: 1,
            ..Setting::default()
        },
        &|action| {
            if action.event == model::LifecycleEvent::ApplicationStart && action.attempt == 1 {
                Ending::Lost {
                    reason: "the host went down".into(),
                }
            } else {
                succeed(action)
            }
        },
    );

    let attempts: Vec<_> = engine.state().deployments[0].instances[0]
        .steps
        .iter()
        .filter(|step| step.event == model::LifecycleEvent::ApplicationStart)
        .map(|step| (step.attempt, step.status().unwrap().name()))
        .collect();
    assert_eq!(attempts, [(1, "LOST"), (2, "SUCCEEDED")]);
    assert_eq!(
        world
            .trace
            .iter()
            .filter(|line| line.contains("ApplicationStart"))
            .count(),
        2
    );
}

#[test]
fn an_unreachable_instance_is_not_called_failed() {
    let (engine, ..) = run(&Setting::default(), &|_| Ending::Unreachable {
        reason: "no route".into(),
    });

    let outcomes: Vec<_> = engine.state().deployments[0]
        .instances
        .iter()
        .map(|state| state.outcome.unwrap())
        .collect();
    assert_eq!(
        outcomes,
        [
            InstanceOutcome::Unreachable,
            InstanceOutcome::Skipped,
            InstanceOutcome::Skipped
        ]
    );
}

#[test]
fn a_pause_lets_instances_in_flight_finish_and_resume_goes_on() {
    let mut journal = opening(&Setting::default());
    let mut engine = Engine::from_records(&journal).unwrap();
    let mut world = World::default();
    let output = engine.handle(Timestamp(1), Input::Begin).unwrap();
    engine.handle(Timestamp(2), pause()).unwrap();
    journal.clear();
    let ending = world.perform(&output.actions[0], &succeed);
    drive(
        &mut engine,
        &mut journal,
        &mut world,
        ended(&output.actions[0], ending),
        &succeed,
    );

    assert_eq!(engine.state().status, ReleaseStatus::Paused);
    assert_eq!(
        world
            .trace
            .iter()
            .filter(|line| line.starts_with("web-1"))
            .count(),
        7
    );
    assert!(!world.trace.iter().any(|line| line.starts_with("web-2")));

    drive(
        &mut engine,
        &mut journal,
        &mut world,
        Input::Resume {
            operator: "ann".into(),
        },
        &succeed,
    );

    assert_eq!(engine.state().status, ReleaseStatus::Succeeded);
    assert_eq!(world.trace.len(), 21);
}

#[test]
fn a_finished_release_refuses_commands() {
    let (mut engine, ..) = run(&Setting::default(), &succeed);

    let refusal = engine.handle(Timestamp(9), pause()).unwrap_err();

    assert_eq!(
        refusal.to_string(),
        "a release that is SUCCEEDED cannot pause"
    );
}

/// A crash after each record in turn: the conductor that takes over performs what the records authorise, and the
/// instances see exactly what one undisturbed run would have shown them.
fn check_crashes(setting: &Setting) {
    let behaviour = succeed;
    let (_, whole, undisturbed, _) = run(setting, &behaviour);
    let mut expected = undisturbed.trace;
    expected.sort();

    let crashes = (2..whole.len()).flat_map(|crash| [(crash, false), (crash, true)]);
    for (crash, goes_on) in crashes {
        let mut world = World {
            goes_on,
            ..World::default()
        };
        let mut journal = opening(setting);
        let mut engine = Engine::from_records(&journal).unwrap();
        let mut inputs = std::collections::VecDeque::from([Input::Begin]);
        let mut in_flight = std::collections::VecDeque::new();
        // The first conductor: whatever it had been authorised to do by then is done, then it dies.
        while let Some(input) = inputs.pop_front() {
            let (records, jobs) = jobs(engine.handle(Timestamp(1), input).unwrap());
            journal.extend(records);
            if journal.len() > crash {
                break;
            }
            in_flight.extend(jobs);
            if let Some(job) = in_flight.pop_front() {
                inputs.push_back(world.carry_out(&job, &behaviour));
            }
        }
        journal.truncate(crash);

        let mut engine = Engine::from_records(&journal).unwrap();
        drive(
            &mut engine,
            &mut journal,
            &mut world,
            Input::Resume {
                operator: "bob".into(),
            },
            &behaviour,
        );

        let mut seen = world.trace.clone();
        seen.sort();
        assert_eq!(seen, expected, "crash after record {crash}");
        assert_eq!(
            engine.state().status,
            ReleaseStatus::Succeeded,
            "crash after record {crash}"
        );
        assert_eq!(
            &State::fold(&journal).unwrap(),
            engine.state(),
            "the fold is the state"
        );
    }
}

#[test]
fn a_crash_after_any_record_changes_nothing_that_instances_see() {
    check_crashes(&Setting {
        with_balancer: true,
        concurrency: Amount::Count(2),
        ..Setting::default()
    });
}

#[test]
fn a_crash_after_any_record_of_a_blue_green_deployment_switches_once() {
    check_crashes(&Setting {
        is_blue_green: true,
        concurrency: Amount::Count(2),
        ..Setting::default()
    });
}

/// The ending of what was in flight is kept, so that the journal knows what the instance has installed; nothing follows
/// from it before somebody resumes.
#[test]
fn an_ending_that_comes_after_an_interruption_is_kept_and_leads_to_nothing() {
    let setting = Setting {
        instances: 1,
        ..Setting::default()
    };
    let mut journal = opening(&setting);
    let mut engine = Engine::from_records(&journal).unwrap();
    let mut world = World::default();
    let output = engine.handle(Timestamp(1), Input::Begin).unwrap();
    journal.extend(output.records);
    let reason = "gone".to_owned();
    journal.extend(
        engine
            .handle(Timestamp(2), Input::Interrupt { reason })
            .unwrap()
            .records,
    );

    let (in_flight, _) = engine.in_flight();
    let late = ended(&in_flight[0], succeed(&in_flight[0]));
    let output = engine.handle(Timestamp(3), late).unwrap();

    assert_eq!((output.records.len(), output.actions.len()), (1, 0));
    journal.extend(output.records);
    let mut resumed = engine.clone();
    drive(
        &mut resumed,
        &mut journal,
        &mut world,
        Input::Resume {
            operator: "bob".into(),
        },
        &succeed,
    );
    assert_eq!(resumed.state().status, ReleaseStatus::Succeeded);
    assert!(
        !world
            .trace
            .iter()
            .any(|line| line.contains("DownloadBundle"))
    );
}

proptest! {
    #[test]
    fn never_more_in_flight_than_concurrency_and_none_starts_beyond_the_threshold(
        instances in 1usize..40,
        concurrency in prop_oneof![(1u32..50).prop_map(Amount::Count), (1u8..=100).prop_map(Amount::Percent)],
        threshold in prop_oneof![(1u32..50).prop_map(Amount::Count), (1u8..=100).prop_map(Amount::Percent)],
        broken in proptest::collection::btree_set(1usize..40, 0..10),
    ) {
        let setting = Setting { instances, concurrency, failure_threshold: threshold, ..Setting::default() };
        let is_broken = |action: &engine::Action| {
            broken.contains(&action.target.instance.id.as_str()["web-".len()..].parse().unwrap())
        };
        let (engine, journal, _, most) = run(&setting, &|action| {
            if is_broken(action) { fail("broken") } else { succeed(action) }
        });

        let deployment = &engine.state().deployments[0];
        prop_assert!(most <= concurrency.of(instances));
        let limit = threshold.of(instances);
        prop_assert!(deployment.failed < limit + concurrency.of(instances));
        let failed = deployment.failed >= limit;
        prop_assert_eq!(deployment.status == ReleaseStatus::Failed, failed);
        prop_assert_eq!(deployment.instances.iter().any(|i| i.outcome == Some(InstanceOutcome::Skipped)), failed && deployment.next < instances);
        prop_assert_eq!(&State::fold(&journal).unwrap(), engine.state());
    }
}
