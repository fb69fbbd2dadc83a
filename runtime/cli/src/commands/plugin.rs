//! `cutover plugin ls` and `cutover plugin inspect`.

use std::path::Path;

use conductor::implements;
use report::Table;
use serde_json::json;

use crate::args::{Output, Plugin};
use crate::failure::{Failure, Kind};
use crate::ui::Ui;
use crate::workspace;

pub(crate) async fn run(ui: Ui, config: Option<&Path>, command: &Plugin) -> Result<(), Failure> {
    match command {
        Plugin::Ls => ls(ui, config).await,
        Plugin::Inspect { file } => inspect(ui, file),
    }
}

async fn ls(ui: Ui, config: Option<&Path>) -> Result<(), Failure> {
    let opened = workspace::open(ui, config)?;
    let plugins = workspace::plugins(&opened)?;
    let mut table = Table::new(["PLUGIN", "IMPLEMENTS", "GRANTED", "DIGEST"]);
    let mut rows = Vec::new();
    for name in plugins.names() {
        let plugin = plugins.get(name).await?;
        let granted = plugins.granted(name);
        rows.push(json!({
            "name": name.as_str(),
            "implements": implements(plugin.provides()),
            "granted": granted,
            "digest": plugin.digest().as_str(),
        }));
        let granted = if granted.is_empty() {
            "nothing".to_owned()
        } else {
            granted.join(", ")
        };
        table.row([
            name.to_string(),
            implements(plugin.provides()),
            granted,
            plugin.digest().to_string(),
        ]);
    }
    match ui.output {
        Output::Json => ui.answer_json(&json!({"v": 1, "plugins": rows})),
        Output::Text if table.is_empty() => {
            ui.advise("declare plugins below `plugins` in the workspace file");
        }
        Output::Text => ui.answer(&table.to_string()),
    }
    Ok(())
}

fn inspect(ui: Ui, file: &Path) -> Result<(), Failure> {
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::io(format!("read the component `{}`", file.display()), error))?;
    let found = plugin_host::inspect(&bytes).map_err(|error| Failure::new(Kind::Invalid, error))?;
    match ui.output {
        Output::Json => ui.answer_json(&json!({"v": 1, "plugin": {
            "file": file.display().to_string(),
            "bytes": bytes.len(),
            "digest": found.digest.as_str(),
            "implements": implements(&found.provides),
            "manifest": found.manifest,
        }})),
        Output::Text => {
            let manifest = serde_json::to_string_pretty(&found.manifest).unwrap_or_default();
            ui.answer(&format!(
                "digest      {}\nbytes       {}\nimplements  {}\nmanifest    {manifest}\n",
                found.digest,
                bytes.len(),
                implements(&found.provides)
            ));
        }
    }
    Ok(())
}
