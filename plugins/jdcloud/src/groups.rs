//! The target group of a configuration: the one that it names, or the one that CodeDeploy would have made.

use cutover_plugin_sdk::{Failure, FailureClass, OpContext, info};

use crate::answer::is_doubtful;
use crate::config::{Config, Foreign, TargetType};
use crate::lb::{Backend, Kind, Lb, NewGroup, TargetGroup};
use crate::names::Names;

/// Reads a backend of a load balancer that the plugin serves.
pub(crate) fn backend(lb: &Lb<'_>, id: &str) -> Result<Backend, Failure> {
    let backend = lb.backend(id)?;
    match backend.load_balancer_type {
        Kind::Alb | Kind::Nlb => Ok(backend),
        Kind::Dnlb => {
            let message = format!("`{}` is a dnlb", backend.load_balancer_id);
            Err(Failure::unsupported("jd.dnlb", message)
                .hint("name a backend of an alb or of an nlb"))
        }
    }
}

/// Finds the target group of a configuration, where there is one yet.
pub(crate) fn find(
    lb: &Lb<'_>,
    config: &Config,
    backend: &Backend,
) -> Result<Option<String>, Failure> {
    if let Some(id) = &config.target_group {
        return Ok(Some(id.clone()));
    }
    let groups = lb.groups(&backend.load_balancer_id, backend.load_balancer_type)?;
    choose(&names(config)?, groups, backend)
}

/// A target group that is there.
pub(crate) enum There {
    Found(String),
    /// Just made: it has no targets, and the API may take a while to know of it.
    Made(String),
}

impl There {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Found(id) | Self::Made(id) => id,
        }
    }
}

/// Finds the target group, or makes it.
pub(crate) fn find_or_make(
    lb: &Lb<'_>,
    config: &Config,
    backend: &Backend,
    ctx: &OpContext,
) -> Result<There, Failure> {
    if let Some(id) = find(lb, config, backend)? {
        return Ok(There::Found(id));
    }
    let name = names(config)?.made_by(ctx);
    let made = lb.create_group(&NewGroup {
        target_group_name: &name,
        load_balancer_id: &backend.load_balancer_id,
        description: "made by cutover",
        target_type: group_type(config.target),
    });
    match made {
        Ok(id) => {
            info!("target group `{name}` was made: `{id}`");
            Ok(There::Made(id))
        }
        // It may have been made by this request, whose answer was lost, or by somebody who was faster.
        Err(failure) if is_doubtful(&failure) => match find(lb, config, backend) {
            Ok(Some(id)) => Ok(There::Found(id)),
            Ok(None) | Err(_) => Err(failure),
        },
        Err(failure) => Err(failure),
    }
}

/// The names that the groups of a configuration have.
pub(crate) fn names(config: &Config) -> Result<Names, Failure> {
    let Some(group) = &config.group else {
        let message = "neither `target_group` nor `group` says which target group is meant";
        return Err(Failure::invalid("jd.group", message).hint(
            "write `target_group: tg-…`, or `group: NAME` for a target group that cutover makes",
        ));
    };
    Ok(Names::of(group, config.side))
}

/// What JD Cloud calls a group of such targets.
pub(crate) fn group_type(target: TargetType) -> &'static str {
    match target {
        TargetType::Vm => "instance",
        TargetType::Ip => "ip",
    }
}

/// Of groups with a name of ours the attached one. Of several with one name, which are what is left of answers that were
/// lost, the oldest.
fn choose(
    names: &Names,
    groups: Vec<TargetGroup>,
    backend: &Backend,
) -> Result<Option<String>, Failure> {
    let mut ours: Vec<_> = groups
        .into_iter()
        .filter(|group| names.has(&group.target_group_name))
        .filter(|group| {
            group.load_balancer_id.is_empty() || group.load_balancer_id == backend.load_balancer_id
        })
        .collect();
    if let Some(attached) = ours
        .iter()
        .find(|group| backend.target_group_ids.contains(&group.target_group_id))
    {
        return Ok(Some(attached.target_group_id.clone()));
    }
    ours.sort_by(|one, other| {
        let age = one.created_time.cmp(&other.created_time);
        age.then_with(|| one.target_group_id.cmp(&other.target_group_id))
    });
    let Some(first) = ours.first() else {
        return Ok(None);
    };
    if ours
        .iter()
        .any(|group| group.target_group_name != first.target_group_name)
    {
        let listed: Vec<_> = ours
            .iter()
            .map(|group| format!("`{}` ({})", group.target_group_name, group.target_group_id))
            .collect();
        let message = format!(
            "backend `{}` has none of the target groups {}, so it is not clear which is meant",
            backend.backend_id,
            listed.join(", ")
        );
        return Err(Failure::permanent("jd.two-groups", message)
            .hint("delete those that are not used, or write `target_group`"));
    }
    Ok(Some(first.target_group_id.clone()))
}

/// Finds what keeps a backend from getting this target group: one of somebody else that it has. `ours` are the groups
/// that may be there.
pub(crate) fn foreign(config: &Config, backend: &Backend, ours: &[&str]) -> Option<Failure> {
    if !backend.ag_ids.is_empty() {
        let message = format!(
            "backend `{}` has the availability group `{}`, whose targets are JD Cloud's to choose",
            backend.backend_id,
            backend.ag_ids.join("`, `")
        );
        return Some(
            Failure::invalid("jd.availability-group", message)
                .hint("name a backend with a target group, or with nothing"),
        );
    }
    let foreign = backend
        .target_group_ids
        .iter()
        .find(|id| !ours.contains(&id.as_str()))?;
    if config.foreign_group == Foreign::Replace {
        return None;
    }
    let message = format!(
        "backend `{}` has target group `{foreign}`, which is not of this group: its targets would lose their traffic at once",
        backend.backend_id
    );
    Some(Failure::permanent("jd.foreign-group", message).hint(
        "name it as `target_group`, take it away from the backend, or write `foreign_group: replace` to have it replaced",
    ))
}

/// Gives a backend a target group instead of any other, and reads back.
pub(crate) fn attach(lb: &Lb<'_>, backend: &Backend, group: &str) -> Result<(), Failure> {
    let given = lb.attach(&backend.backend_id, group);
    let failure = match given {
        Ok(()) => None,
        Err(failure) if failure.class == FailureClass::UnknownOutcome => Some(failure),
        Err(failure) => return Err(failure),
    };
    match lb.backend(&backend.backend_id) {
        Ok(after) if is_attached(&after, group) => {
            info!(
                "backend `{}` has target group `{group}`",
                backend.backend_id
            );
            Ok(())
        }
        Ok(after) => Err(failure.unwrap_or_else(|| {
            let message = format!(
                "backend `{}` was given target group `{group}` and has {}",
                backend.backend_id,
                told(&after.target_group_ids)
            );
            // The API may tell of a change a little later.
            Failure::unknown_outcome("jd.not-attached", message)
        })),
        Err(reading) => Err(failure.unwrap_or_else(|| {
            Failure::unknown_outcome(reading.code.clone(), reading.message.clone())
        })),
    }
}

/// Whether a group alone gets a backend's requests.
pub(crate) fn is_attached(backend: &Backend, group: &str) -> bool {
    matches!(backend.target_group_ids.as_slice(), [id] if id == group)
}

/// Target groups as messages name them.
pub(crate) fn told(ids: &[String]) -> String {
    match ids {
        [] => "none".to_owned(),
        ids => format!("`{}`", ids.join("`, `")),
    }
}
