//! Deliberate defects, to prove that the rules can be broken and that each is noticed.

use std::sync::Arc;

use model::{
    Amount, Batching, Deployment, Direction, Ending, Fact, InstanceOutcome, LifecycleEvent,
    OnFailure, ReleaseStatus,
};

/// Something that is built wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The conductor starts actions before their records are durable.
    ActsBeforeAppending,
    /// A record is left out of a commit.
    LosesRecords,
    /// An agent does not know what it has carried out.
    ForgetsAttempts,
    /// An agent begins an attempt beside another one.
    BeginsBeside,
    /// An agent goes on after an attempt that failed.
    FollowsFailure,
    /// Whoever resumes tries everything in flight once more, under another number.
    RepeatsAttempts,
    /// Whoever resumes calls plugins again for attempts whose answers were lost.
    RepeatsCalls,
    /// What ApplicationStart comes to is never told.
    SwallowsAnswers,
    /// The balancer gets instances back that failed.
    PutsFailedBack,
    /// Hooks are those of the incoming revision, always.
    ConfusesRevisions,
    /// The engine is given a plan without this step.
    SkipsValidation,
    /// The engine is given a plan with two steps in each other's place.
    SwapsSteps,
    /// The engine is given a plan in which instances stay in the balancer.
    LeavesInBalancer,
    /// The engine is given wider batches.
    WidensBatches,
    /// The engine is given no threshold.
    IgnoresThreshold,
    /// The engine is given no `minimum_healthy`.
    IgnoresMinimum,
    /// The engine is given no gates.
    IgnoresGates,
    /// The engine is given no time between batches.
    IgnoresInterval,
    /// The engine is given equal priorities.
    IgnoresPriorities,
    /// The engine is told to take nothing back.
    IgnoresRollback,
    /// A router is asked for more than the healthy instances carry.
    Overloads,
    /// The journal says of an instance that failed that it succeeded.
    PraisesFailed,
    /// The journal says that the release is paused when it is to be.
    LeapsStatuses,
    /// The journal says something else of a script than its conductor heard.
    RewritesOutcomes,
    /// A way back leaves an instance out.
    ForgetsInstances,
}

impl Defect {
    /// All of them.
    pub const ALL: [Defect; 25] = [
        Defect::ActsBeforeAppending,
        Defect::LosesRecords,
        Defect::ForgetsAttempts,
        Defect::BeginsBeside,
        Defect::FollowsFailure,
        Defect::RepeatsAttempts,
        Defect::RepeatsCalls,
        Defect::SwallowsAnswers,
        Defect::PutsFailedBack,
        Defect::ConfusesRevisions,
        Defect::SkipsValidation,
        Defect::SwapsSteps,
        Defect::LeavesInBalancer,
        Defect::WidensBatches,
        Defect::IgnoresThreshold,
        Defect::IgnoresMinimum,
        Defect::IgnoresGates,
        Defect::IgnoresInterval,
        Defect::IgnoresPriorities,
        Defect::IgnoresRollback,
        Defect::Overloads,
        Defect::PraisesFailed,
        Defect::LeapsStatuses,
        Defect::RewritesOutcomes,
        Defect::ForgetsInstances,
    ];

    /// The plan as the engine gets it.
    pub(crate) fn falsify(self, plan: &mut Deployment) {
        match self {
            Defect::SkipsValidation => plan
                .sequence
                .retain(|event| *event != LifecycleEvent::ValidateService),
            Defect::SwapsSteps => {
                let mut events = plan.sequence.iter();
                let stop = events.position(|event| *event == LifecycleEvent::ApplicationStop);
                if let Some(stop) = stop {
                    plan.sequence.swap(stop, stop + 1);
                }
            }
            Defect::LeavesInBalancer => plan.sequence.retain(|event| {
                !event.is_about_traffic() || *event > LifecycleEvent::ValidateService
            }),
            Defect::WidensBatches => {
                if matches!(plan.batching, Batching::Window(_)) {
                    plan.batching = Batching::Window(Amount::Percent(100));
                }
            }
            Defect::IgnoresThreshold => {
                plan.failure_threshold = Amount::Count(1000);
                plan.batch_failure_threshold = None;
            }
            Defect::IgnoresMinimum => plan.minimum_healthy = None,
            Defect::IgnoresGates => plan.gates.clear(),
            Defect::IgnoresInterval => {
                if plan.gates.is_empty() {
                    // Batches stay as they are.
                    plan.wait_between = plan.wait_between.min(std::time::Duration::from_millis(1));
                }
            }
            Defect::IgnoresPriorities => plan.priority = 0,
            Defect::IgnoresRollback => plan.on_failure = OnFailure::Stop,
            Defect::ActsBeforeAppending
            | Defect::LosesRecords
            | Defect::ForgetsAttempts
            | Defect::BeginsBeside
            | Defect::FollowsFailure
            | Defect::RepeatsAttempts
            | Defect::RepeatsCalls
            | Defect::PutsFailedBack
            | Defect::ConfusesRevisions
            | Defect::SwallowsAnswers
            | Defect::Overloads
            | Defect::PraisesFailed
            | Defect::LeapsStatuses
            | Defect::RewritesOutcomes
            | Defect::ForgetsInstances => {}
        }
    }

    /// A fact as it comes to the disk.
    pub(crate) fn tamper(self, fact: &mut Fact) {
        match (self, fact) {
            (
                Defect::PraisesFailed,
                Fact::InstanceEnded {
                    outcome: outcome @ InstanceOutcome::Failed,
                    ..
                },
            ) => *outcome = InstanceOutcome::Succeeded,
            (
                Defect::LeapsStatuses,
                Fact::StatusChanged {
                    status: status @ ReleaseStatus::Pausing,
                    ..
                },
            ) => *status = ReleaseStatus::Paused,
            (
                Defect::RewritesOutcomes,
                Fact::StepEnded {
                    ending: Ending::Succeeded { exit_code, .. },
                    ..
                },
            ) => *exit_code = Some(7),
            (Defect::ForgetsInstances, Fact::DeploymentOpened(plan)) => {
                let mut fewer = Deployment::clone(plan);
                if matches!(fewer.direction, Direction::Rollback { .. }) {
                    fewer.targets.pop();
                }
                *plan = Arc::new(fewer);
            }
            _ => {}
        }
    }
}
