//! Downloading one archive over HTTP: hop by hop through redirects, over several connections where the server gives
//! ranges, and on from where a connection or a whole conductor broke off.
//!
//! Start at [`download`] in `transfer`. Which bytes are here and who brings the others is in `ranges`, what is on the disk
//! in `partial`, how one request is made in `request`, and what a server says of a refusal in `answer`. `checksum` reads
//! the files that lie beside a package and say its digest. Unpacking and keeping are the store's.

mod answer;
mod checksum;
mod partial;
mod ranges;
mod request;
#[cfg(test)]
mod tests;
mod transfer;

use std::sync::Arc;

use plugin_host::Network;

use crate::progress::OnProgress;

pub(crate) use answer::Answer;
pub(crate) use checksum::digest_beside;
pub(crate) use partial::{Partial, claim, since};
pub(crate) use request::without_query;
pub(crate) use transfer::{Job, Outcome, download};

/// Whether the operator granted a URL, or else the line that would.
pub(crate) type Grant = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What a download goes by.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) most_bytes: u64,
    pub(crate) grant: Grant,
    pub(crate) progress: OnProgress,
    /// Whom to trust, and what to go through.
    pub(crate) network: Arc<Network>,
}
