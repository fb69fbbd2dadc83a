//! A plan held against a workspace: which group each service is, and which of its instances are meant.

use model::{GroupRef, InstanceId};

use super::keys::Needs;
use super::plan::{Item, ReleasePlan, subject};
use crate::problem::{Collector, Parsed, Problems, excerpt, quoted_list};
use crate::workspace::{Group, Workspace};

/// The most services or labels that a hint lists.
const LISTED: usize = 10;

/// An item with what it means in a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved<'p> {
    pub item: &'p Item,
    pub group: GroupRef,
    /// At least one, in the order of the group.
    pub instances: Vec<InstanceId>,
}

impl ReleasePlan {
    /// Finds the group and the instances of each item, in the order of the plan.
    ///
    /// # Errors
    /// Every item whose service no group is, or whose labels no instance carries.
    pub fn resolve(&self, workspace: &Workspace) -> Result<Parsed<Vec<Resolved<'_>>>, Problems> {
        let mut problems = Collector::new(&self.file);
        let resolved: Vec<_> = self
            .items
            .iter()
            .filter_map(|item| {
                problems.about(Some(subject(item.service_id)));
                resolve(item, workspace, &mut problems)
            })
            .collect();
        problems.about(None);
        let is_whole = resolved.len() == self.items.len();
        problems.finish(is_whole.then_some(resolved))
    }
}

fn resolve<'p>(
    item: &'p Item,
    workspace: &Workspace,
    problems: &mut Collector,
) -> Option<Resolved<'p>> {
    let mut groups = workspace.groups.iter();
    let Some(group) = groups.find(|group| group.service_id == Some(item.service_id)) else {
        problems.error_with_hint(
            item.place("/serviceId"),
            "no group of the workspace has this `service_id`",
            known_services(item.service_id, workspace),
        );
        return None;
    };
    if Needs::of(&item.kind) == Needs::Sources && group.build.is_none() {
        let message = format!(
            "`{}` builds nothing: the group `{}` does not say how, and the sources are the package",
            item.kind, group.reference
        );
        let hint = "write `build: {command: COMMAND}` in the group";
        problems.warn(item.place("/deployment"), message, hint);
    }
    Some(Resolved {
        item,
        group: group.reference.clone(),
        instances: instances(item, group, problems)?,
    })
}

/// Which services there are, the likeliest first.
fn known_services(wanted: u64, workspace: &Workspace) -> String {
    let wanted = wanted.to_string();
    let mut known: Vec<_> = workspace
        .groups
        .iter()
        .filter_map(|group| {
            let id = group.service_id?;
            let distance = strsim::damerau_levenshtein(&wanted, &id.to_string());
            Some((distance, id, &group.reference))
        })
        .collect();
    if known.is_empty() {
        return format!("write `service_id: {wanted}` in the group that is meant");
    }
    known.sort_by_key(|(distance, id, _)| (*distance, *id));
    let names = known
        .iter()
        .take(LISTED)
        .map(|(_, id, group)| format!("{id} (`{group}`)"))
        .collect::<Vec<_>>()
        .join(", ");
    let more = match known.len().saturating_sub(LISTED) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!("the services are {names}{more}")
}

/// The instances that carry any of the item's labels.
fn instances(item: &Item, group: &Group, problems: &mut Collector) -> Option<Vec<InstanceId>> {
    let at = item.place("/deployLabel");
    let is_carried = |label: &String| {
        let mut instances = group.instances.iter();
        instances.any(|instance| instance.labels.contains(label))
    };
    let (carried, idle): (Vec<&String>, Vec<_>) =
        item.labels.iter().partition(|label| is_carried(label));
    if carried.is_empty() && !idle.is_empty() {
        let message = format!(
            "`deployLabel`: no instance of `{}` carries {}",
            group.reference,
            named(&idle)
        );
        problems.error_with_hint(at, message, known_labels(group));
        return None;
    }
    if !idle.is_empty() {
        let message = format!(
            "`deployLabel`: no instance of `{}` carries {}, only those with {} go",
            group.reference,
            named(&idle),
            named(&carried)
        );
        problems.warn(at, message, known_labels(group));
    }
    let is_meant = |labels: &[String]| {
        carried.is_empty() || carried.iter().any(|label| labels.contains(label))
    };
    let instances = group.instances.iter();
    Some(
        instances
            .filter(|instance| is_meant(&instance.labels))
            .map(|instance| instance.id.clone())
            .collect(),
    )
}

fn named(labels: &[&String]) -> String {
    let shown: Vec<_> = labels.iter().map(|label| excerpt(label)).collect();
    let shown: Vec<_> = shown.iter().map(String::as_str).collect();
    match shown.as_slice() {
        [only] => format!("the label `{only}`"),
        several => format!("any of the labels {}", quoted_list(several)),
    }
}

fn known_labels(group: &Group) -> String {
    let mut known: Vec<&str> = group
        .instances
        .iter()
        .flat_map(|instance| instance.labels.iter().map(String::as_str))
        .collect();
    known.sort_unstable();
    known.dedup();
    if known.is_empty() {
        return "its instances have no labels: write `labels: […]` on those that are meant, or leave `deployLabel` out".to_owned();
    }
    let more = match known.len().saturating_sub(LISTED) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    known.truncate(LISTED);
    format!(
        "its instances have the labels {}{more}",
        quoted_list(&known)
    )
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use insta::assert_snapshot;

    use super::*;

    const WORKSPACE: &str = r#"
applications:
  shop:
    groups:
      web:
        service_id: 111
        build: {command: make}
        instances:
          - {id: web-1, host: "local:", rootdir: /srv/web-1, labels: [label1, zone=a]}
          - {id: web-2, host: "local:", rootdir: /srv/web-2, labels: [zone=b]}
          - {id: web-3, host: "local:", rootdir: /srv/web-3, labels: [label2, zone=a]}
      api:
        service_id: 222
        instances: [{id: api-1, host: "local:"}]
      plain:
        instances: [{id: plain-1, host: "local:"}]
"#;

    fn workspace(text: &str) -> Workspace {
        crate::workspace::parse(text, Path::new("cutover.yaml"))
            .unwrap()
            .value
    }

    /// One line for each item, then the problems.
    fn check_in(text: &str, items: &str) -> String {
        let plan = format!("deployPlanItems: [{items}]\n");
        let plan = super::super::parse(&plan, Path::new("plan.yaml")).unwrap();
        let (resolved, problems) = match plan.value.resolve(&workspace(text)) {
            Ok(parsed) => (parsed.value, parsed.warnings),
            Err(problems) => (Vec::new(), problems),
        };
        let mut out = String::new();
        for Resolved {
            item,
            group,
            instances,
        } in resolved
        {
            let names: Vec<_> = instances.iter().map(InstanceId::as_str).collect();
            writeln!(out, "{} {group} {}", item.service_id, names.join(" ")).unwrap();
        }
        for problem in &problems {
            writeln!(out, "{problem:#}").unwrap();
        }
        out
    }

    fn check(items: &str) -> String {
        check_in(WORKSPACE, items)
    }

    #[test]
    fn a_service_is_a_group_and_its_instances() {
        assert_snapshot!(check("{serviceId: 222, deployment: STOP}, {serviceId: 111, deployment: RESTART}"), @"
        222 shop/api api-1
        111 shop/web web-1 web-2 web-3
        ");
    }

    #[test]
    fn labels_select_instances_that_carry_any_of_them() {
        assert_snapshot!(check("{serviceId: 111, deployment: STOP, deployLabel: 'label2, zone=b'}"), @"111 shop/web web-2 web-3");
        assert_snapshot!(check("{serviceId: 111, deployment: STOP, deployLabel: zone=a}"), @"111 shop/web web-1 web-3");
    }

    #[test]
    fn labels_that_nobody_carries_are_pointed_out() {
        assert_snapshot!(check("{serviceId: 111, deployment: STOP, deployLabel: 'Label1,zone=c'}"), @"
        plan.yaml:1:67: service 111: `deployLabel`: no instance of `shop/web` carries any of the labels `Label1`, `zone=c`
          hint: its instances have the labels `label1`, `label2`, `zone=a`, `zone=b`
        ");
        assert_snapshot!(check("{serviceId: 111, deployment: STOP, deployLabel: 'zone=c'}"), @"
        plan.yaml:1:67: service 111: `deployLabel`: no instance of `shop/web` carries the label `zone=c`
          hint: its instances have the labels `label1`, `label2`, `zone=a`, `zone=b`
        ");
        assert_snapshot!(check("{serviceId: 222, deployment: STOP, deployLabel: label1}"), @"
        plan.yaml:1:67: service 222: `deployLabel`: no instance of `shop/api` carries the label `label1`
          hint: its instances have no labels: write `labels: […]` on those that are meant, or leave `deployLabel` out
        ");
        assert_snapshot!(check("{serviceId: 111, deployment: STOP, deployLabel: 'label1,labl2'}"), @"
        111 shop/web web-1
        plan.yaml:1:67: warning: service 111: `deployLabel`: no instance of `shop/web` carries the label `labl2`, only those with the label `label1` go
          hint: its instances have the labels `label1`, `label2`, `zone=a`, `zone=b`
        ");
    }

    #[test]
    fn a_service_that_no_group_is_names_those_there_are() {
        assert_snapshot!(check("{serviceId: 221, deployment: STOP}, {serviceId: 9, deployment: STOP}"), @"
        plan.yaml:1:31: service 221: no group of the workspace has this `service_id`
          hint: the services are 222 (`shop/api`), 111 (`shop/web`)
        plan.yaml:1:67: service 9: no group of the workspace has this `service_id`
          hint: the services are 111 (`shop/web`), 222 (`shop/api`)
        ");

        let without =
            "applications: {shop: {groups: {web: {instances: [{id: w, host: 'local:'}]}}}}";
        assert_snapshot!(check_in(without, "{serviceId: 111, deployment: STOP}"), @"
        plan.yaml:1:31: service 111: no group of the workspace has this `service_id`
          hint: write `service_id: 111` in the group that is meant
        ");
    }

    #[test]
    fn a_service_that_is_deployed_unbuilt_is_pointed_out() {
        let item = |id: u64| {
            format!(
                "{{serviceId: {id}, deployment: COMPILE_DEPLOY, compileRepoPath: http://git/a, compileRepoBranch: main}}"
            )
        };

        assert_snapshot!(check(&item(111)), @"111 shop/web web-1 web-2 web-3");
        assert_snapshot!(check(&item(222)), @"
        222 shop/api api-1
        plan.yaml:1:48: warning: service 222: `COMPILE_DEPLOY` builds nothing: the group `shop/api` does not say how, and the sources are the package
          hint: write `build: {command: COMMAND}` in the group
        ");
    }
}
