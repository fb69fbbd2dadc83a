//! A child that uses its parent's memory, on a stack of its own, while the parent waits.
//!
//! Copying the memory means copying its page tables and a fault for every page that either side writes to afterwards.

use std::cell::RefCell;
use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::process::Pid;

use super::duplicate::duplicate;
use super::enter::enter;
use super::image::{Image, Obstacle};
use super::signals;

/// Has a child become an image, and says which child it is and what stopped it if it has ended without.
pub(super) fn run(
    image: &Image<'_>,
    group: Option<BorrowedFd<'_>>,
) -> io::Result<(Pid, Option<Obstacle>)> {
    let stack = Stack::of_thread()?;
    let mut life = Life {
        image,
        obstacle: None,
    };
    let argument = (&raw mut life).cast();
    // A handler that ran in the child would change what the parent has in its memory.
    let blocked = Blocked::all();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK;
    let made = duplicate(flags, stack, group, |call| {
        if call.clears_handlers {
            image.expect_no_handlers();
        }
        // SAFETY: The flags are those of a child that shares the memory and that its parent waits for, and the stack is
        // this thread's, which has no other child that uses it. `live` gets the life that it expects; the image is borrowed by it, and the
        // parent looks at neither before it goes on, when the child executes another program or has ended.
        unsafe { enter(call, live, argument) }
    });
    drop(blocked);
    // Only the child would see no process here, and it does not come back.
    let pid = made?.ok_or(io::ErrorKind::Other)?;
    Ok((pid, life.obstacle))
}

/// Keeps all signals of the calling thread waiting as long as it lives.
struct Blocked {
    former: u64,
}

impl Blocked {
    fn all() -> Self {
        Self {
            former: signals::set_mask(u64::MAX),
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        signals::set_mask(self.former);
    }
}

/// What a child is there for, and what came between.
struct Life<'a> {
    image: &'a Image<'a>,
    obstacle: Option<Obstacle>,
}

/// All that a child does.
///
/// # Safety
/// `life` is a valid [`Life`] that nobody else uses until this process executes another program or ends.
unsafe extern "C" fn live(life: *mut c_void) -> ! {
    // SAFETY: As the caller promises.
    let life = unsafe { &mut *life.cast::<Life<'_>>() };
    life.obstacle = Some(life.image.become_it());
    // SAFETY: _exit takes a number, runs nothing that is registered for the end and does not return.
    unsafe { libc::_exit(127) }
}

/// The memory of a child's stack, above memory that cannot be touched.
struct Stack(ptr::NonNull<u8>);

/// The least that every kernel can protect: its largest page.
const GUARD: usize = 64 * 1024;

/// Far more than a child needs in a build without optimisation. What is not touched costs nothing.
const ROOM: usize = 64 * 1024;

thread_local! {
    /// The stack of one child after the other: a thread waits for each.
    static STACK: RefCell<Option<Stack>> = const { RefCell::new(None) };
}

impl Stack {
    /// Where the stack of a thread's next child may be, from its lowest address. Its end is aligned to a page, and so as
    /// every processor wants it.
    fn of_thread() -> io::Result<Range<usize>> {
        STACK.with_borrow_mut(|stack| {
            let stack = match stack {
                Some(stack) => stack,
                None => stack.insert(Self::new()?),
            };
            Ok(stack.range())
        })
    }

    fn new() -> io::Result<Self> {
        // SAFETY: A fresh mapping that nothing else refers to.
        let base = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                GUARD + ROOM,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK,
            )
        }?;
        let stack = ptr::NonNull::new(base.cast()).map(Self);
        let stack = stack.ok_or(io::ErrorKind::OutOfMemory)?;
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: The upper part of the mapping, which begins with a page of whatever size and is in no use yet.
        unsafe { mprotect(base.byte_add(GUARD), ROOM, access) }?;
        Ok(stack)
    }

    fn range(&self) -> Range<usize> {
        let base = self.0.as_ptr().expose_provenance();
        base + GUARD..base + GUARD + ROOM
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's, which is gone afterwards.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), GUARD + ROOM) };
    }
}
