//! What hooks print, kept beside the journal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::{DeploymentId, InstanceId, LifecycleEvent};

use crate::{Observer, Place};

/// The folder of all logs: `DEPLOYMENT/INSTANCE/EVENT.ATTEMPT.log`.
#[derive(Debug, Clone)]
pub struct Logs {
    folder: PathBuf,
}

/// One stored log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub instance: InstanceId,
    pub event: LifecycleEvent,
    pub attempt: u32,
    pub path: PathBuf,
}

impl Logs {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the log of an attempt is, whether it exists or not. A stage is a lifecycle event, or `SwitchTraffic`.
    #[must_use]
    pub fn path(
        &self,
        deployment: &DeploymentId,
        instance: &InstanceId,
        stage: &str,
        attempt: u32,
    ) -> PathBuf {
        self.folder
            .join(deployment.as_str())
            .join(instance.as_str())
            .join(format!("{stage}.{attempt}.log"))
    }

    /// Removes all logs of a deployment.
    pub(crate) fn remove(&self, deployment: &DeploymentId) -> io::Result<()> {
        match fs::remove_dir_all(self.folder.join(deployment.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All logs of a deployment: by instance, then by event in the canonical order, then by attempt.
    ///
    /// # Errors
    /// An I/O error other than that there are none.
    pub fn of(&self, deployment: &DeploymentId) -> io::Result<Vec<Log>> {
        let folder = self.folder.join(deployment.as_str());
        let mut logs = Vec::new();
        for instance in entries(&folder)? {
            let Some(id) = instance
                .file_name()
                .and_then(|name| InstanceId::parse(name.to_str()?).ok())
            else {
                continue;
            };
            for path in entries(&instance)? {
                if let Some((event, attempt)) = parse_name(&path) {
                    logs.push(Log {
                        instance: id.clone(),
                        event,
                        attempt,
                        path,
                    });
                }
            }
        }
        logs.sort_by(|a, b| {
            (&a.instance, a.event, a.attempt).cmp(&(&b.instance, b.event, b.attempt))
        });
        Ok(logs)
    }
}

fn parse_name(path: &Path) -> Option<(LifecycleEvent, u32)> {
    let (event, attempt) = path
        .file_name()?
        .to_str()?
        .strip_suffix(".log")?
        .split_once('.')?;
    Some((LifecycleEvent::from_name(event)?, attempt.parse().ok()?))
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Writes one attempt's log as the agent streams it. The file is made with the first byte. It is a copy: when it
/// cannot be written the release goes on, and the original is still on the instance.
pub(crate) struct Sink {
    path: PathBuf,
    position: Mutex<Position>,
    place: Place,
    stage: &'static str,
    observer: Arc<dyn Observer>,
}

struct Position {
    offset: u64,
    file: Option<File>,
}

impl Sink {
    pub(crate) fn new(
        path: PathBuf,
        place: Place,
        stage: &'static str,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let offset = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self {
            path,
            position: Mutex::new(Position { offset, file: None }),
            place,
            stage,
            observer,
        }
    }

    /// Adds a line of the conductor's own.
    pub(crate) fn say(&self, line: &str) {
        let line = format!("{line}\n");
        fleet::LogSink::append(self, fleet::LogSink::position(self), line.as_bytes());
    }

    /// The log's path, where there is anything in it.
    pub(crate) fn written(&self) -> Option<String> {
        let position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        (position.offset > 0).then(|| self.path.display().to_string())
    }

    fn write(&self, position: &mut Position, bytes: &[u8]) -> io::Result<()> {
        if position.file.is_none() {
            let open = || {
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&self.path)
            };
            let file = match (open(), self.path.parent()) {
                (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(folder)?;
                    open()
                }
                (opened, _) => opened,
            };
            position.file = Some(file?);
        }
        position
            .file
            .as_mut()
            .map_or(Ok(()), |file| file.write_all(bytes))
    }
}

impl fleet::LogSink for Sink {
    fn position(&self) -> u64 {
        self.position
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .offset
    }

    fn append(&self, offset: u64, bytes: &[u8]) {
        let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        // A resumed conductor may be sent what it has; the rest follows on.
        let known = usize::try_from(position.offset.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(bytes) = bytes.get(known..).filter(|rest| !rest.is_empty()) else {
            return;
        };
        if let Err(error) = self.write(&mut position, bytes) {
            tracing::warn!(path = %self.path.display(), %error, "cannot keep a hook's output");
        }
        position.offset = offset.max(position.offset) + bytes.len() as u64;
        self.observer.output(&self.place, self.stage, bytes);
    }

    fn waiting(&self, what: &str) {
        // A switch of traffic is not a lifecycle event, and waits for nothing on an instance.
        if let Some(event) = LifecycleEvent::from_name(self.stage) {
            self.observer.waiting(&self.place, event, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet::LogSink;

    use super::*;
    use crate::Silent;

    fn sink(path: &Path) -> Sink {
        let place = Place {
            deployment: DeploymentId::parse("r-1").unwrap(),
            instance: InstanceId::parse("web-1").unwrap(),
        };
        Sink::new(
            path.to_owned(),
            place,
            LifecycleEvent::Install.name(),
            Arc::new(Silent),
        )
    }

    #[test]
    fn a_resumed_log_holds_every_byte_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d/web-1/Install.1.log");
        sink(&path).append(0, b"one\ntw");

        let resumed = sink(&path);
        resumed.append(0, b"one\ntwo\n");
        resumed.append(8, b"three\n");

        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(resumed.position(), 14);
    }

    #[test]
    fn a_silent_hook_leaves_no_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Install.1.log");

        let silent = sink(&path);

        assert_eq!(silent.written(), None);
        assert!(!path.exists());
    }

    #[test]
    fn logs_are_listed_in_the_order_of_events_and_attempts() {
        let folder = tempfile::tempdir().unwrap();
        let logs = Logs::new(folder.path().to_owned());
        let deployment = DeploymentId::parse("r-1").unwrap();
        for name in [
            "web-1/ValidateService.1.log",
            "web-1/Install.2.log",
            "web-1/Install.1.log",
            "web-1/notes.txt",
        ] {
            let path = folder.path().join("r-1").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }

        let found = logs.of(&deployment).unwrap();

        let found: Vec<_> = found
            .iter()
            .map(|log| (log.event.name(), log.attempt))
            .collect();
        assert_eq!(
            found,
            [("Install", 1), ("Install", 2), ("ValidateService", 1)]
        );
    }
}
