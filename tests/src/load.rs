//! Visitors of the example's service, who lose nothing silently: a wrk that retries nothing and counts who answered.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crate::until;

/// How visitors use their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// One for all requests of a visitor, as browsers and proxies do.
    Kept,
    /// One for each request.
    Fresh,
}

/// How many requests visitors send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Some hundred a second, so that a deployment beside them has a machine left.
    Steady,
    /// As many as they can.
    Full,
}

/// Requests that run until they are stopped, for at most three minutes. They end when this is dropped.
pub struct Visitors {
    child: Child,
    told: Arc<Mutex<Told>>,
    listener: Option<JoinHandle<()>>,
}

/// What visitors have met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visits {
    /// All that were answered with 200, each under `INSTANCE VERSION`.
    pub served: BTreeMap<String, u64>,
    /// Other answers, and connections that could not be made, broke or timed out.
    pub failed: u64,
    /// The failures by kind: connect, read, write, status, timeout.
    pub kinds: [u64; 5],
}

#[derive(Debug, Default)]
struct Told {
    served: BTreeMap<String, u64>,
    ended: Option<[u64; 5]>,
}

impl Visits {
    /// How many were served.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.served.values().sum()
    }

    /// How many a version served.
    #[must_use]
    pub fn of_version(&self, version: &str) -> u64 {
        self.of(|_, served_by| served_by == version)
    }

    /// How many the instances whose ids begin so served.
    #[must_use]
    pub fn of_instances(&self, beginning: &str) -> u64 {
        self.of(|instance, _| instance.starts_with(beginning))
    }

    fn of(&self, is_meant: impl Fn(&str, &str) -> bool) -> u64 {
        let meant = self.served.iter().filter(|(name, _)| {
            let (instance, version) = name.split_once(' ').unwrap_or((name, ""));
            is_meant(instance, version)
        });
        meant.map(|(_, count)| count).sum()
    }

    /// The part that a version served, in percent.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "far fewer requests than a float can count"
    )]
    pub fn percent_of_version(&self, version: &str) -> f64 {
        100.0 * self.of_version(version) as f64 / self.total() as f64
    }
}

impl Visitors {
    /// Lets eight visitors of an address in.
    ///
    /// # Panics
    /// When wrk is not installed.
    #[must_use]
    pub fn start(address: SocketAddr, connections: Connections, pace: Pace) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/load.lua");
        let pause = match pace {
            Pace::Steady => "20",
            Pace::Full => "0",
        };
        let kind = match connections {
            Connections::Kept => "kept",
            Connections::Fresh => "fresh",
        };
        let mut child = Command::new("wrk")
            .args(["-t1", "-c8", "-d180s", "--timeout", "10s", "-s"])
            .arg(script)
            .arg(format!("http://{address}/"))
            .args(["--", pause, kind])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("start wrk: on Debian, `apt-get install wrk`");
        let output = child.stdout.take().expect("its output");
        let told: Arc<Mutex<Told>> = Arc::default();
        let telling = told.clone();
        let listener = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                telling.lock().expect("what was told").hear(&line);
            }
        });
        let visitors = Self {
            child,
            told,
            listener: Some(listener),
        };
        until("the first visitors are answered", || {
            visitors.answered() > 0
        });
        visitors
    }

    /// How many requests have been answered so far, failures with an answer included.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.so_far(|_| true)
    }

    /// How many answers of a version came so far.
    #[must_use]
    pub fn answered_by_version(&self, version: &str) -> u64 {
        self.so_far(|name| name.ends_with(&format!(" {version}")))
    }

    fn so_far(&self, is_meant: impl Fn(&str) -> bool) -> u64 {
        let told = self.told.lock().expect("what was told");
        let meant = told.served.iter().filter(|(name, _)| is_meant(name));
        meant.map(|(_, count)| count).sum()
    }

    /// Waits until so many more requests have been answered.
    ///
    /// # Panics
    /// When they are not.
    pub fn wait_for(&self, more: u64) {
        let before = self.answered();
        until("more visitors are answered", || {
            self.answered() >= before + more
        });
    }

    /// Ends them and tells what they met. Requests under way are not counted.
    ///
    /// # Panics
    /// When wrk failed.
    #[must_use]
    pub fn stop(mut self) -> Visits {
        // Interrupted, it prints what it has.
        let _ = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        let status = self.child.wait().expect("wait for wrk");
        if let Some(listener) = self.listener.take() {
            listener.join().expect("what wrk prints");
        }
        assert!(status.success(), "wrk failed");
        let told = self.told.lock().expect("what was told");
        let kinds = told.ended.expect("wrk tells how it ended");
        let served = told.served.clone().into_iter();
        Visits {
            served: served
                .filter(|(name, _)| !name.starts_with("status "))
                .collect(),
            failed: kinds.iter().sum(),
            kinds,
        }
    }
}

impl Told {
    fn hear(&mut self, line: &str) {
        if let Some((count, name)) = line
            .strip_prefix("served ")
            .and_then(|rest| rest.split_once(' '))
        {
            let count = count.parse().unwrap_or(0);
            self.served.insert(name.to_owned(), count);
        } else if let Some(rest) = line.strip_prefix("ended ") {
            let numbers: Vec<u64> = rest.split(' ').flat_map(str::parse).collect();
            if let [_, kinds @ ..] = numbers.as_slice() {
                self.ended = kinds.try_into().ok();
            }
        }
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets visitors send as fast as they can until so many requests of theirs have been answered.
///
/// # Panics
/// When they are not.
#[must_use]
pub fn visits(address: SocketAddr, connections: Connections, requests: u64) -> Visits {
    let visitors = Visitors::start(address, connections, Pace::Full);
    until("the visitors are answered", || {
        visitors.answered() >= requests
    });
    visitors.stop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_tells_is_heard() {
        let mut told = Told::default();
        for line in [
            "Running 3m test @ http://127.0.0.1:1/",
            "served 100 web-1 1.0.0",
            "served 130 web-1 1.0.0",
            "served 10 web-2 1.1.0",
            "served 2 status 503",
            "ended 142 1 2 3 2 4",
        ] {
            told.hear(line);
        }

        assert_eq!(told.ended, Some([1, 2, 3, 2, 4]));
        let visits = Visits {
            served: told.served,
            failed: 0,
            kinds: [0; 5],
        };
        assert_eq!(visits.of_version("1.0.0"), 130);
        assert_eq!(visits.of_instances("web-"), 140);
    }
}
