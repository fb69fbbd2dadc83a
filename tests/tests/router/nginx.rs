//! nginx: the split between upstreams, the weights of one, members in and out, and what a refusal leaves behind.

use std::fs;

use cutover_tests::Nginx;
use plugin_host::load_balancer::{self, Phase};
use plugin_host::{Access, DirectoryGrant, FailureClass};

use super::*;

/// An nginx in front of services, with the router of its plugin.
struct Shop {
    site: Site,
    nginx: Nginx,
    router: Router,
    blue: Vec<Service>,
    green: Vec<Service>,
}

impl Shop {
    async fn with_two_upstreams() -> Self {
        let (blue, green) = (services(&["b1", "b2"]), services(&["g1", "g2"]));
        let upstreams = [
            ("shop-blue", &servers(&blue)[..]),
            ("shop-green", &servers(&green)[..]),
        ];
        let site = Site::new();
        let nginx = Nginx::start(&site, &upstreams);
        let sides = vec![
            side("blue", r#"{"upstream": "shop-blue"}"#, &blue),
            side("green", r#"{"upstream": "shop-green"}"#, &green),
        ];
        let router = Self::router(&site, &nginx, "", sides).await;
        Self {
            site,
            nginx,
            router,
            blue,
            green,
        }
    }

    /// `blue` are the three current members, `green` the new one.
    async fn with_one_upstream() -> Self {
        let (blue, green) = (services(&["web-1", "web-2", "web-3"]), services(&["web-4"]));
        let all: Vec<_> = servers(&blue).into_iter().chain(servers(&green)).collect();
        let site = Site::new();
        let nginx = Nginx::start(&site, &[("shop", &all[..])]);
        let sides = vec![side("current", "{}", &blue), side("new", "{}", &green)];
        let router = Self::router(&site, &nginx, r#", "upstream": "shop""#, sides).await;
        Self {
            site,
            nginx,
            router,
            blue,
            green,
        }
    }

    async fn router(site: &Site, nginx: &Nginx, more: &str, sides: Vec<Side>) -> Router {
        let grants = Grants {
            sockets: vec![format!("tcp:{}", nginx.status)],
            programs: vec![nginx.program(), "/bin/ps".to_owned()],
            directories: vec![DirectoryGrant {
                name: "nginx".to_owned(),
                path: site.path("nginx/cutover"),
                access: Access::ReadWrite,
            }],
            ..Grants::default()
        };
        Router::load(site, "nginx", grants, nginx.plugin_config(more), sides).await
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.site.path("nginx/cutover").join(name)).unwrap()
    }

    async fn phase(&self, id: &str) -> Phase {
        let Router { plugin, config, .. } = &self.router;
        let (ctx, pool, asked) = (OpContext::default(), Pool::default(), [id.to_owned()]);
        let status = plugin.status(&ctx, config, &pool, &asked).await;
        status.unwrap()[0].phase
    }

    /// Polls what a call on one member left, until it is done.
    async fn done(&self, results: Vec<load_balancer::MemberResult>) -> Outcome {
        let Router { plugin, config, .. } = &self.router;
        let mut outcome = results.into_iter().next().unwrap().outcome.unwrap();
        while let Outcome::Pending(pending) = outcome {
            tokio::time::sleep(pending.poll_after).await;
            outcome = plugin
                .poll(&OpContext::default(), config, &pending.token)
                .await
                .unwrap();
        }
        outcome
    }
}

#[tokio::test]
async fn traffic_is_switched_and_split_within_two_points() {
    let shop = Shop::with_two_upstreams().await;
    let router = &shop.router;
    assert!(
        router
            .findings(Purpose::Weighted, Severity::Error)
            .await
            .is_empty()
    );

    router.set(&[0, 100]).await;
    let switched = measured(shop.nginx.front, 200, &shop.green, &shop.blue).0;
    let seen = router.get().await;
    router
        .try_set(seen.revision.as_deref(), &[80, 20])
        .await
        .unwrap();
    let split = measured(shop.nginx.front, 20_000, &shop.green, &shop.blue).0;

    assert!((switched - 100.0).abs() < 1e-9, "{switched} %");
    assert_eq!((seen.live(), seen.settled), (Some("green"), true));
    assert!((18.0..=22.0).contains(&split), "{split} %");
    assert_eq!(router.percents().await, [80, 20]);
    assert_eq!(router.set(&[80, 20]).await, Outcome::Unchanged);
    assert!(
        shop.file("shop.split.conf.before")
            .contains("* shop-green;")
    );
}

/// nginx closes idle client connections when it reloads, unless it is new enough to have `keepalive_min_timeout`. What it
/// may cost is at most each of wrk's sixteen connections at each reload, and never a wrong answer.
#[tokio::test]
async fn ten_switches_lose_nothing_but_idle_connections() {
    let shop = Shop::with_two_upstreams().await;
    let wrk = Wrk::start(shop.nginx.front);

    for percents in [[0, 100], [100, 0]].repeat(5) {
        shop.router.set(&percents).await;
        let side = if percents[0] == 0 {
            &shop.green
        } else {
            &shop.blue
        };
        let before = served(side);
        until("the live side is asked", || served(side) > before + 200);
    }

    let load = wrk.stop();
    let most = if Nginx::keeps_connections() { 0 } else { 160 };
    assert!(load.errors <= most, "{load:?}");
    assert_eq!(load.wrong_answers, 0, "{load:?}");
}

#[tokio::test]
async fn a_split_by_another_hand_is_a_conflict() {
    let shop = Shop::with_two_upstreams().await;
    let seen = shop.router.get().await;
    let file = shop.site.path("nginx/cutover/shop.split.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("* shop-blue;", "30% shop-green; * shop-blue;"),
    )
    .unwrap();

    let conflict = shop
        .router
        .refusal(seen.revision.as_deref(), &[0, 100])
        .await;

    assert_eq!(conflict.class, FailureClass::Conflict);
    assert!(
        conflict
            .message
            .contains("is `70% shop-blue 30% shop-green`"),
        "{conflict:?}"
    );
}

#[tokio::test]
async fn what_nginx_refuses_is_put_back_and_traffic_goes_on() {
    let shop = Shop::with_two_upstreams().await;
    // Somebody else's mistake, which the next test of the configuration meets.
    shop.site.write("nginx/cutover/other.conf", "bogus on;\n");
    let before = shop.file("shop.split.conf");

    let refused = shop.router.refusal(None, &[0, 100]).await;
    let found = shop.router.findings(Purpose::Switch, Severity::Error).await;

    assert_eq!(refused.class, FailureClass::Invalid);
    assert!(
        refused.message.contains("unknown directive \"bogus\"")
            && refused.message.contains("other.conf:1"),
        "{refused:?}"
    );
    assert!(
        found[0].contains("unknown directive \"bogus\""),
        "{found:?}"
    );
    assert_eq!(shop.file("shop.split.conf"), before);
    let blue = measured(shop.nginx.front, 100, &shop.blue, &shop.green).0;
    assert!((blue - 100.0).abs() < 1e-9, "{blue} %");

    fs::remove_file(shop.site.path("nginx/cutover/other.conf")).unwrap();
    shop.router.set(&[0, 100]).await;
    assert_eq!(shop.router.percents().await, [0, 100]);
}

#[tokio::test]
async fn members_of_one_upstream_share_by_their_weights() {
    let shop = Shop::with_one_upstream().await;

    shop.router.set(&[100, 0]).await;
    let none = measured(shop.nginx.front, 200, &shop.green, &shop.blue).0;
    let resting = shop.phase("web-4").await;
    shop.router.set(&[80, 20]).await;
    let part = measured(shop.nginx.front, 20_000, &shop.green, &shop.blue).0;

    assert!(none < 1e-9, "{none} %");
    assert_eq!(resting, Phase::InService);
    assert!((18.0..=22.0).contains(&part), "{part} %");
    assert_eq!(shop.router.percents().await, [80, 20]);
}

#[tokio::test]
async fn a_member_leaves_and_comes_back() {
    let shop = Shop::with_one_upstream().await;
    let Router { plugin, config, .. } = &shop.router;
    let ctx = OpContext::default();
    let pool = Pool::default();
    let member = load_balancer::Member {
        target_id: "web-4".to_owned(),
        address: "127.0.0.1".to_owned(),
        port: shop.green[0].address().port(),
        ..load_balancer::Member::default()
    };
    let members = std::slice::from_ref(&member);

    let left = plugin
        .deregister(&ctx, config, &pool, members)
        .await
        .unwrap();
    shop.done(left).await;
    let (away, alone) = (
        shop.phase("web-4").await,
        measured(shop.nginx.front, 200, &shop.green, &shop.blue).0,
    );
    let again = plugin
        .deregister(&ctx, config, &pool, members)
        .await
        .unwrap();
    let again = shop.done(again).await;
    let back = plugin.register(&ctx, config, &pool, members).await.unwrap();
    shop.done(back).await;
    let quarter = measured(shop.nginx.front, 2_000, &shop.green, &shop.blue).0;

    assert_eq!(away, Phase::OutOfService);
    assert!(alone < 1e-9, "{alone} %");
    assert!(
        matches!(again, Outcome::Unchanged | Outcome::Changed(_)),
        "{again:?}"
    );
    assert_eq!(shop.phase("web-4").await, Phase::InService);
    assert!((20.0..=30.0).contains(&quarter), "{quarter} %");
}
