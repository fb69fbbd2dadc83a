//! The workspace file, `cutover.yaml`: the journal, the plugins with their grants, and the groups of instances.
//!
//! [`parse`] gives a [`Workspace`] in which every reference has been checked. Finding and reading the file is the
//! caller's, and so is resolving the file's relative paths.

mod batches;
mod build;
mod file;
mod gate;
mod group;
mod instance;
mod packages;
mod plugin;
mod sides;
mod ssh;
mod strategy;

pub use build::Build;
pub use file::{JournalLocation, UnknownGroup, Workspace, parse};
pub use group::{Group, UnknownInstance};
pub use packages::{PackageLimits, Packages};
pub use plugin::{Access, Directory, Grants, InstancePath, Plugin, Secret, SecretSource};

/// Every kind of mapping in a workspace file, for the test that holds the schema against it.
#[cfg(test)]
pub(crate) fn shapes() -> Vec<&'static crate::fields::Shape> {
    vec![
        &build::BUILD,
        &file::WORKSPACE,
        &file::APPLICATION,
        &group::GROUP,
        &group::BALANCER,
        &group::ROUTER,
        &gate::GATE,
        &instance::INSTANCE,
        &packages::PACKAGES,
        &packages::LIMITS,
        &plugin::PLUGIN,
        &plugin::GRANTS,
        &plugin::DIRECTORY,
        &plugin::PATH,
        &sides::SIDE,
        &ssh::SSH,
        &strategy::STRATEGY,
        &strategy::PROMOTE,
        &crate::hooks::FORM_SCRIPT,
    ]
}
