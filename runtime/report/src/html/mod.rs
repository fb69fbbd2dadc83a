//! A document as one HTML file that needs nothing else: no network, no other file, and no script but to ease reading.
//!
//! Start at [`render`]. `page` puts the parts together; `timeline` draws the services, instances and steps, each of which
//! `standing` knows the look of; `problems`, `services` and `steps` tell in words what the timeline shows. Whatever a
//! document says is escaped by the templates, and the page forbids itself every resource and every script but its own.

mod page;
mod problems;
mod services;
mod standing;
mod steps;
mod timeline;

pub use page::{BEGINNING, render};
