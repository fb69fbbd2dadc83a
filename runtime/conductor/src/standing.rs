//! Which version each instance of a group has.

use std::collections::{BTreeMap, BTreeSet};

use journal::Journal;
use model::{DeploymentId, InstanceId, Version};
use spec::workspace::Group;

/// The versions of a group's instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Of every instance of the group; none where nothing is installed.
    pub versions: BTreeMap<InstanceId, Option<Version>>,
    /// The instances of the group, in order, as far as those that belong together differ.
    pub mixed: Vec<InstanceId>,
}

/// Looks up what is installed in a group. The sides of a blue-green group may differ from each other, the instances of
/// one side may not.
///
/// # Errors
/// Whatever the journal says.
pub fn standing(journal: &Journal, group: &Group) -> Result<Standing, journal::Error> {
    let installed = journal.installed(&group.reference)?;
    let mut brought: BTreeMap<&DeploymentId, Option<Version>> = BTreeMap::new();
    for deployment in installed.values() {
        if !brought.contains_key(deployment) {
            let package = journal.package(deployment)?;
            brought.insert(
                deployment,
                package.map(|package| package.revision.version.clone()),
            );
        }
    }
    let version = |id: &InstanceId| {
        let deployment = installed.get(id)?;
        brought.get(deployment).cloned().flatten()
    };
    let versions = group
        .instances
        .iter()
        .map(|instance| (instance.id.clone(), version(&instance.id)))
        .collect();
    Ok(Standing {
        mixed: mixed(group, &versions),
        versions,
    })
}

fn mixed(group: &Group, versions: &BTreeMap<InstanceId, Option<Version>>) -> Vec<InstanceId> {
    let colours = group.sides.iter().map(|side| &side.instances);
    let mut together: Vec<_> = colours.filter(|side| !side.is_empty()).collect();
    if together.is_empty() {
        together.push(&group.instances);
    }
    let mut mixed = Vec::new();
    for instances in together {
        let found: BTreeSet<_> = instances
            .iter()
            .filter_map(|instance| versions.get(&instance.id))
            .collect();
        if found.len() > 1 {
            mixed.extend(instances.iter().map(|instance| instance.id.clone()));
        }
    }
    mixed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::{SideGroup, SideName};

    use super::*;

    fn group() -> Group {
        let text = "
applications:
  shop:
    groups:
      web:
        instances:
          - {id: web-1, host: \"local:\", rootdir: /srv/web-1}
          - {id: web-2, host: \"local:\", rootdir: /srv/web-2}
          - {id: web-3, host: \"local:\", rootdir: /srv/web-3}
          - {id: web-4, host: \"local:\", rootdir: /srv/web-4}
";
        let workspace = spec::workspace::parse(text, Path::new("cutover.yaml")).unwrap();
        workspace.value.groups.into_iter().next().unwrap()
    }

    #[track_caller]
    fn check(group: &Group, versions: [&str; 4], expected: &[&str]) {
        let versions = group.instances.iter().zip(versions);
        let versions = versions
            .map(|(instance, version)| (instance.id.clone(), Version::parse(version).ok()))
            .collect();
        let mixed = mixed(group, &versions);
        let mixed: Vec<_> = mixed.iter().map(InstanceId::as_str).collect();
        assert_eq!(mixed, expected);
    }

    #[test]
    fn a_group_is_mixed_when_its_instances_differ() {
        let group = group();

        check(&group, ["1.0.0"; 4], &[]);
        check(&group, [""; 4], &[]);
        check(
            &group,
            ["1.1.0", "1.0.0", "1.1.0", ""],
            &["web-1", "web-2", "web-3", "web-4"],
        );
    }

    #[test]
    fn the_sides_of_a_group_may_differ_and_their_instances_may_not() {
        let mut group = group();
        let side = |name: &str, range: std::ops::Range<usize>| SideGroup {
            name: SideName::parse(name).unwrap(),
            group: "{}".to_owned(),
            instances: group.instances[range].to_vec(),
        };
        group.sides = vec![side("blue", 0..2), side("green", 2..4)];

        check(&group, ["1.1.0", "1.1.0", "1.0.0", "1.0.0"], &[]);
        check(
            &group,
            ["1.1.0", "1.1.0", "1.0.0", "0.9.0"],
            &["web-3", "web-4"],
        );
    }
}
