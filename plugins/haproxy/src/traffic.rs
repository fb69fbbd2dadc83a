//! Taking servers out of traffic and putting them back.

use std::time::Duration;

use cutover_plugin_sdk::{
    Failure, HOST_STAMPS, Member, MemberStatus, OpContext, Outcome, Pending, Phase, PoolRef, info,
};

use crate::backend::{Admin, Backend, Checks, Operation, Server};
use crate::config::{Config, Drain, Health, checked_name};
use crate::runtime_api::{Control, order};

/// The largest weight that HAProxy knows.
pub(crate) const LARGEST_WEIGHT: u32 = 256;

/// Between two looks at a server that drains. A session of a few milliseconds costs one short wait, many sessions are
/// not asked after often.
const POLL_STEP: Duration = Duration::from_millis(20);
const LONGEST_POLL: Duration = Duration::from_millis(200);

/// The operations of one call on one backend.
pub(crate) struct Traffic<'a> {
    control: &'a dyn Control,
    config: &'a Config,
    ctx: &'a OpContext,
    backend: Backend,
}

impl<'a> Traffic<'a> {
    pub(crate) fn new(
        control: &'a dyn Control,
        config: &'a Config,
        ctx: &'a OpContext,
        pool: &PoolRef,
    ) -> Result<Self, Failure> {
        let backend = Backend::read(control, config.backend(&pool.id)?)?;
        Ok(Self {
            control,
            config,
            ctx,
            backend,
        })
    }

    /// Makes a server ready. It gets traffic when a health check that began afterwards has passed.
    pub(crate) fn allow(&self, member: &Member) -> Result<Outcome, Failure> {
        let server = self.server(member)?;
        let mut orders = Vec::new();
        if let Some(weight) = member.weight.filter(|weight| *weight != server.weight) {
            orders.push(self.weight_order(server, weight)?);
        }
        if server.admin != Admin::Ready {
            orders.extend(self.ready_orders(server));
        }
        if orders.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        self.carry_out(server, &orders, |server| {
            server.admin == Admin::Ready
                && member.weight.is_none_or(|weight| server.weight == weight)
        })
    }

    /// Drains a server and puts it into maintenance once nothing is left.
    pub(crate) fn block(&self, member: &Member) -> Result<Outcome, Failure> {
        let server = self.server(member)?;
        if server.admin == Admin::Maintenance
            && (server.open == 0 || self.config.drain == Drain::Skip)
        {
            return Ok(Outcome::Unchanged);
        }
        if self.ctx.dry_run {
            return Ok(Outcome::changed());
        }
        if self.config.drain == Drain::Skip {
            let orders = [self.state_order(server, "maint")];
            return self.carry_out(server, &orders, |server| server.admin == Admin::Maintenance);
        }
        if server.admin == Admin::Ready {
            let orders = [self.state_order(server, "drain")];
            self.carry_out(server, &orders, |server| server.admin != Admin::Ready)?;
        }
        finish_blocking(self.control, &token(&self.backend.name, &server.name))
    }

    /// Sets a server's weight.
    pub(crate) fn weigh(&self, target_id: &str, weight: u32) -> Result<Outcome, Failure> {
        let server = find(&self.backend, self.config, target_id, None)
            .ok_or_else(|| self.backend.no_server(target_id))?;
        if server.weight == weight {
            return Ok(Outcome::Unchanged);
        }
        let orders = [self.weight_order(server, weight)?];
        self.carry_out(server, &orders, |server| server.weight == weight)
    }

    fn server(&self, member: &Member) -> Result<&Server, Failure> {
        find(
            &self.backend,
            self.config,
            &member.target_id,
            Some((&member.address, member.port)),
        )
        .ok_or_else(|| {
            self.backend.no_server(&format!(
                "{} ({}:{})",
                member.target_id, member.address, member.port
            ))
        })
    }

    fn state_order(&self, server: &Server, state: &str) -> String {
        format!(
            "set server {}/{} state {state}",
            self.backend.name, server.name
        )
    }

    fn weight_order(&self, server: &Server, weight: u32) -> Result<String, Failure> {
        if weight > LARGEST_WEIGHT {
            let message = format!(
                "weight {weight} of `{}` is above {LARGEST_WEIGHT}",
                server.name
            );
            return Err(Failure::invalid("haproxy.weight", message));
        }
        Ok(format!(
            "set server {}/{} weight {weight}",
            self.backend.name, server.name
        ))
    }

    /// A server that leaves maintenance counts as up until a check fails, and one that drained counts as up because of
    /// a check that asked the version before. So it is marked down while it gets no traffic yet, and the next checks
    /// bring it up.
    fn ready_orders(&self, server: &Server) -> Vec<String> {
        let ready = self.state_order(server, "ready");
        if server.checks == Checks::None || self.config.health == Health::Trust {
            return vec![ready];
        }
        let down = format!(
            "set server {}/{} health down",
            self.backend.name, server.name
        );
        vec![self.state_order(server, "drain"), down, ready]
    }

    /// Gives orders and reads back whether they did what they should.
    fn carry_out(
        &self,
        server: &Server,
        orders: &[String],
        done: impl Fn(&Server) -> bool,
    ) -> Result<Outcome, Failure> {
        if self.ctx.dry_run {
            return Ok(Outcome::changed());
        }
        order(self.control, orders)?;
        let backend = Backend::read(self.control, &self.backend.name)?;
        match backend.named(&server.name) {
            Some(server) if done(server) => Ok(Outcome::changed()),
            Some(server) => Err(unmoved(&backend, server)),
            None => Err(backend.no_server(&server.name)),
        }
    }
}

/// Puts a draining server into maintenance, or says what it still waits for.
pub(crate) fn finish_blocking(control: &dyn Control, token: &str) -> Result<Outcome, Failure> {
    let unknown = || {
        Failure::invalid(
            "haproxy.token",
            format!("`{token}` is no token of this plugin"),
        )
    };
    let (backend, server) = token.split_once('/').ok_or_else(unknown)?;
    let backend = Backend::read(control, checked_name(backend)?)?;
    let server = backend
        .named(checked_name(server)?)
        .ok_or_else(|| backend.no_server(server))?;
    match (server.admin, server.open) {
        (Admin::Ready, _) => Err(Failure::conflict(
            "haproxy.ready",
            format!(
                "server `{}/{}` was made ready while it drained",
                backend.name, server.name
            ),
        )),
        (_, open @ 1..) => {
            let words = if open == 1 {
                "1 session left".to_owned()
            } else {
                format!("{open} sessions left")
            };
            Ok(Outcome::Pending(Pending::new(
                token,
                (POLL_STEP * open).min(LONGEST_POLL),
                words,
            )))
        }
        (Admin::Maintenance, 0) => Ok(Outcome::changed()),
        (Admin::Drain, 0) => {
            order(
                control,
                &[format!(
                    "set server {}/{} state maint",
                    backend.name, server.name
                )],
            )?;
            let backend = Backend::read(control, &backend.name)?;
            match backend.named(&server.name) {
                Some(server) if server.admin == Admin::Maintenance => {
                    info!(
                        "server `{}/{}` is drained and in maintenance",
                        backend.name, server.name
                    );
                    Ok(Outcome::changed())
                }
                Some(server) => Err(unmoved(&backend, server)),
                None => Err(backend.no_server(&server.name)),
            }
        }
    }
}

/// Tells how servers are: those asked for, or all.
pub(crate) fn statuses(
    backend: &Backend,
    config: &Config,
    pool: &PoolRef,
    target_ids: &[String],
) -> Vec<MemberStatus> {
    if target_ids.is_empty() {
        return backend
            .servers
            .iter()
            .map(|server| status(&server.name, Some(server)))
            .collect();
    }
    target_ids
        .iter()
        .map(|id| status(id, find(backend, config, id, known_address(pool, id))))
        .collect()
}

/// The address of a member, which the host tells as the pool's attribute `address.TARGET`.
fn known_address<'a>(pool: &'a PoolRef, target_id: &str) -> Option<(&'a str, u16)> {
    let attribute = pool
        .attributes
        .iter()
        .find(|a| a.key.strip_prefix("address.") == Some(target_id))?;
    let (host, port) = attribute.value.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// The server of a member: the one that the config names, else the one of the same name, else the only one at its
/// address.
pub(crate) fn find<'b>(
    backend: &'b Backend,
    config: &Config,
    target_id: &str,
    address: Option<(&str, u16)>,
) -> Option<&'b Server> {
    match config.servers.get(target_id) {
        Some(name) => backend.named(name),
        None => backend.named(target_id).or_else(|| {
            let (host, port) = address?;
            backend.at(host, port)
        }),
    }
}

fn status(target_id: &str, server: Option<&Server>) -> MemberStatus {
    MemberStatus {
        target_id: target_id.to_owned(),
        phase: server.map_or(Phase::Absent, phase),
        open_connections: server.map(|server| server.open),
        reason: server
            .map(|server| server.words.clone())
            .filter(|words| !words.is_empty()),
        observed_at: HOST_STAMPS,
    }
}

fn phase(server: &Server) -> Phase {
    match (server.admin, server.operation) {
        (Admin::Ready, Operation::Up) => Phase::InService,
        (Admin::Ready, Operation::Down) => Phase::Registering,
        (Admin::Drain | Admin::Maintenance, _) | (Admin::Ready, Operation::Leaving)
            if server.open > 0 =>
        {
            Phase::Draining
        }
        _ => Phase::OutOfService,
    }
}

fn token(backend: &str, server: &str) -> String {
    format!("{backend}/{server}")
}

/// Something else decides about the server: a tracked server, name resolution, or another hand on the socket.
fn unmoved(backend: &Backend, server: &Server) -> Failure {
    let message = format!(
        "server `{}/{}` did not take the order: it is {:?} with weight {} ({})",
        backend.name, server.name, server.admin, server.weight, server.words
    );
    Failure::conflict("haproxy.unmoved", message)
        .hint("see whether the server tracks another one, resolves its name, or is changed by somebody else")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use cutover_plugin_sdk::{Attribute, FailureClass, parse_config};

    use super::*;

    const READY: u32 = 0;
    const MAINTENANCE: u32 = 1;
    const DRAIN: u32 = 8;

    /// An HAProxy with one backend, `shop`, that carries orders out like the real one.
    struct Fake {
        servers: RefCell<Vec<FakeServer>>,
        orders: RefCell<Vec<String>>,
    }

    #[derive(Clone)]
    struct FakeServer {
        name: &'static str,
        port: u16,
        admin: u32,
        up: u32,
        checks: u32,
        weight: u32,
        sessions: u32,
    }

    const WEB_1: FakeServer = FakeServer {
        name: "web-1",
        port: 8081,
        admin: READY,
        up: 2,
        checks: 6,
        weight: 100,
        sessions: 0,
    };

    impl Fake {
        fn with(servers: impl IntoIterator<Item = FakeServer>) -> Self {
            Self {
                servers: RefCell::new(servers.into_iter().collect()),
                orders: RefCell::default(),
            }
        }

        fn web_1(&self) -> FakeServer {
            self.servers.borrow()[0].clone()
        }

        fn obey(&self, order: &str) -> &'static str {
            let words: Vec<&str> = order.split(' ').collect();
            let ["set", "server", name, what, value] = words[..] else {
                return "Unknown command\n";
            };
            let mut servers = self.servers.borrow_mut();
            let Some(server) = servers
                .iter_mut()
                .find(|server| Some(server.name) == name.strip_prefix("shop/"))
            else {
                return "No such server.\n";
            };
            match (what, value) {
                ("state", "ready") => {
                    server.up = if server.admin == MAINTENANCE {
                        2
                    } else {
                        server.up
                    };
                    server.admin = READY;
                }
                ("state", "drain") => {
                    server.up = if server.admin == MAINTENANCE {
                        2
                    } else {
                        server.up
                    };
                    server.admin = DRAIN;
                }
                ("state", "maint") => (server.admin, server.up) = (MAINTENANCE, 0),
                ("health", "down") => server.up = 0,
                ("weight", weight) => server.weight = weight.parse().unwrap(),
                _ => return "Unknown command\n",
            }
            ""
        }
    }

    impl Control for Fake {
        fn ask(&self, command: &str) -> Result<String, Failure> {
            let servers = self.servers.borrow().clone();
            let lines =
                |line: fn(&FakeServer) -> String| servers.iter().map(line).collect::<String>();
            Ok(match command {
                "show servers state shop" => {
                    let header = "1\n# be_name srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_check_state srv_port\n";
                    header.to_owned()
                        + &lines(|s| {
                            let FakeServer {
                                name,
                                up,
                                admin,
                                weight,
                                checks,
                                port,
                                ..
                            } = s;
                            format!("shop {name} 127.0.0.1 {up} {admin} {weight} {checks} {port}\n")
                        })
                }
                "show stat shop 4 -1" => {
                    "# pxname,svname,qcur,scur,status\n".to_owned()
                        + &lines(|s| format!("shop,{},0,{},WORDS\n", s.name, s.sessions))
                }
                _ if command.starts_with("show ") => "Unknown command\n".to_owned(),
                _ => {
                    self.orders.borrow_mut().push(command.to_owned());
                    command.split("; ").map(|order| self.obey(order)).collect()
                }
            })
        }
    }

    fn context(dry_run: bool) -> OpContext {
        OpContext {
            run_id: String::new(),
            step_id: String::new(),
            idempotency_key: String::new(),
            attempt: 1,
            deadline: 0,
            dry_run,
            traceparent: None,
        }
    }

    fn member(id: &str) -> Member {
        Member {
            target_id: id.to_owned(),
            provider_id: None,
            address: "127.0.0.1".to_owned(),
            port: 8081,
            weight: None,
            zone: None,
            attributes: Vec::new(),
        }
    }

    fn pool() -> PoolRef {
        PoolRef {
            id: "shop".to_owned(),
            attributes: Vec::new(),
        }
    }

    fn run<T>(fake: &Fake, config: &str, operation: impl FnOnce(&Traffic<'_>) -> T) -> T {
        let config: Config = parse_config(config).unwrap();
        operation(&Traffic::new(fake, &config, &context(false), &pool()).unwrap())
    }

    const CONFIG: &str = r#"{"socket": "unix:/x"}"#;

    #[test]
    fn an_idle_server_goes_into_maintenance_at_once() {
        let fake = Fake::with([WEB_1]);

        let outcome = run(&fake, CONFIG, |traffic| traffic.block(&member("web-1")));

        assert_eq!(outcome, Ok(Outcome::changed()));
        assert_eq!(fake.web_1().admin, MAINTENANCE);
    }

    #[test]
    fn a_busy_server_drains_first() {
        let fake = Fake::with([FakeServer {
            sessions: 3,
            ..WEB_1
        }]);

        let outcome = run(&fake, CONFIG, |traffic| traffic.block(&member("web-1")));

        let Ok(Outcome::Pending(pending)) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(
            (pending.message.as_str(), pending.poll_after),
            ("3 sessions left", 60)
        );
        assert_eq!(fake.web_1().admin, DRAIN);

        fake.servers.borrow_mut()[0].sessions = 0;
        assert_eq!(
            finish_blocking(&fake, &pending.token),
            Ok(Outcome::changed())
        );
        assert_eq!(fake.web_1().admin, MAINTENANCE);
        assert_eq!(
            finish_blocking(&fake, &pending.token),
            Ok(Outcome::changed())
        );
    }

    #[test]
    fn blocking_twice_changes_nothing() {
        let fake = Fake::with([FakeServer {
            admin: MAINTENANCE,
            up: 0,
            ..WEB_1
        }]);

        let outcome = run(&fake, CONFIG, |traffic| traffic.block(&member("web-1")));

        assert_eq!(outcome, Ok(Outcome::Unchanged));
        assert!(fake.orders.borrow().is_empty());
    }

    #[test]
    fn without_draining_sessions_are_not_waited_for() {
        let fake = Fake::with([FakeServer {
            sessions: 3,
            ..WEB_1
        }]);

        let outcome = run(
            &fake,
            r#"{"socket": "unix:/x", "drain": "skip"}"#,
            |traffic| traffic.block(&member("web-1")),
        );

        assert_eq!(outcome, Ok(Outcome::changed()));
        assert_eq!(fake.web_1().admin, MAINTENANCE);
    }

    #[test]
    fn a_server_made_ready_while_it_drains_is_a_conflict() {
        let fake = Fake::with([WEB_1]);

        let failure = finish_blocking(&fake, "shop/web-1").unwrap_err();

        assert_eq!(failure.class, FailureClass::Conflict);
    }

    #[test]
    fn a_checked_server_is_ready_but_down_until_a_check_passes() {
        for admin in [MAINTENANCE, DRAIN] {
            let fake = Fake::with([FakeServer { admin, ..WEB_1 }]);

            let outcome = run(&fake, CONFIG, |traffic| traffic.allow(&member("web-1")));

            assert_eq!(outcome, Ok(Outcome::changed()));
            assert_eq!((fake.web_1().admin, fake.web_1().up), (READY, 0));
            let backend = Backend::read(&fake, "shop").unwrap();
            assert_eq!(phase(&backend.servers[0]), Phase::Registering);
        }
    }

    #[test]
    fn a_server_without_checks_is_in_service_at_once() {
        let fake = Fake::with([FakeServer {
            admin: MAINTENANCE,
            up: 0,
            checks: 0,
            ..WEB_1
        }]);

        let outcome = run(&fake, CONFIG, |traffic| traffic.allow(&member("web-1")));

        assert_eq!(outcome, Ok(Outcome::changed()));
        assert_eq!(*fake.orders.borrow(), ["set server shop/web-1 state ready"]);
        let backend = Backend::read(&fake, "shop").unwrap();
        assert_eq!(phase(&backend.servers[0]), Phase::InService);
    }

    #[test]
    fn a_ready_server_is_unchanged_unless_its_weight_differs() {
        let fake = Fake::with([WEB_1]);
        let weighted = |weight| Member {
            weight: Some(weight),
            ..member("web-1")
        };

        assert_eq!(
            run(&fake, CONFIG, |traffic| traffic.allow(&weighted(100))),
            Ok(Outcome::Unchanged)
        );
        assert_eq!(
            run(&fake, CONFIG, |traffic| traffic.allow(&weighted(7))),
            Ok(Outcome::changed())
        );
        assert_eq!(
            run(&fake, CONFIG, |traffic| traffic.weigh("web-1", 9)),
            Ok(Outcome::changed())
        );
        assert_eq!(fake.web_1().weight, 9);
        let failure = run(&fake, CONFIG, |traffic| traffic.allow(&weighted(257))).unwrap_err();
        assert_eq!(failure.class, FailureClass::Invalid);
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let fake = Fake::with([WEB_1]);
        let config: Config = parse_config(CONFIG).unwrap();
        let ctx = context(true);
        let traffic = Traffic::new(&fake, &config, &ctx, &pool()).unwrap();

        assert_eq!(traffic.block(&member("web-1")), Ok(Outcome::changed()));
        assert_eq!(traffic.weigh("web-1", 5), Ok(Outcome::changed()));
        assert!(fake.orders.borrow().is_empty());
    }

    #[test]
    fn servers_are_found_by_map_name_and_address() {
        let fake = Fake::with([
            WEB_1,
            FakeServer {
                name: "s2",
                port: 8082,
                ..WEB_1
            },
        ]);
        let backend = Backend::read(&fake, "shop").unwrap();
        let config: Config =
            parse_config(r#"{"socket": "unix:/x", "servers": {"web-9": "s2"}}"#).unwrap();
        let pool = PoolRef {
            attributes: vec![Attribute {
                key: "address.web-2".to_owned(),
                value: "127.0.0.1:8082".to_owned(),
            }],
            ..pool()
        };
        let ids = ["web-1", "web-9", "web-2", "web-3"].map(str::to_owned);

        let phases: Vec<_> = statuses(&backend, &config, &pool, &ids)
            .into_iter()
            .map(|status| status.phase)
            .collect();

        assert_eq!(
            phases,
            [
                Phase::InService,
                Phase::InService,
                Phase::InService,
                Phase::Absent
            ]
        );
    }

    #[test]
    fn an_unknown_member_names_the_servers_that_there_are() {
        let fake = Fake::with([WEB_1]);
        let stranger = Member {
            port: 9999,
            ..member("web-7")
        };

        let failure = run(&fake, CONFIG, |traffic| traffic.allow(&stranger)).unwrap_err();

        assert_eq!(failure.class, FailureClass::NotFound);
        assert!(failure.hint.unwrap().contains("web-1 (127.0.0.1:8081)"));
    }
}
