//! Packages that are commits of a git repository: by branch, tag and commit, over every way to it.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use cutover_tests::{GitServer, Hosts, Site};

/// A workspace with the plugin.
fn workspace(config: &str) -> Site {
    let site = Site::with_instances(1, "");
    let groups = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    site.write(
        "cutover.yaml",
        &format!(
            "plugins:\n  git-build:\n    component: git-build\n    grants: {{programs: [git]}}\n    config: {{{config}}}\n{groups}"
        ),
    );
    site
}

/// A repository with the versions 1.0.0 to 3.0.0: the branch `release`, the tag `v2.0.0` with a message, and `main`. With the
/// commits of the three.
fn repository(site: &Site) -> [String; 3] {
    site.traced_package("repo", "1.0.0", "");
    run(
        &site.path("repo"),
        "git init -q -b main . && git add -A && git commit -qm one && git branch release
         echo 2.0.0 > content/version.txt && git commit -qam two && git tag -a v2.0.0 -m two
         echo 3.0.0 > content/version.txt && git commit -qam three && git tag -a next -m next",
    );
    ["release", "v2.0.0^{commit}", "main"]
        .map(|name| run(&site.path("repo"), &format!("git rev-parse '{name}'")))
}

fn run(folder: &Path, script: &str) -> String {
    let done = Command::new("sh")
        .args(["-euc", script])
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "ann")
        .env("GIT_AUTHOR_EMAIL", "ann@example.com")
        .env("GIT_COMMITTER_NAME", "ann")
        .env("GIT_COMMITTER_EMAIL", "ann@example.com")
        .output()
        .unwrap();
    assert!(done.status.success(), "{script}: {done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// Deploys a package and answers with what is installed then, and with what the release recorded.
fn deploy(site: &Site, package: &str, version: &str) -> (String, String) {
    let arguments = [
        "deploy",
        "shop/web",
        "--package",
        package,
        "--version",
        version,
    ];
    site.cutover(&arguments).ok();
    let installed = std::fs::read_to_string(site.path("web-1/app/version.txt")).unwrap();
    let source = site.report()["deployments"][0]["revision"]["source"].clone();
    (
        installed.trim().to_owned(),
        source.as_str().unwrap().to_owned(),
    )
}

fn refusal(site: &Site, package: &str) -> String {
    let answer = site.cutover(&["deploy", "shop/web", "--package", package]);

    assert_eq!(answer.code, 3, "{}", answer.stderr);
    site.assert_untouched();
    answer.stderr
}

#[test]
fn a_branch_a_tag_and_a_commit_each_stand_for_one_commit() {
    let site = workspace("");
    let [release, tagged, main] = repository(&site);
    let repo = format!("git+file://{}", site.path("repo").display());
    for (number, (revision, version, commit)) in [
        ("release", "1.0.0", &release),
        ("v2.0.0", "2.0.0", &tagged),
        ("refs/tags/v2.0.0", "2.0.0", &tagged),
        ("main", "3.0.0", &main),
        (release.as_str(), "1.0.0", &release),
        (&main[..12], "3.0.0", &main),
        (&tagged[..7], "2.0.0", &tagged),
    ]
    .into_iter()
    .enumerate()
    {
        let deployed = deploy(
            &site,
            &format!("{repo}#{revision}"),
            &format!("9.0.{number}"),
        );

        assert_eq!(deployed, (version.to_owned(), format!("{repo}#{commit}")));
    }
}

#[test]
fn what_is_not_there_is_told_with_what_looks_like_it() {
    let site = workspace("");
    repository(&site);
    let repo = format!("git+file://{}", site.path("repo").display());

    let tag = refusal(&site, &format!("{repo}#2.0.0"));
    let short = refusal(&site, &format!("{repo}#abcdef0"));

    assert!(tag.contains("has no branch and no tag `2.0.0`"), "{tag}");
    assert!(
        tag.contains("its branches are `main`, `release`; its tags are `v2.0.0`, `next`"),
        "{tag}"
    );
    assert!(short.contains("is at a commit `abcdef0…`"), "{short}");
    assert!(
        short.contains("write the whole id of the commit"),
        "{short}"
    );
}

#[test]
fn a_repository_behind_a_web_server_wants_its_password_from_the_file_that_is_named() {
    let site = workspace("config_file: PATH");
    let text = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    let config = site.path("git.config").display().to_string();
    site.write("cutover.yaml", &text.replace("PATH", &config));
    let [_, tagged, _] = repository(&site);
    let server = GitServer::start(&site.path(""));
    site.write("git.config", "");
    let package = format!("git+{}#v2.0.0", server.url("repo/.git"));

    let said = refusal(&site, &package);
    assert!(
        said.contains("`config_file` in the plugin's config"),
        "{said}"
    );
    site.write("password", &format!("{}\n", server.with_password()));
    site.write(
        "git.config",
        &format!(
            "[credential]\n\thelper = store --file={}\n",
            site.path("password").display()
        ),
    );
    let (installed, source) = deploy(&site, &package, "2.0.0");

    assert_eq!(installed, "2.0.0");
    assert_eq!(source, format!("git+{}#{tagged}", server.url("repo/.git")));
}

#[test]
fn a_repository_on_another_host_is_reached_over_ssh() {
    let Some(hosts) = Hosts::up(1) else { return };
    let site = workspace("");
    let [_, tagged, _] = repository(&site);
    run(&site.path("repo"), "git bundle create -q ../bundle --all");
    let bundle = site.path("bundle").display().to_string();
    std::fs::copy(&bundle, hosts.path(1, "/srv/bundle")).unwrap();
    let cloned = hosts.run(
        1,
        "cd /tmp && git clone -q --bare /srv/bundle shop.git && echo cloned",
    );
    assert_eq!(cloned.trim(), "cloned");
    // An `ssh` that knows the host, before the usual one.
    let config = hosts.folder().join("ssh_config");
    site.script(
        "bin/ssh",
        &format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F '{}' \"$@\"\n",
            config.display()
        ),
    );
    let path = std::env::var("PATH").unwrap();
    let package = "git+ssh://web-1/tmp/shop.git#v2.0.0";
    let deployed = site
        .command(&["deploy", "shop/web", "--package", package])
        .env("PATH", format!("{}:{path}", site.path("bin").display()))
        .output()
        .unwrap();

    assert!(deployed.status.success(), "{deployed:?}");
    let source = site.report()["deployments"][0]["revision"]["source"].clone();
    assert_eq!(source, format!("git+ssh://web-1/tmp/shop.git#{tagged}"));
}
