//! Names of target groups: `deploy_R_GROUP_RANDOM` and its like, as JD Cloud CodeDeploy calls those that it makes.

use cutover_plugin_sdk::OpContext;

use crate::config::Colour;

/// The longest name of a target group.
const LONGEST: usize = 32;
/// The characters of a name's last part.
const RANDOM: usize = 6;
const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The beginning of the names of a group's target groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    /// Of the instances of a colour, or of a group without colours.
    pub(crate) fn of(group: &str, colour: Option<Colour>) -> Self {
        let letter = match colour {
            None => 'R',
            Some(Colour::Blue) => 'B',
            Some(Colour::Green) => 'G',
        };
        Self {
            prefix: format!("deploy_{letter}_{group}_"),
        }
    }

    /// Whether a target group is one of these. What follows the beginning holds no `_`, so that the groups of `shop` are not
    /// those of `shop_web`.
    pub(crate) fn has(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.prefix);
        rest.is_some_and(|rest| {
            (1..=RANDOM).contains(&rest.len()) && rest.chars().all(|c| c.is_ascii_alphanumeric())
        })
    }

    /// The name of the target group that a release makes. It follows from what the host says of the operation and from
    /// nothing else: whoever tries again, and every instance of the release, asks for a group of the same name.
    pub(crate) fn made_by(&self, ctx: &OpContext) -> String {
        let seed = if ctx.run_id.is_empty() {
            &ctx.idempotency_key
        } else {
            &ctx.run_id
        };
        format!(
            "{}{}",
            self.prefix,
            random(&format!("{}{seed}", self.prefix))
        )
    }

    /// As messages show it.
    pub(crate) fn pattern(&self) -> String {
        format!("{}…", self.prefix)
    }
}

/// Finds what keeps a group's id from standing in names.
pub(crate) fn checked_group(group: &str) -> Result<(), String> {
    let longest = LONGEST - "deploy_R_".len() - 1 - RANDOM;
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if group.is_empty() || !group.chars().all(is_of_name) {
        return Err(
            "write letters, digits, `-` and `_`: it stands in the names of target groups"
                .to_owned(),
        );
    }
    if group.len() > longest {
        return Err(format!(
            "`{group}` has {} characters, and {longest} are left of the {LONGEST} of a target group's name",
            group.len()
        ));
    }
    Ok(())
}

/// Six characters that follow from a text (FNV-1a).
fn random(text: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut letters = String::with_capacity(RANDOM);
    for _ in 0..RANDOM {
        let index = usize::try_from(hash % 36).unwrap_or(0);
        letters.push(char::from(LETTERS[index]));
        hash /= 36;
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(run_id: &str, step: &str) -> OpContext {
        OpContext {
            run_id: run_id.to_owned(),
            step_id: step.to_owned(),
            idempotency_key: format!("{run_id}{step}"),
            attempt: 1,
            deadline: 0,
            dry_run: false,
            traceparent: None,
        }
    }

    #[test]
    fn the_longest_group_id_of_the_product_makes_a_name_of_32_characters() {
        let group = "group-MWd2XvpgEj";
        checked_group(group).unwrap();

        for colour in [None, Some(Colour::Blue), Some(Colour::Green)] {
            let names = Names::of(group, colour);
            let name = names.made_by(&context("k3n5", "web-1"));

            assert_eq!(name.len(), 32, "{name}");
            assert!(names.has(&name), "{name}");
        }
        assert!(checked_group("group-MWd2XvpgEjx").is_err());
        assert!(checked_group("").is_err());
        assert!(checked_group("shop/web").is_err());
    }

    #[test]
    fn every_instance_of_a_release_asks_for_the_same_name_and_other_releases_for_others() {
        let names = Names::of("web", None);

        let first = names.made_by(&context("k3n5", "web-1"));

        assert_eq!(first, names.made_by(&context("k3n5", "web-2")));
        assert_ne!(first, names.made_by(&context("k3n6", "web-1")));
    }

    #[test]
    fn a_name_is_of_one_group_and_one_colour() {
        let names = Names::of("shop", None);

        assert!(names.has("deploy_R_shop_a1b2c3"));
        for other in [
            "deploy_R_shop_web_a1b2c3",
            "deploy_B_shop_a1b2c3",
            "deploy_R_shop_",
            "deploy_R_shop_a1b2c3d",
            "deploy_R_shop",
        ] {
            assert!(!names.has(other), "{other}");
        }
    }
}
