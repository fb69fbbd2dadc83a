//! Short ways to say what happens to a release.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use journal::{Journal, Owner, Tenure};
use model::{
    Amount, AppSpec, Batching, Deployment, DeploymentId, Digest, Direction, Ending, Fact, GroupRef,
    Host, Instance, InstanceId, LifecycleEvent, OnFailure, Package, Record, Release, ReleaseId,
    ReleaseStatus, Revision, Scope, StopFailures, Strategy, Target, Timestamp, Version,
};

/// A journal in a folder of its own.
pub(crate) struct Workspace {
    folder: tempfile::TempDir,
    pub(crate) journal: Journal,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(&folder.path().join("journal.db")).unwrap();
        Self { folder, journal }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    /// Opens a release on the groups, at the time 0.
    pub(crate) fn open(&self, release: &str, groups: &[&str]) -> Driver<'_> {
        let groups: Vec<GroupRef> = groups.iter().map(|text| group(text)).collect();
        let tenure = self
            .journal
            .open_release(vec![opened(release)], &groups, &me())
            .unwrap();
        Driver {
            journal: &self.journal,
            tenure,
            next: 1,
        }
    }
}

/// Appends to one release.
pub(crate) struct Driver<'a> {
    journal: &'a Journal,
    pub(crate) tenure: Tenure,
    pub(crate) next: u64,
}

impl Driver<'_> {
    pub(crate) fn append(&mut self, fact: Fact) -> &mut Self {
        let record = record(self.next, fact);
        self.next += 1;
        self.journal
            .append(&self.tenure, vec![record])
            .wait()
            .unwrap();
        self
    }

    /// Puts a package of the deployment's own on its instances, and says how that ended.
    pub(crate) fn deploy(
        &mut self,
        id: &str,
        on: &str,
        version: &str,
        instances: &[&str],
    ) -> &mut Self {
        let deployment = deployment(id, on, version, Direction::Deploy, id, instances);
        self.append(Fact::DeploymentOpened(Arc::new(deployment)));
        for instance in instances {
            self.install(id, instance);
        }
        self
    }

    /// Takes a deployment back to the package of another.
    pub(crate) fn roll_back(
        &mut self,
        id: &str,
        of: &str,
        to: (&str, &str),
        instances: &[&str],
    ) -> &mut Self {
        let (package, version) = to;
        let direction = Direction::Rollback {
            of: deployment_id(of),
        };
        let deployment = deployment(id, "shop/web", version, direction, package, instances);
        self.append(Fact::DeploymentOpened(Arc::new(deployment)));
        for instance in instances {
            self.install(id, instance);
        }
        self
    }

    pub(crate) fn install(&mut self, deployment: &str, instance: &str) -> &mut Self {
        let (deployment, instance) = (
            deployment_id(deployment),
            InstanceId::parse(instance).unwrap(),
        );
        let event = LifecycleEvent::Install;
        let ending = Ending::Succeeded {
            exit_code: None,
            log: None,
            note: None,
        };
        self.append(Fact::StepStarted {
            deployment: deployment.clone(),
            instance: instance.clone(),
            event,
            attempt: 1,
            then: None,
        });
        self.append(Fact::StepEnded {
            deployment,
            instance,
            event,
            attempt: 1,
            ending,
        })
    }

    pub(crate) fn end_deployment(&mut self, id: &str, status: ReleaseStatus) -> &mut Self {
        self.append(Fact::DeploymentEnded {
            deployment: deployment_id(id),
            status,
            reason: None,
        })
    }

    pub(crate) fn change(&mut self, status: ReleaseStatus) -> &mut Self {
        self.append(Fact::StatusChanged {
            status,
            reason: "asked for".into(),
        })
    }

    pub(crate) fn end(&mut self, status: ReleaseStatus) -> &mut Self {
        self.append(Fact::ReleaseEnded {
            status,
            reason: None,
        })
    }
}

pub(crate) fn record(seq: u64, fact: Fact) -> Record {
    Record {
        seq,
        at: Timestamp(seq.cast_signed()),
        fact,
    }
}

pub(crate) fn opened(release: &str) -> Record {
    let release = Release {
        id: release_id(release),
        comment: format!("about {release}"),
        operator: "ada@build".into(),
        scope: Scope::Service,
    };
    record(0, Fact::ReleaseOpened(release))
}

/// A record that changes nothing.
pub(crate) fn remark(seq: u64) -> Record {
    record(
        seq,
        Fact::StatusChanged {
            status: ReleaseStatus::Running,
            reason: format!("remark {seq}"),
        },
    )
}

pub(crate) fn group(text: &str) -> GroupRef {
    text.parse().unwrap()
}

pub(crate) fn release_id(text: &str) -> ReleaseId {
    ReleaseId::parse(text).unwrap()
}

pub(crate) fn deployment_id(text: &str) -> DeploymentId {
    DeploymentId::parse(text).unwrap()
}

pub(crate) fn me() -> Owner {
    Owner::current().unwrap()
}

/// An owner of whom this machine cannot say whether it lives.
pub(crate) fn stranger() -> Owner {
    Owner {
        host: "far-away".into(),
        boot_id: "b".into(),
        pid: 1,
        process_start: 1,
        name: "eve@far-away".into(),
    }
}

/// An owner that this machine knows to be gone: its pid is somebody else's.
pub(crate) fn departed() -> Owner {
    Owner {
        process_start: me().process_start + 1,
        ..me()
    }
}

pub(crate) fn package(id: &str, version: &str) -> Package {
    Package {
        deployment: deployment_id(id),
        revision: Revision {
            version: Version::parse(version).unwrap(),
            source: format!("file:///packages/{version}"),
            digest: Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap(),
        },
        appspec: AppSpec::default(),
    }
}

pub(crate) fn deployment(
    id: &str,
    on: &str,
    version: &str,
    direction: Direction,
    incoming: &str,
    instances: &[&str],
) -> Deployment {
    let package = package(incoming, version);
    let target = |name: &&str| {
        Arc::new(Target {
            instance: Instance {
                id: InstanceId::parse(name).unwrap(),
                host: Host::Local,
                rootdir: format!("/srv/{name}"),
                address: None,
                provider_id: None,
                labels: Vec::new(),
                env: BTreeMap::new(),
            },
            outgoing: None,
            incoming: deployment_id(incoming),
        })
    };
    Deployment {
        id: deployment_id(id),
        group: group(on),
        service_id: None,
        kind: "DEPLOY".into(),
        priority: 0,
        direction,
        revision: package.revision.clone(),
        strategy: Strategy::Rolling,
        batching: Batching::Window(Amount::Count(1)),
        wait_between: Duration::ZERO,
        failure_threshold: Amount::Count(1),
        batch_failure_threshold: None,
        minimum_healthy: None,
        gates: vec![],
        on_failure: OnFailure::Stop,
        stop_failures: StopFailures::Fail,
        balancer: None,
        router: None,
        sides: None,
        down: BTreeMap::new(),
        sequence: vec![LifecycleEvent::Install],
        calls: None,
        packages: BTreeMap::from([(deployment_id(incoming), Arc::new(package))]),
        targets: instances.iter().map(target).collect(),
        excluded: Vec::new(),
        plugins: BTreeMap::new(),
        keep_revisions: 5,
    }
}
