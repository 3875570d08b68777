//! Preparing a program that knows nothing of us: the agent's code is put into it by `ptrace(2)` when it
//! first asks for a mirror. Owns the few moments in which the calling thread is traced; from then on
//! the program is as one that called [`super::hook`].
//!
//! The thread is stopped as it leaves its call, which is to be made again. At the place of that call it
//! is made to call `mmap` and `rt_sigaction`, and then to go on as if nothing had been.

use std::sync::mpsc;

use nix::errno::Errno;

use super::super::sys::client::{self, Way};
use super::blob;
use super::layout::{CODE, CODE_SIZE, DATA, DATA_SIZE, HANDLER, SIGACTION, data, initial_data};

/// Bytes of the `syscall` instruction.
const INSTRUCTION: u64 = 2;
/// Offset of the code that returns from a signal.
const RESTORER: u64 = 0x30;
const SA_RESTORER: u64 = 0x0400_0000;

/// Whether threads may be traced here: a filter may forbid it.
pub(crate) fn is_allowed() -> bool {
    ptrace(libc::PTRACE_SEIZE, 0, 0, 0) == Err(Errno::ESRCH)
}

/// Stops a thread once its call, which the caller serves, is answered, and prepares its process.
pub(crate) fn begin(tid: i32, way: Way) -> Result<(), Errno> {
    let (tell, hear) = mpsc::sync_channel(1);
    // Who traces a thread is a thread as well.
    let body = move || {
        let seized = ptrace(libc::PTRACE_SEIZE, tid, 0, 0)
            .and_then(|_| ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0));
        let stopped = seized.is_ok();
        let _gone = tell.send(seized.map(drop));
        if stopped {
            // Whatever fails, the thread goes on; that it is not prepared shows by the missing code.
            let _failed = prepare(tid, way);
            let _gone = ptrace(libc::PTRACE_DETACH, tid, 0, 0);
        }
    };
    let thread = std::thread::Builder::new().name("tracer".into());
    thread.spawn(body).map_err(|_| Errno::EAGAIN)?;
    hear.recv().map_err(|_| Errno::EIO)?
}

fn prepare(tid: i32, way: Way) -> Result<(), Errno> {
    wait_for_stop(tid)?;
    let before = registers(tid)?;
    let result = place_code(tid, way, &before);
    let mut after = before;
    if before.rax.cast_signed() == -512 {
        // The call is made again, as the kernel would have it.
        after.rip -= INSTRUCTION;
        after.rax = before.orig_rax;
    }
    after.orig_rax = u64::MAX;
    set_registers(tid, &after)?;
    result
}

fn place_code(tid: i32, way: Way, at: &libc::user_regs_struct) -> Result<(), Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let len = CODE_SIZE + DATA_SIZE;
    let arguments = [CODE, len, all as u64, flags as u64, u64::MAX, 0];
    call(tid, at, libc::SYS_mmap, arguments)?;
    for (offset, bytes) in initial_data() {
        client::write(way, tid, DATA + offset, &bytes)?;
    }
    // An action in the kernel's layout, in room that the stack leaves.
    let action = DATA + data::HANDLERS + 2 * SIGACTION;
    let siginfo = (libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART) as u64;
    let words = [CODE + HANDLER, siginfo | SA_RESTORER, CODE + RESTORER, u64::MAX];
    for (index, word) in (0..).zip(words) {
        client::write(way, tid, action + 8 * index, &word.to_ne_bytes())?;
    }
    // Last, for its first word says that all is there.
    client::write(way, tid, CODE, blob::code())?;
    for (index, signal) in (0..).zip([libc::SIGSEGV, libc::SIGBUS]) {
        let old = DATA + data::HANDLERS + index * SIGACTION;
        call(tid, at, libc::SYS_rt_sigaction, [signal as u64, action, old, 8, 0, 0])?;
    }
    Ok(())
}

/// Has the stopped thread make a call.
fn call(
    tid: i32,
    at: &libc::user_regs_struct,
    number: i64,
    arguments: [u64; 6],
) -> Result<u64, Errno> {
    let [a, b, c, d, e, f] = arguments;
    let mut registers_now = *at;
    registers_now.rip = at.rip - INSTRUCTION;
    registers_now.rax = number.cast_unsigned();
    registers_now.orig_rax = u64::MAX;
    (registers_now.rdi, registers_now.rsi, registers_now.rdx) = (a, b, c);
    (registers_now.r10, registers_now.r8, registers_now.r9) = (d, e, f);
    set_registers(tid, &registers_now)?;
    // Its entry and its exit.
    for _ in 0..2 {
        ptrace(libc::PTRACE_SYSCALL, tid, 0, 0)?;
        wait_for_stop(tid)?;
    }
    let result = registers(tid)?.rax;
    if result > -4096i64 as u64 {
        return Err(Errno::from_raw(-(result as i32)));
    }
    Ok(result)
}

fn wait_for_stop(tid: i32) -> Result<(), Errno> {
    let mut status = 0;
    loop {
        // SAFETY: the status lives.
        let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        match Errno::result(waited) {
            Ok(_) if libc::WIFSTOPPED(status) => return Ok(()),
            Ok(_) => return Err(Errno::ESRCH),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn registers(tid: i32) -> Result<libc::user_regs_struct, Errno> {
    // SAFETY: all-zero bytes are a valid value of this plain record.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    ptrace(libc::PTRACE_GETREGS, tid, 0, (&raw mut registers).expose_provenance())?;
    Ok(std::hint::black_box(registers))
}

fn set_registers(tid: i32, registers: &libc::user_regs_struct) -> Result<(), Errno> {
    let at = std::ptr::from_ref(std::hint::black_box(registers)).expose_provenance();
    ptrace(libc::PTRACE_SETREGS, tid, 0, at).map(drop)
}

fn ptrace(request: u32, tid: i32, addr: usize, data: usize) -> Result<i64, Errno> {
    // SAFETY: the only requests with a pointer are the two for registers, whose record lives.
    Errno::result(unsafe { libc::syscall(libc::SYS_ptrace, u64::from(request), tid, addr, data) })
}
