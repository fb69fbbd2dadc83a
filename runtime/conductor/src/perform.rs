//! Carrying out one action.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::split::Past;
use engine::traffic::Goal;
use engine::{Action, HoldAction, SwitchAction, Work};
use fleet::Asked;
use model::{
    AttemptId, Balancer, Cause, Decision, Deployment, DeploymentId, Direction, Ending, Instance,
    InstanceId, LifecycleEvent, Package, ReleaseId, Router, Run, Script, Target,
};

use crate::authority::Authority;
use crate::environment::{SWITCH_TRAFFIC, cache_folder, cache_folder_of, of_hook, of_switch};
use crate::logs::Sink;
use crate::{Conductor, Observer, Place, balancer, call, gate, router};

/// Carries out the actions of one release.
pub(crate) struct Performer {
    conductor: Conductor,
    release: ReleaseId,
    authority: Authority,
    observer: Arc<dyn Observer>,
    /// The instances whose package cache has been looked at.
    inspected: Mutex<HashSet<(DeploymentId, InstanceId)>>,
    /// The deployments that brought what instances leave.
    known: Mutex<HashMap<DeploymentId, Option<Arc<Deployment>>>>,
}

impl Performer {
    pub(crate) fn new(
        conductor: Conductor,
        release: ReleaseId,
        authority: Authority,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            conductor,
            release,
            authority,
            observer,
            inspected: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// Carries an action out, or learns what became of it when it was begun before.
    pub(crate) async fn perform(&self, action: &Action) -> Ending {
        match &action.work {
            // Whoever made the call is gone, and with it whatever the plugin was going to answer.
            Work::Call(_) if action.past == Past::Unknown => Ending::Lost {
                reason: "the conductor that called the plugin left before there was an answer"
                    .to_owned(),
            },
            Work::Block => self.move_traffic(action, Goal::Blocked).await,
            Work::Allow => self.move_traffic(action, Goal::Allowed).await,
            Work::Download(package) => self.download(action, package).await,
            Work::Hook(package) => match self.restore(action).await {
                Ok(()) => self.hook(action, package).await,
                Err(ending) => ending,
            },
            Work::Call(package) => match self.restore(action).await {
                Ok(()) => self.call(action, package).await,
                Err(ending) => ending,
            },
            Work::Install(package) => match self.restore(action).await {
                Ok(()) => self.install(action, package).await,
                Err(ending) => ending,
            },
        }
    }

    /// Switches the traffic of a deployment, or learns what became of it when it was begun before.
    pub(crate) async fn switch(&self, action: &SwitchAction) -> Ending {
        match &action.deployment.router {
            Some(Router::Plugin {
                plugin,
                config,
                timeout,
            }) => {
                let router = router::Router {
                    plugin,
                    config,
                    timeout: *timeout,
                };
                let (conductor, observer) = (&self.conductor, &*self.observer);
                router::switch(conductor, &self.authority, router, action, observer).await
            }
            Some(Router::Command { command, timeout }) => {
                self.switch_by_command(action, command, *timeout).await
            }
            None => failed(
                Cause::Invalid,
                "nothing is named that switches the traffic".to_owned(),
            ),
        }
    }

    /// Evaluates a gate until it is decided.
    pub(crate) async fn hold(&self, action: &HoldAction) -> Decision {
        self.authority.claim().await;
        gate::decide(&self.conductor, &self.release, action, &*self.observer).await
    }

    async fn switch_by_command(
        &self,
        action: &SwitchAction,
        command: &str,
        timeout: Duration,
    ) -> Ending {
        let deployment = &action.deployment;
        let Some(target) = deployment.targets.first() else {
            return failed(Cause::Invalid, "the deployment has no instance".to_owned());
        };
        let Some(package) = deployment.packages.get(&target.incoming) else {
            return failed(Cause::Invalid, "the deployment has no package".to_owned());
        };
        let work = fleet::Work::Hooks {
            cache: cache_folder(deployment, package),
            scripts: vec![traffic_script(command, "switch", timeout)],
            env: of_switch(&self.release, action, target, package),
        };
        let attempt = AttemptId::of_switch(&deployment.id, action.attempt);
        let path = self.conductor.logs.path(
            &deployment.id,
            &target.instance.id,
            SWITCH_TRAFFIC,
            action.attempt,
        );
        let sink = self.sink(&action.deployment, &target.instance, path, SWITCH_TRAFFIC);
        let command = fleet::Command {
            attempt,
            rootdir: target.instance.rootdir.clone(),
            work,
            asked: asked(action.past),
            then: None,
            fence: self.authority.fence(),
        };
        self.run_on(&target.instance, command, sink).await
    }

    async fn move_traffic(&self, action: &Action, goal: Goal) -> Ending {
        match &action.deployment.balancer {
            Some(Balancer::Plugin {
                plugin,
                config,
                timeout,
            }) => {
                let balancer = balancer::Balancer {
                    plugin,
                    config,
                    timeout: *timeout,
                };
                let (conductor, observer) = (&self.conductor, &*self.observer);
                let authority = &self.authority;
                balancer::reach(conductor, authority, balancer, action, goal, observer).await
            }
            Some(Balancer::Command { command, timeout }) => {
                let word = match goal {
                    Goal::Blocked => "deregister",
                    Goal::Allowed => "register",
                };
                let packages = &action.deployment.packages;
                match packages.get(&action.target.incoming) {
                    Some(package) => {
                        let scripts = vec![traffic_script(command, word, *timeout)];
                        self.scripts(action, package, scripts).await
                    }
                    None => failed(Cause::Invalid, "the deployment has no package".to_owned()),
                }
            }
            None => failed(Cause::Invalid, "the group has no load balancer".to_owned()),
        }
    }

    /// Learns what became of a hook that may have begun by itself; none when it has not.
    pub(crate) async fn join(&self, action: &Action) -> Option<Ending> {
        let Work::Hook(package) = &action.work else {
            return None;
        };
        let command = fleet::Command {
            attempt: self.attempt(action),
            rootdir: action.target.instance.rootdir.clone(),
            work: self.hook_work(action, package),
            asked: asked(action.past),
            then: None,
            fence: self.authority.fence(),
        };
        let sink = self.sink_of(action);
        self.authority.claim().await;
        let found = self
            .conductor
            .fleet
            .join(&action.target.instance.host, command, sink.clone());
        Some(with_log(found.await?, &sink))
    }

    fn attempt(&self, action: &Action) -> AttemptId {
        AttemptId::of(
            &action.deployment.id,
            &action.target.instance.id,
            action.event,
            action.attempt,
        )
    }

    /// Has the action's instance do all of it, and begin what follows when it has succeeded.
    async fn run_step(&self, action: &Action, work: fleet::Work) -> Ending {
        let (attempt, then) = (self.attempt(action), self.then(action));
        self.run(action, attempt, asked(action.past), work, then)
            .await
    }

    /// Has the action's instance do something of it.
    async fn run(
        &self,
        action: &Action,
        attempt: AttemptId,
        asked: Asked,
        work: fleet::Work,
        then: Option<fleet::Then>,
    ) -> Ending {
        let instance = &action.target.instance;
        let command = fleet::Command {
            attempt,
            rootdir: instance.rootdir.clone(),
            work,
            asked,
            then,
            fence: self.authority.fence(),
        };
        self.run_on(instance, command, self.sink_of(action)).await
    }

    /// Where the output of an action's attempt goes.
    fn sink_of(&self, action: &Action) -> Arc<Sink> {
        let (instance, event) = (&action.target.instance, action.event.name());
        let deployment = &action.deployment;
        let logs = &self.conductor.logs;
        let path = logs.path(&deployment.id, &instance.id, event, action.attempt);
        self.sink(deployment, instance, path, event)
    }

    /// Where an attempt's output goes. `stage` says under which name it is shown.
    fn sink(
        &self,
        deployment: &Deployment,
        instance: &Instance,
        log: PathBuf,
        stage: &'static str,
    ) -> Arc<Sink> {
        let place = Place {
            deployment: deployment.id.clone(),
            instance: instance.id.clone(),
        };
        Arc::new(Sink::new(log, place, stage, self.observer.clone()))
    }

    /// The hook that may begin as soon as an action has succeeded.
    fn then(&self, action: &Action) -> Option<fleet::Then> {
        let follower = action.follower()?;
        let Work::Hook(package) = &follower.work else {
            return None;
        };
        Some(fleet::Then {
            attempt: self.attempt(&follower),
            work: self.hook_work(&follower, package),
        })
    }

    /// Has an instance's agent carry an attempt out.
    async fn run_on(
        &self,
        instance: &Instance,
        command: fleet::Command,
        sink: Arc<Sink>,
    ) -> Ending {
        self.authority.claim().await;
        let ending = self
            .conductor
            .fleet
            .run(&instance.host, command, sink.clone())
            .await;
        with_log(ending, &sink)
    }

    async fn call(&self, action: &Action, package: &Package) -> Ending {
        let sink = self.sink_of(action);
        let env = of_hook(&self.release, action, package);
        let step = call::Step {
            conductor: &self.conductor,
            authority: &self.authority,
            action,
            package,
            env,
            sink,
        };
        step.carry_out(&*self.observer).await
    }

    async fn hook(&self, action: &Action, package: &Package) -> Ending {
        let work = self.hook_work(action, package);
        self.run_step(action, work).await
    }

    fn hook_work(&self, action: &Action, package: &Package) -> fleet::Work {
        let scripts = package.appspec.hooks.get(&action.event);
        fleet::Work::Hooks {
            cache: cache_folder(&action.deployment, package),
            scripts: scripts.cloned().unwrap_or_default(),
            env: of_hook(&self.release, action, package),
        }
    }

    async fn scripts(&self, action: &Action, package: &Package, scripts: Vec<Script>) -> Ending {
        let work = fleet::Work::Hooks {
            cache: cache_folder(&action.deployment, package),
            scripts,
            env: of_hook(&self.release, action, package),
        };
        self.run_step(action, work).await
    }

    async fn download(&self, action: &Action, package: &Package) -> Ending {
        let mut action = action.clone();
        // What follows needs the packages that it would look for itself. When that fails it has to tell.
        if action.then.is_some() && self.restore(&action).await.is_err() {
            self.inspected
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&place(&action));
            action.then = None;
        }
        match self.fetch_work(&action, package).await {
            Ok(work) => self.run_step(&action, work).await,
            Err(ending) => ending,
        }
    }

    async fn install(&self, action: &Action, package: &Package) -> Ending {
        let work = fleet::Work::Install(installation(action, package));
        self.run_step(action, work).await
    }

    async fn fetch_work(&self, action: &Action, package: &Package) -> Result<fleet::Work, Ending> {
        let stored = match self
            .conductor
            .stored(&action.deployment.group, package)
            .await
        {
            Ok(stored) => stored,
            Err(error) => return Err(failed(Cause::FetchFailed, crate::plan::chain(&error))),
        };
        let deployment = &action.deployment;
        let keep = [
            Some(&action.target.incoming),
            action.target.outgoing.as_ref(),
        ];
        let keep = keep
            .into_iter()
            .flatten()
            .filter_map(|key| deployment.packages.get(key));
        Ok(fleet::Work::Fetch {
            cache: cache_folder(deployment, package),
            source: stored.tree,
            digest: stored.tree_digest,
            keep: keep
                .map(|package| cache_folder(deployment, package))
                .chain(self.before_outgoing(action))
                .collect(),
            keep_others: deployment.keep_revisions,
            installation: (action.event == LifecycleEvent::DownloadBundle)
                .then(|| installation(action, package)),
        })
    }

    /// The package folder of what an instance had before the version that it leaves. While that one may stay after all,
    /// because this deployment fails, a rollback of it returns there.
    fn before_outgoing(&self, action: &Action) -> Option<String> {
        let outgoing = action.target.outgoing.as_ref()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let brought_by = known.entry(outgoing.clone()).or_insert_with(|| {
            let found = self.conductor.journal.deployment(outgoing);
            found.unwrap_or_else(|error| {
                tracing::warn!(deployment = %outgoing, %error, "cannot learn what a deployment replaced");
                None
            })
        });
        let targets = &brought_by.as_ref()?.targets;
        let is_here = |target: &&Arc<Target>| target.instance.id == action.target.instance.id;
        let before = targets.iter().find(is_here)?.outgoing.as_ref()?;
        Some(cache_folder_of(&action.deployment.group, before))
    }

    /// Puts packages back that are needed and gone from the instance's cache: the one left, and in a rollback the one
    /// returned to. They come from the recorded source, with the recorded digest.
    async fn restore(&self, action: &Action) -> Result<(), Ending> {
        let (deployment, target) = (&action.deployment, &action.target);
        if !self
            .inspected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(place(action))
        {
            return Ok(());
        }
        let returned_to = (deployment.direction != Direction::Deploy).then_some(&target.incoming);
        let keys = target.outgoing.iter().chain(returned_to);
        let needed: Vec<_> = keys
            .filter_map(|key| deployment.packages.get(key))
            .collect();
        if needed.is_empty() {
            return Ok(());
        }
        let caches = needed
            .iter()
            .map(|package| cache_folder(deployment, package))
            .collect();
        let present = self.conductor.fleet.cached(
            &target.instance.host,
            target.instance.rootdir.clone(),
            caches,
        );
        let present = present.await.map_err(|error| Ending::Unreachable {
            reason: error.to_string(),
        })?;
        for package in needed {
            if present.contains(&cache_folder(deployment, package)) {
                continue;
            }
            let name = format!(
                "{}.{}.restore.{}",
                deployment.id, target.instance.id, package.deployment
            );
            let attempt = AttemptId::parse(name)
                .map_err(|error| failed(Cause::Invalid, error.to_string()))?;
            let ending = match self.fetch_work(action, package).await {
                Ok(work) => self.run(action, attempt, Asked::Perhaps, work, None).await,
                Err(ending) => ending,
            };
            match ending {
                Ending::Succeeded { .. } => {}
                Ending::Failed {
                    cause,
                    reason,
                    script,
                    exit_code,
                    log,
                } => {
                    let reason = format!(
                        "put {} back into the package cache: {reason}",
                        package.revision.version
                    );
                    return Err(Ending::Failed {
                        cause,
                        reason,
                        script,
                        exit_code,
                        log,
                    });
                }
                other => return Err(other),
            }
        }
        Ok(())
    }
}

fn installation(action: &Action, package: &Package) -> fleet::Installation {
    fleet::Installation {
        group: action.deployment.group.clone(),
        deployment: package.deployment.clone(),
        cache: cache_folder(&action.deployment, package),
        files: package.appspec.files.clone(),
        permissions: package.appspec.permissions.clone(),
        on_existing: package.appspec.on_existing,
    }
}

/// An ending with the log that was kept here.
fn with_log(ending: Ending, sink: &Sink) -> Ending {
    let kept = sink.written();
    match ending {
        Ending::Succeeded {
            exit_code,
            log,
            note,
        } => Ending::Succeeded {
            exit_code,
            log: kept.or(log),
            note,
        },
        Ending::Failed {
            cause,
            reason,
            script,
            exit_code,
            log,
        } => Ending::Failed {
            cause,
            reason,
            script,
            exit_code,
            log: kept.or(log),
        },
        other => other,
    }
}

fn place(action: &Action) -> (DeploymentId, InstanceId) {
    (
        action.deployment.id.clone(),
        action.target.instance.id.clone(),
    )
}

fn asked(past: Past) -> Asked {
    match past {
        Past::Nothing => Asked::Never,
        Past::Unknown => Asked::Perhaps,
    }
}

/// The script that has a traffic command do what the word says.
fn traffic_script(command: &str, word: &str, timeout: Duration) -> Script {
    Script {
        run: Run::Command(format!("{command} {word}")),
        timeout,
        runas: None,
    }
}

pub(crate) fn failed(cause: Cause, reason: String) -> Ending {
    Ending::Failed {
        cause,
        reason,
        script: None,
        exit_code: None,
        log: None,
    }
}
