//! JD Cloud's load balancer API: backends, target groups, targets and their health.
//!
//! [`JdCloud`] answers as the service `lb` does, [`signature`] recomputes what requests are signed with in both dialects, and [`Plane`]
//! is a real HAProxy that does what the API was told. Not here: load balancers, listeners and rules, which the adapter leaves alone.

mod plane;
mod signature;
mod state;

pub use plane::Plane;
pub use state::{Backend, JdCloud, Target, TargetGroup};
