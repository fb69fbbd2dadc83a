//! The first words with a host: a script that finds the agent there, takes it in when it is missing, and becomes it.
//!
//! It runs as the command of the connection's first session, so that connecting, looking and starting are one round trip.
//! What it needs to know comes in on stdin; what it says begins with `cutover: `, for a login shell's own start-up files
//! may print anything before:
//!
//! ```text
//! < MACHINE DIGEST BYTES           one line for each agent that there is, then an empty line
//! < FOLDER                         where agents are kept, or an empty line
//! < sudo                           or an empty line
//! < WORD                           by which an agent knows the one that it succeeds
//! > cutover: missing MACHINE       then BYTES bytes come in
//! > cutover: ready PATH            the rest is the agent's
//! > cutover: fail WHAT MORE        and that is the end
//! ```

use std::sync::Arc;

use model::Ssh;

use super::agents::AgentFile;
use super::trouble::Trouble;

/// INVARIANT: no single quote, no backslash, no exclamation mark and no line feed, so that every login shell hands it to
/// `sh` as it is. Names that the host chooses reach it only as values of quoted variables.
const SCRIPT: &str = concat!(
    // Unquoted, so that what a program says in several lines becomes one.
    r#"set -f; say() { echo cutover: $*; }; "#,
    r#"machine=$(uname -m); digest=; "#,
    r#"while IFS= read -r line; do case $line in "") break;; "$machine "*) set -- $line; digest=$2; bytes=$3;; esac; done; "#,
    r#"IFS= read -r dir; IFS= read -r how; IFS= read -r word || exit 1; "#,
    r#"test -n "$digest" || { say fail machine "$(uname -s) $machine"; exit 1; }; "#,
    r#"test -n "$dir" || { test -n "$HOME" || { say fail home; exit 1; }; dir=$HOME/.cutover/agent; }; "#,
    r#"agent=$dir/$digest; "#,
    r#"if test "$("$agent" digest 2>/dev/null)" = "$digest"; then :; else "#,
    r#"error=$(mkdir -p "$dir" 2>&1) || { say fail write "$error"; exit 1; }; "#,
    r#"draft=$agent.$$; say missing "$machine"; "#,
    r#"error=$( { head -c "$bytes" > "$draft"; } 2>&1) || { rm -f "$draft"; say fail write "$error"; exit 1; }; "#,
    r#"error=$( { chmod 755 "$draft" && "$draft" adopt "$digest" "$draft"; } 2>&1) || { code=$?; rm -f "$draft"; say fail start $code "$error"; exit 1; }; "#,
    r#"fi; "#,
    r#"if test "$how" = sudo; then "#,
    r#"error=$(sudo -n -- "$agent" version 2>&1) || { say fail sudo "$error"; exit 1; }; "#,
    r#"echo "cutover: ready $agent"; exec sudo -n -- "$agent" serve "$word"; fi; "#,
    r#"echo "cutover: ready $agent"; exec "$agent" serve "$word""#,
);

/// The command line for the host.
pub(crate) fn line() -> String {
    format!("exec /bin/sh -c '{SCRIPT}'")
}

/// What the script wants to know.
pub(crate) fn answers(ssh: &Ssh, agents: &[Arc<AgentFile>], word: &str) -> String {
    let mut text = String::new();
    for AgentFile {
        machine,
        digest,
        bytes,
    } in agents.iter().map(AsRef::as_ref)
    {
        text.push_str(&format!("{machine} {digest} {}\n", bytes.len()));
    }
    let folder = ssh.settings.agent_dir.as_deref().unwrap_or_default();
    let how = if ssh.settings.sudo { "sudo" } else { "" };
    text.push_str(&format!("\n{folder}\n{how}\n{word}\n"));
    text
}

/// What the script says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    Missing { machine: String },
    Ready { agent: String },
    Fail(Trouble),
}

/// Understands a line; none when it is not one of the script's.
pub(crate) fn word(ssh: &Ssh, looked_in: &str, line: &str) -> Option<Word> {
    let (_, said) = line.split_once("cutover: ")?;
    let said = said.trim_end();
    let (first, rest) = said.split_once(' ').unwrap_or((said, ""));
    match first {
        "missing" => Some(Word::Missing {
            machine: rest.to_owned(),
        }),
        "ready" => Some(Word::Ready {
            agent: rest.to_owned(),
        }),
        "fail" => Some(Word::Fail(trouble(ssh, looked_in, rest))),
        _ => None,
    }
}

fn trouble(ssh: &Ssh, looked_in: &str, said: &str) -> Trouble {
    let address = &ssh.address;
    let (what, more) = said.split_once(' ').unwrap_or((said, ""));
    let folder = ssh
        .settings
        .agent_dir
        .as_deref()
        .unwrap_or("~/.cutover/agent");
    Trouble::lasting(match what {
        "machine" => {
            let machine = more.rsplit(' ').next().unwrap_or_default();
            format!(
                "there is no agent for `{address}`, which is `{more}`: the file `cutover-agent-{machine}-linux` is in none of {looked_in}; build it on such a machine with `cargo xtask agent`"
            )
        }
        "home" => format!(
            "the user has no home on `{address}`: name a folder for the agent with `ssh: {{agent_dir: /FOLDER}}`"
        ),
        "write" => format!("put the agent into `{folder}` on `{address}`: {more}"),
        "start" => {
            let (code, more) = more.split_once(' ').unwrap_or((more, ""));
            let hint = if code == "126" {
                "; where that folder is mounted `noexec`, name another with `ssh: {agent_dir: /FOLDER}`"
            } else {
                ""
            };
            format!(
                "start the agent in `{folder}` on `{address}`: {more} (exit status {code}){hint}"
            )
        }
        "sudo" => format!(
            "run the agent as root on `{address}`: {more}; let the user run it without a password, or leave out `sudo: true`"
        ),
        _ => format!("start the agent on `{address}`: {said}"),
    })
}

#[cfg(test)]
mod tests {
    use model::{SshAddress, SshSettings};

    use super::*;

    fn ssh() -> Ssh {
        Ssh {
            address: SshAddress::parse("ssh://deploy@web-1").unwrap(),
            settings: SshSettings::default(),
        }
    }

    #[test]
    fn the_command_line_means_the_same_in_every_shell() {
        let line = line();

        let script = line
            .strip_prefix("exec /bin/sh -c '")
            .and_then(|rest| rest.strip_suffix('\''))
            .unwrap();
        assert!(!script.contains(['\'', '\\', '!', '\n']), "{script}");
    }

    #[test]
    fn only_the_scripts_own_lines_are_understood() {
        let check = |line: &str| word(&ssh(), "`/a`", line);

        assert_eq!(check("Welcome to web-1"), None);
        assert_eq!(
            check("hint> cutover: ready /home/a b/.cutover/agent/0"),
            Some(Word::Ready {
                agent: "/home/a b/.cutover/agent/0".to_owned()
            })
        );
        let Some(Word::Fail(trouble)) = check("cutover: fail machine Linux riscv64") else {
            panic!("it fails")
        };
        assert!(
            trouble
                .reason
                .contains("`cutover-agent-riscv64-linux` is in none of `/a`"),
            "{}",
            trouble.reason
        );
    }
}
