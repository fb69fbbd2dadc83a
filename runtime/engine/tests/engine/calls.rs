//! Steps that a plugin carries out, across a crash.

use std::time::Duration;

use engine::split::Past;
use engine::{Action, Engine, Work};
use model::{Calls, Deployment, Ending, LifecycleEvent, ReleaseStatus};

use crate::world::site::{Site, deployment};
use crate::world::succeed;

fn with_call(event: LifecycleEvent) -> Deployment {
    Deployment {
        calls: Some(Calls {
            plugin: "kinds".parse().unwrap(),
            config: "{}".to_owned(),
            item: "{}".to_owned(),
            events: [(event, Duration::from_secs(60))].into(),
        }),
        ..deployment(1)
    }
}

fn is_call(action: &Action) -> bool {
    matches!(action.work, Work::Call(..))
}

#[test]
fn a_call_takes_the_place_of_the_hooks_of_its_event() {
    let plan = with_call(LifecycleEvent::AfterInstall);

    let calls: Vec<_> = engine::planned_steps(&plan, &plan.targets[0])
        .filter(|step| step.doing == engine::Doing::Call)
        .map(|step| step.event)
        .collect();

    assert_eq!(calls, [LifecycleEvent::AfterInstall]);
    let retired = engine::rollback::retirement(&plan, plan.id.clone());
    assert!(retired.is_none_or(|plan| plan.calls.is_none()));
}

#[test]
fn a_call_in_flight_when_the_conductor_dies_is_known_to_be_of_unknown_outcome() {
    let mut site = Site::open(with_call(LifecycleEvent::AfterInstall));
    let mut records = 0;
    loop {
        let mut other = Site::open(with_call(LifecycleEvent::AfterInstall));
        other.run_to_record(&succeed, records + 1);
        records = other.journal.len();
        let engine = Engine::from_records(&other.journal).unwrap();
        let (actions, _) = engine.in_flight();
        if let Some(action) = actions.iter().find(|action| is_call(action)) {
            assert_eq!(action.past, Past::Unknown);
            assert_eq!(
                (action.event, action.attempt),
                (LifecycleEvent::AfterInstall, 1)
            );
            break;
        }
    }
    site.run_to_record(&succeed, records);
    let behaviour = |action: &Action| match action.work {
        Work::Call(_) if action.past == Past::Unknown => Ending::Lost {
            reason: "gone".to_owned(),
        },
        _ => succeed(action),
    };

    site.crash(records);
    site.run(&behaviour);

    assert_eq!(site.status(), ReleaseStatus::Succeeded);
    let deployment = &site.engine.state().deployments[0];
    let attempts: Vec<_> = deployment.instances[0]
        .steps
        .iter()
        .filter(|step| step.event == LifecycleEvent::AfterInstall)
        .map(|step| step.attempt)
        .collect();
    assert_eq!(attempts, [1, 2]);
}
