//! The memory management unit of a VM: page table, one TLB an engine, and the pausing of jobs.
//!
//! Owns the rule that a translation is used only while the lock of the MMU is held, so that whoever
//! changes the page table and invalidates knows that no access by the old translation is under way.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::Errno;

use super::Vm;
use crate::counters::Counter;
use crate::device::Device;
use crate::facade::{AllocError, Vec};
use crate::gem::GemRef;
use crate::gpuva::Span;
use crate::host::Host;
use crate::pgtable::{Entry, Leave, PageTable, Props, Run, Source, Stock, Target, Tlb, Written};

/// How a command accesses memory; the numbers are `FAULT_ACCESS_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An atomic.
    Atomic,
    /// A command is fetched.
    Fetch,
}

impl Access {
    /// The number in a fault report.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Access::Read => fp::FAULT_ACCESS_READ,
            Access::Write => fp::FAULT_ACCESS_WRITE,
            Access::Atomic => fp::FAULT_ACCESS_ATOMIC,
            Access::Fetch => fp::FAULT_ACCESS_FETCH,
        }
    }

    /// Whether it changes memory.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(self, Access::Write | Access::Atomic)
    }
}

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The job faults with this `FAULT_KIND_*`.
    Fault(u32),
    /// The VM is paused: try again later.
    Paused,
}

/// Page table and TLBs.
pub struct Mmu {
    /// The page table.
    pub table: PageTable,
    tlbs: Vec<Tlb>,
    /// Moves of objects that the VM's jobs wait for, with what writing them again needs.
    pauses: Vec<Pause>,
    paused: u32,
}

/// One move under way.
struct Pause {
    object: u64,
    stock: Stock,
}

/// Moves under way at once that a VM can be paused for.
const MAX_PAUSES: usize = 64;

impl Mmu {
    /// An empty page table and an empty TLB for each engine.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new(engines: u32) -> Result<Self, AllocError> {
        let mut tlbs = Vec::new();
        for _ in 0..engines {
            tlbs.push(Tlb::new())?;
        }
        let pauses = Vec::with_capacity(MAX_PAUSES)?;
        Ok(Mmu { table: PageTable::new()?, tlbs, pauses, paused: 0 })
    }

    /// Makes a range show something.
    ///
    /// # Errors
    /// [`AllocError`]: the stock was too small, a bug of the driver.
    pub fn write<H: Host>(
        &mut self,
        dev: &Device<H>,
        span: Span,
        source: Source<'_>,
        props: Props,
        stock: &mut Stock,
    ) -> Result<(), AllocError> {
        let before = self.table.nodes();
        let written = self.table.map(span, source, props, stock);
        self.account(dev, span, before, written)
    }

    /// Makes a range show nothing, or what its sparse regions leave.
    ///
    /// # Errors
    /// [`AllocError`]: the stock was too small, a bug of the driver.
    pub fn erase<H: Host>(
        &mut self,
        dev: &Device<H>,
        span: Span,
        leave: Leave,
        stock: &mut Stock,
    ) -> Result<(), AllocError> {
        let before = self.table.nodes();
        let written = self.table.unmap(span, leave, stock);
        self.account(dev, span, before, written)
    }

    /// Clears whole mappings, or everything: cuts no page and so needs no node.
    pub fn clear<H: Host>(&mut self, dev: &Device<H>, span: Span, leave: Leave, stock: &mut Stock) {
        let erased = self.erase(dev, span, leave, stock);
        debug_assert!(erased.is_ok(), "no page crosses the edge of a mapping");
    }

    /// Counts a change and tells the TLBs.
    fn account<H: Host>(
        &mut self,
        dev: &Device<H>,
        span: Span,
        nodes_before: u64,
        written: Result<Written, AllocError>,
    ) -> Result<(), AllocError> {
        let counters = &dev.counters;
        let nodes = self.table.nodes();
        counters.add(Counter::LivePtNodes, nodes.saturating_sub(nodes_before));
        counters.sub(Counter::LivePtNodes, nodes_before.saturating_sub(nodes));
        let written = written?;
        counters.add(Counter::PtWrites, written.pages.iter().sum());
        counters.add(Counter::PtPages4k, written.pages[0]);
        counters.add(Counter::PtPages64k, written.pages[1]);
        counters.add(Counter::PtPages2m, written.pages[2]);
        counters.add(Counter::PtClears, written.cleared);
        counters.add(Counter::Splits, written.splits);
        if written.invalidate {
            self.invalidate(dev, span);
        }
        Ok(())
    }

    fn invalidate<H: Host>(&mut self, dev: &Device<H>, span: Span) {
        for tlb in &mut self.tlbs {
            tlb.invalidate(span);
        }
        dev.counters.inc(Counter::TlbInvalidations);
    }

    /// Translates an address for an engine.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn translate<H: Host>(
        &mut self,
        dev: &Device<H>,
        engine: u32,
        addr: u64,
        access: Access,
    ) -> Result<Entry, Refused> {
        if self.paused > 0 {
            return Err(Refused::Paused);
        }
        let tlb = &mut self.tlbs[engine as usize];
        let entry = match tlb.lookup(addr) {
            Some(entry) => {
                dev.counters.inc(Counter::TlbHits);
                entry
            }
            None => {
                dev.counters.inc(Counter::TlbMisses);
                let not_present = Refused::Fault(fp::FAULT_KIND_NOT_PRESENT);
                let entry = self.table.walk(addr).ok_or(not_present)?;
                tlb.insert(addr, entry);
                entry
            }
        };
        if !entry.allows(access.writes(), access == Access::Atomic) {
            return Err(Refused::Fault(fp::FAULT_KIND_PERMISSION));
        }
        if matches!(entry.target, Target::Null | Target::Sparse) {
            dev.counters.inc(match access.writes() {
                true => Counter::SparseWrites,
                false => Counter::SparseReads,
            });
        }
        Ok(entry)
    }

    /// Stops accesses while an object moves. The stock is for writing it again.
    pub fn pause(&mut self, object: u64, stock: Stock) -> Result<(), Stock> {
        let pause = Pause { object, stock };
        self.pauses.push_within_capacity(pause).map_err(|pause| pause.stock)?;
        self.paused += 1;
        Ok(())
    }

    /// The stock of a pause, if the VM is paused for this object.
    pub fn take_pause_stock(&mut self, object: u64) -> Option<Stock> {
        let at = self.pauses.iter().position(|pause| pause.object == object)?;
        Some(self.pauses.swap_remove(at).stock)
    }

    /// Lets accesses go on after the stock of a pause was taken.
    pub fn resume(&mut self) {
        self.paused -= 1;
    }
}

/// Writes a mapping of an object, wherever that is now. Its place does not change meanwhile: its
/// reservation is held, or has the fence of the bind job that calls. Fence path.
///
/// # Errors
/// `ENOMEM`: the stock was too small, a bug of the driver.
pub fn map_object<H: Host>(
    vm: &Vm<H>,
    span: Span,
    gem: &GemRef<H>,
    offset: u64,
    props: Props,
    stock: &mut Stock,
) -> Result<(), Errno> {
    let place = gem.place.lock();
    let mut runs = |at: u64| -> Run {
        let (phys, len) = place.run(at, gem.size).expect("a mapped object has a place");
        Run { phys, len }
    };
    let source = Source::Memory { offset, runs: &mut runs };
    Ok(vm.mmu().write(vm.dev(), span, source, props, stock)?)
}
