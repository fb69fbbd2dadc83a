//! The durable record: an append-only list of [`model::Record`] per release, in one SQLite file.
//!
//! Start at [`Journal`] (the file), [`Tenure`] (the right to append to a release), [`Appended`] (the promise that records
//! are durable), [`GivenOrder`] (what somebody asks of whoever appends) and [`Turn`] (whose turn it is among those who wait for a
//! group). The records are the truth; every other table but those of the orders, of who waits and of the journal itself is
//! a projection of them, written in the same transaction, and [`Journal::rebuild`] makes them again. Deliberately
//! absent: decisions, clocks (`now` is an argument) and any async runtime ([`Appended`] is a plain future).

mod append;
mod delete;
mod find;
mod history;
mod journal;
mod order;
mod owner;
mod projection;
mod promise;
mod queue;
mod room;
mod schema;
mod taken_back;
mod tenure;
mod wire;
mod writer;

pub use append::Appended;
pub use delete::DeleteError;
pub use find::{FindError, Found};
pub use history::{DeploymentSummary, Filter, Summary, VersionUse};
pub use journal::{Error, Journal, Stats};
pub use order::{GivenOrder, OrderAnswer, OrderId, OrderOutcome};
pub use owner::Owner;
pub use queue::{Turn, Waiter, WaiterId};
pub use tenure::{Holder, LEASE, OpenError, Tenure};
pub use wire::Broken;
