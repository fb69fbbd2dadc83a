//! The page in Chromium, where there is one.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use report::{Document, html};
use tempfile::TempDir;

use crate::releases;

/// A page as Chromium has it after its script ran, and what it complained of.
struct Shown {
    dom: String,
    complaints: Vec<String>,
}

/// Shows a page, or says why this machine cannot and gives none.
fn shown(page: &str) -> Option<Shown> {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("report.html");
    std::fs::write(&file, page).unwrap();
    let ran = Command::new("chromium")
        // Its own sandbox does not work as root, as which tests may run; the page is ours.
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .arg("--enable-logging=stderr")
        .arg(format!(
            "--user-data-dir={}",
            folder.path().join("profile").display()
        ))
        .arg(format!("file://{}", file.display()))
        .stdin(Stdio::null())
        .output();
    let output = match ran {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip(
                "there is no `chromium`: on Debian, apt-get install --no-install-recommends chromium",
            );
            return None;
        }
        ran => ran.expect("run chromium"),
    };
    assert!(output.status.success(), "chromium failed: {output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    let complaints = told.lines().filter(|line| line.contains("CONSOLE"));
    Some(Shown {
        dom: String::from_utf8(output.stdout).unwrap(),
        complaints: complaints.map(str::to_owned).collect(),
    })
}

/// Says that a test was not run, past the test runner, which keeps what passing tests print to itself.
fn skip(why: &str) {
    let name = std::thread::current().name().map(str::to_owned);
    let line = format!("NOT RUN: {}: {why}\n", name.unwrap_or_default());
    // Nobody is left to tell when stderr is gone.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// How many attempts of steps took time.
fn attempts(document: &Document) -> usize {
    let deployments = document.deployments.iter();
    let instances = deployments.flat_map(|deployment| &deployment.instances);
    let steps = instances.flat_map(|instance| &instance.steps);
    steps.filter(|step| step.status != "SKIPPED").count()
}

#[test]
fn every_attempt_is_a_bar_and_the_page_breaks_no_rule_of_its_own() {
    for document in [
        releases::plan(),
        releases::failed(),
        releases::canary(),
        releases::paused(),
        releases::running(),
        releases::interrupted(),
        releases::fleet(200),
    ] {
        let Some(shown) = shown(&html::render(&document)) else {
            return;
        };

        assert_eq!(shown.complaints, [""; 0]);
        // The row of an attempt has the one lane of this height, and one bar in it.
        let lanes = shown.dom.split("<svg class=\"lane thin\"").skip(1);
        let bars = lanes.map(|lane| {
            let lane = lane.split("</svg>").next().unwrap();
            lane.matches("<rect class=\"bar ").count()
        });
        let bars: Vec<_> = bars.collect();
        assert_eq!(bars, vec![1; attempts(&document)]);
        // The script shows its buttons.
        assert!(shown.dom.contains("<p class=\"buttons\">"));
    }
}

#[test]
fn a_script_or_style_that_got_into_the_page_does_nothing() {
    let foreign = "<script>document.title = 'broken'</script><p style='color: red'>x</p></body>";
    let page = html::render(&releases::plan()).replace("</body>", foreign);

    let Some(shown) = shown(&page) else {
        return;
    };

    assert!(!shown.dom.contains("<title>broken"));
    assert_eq!(shown.complaints.len(), 2, "{:?}", shown.complaints);
    assert!(
        shown
            .complaints
            .iter()
            .all(|complaint| complaint.contains("Content Security Policy"))
    );
}
