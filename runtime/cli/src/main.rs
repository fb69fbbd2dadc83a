//! The `cutover` program: wires the layers together and turns their answers into text, JSON and exit statuses.

mod args;
mod commands;
mod download;
mod failure;
mod progress;
mod script_log;
mod standing;
mod ui;
mod workspace;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use args::{Arguments, Command};
use clap::Parser;
use failure::{Failure, Kind};
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use ui::Ui;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ui = Ui::new(&arguments.global);
    // A panic is a bug, and has an exit status for it. Its message is on stderr already.
    let done = panic::catch_unwind(AssertUnwindSafe(|| run(ui, arguments)))
        .unwrap_or_else(|_| Err(Failure::new(Kind::Bug, "cutover panicked")));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui.failure(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

fn run(ui: Ui, arguments: Arguments) -> Result<(), Failure> {
    // The agent forks: nothing may have started a thread before it.
    if let Command::Agent(command) = &arguments.command {
        return commands::agent::run(command);
    }
    trace();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::Bug, error))?;
    runtime.block_on(dispatch(ui, arguments))
}

async fn dispatch(ui: Ui, arguments: Arguments) -> Result<(), Failure> {
    let config = arguments.global.config.as_deref();
    match arguments.command {
        Command::Init(init) => commands::init::run(ui, &init),
        Command::Check(check) => commands::check::run(ui, config, &check).await,
        Command::Schema(schema) => {
            commands::schema::run(ui, &schema);
            Ok(())
        }
        Command::Deploy(deploy) => commands::deploy::run(ui, config, deploy).await,
        Command::Run(run) => commands::run::run(ui, config, run).await,
        Command::Local(local) => commands::local::run(ui, local).await,
        Command::Rollback(rollback) => commands::rollback::run(ui, config, rollback).await,
        Command::Promote(id) => commands::order::promote(ui, config, &id).await,
        Command::Weight(weight) => commands::order::weight(ui, config, &weight).await,
        Command::Approve(approve) => commands::order::approve(ui, config, approve).await,
        Command::Reject(reject) => commands::order::reject(ui, config, reject).await,
        Command::Skip(skip) => commands::order::skip(ui, config, skip).await,
        Command::Pause(pause) => commands::pause::run(ui, config, &pause).await,
        Command::Redeploy(redeploy) => commands::redeploy::run(ui, config, redeploy).await,
        Command::Retry(retry) => commands::retry::run(ui, config, retry).await,
        Command::Resume(resume) => commands::resume::run(ui, config, &resume).await,
        Command::Stop(stop) => commands::stop::run(ui, config, &stop).await,
        Command::Delete(delete) => commands::delete::run(ui, config, &delete),
        Command::Ls(ls) => commands::ls::run(ui, config, &ls),
        Command::Show(id) => commands::show::run(ui, config, &id),
        Command::Report(report) => commands::report::run(ui, config, &report),
        Command::Logs(logs) => commands::logs::run(ui, config, &logs),
        Command::Watch(id) => commands::watch::run(ui, config, &id).await,
        Command::History(history) => commands::history::run(ui, config, &history),
        Command::Lock(lock) => commands::lock::run(ui, config, &lock).await,
        Command::Plugin(plugin) => commands::plugin::run(ui, config, &plugin).await,
        Command::Completions(completions) => {
            commands::completions::run(ui, &completions);
            Ok(())
        }
        Command::Man(man) => commands::man::run(ui, &man),
        Command::Agent(command) => commands::agent::run(&command),
    }
}

/// Tracing is for us: off unless `CUTOVER_LOG` asks for it, for example `CUTOVER_LOG=debug`.
fn trace() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("CUTOVER_LOG") {
        tracing_subscriber::registry()
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
            .with(filter)
            .with(filter_fn(may_be_logged))
            .init();
    }
}

/// The generated bindings of WASI print the arguments of every call at this level: the query and the names of the headers
/// of each request that a plugin makes. No filter brings them back, because what plugins are given is never logged.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    *metadata.level() < Level::TRACE || !metadata.target().starts_with("wasmtime_wasi")
}
