//! GPU address spaces.
//!
//! Owns a VM's parts and their locks, its ban and its end. What changes it stands beside: the bind
//! call in [`bind`] and [`prepare`], page tables and TLBs in [`mmu`], faults in [`faults`].
//!
//! The reservation of a VM serialises everything that changes its address space; the mutex of
//! [`Space`] only guards the data, so that others can read it meanwhile.

pub mod bind;
pub mod dump;
pub mod faults;
pub mod ioctls;
pub mod mmu;
pub mod prepare;

use fencepost_uapi::fencepost::VM_CREATE_LONG_RUNNING;
use fencepost_uapi::Errno;

use crate::counters::Counter;
use crate::device::Device;
use crate::facade::{
    Arc, AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, Rank, Vec,
};
use crate::gem::{Gem, GemRef};
use crate::gpuva::{Manager, Mapping, Removed, Span};
use crate::host::Host;
use crate::pgtable::{Leave, Need, Props, Spares, Stock};
use crate::sched::bind::BIND_ROOM;
use crate::sched::lane::EntityId;
use crate::svm::Svm;
use crate::sync::fence::Fence;
use crate::sync::resv::Resv;
use faults::FaultRing;
use mmu::Mmu;

/// A GPU address space.
pub struct Vm<H: Host> {
    dev: Arc<Device<H>>,
    /// Number that no other object has.
    pub id: u64,
    /// `VM_CREATE_*`.
    pub flags: u32,
    /// The addresses that it spans.
    pub span: Span,
    /// Its reservation, shared by its private objects.
    pub resv: Arc<Resv>,
    /// Its default bind queue.
    pub bind_entity: EntityId,
    space: Mutex<Space<H>>,
    mmu: Mutex<Mmu>,
    /// Faults of its jobs.
    pub faults: Mutex<FaultRing>,
    /// With `VM_CREATE_FAULT`: what it mirrors.
    pub svm: Option<Svm<H>>,
    banned: AtomicBool,
    dead: AtomicBool,
    /// Queues that use it.
    pub queues: AtomicU32,
    /// Objects that its page tables lack until the next exec.
    pub evicted: AtomicU64,
    /// Bind jobs that have signalled and not cleaned up.
    cleaning: AtomicU32,
    /// Calls and bind jobs under way, plus one while it is alive: who takes away the last clears it.
    holders: AtomicU32,
}

/// The address space as binds see it: ahead of the page tables by the bind jobs under way.
pub struct Space<H: Host> {
    /// Mappings and sparse regions.
    pub manager: Manager<GemRef<H>>,
    /// Page-table nodes set aside.
    pub spares: Spares,
    /// Bind jobs under way, to order those that touch the same addresses.
    pub pending: Vec<Pending>,
}

/// One range that a bind job under way will write.
pub struct Pending {
    /// The range.
    pub span: Span,
    /// Signals when it is written.
    pub fence: Arc<Fence>,
}

/// What a VM is made with.
pub struct NewVm<H: Host> {
    /// `VM_CREATE_*`.
    pub flags: u32,
    /// The addresses that it spans.
    pub span: Span,
    /// The kernel-reserved hole; empty for none.
    pub hole: Span,
    /// What it mirrors, if it takes faults.
    pub svm: Option<Svm<H>>,
}

impl<H: Host> Vm<H> {
    /// An empty address space.
    ///
    /// # Errors
    /// `EINVAL`: no addresses, or the hole is not within; `ENOMEM`.
    pub fn new(dev: &Arc<Device<H>>, new: NewVm<H>) -> Result<Arc<Self>, Errno> {
        let manager = Manager::new(new.span, new.hole)?;
        let mut spares = Spares::new();
        spares.fill()?;
        let space = Space { manager, spares, pending: Vec::new() };
        let mmu = Mmu::new(dev.config.engines)?;
        let nodes = mmu.table.nodes();
        let resv = Resv::new()?;
        let space = Mutex::new(Rank::Vm, space)?;
        let mmu = Mutex::new(Rank::PageTable, mmu)?;
        let faults = Mutex::new(Rank::Faults, FaultRing::new())?;
        // From here on the VM's end gives back what it counts, also when there is no memory for it.
        let bind_entity = dev.binds.add(1, BIND_ROOM)?;
        dev.counters.add(Counter::LivePtNodes, nodes);
        let vm = Arc::new(Vm {
            dev: dev.clone(),
            id: dev.next_id(),
            flags: new.flags,
            span: new.span,
            resv,
            bind_entity,
            space,
            mmu,
            faults,
            svm: new.svm,
            banned: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            queues: AtomicU32::new(0),
            evicted: AtomicU64::new(0),
            cleaning: AtomicU32::new(0),
            holders: AtomicU32::new(1),
        });
        let vm = vm?;
        dev.counters.inc(Counter::LiveVms);
        Ok(vm)
    }

    /// The device.
    pub fn dev(&self) -> &Arc<Device<H>> {
        &self.dev
    }

    /// The address space, locked.
    pub fn space(&self) -> MutexGuard<'_, Space<H>> {
        self.space.lock()
    }

    /// Page tables and TLBs, locked.
    pub fn mmu(&self) -> MutexGuard<'_, Mmu> {
        self.mmu.lock()
    }

    /// Whether jobs may run without bound and make no fences.
    pub fn is_long_running(&self) -> bool {
        self.flags & VM_CREATE_LONG_RUNNING != 0
    }

    /// Whether an asynchronous bind failed.
    pub fn is_banned(&self) -> bool {
        self.banned.load(Ordering::Acquire)
    }

    /// Whether it was destroyed.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// An asynchronous bind failed: nothing may be done with it any more, nothing is mapped.
    pub fn ban(&self, stock: &mut Stock) {
        self.banned.store(true, Ordering::Release);
        let mut mmu = self.mmu();
        mmu.clear(&self.dev, self.span, Leave::Nothing, stock);
        drop(mmu);
        self.dev.host.wake();
    }

    /// A call or a bind job uses it from now on, unless it is gone.
    pub fn try_hold(&self) -> bool {
        let grow = |holders: u32| (holders > 0).then(|| holders + 1);
        self.holders.fetch_update(Ordering::AcqRel, Ordering::Acquire, grow).is_ok()
    }

    /// The call has ended, or the bind job is cleaned up.
    pub fn unhold(&self) {
        if self.holders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.teardown();
        }
    }

    /// Destroys it. Bind jobs that wait do so no longer and only clean up; the last one clears the
    /// VM. No queue uses it any more.
    pub fn destroy(&self) {
        self.dead.store(true, Ordering::Release);
        self.dev.counters.dec(Counter::LiveVms);
        self.unhold();
        self.dev.host.wake();
    }

    /// A bind job signals now and cleans up after that.
    pub fn cleaning(&self) {
        self.cleaning.fetch_add(1, Ordering::AcqRel);
    }

    /// It has cleaned up.
    pub fn cleaned(&self) {
        self.cleaning.fetch_sub(1, Ordering::AcqRel);
    }

    /// Waits until bind jobs whose fence has signalled have cleaned up, so that who waited for the
    /// fence finds the address space without what it removed.
    pub fn settle(&self) {
        let is_clean = || self.cleaning.load(Ordering::Acquire) == 0;
        if !is_clean() {
            // Without task and deadline the wait ends when it is ready.
            let _ = self.dev.host.wait_event(None, None, &mut || is_clean());
        }
    }

    /// Frees what is mapped.
    fn teardown(&self) {
        if let Some(svm) = &self.svm {
            svm.teardown(self);
        }
        let mut stock = Stock::new();
        // Under this lock from the start: who validates a moved object writes what it finds mapped.
        let mut space = self.space();
        let Space { manager, spares, pending } = &mut *space;
        self.mmu().clear(&self.dev, self.span, Leave::Nothing, &mut stock);
        self.dev.counters.sub(Counter::LiveVas, manager.len() as u64);
        manager.clear(|gem| gem.remove_link(self));
        pending.clear();
        spares.give_back(stock);
    }

    /// Takes the VAs that a bind call removed out of memory, after the page tables were written.
    pub fn release(&self, removed: Removed, stock: Stock) {
        let mut space = self.space();
        let Space { manager, spares, pending } = &mut *space;
        manager.release(removed, |gem| gem.remove_link(self));
        spares.give_back(stock);
        pending.retain(|pending| !pending.fence.is_signalled());
    }

    /// Takes an object that is about to move out of the page tables. Its reservation is held.
    pub fn clear_object(&self, gem: &GemRef<H>) {
        let mut stock = Stock::new();
        let mut space = self.space();
        {
            let mut mmu = self.mmu();
            for mapping in space.manager.mappings_of(gem.id) {
                mmu.clear(&self.dev, mapping.span, Leave::Sparse, &mut stock);
            }
        }
        space.spares.give_back(stock);
    }

    /// Writes the page tables for an object that had moved. Its reservation is held.
    ///
    /// # Errors
    /// `ENOMEM`; some of its mappings may be missing.
    pub fn restore_object(&self, gem: &GemRef<H>) -> Result<(), Errno> {
        let mut space = self.space();
        let Space { manager, spares, .. } = &mut *space;
        for mapping in manager.mappings_of(gem.id) {
            let mut stock = spares.draw(Need::map(mapping.span))?;
            let in_sparse = manager.regions(mapping.span).next().is_some();
            let written = self.write_mapping(&mapping, in_sparse, &mut stock);
            spares.give_back(stock);
            written?;
        }
        Ok(())
    }

    fn write_mapping(
        &self,
        mapping: &Mapping<&GemRef<H>>,
        in_sparse: bool,
        stock: &mut Stock,
    ) -> Result<(), Errno> {
        let Some(gem) = mapping.object else { return Ok(()) };
        let readonly = mapping.attrs.flags & fencepost_uapi::fencepost::BIND_READONLY != 0;
        let kind = mapping.attrs.kind;
        let props = Props { readonly, kind, in_sparse, ..Props::default() };
        mmu::map_object(self, mapping.span, gem, mapping.offset, props, stock)
    }

    /// Stops the jobs of a long-running VM before an object moves, once what writing it again needs
    /// is there.
    ///
    /// # Errors
    /// `ENOMEM`; nothing was stopped.
    pub fn pause_for_move(&self, gem: &GemRef<H>) -> Result<(), Errno> {
        let mut space = self.space();
        let Space { manager, spares, .. } = &mut *space;
        let mut stock = Stock::new();
        for mapping in manager.mappings_of(gem.id) {
            let more = spares.draw(Need::map(mapping.span));
            match more {
                Ok(more) => stock.append(more),
                Err(error) => {
                    spares.give_back(stock);
                    return Err(error.into());
                }
            }
        }
        let paused = self.mmu().pause(gem.id, stock);
        paused.map_err(|stock| {
            spares.give_back(stock);
            Errno::NOMEM
        })
    }

    /// Writes the page tables of a long-running VM for an object that has moved, or has not, from
    /// what was set aside, and lets its jobs go on. No effect when it was not paused for it.
    pub fn resume_after_move(&self, gem: &GemRef<H>) {
        let mut space = self.space();
        let Some(mut stock) = self.mmu().take_pause_stock(gem.id) else { return };
        let Space { manager, spares, .. } = &mut *space;
        for mapping in manager.mappings_of(gem.id) {
            let in_sparse = manager.regions(mapping.span).next().is_some();
            let written = self.write_mapping(&mapping, in_sparse, &mut stock);
            debug_assert!(written.is_ok(), "the stock was drawn for these mappings");
        }
        spares.give_back(stock);
        self.mmu().resume();
        self.dev.host.wake();
    }

    /// Whether the VM may map an object.
    pub fn may_map(&self, gem: &Gem<H>) -> bool {
        gem.private_to == 0 || gem.private_to == self.id
    }
}

impl<H: Host> Drop for Vm<H> {
    fn drop(&mut self) {
        // Nobody else has the VM any more, so that neither is ever held; unlike `lock` this may be
        // done whatever the caller holds.
        if let (Some(mmu), Some(space)) = (self.mmu.try_lock(), self.space.try_lock()) {
            let nodes = mmu.table.nodes();
            self.dev.counters.sub(Counter::LivePtNodes, nodes);
            let ranges = self.svm.as_ref().and_then(|svm| svm.ranges.try_lock());
            let has_ranges = ranges.is_some_and(|ranges| !ranges.is_empty());
            if nodes > 1 || !space.manager.is_empty() || has_ranges {
                self.dev.counters.inc(Counter::Leaks);
            }
        }
        self.dev.binds.remove(self.bind_entity);
    }
}
