//! The plugin `aws`: the fake of Elastic Load Balancing has AWS's shape, the built plugin does what it says against that
//! and against moto, and whole releases come through whatever goes wrong on the way.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

mod account;
mod bad_input;
mod calls;
mod example;
mod moto;
mod releases;
mod shape;
mod shop;
mod traffic;
