//! The strategies of `cutover.yaml`: what each takes, what each refuses, and where it says so.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

use insta::assert_snapshot;
use model::Amount;
use proptest::prelude::*;
use spec::workspace::{Group, parse};

const PLUGINS: &str = "plugins: {haproxy: {component: haproxy}, nginx: {component: nginx}}\n";

/// A workspace with one group that has these lines. They begin on line 6, in column 9.
fn workspace(lines: &str) -> String {
    let mut text = format!("{PLUGINS}applications:\n  shop:\n    groups:\n      web:\n");
    for line in lines.lines() {
        writeln!(text, "        {line}").unwrap();
    }
    text
}

/// The group, or all problems with their hints.
fn read(lines: &str) -> Result<Group, String> {
    match parse(&workspace(lines), Path::new("f")) {
        Ok(mut parsed) => Ok(parsed.value.groups.remove(0)),
        Err(problems) => Err(problems.iter().fold(String::new(), |mut all, problem| {
            writeln!(all, "{problem:#}").unwrap();
            all
        })),
    }
}

/// The strategy of a group in brief, or its problems.
fn check(lines: &str) -> String {
    let group = match read(lines) {
        Ok(group) => group,
        Err(problems) => return problems,
    };
    let mut brief = String::new();
    let mut line = |text: String| writeln!(brief, "{text}").unwrap();
    let ids: Vec<_> = group.instances.iter().map(|one| one.id.as_str()).collect();
    line(format!("instances: {}", ids.join(" ")));
    line(format!("strategy: {:?}", group.strategy));
    let colour = group.sides.first().map(|side| side.instances.len());
    let total = colour
        .filter(|count| *count > 0)
        .unwrap_or(group.instances.len());
    let sizes = group.batching.sizes(total);
    line(format!("batching: {:?} {sizes:?}", group.batching));
    line(format!(
        "failures: {:?}, of a batch {:?}, then {:?}; healthy {:?}",
        group.failure_threshold,
        group.batch_failure_threshold,
        group.on_failure,
        group.minimum_healthy
    ));
    line(format!(
        "wait {:?}, spread by {:?}",
        group.wait_between, group.spread_by
    ));
    for side in &group.sides {
        let ids: Vec<_> = side.instances.iter().map(|one| one.id.as_str()).collect();
        line(format!(
            "side {} {}: {}",
            side.name,
            side.group,
            ids.join(" ")
        ));
    }
    if let Some(balancer) = &group.balancer {
        line(format!("{balancer:?}"));
    }
    if let Some(router) = &group.router {
        let at = group.router_at;
        line(format!("{router:?} at {}:{}", at.line, at.column));
    }
    for gate in &group.gates {
        line(format!("{gate:?}"));
    }
    brief
}

/// The list of `count` instances, named from `a` on.
fn instances(prefix: &str, count: usize) -> String {
    let items: Vec<_> = (1..=count)
        .map(|number| {
            let id = format!("{prefix}{number}");
            format!(
                "{{id: {id}, host: 'local:', rootdir: /srv/{id}, labels: [zone={}]}}",
                number % 2
            )
        })
        .collect();
    format!("[{}]", items.join(", "))
}

/// What a group of five instances with this strategy gives.
fn check_five(strategy: &str) -> String {
    check(&format!(
        "instances: {}\nstrategy: {{{strategy}}}",
        instances("w", 5)
    ))
}

/// What a blue-green group with this strategy gives, with two instances on the one side and three on the other.
fn check_colours(strategy: &str, more: &str) -> String {
    check(&format!(
        "strategy: {{type: blue-green{strategy}}}\nsides:\n  blue: {{group: {{backend: shop-blue}}, instances: {}}}\n  green: {{group: {{backend: shop-green}}, instances: {}}}\n{more}",
        instances("b", 2),
        instances("g", 3)
    ))
}

/// What a canary of five instances with this strategy gives.
fn check_canary(strategy: &str, more: &str) -> String {
    check(&format!(
        "strategy: {{type: canary{strategy}}}\ninstances: {}\n{more}",
        instances("w", 5)
    ))
}

const TRAFFIC: &str = "traffic: {plugin: nginx, config: {map: shop}, timeout: 90s}";
const BALANCED: &str = "load_balancer: {plugin: haproxy}\ntraffic: {plugin: haproxy}";

#[test]
fn reads_a_rolling_deployment_in_batches_of_every_kind() {
    assert_snapshot!(check_five("concurrency: 40%, failure_threshold: 2, batch_failure_threshold: 50%, minimum_healthy: 3"), @"
    instances: w1 w2 w3 w4 w5
    strategy: Rolling
    batching: Window(Percent(40)) [2, 2, 1]
    failures: Count(2), of a batch Some(Percent(50)), then Stop; healthy Some(Count(3))
    wait 0ns, spread by None
    ");
    assert_snapshot!(check_five("type: rolling, batches: 3, wait_between: 30s, spread_by: zone, minimum_healthy: 50%, on_failure: rollback"), @r#"
    instances: w1 w2 w3 w4 w5
    strategy: Rolling
    batching: Even(3) [2, 2, 1]
    failures: Count(1), of a batch None, then Rollback; healthy Some(Percent(50))
    wait 30s, spread by Some("zone")
    "#);
    assert_snapshot!(check_five("batches: [1, 10%, 50%, 100%]"), @"
    instances: w1 w2 w3 w4 w5
    strategy: Rolling
    batching: Growing([Count(1), Percent(10), Percent(50), Percent(100)]) [1, 1, 3]
    failures: Count(1), of a batch None, then Stop; healthy None
    wait 0ns, spread by None
    ");
    assert_snapshot!(check_five("batches: [2, 5]"), @"
    instances: w1 w2 w3 w4 w5
    strategy: Rolling
    batching: Growing([Count(2), Count(5)]) [2, 3]
    failures: Count(1), of a batch None, then Stop; healthy None
    wait 0ns, spread by None
    ");
}

#[test]
fn reads_a_blue_green_group() {
    assert_snapshot!(check_colours(", concurrency: 100%, bake: 5m, retire: stop", TRAFFIC), @r#"
    instances: b1 b2 g1 g2 g3
    strategy: BlueGreen { bake: 300s, retire: Stop }
    batching: Window(Percent(100)) [2]
    failures: Count(1), of a batch None, then Stop; healthy None
    wait 0ns, spread by None
    side blue {"backend":"shop-blue"}: b1 b2
    side green {"backend":"shop-green"}: g1 g2 g3
    Plugin { plugin: "nginx", config: "{\"map\":\"shop\"}", timeout: 90s } at 10:9
    "#);
    assert_snapshot!(check_colours(", batches: [1, 100%]", "traffic: {plugin: haproxy}"), @r#"
    instances: b1 b2 g1 g2 g3
    strategy: BlueGreen { bake: 0ns, retire: Keep }
    batching: Growing([Count(1), Percent(100)]) [1, 1]
    failures: Count(1), of a batch None, then Stop; healthy None
    wait 0ns, spread by None
    side blue {"backend":"shop-blue"}: b1 b2
    side green {"backend":"shop-green"}: g1 g2 g3
    Plugin { plugin: "haproxy", config: "{}", timeout: 300s } at 10:9
    "#);
}

#[test]
fn reads_a_canary_between_two_groups_or_in_one() {
    assert_snapshot!(check_canary(", first_batch: 1, remaining_batches: 3, traffic: 20%, promote: manual, minimum_healthy: 4", &format!("sides: {{current: {{group: {{backend: old}}}}, new: {{group: {{backend: new}}}}}}\n{BALANCED}")), @r#"
    instances: w1 w2 w3 w4 w5
    strategy: Canary { traffic: Some(20), promote: Manual }
    batching: FirstThenEven { first: 1, rest: 3 } [1, 2, 1, 1]
    failures: Count(1), of a batch None, then Stop; healthy Some(Count(4))
    wait 0ns, spread by None
    side current {"backend":"old"}: 
    side new {"backend":"new"}: 
    Plugin { plugin: "haproxy", config: "{}", timeout: 300s }
    Plugin { plugin: "haproxy", config: "{}", timeout: 300s } at 10:9
    "#);
    assert_snapshot!(check_canary(", traffic: 5%, promote: {after: 10m}", BALANCED), @r#"
    instances: w1 w2 w3 w4 w5
    strategy: Canary { traffic: Some(5), promote: After(600s) }
    batching: FirstThenEven { first: 1, rest: 1 } [1, 4]
    failures: Count(1), of a batch None, then Stop; healthy None
    wait 0ns, spread by None
    Plugin { plugin: "haproxy", config: "{}", timeout: 300s }
    Plugin { plugin: "haproxy", config: "{}", timeout: 300s } at 9:9
    "#);
    assert_snapshot!(check_canary("", ""), @"
    instances: w1 w2 w3 w4 w5
    strategy: Canary { traffic: None, promote: Manual }
    batching: FirstThenEven { first: 1, rest: 1 } [1, 4]
    failures: Count(1), of a batch None, then Stop; healthy None
    wait 0ns, spread by None
    ");
}

#[test]
fn reads_a_promotion_in_every_notation() {
    for notation in [
        "after 10m",
        "'after: 10m'",
        "'after:10m'",
        "{after: 10m}",
        "{after: 600s}",
    ] {
        let group = read(&format!(
            "strategy: {{type: canary, promote: {notation}}}\ninstances: {}",
            instances("w", 2)
        ));

        let expected = model::Strategy::Canary {
            traffic: None,
            promote: model::Promote::After(std::time::Duration::from_secs(600)),
        };
        assert_eq!(
            group.map(|group| group.strategy),
            Ok(expected),
            "{notation}"
        );
    }
}

#[test]
fn reads_gates_with_their_defaults() {
    assert_snapshot!(check(&format!("instances: {}\ngates:\n  - {{name: sign-off, after: first, approve: Does the shop look right?}}\n  - {{name: smoke, command: bin/smoke.sh --all}}\n  - {{name: errors, after: last, plugin: nginx, config: {{below: 0.5}}, timeout: 1h, interval: 1s, on_fail: rollback, on_inconclusive: continue}}\n  - {{name: at night, approve: 'Go?', timeout: 8h}}", instances("w", 2))), @r#"
    instances: w1 w2
    strategy: Rolling
    batching: Window(Count(1)) [1, 1]
    failures: Count(1), of a batch None, then Stop; healthy None
    wait 0ns, spread by None
    Gate { name: "sign-off", after: First, check: Approval { ask: "Does the shop look right?" }, timeout: None, interval: 10s, on_fail: Stop, on_inconclusive: Pause }
    Gate { name: "smoke", after: Each, check: Command { command: "bin/smoke.sh --all" }, timeout: Some(300s), interval: 10s, on_fail: Stop, on_inconclusive: Pause }
    Gate { name: "errors", after: Last, check: Plugin { plugin: "nginx", config: "{\"below\":0.5}" }, timeout: Some(3600s), interval: 1s, on_fail: Rollback, on_inconclusive: Continue }
    Gate { name: "at night", after: Each, check: Approval { ask: "Go?" }, timeout: Some(28800s), interval: 10s, on_fail: Stop, on_inconclusive: Pause }
    "#);
}

#[test]
fn refuses_keys_of_another_strategy_by_name() {
    assert_snapshot!(check_five("first_batch: 1, remaining_batches: 2, traffic: 10%, promote: manual, bake: 5m, retire: keep"), @"
    f:7:20: `first_batch` is a key of the strategy `canary`, and this is `rolling`
      hint: use `batches`, for example `batches: [1, 50%, 100%]`, or set `type: canary`
    f:7:36: `remaining_batches` is a key of the strategy `canary`, and this is `rolling`
      hint: use `batches`, for example `batches: [1, 50%, 100%]`, or set `type: canary`
    f:7:58: `traffic` is a key of the strategy `canary`, and this is `rolling`
      hint: leave it out, or set `type: canary`
    f:7:72: `promote` is a key of the strategy `canary`, and this is `rolling`
      hint: leave it out, or set `type: canary`
    f:7:89: `bake` is a key of the strategy `blue-green`, and this is `rolling`
      hint: leave it out, or set `type: blue-green`
    f:7:99: `retire` is a key of the strategy `blue-green`, and this is `rolling`
      hint: leave it out, or set `type: blue-green`
    ");
    assert_snapshot!(check_colours(", minimum_healthy: 1, traffic: 10%, first_batch: 1", TRAFFIC), @"
    f:6:38: `minimum_healthy` is a key of the strategies `rolling` and `canary`, and this is `blue-green`
      hint: leave it out: the side that changes serves nothing while it does
    f:6:58: `traffic` is a key of the strategy `canary`, and this is `blue-green`
      hint: leave it out: all of the traffic is switched at once
    f:6:72: `first_batch` is a key of the strategy `canary`, and this is `blue-green`
      hint: use `batches`, for example `batches: [1, 50%, 100%]`, or set `type: canary`
    ");
    assert_snapshot!(check_canary(", concurrency: 2, batches: 2, bake: 1m", ""), @"
    f:6:34: `concurrency` is a key of the strategies `rolling` and `blue-green`, and this is `canary`
      hint: give a canary `first_batch` and `remaining_batches`
    f:6:50: `batches` is a key of the strategies `rolling` and `blue-green`, and this is `canary`
      hint: give a canary `first_batch` and `remaining_batches`
    f:6:62: `bake` is a key of the strategy `blue-green`, and this is `canary`
      hint: leave it out, or set `type: blue-green`
    ");
}

#[test]
fn refuses_unfit_values_of_every_key_at_once() {
    assert_snapshot!(check_five("batches: 0, wait_between: 30, spread_by: [zone], minimum_healthy: most, batch_failure_threshold: 0%"), @"
    f:7:29: `batches`: expected a number of batches such as `3`, or a list such as `[1, 50%, 100%]`, found number `0`
    f:7:46: `wait_between`: expected a duration such as `30s`, `5m` or `1h`, found number `30`
      hint: write `30s`
    f:7:61: `spread_by`: expected text, found a list
    f:7:86: `minimum_healthy`: expected a number of instances such as `2`, or a share from `1%` to `100%`, found text `most`
    f:7:117: `batch_failure_threshold`: expected a number of instances such as `2`, or a share from `1%` to `100%`, found text `0%`
    ");
    assert_snapshot!(check_canary(", first_batch: one, remaining_batches: 0, traffic: 20, promote: soon", BALANCED), @"
    f:6:47: `first_batch`: expected a whole number of at least 1, found text `one`
    f:6:71: `remaining_batches`: expected a whole number of at least 1, found number `0`
    f:6:83: `traffic`: expected a share of the traffic from `1%` to `99%`, found number `20`
      hint: write `20%`
    f:6:96: `promote`: expected `manual` or `{after: DURATION}`, for example `{after: 10m}`, found text `soon`
    ");
    assert_snapshot!(check_canary(", traffic: 100%, promote: {before: 5m}", BALANCED), @"
    f:6:43: `traffic`: expected a share of the traffic from `1%` to `99%`, found text `100%`
    f:6:58: missing key `after`
    f:6:59: unknown key `before`; expected one of `after`
    ");
    assert_snapshot!(check_canary(", traffic: 0.5%, promote: after lunch", BALANCED), @"
    f:6:43: `traffic`: expected a share of the traffic from `1%` to `99%`, found text `0.5%`
    f:6:58: `promote`: expected a duration such as `30s`, `5m` or `1h`, found text `after lunch`
    ");
    assert_snapshot!(check_colours(", bake: 0s, retire: never, batches: 50%", TRAFFIC), @"
    f:6:44: `bake` must be longer than nothing
    f:6:56: `retire`: expected one of `keep`, `stop`, found text `never`
    f:6:72: `batches`: expected a number of batches such as `3`, or a list such as `[1, 50%, 100%]`, found text `50%`
      hint: for that many at a time write `concurrency: 50%`
    ");
    assert_snapshot!(check("instances: [{id: a, host: 'local:'}]\nstrategy: [rolling]\nsides: blue\ntraffic: nginx\ngates: {name: x}"), @"
    f:7:19: `strategy`: expected a mapping with the keys `type`, `concurrency`, `batches`, `first_batch`, `remaining_batches`, `wait_between`, `spread_by`, `minimum_healthy`, `failure_threshold`, `batch_failure_threshold`, `on_failure`, `traffic`, `promote`, `bake`, `retire`, found a list
    f:8:16: `sides`: expected a mapping of two names to sides, found text `blue`
    f:9:18: `traffic`: expected a mapping with the keys `plugin`, `config`, `timeout`, found text `nginx`
    f:10:16: `gates`: expected a list of gates, found a mapping
      hint: begin each item with `- `, or write `[…]`
    ");
}

#[test]
fn unknown_keys_are_refused_with_what_was_meant() {
    assert_snapshot!(check_canary(", first_bach: 1", "side: {}\ntrafic: {}\ngate: []"), @"
    f:6:34: unknown key `first_bach`; expected one of `type`, `concurrency`, `batches`, `first_batch`, `remaining_batches`, `wait_between`, `spread_by`, `minimum_healthy`, `failure_threshold`, `batch_failure_threshold`, `on_failure`, `traffic`, `promote`, `bake`, `retire`
      hint: did you mean `first_batch`?
    f:8:9: unknown key `side`; expected one of `service_id`, `rootdir`, `env`, `ssh`, `instances`, `sides`, `strategy`, `load_balancer`, `traffic`, `gates`, `scripts`, `appspec`, `build`, `keep_revisions`
      hint: did you mean `sides`?
    f:9:9: unknown key `trafic`; expected one of `service_id`, `rootdir`, `env`, `ssh`, `instances`, `sides`, `strategy`, `load_balancer`, `traffic`, `gates`, `scripts`, `appspec`, `build`, `keep_revisions`
      hint: did you mean `traffic`?
    f:10:9: unknown key `gate`; expected one of `service_id`, `rootdir`, `env`, `ssh`, `instances`, `sides`, `strategy`, `load_balancer`, `traffic`, `gates`, `scripts`, `appspec`, `build`, `keep_revisions`
      hint: did you mean `gates`?
    ");
    assert_snapshot!(check(&format!("strategy: {{type: blue_green}}\nsides: {{blue: {{grp: {{}}, instance: []}}, green: {{instances: {}}}}}\ntraffic: {{plugn: nginx}}\ngates: [{{nam: x, aprove: y}}]", instances("g", 1))), @"
    f:6:26: `type`: expected one of `rolling`, `blue-green`, `canary`, found text `blue_green`
      hint: did you mean `blue-green`?
    f:7:24: unknown key `grp`; expected one of `group`, `instances`
    f:7:33: unknown key `instance`; expected one of `group`, `instances`
      hint: did you mean `instances`?
    f:8:19: unknown key `plugn`; expected one of `plugin`, `config`, `timeout`
      hint: did you mean `plugin`?
    f:9:18: unknown key `nam`; expected one of `name`, `after`, `approve`, `command`, `plugin`, `config`, `timeout`, `interval`, `on_fail`, `on_inconclusive`
      hint: did you mean `name`?
    f:9:26: unknown key `aprove`; expected one of `name`, `after`, `approve`, `command`, `plugin`, `config`, `timeout`, `interval`, `on_fail`, `on_inconclusive`
      hint: did you mean `approve`?
    ");
}

#[test]
fn concurrency_and_batches_exclude_each_other() {
    assert_snapshot!(check_five("concurrency: 2, batches: 2"), @"
    f:7:36: `concurrency` and `batches` exclude each other
      hint: keep `concurrency` for a sliding window, `batches` where each batch ends before the next begins
    ");
    assert_snapshot!(check_five("batches: [1, 100%], concurrency: 0"), @"
    f:7:40: `concurrency` and `batches` exclude each other
      hint: keep `concurrency` for a sliding window, `batches` where each batch ends before the next begins
    f:7:53: `concurrency`: expected a number of instances such as `2`, or a share from `1%` to `100%`, found number `0`
    ");
}

#[test]
fn a_list_of_batches_grows_and_ends_with_all_instances() {
    assert_snapshot!(check_five("batches: []"), @"
    f:7:29: `batches` is an empty list
      hint: say how far each batch reaches, for example `[1, 10%, 50%, 100%]`
    ");
    assert_snapshot!(check_five("batches: [2, 2, 10%, 10%, 100%]"), @"
    f:7:33: `batches`: the list has to grow, and `2` comes after `2`
      hint: each amount says how many instances are done by then, those of earlier batches included
    f:7:36: `batches`: the list has to grow, and `10%` (1) comes after `2` (2): the group has 5 instances
      hint: each amount says how many instances are done by then, those of earlier batches included
    f:7:41: `batches`: the list has to grow, and `10%` comes after `10%`
      hint: each amount says how many instances are done by then, those of earlier batches included
    ");
    assert_snapshot!(check_five("batches: [3, 40%, 100%]"), @"
    f:7:33: `batches`: the list has to grow, and `40%` (2) comes after `3` (3): the group has 5 instances
      hint: each amount says how many instances are done by then, those of earlier batches included
    ");
    assert_snapshot!(check_five("batches: [1, 50%]"), @"
    f:7:33: `batches`: the list ends with `50%`, and has to end with all instances
      hint: end the list with `100%`
    ");
    assert_snapshot!(check_five("batches: [1, 4]"), @"
    f:7:33: `batches`: the list ends with `4`, and the group has 5 instances
      hint: end the list with `100%`
    ");
    assert_snapshot!(check_five("batches: [1, 6]"), @"
    f:7:33: `batches`: the list ends with `6`, and the group has 5 instances
      hint: end the list with `100%`
    ");
    assert_snapshot!(check_five("batches: [1, 0, half, 101%]"), @"
    f:7:33: `batches`: expected a number of instances such as `2`, or a share from `1%` to `100%`, found number `0`
    f:7:36: `batches`: expected a number of instances such as `2`, or a share from `1%` to `100%`, found text `half`
    f:7:42: `batches`: expected a number of instances such as `2`, or a share from `1%` to `100%`, found text `101%`
    ");
    assert_snapshot!(check_colours(", batches: [1, 2]", TRAFFIC), @"
    f:6:51: `batches`: the list ends with `2`, and the side `green` has 3 instances
      hint: end the list with `100%`
    ");
}

#[test]
fn minimum_healthy_leaves_an_instance_that_may_start() {
    assert_snapshot!(check_five("minimum_healthy: 5"), @"
    f:7:37: `minimum_healthy`: with `5` no instance could ever start: the group has 5 instances, and none of them is to spare
      hint: use at most `4`
    ");
    assert_snapshot!(check_five("minimum_healthy: 100%"), @"
    f:7:37: `minimum_healthy`: with `100%` no instance could ever start: the group has 5 instances, and none of them is to spare
      hint: use at most `4`
    ");
    assert_snapshot!(check_canary(", minimum_healthy: 9", ""), @"
    f:6:51: `minimum_healthy`: with `9` no instance could ever start: the group has 5 instances, and none of them is to spare
      hint: use at most `4`
    ");
    assert_snapshot!(check(&format!("instances: {}\nstrategy: {{minimum_healthy: 50%}}", instances("w", 1))), @"
    f:7:37: `minimum_healthy`: with `50%` no instance could ever start: the group has 1 instance, and none of them is to spare
      hint: leave it out, or add instances
    ");
}

#[test]
fn a_canary_fits_its_instances() {
    assert_snapshot!(check(&format!("instances: {}\nstrategy: {{type: canary}}", instances("w", 1))), @"
    f:7:26: a canary needs at least 2 instances, and the group has 1 instance
      hint: add instances, or set `type: rolling`
    ");
    assert_snapshot!(check_canary(", first_batch: 5", ""), @"f:6:47: `first_batch`: expected a number from 1 to 4, found `5`: the group has 5 instances, and one has to remain");
    assert_snapshot!(check_canary(", first_batch: 2, remaining_batches: 4", ""), @"f:6:69: `remaining_batches`: expected a number from 1 to 3, found `4`: the group has 5 instances, 2 of them in the first batch");
}

#[test]
fn what_is_spread_by_is_a_label_of_the_instances() {
    assert_snapshot!(check_five("spread_by: zon"), @"
    f:7:31: `spread_by`: no instance has a label `zon=…`
      hint: did you mean `zone`?
    ");
    assert_snapshot!(check_five("spread_by: zone=1"), @"
    f:7:31: `spread_by`: no instance has a label `zone=1=…`
      hint: name the label without its value: `zone`
    ");
    assert_snapshot!(check_five("spread_by: rack"), @"
    f:7:31: `spread_by`: no instance has a label `rack=…`
      hint: give the instances labels such as `labels: [rack=a]`
    ");
}

#[test]
fn a_blue_green_group_has_two_sides_with_instances_and_traffic() {
    assert_snapshot!(check("strategy: {type: blue-green}"), @"
    f:6:9: missing key `sides`: the strategy `blue-green` goes from one to the other
      hint: write `sides: {blue: {group: {…}, instances: […]}, green: {group: {…}, instances: […]}}`
    f:6:9: missing key `traffic`: the strategy `blue-green` switches it from side to side
      hint: write `traffic: {plugin: NAME, config: {…}}`
    ");
    assert_snapshot!(check(&format!("strategy: {{type: blue-green}}\ninstances: {0}\nsides: {{blue: {{}}, green: {{instances: []}}}}\ntraffic: {{}}", instances("w", 2))), @"
    f:7:9: `instances`: in a `blue-green` group they belong to the sides
      hint: move them: `sides: {blue: {instances: […]}, green: {instances: […]}}`
    f:8:23: missing key `instances`
    f:8:46: a group needs at least one instance
    f:9:18: missing key `plugin`
    ");
    assert_snapshot!(check(&format!("strategy: {{type: blue-green}}\nsides: {{blue: {{instances: {}}}}}\n{TRAFFIC}", instances("b", 1))), @"
    f:7:16: `sides`: expected two sides, found 1
      hint: name two, for example `blue` and `green`
    ");
    assert_snapshot!(check(&format!("strategy: {{type: blue-green}}\nsides: {{.a: {{instances: {}}}, b: , c: x}}\n{TRAFFIC}", instances("b", 1))), @"
    f:7:16: `sides`: expected two sides, found 3
      hint: name two, for example `blue` and `green`
    f:7:17: `.a` is not a valid name: use at most 64 letters, digits, `-`, `_` and `.`, not starting with `.` or `-`
    f:7:99: `b`: expected a mapping with the keys `group`, `instances`, found nothing
    f:7:106: `c`: expected a mapping with the keys `group`, `instances`, found text `x`
    ");
    assert_snapshot!(check(&format!("strategy: {{type: blue-green}}\nsides:\n  blue: {{group: [], instances: {0}}}\n  green: {{instances: {0}}}\n{TRAFFIC}", instances("w", 1))), @"
    f:8:25: `group`: expected a mapping, found a list
    f:9:31: the instance `w1` is given twice, first on line 8
    ");
    assert_snapshot!(check("strategy: {type: blue-green}\nsides:\n  blue: {instances: [{id: b, host: 'local:'}]}\n  green: {instances: [{id: g, host: 'local:'}]}\ntraffic: {plugin: ngnx}"), @"
    f:9:31: `b` and `g` share the rootdir `/opt/cutover` on one host
      hint: give each instance a `rootdir` of its own
    f:10:27: the plugin `ngnx` is not declared; `plugins` has `haproxy`, `nginx`
      hint: did you mean `nginx`?
    ");
}

#[test]
fn a_canary_has_its_instances_in_the_group() {
    assert_snapshot!(check(&format!("strategy: {{type: canary}}\nsides: {{current: {{instances: {}}}, new: {{}}}}\n{BALANCED}", instances("w", 2))), @"
    f:7:27: `instances`: in a `canary` group they belong to the group and move to the side `current`
      hint: list them under `instances` of the group, beside `sides`
    ");
    assert_snapshot!(check_canary(", traffic: 10%", "sides: {current: {}, new: {}}"), @"
    f:6:34: `traffic` needs the group's `traffic`: nothing moves the traffic without it
      hint: write `traffic: {plugin: NAME, config: {…}}` in the group, or leave this out
    f:8:9: `sides` needs the group's `traffic`: nothing moves the traffic without it
      hint: write `traffic: {plugin: NAME, config: {…}}` in the group, or leave this out
    ");
    assert_snapshot!(check_canary(", traffic: 10%", TRAFFIC), @"
    f:8:9: `traffic` of a `canary` needs a `load_balancer` too: its instances leave one side and join the other
      hint: write `load_balancer: {plugin: NAME, config: {…}}`
    ");
}

#[test]
fn a_rolling_group_has_neither_sides_nor_traffic() {
    assert_snapshot!(check(&format!("instances: {}\nsides: {{a: {{}}, b: {{}}}}\n{TRAFFIC}", instances("w", 2))), @"
    f:7:9: `sides` are for the strategies `blue-green` and `canary`, and this is `rolling`
      hint: set the `type` of `strategy`, or list the instances under `instances` alone
    f:8:9: `traffic` is for the strategies `blue-green` and `canary`, and this is `rolling`
      hint: set the `type` of `strategy`; instances of a rolling deployment leave and join a `load_balancer`
    ");
    assert_snapshot!(check(&format!("sides: {{a: {{instances: {}}}, b: {{instances: {}}}}}", instances("a", 1), instances("b", 1))), @"
    f:6:9: `sides` are for the strategies `blue-green` and `canary`, and this is `rolling`
      hint: set the `type` of `strategy`, or list the instances under `instances` alone
    ");
}

#[test]
fn a_gate_has_one_check() {
    assert_snapshot!(check(&format!("instances: {}\ngates:\n  - {{name: a}}\n  - {{name: b, approve: Go?, command: 'true'}}\n  - {{name: c, command: 'true', config: {{}}}}\n  - {{name: d, plugin: prometeus}}\n  - {{name: e, approve: Go?, interval: 5s}}\n  - {{command: 'true', after: every, on_fail: halt, timeout: 5}}\n  - {{name: f, command: 'true'}}\n  - {{name: f, command: 'false'}}\n  - smoke", instances("w", 2))), @"
    f:8:13: expected one of the keys `approve`, `command`, `plugin`
    f:9:13: `approve`, `command` and `plugin` exclude each other
      hint: make a gate of each: a deployment passes all of them, in order
    f:10:40: `config` is for a gate with `plugin`
      hint: name the plugin, or leave `config` out
    f:11:31: the plugin `prometeus` is not declared; `plugins` has `haproxy`, `nginx`
      hint: declare it: `plugins: {prometeus: {component: …}}`
    f:12:37: `interval` is for gates that are evaluated again and again, and this one asks a person
      hint: leave it out
    f:13:13: missing key `name`
    f:13:38: `after`: expected one of `first`, `each`, `last`, found text `every`
    f:13:54: `on_fail`: expected one of `continue`, `pause`, `stop`, `rollback`, found text `halt`
    f:13:69: `timeout`: expected a duration such as `30s`, `5m` or `1h`, found number `5`
      hint: write `5s`
    f:15:13: the gate `f` is given twice, first on line 14
    f:16:13: `gates`: expected a mapping with the keys `name`, `after`, `approve`, `command`, `plugin`, `config`, `timeout`, `interval`, `on_fail`, `on_inconclusive`, found text `smoke`
    ");
    assert_snapshot!(check(&format!("instances: {}\ngates: [{{name: {}, command: x}}, {{name: \"a\\nb\", command: x}}]", instances("w", 2), "n".repeat(65))), @r"
    f:7:24: `name`: `nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn…` is not the name of a gate: use one line of at most 64 characters
    f:7:111: `name`: `a\nb` is not the name of a gate: use one line of at most 64 characters
    ");
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        (1..15u32).prop_map(Amount::Count),
        (1..=100u8).prop_map(Amount::Percent)
    ]
}

const EVERYTHING: &str = r#"plugins: {lb: {component: lb}}
applications:
  shop:
    groups:
      colours:
        strategy: {type: blue-green, batches: [1, 100%], bake: 5m, retire: stop, wait_between: 1s, spread_by: zone}
        sides:
          blue: {group: {backend: b}, instances: [{id: b1, host: 'local:', rootdir: /srv/b, labels: [zone=a]}]}
          green: {instances: [{id: g1, host: 'local:', rootdir: /srv/g}]}
        traffic: {plugin: lb, config: {map: shop}, timeout: 90s}
        gates: [{name: go, approve: 'Go?', after: last}, {name: smoke, command: 'true', on_fail: pause}]
      canary:
        strategy: {type: canary, first_batch: 1, remaining_batches: 1, traffic: 20%, promote: {after: 10m}, minimum_healthy: 1}
        instances: [{id: w1, host: 'local:'}, {id: w2, host: 'local:', rootdir: /srv/w2}]
        sides: {current: {group: {backend: c}}, new: {}}
        load_balancer: {plugin: lb}
        traffic: {plugin: lb}
        gates: [{name: errors, plugin: lb, config: {below: 1}, interval: 5s, timeout: 1m, on_inconclusive: continue}]
"#;

#[test]
fn reads_several_strategies_in_one_workspace() {
    let parsed = parse(EVERYTHING, Path::new("f")).unwrap();

    let names: Vec<_> = parsed
        .value
        .groups
        .iter()
        .map(|group| group.strategy.name())
        .collect();
    assert_eq!(names, ["blue-green", "canary"]);
}

proptest! {
    #[test]
    fn a_damaged_file_never_panics_and_problems_point_into_it(cut in 0..EVERYTHING.len(), length in 0..60usize, junk in "(?s)[ -~\n]{0,12}") {
        let (start, end) = (cut, (cut + length).min(EVERYTHING.len()));
        let text = format!("{}{junk}{}", &EVERYTHING[..start], &EVERYTHING[end..]);

        if let Err(problems) = parse(&text, Path::new("f")) {
            prop_assert!(problems.has_errors());
            for problem in problems {
                prop_assert!((1..=text.split(['\n', '\r']).count()).contains(&problem.line), "{}", problem);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_canary_is_taken_just_when_each_of_its_batches_has_an_instance(total in 1..10usize, first in 0..12usize, rest in 0..12usize) {
        let lines = format!("instances: {}\nstrategy: {{type: canary, first_batch: {first}, remaining_batches: {rest}}}", instances("w", total));
        let fits = total >= 2 && (1..total).contains(&first) && rest >= 1 && rest <= total - first;

        let group = read(&lines);

        prop_assert_eq!(group.is_ok(), fits, "{:?}", group);
        if let Ok(group) = group {
            let sizes = group.batching.sizes(total);
            prop_assert_eq!(sizes.len(), rest + 1);
            prop_assert_eq!(sizes[0], first);
        }
    }

    #[test]
    fn minimum_healthy_is_taken_just_when_it_leaves_one(total in 1..15usize, amount in amount()) {
        let lines = format!("instances: {}\nstrategy: {{minimum_healthy: {amount}}}", instances("w", total));

        let group = read(&lines);

        prop_assert_eq!(group.is_ok(), amount.of(total) < total, "{:?}", group);
    }

    #[test]
    fn a_list_of_batches_that_is_taken_reaches_each_of_its_amounts(total in 1..15usize, amounts in proptest::collection::vec(amount(), 1..5)) {
        let list: Vec<_> = amounts.iter().map(ToString::to_string).collect();
        let lines = format!("instances: {}\nstrategy: {{batches: [{}]}}", instances("w", total), list.join(", "));

        let Ok(group) = read(&lines) else {
            return Ok(());
        };

        let reached: Vec<_> = group.batching.sizes(total).iter().scan(0, |sum, size| {
            *sum += size;
            Some(*sum)
        }).collect();
        for amount in amounts {
            prop_assert!(reached.contains(&amount.of(total).min(total)), "{} in {:?}", amount, reached);
        }
    }

    #[test]
    fn growing_shares_that_end_with_all_are_taken_as_they_are(total in 1..15usize, shares in proptest::collection::btree_set(1..100u8, 0..6)) {
        let amounts: Vec<_> = shares.into_iter().chain([100]).map(Amount::Percent).collect();
        let list: Vec<_> = amounts.iter().map(ToString::to_string).collect();
        let lines = format!("instances: {}\nstrategy: {{batches: [{}]}}", instances("w", total), list.join(", "));

        let group = read(&lines);

        prop_assert_eq!(group.map(|group| group.batching), Ok(model::Batching::Growing(amounts)));
    }
}
