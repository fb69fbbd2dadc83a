//! File formats of cutover, turned into the model: the workspace, the release plan, the appspec and
//! the lock file.
//!
//! Every parser takes the text and the name of the file and reports all [`Problem`]s at once, each with its line,
//! its column, what was expected and, for a near-miss, what was probably meant. Start at [`workspace::parse`],
//! [`release_plan::parse`] and [`appspec::parse`]. Deliberately absent: network, state, and reading of files except where a function is given a
//! package's folder.

mod account;
pub mod appspec;
pub mod duration;
mod fields;
mod hooks;
mod json;
pub mod lock;
mod problem;
pub mod release_plan;
pub mod schema;
pub mod size;
pub mod template;
pub mod workspace;
mod yaml;

pub use problem::{Parsed, Position, Problem, Problems, Severity};
