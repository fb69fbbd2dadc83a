//! How the members of an upstream are: where nginx has them, which is not always what its files say, and how they answer
//! where the configuration says what to ask them.

use cutover_plugin_sdk::{Failure, FailureClass, Phase};

use crate::config::Config;
use crate::nginx::{File, Nginx, Standing, World};
use crate::servers::{Place, Server, Servers};

/// The members of one upstream.
pub(crate) struct Members<'a> {
    world: &'a dyn World,
    config: &'a Config,
    standing: Standing,
    written: Servers,
    earlier: Option<Earlier>,
}

/// What was in the file before, and who follows it.
enum Earlier {
    /// Workers that are being replaced.
    InPart(Servers),
    /// All of nginx.
    InWhole(Servers),
}

impl<'a> Members<'a> {
    pub(crate) fn new(nginx: &Nginx<'a>, file: &File, standing: Standing) -> Self {
        Self {
            world: nginx.world,
            config: nginx.config,
            standing,
            written: Servers::parse(file.text()),
            earlier: match file {
                File::Read { .. } => None,
                File::BeingRead { earlier, .. } => Some(Earlier::InPart(Servers::parse(earlier))),
                File::Unread { earlier, .. } => Some(Earlier::InWhole(Servers::parse(earlier))),
            },
        }
    }

    pub(crate) fn all(&self) -> Vec<String> {
        let all = self.written.all();
        all.map(|server| server.target_id.clone()).collect()
    }

    /// Where nginx has a member, with what there is to say of it.
    ///
    /// # Errors
    /// When a member may not be asked how it is.
    pub(crate) fn phase(&self, target_id: &str) -> Result<(Phase, Option<String>), Failure> {
        let written = self.written.find(target_id);
        let Standing {
            written: version,
            live,
            finishing,
            ..
        } = self.standing;
        match (&self.earlier, written) {
            (Some(Earlier::InWhole(earlier)), _) => {
                let has = format!("nginx has version {live}, its files are of version {version}");
                match earlier.find(target_id) {
                    None => Ok((Phase::Absent, Some(has))),
                    Some(server) if server.place == Place::Out => {
                        Ok((Phase::OutOfService, Some(has)))
                    }
                    Some(server) => self.in_traffic(server, Some(has)),
                }
            }
            (_, None) => Ok((Phase::Absent, None)),
            (Some(Earlier::InPart(earlier)), Some(server)) => {
                let was = earlier.find(target_id).map(|server| server.place);
                let reason = || Some("old workers of nginx take requests yet".to_owned());
                match (server.place, was) {
                    (Place::In, Some(Place::In)) => self.in_traffic(server, None),
                    (Place::In, _) => Ok((Phase::Registering, reason())),
                    (Place::Out, _) => Ok((Phase::Draining, reason())),
                }
            }
            (None, Some(server)) => match (server.place, finishing) {
                (Place::In, _) => self.in_traffic(server, None),
                (Place::Out, 0) => Ok((Phase::OutOfService, None)),
                (Place::Out, _) => {
                    let reason = "old workers of nginx finish their requests";
                    Ok((Phase::Draining, Some(reason.to_owned())))
                }
            },
        }
    }

    /// A member that nginx sends requests to is in service as far as it answers.
    fn in_traffic(
        &self,
        server: &Server,
        reason: Option<String>,
    ) -> Result<(Phase, Option<String>), Failure> {
        Ok(match complaint(self.world, self.config, server)? {
            None => (Phase::InService, reason),
            complaint => (Phase::Registering, complaint),
        })
    }
}

/// Refuses a member that does not answer well, where the configuration says what to ask it.
pub(crate) fn well(world: &dyn World, config: &Config, server: &Server) -> Result<(), Failure> {
    match complaint(world, config, server)? {
        None => Ok(()),
        Some(complaint) => Err(Failure::transient(
            "nginx.member-unwell",
            format!("`{}` {complaint}", server.target_id),
        )),
    }
}

/// What is wrong with the answer of a member.
fn complaint(
    world: &dyn World,
    config: &Config,
    server: &Server,
) -> Result<Option<String>, Failure> {
    let Some(path) = config.health.as_ref().map(|health| &health.path) else {
        return Ok(None);
    };
    match world.member(&format!("http://{}{path}", server.address)) {
        Ok(200..=399) => Ok(None),
        Ok(status) => Ok(Some(format!("answers {path} with {status}"))),
        // The operator has to say that it may be asked.
        Err(failure) if matches!(failure.class, FailureClass::Denied | FailureClass::Invalid) => {
            Err(failure)
        }
        Err(failure) => Ok(Some(format!("does not answer {path}: {}", failure.message))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nginx::fake::{Fake, config};
    use crate::router::NO_SERVER;

    const BEFORE: &str =
        "server 10.0.0.1:80 weight=1; # web-1\nserver 10.0.0.2:80 down; # web-2 out weight=1\n";
    const AFTER: &str =
        "server 10.0.0.1:80 down; # web-1 out weight=1\nserver 10.0.0.2:80 weight=1; # web-2\n";

    /// The phases of web-1, which leaves, and of web-2, which joins, at a version that nginx has and with workers of ours
    /// that it has left.
    fn check(live: u64, workers: &[(u32, bool)], expected: [Phase; 2]) {
        let earlier = format!("# before version 3\n{BEFORE}");
        let fake = Fake::with(&[("shop.servers", AFTER), ("shop.servers.before", &earlier)]);
        fake.set(
            "shop.version.conf",
            "map \"\" $shop_version { default \"3\"; } # in the place of workers 7\n",
        );
        fake.live.set(live);
        *fake.workers.borrow_mut() = workers.to_vec();

        let phases = phases(&fake, &config()).map(|(phase, _)| phase);

        assert_eq!(phases, expected, "{live} {workers:?}");
    }

    fn phases(fake: &Fake, config: &Config) -> [(Phase, Option<String>); 2] {
        let nginx = Nginx {
            world: fake,
            config,
        };
        let standing = nginx.standing().unwrap();
        let file = nginx.file("shop.servers", NO_SERVER, standing).unwrap();
        let members = Members::new(&nginx, &file, standing);
        ["web-1", "web-2"].map(|id| members.phase(id).unwrap())
    }

    #[test]
    fn a_member_is_where_nginx_has_it() {
        let (taking, leaving) = ((7, false), (7, true));
        check(2, &[taking], [Phase::InService, Phase::OutOfService]);
        check(
            3,
            &[taking, (8, false)],
            [Phase::Draining, Phase::Registering],
        );
        check(
            3,
            &[leaving, (8, false)],
            [Phase::Draining, Phase::InService],
        );
        check(3, &[(8, false)], [Phase::OutOfService, Phase::InService]);
        // Another file is being changed meanwhile.
        check(4, &[(8, false)], [Phase::OutOfService, Phase::InService]);
    }

    #[test]
    fn a_member_in_traffic_is_in_service_when_it_answers_well() {
        let fake = Fake::with(&[("shop.servers", AFTER)]);
        let mut config = config();
        config.health = Some(crate::config::Health {
            path: "/healthz".to_owned(),
        });
        for (answer, complaint) in [
            (Ok(204), None),
            (Ok(503), Some("answers /healthz with 503")),
            (
                Err(Failure::transient("io", "connection refused")),
                Some("does not answer /healthz: connection refused"),
            ),
        ] {
            *fake.member.borrow_mut() = answer;

            let [web_1, web_2] = phases(&fake, &config);

            assert_eq!(web_1, (Phase::OutOfService, None), "it is not asked");
            let phase = complaint.map_or(Phase::InService, |_| Phase::Registering);
            assert_eq!(web_2, (phase, complaint.map(str::to_owned)));
        }
    }

    #[test]
    fn a_member_that_may_not_be_asked_is_a_failure() {
        let fake = Fake::with(&[("shop.servers", AFTER)]);
        let mut config = config();
        config.health = Some(crate::config::Health {
            path: "/healthz".to_owned(),
        });
        *fake.member.borrow_mut() = Err(Failure::new(FailureClass::Denied, "denied", "no grant"));
        let servers = Servers::parse(AFTER);

        let failure = well(&fake, &config, servers.find("web-2").unwrap()).unwrap_err();

        assert_eq!(failure.class, FailureClass::Denied);
    }
}
