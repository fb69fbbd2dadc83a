//! What fetching a package has come to, for whoever watches.

use std::path::PathBuf;
use std::sync::Arc;

/// Something that happened while a package was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// An archive is on its way.
    Download {
        /// Where it comes from.
        url: String,
        /// Bytes that are here.
        done: u64,
        /// Bytes in all, where the server says so.
        total: Option<u64>,
    },
    /// A source is being built.
    BuildBegun {
        reference: String,
        /// Where all that it prints is written to.
        log: PathBuf,
    },
    /// A line of its log.
    BuildSaid {
        line: String,
    },
    BuildEnded {
        reference: String,
    },
    /// The same source was built in the same way before, and what came of it is in the store.
    BuiltBefore {
        reference: String,
    },
}

/// Sees a package being fetched. It is called from the thread that fetches.
pub type OnProgress = Arc<dyn Fn(&Progress) + Send + Sync>;
