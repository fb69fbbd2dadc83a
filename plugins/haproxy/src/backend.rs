//! What HAProxy tells about a backend and its servers.
//!
//! Three tables hold it: `show servers state` (administrative and operational state, weight, address), `show stat`
//! (sessions and the result of the health check) and `show servers conn` (connections in use). Columns are found by
//! their names, because versions add some.

use cutover_plugin_sdk::Failure;

use crate::runtime_api::{Control, refused};

/// A backend as it was when it was read.
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) servers: Vec<Server>,
}

/// One server of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) name: String,
    address: String,
    host_name: String,
    port: u16,
    pub(crate) admin: Admin,
    pub(crate) operation: Operation,
    pub(crate) checks: Checks,
    pub(crate) weight: u32,
    /// Sessions and connections in use, and requests that wait for this server.
    pub(crate) open: u32,
    /// HAProxy's words for the state, for example `DOWN L4CON`.
    pub(crate) words: String,
}

/// What was ordered for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admin {
    Ready,
    /// No further sessions; open ones and health checks go on.
    Drain,
    /// Neither sessions nor health checks.
    Maintenance,
}

/// Whether a server works, as far as HAProxy knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Down,
    Up,
    /// It asked for no further traffic by answering 404 to its health check.
    Leaving,
}

/// Whether HAProxy finds out by itself that a server works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checks {
    Configured,
    None,
}

/// Bits of `srv_admin_state`: forced, inherited from a tracked server, or because its name does not resolve.
const MAINTENANCE_BITS: u32 = 0x01 | 0x02 | 0x20 | 0x40;
/// Bits of `srv_admin_state`: forced or inherited.
const DRAIN_BITS: u32 = 0x08 | 0x10;
/// Bit of `srv_check_state` and `srv_agent_state`: checks are enabled.
const ENABLED_BIT: u32 = 0x04;

impl Backend {
    /// Reads a backend and its servers.
    pub(crate) fn read(control: &dyn Control, name: &str) -> Result<Self, Failure> {
        let state = table(control, &format!("show servers state {name}"))?;
        let mut stat = table(control, &format!("show stat {name} 4 -1"))?;
        // Old versions do not have it; sessions alone have to do then.
        let connections = control.ask(&format!("show servers conn {name}"))?;
        let mut servers =
            parse_state(&state, name).ok_or_else(|| unreadable("show servers state", &state))?;
        let is_told = |server: &Server| sessions(&stat, name, &server.name).is_some();
        if !servers.iter().all(is_told) {
            // A frontend of the same name is what HAProxy finds first, and that has no servers.
            stat = table(control, "show stat -1 4 -1")?;
        }
        for server in &mut servers {
            let (sessions, words) = sessions(&stat, name, &server.name)
                .ok_or_else(|| unreadable("show stat", &stat))?;
            server.open = sessions.max(connections_in_use(&connections, name, &server.name));
            server.words = words;
        }
        Ok(Self {
            name: name.to_owned(),
            servers,
        })
    }

    /// Finds a server by its name.
    pub(crate) fn named(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// Finds the server at an address, unless there are several.
    pub(crate) fn at(&self, address: &str, port: u16) -> Option<&Server> {
        let host = address.trim_start_matches('[').trim_end_matches(']');
        let mut matches = self.servers.iter().filter(|server| {
            server.port == port && (server.address == host || server.host_name == host)
        });
        let first = matches.next()?;
        matches.next().is_none().then_some(first)
    }

    /// The failure of looking for a server in vain.
    pub(crate) fn no_server(&self, wanted: &str) -> Failure {
        let known: Vec<String> = self
            .servers
            .iter()
            .map(|server| format!("{} ({}:{})", server.name, server.address, server.port))
            .collect();
        Failure::not_found(
            "haproxy.server",
            format!("backend `{}` has no server for `{wanted}`", self.name),
        )
        .hint(format!(
            "known servers: {}; name it like the instance, or map it under `servers` in the config",
            known.join(", ")
        ))
    }
}

/// Asks for a table and refuses anything else.
fn table(control: &dyn Control, command: &str) -> Result<String, Failure> {
    let answer = control.ask(command)?;
    if answer.lines().any(|line| line.starts_with("# ")) {
        Ok(answer)
    } else {
        Err(refused(command, &answer))
    }
}

fn unreadable(command: &str, answer: &str) -> Failure {
    let beginning: String = answer.chars().take(200).collect();
    Failure::permanent(
        "haproxy.format",
        format!("`{command}` answered what this plugin cannot read: {beginning}"),
    )
}

/// The cells of a table, with the names of its columns.
struct Rows<'a> {
    columns: Vec<&'a str>,
    cells: Vec<Vec<&'a str>>,
}

impl<'a> Rows<'a> {
    fn of(text: &'a str, separator: char) -> Option<Self> {
        let mut lines = text.lines().skip_while(|line| !line.starts_with("# "));
        let columns = lines
            .next()?
            .trim_start_matches("# ")
            .split(separator)
            .collect();
        let cells = lines
            .filter(|line| !line.is_empty())
            .map(|line| line.split(separator).collect())
            .collect();
        Some(Self { columns, cells })
    }

    fn cell<'r>(&self, row: &'r [&'a str], column: &str) -> Option<&'r &'a str> {
        row.get(self.columns.iter().position(|name| *name == column)?)
    }

    fn number(&self, row: &[&'a str], column: &str) -> Option<u32> {
        self.cell(row, column)?.parse().ok()
    }
}

fn parse_state(text: &str, backend: &str) -> Option<Vec<Server>> {
    let rows = Rows::of(text, ' ')?;
    let mut servers = Vec::new();
    for row in &rows.cells {
        if *rows.cell(row, "be_name")? != backend {
            continue;
        }
        let admin = rows.number(row, "srv_admin_state")?;
        let checks =
            rows.number(row, "srv_check_state")? | rows.number(row, "srv_agent_state").unwrap_or(0);
        servers.push(Server {
            name: (*rows.cell(row, "srv_name")?).to_owned(),
            address: (*rows.cell(row, "srv_addr")?).to_owned(),
            host_name: rows
                .cell(row, "srv_fqdn")
                .map_or_else(String::new, |name| (*name).to_owned()),
            port: rows
                .cell(row, "srv_port")
                .and_then(|port| port.parse().ok())
                .unwrap_or(0),
            admin: match admin {
                bits if bits & MAINTENANCE_BITS != 0 => Admin::Maintenance,
                bits if bits & DRAIN_BITS != 0 => Admin::Drain,
                _ => Admin::Ready,
            },
            operation: match rows.number(row, "srv_op_state")? {
                0 => Operation::Down,
                3 => Operation::Leaving,
                _ => Operation::Up,
            },
            checks: if checks & ENABLED_BIT == 0 {
                Checks::None
            } else {
                Checks::Configured
            },
            weight: rows.number(row, "srv_uweight")?,
            open: 0,
            words: String::new(),
        });
    }
    Some(servers)
}

/// Sessions that a server has or that wait for it, and HAProxy's words for its state.
fn sessions(text: &str, backend: &str, server: &str) -> Option<(u32, String)> {
    let rows = Rows::of(text, ',')?;
    let row = rows.cells.iter().find(|row| {
        rows.cell(row, "pxname") == Some(&backend) && rows.cell(row, "svname") == Some(&server)
    })?;
    let open = rows.number(row, "scur")? + rows.number(row, "qcur").unwrap_or(0);
    let words = ["status", "check_status", "check_code"]
        .into_iter()
        .filter_map(|column| rows.cell(row, column).copied())
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    Some((open, words))
}

/// Connections to a server that carry a request. Idle ones in HAProxy's pool do not count.
fn connections_in_use(text: &str, backend: &str, server: &str) -> u32 {
    let full_name = format!("{backend}/{server}");
    let find = || {
        let rows = Rows::of(text, ' ')?;
        let row = rows
            .cells
            .iter()
            .find(|row| row.first() == Some(&full_name.as_str()))?;
        rows.number(row, "used_cur")
    };
    find().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Answers of HAProxy 2.6.12.
    const STATE: &str = include_str!("../tests/captured/show-servers-state.txt");
    const STAT: &str = include_str!("../tests/captured/show-stat.csv");
    const CONN: &str = include_str!("../tests/captured/show-servers-conn.txt");

    struct Captured;

    impl Control for Captured {
        fn ask(&self, command: &str) -> Result<String, Failure> {
            Ok(match command {
                "show servers state app" => STATE,
                "show stat app 4 -1" => STAT,
                "show servers conn app" => CONN,
                _ => "Can't find backend.\n\n",
            }
            .to_owned())
        }
    }

    #[test]
    fn reads_the_state_of_every_server() {
        let backend = Backend::read(&Captured, "app").unwrap();

        let states: Vec<_> = backend
            .servers
            .iter()
            .map(|s| {
                (
                    s.name.as_str(),
                    s.admin,
                    s.operation,
                    s.checks,
                    s.weight,
                    s.open,
                    s.words.as_str(),
                )
            })
            .collect();
        assert_eq!(
            states,
            [
                (
                    "web-1",
                    Admin::Drain,
                    Operation::Up,
                    Checks::Configured,
                    100,
                    1,
                    "DRAIN L7OK 200"
                ),
                (
                    "web-2",
                    Admin::Maintenance,
                    Operation::Down,
                    Checks::Configured,
                    100,
                    0,
                    "MAINT"
                ),
                (
                    "web-3",
                    Admin::Ready,
                    Operation::Up,
                    Checks::None,
                    50,
                    0,
                    "no check"
                ),
                (
                    "web-4",
                    Admin::Ready,
                    Operation::Down,
                    Checks::Configured,
                    100,
                    0,
                    "DOWN L4CON"
                ),
            ]
        );
    }

    #[test]
    fn a_frontend_of_the_same_name_does_not_hide_the_backend() {
        struct Namesake;
        impl Control for Namesake {
            fn ask(&self, command: &str) -> Result<String, Failure> {
                let header = STAT.lines().next().unwrap_or_default();
                match command {
                    "show stat app 4 -1" => Ok(format!("{header}\n\n")),
                    "show stat -1 4 -1" => Ok(STAT.to_owned()),
                    other => Captured.ask(other),
                }
            }
        }

        let backend = Backend::read(&Namesake, "app").unwrap();

        assert_eq!(backend.servers.len(), 4);
        assert_eq!(backend.servers[0].words, "DRAIN L7OK 200");
    }

    #[test]
    fn finds_a_server_by_address_only_if_it_is_the_only_one() {
        let mut backend = Backend::read(&Captured, "app").unwrap();

        assert_eq!(backend.at("127.0.0.1", 9182).unwrap().name, "web-2");
        assert!(backend.at("127.0.0.1", 9999).is_none());

        backend.servers.push(backend.servers[1].clone());
        assert!(backend.at("127.0.0.1", 9182).is_none());
    }

    #[test]
    fn an_unknown_backend_is_not_found() {
        let failure = Backend::read(&Captured, "nope").err().unwrap();

        assert_eq!(failure.class, cutover_plugin_sdk::FailureClass::NotFound);
    }

    #[test]
    fn sessions_count_where_connections_are_not_told() {
        assert_eq!(connections_in_use("Unknown command.\n", "app", "web-1"), 0);
        assert_eq!(connections_in_use(CONN, "app", "web-1"), 1);
    }
}
