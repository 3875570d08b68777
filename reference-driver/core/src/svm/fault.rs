//! Servicing faults of the GPU.
//!
//! Owns the worker's way through a batch (sort, coalesce, service, replay or cancel) and what an access
//! to a mirror needs. It waits for pages, so that it is a worker of its own; at the gate of a VM it does
//! not wait but comes again.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::PAGE_SIZE;
use fencepost_uapi::Errno;

use super::buffer::Entry;
use super::pages::Fill;
use super::range::Page;
use super::Inside;
use crate::counters::Counter;
use crate::device::Device;
use crate::driver::Step;
use crate::facade::Vec;
use crate::gpuva::Span;
use crate::host::Host;
use crate::vm::mmu::Access;

/// How soon a fault whose VM's gate was held is looked at again; who leaves the gate wakes us.
const AGAIN_NS: u64 = 1_000_000;
/// How often a range that goes while it is looked up is looked up again.
const TRIES: u32 = 64;

/// What a fault came to.
enum Serviced {
    /// The access can be tried again.
    Replay,
    /// It is a fault of this kind.
    Cancel(u32),
    /// Somebody is in the VM's gate.
    Busy,
}

/// Where an access is and what it does, in the order of servicing: the strongest access first, since
/// what allows it allows the others.
fn key<H: Host>(entry: &Entry<H>) -> (u64, u64, u8) {
    let weakness = match entry.access {
        Access::Atomic => 0,
        Access::Write => 1,
        Access::Read | Access::Fetch => 2,
    };
    (entry.vm.id, entry.addr / PAGE_SIZE, weakness)
}

/// Services a batch.
pub fn step<H: Host>(dev: &Device<H>) -> Step {
    let buffer = &dev.svm.buffer;
    let Some(mut work) = buffer.begin() else { return Step::Idle };
    if work.is_empty() {
        buffer.end(work);
        return Step::Idle;
    }
    dev.counters.inc(Counter::SvmBatches);
    // Taken from the end.
    work.sort_unstable_by_key(|entry| core::cmp::Reverse(key(entry)));
    let mut replayed = false;
    let mut step = Step::Worked;
    while let Some(last) = work.last() {
        match service(dev, last, &work) {
            Serviced::Busy => {
                let until_ns = dev.host.now_ns().saturating_add(AGAIN_NS);
                step = Step::Stalled { until_ns };
                break;
            }
            Serviced::Replay => {
                replayed = true;
                finish(dev, &mut work, None);
            }
            Serviced::Cancel(kind) => finish(dev, &mut work, Some(kind)),
        }
    }
    if replayed {
        dev.counters.inc(Counter::SvmReplays);
    }
    buffer.end(work);
    dev.host.wake();
    step
}

/// Ends the last fault and all that are the same.
fn finish<H: Host>(dev: &Device<H>, work: &mut Vec<Entry<H>>, cancel: Option<u32>) {
    let Some(same) = work.last().map(key) else { return };
    let mut first = true;
    while work.last().is_some_and(|entry| key(entry) == same) {
        let Some(entry) = work.pop() else { break };
        if !core::mem::take(&mut first) {
            dev.counters.inc(Counter::SvmFaultsCoalesced);
        }
        dev.svm.buffer.serviced();
        let waited = match cancel {
            Some(kind) => {
                dev.counters.inc(Counter::SvmCancels);
                entry.park.cancel(kind)
            }
            None => entry.park.replay(),
        };
        if waited {
            dev.counters.dec(Counter::LiveParked);
        }
    }
}

fn service<H: Host>(dev: &Device<H>, entry: &Entry<H>, batch: &[Entry<H>]) -> Serviced {
    // Jobs of a VM that goes are cancelled by its queues.
    if !entry.vm.try_hold() {
        return Serviced::Replay;
    }
    let serviced = match Inside::try_enter(&entry.vm) {
        None => Serviced::Busy,
        Some(inside) => {
            inside.collect();
            match inside.resolve(entry.addr, entry.access, batch) {
                Ok(()) => Serviced::Replay,
                // It stays in the dark what is there: the access will ask again.
                Err(Refusal::Errno(Errno::BUSY | Errno::AGAIN)) => Serviced::Replay,
                Err(Refusal::Errno(errno)) => Serviced::Cancel(kind_of(errno)),
                Err(Refusal::Kind(kind)) => Serviced::Cancel(kind),
            }
        }
    };
    entry.vm.unhold();
    if !matches!(serviced, Serviced::Busy) {
        count(dev, entry.access);
    }
    serviced
}

fn count<H: Host>(dev: &Device<H>, access: Access) {
    dev.counters.inc(match access {
        Access::Read | Access::Fetch => Counter::SvmFaultsRead,
        Access::Write => Counter::SvmFaultsWrite,
        Access::Atomic => Counter::SvmFaultsAtomic,
    });
}

/// What is asked of a mirror: that a page can be accessed.
pub struct Asked<'a, H: Host> {
    /// The page.
    pub page: u64,
    /// What is done with it.
    pub access: Access,
    /// The mirror that has it.
    pub mirror: Span,
    /// What else is in the batch, descending, and may be served with it.
    pub batch: &'a [Entry<H>],
}

/// Why an access is a fault.
pub enum Refusal {
    /// What the address space said.
    Errno(Errno),
    /// A kind of fault.
    Kind(u32),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Refusal::Errno(errno)
    }
}

fn kind_of(errno: Errno) -> u32 {
    match errno {
        Errno::PERM | Errno::ACCES | Errno::OPNOTSUPP => fp::FAULT_KIND_PERMISSION,
        _ => fp::FAULT_KIND_NOT_PRESENT,
    }
}

impl<H: Host> Inside<'_, H> {
    /// Makes an access possible, or says why it is not.
    ///
    /// # Errors
    /// [`Refusal`].
    fn resolve(&self, addr: u64, access: Access, batch: &[Entry<H>]) -> Result<(), Refusal> {
        let page = addr & !(PAGE_SIZE - 1);
        let mut tries = 0;
        loop {
            if self.is_shown(page, access) {
                return Ok(());
            }
            let Some(mirror) = self.mirror_at(page) else {
                return Err(Refusal::Kind(self.plain_kind(page, access)));
            };
            let made = self
                .find_or_insert(page, access.writes(), mirror)
                .and_then(|range| self.bring(range, &Asked { page, access, mirror, batch }));
            match made {
                Err(Errno::AGAIN) if tries < TRIES => tries += 1,
                done => return Ok(done?),
            }
            self.collect();
        }
    }

    /// Whether the page tables let an access through by now.
    pub fn is_shown(&self, page: u64, access: Access) -> bool {
        let Some(entry) = self.vm.mmu().table.walk(page) else { return false };
        entry.allows(access.writes(), access == Access::Atomic)
    }

    /// What is wrong with an access outside of mirrors.
    fn plain_kind(&self, page: u64, access: Access) -> u32 {
        match self.vm.mmu().table.walk(page) {
            Some(entry) if access.writes() && entry.readonly => fp::FAULT_KIND_PERMISSION,
            _ => fp::FAULT_KIND_NOT_PRESENT,
        }
    }

    /// Lets the page tables show a page of a range for an access.
    fn bring(&self, range: Span, asked: &Asked<'_, H>) -> Result<(), Errno> {
        // A range may be larger than what an attribute was set for.
        let (alike, attr) = self.attr_around(asked.page, range);
        let atomic = asked.access == Access::Atomic;
        if atomic && attr.atomic == fp::SVM_ATOMIC_CPU {
            return Err(Errno::ACCES);
        }
        let wanted = match attr.atomic {
            fp::SVM_ATOMIC_GLOBAL if atomic => fp::REGION_VRAM,
            _ => attr.preferred,
        };
        self.place(alike, asked.page, wanted)?;
        match atomic && attr.atomic != fp::SVM_ATOMIC_DEVICE {
            true => self.allow_atomic(range, asked),
            false => self.touch(range, asked),
        }
    }

    /// Moves a part of a range to a region, as far as that is possible, unless the page is there.
    fn place(&self, part: Span, page: u64, region: u32) -> Result<(), Errno> {
        let known = {
            let ranges = self.svm.ranges.lock();
            ranges.at(page).map_or(Page::NONE, |range| range.page(page))
        };
        match region {
            fp::REGION_VRAM if !known.is_device() && self.dev().config.vram_bytes > 0 => {
                self.to_device(part)?;
            }
            fp::REGION_SYSTEM if known.is_none() || known.is_device() => {
                self.to_system(part)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Maps what an access needs, with as much around it as lacks the same, and what other faults of the
    /// batch need of the range.
    ///
    /// # Errors
    /// As [`Inside::fill`].
    pub fn touch(&self, range: Span, asked: &Asked<'_, H>) -> Result<(), Errno> {
        match self.map_lacking(range, asked) {
            Err(Errno::OPNOTSUPP) => {
                self.unmix(range)?;
                // What did not come this time may the next.
                self.map_lacking(range, asked).map_err(|errno| match errno {
                    Errno::OPNOTSUPP => Errno::BUSY,
                    errno => errno,
                })
            }
            mapped => mapped,
        }
    }

    fn map_lacking(&self, range: Span, asked: &Asked<'_, H>) -> Result<(), Errno> {
        let Some(fill) = self.lacking(range, asked)? else {
            return self.show_again(range);
        };
        match self.fill(fill) {
            // Something else in the range may be the reason.
            Err(Errno::FAULT | Errno::PERM) if fill.span.len() > PAGE_SIZE => {
                self.fill(fill.only(asked.page))
            }
            filled => filled,
        }
    }

    /// What to ask for so that an access can be made: the page and those around it that lack the same.
    /// Of pages that have faults of their own in the batch, as much is asked as these need, wherever in
    /// the range they are.
    fn lacking(&self, range: Span, asked: &Asked<'_, H>) -> Result<Option<Fill>, Errno> {
        let Asked { page, access, batch, .. } = *asked;
        // What holds for the page need not hold for those around it.
        let (alike, attr) = self.attr_around(page, range);
        let ranges = self.svm.ranges.lock();
        let known = ranges.at(page).filter(|range| !range.unmapped).ok_or(Errno::AGAIN)?;
        let Some(span) = known.lacking(page, access) else { return Ok(None) };
        let mut fill = Fill::new(span.clip(alike), access.writes(), attr.atomic);
        let mut last = page;
        for fault in batch.iter().rev().filter(|fault| fault.vm.id == self.vm.id) {
            let at = fault.addr & !(PAGE_SIZE - 1);
            // The first of a page is the strongest.
            if at > last
                && (alike.start..alike.end).contains(&at)
                && !known.page(at).allows(fault.access)
            {
                fill.ask(at, fault.access.writes());
            }
            last = last.max(at);
        }
        Ok(Some(fill))
    }

    /// Writes the page-table entries of valid pages that a bind has cleared.
    fn show_again(&self, range: Span) -> Result<(), Errno> {
        let need = crate::pgtable::Need::map(range);
        let mut stock = self.vm.space().spares.draw(need)?;
        let shown = {
            let ranges = self.svm.ranges.lock();
            let mut mmu = self.vm.mmu();
            match ranges.at(range.start) {
                Some(found) => found.show(self.dev(), &mut mmu, range, &mut stock),
                None => Ok(()),
            }
        };
        self.vm.space().spares.give_back(stock);
        Ok(shown?)
    }
}
