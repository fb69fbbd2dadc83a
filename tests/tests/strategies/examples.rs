//! The examples of the strategies, as their READMEs have them run.

use std::path::Path;

use super::*;

/// Runs an example and gives what it says, without the seconds that things took.
fn play(example: &str, ports: &[u16]) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(example)
        .join("run.sh");
    let folder = tempfile::tempdir().unwrap();
    let free = free_ports(ports.len());
    let pairs: Vec<_> = ports
        .iter()
        .zip(&free)
        .map(|(port, free)| format!("{port}={free}"))
        .collect();

    let output = Command::new(script)
        .arg(folder.path().join("run"))
        .env("CUTOVER", target_folder().join("cutover"))
        .env("SHOP_SERVICE", target_folder().join("shop-service"))
        .env("PORTS", pairs.join(" "))
        .env("NO_COLOR", "1")
        .env_remove("CUTOVER_CONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap();

    let answer = Answer::from(output).ok();
    until("nothing of the example runs any more", || {
        !is_home_of_a_process(folder.path())
    });
    let lines = answer.stdout.lines();
    lines
        .map(|line| line.split(" in ").next().unwrap().trim().to_owned())
        .collect()
}

/// Whether a process works in a folder.
fn is_home_of_a_process(folder: &Path) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut homes =
        processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
    homes.any(|home| home.starts_with(folder))
}

/// The lines of the answer that begin so.
fn beginning<'a>(lines: &'a [String], words: &[&str]) -> Vec<&'a str> {
    let lines = lines.iter().map(String::as_str);
    lines
        .filter(|line| words.iter().any(|word| line.starts_with(word)))
        .collect()
}

/// The versions that answered at each visit, in order.
fn versions(lines: &[String]) -> Vec<&str> {
    let visits = lines.iter().filter_map(|line| {
        let (count, version) = line.split_once(" shop ")?;
        count.parse::<u32>().ok().map(|_| version)
    });
    visits.collect()
}

#[test]
fn the_example_of_blue_green_runs_as_its_readme_says() {
    let lines = play("blue-green", &[8080, 8081, 8082, 8083, 8084, 9999]);

    assert_eq!(
        beginning(&lines, &["SUCCEEDED", "50 shop", "live "]),
        [
            "SUCCEEDED  shop/web deploy 1.0.0",
            "50 shop 1.0.0",
            "SUCCEEDED  shop/web deploy 1.1.0",
            "50 shop 1.1.0",
            "SUCCEEDED  shop/web rollback 1.0.0",
            "50 shop 1.0.0",
            "live shop-blue",
        ]
    );
}

#[test]
fn the_example_of_a_canary_runs_as_its_readme_says() {
    let lines = play("canary", &[8080, 8081, 8082, 8083, 8084, 9999]);

    // Fifty requests at 20% and at 10% are few, so that the second version may miss one of the two.
    let mut versions = versions(&lines);
    versions.dedup();
    assert_eq!(versions.first(), Some(&"1.0.0"));
    assert!(versions.contains(&"1.1.0"));
    assert_eq!(versions.last(), Some(&"1.0.0"));
    assert_eq!(
        beginning(&lines, &["SUCCEEDED", "FAILED"]),
        [
            "SUCCEEDED  shop/web deploy 1.0.0",
            "SUCCEEDED  shop/web deploy 1.1.0",
            "SUCCEEDED  shop/web rollback 1.0.0",
            // Whoever drives it says so, and whoever asked for the way back.
            "FAILED  shop/web deploy 1.2.0, shop/web rollback 1.0.0",
            "FAILED  shop/web deploy 1.2.0, shop/web rollback 1.0.0",
        ]
    );
}

#[test]
fn the_example_of_rolling_runs_as_its_readme_says() {
    let lines = play("rolling", &[8080, 8081, 8082, 8083, 8084, 9999]);

    assert_eq!(
        versions(&lines),
        [
            "1.0.0", "1.0.0", "1.0.0", "1.1.0", "1.1.0", "1.1.0", "1.0.0"
        ]
    );
}

#[test]
fn the_example_of_nginx_runs_as_its_readme_says() {
    let lines = play("nginx", &[8080, 8081, 8082, 8083, 8084, 8089]);

    assert_eq!(
        beginning(&lines, &["SUCCEEDED", "50 shop"]),
        [
            "SUCCEEDED  shop/web deploy 1.0.0",
            "50 shop 1.0.0",
            "SUCCEEDED  shop/web deploy 1.1.0",
            "50 shop 1.1.0",
            "SUCCEEDED  shop/web rollback 1.0.0",
            "50 shop 1.0.0",
        ]
    );
    let split = lines.iter().find(|line| line.contains("* shop-green;"));
    assert!(split.is_some(), "{lines:?}");
}

#[test]
fn the_example_of_rolling_behind_nginx_runs_as_its_readme_says() {
    let lines = play("nginx-rolling", &[8080, 8081, 8082, 8083, 8089]);

    assert_eq!(versions(&lines), ["1.0.0", "1.1.0", "1.1.0", "1.0.0"]);
    assert_eq!(
        beginning(&lines, &["SUCCEEDED", "FAILED"]),
        [
            "SUCCEEDED  shop/web deploy 1.0.0",
            "SUCCEEDED  shop/web deploy 1.1.0",
            "FAILED  shop/web deploy 1.2.0, shop/web rollback 1.1.0",
            "SUCCEEDED  shop/web rollback 1.0.0",
        ]
    );
}

#[test]
fn the_example_of_a_plan_runs_as_its_readme_says() {
    let lines = play("plan", &[8080, 8081, 8082, 8083, 8084, 8085]);

    let ends = beginning(&lines, &["SUCCEEDED", "PAUSED", "STOPPED"]);
    let ends: Vec<_> = ends
        .iter()
        .map(|line| line.split("  release ").next().unwrap())
        .collect();
    let paused = "PAUSED  shop/web deploy 1.1.0, shop/jobs restart 1.0.0, shop/api stop 1.0.0";
    assert_eq!(
        ends[..5],
        [
            "SUCCEEDED  shop/web deploy 1.0.0, shop/api deploy 1.0.0, shop/jobs deploy 1.0.0",
            // Whoever drives it says so, and whoever asked for the pause.
            paused,
            paused,
            "SUCCEEDED  shop/web deploy 1.1.0, shop/jobs restart 1.0.0, shop/api stop 1.0.0",
            "SUCCEEDED  shop/api start 1.0.0, shop/web rollback 1.0.0",
        ]
    );
    assert!(ends[5..].iter().all(|end| end.starts_with("STOPPED")));
    assert_eq!(ends.len(), 7);
}
