//! How git is run.

use cutover_plugin_sdk::Diagnostic;
use serde::Deserialize;

/// `plugins.NAME.config`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The program: a name that is found on the path, or an absolute path.
    #[serde(default = "git")]
    pub(crate) program: String,
    /// A configuration file for git: credentials, proxies, certificates. No other one has effect.
    pub(crate) config_file: Option<String>,
}

fn git() -> String {
    "git".to_owned()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            program: git(),
            config_file: None,
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let relative = self
            .config_file
            .as_deref()
            .filter(|file| !file.starts_with('/'));
        let finding = relative.map(|file| {
            let message = format!("`{file}` is not an absolute path, and git runs in no folder that it could be relative to");
            Diagnostic::error("/config_file", &message)
        });
        finding.into_iter().collect()
    }
}
