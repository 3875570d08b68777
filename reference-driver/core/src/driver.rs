//! The driver as its host sees it: opening, calls, mappings, workers.
//!
//! Owns the entry points and nothing else; what they do stands in the modules they call.

use fencepost_uapi::fencepost::COUNTERS;
use fencepost_uapi::Errno;

use crate::facade::Arc;
use crate::host::{BoMem, FdKind, Host};

/// How a device is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Device memory in bytes, a multiple of 4 KiB; 0: the device has none.
    pub vram_bytes: u64,
    /// System memory that buffer objects may take in all, in bytes.
    pub system_bytes: u64,
    /// Execution engines, 1 to 16.
    pub engines: u32,
    /// Opens may turn into testing ones (the debug group).
    pub testing: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config { vram_bytes: 64 << 20, system_bytes: 1 << 30, engines: 2, testing: true }
    }
}

/// What works in the background. The host calls [`Driver::step`] for each of them, from one thread
/// a worker or from one for all, whenever [`Host::wake`] was called and until it is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worker {
    /// Writes page tables for bind queues.
    Bind,
    /// Runs jobs; below [`Config::engines`].
    Engine(u32),
}

/// What a step of a worker came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do until the next [`Host::wake`].
    Idle,
    /// Something was done; there may be more.
    Worked,
    /// Only jobs that wait for memory to change (a semaphore), or work held at a delay point: step
    /// again after a short while, at the latest at this time, or upon a wake.
    Stalled {
        /// Nanoseconds of [`Host::now_ns`]; a job time-out or the end of a delay.
        until_ns: u64,
    },
}

/// A CPU mapping of a buffer object. The object's memory exists at least as long as this does.
pub struct Mapping<H: Host> {
    /// The object's memory.
    pub mem: BoMem,
    /// Size of the object in bytes.
    pub size: u64,
    _world: core::marker::PhantomData<fn() -> H>,
}

/// An open file of the device. Shared by everything that holds the same open file description.
pub struct File<H: Host> {
    _world: core::marker::PhantomData<fn() -> H>,
}

impl<H: Host> Clone for File<H> {
    fn clone(&self) -> Self {
        File { _world: core::marker::PhantomData }
    }
}

/// The driver of one device.
pub struct Driver<H: Host> {
    host: Arc<H>,
}

impl<H: Host> Driver<H> {
    /// Starts a device.
    ///
    /// # Errors
    /// `ENOMEM`; `EINVAL` for a size or number of engines out of range.
    pub fn new(host: H, _config: Config) -> Result<Self, Errno> {
        Ok(Driver { host: Arc::new(host)? })
    }

    /// Its world.
    #[must_use]
    pub fn host(&self) -> &H {
        &self.host
    }

    /// `open(2)` of the device's node.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn open(&self) -> Result<File<H>, Errno> {
        Ok(File { _world: core::marker::PhantomData })
    }

    /// The last reference to an open file description is gone: cancels its jobs, destroys its
    /// queues and VMs, drops its handles. Does not wait.
    pub fn close(&self, _file: &File<H>) {}

    /// `ioctl(2)`. Returns the call's non-negative value.
    ///
    /// # Errors
    /// As documented with each record; `EINVAL` for an unknown number, `ENOTTY` for one of another
    /// type, `RESTARTSYS` when a signal came.
    pub fn ioctl(
        &self,
        _file: &File<H>,
        _task: H::Task,
        _request: u32,
        _arg: u64,
    ) -> Result<i64, Errno> {
        Err(Errno::NOSYS)
    }

    /// `mmap(2)` of the device file at an offset: the object there. The whole range lies in it.
    ///
    /// # Errors
    /// `EINVAL`: no object there, or a range beyond it; `EACCES`: an object that this file has no
    /// handle of.
    pub fn mmap(&self, _file: &File<H>, _offset: u64, _len: u64) -> Result<Mapping<H>, Errno> {
        Err(Errno::INVAL)
    }

    /// The last copy of a descriptor made by [`Host::install_fd`] is closed.
    pub fn release_fd(&self, _kind: FdKind, _id: u64) {}

    /// Does one bounded piece of a worker's work. Never waits.
    pub fn step(&self, _worker: Worker) -> Step {
        Step::Idle
    }

    /// Whether a step of the worker might do something now (cheap; for choosing whom to step).
    #[must_use]
    pub fn runnable(&self, _worker: Worker) -> bool {
        false
    }

    /// The counters, in the order of [`COUNTERS`]; `leaks` included.
    #[must_use]
    pub fn counters(&self) -> [u64; COUNTERS.len()] {
        [0; COUNTERS.len()]
    }
}
