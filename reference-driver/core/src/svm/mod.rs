//! Shared virtual memory: the GPU in the CPU's address space.
//!
//! Owns what a VM that takes faults has beside its page tables, and the gate through which whoever
//! changes it must go. The parts: which pages are valid in [`range`], the windows in which the CPU's
//! address space reports changes in [`notifier`], how ranges come about in [`find`] and are filled in
//! [`pages`], the fault buffer in [`buffer`] and its servicing in [`fault`].
//!
//! # Locks
//! 1. The gate of a VM: ranges and notifiers come and go only with it. No lock of the facade, since its
//!    holder waits for pages; who holds reservations does not wait for it.
//! 2. [`Rank::Svm`]: notifiers and attributes, by who is in the gate.
//! 3. [`Rank::Notifier`]: which pages are valid. An invalidation takes it, and may be waited for by
//!    memory reclaim: nothing is allocated under it. Page-table entries are written under it, after
//!    asking whether what was read of the address space is still true.

pub mod attrs;
pub mod bits;
pub mod buffer;
pub mod devmem;
pub mod exclusive;
pub mod fault;
pub mod find;
pub mod ioctls;
pub mod migrate;
pub mod notifier;
pub mod pages;
pub mod prefetch;
pub mod query;
pub mod range;
pub mod room;
pub mod tune;

use fencepost_uapi::fencepost::{VmCreate, INJECT_ASYNC_BIND};
use fencepost_uapi::Errno;

use crate::call::Call;
use crate::counters::Counter;
use crate::device::Device;
use crate::facade::{Arc, AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering, Rank, Slab};
use crate::file::OpenFile;
use crate::gpuva::Span;
use crate::host::Host;
use crate::vm::Vm;
use attrs::Attrs;
use buffer::FaultBuffer;
use devmem::Devmem;
use notifier::{Hook, Windows};
use range::{Ranges, Zap};
use tune::Tunes;

/// The owner of device memory and of migrations: the devices of this driver, which know each other's
/// memory.
pub const OWNER: u64 = 0x6670_0000;

/// A device as the owner of exclusive access, which it shares with no other.
pub(crate) fn exclusive_owner<H: Host>(host: &H) -> u64 {
    OWNER + 1 + u64::from(host.device())
}

/// What a device has for all VMs that take faults.
pub struct Shared<H: Host> {
    /// Which VM a notifier belongs to; the number is the notifier's cookie.
    pub hooks: Mutex<Slab<Hook<H>>>,
    /// The replayable fault buffer.
    pub buffer: FaultBuffer<H>,
    /// What of the device's memory the CPU's address spaces have.
    pub devmem: Mutex<Devmem>,
    /// Ranges of all VMs that the CPU has unmapped and nobody has collected.
    pub unmapped: AtomicU64,
}

impl<H: Host> Shared<H> {
    /// Nothing yet.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(frames: u64) -> Result<Self, Errno> {
        Ok(Shared {
            hooks: Mutex::new(Rank::Hooks, Slab::new())?,
            buffer: FaultBuffer::new()?,
            devmem: devmem::new(frames)?,
            unmapped: AtomicU64::new(0),
        })
    }
}

/// What a VM that takes faults has.
pub struct Svm<H: Host> {
    /// The address space that it mirrors.
    pub mm: H::Mm,
    /// How it was tuned when it was made.
    pub tunes: Tunes,
    /// The open file that made it: its failures may hit what happens here.
    pub file: Arc<OpenFile<H>>,
    /// Who made it.
    pub task: H::Task,
    /// Which pages are valid.
    pub ranges: Mutex<Ranges>,
    windows: Mutex<Windows<H>>,
    attrs: Mutex<Attrs>,
    /// Somebody is in the gate.
    inside: AtomicBool,
    /// Somebody waits at the gate, or will come again.
    outside: AtomicU32,
}

impl<H: Host> Svm<H> {
    /// For a VM that the caller makes; `None` unless it is to take faults.
    ///
    /// # Errors
    /// `EINVAL`, `EOPNOTSUPP`, as documented with the flag; `ENOMEM`.
    pub fn new(call: &Call<'_, H>, args: &VmCreate) -> Result<Option<Self>, Errno> {
        use fencepost_uapi::fencepost as fp;
        if args.flags & fp::VM_CREATE_FAULT == 0 {
            return Ok(None);
        }
        if args.flags & fp::VM_CREATE_LONG_RUNNING == 0 {
            return Err(Errno::INVAL);
        }
        let mm = call.dev.host.mm(call.task)?;
        Ok(Some(Svm {
            mm,
            tunes: call.file.tunes(),
            file: call.file.clone(),
            task: call.task,
            ranges: Mutex::new(Rank::Notifier, Ranges::new())?,
            windows: Mutex::new(Rank::Svm, Windows::new())?,
            attrs: Mutex::new(Rank::Svm, Attrs::new())?,
            inside: AtomicBool::new(false),
            outside: AtomicU32::new(0),
        }))
    }

    /// Counts an operation that an armed failure may hit.
    ///
    /// # Errors
    /// `errno` when it does.
    pub fn inject(&self, dev: &Device<H>, kind: u32, errno: Errno) -> Result<(), Errno> {
        debug_assert!(kind != INJECT_ASYNC_BIND, "SVM has no asynchronous binds");
        self.file.injection(kind).hit().map_err(|_| {
            dev.counters.inc(Counter::Injected);
            errno
        })
    }

    fn try_inside(&self) -> bool {
        !self.inside.swap(true, Ordering::AcqRel)
    }

    /// The VM ends: nobody uses it any more.
    pub fn teardown(&self, vm: &Vm<H>) {
        let dev = vm.dev();
        loop {
            // The lock goes before the notifier does.
            let window = self.windows.lock().pop();
            let Some(window) = window else { break };
            window.remove(dev);
        }
        let mut zap = Zap::new();
        let mut ranges = self.ranges.lock();
        let dropped = ranges.take_all(|range| range.clear(vm, range.span(), &mut zap));
        drop(ranges);
        dev.svm.unmapped.fetch_sub(dropped.unmapped, Ordering::AcqRel);
        dev.counters.sub(Counter::LiveSvmRanges, dropped.len() as u64);
        migrate::evict_all(dev, vm.id);
    }
}

/// The gate of a VM, held.
pub struct Inside<'a, H: Host> {
    /// The VM.
    pub vm: &'a Arc<Vm<H>>,
    /// Its part for SVM.
    pub svm: &'a Svm<H>,
}

impl<'a, H: Host> Inside<'a, H> {
    /// Goes in unless somebody is inside; whoever leaves wakes others then.
    pub fn try_enter(vm: &'a Arc<Vm<H>>) -> Option<Self> {
        let svm = vm.svm.as_ref()?;
        if svm.try_inside() {
            return Some(Inside { vm, svm });
        }
        svm.outside.store(1, Ordering::SeqCst);
        // It may have been left before the note was there. Lazily: what is made here opens the gate when
        // it goes.
        svm.try_inside().then(|| Inside { vm, svm })
    }

    /// Waits to go in. `None`: the VM takes no faults.
    ///
    /// # Errors
    /// `RESTARTSYS` when a signal came.
    pub fn enter(vm: &'a Arc<Vm<H>>, task: H::Task) -> Result<Option<Self>, Errno> {
        if vm.svm.is_none() {
            return Ok(None);
        }
        let mut inside = Self::try_enter(vm);
        if inside.is_none() {
            let mut ready = || {
                inside = inside.take().or_else(|| Self::try_enter(vm));
                inside.is_some()
            };
            vm.dev().host.wait_event(Some(task), None, &mut ready)?;
        }
        if let Some(inside) = &inside {
            inside.collect();
        }
        Ok(inside)
    }

    /// The device.
    pub fn dev(&self) -> &'a Arc<Device<H>> {
        self.vm.dev()
    }

    /// The mirror that has an address, if one has.
    pub fn mirror_at(&self, addr: u64) -> Option<Span> {
        let space = self.vm.space();
        let mapping = space.manager.find(addr)?;
        mapping.attrs.is_mirror().then_some(mapping.span)
    }
}

impl<H: Host> Drop for Inside<'_, H> {
    fn drop(&mut self) {
        self.svm.inside.store(false, Ordering::SeqCst);
        if self.svm.outside.swap(0, Ordering::SeqCst) != 0 {
            self.dev().host.wake();
        }
    }
}
