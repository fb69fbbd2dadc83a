//! Watching how the balancer finds a deployment's instances, while the deployment goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use engine::Input;
use model::{Deployment, DeploymentId, InstanceId, ReleaseId, Timestamp};
use plugin_host::OpContext;
use tokio::sync::{mpsc, watch};

use crate::drive::now;
use crate::plan::chain;
use crate::{Conductor, pool};

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// The longest that a look may take.
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// Reads the health of the watched deployments' instances, and tells which are down. It ends with the loop that it
/// tells.
pub(crate) async fn watch(
    conductor: Conductor,
    release: ReleaseId,
    mut watched: watch::Receiver<Vec<Arc<Deployment>>>,
    inputs: mpsc::Sender<Input>,
) {
    let mut told: BTreeMap<DeploymentId, BTreeMap<InstanceId, String>> = BTreeMap::new();
    loop {
        let deployments = watched.borrow_and_update().clone();
        told.retain(|id, _| deployments.iter().any(|deployment| deployment.id == *id));
        for deployment in &deployments {
            let context = context(&release, deployment);
            match pool::down(&conductor.plugins, deployment, &context).await {
                Ok(Some(found)) => {
                    let known = told.get(&deployment.id);
                    let down = steady(found, known);
                    // While some are down it is told again: the deployment may have been at work on them before.
                    let is_news = known != Some(&down) || !down.is_empty();
                    told.insert(deployment.id.clone(), down.clone());
                    let input = Input::HealthObserved {
                        deployment: deployment.id.clone(),
                        down,
                    };
                    // While the loop is busy the next look waits, so that no two observations ever queue up.
                    if is_news && inputs.send(input).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                // What cannot be seen has not changed: a balancer that is away says nothing of the instances.
                Err(error) => {
                    let why = chain(&error);
                    tracing::debug!(deployment = %deployment.id, why, "health was not read");
                }
            }
        }
        let changed = async {
            if deployments.is_empty() {
                watched.changed().await
            } else {
                tokio::time::timeout(INTERVAL, watched.changed())
                    .await
                    .unwrap_or(Ok(()))
            }
        };
        if changed.await.is_err() {
            return;
        }
    }
}

/// What is down, each with the words that it went down with: those of a later look may differ in nothing but a number.
fn steady(
    mut found: BTreeMap<InstanceId, String>,
    known: Option<&BTreeMap<InstanceId, String>>,
) -> BTreeMap<InstanceId, String> {
    for (instance, words) in &mut found {
        if let Some(before) = known.and_then(|known| known.get(instance)) {
            words.clone_from(before);
        }
    }
    found
}

fn context(release: &ReleaseId, deployment: &Deployment) -> OpContext {
    let latest = i64::try_from(LONGEST_LOOK.as_millis()).unwrap_or(i64::MAX);
    OpContext {
        run_id: release.to_string(),
        step_id: format!("{}.health", deployment.id),
        attempt: 1,
        deadline: Some(Timestamp(now().0.saturating_add(latest))),
        ..OpContext::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_stays_down_keeps_the_words_it_went_down_with() {
        let set = |all: &[(&str, &str)]| -> BTreeMap<InstanceId, String> {
            let each =
                |(id, words): &(&str, &str)| (InstanceId::parse(id).unwrap(), (*words).to_owned());
            all.iter().map(each).collect()
        };
        let known = set(&[("w1", "L4TOUT in 2001ms"), ("w2", "draining")]);

        let down = steady(
            set(&[("w1", "L4TOUT in 2002ms"), ("w3", "absent")]),
            Some(&known),
        );

        assert_eq!(down, set(&[("w1", "L4TOUT in 2001ms"), ("w3", "absent")]));
    }
}
