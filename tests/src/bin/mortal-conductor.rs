//! A conductor that kills itself when a record of its release has become durable, before any action that the record
//! authorises: `mortal-conductor WORKSPACE GROUP PACKAGE VERSION RECORD CUTOVER [SIGNAL]`. RECORD is a number, or
//! a lifecycle event, `blocking`, `validating`, `allowing`, `switch-started` or `switch-ended` for the first of its kind. SIGNAL is KILL when it is
//! left out; with STOP it goes on when it is told to. It ends well when the release does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use conductor::{Choices, Conductor, DeployRequest, Observer, Options, Place, Plugins};
use engine::State;
use model::{Fact, LifecycleEvent, Record, ReleaseStatus, StopFailures, Version};

type Failure = Box<dyn std::error::Error>;

/// The record after which it dies.
enum Last {
    /// The one with this number, or a later one.
    Number(u64),
    /// The first step at an event.
    Step(LifecycleEvent),
    SwitchStarted,
    SwitchEnded,
}

impl Last {
    fn parse(text: &str) -> Result<Self, Failure> {
        Ok(match text {
            "blocking" => Self::Step(LifecycleEvent::BlockTraffic),
            "validating" => Self::Step(LifecycleEvent::ValidateService),
            "allowing" => Self::Step(LifecycleEvent::AllowTraffic),
            "switch-started" => Self::SwitchStarted,
            "switch-ended" => Self::SwitchEnded,
            text => match LifecycleEvent::from_name(text) {
                Some(event) => Self::Step(event),
                None => Self::Number(text.parse()?),
            },
        })
    }

    fn is(&self, record: &Record) -> bool {
        match self {
            Self::Number(number) => record.seq >= *number,
            Self::Step(last) => {
                matches!(&record.fact, Fact::StepStarted { event, .. } if event == last)
            }
            Self::SwitchStarted => matches!(record.fact, Fact::SwitchStarted { .. }),
            Self::SwitchEnded => matches!(record.fact, Fact::SwitchEnded { .. }),
        }
    }
}

/// Dies when that record has been appended.
struct Mortal {
    last: Last,
    signal: String,
    is_done: AtomicBool,
}

impl Observer for Mortal {
    fn records(&self, _: &State, records: &[Record]) {
        let is_time = records.iter().any(|record| self.last.is(record));
        if is_time && !self.is_done.swap(true, Ordering::SeqCst) {
            // As the kernel would: nothing of this process runs after it, until it is told to go on.
            let _ = std::process::Command::new("kill")
                .args([
                    &format!("-{}", self.signal),
                    &std::process::id().to_string(),
                ])
                .status();
            if self.signal == "KILL" {
                std::thread::park();
            }
        }
    }

    fn waiting(&self, _: &Place, _: LifecycleEvent, _: &str) {}

    fn output(&self, _: &Place, _: &'static str, _: &[u8]) {}
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, group, package, version, last, cutover, signal @ ..] = arguments.as_slice() else {
        return Err(
            "usage: mortal-conductor WORKSPACE GROUP PACKAGE VERSION RECORD CUTOVER [SIGNAL]"
                .into(),
        );
    };
    let folder = std::path::absolute(Path::new(file))?
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default();
    let workspace = spec::workspace::parse(&std::fs::read_to_string(file)?, Path::new(file))?.value;
    let state: PathBuf = folder.join(".cutover");
    let host = plugin_host::Host::new(plugin_host::HostOptions::new(state.join("compiled")))?;
    let agent = [cutover.as_str(), "agent", "run"].map(Into::into).to_vec();
    let conductor = Conductor::new(Options {
        plugins: Plugins::new(host, &workspace, folder),
        workspace,
        journal: journal::Journal::open(&state.join("journal.db"))?,
        fleet: Arc::new(fleet::LocalFleet::new(agent)),
        state,
        operator: "mortal@test".to_owned(),
    });
    let planned = conductor
        .plan_deploy(DeployRequest {
            group: group.parse()?,
            package: package.clone(),
            version: Some(Version::parse(version)?),
            digest: None,
            choices: Choices::default(),
            stop_failures: StopFailures::Fail,
            comment: String::new(),
        })
        .await?;
    let running = conductor.open(planned)?;
    let (_commands, listening) = tokio::sync::mpsc::channel(1);
    let state = running
        .drive(
            Arc::new(Mortal {
                last: Last::parse(last)?,
                signal: signal.first().cloned().unwrap_or("KILL".to_owned()),
                is_done: AtomicBool::new(false),
            }),
            listening,
        )
        .await?;
    if state.status == ReleaseStatus::Succeeded {
        Ok(())
    } else {
        Err(state.status.to_string().into())
    }
}
