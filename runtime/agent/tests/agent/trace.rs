//! An agent whose worker is killed, or gets an error, at a chosen system call.
#![allow(unsafe_code)]

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use agent::protocol::{self, Request, Run};

/// What happens to the worker. Calls that change something on a disk are counted from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It lives.
    Live,
    /// It is killed before this call.
    Die(usize),
    /// This call fails with this error, and does nothing.
    Fail(usize, i32),
    /// This call fails, and it is killed before that one.
    FailAndDie(usize, i32, usize),
}

impl Fate {
    fn fails(self, call: usize) -> Option<i32> {
        match self {
            Fate::Fail(at, error) | Fate::FailAndDie(at, error, _) if at == call => Some(error),
            _ => None,
        }
    }

    fn dies(self, call: usize) -> bool {
        matches!(self, Fate::Die(at) | Fate::FailAndDie(_, _, at) if at == call)
    }
}

/// Whether a call changes something on a disk.
fn is_change(regs: &libc::user_regs_struct) -> bool {
    let number = regs.orig_rax as libc::c_long;
    match number {
        libc::SYS_openat => regs.rdx as i32 & libc::O_CREAT != 0,
        libc::SYS_write
        | libc::SYS_pwrite64
        | libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_symlink
        | libc::SYS_symlinkat
        | libc::SYS_mkdir
        | libc::SYS_mkdirat
        | libc::SYS_unlink
        | libc::SYS_unlinkat
        | libc::SYS_rmdir
        | libc::SYS_chmod
        | libc::SYS_fchmod
        | libc::SYS_fchmodat
        | libc::SYS_fchown
        | libc::SYS_fchownat
        | libc::SYS_fsetxattr
        | libc::SYS_fremovexattr
        | libc::SYS_utimensat
        | libc::SYS_ftruncate
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_syncfs => true,
        _ => false,
    }
}

fn ptrace(request: libc::c_uint, pid: i32, data: usize) -> bool {
    // SAFETY: The requests made here take numbers, or a pointer that is valid for the call.
    unsafe { libc::ptrace(request, pid, 0_usize, data) >= 0 }
}

/// Carries out an attempt and returns the numbers of the calls of its worker that change something.
pub(crate) fn carry_out(run: &Run, fate: Fate) -> Vec<libc::c_long> {
    trace(run, fate, &mut |_| {})
}

/// Carries out an attempt, and something else before one of the worker's calls.
pub(crate) fn disturb(run: &Run, call: usize, deed: impl Fn()) {
    let mut meddle = |number| {
        if number == call {
            deed();
        }
    };
    trace(run, Fate::Live, &mut meddle);
}

fn trace(run: &Run, fate: Fate, meddle: &mut dyn FnMut(usize)) -> Vec<libc::c_long> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover-agent"));
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    // SAFETY: It is one system call.
    unsafe {
        command.pre_exec(|| {
            assert!(ptrace(libc::PTRACE_TRACEME, 0, 0));
            Ok(())
        });
    }
    let mut front = command.spawn().unwrap();
    let request = protocol::encode(&Request::Run(run.clone()));
    // As long as its input is open it does not end.
    let mut stdin = front.stdin.take().unwrap();
    stdin.write_all(&request).unwrap();
    let pid = i32::try_from(front.id()).unwrap();
    let calls = follow(pid, fate, meddle);
    front.kill().unwrap();
    front.wait().unwrap();
    calls
}

fn follow(front: i32, fate: Fate, meddle: &mut dyn FnMut(usize)) -> Vec<libc::c_long> {
    let mut calls = Vec::new();
    let mut worker = None;
    // The call that the worker is in, and what it is to return.
    let mut inside: Option<Option<i32>> = None;
    let mut has_options = false;
    loop {
        let mut status = 0;
        // SAFETY: The pointer is to a number on the stack. Only what this thread has started or traces is waited for.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(pid > 0, "there is nothing to wait for");
        if !libc::WIFSTOPPED(status) {
            if Some(pid) == worker {
                return calls;
            }
            assert!(
                worker.is_some(),
                "the front ended before there was a worker"
            );
            continue;
        }
        let signal = libc::WSTOPSIG(status);
        if pid == front {
            if !has_options {
                let options = libc::PTRACE_O_TRACEFORK
                    | libc::PTRACE_O_TRACEVFORK
                    | libc::PTRACE_O_TRACECLONE
                    | libc::PTRACE_O_TRACESYSGOOD
                    | libc::PTRACE_O_EXITKILL;
                assert!(ptrace(libc::PTRACE_SETOPTIONS, pid, options as usize));
                has_options = true;
            }
            let pass = if signal == libc::SIGTRAP { 0 } else { signal };
            ptrace(libc::PTRACE_CONT, pid, pass as usize);
            continue;
        }
        if worker.is_none() {
            worker = Some(pid);
        }
        if signal == libc::SIGTRAP | 0x80 {
            let before = calls.len();
            on_call(pid, fate, &mut inside, &mut calls);
            if calls.len() > before {
                meddle(before);
            }
        }
        let is_own = matches!(signal, libc::SIGTRAP | libc::SIGSTOP) || signal & 0x80 != 0;
        let pass = if is_own { 0 } else { signal };
        ptrace(libc::PTRACE_SYSCALL, pid, pass as usize);
    }
}

/// At the beginning and at the end of each call.
fn on_call(pid: i32, fate: Fate, inside: &mut Option<Option<i32>>, calls: &mut Vec<libc::c_long>) {
    // SAFETY: All zeros is a valid value of the registers, which are filled in by the kernel.
    let mut regs: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    if !ptrace(libc::PTRACE_GETREGS, pid, &raw mut regs as usize) {
        return;
    }
    match inside.take() {
        Some(None) => {}
        Some(Some(error)) => {
            regs.rax = i64::from(-error) as u64;
            ptrace(libc::PTRACE_SETREGS, pid, &raw mut regs as usize);
        }
        None if !is_change(&regs) => *inside = Some(None),
        None => {
            let call = calls.len();
            calls.push(regs.orig_rax as libc::c_long);
            *inside = Some(fate.fails(call));
            if fate.fails(call).is_some() {
                regs.orig_rax = u64::MAX;
                ptrace(libc::PTRACE_SETREGS, pid, &raw mut regs as usize);
            }
            if fate.dies(call) {
                // SAFETY: The process is stopped and traced by this thread.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }
}
