//! What a call of a plugin costs, with the fresh instance that every call gets, and what loading one costs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plugin_host::{Grants, Host, HostOptions, Plugin, Secrets};

use crate::Places;
use crate::figure::{Figure, Sample};
use crate::workspace;

const CALLS: usize = 5_000;
const WARM_UP: usize = 200;
const LOADS: usize = 15;
/// The most that a call may take, in microseconds.
const MOST: f64 = 60.0;

/// Plugins, each with a configuration that it accepts.
const PLUGINS: [(&str, &str); 5] = [
    ("file-package", "{}"),
    ("http-package", "{}"),
    ("ews-kinds", "{}"),
    (
        "file-balancer",
        r#"{"directory":"balancer","file":"upstreams.txt"}"#,
    ),
    (
        "haproxy",
        r#"{"socket":"tcp:127.0.0.1:9999","backend":"shop"}"#,
    ),
];

pub(crate) fn measure(places: &Places, figures: &mut Vec<Figure>) -> Result<()> {
    let runtime = workspace::runtime()?;
    for (name, config) in PLUGINS {
        let path = places.plugins.join(format!("{name}.wasm"));
        let times = runtime.block_on(call(&places.folder.join("calls"), name, &path, config))?;
        figures.push(
            Figure::microseconds(
                format!("plugin {name}: a call"),
                &Sample::of_times(&times),
                format!("validate_config with a fresh instance, {CALLS} times"),
            )
            .at_most(MOST),
        );
    }
    let (name, _) = PLUGINS[PLUGINS.len() - 1];
    let path = places.plugins.join(format!("{name}.wasm"));
    let (compiled, cached) = runtime.block_on(load_both(places, name, &path))?;
    let (compiled, cached) = (Sample::of_times(&compiled), Sample::of_times(&cached));
    figures.push(Figure::milliseconds(
        format!("plugin {name}: load, compiling"),
        &compiled,
        "read, hash, compile, keep the code, make one instance",
    ));
    figures.push(Figure::milliseconds(
        format!("plugin {name}: load, compiled before"),
        &cached,
        format!(
            "read, hash, check and map the code, make one instance: 1/{:.0}",
            compiled.median() / cached.median()
        ),
    ));
    Ok(())
}

async fn call(cache: &Path, name: &str, path: &Path, config: &str) -> Result<Vec<Duration>> {
    let plugin = load(&Host::new(HostOptions::new(cache))?, name, path).await?;
    let mut times = Vec::with_capacity(CALLS);
    for number in 0..WARM_UP + CALLS {
        let began = Instant::now();
        let found = plugin.validate_config(config).await;
        let took = began.elapsed();
        found.with_context(|| format!("call plugin `{name}`"))?;
        if number >= WARM_UP {
            times.push(took);
        }
    }
    Ok(times)
}

/// Loads with an empty cache, and with what that left in it.
async fn load_both(
    places: &Places,
    name: &str,
    path: &Path,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut compiled, mut cached) = (Vec::new(), Vec::new());
    for number in 0..LOADS {
        let cache = places.folder.join(format!("compiled-{number}"));
        for times in [&mut compiled, &mut cached] {
            // A host of its own, as in another process.
            let host = Host::new(HostOptions::new(&cache))?;
            let began = Instant::now();
            load(&host, name, path).await?;
            times.push(began.elapsed());
        }
    }
    Ok((compiled, cached))
}

async fn load(host: &Host, name: &str, path: &Path) -> Result<std::sync::Arc<Plugin>> {
    host.load(name.parse()?, path, &Grants::default(), Secrets::default())
        .await
        .with_context(|| format!("load plugin `{name}`"))
}
