//! The engine, over a simulated fleet.

#![allow(clippy::unwrap_used)]

mod calls;
mod chain;
mod plans;
mod retry;
mod rolling;
mod split;
mod strategies;
mod traffic;
mod world;
