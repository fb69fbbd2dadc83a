//! What releases over many instances take: the real planning, engine, journal and loop, over instances that answer at
//! once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fleet::{BoxFuture, Fleet, LogSink, Unreachable};
use model::{Ending, Host};
use serde::{Deserialize, Serialize};

use crate::Places;
use crate::figure::{Figure, Sample};
use crate::workspace::{self, Workspace};

const SIZES: [usize; 3] = [1, 100, 10_000];
const REPETITIONS: usize = 3;
/// The longest wall time of the largest release, in seconds.
const MOST_SECONDS: f64 = 10.0;
/// The most memory of the largest release, in MB.
const MOST_MEMORY: f64 = 200.0;

/// Instances that are not there: each answers at its next turn that all is well.
struct SimulatedFleet;

impl Fleet for SimulatedFleet {
    fn run(&self, _: &Host, _: fleet::Command, _: Arc<dyn LogSink>) -> BoxFuture<'static, Ending> {
        Box::pin(async {
            tokio::task::yield_now().await;
            Ending::Succeeded {
                exit_code: Some(0),
                log: None,
                note: None,
            }
        })
    }

    fn cached(
        &self,
        _: &Host,
        _: String,
        caches: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<String>, Unreachable>> {
        Box::pin(async {
            tokio::task::yield_now().await;
            Ok(caches)
        })
    }
}

/// What one release took.
#[derive(Debug, Serialize, Deserialize)]
struct Cost {
    plan_seconds: f64,
    seconds: f64,
    records: u64,
    commits: u64,
    journal_bytes: u64,
    peak_memory_kb: u64,
}

pub(crate) fn measure(places: &Places, figures: &mut Vec<Figure>) -> Result<()> {
    for instances in SIZES {
        let costs: Vec<Cost> = (0..REPETITIONS)
            .map(|number| in_a_process(places, instances, number))
            .collect::<Result<_>>()?;
        figures.extend(lines(instances, &costs));
    }
    Ok(())
}

fn lines(instances: usize, costs: &[Cost]) -> Vec<Figure> {
    let is_largest = Some(&instances) == SIZES.last();
    let name = format!("release over {instances} simulated instances");
    let sample = |of: fn(&Cost) -> f64| Sample::of(costs.iter().map(of));
    let seconds = sample(|cost| cost.seconds);
    let memory = sample(|cost| cost.peak_memory_kb as f64 / 1e3);
    let records = sample(|cost| cost.records as f64).median();
    let commits = sample(|cost| cost.commits as f64).median();
    let mut wall = Figure::new(
        format!("{name}: time"),
        seconds.median(),
        "s",
        format!("open and drive 5 hooks, DownloadBundle and Install each, 10% at a time; {records} records in {commits} commits"),
    )
    .with("min", seconds.min())
    .with("records/s", records / seconds.median())
    .with("plan s", sample(|cost| cost.plan_seconds).median());
    let mut peak = Figure::new(
        format!("{name}: peak memory"),
        memory.median(),
        "MB",
        "VmHWM of a process that reads the workspace, plans and drives",
    );
    if is_largest {
        wall = wall.at_most(MOST_SECONDS);
        peak = peak.at_most(MOST_MEMORY);
    }
    let bytes = sample(|cost| cost.journal_bytes as f64).median();
    let journal = Figure::new(
        format!("{name}: journal"),
        bytes / 1e6,
        "MB",
        "file and write-ahead log, the release before it left out",
    )
    .with("bytes per record", bytes / records);
    vec![wall, peak, journal]
}

fn in_a_process(places: &Places, instances: usize, number: usize) -> Result<Cost> {
    let folder = places
        .folder
        .join(format!("simulated-{instances}-{number}"));
    let run = || -> Result<Cost> {
        let output = Command::new(std::env::current_exe()?)
            .arg("simulate")
            .arg(instances.to_string())
            .arg(&folder)
            .env("CUTOVER_PLUGIN_PATH", &places.plugins)
            .output()
            .context("start this program again")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "simulate {instances} instances: {said}"
        );
        serde_json::from_slice(&output.stdout).context("read what the release took")
    };
    // The first installs what the second replaces, and compiles what that finds compiled.
    run()?;
    let cost = run()?;
    Ok(cost)
}

/// Drives one release and prints what it took. The first one in a folder makes the workspace, so the second one has
/// versions to leave.
pub(crate) fn simulate(instances: usize, folder: &Path) -> Result<()> {
    let file = folder.join("cutover.yaml");
    let workspace = if file.exists() {
        Workspace {
            folder: folder.to_owned(),
        }
    } else {
        let rest = "        strategy: {type: rolling, concurrency: 10%}\n";
        let workspace = Workspace::make(folder.to_owned(), instances, "", rest)?;
        let hooks = [
            "ApplicationStop",
            "BeforeInstall",
            "AfterInstall",
            "ApplicationStart",
            "ValidateService",
        ];
        workspace.package("package", &hooks.map(|event| (event, 1)), "#!/bin/sh\n")?;
        workspace
    };
    let before = journal_bytes(&workspace)?;
    let (mut cost, conductor) = workspace::runtime()?.block_on(async {
        let conductor = workspace.conductor(Arc::new(SimulatedFleet))?;
        let began = Instant::now();
        let planned = workspace::plan(&conductor, &workspace.path("package")).await?;
        let plan_seconds = began.elapsed().as_secs_f64();
        let release = planned.release.id.clone();
        let commits = conductor.journal().stats().commits;
        let seconds = workspace::drive(&conductor, planned).await?.as_secs_f64();
        let cost = Cost {
            plan_seconds,
            seconds,
            records: 0,
            commits: conductor.journal().stats().commits - commits,
            journal_bytes: 0,
            // Before anything that only this measurement does.
            peak_memory_kb: peak_memory_kb()?,
        };
        let records = conductor.journal().records(&release, 0)?.len() as u64;
        anyhow::Ok((Cost { records, ..cost }, conductor))
    })?;
    // Closing folds the write-ahead log into the file.
    drop(conductor);
    cost.journal_bytes = journal_bytes(&workspace)?.saturating_sub(before);
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

pub(crate) fn journal_bytes(workspace: &Workspace) -> Result<u64> {
    let mut bytes = 0;
    for name in ["journal.db", "journal.db-wal"] {
        let path = workspace.path(".cutover").join(name);
        if path.exists() {
            bytes += fs::metadata(path)?.len();
        }
    }
    Ok(bytes)
}

pub(crate) fn peak_memory_kb() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number
        .context("find `VmHWM` in `/proc/self/status`")?
        .parse()?)
}
