//! The descriptors that clients get, and what a client's descriptor number stands for. Owns the
//! table of open file descriptions; what is behind them is the driver's.
//!
//! A node, a dma-buf and a syncobj is an open file description of the device's memfd, made by opening
//! it anew through `/proc`. Two marks make it known:
//! - its file position is its number shifted by [`SHIFT`]: `/proc/TID/fdinfo/FD` shows it, and reading
//!   that file again through the same descriptor asks the kernel again;
//! - it owns a lock on the byte of that number, which the kernel drops when the last duplicate and
//!   the last mapping are gone, whoever had them.
//!
//! A sync file is the read end of a pipe, because it must poll: its number is the inode's, it signals by
//! a byte, and the write end sees when the last reader is gone.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::io::{self, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLockReadGuard};

use fencepost_core::host::{FdKind, FdRef};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};

use super::spawn;
use super::sys::fd;
use super::threads::{Info, Threads};

/// Bits of a file position below the number of the description: reads and writes by clients move the
/// position, but not that far.
const SHIFT: u32 = 40;
/// Descriptions that a device can make in its life.
const MAX: u64 = 1 << (63 - SHIFT);

/// What a description is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The device's node, opened.
    Node,
    /// A node of the dmirror personality, opened.
    Dmirror,
    /// An exported object, with the driver's number of it.
    Object(FdKind, u64),
}

/// What a client's descriptor turned out to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// Names the description.
    pub(crate) number: u64,
    pub(crate) what: What,
    /// Tells the calling thread from a later one with the same id.
    pub(crate) serial: u32,
}

/// A sync file.
struct SyncFile {
    /// The driver's number.
    id: u64,
    signal: PipeWriter,
}

/// All descriptions of one device.
pub(crate) struct Files {
    /// `/proc/self/fd/N` of the memfd.
    path: CString,
    /// The lines of fdinfo that every description of the memfd has: mount and inode.
    place: (u64, u64),
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, What>>,
    /// Sync files by inode number of their pipe.
    sync_files: Mutex<SyncFiles>,
    /// Number of sync files, to be read without the lock.
    pipes: AtomicUsize,
}

#[derive(Default)]
struct SyncFiles {
    by_inode: HashMap<u64, SyncFile>,
    /// Mount of all pipes, from the first one.
    mount: u64,
    /// Status of signalled fences by the driver's number, which may come before the descriptor.
    status: HashMap<u64, i32>,
}

/// A description of which the host holds a copy until the client has one.
pub(crate) struct Made {
    /// Names it; for a sync file the inode.
    pub(crate) number: u64,
    pub(crate) what: What,
    /// The host's copy.
    pub(crate) fd: OwnedFd,
    /// Dropped after the copy.
    _no_fork: RwLockReadGuard<'static, ()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// The descriptions of a device with this memory.
    pub(crate) fn new(memfd: BorrowedFd<'_>) -> Result<Files, Errno> {
        let number = memfd.as_raw_fd();
        let path = CString::new(format!("/proc/self/fd/{number}")).map_err(|_| Errno::EINVAL)?;
        let text =
            std::fs::read(format!("/proc/self/fdinfo/{number}")).map_err(|_| Errno::ENOSYS)?;
        let info = Info::parse(&text);
        Ok(Files {
            path,
            place: (info.mount, info.inode),
            next: AtomicU64::new(1),
            open: Mutex::default(),
            sync_files: Mutex::default(),
            pipes: AtomicUsize::new(0),
        })
    }

    /// Path by which this process reaches the memfd.
    pub(crate) fn path(&self) -> &std::ffi::CStr {
        &self.path
    }

    /// Makes a description; `flags` are those of `open(2)`.
    pub(crate) fn create(&self, what: What, flags: OFlag) -> Result<Made, Errno> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= MAX {
            return Err(Errno::ENFILE);
        }
        let no_fork = spawn::no_fork();
        let keep = OFlag::O_ACCMODE | OFlag::O_NONBLOCK | OFlag::O_APPEND;
        let fd = open(self.path(), flags & keep | OFlag::O_CLOEXEC, Mode::empty())?;
        lseek(&fd, (number << SHIFT).cast_signed(), Whence::SeekSet)?;
        let writable = flags & OFlag::O_ACCMODE != OFlag::O_RDONLY;
        fd::mark(fd.as_fd(), number, writable)?;
        lock(&self.open).insert(number, what);
        Ok(Made { number, what, fd, _no_fork: no_fork })
    }

    /// Makes a sync file; its signal may have come already.
    pub(crate) fn create_sync_file(&self, id: u64) -> Result<Made, Errno> {
        let no_fork = spawn::no_fork();
        let (read, signal) = io::pipe()
            .map_err(|error| error.raw_os_error().map_or(Errno::ENFILE, Errno::from_raw))?;
        let read = OwnedFd::from(read);
        let text = std::fs::read(format!("/proc/self/fdinfo/{}", read.as_raw_fd()));
        let info = Info::parse(&text.map_err(|_| Errno::ENOSYS)?);
        let mut files = lock(&self.sync_files);
        let file = SyncFile { id, signal };
        if files.status.contains_key(&id) {
            file.signal();
        }
        files.mount = info.mount;
        files.by_inode.insert(info.inode, file);
        self.pipes.fetch_add(1, Ordering::Relaxed);
        let what = What::Object(FdKind::SyncFile, id);
        Ok(Made { number: info.inode, what, fd: read, _no_fork: no_fork })
    }

    /// Forgets a description that no client got.
    pub(crate) fn discard(&self, what: What, made: Made) {
        match what {
            What::Object(FdKind::SyncFile, _) => {
                let mut files = lock(&self.sync_files);
                if files.by_inode.remove(&made.number).is_some() {
                    self.pipes.fetch_sub(1, Ordering::Relaxed);
                    files.forget_status(&[what]);
                }
            }
            _ => drop(lock(&self.open).remove(&made.number)),
        }
    }

    /// The fence of a sync file has signalled; `status` is 1 or a negative error number.
    pub(crate) fn signal(&self, id: u64, status: i32) {
        let mut files = lock(&self.sync_files);
        if files.status.insert(id, status).is_none() {
            files.by_inode.values().filter(|file| file.id == id).for_each(SyncFile::signal);
        }
    }

    /// Status of a sync file's fence: 1 signalled, 0 active, negative an error.
    pub(crate) fn status(&self, id: u64) -> i32 {
        lock(&self.sync_files).status.get(&id).copied().unwrap_or(0)
    }

    /// What a client's descriptor is. `EBADF`: not open. `None`: none of this device's.
    pub(crate) fn identify(
        &self,
        threads: &Threads,
        tid: i32,
        fd: i32,
    ) -> Result<Option<Identity>, Errno> {
        let (info, serial) = threads.info(tid, fd)?;
        if (info.mount, info.inode) == self.place {
            let number = info.position >> SHIFT;
            let what = lock(&self.open).get(&number).copied();
            return Ok(what.map(|what| Identity { number, what, serial }));
        }
        if self.pipes.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        let files = lock(&self.sync_files);
        let file = files.by_inode.get(&info.inode).filter(|_| info.mount == files.mount);
        Ok(file.map(|file| {
            let what = What::Object(FdKind::SyncFile, file.id);
            Identity { number: info.inode, what, serial }
        }))
    }

    /// As [`Files::identify`], in the driver's words.
    pub(crate) fn look_up(&self, threads: &Threads, tid: i32, fd: i32) -> Result<FdRef, Errno> {
        Ok(match self.identify(threads, tid, fd)?.map(|identity| identity.what) {
            Some(What::Object(kind, id)) => FdRef::Ours(kind, id),
            _ => FdRef::Other,
        })
    }

    /// Takes out the descriptions that nobody holds any more. `memfd` is the host's own.
    pub(crate) fn take_closed(&self, memfd: BorrowedFd<'_>) -> Vec<(u64, What)> {
        let mut closed = Vec::new();
        lock(&self.open).retain(|number, what| {
            // An error would be the host's; then the description counts as open.
            let gone = matches!(fd::is_marked(memfd, *number), Ok(false));
            if gone {
                closed.push((*number, *what));
            }
            !gone
        });
        if self.pipes.load(Ordering::Relaxed) > 0 {
            let mut files = lock(&self.sync_files);
            files.by_inode.retain(|inode, file| {
                let gone = file.is_closed();
                if gone {
                    self.pipes.fetch_sub(1, Ordering::Relaxed);
                    closed.push((*inode, What::Object(FdKind::SyncFile, file.id)));
                }
                !gone
            });
            let gone: Vec<What> = closed.iter().map(|(_, what)| *what).collect();
            files.forget_status(&gone);
        }
        closed
    }

    /// Whether there are descriptions whose end no event announces.
    pub(crate) fn has_silent(&self) -> bool {
        self.pipes.load(Ordering::Relaxed) > 0
    }

    /// Number of descriptions.
    pub(crate) fn len(&self) -> usize {
        lock(&self.open).len() + self.pipes.load(Ordering::Relaxed)
    }
}

impl SyncFiles {
    /// Forgets what is known of fences whose last descriptor is gone.
    fn forget_status(&mut self, gone: &[What]) {
        for what in gone {
            let What::Object(FdKind::SyncFile, id) = what else { continue };
            if !self.by_inode.values().any(|file| file.id == *id) {
                self.status.remove(id);
            }
        }
    }
}

impl SyncFile {
    fn signal(&self) {
        // A byte fits: one is written per fence, and a pipe has room for 4096 at least. Without a
        // reader nobody cares.
        let _nobody = (&self.signal).write_all(&[1]);
    }

    /// Whether the last reader is gone.
    fn is_closed(&self) -> bool {
        let mut polled = [PollFd::new(self.signal.as_fd(), PollFlags::empty())];
        let count = poll(&mut polled, PollTimeout::ZERO);
        let events = polled[0].revents().unwrap_or(PollFlags::empty());
        count.is_ok() && events.contains(PollFlags::POLLERR)
    }
}
