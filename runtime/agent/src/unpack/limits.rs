//! How much an archive may hold, and the readers that see to it.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

use crate::tree;

/// What an archive may hold at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Unpacked size in bytes.
    pub bytes: u64,
    /// Number of members.
    pub entries: usize,
    /// How many bytes one byte of the archive may become. It holds from [`Limits::RATIO_FREE`] bytes on: a small
    /// archive may well consist of zeros.
    pub ratio: u64,
    /// Length of a member's path in bytes.
    pub path: usize,
}

impl Limits {
    /// The unpacked bytes to which no ratio applies.
    pub const RATIO_FREE: u64 = 16 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 4 << 30,
            entries: 200_000,
            ratio: 200,
            path: 1024,
        }
    }
}

/// A limit that was reached. It travels as the payload of an [`io::Error`] through readers that are not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("more than {0}")]
pub(super) struct Exceeded(pub(super) String);

impl Exceeded {
    pub(super) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    pub(super) fn bytes(limits: &Limits) -> Self {
        Self(format!("{} bytes", limits.bytes))
    }

    pub(super) fn entries(limits: &Limits) -> Self {
        Self(format!("{} members", limits.entries))
    }

    fn ratio(limits: &Limits) -> Self {
        Self(format!("{} times its own size", limits.ratio))
    }
}

/// What has been read of an archive. Shared by the readers on both sides of a decompressor.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Bytes of the archive itself.
    pub(super) packed: Cell<u64>,
    /// Bytes that came out of it.
    pub(super) unpacked: Cell<u64>,
    /// Bytes that may still come out before somebody raises this.
    pub(super) allowance: Cell<u64>,
}

impl Meter {
    /// Notes that so many bytes came out.
    pub(super) fn came_out(&self, bytes: u64, limits: &Limits) -> Result<(), Exceeded> {
        let unpacked = self.unpacked.get() + bytes;
        self.unpacked.set(unpacked);
        if unpacked > Limits::RATIO_FREE
            && unpacked > self.packed.get().saturating_mul(limits.ratio)
        {
            return Err(Exceeded::ratio(limits));
        }
        Ok(())
    }
}

/// Counts the bytes of the archive itself.
pub(super) struct Packed<R> {
    pub(super) stream: R,
    pub(super) meter: Rc<Meter>,
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.meter
            .packed
            .set(self.meter.packed.get() + length as u64);
        Ok(length)
    }
}

/// Counts what comes out of an archive, and ends with [`Exceeded`] what is more than allowed.
pub(super) struct Unpacked<R> {
    pub(super) stream: R,
    pub(super) meter: Rc<Meter>,
    pub(super) limits: Limits,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        let left = self.meter.allowance.get().checked_sub(length as u64);
        let left = left.ok_or_else(|| {
            io::Error::other(Exceeded(
                "1 MiB of headers for one member, or of padding".to_owned(),
            ))
        })?;
        self.meter.allowance.set(left);
        self.meter
            .came_out(length as u64, &self.limits)
            .map_err(io::Error::other)?;
        Ok(length)
    }
}

/// An archive of whose directory no more may be read than [`Meter::allowance`] says.
pub(super) struct Allowed<R> {
    pub(super) stream: R,
    pub(super) meter: Rc<Meter>,
    pub(super) limits: Limits,
}

impl<R: Read> Read for Allowed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        let left = self.meter.allowance.get().checked_sub(length as u64);
        let left = left.ok_or_else(|| io::Error::other(Exceeded::entries(&self.limits)))?;
        self.meter.allowance.set(left);
        Ok(length)
    }
}

impl<R: Seek> Seek for Allowed<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.stream.seek(to)
    }
}

const _: () = assert!(tree::MAX_ENTRIES >= 200_000 && tree::MAX_PATH >= 1024);
