//! The appspec of a package: what is installed where, and which scripts run at which lifecycle event.
//!
//! Two dialects are read, that of `appspec.yml` and that of `jdcloud-codedeploy.yml`. [`find`] names the file,
//! [`parse`] reads its text, and [`check`] holds it against the package's folder; [`examine`] does all three and reports
//! everything at once. [`check_here`] holds it against this machine, for whoever tries a package.

mod acl;
mod context;
mod dialect;
mod file;
mod here;
mod layout;
mod limits;
mod package;
mod permission;
mod script;

pub use dialect::{Dialect, is_likely};
pub use file::{Located, parse};
pub use here::check_here;
pub use package::{Examined, FindError, NAMES, check, examine, find, find_named};
