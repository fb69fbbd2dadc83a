//! Reports of releases that were made by hand: as text, as a page, and as Chromium shows the page.

#![allow(clippy::unwrap_used)]

mod chromium;
mod page;
mod releases;
mod text;
