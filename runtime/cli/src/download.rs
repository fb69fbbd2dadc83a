//! What is shown while a package is fetched: a bar for a download, and what a build prints.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use conductor::{OnProgress, Progress};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use report::{Line, Tone};

use crate::ui::Ui;

/// Shows how far the fetching of a package has come.
pub(crate) fn progress(ui: Ui) -> OnProgress {
    let download = download(ui);
    let build = build(ui);
    Arc::new(move |progress| match progress {
        Progress::Download { done, total, .. } => download(*done, *total),
        Progress::BuildBegun { .. }
        | Progress::BuildSaid { .. }
        | Progress::BuildEnded { .. }
        | Progress::BuiltBefore { .. } => build(progress),
    })
}

/// A bar for an archive, from the first time that it is not there yet. On a terminal only.
fn download(ui: Ui) -> impl Fn(u64, Option<u64>) {
    let shown = OnceLock::new();
    move |done, total| {
        let is_whole = total == Some(done);
        if !ui.is_live() || is_whole && shown.get().is_none() {
            return;
        }
        let bar: &ProgressBar = shown.get_or_init(bar);
        match total {
            Some(total) => bar.set_length(total),
            None => bar.unset_length(),
        }
        bar.set_position(done);
        if is_whole {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length().with_finish(ProgressFinish::AndClear);
    if let Ok(style) = ProgressStyle::with_template(
        "{prefix:>11} [{bar:30}] {bytes}/{total_bytes}  {bytes_per_sec}",
    ) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix("fetching");
    bar
}

/// The lines of a build as they come; on a terminal the last one alone, unless all are asked for.
fn build(ui: Ui) -> impl Fn(&Progress) {
    let last: Mutex<Option<ProgressBar>> = Mutex::default();
    move |progress| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::BuildBegun { reference, log } => {
                tell(ui, "building", reference, &format!("log {}", log.display()));
                *last = (ui.is_live() && !ui.verbose).then(spinner);
            }
            Progress::BuildSaid { line } => match &*last {
                Some(spinner) => spinner.set_message(line.clone()),
                None => ui.build_line(line),
            },
            Progress::BuildEnded { .. } => {
                if let Some(spinner) = last.take() {
                    spinner.finish_and_clear();
                }
            }
            Progress::BuiltBefore { reference } => {
                tell(ui, "reusing", reference, "as it was built before");
            }
            Progress::Download { .. } => {}
        }
    }
}

fn tell(ui: Ui, verb: &'static str, target: &str, detail: &str) {
    let line = Line {
        tone: Tone::Plain,
        verb,
        target: target.to_owned(),
        detail: detail.to_owned(),
        took: None,
    };
    ui.progress(&line, 0);
}

fn spinner() -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
    if let Ok(style) = ProgressStyle::with_template("{prefix:>11} {elapsed} {wide_msg}") {
        spinner.set_style(style);
    }
    spinner.set_prefix("building");
    spinner.enable_steady_tick(std::time::Duration::from_millis(200));
    spinner
}
