//! Finding a release or a deployment by the beginning of its id.

use model::{DeploymentId, ReleaseId};
use rusqlite::{Connection, OptionalExtension, params};

use crate::history::text;
use crate::journal::{Error, Fault, Journal};

/// The most matches that an ambiguous prefix lists.
const LISTED: i64 = 10;

/// What a prefix stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The release, or the release of the deployment.
    pub release: ReleaseId,
    /// Set when the prefix reaches into the id of a deployment.
    pub deployment: Option<DeploymentId>,
}

/// A prefix that stands for nothing, or for too much.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("no release or deployment begins with `{prefix}`")]
    NotFound { prefix: String },
    #[error("`{prefix}` is the beginning of several ids: {}", listed(matches))]
    Ambiguous {
        prefix: String,
        /// The first few of them, in order.
        matches: Vec<String>,
    },
    #[error(transparent)]
    Journal(#[from] Error),
}

impl Journal {
    /// The one release or deployment whose id is `prefix` or begins with it. A release is meant before its own
    /// deployments, whose ids begin with its id.
    ///
    /// # Errors
    /// [`FindError::NotFound`] or [`FindError::Ambiguous`].
    pub fn find(&self, prefix: &str) -> Result<Found, FindError> {
        let matches = self.read("look for an id", |connection| matches(connection, prefix))?;
        let prefix = prefix.to_owned();
        match matches.as_slice() {
            [] => Err(FindError::NotFound { prefix }),
            [only] => Ok(only.clone()),
            several => {
                let name = |found: &Found| match &found.deployment {
                    Some(deployment) => deployment.to_string(),
                    None => found.release.to_string(),
                };
                Err(FindError::Ambiguous {
                    prefix,
                    matches: several.iter().map(name).collect(),
                })
            }
        }
    }
}

fn listed(matches: &[String]) -> String {
    let quoted: Vec<String> = matches.iter().map(|id| format!("`{id}`")).collect();
    quoted.join(", ")
}

fn matches(connection: &Connection, prefix: &str) -> Result<Vec<Found>, Fault> {
    if prefix.is_empty() {
        return Ok(Vec::new());
    }
    let release_of = |row: &rusqlite::Row<'_>| {
        Ok(Found {
            release: text(row, 0)?,
            deployment: None,
        })
    };
    let deployment_of = |row: &rusqlite::Row<'_>| {
        Ok(Found {
            release: text(row, 0)?,
            deployment: Some(text(row, 1)?),
        })
    };

    let exact = connection
        .prepare_cached("SELECT id FROM releases WHERE id = ?1")?
        .query_row([prefix], release_of)
        .optional()?;
    let exact = match exact {
        Some(found) => Some(found),
        None => connection
            .prepare_cached(
                "SELECT releases.id, deployments.id FROM deployments JOIN releases ON number = release
                 WHERE deployments.id = ?1",
            )?
            .query_row([prefix], deployment_of)
            .optional()?,
    };
    if let Some(found) = exact {
        return Ok(vec![found]);
    }

    // Every character of an id sorts before `~`.
    let end = format!("{prefix}~");
    let releases: Vec<Found> = connection
        .prepare_cached("SELECT id FROM releases WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3")?
        .query_map(params![prefix, end, LISTED], release_of)?
        .collect::<Result<_, _>>()?;
    if !releases.is_empty() {
        return Ok(releases);
    }
    let deployments = connection
        .prepare_cached(
            "SELECT releases.id, deployments.id FROM deployments JOIN releases ON number = release
             WHERE deployments.id >= ?1 AND deployments.id < ?2 ORDER BY deployments.id LIMIT ?3",
        )?
        .query_map(params![prefix, end, LISTED], deployment_of)?
        .collect::<Result<_, _>>()?;
    Ok(deployments)
}
