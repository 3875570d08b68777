//! What `/proc` tells about clients' threads: descriptors and signals. Owns the descriptors kept open
//! there, which also pin a thread's identity: a thread id that was reused is another file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;

/// Threads, and descriptors of one thread, that are kept at most: the host's own number of
/// descriptors is limited.
const MAX_THREADS: usize = 32;
const MAX_FDS: usize = 4;

/// Threads of the clients of one device.
#[derive(Default)]
pub(crate) struct Threads {
    known: Mutex<BTreeMap<i32, Arc<Thread>>>,
    serial: AtomicU32,
}

struct Thread {
    /// `/proc/TID`.
    folder: OwnedFd,
    /// Tells it from another thread that had or gets the same id.
    serial: u32,
    fdinfo: Mutex<BTreeMap<i32, Arc<OwnedFd>>>,
    process: OnceLock<Option<i32>>,
}

/// What fdinfo says of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) position: u64,
    pub(crate) mount: u64,
    pub(crate) inode: u64,
}

impl Info {
    /// Reads the lines `pos:`, `mnt_id:` and `ino:` (`fs/proc/fd.c`).
    pub(crate) fn parse(text: &[u8]) -> Info {
        let mut info = Info::default();
        for line in text.split(|byte| *byte == b'\n').take(4) {
            for (key, value) in [
                (&b"pos:\t"[..], &mut info.position),
                (b"mnt_id:\t", &mut info.mount),
                (b"ino:\t", &mut info.inode),
            ] {
                if let Some(digits) = line.strip_prefix(key) {
                    *value = digits.iter().fold(0, |n: u64, digit| {
                        n.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))
                    });
                }
            }
        }
        info
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Threads {
    /// What a descriptor of a thread is, and the thread's serial number. `EBADF`: not open.
    pub(crate) fn info(&self, tid: i32, fd: i32) -> Result<(Info, u32), Errno> {
        if fd < 0 {
            return Err(Errno::EBADF);
        }
        let ask = || {
            let thread = self.thread(tid)?;
            thread.info(fd).map(|info| (info, thread.serial)).map_err(|errno| (errno, Some(thread)))
        };
        ask().or_else(|(errno, thread)| {
            match (errno, thread) {
                // This process has too many open: give up those that are only kept.
                (Errno::EMFILE | Errno::ENFILE, _) => lock(&self.known).clear(),
                // A kept descriptor fails when the number is not open now, and when its thread is gone
                // and another has the id.
                (_, Some(thread)) if thread.is_alive() => return Err(Errno::EBADF),
                _ => drop(lock(&self.known).remove(&tid)),
            }
            ask().map_err(|_| Errno::EBADF)
        })
    }

    fn thread(&self, tid: i32) -> Result<Arc<Thread>, (Errno, Option<Arc<Thread>>)> {
        let mut known = lock(&self.known);
        if let Some(thread) = known.get(&tid) {
            return Ok(Arc::clone(thread));
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(format!("/proc/{tid}").as_str(), flags, Mode::empty());
        let folder = folder.map_err(|errno| (errno, None))?;
        if known.len() >= MAX_THREADS {
            known.clear();
        }
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let thread =
            Arc::new(Thread { folder, serial, fdinfo: Mutex::default(), process: OnceLock::new() });
        known.insert(tid, Arc::clone(&thread));
        Ok(thread)
    }

    /// Whether the thread that got this number lives. One that was forgotten for want of room counts
    /// as alive.
    pub(crate) fn is_alive(&self, tid: i32, serial: u32) -> bool {
        let thread = lock(&self.known).get(&tid).cloned();
        thread.is_none_or(|thread| thread.serial != serial || thread.is_alive())
    }

    /// The process of a thread that makes a call.
    pub(crate) fn process(&self, tid: i32) -> Option<i32> {
        let known = self.thread(tid).ok()?;
        if known.is_alive() {
            return *known.process.get_or_init(|| known.process());
        }
        // Another thread has its number now.
        lock(&self.known).remove(&tid);
        self.thread(tid).ok()?.process()
    }

    /// Processes known here that still exist.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        lock(&self.known).values().filter_map(|thread| thread.process()).collect()
    }

    /// Whether a signal is pending that will interrupt the thread.
    pub(crate) fn signal_pending(&self, tid: i32) -> Pending {
        let Ok(thread) = self.thread(tid) else { return Pending::No };
        let mut text = [0; 4096];
        let len = thread.status(&mut text).unwrap_or(0);
        pending(&text[..len])
    }
}

/// Signals of a waiting thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// None that it would take.
    No,
    /// One of the process, which another thread may take.
    Shared,
    /// One that only this thread can take.
    Own,
}

/// Reads `Threads`, `SigPnd`, `ShdPnd` and `SigBlk` of `/proc/TID/status`.
fn pending(status: &[u8]) -> Pending {
    let (mut threads, mut own, mut shared, mut blocked) = (1, 0, 0, 0);
    for line in String::from_utf8_lossy(status).lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let hex = || u64::from_str_radix(value.trim(), 16).unwrap_or(0);
        match key {
            "Threads" => threads = value.trim().parse().unwrap_or(1),
            "SigPnd" => own = hex(),
            "ShdPnd" => shared = hex(),
            "SigBlk" => blocked = hex(),
            _ => {}
        }
    }
    if own & !blocked != 0 || (threads == 1 && shared & !blocked != 0) {
        Pending::Own
    } else if shared & !blocked != 0 {
        Pending::Shared
    } else {
        Pending::No
    }
}

impl Thread {
    fn info(&self, fd: i32) -> Result<Info, Errno> {
        let file = self.fdinfo(fd)?;
        let mut text = [0; 160];
        let len = pread(&*file, &mut text, 0)?;
        Ok(Info::parse(&text[..len]))
    }

    fn fdinfo(&self, fd: i32) -> Result<Arc<OwnedFd>, Errno> {
        let mut kept = lock(&self.fdinfo);
        if let Some(file) = kept.get(&fd) {
            return Ok(Arc::clone(file));
        }
        let mut path = String::with_capacity(24);
        write!(path, "fdinfo/{fd}").map_err(|_| Errno::EINVAL)?;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = Arc::new(openat(self.folder.as_fd(), path.as_str(), flags, Mode::empty())?);
        if kept.len() >= MAX_FDS {
            kept.clear();
        }
        kept.insert(fd, Arc::clone(&file));
        Ok(file)
    }

    /// Reads the file of that name.
    fn status(&self, text: &mut [u8]) -> Result<usize, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(self.folder.as_fd(), c"status", flags, Mode::empty())?;
        pread(file, text, 0)
    }

    /// The process that it belongs to, unless that has ended.
    fn process(&self) -> Option<i32> {
        let mut text = [0; 4096];
        let len = self.status(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text[..len]);
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let ended = value("State:").is_none_or(|state| state.starts_with(['Z', 'X']));
        if ended { None } else { value("Tgid:")?.parse().ok() }
    }

    /// Whether the thread still exists.
    fn is_alive(&self) -> bool {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        openat(self.folder.as_fd(), c"stat", flags, Mode::empty()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn fdinfo_is_parsed() {
        let text =
            b"pos:\t3298534883328\nflags:\t02100002\nmnt_id:\t15\nino:\t1042\nlock:\t1: OFDLCK\n";
        let want = Info { position: 3 << 40, mount: 15, inode: 1042 };
        assert_eq!(Info::parse(text), want);
    }

    #[test]
    fn a_kept_descriptor_is_asked_again_each_time() {
        let tid = nix::unistd::gettid().as_raw();
        let threads = Threads::default();
        let (reader, writer) = std::io::pipe().unwrap();
        let fd = reader.as_raw_fd();
        let inode = threads.info(tid, fd).unwrap().0.inode;
        assert_eq!(threads.info(tid, fd).unwrap().0.inode, inode);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let mut slot = OwnedFd::from(reader);
        nix::unistd::dup2(&file, &mut slot).unwrap();
        assert_ne!(threads.info(tid, fd).unwrap().0.inode, inode);
        drop((slot, writer));
        assert_eq!(threads.info(tid, -1), Err(Errno::EBADF));
    }

    #[test]
    fn pending_signals_count_unless_blocked() {
        let status = |threads: u32, own: u64, shared: u64, blocked: u64| {
            let text = format!(
                "Name:\tx\nThreads:\t{threads}\nSigQ:\t0/1\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n\
                 SigBlk:\t{blocked:016x}\n"
            );
            pending(text.as_bytes())
        };
        for (threads, own, shared, blocked, want) in [
            (1, 0, 0, 0, Pending::No),
            (2, 4, 0, 0, Pending::Own),
            (2, 4, 0, 4, Pending::No),
            (1, 0, 4, 0, Pending::Own),
            (2, 0, 4, 0, Pending::Shared),
            (2, 0, 4, 4, Pending::No),
        ] {
            assert_eq!(status(threads, own, shared, blocked), want, "{threads} {own} {shared}");
        }
    }
}
