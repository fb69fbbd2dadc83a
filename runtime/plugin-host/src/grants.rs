//! Grants: what the operator allows a plugin. Two keys open a capability: the plugin's manifest declares a pattern
//! that covers it, and the operator's grant covers it. Everything here is pure; the host functions ask and obey.

use std::fmt;
use std::path::PathBuf;

use model::PluginName;

use crate::address::Reach;
use crate::failure::{Failure, FailureClass, code};
use crate::manifest::{self, Access, Manifest};
use crate::pattern::{Capability, Error, Pattern};

/// What the operator allows one plugin, as `cutover.yaml` says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// `tcp:HOST:PORT` or `unix:/PATH`.
    pub sockets: Vec<String>,
    /// `https://HOST[:PORT]`, `*.` as the leading label for every host below a domain.
    pub http: Vec<String>,
    pub directories: Vec<DirectoryGrant>,
    /// Names of secrets.
    pub secrets: Vec<String>,
    /// Absolute paths, or names found on the search path.
    pub programs: Vec<String>,
    /// Programs on instances: names, absolute paths, or paths in the package.
    pub commands: Vec<String>,
    /// Files and folders on instances.
    pub paths: Vec<PathGrant>,
}

/// A file or folder on instances, with all that is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGrant {
    /// Absolute, or below the instance's `rootdir`.
    pub path: String,
    pub access: Access,
}

/// A directory under the name that the plugin knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryGrant {
    pub name: String,
    pub path: PathBuf,
    pub access: Access,
}

/// A difference between what a manifest asks for and what the operator grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The grant has no effect: the manifest never asks for it.
    NeverAsked(Capability),
    /// Nothing that the manifest asks for here is granted.
    NotGranted {
        capability: Capability,
        reason: String,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverAsked(capability) => {
                write!(
                    f,
                    "{capability} is granted, but the plugin's manifest never asks for it"
                )
            }
            Self::NotGranted { capability, reason } if reason.is_empty() => {
                write!(f, "{capability} is asked for, but not granted")
            }
            Self::NotGranted { capability, reason } => {
                write!(
                    f,
                    "{capability} is asked for, but not granted; it is for: {reason}"
                )
            }
        }
    }
}

impl Grants {
    /// Finds grants that the manifest never asks for, and capabilities that it asks for and does not get.
    /// Patterns that cannot be read count for nothing here; loading the plugin refuses them.
    #[must_use]
    pub fn check_declared(&self, manifest: &Manifest) -> Vec<Mismatch> {
        let declared = Declared::of(manifest);
        let granted = self.capabilities();
        let mut mismatches: Vec<Mismatch> = granted
            .iter()
            .filter(|grant| !declared.iter().any(|ask| overlaps(&ask.capability, grant)))
            .cloned()
            .map(Mismatch::NeverAsked)
            .collect();
        for Declared {
            capability,
            reason,
            is_optional,
        } in declared
        {
            if !is_optional && !granted.iter().any(|grant| overlaps(&capability, grant)) {
                mismatches.push(Mismatch::NotGranted { capability, reason });
            }
        }
        mismatches
    }

    fn capabilities(&self) -> Vec<Capability> {
        let sockets = self.sockets.iter().cloned().map(Capability::Socket);
        let http = self.http.iter().cloned().map(Capability::Http);
        let directories = self.directories.iter().map(|grant| Capability::Directory {
            name: grant.name.clone(),
            access: grant.access,
        });
        let secrets = self.secrets.iter().cloned().map(Capability::Secret);
        let programs = self.programs.iter().cloned().map(Capability::Program);
        let commands = self.commands.iter().cloned().map(Capability::Command);
        let paths = self.paths.iter().map(|grant| Capability::Path {
            path: grant.path.clone(),
            access: grant.access,
        });
        sockets
            .chain(http)
            .chain(directories)
            .chain(secrets)
            .chain(programs)
            .chain(commands)
            .chain(paths)
            .collect()
    }
}

/// One thing that a manifest asks for.
struct Declared {
    capability: Capability,
    reason: String,
    /// Whether the plugin does without it.
    is_optional: bool,
}

impl Declared {
    fn of(manifest: &Manifest) -> Vec<Self> {
        let asked = &manifest.capabilities;
        let declared = |capability, reason: &str, is_optional| Self {
            capability,
            reason: reason.to_owned(),
            is_optional,
        };
        let sockets = asked
            .sockets
            .iter()
            .map(|s| declared(Capability::Socket(s.address.clone()), &s.reason, s.optional));
        let http = asked
            .http
            .iter()
            .map(|h| declared(Capability::Http(h.host.clone()), &h.reason, h.optional));
        let directories = asked
            .directories
            .iter()
            .map(|d| declared(directory(d), &d.reason, d.optional));
        let secrets = asked
            .secrets
            .iter()
            .map(|s| declared(Capability::Secret(s.name.clone()), &s.reason, s.optional));
        let programs = asked
            .programs
            .iter()
            .map(|p| declared(Capability::Program(p.name.clone()), &p.reason, p.optional));
        let commands = asked
            .commands
            .iter()
            .map(|c| declared(Capability::Command(c.name.clone()), &c.reason, c.optional));
        let paths = asked.paths.iter().map(|p| {
            let capability = Capability::Path {
                path: p.path.clone(),
                access: p.access,
            };
            declared(capability, &p.reason, p.optional)
        });
        sockets
            .chain(http)
            .chain(directories)
            .chain(secrets)
            .chain(programs)
            .chain(commands)
            .chain(paths)
            .collect()
    }
}

fn directory(declared: &manifest::Directory) -> Capability {
    Capability::Directory {
        name: declared.name.clone(),
        access: declared.access,
    }
}

/// Whether one of two capabilities covers the other, so that a use of both can exist.
fn overlaps(a: &Capability, b: &Capability) -> bool {
    match (Pattern::parse(a), Pattern::parse(b)) {
        (Ok(a), Ok(b)) => a.covers_target_of(&b) || b.covers_target_of(&a),
        _ => false,
    }
}

/// Both keys of one plugin, ready to be asked.
#[derive(Debug)]
pub(crate) struct Permissions {
    plugin: PluginName,
    declared: Vec<Pattern>,
    granted: Vec<Pattern>,
}

impl Permissions {
    pub(crate) fn new(
        plugin: PluginName,
        manifest: Option<&Manifest>,
        grants: &Grants,
    ) -> Result<Self, Error> {
        let declared = manifest.map(Declared::of).unwrap_or_default();
        let declared = declared
            .iter()
            .map(|declared| Pattern::parse(&declared.capability))
            .collect::<Result<_, _>>()?;
        let granted = grants
            .capabilities()
            .iter()
            .map(Pattern::parse)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            plugin,
            declared,
            granted,
        })
    }

    /// Allows one use, or tells why not and what would allow it.
    pub(crate) fn check(&self, capability: &Capability) -> Result<(), Failure> {
        let plugin = &self.plugin;
        let wanted = match Pattern::parse(capability) {
            Ok(wanted) if wanted.is_exact() => wanted,
            Err(error @ (Error::Command { .. } | Error::Path { .. })) => {
                let message = format!("plugin `{plugin}` asked for {capability}: {error}");
                return Err(Failure::host(FailureClass::Invalid, code::INVALID, message));
            }
            _ => {
                let message = format!(
                    "plugin `{plugin}` asked for {capability}, which is not one exact thing"
                );
                return Err(Failure::host(FailureClass::Invalid, code::INVALID, message));
            }
        };
        if !self.declared.iter().any(|pattern| pattern.covers(&wanted)) {
            let message = format!(
                "plugin `{plugin}` may not use {capability}: its manifest does not declare it"
            );
            let hint =
                format!("take a version of plugin `{plugin}` whose manifest declares {capability}");
            return Err(Failure::host(FailureClass::Denied, code::DENIED, message).with_hint(hint));
        }
        if !self.granted.iter().any(|pattern| pattern.covers(&wanted)) {
            let message = format!("plugin `{plugin}` may not use {capability}: it is not granted");
            let hint = capability.grant_line(plugin);
            return Err(Failure::host(FailureClass::Denied, code::DENIED, message).with_hint(hint));
        }
        Ok(())
    }

    /// The granted folder that a path on instances is below, and the rest of the path. Of several the one that is
    /// nearest to it.
    pub(crate) fn folder_and_rest(&self, path: &Capability) -> Option<(String, String)> {
        let wanted = Pattern::parse(path).ok()?;
        let mut found = self.granted.iter();
        let found = found
            .by_ref()
            .filter_map(|pattern| pattern.folder_and_rest(&wanted));
        found.min_by_key(|(_, rest)| rest.len())
    }

    /// How far a request to a granted host may go: into private networks only where a grant names the host itself.
    pub(crate) fn reach(&self, host: &Capability) -> Reach {
        let is_named = Pattern::parse(host).is_ok_and(|wanted| {
            let mut granted = self.granted.iter();
            granted.any(|pattern| pattern.names_host() && pattern.covers(&wanted))
        });
        if is_named {
            Reach::Private
        } else {
            Reach::Public
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::http_host;

    fn manifest(capabilities: &str) -> Manifest {
        Manifest::parse(
            format!(r#"{{"name":"p","version":"1","capabilities":{capabilities}}}"#).as_bytes(),
        )
        .unwrap()
    }

    fn name() -> PluginName {
        PluginName::parse("haproxy").unwrap()
    }

    fn sockets(declared: &str, granted: &str) -> Permissions {
        let manifest = manifest(&format!(r#"{{"sockets":[{{"address":"{declared}"}}]}}"#));
        let grants = Grants {
            sockets: vec![granted.to_owned()],
            ..Grants::default()
        };
        Permissions::new(name(), Some(&manifest), &grants).unwrap()
    }

    fn hosts(declared: &str, granted: &str) -> Permissions {
        let manifest = manifest(&format!(r#"{{"http":[{{"host":"{declared}"}}]}}"#));
        let grants = Grants {
            http: vec![granted.to_owned()],
            ..Grants::default()
        };
        Permissions::new(name(), Some(&manifest), &grants).unwrap()
    }

    #[test]
    fn what_a_plugin_does_without_need_not_be_granted() {
        for asked in [
            r#""sockets":[{"address":"tcp:*""#,
            r#""http":[{"host":"https://*""#,
            r#""directories":[{"name":"*","access":"read-write""#,
            r#""secrets":[{"name":"*""#,
            r#""programs":[{"name":"git""#,
            r#""commands":[{"name":"bin/migrate""#,
            r#""paths":[{"path":"data""#,
        ] {
            let mismatches = |optional: &str| {
                let manifest = manifest(&format!("{{{asked}{optional}}}]}}"));
                Grants::default().check_declared(&manifest).len()
            };

            assert_eq!(mismatches(""), 1, "{asked}");
            assert_eq!(mismatches(r#","optional":true"#), 0, "{asked}");
        }
    }

    #[test]
    fn a_socket_needs_both_keys() {
        for (declared, granted, wanted, is_allowed) in [
            ("tcp:*", "tcp:127.0.0.1:9999", "tcp:127.0.0.1:9999", true),
            ("tcp:*", "tcp:127.0.0.1:9999", "tcp:127.0.0.1:9998", false),
            ("tcp:*", "tcp:127.0.0.1:9999", "tcp:127.0.0.2:9999", false),
            (
                "tcp:*",
                "tcp:LB.example.com:80",
                "tcp:lb.example.com:80",
                true,
            ),
            (
                "tcp:*",
                "tcp:*.example.com:80",
                "tcp:lb.example.com:80",
                true,
            ),
            ("tcp:*", "tcp:*.example.com:80", "tcp:example.com:80", false),
            (
                "tcp:*",
                "tcp:*.example.com:80",
                "tcp:evilexample.com:80",
                false,
            ),
            ("tcp:*", "tcp:[::1]:80", "tcp:[0:0:0:0:0:0:0:1]:80", true),
            (
                "tcp:*",
                "tcp:127.0.0.1:80",
                "tcp:[::ffff:127.0.0.1]:80",
                true,
            ),
            ("tcp:*:9999", "tcp:*", "tcp:10.0.0.1:9999", true),
            ("tcp:*:9999", "tcp:*", "tcp:10.0.0.1:22", false),
            ("tcp:127.0.0.1:1", "tcp:*", "tcp:127.0.0.1:2", false),
            ("tcp:*", "tcp:*", "unix:/run/a.sock", false),
            ("unix:*", "unix:/run/a.sock", "unix:/run/a.sock", true),
            ("unix:*", "unix:/run/a.sock", "unix:/run/b.sock", false),
            ("unix:*", "unix:*", "unix:/run/../etc/x", false),
            ("tcp:*", "tcp:*", "tcp:*:80", false),
            ("tcp:*", "tcp:*", "tcp:host:+80", false),
            ("tcp:*", "tcp:*", "127.0.0.1:80", false),
        ] {
            let outcome = sockets(declared, granted).check(&Capability::Socket(wanted.to_owned()));

            assert_eq!(
                outcome.is_ok(),
                is_allowed,
                "{declared} + {granted} -> {wanted}: {outcome:?}"
            );
        }
    }

    #[test]
    fn an_http_host_needs_both_keys() {
        for (declared, granted, url, is_allowed) in [
            (
                "https://*",
                "https://repo.example.com",
                "https://repo.example.com/a/b.tgz",
                true,
            ),
            (
                "https://*",
                "https://repo.example.com",
                "https://repo.example.com:443/a",
                true,
            ),
            (
                "https://*",
                "https://repo.example.com",
                "https://repo.example.com:8443/a",
                false,
            ),
            (
                "https://*",
                "https://repo.example.com:8443",
                "https://repo.example.com:8443/a",
                true,
            ),
            (
                "https://*",
                "https://repo.example.com",
                "http://repo.example.com/a",
                false,
            ),
            (
                "https://*",
                "https://*.example.com",
                "https://a.b.example.com/",
                true,
            ),
            (
                "https://*",
                "https://*.example.com",
                "https://example.com/",
                false,
            ),
            (
                "https://*",
                "https://repo.example.com",
                "https://repo.example.com@evil.com/",
                false,
            ),
            (
                "https://*",
                "https://repo.example.com",
                "https://repo.example.com.evil.com/",
                false,
            ),
            ("https://*.a.com", "https://*", "https://x.b.com/", false),
            (
                "http://*",
                "http://[::1]:8080",
                "http://[::1]:8080/x?y#z",
                true,
            ),
        ] {
            let outcome = http_host(url).map(|host| hosts(declared, granted).check(&host));

            assert_eq!(
                matches!(outcome, Some(Ok(()))),
                is_allowed,
                "{declared} + {granted} -> {url}: {outcome:?}"
            );
        }
    }

    #[test]
    fn only_a_grant_that_names_the_host_reaches_into_private_networks() {
        for (granted, url, expected) in [
            (
                "http://10.0.0.1:8080",
                "http://10.0.0.1:8080/",
                Reach::Private,
            ),
            (
                "http://pools.example:*",
                "http://pools.example:81/",
                Reach::Private,
            ),
            ("http://*", "http://10.0.0.1:8080/", Reach::Public),
            ("http://*.example", "http://pools.example/", Reach::Public),
            (
                "http://other.example",
                "http://pools.example/",
                Reach::Public,
            ),
            (
                "https://pools.example",
                "http://pools.example/",
                Reach::Public,
            ),
        ] {
            let host = http_host(url).unwrap();

            assert_eq!(
                hosts("http://*", granted).reach(&host),
                expected,
                "{granted} {url}"
            );
        }
    }

    #[test]
    fn a_command_on_instances_needs_both_keys() {
        for (declared, granted, wanted, is_allowed) in [
            ("*", "bin/migrate", "bin/migrate", true),
            ("bin/migrate", "*", "bin/migrate", true),
            ("*", "bin/migrate", "bin/other", false),
            ("bin/migrate", "*", "migrate", false),
            ("*", "psql", "/usr/bin/psql", false),
            ("*", "*", "../psql", false),
            ("*", "*", "*", false),
        ] {
            let text = format!(r#"{{"commands":[{{"name":"{declared}"}}]}}"#);
            let grants = Grants {
                commands: vec![granted.to_owned()],
                ..Grants::default()
            };
            let permissions = Permissions::new(name(), Some(&manifest(&text)), &grants).unwrap();

            let outcome = permissions.check(&Capability::Command(wanted.to_owned()));

            assert_eq!(
                outcome.is_ok(),
                is_allowed,
                "{declared} + {granted} -> {wanted}: {outcome:?}"
            );
        }
    }

    #[test]
    fn a_path_on_instances_needs_both_keys_and_is_below_the_nearest_grant() {
        let declared = manifest(r#"{"paths":[{"path":"*","access":"read-write"}]}"#);
        let grant = |path: &str, access| PathGrant {
            path: path.to_owned(),
            access,
        };
        let grants = Grants {
            paths: vec![
                grant("data", Access::ReadWrite),
                grant("data/in/deep", Access::Read),
                grant("/etc/app", Access::Read),
            ],
            ..Grants::default()
        };
        let permissions = Permissions::new(name(), Some(&declared), &grants).unwrap();
        let wanted = |path: &str, access| Capability::Path {
            path: path.to_owned(),
            access,
        };
        let write = Access::ReadWrite;
        for (path, access, is_allowed) in [
            ("data", Access::Read, true),
            ("data/a/b", write, true),
            ("data/in/deep/x", write, true),
            ("database", Access::Read, false),
            ("/data", Access::Read, false),
            (".", Access::Read, false),
            ("/etc/app/x", Access::Read, true),
            ("/etc/app/x", write, false),
            ("etc/app/x", Access::Read, false),
            ("data/../etc", Access::Read, false),
            ("*", Access::Read, false),
        ] {
            let outcome = permissions.check(&wanted(path, access));
            assert_eq!(outcome.is_ok(), is_allowed, "{path}: {outcome:?}");
        }
        let spot = |path: &str, access| permissions.folder_and_rest(&wanted(path, access));
        let pair = |folder: &str, rest: &str| Some((folder.to_owned(), rest.to_owned()));
        assert_eq!(spot("data/a/b", write), pair("data", "a/b"));
        assert_eq!(spot("data", write), pair("data", ""));
        assert_eq!(
            spot("data/in/deep/x", Access::Read),
            pair("data/in/deep", "x")
        );
        assert_eq!(spot("data/in/deep/x", write), pair("data", "in/deep/x"));
        assert_eq!(spot("/etc/app/x", Access::Read), pair("/etc/app", "x"));
    }

    #[test]
    fn a_denied_path_prints_the_line_that_grants_it() {
        let manifest = manifest(r#"{"paths":[{"path":"*","access":"read-write"}]}"#);
        let permissions = Permissions::new(name(), Some(&manifest), &Grants::default()).unwrap();

        let denial = permissions
            .check(&Capability::Path {
                path: "data/x".to_owned(),
                access: Access::ReadWrite,
            })
            .unwrap_err();

        assert_eq!(
            denial.hint.unwrap(),
            r#"plugins.haproxy.grants.paths: [{path: "data/x", access: read-write}]"#
        );
    }

    #[test]
    fn a_denial_names_plugin_and_capability_and_prints_the_line_that_grants_it() {
        let denial = sockets("tcp:*", "tcp:10.0.0.1:1")
            .check(&Capability::Socket("tcp:127.0.0.1:9999".to_owned()))
            .unwrap_err();

        assert_eq!(denial.class, FailureClass::Denied);
        assert_eq!(
            denial.message,
            "plugin `haproxy` may not use socket `tcp:127.0.0.1:9999`: it is not granted"
        );
        assert_eq!(
            denial.hint.unwrap(),
            r#"plugins.haproxy.grants.sockets: ["tcp:127.0.0.1:9999"]"#
        );
    }

    #[test]
    fn a_plugin_without_a_manifest_can_do_nothing() {
        let grants = Grants {
            sockets: vec!["tcp:*".to_owned()],
            ..Grants::default()
        };
        let permissions = Permissions::new(name(), None, &grants).unwrap();

        let denial = permissions
            .check(&Capability::Socket("tcp:127.0.0.1:1".to_owned()))
            .unwrap_err();

        assert!(
            denial.message.contains("its manifest does not declare it"),
            "{denial:?}"
        );
    }

    #[test]
    fn a_directory_is_granted_with_its_access() {
        let manifest = manifest(r#"{"directories":[{"name":"*","access":"read-write"}]}"#);
        let grant = DirectoryGrant {
            name: "conf".to_owned(),
            path: "/etc/x".into(),
            access: Access::Read,
        };
        let grants = Grants {
            directories: vec![grant],
            ..Grants::default()
        };
        let permissions = Permissions::new(name(), Some(&manifest), &grants).unwrap();
        let wanted = |access| Capability::Directory {
            name: "conf".to_owned(),
            access,
        };

        assert!(permissions.check(&wanted(Access::Read)).is_ok());
        assert!(permissions.check(&wanted(Access::ReadWrite)).is_err());
    }

    #[test]
    fn grants_and_manifest_are_compared_both_ways() {
        let manifest = manifest(
            r#"{"sockets":[{"address":"tcp:*","reason":"control"}],"secrets":[{"name":"token","reason":"login"}]}"#,
        );
        let grants = Grants {
            sockets: vec!["tcp:127.0.0.1:9999".to_owned()],
            programs: vec!["git".to_owned()],
            ..Grants::default()
        };

        let mismatches = grants.check_declared(&manifest);

        assert_eq!(
            mismatches,
            [
                Mismatch::NeverAsked(Capability::Program("git".to_owned())),
                Mismatch::NotGranted {
                    capability: Capability::Secret("token".to_owned()),
                    reason: "login".to_owned()
                },
            ]
        );
    }
}
