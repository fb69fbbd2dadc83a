//! Hooks that are authorised with the step before them.

use engine::split::Past;
use engine::{Action, Engine, Input, Output, State};
use model::{Ending, Fact, LifecycleEvent, Order, Record, ReleaseStatus, Timestamp};

use crate::world::{Setting, World, drive, ended, fail, opening, run, succeed};

fn one_instance() -> Setting {
    Setting {
        instances: 1,
        ..Setting::default()
    }
}

/// A release of one instance that has begun.
fn begun(setting: &Setting) -> (Engine, Vec<Record>, Action) {
    let mut journal = opening(setting);
    let mut engine = Engine::from_records(&journal).unwrap();
    let mut output = engine.handle(Timestamp(1), Input::Begin).unwrap();
    journal.append(&mut output.records);
    (engine, journal, output.actions.remove(0))
}

/// Lets an action end, and answers the one that comes after it.
fn after(
    engine: &mut Engine,
    journal: &mut Vec<Record>,
    action: &Action,
    ending: Ending,
) -> Action {
    let mut output = engine.handle(Timestamp(2), ended(action, ending)).unwrap();
    journal.append(&mut output.records);
    output.actions.remove(0)
}

fn lost() -> Ending {
    Ending::Lost {
        reason: "the host went down".to_owned(),
    }
}

/// What was started, each with what was authorised with it.
fn chain(records: &[Record]) -> String {
    let started = records.iter().filter_map(|record| match &record.fact {
        Fact::StepStarted {
            event,
            attempt,
            then,
            ..
        } => {
            let then = then.map_or("-".to_owned(), |then| then.to_string());
            Some(format!("{event} {attempt}: {then}"))
        }
        _ => None,
    });
    started.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_hook_is_authorised_with_what_its_agent_does_before_it() {
    let setting = Setting {
        with_balancer: true,
        ..one_instance()
    };

    insta::assert_snapshot!(chain(&run(&setting, &succeed).1), @"
    DownloadBundle 1: BeforeBlockTraffic
    BeforeBlockTraffic 1: -
    BlockTraffic 1: -
    AfterBlockTraffic 1: ApplicationStop
    ApplicationStop 1: BeforeInstall
    BeforeInstall 1: -
    Install 1: AfterInstall
    AfterInstall 1: ApplicationStart
    ApplicationStart 1: ValidateService
    ValidateService 1: BeforeAllowTraffic
    BeforeAllowTraffic 1: -
    AllowTraffic 1: -
    AfterAllowTraffic 1: -
    ");
}

#[test]
fn a_hook_is_authorised_across_what_is_skipped() {
    let setting = Setting {
        first: true,
        ..one_instance()
    };

    let (_, records, ..) = run(&setting, &succeed);

    assert!(chain(&records).starts_with("DownloadBundle 1: BeforeInstall\n"));
}

#[test]
fn nothing_is_authorised_with_an_attempt_that_is_made_again() {
    let first_is_lost = |action: &Action| match action.attempt {
        1 if action.event == LifecycleEvent::ApplicationStop => lost(),
        _ => succeed(action),
    };

    let (_, records, ..) = run(&one_instance(), &first_is_lost);

    let chain = chain(&records);
    let again = "ApplicationStop 1: BeforeInstall\nApplicationStop 2: -\nBeforeInstall 1: -\n";
    assert!(chain.contains(again), "{chain}");
}

/// An agent that was given the two may have gone on.
#[test]
fn what_was_authorised_with_another_step_may_have_begun() {
    let (mut engine, mut journal, download) = begun(&one_instance());
    assert_eq!(download.past, Past::Nothing);

    let stop = after(&mut engine, &mut journal, &download, succeed(&download));
    assert_eq!(
        (stop.event, stop.past),
        (LifecycleEvent::ApplicationStop, Past::Unknown)
    );
    // After an attempt that was lost, of which it is not known how far the agent got.
    let again = after(&mut engine, &mut journal, &stop, lost());
    assert_eq!((again.attempt, again.past), (2, Past::Nothing));
    let before_install = after(&mut engine, &mut journal, &again, succeed(&again));
    assert_eq!(
        (before_install.event, before_install.past),
        (LifecycleEvent::BeforeInstall, Past::Unknown)
    );
}

#[test]
fn what_may_have_begun_is_known_from_the_records_alone() {
    let (mut engine, mut journal, download) = begun(&one_instance());
    after(&mut engine, &mut journal, &download, succeed(&download));
    // The conductor is killed, and what it appended last is the ending.
    let last = journal.pop().unwrap();
    assert!(matches!(last.fact, Fact::StepStarted { .. }), "{last:?}");

    let mut heir = Engine::from_records(&journal).unwrap();
    let operator = "bob".to_owned();
    let output = heir
        .handle(Timestamp(3), Input::Resume { operator })
        .unwrap();

    let [stop] = &output.actions[..] else {
        panic!("{output:?}")
    };
    assert_eq!(
        (stop.event, stop.past),
        (LifecycleEvent::ApplicationStop, Past::Unknown)
    );
}

/// Lets the first step end after somebody has interrupted the release.
fn ended_late(ending: Ending) -> (Engine, Vec<Record>, Output) {
    let (mut engine, mut journal, download) = begun(&one_instance());
    let reason = "gone".to_owned();
    let output = engine
        .handle(Timestamp(2), Input::Interrupt { reason })
        .unwrap();
    journal.extend(output.records);
    let output = engine
        .handle(Timestamp(3), ended(&download, ending))
        .unwrap();
    journal.extend(output.records.iter().cloned());
    (engine, journal, output)
}

#[test]
fn what_followed_by_itself_is_kept_in_a_release_that_nobody_drives() {
    let (mut engine, mut journal, output) = ended_late(succeeded());
    assert!(output.actions.is_empty(), "{output:?}");

    let stop = engine.may_have_begun().remove(0);
    assert_eq!(
        (stop.event, stop.past, stop.then),
        (LifecycleEvent::ApplicationStop, Past::Unknown, None)
    );
    let output = engine
        .handle(Timestamp(4), ended(&stop, succeed(&stop)))
        .unwrap();
    assert!(output.actions.is_empty(), "{output:?}");
    assert_eq!(output.records.len(), 2, "{output:?}");
    assert!(engine.may_have_begun().is_empty());
    journal.extend(output.records);
    assert_eq!(engine.state().status, ReleaseStatus::Interrupted);

    let trace = resumed(&mut engine, &mut journal);
    assert!(trace[0].contains("BeforeInstall"), "{trace:?}");
}

/// Whoever asks an agent may learn that it has not gone on.
#[test]
fn what_has_not_followed_by_itself_begins_when_the_release_goes_on() {
    let (mut engine, mut journal, _) = ended_late(succeeded());

    let trace = resumed(&mut engine, &mut journal);

    assert!(trace[0].contains("ApplicationStop"), "{trace:?}");
}

/// What runs once the release was resumed.
fn resumed(engine: &mut Engine, journal: &mut Vec<Record>) -> Vec<String> {
    let mut world = World::default();
    let operator = "bob".to_owned();
    let resume = Input::Resume { operator };
    drive(engine, journal, &mut world, resume, &succeed);
    assert_eq!(engine.state().status, ReleaseStatus::Succeeded);
    assert_eq!(&State::fold(&*journal).unwrap(), engine.state());
    world.trace
}

fn succeeded() -> Ending {
    Ending::Succeeded {
        exit_code: Some(0),
        log: None,
        note: None,
    }
}

#[test]
fn nothing_follows_a_failure_in_a_release_that_nobody_drives() {
    let (engine, ..) = ended_late(fail("no"));

    assert!(engine.may_have_begun().is_empty());
}

#[test]
fn a_release_that_is_paused_finishes_its_instance_step_by_step() {
    let (mut engine, mut journal, download) = begun(&one_instance());
    let pause = Input::Order {
        order: Order::Pause { at: None },
        operator: "ann".to_owned(),
    };
    let output = engine.handle(Timestamp(2), pause).unwrap();
    journal.extend(output.records);

    let stop = after(&mut engine, &mut journal, &download, succeed(&download));

    assert_eq!(stop.then, Some(LifecycleEvent::BeforeInstall));
}
