//! The engine, over a simulated fleet.

#![allow(clippy::unwrap_used)]

mod rolling;
mod split;
mod strategies;
mod traffic;
mod world;
