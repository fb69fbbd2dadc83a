//! Splitting traffic between sides: by `split_clients` where each side has an upstream of its own, by the servers' weights
//! where all sides have the same.

use std::collections::{BTreeMap, BTreeSet};

use cutover_plugin_sdk::{
    Diagnostic, Failure, FailureClass, HOST_STAMPS, Impossible, Outcome, Part, Severity, Share,
    Side, Split, percent_of, percents, weights,
};

use crate::config::Config;
use crate::nginx::{Change, Nginx, Until};
use crate::servers::Servers;

/// The largest weight that this plugin gives a server.
const LARGEST_WEIGHT: u32 = 1000;

/// The longest revision; the weights of more servers than fit are written without being compared.
const LONGEST_REVISION: usize = 8 << 10;

/// The first version that lets idle client connections be for a while when it reloads.
const KEEPS_CONNECTIONS: [u32; 3] = [1, 27, 4];

pub(crate) struct Router<'a> {
    nginx: &'a Nginx<'a>,
    sides: &'a [Side],
    upstreams: Vec<String>,
}

impl<'a> Router<'a> {
    pub(crate) fn new(nginx: &'a Nginx<'a>, sides: &'a [Side]) -> Result<Self, Failure> {
        let upstreams = sides
            .iter()
            .map(|side| nginx.config.upstream_of(side))
            .collect::<Result<Vec<_>, _>>()?;
        let different = upstreams.iter().collect::<BTreeSet<_>>().len();
        if upstreams.is_empty() || (different > 1 && different < upstreams.len()) {
            let message = "give each side an upstream of its own, or all the same";
            return Err(Failure::invalid("nginx.sides", message));
        }
        Ok(Self {
            nginx,
            sides,
            upstreams,
        })
    }

    /// The upstream whose weights decide, unless each side has one of its own.
    fn shared(&self) -> Option<&str> {
        let first = self.upstreams.first()?;
        self.upstreams
            .iter()
            .all(|upstream| upstream == first)
            .then_some(first)
    }

    pub(crate) fn get(&self) -> Result<Split, Failure> {
        let (shares, revision) = match self.shared() {
            Some(upstream) => {
                let servers = self.servers(upstream)?;
                let total = |side: &Side| {
                    let weights = side
                        .members
                        .iter()
                        .map(|member| u64::from(weight_of(&servers, &member.target_id)));
                    weights.sum()
                };
                let percents = percents(&self.sides.iter().map(total).collect::<Vec<u64>>());
                let shares = percents.map(|percents| self.shares(&percents));
                (shares.unwrap_or_default(), Some(self.weights(&servers)))
            }
            None => {
                let text = self.split_text()?;
                let split = parse(&text).ok_or_else(|| self.unreadable())?;
                let percents: Vec<u8> = self
                    .upstreams
                    .iter()
                    .map(|upstream| split.get(upstream).copied().unwrap_or(0))
                    .collect();
                let ours: u32 = percents.iter().map(|percent| u32::from(*percent)).sum();
                let shares = match ours {
                    100 => self.shares(&percents),
                    0 => Vec::new(),
                    _ => {
                        let message = format!(
                            "`{}` sends a part of the traffic to an upstream of no side: {}",
                            self.nginx.config.split_file(),
                            told(&split)
                        );
                        return Err(Failure::conflict("nginx.third-side", message));
                    }
                };
                (shares, Some(told(&split)))
            }
        };
        let (live, version) = (self.nginx.live()?, self.nginx.version()?);
        Ok(Split {
            shares,
            // What nginx has not read yet, it is about to: that is told as not settled.
            differs: None,
            revision: revision.filter(|text| text.len() <= LONGEST_REVISION),
            settled: live.version >= version,
            observed_at: HOST_STAMPS,
        })
    }

    pub(crate) fn set(
        &self,
        expected: Option<&str>,
        shares: &[Share],
        dry_run: bool,
    ) -> Result<Outcome, Failure> {
        let change = match self.shared() {
            Some(upstream) => self.weigh(upstream, expected, shares)?,
            None => self.divide(expected, shares)?,
        };
        self.nginx.apply(&[change], Until::Live, dry_run)
    }

    /// The change of the split's file.
    fn divide(&self, expected: Option<&str>, shares: &[Share]) -> Result<Change, Failure> {
        let before = self.split_text()?;
        let mut wanted = BTreeMap::new();
        for (side, upstream) in self.sides.iter().zip(&self.upstreams) {
            let percent = percent_of(shares, &side.name);
            if percent > 0 {
                // nginx's own test does not see an upstream that is named by a variable.
                self.servers(upstream)?;
                wanted.insert(upstream.clone(), percent);
            }
        }
        let present = parse(&before).map(|split| told(&split)).unwrap_or_default();
        if present == told(&wanted) {
            return Ok(Change {
                file: self.nginx.config.split_file(),
                after: before.clone(),
                before,
            });
        }
        if let Some(expected) = expected
            && present != expected
        {
            return Err(Failure::conflict(
                "nginx.split-changed",
                format!(
                    "`{}` is `{present}`, expected was `{expected}` or `{}`",
                    self.nginx.config.split_file(),
                    told(&wanted)
                ),
            )
            .hint("somebody else changed it: see who did, and plan anew"));
        }
        Ok(Change {
            file: self.nginx.config.split_file(),
            before,
            after: text(self.nginx.config, &wanted),
        })
    }

    /// The change of the weights in the file of the servers.
    fn weigh(
        &self,
        upstream: &str,
        expected: Option<&str>,
        shares: &[Share],
    ) -> Result<Change, Failure> {
        let mut servers = self.servers(upstream)?;
        let before = servers.text();
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
                "nginx.no-members",
                "a side without members cannot get a share of the traffic",
            ),
            Impossible::TooFar(points) => Failure::unsupported(
                "nginx.weights",
                format!(
                    "weights of 0 to {LARGEST_WEIGHT} come within {points:.1} points of this split"
                ),
            ),
        })?;
        let present = self.weights(&servers);
        for (side, weight) in self.sides.iter().zip(weights) {
            for member in &side.members {
                if servers.find(&member.target_id).is_none() {
                    // Its weight is there before it joins.
                    servers.put(
                        &member.target_id,
                        &member.address,
                        member.port,
                        Some(weight),
                    )?;
                    servers.take_out(&member.target_id);
                }
                servers.weigh(&member.target_id, weight)?;
            }
        }
        let wanted = self.weights(&servers);
        if let Some(expected) = expected
            && present != expected
            && present != wanted
        {
            return Err(Failure::conflict(
                "nginx.weights-changed",
                format!("the weights are `{present}`, expected was `{expected}` or `{wanted}`"),
            )
            .hint("somebody else changed them: see who did, and plan anew"));
        }
        Ok(Change {
            file: Config::servers_file(upstream),
            before,
            after: servers.text(),
        })
    }

    fn servers(&self, upstream: &str) -> Result<Servers, Failure> {
        let text = self
            .nginx
            .file(&Config::servers_file(upstream), "server 127.0.0.1:1 down;")?;
        Ok(Servers::parse(&text))
    }

    fn split_text(&self) -> Result<String, Failure> {
        let config = self.nginx.config;
        let first = self.upstreams.first().cloned().unwrap_or_default();
        let beginning = text(config, &BTreeMap::from([(first, 100)]));
        self.nginx
            .file(&config.split_file(), &beginning.replace('\n', " "))
    }

    fn unreadable(&self) -> Failure {
        let config = self.nginx.config;
        let example = text(config, &BTreeMap::from([(self.upstreams[0].clone(), 100)]));
        Failure::permanent(
            "nginx.split",
            format!("`{}` cannot be read", config.split_file()),
        )
        .hint(format!("write it as: {}", example.replace('\n', " ")))
    }

    fn shares(&self, percents: &[u8]) -> Vec<Share> {
        let sides = self.sides.iter().zip(percents);
        sides
            .map(|(side, percent)| Share {
                side: side.name.clone(),
                percent: *percent,
            })
            .collect()
    }

    /// `NAME=WEIGHT` of all members of all sides, in the order of their names.
    fn weights(&self, servers: &Servers) -> String {
        let members = self.sides.iter().flat_map(|side| &side.members);
        let weights: BTreeMap<&str, u32> = members
            .map(|member| {
                (
                    member.target_id.as_str(),
                    weight_of(servers, &member.target_id),
                )
            })
            .collect();
        let weights = weights.iter().map(|(id, weight)| format!("{id}={weight}"));
        weights.collect::<Vec<_>>().join(" ")
    }

    /// Finds what cannot work.
    pub(crate) fn check(&self) -> Result<Vec<Diagnostic>, Failure> {
        let mut findings = Vec::new();
        for (side, upstream) in self.sides.iter().zip(&self.upstreams) {
            if let Err(failure) = self.servers(upstream) {
                findings.push(found(failure, &format!("/sides/{}", side.name))?);
            }
        }
        for problem in [self.get().map(|_| ()), self.nginx.test()] {
            if let Err(failure) = problem
                && !findings
                    .iter()
                    .any(|finding: &Diagnostic| finding.message.starts_with(&failure.message))
            {
                findings.push(found(failure, "")?);
            }
        }
        if self.nginx.config.ps.is_none() {
            let message = "no `ps` is named: a member counts as drained as soon as requests that begin go elsewhere";
            findings.push(hint(message.to_owned()));
        }
        let said = self
            .nginx
            .world
            .run(&self.nginx.config.program, &["-v".to_owned()])?
            .stderr;
        if let Some(version) = version(&said)
            && version < KEEPS_CONNECTIONS
        {
            let [major, minor, patch] = version;
            findings.push(hint(format!(
                "nginx {major}.{minor}.{patch} closes idle client connections when it reloads, which clients that do not retry see as \
                 errors; from 1.27.4 on, `keepalive_min_timeout` prevents it"
            )));
        }
        Ok(findings)
    }
}

fn hint(message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Hint,
        path: String::new(),
        message,
    }
}

/// What is wrong becomes a finding; what may pass stays a failure.
fn found(failure: Failure, path: &str) -> Result<Diagnostic, Failure> {
    match failure.class {
        FailureClass::NotFound | FailureClass::Permanent | FailureClass::Invalid => {
            let hint = failure.hint.map(|hint| format!("; {hint}"));
            let message = failure.message + &hint.unwrap_or_default();
            Ok(Diagnostic::error(path, &message))
        }
        _ => Err(failure),
    }
}

fn version(said: &str) -> Option<[u32; 3]> {
    let (_, version) = said.split_once("nginx/")?;
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}

fn weight_of(servers: &Servers, target_id: &str) -> u32 {
    servers.find(target_id).map_or(0, |server| server.weight)
}

/// A split as one line: the same for the same split.
fn told(split: &BTreeMap<String, u8>) -> String {
    let parts = split
        .iter()
        .map(|(upstream, percent)| format!("{percent}% {upstream}"));
    parts.collect::<Vec<_>>().join(" ")
}

/// The split's file. The last part has `*`, so that the parts are all there is.
fn text(config: &Config, split: &BTreeMap<String, u8>) -> String {
    let mut text = format!(
        "split_clients \"{}\" ${}_upstream {{\n",
        config.key, config.name
    );
    let last = split.len().saturating_sub(1);
    for (index, (upstream, percent)) in split.iter().enumerate() {
        if index == last {
            text.push_str(&format!("    * {upstream};\n"));
        } else {
            text.push_str(&format!("    {percent}% {upstream};\n"));
        }
    }
    text + "}\n"
}

/// The parts of a split's file, if it has the form that this plugin writes.
fn parse(text: &str) -> Option<BTreeMap<String, u8>> {
    let (_, parts) = text.split_once('{')?;
    let (parts, _) = parts.split_once('}')?;
    let mut split = BTreeMap::new();
    let mut rest = 100_u8;
    for part in parts
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (share, upstream) = part.split_once(char::is_whitespace)?;
        let percent = match share {
            "*" => std::mem::take(&mut rest),
            _ => {
                let percent: u8 = share.strip_suffix('%')?.parse().ok()?;
                rest = rest.checked_sub(percent)?;
                percent
            }
        };
        let sum = split.entry(upstream.trim().to_owned()).or_insert(0);
        *sum += percent;
    }
    (rest == 0).then_some(split)
}

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::SideMember;

    use super::*;
    use crate::nginx::fake::{Fake, config};

    const SPLIT: &str = "split_clients \"$request_id\" $shop_upstream {\n    * shop-blue;\n}\n";
    const SERVERS: &str = "server 10.0.0.1:80 weight=100; # web-1\nserver 10.0.0.2:80 weight=100; # web-2\n\
                           server 10.0.0.3:80 weight=100; # web-3\n";

    fn side(name: &str, upstream: &str, members: &[&str]) -> Side {
        let member = |id: &&str| SideMember {
            target_id: (*id).to_owned(),
            provider_id: None,
            address: "10.0.0.9".to_owned(),
            port: 80,
        };
        Side {
            name: name.to_owned(),
            group: match upstream {
                "" => "{}".to_owned(),
                upstream => format!(r#"{{"upstream": "{upstream}"}}"#),
            },
            members: members.iter().map(member).collect(),
        }
    }

    fn colours() -> [Side; 2] {
        [
            side("blue", "shop-blue", &[]),
            side("green", "shop-green", &[]),
        ]
    }

    fn two_upstreams() -> Fake {
        Fake::with(&[
            ("shop.split.conf", SPLIT),
            ("shop-blue.servers", SERVERS),
            ("shop-green.servers", SERVERS),
        ])
    }

    fn with<T>(
        fake: &Fake,
        sides: &[Side],
        operation: impl FnOnce(&Router<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let config = config();
        let nginx = Nginx {
            world: fake,
            config: &config,
        };
        operation(&Router::new(&nginx, sides)?)
    }

    fn set(
        fake: &Fake,
        sides: &[Side],
        expected: Option<&str>,
        percents: [u8; 2],
    ) -> Result<Outcome, Failure> {
        with(fake, sides, |router| {
            router.set(expected, &router.shares(&percents), false)
        })
    }

    fn percents_of(fake: &Fake, sides: &[Side]) -> Vec<u8> {
        let split = with(fake, sides, |router| router.get()).unwrap();
        split.shares.iter().map(|share| share.percent).collect()
    }

    #[test]
    fn upstreams_are_split_by_one_file() {
        let fake = two_upstreams();

        for percents in [[80, 20], [1, 99], [0, 100], [100, 0]] {
            set(&fake, &colours(), None, percents).unwrap();

            assert_eq!(percents_of(&fake, &colours()), percents);
        }
        assert_eq!(fake.text("shop.split.conf"), SPLIT);
        assert_eq!(fake.reloads.get(), 4);
        assert_eq!(
            set(&fake, &colours(), None, [100, 0]),
            Ok(Outcome::Unchanged)
        );
        assert_eq!(fake.reloads.get(), 4);
    }

    /// Its conductor was killed before the split was written, or after that and before the reload.
    #[test]
    fn a_split_that_broke_off_is_not_settled_and_is_finished_by_the_next_write() {
        for is_written in [false, true] {
            let fake = two_upstreams();
            let seen = with(&fake, &colours(), |router| router.get()).unwrap();
            set(&fake, &colours(), None, [0, 100]).unwrap();
            fake.live.set(0);
            if !is_written {
                fake.set("shop.split.conf", SPLIT);
            }

            let broken = with(&fake, &colours(), |router| router.get()).unwrap();
            assert!(!broken.settled);
            for revision in [&seen.revision, &broken.revision] {
                set(&fake, &colours(), revision.as_deref(), [0, 100]).unwrap();
            }

            let after = with(&fake, &colours(), |router| router.get()).unwrap();
            assert!(after.settled);
            assert_eq!(percents_of(&fake, &colours()), [0, 100]);
            assert_eq!(fake.reloads.get(), 2);
        }
    }

    #[test]
    fn a_split_that_nobody_expected_is_a_conflict() {
        let fake = two_upstreams();
        let seen = with(&fake, &colours(), |router| router.get()).unwrap();
        assert_eq!(seen.revision.as_deref(), Some("100% shop-blue"));
        fake.set(
            "shop.split.conf",
            "split_clients $request_id $shop_upstream { 30% shop-green; * shop-blue; }",
        );

        let failure = set(&fake, &colours(), seen.revision.as_deref(), [80, 20]).unwrap_err();

        assert_eq!(failure.class, FailureClass::Conflict);
        assert_eq!(
            failure.message,
            "`shop.split.conf` is `70% shop-blue 30% shop-green`, expected was `100% shop-blue` or `80% shop-blue 20% shop-green`"
        );
        assert_eq!(fake.reloads.get(), 0);
    }

    #[test]
    fn traffic_to_a_third_upstream_is_found() {
        let fake = two_upstreams();
        let write = |parts: &str| {
            let text = format!("split_clients \"$request_id\" $shop_upstream {{ {parts} }}");
            fake.set("shop.split.conf", &text);
        };

        write("50% shop-blue; * closed;");
        let third = with(&fake, &colours(), |router| router.get()).unwrap_err();
        assert_eq!(third.class, FailureClass::Conflict);
        write("* closed;");
        assert!(percents_of(&fake, &colours()).is_empty());
        for wrong in ["", "60% shop-blue;", "70% a; 70% b; * c;", "x% a; * b;"] {
            write(wrong);
            assert!(
                with(&fake, &colours(), |router| router.get()).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn members_of_one_upstream_share_by_weights_and_may_join_later() {
        let fake = Fake::with(&[("shop.servers", SERVERS)]);
        let sides = [
            side("current", "", &["web-1", "web-2", "web-3"]),
            side("new", "", &["web-4"]),
        ];
        let seen = with(&fake, &sides, |router| router.get()).unwrap();
        assert_eq!(
            seen.revision.as_deref(),
            Some("web-1=100 web-2=100 web-3=100 web-4=0")
        );

        set(&fake, &sides, seen.revision.as_deref(), [80, 20]).unwrap();

        assert_eq!(percents_of(&fake, &sides), [80, 20]);
        assert_eq!(
            fake.text("shop.servers"),
            "server 10.0.0.1:80 weight=4; # web-1\nserver 10.0.0.2:80 weight=4; # web-2\n\
             server 10.0.0.3:80 weight=4; # web-3\nserver 10.0.0.9:80 down; # web-4 out weight=3\n"
        );
        assert_eq!(fake.reloads.get(), 1, "one reload for all weights");
        let conflict = set(&fake, &sides, seen.revision.as_deref(), [50, 50]).unwrap_err();
        assert_eq!(conflict.class, FailureClass::Conflict);
    }

    #[test]
    fn what_is_missing_is_told_with_what_to_begin_with() {
        let fake = Fake::with(&[("shop-blue.servers", SERVERS)]);

        let findings = with(&fake, &colours(), |router| router.check()).unwrap();

        let errors: Vec<_> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(|finding| (finding.path.as_str(), finding.message.as_str()))
            .collect();
        assert_eq!(
            errors,
            [
                (
                    "/sides/green",
                    "there is no `shop-green.servers` in directory `nginx`; include it in nginx's configuration, and begin with: \
                     server 127.0.0.1:1 down;"
                ),
                (
                    "",
                    "there is no `shop.split.conf` in directory `nginx`; include it in nginx's configuration, and begin with: \
                     split_clients \"$request_id\" $shop_upstream {     * shop-blue; } "
                ),
            ]
        );
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("nginx version: nginx/1.22.1\n"), Some([1, 22, 1]));
        assert_eq!(
            version("nginx version: nginx/1.27.4 (x)"),
            Some(KEEPS_CONNECTIONS)
        );
        assert_eq!(version("nothing"), None);
    }
}
