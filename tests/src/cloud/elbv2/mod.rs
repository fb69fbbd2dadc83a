//! A fake of Elastic Load Balancing (ELBv2): target groups whose targets take their time, and listeners and rules with actions.
//!
//! [`Elbv2`] checks every signature and answers as AWS does, but for load balancers themselves, which are only names. Its time
//! can be moved on; what targets do meanwhile follows from it.

mod actions;
mod call;
mod calls;
mod cloud;
mod credentials;
mod state;

pub use cloud::{Elbv2, action};
pub use state::{Key, Standing, TargetGroup};
