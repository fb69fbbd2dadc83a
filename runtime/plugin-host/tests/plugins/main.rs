//! The host against components made on the spot, down to what they leave in memory.

#![allow(
    clippy::unwrap_used,
    reason = "a test may panic, also in the functions that its tests share"
)]

mod calls;
mod capabilities;
mod gates;
mod guest;
mod loading;
