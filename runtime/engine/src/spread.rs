//! Interleaving instances by the value of a label, so that a batch takes a few of each zone and not a whole one.

use model::Instance;

/// The instances, one of each value of the label in turn. Labels are texts `KEY=VALUE`; the values come in the order
/// in which they first appear, and the instances of a value in the order in which they are given. Those without the
/// label are a value of their own.
#[must_use]
pub fn spread(instances: &[Instance], label: &str) -> Vec<Instance> {
    let mut lanes: Vec<(Option<&str>, Vec<&Instance>)> = Vec::new();
    for instance in instances {
        let value = value(instance, label);
        match lanes.iter_mut().find(|(known, _)| *known == value) {
            Some((_, lane)) => lane.push(instance),
            None => lanes.push((value, vec![instance])),
        }
    }
    let rounds = lanes.iter().map(|(_, lane)| lane.len()).max().unwrap_or(0);
    (0..rounds)
        .flat_map(|round| lanes.iter().filter_map(move |(_, lane)| lane.get(round)))
        .map(|instance| Instance::clone(instance))
        .collect()
}

fn value<'i>(instance: &'i Instance, label: &str) -> Option<&'i str> {
    instance
        .labels
        .iter()
        .filter_map(|text| text.split_once('='))
        .find(|(key, _)| *key == label)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::{Host, InstanceId};
    use proptest::prelude::*;

    use super::*;

    fn instance(number: usize, labels: &[&str]) -> Instance {
        Instance {
            id: InstanceId::parse(format!("w{number}")).unwrap(),
            host: Host::Local,
            rootdir: format!("/srv/w{number}"),
            address: None,
            provider_id: None,
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            env: BTreeMap::new(),
        }
    }

    /// Instances in zones, `None` for one without.
    fn in_zones(zones: &[Option<u8>]) -> Vec<Instance> {
        let labels = zones
            .iter()
            .map(|zone| zone.map(|zone| format!("zone={zone}")));
        labels
            .enumerate()
            .map(|(number, label)| {
                instance(number, &label.as_deref().into_iter().collect::<Vec<_>>())
            })
            .collect()
    }

    fn ids(instances: &[Instance]) -> Vec<&str> {
        instances.iter().map(|one| one.id.as_str()).collect()
    }

    #[test]
    fn takes_one_of_each_value_in_turn() {
        let zones = [
            Some(1),
            Some(1),
            Some(1),
            Some(2),
            None,
            Some(2),
            None,
            Some(3),
        ];

        let spread = spread(&in_zones(&zones), "zone");

        assert_eq!(
            ids(&spread),
            ["w0", "w3", "w4", "w7", "w1", "w5", "w6", "w2"]
        );
    }

    #[test]
    fn goes_by_the_key_of_the_label_alone() {
        let instances = [
            instance(0, &["zone", "rack=1", "zone=a=b"]),
            instance(1, &["zones=a", "rack=2", "zone=a=b", "zone=c"]),
            instance(2, &["azone=x"]),
        ];

        assert_eq!(ids(&spread(&instances, "zone")), ["w0", "w2", "w1"]);
        assert_eq!(ids(&spread(&instances, "rack")), ["w0", "w1", "w2"]);
        assert_eq!(ids(&spread(&instances, "none")), ["w0", "w1", "w2"]);
        assert!(spread(&[], "zone").is_empty());
    }

    proptest! {
        #[test]
        fn spreading_keeps_every_instance_and_the_order_within_a_value(zones in proptest::collection::vec(proptest::option::of(0..4u8), 0..40)) {
            let instances = in_zones(&zones);

            let spread = spread(&instances, "zone");

            let mut sorted = spread.clone();
            sorted.sort_by_key(|one| instances.iter().position(|other| other.id == one.id));
            prop_assert_eq!(&sorted, &instances);
            for zone in &zones {
                let of = |list: &[Instance]| -> Vec<Instance> {
                    let label = zone.map(|zone| format!("zone={zone}"));
                    let is_of = |one: &&Instance| one.labels.first() == label.as_ref();
                    list.iter().filter(is_of).cloned().collect()
                };
                prop_assert_eq!(of(&spread), of(&instances));
            }
        }

        #[test]
        fn any_beginning_takes_evenly_while_supplies_last(zones in proptest::collection::vec(proptest::option::of(0..4u8), 1..40)) {
            let instances = in_zones(&zones);

            let spread = spread(&instances, "zone");

            let count = |list: &[Instance], value: Option<&str>| {
                list.iter().filter(|one| super::value(one, "zone") == value).count()
            };
            for length in 0..=spread.len() {
                let beginning = &spread[..length];
                let most = spread.iter().map(|one| count(beginning, super::value(one, "zone"))).max();
                for one in &spread {
                    let value = super::value(one, "zone");
                    let (taken, all) = (count(beginning, value), count(&spread, value));
                    prop_assert!(taken == all || taken + 1 >= most.unwrap_or(0), "{} of {:?} in {}", taken, value, length);
                }
            }
        }
    }
}
