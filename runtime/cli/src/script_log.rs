//! One file with what all scripts of a deployment print.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use conductor::{Observer, Place};
use engine::State;
use model::{LifecycleEvent, Record};

use crate::progress::Progress;

/// Keeps what all scripts of one deployment print in one file, in the order in which it comes.
pub(crate) struct ScriptLog {
    path: PathBuf,
    progress: Arc<Progress>,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    file: Option<File>,
    stage: &'static str,
}

impl ScriptLog {
    pub(crate) fn new(path: PathBuf, progress: Arc<Progress>) -> Self {
        Self {
            path,
            progress,
            written: Mutex::default(),
        }
    }

    fn write(
        &self,
        written: &mut Written,
        stage: &'static str,
        bytes: &[u8],
    ) -> std::io::Result<()> {
        let file = match &mut written.file {
            Some(file) => file,
            none => {
                if let Some(folder) = self.path.parent() {
                    fs::create_dir_all(folder)?;
                }
                none.insert(File::create(&self.path)?)
            }
        };
        if written.stage != stage {
            written.stage = stage;
            writeln!(file, "--- {stage}")?;
        }
        file.write_all(bytes)
    }
}

impl Observer for ScriptLog {
    fn records(&self, state: &State, records: &[Record]) {
        self.progress.records(state, records);
    }

    fn waiting(&self, place: &Place, event: LifecycleEvent, what: &str) {
        self.progress.waiting(place, event, what);
    }

    fn output(&self, place: &Place, stage: &'static str, bytes: &[u8]) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // It is a copy: the attempt's own log is on the instance.
        if let Err(error) = self.write(&mut written, stage, bytes) {
            tracing::warn!(path = %self.path.display(), %error, "cannot keep what a script printed");
        }
        drop(written);
        self.progress.output(place, stage, bytes);
    }
}
