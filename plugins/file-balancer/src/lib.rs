//! A load balancer whose upstreams are the lines of a text file in a granted directory.
//!
//! For balancers that watch a file, and for trying things without one. A pool is a file, a member is a line, and a
//! member is in service while its line is there: nothing tells about open connections or health. How traffic is split
//! between sides is a file of its own.

mod split;
mod upstreams;

use cutover_plugin_sdk::{
    Diagnostic, Failure, HOST_STAMPS, LoadBalancer, Member, MemberResult, MemberStatus, OpContext,
    Outcome, Phase, Plugin, PoolRef, Purpose, Router, Share, Side, Split, Weight, Weights,
    directories, export,
};
use serde::Deserialize;

use upstreams::Upstreams;

/// Stands for the pool's name in the name of the file.
const POOL: &str = "{pool}";

struct FileBalancer;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The name that the grant gives the directory.
    directory: String,
    /// The file in it, where `{pool}` is the backend that the group names.
    #[serde(default = "usual_file")]
    file: String,
    /// The file in it that says how traffic is split between sides.
    #[serde(default = "usual_split")]
    split: String,
}

fn usual_split() -> String {
    "split.txt".to_owned()
}

fn usual_file() -> String {
    "upstreams.txt".to_owned()
}

impl Config {
    fn file(&self, pool: &PoolRef) -> Result<String, Failure> {
        if self.file.contains(POOL) && pool.id.is_empty() {
            return Err(Failure::invalid(
                "file-balancer.pool",
                format!("`{}` needs a backend, and none is named", self.file),
            )
            .hint("add `backend: NAME` to the group or write a file name without `{pool}`"));
        }
        Ok(self.file.replace(POOL, &pool.id))
    }
}

impl Plugin for FileBalancer {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        if config.directory.is_empty() {
            findings.push(Diagnostic::error("/directory", "name a granted directory"));
        }
        for (path, file) in [("/file", &config.file), ("/split", &config.split)] {
            if file.is_empty() || file.starts_with('/') || file.split('/').any(|part| part == "..")
            {
                findings.push(Diagnostic::error(path, "name a file inside the directory"));
            }
        }
        findings
    }
}

impl LoadBalancer for FileBalancer {
    fn register(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        edit(ctx, pool, |upstreams| {
            members
                .iter()
                .map(|member| result(&member.target_id, upstreams.put(member)))
                .collect()
        })
    }

    fn deregister(
        ctx: &OpContext,
        pool: &PoolRef,
        members: &[Member],
    ) -> Result<Vec<MemberResult>, Failure> {
        edit(ctx, pool, |upstreams| {
            members
                .iter()
                .map(|member| result(&member.target_id, Ok(upstreams.remove(&member.target_id))))
                .collect()
        })
    }

    fn status(
        _ctx: &OpContext,
        pool: &PoolRef,
        target_ids: &[String],
    ) -> Result<Vec<MemberStatus>, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let upstreams = read(&config.directory, &config.file(pool)?)?;
        let asked = if target_ids.is_empty() {
            upstreams.target_ids()
        } else {
            target_ids.to_vec()
        };
        let status = |target_id: String| MemberStatus {
            phase: if upstreams.has(&target_id) {
                Phase::InService
            } else {
                Phase::Absent
            },
            target_id,
            open_connections: None,
            reason: None,
            observed_at: HOST_STAMPS,
        };
        Ok(asked.into_iter().map(status).collect())
    }
}

impl Weights for FileBalancer {
    fn set(
        ctx: &OpContext,
        pool: &PoolRef,
        weights: &[Weight],
    ) -> Result<Vec<MemberResult>, Failure> {
        edit(ctx, pool, |upstreams| {
            weights
                .iter()
                .map(|w| result(&w.target_id, upstreams.weigh(&w.target_id, w.weight)))
                .collect()
        })
    }
}

impl Router for FileBalancer {
    fn check(
        _ctx: &OpContext,
        sides: &[Side],
        _purpose: Purpose,
    ) -> Result<Vec<Diagnostic>, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        read_split(&config, sides).map(|_| Vec::new())
    }

    fn get(_ctx: &OpContext, sides: &[Side]) -> Result<Split, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let (text, shares) = read_split(&config, sides)?;
        Ok(Split {
            shares,
            differs: None,
            revision: Some(split::revision(&text)),
            settled: true,
            observed_at: HOST_STAMPS,
        })
    }

    fn set(
        ctx: &OpContext,
        sides: &[Side],
        expected_revision: Option<&str>,
        shares: &[Share],
    ) -> Result<Outcome, Failure> {
        let config: Config = cutover_plugin_sdk::config()?;
        let (present, _) = read_split(&config, sides)?;
        let wanted = split::text(sides, shares);
        if present == wanted {
            return Ok(Outcome::Unchanged);
        }
        split::check_present(&present, expected_revision, &wanted)?;
        if !ctx.dry_run {
            directories::write_text(&config.directory, &config.split, &wanted)?;
        }
        Ok(Outcome::changed())
    }
}

fn read_split(config: &Config, sides: &[Side]) -> Result<(String, Vec<Share>), Failure> {
    let text = directories::read_text(&config.directory, &config.split)?.unwrap_or_default();
    let shares = split::parse(&text, sides).map_err(|line| {
        Failure::invalid(
            "file-balancer.split-line",
            format!(
                "line {line} of `{}` is not `SIDE PERCENT` with a side named once",
                config.split
            ),
        )
    })?;
    Ok((text, shares))
}

/// Whether an edit changed the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Changed,
    Unchanged,
}

fn result(target_id: &str, edit: Result<Edit, Failure>) -> MemberResult {
    let outcome = edit.map(|edit| match edit {
        Edit::Changed => Outcome::changed(),
        Edit::Unchanged => Outcome::Unchanged,
    });
    MemberResult {
        target_id: target_id.to_owned(),
        outcome,
    }
}

/// Reads the file, edits it and writes it back if that changed it.
fn edit(
    ctx: &OpContext,
    pool: &PoolRef,
    change: impl FnOnce(&mut Upstreams) -> Vec<MemberResult>,
) -> Result<Vec<MemberResult>, Failure> {
    let config: Config = cutover_plugin_sdk::config()?;
    let file = config.file(pool)?;
    let mut upstreams = read(&config.directory, &file)?;
    let before = upstreams.to_string();
    let results = change(&mut upstreams);
    let after = upstreams.to_string();
    if after == before || ctx.dry_run {
        return Ok(results);
    }
    directories::write_text(&config.directory, &file, &after)?;
    match directories::read_text(&config.directory, &file)? {
        Some(present) if present == after => Ok(results),
        // The edit is idempotent, so the host may simply do it again on top of what is there.
        _ => Err(Failure::transient(
            "file-balancer.overwritten",
            format!("`{file}` was changed by somebody else meanwhile"),
        )),
    }
}

fn read(directory: &str, file: &str) -> Result<Upstreams, Failure> {
    let text = directories::read_text(directory, file)?.unwrap_or_default();
    Upstreams::parse(&text).map_err(|line| {
        Failure::invalid(
            "file-balancer.line",
            format!("line {line} of `{file}` is not `TARGET ADDRESS:PORT WEIGHT` with a target named once"),
        )
    })
}

export!(FileBalancer: LoadBalancer, Weights, Router);

#[cfg(test)]
mod tests {
    use cutover_plugin_sdk::parse_config;

    use super::*;

    fn check(config: &str, pool: &str, expected: Option<&str>) {
        let config: Config = parse_config(config).unwrap();
        let pool = PoolRef {
            id: pool.to_owned(),
            attributes: Vec::new(),
        };

        assert_eq!(config.file(&pool).ok().as_deref(), expected);
    }

    #[test]
    fn a_pool_may_have_a_file_of_its_own() {
        check(r#"{"directory": "lb"}"#, "shop", Some("upstreams.txt"));
        check(
            r#"{"directory": "lb", "file": "{pool}.list"}"#,
            "shop",
            Some("shop.list"),
        );
        check(r#"{"directory": "lb", "file": "{pool}.list"}"#, "", None);
    }

    #[test]
    fn a_file_outside_the_directory_is_refused() {
        for file in ["", "/etc/passwd", "../x", "a/../../x"] {
            let config = Config {
                directory: "lb".to_owned(),
                file: file.to_owned(),
                split: usual_split(),
            };

            assert_eq!(<FileBalancer as Plugin>::check(&config).len(), 1, "{file}");
        }
    }
}
