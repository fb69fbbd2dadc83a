//! What release plans take as they grow, and what a resume takes after a crash at their end: the real planning, engine,
//! journal and loop, over instances that answer at once.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conductor::{Command as Told, Conductor, Silent};
use fleet::{BoxFuture, Fleet, LogSink, Unreachable};
use model::{Ending, Host, ReleaseId, ReleaseStatus};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use crate::Places;
use crate::figure::{Figure, Sample};
use crate::scale::{journal_bytes, peak_memory_kb};
use crate::workspace::{self, Workspace};

/// Services and instances of each. An instance without an earlier version takes six steps.
const SIZES: [(usize, usize); 4] = [(5, 34), (50, 34), (50, 200), (50, 334)];
const STEPS: usize = 6;
const REPETITIONS: usize = 3;
/// The longest resume after a crash at the end of the largest plan, in seconds.
const MOST_SECONDS_OF_RESUME: f64 = 2.0;

/// Instances that are not there: each answers at its next turn that all is well, but for the last step of the last one,
/// whose answer never comes.
struct SimulatedFleet {
    last: String,
    /// The last step has been asked for.
    is_asked: Notify,
    answers: AtomicBool,
}

impl SimulatedFleet {
    fn new(services: usize, instances: usize) -> Arc<Self> {
        Arc::new(Self {
            last: format!(".s{services}-{instances}.ValidateService.1"),
            is_asked: Notify::new(),
            answers: AtomicBool::new(false),
        })
    }
}

impl Fleet for SimulatedFleet {
    fn run(
        &self,
        _: &Host,
        command: fleet::Command,
        _: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Ending> {
        let is_last = command.attempt.as_str().ends_with(&self.last);
        if is_last {
            self.is_asked.notify_one();
        }
        let answers = !is_last || self.answers.load(Ordering::SeqCst);
        Box::pin(async move {
            if !answers {
                std::future::pending::<()>().await;
            }
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

/// What one plan took.
#[derive(Debug, Serialize, Deserialize)]
struct Cost {
    plan_seconds: f64,
    seconds: f64,
    resume_seconds: f64,
    records: u64,
    journal_bytes: u64,
    peak_memory_kb: u64,
}

pub(crate) fn measure(places: &Places, figures: &mut Vec<Figure>) -> Result<()> {
    for (services, instances) in SIZES {
        let costs: Vec<Cost> = (0..REPETITIONS)
            .map(|number| in_a_process(places, services, instances, number))
            .collect::<Result<_>>()?;
        figures.extend(lines(services, instances, &costs));
    }
    Ok(())
}

fn lines(services: usize, instances: usize, costs: &[Cost]) -> [Figure; 4] {
    let steps = services * instances * STEPS;
    let name = format!("plan of {services} services x {instances} instances, {steps} steps");
    let sample = |of: fn(&Cost) -> f64| Sample::of(costs.iter().map(of));
    let seconds = sample(|cost| cost.seconds);
    let records = sample(|cost| cost.records as f64).median();
    let memory = sample(|cost| cost.peak_memory_kb as f64 / 1e3).median();
    let bytes = sample(|cost| cost.journal_bytes as f64).median();
    let resume = sample(|cost| cost.resume_seconds).median();
    let wall = Figure::new(
        format!("{name}: time"),
        seconds.median(),
        "s",
        format!(
            "open and drive, ten priorities, all instances of a service at once; {records} records"
        ),
    )
    .with("min", seconds.min())
    .with("µs per step", seconds.median() * 1e6 / steps as f64)
    .with("plan s", sample(|cost| cost.plan_seconds).median());
    let peak = Figure::new(
        format!("{name}: peak memory"),
        memory,
        "MB",
        "VmHWM of a process that reads the workspace, plans and drives",
    )
    .with("kB per step", memory * 1e3 / steps as f64);
    let journal = Figure::new(
        format!("{name}: journal"),
        bytes / 1e6,
        "MB",
        "file and write-ahead log",
    )
    .with("bytes per step", bytes / steps as f64);
    let mut resume = Figure::new(
        format!("{name}: resume after a crash at its last step"),
        resume,
        "s",
        "from opening the journal until the step is asked for again",
    );
    if Some(&(services, instances)) == SIZES.last() {
        resume = resume.at_most(MOST_SECONDS_OF_RESUME);
    }
    [wall, peak, journal, resume]
}

fn in_a_process(places: &Places, services: usize, instances: usize, number: usize) -> Result<Cost> {
    let folder = places
        .folder
        .join(format!("plan-{services}-{instances}-{number}"));
    let output = Command::new(std::env::current_exe()?)
        .arg("simulate-plan")
        .arg(services.to_string())
        .arg(instances.to_string())
        .arg(&folder)
        .env("CUTOVER_PLUGIN_PATH", &places.plugins)
        .output()
        .context("start this program again")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "simulate a plan of {services} services x {instances} instances: {said}"
    );
    serde_json::from_slice(&output.stdout).context("read what the plan took")
}

/// Drives one plan up to its last step, leaves it, takes it up again, and prints what that took.
pub(crate) fn simulate(services: usize, instances: usize, folder: &Path) -> Result<()> {
    let workspace = prepare(services, instances, folder)?;
    let runtime = workspace::runtime()?;
    let fleet = SimulatedFleet::new(services, instances);
    let (release, plan_seconds, seconds) = runtime.block_on(async {
        let conductor = workspace.conductor(fleet.clone())?;
        let file = workspace.path("plan.yaml");
        let plan = spec::release_plan::parse_bytes(&fs::read(&file)?, &file)?.value;
        let began = Instant::now();
        let planned = conductor.plan_run(&plan).await?;
        let plan_seconds = began.elapsed().as_secs_f64();
        let release = planned.release.id.clone();
        let (commands, listening) = mpsc::channel(1);
        let began = Instant::now();
        let running = conductor.open_run(planned)?;
        let driven = tokio::spawn(running.drive(Arc::new(Silent), listening));
        fleet.is_asked.notified().await;
        let seconds = began.elapsed().as_secs_f64();
        let reason = "left at its last step".to_owned();
        commands.send(Told::Interrupt { reason }).await?;
        let state = driven.await??;
        ensure!(
            state.status == ReleaseStatus::Interrupted,
            "the release is {}",
            state.status
        );
        anyhow::Ok((release, plan_seconds, seconds))
    })?;
    // Before anything that only this measurement does.
    let peak_memory_kb = peak_memory_kb()?;
    fleet.answers.store(true, Ordering::SeqCst);
    let (resumed, records) = runtime.block_on(resume(&workspace, &fleet, &release))?;
    let cost = Cost {
        plan_seconds,
        seconds,
        resume_seconds: resumed.as_secs_f64(),
        records,
        journal_bytes: journal_bytes(&workspace)?,
        peak_memory_kb,
    };
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

/// Takes the release up as another process would, and carries it to its end.
async fn resume(
    workspace: &Workspace,
    fleet: &Arc<SimulatedFleet>,
    release: &ReleaseId,
) -> Result<(Duration, u64)> {
    let began = Instant::now();
    let conductor: Conductor = workspace.conductor(fleet.clone())?;
    let running = conductor.resume(release).await?;
    let (_commands, listening) = mpsc::channel(1);
    let driven = tokio::spawn(running.drive(Arc::new(Silent), listening));
    fleet.is_asked.notified().await;
    let took = began.elapsed();
    let state = driven.await??;
    ensure!(
        state.status == ReleaseStatus::Succeeded,
        "the release is {}: {}",
        state.status,
        state.reason.unwrap_or_default()
    );
    Ok((took, state.next_seq))
}

/// A workspace of so many groups, and a plan that brings a package to all of them in ten priorities.
fn prepare(services: usize, instances: usize, folder: &Path) -> Result<Workspace> {
    let workspace = Workspace {
        folder: folder.to_owned(),
    };
    let mut groups = "applications:\n  shop:\n    groups:\n".to_owned();
    let mut plan = "deployPlanItems:\n".to_owned();
    for service in 1..=services {
        writeln!(
            groups,
            "      s{service}:\n        service_id: {service}\n        instances:"
        )?;
        for instance in 1..=instances {
            writeln!(
                groups,
                "          - {{id: s{service}-{instance}, host: \"local:\", rootdir: \"{}\"}}",
                workspace.path(&format!("s{service}-{instance}")).display()
            )?;
        }
        let priority = services.div_ceil(10).max(1);
        writeln!(
            plan,
            "  - {{serviceId: {service}, deployment: HTTP_UPLOAD_DEPLOY, priority: -{}, containerExecMethod: PARALLEL, httpSrcUri: \"file://{}\"}}",
            service / priority,
            workspace.path("package").display()
        )?;
    }
    workspace.write("cutover.yaml", &groups)?;
    workspace.write("plan.yaml", &plan)?;
    let hooks = [
        "ApplicationStop",
        "BeforeInstall",
        "AfterInstall",
        "ApplicationStart",
        "ValidateService",
    ];
    workspace.package("package", &hooks.map(|event| (event, 1)), "#!/bin/sh\n")?;
    Ok(workspace)
}
