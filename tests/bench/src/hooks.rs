//! What a hook costs beside a plain shell loop that runs the same scripts.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use conductor::{Conductor, Planned};
use fleet::LocalFleet;
use model::{DeploymentId, Direction, LifecycleEvent, Target};

use crate::Places;
use crate::figure::{Figure, Sample};
use crate::workspace::{self, Workspace};

/// Seven lifecycle events that only run hooks.
const SEVEN: [LifecycleEvent; 7] = [
    LifecycleEvent::BeforeBlockTraffic,
    LifecycleEvent::AfterBlockTraffic,
    LifecycleEvent::ApplicationStop,
    LifecycleEvent::BeforeInstall,
    LifecycleEvent::AfterInstall,
    LifecycleEvent::ApplicationStart,
    LifecycleEvent::ValidateService,
];

/// Seven scripts in the five hooks that a group without a load balancer has.
const FIVE: [(&str, usize); 5] = [
    ("ApplicationStop", 1),
    ("BeforeInstall", 1),
    ("AfterInstall", 2),
    ("ApplicationStart", 2),
    ("ValidateService", 1),
];

/// A fleet size with its targets.
struct Case {
    instances: usize,
    concurrency: usize,
    repetitions: usize,
    /// How many times the loop's time a release may take.
    most: f64,
}

pub(crate) fn measure(places: &Places, figures: &mut Vec<Figure>) -> Result<()> {
    for case in [
        Case {
            instances: 1,
            concurrency: 1,
            repetitions: 31,
            most: 2.0,
        },
        Case {
            instances: 50,
            concurrency: 10,
            repetitions: 7,
            most: 1.3,
        },
    ] {
        figures.extend(case.measure(places)?);
    }
    Ok(())
}

impl Case {
    fn measure(&self, places: &Places) -> Result<Vec<Figure>> {
        let runtime = workspace::runtime()?;
        let driven = Driven::prepare(self, places, &runtime)?;
        let program = Program::prepare(self, places, &FIVE)?;
        let bare = Program::prepare(self, places, &[])?;
        let count = self.instances * SEVEN.len();
        let (mut loops, mut drives) = (Vec::new(), Vec::new());
        let (mut programs, mut bares) = (Vec::new(), Vec::new());
        for _ in 0..self.repetitions {
            // One after the other, so that whatever else the machine does falls on all of them.
            loops.push(driven.shell_loop.run(count)?);
            drives.push(driven.run(&runtime, count)?);
            programs.push(program.run(places, count)?);
            bares.push(bare.run(places, 0)?);
        }
        // Everything but the hooks is in a release without hooks as well.
        let differences: Vec<Duration> = programs
            .iter()
            .zip(&bares)
            .map(|(with, without)| with.saturating_sub(*without))
            .collect();
        let name = match self.instances {
            1 => "one instance, 7 hooks".to_owned(),
            many => format!(
                "{many} instances, {} at a time, {count} hooks",
                self.concurrency
            ),
        };
        let beside = |times: &[Duration]| {
            let ratios = times
                .iter()
                .zip(&loops)
                .map(|(time, one)| time.as_secs_f64() / one.as_secs_f64());
            Sample::of(ratios).median()
        };
        let line = |what: &str, times: &[Duration], contains: &str| {
            let times = Sample::of_times(times);
            let each = times.median() * 1e3 / count as f64;
            Figure::milliseconds(format!("{name}: {what}"), &times, contains).with("per hook", each)
        };
        Ok(vec![
            line("shell loop", &loops, "one `sh` that starts each script in turn"),
            line(
                "release, driven",
                &drives,
                "journal, agent and hooks, from opening the release to its last record; the process, its agent and the \
                 package are there already",
            )
            .ratio_at_most(beside(&drives), self.most),
            line(
                "release, `cutover deploy`",
                &programs,
                "the whole program: start, plan, fetch, start of the agent, per instance DownloadBundle and Install with \
                 their flushes, and 7 scripts in 5 hooks",
            )
            .ratio(beside(&programs)),
            line(
                "the same without hooks",
                &bares,
                "a package that binds no script: what the shell loop has nothing of",
            ),
            line(
                "the difference",
                &differences,
                "what the scripts add to the whole program, pair by pair",
            )
            .ratio_at_most(beside(&differences), self.most),
        ])
    }

    fn group(&self) -> String {
        format!(
            "        strategy: {{type: rolling, concurrency: {}}}\n",
            self.concurrency
        )
    }
}

/// The scripts as a shell runs them.
struct ShellLoop {
    file: PathBuf,
    trace: PathBuf,
}

impl ShellLoop {
    fn write(
        workspace: &Workspace,
        scripts: &[PathBuf],
        times: usize,
        trace: PathBuf,
    ) -> Result<Self> {
        let once: String = scripts
            .iter()
            .map(|script| format!("'{}'\n", script.display()))
            .collect();
        workspace.write("loop.sh", &once.repeat(times))?;
        Ok(Self {
            file: workspace.path("loop.sh"),
            trace,
        })
    }

    fn run(&self, count: usize) -> Result<Duration> {
        let began = Instant::now();
        let status = Command::new("/bin/sh")
            .arg(&self.file)
            .stdin(Stdio::null())
            .status()
            .context("run `/bin/sh`")?;
        let took = began.elapsed();
        ensure!(status.success(), "the shell loop ended with {status}");
        expect_lines(&self.trace, count)?;
        Ok(took)
    }
}

/// Checks that every script ran once, and forgets it.
fn expect_lines(trace: &PathBuf, count: usize) -> Result<()> {
    let lines = fs::read_to_string(trace)
        .context("read what the scripts left")?
        .lines()
        .count();
    ensure!(lines == count, "{lines} scripts ran instead of {count}");
    Ok(fs::remove_file(trace)?)
}

fn script(trace: &std::path::Path) -> String {
    format!("#!/bin/sh\necho line >> '{}'\n", trace.display())
}

/// Releases in this process.
struct Driven {
    conductor: Conductor,
    package: PathBuf,
    shell_loop: ShellLoop,
    /// The deployment whose package is in every instance's cache.
    cached: DeploymentId,
}

impl Driven {
    fn prepare(case: &Case, places: &Places, runtime: &tokio::runtime::Runtime) -> Result<Self> {
        let folder = places.folder.join(format!("driven-{}", case.instances));
        let workspace = Workspace::make(folder, case.instances, "", &case.group())?;
        let trace = workspace.path("trace");
        let hooks = SEVEN.map(|event| (event.name(), 1));
        let scripts = workspace.package("package", &hooks, &script(&trace))?;
        let shell_loop = ShellLoop::write(&workspace, &scripts, case.instances, trace.clone())?;
        let agent = vec![places.cutover.clone().into(), "agent".into(), "run".into()];
        let package = workspace.path("package");
        // A fleet belongs to the runtime that it was first used in.
        let (conductor, cached) = runtime.block_on(async {
            let conductor = workspace.conductor(Arc::new(LocalFleet::new(agent)))?;
            let planned = workspace::plan(&conductor, &package).await?;
            let cached = planned.deployment.id.clone();
            workspace::drive(&conductor, planned).await?;
            anyhow::Ok((conductor, cached))
        })?;
        fs::remove_file(&trace)?;
        Ok(Self {
            conductor,
            package,
            shell_loop,
            cached,
        })
    }

    fn run(&self, runtime: &tokio::runtime::Runtime, count: usize) -> Result<Duration> {
        let took = runtime.block_on(async {
            let planned = workspace::plan(&self.conductor, &self.package).await?;
            workspace::drive(&self.conductor, self.hooks_alone(planned)).await
        })?;
        expect_lines(&self.shell_loop.trace, count)?;
        Ok(took)
    }

    /// The seven hooks alone, of the package that the instances have, and nothing installed.
    fn hooks_alone(&self, mut planned: Planned) -> Planned {
        let deployment = &mut planned.deployment;
        deployment.direction = Direction::Operate;
        deployment.sequence = SEVEN.to_vec();
        deployment.packages.retain(|key, _| *key == self.cached);
        for target in &mut deployment.targets {
            *target = Arc::new(Target {
                instance: target.instance.clone(),
                outgoing: Some(self.cached.clone()),
                incoming: self.cached.clone(),
            });
        }
        planned
    }
}

/// Releases by the program.
struct Program {
    workspace: Workspace,
    trace: PathBuf,
}

impl Program {
    fn prepare(case: &Case, places: &Places, hooks: &[(&str, usize)]) -> Result<Self> {
        let kind = if hooks.is_empty() { "bare" } else { "program" };
        let folder = places.folder.join(format!("{kind}-{}", case.instances));
        let workspace = Workspace::make(folder, case.instances, "", &case.group())?;
        let trace = workspace.path("trace");
        workspace.package("package", hooks, &script(&trace))?;
        // The first has nothing to stop; it also compiles what the others find compiled.
        workspace.timed_deploy(places, "package")?;
        if !hooks.is_empty() {
            fs::remove_file(&trace)?;
        }
        Ok(Self { workspace, trace })
    }

    fn run(&self, places: &Places, count: usize) -> Result<Duration> {
        let took = self.workspace.timed_deploy(places, "package")?;
        if count > 0 {
            expect_lines(&self.trace, count)?;
        }
        Ok(took)
    }
}
