//! Encodes the type sections of load balancers, one for each set of interfaces that a component may export.
//!
//! `weights` and `limits` use the types of `pool`. A section for `weights` alone would import `pool`, and whether it can be
//! merged with one that exports `pool` would depend on the order in which the linker happens to leave them. So the
//! sections for `weights` and `limits` export `pool` as well.

#![allow(
    clippy::print_stdout,
    reason = "cargo reads what a build script prints"
)]

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use wit_component::StringEncoding;
use wit_parser::Resolve;

/// Where the WIT packages are, in the order in which they build on each other.
const PACKAGES: [&str; 2] = ["../../wit/plugin", "../../wit/load-balancer"];

/// The name of a section and the interfaces of its world.
const SECTIONS: [(&str, &[&str]); 3] = [
    ("pool", &["pool"]),
    ("weights", &["pool", "weights"]),
    ("limits", &["pool", "limits"]),
];

fn main() -> Result<(), Box<dyn Error>> {
    let output = env::var("OUT_DIR")?;
    for (name, interfaces) in SECTIONS {
        let mut resolve = Resolve::default();
        for package in PACKAGES {
            println!("cargo::rerun-if-changed={package}");
            resolve.push_path(package)?;
        }
        let exports: String = interfaces
            .iter()
            .map(|interface| format!("export cutover:load-balancer/{interface}@0.1.0; "))
            .collect();
        let text = format!("package cutover:sdk-{name}; world {name} {{ {exports} }}");
        let package = resolve.push_str("sections.wit", &text)?;
        let world = resolve.select_world(&[package], Some(name))?;
        let section = wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None)?;
        fs::write(Path::new(&output).join(format!("{name}.bin")), section)?;
    }
    Ok(())
}
