//! Releases of several services: order, failure, pause and stop, decided over a simulated fleet.

use std::time::Duration;

use engine::{Action, Engine, Refusal, State};
use model::{
    Boundary, Capacity, Deployment, DeploymentId, Ending, Fact, InstanceOutcome, LifecycleEvent,
    OnFailure, Order, Promote, ReleaseStatus,
};

use crate::world::site::{Site, canary, colours, deployment, service};
use crate::world::{fail, release_id, succeed};

/// Two services of priority 3 and one of priority 1, of three instances each.
fn three() -> Vec<Deployment> {
    vec![
        service("web", 1, 3, deployment(3)),
        service("pay", 2, 3, deployment(3)),
        service("mail", 3, 1, deployment(3)),
    ]
}

fn id(number: usize) -> DeploymentId {
    DeploymentId::nth(&release_id(), number)
}

/// The services in the order in which they began and ended.
fn course(site: &Site) -> Vec<String> {
    let state = site.engine.state();
    let name = |id: &DeploymentId| state.find(id).unwrap().plan.group.group.to_string();
    let mut begun = Vec::new();
    site.journal
        .iter()
        .filter_map(|record| match &record.fact {
            Fact::StepStarted { deployment, .. } | Fact::SwitchStarted { deployment, .. }
                if !begun.contains(deployment) =>
            {
                begun.push(deployment.clone());
                Some(format!("{} begins", name(deployment)))
            }
            Fact::DeploymentEnded {
                deployment, status, ..
            } => Some(format!("{} {status}", name(deployment))),
            _ => None,
        })
        .collect()
}

fn fails_on(event: LifecycleEvent, instance: &'static str) -> impl Fn(&Action) -> Ending {
    move |action| {
        if action.event == event && action.target.instance.id.as_str() == instance {
            fail("it broke")
        } else {
            succeed(action)
        }
    }
}

/// Runs until the service of this number has finished its first instance.
fn run_into(site: &mut Site, number: usize) {
    let has_one = |state: &State| {
        let instances = &state.find(&id(number)).unwrap().instances;
        instances[0].outcome == Some(InstanceOutcome::Succeeded)
    };
    site.run_until(&succeed, has_one);
}

#[test]
fn a_higher_priority_goes_first_and_equal_ones_go_together() {
    let mut site = Site::open_plan(three());

    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    assert_eq!(
        course(&site),
        [
            "web begins",
            "pay begins",
            "web SUCCEEDED",
            "pay SUCCEEDED",
            "mail begins",
            "mail SUCCEEDED",
        ]
    );
}

#[test]
fn a_service_that_waits_for_its_turn_has_not_started() {
    let mut site = Site::open_plan(three());

    run_into(&mut site, 1);

    let state = site.engine.state();
    assert!(state.find(&id(1)).unwrap().started_at.is_some());
    let last = state.find(&id(3)).unwrap();
    assert_eq!(last.started_at, None);
    let ahead: Vec<_> = state
        .ahead_of(&last.plan)
        .map(|other| other.plan.group.group.as_str())
        .collect();
    assert_eq!(ahead, ["web", "pay"]);
}

#[test]
fn a_failing_service_lets_those_running_finish_and_no_further_one_start() {
    let mut site = Site::open_plan(three());

    site.run(&fails_on(LifecycleEvent::Install, "web-1"));

    assert_eq!(site.status(), ReleaseStatus::Failed);
    assert_eq!(
        course(&site),
        [
            "web begins",
            "pay begins",
            "web FAILED",
            "pay SUCCEEDED",
            "mail STOPPED",
        ]
    );
    let state = site.engine.state();
    let reason = state.reason.as_deref().unwrap();
    assert!(reason.starts_with("shop/web: web-1: "), "{reason}");
    let last = state.find(&id(3)).unwrap();
    assert_eq!(last.started_at, None);
    let why = last.reason.as_deref();
    assert_eq!(why, Some("no further service starts: shop/web failed"));
    let outcomes = last.instances.iter().map(|instance| instance.outcome);
    assert!(outcomes.eq([Some(InstanceOutcome::Skipped); 3]));
}

#[test]
fn a_pause_lets_services_that_have_begun_finish_and_a_resume_goes_on_with_the_others() {
    let mut site = Site::open_plan(three());
    run_into(&mut site, 1);

    site.order(Order::Pause { at: None }).unwrap();
    assert_eq!(site.status(), ReleaseStatus::Pausing);
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Paused);
    assert_eq!(
        course(&site),
        ["web begins", "pay begins", "web SUCCEEDED", "pay SUCCEEDED"]
    );
    site.crash(site.journal.len());
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    assert_eq!(course(&site)[4..], ["mail begins", "mail SUCCEEDED"]);
}

#[test]
fn a_pause_at_batches_lets_only_the_instances_in_flight_finish() {
    let mut site = Site::open_plan(three());
    run_into(&mut site, 1);

    let at = Some(Boundary::Batch);
    site.order(Order::Pause { at }).unwrap();
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Paused);
    assert_eq!(course(&site), ["web begins", "pay begins"]);
    let started = |number| {
        let instances = &site.engine.state().find(&id(number)).unwrap().instances;
        instances
            .iter()
            .filter(|instance| instance.is_touched())
            .count()
    };
    assert_eq!([started(1), started(2)], [2, 1]);
}

#[test]
fn a_stop_ends_what_has_not_begun() {
    let mut site = Site::open_plan(three());
    run_into(&mut site, 1);

    site.order(Order::Stop { at: None }).unwrap();
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Stopped);
    assert_eq!(
        course(&site)[2..],
        ["web SUCCEEDED", "pay SUCCEEDED", "mail STOPPED"]
    );
}

#[test]
fn a_service_that_fails_while_the_release_pauses_fails_it() {
    for order in [Order::Pause { at: None }, Order::Stop { at: None }] {
        let mut site = Site::open_plan(three());
        run_into(&mut site, 1);

        site.order(order).unwrap();
        site.run(&fails_on(LifecycleEvent::ApplicationStart, "web-2"));

        assert_eq!(site.status(), ReleaseStatus::Failed);
        assert_eq!(
            course(&site)[2..],
            ["web FAILED", "pay SUCCEEDED", "mail STOPPED"]
        );
    }
}

#[test]
fn a_release_that_pauses_with_everything_done_is_paused_until_it_is_resumed() {
    let mut site = Site::open_plan(vec![service("web", 1, 0, deployment(1))]);
    site.run_until(&succeed, |state| {
        !state.find(&id(1)).unwrap().instances[0].steps.is_empty()
    });
    site.order(Order::Pause { at: None }).unwrap();

    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Paused);
    site.crash(site.journal.len());
    assert_eq!(site.status(), ReleaseStatus::Succeeded);
}

#[test]
fn a_stop_does_not_wait_for_a_person() {
    let canary = canary(3, 1, 1, Some(30), Promote::Manual);
    let mut site = Site::open_plan(vec![
        service("web", 1, 0, canary),
        service("pay", 2, 0, deployment(2)),
    ]);
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Running);

    site.order(Order::Stop { at: None }).unwrap();

    assert_eq!(site.status(), ReleaseStatus::Stopped);
    assert_eq!(course(&site).last().unwrap(), "web STOPPED");
}

#[test]
fn a_stop_that_its_conductor_did_not_survive_is_carried_to_its_end() {
    let canary = canary(3, 1, 1, Some(30), Promote::Manual);
    let mut site = Site::open_plan(vec![
        service("web", 1, 1, canary),
        service("pay", 2, 1, deployment(3)),
        service("mail", 3, 0, deployment(1)),
    ]);
    run_into(&mut site, 2);
    site.run_until(&succeed, |state| {
        let has_promotion = state.find(&id(1)).unwrap().current_hold().is_some();
        has_promotion || state.find(&id(2)).unwrap().ended_at.is_some()
    });
    site.order(Order::Stop { at: None }).unwrap();
    site.run_until(&succeed, |state| {
        state.find(&id(1)).unwrap().ended_at.is_some()
    });

    site.crash(site.journal.len());
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Stopped);
    let course = course(&site);
    assert!(!course.contains(&"mail begins".to_owned()), "{course:?}");
}

#[test]
fn a_pause_waits_for_what_ends_by_itself() {
    let mut slow = deployment(2);
    slow.wait_between = Duration::from_secs(60);
    let mut site = Site::open_plan(vec![
        service("web", 1, 1, slow),
        service("pay", 2, 0, deployment(1)),
    ]);
    site.run_until(&succeed, |state| {
        state.deployments[0].current_hold().is_some()
    });

    site.order(Order::Pause { at: None }).unwrap();
    assert_eq!(site.status(), ReleaseStatus::Pausing);
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Paused);
    assert_eq!(course(&site), ["web begins", "web SUCCEEDED"]);
}

#[test]
fn an_order_that_several_services_could_take_has_to_name_one() {
    let canary = || canary(3, 1, 1, Some(30), Promote::Manual);
    let mut site = Site::open_plan(vec![
        service("web", 1, 0, canary()),
        service("pay", 2, 0, canary()),
    ]);
    site.run(&succeed);

    let refusal = site.order(Order::Promote).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "cannot promote: several services could be meant; name one of the deployments `r2-1` (shop/web), `r2-2` (shop/pay)"
    );
    let order = Box::new(Order::Promote);
    let deployment = id(2);
    site.order(Order::For { deployment, order }).unwrap();
    site.run(&succeed);
    assert_eq!(course(&site).last().unwrap(), "pay SUCCEEDED");
    // One is left, so it need not be named.
    let more = Order::Weight {
        percent: 33,
        capacity: Capacity::Respect,
    };
    site.order(more).unwrap();
    site.run(&succeed);
    site.order(Order::Promote).unwrap();
    site.run(&succeed);
    assert_eq!(site.status(), ReleaseStatus::Succeeded);
}

#[test]
fn an_order_to_a_service_that_has_not_begun_is_refused() {
    let mut site = Site::open_plan(three());
    run_into(&mut site, 1);

    let order = |number, order| Order::For {
        deployment: id(number),
        order: Box::new(order),
    };
    let refused = site.order(order(3, Order::Promote)).unwrap_err();
    let Refusal::Order { why, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!(why, "deployment `r2-3` has not begun");
}

#[test]
fn a_service_that_is_taken_back_while_others_run_fails_the_release() {
    let mut site = Site::open_plan(three());
    run_into(&mut site, 1);

    let order = Box::new(Order::Rollback { reason: None });
    let deployment = id(1);
    site.order(Order::For { deployment, order }).unwrap();
    site.run(&succeed);

    assert_eq!(site.status(), ReleaseStatus::Failed);
    assert_eq!(
        course(&site),
        [
            "web begins",
            "pay begins",
            "web FAILED",
            "web begins",
            "pay SUCCEEDED",
            "web SUCCEEDED",
            "mail STOPPED",
        ]
    );
}

#[test]
fn nothing_runs_twice_and_nothing_is_left_out_after_a_crash_at_any_record() {
    let plan = || {
        let mut failing = deployment(2);
        failing.on_failure = OnFailure::Rollback;
        vec![
            service("web", 1, 3, canary(3, 1, 1, Some(30), Promote::Manual)),
            service("pay", 2, 3, colours(2)),
            service("mail", 3, 2, deployment(2)),
            service("job", 4, 1, failing),
            service("never", 5, 0, deployment(1)),
        ]
    };
    let behaviour = fails_on(LifecycleEvent::ValidateService, "job-2");
    let mut undisturbed = Site::open_plan(plan());
    undisturbed.run_promoting(&behaviour);
    assert_eq!(undisturbed.status(), ReleaseStatus::Failed);
    let mut expected = undisturbed.world.trace.clone();
    expected.sort();
    for records in 6..undisturbed.journal.len() {
        let mut site = Site::open_plan(plan());
        site.run_to_record(&behaviour, records);
        if site.status().is_terminal() {
            break;
        }
        site.crash(records);
        site.run_promoting(&behaviour);

        assert_eq!(site.status(), ReleaseStatus::Failed, "after {records}");
        let mut trace = site.world.trace.clone();
        trace.sort();
        assert_eq!(trace, expected, "after {records}");
        let replayed = Engine::from_records(&site.journal).unwrap();
        assert_eq!(replayed.state(), site.engine.state());
    }
}
