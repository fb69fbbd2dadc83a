//! Release plans: what they mean, and that everything that is wrong with one is said at its place.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

use insta::assert_snapshot;
use proptest::prelude::*;
use spec::release_plan::{self, Item, KINDS, ReleasePlan};
use spec::{Parsed, Problems};

/// The example of the document that the format comes from, as it stands there.
const EXAMPLE: &str = include_str!("release_plans/example.yaml");
/// The same with real values.
const COMPLETED: &str = include_str!("release_plans/completed.yaml");

fn parse(text: &str) -> Result<Parsed<ReleasePlan>, Problems> {
    release_plan::parse(text, Path::new("plan.yaml"))
}

/// The items in brief, then all problems with their hints.
fn check(text: &str) -> String {
    let mut out = String::new();
    let problems = match parse(text) {
        Ok(parsed) => {
            if !parsed.value.comment.is_empty() {
                writeln!(out, "# {}", parsed.value.comment).unwrap();
            }
            for item in &parsed.value.items {
                writeln!(out, "{}", brief(item)).unwrap();
            }
            parsed.warnings
        }
        Err(problems) => problems,
    };
    for problem in &problems {
        writeln!(out, "{problem:#}").unwrap();
    }
    out
}

fn brief(item: &Item) -> String {
    let Item {
        service_id,
        kind,
        priority,
        exec_method,
        labels,
        http_src_uri,
        compile,
        extra,
        ..
    } = item;
    let mut out = format!("{service_id} {kind} at {priority}");
    if let Some(method) = exec_method {
        write!(out, " {method:?}").unwrap();
    }
    if !labels.is_empty() {
        write!(out, " on {labels:?}").unwrap();
    }
    if let Some(uri) = http_src_uri {
        write!(out, " from {uri}").unwrap();
    }
    if let Some(compile) = compile {
        write!(out, " of {} {}", compile.repo_path, compile.repo_branch).unwrap();
    }
    if !extra.is_empty() {
        write!(out, " with {}", serde_json::to_string(extra).unwrap()).unwrap();
    }
    out
}

/// A plan with one item that has these lines.
fn check_item(lines: &str) -> String {
    let lines = lines.replace('\n', "\n    ");
    check(&format!("deployPlanItems:\n  - {lines}\n"))
}

#[test]
fn the_example_of_the_format_says_what_is_left_open_in_it() {
    assert_snapshot!(check(EXAMPLE), @"
    plan.yaml:10:4: warning: service 111: `compileRepoPath` has no effect: `HTTP_UPLOAD_DEPLOY` deploys what is at `httpSrcUri`
      hint: leave it out
    plan.yaml:11:4: warning: service 111: `compileRepoBranch` has no effect: `HTTP_UPLOAD_DEPLOY` deploys what is at `httpSrcUri`
      hint: leave it out
    plan.yaml:18:4: `...` stands for what an example leaves out, and is no part of a plan
      hint: write what belongs there, or leave the line out
    ");
}

#[test]
fn the_completed_example_is_a_plan() {
    assert_snapshot!(check(COMPLETED), @r#"
    # 这是一个发布计划的注释
    111 HTTP_UPLOAD_DEPLOY at 3 Parallel on ["label1"] from https://packages.example.com/shop-1.2.0.zip
    222 STOP at 1 Parallel
    plan.yaml:10:4: warning: service 111: `compileRepoPath` has no effect: `HTTP_UPLOAD_DEPLOY` deploys what is at `httpSrcUri`
      hint: leave it out
    plan.yaml:11:4: warning: service 111: `compileRepoBranch` has no effect: `HTTP_UPLOAD_DEPLOY` deploys what is at `httpSrcUri`
      hint: leave it out
    "#);
}

#[test]
fn the_documentation_shows_plans_and_workspaces_that_are_some() {
    let page = include_str!("../../docs/release-plans.md");
    let blocks: Vec<_> = page
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    let [plan, workspace, grants, own_kind] = blocks.as_slice() else {
        panic!("{blocks:?}");
    };

    assert_eq!(parse(plan).unwrap().value.items.len(), 2);
    assert!(parse(plan).unwrap().warnings.is_empty());
    let workspace = spec::workspace::parse(workspace, Path::new("cutover.yaml")).unwrap();
    assert!(workspace.value.groups[0].build.is_some());
    assert!(release_plan::is_likely(plan));
    let group = "applications: {a: {groups: {g: {instances: [{id: i, host: 'local:'}]}}}}\n";
    let granted = format!("{grants}{group}");
    spec::workspace::parse(&granted, Path::new("cutover.yaml")).unwrap();
    assert_eq!(parse(own_kind).unwrap().value.items[0].kind, "MIGRATE");
}

#[test]
fn reads_all_kinds() {
    assert_snapshot!(check(r#"
comment: 1.10
deployPlanItems:
  - {serviceId: 1, deployment: START, priority: -5}
  - {serviceId: 2, deployment: STOP, containerExecMethod: SEQUENTIAL, deployLabel: ' a ,zone=b,a'}
  - {serviceId: '3', deployment: "RESTART", priority: '7'}
  - {serviceId: 18446744073709551615, deployment: HTTP_UPLOAD_DEPLOY, httpSrcUri: 'https://h/a.zip#sha256=00'}
  - {serviceId: 5, deployment: COMPILE_DEPLOY, compileRepoPath: 'git@h:a/b.git', compileRepoBranch: 1.10}
"#), @r#"
    # 1.10
    1 START at -5
    2 STOP at 0 Sequential on ["a", "zone=b"]
    3 RESTART at 7
    18446744073709551615 HTTP_UPLOAD_DEPLOY at 0 from https://h/a.zip#sha256=00
    5 COMPILE_DEPLOY at 0 of git@h:a/b.git 1.10
    "#);
}

#[test]
fn another_kind_is_a_plugins_and_keeps_its_keys() {
    let text = "deployPlanItems:\n- serviceId: 7\n  deployment: FUNCTION_DEPLOY\n  region: north\n  memory: 256\n  aliases: [live, {name: next, weight: 0.5}]\n  httpSrcUri: https://h/f.zip\n  deployLabel: 1.10\n";

    assert_snapshot!(check(text), @r#"7 FUNCTION_DEPLOY at 0 on ["1.10"] from https://h/f.zip with {"aliases":["live",{"name":"next","weight":0.5}],"memory":256,"region":"north"}"#);
    assert_snapshot!(parse(text).unwrap().value.items[0].json, @r#"{"aliases":["live",{"name":"next","weight":0.5}],"deployLabel":"1.10","deployment":"FUNCTION_DEPLOY","httpSrcUri":"https://h/f.zip","memory":256,"region":"north","serviceId":7}"#);
}

#[test]
fn what_an_item_lacks_is_named_with_its_service() {
    assert_snapshot!(check_item("serviceId: 111\ndeployment: HTTP_UPLOAD_DEPLOY"), @"
    plan.yaml:2:5: service 111: missing key `httpSrcUri`: `HTTP_UPLOAD_DEPLOY` deploys the package that is there
      hint: write `httpSrcUri: https://…`
    ");
    assert_snapshot!(check_item("serviceId: 111\ndeployment: COMPILE_DEPLOY\nhttpSrcUri: https://h/a"), @"
    plan.yaml:2:5: service 111: missing key `compileRepoPath`: `COMPILE_DEPLOY` builds what is in that Git repository
      hint: write `compileRepoPath: https://…`
    plan.yaml:2:5: service 111: missing key `compileRepoBranch`: `COMPILE_DEPLOY` builds what is on that branch
      hint: write `compileRepoBranch: main`, or whichever it is
    plan.yaml:4:5: warning: service 111: `httpSrcUri` has no effect: `COMPILE_DEPLOY` builds what is in `compileRepoPath`
      hint: leave it out
    ");
    assert_snapshot!(check_item("serviceId: 111\ndeployment: COMPILE_DEPLOY\ncompileRepoPath: https://h/a\ncompileRepoBranch:"), @"
    plan.yaml:5:5: service 111: missing key `compileRepoBranch`: `COMPILE_DEPLOY` builds what is on that branch
      hint: write `compileRepoBranch: main`, or whichever it is
    ");
    assert_snapshot!(check_item("serviceId: 111\npriority: 1"), @"plan.yaml:2:5: service 111: missing key `deployment`");
    assert_snapshot!(check_item("deployment: STOP"), @"plan.yaml:2:5: missing key `serviceId`");
    assert_snapshot!(check_item("serviceId:\ndeployment:"), @"
    plan.yaml:2:5: `serviceId` has no value
    plan.yaml:3:5: `deployment` has no value
    ");
    assert_snapshot!(check_item("{}"), @"
    plan.yaml:2:5: missing key `serviceId`
    plan.yaml:2:5: missing key `deployment`
    ");
}

#[test]
fn keys_in_the_wrong_case_name_the_right_one() {
    assert_snapshot!(check("Comment: x\ndeployplanitems: []\n"), @"
    plan.yaml:1:1: unknown key `Comment`: upper and lower case matter
      hint: write `comment`
    plan.yaml:2:1: unknown key `deployplanitems`: upper and lower case matter
      hint: write `deployPlanItems`
    ");
    assert_snapshot!(check_item("serviceID: 111\nDeployment: STOP"), @"
    plan.yaml:2:5: unknown key `serviceID`: upper and lower case matter
      hint: write `serviceId`
    plan.yaml:3:5: unknown key `Deployment`: upper and lower case matter
      hint: write `deployment`
    ");
    assert_snapshot!(check_item("serviceId: 111\ndeployment: HTTP_UPLOAD_DEPLOY\nHttpSrcUri: https://h/a\nPriority: 3\nContainerExecMethod: PARALLEL"), @"
    plan.yaml:4:5: service 111: unknown key `HttpSrcUri`: upper and lower case matter
      hint: write `httpSrcUri`
    plan.yaml:5:5: service 111: unknown key `Priority`: upper and lower case matter
      hint: write `priority`
    plan.yaml:6:5: service 111: unknown key `ContainerExecMethod`: upper and lower case matter
      hint: write `containerExecMethod`
    ");
    assert_snapshot!(check_item("serviceId: 111\ndeployment: FUNCTION\ndeploylabel: a\nregion: north"), @"
    plan.yaml:4:5: service 111: unknown key `deploylabel`: upper and lower case matter
      hint: write `deployLabel`
    ");
}

#[test]
fn keys_that_nobody_has_are_refused() {
    assert_snapshot!(check("coment: x\ndeployPlanItems: [{serviceId: 1, deployment: STOP}]\nother: 1\n"), @"
    plan.yaml:1:1: unknown key `coment`; expected one of `comment`, `deployPlanItems`
      hint: did you mean `comment`?
    plan.yaml:3:1: unknown key `other`; expected one of `comment`, `deployPlanItems`
    ");
    assert_snapshot!(check_item("serviceId: 111\ndeployment: STOP\ndeployLabels: a\nregion: north"), @"
    plan.yaml:4:5: service 111: unknown key `deployLabels`; expected one of `serviceId`, `deployment`, `priority`, `containerExecMethod`, `deployLabel`, `httpSrcUri`, `compileRepoPath`, `compileRepoBranch`
      hint: did you mean `deployLabel`?
    plan.yaml:5:5: service 111: unknown key `region`; expected one of `serviceId`, `deployment`, `priority`, `containerExecMethod`, `deployLabel`, `httpSrcUri`, `compileRepoPath`, `compileRepoBranch`
    ");
    assert_snapshot!(check_item("serviceId: 111\nregion: north\ndeploymnt: STOP"), @"
    plan.yaml:4:5: service 111: unknown key `deploymnt`; expected one of `serviceId`, `deployment`, `priority`, `containerExecMethod`, `deployLabel`, `httpSrcUri`, `compileRepoPath`, `compileRepoBranch`
      hint: did you mean `deployment`?
    ");
}

#[test]
fn keys_without_effect_are_told_of() {
    assert_snapshot!(check_item("serviceId: 111\ndeployment: STOP\nhttpSrcUri: https://h/a\ncompileRepoPath: [x]"), @"
    111 STOP at 0
    plan.yaml:4:5: warning: service 111: `httpSrcUri` has no effect: `STOP` installs nothing
      hint: leave it out
    plan.yaml:5:5: warning: service 111: `compileRepoPath` has no effect: `STOP` installs nothing
      hint: leave it out
    ");
    assert_snapshot!(check_item("serviceId: 111\ndeployment: HTTP_UPLOAD_DEPLOY\nhttpSrcUri: https://h/a\ncompileRepoBranch: main"), @"
    111 HTTP_UPLOAD_DEPLOY at 0 from https://h/a
    plan.yaml:5:5: warning: service 111: `compileRepoBranch` has no effect: `HTTP_UPLOAD_DEPLOY` deploys what is at `httpSrcUri`
      hint: leave it out
    ");
    assert_snapshot!(check_item("serviceId: 111\ndeployment: COMPILE_DEPLOY\nhttpSrcUri: https://h/a\ncompileRepoPath: https://h/a.git\ncompileRepoBranch: main"), @"
    111 COMPILE_DEPLOY at 0 of https://h/a.git main
    plan.yaml:4:5: warning: service 111: `httpSrcUri` has no effect: `COMPILE_DEPLOY` builds what is in `compileRepoPath`
      hint: leave it out
    ");
}

#[test]
fn values_that_do_not_fit_are_refused_at_once() {
    assert_snapshot!(check_item("serviceId: web\ndeployment: [STOP]\npriority: high\ncontainerExecMethod: parallel\ndeployLabel: [a, b]"), @"
    plan.yaml:2:16: `serviceId`: expected the `service_id` of a group, a whole number, found text `web`
    plan.yaml:3:17: `deployment`: expected text, found a list
    plan.yaml:4:15: `priority`: expected a whole number of 64 bits, such as `3` or `-1`, found text `high`
    plan.yaml:5:26: `containerExecMethod`: expected one of `PARALLEL`, `SEQUENTIAL`, found text `parallel`
      hint: did you mean `PARALLEL`?
    plan.yaml:6:18: `deployLabel`: expected labels separated by commas, found a list
    ");
    assert_snapshot!(check_item("serviceId: -1\ndeployment: HTTP UPLOAD\npriority: 1.5\ncontainerExecMethod: BOTH\ndeployLabel: a,,b"), @"
    plan.yaml:2:16: `serviceId`: expected the `service_id` of a group, a whole number, found number `-1`
    plan.yaml:3:17: `deployment`: expected a kind such as `RESTART`, without blanks, found text `HTTP UPLOAD`
    plan.yaml:4:15: `priority`: expected a whole number of 64 bits, such as `3` or `-1`, found number `1.5`
    plan.yaml:5:26: `containerExecMethod`: expected one of `PARALLEL`, `SEQUENTIAL`, found text `BOTH`
    plan.yaml:6:18: `deployLabel`: one of the labels in `a,,b` is empty
      hint: leave out the comma too many
    ");
    assert_snapshot!(check_item("serviceId: 1.0\ndeployment: HTTP_UPLOAD_DEPLOY\npriority: 9223372036854775808\ndeployLabel: a，b\nhttpSrcUri: https://h/a b.zip"), @"
    plan.yaml:2:16: `serviceId`: expected the `service_id` of a group, a whole number, found number `1.0`
    plan.yaml:4:15: `priority`: expected a whole number of 64 bits, such as `3` or `-1`, found number `9223372036854775808`
    plan.yaml:5:18: `deployLabel`: expected labels separated by commas, found text `a，b`
      hint: separate labels by `,`
    plan.yaml:6:17: `httpSrcUri`: expected a URI, without blanks, found text `https://h/a b.zip`
    ");
    assert_snapshot!(check_item("serviceId: 99999999999999999999\ndeployment: COMPILE_DEPLOY\ndeployLabel:\ncompileRepoPath: --upload-pack=x\ncompileRepoBranch: main..next"), @"
    plan.yaml:2:16: `serviceId`: expected the `service_id` of a group, a whole number, found number `99999999999999999999`
    plan.yaml:4:5: `deployLabel` has no value
      hint: leave the key out to release all instances
    plan.yaml:5:22: `compileRepoPath`: expected the URL of a Git repository, found text `--upload-pack=x`
    plan.yaml:6:24: `compileRepoBranch`: expected the name of a branch, such as `main`, found text `main..next`
    ");
    assert_snapshot!(check_item("serviceId: 1\ndeployment: FUNCTION\nregion: .inf\nhttpSrcUri: [a]"), @"
    plan.yaml:4:13: service 1: the number `.inf` cannot be passed on as JSON
    plan.yaml:5:17: service 1: `httpSrcUri`: expected text, found a list
    ");
    for branch in [
        "-b", "a b", "a~1", "/a", "a/", "a//b", "a.lock", ".a", "a@{1}", "@", "*",
    ] {
        let item = format!(
            "serviceId: 1\ndeployment: COMPILE_DEPLOY\ncompileRepoPath: p\ncompileRepoBranch: '{branch}'"
        );
        assert!(
            check_item(&item).contains("expected the name of a branch"),
            "{branch}"
        );
    }
    for branch in ["main", "feature/a-b_c.1", "版本/一", "a@b", "1"] {
        let item = format!(
            "serviceId: 1\ndeployment: COMPILE_DEPLOY\ncompileRepoPath: p\ncompileRepoBranch: '{branch}'"
        );
        assert_eq!(
            check_item(&item),
            format!("1 COMPILE_DEPLOY at 0 of p {branch}\n")
        );
    }
}

#[test]
fn a_password_is_refused_and_not_repeated() {
    assert_snapshot!(check_item("serviceId: 1\ndeployment: HTTP_UPLOAD_DEPLOY\nhttpSrcUri: https://me:hunter2@h/a"), @"
    plan.yaml:4:17: service 1: `httpSrcUri` carries a password
      hint: leave it out: what a plan says is recorded and reported
    ");
    assert_snapshot!(check_item("serviceId: 1\ndeployment: COMPILE_DEPLOY\ncompileRepoPath: https://me:hunter2@h/a b\ncompileRepoBranch: main"), @"
    plan.yaml:4:22: service 1: `compileRepoPath` carries a password
      hint: leave it out: what a plan says is recorded and reported
    ");
    assert_eq!(
        check_item("serviceId: 1\ndeployment: HTTP_UPLOAD_DEPLOY\nhttpSrcUri: https://h/a:b@c"),
        "1 HTTP_UPLOAD_DEPLOY at 0 from https://h/a:b@c\n"
    );
}

#[test]
fn a_service_has_one_item() {
    assert_snapshot!(check("
deployPlanItems:
  - {serviceId: 111, deployment: STOP}
  - {serviceId: 222, deployment: STOP}
  - serviceId: 111
    deployment: START
    Priority: 2
"), @"
    plan.yaml:5:16: service 111: the service has two items, the first on line 3
      hint: leave one of them out: a plan releases each service once
    plan.yaml:7:5: service 111: unknown key `Priority`: upper and lower case matter
      hint: write `priority`
    ");
}

#[test]
fn a_plan_has_items() {
    assert_snapshot!(check(""), @"plan.yaml:1:1: the file is empty");
    assert_snapshot!(check("# 计划\n"), @"plan.yaml:1:1: the file is empty");
    assert_snapshot!(check("comment: x\n"), @"plan.yaml:1:1: missing key `deployPlanItems`");
    assert_snapshot!(check("deployPlanItems:\n"), @"plan.yaml:1:1: `deployPlanItems` has no value");
    assert_snapshot!(check("deployPlanItems: []\n"), @"
    plan.yaml:1:18: `deployPlanItems` is empty: the plan releases nothing
      hint: give each service an item: `- {serviceId: ID, deployment: KIND}`
    ");
    assert_snapshot!(check("deployPlanItems: {serviceId: 1, deployment: STOP}\n"), @"
    plan.yaml:1:18: `deployPlanItems`: expected a list of items, one for each service, found a mapping
      hint: begin each item with `- `, or write `[…]`
    ");
    assert_snapshot!(check("deployPlanItems: 111\n"), @"
    plan.yaml:1:18: `deployPlanItems`: expected a list of items, one for each service, found number `111`
      hint: begin each item with `- `, or write `[…]`
    ");
    assert_snapshot!(check("deployPlanItems: [111, [], '', {serviceId: 1, deployment: STOP}]\n"), @"
    plan.yaml:1:19: `deployPlanItems`: expected a mapping with the keys `serviceId`, `deployment`, `priority`, `containerExecMethod`, `deployLabel`, `httpSrcUri`, `compileRepoPath`, `compileRepoBranch`, found number `111`
    plan.yaml:1:24: `deployPlanItems`: expected a mapping with the keys `serviceId`, `deployment`, `priority`, `containerExecMethod`, `deployLabel`, `httpSrcUri`, `compileRepoPath`, `compileRepoBranch`, found a list
    plan.yaml:1:28: `deployPlanItems`: expected a mapping with the keys `serviceId`, `deployment`, `priority`, `containerExecMethod`, `deployLabel`, `httpSrcUri`, `compileRepoPath`, `compileRepoBranch`, found empty text
    ");
    assert_snapshot!(check("[{serviceId: 1, deployment: STOP}]\n"), @"plan.yaml:1:1: expected a mapping with the keys `comment`, `deployPlanItems`, found a list");
    assert_snapshot!(check("comment: {a: b}\ndeployPlanItems: [{serviceId: 1, deployment: STOP}]\n"), @"plan.yaml:1:10: `comment`: expected text, found a mapping");
}

#[test]
fn text_that_is_no_yaml_is_refused_with_its_place() {
    assert_snapshot!(check("deployPlanItems:\n\t- serviceId: 1\n"), @"
    plan.yaml:2:2: not valid YAML: tabs disallowed within this context (block indentation)
      hint: indent with spaces, not with tabs
    ");
    assert_snapshot!(check("deployPlanItems:\n - serviceId: 1\n  deployment: STOP\n"), @"plan.yaml:3:3: not valid YAML: while parsing a block collection, did not find expected '-' indicator");
    assert_snapshot!(check("deployPlanItems:\n - serviceId: 1\n   deployment: STOP\n   deployment: START\n"), @"plan.yaml:4:4: the key `deployment` is given twice, first on line 3");
    assert_snapshot!(check("deployPlanItems:\n - serviceId:\t1\n"), @"
    plan.yaml:2:15: not valid YAML: ':' must be followed by a valid YAML whitespace
      hint: put a space after the `:` of a key, not a tab
    ");
    assert_snapshot!(check("deployPlanItems: [\n"), @"plan.yaml:1:19: not valid YAML: while parsing a node, did not find expected node content");
    assert_snapshot!(check("comment: a: b\ndeployPlanItems:\n - ...\n"), @r#"
    plan.yaml:1:11: not valid YAML: mapping values are not allowed in this context
      hint: put a value that contains `: ` or ends in `:` in quotes, for example "local:"
    plan.yaml:3:2: `- ...` stands for what an example leaves out, and is no part of a plan
      hint: write what belongs there, or leave the line out
    "#);
}

#[test]
fn windows_line_ends_tabs_and_byte_order_marks_are_taken() {
    let windows = format!("\u{feff}{}", COMPLETED.replace('\n', "\r\n"));

    assert_eq!(check(&windows), check(COMPLETED));
    assert_eq!(
        check("deployPlanItems:\t# x\n- serviceId: 1\t# y\n  deployment: STOP\t\n"),
        "1 STOP at 0\n"
    );
}

#[test]
fn anchors_serve_several_items() {
    assert_snapshot!(check("
deployPlanItems:
  - &web {serviceId: 1, deployment: HTTP_UPLOAD_DEPLOY, httpSrcUri: https://h/a, priority: 3}
  - {<<: *web, serviceId: 2, priority: 2}
"), @"
    1 HTTP_UPLOAD_DEPLOY at 3 from https://h/a
    2 HTTP_UPLOAD_DEPLOY at 2 from https://h/a
    ");
}

#[test]
fn other_encodings_are_refused() {
    let check = |bytes: &[u8]| match release_plan::parse_bytes(bytes, Path::new("plan.yaml")) {
        Ok(parsed) => format!("{} items", parsed.value.items.len()),
        Err(problems) => format!("{:#}", problems.0[0]),
    };

    assert_eq!(check(COMPLETED.as_bytes()), "2 items");
    assert_snapshot!(check(b"comment: x\ncomment: \xb7\xa2\xb2\xbc\n"), @"
    plan.yaml:2:10: the file is not UTF-8 text
      hint: save it as UTF-8
    ");
    assert_snapshot!(check(b"\xff\xfec\0o\0m\0"), @"
    plan.yaml:1:1: the file is not UTF-8 text
      hint: save it as UTF-8
    ");
}

#[test]
fn an_item_knows_where_each_of_its_values_is() {
    let text = "deployPlanItems:\n  - serviceId: 7\n    deployment: FUNCTION\n    mirrors:\n      - https://a\n      - {url: https://b, 'a/b~c': 1}\n    note: |\n      x\n";
    let plan = parse(text).unwrap().value;
    let place = |pointer: &str| {
        let at = plan.items[0].place(pointer);
        (at.line, at.column)
    };

    assert_eq!(place(""), (2, 5));
    assert_eq!(place("/serviceId"), (2, 16));
    assert_eq!(place("deployment"), (3, 17));
    assert_eq!(place("/mirrors"), (4, 5));
    assert_eq!(place("/mirrors/0"), (5, 9));
    assert_eq!(place("/mirrors/1/url"), (6, 15));
    assert_eq!(place("/mirrors/1/a~1b~0c"), (6, 35));
    assert_eq!(place("/mirrors/7/url"), (4, 5));
    assert_eq!(place("/missing/x"), (2, 5));
}

#[test]
fn a_kind_that_no_plugin_provides_names_the_likely_one() {
    let unknown = |kind: &str, provided: &[&str]| {
        let text = format!("deployPlanItems:\n- serviceId: 7\n  deployment: {kind}\n");
        let plan = parse(&text).unwrap().value;
        format!("{:#}", plan.unknown_kind(&plan.items[0], provided))
    };

    assert_snapshot!(unknown("Restart", &[]), @"
    plan.yaml:3:15: service 7: `deployment`: no plugin of the workspace provides the kind `Restart`
      hint: did you mean `RESTART`?
    ");
    assert_snapshot!(unknown("HTTP_UPLOAD_DEPOLY", &[]), @"
    plan.yaml:3:15: service 7: `deployment`: no plugin of the workspace provides the kind `HTTP_UPLOAD_DEPOLY`
      hint: did you mean `HTTP_UPLOAD_DEPLOY`?
    ");
    assert_snapshot!(unknown("FUNCTION", &["FUNCTIONS", "STOP"]), @"
    plan.yaml:3:15: service 7: `deployment`: no plugin of the workspace provides the kind `FUNCTION`
      hint: did you mean `FUNCTIONS`?
    ");
    assert_snapshot!(unknown("CONTAINER_DEPLOYMENT", &["FUNCTIONS", "STOP"]), @"
    plan.yaml:3:15: service 7: `deployment`: no plugin of the workspace provides the kind `CONTAINER_DEPLOYMENT`
      hint: write one of `START`, `STOP`, `RESTART`, `HTTP_UPLOAD_DEPLOY`, `COMPILE_DEPLOY`, `FUNCTIONS`, or declare a plugin that provides it
    ");
}

/// A plan that has everything, for taking pieces out of.
const WHOLE: &str = "comment: 计划\ndeployPlanItems:\n - serviceId: 1\n   deployment: COMPILE_DEPLOY\n   priority: -3\n   containerExecMethod: PARALLEL\n   deployLabel: a, b\n   compileRepoPath: https://h/a.git\n   compileRepoBranch: main\n - {serviceId: 2, deployment: FUNCTION, extra: {a: [1, 2]}}\n";

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_problems_point_into_the_file(text in "(?s).{0,80}|(deployPlanItems:|serviceId: |deployment: |priority: |- |\n|  |\t|\\.\\.\\.|[{}\\[\\]:,#&*!|]|STOP|[0-9a]){0,60}") {
        points_into(&text)?;
    }

    #[test]
    fn no_damage_makes_it_panic(start in 0usize..WHOLE.len(), length in 0usize..40, with in "(?s).{0,12}|[\\-\\[\\]{}:,&*!|>'\"%@#? \n\t]{0,12}") {
        let floor = |index: usize| (0..=index.min(WHOLE.len())).rev().find(|at| WHOLE.is_char_boundary(*at)).unwrap_or(0);
        let mut text = WHOLE.to_owned();
        text.replace_range(floor(start)..floor(start + length), &with);

        points_into(&text)?;
    }

    #[test]
    fn bytes_never_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = release_plan::parse_bytes(&bytes, Path::new("plan.yaml"));
    }

    #[test]
    fn what_an_item_says_is_what_its_json_says(
        service_id in any::<u64>(), kind in prop::sample::select(&KINDS[..3]), priority in any::<i64>(), labels in prop::collection::btree_set("[a-z0-9=.]{1,6}", 1..4),
    ) {
        let labels: Vec<_> = labels.into_iter().collect();
        let text = format!("deployPlanItems: [{{serviceId: {service_id}, deployment: {kind}, priority: {priority}, deployLabel: '{}'}}]", labels.join(" , "));

        let item = parse(&text).unwrap().value.items.remove(0);

        let json: serde_json::Value = serde_json::from_str(&item.json).unwrap();
        prop_assert_eq!(item.service_id, service_id);
        prop_assert_eq!(&json["serviceId"], &service_id);
        prop_assert_eq!(item.priority, priority);
        prop_assert_eq!(&json["priority"], &priority);
        prop_assert_eq!(&json["deployment"], &kind);
        prop_assert_eq!(item.labels, labels);
    }
}

fn points_into(text: &str) -> Result<(), TestCaseError> {
    let problems = match parse(text) {
        Ok(parsed) => parsed.warnings,
        Err(problems) => problems,
    };
    for problem in &problems {
        let line_count = text.split(['\n', '\r']).count();
        prop_assert!((1..=line_count).contains(&problem.line), "{}", problem);
    }
    Ok(())
}
