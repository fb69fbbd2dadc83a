//! The link between the front and one of its workers: a pair of sockets that keep messages apart.
//!
//! The front hands over an attempt, its lock beside it, and says separately that it may begin; the worker says when it is
//! free for another one. Whoever finds the other end closed is alone: a worker without a front finishes what it has begun
//! and ends.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};

use crate::protocol::{self, Run};

/// The longest message, in bytes. An attempt that does not fit is for a worker that is forked with it.
const MAX_MESSAGE: usize = 32 << 10;

/// What the front says when an attempt that it has handed over may begin.
const BEGIN: &[u8] = b"!";

/// What a worker says when it has ended an attempt and takes another.
const FREE: &[u8] = b".";

/// An attempt in a worker's hands.
pub(crate) struct Job {
    pub(crate) run: Run,
    /// The attempt's lock.
    pub(crate) lock: OwnedFd,
}

/// The front's end.
pub(crate) struct FrontEnd(OwnedFd);

/// A worker's end.
pub(crate) struct WorkerEnd {
    link: OwnedFd,
    /// Where messages come to.
    text: RefCell<Vec<u8>>,
}

/// What a worker says.
pub(crate) enum Word {
    Nothing,
    /// It has ended an attempt and takes another.
    Free,
    /// It ends.
    End,
}

/// What came over a link.
enum Message {
    Job(Box<Job>),
    Begin,
}

/// Makes a link. The other end is for a [`WorkerEnd`].
pub(crate) fn pair() -> io::Result<(FrontEnd, OwnedFd)> {
    let (front, worker) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((FrontEnd(front), worker))
}

impl FrontEnd {
    /// Hands an attempt over. The lock stays with the caller when that fails, as it does for a request that is too long.
    pub(crate) fn hand_over(&self, run: &Run, lock: &OwnedFd) -> io::Result<()> {
        let text = protocol::encode(run);
        if text.len() > MAX_MESSAGE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let locks = [lock.as_fd()];
        if !beside.push(SendAncillaryMessage::ScmRights(&locks)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        sendmsg(&self.0, &[IoSlice::new(&text)], &mut beside, flags())?;
        Ok(())
    }

    /// Lets the worker begin what it was handed.
    pub(crate) fn begin(&self) -> io::Result<()> {
        send(&self.0, BEGIN, flags())?;
        Ok(())
    }

    /// What the worker has said.
    pub(crate) fn hear(&self) -> Word {
        let mut word = [0; 1];
        match rustix::net::recv(&self.0, &mut word, RecvFlags::DONTWAIT) {
            Ok((1, _)) if word == FREE => Word::Free,
            Err(Errno::AGAIN | Errno::INTR) => Word::Nothing,
            Ok(_) | Err(_) => Word::End,
        }
    }
}

/// A worker that has ended is no reason to end, and one that does not take anything no reason to wait.
fn flags() -> SendFlags {
    SendFlags::NOSIGNAL | SendFlags::DONTWAIT
}

impl WorkerEnd {
    /// Says that another attempt may come.
    pub(crate) fn tell_free(&self) -> io::Result<()> {
        send(&self.link, FREE, flags())?;
        Ok(())
    }

    /// Waits until something comes, at most for a while where that is said. Answers whether something came, or nothing
    /// ever will.
    pub(crate) fn wait(&self, patience: Option<Duration>) -> bool {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut link = [PollFd::new(&self.link, PollFlags::IN)];
        !matches!(poll(&mut link, patience.as_ref()), Ok(0) | Err(Errno::INTR))
    }

    /// Waits for an attempt; none comes when the front has no use for the worker any more.
    pub(crate) fn next(&self) -> Option<Job> {
        match self.receive() {
            Ok(Some(Message::Job(job))) => Some(*job),
            Ok(Some(Message::Begin) | None) | Err(_) => None,
        }
    }

    /// Takes the word that lets the worker begin.
    pub(crate) fn is_let_through(&self) -> bool {
        matches!(self.receive(), Ok(Some(Message::Begin)))
    }

    fn receive(&self) -> io::Result<Option<Message>> {
        let mut text = self.text.borrow_mut();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            let into = &mut [IoSliceMut::new(&mut text)];
            match recvmsg(&self.link, into, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received.bytes,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        let lock = beside.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        match (&text[..length], lock) {
            ([], _) => Ok(None),
            (BEGIN, None) => Ok(Some(Message::Begin)),
            (text, Some(lock)) => {
                let run = protocol::decode(text).map_err(io::Error::other)?;
                Ok(Some(Message::Job(Box::new(Job { run, lock }))))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl AsFd for FrontEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for WorkerEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

impl From<OwnedFd> for WorkerEnd {
    fn from(end: OwnedFd) -> Self {
        Self {
            link: end,
            text: RefCell::new(vec![0; MAX_MESSAGE]),
        }
    }
}
