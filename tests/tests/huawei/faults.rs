//! Each fault at each request of a release: it ends well, nothing is done twice, and nothing is left half done.

use std::cell::Cell;
use std::time::Duration;

use cutover_tests::cloud::{Fault, When, every_fault};

use super::*;

/// What goes wrong, one at a time.
fn faults() -> Vec<Fault> {
    vec![
        Fault::Late(Duration::from_millis(50)),
        Fault::Throttled { retry_after: None },
        Fault::Refused(503),
        Fault::TakenButRefused(500),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Stale { reads: 2 },
    ]
}

/// Which requests meet which faults.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thoroughness {
    /// Each meets each.
    All,
    /// A change meets each fault, and what reads one of them in turn, where not all are asked for.
    ReadsInTurn,
}

/// Whether nobody who asked knows what became of a change.
fn is_unknown(visit: &Visit) -> bool {
    let is_lost = matches!(
        visit.fault,
        Some(
            Fault::Refused(_) | Fault::TakenButRefused(_) | Fault::ResetBefore | Fault::ResetAfter
        )
    );
    is_lost && visit.request.method != "GET"
}

/// A kind of release that can be run again and again.
struct Subject<'a> {
    shop: &'a Shop,
    /// What comes before it, without a fault.
    prepare: &'a dyn Fn(&Shop),
    release: &'a dyn Fn(&Shop) -> Answer,
    /// Asserts that all is as it has to be after it.
    look: &'a dyn Fn(&Shop, &str),
}

impl Subject<'_> {
    /// Runs it without a fault, and then with each fault at each of its requests.
    fn meet(&self, thoroughness: Thoroughness) {
        let sound = self.run(None, "without a fault");
        let expected = kinds(&sound);
        assert!(!expected.is_empty(), "a release changes something");
        for (turn, fault) in faults().into_iter().enumerate() {
            for (index, visit) in sound.iter().enumerate() {
                let is_read = visit.request.method == "GET";
                let is_its_turn = index % faults().len() == turn;
                let is_every = thoroughness == Thoroughness::All || every_fault();
                if is_read && !is_every && !is_its_turn {
                    continue;
                }
                let case = format!(
                    "{fault:?} at request {}, {}",
                    index + 1,
                    visit.request.line()
                );
                let visits = self.run(Some((index + 1, fault.clone())), &case);
                assert_eq!(kinds(&visits), expected, "{case}: {:#?}", lines(&visits));
            }
        }
    }

    fn run(&self, fault: Option<(usize, Fault)>, case: &str) -> Vec<Visit> {
        let Self { shop, .. } = self;
        (self.prepare)(shop);
        let _ = shop.cloud.take_visits();
        let is_faulty = fault.is_some();
        if let Some((number, fault)) = fault {
            shop.cloud.inject(When::any().nth(number), fault);
        }

        let mut answer = (self.release)(shop);
        if answer.code == 3 {
            // While it was planned the balancer did not tell what it needs to know, so nothing has changed.
            assert_eq!(
                changes(&shop.cloud.visits()),
                [""; 0],
                "{case}: {}",
                answer.stderr
            );
            answer = (self.release)(shop);
        }

        shop.cloud.heal();
        let visits = shop.cloud.take_visits();
        let met = visits.iter().any(|visit| visit.fault.is_some());
        assert_eq!(met, is_faulty, "{case}: the fault was met");
        assert_eq!(
            answer.code,
            0,
            "{case}: {}\n{:#?}",
            answer.stderr,
            lines(&visits)
        );
        for pair in visits.windows(2) {
            let is_read_back = !is_unknown(&pair[0]) || pair[1].request.method == "GET";
            assert!(is_read_back, "{case}: {:#?}", lines(&visits));
        }
        (self.look)(shop, case);
        visits
    }
}

fn lines(visits: &[Visit]) -> Vec<String> {
    let line = |visit: &Visit| format!("{} {:?}", visit.request.line(), visit.taken);
    visits.iter().map(line).collect()
}

/// How often each kind of change was made: ids and pools differ from release to release.
fn kinds(visits: &[Visit]) -> Vec<(String, usize)> {
    let kind = |change: String| {
        let words: Vec<_> = change.split(['/', ' ']).collect();
        let is_member = words.contains(&"members");
        let what = if is_member { "member" } else { words[2] };
        format!("{} {what}", words[0])
    };
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for kind in changes(visits).into_iter().map(kind) {
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    kinds.sort();
    kinds
}

fn one_member_in_traffic(shop: &Shop, case: &str) {
    assert_eq!(shop.members("blue"), ["10.0.0.1:8080=1"], "{case}");
}

#[test]
fn an_instance_is_taken_out_and_put_back_once_whatever_goes_wrong() {
    let shop = rolling(&[1], "");
    shop.deploy().ok();
    let subject = Subject {
        shop: &shop,
        prepare: &|_| {},
        release: &Shop::deploy,
        look: &one_member_in_traffic,
    };

    subject.meet(Thoroughness::All);
}

#[test]
fn an_instance_goes_back_whatever_goes_wrong() {
    let shop = rolling(&[1], "");
    shop.deploy().ok();
    let subject = Subject {
        shop: &shop,
        prepare: &|shop| drop(shop.deploy().ok()),
        release: &Shop::rollback,
        look: &one_member_in_traffic,
    };

    subject.meet(Thoroughness::ReadsInTurn);
}

/// Two colours with an instance each, and 1.0.1 and 1.0.2 on them.
fn colours() -> Shop {
    let mut elb = HuaweiElb::new(&["blue", "green"]);
    elb.add_member("blue", address(1), 1);
    elb.add_member("green", address(2), 1);
    let shop = Shop::new(
        elb,
        "strategy: {type: blue-green, concurrency: 100%, retire: keep}\n\
         sides:\n  blue: {group: {pool: blue}, instances: INSTANCES(1)}\n  green: {group: {pool: green}, instances: INSTANCES(2)}\n\
         traffic: {plugin: huawei, timeout: 30s, config: {CONFIG, listener: listener-1}}\n",
    );
    shop.deploy().ok();
    shop.deploy().ok();
    shop
}

fn live(shop: &Shop) -> String {
    shop.cloud.with(|elb| elb.default_pool.clone()).unwrap()
}

#[test]
fn the_traffic_is_switched_once_whatever_goes_wrong() {
    let shop = colours();
    let before = Cell::new(String::new());
    let subject = Subject {
        shop: &shop,
        prepare: &|shop| before.set(live(shop)),
        release: &Shop::deploy,
        look: &|shop, case| assert_ne!(live(shop), before.take(), "{case}"),
    };

    subject.meet(Thoroughness::All);
}

#[test]
fn the_traffic_is_switched_back_once_whatever_goes_wrong() {
    let shop = colours();
    let before = Cell::new(String::new());
    let subject = Subject {
        shop: &shop,
        prepare: &|shop| {
            before.set(live(shop));
            shop.deploy().ok();
        },
        release: &Shop::rollback,
        look: &|shop, case| assert_eq!(live(shop), before.take(), "{case}"),
    };

    subject.meet(Thoroughness::ReadsInTurn);
}

/// Two instances between two pools, which a policy weighs, and 1.0.1 on both.
fn shares() -> Shop {
    let mut elb = HuaweiElb::new(&["blue", "green"]).with_policy(&[("blue", 100), ("green", 0)]);
    elb.add_member("blue", address(1), 1);
    elb.add_member("blue", address(2), 1);
    let shop = Shop::new(
        elb,
        "strategy: {type: canary, first_batch: 1, remaining_batches: 1, traffic: 50%, promote: {after: 50ms}}\n\
         instances: INSTANCES(1, 2)\n\
         sides: {current: {group: {pool: blue}}, new: {group: {pool: green}}}\n\
         load_balancer: {plugin: huawei, timeout: 30s, config: {CONFIG, drain: 0s}}\n\
         traffic: {plugin: huawei, timeout: 30s, config: {CONFIG, policy: policy-1}}\n",
    );
    shop.deploy().ok();
    shop
}

/// The pool that has all of the traffic, and all of the members.
fn whole(shop: &Shop, case: &str) -> String {
    let (pools, all) = shop.cloud.with(|elb| {
        let members = |pool: &String| elb.members(pool);
        let all: Vec<_> = elb
            .pools
            .keys()
            .map(|pool| (pool.clone(), members(pool)))
            .collect();
        (elb.policy.pools.clone(), all)
    });
    let live: Vec<_> = pools.iter().filter(|(_, weight)| *weight > 0).collect();
    assert_eq!(live.len(), 1, "{case}: {pools:?}");
    for (pool, members) in all {
        let expected: &[&str] = match pool == live[0].0 {
            true => &["10.0.0.1:8080=1", "10.0.0.2:8080=1"],
            false => &[],
        };
        assert_eq!(members, expected, "{case}: pool {pool}");
    }
    live[0].0.clone()
}

#[test]
fn a_canary_moves_every_instance_once_whatever_goes_wrong() {
    let shop = shares();
    let before = Cell::new(String::new());
    let subject = Subject {
        shop: &shop,
        prepare: &|shop| before.set(whole(shop, "before")),
        release: &Shop::deploy,
        look: &|shop, case| assert_ne!(whole(shop, case), before.take(), "{case}"),
    };

    subject.meet(Thoroughness::ReadsInTurn);
}

#[test]
fn a_canary_is_taken_back_whatever_goes_wrong() {
    let shop = shares();
    let before = Cell::new(String::new());
    let subject = Subject {
        shop: &shop,
        prepare: &|shop| {
            before.set(whole(shop, "before"));
            shop.deploy().ok();
        },
        release: &Shop::rollback,
        look: &|shop, case| assert_eq!(whole(shop, case), before.take(), "{case}"),
    };

    subject.meet(Thoroughness::ReadsInTurn);
}
