//! `cutover:deployment-kind/target`: what a call may have done on its instance. Whether it may is decided here, by both
//! keys; doing it is somebody else's ([`Target`]). What is refused is told where everything else about the call is.

use std::sync::Arc;
use std::time::Duration;

use model::{Done, Errand, Exec, Exited, FileStat as Found, Spot, Undone, Why};
use wasmtime::component::Resource;

use crate::bindings::cutover::deployment_kind::lifecycle;
use crate::bindings::cutover::deployment_kind::target::{
    ExecOptions, ExecResult, FileStat, Host, HostHandle,
};
use crate::bindings::cutover::plugin::types::{Attribute, Failure as Told};
use crate::call::State;
use crate::capabilities::programs::is_variable;
use crate::deployment_kind::Target;
use crate::failure::{Failure, FailureClass, code};
use crate::limits;
use crate::manifest::Access;
use crate::pattern::Capability;

/// One instance, for one call.
#[allow(unreachable_pub, reason = "the generated bindings export it")]
pub struct Handle {
    pub(crate) target: Arc<dyn Target>,
}

impl lifecycle::Host for State {}

impl Host for State {}

impl HostHandle for State {
    async fn id(&mut self, handle: Resource<Handle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&handle)?.target.id())
    }

    async fn attributes(&mut self, handle: Resource<Handle>) -> wasmtime::Result<Vec<Attribute>> {
        let attributes = self.table.get(&handle)?.target.attributes();
        let attributes = attributes
            .into_iter()
            .map(|(key, value)| Attribute { key, value });
        Ok(attributes.collect())
    }

    async fn exec(
        &mut self,
        handle: Resource<Handle>,
        argv: Vec<String>,
        options: ExecOptions,
    ) -> wasmtime::Result<Result<ExecResult, Told>> {
        let target = self.target(&handle)?;
        let exec = match self.exec_errand(argv, options) {
            Ok(exec) => exec,
            Err(failure) => return Ok(Err(self.refuse(&*target, failure))),
        };
        let done = target.perform(Errand::Exec(exec)).await;
        Ok(self.answered(done, |done| match done {
            Done::Exited(exited) => Some(exec_result(exited)),
            _ => None,
        }))
    }

    async fn stat(
        &mut self,
        handle: Resource<Handle>,
        path: String,
    ) -> wasmtime::Result<Result<Option<FileStat>, Told>> {
        let target = self.target(&handle)?;
        let at = match self.spot(&path, Access::Read) {
            Ok(at) => at,
            Err(failure) => return Ok(Err(self.refuse(&*target, failure))),
        };
        let done = target.perform(Errand::Stat { at }).await;
        Ok(self.answered(done, |done| match done {
            Done::Stat(stat) => Some(stat.map(file_stat)),
            _ => None,
        }))
    }

    async fn read(
        &mut self,
        handle: Resource<Handle>,
        path: String,
        max: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Told>> {
        let target = self.target(&handle)?;
        let at = match self.spot(&path, Access::Read) {
            Ok(at) => at,
            Err(failure) => return Ok(Err(self.refuse(&*target, failure))),
        };
        let done = target.perform(Errand::Read { at, max }).await;
        Ok(self.answered(done, |done| match done {
            Done::Content(data) => Some(data),
            _ => None,
        }))
    }

    async fn write(
        &mut self,
        handle: Resource<Handle>,
        path: String,
        data: Vec<u8>,
        mode: u32,
    ) -> wasmtime::Result<Result<(), Told>> {
        let target = self.target(&handle)?;
        let at = match self
            .spot(&path, Access::ReadWrite)
            .and_then(|at| fits("the content of a file", &data).map(|()| at))
        {
            Ok(at) => at,
            Err(failure) => return Ok(Err(self.refuse(&*target, failure))),
        };
        let done = target.perform(Errand::Write { at, data, mode }).await;
        Ok(self.answered(done, nothing))
    }

    async fn place(
        &mut self,
        handle: Resource<Handle>,
        artifact: String,
        path: String,
    ) -> wasmtime::Result<Result<(), Told>> {
        let target = self.target(&handle)?;
        let at = match self.spot(&path, Access::ReadWrite) {
            Ok(at) => at,
            Err(failure) => return Ok(Err(self.refuse(&*target, failure))),
        };
        let done = target.perform(Errand::Place { artifact, at }).await;
        Ok(self.answered(done, nothing))
    }

    async fn swap_link(
        &mut self,
        handle: Resource<Handle>,
        link: String,
        to: String,
    ) -> wasmtime::Result<Result<(), Told>> {
        let target = self.target(&handle)?;
        let places = self
            .spot(&link, Access::ReadWrite)
            .and_then(|link| Ok((link, self.spot(&to, Access::Read)?)));
        let (link, to) = match places {
            Ok(places) => places,
            Err(failure) => return Ok(Err(self.refuse(&*target, failure))),
        };
        let done = target.perform(Errand::SwapLink { link, to }).await;
        Ok(self.answered(done, nothing))
    }

    async fn remove(
        &mut self,
        handle: Resource<Handle>,
        path: String,
    ) -> wasmtime::Result<Result<(), Told>> {
        let target = self.target(&handle)?;
        let at = match self.spot(&path, Access::ReadWrite) {
            Ok(at) => at,
            Err(failure) => return Ok(Err(self.refuse(&*target, failure))),
        };
        let done = target.perform(Errand::Remove { at }).await;
        Ok(self.answered(done, nothing))
    }

    async fn drop(&mut self, handle: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl State {
    fn target(&self, handle: &Resource<Handle>) -> wasmtime::Result<Arc<dyn Target>> {
        Ok(Arc::clone(&self.table.get(handle)?.target))
    }

    fn check(&self, capability: &Capability) -> Result<(), Failure> {
        self.plugin.check(self.effect, self.function, capability)
    }

    /// The granted folder of a path, and the path below it.
    fn spot(&self, path: &str, access: Access) -> Result<Spot, Failure> {
        let capability = Capability::Path {
            path: path.to_owned(),
            access,
        };
        self.check(&capability)?;
        let found = self.plugin.permissions.folder_and_rest(&capability);
        let (folder, path) = found.ok_or_else(|| {
            let message = format!("no grant covers {capability}");
            Failure::host(FailureClass::Denied, code::DENIED, message)
        })?;
        Ok(Spot { folder, path })
    }

    fn exec_errand(&self, words: Vec<String>, options: ExecOptions) -> Result<Exec, Failure> {
        let invalid =
            |message: String| Failure::host(FailureClass::Invalid, code::INVALID, message);
        let command = words.first().cloned().unwrap_or_default();
        self.check(&Capability::Command(command))?;
        fits("the input of a program", &options.stdin)?;
        if words.iter().any(|word| word.contains('\0')) {
            return Err(invalid(
                "an argument of a program holds a NUL byte".to_owned(),
            ));
        }
        let is_bad = |one: &&Attribute| !is_variable(&one.key, &one.value);
        if let Some(bad) = options.env.iter().find(is_bad) {
            let name = bad.key.escape_debug();
            return Err(invalid(format!(
                "the environment variable `{name}` cannot be set"
            )));
        }
        let folder = options
            .cwd
            .as_ref()
            .map(|path| self.spot(path, Access::Read))
            .transpose()?;
        let asked = Duration::from_millis(options.timeout);
        let left = self.remaining();
        Ok(Exec {
            words,
            folder,
            env: options
                .env
                .into_iter()
                .map(|Attribute { key, value }| (key, value))
                .collect(),
            stdin: options.stdin,
            timeout: if asked.is_zero() {
                left
            } else {
                asked.min(left)
            },
            max_output: options.max_output,
        })
    }

    /// Tells the plugin, and whoever reads the step's log, that something was refused before it reached the instance.
    fn refuse(&mut self, target: &dyn Target, failure: Failure) -> Told {
        target.note(&format!("<== refused: {}", failure.message));
        tracing::warn!(plugin = %self.plugin.name, reason = %failure.message, "an errand was refused");
        self.fail(failure)
    }

    fn answered<T>(
        &mut self,
        done: Result<Done, Undone>,
        wanted: impl FnOnce(Done) -> Option<T>,
    ) -> Result<T, Told> {
        let mistaken = || Undone::new(Why::Failed, "the instance answered something else");
        let done = done.and_then(|done| wanted(done).ok_or_else(mistaken));
        done.map_err(|undone| self.fail(failure_of(undone)))
    }
}

fn fits(what: &str, bytes: &[u8]) -> Result<(), Failure> {
    let (length, max) = (bytes.len(), limits::CHUNK);
    if length <= max {
        return Ok(());
    }
    let message = format!("{what} has {length} bytes, the limit is {max}");
    Err(Failure::host(FailureClass::Invalid, code::INVALID, message))
}

fn nothing(done: Done) -> Option<()> {
    matches!(done, Done::Nothing).then_some(())
}

fn failure_of(undone: Undone) -> Failure {
    let (class, code) = match undone.why {
        Why::NotFound => (FailureClass::NotFound, code::IO),
        Why::Denied => (FailureClass::Denied, code::IO),
        Why::Invalid => (FailureClass::Invalid, code::INVALID),
        Why::TimedOut => (FailureClass::Cancelled, code::DEADLINE),
        Why::Failed => (FailureClass::Transient, code::IO),
        Why::Lost | Why::Unreachable => (FailureClass::UnknownOutcome, code::IO),
    };
    Failure::host(class, code, undone.reason)
}

fn exec_result(exited: Exited) -> ExecResult {
    ExecResult {
        exit_code: exited.exit_code,
        signal: exited.signal,
        stdout: exited.stdout,
        stderr: exited.stderr,
        truncated: exited.is_truncated,
    }
}

fn file_stat(found: Found) -> FileStat {
    FileStat {
        size: found.size,
        mode: found.mode,
        is_dir: found.is_folder,
        link_target: found.link,
    }
}
