//! The agents that can be put on hosts: files `cutover-agent-MACHINE-linux` in the folders that were named.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// An agent for one kind of machine.
#[derive(Debug)]
pub(crate) struct AgentFile {
    /// As `uname -m` calls it.
    pub(crate) machine: String,
    /// SHA-256 of the bytes, in hexadecimal digits.
    pub(crate) digest: String,
    pub(crate) bytes: Vec<u8>,
}

/// All agents, read when the first is needed.
#[derive(Debug)]
pub(crate) struct Agents {
    folders: Vec<PathBuf>,
    found: OnceLock<Result<Vec<Arc<AgentFile>>, NoAgents>>,
}

/// There is nothing to put on a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAgents {
    #[error(
        "there is no agent to put on hosts, no file `cutover-agent-MACHINE-linux` in {looked_in}: build it with `cargo xtask agent`, or name its folder in CUTOVER_AGENT_DIR"
    )]
    NotFound { looked_in: String },
    #[error("read the agent `{}`: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
}

impl Agents {
    pub(crate) fn new(folders: Vec<PathBuf>) -> Self {
        Self {
            folders,
            found: OnceLock::new(),
        }
    }

    /// Every agent, one for each kind of machine; the first folder that has one wins.
    pub(crate) fn all(&self) -> Result<&[Arc<AgentFile>], NoAgents> {
        match self.found.get_or_init(|| self.find()) {
            Ok(found) => Ok(found),
            Err(error) => Err(error.clone()),
        }
    }

    /// The folders, for messages.
    pub(crate) fn looked_in(&self) -> String {
        let folders: Vec<_> = self
            .folders
            .iter()
            .map(|folder| format!("`{}`", folder.display()))
            .collect();
        folders.join(", ")
    }

    fn find(&self) -> Result<Vec<Arc<AgentFile>>, NoAgents> {
        let mut found: Vec<Arc<AgentFile>> = Vec::new();
        for folder in &self.folders {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let machine = name
                    .to_str()
                    .and_then(|name| name.strip_prefix("cutover-agent-")?.strip_suffix("-linux"))
                    .filter(|machine| is_machine(machine));
                let Some(machine) = machine else { continue };
                if found.iter().any(|agent| agent.machine == machine) {
                    continue;
                }
                let path = entry.path();
                let bytes = fs::read(&path).map_err(|error| NoAgents::Unreadable {
                    path,
                    reason: error.to_string(),
                })?;
                found.push(Arc::new(AgentFile {
                    machine: machine.to_owned(),
                    digest: agent::own::digest_of(&bytes),
                    bytes,
                }));
            }
        }
        if found.is_empty() {
            let looked_in = self.looked_in();
            return Err(NoAgents::NotFound { looked_in });
        }
        Ok(found)
    }
}

fn is_machine(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_folder_that_has_an_agent_wins() {
        let dir = tempfile::tempdir().unwrap();
        let folders: Vec<_> = ["one", "two"].map(|name| dir.path().join(name)).into();
        for folder in &folders {
            fs::create_dir(folder).unwrap();
        }
        fs::write(folders[0].join("cutover-agent-x86_64-linux"), "one").unwrap();
        fs::write(folders[1].join("cutover-agent-x86_64-linux"), "two").unwrap();
        fs::write(folders[1].join("cutover-agent-aarch64-linux"), "arm").unwrap();
        fs::write(folders[1].join("cutover-agent-x y-linux"), "no").unwrap();

        let agents = Agents::new(folders);

        let found = agents.all().unwrap();
        let mut texts: Vec<_> = found
            .iter()
            .map(|agent| (agent.machine.as_str(), agent.bytes.as_slice()))
            .collect();
        texts.sort();
        assert_eq!(texts, [("aarch64", &b"arm"[..]), ("x86_64", b"one")]);
    }

    #[test]
    fn where_there_is_none_the_command_that_builds_it_is_named() {
        let error = Agents::new(vec!["/nowhere".into()]).all().unwrap_err();

        let text = error.to_string();
        assert!(text.contains("`/nowhere`"), "{text}");
        assert!(text.contains("cargo xtask agent"), "{text}");
    }
}
