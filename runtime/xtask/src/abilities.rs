//! `cargo xtask abilities`: the table of what each adapter can do, in `plugins/README.md`.
//!
//! It is made of the built components: what one exports is what it implements, and what its provider can do beyond that
//! its manifest says. A test holds the table in the file against the one that is made.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use wasmparser::{Encoding, Parser, Payload};

use crate::plugins::MANIFEST_SECTION;

const README: &str = "plugins/README.md";
const COMPONENTS: &str = "target/plugins";

/// What stands around the table.
const BEGIN: &str = "<!-- Made by `cargo xtask abilities`. -->\n";
const END: &str = "<!-- End of what is made. -->\n";

/// Writes the table.
pub(crate) fn write(root: &Path) -> Result<()> {
    let path = root.join(README);
    let (present, made) = both(root)?;
    if present == made {
        eprintln!("`{README}` is as the components say");
        return Ok(());
    }
    fs::write(&path, made).with_context(|| format!("write `{}`", path.display()))?;
    eprintln!("wrote the table in `{README}`");
    Ok(())
}

/// The file as it is, and as it should be.
fn both(root: &Path) -> Result<(String, String)> {
    let path = root.join(README);
    let present =
        fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    let made = with_table(&present, &table(&adapters(&root.join(COMPONENTS))?))?;
    Ok((present, made))
}

fn with_table(readme: &str, table: &str) -> Result<String> {
    let around = || {
        let (before, rest) = readme.split_once(BEGIN)?;
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    };
    let (before, after) =
        around().with_context(|| format!("find `{}` and its end in `{README}`", BEGIN.trim()))?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// A load balancer or traffic router.
#[derive(Debug, Default)]
struct Adapter {
    name: String,
    /// Without versions.
    exports: BTreeSet<String>,
    balancer: BTreeSet<String>,
    router: BTreeSet<String>,
}

/// The adapters among the built plugins, by name.
fn adapters(folder: &Path) -> Result<Vec<Adapter>> {
    let list = || {
        format!(
            "list `{}`: build them with `cargo xtask plugins`",
            folder.display()
        )
    };
    let mut adapters = Vec::new();
    for entry in fs::read_dir(folder).with_context(list)? {
        let path = entry.with_context(list)?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
        let adapter = read(&bytes).with_context(|| format!("inspect `{}`", path.display()))?;
        if adapter.has("cutover:load-balancer/pool") || adapter.has("cutover:traffic/router") {
            adapters.push(adapter);
        }
    }
    ensure!(
        !adapters.is_empty(),
        "find load balancers in `{}`: build them with `cargo xtask plugins`",
        folder.display()
    );
    adapters.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(adapters)
}

fn read(component: &[u8]) -> Result<Adapter> {
    let mut adapter = Adapter::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::Version {
                encoding: Encoding::Module | Encoding::Component,
                ..
            } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let name = export?.name.name;
                    let name = name.split('@').next().unwrap_or(name);
                    adapter.exports.insert(name.to_owned());
                }
            }
            Payload::CustomSection(section) if depth == 1 && section.name() == MANIFEST_SECTION => {
                let manifest: Value =
                    serde_json::from_slice(section.data()).context("parse its manifest")?;
                manifest["name"]
                    .as_str()
                    .unwrap_or_default()
                    .clone_into(&mut adapter.name);
                adapter.balancer = features(&manifest, "load-balancer");
                adapter.router = features(&manifest, "traffic-router");
            }
            _ => {}
        }
    }
    Ok(adapter)
}

fn features(manifest: &Value, offer: &str) -> BTreeSet<String> {
    let features = manifest["provides"][offer]["features"].as_array();
    features
        .into_iter()
        .flatten()
        .filter_map(|feature| Some(feature.as_str()?.to_owned()))
        .collect()
}

const NO: &str = "—";

impl Adapter {
    fn has(&self, interface: &str) -> bool {
        self.exports.contains(interface)
    }

    fn balances(&self, feature: &str) -> bool {
        self.balancer.contains(feature)
    }

    fn register(&self) -> &'static str {
        yes(self.has("cutover:load-balancer/pool"))
    }

    fn drain(&self) -> &'static str {
        if self.balances("drain-observed") {
            "until the last request has ended"
        } else if self.balances("drain-timed") {
            "for a set time"
        } else {
            NO
        }
    }

    fn weight(&self) -> &'static str {
        yes(self.has("cutover:load-balancer/weights"))
    }

    fn split(&self) -> &'static str {
        let routes = |feature: &str| self.router.contains(feature);
        match (
            self.has("cutover:traffic/router"),
            routes("split-groups"),
            routes("split-members"),
        ) {
            (false, ..) => NO,
            (true, true, true) => "between groups or members",
            (true, true, false) => "between groups",
            (true, false, true) => "switch between groups, split by members' weights",
            (true, false, false) => "switch only",
        }
    }

    fn pending(&self) -> &'static str {
        match (self.balances("pending"), self.router.contains("pending")) {
            (true, true) => "members and switches",
            (true, false) => "members",
            (false, true) => "switches",
            (false, false) => NO,
        }
    }

    fn health_reasons(&self) -> &'static str {
        yes(self.balances("health-reasons"))
    }
}

fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { NO }
}

fn table(adapters: &[Adapter]) -> String {
    let mut table = String::from(
        "| adapter | register | drain | weight | split | pending | health reasons |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for adapter in adapters {
        let name = &adapter.name;
        let cells = [
            adapter.register(),
            adapter.drain(),
            adapter.weight(),
            adapter.split(),
            adapter.pending(),
            adapter.health_reasons(),
        ];
        table.push_str(&format!("| [`{name}`]({name}) | {} |\n", cells.join(" | ")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_as_the_components_say() {
        let root = crate::workspace_root().unwrap();

        let (present, made) = both(&root).unwrap();

        assert!(
            present == made,
            "the table in `{README}` is stale: write it with `cargo xtask plugins && cargo xtask abilities`"
        );
    }

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let readme = format!("above\n{BEGIN}| old |\n{END}below\n");

        let made = with_table(&readme, "| new |\n").unwrap();

        assert_eq!(made, format!("above\n{BEGIN}| new |\n{END}below\n"));
        assert!(with_table("nothing", "").is_err());
    }

    #[test]
    fn what_is_not_exported_is_not_claimed() {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let bare = Adapter {
            name: "bare".to_owned(),
            exports: set(&["cutover:load-balancer/pool"]),
            ..Adapter::default()
        };
        let rich = Adapter {
            name: "rich".to_owned(),
            exports: set(&[
                "cutover:load-balancer/pool",
                "cutover:load-balancer/weights",
                "cutover:traffic/router",
            ]),
            balancer: set(&["drain-timed", "pending", "health-reasons"]),
            router: set(&["split-members"]),
        };

        let table = table(&[bare, rich]);

        let rows: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| [`bare`](bare) | yes | — | — | — | — | — |",
                "| [`rich`](rich) | yes | for a set time | yes | switch between groups, split by members' weights | members | yes |",
            ]
        );
    }
}
