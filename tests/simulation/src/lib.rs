//! Releases simulated from a seed: the real engine, the journal's semantics, and a fleet, a balancer, a router, gates,
//! clocks and operators that misbehave.
//!
//! [`check`] carries out the scenario of a seed and holds every record and every effect against the rules of DESIGN.md.
//! What breaks one is made as small as it gets and told as a list of events. What is simulated, and what is not, is in
//! `runtime/ARCHITECTURE.md`.

mod balancer;
mod chance;
mod defect;
mod disk;
mod driver;
mod generate;
mod hosts;
mod plan;
mod rules;
mod scenario;
mod shrink;
mod site;
mod trace;
mod turn;
mod violation;
mod work;

pub use defect::Defect;
pub use generate::generate;
pub use site::Summary;
pub use violation::Violation;

use std::fmt;

use scenario::Scenario;
use trace::Trace;

/// A seed that breaks a rule.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub violation: Violation,
    scenario: Scenario,
    defect: Option<Defect>,
}

impl Failure {
    /// The smallest scenario that breaks the rule, with the list of what happens in it. That takes a while.
    #[must_use]
    pub fn explained(&self) -> String {
        let found = self.violation.clone();
        let (scenario, violation) = shrink::minimise(&self.scenario, found, self.defect);
        self.told(&scenario, &violation)
    }

    /// The scenario of the seed as it is, with the list of what happens in it.
    #[must_use]
    pub fn whole(&self) -> String {
        self.told(&self.scenario, &self.violation)
    }

    fn told(&self, scenario: &Scenario, violation: &Violation) -> String {
        let (_, trace) = site::simulate(scenario, self.defect, Trace::kept());
        let seed = self.seed;
        let mut text = format!("seed {seed}: {violation}\nwhat breaks it:\n");
        text.push_str(&scenario.to_string());
        text.push_str("what happens in it, in seconds:\n");
        for line in trace.lines() {
            text.push_str(&line);
            text.push('\n');
        }
        text.push_str(&format!("again: cargo xtask simulate --seed {seed}"));
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.violation)
    }
}

/// Carries out the scenario of a seed.
///
/// # Errors
/// [`Failure`] when a rule is broken.
pub fn check(seed: u64) -> Result<Summary, Box<Failure>> {
    check_with(seed, None)
}

/// As [`check`], with something built wrong.
///
/// # Errors
/// [`Failure`] when that is noticed.
pub fn check_with(seed: u64, defect: Option<Defect>) -> Result<Summary, Box<Failure>> {
    let scenario = generate(seed);
    let (result, _) = site::simulate(&scenario, defect, Trace::default());
    result.map_err(|violation| {
        Box::new(Failure {
            seed,
            violation,
            scenario,
            defect,
        })
    })
}
