//! The driver as its host sees it: opening, calls, mappings, workers.
//!
//! Owns the entry points and nothing else; what they do stands in the modules they call.

use fencepost_uapi::fencepost::COUNTERS;
use fencepost_uapi::Errno;

use crate::call::Call;
use crate::counters::Counter;
use crate::device::Device;
use crate::facade::{Arc, Ordering};
use crate::file::OpenFile;
#[cfg(not(MODULE))]
use crate::gem::GemRef;
use crate::host::mirror::Invalidation;
use crate::host::Host;
#[cfg(not(MODULE))]
use crate::host::{BoMem, FdKind};
use crate::sched::bind::{self, BindJob};
use crate::sched::exec::{self, ExecJob};
use crate::svm::{devmem, fault, migrate, notifier};

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
    /// Writes page tables for bind queues, and signals.
    Bind,
    /// Frees what binds removed. Apart from [`Worker::Bind`], since it takes locks under which
    /// others wait for memory, for which somebody may wait for a bind's fence.
    CleanUp,
    /// Writes user fences of binds. Apart from the others, since a page of user memory may take as
    /// long to come as its owner likes.
    UserFence,
    /// Services faults of the GPU. Apart from the others, since it waits for pages.
    Fault,
    /// Runs jobs; below [`Config::engines`].
    Engine(u32),
}

impl Worker {
    /// Those that every device has, whatever engines there are.
    pub const COMMON: [Worker; 4] =
        [Worker::Bind, Worker::CleanUp, Worker::UserFence, Worker::Fault];
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

/// A CPU mapping of a buffer object: it keeps the object alive.
#[cfg(not(MODULE))]
pub struct Mapping<H: Host> {
    /// The object's memory.
    pub mem: BoMem,
    /// Size of the object in bytes.
    pub size: u64,
    _gem: GemRef<H>,
}

/// An open file of the device. Shared by everything that holds the same open file description.
pub struct File<H: Host>(Arc<OpenFile<H>>);

impl<H: Host> Clone for File<H> {
    fn clone(&self) -> Self {
        File(self.0.clone())
    }
}

impl<H: Host> File<H> {
    pub(crate) fn inner(&self) -> &OpenFile<H> {
        &self.0
    }
}

/// The driver of one device; clones are the same.
pub struct Driver<H: Host> {
    dev: Arc<Device<H>>,
}

impl<H: Host> Clone for Driver<H> {
    fn clone(&self) -> Self {
        Driver { dev: self.dev.clone() }
    }
}

impl<H: Host> Driver<H> {
    /// Starts a device.
    ///
    /// # Errors
    /// `ENOMEM`; `EINVAL` for a size or number of engines out of range.
    pub fn new(host: H, config: Config) -> Result<Self, Errno> {
        Ok(Driver { dev: Device::new(host, config)? })
    }

    /// Its world.
    #[must_use]
    pub fn host(&self) -> &H {
        &self.dev.host
    }

    pub(crate) fn device(&self) -> &Arc<Device<H>> {
        &self.dev
    }

    /// How it was made.
    #[must_use]
    pub fn config(&self) -> Config {
        self.dev.config
    }

    /// `open(2)` of the device's node.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn open(&self) -> Result<File<H>, Errno> {
        OpenFile::new(&self.dev).map(File)
    }

    /// The last reference to an open file description is gone: cancels its jobs, destroys its
    /// queues and VMs, drops its handles. Does not wait; workers may have to clean up after it.
    pub fn close(&self, file: &File<H>) {
        file.0.close();
    }

    /// `ioctl(2)`. Returns the call's non-negative value.
    ///
    /// # Errors
    /// As documented with each record; `EINVAL` for an unknown number, `ENOTTY` for one of another
    /// type, `RESTARTSYS` when a signal came.
    pub fn ioctl(
        &self,
        file: &File<H>,
        task: H::Task,
        request: u32,
        arg: u64,
    ) -> Result<i64, Errno> {
        let call = Call { dev: &self.dev, file: &file.0, task };
        crate::ioctl::ioctl(&call, request, arg)
    }

    /// `mmap(2)` of the device file: the object whose fake offset this is, from its start, as
    /// `drm_gem_mmap`.
    ///
    /// # Errors
    /// `EINVAL`: no object there, or a range beyond it; `EACCES`: an object that this file has no
    /// handle of.
    #[cfg(not(MODULE))]
    pub fn mmap(&self, file: &File<H>, offset: u64, len: u64) -> Result<Mapping<H>, Errno> {
        let Some(gem) = file.0.handles.at_offset(offset) else {
            let known = self.dev.objects.lock().iter().any(|(_, gem)| gem.mem.0 == offset);
            return Err(if known { Errno::ACCES } else { Errno::INVAL });
        };
        match len <= gem.size {
            true => Ok(Mapping { mem: gem.mem, size: gem.size, _gem: gem }),
            false => Err(Errno::INVAL),
        }
    }

    /// The last copy of a descriptor made by [`Host::install_fd`] is closed.
    #[cfg(not(MODULE))]
    pub fn release_fd(&self, kind: FdKind, id: u64) {
        self.dev.drm.release(kind, id);
    }

    /// Translations of a mirrored address space end: called by the world before they do, for the
    /// notifier that was inserted with this cookie. `set_seq` is called under the lock under which
    /// the driver asks [`crate::host::mirror::Mirror::read_retry`]. False: it would have to sleep and
    /// may not.
    pub fn invalidate(
        &self,
        cookie: u64,
        invalidation: &Invalidation,
        set_seq: &mut dyn FnMut(),
    ) -> bool {
        notifier::invalidate(&self.dev, cookie, invalidation, set_seq)
    }

    /// The CPU touched device memory at an address: moves it back. With `Ok` the access is tried
    /// again.
    ///
    /// # Errors
    /// Those of the move; the access ends with `SIGBUS`.
    pub fn cpu_fault(&self, fault: &mut H::CpuFault, addr: u64, frame: u64) -> Result<(), Errno> {
        migrate::cpu_fault(&self.dev, fault, addr, frame)
    }

    /// Does one bounded piece of a worker's work. Only [`Worker::Fault`] and [`Worker::CleanUp`] wait: for
    /// pages.
    pub fn step(&self, worker: Worker) -> Step {
        match worker {
            Worker::Bind => bind::step(&self.dev),
            Worker::CleanUp => match bind::clean_up_step(&self.dev) {
                Step::Idle => {
                    devmem::drain(&self.dev);
                    notifier::collect_step(&self.dev)
                }
                worked => worked,
            },
            Worker::UserFence => bind::user_fence_step(&self.dev),
            Worker::Fault => fault::step(&self.dev),
            Worker::Engine(engine) => exec::step(&self.dev, engine),
        }
    }

    /// Whether a step of the worker might do something now (cheap; for choosing whom to step).
    #[must_use]
    pub fn runnable(&self, worker: Worker) -> bool {
        match worker {
            Worker::Bind => self.dev.binds.any(BindJob::is_ready),
            Worker::CleanUp => {
                !self.dev.clean_ups.is_empty()
                    || self.dev.svm.unmapped.load(Ordering::Acquire) > 0
                    || self.dev.counters.get(Counter::LiveSvmPages) > 0
                        && self.dev.host.has_freed_frames()
            }
            Worker::UserFence => !self.dev.user_fences.is_empty(),
            Worker::Fault => self.dev.svm.buffer.is_runnable(),
            Worker::Engine(engine) => {
                let lane = self.dev.engines.get(engine as usize);
                lane.is_some_and(|lane| lane.any(ExecJob::is_ready))
            }
        }
    }

    /// The counters, in the order of [`COUNTERS`]; `leaks` included.
    #[must_use]
    pub fn counters(&self) -> [u64; COUNTERS.len()] {
        devmem::drain(&self.dev);
        self.dev.counters.all()
    }
}
