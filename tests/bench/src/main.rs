//! Measures cutover against its targets, in one run, and prints a table.
//!
//! Start it by `cargo xtask bench`, which builds everything in release. One file per question: `hooks` what a hook costs
//! beside a shell loop, `calls` what a call of a plugin costs, `start` how long a release takes to its first hook,
//! `scale` what releases over many instances take. Everything happens in folders under `target/bench`, on the disk that
//! the repository is on. Deliberately absent: judging. A missed target is a line of the table, not a failed run.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement prints"
)]

mod calls;
mod disk;
mod figure;
mod hooks;
mod machine;
mod plans;
mod scale;
mod start;
mod workspace;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use crate::figure::{Figure, Report};

/// How long what a run wrote stays at least.
const OLD: Duration = Duration::from_secs(600);

/// Measure cutover against its targets
#[derive(Parser)]
struct Arguments {
    /// Form of the answer on stdout
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Measure only these
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Subject>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    Disk,
    Hooks,
    Calls,
    Start,
    Scale,
    Plans,
}

/// What this program starts itself for.
#[derive(Subcommand)]
enum Part {
    /// Drive one simulated release and print its cost as JSON
    #[command(hide = true)]
    Simulate { instances: usize, folder: PathBuf },
    /// Drive one simulated release plan and print its cost as JSON
    #[command(hide = true)]
    SimulatePlan {
        services: usize,
        instances: usize,
        folder: PathBuf,
    },
}

/// Where things are.
pub(crate) struct Places {
    /// The program under test.
    pub(crate) cutover: PathBuf,
    /// Components of the first-party plugins.
    pub(crate) plugins: PathBuf,
    /// Everything that is written goes here.
    pub(crate) folder: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Simulate { instances, folder }) => return scale::simulate(instances, &folder),
        Some(Part::SimulatePlan {
            services,
            instances,
            folder,
        }) => return plans::simulate(services, instances, &folder),
        None => {}
    }
    let places = places()?;
    let machine = machine::line(&places.folder);
    let mut figures = Vec::new();
    for (subject, measure) in SUBJECTS {
        if arguments.only.is_empty() || arguments.only.contains(subject) {
            measure(&places, &mut figures)?;
        }
    }
    let report = Report {
        v: 1,
        machine,
        figures,
    };
    match arguments.output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    remove_old_runs(&places.folder)
}

type Measure = fn(&Places, &mut Vec<Figure>) -> Result<()>;

const SUBJECTS: &[(Subject, Measure)] = &[
    (Subject::Disk, disk::measure),
    (Subject::Hooks, hooks::measure),
    (Subject::Calls, calls::measure),
    (Subject::Start, start::measure),
    (Subject::Scale, scale::measure),
    (Subject::Plans, plans::measure),
];

/// Everything lies around this program: `target/release/cutover-bench`.
fn places() -> Result<Places> {
    let here = std::env::current_exe().context("find this program's own file")?;
    let release = here.parent().context("find the folder of this program")?;
    let target = release.parent().context("find the folder `target`")?;
    let folder = target
        .join("bench")
        .join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| format!("create `{}`", folder.display()))?;
    Ok(Places {
        cutover: release.join("cutover"),
        plugins: target.join("plugins"),
        folder,
    })
}

/// Removes what earlier runs left. What is written is removed no sooner, because some file systems, ext4 without a
/// journal among them, are slow for minutes to make files where many were deleted, and that would be measured.
fn remove_old_runs(folder: &Path) -> Result<()> {
    let runs = folder.parent().context("find the folder of all runs")?;
    for entry in std::fs::read_dir(runs)? {
        let entry = entry?;
        let is_run = entry.file_name().to_string_lossy().starts_with("run-");
        let is_old = entry
            .metadata()?
            .modified()?
            .elapsed()
            .is_ok_and(|age| age > OLD);
        if is_run && is_old {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
