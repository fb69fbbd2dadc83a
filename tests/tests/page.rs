//! The report as a page, written by the program.

#![allow(clippy::unwrap_used)]

use cutover_tests::Site;

/// A workspace with a release, and its id.
fn released() -> (Site, String) {
    let site = Site::with_instances(2, "");
    site.traced_package("v1", "1.0.0", "");
    let arguments = [
        "deploy",
        "shop/web",
        "--package",
        "v1",
        "--version",
        "1.0.0",
    ];
    site.cutover(&arguments).ok();
    let id = site.report_of_newest()["id"].as_str().unwrap().to_owned();
    (site, id)
}

#[test]
fn a_report_is_written_as_a_page_and_replaces_an_older_one() {
    let (site, id) = released();

    let first = site.cutover(&["report", &id, "--html", "report.html"]).ok();
    let again = site.cutover(&["report", &id, "--html", "report.html"]).ok();
    let printed = site.cutover(&["report", &id, "--html", "-"]).ok();

    assert_eq!(first.stdout, "report.html\n");
    assert_eq!(again.stdout, "report.html\n");
    let page = std::fs::read_to_string(site.path("report.html")).unwrap();
    assert_eq!(page, printed.stdout);
    assert!(page.starts_with("<!DOCTYPE html>"));
    for word in [
        id.as_str(),
        "执行成功",
        "web-1",
        "web-2",
        "ApplicationStart",
        "1.0.0",
    ] {
        assert!(page.contains(word), "{word}");
    }
}

#[test]
fn a_file_that_is_no_report_is_not_replaced() {
    let (site, id) = released();
    let before = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();

    let answer = site.cutover(&["report", &id, "--html", "cutover.yaml"]);

    assert_eq!(answer.code, 3);
    assert_eq!(
        answer.stderr,
        "error: `cutover.yaml` is there already, and no report\nhint: remove it, or name another file\n"
    );
    let after = std::fs::read_to_string(site.path("cutover.yaml")).unwrap();
    assert_eq!(after, before);
}

#[test]
fn a_page_in_a_folder_that_is_not_there_says_so() {
    let (site, id) = released();

    let answer = site.cutover(&["report", &id, "--html", "nowhere/report.html"]);

    assert_eq!(answer.code, 3);
    assert!(
        answer
            .stderr
            .starts_with("error: write `nowhere/report.html`\n  because: "),
        "{}",
        answer.stderr
    );
}

#[test]
fn a_page_and_json_are_not_asked_for_at_once() {
    let (site, id) = released();

    let answer = site.cutover(&["report", &id, "--html", "-", "--output", "json"]);

    assert_eq!(answer.code, 2);
    assert_eq!(answer.stdout, "");
}
