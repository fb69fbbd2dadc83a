//! The fleet of hosts with an SSH server: one connection for each.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use agent::receive::Sibling;
use model::{Cause, Done, Ending, Ssh, Undone, Why};
use tokio::sync::Semaphore;

use super::agents::Agents;
use super::client::Client;
use super::control::ControlFolder;
use super::dial::Dialer;
use super::transfer::{self, NotSent, Package};
use crate::connection::{Handle, Link, Order, Waiter};
use crate::{BoxFuture, Command, Condition, DROPPED, LogSink, Place, Unreachable, Work, wire};

/// How many connections may be made at once: each costs both sides a key exchange.
const MAX_STARTS: usize = 8;

/// How many packages' whereabouts are remembered for each host.
const MAX_REMEMBERED: usize = 16;

/// How hosts are reached.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// The program `ssh`.
    pub program: PathBuf,
    /// Folders with agents, `cutover-agent-MACHINE-linux`; the first that has one wins.
    pub agents: Vec<PathBuf>,
}

/// Reaches instances on hosts with an SSH server. A connection is made with the first command for a host and ends when
/// the fleet is dropped; what was begun there goes on.
pub struct SshFleet {
    shared: Arc<Shared>,
    hosts: Mutex<HashMap<Ssh, Arc<Reached>>>,
}

/// What all hosts share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) agents: Agents,
    pub(crate) starts: Semaphore,
    control: OnceLock<ControlFolder>,
    /// Held while the folder is made, so that one is made.
    making: Mutex<()>,
}

/// One host.
pub(crate) struct Reached {
    pub(crate) ssh: Ssh,
    pub(crate) shared: Arc<Shared>,
    agent: Handle<Dialer>,
    /// The right to bring a package to the host.
    transfers: Semaphore,
    /// The instances of this host that have a package, by its digest, the latest last.
    holders: Mutex<Vec<(String, Vec<Sibling>)>>,
}

impl SshFleet {
    /// Will reach hosts so.
    #[must_use]
    pub fn new(options: SshOptions) -> Self {
        let SshOptions { program, agents } = options;
        Self {
            shared: Arc::new(Shared {
                client: Client { program },
                agents: Agents::new(agents),
                starts: Semaphore::new(MAX_STARTS),
                control: OnceLock::new(),
                making: Mutex::new(()),
            }),
            hosts: Mutex::default(),
        }
    }

    /// See [`crate::Fleet::run`]. Dropping the future stops the transfer of a package that the attempt needs; the next
    /// one goes on with it.
    pub(crate) fn run(
        &self,
        ssh: &Ssh,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Ending> {
        let reached = self.reached(ssh);
        Box::pin(async move { reached.run(command, log).await })
    }

    /// See [`crate::Fleet::join`].
    pub(crate) fn join(
        &self,
        ssh: &Ssh,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Option<Ending>> {
        self.reached(ssh).agent.join(command, log)
    }

    /// See [`crate::Fleet::errand`].
    pub(crate) fn errand(
        &self,
        ssh: &Ssh,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Result<Done, Undone>> {
        let run = match wire::request(command) {
            Ok(run) => run,
            Err(error) => {
                let undone = Undone::new(Why::Invalid, error.to_string());
                return Box::pin(std::future::ready(Err(undone)));
            }
        };
        let done = self.reached(ssh).agent.order(|reply| Order::Run {
            run: Box::new(run),
            log,
            reply: Waiter::Errand(reply),
        });
        Box::pin(async move {
            done.await
                .unwrap_or_else(|| Err(Undone::new(Why::Unreachable, dropped().reason)))
        })
    }

    /// See [`crate::Fleet::cached`].
    pub(crate) fn cached(
        &self,
        ssh: &Ssh,
        rootdir: String,
        caches: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<String>, Unreachable>> {
        let answer = self.reached(ssh).agent.order(|reply| Order::Cached {
            rootdir,
            caches,
            reply,
        });
        Box::pin(async move { answer.await.unwrap_or_else(|| Err(dropped())) })
    }

    /// See [`crate::Fleet::inspect`].
    pub(crate) fn inspect(
        &self,
        ssh: &Ssh,
        place: Place,
    ) -> BoxFuture<'static, Result<Condition, Unreachable>> {
        let question = wire::inspection(place);
        let answer = self
            .reached(ssh)
            .agent
            .order(|reply| Order::Inspect { question, reply });
        Box::pin(async move { answer.await.unwrap_or_else(|| Err(dropped())) })
    }

    fn reached(&self, ssh: &Ssh) -> Arc<Reached> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = hosts.entry(ssh.clone()).or_insert_with(|| {
            Arc::new(Reached {
                ssh: ssh.clone(),
                shared: self.shared.clone(),
                agent: Handle::new(Dialer::new(ssh.clone(), self.shared.clone())),
                transfers: Semaphore::new(1),
                holders: Mutex::default(),
            })
        });
        reached.clone()
    }
}

impl Shared {
    pub(crate) fn control(&self) -> io::Result<&ControlFolder> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(control) = self.control.get() {
            return Ok(control);
        }
        let made = ControlFolder::new()?;
        Ok(self.control.get_or_init(|| made))
    }
}

impl Reached {
    async fn run(&self, mut command: Command, log: Arc<dyn LogSink>) -> Ending {
        // Packages go to a host one at a time, for they share its link, and the next instance of the host copies what
        // the first one has put into its cache.
        let mut turn = None;
        let package = match &mut command.work {
            Work::Fetch {
                cache,
                source,
                digest,
                ..
            } => {
                let package = Package {
                    rootdir: command.rootdir.clone(),
                    cache: cache.clone(),
                    digest: digest.as_str().to_owned(),
                    source: source.clone(),
                };
                // It is never closed, so there is always a permit in the end.
                turn = self.transfers.acquire().await.ok();
                match transfer::send(self, &package, &*log).await {
                    // The agent finds it in its cache, and does not look for a source.
                    Ok(None) => {}
                    Ok(Some(path)) => *source = path.into(),
                    Err(NotSent::Failed(reason)) => {
                        return Ending::Failed {
                            cause: Cause::FetchFailed,
                            reason,
                            script: None,
                            exit_code: None,
                            log: None,
                        };
                    }
                    Err(NotSent::Unreachable(reason)) => return Ending::Unreachable { reason },
                }
                Some(package)
            }
            Work::Hooks { .. } | Work::Install { .. } | Work::Errand { .. } => None,
        };
        let run = match wire::request(command) {
            Ok(run) => run,
            Err(error) => return error.ending(),
        };
        let ending = self.agent.order(|reply| Order::Run {
            run: Box::new(run),
            log,
            reply: Waiter::Ending(reply),
        });
        let ending = ending.await.unwrap_or_else(|| Ending::Unreachable {
            reason: DROPPED.to_owned(),
        });
        if let (Some(package), Ending::Succeeded { .. }) = (package, &ending) {
            self.remember(package);
        }
        drop(turn);
        ending
    }

    /// The way to the host, which is made when there is none.
    pub(crate) async fn link(&self) -> Result<Link, Unreachable> {
        let link = self.agent.order(|reply| Order::Link { reply });
        link.await.unwrap_or_else(|| Err(dropped()))
    }

    /// Instances of this host that have a package, most likely.
    pub(crate) fn holders(&self, digest: &str) -> Vec<Sibling> {
        let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let found = holders.iter().find(|(held, _)| held == digest);
        found
            .map(|(_, holders)| holders.clone())
            .unwrap_or_default()
    }

    fn remember(&self, package: Package) {
        let sibling = Sibling {
            rootdir: package.rootdir,
            cache: package.cache,
        };
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        match holders.iter_mut().find(|(held, _)| *held == package.digest) {
            Some((_, known)) if known.contains(&sibling) => {}
            Some((_, known)) => known.push(sibling),
            None => {
                if holders.len() == MAX_REMEMBERED {
                    holders.remove(0);
                }
                holders.push((package.digest, vec![sibling]));
            }
        }
    }
}

fn dropped() -> Unreachable {
    Unreachable {
        reason: DROPPED.to_owned(),
    }
}
