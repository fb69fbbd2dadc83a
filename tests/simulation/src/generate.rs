//! Scenarios at random, from a seed.

use std::cmp::Reverse;
use std::time::Duration;

use fastrand::Rng;
use model::{
    Amount, Batching, Boundary, Capacity, GatePolicy, GatePosition, LifecycleEvent, OnFailure,
    Order, Promote, Retire, Scope, StopFailures, Strategy, Verdict,
};

use crate::plan::named;
use crate::scenario::{
    Check, CrashPoint, Layout, Medium, Past, Place, PlannedGate, Scenario, Service, TrafficMeans,
    Trouble, What, When, Work,
};

/// One scenario in so many goes through the real journal, which flushes to a disk.
const SHARE_OF_FILES: u64 = 64;

/// The most of what a plan may hold.
const MOST_SERVICES: usize = 6;
const MOST_INSTANCES: usize = 8;

/// The scenario of a seed.
#[must_use]
pub fn generate(seed: u64) -> Scenario {
    let mut rng = Rng::with_seed(seed);
    let count = few(&mut rng, MOST_SERVICES);
    let mut services: Vec<_> = (1..=count)
        .map(|number| service(&mut rng, number))
        .collect();
    // The conductor opens deployments in the order of their turn.
    services.sort_by_key(|service| Reverse(service.priority));
    let troubles = troubles(&mut rng, &services);
    Scenario {
        seed,
        medium: if seed.is_multiple_of(SHARE_OF_FILES) {
            Medium::File
        } else {
            Medium::Memory
        },
        scope: if count > 1 || one_in(&mut rng, 8) {
            Scope::Plan
        } else {
            Scope::Service
        },
        services,
        troubles,
    }
}

/// A number from 1 on, small ones more often.
fn few(rng: &mut Rng, most: usize) -> usize {
    rng.usize(1..=most).min(rng.usize(1..=most))
}

fn one_in(rng: &mut Rng, of: u32) -> bool {
    rng.u32(0..of) == 0
}

fn pick<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(0..all.len())]
}

fn service(rng: &mut Rng, number: usize) -> Service {
    let layout = pick(
        rng,
        &[
            Layout::Direct,
            Layout::Direct,
            Layout::Balanced,
            Layout::Balanced,
            Layout::Balanced,
            Layout::Colours,
            Layout::Colours,
            Layout::TwoGroups,
            Layout::TwoGroups,
            Layout::Weights,
        ],
    );
    let is_canary = match layout {
        Layout::TwoGroups | Layout::Weights => true,
        Layout::Balanced => one_in(rng, 6),
        Layout::Direct | Layout::Colours => false,
    };
    let least = if is_canary { 2 } else { 1 };
    let total = few(rng, MOST_INSTANCES).max(least);
    let strategy = match layout {
        Layout::Colours => Strategy::BlueGreen {
            bake: Duration::from_secs(pick(rng, &[0, 0, 5, 20, 60])),
            retire: pick(rng, &[Retire::Keep, Retire::Stop]),
        },
        _ if is_canary => Strategy::Canary {
            traffic: pick(rng, &[None, Some(5), Some(20), Some(50)]),
            promote: match rng.u32(0..3) {
                0 => Promote::After(Duration::from_secs(rng.u64(1..30))),
                _ => Promote::Manual,
            },
        },
        _ => Strategy::Rolling,
    };
    let has_barriers = rng.bool();
    let is_restart = matches!(strategy, Strategy::Rolling) && one_in(rng, 8);
    Service {
        number,
        work: if is_restart {
            Work::Restart
        } else {
            Work::Deploy
        },
        priority: pick(rng, &[0, 0, 0, 1, 1, 2, 5, -1]),
        instances: (1..=total).collect(),
        past: if !is_restart && one_in(rng, 6) {
            Past::Nothing
        } else {
            Past::OneVersion
        },
        hooks: hooks(rng),
        calls: calls(rng),
        strategy,
        layout,
        // Where there are sides, a plugin moves the traffic between them.
        traffic: if layout == Layout::Balanced && one_in(rng, 4) {
            TrafficMeans::Command
        } else {
            TrafficMeans::Plugin
        },
        batching: if is_canary {
            Batching::FirstThenEven {
                first: rng.u32(1..u32::try_from(total).unwrap_or(2)),
                rest: rng.u32(1..4),
            }
        } else if has_barriers {
            match rng.u32(0..2) {
                0 => Batching::Even(rng.u32(1..5)),
                _ => Batching::Growing(vec![
                    Amount::Count(1),
                    Amount::Percent(rng.u8(1..60)),
                    Amount::Percent(100),
                ]),
            }
        } else {
            Batching::Window(amount(rng))
        },
        wait_between: Duration::from_secs(pick(rng, &[0, 0, 0, 1, 10])),
        failure_threshold: if one_in(rng, 3) {
            amount(rng)
        } else {
            Amount::Count(1)
        },
        batch_failure_threshold: one_in(rng, 8).then(|| amount(rng)),
        minimum_healthy: (layout != Layout::Colours && one_in(rng, 3)).then(|| amount(rng)),
        gates: (0..pick(rng, &[0, 0, 0, 0, 1, 1, 2]))
            .map(|_| gate(rng))
            .collect(),
        on_failure: pick(rng, &[OnFailure::Stop, OnFailure::Rollback]),
        stop_failures: if one_in(rng, 4) {
            StopFailures::Ignore
        } else {
            StopFailures::Fail
        },
    }
}

fn amount(rng: &mut Rng) -> Amount {
    match rng.u32(0..2) {
        0 => Amount::Count(rng.u32(1..5)),
        _ => Amount::Percent(rng.u8(1..=100)),
    }
}

/// Most packages bind scripts to most events.
fn hooks(rng: &mut Rng) -> Vec<LifecycleEvent> {
    LifecycleEvent::ALL
        .into_iter()
        .filter(|event| event.takes_hooks() && !one_in(rng, 4))
        .collect()
}

/// Few kinds call their plugin, and those do so at an event or two.
fn calls(rng: &mut Rng) -> Vec<LifecycleEvent> {
    if !one_in(rng, 5) {
        return Vec::new();
    }
    let mut events = LifecycleEvent::ALL.to_vec();
    events.retain(|event| event.takes_hooks() && one_in(rng, 4));
    events
}

fn gate(rng: &mut Rng) -> PlannedGate {
    let policies = [
        GatePolicy::Continue,
        GatePolicy::Pause,
        GatePolicy::Stop,
        GatePolicy::Rollback,
    ];
    let check = match rng.u32(0..3) {
        0 => Check::Approval,
        _ => {
            let mut verdicts = Vec::new();
            while one_in(rng, 3) && verdicts.len() < 3 {
                verdicts.push(pick(rng, &[Verdict::Failed, Verdict::Inconclusive]));
            }
            Check::Evaluated(verdicts)
        }
    };
    PlannedGate {
        after: pick(
            rng,
            &[GatePosition::First, GatePosition::Each, GatePosition::Last],
        ),
        check,
        timeout: rng.bool().then(|| Duration::from_secs(rng.u64(3..60))),
        on_fail: pick(rng, &policies),
        on_inconclusive: pick(rng, &policies),
    }
}

fn troubles(rng: &mut Rng, services: &[Service]) -> Vec<Trouble> {
    // A share of the simulations goes as planned.
    let most = pick(rng, &[0, 1, 2, 4, 8, 12]);
    let instances: usize = services.iter().map(|service| service.instances.len()).sum();
    let records = 20 * instances as u64 + 10;
    let mut troubles: Vec<_> = (0..most).map(|_| trouble(rng, services, records)).collect();
    if rng.u32(0..60) == 0 {
        let when = When::At(rng.u64(0..200_000));
        troubles.push(Trouble {
            when,
            what: What::Delete,
        });
    }
    troubles
}

fn trouble(rng: &mut Rng, services: &[Service], records: u64) -> Trouble {
    let service = &services[rng.usize(0..services.len())];
    let instance = Place {
        service: service.number,
        instance: pick(rng, &service.instances),
    };
    let event = pick(rng, &LifecycleEvent::ALL);
    let to = rng.bool().then_some(service.number);
    let at = |rng: &mut Rng| When::At(rng.u64(0..90_000));
    let for_ms = pick(rng, &[10, 300, 2_000, 15_000, 60_000]);
    let (when, what) = match rng.u32(0..42) {
        0..=6 => {
            let point = match rng.u32(0..3) {
                0 => CrashPoint::BeforeCommit,
                1 => CrashPoint::AfterActions(0),
                _ => CrashPoint::AfterActions(rng.usize(1..4)),
            };
            (When::Record(rng.u64(2..records)), What::Crash(point))
        }
        7..=8 => (When::Record(rng.u64(2..records)), What::DiskFull),
        9 => (at(rng), What::Interrupt),
        10..=11 => (at(rng), What::HostDown { instance, for_ms }),
        12 => (at(rng), What::CutOff { instance, for_ms }),
        13..=17 => (When::Always, What::HookFails { instance, event }),
        18 => (
            When::Always,
            What::AnswerLate {
                instance,
                event,
                by_ms: for_ms,
            },
        ),
        19 => (When::Always, What::AnswerLost { instance, event }),
        20 => (When::Always, What::AnswerTwice { instance, event }),
        21 => {
            let by_ms = rng.i64(-100_000..100_000);
            (at(rng), What::ClockJump { by_ms })
        }
        22..=23 => (
            at(rng),
            What::BalancerAway {
                service: service.number,
                for_ms,
            },
        ),
        24..=26 => (at(rng), What::Unhealthy { instance, for_ms }),
        27 => (
            at(rng),
            What::SomebodySwitches {
                service: service.number,
                side: rng.usize(0..2),
            },
        ),
        28..=29 => {
            let order = Order::Pause { at: boundary(rng) };
            (at(rng), What::Order { to: None, order })
        }
        30 => (at(rng), What::Resume),
        31 => {
            let end = boundary(rng);
            (at(rng), What::Stop { at: end })
        }
        32..=38 => {
            let order = order(rng, instance);
            (at(rng), What::Order { to, order })
        }
        39..=40 => (When::Always, What::CutOffIn { instance, event }),
        _ => {
            let order = Order::Rollback { reason: None };
            (at(rng), What::Order { to, order })
        }
    };
    Trouble { when, what }
}

fn boundary(rng: &mut Rng) -> Option<Boundary> {
    pick(rng, &[None, Some(Boundary::Service), Some(Boundary::Batch)])
}

fn order(rng: &mut Rng, instance: Place) -> Order {
    match rng.u32(0..7) {
        0 => Order::Promote,
        1..=2 => Order::Weight {
            percent: pick(rng, &[0, 1, 10, 50, 99, 100]),
            capacity: pick(rng, &[Capacity::Respect, Capacity::Exceed]),
        },
        3 => Order::Approve {
            gate: gate_name(rng),
            comment: None,
        },
        4 => Order::Reject {
            gate: gate_name(rng),
            comment: None,
        },
        _ => Order::Skip {
            instance: named(&instance.to_string()),
        },
    }
}

fn gate_name(rng: &mut Rng) -> Option<String> {
    rng.bool().then(|| format!("g{}", rng.u32(0..2)))
}
