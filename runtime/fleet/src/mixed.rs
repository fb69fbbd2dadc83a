//! Hosts of every kind.

use std::sync::Arc;

use model::{Done, Ending, Host, Undone};

use crate::{
    BoxFuture, Command, Condition, Fleet, LocalFleet, LogSink, Place, SshFleet, Unreachable,
};

/// Reaches every instance in the way that its host asks for.
pub struct MixedFleet {
    local: LocalFleet,
    ssh: SshFleet,
}

impl MixedFleet {
    /// Puts fleets together.
    #[must_use]
    pub fn new(local: LocalFleet, ssh: SshFleet) -> Self {
        Self { local, ssh }
    }
}

impl Fleet for MixedFleet {
    fn run(
        &self,
        host: &Host,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Ending> {
        match host {
            Host::Local => self.local.run(host, command, log),
            Host::Ssh(ssh) => self.ssh.run(ssh, command, log),
        }
    }

    fn join(
        &self,
        host: &Host,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Option<Ending>> {
        match host {
            Host::Local => self.local.join(host, command, log),
            Host::Ssh(ssh) => self.ssh.join(ssh, command, log),
        }
    }

    fn errand(
        &self,
        host: &Host,
        command: Command,
        log: Arc<dyn LogSink>,
    ) -> BoxFuture<'static, Result<Done, Undone>> {
        match host {
            Host::Local => self.local.errand(host, command, log),
            Host::Ssh(ssh) => self.ssh.errand(ssh, command, log),
        }
    }

    fn inspect(
        &self,
        host: &Host,
        place: Place,
    ) -> BoxFuture<'static, Result<Condition, Unreachable>> {
        match host {
            Host::Local => self.local.inspect(host, place),
            Host::Ssh(ssh) => self.ssh.inspect(ssh, place),
        }
    }

    fn cached(
        &self,
        host: &Host,
        rootdir: String,
        caches: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<String>, Unreachable>> {
        match host {
            Host::Local => self.local.cached(host, rootdir, caches),
            Host::Ssh(ssh) => self.ssh.cached(ssh, rootdir, caches),
        }
    }
}
