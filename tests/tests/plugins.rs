//! Plugins as an operator meets them: a load balancer that works, and every kind that does not.

#![allow(clippy::unwrap_used)]

use cutover_tests::{Answer, Site, target_folder};
use insta::assert_snapshot;

/// One instance behind the plugin `lb`, whose component is `component`, with further keys of the plugin.
fn behind(component: &str, more: &str, balancer: &str) -> Site {
    let site = Site::with_instances(1, &format!("        load_balancer: {balancer}\n"));
    let groups = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    site.write(
        "cutover.yaml",
        &format!("plugins:\n  lb:\n    component: {component}\n{more}{groups}"),
    );
    site.traced_package("v1", "1.0.0", "");
    site
}

fn unconfigured(component: &str) -> Site {
    behind(component, "", "{plugin: lb}")
}

/// A component that tests keep for this.
fn misbehaving(name: &str) -> String {
    let path = target_folder().join(format!("../components/{name}.wasm"));
    assert!(path.exists(), "run `cargo xtask components` first");
    path.display().to_string()
}

fn first_party(name: &str) -> Vec<u8> {
    let path = target_folder().join(format!("../plugins/{name}.wasm"));
    std::fs::read(path).expect("run `cargo xtask plugins` first")
}

fn deploy(site: &Site) -> Answer {
    site.cutover(&[
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "1.0.0",
    ])
}

/// What `deploy` says when it refuses the plugin, and changes nothing; `check` must refuse it too.
fn refusal(site: &Site) -> String {
    let (checked, answer) = (site.cutover(&["check"]), deploy(site));

    assert_eq!((checked.code, answer.code), (3, 3), "{}", answer.stderr);
    site.assert_untouched();
    site.normalised(&answer.stderr)
}

#[test]
fn what_is_no_plugin_is_refused_with_its_place() {
    let site = unconfigured("./lb.wasm");
    let refused = |bytes: &[u8]| {
        std::fs::write(site.path("lb.wasm"), bytes).unwrap();
        refusal(&site)
    };
    let component = |text: &str| wat::parse_str(text).unwrap();

    assert_snapshot!(refused(b"no WebAssembly at all"), @"
    error: cutover.yaml:2:3: load plugin `lb`
      because: plugin `lb` in `SITE/./lb.wasm` cannot be used
      because: the file is not WebAssembly
    ");
    assert_snapshot!(refused(&component("(module)")), @"
    error: cutover.yaml:2:3: load plugin `lb`
      because: plugin `lb` in `SITE/./lb.wasm` cannot be used
      because: the file is a WebAssembly module, not a component: make one of it with `wasm-tools component new`
    ");
    assert_snapshot!(refused(&component("(component)")), @"
    error: cutover.yaml:2:3: load plugin `lb`
      because: plugin `lb` in `SITE/./lb.wasm` cannot be used
      because: the component implements none of `cutover:load-balancer/pool`, `cutover:traffic/router`, `cutover:package-source/source`, `cutover:deployment-kind/kind`, `cutover:gate/evaluation`; it exports nothing
    ");
    assert_snapshot!(refused(b"\0asm\x0d\0\x01\0\xffand so on"), @"
    error: cutover.yaml:2:3: load plugin `lb`
      because: plugin `lb` in `SITE/./lb.wasm` cannot be used
      because: the file is not a valid component
      because: malformed section id (at offset 0x8)
    ");
}

#[test]
fn a_component_that_is_not_there() {
    assert_snapshot!(refusal(&unconfigured("plugins/lb.wasm")), @"
    error: cutover.yaml:2:3: load plugin `lb`
      because: read plugin `lb` from `SITE/plugins/lb.wasm`
      because: No such file or directory (os error 2)
    ");
    let site = unconfigured("haproxi");
    let said = refusal(&site);
    assert!(
        said.contains("error: cutover.yaml:2:3: there is no first-party plugin `haproxi`"),
        "{said}"
    );
    assert_snapshot!(refusal(&unconfigured("oci://registry.example/lb:1")), @"error: cutover.yaml:2:3: component `oci://registry.example/lb:1` of plugin `lb`: fetching plugins from a registry is not supported by this version of cutover; name a file");
}

#[test]
fn a_plugin_that_is_no_load_balancer() {
    assert_snapshot!(refusal(&unconfigured("file-package")), @"
    error: cutover.yaml:10:9: plugin `lb` of shop/web is no load balancer: it implements package-source
    hint: see what each plugin implements: cutover plugin ls
    ");
}

#[test]
fn a_plugin_that_is_not_declared() {
    let site = behind("file-balancer", "", "{plugin: bl}");

    assert_snapshot!(refusal(&site), @"
    error: the workspace file `cutover.yaml` has problems
    cutover.yaml:10:33: the plugin `bl` is not declared; `plugins` has `lb`
      hint: did you mean `lb`?
    ");
}

#[test]
fn a_configuration_that_the_plugin_refuses() {
    let site = behind(
        "file-balancer",
        "",
        "{plugin: lb, config: {directory: pool, file: ../x}}",
    );
    assert_snapshot!(refusal(&site), @"error: cutover.yaml:10:9: load_balancer.config of shop/web is not valid: /file: name a file inside the directory");
}

#[test]
fn a_directory_that_is_not_granted() {
    let site = behind(
        "file-balancer",
        "",
        "{plugin: lb, config: {directory: pool}}",
    );
    assert_snapshot!(refusal(&site), @r#"
    error: cutover.yaml:10:9: ask plugin `lb` where the instances of shop/web stand
      because: plugin `lb` may not use directory `pool` (read): it is not granted
    hint: grant it in the workspace file: plugins.lb.grants.directories: [{name: "pool", path: "/…", access: read}]
    "#);
}

#[test]
fn a_component_that_has_changed_since_it_was_locked() {
    let site = unconfigured("./lb.wasm");
    std::fs::write(site.path("lb.wasm"), first_party("haproxy")).unwrap();
    let _ = site.cutover(&["plugin", "ls"]).ok();
    std::fs::write(site.path("lb.wasm"), first_party("file-balancer")).unwrap();

    assert_snapshot!(refusal(&site), @"error: cutover.yaml:2:3: plugin `lb` has changed: `cutover.lock` pins sha256:DIGEST and `SITE/./lb.wasm` is sha256:DIGEST; if the change is wanted, remove its entry from `cutover.lock`");
}

#[test]
fn a_plugin_that_answers_for_others_is_found_out_before_anything_changes() {
    assert_snapshot!(refusal(&unconfigured(&misbehaving("lying"))), @"
    error: cutover.yaml:10:9: ask plugin `lb` where the instances of shop/web stand
      because: plugin `lb` answered for target `nobody-asked-for-this`, which was not asked
    ");
}

/// What `deploy` says of a balancer that breaks when the instance is to join it.
fn failure(name: &str, timeout: &str) -> String {
    let site = behind(
        &misbehaving(name),
        "",
        &format!("{{plugin: lb, timeout: {timeout}}}"),
    );

    let answer = deploy(&site);

    assert_eq!(answer.code, 4, "{}", answer.stderr);
    let step = site.report()["deployments"][0]["instances"][0]["steps"]
        .as_array()
        .and_then(|steps| steps.last().cloned())
        .unwrap();
    assert_eq!(
        (&step["event"], &step["status"]),
        (&"AllowTraffic".into(), &"FAILED".into())
    );
    step["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_plugin_that_crashes_fails_its_step_and_is_named_with_the_call_and_the_cause() {
    assert_snapshot!(failure("trapping", "30s"), @r#"put the instance into the balancer with plugin `lb`: plugin `lb` crashed in `load-balancer.register`: wasm `unreachable` instruction executed; the last thing it said: ERROR the adapter's bug panic.location="tests/components/trapping/src/lib.rs:20:9" (tried 7 times)"#);
}

#[test]
fn a_plugin_that_eats_memory_fails_its_step() {
    assert_snapshot!(failure("hungry", "60s"), @"put the instance into the balancer with plugin `lb`: plugin `lb` used up its memory limit of 256 MiB in `load-balancer.register` (tried 7 times)");
}

#[test]
fn a_plugin_that_hangs_fails_its_step_within_the_balancers_timeout() {
    let reason = failure("hanging", "1s");

    // The time that was left for the call differs by a millisecond.
    assert!(
        reason.contains("not healthy in time; the balancer says: nothing yet; the last call failed: plugin `lb` did not answer `load-balancer.register` within"),
        "{reason}"
    );
}

#[test]
fn the_file_balancer_takes_each_instance_out_and_puts_it_back() {
    let balancer = "{plugin: lb, config: {directory: pool}, timeout: 10s}";
    let site = Site::new();
    site.write(
        "cutover.yaml",
        &format!(
            "plugins:\n  lb:\n    component: file-balancer\n    grants: {{directories: [{{name: pool, path: lb, access: read-write}}]}}\n\
             applications:\n  shop:\n    groups:\n      web:\n        instances:\n\
             \x20         - {{id: web-1, host: \"local:\", rootdir: \"{0}/web-1\", address: \"127.0.0.1:8081\"}}\n\
             \x20         - {{id: web-2, host: \"local:\", rootdir: \"{0}/web-2\", address: \"127.0.0.1:8082\"}}\n\
             \x20       load_balancer: {balancer}\n",
            site.path("").display()
        ),
    );
    // Each hook tells which instances the balancer sends requests to.
    let members = format!(
        "echo \"$CUTOVER_INSTANCE_ID $LIFECYCLE_EVENT: $(cut -d' ' -f1 '{}' | paste -sd' ' -)\" >> '{}'",
        site.path("lb/upstreams.txt").display(),
        site.path("seen").display()
    );
    site.traced_package("v1", "1.0.0", &members);
    site.write("lb/upstreams.txt", "# kept by cutover\n");
    deploy(&site).ok();
    std::fs::remove_file(site.path("seen")).unwrap();
    site.cutover(&[
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "1.1.0",
    ])
    .ok();

    let seen = std::fs::read_to_string(site.path("seen")).unwrap();

    assert_snapshot!(seen, @"
    web-1 BeforeBlockTraffic: # web-1 web-2
    web-1 AfterBlockTraffic: # web-2
    web-1 ApplicationStop: # web-2
    web-1 BeforeInstall: # web-2
    web-1 AfterInstall: # web-2
    web-1 ApplicationStart: # web-2
    web-1 ValidateService: # web-2
    web-1 BeforeAllowTraffic: # web-2
    web-1 AfterAllowTraffic: # web-2 web-1
    web-2 BeforeBlockTraffic: # web-2 web-1
    web-2 AfterBlockTraffic: # web-1
    web-2 ApplicationStop: # web-1
    web-2 BeforeInstall: # web-1
    web-2 AfterInstall: # web-1
    web-2 ApplicationStart: # web-1
    web-2 ValidateService: # web-1
    web-2 BeforeAllowTraffic: # web-1
    web-2 AfterAllowTraffic: # web-1 web-2
    ");
    assert_snapshot!(std::fs::read_to_string(site.path("lb/upstreams.txt")).unwrap(), @"
    # kept by cutover
    web-1 127.0.0.1:8081 100
    web-2 127.0.0.1:8082 100
    ");
}

#[test]
fn plugins_are_listed_with_what_they_may_do() {
    let site = behind(
        "file-balancer",
        "    grants: {directories: [{name: pool, path: lb, access: read-write}]}\n",
        "{plugin: lb, config: {directory: pool}}",
    );
    std::fs::create_dir(site.path("lb")).unwrap();

    assert_snapshot!(site.transcript(&["plugin", "ls"]), @"
    $ cutover plugin ls
    PLUGIN  IMPLEMENTS                                            GRANTED                           DIGEST
    lb      load-balancer, load-balancer weights, traffic router  directory pool = lb (read-write)  sha256:DIGEST
    ");
    let listed = site
        .cutover(&["plugin", "ls", "--output", "json"])
        .ok()
        .json();
    assert_eq!(listed["plugins"][0]["name"], "lb");
    assert_eq!(
        listed["plugins"][0]["granted"][0],
        "directory pool = lb (read-write)"
    );
}

#[test]
fn a_component_is_inspected_without_a_workspace() {
    let site = Site::new();
    std::fs::write(site.path("lb.wasm"), first_party("file-balancer")).unwrap();

    let text = site.cutover(&["plugin", "inspect", "lb.wasm"]).ok().stdout;
    let found = site
        .cutover(&["plugin", "inspect", "lb.wasm", "--output", "json"])
        .ok()
        .json();

    assert!(
        text.contains("implements  load-balancer, load-balancer weights, traffic router"),
        "{text}"
    );
    assert_eq!(found["plugin"]["manifest"]["name"], "file-balancer");
    assert!(
        found["plugin"]["digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
}
