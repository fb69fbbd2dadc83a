//! The instances on this machine, all through one agent process.

use std::ffi::OsString;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use model::{Done, Ending, Host, Undone, Why};
use tokio::process;

use crate::connection::{Handle, Launch, MAX_SILENCE, Order, Waiter};
use crate::process::Process;
use crate::{BoxFuture, Command, Condition, DROPPED, Fleet, LogSink, Place, Unreachable, wire};

/// Reaches the instances on this machine. The agent is started with the first command and begins a session of its own,
/// so that Ctrl-C in the terminal is for the conductor alone; it ends when the fleet is dropped, and what it began
/// goes on.
pub struct LocalFleet {
    agent: Handle<Program>,
}

impl LocalFleet {
    /// Will start this command, a program and its arguments, as its agent.
    #[must_use]
    pub fn new(agent_command: Vec<OsString>) -> Self {
        Self::with_max_silence(agent_command, MAX_SILENCE)
    }

    /// As [`LocalFleet::new`], with an agent that may be silent for so long before it is asked whether it is there, and as long again
    /// before it is taken for one that hangs.
    #[must_use]
    pub fn with_max_silence(agent_command: Vec<OsString>, max_silence: Duration) -> Self {
        Self {
            agent: Handle::new(Program {
                command: agent_command,
                max_silence,
            }),
        }
    }
}

/// A program of this machine.
struct Program {
    command: Vec<OsString>,
    max_silence: Duration,
}

impl Launch for Program {
    fn name(&self) -> &str {
        "local agent"
    }

    async fn launch(&mut self, _: &(dyn Fn(&str) + Send + Sync)) -> Result<Process, Unreachable> {
        let (program, arguments) = self.command.split_first().ok_or_else(|| Unreachable {
            reason: "no agent command is given".to_owned(),
        })?;
        Process::start(process::Command::new(program).args(arguments)).map_err(|error| {
            Unreachable {
                reason: format!("start the agent `{}`: {error}", program.to_string_lossy()),
            }
        })
    }

    fn max_deaths(&self) -> u32 {
        2
    }

    fn is_broken_link(&self, _: Option<ExitStatus>) -> bool {
        false
    }

    fn max_silence(&self) -> Duration {
        self.max_silence
    }
}

impl Fleet for LocalFleet {
    fn run(
        &self,
        host: &Host,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Ending> {
        if let Host::Ssh(_) = host {
            let reason = elsewhere(host).reason;
            return Box::pin(std::future::ready(Ending::Unreachable { reason }));
        }
        let run = match wire::request(command) {
            Ok(run) => run,
            Err(error) => return Box::pin(std::future::ready(error.ending())),
        };
        let ending = self.agent.order(|reply| Order::Run {
            run: Box::new(run),
            log,
            reply: Waiter::Ending(reply),
        });
        Box::pin(async move {
            ending.await.unwrap_or_else(|| Ending::Unreachable {
                reason: DROPPED.to_owned(),
            })
        })
    }

    fn join(
        &self,
        host: &Host,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Option<Ending>> {
        if let Host::Ssh(_) = host {
            let reason = elsewhere(host).reason;
            return Box::pin(std::future::ready(Some(Ending::Unreachable { reason })));
        }
        self.agent.join(command, log)
    }

    fn errand(
        &self,
        host: &Host,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Result<Done, Undone>> {
        if let Host::Ssh(_) = host {
            let undone = Undone::new(Why::Unreachable, elsewhere(host).reason);
            return Box::pin(std::future::ready(Err(undone)));
        }
        let run = match wire::request(command) {
            Ok(run) => run,
            Err(error) => {
                let undone = Undone::new(Why::Invalid, error.to_string());
                return Box::pin(std::future::ready(Err(undone)));
            }
        };
        let done = self.agent.order(|reply| Order::Run {
            run: Box::new(run),
            log,
            reply: Waiter::Errand(reply),
        });
        Box::pin(async move {
            done.await
                .unwrap_or_else(|| Err(Undone::new(Why::Unreachable, DROPPED)))
        })
    }

    fn inspect(
        &self,
        host: &Host,
        place: Place,
    ) -> BoxFuture<'static, Result<Condition, Unreachable>> {
        if let Host::Ssh(_) = host {
            return Box::pin(std::future::ready(Err(elsewhere(host))));
        }
        let question = wire::inspection(place);
        let answer = self.agent.order(|reply| Order::Inspect { question, reply });
        Box::pin(async move {
            answer.await.unwrap_or_else(|| {
                Err(Unreachable {
                    reason: DROPPED.to_owned(),
                })
            })
        })
    }

    fn cached(
        &self,
        host: &Host,
        rootdir: String,
        caches: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<String>, Unreachable>> {
        if let Host::Ssh(_) = host {
            return Box::pin(std::future::ready(Err(elsewhere(host))));
        }
        let answer = self.agent.order(|reply| Order::Cached {
            rootdir,
            caches,
            reply,
        });
        Box::pin(async move {
            answer.await.unwrap_or_else(|| {
                Err(Unreachable {
                    reason: DROPPED.to_owned(),
                })
            })
        })
    }
}

fn elsewhere(host: &Host) -> Unreachable {
    Unreachable {
        reason: format!("`{host}` is not this machine"),
    }
}
