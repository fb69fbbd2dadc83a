//! Making a folder out of what a package source delivers: a folder, a tar archive (plain, gzipped or compressed with
//! zstd), or a zip archive.
//!
//! Start at [`unpack`]. What an archive is, is seen from the content, never from a name. Nothing is ever written outside
//! the target: absolute paths, `..`, devices and links that leave are refused, and so is writing through a link of the
//! archive itself. [`Limits`] hold while the archive is read, so a bomb writes no more than they allow. The folder
//! appears under its name by a rename, when it is whole.
//!
//! A package carries the nine permission bits of its files and no more. Owners, times, setuid, setgid and the sticky bit
//! are the appspec's to set.

mod format;
mod limits;
mod package;
mod tar;
mod writer;
mod zip;

pub use format::Format;
pub use limits::Limits;
pub use package::{Error, Options, Unpacked, unpack, unpack_with};
