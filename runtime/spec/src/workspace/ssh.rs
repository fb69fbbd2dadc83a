//! How hosts are reached over SSH: the group's settings, and an instance's over them.

use std::time::Duration;

use model::SshSettings;

use super::instance;
use crate::fields::{BareNumber, Field, Shape};
use crate::problem::Collector;

pub(super) static SSH: Shape = Shape {
    name: "ssh",
    keys: &["connect_timeout", "retries", "sudo", "agent_dir"],
    aliases: &[],
};

/// The SSH client counts in whole seconds.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// Reads settings; what is left out is as inherited.
pub(super) fn parse(
    field: Option<Field<'_>>,
    inherited: &SshSettings,
    problems: &mut Collector,
) -> SshSettings {
    let mut settings = inherited.clone();
    let Some(fields) = field.and_then(|field| field.fields(&SSH, problems)) else {
        return settings;
    };
    if let Some(field) = fields.get("connect_timeout")
        && let Some(timeout) = field.duration(BareNumber::Refused, problems)
    {
        if (SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(&timeout) {
            settings.connect_timeout = timeout;
        } else {
            field.mismatch("a duration from `1s` to `10m`", problems);
        }
    }
    if let Some(retries) = fields
        .get("retries")
        .and_then(|field| field.number(0..=100, problems))
    {
        settings.retries = u32::try_from(retries).unwrap_or(u32::MAX);
    }
    if let Some(sudo) = fields.get("sudo").and_then(|field| field.boolean(problems)) {
        settings.sudo = sudo;
    }
    if let Some(folder) = fields
        .get("agent_dir")
        .and_then(|field| instance::rootdir(field, problems))
    {
        settings.agent_dir = Some(folder);
    }
    settings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use insta::assert_snapshot;

    use crate::workspace;

    /// The hosts of the instances of a group that has these lines, or all problems with their hints.
    fn check(lines: &str) -> String {
        let indented: String = lines
            .lines()
            .map(|line| format!("        {line}\n"))
            .collect();
        let text = format!("applications:\n  shop:\n    groups:\n      web:\n{indented}");
        match workspace::parse(&text, Path::new("cutover.yaml")) {
            Ok(parsed) => parsed.value.groups[0]
                .instances
                .iter()
                .map(|instance| format!("{:?}\n", instance.host))
                .collect(),
            Err(problems) => problems
                .iter()
                .map(|problem| format!("{problem:#}\n"))
                .collect(),
        }
    }

    #[test]
    fn an_instance_has_its_groups_settings_with_its_own_over_them() {
        assert_snapshot!(check("ssh: {connect_timeout: 5s, sudo: true}\ninstances:\n  - {id: a, host: 'ssh://deploy@web-1:2222'}\n  - {id: b, host: 'ssh://web-2', ssh: {sudo: false, retries: 0, agent_dir: /opt/agents/}}\n  - {id: c, host: 'local:'}"), @r#"
        Ssh(Ssh { address: SshAddress { user: Some("deploy"), host: "web-1", port: Some(2222) }, settings: SshSettings { connect_timeout: 5s, retries: 3, sudo: true, agent_dir: None } })
        Ssh(Ssh { address: SshAddress { user: None, host: "web-2", port: None }, settings: SshSettings { connect_timeout: 5s, retries: 0, sudo: false, agent_dir: Some("/opt/agents") } })
        Local
        "#);
    }

    #[test]
    fn reports_all_problems_of_the_settings_at_once() {
        assert_snapshot!(check("ssh: {connect_timout: 5s, retries: -1, sudo: maybe}\ninstances:\n  - {id: a, host: 'ssh://web-1', ssh: {connect_timeout: 10, agent_dir: agents}}\n  - {id: b, host: 'local:', ssh: {connect_timeout: 1h}}\n  - {id: c, host: 'ssh://web-1:0'}\n  - {id: d, host: 'ssh://fe80::1', ssh: 3}"), @"
        cutover.yaml:5:15: unknown key `connect_timout`; expected one of `connect_timeout`, `retries`, `sudo`, `agent_dir`
          hint: did you mean `connect_timeout`?
        cutover.yaml:5:44: `retries`: expected a whole number from 0 to 100, found number `-1`
        cutover.yaml:5:54: `sudo`: expected `true` or `false`, found text `maybe`
        cutover.yaml:7:65: `connect_timeout`: expected a duration such as `30s`, `5m` or `1h`, found number `10`
          hint: write `10s`
        cutover.yaml:7:80: `agent_dir`: expected an absolute path, found text `agents`
          hint: begin the path with `/`, for example `/opt/agents`
        cutover.yaml:8:37: `ssh` is for hosts that are reached over SSH, and this is `local:`
        cutover.yaml:8:60: `connect_timeout`: expected a duration from `1s` to `10m`, found text `1h`
        cutover.yaml:9:27: `host`: `ssh://web-1:0` is not an address: `0` is not a port from 1 to 65535
          hint: write `ssh://USER@HOST:PORT`; user and port may be left out
        cutover.yaml:10:27: `host`: `ssh://fe80::1` is not an address: `fe80::1` is an IPv6 address without brackets
          hint: write `ssh://[fe80::1]`
        cutover.yaml:10:49: `ssh`: expected a mapping with the keys `connect_timeout`, `retries`, `sudo`, `agent_dir`, found number `3`
        ");
    }

    #[test]
    fn two_instances_of_one_host_need_different_folders_whatever_their_settings() {
        assert_snapshot!(check("instances:\n  - {id: a, host: 'ssh://web-1'}\n  - {id: b, host: 'ssh://web-1', ssh: {sudo: true}}"), @"
        cutover.yaml:7:13: `a` and `b` share the rootdir `/opt/cutover` on one host
          hint: give each instance a `rootdir` of its own
        ");
    }
}
