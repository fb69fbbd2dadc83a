//! A system call that comes back to the caller once, and elsewhere in the child that it makes.
//!
//! The child is on another stack, where the caller's frame is not, and must not write to the frame where it is: the
//! parent goes on with it. So it branches off before anything that a compiler has made.

use std::arch::asm;
use std::ffi::c_void;
use std::io;

use rustix::process::Pid;

use super::duplicate::Call;

/// What a child does instead of coming back.
pub(super) type Child = unsafe extern "C" fn(*mut c_void) -> !;

/// Carries out a call that makes a child with a stack of its own, and has the child do what it is there for. Returns to
/// the caller alone.
///
/// # Safety
/// The call's arguments are valid. When it succeeds it has the caller wait until the child has left the memory that it
/// shares with it; the end of the child's stack is aligned to 16 bytes, and the stack is used by nobody else. `child` may
/// be called with `argument` in the child.
pub(super) unsafe fn enter(
    call: &Call,
    child: Child,
    argument: *mut c_void,
) -> io::Result<Option<Pid>> {
    // SAFETY: As the caller promises.
    let result = unsafe { branch(call, child, argument) };
    let number = i32::try_from(result).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::from_raw_os_error(-number));
    }
    Ok(Pid::from_raw(number))
}

/// Returns what the kernel does.
///
/// # Safety
/// As for [`enter`].
#[cfg(target_arch = "x86_64")]
unsafe fn branch(call: &Call, child: Child, argument: *mut c_void) -> isize {
    let result;
    // SAFETY: For the parent this is a system call like any other: it changes rax, rcx, r11 and, as long as the parent
    // waits, the memory, which the compiler expects of `asm!`. The child has the same registers but for rax and rsp, and no
    // frame behind it; its stack is aligned for a call, which pushes what it would return to. It never does.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") call.number as isize => result,
            in("rdi") call.first,
            in("rsi") call.second,
            in("rdx") 0_usize,
            in("r10") 0_usize,
            in("r8") 0_usize,
            in("r9") argument,
            in("r12") child,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// Returns what the kernel does.
///
/// # Safety
/// As for [`enter`].
#[cfg(target_arch = "aarch64")]
unsafe fn branch(call: &Call, child: Child, argument: *mut c_void) -> isize {
    let result;
    // SAFETY: For the parent this is a system call like any other: it changes x0 and, as long as the parent waits, the
    // memory, which the compiler expects of `asm!`. The child has the same registers but for x0 and sp, and no frame behind
    // it; its stack is aligned. What it would return to is in x30. It never does.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x5",
            "blr x6",
            "brk #1",
            "2:",
            inlateout("x0") call.first => result,
            in("x1") call.second,
            in("x2") 0_usize,
            in("x3") 0_usize,
            in("x4") 0_usize,
            in("x5") argument,
            in("x6") child,
            in("x8") call.number,
        );
    }
    result
}
