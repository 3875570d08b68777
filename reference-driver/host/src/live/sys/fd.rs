//! Descriptor plumbing: passing one over a socket, locks owned by an open file description, pidfds.
//! Owns no descriptor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Room for one `SCM_RIGHTS` message, aligned as `struct cmsghdr` wants.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Sends `fd` over a socket. Makes system calls only, so it may run between fork and exec.
pub(crate) fn send(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut byte = [0u8; 1];
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let size = size_of::<i32>() as u32;
    // SAFETY: `msghdr` is plain data; the header lies inside `control`, which is big enough and
    // aligned for one message of one descriptor; everything outlives the call.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd.as_raw_fd());
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives a descriptor; `None` when the other end closed without sending one.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8; 1];
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: as in `send`; the kernel writes at most `msg_controllen` bytes of whole messages, and a
    // descriptor that it passes becomes ours.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        let got = loop {
            let flags = libc::MSG_CMSG_CLOEXEC;
            let got = libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags);
            if got >= 0 || Errno::last() != Errno::EINTR {
                break got;
            }
        };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Ok(None);
        }
        let fd = libc::CMSG_DATA(header).cast::<i32>().read_unaligned();
        Ok(Some(OwnedFd::from_raw_fd(fd)))
    }
}

/// Takes a lock on byte `id` through the open file description of `fd`: it lasts until the last
/// duplicate and the last mapping of that description are gone (fcntl(2), "Open file description locks").
pub(crate) fn mark(fd: BorrowedFd<'_>, id: u64, writable: bool) -> Result<(), Errno> {
    let kind = if writable { libc::F_WRLCK } else { libc::F_RDLCK };
    fcntl(fd, FcntlArg::F_OFD_SETLK(&lock(kind, id))).map(drop)
}

/// Whether another description than that of `fd` holds the lock on byte `id`.
pub(crate) fn is_marked(fd: BorrowedFd<'_>, id: u64) -> Result<bool, Errno> {
    let mut lock = lock(libc::F_WRLCK, id);
    fcntl(fd, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn lock(kind: i32, id: u64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: id.cast_signed(),
        l_len: 1,
        l_pid: 0,
    }
}

/// A descriptor of a process that was not waited for yet; readable once it has ended.
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; a descriptor that comes back is ours.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?))
    }
}

/// Waits until `fd` has an event of `events` or an error; `false` when `timeout` is over.
pub(crate) fn ready(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    timeout: PollTimeout,
) -> Result<bool, Errno> {
    let mut polled = [PollFd::new(fd, events)];
    loop {
        match poll(&mut polled, timeout) {
            Ok(n) => return Ok(n > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Bytes that can be read from `fd` now.
pub(crate) fn unread(fd: BorrowedFd<'_>) -> i32 {
    let mut bytes = 0;
    // SAFETY: the kernel writes one int.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) } < 0 {
        return 1;
    }
    bytes
}
