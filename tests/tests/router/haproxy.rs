//! HAProxy: the switch and the percentage of a map, and the weights of one backend.

use std::fs;

use cutover_tests::HaProxy;
use plugin_host::load_balancer::Phase;
use plugin_host::{Access, DirectoryGrant, FailureClass};

use super::*;

const CHECKED: &str = "check inter 100ms fall 2 rise 1";

/// Two colours of two services each behind an HAProxy.
struct Colours {
    site: Site,
    haproxy: HaProxy,
    blue: Vec<Service>,
    green: Vec<Service>,
}

impl Colours {
    fn start() -> Self {
        let site = Site::new();
        let (blue, green) = (services(&["b1", "b2"]), services(&["g1", "g2"]));
        let haproxy = HaProxy::with_sides(&site, &servers(&blue), &servers(&green), CHECKED);
        Self {
            site,
            haproxy,
            blue,
            green,
        }
    }

    /// A router whose configuration has `entry` besides the socket.
    async fn router(&self, entry: &str) -> Router {
        let socket = format!("tcp:{}", self.haproxy.socket);
        let grants = Grants {
            sockets: vec![socket.clone()],
            directories: vec![DirectoryGrant {
                name: "maps".to_owned(),
                path: self.site.path("maps"),
                access: Access::ReadWrite,
            }],
            ..Grants::default()
        };
        let sides = vec![
            side("blue", r#"{"backend": "shop-blue"}"#, &self.blue),
            side("green", r#"{"backend": "shop-green"}"#, &self.green),
        ];
        let config = format!(r#"{{"socket": "{socket}", {entry}}}"#);
        Router::load(&self.site, "haproxy", grants, config, sides).await
    }

    async fn switch(&self) -> Router {
        let file = self.site.path("maps/live.map");
        let file = file.display();
        self.router(&format!(
            r#""map": {{"file": "{file}", "key": "live", "directory": "maps"}}"#
        ))
        .await
    }

    async fn percent(&self) -> Router {
        let file = self.site.path("maps/share.map");
        let file = file.display();
        self.router(&format!(
            r#""percent_map": {{"file": "{file}", "key": "green", "directory": "maps", "backend": "shop-green"}}"#
        ))
        .await
    }

    fn map_file(&self, name: &str) -> String {
        fs::read_to_string(self.site.path("maps").join(name)).unwrap()
    }
}

#[tokio::test]
async fn no_request_is_lost_in_ten_switches() {
    let colours = Colours::start();
    let router = colours.switch().await;
    let wrk = Wrk::start(colours.haproxy.front);

    for percents in [[0, 100], [100, 0]].repeat(5) {
        router.set(&percents).await;
        assert_eq!(router.percents().await, percents);
        let side = if percents[0] == 0 {
            &colours.green
        } else {
            &colours.blue
        };
        let before = served(side);
        until("the live side is asked", || served(side) > before + 200);
    }

    let load = wrk.stop();
    assert_eq!(load.errors, 0, "of {} requests", load.requests);
    assert_eq!(
        colours.map_file("live.map"),
        "# the live backend\nlive shop-blue\n"
    );
}

#[tokio::test]
async fn a_switch_outlives_a_reload() {
    let colours = Colours::start();
    let router = colours.switch().await;

    router.set(&[0, 100]).await;
    colours.haproxy.reload();

    assert_eq!(router.percents().await, [0, 100]);
    assert_eq!(
        colours.map_file("live.map"),
        "# the live backend\nlive shop-green\n"
    );
    let (green, _) = measured(colours.haproxy.front, 100, &colours.green, &colours.blue);
    assert!((green - 100.0).abs() < 1e-9, "{green} %");
}

#[tokio::test]
async fn a_switch_by_another_hand_is_a_conflict() {
    let colours = Colours::start();
    let router = colours.switch().await;
    let file = colours.site.path("maps/live.map");
    let seen = router.get().await;
    assert_eq!((seen.live(), seen.settled), (Some("blue"), true));

    // In both places: the state is another one than was read.
    fs::write(&file, "live maintenance\n").unwrap();
    let _ = colours
        .haproxy
        .ask(&format!("set map {} live maintenance", file.display()));
    let changed = router.refusal(seen.revision.as_deref(), &[0, 100]).await;

    assert_eq!(changed.class, FailureClass::Conflict);
    assert!(changed.message.contains("`maintenance`"), "{changed:?}");
    assert!(router.get().await.shares.is_empty(), "no side is live");

    // In one of them: the places disagree.
    fs::write(&file, "live shop-blue\n").unwrap();
    let apart = router.get().await;
    let differs = apart.differs.unwrap();
    assert!(apart.shares.is_empty(), "requests follow the memory");
    assert_eq!(differs.shares[0].percent, 100, "{differs:?}");
    assert!(
        differs
            .message
            .ends_with("is `maintenance` in HAProxy's memory and `shop-blue` in the file"),
        "{differs:?}"
    );

    router.set(&[0, 100]).await;
    assert_eq!(router.percents().await, [0, 100]);
}

#[tokio::test]
async fn a_switch_that_broke_off_between_its_places_is_finished_under_the_revision_of_both() {
    let colours = Colours::start();
    let router = colours.switch().await;
    let file = colours.site.path("maps/live.map");
    let before = router.get().await.revision;
    fs::write(&file, "# the live backend\nlive shop-green\n").unwrap();

    let broken = router.get().await;
    let (live, written) = (broken.live(), broken.differs.as_ref().unwrap());
    assert_eq!((live, written.shares[1].percent), (Some("blue"), 100));
    // Both are guarded: what somebody does to either is seen.
    let _ = colours
        .haproxy
        .ask(&format!("set map {} live maintenance", file.display()));
    let refused = router.refusal(broken.revision.as_deref(), &[0, 100]).await;
    assert_eq!(refused.class, FailureClass::Conflict);
    let _ = colours
        .haproxy
        .ask(&format!("set map {} live shop-blue", file.display()));
    for revision in [broken.revision, before] {
        fs::write(&file, "# the live backend\nlive shop-green\n").unwrap();
        router
            .try_set(revision.as_deref(), &[0, 100])
            .await
            .unwrap();
    }

    let after = router.get().await;
    assert_eq!(
        (after.live(), after.differs.as_ref()),
        (Some("green"), None)
    );
    colours.haproxy.reload();
    assert_eq!(router.percents().await, [0, 100]);
}

#[tokio::test]
async fn a_percentage_is_met_within_two_points_and_outlives_a_reload() {
    let colours = Colours::start();
    let router = colours.percent().await;
    let front = colours.haproxy.percent_front;

    assert_eq!(router.percents().await, [100, 0]);
    let seen = router.get().await.revision;
    router.try_set(seen.as_deref(), &[80, 20]).await.unwrap();
    let (green, load) = measured(front, 20_000, &colours.green, &colours.blue);

    assert!((18.0..=22.0).contains(&green), "{green} %");
    assert_eq!(load.errors, 0, "of {} requests", load.requests);

    colours.haproxy.reload();
    assert_eq!(router.percents().await, [80, 20]);
    let conflict = router.refusal(seen.as_deref(), &[50, 50]).await;
    assert_eq!(conflict.class, FailureClass::Conflict);

    router.set(&[0, 100]).await;
    let (green, _) = measured(front, 100, &colours.green, &colours.blue);
    assert!((green - 100.0).abs() < 1e-9, "{green} %");
}

#[tokio::test]
async fn what_the_configuration_cannot_do_is_found_before_anything_changes() {
    let colours = Colours::start();
    let mut router = colours.switch().await;
    assert!(
        router
            .findings(Purpose::Switch, Severity::Error)
            .await
            .is_empty()
    );
    assert!(
        router
            .findings(Purpose::Switch, Severity::Warning)
            .await
            .is_empty()
    );

    assert_eq!(
        router.findings(Purpose::Weighted, Severity::Error).await,
        ["`map` can only switch: a split between backends needs `percent_map`"]
    );

    router.config = router.config.replace(r#", "directory": "maps""#, "");
    let unkept = router.findings(Purpose::Switch, Severity::Warning).await;
    assert!(
        unkept[0].starts_with("no `directory` is named"),
        "{unkept:?}"
    );

    router.config = router.config.replace("live.map", "dead.map");
    let unknown = router.findings(Purpose::Switch, Severity::Error).await;
    assert!(unknown[0].contains("Unknown map identifier"), "{unknown:?}");

    router.sides[1].group = r#"{"backend": "shop-red"}"#.to_owned();
    let no_backend = router.findings(Purpose::Switch, Severity::Error).await;
    assert!(no_backend[0].contains("shop-red"), "{no_backend:?}");
}

#[tokio::test]
async fn members_of_one_backend_share_by_their_weights() {
    let site = Site::new();
    let (current, new) = (services(&["web-1", "web-2", "web-3"]), services(&["web-4"]));
    let all: Vec<_> = servers(&current).into_iter().chain(servers(&new)).collect();
    let haproxy = HaProxy::start(&site, &all, "check inter 100ms fall 2 rise 1 weight 100");
    let socket = format!("tcp:{}", haproxy.socket);
    let config = format!(r#"{{"socket": "{socket}", "backend": "shop"}}"#);
    let grants = Grants {
        sockets: vec![socket],
        ..Grants::default()
    };
    let sides = vec![side("current", "{}", &current), side("new", "{}", &new)];
    let router = Router::load(&site, "haproxy", grants, config, sides).await;
    assert!(
        router
            .findings(Purpose::Weighted, Severity::Error)
            .await
            .is_empty()
    );
    let status = async |id: &str| {
        let status = router
            .plugin
            .status(
                &OpContext::default(),
                &router.config,
                &Pool::default(),
                &[id.to_owned()],
            )
            .await;
        status.unwrap()[0].phase
    };

    let before = router.get().await.revision;
    router.try_set(before.as_deref(), &[100, 0]).await.unwrap();
    let none = measured(haproxy.front, 100, &new, &current).0;
    let resting = status("web-4").await;
    router.set(&[80, 20]).await;
    let (part, load) = measured(haproxy.front, 20_000, &new, &current);

    assert!(none < 1e-9, "{none} %");
    assert_eq!(
        resting,
        Phase::InService,
        "a healthy member without weight is in service"
    );
    assert!((18.0..=22.0).contains(&part), "{part} %");
    assert_eq!(load.errors, 0, "of {} requests", load.requests);
    assert_eq!(router.percents().await, [80, 20]);
    assert_eq!(router.set(&[80, 20]).await, Outcome::Unchanged);
    let seen = router.get().await.revision;
    let _ = haproxy.ask("set server shop/web-2 weight 50");
    let conflict = router.refusal(seen.as_deref(), &[50, 50]).await;
    assert_eq!(conflict.class, FailureClass::Conflict);
    assert!(
        conflict.message.contains("`shop/web-2` has weight 50"),
        "{conflict:?}"
    );

    // Some of the weights were written, and the call broke off.
    let _ = haproxy.ask("set server shop/web-1 weight 1");
    let half = router.get().await.revision;
    router.try_set(half.as_deref(), &[50, 50]).await.unwrap();
    assert_eq!(router.percents().await, [50, 50]);
}
