//! Packages whose bytes a plugin hands over itself.

use std::fs::File;
use std::io::{self, Write};

use plugin_host::{OpContext, Plugin};
use tokio::sync::mpsc;

use crate::digests::Digests;
use crate::fetch::{self, FetchError, Fetched, Want};
use crate::packages::{Draft, Packages};
use crate::plan::PlanError;
use crate::progress::Progress;

/// Chunks on their way from the plugin to the disk; each is 1 MiB at most.
const CHUNKS: usize = 4;

/// Lets the plugin hand the package over, within the limits of packages and the deadline of a streamed fetch.
pub(crate) async fn fetch(
    packages: &Packages,
    want: Want,
    plugin: &Plugin,
    context: &OpContext,
    config: &str,
) -> Result<Fetched, PlanError> {
    let pinned = want.reference.clone();
    let (chunks, received) = mpsc::channel(CHUNKS);
    let packages = packages.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let draft = packages.draft().map_err(|error| stored(&want, error))?;
        let digests = write(&want, &draft, received)?;
        Ok((packages, want, draft, digests))
    });
    let handed_over = plugin.fetch(context, config, &pinned, chunks).await;
    let written: Result<(Packages, Want, Draft, Digests), FetchError> = joined(writing.await);
    // What could not be written is why the plugin could not hand over more.
    let (packages, want, draft, digests) = written?;
    handed_over.map_err(|source| PlanError::Source {
        plugin: plugin.name().to_string(),
        reference: pinned.clone(),
        tries: 1,
        source: Box::new(source),
    })?;
    let keeping = tokio::task::spawn_blocking(move || {
        let archive = draft.archive();
        fetch::keep(&packages, draft, &want, &pinned, &archive, Some(&digests))
    });
    Ok(joined(keeping.await)?)
}

fn joined<T>(done: Result<T, tokio::task::JoinError>) -> T {
    match done {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn write(
    want: &Want,
    draft: &Draft,
    mut chunks: mpsc::Receiver<Vec<u8>>,
) -> Result<Digests, FetchError> {
    let mut file = File::create(draft.archive()).map_err(|error| stored(want, error))?;
    let mut digests = want.stated.digests();
    let mut done = 0;
    while let Some(chunk) = chunks.blocking_recv() {
        done += chunk.len() as u64;
        if done > want.rules.most_bytes {
            return Err(FetchError::TooLarge {
                url: want.reference.clone(),
                limit: want.rules.most_bytes,
            });
        }
        file.write_all(&chunk)
            .map_err(|error| stored(want, error))?;
        digests.update(&chunk);
        (want.rules.progress)(&Progress::Download {
            url: want.reference.clone(),
            done,
            total: want.stated.size,
        });
    }
    Ok(digests)
}

fn stored(want: &Want, source: io::Error) -> FetchError {
    FetchError::Store {
        reference: want.reference.clone(),
        source,
    }
}
