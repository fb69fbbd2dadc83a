//! Splitting traffic between sides: by one entry of a map where each side has a backend of its own, by the servers'
//! weights where all sides have the same.

use std::collections::{BTreeMap, BTreeSet};

use cutover_plugin_sdk::{
    Attribute, Diagnostic, Disagreement, Failure, FailureClass, HOST_STAMPS, Impossible, Outcome,
    Part, Purpose, Severity, Share, Side, Split, parse_config, percent_of, percents, weights,
};

use crate::backend::{Admin, Backend, Server};
use crate::config::{Config, Entry, Group, checked_name};
use crate::map::{Files, Map};
use crate::runtime_api::{Control, order};
use crate::traffic::{LARGEST_WEIGHT, find};

/// The longest line of orders. HAProxy takes what fits into one of its buffers, 16 KiB unless the operator made it smaller.
const LONGEST_LINE: usize = 4 << 10;

/// The longest revision. The weights of more servers than fit have none, so that they are written without being compared.
const LONGEST_REVISION: usize = 8 << 10;

/// The sides of one call with what they need.
pub(crate) struct Router<'a> {
    control: &'a dyn Control,
    files: &'a dyn Files,
    config: &'a Config,
    sides: &'a [Side],
    way: Way<'a>,
}

/// What decides how traffic is split.
enum Way<'a> {
    /// The value is the live backend.
    Switch { entry: Entry, backends: Vec<String> },
    /// The value is the percentage of one side, the other has the rest.
    Percent {
        entry: Entry,
        side: &'a str,
        rest: &'a str,
    },
    /// The weights of the servers of one backend.
    Weights { backend: String },
}

impl<'a> Router<'a> {
    pub(crate) fn new(
        control: &'a dyn Control,
        files: &'a dyn Files,
        config: &'a Config,
        sides: &'a [Side],
    ) -> Result<Self, Failure> {
        Ok(Self {
            control,
            files,
            config,
            sides,
            way: way(config, sides)?,
        })
    }

    pub(crate) fn get(&self) -> Result<Split, Failure> {
        let entry = match &self.way {
            Way::Switch { entry, .. } | Way::Percent { entry, .. } => entry,
            Way::Weights { backend } => return self.weighed(backend),
        };
        let map = self.map(entry);
        let present = map.present()?;
        let differs = match present.other() {
            None => None,
            Some(stored) => Some(Disagreement {
                shares: self.shares(entry, stored)?,
                message: map.told(&present),
            }),
        };
        Ok(Split {
            shares: self.shares(entry, present.running.as_deref())?,
            differs,
            revision: Some(present.revision()),
            settled: true,
            observed_at: HOST_STAMPS,
        })
    }

    /// What a value of the map's entry makes of the traffic.
    fn shares(&self, entry: &Entry, value: Option<&str>) -> Result<Vec<Share>, Failure> {
        Ok(match (&self.way, value) {
            (Way::Switch { backends, .. }, Some(value)) => {
                let live = backends.iter().position(|backend| backend == value);
                let live = live.map(|index| share(&self.sides[index].name, 100));
                live.into_iter().collect()
            }
            (Way::Percent { side, rest, .. }, Some(value)) => {
                let percent = percentage(entry, value)?;
                vec![share(side, percent), share(rest, 100 - percent)]
            }
            (Way::Weights { .. }, _) | (_, None) => Vec::new(),
        })
    }

    fn weighed(&self, backend: &str) -> Result<Split, Failure> {
        let members = self.members(&Backend::read(self.control, backend)?)?;
        let total = |side: &Side| {
            let of_side = members.iter().filter(|member| member.side == side.name);
            of_side.map(|member| u64::from(member.weight)).sum()
        };
        let percents = percents(&self.sides.iter().map(total).collect::<Vec<u64>>());
        let shares = percents.map(|percents| {
            let sides = self.sides.iter().zip(percents);
            sides
                .map(|(side, percent)| share(&side.name, percent))
                .collect()
        });
        Ok(Split {
            shares: shares.unwrap_or_default(),
            differs: None,
            revision: revision(&members),
            settled: true,
            observed_at: HOST_STAMPS,
        })
    }

    pub(crate) fn set(
        &self,
        expected: Option<&str>,
        shares: &[Share],
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        match &self.way {
            Way::Switch { entry, backends } => {
                let wanted = self
                    .sides
                    .iter()
                    .zip(backends)
                    .find(|(side, _)| percent_of(shares, &side.name) == 100);
                let (_, wanted) = wanted.ok_or_else(|| {
                    Failure::unsupported("haproxy.switch", "`map` can only switch, not split")
                        .hint("configure `percent_map` instead of `map`")
                })?;
                self.map(entry).set(expected, wanted, dry_run)
            }
            Way::Percent { entry, side, .. } => {
                let wanted = percent_of(shares, side).to_string();
                self.map(entry).set(expected, &wanted, dry_run)
            }
            Way::Weights { backend } => self.weigh(backend, expected, shares, dry_run),
        }
    }

    fn map<'m>(&'m self, entry: &'m Entry) -> Map<'m> {
        Map {
            control: self.control,
            files: self.files,
            entry,
        }
    }

    fn weigh(
        &self,
        backend: &str,
        expected: Option<&str>,
        shares: &[Share],
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        let members = self.members(&Backend::read(self.control, backend)?)?;
        let parts: Vec<Part> = self
            .sides
            .iter()
            .map(|side| Part {
                servers: side.members.len(),
                percent: percent_of(shares, &side.name),
            })
            .collect();
        let weights = weights(&parts, LARGEST_WEIGHT).map_err(|impossible| match impossible {
            Impossible::NoServer => Failure::invalid(
                "haproxy.no-members",
                "a side without members cannot get a share of the traffic",
            ),
            Impossible::TooFar(points) => Failure::unsupported(
                "haproxy.weights",
                format!(
                    "weights of 0 to {LARGEST_WEIGHT} come within {points:.1} points of this split"
                ),
            )
            .hint("give the side with the large share more members, or a smaller share"),
        })?;
        let of_side: BTreeMap<&str, u32> = self
            .sides
            .iter()
            .map(|side| side.name.as_str())
            .zip(weights)
            .collect();
        let wanted = |member: &Member| of_side.get(member.side.as_str()).copied().unwrap_or(0);
        let mut changes: Vec<&Member> = members
            .iter()
            .filter(|member| member.weight != wanted(member))
            .collect();
        if changes.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        let expected = expected.map(parse_revision).unwrap_or_default();
        if let Some(stranger) = members.iter().find(|member| {
            let expected = expected.get(member.server.as_str());
            member.weight != wanted(member)
                && expected.is_some_and(|expected| *expected != member.weight)
        }) {
            let message = format!(
                "server `{backend}/{}` has weight {}, expected was {} or {}",
                stranger.server,
                stranger.weight,
                expected
                    .get(stranger.server.as_str())
                    .copied()
                    .unwrap_or_default(),
                wanted(stranger)
            );
            return Err(Failure::conflict("haproxy.weight-changed", message)
                .hint("somebody else changed it: see who did, and plan anew"));
        }
        if dry_run {
            return Ok(Outcome::changed());
        }
        // Raised first: at no moment are all weights zero.
        changes.sort_by_key(|member| wanted(member) < member.weight);
        for line in lines(changes.iter().map(|member| {
            format!(
                "set server {backend}/{} weight {}",
                member.server,
                wanted(member)
            )
        })) {
            order(self.control, &line)?;
        }
        let after = self.members(&Backend::read(self.control, backend)?)?;
        match after.iter().find(|member| member.weight != wanted(member)) {
            None => Ok(Outcome::Changed(vec![Attribute {
                key: "haproxy.weights".to_owned(),
                value: listed(&after),
            }])),
            Some(member) => Err(Failure::conflict(
                "haproxy.unmoved",
                format!(
                    "server `{backend}/{}` has weight {}, not {}",
                    member.server,
                    member.weight,
                    wanted(member)
                ),
            )
            .hint("see whether somebody else changes it")),
        }
    }

    /// The servers of all sides' members, in the order of their names.
    fn members(&self, backend: &Backend) -> Result<Vec<Member>, Failure> {
        let mut members: BTreeMap<String, Member> = BTreeMap::new();
        for side in self.sides {
            for target in &side.members {
                let server = self
                    .server(backend, target)
                    .ok_or_else(|| backend.no_server(&place(target)))?;
                let member = Member {
                    side: side.name.clone(),
                    server: server.name.clone(),
                    weight: server.weight,
                };
                if let Some(other) = members.insert(server.name.clone(), member) {
                    let message = format!(
                        "server `{}/{}` is a member of `{}` and of `{}`",
                        backend.name, server.name, other.side, side.name
                    );
                    return Err(Failure::invalid("haproxy.two-sides", message));
                }
            }
        }
        Ok(members.into_values().collect())
    }

    fn server<'b>(
        &self,
        backend: &'b Backend,
        target: &cutover_plugin_sdk::SideMember,
    ) -> Option<&'b Server> {
        find(
            backend,
            self.config,
            &target.target_id,
            Some((&target.address, target.port)),
        )
    }
}

/// A server with the side that it belongs to.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    side: String,
    server: String,
    weight: u32,
}

/// Finds what cannot work, the configuration first and then what HAProxy has.
pub(crate) fn check(
    control: &dyn Control,
    files: &dyn Files,
    config: &Config,
    sides: &[Side],
    purpose: Purpose,
) -> Result<Vec<Diagnostic>, Failure> {
    let router = match Router::new(control, files, config, sides) {
        Ok(router) => router,
        Err(failure) => return Ok(vec![finding(&failure)]),
    };
    let mut findings = Vec::new();
    let entry = match &router.way {
        Way::Switch { entry, .. } => {
            if purpose == Purpose::Weighted {
                let message = "`map` can only switch: a split between backends needs `percent_map`";
                findings.push(Diagnostic::error("/map", message));
            }
            Some(entry)
        }
        Way::Percent { entry, .. } => Some(entry),
        Way::Weights { .. } => None,
    };
    if let Some(entry) = entry
        && entry.directory.is_none()
    {
        let message = format!(
            "no `directory` is named for `{}`: a reload of HAProxy takes the split back to what the file says",
            entry.file
        );
        findings.push(Diagnostic::warning("", &message));
    }
    let mut backends: BTreeMap<String, Backend> = BTreeMap::new();
    for side in sides {
        let name = backend_of(config, side)?;
        if !backends.contains_key(&name) {
            match Backend::read(control, &name) {
                Ok(backend) => backends.insert(name.clone(), backend),
                Err(failure) if failure.class == FailureClass::NotFound => {
                    findings.push(Diagnostic::error(&pointer(side), &failure.message));
                    continue;
                }
                Err(failure) => return Err(failure),
            };
        }
        let backend = &backends[&name];
        for target in &side.members {
            if router.server(backend, target).is_none() {
                let failure = backend.no_server(&place(target));
                findings.push(Diagnostic::error(&pointer(side), &told(&failure)));
            }
        }
    }
    if let Way::Weights { backend } = &router.way
        && let Some(backend) = backends.get(backend)
        && findings.is_empty()
    {
        let members = router.members(backend)?;
        let ours: BTreeSet<&str> = members
            .iter()
            .map(|member| member.server.as_str())
            .collect();
        let strangers: Vec<&str> = backend
            .servers
            .iter()
            .filter(|server| server.admin == Admin::Ready && server.weight > 0)
            .map(|server| server.name.as_str())
            .filter(|name| !ours.contains(name))
            .collect();
        if !strangers.is_empty() {
            let message = format!(
                "backend `{}` has servers in traffic that belong to no side, and get a part of it beside the split: {}",
                backend.name,
                strangers.join(", ")
            );
            findings.push(Diagnostic::warning("", &message));
        }
    }
    match router.get() {
        Err(failure)
            if matches!(
                failure.class,
                FailureClass::NotFound | FailureClass::Permanent | FailureClass::Invalid
            ) =>
        {
            let is_error = |finding: &Diagnostic| finding.severity == Severity::Error;
            if !findings.iter().any(is_error) {
                findings.push(finding(&failure));
            }
        }
        Err(failure) => return Err(failure),
        Ok(_) => {}
    }
    Ok(findings)
}

fn finding(failure: &Failure) -> Diagnostic {
    Diagnostic::error("", &told(failure))
}

fn told(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{}; {hint}", failure.message),
        None => failure.message.clone(),
    }
}

fn way<'a>(config: &Config, sides: &'a [Side]) -> Result<Way<'a>, Failure> {
    let invalid = |message: String| Err(Failure::invalid("haproxy.sides", message));
    let backends = sides
        .iter()
        .map(|side| backend_of(config, side))
        .collect::<Result<Vec<_>, _>>()?;
    let different: BTreeSet<&String> = backends.iter().collect();
    let Some(first) = backends.first() else {
        return invalid("there are no sides".to_owned());
    };
    if different.len() == 1 {
        return if config.map.is_none() && config.percent_map.is_none() {
            Ok(Way::Weights {
                backend: first.clone(),
            })
        } else {
            invalid(format!(
                "all sides have backend `{first}`, which a map cannot split: give each a `backend` in its `group`, or remove the map"
            ))
        };
    }
    if different.len() < backends.len() {
        return invalid("some sides share a backend and others do not".to_owned());
    }
    match (&config.map, &config.percent_map) {
        (Some(map), None) => Ok(Way::Switch {
            entry: map.clone(),
            backends,
        }),
        (None, Some(percent)) => {
            let found = backends.iter().position(|name| *name == percent.backend);
            match (sides, found) {
                ([_, _], Some(index)) => Ok(Way::Percent {
                    entry: percent.entry(),
                    side: &sides[index].name,
                    rest: &sides[1 - index].name,
                }),
                ([_, _], None) => invalid(format!(
                    "`percent_map.backend` is `{}`, the sides have {}",
                    percent.backend,
                    backends.join(" and ")
                )),
                _ => invalid(format!(
                    "`percent_map` splits between two sides, not between {}",
                    sides.len()
                )),
            }
        }
        _ => invalid(
            "the sides have backends of their own: name the `map` that switches between them, or the `percent_map` that splits"
                .to_owned(),
        ),
    }
}

/// The backend of a side: that of its group, else that of the configuration.
fn backend_of(config: &Config, side: &Side) -> Result<String, Failure> {
    let group: Group = parse_config(&side.group)
        .map_err(|failure| failure.about(format!("group of side `{}`", side.name)))?;
    let backend = config.backend(&group.backend).map_err(|failure| {
        failure.about(format!("side `{}`", side.name)).hint(
            "add `backend: NAME` to the side's `group`, or to the config where all sides share one",
        )
    })?;
    checked_name(backend).map(str::to_owned)
}

fn percentage(entry: &Entry, value: &str) -> Result<u8, Failure> {
    let percent = value.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| {
        Failure::permanent(
            "haproxy.percentage",
            format!(
                "`{}` in map `{}` is `{value}`, expected a number from 0 to 100",
                entry.key, entry.file
            ),
        )
    })
}

fn share(side: &str, percent: u8) -> Share {
    Share {
        side: side.to_owned(),
        percent,
    }
}

fn pointer(side: &Side) -> String {
    format!("/sides/{}", side.name)
}

fn place(target: &cutover_plugin_sdk::SideMember) -> String {
    format!("{} ({}:{})", target.target_id, target.address, target.port)
}

/// `NAME=WEIGHT`, separated by spaces.
fn listed(members: &[Member]) -> String {
    members
        .iter()
        .map(|member| format!("{}={}", member.server, member.weight))
        .collect::<Vec<_>>()
        .join(" ")
}

fn revision(members: &[Member]) -> Option<String> {
    Some(listed(members)).filter(|text| text.len() <= LONGEST_REVISION)
}

fn parse_revision(text: &str) -> BTreeMap<&str, u32> {
    text.split(' ')
        .filter_map(|member| {
            let (server, weight) = member.rsplit_once('=')?;
            Some((server, weight.parse().ok()?))
        })
        .collect()
}

/// Puts orders together into lines that HAProxy takes.
fn lines(orders: impl Iterator<Item = String>) -> Vec<Vec<String>> {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut length = 0;
    for order in orders {
        if lines.is_empty() || length + order.len() > LONGEST_LINE {
            lines.push(Vec::new());
            length = 0;
        }
        length += order.len() + 2;
        if let Some(line) = lines.last_mut() {
            line.push(order);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use cutover_plugin_sdk::SideMember;

    use super::*;

    /// An HAProxy with the backends `shop`, `shop-blue` and `shop-green`, each with servers of these names and weights, and
    /// one map with one entry.
    struct Fake {
        servers: RefCell<Vec<(String, u32)>>,
        value: RefCell<String>,
        orders: RefCell<Vec<String>>,
    }

    impl Fake {
        fn new(value: &str, servers: &[(&str, u32)]) -> Self {
            let servers = servers
                .iter()
                .map(|(name, weight)| ((*name).to_owned(), *weight));
            Self {
                servers: RefCell::new(servers.collect()),
                value: RefCell::new(value.to_owned()),
                orders: RefCell::default(),
            }
        }
    }

    impl Control for Fake {
        fn ask(&self, command: &str) -> Result<String, Failure> {
            let words: Vec<&str> = command.split(' ').collect();
            let servers = self.servers.borrow().clone();
            Ok(match words[..] {
                ["show", "map", _] => match self.value.borrow().as_str() {
                    "" => "\n".to_owned(),
                    value => format!("0x55 share {value}\n\n"),
                },
                ["show", "servers", "state", backend] if backend.starts_with("shop") => {
                    let header = "1\n# be_name srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_check_state srv_port\n";
                    let lines = servers.iter().map(|(name, weight)| {
                        format!("{backend} {name} 10.0.0.1 2 0 {weight} 6 80\n")
                    });
                    header.to_owned() + &lines.collect::<String>()
                }
                ["show", "stat", backend, ..] if backend.starts_with("shop") => {
                    let lines = servers
                        .iter()
                        .map(|(name, _)| format!("{backend},{name},0,0,UP\n"));
                    "# pxname,svname,qcur,scur,status\n".to_owned() + &lines.collect::<String>()
                }
                ["show", ..] => "Can't find backend.\n".to_owned(),
                [.., "map", _, _, value] => {
                    value.clone_into(&mut self.value.borrow_mut());
                    String::new()
                }
                _ => {
                    for order in command.split("; ") {
                        self.orders.borrow_mut().push(order.to_owned());
                        let words: Vec<&str> = order.split(' ').collect();
                        let name = words[2].rsplit('/').next().unwrap();
                        let mut servers = self.servers.borrow_mut();
                        let server = servers.iter_mut().find(|(server, _)| server == name);
                        server.unwrap().1 = words[4].parse().unwrap();
                    }
                    String::new()
                }
            })
        }
    }

    impl Files for Fake {
        fn read(&self, _directory: &str, _file: &str) -> Result<Option<String>, Failure> {
            unreachable!("no directory is named")
        }

        fn write(&self, _directory: &str, _file: &str, _text: &str) -> Result<(), Failure> {
            unreachable!("no directory is named")
        }
    }

    const SWITCH: &str =
        r#"{"socket": "unix:/x", "map": {"file": "/etc/live.map", "key": "share"}}"#;
    const PERCENT: &str = r#"{"socket": "unix:/x",
        "percent_map": {"file": "/etc/share.map", "key": "share", "backend": "shop-green"}}"#;
    const WEIGHTS: &str = r#"{"socket": "unix:/x", "backend": "shop"}"#;

    fn side(name: &str, backend: &str, members: &[&str]) -> Side {
        let member = |id: &&str| SideMember {
            target_id: (*id).to_owned(),
            provider_id: None,
            address: "10.0.0.9".to_owned(),
            port: 80,
        };
        Side {
            name: name.to_owned(),
            group: match backend {
                "" => "{}".to_owned(),
                backend => format!(r#"{{"backend": "{backend}"}}"#),
            },
            members: members.iter().map(member).collect(),
        }
    }

    fn colours() -> [Side; 2] {
        [
            side("blue", "shop-blue", &["web-1"]),
            side("green", "shop-green", &["web-2"]),
        ]
    }

    fn versions() -> [Side; 2] {
        [
            side("current", "", &["web-1", "web-2", "web-3"]),
            side("new", "", &["web-4"]),
        ]
    }

    fn pool() -> Fake {
        Fake::new(
            "",
            &[("web-1", 100), ("web-2", 100), ("web-3", 100), ("web-4", 0)],
        )
    }

    fn with<T>(
        fake: &Fake,
        config: &str,
        sides: &[Side],
        operation: impl FnOnce(&Router<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let config: Config = parse_config(config).unwrap();
        operation(&Router::new(fake, fake, &config, sides)?)
    }

    fn percents_of(fake: &Fake, config: &str, sides: &[Side]) -> Vec<u8> {
        let split = with(fake, config, sides, |router| router.get()).unwrap();
        let percent = |side: &Side| percent_of(&split.shares, &side.name);
        if split.shares.is_empty() {
            Vec::new()
        } else {
            sides.iter().map(percent).collect()
        }
    }

    fn set(
        fake: &Fake,
        config: &str,
        sides: &[Side],
        expected: Option<&str>,
        percents: [u8; 2],
    ) -> Result<Outcome, Failure> {
        let shares: Vec<Share> = sides
            .iter()
            .zip(percents)
            .map(|(side, percent)| share(&side.name, percent))
            .collect();
        with(fake, config, sides, |router| {
            router.set(expected, &shares, false)
        })
    }

    fn findings(fake: &Fake, config: &str, sides: &[Side], purpose: Purpose) -> Vec<String> {
        let config: Config = parse_config(config).unwrap();
        let findings = check(fake, fake, &config, sides, purpose).unwrap();
        let errors = findings
            .into_iter()
            .filter(|finding| finding.severity == cutover_plugin_sdk::Severity::Error);
        errors
            .map(|finding| format!("{}: {}", finding.path, finding.message))
            .collect()
    }

    #[test]
    fn a_switch_names_the_backend_of_the_live_side() {
        let fake = Fake::new("shop-blue", &[("web-1", 1), ("web-2", 1)]);

        assert_eq!(percents_of(&fake, SWITCH, &colours()), [100, 0]);
        set(&fake, SWITCH, &colours(), Some("shop-blue"), [0, 100]).unwrap();

        assert_eq!(*fake.value.borrow(), "shop-green");
        assert_eq!(percents_of(&fake, SWITCH, &colours()), [0, 100]);
        let again = set(&fake, SWITCH, &colours(), Some("shop-blue"), [0, 100]);
        assert_eq!(again, Ok(Outcome::Unchanged));
    }

    #[test]
    fn no_side_is_live_where_the_map_names_none() {
        for value in ["", "maintenance"] {
            let fake = Fake::new(value, &[]);

            assert!(percents_of(&fake, SWITCH, &colours()).is_empty());
            set(&fake, SWITCH, &colours(), Some(value), [100, 0]).unwrap();
            assert_eq!(*fake.value.borrow(), "shop-blue");
        }
    }

    #[test]
    fn a_switch_cannot_split() {
        let fake = Fake::new("shop-blue", &[("web-1", 1), ("web-2", 1)]);

        let failure = set(&fake, SWITCH, &colours(), None, [80, 20]).unwrap_err();

        assert_eq!(failure.class, FailureClass::Unsupported);
        assert_eq!(
            findings(&fake, SWITCH, &colours(), Purpose::Weighted),
            ["/map: `map` can only switch: a split between backends needs `percent_map`"]
        );
        assert!(findings(&fake, SWITCH, &colours(), Purpose::Switch).is_empty());
    }

    #[test]
    fn one_percentage_makes_every_split_of_two_sides() {
        let fake = Fake::new("0", &[("web-1", 1), ("web-2", 1)]);

        for percents in [[100, 0], [80, 20], [1, 99], [0, 100]] {
            set(&fake, PERCENT, &colours(), None, percents).unwrap();

            assert_eq!(*fake.value.borrow(), percents[1].to_string());
            assert_eq!(percents_of(&fake, PERCENT, &colours()), percents);
        }
        assert!(findings(&fake, PERCENT, &colours(), Purpose::Weighted).is_empty());
    }

    #[test]
    fn a_value_that_is_no_percentage_is_named() {
        for value in ["101", "-1", "half"] {
            let fake = Fake::new(value, &[]);

            let failure = with(&fake, PERCENT, &colours(), |router| router.get()).unwrap_err();

            assert!(failure.message.contains(value), "{failure:?}");
        }
    }

    #[test]
    fn sides_of_one_backend_are_split_by_weights_that_are_raised_first() {
        let fake = pool();

        assert_eq!(percents_of(&fake, WEIGHTS, &versions()), [100, 0]);
        set(&fake, WEIGHTS, &versions(), None, [80, 20]).unwrap();

        assert_eq!(percents_of(&fake, WEIGHTS, &versions()), [80, 20]);
        assert_eq!(
            *fake.orders.borrow(),
            [
                "set server shop/web-4 weight 3",
                "set server shop/web-1 weight 4",
                "set server shop/web-2 weight 4",
                "set server shop/web-3 weight 4",
            ]
        );
        let again = set(&fake, WEIGHTS, &versions(), None, [80, 20]);
        assert_eq!(again, Ok(Outcome::Unchanged));
    }

    #[test]
    fn a_weight_that_nobody_expected_is_a_conflict() {
        let fake = pool();
        let revision = with(&fake, WEIGHTS, &versions(), |router| router.get())
            .unwrap()
            .revision;
        assert_eq!(
            revision.as_deref(),
            Some("web-1=100 web-2=100 web-3=100 web-4=0")
        );
        fake.servers.borrow_mut()[1].1 = 7;

        let failure = set(&fake, WEIGHTS, &versions(), revision.as_deref(), [80, 20]).unwrap_err();

        assert_eq!(failure.class, FailureClass::Conflict);
        assert_eq!(
            failure.message,
            "server `shop/web-2` has weight 7, expected was 100 or 4"
        );
        assert!(fake.orders.borrow().is_empty());
    }

    /// The weights of many servers are several lines of orders, of which the last may never arrive.
    #[test]
    fn weights_of_which_a_part_was_written_are_finished_under_either_revision() {
        let before = [("web-1", 100), ("web-2", 100), ("web-3", 100), ("web-4", 0)];
        let after = [("web-4", 3), ("web-1", 4), ("web-2", 4), ("web-3", 4)];
        for written in 0..=after.len() {
            let half = || {
                let mut servers = BTreeMap::from(before);
                servers.extend(after[..written].iter().copied());
                Fake::new("", &servers.into_iter().collect::<Vec<_>>())
            };
            let read = with(&half(), WEIGHTS, &versions(), |router| router.get()).unwrap();
            let begun = with(&pool(), WEIGHTS, &versions(), |router| router.get()).unwrap();
            for revision in [read.revision, begun.revision] {
                let fake = half();

                set(&fake, WEIGHTS, &versions(), revision.as_deref(), [80, 20]).unwrap();

                assert_eq!(percents_of(&fake, WEIGHTS, &versions()), [80, 20]);
                assert_eq!(fake.orders.borrow().len(), after.len() - written);
            }
        }
    }

    #[test]
    fn a_side_without_members_gets_no_share() {
        let fake = pool();
        let sides = [side("current", "", &["web-1"]), side("new", "", &[])];

        assert!(set(&fake, WEIGHTS, &sides, None, [100, 0]).is_ok());
        let failure = set(&fake, WEIGHTS, &sides, None, [90, 10]).unwrap_err();
        assert_eq!(failure.class, FailureClass::Invalid);
    }

    #[test]
    fn sides_that_do_not_fit_the_configuration_are_refused_with_the_reason() {
        let fake = pool();
        let shared = [side("blue", "shop", &[]), side("green", "shop", &[])];
        let other = [
            side("blue", "shop-blue", &[]),
            side("green", "shop-red", &[]),
        ];
        let both = Purpose::Switch;
        let says = |config, sides: &[Side], words: &str| {
            let found = findings(&fake, config, sides, both);
            assert!(found.iter().any(|found| found.contains(words)), "{found:?}");
        };

        says(
            SWITCH,
            &shared,
            "all sides have backend `shop`, which a map cannot split",
        );
        says(
            WEIGHTS,
            &colours(),
            "name the `map` that switches between them",
        );
        says(
            PERCENT,
            &other,
            "`percent_map.backend` is `shop-green`, the sides have",
        );
        says(
            PERCENT,
            &[side("blue", "", &[])],
            "side `blue`: no backend is named",
        );
        let unknown = [side("blue", "shop-blue", &[]), side("green", "green", &[])];
        says(SWITCH, &unknown, "/sides/green: HAProxy refused");
        let stranger = [
            side("blue", "shop-blue", &["web-9"]),
            side("green", "shop-green", &[]),
        ];
        says(
            SWITCH,
            &stranger,
            "/sides/blue: backend `shop-blue` has no server for `web-9",
        );
        let misspelt = Side {
            group: r#"{"bakend": "x"}"#.to_owned(),
            ..side("blue", "", &[])
        };
        says(
            SWITCH,
            &[misspelt],
            "group of side `blue`: config key `bakend`: unknown field",
        );
        let twice = [side("current", "", &["web-1"]), side("new", "", &["web-1"])];
        let failure = with(&fake, WEIGHTS, &twice, |router| router.get()).unwrap_err();
        assert_eq!(
            failure.message,
            "server `shop/web-1` is a member of `current` and of `new`"
        );
    }

    #[test]
    fn long_lists_of_orders_are_sent_in_lines_that_fit() {
        let orders = (0..500).map(|number| format!("set server shop/web-{number} weight 256"));

        let lines = lines(orders);

        assert_eq!(lines.iter().map(Vec::len).sum::<usize>(), 500);
        assert!(lines.len() > 3);
        assert!(
            lines
                .iter()
                .all(|line| line.join("; ").len() <= LONGEST_LINE + 64)
        );
    }
}
