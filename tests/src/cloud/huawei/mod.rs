//! Elastic Load Balance of Huawei Cloud, version 3, as far as releases need it.
//!
//! [`HuaweiElb`] has the state and answers, `api` finds the answer for a path, `signature` believes only who signed, and `traffic` lets a
//! real HAProxy do what the state says.

mod api;
mod elb;
mod signature;
mod traffic;

pub use elb::{Health, HuaweiElb, Member, Policy, Pool};
