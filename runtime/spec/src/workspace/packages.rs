//! What packages may hold at most.

use crate::fields::{Field, Shape};
use crate::problem::Collector;
use crate::size;

pub(super) static PACKAGES: Shape = Shape {
    name: "packages",
    keys: &["limits"],
    aliases: &[],
};

pub(super) static LIMITS: Shape = Shape {
    name: "package-limits",
    keys: &["size", "entries", "ratio", "path"],
    aliases: &[],
};

/// How the packages of a workspace are treated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packages {
    pub limits: PackageLimits,
}

/// What a package may hold at most. What is left out is whatever the agent takes to be reasonable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageLimits {
    /// Bytes, packed and unpacked.
    pub size: Option<u64>,
    /// Files, folders and links.
    pub entries: Option<usize>,
    /// How many bytes one byte of an archive may become.
    pub ratio: Option<u64>,
    /// Bytes of a path.
    pub path: Option<usize>,
}

pub(super) fn parse(field: Field<'_>, problems: &mut Collector) -> Option<Packages> {
    let fields = field.fields(&PACKAGES, problems)?;
    let limits = match fields.get("limits") {
        Some(field) => limits(field, problems)?,
        None => PackageLimits::default(),
    };
    Some(Packages { limits })
}

fn limits(field: Field<'_>, problems: &mut Collector) -> Option<PackageLimits> {
    let fields = field.fields(&LIMITS, problems)?;
    let size = fields.get("size").map(|field| {
        let size = field.parsed(size::parse, problems)?;
        if size == 0 {
            field.mismatch("a size of at least 1 byte, such as `2GiB`", problems);
            return None;
        }
        Some(size)
    });
    let mut number = |name, most| {
        fields
            .get(name)
            .map(|field| field.number(1..=most, problems))
    };
    // The most that an instance takes.
    let entries = number("entries", 1_000_000);
    let ratio = number("ratio", u64::from(u32::MAX));
    let path = number("path", 4096);
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Some(PackageLimits {
        size: flat(size)?,
        entries: flat(entries)?.map(whole),
        ratio: flat(ratio)?,
        path: flat(path)?.map(whole),
    })
}

/// A value that may be left out; none where it is there and wrong.
#[allow(clippy::option_option)]
fn flat<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}
