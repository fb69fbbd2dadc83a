//! Everything that can go wrong with a request, at each request of a release. The plugin's own tests do the same call by call.

use std::time::Duration;

use cutover_tests::cloud::{Fault, Visit, When, every_fault};

use super::*;

/// What passes by itself, or is found out by reading.
const PASSING: [Fault; 5] = [
    Fault::ResetBefore,
    Fault::ResetAfter,
    Fault::Refused(503),
    Fault::TakenButRefused(500),
    Fault::Throttled {
        retry_after: Some(0),
    },
];

/// Releases again and again, until each fault has happened at each request of a release: the first of the faults at reads
/// as well, which all others meet as they meet that one. `prepare` makes things as they are before, `act` releases as this
/// number, and `check` looks at what has become of it.
fn at_each_request(
    shop: &Shop,
    faults: &[Fault],
    prepare: impl Fn(usize),
    act: impl Fn(usize) -> Answer,
    check: impl Fn(&str),
) {
    let number = std::cell::Cell::new(0);
    let release = |place: &str, inject: &dyn Fn()| {
        number.set(number.get() + 1);
        prepare(number.get());
        let _ = shop.cloud.take_visits();
        inject();
        let answer = given(shop, || act(number.get()));
        assert_eq!(answer.code, 0, "{place}: {}", answer.stderr);
        let visits = shop.cloud.take_visits();
        shop.cloud.heal();
        assert_reads_before_it_writes_again(&visits, place);
        check(place);
        visits
    };
    let calm = release("nothing goes wrong", &|| {});
    let late = [Fault::Late(Duration::from_millis(50))];
    let faults = match every_fault() {
        true => [&PASSING, &late[..]].concat(),
        false => faults.to_vec(),
    };
    for (index, visit) in calm.iter().enumerate() {
        let stale = Fault::Stale { reads: 2 };
        let at_writes = faults[1..]
            .iter()
            .chain([&stale])
            .filter(|_| every_fault() || is_write(visit));
        for fault in faults[..1].iter().chain(at_writes) {
            let place = format!("{fault:?} at request {}, {}", index + 1, call(visit));
            let visits = release(&place, &|| {
                shop.cloud.inject(When::any().nth(index + 1), fault.clone());
            });
            assert!(
                visits.iter().any(|visit| visit.fault.is_some()),
                "{place}: it did not happen"
            );
        }
    }
}

/// Gives a command, and gives it again where it is refused because the balancer did not answer before anything was begun.
fn given(shop: &Shop, command: impl Fn() -> Answer) -> Answer {
    for _ in 0..5 {
        let before = shop.cloud.visits().len();
        let answer = command();
        if answer.code != 3 {
            return answer;
        }
        assert!(answer.stderr.contains("again"), "{}", answer.stderr);
        assert!(!shop.cloud.visits()[before..].iter().any(is_write));
    }
    panic!("it is refused again and again");
}

/// Whatever was sent and not answered is looked at before the same is sent again.
fn assert_reads_before_it_writes_again(visits: &[Visit], place: &str) {
    for (index, visit) in visits
        .iter()
        .enumerate()
        .filter(|(_, visit)| is_write(visit))
    {
        let rest = &visits[index + 1..];
        let again = rest.iter().position(|later| {
            later.request.path == visit.request.path && later.request.body == visit.request.body
        });
        if let Some(again) = again {
            assert!(
                rest[..again].iter().any(|visit| !is_write(visit)),
                "{place}: {} was sent twice without a look between",
                visit.request.line()
            );
            let is_done_twice = visit.is_done()
                && rest[again].is_done()
                && rest[..again].iter().all(|it| !is_write(it));
            assert!(
                !is_done_twice,
                "{place}: {} was done twice",
                visit.request.line()
            );
        }
    }
}

#[test]
fn whatever_goes_wrong_in_a_first_rolling_release_one_group_is_made_and_all_are_in_it() {
    let shop = Shop::idle(&["web-1", "web-2"]);
    shop.rolling("group: web, drain: 0");

    at_each_request(
        &shop,
        &PASSING,
        |_| {
            shop.cloud.with(|cloud| {
                cloud.backend_mut().groups.clear();
                cloud.groups.clear();
            });
        },
        |number| shop.deploy("1.0.0", &format!("1.0.{number}")),
        |place| {
            assert_eq!(shop.cloud.with(|cloud| cloud.groups.len()), 1, "{place}");
            assert_eq!(shop.live(), shop.targets("web"), "{place}");
        },
    );
}

#[test]
fn whatever_goes_wrong_on_the_way_back_of_a_rolling_release_all_are_in_their_group() {
    let shop = Shop::idle(&["web-1"]);
    shop.rolling("group: web, drain: 0");
    shop.deploy("1.0.0", "1.0.0").ok();

    at_each_request(
        &shop,
        &[Fault::ResetAfter, Fault::TakenButRefused(502)],
        |number| {
            shop.deploy("1.1.0", &format!("1.1.{number}")).ok();
        },
        |_| shop.rollback(),
        |place| {
            assert_eq!(shop.live(), shop.targets("web"), "{place}");
            let version = std::fs::read_to_string(shop.site.path("web-1/app/version.txt"));
            assert_eq!(version.unwrap(), "1.0.0", "{place}");
        },
    );
}

#[test]
fn whatever_goes_wrong_in_a_switch_one_colour_gets_everything() {
    let shop = Shop::idle(&["blue-1", "green-1"]);
    shop.colours("", "group: web");
    let colour = std::cell::Cell::new("green");

    at_each_request(
        &shop,
        &PASSING,
        |_| {
            colour.set(if colour.get() == "blue" {
                "green"
            } else {
                "blue"
            });
            // The target group of the other colour is made at every switch.
            shop.cloud.with(|cloud| {
                let attached = cloud.backend().groups.clone();
                cloud.groups.retain(|id, _| attached.contains(id));
            });
        },
        |number| shop.deploy("1.0.0", &format!("1.0.{number}")),
        |place| {
            assert_eq!(shop.live(), shop.targets(colour.get()), "{place}");
            let names: Vec<_> = shop
                .cloud
                .with(|cloud| cloud.registered().into_keys().collect());
            let ours = format!("deploy_{}_web_", colour.get()[..1].to_uppercase());
            let made = names.iter().filter(|name| name.starts_with(&ours)).count();
            assert_eq!(made, 1, "{place}: {names:?}");
        },
    );
}

#[test]
fn whatever_goes_wrong_on_the_way_back_of_a_switch_the_first_colour_gets_everything() {
    let shop = Shop::idle(&["blue-1", "green-1"]);
    shop.colours("", "group: web");
    shop.deploy("1.0.0", "1.0.0").ok();

    at_each_request(
        &shop,
        &[Fault::ResetAfter, Fault::TakenButRefused(500)],
        |number| {
            shop.deploy("1.1.0", &format!("1.1.{number}")).ok();
        },
        |_| shop.rollback(),
        |place| assert_eq!(shop.live(), shop.targets("blue"), "{place}"),
    );
}

#[test]
fn whatever_goes_wrong_in_a_canary_all_weigh_the_same_in_the_end() {
    let shop = Shop::idle(&["web-1", "web-2"]);
    shop.describe(&format!(
        "strategy: {{type: canary, first_batch: 1, remaining_batches: 1, traffic: 30%, promote: {{after: 10ms}}}}\ninstances: {}\n\
         load_balancer: {{plugin: jdcloud, timeout: 20s, config: {config}}}\ntraffic: {{plugin: jdcloud, timeout: 20s, config: {config}}}\n",
        shop.instances("web"),
        config = shop.config("group: web, drain: 0")
    ));

    at_each_request(
        &shop,
        &[Fault::ResetAfter, Fault::TakenButRefused(500)],
        |_| {},
        |number| shop.deploy("1.1.0", &format!("1.1.{number}")),
        |place| assert_eq!(shop.live(), shop.targets("web"), "{place}"),
    );
}

#[test]
fn a_registration_that_was_done_in_part_is_completed() {
    let shop = Shop::idle(&["blue-1", "blue-2", "blue-3"]);
    shop.describe(&format!(
        "strategy: {{type: blue-green, concurrency: 100%}}\n\
         sides:\n  blue: {{group: {{side: blue}}, instances: {}}}\n  green: {{group: {{side: green}}, instances: [{{id: green-1, host: \"local:\", rootdir: \"{}\", provider_id: i-blue-1, address: \"127.0.0.1:1\"}}]}}\n\
         traffic: {{plugin: jdcloud, timeout: 20s, config: {}}}\n",
        shop.instances("blue"),
        shop.site.path("green-1").display(),
        shop.config("group: web")
    ));
    shop.cloud.inject(
        When::call("POST", ":registerTargets"),
        Fault::Partial { done: 1 },
    );

    shop.deploy("1.0.0", "1.0.0").ok();

    assert_eq!(shop.live(), shop.targets("blue"));
    let visits = shop.cloud.visits();
    let registered = visits
        .iter()
        .filter(|it| call(it) == "POST registerTargets");
    let counts: Vec<_> = registered
        .map(|it| it.request.json()["targetSpecs"].as_array().unwrap().len())
        .collect();
    assert_eq!(
        counts,
        [3, 2],
        "what was registered is not registered again"
    );
}

#[test]
fn an_answer_that_never_comes_is_looked_after_and_the_request_is_not_sent_again() {
    let shop = Shop::idle(&["web-1"]);
    shop.rolling("group: web, drain: 0, timeout: 1s");
    shop.deploy("1.0.0", "1.0.0").ok();
    let _ = shop.cloud.take_visits();
    for verb in [":registerTargets", ":deregisterTargets"] {
        shop.cloud.inject(When::call("POST", verb), Fault::Held);
    }

    shop.deploy("1.1.0", "1.1.0").ok();

    assert_eq!(shop.live(), shop.targets("web"));
    let visits = shop.cloud.visits();
    let writes: Vec<_> = visits.iter().filter(|it| is_write(it)).map(call).collect();
    assert_eq!(writes, ["POST deregisterTargets", "POST registerTargets"]);
}
