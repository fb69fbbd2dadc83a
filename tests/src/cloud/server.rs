//! A server on loopback in front of a cloud: it takes one request a connection, notes it, and lets go wrong what the test injected.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use super::faults::{Fault, Script, When};
use super::message::{Request, Response};

/// A vendor's control interface: state, and answers that follow from it.
///
/// It is cloned where reads are to be stale: the clone answers for a while what was so before.
pub trait Cloud: Clone + Send + 'static {
    /// Checks the signature, does what is asked, and answers. Called for one request at a time.
    fn answer(&mut self, request: &Request) -> Response;

    /// Does only the first `done` of what a request that names several things asks, and answers as the vendor does then.
    fn answer_in_part(&mut self, request: &Request, done: usize) -> Response {
        let _ = done;
        self.answer(request)
    }

    /// The vendor's words for an error that has nothing to do with the request: 429, or a status of 500 and above.
    fn error(&mut self, status: u16) -> Response;

    /// Whether a request changes nothing. By the method, unless the vendor puts everything into POST.
    fn is_read(&self, request: &Request) -> bool {
        matches!(request.method.as_str(), "GET" | "HEAD")
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The cloud answered with this status, whatever the client heard of it.
    Answered(u16),
    /// It never came to the cloud.
    Never,
}

/// A request, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    pub request: Request,
    pub taken: Taken,
    pub fault: Option<Fault>,
}

impl Visit {
    /// Whether the cloud did what was asked.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.taken, Taken::Answered(status) if (200..300).contains(&status))
    }
}

/// A cloud that listens on loopback. It ends when it is dropped.
pub struct CloudServer<C: Cloud> {
    address: SocketAddr,
    shared: Arc<Shared<C>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<C> {
    state: Mutex<State<C>>,
    changed: Condvar,
}

struct State<C> {
    cloud: C,
    script: Script,
    visits: Vec<Visit>,
    /// What reads are answered from, and how many of them.
    stale: Option<(C, usize)>,
    holding: usize,
    releases: usize,
    is_over: bool,
}

impl<C: Cloud> CloudServer<C> {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// When loopback has no port.
    #[must_use]
    pub fn start(cloud: C) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                cloud,
                script: Script::default(),
                visits: Vec::new(),
                stale: None,
                holding: 0,
                releases: 0,
                is_over: false,
            }),
            changed: Condvar::new(),
        });
        let serving = shared.clone();
        let thread = thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if serving.lock().is_over {
                    return;
                }
                let shared = serving.clone();
                // It ends with its connection, or when the server does.
                thread::spawn(move || serve(&connection, &shared));
            }
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a configuration names as endpoint.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets something go wrong.
    pub fn inject(&self, when: When, fault: Fault) {
        self.shared.lock().script.add(when, fault);
    }

    /// Lets nothing go wrong from here on; reads are true again.
    pub fn heal(&self) {
        let mut state = self.shared.lock();
        state.script.clear();
        state.stale = None;
    }

    /// How many answers are held.
    #[must_use]
    pub fn holding(&self) -> usize {
        self.shared.lock().holding
    }

    /// Lets the answers go that are held.
    pub fn release(&self) {
        self.shared.lock().releases += 1;
        self.shared.changed.notify_all();
    }

    /// All requests so far, in the order in which they were taken.
    #[must_use]
    pub fn visits(&self) -> Vec<Visit> {
        self.shared.lock().visits.clone()
    }

    /// All requests so far, and forgets them.
    #[must_use]
    pub fn take_visits(&self) -> Vec<Visit> {
        std::mem::take(&mut self.shared.lock().visits)
    }

    /// Looks at the cloud, or changes it behind the clients' backs.
    pub fn with<T>(&self, look: impl FnOnce(&mut C) -> T) -> T {
        look(&mut self.shared.lock().cloud)
    }
}

impl<C> Shared<C> {
    fn lock(&self) -> MutexGuard<'_, State<C>> {
        // A cloud that panicked fails its own request; what it left behind is for the test to look at.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits so long, or until the server ends.
    fn wait(&self, time: Duration) {
        let state = self.lock();
        // The guard comes back whether the time is over or the server is.
        let _ = self
            .changed
            .wait_timeout_while(state, time, |state| !state.is_over);
    }

    /// Waits until the test releases what is held, or until the server ends.
    fn hold(&self) {
        let mut state = self.lock();
        state.holding += 1;
        let before = state.releases;
        let held = self
            .changed
            .wait_while(state, |state| state.releases == before && !state.is_over);
        if let Ok(mut state) = held {
            state.holding -= 1;
        }
    }
}

fn serve<C: Cloud>(connection: &TcpStream, shared: &Shared<C>) {
    // A client that left, or speaks something else, is its own affair.
    let Ok(Some(request)) = Request::read(connection) else {
        return;
    };
    let (answer, fault) = shared.lock().take(&request);
    match fault {
        Some(Fault::Late(time)) => shared.wait(time),
        Some(Fault::Held) => shared.hold(),
        _ => {}
    }
    let mut connection = connection;
    match answer {
        Some(answer) => {
            let _ = connection.write_all(&answer.bytes(&request.method));
        }
        None => {
            // Closed with an answer still to come in the client's eyes: it is told of a reset, not of an end.
            let _ = SockRef::from(connection).set_linger(Some(Duration::ZERO));
        }
    }
}

impl<C: Cloud> State<C> {
    /// Carries a request out as far as it gets; no answer means that the connection is reset.
    fn take(&mut self, request: &Request) -> (Option<Response>, Option<Fault>) {
        let fault = self.script.next(request);
        // What the cloud said, where it was asked, and what the client hears.
        let (said, heard) = match &fault {
            Some(Fault::ResetBefore) => (None, None),
            Some(Fault::Refused(status)) => (None, Some(self.cloud.error(*status))),
            Some(Fault::Throttled { retry_after }) => {
                let answer = self.cloud.error(429);
                let answer = match retry_after {
                    Some(seconds) => answer.header("Retry-After", seconds.to_string()),
                    None => answer,
                };
                (None, Some(answer))
            }
            Some(Fault::ResetAfter) => (Some(self.ask(request)), None),
            Some(Fault::TakenButRefused(status)) => {
                let said = self.ask(request);
                let heard = match said.is_success() {
                    true => self.cloud.error(*status),
                    false => said.clone(),
                };
                (Some(said), Some(heard))
            }
            Some(Fault::Stale { reads }) => {
                let before = self.cloud.clone();
                let said = self.ask(request);
                self.stale = Some((before, *reads));
                (Some(said.clone()), Some(said))
            }
            Some(Fault::Partial { done }) => {
                let said = self.cloud.answer_in_part(request, *done);
                (Some(said.clone()), Some(said))
            }
            None | Some(Fault::Late(_) | Fault::Held) => {
                let said = self.ask(request);
                (Some(said.clone()), Some(said))
            }
        };
        self.visits.push(Visit {
            request: request.clone(),
            taken: said.map_or(Taken::Never, |said| Taken::Answered(said.status)),
            fault: fault.clone(),
        });
        (heard, fault)
    }

    fn ask(&mut self, request: &Request) -> Response {
        if self.cloud.is_read(request)
            && let Some((before, reads)) = &mut self.stale
            && *reads > 0
        {
            *reads -= 1;
            return before.answer(request);
        }
        self.cloud.answer(request)
    }
}

impl<C: Cloud> Drop for CloudServer<C> {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use serde_json::json;

    use super::*;

    /// A cloud that counts what is sent to it.
    #[derive(Clone, Default)]
    struct Counter {
        count: usize,
    }

    impl Cloud for Counter {
        fn answer(&mut self, request: &Request) -> Response {
            if !self.is_read(request) {
                self.count += request.text().len();
            }
            Response::json(200, &json!({"count": self.count}))
        }

        fn answer_in_part(&mut self, _request: &Request, done: usize) -> Response {
            self.count += done;
            Response::json(207, &json!({"count": self.count}))
        }

        fn error(&mut self, status: u16) -> Response {
            Response::json(status, &json!({"error_code": "trouble"}))
        }
    }

    fn ask(server: &CloudServer<Counter>, method: &str, body: &str) -> std::io::Result<String> {
        let mut connection = TcpStream::connect(server.address())?;
        write!(
            connection,
            "{method} /count HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Injects a fault at the first POST of three bytes, and tells what the client heard, what was counted and how many reads
    /// after it told so.
    fn check(fault: Fault, heard: &str, count: usize, taken: Taken) {
        let server = CloudServer::start(Counter::default());
        server.inject(When::call("POST", "/count"), fault.clone());

        let answer =
            ask(&server, "POST", "abc").unwrap_or_else(|error| format!("{}", error.kind()));

        assert!(answer.contains(heard), "{fault:?}: {answer}");
        assert_eq!(server.with(|cloud| cloud.count), count, "{fault:?}");
        let visits = server.visits();
        assert_eq!((visits.len(), visits[0].taken), (1, taken), "{fault:?}");
    }

    #[test]
    fn what_is_injected_is_what_the_client_meets() {
        let taken = Taken::Answered(200);
        check(Fault::Late(Duration::ZERO), "{\"count\":3}", 3, taken);
        check(
            Fault::Throttled {
                retry_after: Some(7),
            },
            "Retry-After: 7",
            0,
            Taken::Never,
        );
        check(Fault::Refused(503), "503", 0, Taken::Never);
        check(Fault::TakenButRefused(500), "500", 3, taken);
        check(Fault::ResetBefore, "connection reset", 0, Taken::Never);
        check(Fault::ResetAfter, "connection reset", 3, taken);
        check(
            Fault::Partial { done: 1 },
            "{\"count\":1}",
            1,
            Taken::Answered(207),
        );
    }

    #[test]
    fn stale_reads_tell_what_was_before_and_then_the_truth() {
        let server = CloudServer::start(Counter::default());
        server.inject(When::call("POST", "/count"), Fault::Stale { reads: 2 });

        let _ = ask(&server, "POST", "abc");
        let reads: Vec<_> = (0..3)
            .map(|_| ask(&server, "GET", "").unwrap().contains("{\"count\":3}"))
            .collect();

        assert_eq!(reads, [false, false, true]);
    }

    #[test]
    fn an_answer_that_is_held_comes_when_it_is_released() {
        let server = CloudServer::start(Counter::default());
        server.inject(When::call("POST", "/count"), Fault::Held);

        thread::scope(|scope| {
            let asking = scope.spawn(|| ask(&server, "POST", "abc"));
            crate::until("the answer is held", || server.holding() == 1);
            assert_eq!(server.with(|cloud| cloud.count), 3);
            server.release();

            assert!(asking.join().unwrap().unwrap().contains("{\"count\":3}"));
        });
    }
}
