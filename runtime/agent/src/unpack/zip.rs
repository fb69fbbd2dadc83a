//! Zip archives.
//!
//! The directory at the end says what there is. What it says of a member's content is held against the content: length,
//! checksum, and that no two members share bytes.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use ::zip::result::ZipError;
use ::zip::{CompressionMethod, ZipArchive};

use super::limits::{Allowed, Exceeded, Meter};
use super::package::{Error, shown, too_large};
use super::tar::Failure;
use super::writer::{Broken, Member, Writer};
use crate::tree;

/// The record that ends an archive, and the longest comment that may follow it.
const END: &[u8] = b"PK\x05\x06";
const END_AND_COMMENT: u64 = 22 + 65_535;
/// What one member may take in the directory on average, and what the directory may take beside its members.
const DIRECTORY_ENTRY: u64 = 384;
const DIRECTORY: u64 = 1 << 20;
/// The kinds of a Unix mode.
const KIND: u32 = 0o170_000;
const LINK: u32 = 0o120_000;
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

type Zip = ZipArchive<Allowed<BufReader<File>>>;

pub(super) fn unpack(mut file: File, writer: Writer) -> Result<Vec<String>, Failure> {
    let length = check_end(&mut file)?;
    let limits = writer.limits;
    let meter = Rc::new(Meter::default());
    meter.packed.set(length);
    meter
        .allowance
        .set((limits.entries as u64).saturating_mul(DIRECTORY_ENTRY) + DIRECTORY);
    let stream = Allowed {
        // Small: every look at a member's header starts with an empty buffer, and content is read past it.
        stream: BufReader::with_capacity(512, file),
        meter: meter.clone(),
        limits,
    };
    let archive = ZipArchive::new(stream).map_err(|error| damaged(length, None, error))?;
    if archive.len() > limits.entries {
        return Err(too_large(Exceeded::entries(&limits), None).into());
    }
    meter.allowance.set(u64::MAX);
    let unpacking = Unpacking {
        writer,
        meter,
        backslashes: None,
    };
    unpacking.run(archive)
}

/// Looks for the end of the archive where it must be, and says how long the file is.
fn check_end(file: &mut File) -> Result<u64, Error> {
    let mut read = || -> io::Result<(u64, Vec<u8>)> {
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(END_AND_COMMENT)))?;
        let mut tail = Vec::new();
        file.take(END_AND_COMMENT).read_to_end(&mut tail)?;
        file.rewind()?;
        Ok((length, tail))
    };
    let (length, tail) = read().map_err(|source| Error::Damaged {
        offset: 0,
        member: None,
        source,
    })?;
    if tail.windows(END.len()).any(|window| window == END) {
        return Ok(length);
    }
    Err(Error::Damaged {
        offset: length,
        member: None,
        source: io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the archive is cut short: its directory, which is at the end, is missing",
        ),
    })
}

fn damaged(offset: u64, member: Option<String>, error: ZipError) -> Error {
    let source = match error {
        ZipError::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    };
    match Exceeded::of(&source) {
        Some(exceeded) => too_large(exceeded.clone(), member),
        None => Error::Damaged {
            offset,
            member,
            source,
        },
    }
}

struct Unpacking {
    writer: Writer,
    meter: Rc<Meter>,
    /// The first member with backslashes in its path.
    backslashes: Option<String>,
}

/// What the directory says of a member.
struct Entry {
    member: Member,
    kind: Kind,
    mode: u32,
    size: u64,
    start: u64,
}

enum Kind {
    File,
    Folder,
    Link,
}

impl Unpacking {
    fn run(mut self, mut archive: Zip) -> Result<Vec<String>, Failure> {
        let mut entries = Vec::with_capacity(archive.len());
        let mut ranges = Vec::with_capacity(archive.len());
        for index in 0..archive.len() {
            let (entry, end) = self.entry(&mut archive, index)?;
            ranges.push((entry.start, end, index));
            entries.push(entry);
        }
        ranges.sort_unstable();
        let directory = archive.central_directory_start();
        for pair in ranges.windows(2) {
            if let [(_, end, _), (next, _, index)] = *pair
                && end > next
            {
                let member = &entries[index].member;
                return Err(member
                    .refused("shares its bytes with another member, as archives do that unpack to far more than they are")
                    .into());
            }
        }
        if let Some((_, _, index)) = ranges.iter().find(|(_, end, _)| *end > directory) {
            let member = &entries[*index].member;
            return Err(member
                .refused("shares its bytes with the directory of the archive")
                .into());
        }
        for (index, entry) in entries.iter().enumerate() {
            self.write(&mut archive, index, entry)?;
        }
        let mut warnings = Vec::new();
        if archive.has_duplicate_names() {
            warnings.push("several members have one name: the last of them was taken".to_owned());
        }
        if let Some(member) = self.backslashes.take() {
            warnings.push(format!(
                "paths are written with backslashes, as in `{member}`: they were taken as slashes"
            ));
        }
        self.writer.finish()?;
        Ok(warnings)
    }

    /// What the directory says of a member, and where its bytes end.
    fn entry(&mut self, archive: &mut Zip, index: usize) -> Result<(Entry, u64), Error> {
        let start = archive
            .metadata()
            .entry(index)
            .map_or(0, |entry| entry.header_start());
        let name = archive
            .name_for_index(index)
            .map(|name| name.map(std::borrow::Cow::into_owned));
        let named = name.and_then(Result::ok).map(|name| shown(name.as_bytes()));
        let file = archive
            .by_index_raw(index)
            .map_err(|error| damaged(start, named, error))?;
        let mut name = file.name_raw().to_vec();
        if name.contains(&b'\\') && !name.contains(&b'/') {
            self.backslashes.get_or_insert_with(|| shown(&name));
            for byte in name.iter_mut().filter(|byte| **byte == b'\\') {
                *byte = b'/';
            }
        }
        let member = self.writer.member(&name)?;
        if std::str::from_utf8(&name).is_err() {
            return Err(member.refused(
                "has a name that is not UTF-8, and a zip archive does not say in which encoding it is: pack it with UTF-8 names",
            ));
        }
        if file.encrypted() {
            return Err(member.refused("is encrypted"));
        }
        let method = file.compression();
        if !matches!(
            method,
            CompressionMethod::Stored | CompressionMethod::Deflated
        ) {
            return Err(member.refused(format!(
                "is compressed with {method}; only stored and deflated members can be unpacked"
            )));
        }
        let mode = file.unix_mode().unwrap_or(0);
        let is_folder = name.ends_with(b"/");
        let kind = match mode & KIND {
            LINK => Kind::Link,
            FILE | FOLDER | 0 if is_folder => Kind::Folder,
            FILE | 0 => Kind::File,
            FOLDER if file.size() == 0 => Kind::Folder,
            _ => return Err(member.refused("is neither a file nor a folder nor a link")),
        };
        // Some programs leave the mode out.
        let mode = match (mode & 0o777, &kind) {
            (0, Kind::Folder) => 0o755,
            (0, _) => 0o644,
            (mode, _) => mode,
        };
        let size = file.size();
        let data = file.data_start().unwrap_or(start);
        let end = data.saturating_add(file.compressed_size());
        let entry = Entry {
            member,
            kind,
            mode,
            size,
            start,
        };
        Ok((entry, end))
    }

    fn write(&mut self, archive: &mut Zip, index: usize, entry: &Entry) -> Result<(), Error> {
        let member = &entry.member;
        if entry.size > self.writer.room() {
            let exceeded = Exceeded::bytes(&self.writer.limits);
            return Err(too_large(exceeded, Some(member.shown.clone())));
        }
        if let Kind::Folder = entry.kind {
            return self.writer.folder(member, entry.mode);
        }
        let broken = |error| damaged(entry.start, Some(member.shown.clone()), error);
        let file = archive.by_index(index).map_err(broken)?;
        let mut content = Content {
            stream: file,
            left: entry.size,
            meter: self.meter.clone(),
            limits: self.writer.limits,
        };
        if let Kind::Link = entry.kind {
            let mut link = Vec::new();
            let whole = (&mut content)
                .take(tree::MAX_PATH as u64 + 1)
                .read_to_end(&mut link);
            whole.map_err(|error| broken(ZipError::Io(error)))?;
            return self.writer.symlink(member, &link);
        }
        match self.writer.file(member, entry.mode, &mut content) {
            Ok(written) if written == entry.size => Ok(()),
            Ok(written) => Err(broken(ZipError::Io(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{written} of {} bytes are there", entry.size),
            )))),
            Err(Broken::Read(error)) => Err(broken(ZipError::Io(error))),
            Err(Broken::Other(error)) => Err(error),
        }
    }
}

/// A member's content, which must be as long as the directory says.
struct Content<R> {
    stream: R,
    left: u64,
    meter: Rc<Meter>,
    limits: super::Limits,
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        let longer = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "it is longer than the directory says",
            )
        };
        self.left = self.left.checked_sub(length as u64).ok_or_else(longer)?;
        self.meter
            .came_out(length as u64, &self.limits)
            .map_err(io::Error::other)?;
        Ok(length)
    }
}
