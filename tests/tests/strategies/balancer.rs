//! A real balancer in front of a fleet, whichever it is: what scenarios have to know of it.

use cutover_tests::{HaProxy, LateAnswers, Nginx};

use super::*;

/// Makes a test of each scenario with each balancer.
macro_rules! on_each_balancer {
    ($($scenario:ident,)+) => {
        mod haproxy {
            $(#[test] fn $scenario() { super::$scenario(crate::balancer::Kind::HaProxy); })+
        }
        mod nginx {
            $(#[test] fn $scenario() { super::$scenario(crate::balancer::Kind::Nginx); })+
        }
    };
}
pub(crate) use on_each_balancer;

/// Which balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    HaProxy,
    Nginx,
}

/// How the instances stand behind the balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// All in one group, in which they get nothing before they are deployed to.
    Pool,
    /// Each colour in a group of its own, of which one gets everything.
    Colours,
    /// All in either of two groups, which share the traffic, and in neither before they are deployed to.
    Shares,
}

/// When a balancer is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// Where it is asked before anything changes.
    Asked,
    /// Where it is told to switch, to what is written down already.
    Written,
    /// With the answer to a switch that it has carried out.
    Switched,
}

/// A balancer, with what scenarios do to it. It tells by itself of instances that do not answer: HAProxy has health checks,
/// and nginx's plugin is told what to ask them.
pub(crate) struct Balancer {
    real: Real,
    layout: Layout,
}

enum Real {
    HaProxy {
        haproxy: HaProxy,
        /// Stands between the plugin and HAProxy.
        late: LateAnswers,
    },
    Nginx(Nginx),
}

impl Balancer {
    pub(crate) fn start(kind: Kind, layout: Layout, fleet: &Fleet) -> Self {
        let real = match kind {
            Kind::HaProxy => Real::haproxy(layout, fleet),
            Kind::Nginx => Real::nginx(layout, fleet),
        };
        Self { real, layout }
    }

    /// Where visitors come.
    pub(crate) fn front(&self) -> SocketAddr {
        match (&self.real, self.layout) {
            (Real::HaProxy { haproxy, .. }, Layout::Shares) => haproxy.percent_front,
            (Real::HaProxy { haproxy, .. }, _) => haproxy.front,
            (Real::Nginx(nginx), _) => nginx.front,
        }
    }

    /// The plugins of a workspace.
    pub(crate) fn plugins(&self, site: &Site) -> String {
        match &self.real {
            Real::HaProxy { late, .. } => format!(
                "plugins:\n  haproxy:\n    component: haproxy\n    grants:\n      sockets: [\"tcp:{}\"]\n      \
                 directories: [{{name: maps, path: \"{}\", access: read-write}}]\n",
                late.address(),
                site.path("maps").display()
            ),
            Real::Nginx(nginx) => format!(
                "plugins:\n  nginx:\n    component: nginx\n    grants:\n      sockets: [\"tcp:{}\"]\n      \
                 http: [\"http://127.0.0.1:*\"]\n      programs: [\"{}\", /bin/ps]\n      \
                 directories: [{{name: nginx, path: \"{}\", access: read-write}}]\n",
                nginx.status,
                nginx.program(),
                site.path("nginx/cutover").display()
            ),
        }
    }

    /// The key `load_balancer` of a group.
    pub(crate) fn load_balancer(&self) -> String {
        let (plugin, config) = match (&self.real, self.layout) {
            (Real::HaProxy { late, .. }, Layout::Pool) => (
                "haproxy",
                format!("{{socket: \"tcp:{}\", backend: shop}}", late.address()),
            ),
            (Real::HaProxy { late, .. }, _) => {
                ("haproxy", format!("{{socket: \"tcp:{}\"}}", late.address()))
            }
            (Real::Nginx(nginx), layout) => ("nginx", nginx_config(nginx, layout)),
        };
        format!("load_balancer: {{plugin: {plugin}, timeout: 60s, config: {config}}}\n")
    }

    /// The key `traffic` of a group.
    pub(crate) fn traffic(&self, site: &Site, timeout: &str) -> String {
        let maps = site.path("maps");
        let (plugin, config) = match &self.real {
            Real::HaProxy { late, .. } => {
                let way = match self.layout {
                    Layout::Pool => "backend: shop".to_owned(),
                    Layout::Colours => format!(
                        "map: {{file: \"{}\", key: live, directory: maps}}",
                        live_map(site)
                    ),
                    Layout::Shares => format!(
                        "percent_map: {{file: \"{}\", key: green, directory: maps, backend: shop-green}}",
                        maps.join("share.map").display()
                    ),
                };
                (
                    "haproxy",
                    format!("{{socket: \"tcp:{}\", {way}}}", late.address()),
                )
            }
            Real::Nginx(nginx) => ("nginx", nginx_config(nginx, self.layout)),
        };
        format!("traffic: {{plugin: {plugin}, timeout: {timeout}, config: {config}}}\n")
    }

    /// The `group` of a side that has the group of a colour.
    pub(crate) fn group(&self, colour: &str) -> String {
        match self.real {
            Real::HaProxy { .. } => format!("{{backend: shop-{colour}}}"),
            Real::Nginx(_) => format!("{{upstream: shop-{colour}}}"),
        }
    }

    /// The group that gets everything, as the balancer itself says.
    pub(crate) fn live(&self, site: &Site) -> String {
        match &self.real {
            Real::HaProxy { haproxy, .. } => {
                let entries = haproxy.ask(&format!("show map {}", live_map(site)));
                let live = entries
                    .lines()
                    .find_map(|line| line.split_once(" live ").map(|(_, backend)| backend));
                live.unwrap_or("none").to_owned()
            }
            Real::Nginx(nginx) => nginx.live_upstream(),
        }
    }

    /// The group that gets everything, as the balancer's file says.
    pub(crate) fn stored(&self, site: &Site) -> String {
        let (file, before, after) = match self.real {
            Real::HaProxy { .. } => ("maps/live.map", "live ", "\n"),
            Real::Nginx(_) => ("nginx/cutover/shop.split.conf", "* ", ";"),
        };
        let text = std::fs::read_to_string(site.path(file)).unwrap();
        let after_key = text.rsplit_once(before).map_or("none", |(_, rest)| rest);
        let group = after_key.split_once(after).map(|(group, _)| group);
        group.unwrap_or(after_key).to_owned()
    }

    /// Sends everything to a group, as somebody does who knows nothing of cutover.
    pub(crate) fn move_by_hand(&self, site: &Site, group: &str) {
        match &self.real {
            Real::HaProxy { haproxy, .. } => {
                site.write("maps/live.map", &format!("live {group}\n"));
                let map = live_map(site);
                let _ = haproxy.ask(&format!("del map {map} live"));
                let _ = haproxy.ask(&format!("add map {map} live {group}"));
            }
            Real::Nginx(nginx) => {
                let split = format!("split_clients $request_id $shop_upstream {{ * {group}; }}\n");
                site.write("nginx/cutover/shop.split.conf", &split);
                // What a worker of before says would still be the old truth.
                nginx.reload();
            }
        }
        until("the traffic has been moved", || self.live(site) == group);
    }

    /// Sends a part of everything to green, in the same way.
    pub(crate) fn share_by_hand(&self, site: &Site, percent: u8) {
        match &self.real {
            Real::HaProxy { haproxy, .. } => {
                site.write("maps/share.map", &format!("green {percent}\n"));
                let map = site.path("maps/share.map");
                let _ = haproxy.ask(&format!("set map {} green {percent}", map.display()));
            }
            Real::Nginx(nginx) => {
                let split = format!(
                    "split_clients $request_id $shop_upstream {{ {percent}% shop-green; * shop-blue; }}\n"
                );
                site.write("nginx/cutover/shop.split.conf", &split);
                nginx.reload();
            }
        }
    }

    /// Takes an instance of the pool out of traffic by hand.
    pub(crate) fn take_out_by_hand(&self, site: &Site, instance: &str) {
        match &self.real {
            Real::HaProxy { haproxy, .. } => {
                let _ = haproxy.ask(&format!("set server shop/{instance} state maint"));
            }
            Real::Nginx(nginx) => {
                rewrite_server(site, instance, |line| line.replace(';', " down;"));
                nginx.signal("HUP");
            }
        }
    }

    /// Puts it back.
    pub(crate) fn put_in_by_hand(&self, site: &Site, instance: &str) {
        match &self.real {
            Real::HaProxy { haproxy, .. } => {
                let _ = haproxy.ask(&format!("set server shop/{instance} state ready"));
            }
            Real::Nginx(nginx) => {
                rewrite_server(site, instance, |line| line.replace(" down;", ";"));
                nginx.signal("HUP");
            }
        }
    }

    /// Waits until the balancer knows that a server is down. nginx looks when it is asked.
    pub(crate) fn await_down(&self, group: &str, instance: &str) {
        if let Real::HaProxy { haproxy, .. } = &self.real {
            let server = format!("{group},{instance},");
            until("the server's checks fail", || {
                let all = haproxy.ask("show stat");
                let line = all.lines().find(|line| line.starts_with(&server));
                line.is_some_and(|line| line.contains(",DOWN,"))
            });
        }
    }

    /// Makes the balancer late.
    pub(crate) fn hold(&self, when: Late) {
        match &self.real {
            Real::HaProxy { late, .. } => match when {
                Late::Asked => late.hold("show map "),
                Late::Written => late.keep("set map "),
                Late::Switched => late.hold("set map "),
            },
            Real::Nginx(nginx) => nginx.hold(match when {
                Late::Asked => "test",
                Late::Written => "reload",
                Late::Switched => "reloaded",
            }),
        }
    }

    pub(crate) fn is_holding(&self) -> bool {
        match &self.real {
            Real::HaProxy { late, .. } => late.holding() > 0,
            Real::Nginx(nginx) => nginx.is_holding(),
        }
    }

    pub(crate) fn release(&self) {
        match &self.real {
            Real::HaProxy { late, .. } => late.release(),
            Real::Nginx(nginx) => nginx.release(),
        }
    }

    /// Loses the order that is on its way, as if it had never been given.
    pub(crate) fn lose(&self) {
        match &self.real {
            Real::HaProxy { late, .. } => late.release(),
            Real::Nginx(nginx) => nginx.kill_held(),
        }
    }

    /// Has the balancer read its files.
    pub(crate) fn reload(&self) {
        match &self.real {
            Real::HaProxy { haproxy, .. } => haproxy.reload(),
            Real::Nginx(nginx) => nginx.reload(),
        }
    }

    /// How many requests on kept connections may have been lost since the balancer started, with so many connections: nginx
    /// closes idle ones when it reloads, unless it is new enough to have `keepalive_min_timeout`. A client that comes back
    /// at once may meet the other of its two workers just before that closes them, too.
    pub(crate) fn may_close(&self, connections: u64) -> u64 {
        match &self.real {
            Real::Nginx(nginx) if !Nginx::keeps_connections() => 2 * nginx.reloads() * connections,
            Real::HaProxy { .. } | Real::Nginx(_) => 0,
        }
    }
}

impl Real {
    fn haproxy(layout: Layout, fleet: &Fleet) -> Self {
        let site = &fleet.site;
        let checked = "check inter 100ms fall 2 rise 1";
        let away = format!("{checked} weight 100 disabled");
        let web = fleet.servers("web");
        let haproxy = match layout {
            Layout::Pool => HaProxy::start(site, &web, &away),
            Layout::Shares => HaProxy::with_sides(site, &web, &web, &away),
            Layout::Colours => {
                let (blue, green) = (fleet.servers("blue"), fleet.servers("green"));
                let haproxy = HaProxy::with_sides(site, &blue, &green, checked);
                // No colour is live at first.
                let _ = haproxy.ask(&format!("del map {} live", live_map(site)));
                site.write("maps/live.map", "# the live backend\n");
                haproxy
            }
        };
        let late = LateAnswers::of(haproxy.socket);
        // The grant names the folder, whether anything is in it or not.
        site.write("maps/README", "what HAProxy looks up\n");
        Self::HaProxy { haproxy, late }
    }

    fn nginx(layout: Layout, fleet: &Fleet) -> Self {
        let (blue, green) = (fleet.servers("blue"), fleet.servers("green"));
        let upstreams: &[(&str, &[Server])] = match layout {
            Layout::Pool => &[("shop", &[])],
            // It always sends requests somewhere: at first to green, so that blue is the first to be deployed to.
            Layout::Colours => &[("shop-green", &green), ("shop-blue", &blue)],
            Layout::Shares => &[("shop-blue", &[]), ("shop-green", &[])],
        };
        let nginx = Nginx::start(&fleet.site, upstreams);
        if layout == Layout::Pool {
            // As what it has read: nobody gets anything.
            let servers = fleet.servers("web").into_iter();
            let lines = servers
                .map(|(name, address)| format!("server {address} down; # {name} out weight=100\n"));
            let lines: String = lines.collect();
            fleet.site.write("nginx/cutover/shop.servers", &lines);
        }
        Self::Nginx(nginx)
    }
}

fn live_map(site: &Site) -> String {
    site.path("maps/live.map").display().to_string()
}

fn nginx_config(nginx: &Nginx, layout: Layout) -> String {
    let upstream = match layout {
        Layout::Pool => ", \"upstream\": \"shop\"",
        Layout::Colours | Layout::Shares => "",
    };
    let more = format!(", \"health\": {{\"path\": \"/healthz\"}}{upstream}");
    nginx.plugin_config(&more).replace('\n', " ")
}

/// Rewrites the line of an instance in the file of nginx's pool.
fn rewrite_server(site: &Site, instance: &str, rewrite: impl Fn(&str) -> String) {
    let file = site.path("nginx/cutover/shop.servers");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = text
        .lines()
        .map(|line| match line.ends_with(&format!("# {instance}")) {
            true => rewrite(line) + "\n",
            false => format!("{line}\n"),
        });
    std::fs::write(file, lines.collect::<String>()).unwrap();
}
