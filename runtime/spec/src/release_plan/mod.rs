//! The release plan: services in the order in which they are released, with the kind of deployment of each.
//!
//! [`parse`] gives a [`ReleasePlan`] that is right in itself, [`ReleasePlan::resolve`] holds it against a workspace.
//! The keys are those of the format that it comes from, to the letter. Kinds of deployment that a plugin provides have
//! keys of their own: they are passed on as JSON, and every [`Item`] knows where each of its keys is written, so that
//! what others find wrong is shown there. Which plugins there are is the caller's to know.

mod detect;
mod file;
mod item;
mod keys;
mod plan;
mod resolve;
mod schema;

pub use detect::is_likely;
pub use file::{parse, parse_bytes};
pub use keys::KINDS;
pub use plan::{Compile, ExecMethod, Item, ReleasePlan};
pub use resolve::Resolved;

/// Every kind of mapping in a release plan, for the test that holds the schema against it.
#[cfg(test)]
pub(crate) fn shapes() -> Vec<&'static crate::fields::Shape> {
    vec![&keys::PLAN, &keys::ITEM]
}
