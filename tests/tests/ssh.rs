//! Deployments to real hosts over SSH: what they do when hosts are cut off, reboot, are slow, full, or not what they seem.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cutover_tests::{Answer, Hosts, Site, target_folder, until};
use serde_json::Value;

/// Where hooks leave their trace on a host.
const TRACE: &str = "/srv/app/trace";
/// A hook goes on when this is gone.
const HOLD: &str = "/srv/app/hold";

struct Fleet {
    hosts: Hosts,
    site: Site,
}

/// One instance a host, in `shop/web`, with these settings for SSH and these lines more.
fn fleet(count: usize, ssh: &str, rest: &str) -> Option<Fleet> {
    let agent = target_folder().join("../agents/cutover-agent-x86_64-linux");
    assert!(
        cfg!(not(target_arch = "x86_64")) || agent.exists(),
        "the agent is not built: run `cargo xtask agent`"
    );
    let hosts = Hosts::up(count)?;
    let site = Site::new();
    let instances: Vec<_> = (1..=count).map(|n| (n, format!("ssh://web-{n}"))).collect();
    let fleet = Fleet { hosts, site };
    fleet.workspace(&instances, ssh, rest);
    Some(fleet)
}

impl Fleet {
    fn workspace(&self, instances: &[(usize, String)], ssh: &str, rest: &str) {
        let mut text = format!(
            "applications:\n  shop:\n    groups:\n      web:\n        ssh: {{{ssh}}}\n        instances:\n"
        );
        for (number, host) in instances {
            let _ = writeln!(
                text,
                "          - {{id: web-{number}, host: \"{host}\", rootdir: /srv/app/{number}}}"
            );
        }
        text.push_str(rest);
        self.site.write("cutover.yaml", &text);
    }

    /// A package with so many bytes in it whose hooks leave a trace on their host.
    fn package(&self, version: &str, bytes: usize) {
        let hook = "{location: bin/hook.sh, timeout: 60}";
        self.site.write(
            &format!("{version}/appspec.yml"),
            &format!(
                "version: 0.0\nos: linux\nfiles:\n  - {{source: /content, destination: app}}\nhooks:\n  BeforeInstall:\n    - {hook}\n  ApplicationStart:\n    - {hook}\n  ValidateService:\n    - {hook}\n"
            ),
        );
        // No text in it occurs twice, so that it stays as long as it is on its way.
        let mut state = 1_u64;
        let noise: String = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            char::from(33 + (state >> 58) as u8)
        })
        .take(bytes)
        .collect();
        self.site.write(&format!("{version}/content/noise"), &noise);
        self.site.script(
            &format!("{version}/bin/hook.sh"),
            &format!(
                "#!/bin/sh\necho \"$CUTOVER_INSTANCE_ID $LIFECYCLE_EVENT {version} $CUTOVER_ATTEMPT $(id -un)\" >> {TRACE}\n\
                 [ $LIFECYCLE_EVENT = ApplicationStart ] || exit 0\nwhile [ -e {HOLD} ]; do sleep 0.02; done\n"
            ),
        );
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.site.command(arguments);
        fs::create_dir_all(self.site.path("tmp")).unwrap();
        command
            .env("CUTOVER_SSH", self.hosts.ssh())
            .env_remove("CUTOVER_AGENT_DIR")
            .env("TMPDIR", self.site.path("tmp"))
            .env_remove("XDG_RUNTIME_DIR");
        command
    }

    fn cutover(&self, arguments: &[&str]) -> Answer {
        self.command(arguments).output().unwrap().into()
    }

    fn deploy(&self, version: &str) -> Answer {
        self.cutover(&["deploy", "shop/web", "--package", version])
    }

    /// Starts a deployment; what it says goes to `said`.
    fn start(&self, version: &str) -> Running {
        let said = fs::File::create(self.site.path("said")).unwrap();
        let child = self
            .command(&["deploy", "shop/web", "--package", version])
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        Running(child)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.site.path("said")).unwrap()
    }

    fn hold(&self, host: usize) {
        fs::write(self.hosts.path(host, HOLD), "").unwrap();
    }

    fn release(&self, host: usize) {
        fs::remove_file(self.hosts.path(host, HOLD)).unwrap();
    }

    /// Waits until the second hook runs on a host.
    fn until_held(&self, host: usize) {
        until("the hook runs", || {
            let trace = self.hosts.lines(host, TRACE);
            trace.iter().any(|line| line.contains("ApplicationStart"))
        });
    }

    /// What hooks left on a host, without the name of their instance.
    fn trace(&self, host: usize) -> Vec<String> {
        let lines = self.hosts.lines(host, TRACE);
        lines
            .iter()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }

    fn report(&self) -> Value {
        self.site.report_of_newest()
    }

    /// The outcome of each instance of the newest deployment.
    fn outcomes(&self) -> Vec<String> {
        let report = self.report();
        let instances = report["deployments"][0]["instances"].as_array().unwrap();
        let outcome = |instance: &Value| instance["outcome"].as_str().unwrap_or("none").to_owned();
        instances.iter().map(outcome).collect()
    }

    /// Why the first instance of the newest deployment came to nothing.
    fn reason(&self) -> String {
        let report = self.report();
        report["deployments"][0]["instances"][0].to_string()
    }

    fn sockets(&self) -> usize {
        let entries = fs::read_dir(self.site.path("tmp")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("cutover-ssh-"))
            .count()
    }

    /// How many bytes went to a host.
    fn sent_to(&self, host: usize) -> u64 {
        let tag = fs::read_to_string(self.hosts.folder().join("tag")).unwrap();
        let port = format!("co{}p{host}", tag.trim());
        let path = format!("/sys/class/net/{port}/statistics/tx_bytes");
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }

    /// The agents on a host, and what is left of others.
    fn agents(&self, host: usize) -> Vec<std::path::PathBuf> {
        let folder = self.hosts.path(host, "/home/deploy/.cutover/agent");
        let entries = fs::read_dir(folder).into_iter().flatten();
        let files = entries.map(|entry| entry.unwrap().path());
        files
            .filter(|path| !path.to_string_lossy().contains("/front-"))
            .collect()
    }
}

/// A program that ends with the test.
struct Running(Child);

impl Running {
    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        until("the release ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the hooks of a deployment leave, each run once.
fn whole(version: &str) -> [String; 3] {
    ["BeforeInstall", "ApplicationStart", "ValidateService"]
        .map(|event| format!("{event} {version} 1 deploy"))
}

#[test]
fn a_host_cut_off_in_a_hook_and_brought_back_goes_on_and_no_hook_runs_twice() {
    let rest = "        strategy: {type: rolling, concurrency: 2}\n";
    let Some(fleet) = fleet(5, "connect_timeout: 1s, retries: 60", rest) else {
        return;
    };
    fleet.package("1.0.0", 1000);
    fleet.hold(3);
    let mut running = fleet.start("1.0.0");
    fleet.until_held(3);

    fleet.hosts.act("cut", 3, &[]);
    until("it is said who does not answer", || {
        let said = fleet.said();
        said.contains("waiting web-3 ApplicationStart") && said.contains("`ssh://web-3`")
    });
    // The hook ends while nobody can be told.
    fleet.release(3);
    fleet.hosts.act("heal", 3, &[]);

    assert_eq!(running.code(), Some(0), "{}", fleet.said());
    assert_eq!(fleet.outcomes(), ["SUCCEEDED"; 5]);
    for host in 1..=5 {
        assert_eq!(fleet.trace(host), whole("1.0.0"), "host {host}");
    }
}

#[test]
fn a_host_cut_off_for_good_is_unreachable_and_the_others_finish() {
    let rest = "        strategy: {type: rolling, concurrency: 3, failure_threshold: 1}\n";
    let Some(fleet) = fleet(3, "connect_timeout: 1s, retries: 1", rest) else {
        return;
    };
    fleet.package("1.0.0", 1000);
    (1..=3).for_each(|host| fleet.hold(host));
    let mut running = fleet.start("1.0.0");
    (1..=3).for_each(|host| fleet.until_held(host));

    fleet.hosts.act("cut", 2, &[]);
    let cut = Instant::now();
    until("the host is unreachable", || {
        fleet.outcomes()[1] == "UNREACHABLE"
    });
    assert!(cut.elapsed() < Duration::from_secs(20));
    fleet.release(1);
    fleet.release(3);

    assert_eq!(running.code(), Some(4), "{}", fleet.said());
    assert_eq!(fleet.outcomes(), ["SUCCEEDED", "UNREACHABLE", "SUCCEEDED"]);
}

#[test]
fn a_host_that_reboots_in_a_hook_loses_its_outcome_and_the_hook_is_tried_again() {
    let Some(fleet) = fleet(1, "connect_timeout: 1s, retries: 60", "") else {
        return;
    };
    fleet.package("1.0.0", 1000);
    fleet.hold(1);
    let mut running = fleet.start("1.0.0");
    fleet.until_held(1);

    fleet.hosts.act("crash", 1, &[]);
    fleet.release(1);
    fleet.hosts.act("start", 1, &[]);

    assert_eq!(running.code(), Some(0), "{}", fleet.said());
    let mut trace = fleet.trace(1);
    trace.retain(|line| line.starts_with("ApplicationStart"));
    assert_eq!(
        trace,
        [
            "ApplicationStart 1.0.0 1 deploy",
            "ApplicationStart 1.0.0 2 deploy"
        ]
    );
    let report = fleet.report();
    let steps = report["deployments"][0]["instances"][0]["steps"].as_array();
    let started: Vec<_> = steps
        .unwrap()
        .iter()
        .filter(|step| step["event"] == "ApplicationStart")
        .map(|step| {
            (
                step["attempt"].as_u64().unwrap(),
                step["status"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(started, [(1, "LOST"), (2, "SUCCEEDED")]);
}

#[test]
fn a_slow_host_holds_up_nobody_and_a_killed_transfer_goes_on_where_it_was() {
    let rest = "        strategy: {type: rolling, concurrency: 2}\n";
    let Some(fleet) = fleet(2, "connect_timeout: 2s", rest) else {
        return;
    };
    let size = 3_000_000;
    fleet.package("1.0.0", 1000);
    fleet.package("1.1.0", size);
    fleet.deploy("1.0.0").ok();
    fleet.hosts.act("slow", 2, &["2mbit"]);
    let mut running = fleet.start("1.1.0");
    let arrived = || {
        let inbox = fleet.hosts.path(2, "/srv/app/2/.cutover/inbox");
        let entries = fs::read_dir(inbox).into_iter().flatten().flatten();
        let noise = entries.map(|entry| entry.path().join("content/noise"));
        noise
            .filter_map(|path| Some(path.metadata().ok()?.len()))
            .sum::<u64>()
    };

    until("the fast host is done", || fleet.trace(1).len() == 6);
    until("the slow one has half", || arrived() > 1_500_000);
    assert_eq!(fleet.trace(2).len(), 3, "its package is still on its way");
    running.kill();
    fleet.hosts.act("unslow", 2, &[]);
    let before = fleet.sent_to(2);
    let id = fleet.report()["id"].as_str().unwrap().to_owned();
    fleet.cutover(&["resume", &id]).ok();

    let sent = fleet.sent_to(2) - before;
    assert!(sent < 2_200_000, "{sent} bytes were sent again");
    assert_eq!(fleet.outcomes(), ["SUCCEEDED"; 2]);
    assert_eq!(fleet.trace(2)[3..], whole("1.1.0"));
}

#[test]
fn a_full_disk_fails_clearly_and_the_next_deployment_works() {
    let Some(fleet) = fleet(1, "connect_timeout: 2s", "") else {
        return;
    };
    fleet.package("1.0.0", 1000);
    fleet.package("1.1.0", 3_000_000);
    fleet.hosts.act("fill", 1, &[]);
    assert_eq!(fleet.deploy("1.0.0").code, 4);
    assert!(
        fleet
            .reason()
            .contains("put the agent into `~/.cutover/agent`")
            && fleet.reason().contains("No space left"),
        "{}",
        fleet.reason()
    );
    assert_eq!(
        fleet.agents(1),
        [""; 0].map(Into::<std::path::PathBuf>::into)
    );
    fleet.hosts.act("unfill", 1, &[]);
    fleet.deploy("1.0.0").ok();

    fleet.hosts.act("fill", 1, &[]);
    assert_eq!(fleet.deploy("1.1.0").code, 4);
    let reason = fleet.reason();
    assert!(reason.contains("\"FAILED\""), "{reason}");
    assert!(
        reason.contains("free, and the package needs 3 MiB"),
        "{reason}"
    );

    fleet.hosts.act("unfill", 1, &[]);
    fleet.deploy("1.1.0").ok();
    assert_eq!(fleet.trace(1)[3..], whole("1.1.0"));
}

#[test]
fn a_conductor_killed_in_a_hook_is_resumed_and_leaves_no_sockets() {
    let Some(fleet) = fleet(1, "connect_timeout: 2s", "") else {
        return;
    };
    fleet.package("1.0.0", 1000);
    fleet.hold(1);
    let mut running = fleet.start("1.0.0");
    fleet.until_held(1);
    assert_eq!(fleet.sockets(), 1);
    running.kill();
    let id = fleet.report()["id"].as_str().unwrap().to_owned();
    fleet.release(1);

    fleet.cutover(&["resume", &id]).ok();

    assert_eq!(fleet.trace(1), whole("1.0.0"));
    assert_eq!(fleet.sockets(), 0);
}

#[test]
fn a_host_whose_key_is_not_the_known_one_is_refused() {
    let Some(fleet) = fleet(1, "connect_timeout: 2s, retries: 9", "") else {
        return;
    };
    fleet.package("1.0.0", 1000);
    let known = fleet.hosts.folder().join("known_hosts");
    let user_key = fs::read_to_string(fleet.hosts.folder().join("id.pub")).unwrap();
    fs::write(&known, format!("{} {user_key}", fleet.hosts.address(1))).unwrap();

    let begun = Instant::now();
    assert_eq!(fleet.deploy("1.0.0").code, 4);
    let reason = fleet.reason();
    assert!(reason.contains("UNREACHABLE"), "{reason}");
    assert!(
        reason.contains("its host key is not the one that is known"),
        "{reason}"
    );

    fs::write(&known, "").unwrap();
    assert_eq!(fleet.deploy("1.0.0").code, 4);
    assert!(
        fleet.reason().contains("its host key is not known"),
        "{}",
        fleet.reason()
    );

    // Nine more tries would take longer.
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(fleet.trace(1).is_empty());
    assert!(fleet.agents(1).is_empty());
}

#[test]
fn a_host_that_does_not_let_us_in_or_does_not_listen_is_unreachable_at_once() {
    let Some(fleet) = fleet(1, "connect_timeout: 2s, retries: 9", "") else {
        return;
    };
    fleet.package("1.0.0", 1000);
    let keys = fleet.hosts.path(1, "/home/deploy/.ssh/authorized_keys");
    let key = fs::read(&keys).unwrap();
    fs::write(&keys, "").unwrap();
    let begun = Instant::now();

    assert_eq!(fleet.deploy("1.0.0").code, 4);
    let reason = fleet.reason();
    assert!(reason.contains("UNREACHABLE"), "{reason}");
    assert!(reason.contains("does not let this user in"), "{reason}");
    assert!(reason.contains("Permission denied (publickey"), "{reason}");
    assert!(begun.elapsed() < Duration::from_secs(10), "no more tries");

    fs::write(&keys, key).unwrap();
    let elsewhere = [(1, "ssh://web-1:2222".to_owned())];
    fleet.workspace(&elsewhere, "connect_timeout: 2s, retries: 1", "");
    assert_eq!(fleet.deploy("1.0.0").code, 4);
    let reason = fleet.reason();
    assert!(
        reason.contains("`ssh://web-1:2222` was not reached, 2 times")
            && reason.contains("Connection refused"),
        "{reason}"
    );
}

#[test]
fn the_agent_is_put_there_once_and_again_when_it_is_damaged() {
    let Some(fleet) = fleet(1, "connect_timeout: 5s", "") else {
        return;
    };
    fleet.package("1.0.0", 1000);
    fleet.package("1.1.0", 1000);
    fleet.package("1.2.0", 1000);
    fleet.deploy("1.0.0").ok();
    let [agent] = &fleet.agents(1)[..] else {
        panic!("{:?}", fleet.agents(1))
    };
    let first = agent.metadata().unwrap().ino();

    fleet.deploy("1.1.0").ok();
    assert_eq!(agent.metadata().unwrap().ino(), first);

    // It may still be running.
    fs::remove_file(agent).unwrap();
    fs::write(agent, "#!/bin/sh\necho no\n").unwrap();
    fs::set_permissions(agent, fs::Permissions::from_mode(0o755)).unwrap();
    fleet.deploy("1.2.0").ok();
    assert!(agent.metadata().unwrap().len() > 100_000);
    assert_eq!(fleet.agents(1).len(), 1);
    assert_eq!(fleet.trace(1).len(), 9);
}

#[test]
fn what_keeps_the_agent_from_starting_is_said() {
    let Some(fleet) = fleet(1, "connect_timeout: 5s", "") else {
        return;
    };
    fleet.package("1.0.0", 1000);
    let refuses = |reason: &str| {
        assert_eq!(fleet.deploy("1.0.0").code, 4);
        assert!(fleet.reason().contains(reason), "{}", fleet.reason());
    };

    let uname = fleet.hosts.path(1, "/usr/bin/uname");
    fs::remove_file(&uname).unwrap();
    fs::write(
        &uname,
        "#!/bin/sh\n[ \"$1\" = -m ] && echo riscv64 || echo Linux\n",
    )
    .unwrap();
    fs::set_permissions(&uname, fs::Permissions::from_mode(0o755)).unwrap();
    refuses("the file `cutover-agent-riscv64-linux` is in none of");
    fs::copy("/usr/bin/uname", &uname).unwrap();

    let as_root = Command::new(fleet.hosts.ssh())
        .args(["root@web-1", "mount -t tmpfs -o noexec,mode=777 none /mnt"])
        .status();
    assert!(as_root.unwrap().success());
    let here = [(1, "ssh://web-1".to_owned())];
    fleet.workspace(&here, "agent_dir: /mnt/agents", "");
    refuses("name another with `ssh: {agent_dir: /FOLDER}`");

    fleet.workspace(&here, "agent_dir: /proc/agents", "");
    refuses("put the agent into `/proc/agents`");

    // A shell whose start-up files print is none of that.
    let passwd = fleet.hosts.path(1, "/etc/passwd");
    let accounts = fs::read_to_string(&passwd).unwrap();
    let with_bash = accounts.replace("/home/deploy:/bin/sh", "/home/deploy:/bin/bash");
    fs::write(&passwd, with_bash).unwrap();
    fs::write(
        fleet.hosts.path(1, "/home/deploy/.bashrc"),
        "echo Welcome; printf 'to this host> '\n",
    )
    .unwrap();
    fleet.workspace(&here, "agent_dir: /srv/app/agents", "");
    fleet.deploy("1.0.0").ok();

    fs::write(
        &passwd,
        accounts.replace("/home/deploy:/bin/sh", "/home/deploy:/usr/sbin/nologin"),
    )
    .unwrap();
    refuses("This account is currently not available");
}

#[test]
fn the_agent_runs_as_root_when_asked_and_says_what_sudo_says() {
    if !Path::new("/usr/bin/sudo").exists() {
        cutover_tests::skip("there is no `/usr/bin/sudo`: on Debian, apt-get install sudo");
        return;
    }
    let Some(fleet) = fleet(1, "connect_timeout: 5s, sudo: true", "") else {
        return;
    };
    fleet.package("1.0.0", 1000);
    assert_eq!(fleet.deploy("1.0.0").code, 4);
    let reason = fleet.reason();
    assert!(
        reason.contains("run the agent as root on `ssh://web-1`: sudo: a password is required;"),
        "{reason}"
    );

    let rule = fleet.hosts.path(1, "/etc/sudoers.d/deploy");
    fs::write(&rule, "deploy ALL=(root) NOPASSWD: ALL\n").unwrap();
    fs::set_permissions(&rule, fs::Permissions::from_mode(0o440)).unwrap();
    fleet.deploy("1.0.0").ok();
    assert_eq!(
        fleet.trace(1),
        whole("1.0.0").map(|line| line.replace("deploy", "root"))
    );
}

#[test]
fn instances_of_one_host_share_a_connection_and_the_transfer_of_a_package() {
    let Some(fleet) = fleet(1, "connect_timeout: 5s", "") else {
        return;
    };
    let host = "ssh://web-1".to_owned();
    fleet.workspace(
        &[(1, host.clone()), (2, host.clone()), (3, host)],
        "connect_timeout: 5s",
        "        strategy: {type: rolling, concurrency: 3}\n",
    );
    let size = 3_000_000;
    fleet.package("1.0.0", 1000);
    fleet.package("1.1.0", size);
    fleet.deploy("1.0.0").ok();
    let before = fleet.sent_to(1);

    fleet.deploy("1.1.0").ok();

    let sent = fleet.sent_to(1) - before;
    assert!(
        (3_000_000..4_000_000).contains(&sent),
        "{sent} bytes were sent"
    );
    assert_eq!(fleet.trace(1).len(), 18);
    let log = fs::read_to_string(fleet.hosts.folder().join("1.log")).unwrap();
    assert_eq!(log.matches("Accepted publickey").count(), 2, "{log}");
}

#[test]
fn the_example_runs_as_its_readme_says() {
    // Whether this machine can have hosts at all.
    let Some(_) = Hosts::up(1) else { return };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ssh-fleet");
    let folder = tempfile::tempdir().unwrap();

    let output = Command::new(example.join("run.sh"))
        .arg(folder.path())
        .env("CUTOVER", target_folder().join("cutover"))
        .env_remove("CUTOVER_AGENT_DIR")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();

    let answer = Answer::from(output).ok();
    let summaries: Vec<_> = answer
        .stdout
        .lines()
        .filter(|line| line.starts_with("SUCCEEDED"))
        .map(|line| line.split(" in ").next().unwrap())
        .collect();
    assert_eq!(
        summaries,
        [
            "SUCCEEDED  clock/web deploy 1.0.0",
            "SUCCEEDED  clock/web deploy 1.1.0",
            "SUCCEEDED  clock/web rollback 1.0.0"
        ]
    );
    assert!(!folder.path().join("hosts").exists(), "the hosts are gone");
}

#[test]
fn hosts_of_an_aborted_run_are_taken_away_by_the_next() {
    let Some(_) = Hosts::up(1) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ssh-fleet/hosts.sh");
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Command::new("true").spawn().unwrap();
    let status = Command::new(script)
        .args([Path::new("up"), &folder.path().join("left"), Path::new("1")])
        .env("OWNER", owner.id().to_string())
        .status()
        .unwrap();
    assert!(status.success());
    let pid = fs::read_to_string(folder.path().join("left/1.pid")).unwrap();
    owner.wait().unwrap();

    let Some(_next) = Hosts::up(1) else { return };

    assert!(!folder.path().join("left").exists());
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}
