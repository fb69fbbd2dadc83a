//! The instances on this machine, all through one agent process.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};

use model::{Cause, Ending, Host};
use tokio::sync::{mpsc, oneshot};

use crate::connection::{Connection, Order};
use crate::{BoxFuture, Command, Fleet, LogSink, Unreachable, wire};

/// Orders that wait to be looked at.
const MAX_WAITING: usize = 256;

/// Reaches the instances on this machine. The agent is started with the first command and begins a session of its own,
/// so that Ctrl-C in the terminal is for the conductor alone; it ends when the fleet is dropped, and what it began
/// goes on.
pub struct LocalFleet {
    orders: mpsc::Sender<Order>,
    starter: Starter,
}

/// What is needed to begin, until somebody does.
type Starter = Arc<Mutex<Option<Connection>>>;

impl LocalFleet {
    /// Will start this command, a program and its arguments, as its agent.
    #[must_use]
    pub fn new(agent_command: Vec<OsString>) -> Self {
        let (orders, waiting) = mpsc::channel(MAX_WAITING);
        let connection = Connection::new(agent_command, waiting);
        Self {
            orders,
            starter: Arc::new(Mutex::new(Some(connection))),
        }
    }

    /// Sends an order and waits for its answer; none when the fleet was dropped before it came.
    fn order<T: Send + 'static>(
        &self,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> impl Future<Output = Option<T>> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        let order = order(reply);
        let orders = self.orders.clone();
        let starter = Arc::clone(&self.starter);
        async move {
            if let Some(connection) = starter
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
            {
                // Not joined: it ends with the last sender, and nothing depends on when it does.
                tokio::spawn(connection.drive());
            }
            let sent = orders.send(order).await;
            // A sender that is kept while waiting would keep the agent alive when the fleet is dropped.
            drop(orders);
            sent.ok()?;
            answer.await.ok()
        }
    }
}

const DROPPED: &str = "the conductor let go of its agent before the attempt ended";

impl Fleet for LocalFleet {
    fn run(
        &self,
        host: &Host,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Ending> {
        let Host::Local = host;
        let run = match wire::request(command) {
            Ok(run) => run,
            Err(error) => {
                let reason = error.to_string();
                let ending = Ending::Failed {
                    cause: Cause::Invalid,
                    reason,
                    script: None,
                    exit_code: None,
                    log: None,
                };
                return Box::pin(std::future::ready(ending));
            }
        };
        let ending = self.order(|reply| Order::Run { run, log, reply });
        Box::pin(async move {
            ending.await.unwrap_or_else(|| Ending::Unreachable {
                reason: DROPPED.to_owned(),
            })
        })
    }

    fn cached(
        &self,
        host: &Host,
        rootdir: String,
        caches: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<String>, Unreachable>> {
        let Host::Local = host;
        let answer = self.order(|reply| Order::Cached {
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
