//! What a package says about its installation, whichever dialect it was written in.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::LifecycleEvent;

/// The checked content of an appspec, or of a group's form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppSpec {
    pub files: Vec<FileMapping>,
    pub permissions: Vec<Permission>,
    /// The scripts of each event, in the order in which they run.
    pub hooks: BTreeMap<LifecycleEvent, Vec<Script>>,
    /// Environment of every hook of this package, below the group's and the instance's.
    pub env: BTreeMap<String, String>,
    pub on_existing: OnExisting,
}

/// One pair of `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMapping {
    /// A file or folder in the package; `/` is the whole package.
    pub source: String,
    /// A folder on the instance; relative to the instance's `rootdir` when not absolute.
    pub destination: String,
}

/// What happens when a file that this package did not install is where one is to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnExisting {
    /// The installation fails before anything changes.
    #[default]
    Disallow,
    /// The file is replaced; the old one is kept for the way back.
    Overwrite,
    /// The file stays and the package's own is left out.
    Retain,
}

/// One entry of `permissions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// A file or folder on the instance, with the rule of [`FileMapping::destination`].
    pub object: String,
    /// A glob on file names; `**` is everything.
    pub pattern: String,
    pub except: Vec<String>,
    pub kinds: Kinds,
    pub owner: Option<String>,
    pub group: Option<String>,
    /// Permission bits, for example `0o644`.
    pub mode: Option<u32>,
    /// Entries of an access control list, each `[d:](u|g|m|o):NAME:rwx`: `d:` for what is made in a folder later,
    /// one letter for user, group, mask or everyone else, and `-` for each permission that is not given. `NAME` is
    /// empty with `m` and `o`, and with `d:u` and `d:g` for the owner and the owning group; without `d:` these and
    /// `o` do not occur, for they are [`Permission::mode`]. No two entries are about the same account. For example
    /// `u:shop:rwx`, `m::r-x`, `d:g:ops:r-x`, `d:o::---`.
    pub acls: Vec<String>,
    /// The SELinux context.
    pub context: Option<Context>,
}

/// An SELinux context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub user: Option<String>,
    /// The SELinux type, for example `httpd_sys_content_t`.
    pub kind: String,
    /// The range in its shortest form, categories in order, for example `s0-s2:c0,c256.c512`.
    pub range: Option<String>,
}

/// What a permission applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    Files,
    Directories,
    Both,
}

/// One script of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub run: Run,
    pub timeout: Duration,
    /// The account that runs it; the agent's own when absent.
    pub runas: Option<String>,
}

/// What a script is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// An executable in the package, relative to its root.
    Location(String),
    /// A command line for `/bin/sh`, or an absolute path on the instance.
    Command(String),
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Run::Location(text) | Run::Command(text) => f.pad(text),
        }
    }
}
