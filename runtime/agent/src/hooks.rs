//! Running the scripts of a hook.
//!
//! Whether everybody exists that a script runs as, and may run it, is found out before the first script runs. Whether
//! the scripts exist is not: one may make the next.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, geteuid, getgid, getgroups};

use crate::account::Account;
use crate::capture::Capture;
use crate::control_group::{ControlGroup, Names};
use crate::descendants::{Family, descendants};
use crate::environment;
use crate::os::ChildEvents;
use crate::protocol::{Cause, Hooks, Script};
use crate::script::{self, Program};
use crate::shim::{Done, Failure};
use crate::spawn::{self, Start};
use crate::stamp;
use crate::watch::{Chores, Watch};

/// The longest time-out; a longer one means as much.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The control groups of a worker's scripts, the first of which the first script of each attempt has.
pub(crate) struct Groups {
    pub(crate) names: Names,
    made: BTreeMap<usize, Rc<ControlGroup>>,
}

impl Groups {
    pub(crate) fn new(names: Names) -> Self {
        Self {
            names,
            made: BTreeMap::new(),
        }
    }

    /// Makes the first one, unless it is there.
    pub(crate) fn prepare(&mut self) {
        self.of(0);
    }

    /// The group of the attempt's script with this number.
    fn of(&mut self, script: usize) -> Option<Rc<ControlGroup>> {
        let group = match self.made.entry(script) {
            Entry::Occupied(made) => made.into_mut(),
            Entry::Vacant(place) => place.insert(Rc::new(ControlGroup::make(&self.names, script)?)),
        };
        Some(Rc::clone(group))
    }

    /// Takes all but the first one away.
    pub(crate) fn clear_away(&mut self) {
        self.made.retain(|number, _| *number == 0);
    }
}

/// Runs the scripts in order until one fails.
pub(crate) fn run(
    hooks: &Hooks,
    package: &Path,
    groups: &mut Groups,
    chores: &mut dyn Chores,
    log: &mut Capture,
) -> Result<Done, Failure> {
    environment::check(&hooks.env)?;
    let accounts = hooks
        .scripts
        .iter()
        .map(|script| account(script, package).map_err(|failure| of_script(script, failure)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut bench = Bench {
        package,
        env: &hooks.env,
        groups,
        chores,
        log,
        events: ChildEvents::install().map_err(broken)?,
    };

    let mut done = Done::default();
    for (number, (script, account)) in hooks.scripts.iter().zip(&accounts).enumerate() {
        bench
            .run(number, script, account.as_ref())
            .map_err(|failure| of_script(script, failure))?;
        done.exit_code = Some(0);
    }
    if hooks.scripts.is_empty() {
        done.note = Some("there are no scripts".to_owned());
    }
    Ok(done)
}

fn of_script(script: &Script, failure: Failure) -> Failure {
    Failure {
        script: Some(script::name(&script.run)),
        ..failure
    }
}

fn broken(error: io::Error) -> Failure {
    Failure::new(Cause::Invalid, format!("prepare to run scripts: {error}"))
}

/// Finds the account that a script runs as, if it is not the agent's own in every respect.
fn account(script: &Script, package: &Path) -> Result<Option<Account>, Failure> {
    let Some(name) = &script.runas else {
        return Ok(None);
    };
    let title = script::title(&script.run);
    let refused = |reason: String| {
        Failure::new(
            Cause::Invalid,
            format!("run `{title}` as `{name}`: {reason}"),
        )
    };
    let account = Account::named(name).map_err(|error| refused(crate::reason::chain(&error)))?;
    if account.uid == geteuid() {
        return Ok(Some(account));
    }
    if !geteuid().is_root() {
        return Err(refused(
            "the agent is not root and cannot change the user".to_owned(),
        ));
    }
    script::check_access(&script.run, package, &account).map_err(refused)?;
    Ok(Some(account))
}

/// Whether a process of the agent's is already all that a process of the account's is.
fn is_own(account: &Account) -> bool {
    account.uid == geteuid()
        && (!geteuid().is_root()
            || account.gid == getgid()
                && getgroups().is_ok_and(|groups| {
                    groups.iter().all(|group| account.groups.contains(group))
                        && account
                            .groups
                            .iter()
                            .all(|group| *group == account.gid || groups.contains(group))
                }))
}

/// Where scripts run.
struct Bench<'a> {
    package: &'a Path,
    env: &'a [(String, String)],
    groups: &'a mut Groups,
    chores: &'a mut dyn Chores,
    log: &'a mut Capture,
    events: ChildEvents,
}

impl Bench<'_> {
    fn run(
        &mut self,
        number: usize,
        script: &Script,
        account: Option<&Account>,
    ) -> Result<(), Failure> {
        let title = script::title(&script.run);
        let program = script::resolve(&script.run, self.package)?;
        // What earlier scripts started and left running is none of this script's business.
        let earlier = if number == 0 {
            BTreeSet::new()
        } else {
            descendants(&BTreeSet::new())
        };
        let group = self.groups.of(number);
        let started = Instant::now();
        let runas = account.map_or_else(String::new, |account| format!(" as {}", account.name));
        self.log
            .say(&format!("==> {title}{runas} at {}", stamp::now()));

        let environment = environment::of_script(self.env, account);
        let (child, output) = self
            .start(&program, &environment, account, group.as_deref())
            .map_err(|error| program.not_started(&title, self.package, account, error))?;
        let timeout = Duration::from_millis(script.timeout_ms).min(MAX_TIMEOUT);
        let family = Family {
            earlier,
            group: group.as_deref(),
        };
        let end = Watch::new(child, output, family, &self.events, self.log, self.chores)
            .until_end(started, timeout)
            .map_err(broken)?;

        let quote = self.log.quote();
        self.log.say(&format!(
            "<== {} in {:.3}s at {}",
            end.mark(),
            started.elapsed().as_secs_f64(),
            stamp::now()
        ));
        match end.failure(&title, timeout) {
            None => Ok(()),
            Some(mut failure) => {
                if let Some(quote) = quote {
                    failure.reason.push_str(": ");
                    failure.reason.push_str(&quote);
                }
                Err(failure)
            }
        }
    }

    /// Starts a program and returns the reading end of its output.
    fn start(
        &self,
        program: &Program,
        environment: &[(OsString, OsString)],
        account: Option<&Account>,
        group: Option<&ControlGroup>,
    ) -> Result<(Pid, OwnedFd), spawn::Error> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)
            .and_then(|(reader, writer)| {
                fcntl_setfl(&reader, OFlags::NONBLOCK)?;
                Ok((reader, writer))
            })
            .map_err(|errno| spawn::Error::Process(errno.into()))?;
        let mut start = Start {
            words: &program.words,
            environment,
            folder: self.package,
            output: writer.as_fd(),
            errors: None,
            account: account.filter(|account| !is_own(account)),
            group: group.map(AsFd::as_fd),
            domain: None,
        };
        let no_program = Some(Errno::NOEXEC.raw_os_error());
        let started = match (spawn::start(&start), program.read_by_shell()) {
            (Err(spawn::Error::Execute(error)), Some(shell))
                if error.raw_os_error() == no_program =>
            {
                start.words = &shell.words;
                spawn::start(&start)
            }
            (result, _) => result,
        };
        Ok((started?, reader))
    }
}
