//! Groups whose instances have different versions.

use std::collections::BTreeMap;

use journal::Journal;
use model::{GroupRef, Version};

use crate::failure::Failure;
use crate::workspace::Opened;

/// The versions of the instances of a group that differ. Nothing for a group that is no longer in the workspace.
pub(crate) fn mixed(
    opened: &Opened,
    journal: &Journal,
    group: &GroupRef,
) -> Result<BTreeMap<String, Option<String>>, Failure> {
    let Ok(group) = opened.workspace.group(group) else {
        return Ok(BTreeMap::new());
    };
    let standing = conductor::standing(journal, group)?;
    let version = |id| {
        let version: Option<&Version> = standing.versions.get(id)?.as_ref();
        version.map(ToString::to_string)
    };
    let mixed = standing.mixed.iter();
    Ok(mixed.map(|id| (id.to_string(), version(id))).collect())
}

/// The sentence about a group that has mixed versions.
pub(crate) fn sentence(
    group: &GroupRef,
    mixed: &BTreeMap<String, Option<String>>,
) -> Option<String> {
    let phrases = report::mixed_phrases(mixed).join(", ");
    (!mixed.is_empty()).then(|| format!("{group} has mixed versions: {phrases}"))
}
