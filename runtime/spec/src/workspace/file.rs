//! The file as a whole, and what must be unique in it.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use model::{ApplicationName, GroupName, GroupRef};

use super::group::{self, Group};
use super::packages::{self, Packages};
use super::plugin::{self, Plugin};
use crate::fields::{Field, Fields, Shape};
use crate::problem::{Collector, Parsed, Position, Problems, excerpt, suggestion};
use crate::yaml;

pub(super) static WORKSPACE: Shape = Shape {
    name: "workspace",
    keys: &["journal", "packages", "plugins", "applications"],
    aliases: &[],
};

pub(super) static APPLICATION: Shape = Shape {
    name: "application",
    keys: &["groups"],
    aliases: &[],
};

/// The content of `cutover.yaml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    pub journal: JournalLocation,
    /// Where that is written, and the beginning of the file where it is not.
    pub journal_at: Position,
    pub packages: Packages,
    /// In the order of the file.
    pub plugins: Vec<Plugin>,
    /// The groups of all applications, in the order of the file.
    pub groups: Vec<Group>,
}

/// Where the journal is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalLocation {
    /// A path, relative to the workspace file.
    Sqlite(String),
    /// A URL, `postgres://…`.
    Postgres(String),
}

impl Default for JournalLocation {
    fn default() -> Self {
        Self::Sqlite(".cutover/journal.db".to_owned())
    }
}

impl fmt::Display for JournalLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{path}"),
            Self::Postgres(url) => f.pad(url),
        }
    }
}

/// A group that no application of the workspace has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the workspace has no group `{group}`")]
pub struct UnknownGroup {
    pub group: GroupRef,
    /// A group whose name is near.
    pub suggestion: Option<GroupRef>,
    /// All groups of the workspace.
    pub known: Vec<GroupRef>,
}

impl Workspace {
    /// Finds a group by its name.
    ///
    /// # Errors
    /// [`UnknownGroup`] with the known ones when there is none.
    pub fn group(&self, reference: &GroupRef) -> Result<&Group, UnknownGroup> {
        self.groups
            .iter()
            .find(|group| group.reference == *reference)
            .ok_or_else(|| {
                let known: Vec<_> = self
                    .groups
                    .iter()
                    .map(|group| group.reference.clone())
                    .collect();
                let names: Vec<_> = known.iter().map(ToString::to_string).collect();
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                let suggestion =
                    suggestion(&reference.to_string(), &names).and_then(|name| name.parse().ok());
                UnknownGroup {
                    group: reference.clone(),
                    suggestion,
                    known,
                }
            })
    }

    /// Finds a plugin by its name.
    #[must_use]
    pub fn plugin(&self, name: &model::PluginName) -> Option<&Plugin> {
        self.plugins.iter().find(|plugin| plugin.name == *name)
    }
}

/// Reads a workspace file. `file` is only named in messages.
///
/// # Errors
/// Every problem of the text, when at least one of them is an error.
pub fn parse(text: &str, file: &Path) -> Result<Parsed<Workspace>, Problems> {
    let mut problems = Collector::new(file);
    let workspace = yaml::parse(text, &mut problems).and_then(|root| {
        workspace(
            &Fields::of_root(&root, &WORKSPACE, &mut problems)?,
            &mut problems,
        )
    });
    problems.finish(workspace)
}

fn workspace(fields: &Fields<'_>, problems: &mut Collector) -> Option<Workspace> {
    let journal = fields
        .get("journal")
        .map_or(Some(JournalLocation::default()), |field| {
            journal(field, problems)
        });

    let packages = fields
        .get("packages")
        .map_or(Some(Packages::default()), |field| {
            packages::parse(field, problems)
        });

    let declared = fields
        .get("plugins")
        .map(|field| field.entries("names to plugins", problems))
        .unwrap_or_default();
    let plugin_names: Vec<_> = declared.iter().map(|field| field.name).collect();
    let plugins = declared
        .iter()
        .filter_map(|field| plugin::parse(*field, problems))
        .collect();

    let mut groups = Vec::new();
    let mut seen = group::Seen {
        plugins: &plugin_names,
        service_ids: HashMap::new(),
    };
    for application in named(
        fields.required("applications", problems),
        "applications",
        problems,
    ) {
        let Some(fields) = application.fields(&APPLICATION, problems) else {
            continue;
        };
        let name = application.name_as::<ApplicationName>(problems);
        for member in named(fields.required("groups", problems), "groups", problems) {
            let group_name = member.name_as::<GroupName>(problems);
            // A group with a bad name is read all the same, so that all its problems show.
            let reference = name
                .clone()
                .zip(group_name)
                .map(|(application, group)| GroupRef { application, group });
            groups.extend(group::parse(member, reference, &mut seen, problems));
        }
    }

    Some(Workspace {
        journal: journal?,
        journal_at: fields
            .get("journal")
            .map_or(Position::START, |field| field.at()),
        packages: packages?,
        plugins,
        groups,
    })
}

/// The entries of a mapping that must have at least one.
fn named<'n>(field: Option<Field<'n>>, what: &str, problems: &mut Collector) -> Vec<Field<'n>> {
    let Some(field) = field else {
        return Vec::new();
    };
    let entries = field.entries(&format!("names to {what}"), problems);
    if entries.is_empty() && matches!(field.node.value, yaml::Value::Mapping(_)) {
        problems.error(field.at(), format!("`{}` is empty", field.name));
    }
    entries
}

fn journal(field: Field<'_>, problems: &mut Collector) -> Option<JournalLocation> {
    let text = field.text(problems)?;
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Some(JournalLocation::Postgres(text.to_owned()));
    }
    match text.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => Some(JournalLocation::Sqlite(path.to_owned())),
        _ => {
            let message = format!(
                "`journal`: expected `sqlite:PATH` or `postgres://…`, found text `{}`",
                excerpt(text)
            );
            if text.contains(':') {
                problems.error(field.at(), message);
            } else {
                problems.error_with_hint(
                    field.at(),
                    message,
                    format!("write `sqlite:{}`", excerpt(text)),
                );
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;

    /// The workspace in brief, or all problems with their hints.
    fn check(text: &str) -> String {
        match parse(text, Path::new("cutover.yaml")) {
            Ok(parsed) => format!("{:#?}", parsed.value),
            Err(problems) => problems
                .iter()
                .map(|problem| format!("{problem:#}\n"))
                .collect(),
        }
    }

    /// A workspace with one group that has these lines.
    fn check_group(lines: &str) -> String {
        let indented: String = lines
            .lines()
            .map(|line| format!("        {line}\n"))
            .collect();
        check(&format!(
            "plugins: {{haproxy: {{component: haproxy}}}}\napplications:\n  shop:\n    groups:\n      web:\n{indented}"
        ))
    }

    /// As `check_group`, with an instance.
    fn check_settings(lines: &str) -> String {
        check_group(&format!(
            "instances: [{{id: web-1, host: 'local:'}}]\n{lines}"
        ))
    }

    const FULL: &str = r#"
journal: sqlite:.cutover/journal.db
packages: {limits: {size: 2GiB, entries: 5000}}
plugins:
  haproxy:
    component: plugins/haproxy.wasm
    config: {mirrors: []}
    grants:
      sockets: ["tcp:127.0.0.1:9999", "unix:/run/haproxy.sock"]
      http: ["https://api.example.com"]
      directories: [/srv/maps, state: var/state, {name: logs, path: /var/log, access: read-write}]
      secrets: [TOKEN, {api: "file:/etc/token"}, key: env:API_KEY]
      programs: [nginx]
      commands: [bin/migrate, /usr/bin/psql, "*"]
      paths: [data, {path: /etc/app, access: read-write}]
applications:
  shop:
    groups:
      web:
        service_id: 111
        rootdir: /opt/shop/
        env: {APP_ENV: production, LEVEL: 0644, EMPTY: }
        instances:
          - {id: web-1, host: "local:", rootdir: /srv/web-1, address: "127.0.0.1:8081", provider_id: i-0abc, labels: [label1, zone=a], env: {PORT: 8081, LEVEL: "1"}}
          - id: web-2
            host: "local:"
            address: "[::1]:8082"
        strategy: {type: rolling, concurrency: 50%, failure_threshold: 2, on_failure: rollback}
        load_balancer: {plugin: haproxy, config: {socket: "tcp:127.0.0.1:9999", weight: 10, tls: false}, timeout: 90s}
        scripts:
          ApplicationStop: {command: bin/stop.sh, timeout: 10, runas: root}
          ApplicationStart:
            - {command: bin/start.sh}
            - {command: "bin/warm.sh --all", timeout: 2m}
        appspec: ./deploy/web.yml
        keep_revisions: 3
"#;

    #[test]
    fn limits_of_packages_are_checked() {
        let limits = |limits: &str| {
            check(&format!(
                "packages: {{limits: {{{limits}}}}}\napplications: {{shop: {{groups: {{web: {{instances: [{{id: w, host: 'local:'}}]}}}}}}}}"
            ))
        };
        assert_snapshot!(limits("size: 2G, entries: 0, ratio: many, path: 5000, paths: 1"), @"
        cutover.yaml:1:27: `size`: `2G` is not a size: write a whole number, and `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB` or `TB`, for example `2GiB`
        cutover.yaml:1:40: `entries`: expected a whole number from 1 to 1000000, found number `0`
        cutover.yaml:1:50: `ratio`: expected a whole number from 1 to 4294967295, found text `many`
        cutover.yaml:1:62: `path`: expected a whole number from 1 to 4096, found number `5000`
        cutover.yaml:1:68: unknown key `paths`; expected one of `size`, `entries`, `ratio`, `path`
          hint: did you mean `path`?
        ");
        assert_snapshot!(limits("size: 0"), @"cutover.yaml:1:27: `size`: expected a size of at least 1 byte, such as `2GiB`, found number `0`");
        assert!(limits("size: 500MB, entries: 10, ratio: 50, path: 100").contains("500000000"));
    }

    #[test]
    fn reads_the_whole_shape() {
        assert_snapshot!(check(FULL), @r#"
        Workspace {
            journal: Sqlite(
                ".cutover/journal.db",
            ),
            journal_at: Position {
                line: 2,
                column: 10,
            },
            packages: Packages {
                limits: PackageLimits {
                    size: Some(
                        2147483648,
                    ),
                    entries: Some(
                        5000,
                    ),
                    ratio: None,
                    path: None,
                },
            },
            plugins: [
                Plugin {
                    name: "haproxy",
                    component: "plugins/haproxy.wasm",
                    config: "{\"mirrors\":[]}",
                    grants: Grants {
                        sockets: [
                            "tcp:127.0.0.1:9999",
                            "unix:/run/haproxy.sock",
                        ],
                        http: [
                            "https://api.example.com",
                        ],
                        directories: [
                            Directory {
                                name: "/srv/maps",
                                path: "/srv/maps",
                                access: Read,
                            },
                            Directory {
                                name: "state",
                                path: "var/state",
                                access: Read,
                            },
                            Directory {
                                name: "logs",
                                path: "/var/log",
                                access: ReadWrite,
                            },
                        ],
                        secrets: [
                            Secret {
                                name: "TOKEN",
                                source: Variable(
                                    "TOKEN",
                                ),
                            },
                            Secret {
                                name: "api",
                                source: File(
                                    "/etc/token",
                                ),
                            },
                            Secret {
                                name: "key",
                                source: Variable(
                                    "API_KEY",
                                ),
                            },
                        ],
                        programs: [
                            "nginx",
                        ],
                        commands: [
                            "bin/migrate",
                            "/usr/bin/psql",
                            "*",
                        ],
                        paths: [
                            InstancePath {
                                path: "data",
                                access: Read,
                            },
                            InstancePath {
                                path: "/etc/app",
                                access: ReadWrite,
                            },
                        ],
                    },
                    at: Position {
                        line: 5,
                        column: 3,
                    },
                },
            ],
            groups: [
                Group {
                    reference: GroupRef {
                        application: "shop",
                        group: "web",
                    },
                    service_id: Some(
                        111,
                    ),
                    instances: [
                        Instance {
                            id: "web-1",
                            host: Local,
                            rootdir: "/srv/web-1",
                            address: Some(
                                "127.0.0.1:8081",
                            ),
                            provider_id: Some(
                                "i-0abc",
                            ),
                            labels: [
                                "label1",
                                "zone=a",
                            ],
                            env: {
                                "APP_ENV": "production",
                                "EMPTY": "",
                                "LEVEL": "1",
                                "PORT": "8081",
                            },
                        },
                        Instance {
                            id: "web-2",
                            host: Local,
                            rootdir: "/opt/shop",
                            address: Some(
                                "[::1]:8082",
                            ),
                            provider_id: None,
                            labels: [],
                            env: {
                                "APP_ENV": "production",
                                "EMPTY": "",
                                "LEVEL": "0644",
                            },
                        },
                    ],
                    sides: [],
                    strategy: Rolling,
                    batching: Window(
                        Percent(
                            50,
                        ),
                    ),
                    is_bounded: true,
                    wait_between: 0ns,
                    spread_by: None,
                    failure_threshold: Count(
                        2,
                    ),
                    batch_failure_threshold: None,
                    minimum_healthy: None,
                    gates: [],
                    on_failure: Rollback,
                    balancer: Some(
                        Plugin {
                            plugin: "haproxy",
                            config: "{\"socket\":\"tcp:127.0.0.1:9999\",\"tls\":false,\"weight\":10}",
                            timeout: 90s,
                        },
                    ),
                    router: None,
                    form: Some(
                        {
                            ApplicationStop: [
                                Script {
                                    run: Command(
                                        "bin/stop.sh",
                                    ),
                                    timeout: 10s,
                                    runas: Some(
                                        "root",
                                    ),
                                },
                            ],
                            ApplicationStart: [
                                Script {
                                    run: Command(
                                        "bin/start.sh",
                                    ),
                                    timeout: 10s,
                                    runas: None,
                                },
                                Script {
                                    run: Command(
                                        "bin/warm.sh --all",
                                    ),
                                    timeout: 120s,
                                    runas: None,
                                },
                            ],
                        },
                    ),
                    appspec: Some(
                        "deploy/web.yml",
                    ),
                    build: None,
                    keep_revisions: 3,
                    at: Position {
                        line: 19,
                        column: 7,
                    },
                    balancer_at: Position {
                        line: 29,
                        column: 9,
                    },
                    router_at: Position {
                        line: 19,
                        column: 7,
                    },
                    gates_at: [],
                },
            ],
        }
        "#);
    }

    #[test]
    fn fills_in_defaults() {
        assert_snapshot!(check_settings("load_balancer: {plugin: haproxy}"), @r#"
        Workspace {
            journal: Sqlite(
                ".cutover/journal.db",
            ),
            journal_at: Position {
                line: 1,
                column: 1,
            },
            packages: Packages {
                limits: PackageLimits {
                    size: None,
                    entries: None,
                    ratio: None,
                    path: None,
                },
            },
            plugins: [
                Plugin {
                    name: "haproxy",
                    component: "haproxy",
                    config: "{}",
                    grants: Grants {
                        sockets: [],
                        http: [],
                        directories: [],
                        secrets: [],
                        programs: [],
                        commands: [],
                        paths: [],
                    },
                    at: Position {
                        line: 1,
                        column: 11,
                    },
                },
            ],
            groups: [
                Group {
                    reference: GroupRef {
                        application: "shop",
                        group: "web",
                    },
                    service_id: None,
                    instances: [
                        Instance {
                            id: "web-1",
                            host: Local,
                            rootdir: "/opt/cutover",
                            address: None,
                            provider_id: None,
                            labels: [],
                            env: {},
                        },
                    ],
                    sides: [],
                    strategy: Rolling,
                    batching: Window(
                        Count(
                            1,
                        ),
                    ),
                    is_bounded: false,
                    wait_between: 0ns,
                    spread_by: None,
                    failure_threshold: Count(
                        1,
                    ),
                    batch_failure_threshold: None,
                    minimum_healthy: None,
                    gates: [],
                    on_failure: Stop,
                    balancer: Some(
                        Plugin {
                            plugin: "haproxy",
                            config: "{}",
                            timeout: 300s,
                        },
                    ),
                    router: None,
                    form: None,
                    appspec: None,
                    build: None,
                    keep_revisions: 5,
                    at: Position {
                        line: 5,
                        column: 7,
                    },
                    balancer_at: Position {
                        line: 7,
                        column: 9,
                    },
                    router_at: Position {
                        line: 5,
                        column: 7,
                    },
                    gates_at: [],
                },
            ],
        }
        "#);
    }

    #[test]
    fn reports_unknown_keys_with_a_suggestion() {
        assert_snapshot!(check_settings("strategy: {type: rolling, concurency: 2}\ncolour: red\nload_balancer: {plugn: haproxy}"), @"
        cutover.yaml:7:35: unknown key `concurency`; expected one of `type`, `concurrency`, `batches`, `first_batch`, `remaining_batches`, `wait_between`, `spread_by`, `minimum_healthy`, `failure_threshold`, `batch_failure_threshold`, `on_failure`, `traffic`, `promote`, `bake`, `retire`
          hint: did you mean `concurrency`?
        cutover.yaml:8:9: unknown key `colour`; expected one of `service_id`, `rootdir`, `env`, `ssh`, `instances`, `sides`, `strategy`, `load_balancer`, `traffic`, `gates`, `scripts`, `appspec`, `build`, `keep_revisions`
        cutover.yaml:9:25: unknown key `plugn`; expected one of `plugin`, `config`, `timeout`
          hint: did you mean `plugin`?
        ");
        assert_snapshot!(check("aplications: {}\nversion: 1\n"), @"
        cutover.yaml:1:1: unknown key `aplications`; expected one of `journal`, `packages`, `plugins`, `applications`
          hint: did you mean `applications`?
        cutover.yaml:2:1: unknown key `version`; expected one of `journal`, `packages`, `plugins`, `applications`
        ");
    }

    #[test]
    fn reports_all_problems_of_an_instance_at_once() {
        assert_snapshot!(check_group("instances:\n  - {id: -x, host: local, rootdir: srv, address: web-1, labels: one, env: {1A: x}}\n  - host: ssh://deploy:x@web-2:22\n  - {id: c, host: 'agent:c', address: '::1:80'}\n  - {id: d, host: d.example.com, address: 'd:70000', provider_id: 'i 1', labels: ['a,b', '']}\n  - web-5"), @"
        cutover.yaml:7:18: `id`: `-x` is not a valid name: use at most 64 letters, digits, `-`, `_` and `.`, not starting with `.` or `-`
        cutover.yaml:7:28: `host`: expected `local:` or `ssh://[USER@]HOST[:PORT]`, found text `local`
          hint: did you mean `local:`?
        cutover.yaml:7:44: `rootdir`: expected an absolute path, found text `srv`
          hint: begin the path with `/`, for example `/opt/srv`
        cutover.yaml:7:58: `address`: expected `HOST:PORT` such as `10.0.0.2:8081` or `[::1]:8081`, found text `web-1`
        cutover.yaml:7:73: `labels`: expected a list of labels, found text `one`
          hint: begin each item with `- `, or write `[…]`
        cutover.yaml:7:84: `1A` is not a name of an environment variable
          hint: use letters, digits and `_`, not starting with a digit
        cutover.yaml:8:13: missing key `id`
        cutover.yaml:8:19: `host`: it holds a password
          hint: use a key: passwords are neither kept nor asked for
        cutover.yaml:9:27: the host `agent:c` is not supported by this version of cutover
          hint: use `local:` or `ssh://[USER@]HOST[:PORT]`
        cutover.yaml:9:47: `address`: expected `HOST:PORT` such as `10.0.0.2:8081` or `[::1]:8081`, found text `::1:80`
        cutover.yaml:10:27: `host`: expected `local:` or `ssh://[USER@]HOST[:PORT]`, found text `d.example.com`
          hint: write `ssh://d.example.com`
        cutover.yaml:10:51: `address`: expected `HOST:PORT` such as `10.0.0.2:8081` or `[::1]:8081`, found text `d:70000`
        cutover.yaml:10:75: `provider_id`: expected the provider's name of the instance, such as `i-0123456789abcdef0`, in one word, found text `i 1`
        cutover.yaml:10:91: the label `a,b` contains a comma
        cutover.yaml:10:98: `labels`: expected text, found empty text
        cutover.yaml:11:13: `instances`: expected a mapping with the keys `id`, `host`, `ssh`, `rootdir`, `address`, `provider_id`, `labels`, `env`, found text `web-5`
        ");
    }

    #[test]
    fn refuses_the_same_place_or_name_twice() {
        assert_snapshot!(check_group("instances:\n  - {id: a, host: 'local:', rootdir: /srv/a}\n  - {id: a, host: 'local:', rootdir: /srv/b}\n  - {id: c, host: 'local:', rootdir: /srv/a/}"), @"
        cutover.yaml:8:13: the instance `a` is given twice, first on line 7
        cutover.yaml:9:13: `a` and `c` share the rootdir `/srv/a` on one host
          hint: give each instance a `rootdir` of its own
        ");
        assert_snapshot!(check("applications:\n  a:\n    groups:\n      x: {service_id: 7, instances: [{id: i, host: 'local:'}]}\n      y: {service_id: 7, instances: [{id: i, host: 'local:'}]}\n"), @"cutover.yaml:5:23: the `service_id` 7 belongs to the group `x` on line 4");
    }

    #[test]
    fn requires_instances() {
        assert_snapshot!(check_group("service_id: 1"), @"cutover.yaml:6:9: missing key `instances`");
        assert_snapshot!(check_group("instances: []"), @"cutover.yaml:6:20: a group needs at least one instance");
        assert_snapshot!(check_group("instances: web-1"), @"
        cutover.yaml:6:20: `instances`: expected a list of instances, found text `web-1`
          hint: begin each item with `- `, or write `[…]`
        ");
        assert_snapshot!(check("applications: {shop: {groups: {}}}\n"), @"cutover.yaml:1:31: `groups` is empty");
        assert_snapshot!(check("applications:\n"), @"cutover.yaml:1:1: `applications` has no value");
    }

    #[test]
    fn checks_the_strategy() {
        assert_snapshot!(check_settings("strategy: {type: roling, concurrency: 0, failure_threshold: 101%, on_failure: rolback}"), @"
        cutover.yaml:7:26: `type`: expected one of `rolling`, `blue-green`, `canary`, found text `roling`
          hint: did you mean `rolling`?
        cutover.yaml:7:47: `concurrency`: expected a number of instances such as `2`, or a share from `1%` to `100%`, found number `0`
        cutover.yaml:7:69: `failure_threshold`: expected a number of instances such as `2`, or a share from `1%` to `100%`, found text `101%`
        cutover.yaml:7:87: `on_failure`: expected one of `stop`, `rollback`, found text `rolback`
          hint: did you mean `rollback`?
        ");
        assert_snapshot!(check_settings("strategy: rolling"), @"cutover.yaml:7:19: `strategy`: expected a mapping with the keys `type`, `concurrency`, `batches`, `first_batch`, `remaining_batches`, `wait_between`, `spread_by`, `minimum_healthy`, `failure_threshold`, `batch_failure_threshold`, `on_failure`, `traffic`, `promote`, `bake`, `retire`, found text `rolling`");
    }

    #[test]
    fn checks_the_load_balancer() {
        assert_snapshot!(check_settings("load_balancer: {plugin: haprxy, config: [], timeout: 300}"), @"
        cutover.yaml:7:33: the plugin `haprxy` is not declared; `plugins` has `haproxy`
          hint: did you mean `haproxy`?
        cutover.yaml:7:49: `config`: expected a mapping, found a list
        cutover.yaml:7:62: `timeout`: expected a duration such as `30s`, `5m` or `1h`, found number `300`
          hint: write `300s`
        ");
        assert_snapshot!(check_settings("load_balancer: {plugin: haproxy, config: {x: .inf}, timeout: 0s}"), @"
        cutover.yaml:7:54: the number `.inf` cannot be passed on as JSON
        cutover.yaml:7:70: `timeout` must be longer than nothing
        ");
    }

    #[test]
    fn checks_the_form() {
        assert_snapshot!(check_settings("scripts:\n  ApplicationStp: {command: x}\n  Install: {command: x}\n  ApplicationStart: bin/start.sh\n  ValidateService: [{comand: x}, {command: '', timeout: 0}]\n  AfterInstall:"), @"
        cutover.yaml:8:11: unknown lifecycle event `ApplicationStp`; expected one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
          hint: did you mean `ApplicationStop`?
        cutover.yaml:9:11: `Install` takes no scripts: cutover does that step itself
          hint: use one of `BeforeBlockTraffic`, `AfterBlockTraffic`, `ApplicationStop`, `BeforeInstall`, `AfterInstall`, `ApplicationStart`, `ValidateService`, `BeforeAllowTraffic`, `AfterAllowTraffic`
        cutover.yaml:10:29: `ApplicationStart`: expected a script such as `{command: bin/start.sh}`, or a list of them, found text `bin/start.sh`
        cutover.yaml:11:30: unknown key `comand`; expected one of `command`, `timeout`, `runas`
          hint: did you mean `command`?
        cutover.yaml:11:52: `command`: expected text, found empty text
        cutover.yaml:11:65: `timeout` must be longer than nothing
        ");
    }

    #[test]
    fn checks_plugins_and_the_journal() {
        assert_snapshot!(check("journal: my.db\nplugins:\n  .p: {component: x}\n  q:\n    grants: {sockets: ['127.0.0.1:1'], http: [example.com], directories: [{path: x, acces: read}, {a: b, c: d}], secrets: [{a: vault:x}, no-name, [x]], programs: x}\napplications: {a: {groups: {g: {instances: [{id: i, host: 'local:'}]}}}}\n"), @"
        cutover.yaml:1:10: `journal`: expected `sqlite:PATH` or `postgres://…`, found text `my.db`
          hint: write `sqlite:my.db`
        cutover.yaml:3:3: `.p` is not a valid name: use at most 64 letters, digits, `-`, `_` and `.`, not starting with `.` or `-`
        cutover.yaml:5:5: missing key `component`
        cutover.yaml:5:24: `sockets`: expected `tcp:HOST:PORT` or `unix:/PATH`, found text `127.0.0.1:1`
        cutover.yaml:5:47: `http`: expected an origin such as `https://api.example.com`, found text `example.com`
        cutover.yaml:5:85: unknown key `acces`; expected one of `name`, `path`, `access`
          hint: did you mean `access`?
        cutover.yaml:5:99: missing key `path`
        cutover.yaml:5:100: unknown key `a`; expected one of `name`, `path`, `access`
        cutover.yaml:5:106: unknown key `c`; expected one of `name`, `path`, `access`
        cutover.yaml:5:128: `a`: expected `env:VARIABLE` or `file:PATH`, found text `vault:x`
        cutover.yaml:5:138: `no-name` is not a name of an environment variable
          hint: write `no-name: env:VARIABLE`
        cutover.yaml:5:147: `secrets`: expected `NAME`, `NAME: env:VARIABLE` or `NAME: file:PATH`, found a list
        cutover.yaml:5:163: `programs`: expected a list of programs, found text `x`
          hint: begin each item with `- `, or write `[…]`
        ");
    }

    #[test]
    fn checks_what_plugins_may_do_on_instances() {
        assert_snapshot!(check("plugins:\n  p:\n    component: x\n    grants:\n      commands: [../x, '', a//b, {name: x}]\n      paths: ['', ../x, a/, {path: /a/./b}, {pth: x}, {path: x, access: write}]\napplications: {a: {groups: {g: {instances: [{id: i, host: 'local:'}]}}}}\n"), @"
        cutover.yaml:5:18: `commands`: expected a name, an absolute path, or the path of a file in the package, found text `../x`
        cutover.yaml:5:24: `commands`: expected text, found empty text
        cutover.yaml:5:28: `commands`: expected a name, an absolute path, or the path of a file in the package, found text `a//b`
        cutover.yaml:5:34: `commands`: expected text, found a mapping
        cutover.yaml:6:15: `paths`: expected text, found empty text
        cutover.yaml:6:19: `paths`: expected an absolute path or one below the instance's `rootdir`, without `..`, found text `../x`
        cutover.yaml:6:25: `paths`: expected an absolute path or one below the instance's `rootdir`, without `..`, found text `a/`
        cutover.yaml:6:36: `path`: expected an absolute path or one below the instance's `rootdir`, without `..`, found text `/a/./b`
        cutover.yaml:6:46: unknown key `pth`; expected one of `path`, `access`
          hint: did you mean `path`?
        cutover.yaml:6:73: `access`: expected one of `read`, `read-write`, found text `write`
        ");
    }

    #[test]
    fn names_the_known_groups_when_one_is_unknown() {
        let workspace = parse(FULL, Path::new("cutover.yaml")).unwrap().value;

        let error = workspace.group(&"shop/wbe".parse().unwrap()).unwrap_err();

        assert_eq!(error.to_string(), "the workspace has no group `shop/wbe`");
        assert_eq!(error.suggestion, Some("shop/web".parse().unwrap()));
        assert_eq!(error.known, ["shop/web".parse().unwrap()]);
        assert!(workspace.group(&"shop/web".parse().unwrap()).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics_and_points_into_the_file(cut in 0..FULL.len(), length in 0..40usize, junk in "(?s).{0,20}") {
            let (start, end) = (cut, (cut + length).min(FULL.len()));
            let text = format!("{}{junk}{}", &FULL[..start], &FULL[end..]);

            if let Err(problems) = parse(&text, Path::new("f")) {
                prop_assert!(problems.has_errors());
                for problem in problems {
                    prop_assert!((1..=text.split(['\n', '\r']).count()).contains(&problem.line), "{}", problem);
                }
            }
        }
    }
}
