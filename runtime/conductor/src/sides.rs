//! What a deployment does with the traffic of a group: between which sides it goes, to which instances, and what its
//! plugins say before it begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::retry::Remainder;
use engine::split::Means;
use model::{
    Batching, Deployment, Digest, GroupRef, InstanceId, PluginName, Shares, SideName, Sides,
    Strategy, Target,
};
use spec::workspace::Group;

use crate::Conductor;
use crate::live::{LiveError, Roles, roles};
use crate::plan::{PlanError, chain};
use crate::pool;
use crate::preflight::{self, context, sides};
use crate::router::means;

/// What a group's plugins say before anything changes.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    plugins: BTreeMap<PluginName, Digest>,
    /// Where a plugin moves the traffic.
    traffic: Option<(Roles, Shares)>,
}

/// How a canary that is gone on with was left.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    plugins: BTreeMap<PluginName, Digest>,
    sides: Sides,
}

impl Conductor {
    /// Checks the plugins of a group, and learns which side is live.
    pub(crate) async fn look(
        &self,
        group: &Group,
        live: Option<&SideName>,
        warnings: &mut Vec<String>,
    ) -> Result<Seen, PlanError> {
        let mut plugins = preflight::balancer(&self.plugins, group, warnings).await?;
        let routed = preflight::router(&self.plugins, group, warnings).await?;
        plugins.extend(preflight::gates(&self.plugins, group, warnings).await?);
        let traffic = if routed.plugins.is_empty() {
            None
        } else {
            let unknown = || LiveError::Unknown {
                group: group.reference.clone(),
            };
            let read = routed.shares.ok_or_else(unknown)?;
            let journal = self.last_split(&group.reference)?;
            let roles = roles(
                &group.reference,
                &sides(group),
                &read,
                journal.as_ref(),
                live,
            )?;
            Some((roles, read))
        };
        plugins.extend(routed.plugins);
        Ok(Seen { plugins, traffic })
    }

    /// Gives a planned deployment its sides, the instances of the side that it goes to, and what is down.
    pub(crate) async fn arrange(
        &self,
        group: &Group,
        seen: Seen,
        deployment: &mut Deployment,
        warnings: &mut Vec<String>,
    ) -> Result<(), PlanError> {
        deployment.plugins.extend(seen.plugins);
        if let Some((roles, shares)) = seen.traffic {
            let installed = self.journal.installed(&group.reference)?;
            let sides = self.sides(group, roles, shares, deployment, &installed)?;
            for key in sides.installed.values() {
                self.add_package(&mut deployment.packages, key)?;
            }
            deployment.sides = Some(sides);
        }
        self.finish(group, deployment, warnings).await;
        Ok(())
    }

    /// Puts a planned deployment's instances in order, and notes what is down.
    async fn finish(&self, group: &Group, deployment: &mut Deployment, warnings: &mut Vec<String>) {
        if let Some(label) = &group.spread_by {
            spread(&mut deployment.targets, label);
        }
        warnings.extend(above_fair_share(deployment));
        self.find_down(deployment, warnings).await;
    }

    /// Checks the plugins of a group whose canary is gone on with, and learns whether the traffic is where it was left.
    pub(crate) async fn look_at_remainder(
        &self,
        group: &Group,
        of: &Remainder,
        warnings: &mut Vec<String>,
    ) -> Result<Left, PlanError> {
        let whole = self.workspace.group(&group.reference)?;
        let mut plugins = preflight::balancer(&self.plugins, group, warnings).await?;
        let members = of.members(&whole.instances);
        let routed = preflight::router_of(&self.plugins, group, &members, warnings).await?;
        plugins.extend(preflight::gates(&self.plugins, group, warnings).await?);
        let read = routed.shares.ok_or_else(|| LiveError::Unknown {
            group: group.reference.clone(),
        })?;
        let sides = sides(group);
        if means(&sides) == Means::Groups && !of.shares.contains(&read) {
            return Err(PlanError::Live(LiveError::Disagreement {
                group: group.reference.clone(),
                read,
                journal: of.shares.first().cloned().unwrap_or_default(),
                live: None,
            }));
        }
        plugins.extend(routed.plugins);
        Ok(Left {
            plugins,
            sides: of.sides(sides, &whole.instances, read),
        })
    }

    /// Gives the deployment that goes on with a canary its sides as they were left.
    pub(crate) async fn arrange_remainder(
        &self,
        group: &Group,
        of: Remainder,
        left: Left,
        deployment: &mut Deployment,
        warnings: &mut Vec<String>,
    ) {
        deployment.plugins.extend(left.plugins);
        deployment.sides = Some(left.sides);
        self.finish(group, deployment, warnings).await;
        let is_target = |id: &InstanceId| {
            let mut targets = deployment.targets.iter();
            targets.any(|target| target.instance.id == *id)
        };
        let down: Vec<_> = of
            .down
            .into_iter()
            .filter(|(id, _)| is_target(id))
            .collect();
        for (id, words) in down {
            deployment.down.entry(id).or_insert(words);
        }
    }

    fn sides(
        &self,
        group: &Group,
        roles: Roles,
        shares: Shares,
        deployment: &mut Deployment,
        installed: &BTreeMap<InstanceId, model::DeploymentId>,
    ) -> Result<Sides, PlanError> {
        let mut list = sides(group);
        let mut elsewhere = BTreeMap::new();
        if let Strategy::BlueGreen { .. } = group.strategy {
            for side in &list {
                let is_idle = side.name == roles.to;
                let is_on = |target: &Arc<Target>| {
                    side.instances
                        .iter()
                        .any(|instance| instance.id == target.instance.id)
                };
                if is_idle {
                    deployment.targets.retain(is_on);
                } else {
                    elsewhere.extend(side.instances.iter().filter_map(|instance| {
                        Some((instance.id.clone(), installed.get(&instance.id)?.clone()))
                    }));
                }
            }
        } else if let Some(from) = &roles.from {
            // What the operator left out stays on the side that is left.
            let whole = self.workspace.group(&group.reference)?;
            let is_target = |id: &InstanceId| {
                let mut targets = deployment.targets.iter();
                targets.any(|target| target.instance.id == *id)
            };
            let stays = whole.instances.iter().filter(|it| !is_target(&it.id));
            for side in list.iter_mut().filter(|side| side.name == *from) {
                side.instances = stays.clone().cloned().collect();
            }
        }
        Ok(Sides {
            list,
            from: roles.from,
            to: roles.to,
            shares,
            installed: elsewhere,
        })
    }

    /// Prepares the way back of a deployment between sides: it begins where the router says that the traffic is, and a
    /// colour still has to have what it had.
    pub(crate) async fn look_back(
        &self,
        group: &Group,
        of: &Deployment,
        deployment: &mut Deployment,
        warnings: &mut Vec<String>,
    ) -> Result<(), PlanError> {
        let routed = preflight::router(&self.plugins, group, warnings).await?;
        deployment.plugins.extend(routed.plugins);
        if let Some(sides) = &mut deployment.sides {
            if let Strategy::BlueGreen { .. } = of.strategy {
                let installed = self.journal.installed(&group.reference)?;
                let had = of.sides.as_ref().map(|sides| &sides.installed);
                for target in &deployment.targets {
                    let id = &target.instance.id;
                    if had.and_then(|had| had.get(id)) != installed.get(id) {
                        return Err(PlanError::Live(LiveError::Replaced {
                            group: group.reference.clone(),
                            side: sides.to.clone(),
                            instance: id.clone(),
                        }));
                    }
                }
            }
            if let Some(read) = routed.shares
                && means(&sides.list) == Means::Groups
                && read != sides.shares
            {
                warnings.push(format!(
                    "the router of {} says that the traffic is at {read}, and the journal says that it was last brought to {}: the way back begins where the router says",
                    group.reference, sides.shares
                ));
                sides.shares = read;
            }
        }
        self.find_down(deployment, warnings).await;
        Ok(())
    }

    /// Notes which instances get no traffic. A balancer that does not answer says nothing of them, and has been warned
    /// about.
    pub(crate) async fn find_down(&self, deployment: &mut Deployment, warnings: &mut Vec<String>) {
        let context = context(&deployment.group);
        match pool::down(&self.plugins, deployment, &context).await {
            Ok(down) => {
                deployment.down.extend(down.unwrap_or_default());
            }
            Err(error) => {
                // Where the balancer does not answer at all, that is what the operator has been told.
                let is_told = warnings.iter().any(|told| told.contains("does not answer"));
                if !is_told {
                    warnings.push(format!(
                        "nobody tells how the instances of {} are: {}",
                        deployment.group,
                        chain(&error)
                    ));
                }
            }
        }
    }
}

/// Puts the targets into the order that interleaves the values of a label.
fn spread(targets: &mut [Arc<Target>], label: &str) {
    let instances: Vec<_> = targets
        .iter()
        .map(|target| target.instance.clone())
        .collect();
    let places: BTreeMap<_, _> = engine::spread(&instances, label)
        .into_iter()
        .map(|instance| instance.id)
        .zip(0..)
        .collect();
    targets.sort_by_key(|target| {
        places
            .get(&target.instance.id)
            .copied()
            .unwrap_or(usize::MAX)
    });
}

/// A share that is more than the first batch carries by its number.
fn above_fair_share(deployment: &Deployment) -> Option<String> {
    let Strategy::Canary {
        traffic: Some(share),
        ..
    } = deployment.strategy
    else {
        return None;
    };
    let Batching::FirstThenEven { .. } = deployment.batching else {
        return None;
    };
    let total = deployment.targets.len();
    let first = deployment.batches().next().map_or(0, <[_]>::len);
    let fair = (first * 100).div_ceil(total.max(1));
    (usize::from(share) > fair).then(|| {
        let carry = if first == 1 { "carries" } else { "carry" };
        format!(
            "the canary gets {share}% of the traffic, and {first} of {total} instances {carry} {fair}% by number"
        )
    })
}

impl LiveError {
    /// The group that it is about.
    #[must_use]
    pub fn group(&self) -> &GroupRef {
        match self {
            Self::Disagreement { group, .. }
            | Self::Split { group, .. }
            | Self::UnknownSide { group, .. }
            | Self::NotLive { group, .. }
            | Self::NotTwo { group, .. }
            | Self::Unknown { group }
            | Self::Replaced { group, .. } => group,
        }
    }
}
