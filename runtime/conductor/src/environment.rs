//! The environment of a hook (DESIGN.md §6).

use engine::{Action, SwitchAction};
use model::{Deployment, DeploymentId, Direction, GroupRef, Package, ReleaseId, Target};

/// The stage at which the traffic of a deployment is switched, once for all its instances.
pub(crate) const SWITCH_TRAFFIC: &str = "SwitchTraffic";

/// Every variable that the runtime gives a hook, in order: its own names, then the package's, then the group's and
/// the instance's. A later one wins.
pub(crate) fn of_hook(
    release: &ReleaseId,
    action: &Action,
    package: &Package,
) -> Vec<(String, String)> {
    let Action {
        deployment,
        target,
        event,
        attempt,
        ..
    } = action;
    variables(release, deployment, target, package, event.name(), *attempt)
}

/// What the command gets that switches the traffic of a deployment.
pub(crate) fn of_switch(
    release: &ReleaseId,
    action: &SwitchAction,
    target: &Target,
    package: &Package,
) -> Vec<(String, String)> {
    let SwitchAction {
        deployment,
        attempt,
        ..
    } = action;
    variables(
        release,
        deployment,
        target,
        package,
        SWITCH_TRAFFIC,
        *attempt,
    )
}

fn variables(
    release: &ReleaseId,
    deployment: &Deployment,
    target: &Target,
    package: &Package,
    stage: &str,
    attempt: u32,
) -> Vec<(String, String)> {
    let instance = &target.instance;
    let application = deployment.group.application.as_str();
    let group = deployment.group.group.as_str();
    let id = deployment.id.as_str();
    let bundle = format!(
        "{}/{}",
        instance.rootdir.trim_end_matches('/'),
        cache_folder(deployment, package)
    );
    let kind = deployment.kind.to_lowercase();
    let (jd_operation, operation) = match deployment.direction {
        Direction::Deploy => ("UPDATE", "deploy"),
        Direction::Operate => ("UPDATE", kind.as_str()),
        Direction::Rollback { .. } => ("ROLLBACK", "rollback"),
        Direction::Retire { .. } => ("UPDATE", "retire"),
    };
    let attempt = attempt.to_string();
    let own = [
        ("LIFECYCLE_EVENT", stage),
        ("DEPLOYMENT_ID", id),
        ("APPLICATION_NAME", application),
        ("DEPLOYMENT_GROUP_NAME", group),
        ("DEPLOYMENT_GROUP_ID", group),
        ("JDCLOUD_CODEDEPLOY_APP_ID", application),
        ("JDCLOUD_CODEDEPLOY_APP_NAME", application),
        ("JDCLOUD_CODEDEPLOY_GROUP_ID", group),
        ("JDCLOUD_CODEDEPLOY_GROUP_NAME", group),
        ("JDCLOUD_CODEDEPLOY_DEPLOY_ID", id),
        ("JDCLOUD_CODEDEPLOY_LIFECYCLE_EVENT", stage),
        ("JDCLOUD_CODEDEPLOY_OPERATION", jd_operation),
        ("CUTOVER_RELEASE_ID", release.as_str()),
        ("CUTOVER_DEPLOYMENT_ID", id),
        ("CUTOVER_INSTANCE_ID", instance.id.as_str()),
        ("CUTOVER_REVISION", package.revision.digest.as_str()),
        ("CUTOVER_VERSION", package.revision.version.as_str()),
        ("CUTOVER_OPERATION", operation),
        ("CUTOVER_ATTEMPT", attempt.as_str()),
        ("CUTOVER_BUNDLE_DIR", bundle.as_str()),
        ("CUTOVER_ROOTDIR", instance.rootdir.as_str()),
    ];
    let own = own
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let given = package.appspec.env.iter().chain(&instance.env);
    own.chain(given.map(|(name, value)| (name.clone(), value.clone())))
        .collect()
}

/// A package's folder in an instance's cache, relative to its `rootdir`.
pub(crate) fn cache_folder(deployment: &Deployment, package: &Package) -> String {
    cache_folder_of(&deployment.group, &package.deployment)
}

/// The folder in an instance's cache of the package that a deployment brought, relative to its `rootdir`.
pub(crate) fn cache_folder_of(group: &GroupRef, brought_by: &DeploymentId) -> String {
    format!(
        "app-{}/group-{}/deploy-{brought_by}",
        group.application, group.group
    )
}
