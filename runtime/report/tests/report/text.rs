//! The report as text.

use insta::assert_snapshot;
use report::Document;

use crate::releases;

/// What is told of the whole release, and of one of its services.
fn told(document: &Document, service: &str) -> String {
    let text = report::render(document);
    let parts: Vec<_> = text.split("\n\n").collect();
    let of_service = parts.iter().find(|part| part.starts_with(service));
    [parts[0], parts[1], of_service.unwrap()].join("\n\n")
}

#[test]
fn each_service_of_a_plan_has_its_state_its_times_and_its_facts() {
    assert_snapshot!(told(&releases::plan(), "shop/web"), @"
    release      r-20261121-093000-k3x9
    status       SUCCEEDED
    comment      Checkout with saved cards
    operator     ada@build-7
    started      2026-11-21T09:30:00.000Z
    ended        2026-11-21T09:32:15.288Z

    SERVICE      KIND                PRIORITY  STATUS     STARTED       TOOK        TIMELINE
    shop/api     HTTP_UPLOAD_DEPLOY  3         SUCCEEDED  09:30:00.100  1 min 34 s  ===========================.............
    shop/web     COMPILE_DEPLOY      3         SUCCEEDED  09:30:00.130  1 min 28 s  ==========================..............
    shop/worker  RESTART             1         SUCCEEDED  09:31:34.748  40.4 s      ............................===========.

    shop/web  deploy 1.5.0  rolling  SUCCEEDED  (d-20261121-0930-web)
      service    222  COMPILE_DEPLOY  priority 3
      package    https://artifacts.example/shop/web-1.5.0.tar.zst
      digest     sha256:4f9c1d024f9c1d024f9c1d024f9c1d024f9c1d024f9c1d024f9c1d024f9c1d02
      started    2026-11-21T09:30:00.130Z
      ended      2026-11-21T09:31:28.810Z
      batch 1    web-1 web-2 web-3 web-4 web-5 web-6
      plugin     haproxy sha256:77ab03de77ab03de77ab03de77ab03de77ab03de77ab03de77ab03de77ab03de
    ");
}

#[test]
fn a_service_that_waits_for_its_turn_says_for_what() {
    assert_snapshot!(told(&releases::paused(), "shop/worker"), @"
    release      r-20261121-093000-k3x9
    status       PAUSED
    waiting for  an operator: `cutover resume r-20261121-093000-k3x9` or `cutover stop r-20261121-093000-k3x9`
    comment      Checkout with saved cards
    operator     ada@build-7
    started      2026-11-21T09:30:00.000Z

    SERVICE      KIND                PRIORITY  STATUS     STARTED       TOOK        TIMELINE
    shop/api     HTTP_UPLOAD_DEPLOY  3         SUCCEEDED  09:30:00.100  1 min 34 s  ===================================.....
    shop/web     COMPILE_DEPLOY      3         SUCCEEDED  09:30:00.130  1 min 28 s  =================================.......
    shop/worker  RESTART             1         WAITING                              waits for the release to go on

    shop/worker  operate 1.4.2  rolling  WAITING  (d-20261121-0930-worker)
      service    333  RESTART  priority 1
      package    https://artifacts.example/shop/worker-1.5.0.tar.zst
      digest     sha256:4f9c1d024f9c1d024f9c1d024f9c1d024f9c1d024f9c1d024f9c1d024f9c1d02
      waits for  the release to go on
      batch 1    worker-1 worker-2
      plugin     haproxy sha256:77ab03de77ab03de77ab03de77ab03de77ab03de77ab03de77ab03de77ab03de
    ");
}

#[test]
fn a_service_that_never_began_is_not_one_that_failed() {
    assert_snapshot!(told(&releases::failed(), "shop/worker"), @"
    release      r-20261121-093000-k3x9
    status       FAILED
    reason       shop/web failed: 2 instances failed, the threshold is 1
    comment      Checkout with saved cards
    operator     ada@build-7
    started      2026-11-21T09:30:00.000Z
    ended        2026-11-21T09:31:34.708Z

    SERVICE      KIND                PRIORITY  STATUS       STARTED       TOOK        TIMELINE
    shop/api     HTTP_UPLOAD_DEPLOY  3         SUCCEEDED    09:30:00.100  1 min 34 s  =======================================.
    shop/web     COMPILE_DEPLOY      3         FAILED       09:30:00.130  44.8 s      ===================.....................
    shop/worker  RESTART             1         NOT STARTED

    shop/worker  operate 1.4.2  rolling  NOT STARTED  (d-20261121-0930-worker)
      service    333  RESTART  priority 1
      package    https://artifacts.example/shop/worker-1.5.0.tar.zst
      digest     sha256:4f9c1d024f9c1d024f9c1d024f9c1d024f9c1d024f9c1d024f9c1d024f9c1d02
      batch 1    worker-1 worker-2
      plugin     haproxy sha256:77ab03de77ab03de77ab03de77ab03de77ab03de77ab03de77ab03de77ab03de
    ");
}

#[test]
fn a_release_of_one_service_tells_its_times_once() {
    let text = report::render(&releases::canary());

    assert!(!text.contains("TIMELINE"));
    assert_eq!(text.matches("started ").count(), 1);
}
