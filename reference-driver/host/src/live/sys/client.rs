//! Memory of a client: copies between the host and an address of another thread's memory. Owns the
//! choice between the two ways that Linux has; never maps or dereferences a client's address.
//!
//! `process_vm_readv` and `process_vm_writev` come first. Where they are refused (container
//! profiles of Podman and Kubernetes), `/proc/TID/mem` serves; because that one ignores page
//! protection (`FOLL_FORCE`), the permissions in `/proc/TID/maps` are checked beforehand.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

/// How client memory is reached on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `process_vm_readv` and `process_vm_writev`.
    ProcessVm,
    /// `/proc/TID/mem`.
    ProcMem,
}

/// The way that works here, found out once by reading the own memory.
pub(crate) fn way() -> Way {
    static WAY: OnceLock<Way> = OnceLock::new();
    *WAY.get_or_init(|| {
        let word = 0x5aa5_u16;
        let mut seen = [0; 2];
        let remote = [RemoteIoVec { base: (&raw const word).addr(), len: 2 }];
        match process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut seen)], &remote) {
            Ok(2) => Way::ProcessVm,
            _ => Way::ProcMem,
        }
    })
}

/// Fills `buf` from `addr`. `EFAULT`: not all of it is readable; `ESRCH`: the thread is gone.
pub(crate) fn read(way: Way, tid: i32, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
    let base = check(addr, buf.len())?;
    if buf.is_empty() {
        return Ok(());
    }
    let len = buf.len();
    match way {
        Way::ProcessVm => {
            let remote = [RemoteIoVec { base, len }];
            let pid = Pid::from_raw(tid);
            whole(process_vm_readv(pid, &mut [IoSliceMut::new(buf)], &remote), len)
        }
        Way::ProcMem => {
            permitted(tid, addr, len, b'r')?;
            let file = File::open(format!("/proc/{tid}/mem")).map_err(error)?;
            whole(file.read_at(buf, addr).map_err(error), len)
        }
    }
}

/// Writes `buf` to `addr`. `EFAULT`: not all of it is writable; `ESRCH`: the thread is gone.
pub(crate) fn write(way: Way, tid: i32, addr: u64, buf: &[u8]) -> Result<(), Errno> {
    let base = check(addr, buf.len())?;
    if buf.is_empty() {
        return Ok(());
    }
    let len = buf.len();
    match way {
        Way::ProcessVm => {
            let remote = [RemoteIoVec { base, len }];
            whole(process_vm_writev(Pid::from_raw(tid), &[IoSlice::new(buf)], &remote), len)
        }
        Way::ProcMem => {
            permitted(tid, addr, len, b'w')?;
            let path = format!("/proc/{tid}/mem");
            let file = File::options().write(true).open(path).map_err(error)?;
            whole(file.write_at(buf, addr).map_err(error), len)
        }
    }
}

/// A short string at `addr`, without its NUL; `None` if it is longer than `room` bytes or unreadable.
pub(crate) fn read_str(way: Way, tid: i32, addr: u64, room: &mut [u8]) -> Option<usize> {
    // The string may end right before an unmapped page: read up to the page's edge first.
    const PAGE: u64 = 4096;
    let first = usize::try_from(PAGE - addr % PAGE).ok()?.min(room.len());
    read(way, tid, addr, &mut room[..first]).ok()?;
    let find = |bytes: &[u8]| bytes.iter().position(|byte| *byte == 0);
    if let Some(end) = find(&room[..first]) {
        return Some(end);
    }
    if first == room.len() {
        return None;
    }
    read(way, tid, addr.checked_add(first as u64)?, &mut room[first..]).ok()?;
    find(room)
}

/// Refuses addresses outside user space, as `access_ok` does.
fn check(addr: u64, len: usize) -> Result<usize, Errno> {
    let end = addr.checked_add(len as u64).ok_or(Errno::EFAULT)?;
    if end > i64::MAX as u64 {
        return Err(Errno::EFAULT);
    }
    usize::try_from(addr).map_err(|_| Errno::EFAULT)
}

fn whole(done: Result<usize, Errno>, len: usize) -> Result<(), Errno> {
    match done {
        Ok(n) if n == len => Ok(()),
        Ok(_) | Err(Errno::EIO) => Err(Errno::EFAULT),
        Err(errno) => Err(errno),
    }
}

fn error(error: std::io::Error) -> Errno {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Errno::ESRCH,
        Some(errno) => Errno::from_raw(errno),
        None => Errno::EIO,
    }
}

/// Checks that every byte of the range is mapped with `access` (`r` or `w`).
fn permitted(tid: i32, addr: u64, len: usize, access: u8) -> Result<(), Errno> {
    let maps = File::open(format!("/proc/{tid}/maps")).map_err(error)?;
    let end = addr + len as u64;
    let mut next = addr;
    for line in BufReader::with_capacity(16 << 10, maps).lines() {
        let line = line.map_err(error)?;
        let Some((from, to, flags)) = mapping(&line) else { return Err(Errno::EIO) };
        if to <= next {
            continue;
        }
        if from > next || !flags.as_bytes().contains(&access) {
            return Err(Errno::EFAULT);
        }
        next = to;
        if next >= end {
            return Ok(());
        }
    }
    Err(Errno::EFAULT)
}

/// Start, end and permissions of one line of `/proc/PID/maps`.
pub(crate) fn mapping(line: &str) -> Option<(u64, u64, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let flags = words.next()?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?, flags))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
    use std::num::NonZero;

    const PAGE: usize = 4096;

    /// Three pages of this process: writable, read-only, inaccessible.
    fn pages() -> u64 {
        let len = NonZero::new(3 * PAGE).unwrap();
        let (rw, private) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: a fresh mapping that nothing else refers to.
        unsafe {
            let start = mmap_anonymous(None, len, rw, private).unwrap();
            mprotect(start.byte_add(PAGE), PAGE, ProtFlags::PROT_READ).unwrap();
            mprotect(start.byte_add(2 * PAGE), PAGE, ProtFlags::PROT_NONE).unwrap();
            start.addr().get() as u64
        }
    }

    #[test]
    fn both_ways_respect_the_clients_protection() {
        let (tid, page) = (Pid::this().as_raw(), PAGE as u64);
        let start = pages();
        let fault = Err(Errno::EFAULT);
        for way in [Way::ProcessVm, Way::ProcMem] {
            if way == Way::ProcessVm && super::way() != way {
                continue;
            }
            assert_eq!(write(way, tid, start + page - 8, &[7; 8]), Ok(()), "{way:?}");
            assert_eq!(write(way, tid, start + page - 4, &[9; 8]), fault, "{way:?} into read-only");
            assert_eq!(write(way, tid, start + page, &[9; 8]), fault, "{way:?} read-only");
            let mut seen = [1; 8];
            assert_eq!(read(way, tid, start + page - 4, &mut seen), Ok(()), "{way:?} across");
            assert_eq!(seen[4..], [0; 4], "{way:?}");
            assert_eq!(read(way, tid, start + 2 * page - 4, &mut seen), fault, "{way:?} to none");
            assert_eq!(read(way, tid, 0, &mut seen), fault, "{way:?} null");
            assert_eq!(read(way, tid, u64::MAX - 3, &mut seen), fault, "{way:?} wraps");
            assert_eq!(read(way, tid, 8, &mut []), Ok(()), "{way:?} nothing");
        }
    }

    #[test]
    fn a_string_may_end_at_an_unreadable_page() {
        let (tid, start) = (Pid::this().as_raw(), pages());
        let at = start + 2 * PAGE as u64 - 1;
        let mut room = [0xff; 16];
        assert_eq!(read_str(way(), tid, at, &mut room), Some(0));
        write(way(), tid, start, &[b'x'; 40]).unwrap();
        assert_eq!(read_str(way(), tid, start, &mut room), None, "too long");
        assert_eq!(read_str(way(), tid, start + 30, &mut room), Some(10));
    }
}
