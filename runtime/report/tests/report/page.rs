//! The page as text.

use report::{Document, html};

use crate::releases::{self, at};

/// What somebody may try to get into a page, in a text and in an attribute.
const HOSTILE: &str = "<script>alert('1')</script>\" onload=\"alert(2)\" & <!-- x";
const ESCAPED: &str =
    "&lt;script&gt;alert('1')&lt;/script&gt;&quot; onload=&quot;alert(2)&quot; &amp; &lt;!-- x";

/// A document in which every text that may be anything is this one.
fn saying(words: &str) -> Document {
    let words = || words.to_owned();
    let mut document = releases::failed();
    let canary = releases::canary();
    document.deployments.extend(canary.deployments);
    document.orders = canary.orders;
    document.id = words();
    document.comment = words();
    document.operator = words();
    document.reason = Some(words());
    document.waiting_for = Some(words());
    for order in &mut document.orders {
        order.order = words();
        order.operator = words();
    }
    for deployment in &mut document.deployments {
        deployment.id = words();
        deployment.application = words();
        deployment.group = words();
        deployment.kind = words();
        deployment.reason = Some(words());
        deployment.waiting_for = Some(words()).filter(|_| deployment.started_at.is_none());
        deployment.rolls_back = Some(words());
        deployment.revision.version = words();
        deployment.revision.source = words();
        deployment.revision.digest = words();
        deployment.minimum_healthy = Some(words());
        deployment.side = Some(words());
        deployment.shares = [(words(), 100)].into();
        deployment.plugins = [(words(), words())].into();
        deployment.grants = [(words(), vec![words()])].into();
        deployment.excluded = vec![words()];
        deployment.mixed_versions = [(words(), Some(words()))].into();
        deployment.down = [(words(), words())].into();
        deployment.batches = vec![vec![words()]];
        for instance in &mut deployment.instances {
            instance.id = words();
            instance.reason = instance.reason.as_ref().map(|_| words());
            instance.from_version = Some(words());
            instance.to_version = Some(words());
            for step in &mut instance.steps {
                step.version = Some(words());
                step.reason = step.reason.as_ref().map(|_| words());
                step.log = Some(words());
            }
        }
        for switch in &mut deployment.switches {
            switch.reason = Some(words());
            switch.to = [(words(), 100)].into();
            switch.from = [(words(), 100)].into();
        }
        for hold in &mut deployment.holds {
            hold.name = Some(words());
            hold.by = Some(words());
            hold.reason = Some(words());
            for evidence in &mut hold.evidence {
                evidence.name = words();
                evidence.value = words();
                evidence.threshold = Some(words());
            }
        }
    }
    document
}

#[test]
fn whatever_a_release_says_is_text() {
    let hostile = html::render(&saying(HOSTILE));
    let harmless = html::render(&saying("x"));

    assert!(hostile.matches(ESCAPED).count() > 200);
    // But for the words it is the same page.
    assert_eq!(hostile.replace(ESCAPED, "x"), harmless);
}

#[test]
fn what_turns_the_reading_around_or_cannot_be_read_is_shown_as_such() {
    let page = html::render(&saying("a\u{202e}b\u{0}c\u{1b}[31m"));

    assert!(page.contains("a\u{fffd}b\u{fffd}c\u{fffd}[31m"));
    assert!(!page.contains(['\u{202e}', '\u{0}', '\u{1b}']));
}

#[test]
fn the_page_needs_nothing_else() {
    let page = html::render(&releases::failed());

    for element in [
        "<link", "<img", "<iframe", "<base", "<form", " src=", "@import",
    ] {
        assert!(!page.contains(element), "{element}");
    }
    let outside = |name: &str| {
        let values = page.split(name).skip(1);
        values.filter(|value| !value.starts_with('#')).count()
    };
    assert_eq!(outside("href=\""), 0);
    assert_eq!(outside("url("), 0);
    assert!(page.contains("content=\"default-src 'none'; style-src 'sha256-"));
    assert_eq!(page.matches("<script>").count(), 1);
    assert!(page.starts_with(html::BEGINNING));
}

/// The page's text from one heading on, up to the next.
fn part<'p>(page: &'p str, id: &str) -> &'p str {
    let from = page.find(&format!("<h2 id=\"{id}\">")).unwrap();
    let part = &page[from..];
    &part[..part.find("</section>").unwrap()]
}

#[test]
fn failures_come_first_with_the_last_lines_of_the_script() {
    let page = html::render(&releases::failed());

    let problems = part(&page, "problems");
    let places = ["FAILED", "UNREACHABLE", "LOST", "tried again"].map(|word| problems.find(word));
    assert!(places.is_sorted() && places[0].is_some(), "{places:?}");
    assert!(problems.contains(
        "<pre>applying 0042_add_saved_cards\nERROR:  column &quot;card_token&quot; of relation"
    ));
    assert!(page.find("id=\"problems\"") < page.find("id=\"timeline\""));
    // A service that never began has not failed.
    assert!(!problems.contains("shop/worker"));
    assert!(part(&page, "services").contains("NOT STARTED"));
}

#[test]
fn one_problem_of_many_instances_is_told_once() {
    let page = html::render(&releases::fleet(1000));

    let problems = part(&page, "problems");
    assert_eq!(problems.matches("<article").count(), 1);
    assert!(problems.contains("web-42"));
    assert!(problems.contains("and 7 more"));
}

#[test]
fn a_release_that_went_well_has_no_problems() {
    let page = html::render(&releases::plan());

    assert!(!page.contains("id=\"problems\""));
    assert!(page.contains("执行成功"));
    let services = part(&page, "services");
    for fact in [
        "service 111",
        "COMPILE_DEPLOY",
        "1.4.2 → 1.5.0",
        "1 min 34 s",
        "haproxy",
    ] {
        assert!(services.contains(fact), "{fact}");
    }
}

#[test]
fn a_release_that_goes_on_says_as_of_when_and_what_it_waits_for() {
    let page = html::render(&releases::running());

    assert!(page.contains("2026-11-21 09:31:18"));
    assert!(page.contains("as of 09:31:18"));
    assert!(page.contains("<strong>Waiting for </strong>DownloadBundle on web-7"));
    let page = html::render(&releases::paused());
    assert!(page.contains("<strong>Waiting for </strong>an operator: `cutover resume"));
    assert!(page.contains("waiting for the release to go on"));
}

#[test]
fn what_nobody_drives_is_not_told_to_be_running() {
    let page = html::render(&releases::interrupted());

    assert!(!page.contains("RUNNING"));
    assert_eq!(part(&page, "steps").matches("? UNFINISHED").count(), 4);
    // The half hour of which nothing is known is cut.
    assert!(page.contains(">28 min<"));
}

#[test]
fn a_release_that_has_just_begun_has_a_page() {
    let document = Document {
        ended_at: None,
        as_of: Some(at(0)),
        changes: Vec::new(),
        ..releases::release("RUNNING", "执行中", 0)
    };

    let page = html::render(&document);

    assert!(page.contains("RUNNING"));
}

#[test]
fn a_dry_run_has_a_page_without_times() {
    let document = Document {
        started_at: None,
        ended_at: None,
        changes: Vec::new(),
        deployments: vec![releases::deployment("web", &releases::ids("web", 2))],
        ..releases::release("PLANNED", "计划", 0)
    };

    let page = html::render(&document);

    assert!(page.contains("Nothing has happened yet."));
}

#[test]
fn the_timeline_is_told_in_words_too() {
    let document = releases::canary();
    let page = html::render(&document);

    let steps = part(&page, "steps");
    let told = document.deployments[0].instances.iter();
    let rows: usize = told.map(|instance| instance.steps.len()).sum();
    assert_eq!(steps.matches("<tr><th scope=\"row\">").count(), rows + 6);
    assert!(steps.contains("5xx of the new side = 0.02% (at most 0.1%)"));
}

#[test]
fn ten_thousand_steps_make_a_page_that_a_browser_takes() {
    let page = html::render(&releases::fleet(769));

    assert!(page.len() < 7_000_000, "{} bytes", page.len());
    assert!(!page.contains("left out here"));
}

#[test]
fn what_there_is_no_room_for_is_counted_and_is_nothing_that_failed() {
    let document = releases::fleet(2000);
    let page = html::render(&document);

    assert!(page.len() < 7_000_000, "{} bytes", page.len());
    let left_out = page.split(" more instances without failures are left out here");
    let number = left_out.into_iter().next().unwrap();
    let number = number.rsplit('>').next().unwrap();
    assert_eq!(number, "1220");
    let failed = document.deployments[0].instances.iter();
    for instance in failed.filter(|instance| instance.outcome == Some("FAILED")) {
        assert!(
            page.contains(&format!("</b> {}<", instance.id))
                || page.contains(&format!("</b> {} <", instance.id))
        );
    }
}
