//! The client's side of the agent: a program that calls [`hook`] can get one. Owns the copy of the
//! agent's code in the program and its signal handler; nothing runs until the host asks.

use super::layout;

/// Environment variable that says that the host may ask for an agent.
pub(crate) const VARIABLE: &str = "FENCEPOST_AGENT";

/// Prepares this process for shared virtual memory, if it was started on a device that offers that:
/// puts the agent's code in its place and takes over `SIGSEGV` and `SIGBUS`, which go on to the
/// program's own handlers. Costs some microseconds; does nothing elsewhere. To be called at the
/// start of a program, before it starts threads.
pub fn hook() {
    if std::env::var_os(VARIABLE).is_some() {
        #[cfg(target_arch = "x86_64")]
        install();
    }
}

#[cfg(target_arch = "x86_64")]
fn install() {
    use super::blob;
    use super::layout::{CODE, CODE_SIZE, DATA, DATA_SIZE, data};

    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let (all, code) = ((CODE_SIZE + DATA_SIZE) as usize, blob::code());
    let place = std::ptr::with_exposed_provenance_mut::<u8>(CODE as usize);
    // SAFETY: a fresh mapping where nothing was, which is filled before it is made executable; the
    // data lies in it, as the layout says. Whoever has mapped there already keeps it: no agent.
    unsafe {
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        if libc::mmap(place.cast(), all, read_write, flags, -1, 0) != place.cast() {
            return;
        }
        std::ptr::copy_nonoverlapping(code.as_ptr(), place, code.len());
        let data = place.add((DATA - CODE) as usize);
        for (offset, bytes) in layout::initial_data() {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data.add(offset as usize), 8);
        }
        let executable = libc::PROT_READ | libc::PROT_EXEC;
        libc::mprotect(place.cast(), CODE_SIZE as usize, executable);
    }
    for (index, signal) in [libc::SIGSEGV, libc::SIGBUS].into_iter().enumerate() {
        // SAFETY: the handler is code that keeps to the rules of signal handlers, in place by now; the
        // records live; the data is the mapping from above.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut before: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = (CODE + layout::HANDLER) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            libc::sigfillset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, &raw mut before);
            let slot = data::HANDLERS + index as u64 * layout::SIGACTION;
            let slot = place.add((DATA - CODE + slot) as usize).cast::<u64>();
            slot.write(before.sa_sigaction as u64);
            slot.add(1).write(u64::from(before.sa_flags.cast_unsigned()));
        }
    }
}
