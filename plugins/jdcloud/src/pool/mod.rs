//! Targets of one target group: registering, deregistering, weights, and how they are.

mod call;
mod joining;
mod leaving;
mod place;
mod status;
#[cfg(test)]
mod tests;
mod weighing;

pub(crate) use call::Pool;
pub(crate) use place::{Place, found};
pub(crate) use status::{health_of, words};
pub(crate) use weighing::checked_weight;
