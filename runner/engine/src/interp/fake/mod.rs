//! A device in memory for the engine's own tests: simple, correct, without asynchrony but where
//! fences demand it; and with switches that plant one bug each, which the oracle has to find.
//!
//! Not a driver: no page tables, no eviction, no migration, one process. Memory is real shared memory, so that
//! CPU actors work on it as on any device; a mirror is this process's memory, reached as its CPU reaches it.

mod client;
mod space;
mod state;

use fencepost_fixtures::Errno;
use fencepost_fixtures::device::{
    AbiCase, AbiOutcome, Caps, Client, Device, Error, Limits, Result,
};
use state::State;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// Translations survive an unmap.
    StaleTranslation,
    /// Every third atomic is lost.
    LostUpdate,
    /// An atomic gives the new value in place of the old one.
    NewForOld,
    /// Misaligned requests are refused with another errno.
    WrongErrno,
    /// A refused call leaves its first operations done.
    HalfDone,
    /// The right piece of a split goes.
    MissingSplit,
    /// The right piece of a split keeps the old offset.
    WrongSplitOffset,
    /// Mappings of neighbouring pages are shown as one.
    Merged,
    /// Stores through read-only mappings are done.
    WritableReadOnly,
    /// Binding the same object again does not change the permission.
    KeepsFlags,
    /// Accesses to nothing read 0 and do not fault.
    NoFault,
    /// A fault tells the page, not the byte.
    RoundedFault,
    /// Unmapping inside a sparse region leaves a hole.
    SparseForgotten,
    /// The second load of an address gives what the first one gave.
    StaleRead,
    /// A copy leaves its last byte.
    ShortCopy,
    /// A fill writes one word too many.
    LongFill,
    /// New memory is not cleared.
    DirtyMemory,
    /// Work does not wait for its in-fences.
    NoInFence,
    /// Out-fences signal before the work is done.
    EarlyFence,
    /// A timeline says more than was signalled.
    EagerTimeline,
    /// A closed VM is not given back.
    Leak,
    /// Asynchronous binds of one queue are done in reverse order.
    Disorder,
    /// Pages are said to be on the device, whatever was done.
    SaysDevice,
    /// Pages are said to be writable that are not.
    SaysWritable,
}

/// The device.
pub(super) struct FakeDevice {
    caps: Caps,
    limits: Limits,
    state: Arc<Mutex<State>>,
}

impl FakeDevice {
    /// A device with at most one bug.
    pub(super) fn new(bug: Option<Bug>) -> Self {
        let mut caps = Caps::new();
        for name in [
            "atomics",
            "atomics.system",
            "bind_queues",
            "counters",
            "fault_report",
            "file.inherited",
            "gpu.words",
            "placement",
            "long_running",
            "prime",
            "svm",
            "svm.exclusive",
            "svm.migrate",
            "svm.migrate.shared",
            "svm.migrate.strict",
            "svm.query",
            "syncobj",
            "timeline",
            "va_dump",
            "vm_bind",
            "vm_bind.async",
            "vm_bind.atomic",
            "vm_bind.hole",
            "vm_bind.null",
            "vm_bind.readonly",
            "vm_bind.sparse",
            "vm_bind.unmap_all",
            "vram",
        ] {
            caps.add(name);
        }
        let limits = Limits {
            va_start: 0,
            va_end: 1 << 48,
            page_sizes: vec![4096],
            engines: 2,
            max_ops: 64,
            max_syncs: 64,
            max_programs: 8,
            max_timeout: Duration::from_secs(60),
        };
        Self { caps, limits, state: Arc::new(Mutex::new(State::new(bug))) }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Device for FakeDevice {
    fn name(&self) -> String {
        "fake".to_owned()
    }

    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn open(&self) -> Result<Box<dyn Client>> {
        Ok(Box::new(client::FakeClient::new(Arc::clone(&self.state))))
    }

    fn adopt(&self, _: OwnedFd) -> Result<Box<dyn Client>> {
        Err(Error::unsupported("device.adopt"))
    }

    fn abi_cases(&self) -> Vec<AbiCase> {
        Vec::new()
    }

    fn run_abi(&self, _: &str) -> Result<AbiOutcome> {
        Err(Error::new("abi.run", Errno::ENOENT))
    }
}
