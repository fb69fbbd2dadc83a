//! Splitting traffic between sides: by `split_clients` where each side has an upstream of its own, by the servers' weights
//! where all sides have the same.

use std::collections::{BTreeMap, BTreeSet};

use cutover_plugin_sdk::{
    Diagnostic, Disagreement, Failure, FailureClass, HOST_STAMPS, Impossible, Outcome, Part,
    Severity, Share, Side, Split, percent_of, percents, weights,
};

use crate::config::Config;
use crate::nginx::{Change, File, Nginx, Until};
use crate::servers::Servers;

/// The largest weight that this plugin gives a server.
const LARGEST_WEIGHT: u32 = 1000;

/// The longest revision; the weights of more servers than fit are written without being compared.
const LONGEST_REVISION: usize = 8 << 10;

/// What an upstream's file may begin with, for nginx refuses an upstream without servers.
pub(crate) const NO_SERVER: &str = "server 127.0.0.1:1 down;";

/// Stands between the places in a revision. No name holds it.
const BETWEEN: &str = " | ";

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
        let (file, places) = match self.shared() {
            Some(upstream) => {
                let file = self.file(&Config::servers_file(upstream), NO_SERVER)?;
                let places = Places::of(&file, |text| Ok(self.weights(&Servers::parse(text))))?;
                (file, places)
            }
            None => {
                let file = self.file(&self.nginx.config.split_file(), &self.split_beginning())?;
                let places = Places::of(&file, |text| Ok(told(&self.split(text)?)))?;
                (file, places)
            }
        };
        let differs = match &places.stored {
            None => None,
            Some(stored) => Some(Disagreement {
                shares: self.shares_in(file.text())?,
                message: format!(
                    "`{}` is `{stored}`, and nginx, which has not read that, has `{}`",
                    self.file_name(),
                    places.running
                ),
            }),
        };
        let revision = places.revision();
        Ok(Split {
            shares: self.shares_in(file.followed())?,
            differs,
            revision: Some(revision).filter(|text| text.len() <= LONGEST_REVISION),
            settled: !matches!(file, File::BeingRead { .. }),
            observed_at: HOST_STAMPS,
        })
    }

    /// The file that decides.
    fn file_name(&self) -> String {
        match self.shared() {
            Some(upstream) => Config::servers_file(upstream),
            None => self.nginx.config.split_file(),
        }
    }

    fn file(&self, file: &str, beginning: &str) -> Result<File, Failure> {
        self.nginx.file(file, beginning, self.nginx.standing()?)
    }

    /// The shares of the sides in a content of the file that decides.
    fn shares_in(&self, text: &str) -> Result<Vec<Share>, Failure> {
        if self.shared().is_some() {
            let servers = Servers::parse(text);
            let total = |side: &Side| {
                let members = side.members.iter();
                let weights = members.map(|it| u64::from(weight_of(&servers, &it.target_id)));
                weights.sum()
            };
            let percents = percents(&self.sides.iter().map(total).collect::<Vec<u64>>());
            return Ok(percents.map_or_else(Vec::new, |percents| self.shares(&percents)));
        }
        let split = self.split(text)?;
        let percents: Vec<u8> = self
            .upstreams
            .iter()
            .map(|upstream| split.get(upstream).copied().unwrap_or(0))
            .collect();
        let ours: u32 = percents.iter().map(|percent| u32::from(*percent)).sum();
        match ours {
            100 => Ok(self.shares(&percents)),
            0 => Ok(Vec::new()),
            _ => {
                let message = format!(
                    "`{}` sends a part of the traffic to an upstream of no side: {}",
                    self.nginx.config.split_file(),
                    told(&split)
                );
                Err(Failure::conflict("nginx.third-side", message))
            }
        }
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
        let mut wanted = BTreeMap::new();
        for (side, upstream) in self.sides.iter().zip(&self.upstreams) {
            let percent = percent_of(shares, &side.name);
            if percent > 0 {
                // nginx's own test does not see an upstream that is named by a variable.
                self.servers(upstream)?;
                wanted.insert(upstream.clone(), percent);
            }
        }
        let name = self.nginx.config.split_file();
        let file = self.file(&name, &self.split_beginning())?;
        let line = |text: &str| Ok(parse(text).map(|split| told(&split)).unwrap_or_default());
        let places = Places::of(&file, line)?;
        places.guard(expected, &told(&wanted), &format!("`{name}` is"))?;
        let before = file.text().to_owned();
        let after = if line(&before)? == told(&wanted) {
            before.clone()
        } else {
            text(self.nginx.config, &wanted)
        };
        Ok(Change {
            file: name,
            before,
            after,
        })
    }

    /// The change of the weights in the file of the servers.
    fn weigh(
        &self,
        upstream: &str,
        expected: Option<&str>,
        shares: &[Share],
    ) -> Result<Change, Failure> {
        let name = Config::servers_file(upstream);
        let file = self.file(&name, NO_SERVER)?;
        let mut servers = Servers::parse(file.text());
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
        let places = Places::of(&file, |text| Ok(self.weights(&Servers::parse(text))))?;
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
        places.guard(expected, &self.weights(&servers), "the weights are")?;
        Ok(Change {
            file: name,
            before,
            after: servers.text(),
        })
    }

    fn servers(&self, upstream: &str) -> Result<Servers, Failure> {
        let text = self
            .nginx
            .text(&Config::servers_file(upstream), NO_SERVER)?;
        Ok(Servers::parse(&text))
    }

    /// What the split's file may begin with.
    fn split_beginning(&self) -> String {
        let first = self.upstreams.first().cloned().unwrap_or_default();
        let text = text(self.nginx.config, &BTreeMap::from([(first, 100)]));
        text.replace('\n', " ")
    }

    /// The parts of a split that must be readable.
    fn split(&self, text: &str) -> Result<BTreeMap<String, u8>, Failure> {
        parse(text).ok_or_else(|| {
            Failure::permanent(
                "nginx.split",
                format!("`{}` cannot be read", self.nginx.config.split_file()),
            )
            .hint(format!("write it as: {}", self.split_beginning()))
        })
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

/// What decides, each in one line that is the same for the same split.
struct Places {
    /// What requests follow.
    running: String,
    /// What the file says, where nginx has not read it.
    stored: Option<String>,
}

impl Places {
    fn of(file: &File, line: impl Fn(&str) -> Result<String, Failure>) -> Result<Self, Failure> {
        let (running, stored) = (line(file.followed())?, line(file.text())?);
        Ok(Self {
            stored: Some(stored).filter(|stored| *stored != running),
            running,
        })
    }

    fn revision(&self) -> String {
        match &self.stored {
            None => self.running.clone(),
            Some(stored) => format!("{}{BETWEEN}{stored}", self.running),
        }
    }

    /// Refuses where one of the places has neither what a revision says of it nor what is wanted.
    fn guard(&self, revision: Option<&str>, wanted: &str, what: &str) -> Result<(), Failure> {
        let Some(revision) = revision else {
            return Ok(());
        };
        let (running, stored) = revision.split_once(BETWEEN).unwrap_or((revision, revision));
        let present = self.stored.as_ref().unwrap_or(&self.running);
        let is_meant = |present: &str, expected: &str| present == expected || present == wanted;
        if is_meant(&self.running, running) && is_meant(present, stored) {
            return Ok(());
        }
        Err(Failure::conflict(
            "nginx.split-changed",
            format!("{what} `{present}`, expected was `{stored}` or `{wanted}`"),
        )
        .hint("somebody else changed it: see who did, and plan anew"))
    }
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
    use crate::nginx::fake::{Fake, Reload, config};

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
    fn a_split_that_nginx_has_not_read_is_told_and_finished_under_either_revision() {
        let fake = two_upstreams();
        set(&fake, &colours(), None, [0, 100]).unwrap();
        set(&fake, &colours(), None, [100, 0]).unwrap();
        fake.reload.set(Reload::Lost);
        let begun = Some("100% shop-blue");
        set(&fake, &colours(), begun, [0, 100]).unwrap_err();

        let apart = with(&fake, &colours(), |router| router.get()).unwrap();
        let elsewhere = set(&fake, &colours(), begun, [50, 50]).unwrap_err();
        fake.reload.set(Reload::Done);
        for revision in [begun, apart.revision.as_deref()] {
            set(&fake, &colours(), revision, [0, 100]).unwrap();
        }

        let percents = |shares: &[Share]| shares.iter().map(|it| it.percent).collect::<Vec<_>>();
        let differs = apart.differs.unwrap();
        assert_eq!(percents(&apart.shares), [100, 0], "what requests get");
        assert_eq!(percents(&differs.shares), [0, 100]);
        assert_eq!(
            differs.message,
            "`shop.split.conf` is `100% shop-green`, and nginx, which has not read that, has `100% shop-blue`"
        );
        assert_eq!(elsewhere.class, FailureClass::Conflict);
        let after = with(&fake, &colours(), |router| router.get()).unwrap();
        assert_eq!(
            (percents(&after.shares), after.differs),
            (vec![0, 100], None)
        );
        assert_eq!(fake.reloads.get(), 3);
    }

    #[test]
    fn a_split_is_not_settled_while_an_old_worker_takes_requests() {
        let fake = two_upstreams();
        fake.reload.set(Reload::Slow);
        set(&fake, &colours(), None, [0, 100]).unwrap();

        let before = with(&fake, &colours(), |router| router.get()).unwrap();
        fake.workers.borrow_mut().remove(0);
        let after = with(&fake, &colours(), |router| router.get()).unwrap();

        assert_eq!((before.settled, after.settled), (false, true));
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
