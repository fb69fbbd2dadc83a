//! Packages that are built out of git: from a real repository, by real commands, in a folder of their own.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use cutover_tests::{Answer, Site, until};

/// A workspace with the plugin, and a group that is built as `build` says.
fn shop(build: &str) -> Site {
    let site = Site::with_instances(1, build);
    let groups = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let plugins =
        "plugins:\n  git-build:\n    component: git-build\n    grants: {programs: [git]}\n";
    site.write("cutover.yaml", &format!("{plugins}{groups}"));
    site.traced_package("repo", "1.4.0", "");
    site.write(
        "repo/Makefile.sh",
        "cp -r appspec.yml bin content \"$1\"/\n",
    );
    git(
        &site,
        "git init -q -b main . && git add -A && git commit -qm one",
    );
    site
}

/// Runs a script in the repository, and answers with the commit that is checked out then.
fn git(site: &Site, script: &str) -> String {
    let done = Command::new("sh")
        .args(["-euc", &format!("{script}\ngit rev-parse HEAD")])
        .current_dir(site.path("repo"))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "ann")
        .env("GIT_AUTHOR_EMAIL", "ann@example.com")
        .env("GIT_COMMITTER_NAME", "ann")
        .env("GIT_COMMITTER_EMAIL", "ann@example.com")
        .output()
        .unwrap();
    assert!(done.status.success(), "{script}: {done:?}");
    let printed = String::from_utf8(done.stdout).unwrap();
    printed.lines().last().unwrap().to_owned()
}

fn reference(site: &Site, revision: &str) -> String {
    format!("git+file://{}#{revision}", site.path("repo").display())
}

fn deploy(site: &Site, revision: &str, more: &[&str]) -> Answer {
    let package = reference(site, revision);
    let arguments = ["deploy", "shop/web", "--package", &package];
    site.cutover(&[&arguments, more].concat())
}

/// What is said to a package that does not come to be. Nothing has changed by it, and nobody holds the group.
fn refusal(site: &Site, revision: &str) -> String {
    let answer = deploy(site, revision, &[]);

    assert_eq!(answer.code, 3, "{}", answer.stderr);
    site.assert_untouched();
    assert_eq!(site.report_of_newest(), serde_json::Value::Null);
    assert_eq!(left(site), Vec::<String>::new(), "the folder goes");
    answer.stderr
}

/// What is in the folder of builds beside logs.
fn left(site: &Site) -> Vec<String> {
    let entries = std::fs::read_dir(site.path(".cutover/builds"));
    entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".log"))
        .collect()
}

fn logs(site: &Site) -> Vec<String> {
    let entries = std::fs::read_dir(site.path(".cutover/builds"));
    let paths = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

fn installed(site: &Site) -> String {
    std::fs::read_to_string(site.path("web-1/app/version.txt")).unwrap()
}

#[test]
fn a_branch_is_built_and_the_release_records_its_commit() {
    let site = shop(
        "        build:
          command: 'mkdir dist && sh Makefile.sh dist && echo $LEVEL $CUTOVER_COMMIT $DEPLOYMENT_GROUP_NAME > dist/content/facts'
          output: dist
          env: {LEVEL: high}
",
    );
    let commit = git(&site, "true");

    let answer = deploy(&site, "main", &[]).ok();

    let revision = site.report()["deployments"][0]["revision"].clone();
    assert_eq!(revision["source"], reference(&site, &commit));
    assert_eq!(installed(&site), "1.4.0");
    let facts = std::fs::read_to_string(site.path("web-1/app/facts")).unwrap();
    assert_eq!(facts, format!("high {commit} web\n"));
    assert!(
        answer.stderr.contains("==> mkdir dist"),
        "{}",
        answer.stderr
    );
    assert_eq!((left(&site).len(), logs(&site).len()), (0, 1));
}

#[test]
fn without_a_build_command_the_commit_is_the_package_and_git_s_folder_is_not_in_it() {
    let site = shop("");
    git(&site, "git tag v1.4.0");

    deploy(&site, "v1.4.0", &[]).ok();

    let revision = site.report()["deployments"][0]["revision"].clone();
    assert_eq!(revision["version"], "1.4.0", "as the tag is named");
    let digest = revision["digest"].as_str().unwrap().replace("sha256:", "");
    let tree = site.path(&format!(".cutover/packages/{digest}/tree"));
    assert!(tree.join("bin/hook.sh").exists() && !tree.join(".git").exists());
}

#[test]
fn an_archive_that_the_build_makes_is_the_package() {
    let site = shop(
        "        build: {command: 'tar -czf out.tgz appspec.yml bin content', output: out.tgz}\n",
    );

    deploy(&site, "main", &[]).ok();

    assert_eq!(installed(&site), "1.4.0");
}

#[test]
fn the_same_commit_is_built_once_and_another_way_of_building_it_is_another_package() {
    let site = shop("        build: {command: 'date +%s%N > content/built'}\n");
    deploy(&site, "main", &[]).ok();

    let again = deploy(&site, "main", &[]).ok();
    let text = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    site.write(
        "cutover.yaml",
        &text.replace("command: 'date", "command: 'true; date"),
    );
    let other = deploy(&site, "main", &[]).ok();

    assert!(
        again.stderr.contains("as it was built before"),
        "{}",
        again.stderr
    );
    assert!(
        !other.stderr.contains("as it was built before"),
        "{}",
        other.stderr
    );
    assert_eq!(logs(&site).len(), 2);
}

#[test]
fn a_branch_that_moves_while_it_is_built_changes_nothing_for_what_was_resolved() {
    let site = shop(
        "        build: {command: 'echo begun > begun; while ! [ -e ../../../../go ]; do sleep 0.1; done'}\n",
    );
    let commit = git(&site, "true");
    let package = reference(&site, "main");
    let mut running = site.start(&["deploy", "shop/web", "--package", &package]);
    until("it is being built", || {
        let names = left(&site);
        names.iter().any(|name| {
            site.path(&format!(".cutover/builds/{name}/source/begun"))
                .exists()
        })
    });

    git(
        &site,
        "echo 2.0.0 > content/version.txt; git commit -qam two",
    );
    site.write("go", "");
    assert!(running.wait().unwrap().success());

    let revision = site.report()["deployments"][0]["revision"].clone();
    assert_eq!(revision["source"], reference(&site, &commit));
    assert_eq!(installed(&site), "1.4.0");
}

#[test]
fn a_build_that_fails_shows_its_last_lines_and_changes_nothing() {
    let site = shop("        build: {command: 'seq 1 100; echo no such target >&2; exit 7'}\n");

    let text = refusal(&site, "main");

    assert!(text.contains("exited with 7; its log is `"), "{text}");
    assert!(
        text.contains("  | 82\n") && text.contains("  | no such target\n"),
        "{text}"
    );
    assert!(!text.contains("  | 81\n"), "{text}");
    let log = logs(&site).remove(0);
    assert!(
        log.contains("\n1\n2\n") && log.contains("<== exit 7"),
        "{log}"
    );
}

#[test]
fn a_build_that_hangs_is_ended_with_all_that_it_started() {
    // Seconds that nobody else sleeps.
    let seconds = 1_000_000 + std::process::id();
    let site = shop(&format!(
        "        build: {{command: 'setsid sleep {seconds} & sleep {seconds}', timeout: 2s}}\n"
    ));

    let text = refusal(&site, "main");

    assert!(
        text.contains("was ended because it took longer than 2 s"),
        "{text}"
    );
    let wanted = format!("sleep\0{seconds}\0");
    let processes = std::fs::read_dir("/proc").unwrap();
    let lines = processes.map(|entry| entry.unwrap().path().join("cmdline"));
    let sleeping =
        lines.filter(|line| std::fs::read_to_string(line).is_ok_and(|line| line == wanted));
    assert_eq!(sleeping.count(), 0);
}

#[test]
fn a_build_that_floods_its_output_is_cut_and_goes_on() {
    let site = shop("        build: {command: 'yes | head -c 9000000; echo done'}\n");

    deploy(&site, "main", &[]).ok();

    let log = logs(&site).remove(0);
    assert!(log.len() < 8 << 20 && log.contains("bytes are left out here"));
}

#[test]
fn a_build_does_not_write_outside_its_folder() {
    let site = shop(
        "        build: {command: 'echo x > ../../../../outside; echo x > /tmp/cutover-build-outside; true'}\n",
    );

    let answer = deploy(&site, "main", &[]).ok();

    if answer.stderr.contains("not kept from writing") {
        return;
    }
    assert!(!site.path("outside").exists());
    assert!(!std::path::Path::new("/tmp/cutover-build-outside").exists());
    assert!(
        answer.stderr.contains("Permission denied"),
        "{}",
        answer.stderr
    );
}

#[test]
fn what_a_build_makes_has_to_be_a_package_within_its_folder() {
    for (build, expected) in [
        (
            "{command: 'ln -s /etc out', output: out}",
            "leads out of the folder",
        ),
        ("{command: 'true', output: dist}", "made no `dist`"),
        (
            "{command: 'mkdir out; cp -r appspec.yml bin content out; ln -s ../../../../etc/passwd out/link', output: out}",
            "link",
        ),
        ("{command: 'mkdir empty', output: empty}", "has no appspec"),
        (
            "{command: 'echo x > out.tgz', output: out.tgz}",
            "a package is a folder",
        ),
    ] {
        let site = shop(&format!("        build: {build}\n"));

        let text = refusal(&site, "main");

        assert!(text.contains(expected), "{build}: {text}");
    }
}

#[test]
fn a_branch_or_a_repository_that_is_not_there_is_named() {
    let site = shop("");
    git(&site, "git branch release-1 && git branch release-2");

    let text = refusal(&site, "release");
    assert!(
        text.contains("has no branch and no tag `release`"),
        "{text}"
    );
    assert!(
        text.contains("its branches are `release-1`, `release-2`, `main`"),
        "{text}"
    );

    let gone = format!("git+file://{}#main", site.path("gone").display());
    let answer = site.cutover(&["deploy", "shop/web", "--package", &gone]);
    assert_eq!(answer.code, 3, "{}", answer.stderr);
    assert!(
        answer
            .stderr
            .contains("does not appear to be a git repository"),
        "{}",
        answer.stderr
    );

    let text = refusal(&site, "1234567890123456789012345678901234567890");
    assert!(
        text.contains("`fetch the commit 123456789012` exited with 128"),
        "{text}"
    );
    assert!(text.contains("not our ref"), "{text}");
}

#[test]
fn submodules_are_refused() {
    let site = shop("");
    git(
        &site,
        "printf '[submodule \"x\"]\\n\\tpath = x\\n\\turl = ../x\\n' > .gitmodules; git add .gitmodules; git commit -qm sub",
    );

    let text = refusal(&site, "main");

    assert!(
        text.contains("`make sure that it has no submodules` exited with 1"),
        "{text}"
    );
    assert!(text.contains("vendor it"), "{text}");
}

#[test]
fn hooks_and_configuration_of_others_have_no_part_in_it() {
    let site = shop(
        "        build: {command: 'git config --get-all user.name; env | grep -c ^SECRET; id -u > /dev/null'}\n",
    );
    site.write(
        "home/.gitconfig",
        "[user]\n\tname = from-global\n[core]\n\thooksPath = /nonexistent\n",
    );
    site.script(
        "repo/.git/hooks/post-checkout",
        "#!/bin/sh\ntouch ../hooked\n",
    );

    let package = reference(&site, "main");
    let answer: Answer = site
        .command(&["deploy", "shop/web", "--package", &package])
        .env("HOME", site.path("home"))
        .env("SECRET", "hunter2")
        .output()
        .unwrap()
        .into();
    let answer = answer.ok();

    assert!(!answer.stderr.contains("from-global"), "{}", answer.stderr);
    assert!(!site.path("hooked").exists());
}

#[test]
fn a_rollback_that_has_to_build_again_wants_the_same_package() {
    for (command, is_same) in [("true", true), ("date +%s%N > content/built", false)] {
        let site = shop(&format!("        build: {{command: '{command}'}}\n"));
        deploy(&site, "main", &[]).ok();
        let former = site.report()["deployments"][0]["id"].clone();
        git(
            &site,
            "echo 2.0.0 > content/version.txt; git commit -qam two",
        );
        deploy(&site, "main", &[]).ok();
        // Neither the store nor the instance has the former package any more.
        let cache = format!(
            "web-1/app-shop/group-web/deploy-{}",
            former.as_str().unwrap()
        );
        for folder in [".cutover/packages", &cache] {
            std::fs::remove_dir_all(site.path(folder)).unwrap();
        }

        let answer = site.cutover(&["rollback", "shop/web", "--yes"]);

        if is_same {
            answer.ok();
            assert_eq!(installed(&site), "1.4.0");
        } else {
            assert_eq!(answer.code, 3, "{}", answer.stderr);
            assert!(
                answer
                    .stderr
                    .contains("is not reproducible: it gave sha256:"),
                "{}",
                answer.stderr
            );
            assert_eq!(installed(&site), "2.0.0\n");
        }
    }
}

#[test]
fn git_that_is_not_granted_or_not_there_is_told_before() {
    let site = shop("");
    let text = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();

    site.write(
        "cutover.yaml",
        &text.replace("    grants: {programs: [git]}\n", ""),
    );
    let denied = refusal(&site, "main");
    assert!(
        denied.contains("plugins.git-build.grants.programs:"),
        "{denied}"
    );
    let checked = site.cutover(&["check"]);
    assert!(
        checked.stdout.contains("is asked for, but not granted"),
        "{}",
        checked.stdout
    );

    let other = "grants: {programs: [no-such-git]}\n    config: {program: no-such-git}";
    site.write(
        "cutover.yaml",
        &text.replace("grants: {programs: [git]}", other),
    );
    let checked = site.cutover(&["check"]);
    assert!(
        checked.stdout.contains("the program `no-such-git`"),
        "{}",
        checked.stdout
    );
    let missing = refusal(&site, "main");
    assert!(missing.contains("install `no-such-git`"), "{missing}");

    let groups = text.split_once("applications:").unwrap().1;
    site.write("cutover.yaml", &format!("applications:{groups}"));
    let undeclared = refusal(&site, "main");
    assert!(
        undeclared.contains("declare the plugin that does: plugins: {git-build:"),
        "{undeclared}"
    );
}

#[test]
fn a_conductor_that_is_killed_takes_its_build_with_it() {
    let site = shop("        build: {command: 'echo $$ > pid; sleep 600'}\n");
    let package = reference(&site, "main");
    let mut killed = site.start(&["deploy", "shop/web", "--package", &package]);
    let pid = || {
        let name = left(&site).pop()?;
        let file = site.path(&format!(".cutover/builds/{name}/source/pid"));
        std::fs::read_to_string(file)
            .ok()
            .filter(|pid| pid.ends_with('\n'))
    };
    until("it is being built", || pid().is_some());
    let pid = pid().unwrap();

    killed.kill().unwrap();
    killed.wait().unwrap();

    let stat = format!("/proc/{}/stat", pid.trim());
    until("the build is gone", || {
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
    until("its folder is gone", || left(&site).is_empty());
}
