//! Evaluating gates: asking a command or a plugin until it has decided, or until the time is over.
//!
//! Evaluating changes nothing that is recorded, so an evaluation that was interrupted is simply begun again. What follows
//! from a verdict is the engine's.

mod command;
mod decide;
mod plugin;

pub(crate) use decide::decide;
