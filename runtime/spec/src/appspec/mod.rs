//! The appspec of a package: what is installed where, and which scripts run at which lifecycle event.
//!
//! Two dialects are read, that of `appspec.yml` and that of `jdcloud-codedeploy.yml`. [`find`] names the file,
//! [`parse`] reads its text, and [`check`] holds it against the package's folder.

mod dialect;
mod file;
mod package;
mod permission;

pub use dialect::Dialect;
pub use file::{Located, parse};
pub use package::{FindError, NAMES, check, find};
