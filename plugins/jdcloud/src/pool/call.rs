//! One call about a target group: what it reads first, what keeps it from going on, and what it answers for each member.

use cutover_plugin_sdk::{Failure, Member, MemberResult, Outcome};

use super::place::Place;
use crate::config::Config;
use crate::groups;
use crate::lb::{Backend, Lb, Target};

/// The target group of one call.
pub(crate) struct Pool<'a> {
    pub(super) lb: &'a Lb<'a>,
    pub(super) config: &'a Config,
    pub(super) backend: Backend,
    /// None while it is not made.
    pub(super) group: Option<String>,
}

impl<'a> Pool<'a> {
    pub(crate) fn read(lb: &'a Lb<'a>, config: &'a Config) -> Result<Self, Failure> {
        let backend = groups::backend(lb, &config.backend)?;
        let group = groups::find(lb, config, &backend)?;
        Ok(Self {
            lb,
            config,
            backend,
            group,
        })
    }

    /// The targets that are registered.
    pub(super) fn present(&self) -> Result<Vec<Target>, Failure> {
        match &self.group {
            Some(group) => self.lb.targets(group),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn refuse_foreign(&self) -> Result<(), Failure> {
        let ours: Vec<&str> = self.group.as_deref().into_iter().collect();
        groups::foreign(self.config, &self.backend, &ours).map_or(Ok(()), Err)
    }

    /// A machine that is registered with another port would go on getting requests while it is believed to be out.
    pub(super) fn refuse_other_port(
        &self,
        group: &str,
        present: &[Target],
        place: &Place,
    ) -> Result<(), Failure> {
        if self.config.several_per_host {
            return Ok(());
        }
        let other = present
            .iter()
            .map(Place::of_target)
            .find(|target| target.host == place.host);
        let Some(other) = other else {
            return Ok(());
        };
        let message = format!(
            "`{}` is registered in `{group}` with port {}, expected was {}: somebody else registered it",
            place.host, other.port, place.port
        );
        Err(Failure::permanent("jd.target-elsewhere", message).hint(
            "deregister that target, write its port as `port`, or `several_per_host: true` where several instances have one machine",
        ))
    }
}

/// What became of each member: the failure that it has already, or what is made of what was found of it.
pub(super) fn results<'m, T>(
    target_ids: impl Iterator<Item = &'m String>,
    each: Vec<Result<T, Failure>>,
    mut outcome: impl FnMut(T) -> Result<Outcome, Failure>,
) -> Vec<MemberResult> {
    target_ids
        .zip(each)
        .map(|(id, found)| MemberResult {
            target_id: id.clone(),
            outcome: found.and_then(&mut outcome),
        })
        .collect()
}

pub(super) fn ids(members: &[Member]) -> impl Iterator<Item = &String> {
    members.iter().map(|member| &member.target_id)
}
