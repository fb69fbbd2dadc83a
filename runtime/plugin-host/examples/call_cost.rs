//! Times a call of a plugin, with the fresh instance that every call gets.
//!
//! `cargo run --release -p cutover-plugin-host --example call_cost -- PLUGIN.wasm [CONFIG]`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement prints, and breaks off where it cannot be made"
)]

use std::path::PathBuf;
use std::time::Instant;

use plugin_host::{Grants, Host, HostOptions, Secrets};

const CALLS: usize = 5_000;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().expect("name a component"));
    let config = arguments.next().unwrap_or_else(|| "{}".to_owned());
    let cache = tempfile::tempdir().unwrap();
    let host = Host::new(HostOptions::new(cache.path())).unwrap();
    let load = async || {
        let started = Instant::now();
        let plugin = host
            .load(
                "plugin".parse().unwrap(),
                &path,
                &Grants::default(),
                Secrets::default(),
            )
            .await;
        (plugin.unwrap(), started.elapsed())
    };
    let (_, compiling) = load().await;
    let (plugin, mapping) = load().await;

    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let started = Instant::now();
        // What the plugin says to the configuration does not matter here.
        let _ = plugin.validate_config(&config).await;
        times.push(started.elapsed());
    }
    times.sort();

    println!("load: {compiling:?} compiled, {mapping:?} from the cache");
    println!(
        "call: p50 {:?}, p90 {:?}, p99 {:?}",
        times[CALLS / 2],
        times[CALLS * 9 / 10],
        times[CALLS * 99 / 100]
    );
}
