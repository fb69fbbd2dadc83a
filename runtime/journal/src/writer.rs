//! The one thread that writes. It takes everything that is queued into one transaction, so that many appends share
//! one flush to the disk, and answers each only when that transaction is durable.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use crate::journal::{Error, Fault, Stats};
use crate::promise::{Awaited, Promise, promise};
use crate::room::Log;

/// Writes that may wait, and so the most that share a transaction. A caller beyond that blocks until there is room.
const QUEUE: usize = 1024;

/// Owns the thread, which ends when the writer is dropped and the queue is done.
pub(crate) struct Writer {
    queue: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    writes: AtomicU64,
    commits: AtomicU64,
}

impl Writer {
    pub(crate) fn start(connection: Connection, path: Arc<Path>) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || serve(&connection, &jobs, &path, &counted))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            counters,
        })
    }

    /// Queues a piece of work that runs wholly or not at all. `action` names it in errors; `poisoned` is set as soon
    /// as it fails.
    pub(crate) fn submit<T, W>(
        &self,
        action: &'static str,
        poisoned: Option<Arc<AtomicBool>>,
        work: W,
    ) -> Awaited<Result<T, Error>>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (promise, awaited) = promise();
        let job = Write {
            action,
            poisoned,
            work: Some(work),
            outcome: None,
            promise,
        };
        if let Some(queue) = &self.queue {
            // A thread that is gone drops the job, and with it the promise: the caller learns it from there.
            let _ = queue.send(Box::new(job));
        }
        awaited
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            writes: self.counters.writes.load(Ordering::Relaxed),
            commits: self.counters.commits.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            // A waker may hold the last handle, and then it is the thread itself that drops it.
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

trait Job: Send {
    /// Does the work within a transaction. An error has been kept for the caller; it is returned for the case that
    /// it took the whole transaction with it.
    fn run(&mut self, connection: &Connection) -> Result<(), Option<Arc<rusqlite::Error>>>;

    /// Answers, once the fate of the transaction is known.
    fn finish(self: Box<Self>, committed: Result<(), &Arc<rusqlite::Error>>, path: &Path);
}

struct Write<T, W> {
    action: &'static str,
    poisoned: Option<Arc<AtomicBool>>,
    work: Option<W>,
    outcome: Option<Result<T, Fault>>,
    promise: Promise<Result<T, Error>>,
}

impl<T, W> Write<T, W> {
    fn poison(&self) {
        if let Some(poisoned) = &self.poisoned {
            poisoned.store(true, Ordering::SeqCst);
        }
    }
}

impl<T, W> Job for Write<T, W>
where
    T: Send,
    W: FnOnce(&Connection) -> Result<T, Fault> + Send,
{
    fn run(&mut self, connection: &Connection) -> Result<(), Option<Arc<rusqlite::Error>>> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        let outcome = work(connection);
        let failed = match &outcome {
            Ok(_) => Ok(()),
            Err(Fault::Sql(error)) => Err(Some(Arc::clone(error))),
            Err(Fault::Known(_)) => Err(None),
        };
        if failed.is_err() {
            self.poison();
        }
        self.outcome = Some(outcome);
        failed
    }

    fn finish(mut self: Box<Self>, committed: Result<(), &Arc<rusqlite::Error>>, path: &Path) {
        let outcome = match (self.outcome.take(), committed) {
            (Some(Err(fault)), _) => Err(fault),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(error)) => Err(Fault::Sql(Arc::clone(error))),
            (None, Ok(())) => Err(Fault::Known(Error::Closed)),
        };
        if outcome.is_err() {
            self.poison();
        }
        let action = self.action;
        self.promise
            .deliver(outcome.map_err(|fault| fault.at(path, action)));
    }
}

fn serve(connection: &Connection, jobs: &Receiver<Box<dyn Job>>, path: &Path, counters: &Counters) {
    let log = Log::of(path);
    while let Ok(first) = jobs.recv() {
        let mut waiting = VecDeque::from([first]);
        while waiting.len() < QUEUE
            && let Ok(job) = jobs.try_recv()
        {
            waiting.push_back(job);
        }
        while !waiting.is_empty() {
            commit(connection, &log, &mut waiting, path, counters);
        }
    }
}

/// Takes jobs in order into one transaction: all of them, or as many as the transaction survives.
fn commit(
    connection: &Connection,
    log: &Log,
    waiting: &mut VecDeque<Box<dyn Job>>,
    path: &Path,
    counters: &Counters,
) {
    if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
        let error = Arc::new(error);
        waiting
            .drain(..)
            .for_each(|job| job.finish(Err(&error), path));
        return;
    }
    // A disk that has none left says so to the commit, where it counts.
    let _ = log.make_room();
    let mut done = Vec::with_capacity(waiting.len());
    let mut committed = Ok(());
    while let Some(mut job) = waiting.pop_front() {
        committed = attempt(connection, &mut *job);
        done.push(job);
        if committed.is_err() {
            break;
        }
    }
    if committed.is_ok() {
        committed = connection.execute_batch("COMMIT").map_err(Arc::new);
    }
    if !connection.is_autocommit() {
        // Nothing is left to tell: the callers get the error that led here.
        let _ = connection.execute_batch("ROLLBACK");
    }
    counters
        .writes
        .fetch_add(done.len() as u64, Ordering::Relaxed);
    counters.commits.fetch_add(1, Ordering::Relaxed);
    for job in done {
        job.finish(committed.as_ref().copied(), path);
    }
}

/// Runs one job so that its failure undoes its own writes only. An error means that the transaction is lost.
fn attempt(connection: &Connection, job: &mut dyn Job) -> Result<(), Arc<rusqlite::Error>> {
    connection
        .prepare_cached("SAVEPOINT job")
        .and_then(|mut sql| sql.execute([]))?;
    if let Err(cause) = job.run(connection) {
        // A full or failing disk can make SQLite give up the whole transaction by itself.
        if connection.is_autocommit() {
            return Err(cause.unwrap_or_else(|| Arc::new(rusqlite::Error::InvalidQuery)));
        }
        connection
            .prepare_cached("ROLLBACK TO job")
            .and_then(|mut sql| sql.execute([]))?;
    }
    connection
        .prepare_cached("RELEASE job")
        .and_then(|mut sql| sql.execute([]))?;
    Ok(())
}
