//! A bar for the download of a package, on a terminal.

use std::sync::{Arc, OnceLock};

use conductor::OnProgress;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::ui::Ui;

/// Shows how far a download has come, from the first time that it is not there yet.
pub(crate) fn progress(ui: Ui) -> OnProgress {
    if !ui.is_live() {
        return Arc::new(|_| {});
    }
    let shown = OnceLock::new();
    Arc::new(move |progress| {
        let is_whole = progress.total == Some(progress.done);
        if is_whole && shown.get().is_none() {
            return;
        }
        let bar: &ProgressBar = shown.get_or_init(bar);
        match progress.total {
            Some(total) => bar.set_length(total),
            None => bar.unset_length(),
        }
        bar.set_position(progress.done);
        if is_whole {
            bar.finish_and_clear();
        }
    })
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
