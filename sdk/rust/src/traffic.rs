//! Routers: splitting traffic between the sides of a group.

use std::collections::BTreeSet;

use crate::bindings::router::exports::cutover::traffic::router;
use crate::{Diagnostic, Failure, OpContext, Outcome, Plugin, panic_message};

pub use router::{Disagreement, Member as SideMember, Purpose, Share, Side, Split};

/// Splits traffic between sides: blue and green, or current and new.
///
/// The shares that [`Router::set`] gets are checked: each side that they name is one of the call's and named once, and
/// they sum to 100.
///
/// ```
/// use cutover_plugin_sdk::{
///     Diagnostic, Failure, HOST_STAMPS, OpContext, Outcome, Plugin, Purpose, Router, Share, Side, Split, directories, export,
///     percent_of,
/// };
///
/// /// The name of the live side in a file.
/// struct LiveFile;
///
/// impl Plugin for LiveFile {
///     type Config = serde_json::Value;
/// }
///
/// impl Router for LiveFile {
///     fn check(_ctx: &OpContext, _sides: &[Side], purpose: Purpose) -> Result<Vec<Diagnostic>, Failure> {
///         Ok(match purpose {
///             Purpose::Switch => Vec::new(),
///             Purpose::Weighted => vec![Diagnostic::error("", "this router can only switch")],
///         })
///     }
///
///     fn get(_ctx: &OpContext, _sides: &[Side]) -> Result<Split, Failure> {
///         let live = directories::read_text("sides", "live")?;
///         let share = |side: &String| Share { side: side.clone(), percent: 100 };
///         let shares = live.iter().map(share).collect();
///         Ok(Split { shares, differs: None, revision: live, settled: true, observed_at: HOST_STAMPS })
///     }
///
///     fn set(ctx: &OpContext, sides: &[Side], expected: Option<&str>, shares: &[Share]) -> Result<Outcome, Failure> {
///         let wanted = sides.iter().find(|side| percent_of(shares, &side.name) == 100);
///         let wanted = wanted.ok_or_else(|| Failure::unsupported("live-file.split", "this router can only switch"))?;
///         let present = Self::get(ctx, sides)?.revision;
///         if present.as_ref() == Some(&wanted.name) {
///             return Ok(Outcome::Unchanged);
///         }
///         if expected.is_some() && present.as_deref() != expected {
///             let message = format!("the live side is {present:?}, not {expected:?}");
///             return Err(Failure::conflict("live-file.revision", message));
///         }
///         if !ctx.dry_run {
///             directories::write_text("sides", "live", &wanted.name)?;
///         }
///         Ok(Outcome::changed())
///     }
/// }
///
/// export!(LiveFile: Router);
/// ```
pub trait Router: Plugin {
    /// Finds what cannot be done for these sides. Reads only.
    ///
    /// # Errors
    /// When the balancer cannot be read; what is wrong with the configuration goes into the diagnostics.
    fn check(ctx: &OpContext, sides: &[Side], purpose: Purpose)
    -> Result<Vec<Diagnostic>, Failure>;

    /// Tells how traffic is split. Where two places that should agree do not, `shares` is what requests get and
    /// [`Split::differs`] has the other; the revision covers both.
    ///
    /// # Errors
    /// When the balancer cannot be read.
    fn get(ctx: &OpContext, sides: &[Side]) -> Result<Split, Failure>;

    /// Splits traffic, and reads back. A second call with the same request is `unchanged`.
    ///
    /// # Errors
    /// `conflict` when the present state is neither the expected nor the wanted one.
    fn set(
        ctx: &OpContext,
        sides: &[Side],
        expected_revision: Option<&str>,
        shares: &[Share],
    ) -> Result<Outcome, Failure>;

    /// Goes on with a `set` that returned `pending`, in another instance of the component.
    ///
    /// # Errors
    /// `unsupported` unless a plugin that returns `pending` writes its own.
    fn poll(_ctx: &OpContext, _token: &str) -> Result<Outcome, Failure> {
        Err(Failure::unsupported(
            "plugin.poll",
            "the plugin never leaves a split pending",
        ))
    }
}

/// What a side gets of a set of shares, in percent.
///
/// ```
/// use cutover_plugin_sdk::{Share, percent_of};
///
/// let shares = [Share { side: "new".to_owned(), percent: 100 }];
///
/// assert_eq!((percent_of(&shares, "new"), percent_of(&shares, "current")), (100, 0));
/// ```
#[must_use]
pub fn percent_of(shares: &[Share], side: &str) -> u8 {
    let share = shares.iter().find(|share| share.side == side);
    share.map_or(0, |share| share.percent)
}

impl<T: Router> router::Guest for T {
    fn check(
        ctx: OpContext,
        sides: Vec<Side>,
        purpose: Purpose,
    ) -> Result<Vec<Diagnostic>, Failure> {
        panic_message::send_to_host();
        <T as Router>::check(&ctx, &sides, purpose)
    }

    fn get(ctx: OpContext, sides: Vec<Side>) -> Result<Split, Failure> {
        panic_message::send_to_host();
        <T as Router>::get(&ctx, &sides)
    }

    fn set(
        ctx: OpContext,
        sides: Vec<Side>,
        expected_revision: Option<String>,
        shares: Vec<Share>,
    ) -> Result<Outcome, Failure> {
        panic_message::send_to_host();
        checked(&sides, &shares)?;
        <T as Router>::set(&ctx, &sides, expected_revision.as_deref(), &shares)
    }

    fn poll(ctx: OpContext, token: String) -> Result<Outcome, Failure> {
        panic_message::send_to_host();
        <T as Router>::poll(&ctx, &token)
    }
}

fn checked(sides: &[Side], shares: &[Share]) -> Result<(), Failure> {
    let invalid = |message: String| Err(Failure::invalid("plugin.shares", message));
    let mut named = BTreeSet::new();
    for share in shares {
        if !sides.iter().any(|side| side.name == share.side) {
            return invalid(format!("there is no side `{}`", share.side));
        }
        if !named.insert(&share.side) {
            return invalid(format!("side `{}` has two shares", share.side));
        }
    }
    match shares
        .iter()
        .map(|share| u32::from(share.percent))
        .sum::<u32>()
    {
        100 => Ok(()),
        sum => invalid(format!("the shares sum to {sum}, not to 100")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shares: &[(&str, u8)], problem: Option<&str>) {
        let sides = ["blue", "green"].map(|name| Side {
            name: name.to_owned(),
            group: "{}".to_owned(),
            members: Vec::new(),
        });
        let share = |&(side, percent): &(&str, u8)| Share {
            side: side.to_owned(),
            percent,
        };
        let shares: Vec<_> = shares.iter().map(share).collect();

        let message = checked(&sides, &shares)
            .err()
            .map(|failure| failure.message);

        assert_eq!(message.as_deref(), problem);
    }

    #[test]
    fn shares_that_are_no_split_never_reach_the_plugin() {
        check(&[("blue", 100)], None);
        check(&[("blue", 70), ("green", 30)], None);
        check(&[], Some("the shares sum to 0, not to 100"));
        check(
            &[("blue", 70), ("green", 20)],
            Some("the shares sum to 90, not to 100"),
        );
        check(
            &[("blue", 50), ("blue", 50)],
            Some("side `blue` has two shares"),
        );
        check(&[("red", 100)], Some("there is no side `red`"));
    }
}
