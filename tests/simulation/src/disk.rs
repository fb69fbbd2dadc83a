//! The disk under the conductor: what was committed is there after every crash, and nothing else.

use std::path::Path;

use journal::{Journal, Owner, Tenure};
use model::{Fact, GroupRef, LifecycleEvent, Record, Timestamp};

use crate::plan::{earlier, earlier_release_id, group_of, numbered, release_id};
use crate::scenario::{Medium, Past, Scenario};
use crate::violation::Violation;

/// The journal of one simulation.
pub(crate) struct Disk {
    /// Everything that is durable.
    records: Vec<Record>,
    /// Who may append; each change of owner raises it.
    fence: u64,
    real: Option<Real>,
}

/// The real journal beside it, which must come to the same.
struct Real {
    journal: Journal,
    tenure: Tenure,
    owner: Owner,
    _folder: tempfile::TempDir,
}

impl Disk {
    /// A journal with the records that open the release. `owner` works for fence 1.
    pub(crate) fn open(scenario: &Scenario, opening: Vec<Record>) -> Result<Self, Violation> {
        let real = match scenario.medium {
            Medium::Memory => None,
            Medium::File => Some(Real::open(scenario, &opening)?),
        };
        Ok(Self {
            records: opening,
            fence: 1,
            real,
        })
    }

    /// Everything that is durable.
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    /// The fence of whoever may append.
    pub(crate) fn fence(&self) -> u64 {
        self.fence
    }

    /// Makes the records of one turn durable, all or none.
    pub(crate) fn commit(&mut self, records: Vec<Record>) -> Result<(), Violation> {
        if let Some(real) = &self.real {
            let appended = real.journal.append(&real.tenure, records.clone()).wait();
            appended.map_err(|error| broken("append", &error))?;
        }
        self.records.extend(records);
        Ok(())
    }

    /// A conductor takes the release over; its records, as they are read back, and its fence come back.
    pub(crate) fn take_over(&mut self, now: Timestamp) -> Result<u64, Violation> {
        self.fence += 1;
        if let Some(real) = &mut self.real {
            // The process that had it is this one, so it cannot be known to be dead.
            let left = real.journal.leave(&real.tenure);
            left.map_err(|error| broken("leave", &error))?;
            let taken = real.journal.take_over(&release_id(), &real.owner, now);
            real.tenure = taken.map_err(|error| broken("take over", &error))?;
            let read = real.journal.records(&release_id(), 0);
            let read = read.map_err(|error| broken("read", &error))?;
            if read != self.records {
                return Err(Violation::new(
                    "what the journal gives back is what was appended",
                    format!("{read:?} is not {:?}", self.records),
                ));
            }
        }
        Ok(self.fence)
    }

    /// Whether the release could be deleted.
    pub(crate) fn delete(&mut self, now: Timestamp) -> Result<bool, Violation> {
        let Some(real) = &self.real else {
            return Ok(true);
        };
        match real.journal.delete(&release_id(), "ann@ops", now) {
            Ok(()) => Ok(true),
            Err(journal::DeleteError::StillInstalled { .. }) => Ok(false),
            Err(error) => Err(broken("delete", &error)),
        }
    }
}

fn broken(what: &str, error: &dyn std::error::Error) -> Violation {
    let mut text = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    Violation::new("the journal takes what the engine records", text)
}

impl Real {
    fn open(scenario: &Scenario, opening: &[Record]) -> Result<Self, Violation> {
        let failed = |error: &dyn std::error::Error| broken("open", error);
        let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
        let owner = Owner::current().map_err(|error| failed(&error))?;
        let journal = journal_with_a_past(folder.path(), scenario, &owner)?;
        let groups: Vec<GroupRef> = scenario.services.iter().map(group_of).collect();
        let tenure = journal
            .open_release(opening.to_vec(), &groups, &owner)
            .map_err(|error| failed(&error))?;
        Ok(Self {
            journal,
            tenure,
            owner,
            _folder: folder,
        })
    }
}

/// A journal in which an earlier release has brought what is installed.
fn journal_with_a_past(
    folder: &Path,
    scenario: &Scenario,
    owner: &Owner,
) -> Result<Journal, Violation> {
    let failed = |error: &dyn std::error::Error| broken("open the release before", error);
    let journal = Journal::open(&folder.join("journal.db")).map_err(|error| failed(&error))?;
    let services = scenario.services.iter();
    let deployed: Vec<_> = services
        .filter(|service| service.past == Past::OneVersion)
        .collect();
    let groups: Vec<GroupRef> = deployed.iter().map(|service| group_of(service)).collect();
    let mut facts = vec![Fact::ReleaseOpened(model::Release {
        id: earlier_release_id(),
        comment: String::new(),
        operator: "ann@ops".to_owned(),
        scope: model::Scope::Plan,
    })];
    for service in deployed {
        let deployment = earlier(service);
        let id = deployment.id.clone();
        let targets = deployment.targets.clone();
        facts.push(Fact::DeploymentOpened(std::sync::Arc::new(deployment)));
        for target in targets {
            let instance = target.instance.id.clone();
            let event = LifecycleEvent::Install;
            facts.push(Fact::StepStarted {
                deployment: id.clone(),
                instance: instance.clone(),
                event,
                attempt: 1,
                then: None,
            });
            facts.push(Fact::StepEnded {
                deployment: id.clone(),
                instance,
                event,
                attempt: 1,
                ending: model::Ending::Succeeded {
                    exit_code: None,
                    log: None,
                    note: None,
                },
            });
        }
    }
    facts.push(Fact::ReleaseEnded {
        status: model::ReleaseStatus::Succeeded,
        reason: None,
    });
    journal
        .open_release(numbered(facts.into_iter()), &groups, owner)
        .map_err(|error| failed(&error))?;
    Ok(journal)
}
