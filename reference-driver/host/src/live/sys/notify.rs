//! The seccomp user-notification channel: installing the filter, receiving calls, answering them,
//! putting descriptors into the caller. Owns the listener; knows nothing of devices.
//!
//! Sources: `Documentation/userspace-api/seccomp_filter.rst`, `kernel/seccomp.c`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One trapped system call.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// Names the call until it is answered.
    pub(crate) id: u64,
    /// The calling thread.
    pub(crate) tid: i32,
    /// System-call number.
    pub(crate) nr: i64,
    /// Its arguments.
    pub(crate) args: [u64; 6],
}

/// What a trapped call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The call returns this.
    Value(i64),
    /// The call fails with this error number; 512 (`ERESTARTSYS`) restarts it after a signal.
    Error(i32),
    /// The kernel runs the call as if nobody had asked.
    Continue,
}

/// The host's end of a filter.
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Takes over a listener descriptor; calls then run on the caller's CPU where the kernel can do
    /// that (Linux 6.6), which spares the cost of waking another one.
    pub(crate) fn new(fd: OwnedFd) -> Listener {
        const SYNC_WAKE_UP: u64 = 1;
        // SAFETY: the argument of this ioctl is a plain number. Kernels without it refuse, which only
        // costs time.
        unsafe {
            libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP);
        }
        Listener(fd)
    }

    /// Waits for a call. `ENOENT`: the caller was killed meanwhile, or (Linux 6.11) nobody is left
    /// under the filter; `EINTR`: a signal of the host.
    pub(crate) fn receive(&self) -> Result<Call, i32> {
        // SAFETY: all-zero bytes are a valid value of this plain record, and what the kernel wants.
        let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one record of the size that the request number states.
        if unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw) } < 0 {
            return Err(errno());
        }
        let nr = i64::from(raw.data.nr);
        Ok(Call { id: raw.id, tid: raw.pid.cast_signed(), nr, args: raw.data.args })
    }

    /// Answers a call. `ENOENT`: the caller is gone.
    pub(crate) fn answer(&self, id: u64, answer: Answer) -> Result<(), i32> {
        let (val, error, flags) = match answer {
            Answer::Value(val) => (val, 0, 0),
            Answer::Error(errno) => (0, -errno, 0),
            Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        };
        let mut raw = libc::seccomp_notif_resp { id, val, error, flags };
        // SAFETY: the record has the size that the request number states.
        done(unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut raw) })
            .map(drop)
    }

    /// Puts a copy of `fd` into the caller, which goes on waiting; gives its number there.
    pub(crate) fn install(&self, id: u64, fd: BorrowedFd<'_>, cloexec: bool) -> Result<i32, i32> {
        let raw = libc::seccomp_notif_addfd {
            id,
            flags: 0,
            srcfd: fd.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if cloexec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        // SAFETY: the kernel reads one record of the size that the request number states.
        done(unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const raw) })
    }

    /// Whether the caller still waits for its answer.
    pub(crate) fn is_waiting(&self, id: u64) -> bool {
        // SAFETY: the kernel reads one u64.
        unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
    }

    fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Installs `program` on the calling thread, giving up the right to gain privileges; gives the
/// listener. Makes system calls only, so it may run between fork and exec.
///
/// The listener is closed by exec; one exists per thread at most (`EBUSY`). Where the kernel has it
/// (5.19), a call that was received can be interrupted by deadly signals only: otherwise the caller
/// would leave and repeat it while the host works.
pub(crate) fn confine(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let fd = install(program, flags)?;
    // SAFETY: the call has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Installs a program without notifications on the calling thread.
pub(crate) fn confine_plainly(program: &[libc::sock_filter]) -> io::Result<()> {
    install(program, 0).map(drop)
}

/// Gives the descriptor that the flags ask for, or 0.
fn install(program: &[libc::sock_filter], flags: libc::c_ulong) -> io::Result<i32> {
    let len =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let raw = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: plain numbers.
    done_io(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: `raw` describes `program`, which the kernel only reads, within the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const raw)
    };
    done_io(i32::try_from(fd).unwrap_or(-1))
}

fn done(result: i32) -> Result<i32, i32> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

fn done_io(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The calling thread's `errno`.
pub(crate) fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}
