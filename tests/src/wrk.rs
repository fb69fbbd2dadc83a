//! wrk, a load generator that retries nothing and tells of every connection that broke.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A run of wrk. It ends when it is dropped.
pub struct Wrk {
    child: Option<Child>,
}

/// What wrk counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub requests: u64,
    /// Answers other than 2xx and 3xx, and connections that could not be made, broke or timed out.
    pub errors: u64,
    /// The answers among them.
    pub wrong_answers: u64,
}

impl Wrk {
    /// Starts it with sixteen connections, for at most two minutes.
    ///
    /// # Panics
    /// When wrk is not installed.
    #[must_use]
    pub fn start(address: SocketAddr) -> Self {
        let child = Command::new("wrk")
            .args(["-t1", "-c16", "-d120s", "--timeout", "5s"])
            .arg(format!("http://{address}/"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("start wrk: on Debian, `apt-get install wrk`");
        Self { child: Some(child) }
    }

    /// Ends it and tells what it counted.
    ///
    /// # Panics
    /// When it failed.
    #[must_use]
    pub fn stop(mut self) -> Load {
        let child = self.child.take().expect("a run");
        // Interrupted, it prints what it has.
        let _ = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        let output = child.wait_with_output().expect("wait for wrk");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "wrk failed: {text}");
        load(&text).unwrap_or_else(|| panic!("wrk said: {text}"))
    }
}

fn load(text: &str) -> Option<Load> {
    let numbers = |line: &str| -> u64 {
        line.split(|c: char| !c.is_ascii_digit())
            .filter_map(|word| word.parse::<u64>().ok())
            .sum()
    };
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))?;
    let after = |beginning: &str| {
        let lines = text.lines().map(str::trim);
        let mut counts = lines.filter_map(|line| line.strip_prefix(beginning));
        counts.next().map_or(0, numbers)
    };
    let wrong_answers = after("Non-2xx or 3xx responses:");
    Some(Load {
        requests: requests.0.parse().ok()?,
        errors: wrong_answers + after("Socket errors:"),
        wrong_answers,
    })
}

impl Drop for Wrk {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may be gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_counts() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 16 connections\n  \
                    3050 requests in 1.00s, 1.2MB read\n  Socket errors: connect 1, read 20, write 0, timeout 3\n  \
                    Non-2xx or 3xx responses: 100\nRequests/sec: 3050.1\n";

        assert_eq!(
            load(text),
            Some(Load {
                requests: 3050,
                errors: 124,
                wrong_answers: 100
            })
        );
        assert_eq!(load("unable to connect to 127.0.0.1:1\n"), None);
    }
}
