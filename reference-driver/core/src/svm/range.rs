//! Ranges: which pages of the CPU's address space a VM has, and how it reaches them.
//!
//! Owns the records of pages and their way into page tables and out of them. All of it is guarded by the
//! lock of [`crate::facade::Rank::Notifier`]; nothing here allocates under it.

use fencepost_uapi::fencepost::PAGE_SIZE;

use crate::counters::Counter;
use crate::device::Device;
use crate::facade::{AllocError, Box, Mutex, Vec};
use crate::gpuva::Span;
use crate::host::{Aperture, Host, Phys};
use crate::pgtable::{Leave, Props, Run, Source, Stock};
use crate::vm::mmu::{Access, Mmu};
use crate::vm::Vm;

/// What a VM knows of one page. Bits 0-1 what it is, 2 may be written, 3 atomics may be done,
/// 4 exclusive to the device, 5-9 order of the DMA mapping, 12-63 the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page(u64);

impl Page {
    /// Not valid.
    pub const NONE: Self = Self(0);
    /// System memory: the first page of a DMA mapping.
    const HEAD: u64 = 1;
    /// System memory: in the DMA mapping of the page before.
    const TAIL: u64 = 2;
    /// Device memory.
    const DEVICE: u64 = 3;
    const WHAT: u64 = 3;
    /// It may be written.
    pub const WRITE: u64 = 1 << 2;
    /// Atomics may be done.
    pub const ATOMIC: u64 = 1 << 3;
    /// It is exclusive to the device.
    pub const EXCLUSIVE: u64 = 1 << 4;
    const ORDER_SHIFT: u32 = 5;
    const ADDR: u64 = !(PAGE_SIZE - 1);

    /// The first page of a DMA mapping of 1 << order pages.
    pub fn head(addr: u64, order: u32, flags: u64) -> Self {
        Self(Self::HEAD | addr | flags | u64::from(order) << Self::ORDER_SHIFT)
    }

    /// A further page of a DMA mapping.
    pub fn tail(addr: u64, flags: u64) -> Self {
        Self(Self::TAIL | addr | flags)
    }

    /// A frame of device memory.
    pub fn device(frame: u64, flags: u64) -> Self {
        Self(Self::DEVICE | (frame * PAGE_SIZE) | flags)
    }

    /// Whether it is not valid.
    pub fn is_none(self) -> bool {
        self.0 & Self::WHAT == 0
    }

    /// Whether it is in device memory.
    pub fn is_device(self) -> bool {
        self.0 & Self::WHAT == Self::DEVICE
    }

    /// Whether all of these flags are set.
    pub fn has(self, flags: u64) -> bool {
        self.0 & flags == flags
    }

    /// Whether an access may be done.
    pub fn allows(self, access: Access) -> bool {
        !self.is_none()
            && match access {
                Access::Read | Access::Fetch => true,
                Access::Write => self.has(Self::WRITE),
                Access::Atomic => self.has(Self::WRITE | Self::ATOMIC),
            }
    }

    fn is_tail(self) -> bool {
        self.0 & Self::WHAT == Self::TAIL
    }

    /// The DMA mapping that begins here: its address and order.
    fn mapping(self) -> Option<(u64, u32)> {
        let order = (self.0 >> Self::ORDER_SHIFT) as u32 & 31;
        (self.0 & Self::WHAT == Self::HEAD).then_some((self.0 & Self::ADDR, order))
    }

    fn phys(self) -> Phys {
        let aperture = if self.is_device() { Aperture::Vram } else { Aperture::System };
        Phys { aperture, addr: self.0 & Self::ADDR }
    }

    fn props(self) -> Props {
        Props {
            readonly: !self.has(Self::WRITE),
            no_atomic: !self.has(Self::ATOMIC),
            ..Props::default()
        }
    }
}

/// What taking pages out leaves over; dropped without locks.
pub struct Zap {
    /// Page-table nodes that came free.
    pub stock: Stock,
    /// Pages that were taken out.
    pub pages: u64,
    /// Of these, those that were exclusive to the device.
    pub revoked: u64,
}

impl Zap {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Zap { stock: Stock::new(), pages: 0, revoked: 0 }
    }
}

impl Default for Zap {
    fn default() -> Self {
        Self::new()
    }
}

/// A range: pages that are looked up together.
pub struct Range {
    span: Span,
    /// The CPU has unmapped some of it, or all: it must go.
    pub unmapped: bool,
    pages: Vec<Page>,
}

impl Range {
    /// A range without valid pages.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new(span: Span) -> Result<Box<Self>, AllocError> {
        let mut pages = Vec::new();
        pages.resize((span.len() / PAGE_SIZE) as usize, Page::NONE)?;
        Box::new(Range { span, unmapped: false, pages })
    }

    /// Its addresses.
    pub fn span(&self) -> Span {
        self.span
    }

    fn index(&self, addr: u64) -> usize {
        ((addr - self.span.start) / PAGE_SIZE) as usize
    }

    fn addr(&self, index: usize) -> u64 {
        self.span.start + index as u64 * PAGE_SIZE
    }

    /// The page at an address, which lies in the range.
    pub fn page(&self, addr: u64) -> Page {
        self.pages[self.index(addr)]
    }

    /// Records the page at an address.
    pub fn set(&mut self, addr: u64, page: Page) {
        let index = self.index(addr);
        self.pages[index] = page;
    }

    /// The pages around an address that do not allow an access, in one piece; `None`: that one does.
    pub fn lacking(&self, addr: u64, access: Access) -> Option<Span> {
        let at = self.index(addr);
        let lacks = |index: &usize| !self.pages[*index].allows(access);
        if !lacks(&at) {
            return None;
        }
        let first = (0..=at).rev().take_while(lacks).last()?;
        let last = (at..self.pages.len()).take_while(lacks).last()?;
        Some(Span::new(self.addr(first), self.addr(last + 1)))
    }

    /// Whether any page is valid.
    pub fn has_pages(&self) -> bool {
        self.pages.iter().any(|page| !page.is_none())
    }

    /// Whether any valid page among some is in device memory, or in system memory.
    pub fn has_any(&self, device: bool, among: impl Fn(u64) -> bool) -> bool {
        let mut pages = (0..).zip(&self.pages);
        pages.any(|(index, page)| {
            !page.is_none() && page.is_device() == device && among(self.addr(index))
        })
    }

    /// A part of the range, enlarged to whole DMA mappings.
    fn whole(&self, part: Span) -> (usize, usize) {
        let (mut first, mut end) = (self.index(part.start), self.index(part.end - 1) + 1);
        while first > 0 && self.pages[first].is_tail() {
            first -= 1;
        }
        while end < self.pages.len() && self.pages[end].is_tail() {
            end += 1;
        }
        (first, end)
    }

    /// Takes pages out of the page tables and TLBs, then undoes their DMA mappings. Fence path.
    pub fn clear<H: Host>(&mut self, vm: &Vm<H>, part: Span, zap: &mut Zap) {
        let (first, end) = self.whole(part);
        let valid = self.pages[first..end].iter().filter(|page| !page.is_none()).count() as u64;
        if valid == 0 {
            return;
        }
        let dev = vm.dev();
        let span = Span::new(self.addr(first), self.addr(end));
        let erased = vm.mmu().erase(dev, span, Leave::Nothing, &mut zap.stock);
        debug_assert!(erased.is_ok(), "memory is cut without a node");
        let mut unmapped = 0;
        for page in &mut self.pages[first..end] {
            let page = core::mem::replace(page, Page::NONE);
            zap.revoked += u64::from(page.has(Page::EXCLUSIVE));
            if let Some((addr, order)) = page.mapping() {
                dev.host.dma_unmap_page(addr, order);
                unmapped += 1 << order;
            }
        }
        zap.pages += valid;
        dev.counters.sub(Counter::LiveDmaPages, unmapped);
    }

    /// Writes the valid pages of a part to the page tables. Fence path.
    ///
    /// # Errors
    /// [`AllocError`]: the stock was too small, a bug of the driver.
    pub fn show<H: Host>(
        &self,
        dev: &Device<H>,
        mmu: &mut Mmu,
        part: Span,
        stock: &mut Stock,
    ) -> Result<(), AllocError> {
        let end = self.index(part.end - 1) + 1;
        let mut at = self.index(part.start);
        while at < end {
            let page = self.pages[at];
            if page.is_none() {
                at += 1;
                continue;
            }
            let alike = |other: &&Page| !other.is_none() && other.props() == page.props();
            let stop = at + self.pages[at..end].iter().take_while(alike).count();
            let span = Span::new(self.addr(at), self.addr(stop));
            let mut runs = |addr: u64| self.run(addr, stop);
            // Large pages need aligned addresses: the offset is the address.
            let source = Source::Memory { offset: span.start, runs: &mut runs };
            mmu.write(dev, span, source, page.props(), stock)?;
            at = stop;
        }
        Ok(())
    }

    /// The contiguous memory from an address on, up to a page.
    fn run(&self, addr: u64, stop: usize) -> Run {
        let first = self.index(addr);
        let phys = self.pages[first].phys();
        let follows = |(index, page): &(u64, &Page)| {
            page.phys() == Phys { addr: phys.addr + index * PAGE_SIZE, ..phys }
        };
        let pages = (0..).zip(&self.pages[first..stop]).take_while(follows).count() as u64;
        Run { phys, len: pages * PAGE_SIZE }
    }
}

/// The ranges of a VM.
pub struct Ranges {
    /// By address; they do not overlap.
    ranges: Vec<Box<Range>>,
    /// How many of them are unmapped.
    unmapped: u64,
}

/// Ranges that were taken out, to be dropped without the lock.
pub struct Dropped {
    ranges: Vec<Box<Range>>,
    /// How many of them were unmapped.
    pub unmapped: u64,
}

impl Dropped {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl Ranges {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Ranges { ranges: Vec::new(), unmapped: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many are unmapped.
    pub fn unmapped(&self) -> u64 {
        self.unmapped
    }

    /// The first that ends above an address.
    fn behind(&self, addr: u64) -> usize {
        self.ranges.partition_point(|range| range.span.end <= addr)
    }

    /// The one that has an address.
    pub fn at(&self, addr: u64) -> Option<&Range> {
        let range = self.ranges.get(self.behind(addr))?;
        (range.span.start <= addr).then_some(range)
    }

    /// The one that has an address, to change it.
    pub fn at_mut(&mut self, addr: u64) -> Option<&mut Range> {
        let index = self.behind(addr);
        let range = self.ranges.get_mut(index)?;
        (range.span.start <= addr).then_some(range)
    }

    /// Those that overlap a span, ascending.
    pub fn in_span(&self, span: Span) -> impl Iterator<Item = &Range> {
        let from = &self.ranges[self.behind(span.start)..];
        from.iter().map(|range| &**range).take_while(move |range| range.span.start < span.end)
    }

    /// Those that overlap a span, ascending, to change them.
    fn in_span_mut(&mut self, span: Span) -> impl Iterator<Item = &mut Range> {
        let first = self.behind(span.start);
        let from = self.ranges[first..].iter_mut();
        from.map(|range| &mut **range).take_while(move |range| range.span.start < span.end)
    }

    /// Takes the pages of a span out, wherever they are valid.
    pub fn clear<H: Host>(&mut self, vm: &Vm<H>, span: Span, zap: &mut Zap) {
        for range in self.in_span_mut(span) {
            range.clear(vm, range.span.clip(span), zap);
        }
    }

    /// The CPU has unmapped a span: the ranges there go as a whole. Returns how many were marked, and
    /// how many of these stay mapped in part.
    pub fn unmap<H: Host>(&mut self, vm: &Vm<H>, span: Span, zap: &mut Zap) -> (u64, u64) {
        let (mut marked, mut partial) = (0, 0);
        for range in self.in_span_mut(span) {
            range.clear(vm, range.span, zap);
            if !range.unmapped {
                range.unmapped = true;
                marked += 1;
                partial += u64::from(!span.contains(range.span));
            }
        }
        self.unmapped += marked;
        (marked, partial)
    }

    /// Whether one more fits without memory.
    fn has_room(&self) -> bool {
        self.ranges.len() < self.ranges.capacity()
    }

    /// Changes to larger storage and leaves the old in its place.
    fn move_into(&mut self, storage: &mut Vec<Box<Range>>) {
        if storage.capacity() <= self.ranges.capacity() {
            return;
        }
        while let Some(range) = self.ranges.pop() {
            let fits = storage.push_within_capacity(range).is_ok();
            debug_assert!(fits, "the storage is larger");
        }
        storage.reverse();
        core::mem::swap(&mut self.ranges, storage);
    }

    fn put(&mut self, range: Box<Range>) {
        let at = self.behind(range.span.start);
        debug_assert!(
            self.ranges.get(at).is_none_or(|next| !next.span.overlaps(range.span)),
            "ranges do not overlap"
        );
        let put = self.ranges.insert(at, range);
        debug_assert!(put.is_ok(), "there is room");
    }

    /// Adds a range.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the range is dropped.
    pub fn insert(lock: &Mutex<Self>, range: Box<Range>) -> Result<(), AllocError> {
        loop {
            let wanted = {
                let mut ranges = lock.lock();
                if ranges.has_room() {
                    ranges.put(range);
                    return Ok(());
                }
                (2 * ranges.len()).max(8)
            };
            let mut storage = Vec::with_capacity(wanted)?;
            lock.lock().move_into(&mut storage);
        }
    }

    /// Takes the unmapped ones out, as many as there is room for.
    pub fn take_unmapped(&mut self, into: &mut Vec<Box<Range>>) {
        let mut at = 0;
        while at < self.ranges.len() && into.len() < into.capacity() {
            if !self.ranges[at].unmapped {
                at += 1;
                continue;
            }
            let range = self.ranges.remove(at);
            let fits = into.push_within_capacity(range).is_ok();
            debug_assert!(fits, "asked before");
            self.unmapped -= 1;
        }
    }

    /// Takes all out after `each` has seen them.
    pub fn take_all(&mut self, mut each: impl FnMut(&mut Range)) -> Dropped {
        self.ranges.iter_mut().for_each(|range| each(range));
        let ranges = core::mem::take(&mut self.ranges);
        Dropped { ranges, unmapped: core::mem::take(&mut self.unmapped) }
    }
}

impl Default for Ranges {
    fn default() -> Self {
        Self::new()
    }
}
