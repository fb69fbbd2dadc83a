//! The Landlock domain that a step starts in.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

use super::job::Confinement;

/// Devices that every program may expect to write to. They keep nothing.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/full"];

/// The strictest rules that the kernel has for writing to nothing but a folder, and how strict they are.
pub(super) fn domain(folder: &Path) -> io::Result<(Confinement, Option<OwnedFd>)> {
    // Without the rights of the second version a file cannot be renamed from folder to folder, whatever is allowed.
    let versions = [
        (ABI::V6, Confinement::Full),
        (ABI::V3, Confinement::Full),
        (ABI::V2, Confinement::NotTruncation),
    ];
    for (version, confinement) in versions {
        if let Ok(ruleset) = handled(version) {
            return Ok((confinement, allowed(ruleset, folder, version)?));
        }
    }
    Ok((Confinement::None, None))
}

/// All ways of writing to files. Ioctls of devices are left alone: who may open a terminal may size it.
fn writes(version: ABI) -> BitFlags<AccessFs> {
    AccessFs::from_write(version) & !BitFlags::from(AccessFs::IoctlDev)
}

/// Rules that forbid all that this version can. An error where the kernel does not have it.
fn handled(version: ABI) -> Result<Ruleset, RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(writes(version))?;
    let scopes = Scope::from_all(version);
    if scopes.is_empty() {
        return Ok(ruleset);
    }
    // Processes outside get no signals from within.
    ruleset.scope(scopes)
}

/// What may be written to after all.
fn allowed(ruleset: Ruleset, folder: &Path, version: ABI) -> io::Result<Option<OwnedFd>> {
    let below = PathFd::new(folder).map_err(io::Error::other)?;
    let mut rules = ruleset
        .create()
        .and_then(|rules| rules.add_rule(PathBeneath::new(below, writes(version))))
        .map_err(io::Error::other)?;
    for device in DEVICES {
        // A container may lack one of them.
        let Ok(device) = PathFd::new(device) else {
            continue;
        };
        let access = writes(version) & AccessFs::from_file(version);
        rules = rules
            .add_rule(PathBeneath::new(device, access))
            .map_err(io::Error::other)?;
    }
    Ok(rules.into())
}
