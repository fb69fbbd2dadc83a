//! Showing: a release's state as a JSON document, as text, as progress lines and as tables.
//!
//! Start at [`Document`]. Everything here is a pure function; who prints it, and with which colours, is the caller's
//! business. Deliberately absent: the terminal, I/O, and any second account of what happened besides the fold.

mod document;
pub mod html;
mod line;
mod scale;
mod table;
mod text;
mod view;

pub use document::{
    Change, Deployment, Document, Evidence, Hold, Instance, Order, Revision, Step, Switch, rfc3339,
    short_time,
};
pub use line::{Line, Tone, count, duration, lines, service_prefix, target_width};
pub use table::{Table, duration as column_duration};
pub use text::{mixed_phrases, moves, render, summary};
