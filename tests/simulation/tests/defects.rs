//! What is built wrong is noticed: each defect breaks the rule that is there against it.

use simulation::{Defect, Failure, check_with};

/// Within so many seeds each defect has to show.
const SEEDS: u64 = 400;
/// A defect may break another rule first.
const TAKEN: usize = 12;

fn first_failure(defect: Defect) -> Option<Box<Failure>> {
    failures(defect).next()
}

fn failures(defect: Defect) -> impl Iterator<Item = Box<Failure>> {
    (1..SEEDS).filter_map(move |seed| check_with(seed, Some(defect)).err())
}

/// A defect shows in one of the first seeds, by this rule among others.
fn check(defect: Defect, rule: &str) {
    let found: Vec<_> = failures(defect)
        .take(TAKEN)
        .map(|failure| failure.violation.rule)
        .collect();

    assert!(found.contains(&rule), "{defect:?} is noticed by {found:?}");
}

#[test]
fn what_starts_before_its_record_is_durable_is_noticed() {
    check(
        Defect::ActsBeforeAppending,
        "no action starts before its record is durable",
    );
}

#[test]
fn a_record_that_is_left_out_is_noticed() {
    check(
        Defect::LosesRecords,
        "steps follow each other as the table of section 2 says",
    );
}

#[test]
fn an_agent_that_carries_an_attempt_out_twice_is_noticed() {
    check(Defect::ForgetsAttempts, "no attempt is started twice");
}

#[test]
fn an_attempt_that_begins_beside_another_is_noticed() {
    check(Defect::BeginsBeside, "an instance does one thing at a time");
}

#[test]
fn a_hook_that_begins_though_the_step_before_it_failed_is_noticed() {
    check(
        Defect::FollowsFailure,
        "whatever began on an instance is in the records",
    );
}

#[test]
fn an_attempt_that_was_not_lost_and_is_made_again_is_noticed() {
    check(
        Defect::RepeatsAttempts,
        "no action starts before its record is durable",
    );
}

#[test]
fn a_plugin_that_is_called_again_for_one_attempt_is_noticed() {
    check(Defect::RepeatsCalls, "no attempt is started twice");
}

#[test]
fn an_answer_that_never_comes_is_noticed() {
    check(Defect::SwallowsAnswers, "every release ends");
}

#[test]
fn an_instance_that_failed_and_is_put_back_is_noticed() {
    check(
        Defect::PutsFailedBack,
        "an instance is in the balancer only with a validated revision",
    );
}

#[test]
fn a_hook_of_the_wrong_revision_is_noticed() {
    check(
        Defect::ConfusesRevisions,
        "each hook is of the revision that its event says",
    );
}

#[test]
fn steps_that_are_missing_or_in_another_order_are_noticed() {
    let rule = "steps follow each other as the table of section 2 says";
    check(Defect::SkipsValidation, rule);
    check(Defect::SwapsSteps, rule);
    check(Defect::LeavesInBalancer, rule);
}

#[test]
fn instances_that_start_too_early_are_noticed() {
    check(Defect::WidensBatches, "batches go as planned");
    check(
        Defect::IgnoresThreshold,
        "no instance starts when failure_threshold is reached",
    );
    check(
        Defect::IgnoresMinimum,
        "no instance starts that leaves fewer than minimum_healthy",
    );
    check(
        Defect::IgnoresGates,
        "no batch starts before its gates, its promotion and its wait are over",
    );
    check(Defect::IgnoresInterval, "a wait is as long as planned");
}

#[test]
fn services_that_begin_out_of_their_turn_are_noticed() {
    check(
        Defect::IgnoresPriorities,
        "a service begins when all of a higher priority have succeeded",
    );
}

#[test]
fn a_failed_deployment_that_is_left_as_it_is_is_noticed() {
    check(
        Defect::IgnoresRollback,
        "a failed deployment is taken back where the plan says so",
    );
}

#[test]
fn a_split_that_was_not_decided_is_noticed() {
    check(
        Defect::Overloads,
        "no traffic goes to an instance that failed or is being changed",
    );
}

#[test]
fn records_that_tell_another_story_are_noticed() {
    check(Defect::PraisesFailed, "an instance ends as its steps did");
    check(
        Defect::LeapsStatuses,
        "statuses change only along the table of section 3",
    );
    check(
        Defect::RewritesOutcomes,
        "the state is a fold of the records",
    );
    check(
        Defect::ForgetsInstances,
        "a rollback goes to the instances that were touched, from what they have to what they had",
    );
}

#[test]
fn a_failure_is_told_as_the_smallest_scenario_with_what_happens_in_it() {
    let failure = first_failure(Defect::PutsFailedBack).unwrap();

    let told = failure.explained();

    let services = told.lines().filter(|line| line.starts_with("service "));
    assert_eq!(services.count(), 1, "{told}");
    assert!(told.contains("is FAILED"), "{told}");
    assert!(told.contains(&format!("--seed {}", failure.seed)), "{told}");
}
