//! The boundary types of the disk: what a record looks like as JSON.
//!
//! A record's body is one JSON object with one key, the kind of its fact, for example
//! `{"step-started":{"deployment":"k7-1","instance":"web-1","event":"Install","attempt":1}}`. Start at [`encode`] and
//! [`decode`]. Conversions hold everything that the model holds; a field or kind that this program does not know is
//! an error, because a record that is read in part would tell another story. Whoever changes these types so that an
//! older program could not read the result adds a migration (`schema.rs`), whose number keeps that program away.

mod appspec;
mod deployment;
mod fact;
mod gate;
mod order;
mod rollout;
mod status;
mod traffic;

#[cfg(test)]
mod roundtrip;

pub use fact::Broken;
pub(crate) use fact::{decode, encode};
pub(crate) use order::{decode_order, encode_order};
