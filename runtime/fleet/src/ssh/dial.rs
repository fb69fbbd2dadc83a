//! Making the connection to a host and starting the agent there.

use std::hash::{BuildHasher, RandomState};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::Ssh;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bootstrap::{self, Word};
use super::client::Role;
use super::hosts::Shared;
use super::trouble::{Outlook, Trouble};
use crate::Unreachable;
use crate::connection::{Launch, Link};
use crate::process::{Obituary, Process, read_if_open};

/// What logging in may take beyond connecting.
const LOGIN: Duration = Duration::from_secs(5);

/// What putting the agent on a host may take.
const UPLOAD: Duration = Duration::from_secs(300);

/// How much a login shell may print before the script says its first word, in bytes.
const MAX_NOISE: usize = 64 << 10;

/// The pauses between tries: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The status of `ssh` when it, and not the command on the host, has failed.
const CLIENT_FAILED: i32 = 255;

/// Connects to one host.
pub(crate) struct Dialer {
    ssh: Ssh,
    name: String,
    shared: Arc<Shared>,
    /// What the agents that it starts know each other by.
    word: String,
    /// A host that has answered gets more patience: it may be booting.
    has_answered: bool,
}

impl Dialer {
    pub(crate) fn new(ssh: Ssh, shared: Arc<Shared>) -> Self {
        Self {
            name: ssh.address.to_string(),
            ssh,
            shared,
            word: format!("{:016x}", RandomState::new().hash_one("word")),
            has_answered: false,
        }
    }

    /// Tries once.
    async fn dial(&self) -> Result<Process, Trouble> {
        let agents = self.shared.agents.all();
        let agents = agents.map_err(|error| Trouble::lasting(error.to_string()))?;
        let control = self.shared.control().map_err(|error| {
            Trouble::lasting(format!("make a folder for the sockets of ssh: {error}"))
        })?;
        let control = control.socket();
        // The permit is for the expensive part, the log-in.
        let permit = self.shared.starts.acquire().await;
        let mut command =
            self.shared
                .client
                .command(&self.ssh, Role::Master, &control, &bootstrap::line());
        let mut process = Process::start(command.process_group(0)).map_err(|error| {
            let program = self.shared.client.program.display();
            Trouble::lasting(format!(
                "start `{program}`: {error}; it comes with OpenSSH's client, and CUTOVER_SSH can name it"
            ))
        })?;
        let limit = self.ssh.settings.connect_timeout + LOGIN;
        let answers = bootstrap::answers(&self.ssh, agents, &self.word);
        let mut word = self
            .next_word(&mut process, answers.as_bytes(), limit)
            .await;
        drop(permit);
        if let Ok(Some(Word::Missing { machine })) = &word {
            let agent = agents.iter().find(|agent| agent.machine == *machine);
            let agent = agent.ok_or_else(|| Trouble::lasting("the host asks for no agent"))?;
            tracing::info!(host = %self.name, machine, digest = agent.digest, "putting the agent on a host");
            word = self.next_word(&mut process, &agent.bytes, UPLOAD).await;
        }
        match word? {
            Some(Word::Ready { agent }) => {
                process.link = Link { agent, control };
                Ok(process)
            }
            Some(Word::Fail(trouble)) => Err(trouble),
            None => Err(self.trouble(process.obituary().await)),
            Some(Word::Missing { .. }) => Err(Trouble::lasting(format!(
                "`{}` asks for the agent twice",
                self.name
            ))),
        }
    }

    /// Says something and listens to what the script says next; none when it has ended.
    async fn next_word(
        &self,
        process: &mut Process,
        say: &[u8],
        limit: Duration,
    ) -> Result<Option<Word>, Trouble> {
        match tokio::time::timeout(limit, self.talk(process, say)).await {
            Ok(Ok(word)) => Ok(word),
            Ok(Err(reason)) => Err(Trouble::lasting(reason)),
            Err(_) => Err(Trouble::passing(format!(
                "no answer within {} s",
                limit.as_secs()
            ))),
        }
    }

    async fn talk(&self, process: &mut Process, mut say: &[u8]) -> Result<Option<Word>, String> {
        let looked_in = self.shared.agents.looked_in();
        let mut noise = 0;
        let mut last_noise = Vec::new();
        loop {
            while let Some(end) = process.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = process.unread.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(word) = bootstrap::word(&self.ssh, &looked_in, &line) {
                    return Ok(Some(word));
                }
                noise += line.len();
                last_noise = line.into_owned().into_bytes();
            }
            if noise + process.unread.len() > MAX_NOISE {
                return Err(format!(
                    "the login shell on `{}` prints without an end",
                    self.name
                ));
            }
            let Process {
                stdin,
                stdout,
                stderr,
                unread,
                last_words,
                ..
            } = process;
            tokio::select! {
                result = stdout.read_buf(unread) => match result {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => {
                        // A shell that is none says so on stdout.
                        last_words.splice(..0, last_noise);
                        return Ok(None);
                    }
                },
                result = stdin.write(say), if !say.is_empty() => match result {
                    Ok(length) => say = &say[length..],
                    // What it has said before it went is still to be read.
                    Err(_) => say = &[],
                },
                result = read_if_open(stderr, last_words), if stderr.is_some() => {
                    process.note_last_words(result);
                }
            }
        }
    }

    /// Why a program ended that was to lead to an agent.
    fn trouble(&self, obituary: Obituary) -> Trouble {
        let Obituary { status, last_words } = &obituary;
        if status.and_then(|status| status.code()) == Some(CLIENT_FAILED) {
            return Trouble::of_client(&self.ssh.address, last_words);
        }
        let status = status.map_or_else(|| "it goes on".to_owned(), |status| status.to_string());
        Trouble::lasting(format!(
            "the login shell of `{}` does not start the agent ({status}){}",
            self.name,
            obituary
                .last_line()
                .map(|line| format!(": {line}"))
                .unwrap_or_default()
        ))
    }
}

impl Launch for Dialer {
    fn name(&self) -> &str {
        &self.name
    }

    async fn launch(
        &mut self,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Process, Unreachable> {
        if self.has_answered {
            tell(&format!("`{}`, whose connection broke", self.name));
        }
        let tries = self.ssh.settings.retries.saturating_add(1);
        let mut tried = 1;
        loop {
            let begun = Instant::now();
            let trouble = match self.dial().await {
                Ok(process) => {
                    self.has_answered = true;
                    return Ok(process);
                }
                Err(trouble) => trouble,
            };
            let reason = trouble.reason;
            if trouble.outlook == Outlook::Lasting {
                return Err(Unreachable { reason });
            }
            if tried >= tries {
                self.has_answered = false;
                let times = match tried {
                    1 => String::new(),
                    _ => format!(", {tried} times"),
                };
                let reason = format!("`{}` was not reached{times}: {reason}", self.name);
                return Err(Unreachable { reason });
            }
            tracing::warn!(host = %self.name, tried, %reason, "a host is not reached and will be tried again");
            tell(&format!("`{}`: {reason}", self.name));
            let pause = pause(tried);
            let rest = if self.has_answered {
                self.ssh
                    .settings
                    .connect_timeout
                    .saturating_sub(begun.elapsed())
            } else {
                Duration::ZERO
            };
            tokio::time::sleep(pause.max(rest)).await;
            tried += 1;
        }
    }

    fn max_deaths(&self) -> u32 {
        self.ssh.settings.retries.saturating_add(1).max(2)
    }

    fn is_broken_link(&self, status: Option<ExitStatus>) -> bool {
        status.is_none_or(|status| status.code().is_none_or(|code| code == CLIENT_FAILED))
    }
}

/// How long to wait after a try: longer each time, and never the same for many hosts at once.
pub(crate) fn pause(tried: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << tried.saturating_sub(1).min(8));
    let whole = doubled.min(LONGEST_PAUSE);
    let jitter = RandomState::new().hash_one(tried) % 1000;
    whole / 2 + whole.mul_f64(jitter as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        for tried in 1..40 {
            let pause = pause(tried);
            assert!(pause >= FIRST_PAUSE / 2, "{tried}: {pause:?}");
            assert!(pause <= LONGEST_PAUSE, "{tried}: {pause:?}");
        }
        assert!(pause(5) > pause(1));
    }
}
