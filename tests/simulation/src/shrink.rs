//! The smallest scenario that still breaks a rule: parts are left out one at a time, as long as it does.

use crate::defect::Defect;
use crate::scenario::Scenario;
use crate::site::simulate;
use crate::trace::Trace;
use crate::violation::Violation;

/// How many smaller scenarios are tried. One that breaks its rule late takes a while.
const MOST_ATTEMPTS: usize = 400;

/// Everything that scenarios are made smaller by, the larger parts first.
fn smaller(scenario: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut add = |change: &dyn Fn(&mut Scenario)| {
        let mut other = scenario.clone();
        change(&mut other);
        if other.is_possible() {
            all.push(other);
        }
    };
    let troubles = scenario.troubles.len();
    if troubles > 2 {
        add(&|it| it.troubles.truncate(troubles / 2));
        add(&|it| {
            it.troubles.drain(..troubles / 2);
        });
    }
    for index in 0..scenario.services.len() {
        add(&|it| {
            it.services.remove(index);
        });
    }
    for index in 0..troubles {
        add(&|it| {
            it.troubles.remove(index);
        });
    }
    for (index, service) in scenario.services.iter().enumerate() {
        for instance in 0..service.instances.len() {
            add(&|it| {
                it.services[index].instances.remove(instance);
            });
        }
        for gate in 0..service.gates.len() {
            add(&|it| {
                it.services[index].gates.remove(gate);
            });
        }
        if !service.wait_between.is_zero() {
            add(&|it| it.services[index].wait_between = std::time::Duration::ZERO);
        }
        if service.minimum_healthy.is_some() {
            add(&|it| it.services[index].minimum_healthy = None);
        }
        if service.batch_failure_threshold.is_some() {
            add(&|it| it.services[index].batch_failure_threshold = None);
        }
        for call in 0..service.calls.len() {
            add(&|it| {
                it.services[index].calls.remove(call);
            });
        }
        for hook in 0..service.hooks.len() {
            add(&|it| {
                it.services[index].hooks.remove(hook);
            });
        }
    }
    all
}

/// Leaves out whatever is not needed to break the rule. The violation of what is left comes with it.
pub(crate) fn minimise(
    scenario: &Scenario,
    violation: Violation,
    defect: Option<Defect>,
) -> (Scenario, Violation) {
    let mut best = (scenario.clone(), violation);
    let mut left = MOST_ATTEMPTS;
    loop {
        let found = smaller(&best.0).into_iter().find_map(|candidate| {
            left = left.checked_sub(1)?;
            let (result, _) = simulate(&candidate, defect, Trace::default());
            let violation = result.err()?;
            (violation.rule == best.1.rule).then_some((candidate, violation))
        });
        match found {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}
