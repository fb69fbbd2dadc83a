//! The agent's own file: what it is, and putting it where it belongs on a host.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// How many agents of other versions stay beside the one in use: another conductor may work with one.
const KEPT: usize = 3;

/// Why an agent is not where it was to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What arrived is not what was sent.
    #[error("the agent has the digest {found}, not {expected}")]
    Digest {
        /// What the file has.
        found: String,
        /// What it was to have.
        expected: String,
    },
    /// A system call failed.
    #[error("{doing}")]
    Io {
        /// What was attempted.
        doing: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

const OWN_FILE: &str = "/proc/self/exe";

/// The SHA-256 of the running agent's file, in hexadecimal digits.
///
/// # Errors
/// [`Error::Io`] when it cannot be read.
pub fn digest() -> Result<String, Error> {
    let read = File::open(OWN_FILE).and_then(|mut file| {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    let bytes = read.map_err(|source| Error::Io {
        doing: format!("read the agent's own file `{OWN_FILE}`"),
        source,
    })?;
    Ok(digest_of(&bytes))
}

/// The SHA-256 of an agent's file, in hexadecimal digits.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives the running agent's file, which is `draft`, the name of its digest in its folder, durably, and removes agents that
/// have not been used for longest.
///
/// # Errors
/// [`Error::Digest`] when it is not the one that is expected.
pub fn adopt(draft: &Path, expected: &str) -> Result<(), Error> {
    let found = digest()?;
    if found != expected {
        return Err(Error::Digest {
            found,
            expected: expected.to_owned(),
        });
    }
    let failed = |source| Error::Io {
        doing: format!("put the agent beside `{}`", draft.display()),
        source,
    };
    let folder = draft.parent().unwrap_or(Path::new("/"));
    File::open(draft)
        .and_then(|file| file.sync_all())
        .map_err(failed)?;
    fs::rename(draft, folder.join(expected)).map_err(failed)?;
    prune(folder, expected);
    Ok(())
}

/// Removes the oldest agents. One that is running goes on running.
fn prune(folder: &Path, current: &str) {
    let mut others: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_agent = name.len() >= 64 && name.bytes().take(64).all(|b| b.is_ascii_hexdigit());
            is_agent && name != current
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    others.sort();
    let surplus = others.len().saturating_sub(KEPT);
    for (_, path) in &others[..surplus] {
        // One that stays costs a little room.
        let _ = fs::remove_file(path);
    }
}
