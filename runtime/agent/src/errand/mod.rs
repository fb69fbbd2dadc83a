//! Errands: what a plugin has done on an instance, one thing an attempt.
//!
//! Whether it may is decided before, where the grants are known; what is made sure of here is that a path stays below
//! its folder (`place.rs`), that files are replaced whole (`files.rs`), and that a program is ended in time (`exec.rs`).
//! Every errand is told in the attempt's log. An errand that fails is not done, and says so in its answer.

mod copy;
mod exec;
mod files;
mod place;

use std::io;

use rustix::io::Errno;

use crate::cache::Folder;
use crate::capture::Capture;
use crate::control_group::Names;
use crate::protocol::{Deed, Errand, ErrandAnswer, Why};

/// Why an errand is not done.
#[derive(Debug)]
struct Undone {
    why: Why,
    reason: String,
}

impl Undone {
    fn new(why: Why, reason: impl Into<String>) -> Self {
        Self {
            why,
            reason: reason.into(),
        }
    }

    /// A system call that failed at something.
    fn of_call(doing: &str, errno: Errno) -> Self {
        let why = match errno {
            Errno::NOENT | Errno::NOTDIR => Why::NotFound,
            Errno::XDEV | Errno::LOOP => {
                let reason = format!("{doing}: it leads out of the folder that is granted");
                return Self::new(Why::Denied, reason);
            }
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Why::Denied,
            Errno::ISDIR | Errno::INVAL | Errno::NAMETOOLONG => Why::Invalid,
            _ => Why::Failed,
        };
        Self::new(why, format!("{doing}: {}", io::Error::from(errno)))
    }

    fn of_io(doing: &str, error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(errno) => Self::of_call(doing, errno),
            None => Self::new(Why::Failed, format!("{doing}: {error}")),
        }
    }
}

/// Does an errand. `attempt` names what it makes beside a file that it replaces.
pub(crate) fn run(
    errand: &Errand,
    rootdir: &str,
    boot: &str,
    attempt: &str,
    groups: &Names,
    log: &mut Capture,
) -> ErrandAnswer {
    let done = Folder::at(rootdir, &errand.cache)
        .map_err(|error| Undone::new(Why::Invalid, crate::reason::chain(&error)))
        .and_then(|package| {
            let site = Site {
                package,
                boot,
                attempt,
            };
            site.perform(&errand.deed, groups, log)
        });
    done.unwrap_or_else(|Undone { why, reason }| {
        log.say(&format!("<== not done: {reason}"));
        ErrandAnswer::Undone { why, reason }
    })
}

/// Where an errand is done.
struct Site<'a> {
    /// The incoming package. Its instance's `rootdir` is the root of relative folders.
    package: Folder,
    boot: &'a str,
    attempt: &'a str,
}

impl Site<'_> {
    fn perform(
        &self,
        deed: &Deed,
        groups: &Names,
        log: &mut Capture,
    ) -> Result<ErrandAnswer, Undone> {
        match deed {
            Deed::Exec(exec) => exec::run(self, exec, groups, log),
            Deed::Stat { at } => {
                log.say(&format!("==> stat {}", place::name(at)));
                let stat = files::stat(self, at)?;
                Ok(ErrandAnswer::Stat { stat })
            }
            Deed::Read { at, max } => {
                log.say(&format!("==> read {}", place::name(at)));
                let data = files::read(self, at, *max)?;
                Ok(ErrandAnswer::Content { data })
            }
            Deed::Write { at, data, mode } => {
                let (name, length) = (place::name(at), data.len());
                log.say(&format!(
                    "==> write {name}: {length} bytes, mode {mode:04o}"
                ));
                files::write(self, at, data, *mode)?;
                Ok(ErrandAnswer::Done)
            }
            Deed::Place { artifact, at } => {
                log.say(&format!("==> place {artifact} at {}", place::name(at)));
                copy::place(self, artifact, at)?;
                Ok(ErrandAnswer::Done)
            }
            Deed::SwapLink { link, to } => {
                let (link_name, to_name) = (place::name(link), place::name(to));
                log.say(&format!("==> link {link_name} to {to_name}"));
                files::swap_link(self, link, to)?;
                Ok(ErrandAnswer::Done)
            }
            Deed::Remove { at } => {
                log.say(&format!("==> remove {}", place::name(at)));
                files::remove(self, at)?;
                Ok(ErrandAnswer::Done)
            }
        }
    }
}
