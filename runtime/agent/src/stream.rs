//! A tree as a stream of bytes, which can be taken up again in the middle.
//!
//! Entries come in the order of [`crate::tree`], each as a header line and, for a file, its bytes:
//!
//! ```text
//! f MODE SP LENGTH SP PATH SP BYTES LF      then BYTES bytes: the file from the offset on
//! d MODE SP LENGTH SP PATH LF
//! l LENGTH SP PATH SP LENGTH SP TARGET LF
//! m MODE SP LENGTH SP PATH LF               the mode of a folder, when everything is in it
//! e LF                                      the end
//! ```
//!
//! MODE is octal; LENGTH counts the bytes of what follows it. Where a stream begins is a [`Position`]: how many entries
//! the receiver has, and how much of the next one. Folders' modes come last, innermost first, for a folder may deny
//! its owner to write.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::tree::{self, Error, Kind, Node};

/// Where a stream begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// How many entries are left out.
    pub entry: usize,
    /// How many bytes of the next one are left out, if it is a file.
    pub offset: u64,
}

/// The sending side: a tree on disk, read from the beginning to the end.
#[derive(Debug)]
pub struct Outgoing {
    root: PathBuf,
    nodes: Vec<Node>,
    bytes: u64,
    next: usize,
    offset: u64,
    /// A header that has not been handed out.
    header: Vec<u8>,
    file: Option<(io::Take<File>, PathBuf)>,
    /// Where the folders' modes are.
    folders: Vec<usize>,
    is_over: bool,
}

impl Outgoing {
    /// Looks at a tree.
    ///
    /// # Errors
    /// [`Error`] when the folder is not a tree or cannot be read.
    pub fn of(root: &Path) -> Result<Self, Error> {
        let nodes = tree::walk(root)?;
        let mut bytes = 0;
        for node in nodes.iter().filter(|node| node.kind == Kind::File) {
            let path = root.join(&node.path);
            bytes += path
                .symlink_metadata()
                .map_err(tree::failed("look at", &path))?
                .len();
        }
        let folders = (0..nodes.len())
            .filter(|index| nodes[*index].kind == Kind::Directory)
            .collect();
        Ok(Self {
            root: root.to_path_buf(),
            nodes,
            bytes,
            next: 0,
            offset: 0,
            header: Vec::new(),
            file: None,
            folders,
            is_over: false,
        })
    }

    /// How many bytes the tree's files have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Leaves out what the receiver has.
    pub fn skip_to(&mut self, position: Position) {
        self.next = position.entry.min(self.nodes.len());
        self.offset = position.offset;
    }

    /// Fills a buffer as far as it goes; 0 at the end.
    ///
    /// # Errors
    /// [`Error`] when the tree cannot be read, or changed since it was looked at.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            if !self.header.is_empty() {
                let length = rest.len().min(self.header.len());
                rest[..length].copy_from_slice(&self.header[..length]);
                self.header.drain(..length);
                filled += length;
            } else if let Some((file, path)) = &mut self.file {
                match file.read(rest) {
                    Ok(0) if file.limit() > 0 => {
                        return Err(tree::failed("read", path)(
                            io::ErrorKind::UnexpectedEof.into(),
                        ));
                    }
                    Ok(0) => self.file = None,
                    Ok(length) => filled += length,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(tree::failed("read", path)(error)),
                }
            } else if self.next < self.nodes.len() {
                self.begin_entry()?;
            } else if let Some(index) = self.folders.pop() {
                let Node { path, mode, .. } = &self.nodes[index];
                self.header = header(&[format!("m {mode:o} ").as_bytes()], path, b"");
            } else if self.is_over {
                break;
            } else {
                self.is_over = true;
                self.header = b"e\n".to_vec();
            }
        }
        Ok(filled)
    }

    fn begin_entry(&mut self) -> Result<(), Error> {
        let Node { path, kind, mode } = &self.nodes[self.next];
        let offset = std::mem::take(&mut self.offset);
        self.next += 1;
        match kind {
            Kind::Directory => {
                self.header = header(&[format!("d {mode:o} ").as_bytes()], path, b"");
            }
            Kind::Link(target) => {
                let target = target.as_os_str().as_bytes();
                let tail = [format!(" {} ", target.len()).as_bytes(), target].concat();
                self.header = header(&[b"l "], path, &tail);
            }
            Kind::File => {
                let full = self.root.join(path);
                let mut file = File::open(&full).map_err(tree::failed("open", &full))?;
                let length = file
                    .metadata()
                    .map_err(tree::failed("look at", &full))?
                    .len();
                let rest = length.saturating_sub(offset);
                file.seek(SeekFrom::Start(length - rest))
                    .map_err(tree::failed("read", &full))?;
                let tail = format!(" {rest}");
                self.header = header(&[format!("f {mode:o} ").as_bytes()], path, tail.as_bytes());
                self.file = Some((file.take(rest), full));
            }
        }
        Ok(())
    }
}

fn header(begin: &[&[u8]], path: &Path, tail: &[u8]) -> Vec<u8> {
    let path = path.as_os_str().as_bytes();
    let mut header = begin.concat();
    header.extend_from_slice(path.len().to_string().as_bytes());
    header.push(b' ');
    header.extend_from_slice(path);
    header.extend_from_slice(tail);
    header.push(b'\n');
    header
}

/// One header of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    File {
        path: PathBuf,
        mode: u32,
        bytes: u64,
    },
    Directory {
        path: PathBuf,
    },
    Link {
        path: PathBuf,
        target: PathBuf,
    },
    /// The mode of a folder that came before.
    Mode {
        path: PathBuf,
        mode: u32,
    },
    End,
}

/// Reads one header. Input that ends before it does is `UnexpectedEof`, input that is none is `InvalidData`.
pub(crate) fn read_header(input: &mut impl Read) -> io::Result<Header> {
    let mut kind = [0; 1];
    input.read_exact(&mut kind)?;
    let header = match kind[0] {
        b'f' => {
            expect(input, b' ')?;
            let mode = mode(input)?;
            let path = text(input)?;
            expect(input, b' ')?;
            let bytes = decimal(input, b'\n')?;
            return Ok(Header::File { path, mode, bytes });
        }
        b'd' => {
            expect(input, b' ')?;
            mode(input)?;
            Header::Directory { path: text(input)? }
        }
        b'l' => {
            expect(input, b' ')?;
            let path = text(input)?;
            expect(input, b' ')?;
            let target = text(input)?;
            Header::Link { path, target }
        }
        b'm' => {
            expect(input, b' ')?;
            let mode = mode(input)?;
            let path = text(input)?;
            Header::Mode { path, mode }
        }
        b'e' => Header::End,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    expect(input, b'\n')?;
    Ok(header)
}

fn expect(input: &mut impl Read, expected: u8) -> io::Result<()> {
    let mut found = [0; 1];
    input.read_exact(&mut found)?;
    if found[0] == expected {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn mode(input: &mut impl Read) -> io::Result<u32> {
    let number = number(input, b' ', 8)?;
    u32::try_from(number)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn decimal(input: &mut impl Read, end: u8) -> io::Result<u64> {
    number(input, end, 10)
}

fn number(input: &mut impl Read, end: u8, base: u32) -> io::Result<u64> {
    let mut number: Option<u64> = None;
    loop {
        let mut byte = [0; 1];
        input.read_exact(&mut byte)?;
        if byte[0] == end {
            return number.ok_or_else(|| io::ErrorKind::InvalidData.into());
        }
        let digit = char::from(byte[0])
            .to_digit(base)
            .ok_or(io::ErrorKind::InvalidData)?;
        number = number
            .unwrap_or(0)
            .checked_mul(u64::from(base))
            .and_then(|number| number.checked_add(u64::from(digit)));
        if number.is_none() {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

fn text(input: &mut impl Read) -> io::Result<PathBuf> {
    let length = usize::try_from(decimal(input, b' ')?)
        .ok()
        .filter(|length| (1..=tree::MAX_PATH).contains(length))
        .ok_or(io::ErrorKind::InvalidData)?;
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(OsString::from_vec(bytes).into())
}
