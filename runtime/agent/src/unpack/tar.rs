//! Tar archives, plain and compressed.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use ::tar::{Archive, Entry, EntryType};
use flate2::read::MultiGzDecoder;

use super::format;
use super::limits::{Exceeded, Meter, Packed, Unpacked};
use super::package::{Error, shown, too_large};
use super::writer::{Broken, Member, Writer};

/// What the headers of one member may take: the long names and the extended attributes.
const HEADERS: u64 = 1 << 20;
/// What may follow the end of the archive: tapes were written in large blocks, and so are archives to this day.
const PADDING: u64 = 16 << 20;
const BLOCK: u64 = 512;
/// A window of 128 MiB, which is the largest that `zstd --ultra` makes, and the decoder's memory.
const WINDOW_LOG: u32 = 27;

/// Why there is nothing unpacked.
pub(super) enum Failure {
    /// What was compressed is no tar archive.
    NoTar,
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

pub(super) fn plain(file: File, writer: Writer) -> Result<Vec<String>, Failure> {
    let meter = Rc::new(Meter::default());
    let packed = Packed {
        stream: file,
        meter: meter.clone(),
    };
    Unpacking::new(writer, meter, Whole::SaidByMarker).run(BufReader::new(packed))
}

pub(super) fn gzip(file: File, writer: Writer) -> Result<Vec<String>, Failure> {
    let meter = Rc::new(Meter::default());
    let packed = Packed {
        stream: file,
        meter: meter.clone(),
    };
    let stream = BufReader::new(MultiGzDecoder::new(packed));
    Unpacking::new(writer, meter, Whole::SaidByCompression).run(stream)
}

pub(super) fn zstd(file: File, writer: Writer) -> Result<Vec<String>, Failure> {
    let meter = Rc::new(Meter::default());
    let packed = Packed {
        stream: file,
        meter: meter.clone(),
    };
    let start = |source| Error::Damaged {
        offset: 0,
        member: None,
        source,
    };
    let mut decoder = ::zstd::Decoder::new(packed).map_err(start)?;
    decoder.window_log_max(WINDOW_LOG).map_err(start)?;
    let stream = BufReader::new(decoder);
    Unpacking::new(writer, meter, Whole::SaidByCompression).run(stream)
}

/// How it shows that an archive was not cut short between two members.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    /// By the block of zeros that ends an archive.
    SaidByMarker,
    /// By the end of the compressed stream, so that the marker may be absent.
    SaidByCompression,
}

struct Unpacking {
    writer: Writer,
    meter: Rc<Meter>,
    whole: Whole,
    warnings: Vec<String>,
}

impl Unpacking {
    fn new(writer: Writer, meter: Rc<Meter>, whole: Whole) -> Self {
        Self {
            writer,
            meter,
            whole,
            warnings: Vec::new(),
        }
    }

    fn run(mut self, stream: impl Read) -> Result<Vec<String>, Failure> {
        let mut stream = Unpacked {
            stream,
            meter: self.meter.clone(),
            limits: self.writer.limits,
        };
        self.meter.allowance.set(HEADERS);
        let mut head = Vec::new();
        (&mut stream)
            .take(BLOCK)
            .read_to_end(&mut head)
            .map_err(|source| self.damaged(None, source))?;
        if !format::is_tar(&head) {
            return Err(Failure::NoTar);
        }
        let mut archive = Archive::new(io::Cursor::new(head).chain(stream));
        let mut end = 0;
        let entries = archive.entries();
        let mut entries = entries.map_err(|source| self.damaged(None, source))?;
        loop {
            self.meter.allowance.set(HEADERS);
            let entry = match entries.next() {
                None => break,
                Some(entry) => entry.map_err(|source| self.damaged(None, source))?,
            };
            let unread = self.member(entry)?;
            end = (self.meter.unpacked.get() + unread).next_multiple_of(BLOCK);
        }
        if self.whole == Whole::SaidByMarker && self.meter.unpacked.get() <= end {
            let cut = io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive is cut short: it has no end-of-archive marker",
            );
            return Err(self.damaged(None, cut).into());
        }
        self.rest(archive.into_inner())?;
        self.writer.finish()?;
        Ok(self.warnings)
    }

    /// Reads whatever follows: the checksum of a compressed stream is at its end.
    fn rest(&mut self, mut stream: impl Read) -> Result<(), Error> {
        self.meter.allowance.set(PADDING);
        let mut buffer = [0; 1 << 14];
        let mut ignored = false;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => ignored |= buffer[..length].iter().any(|byte| *byte != 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.damaged(None, source)),
            }
        }
        if ignored {
            self.warnings
                .push("what follows the end of the archive was ignored".to_owned());
        }
        Ok(())
    }

    fn damaged(&self, member: Option<String>, source: io::Error) -> Error {
        if let Some(exceeded) = Exceeded::of(&source) {
            return too_large(exceeded.clone(), member);
        }
        Error::Damaged {
            offset: self.meter.unpacked.get(),
            member,
            source,
        }
    }

    /// Writes a member, and says how much of it is still unread.
    fn member<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<u64, Error> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(entry.size());
        }
        let name = entry.path_bytes().into_owned();
        let member = self.writer.member(&name)?;
        check_sparse(&mut entry, &member).map_err(|broken| match broken {
            Broken::Read(source) => self.damaged(Some(member.shown.clone()), source),
            Broken::Other(error) => error,
        })?;
        let header = entry.header().mode();
        let mode = header.map_err(|source| self.damaged(Some(member.shown.clone()), source))?;
        match kind {
            // Before there was a kind for folders, they were files with a slash at the end of their name.
            EntryType::Regular if name.ends_with(b"/") && entry.size() == 0 => {
                self.writer.folder(&member, mode)?;
            }
            EntryType::Regular if name.ends_with(b"/") => {
                return Err(member.refused("is a file with the name of a folder"));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(&mut entry, &member, mode)?;
                return Ok(0);
            }
            EntryType::Directory => self.writer.folder(&member, mode)?,
            EntryType::Symlink => {
                let link = entry.link_name_bytes().unwrap_or_default();
                self.writer.symlink(&member, &link)?;
            }
            EntryType::Link => {
                let link = entry.link_name_bytes().unwrap_or_default();
                self.writer.hard_link(&member, &link)?;
            }
            kind => {
                let what = match kind {
                    EntryType::Char | EntryType::Block => "a device".to_owned(),
                    EntryType::Fifo => "a pipe".to_owned(),
                    kind => format!("of the kind `{}`", shown(&[kind.as_byte()])),
                };
                let problem = format!("is neither a file nor a folder nor a link, but {what}");
                return Err(member.refused(problem));
            }
        }
        Ok(entry.size())
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        member: &Member,
        mode: u32,
    ) -> Result<(), Error> {
        let size = entry.size();
        // What a member says of its size is believed when it is too large, and otherwise checked.
        if size > self.writer.room() {
            let exceeded = Exceeded::bytes(&self.writer.limits);
            return Err(too_large(exceeded, Some(member.shown.clone())));
        }
        self.meter.allowance.set(size.saturating_add(BLOCK));
        let written = self.writer.file(member, mode, entry);
        match written {
            Ok(written) if written == size => Ok(()),
            Ok(written) => {
                let cut = io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the archive is cut short: {written} of {size} bytes are there"),
                );
                Err(self.damaged(Some(member.shown.clone()), cut))
            }
            Err(Broken::Read(source)) => Err(self.damaged(Some(member.shown.clone()), source)),
            Err(Broken::Other(error)) => Err(error),
        }
    }
}

/// Refuses the one form of sparse files that would otherwise come out as their own table of contents.
fn check_sparse<R: Read>(entry: &mut Entry<'_, R>, member: &Member) -> Result<(), Broken> {
    let Some(extensions) = entry.pax_extensions().map_err(Broken::Read)? else {
        return Ok(());
    };
    for extension in extensions {
        let extension = extension.map_err(Broken::Read)?;
        if extension.key_bytes().starts_with(b"GNU.sparse.") {
            return Err(Broken::Other(member.refused(
                "is a sparse file in the pax format, which cannot be unpacked: pack it with `tar --format=gnu`, or without `--sparse`",
            )));
        }
    }
    Ok(())
}
