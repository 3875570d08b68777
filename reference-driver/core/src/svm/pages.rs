//! Filling ranges: from the CPU's address space to page-table entries.
//!
//! Owns the retry loop that all of it rests on, as `drm_gpusvm_get_pages`: take a sequence number, read
//! the address space, then, under the lock that invalidations take, ask whether the number still holds;
//! only then are pages mapped for DMA and entries written. What they need of memory is there before.

use fencepost_uapi::fencepost::{INJECT_DMA_MAP, PAGE_SIZE, SVM_ATOMIC_CPU, SVM_ATOMIC_DEVICE};
use fencepost_uapi::Errno;

use super::bits::Bits;
use super::range::{Page, Range, Ranges, Zap};
use super::{Inside, OWNER};
use crate::counters::Counter;
use crate::debug::delay::Point;
use crate::facade::Vec;
use crate::gpuva::Span;
use crate::host::mirror::{Pfn, Want};
use crate::host::Host;
use crate::pgtable::{Need, Stock};

/// How long the address space may change all the time until the caller is told, as
/// `HMM_RANGE_DEFAULT_TIMEOUT`.
const TIMEOUT_NS: u64 = 1_000_000_000;
/// How often, for worlds without time.
const TRIES: u32 = 1000;

/// What is asked of pages.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// Where they are; within one range.
    pub span: Span,
    /// Which; counted from the start of the span.
    asked: Bits,
    /// Of these, those that are to be written.
    write: Bits,
    /// `SVM_ATOMIC_*`: what atomics of the device may do.
    pub atomic: u64,
}

impl Fill {
    /// All pages of a span alike.
    pub fn new(span: Span, write: bool, atomic: u64) -> Self {
        let asked = Bits::range(0..(span.len() / PAGE_SIZE) as usize);
        Fill { span, asked, write: if write { asked } else { Bits::default() }, atomic }
    }

    /// Asks for a page behind the start, whatever was asked of it before.
    pub fn ask(&mut self, page: u64, write: bool) {
        self.span.end = self.span.end.max(page + PAGE_SIZE);
        let index = ((page - self.span.start) / PAGE_SIZE) as usize;
        self.asked.put(index, true);
        self.write.put(index, write);
    }

    /// One page of these alone.
    pub fn only(&self, page: u64) -> Self {
        let index = ((page - self.span.start) / PAGE_SIZE) as usize;
        Fill::new(Span::new(page, page + PAGE_SIZE), self.write.has(index), self.atomic)
    }

    /// What is asked of every page, if that is the same.
    fn default_flags(&self) -> Option<u64> {
        let all = Bits::range(0..(self.span.len() / PAGE_SIZE) as usize);
        match self.asked == all {
            true if self.write == all => Some(Pfn::VALID | Pfn::WRITE),
            true if self.write == Bits::default() => Some(Pfn::VALID),
            _ => None,
        }
    }

    /// What is asked of a page where that differs.
    fn request(&self, index: usize) -> Pfn {
        match (self.asked.has(index), self.write.has(index)) {
            (false, _) => Pfn::default(),
            (true, false) => Pfn(Pfn::VALID),
            (true, true) => Pfn(Pfn::VALID | Pfn::WRITE),
        }
    }

    /// The parts that are asked for, with where they are in the span.
    fn parts(&self) -> impl Iterator<Item = (Span, core::ops::Range<usize>)> + '_ {
        let addr = |index: usize| self.span.start + index as u64 * PAGE_SIZE;
        self.asked.runs().map(move |run| (Span::new(addr(run.start), addr(run.end)), run))
    }
}

/// What came of one try.
enum Tried {
    Done,
    /// The address space has changed meanwhile.
    Retry,
    /// There is memory of another device.
    Remote,
}

/// The patience of a retry loop.
pub struct Patience {
    until_ns: u64,
    tries: u32,
}

impl Patience {
    /// From now on.
    pub fn new(host: &impl Host) -> Self {
        Patience { until_ns: host.now_ns().saturating_add(TIMEOUT_NS), tries: 0 }
    }

    /// One more try.
    ///
    /// # Errors
    /// `EBUSY` when it was long enough.
    pub fn again<H: Host>(&mut self, inside: &Inside<'_, H>) -> Result<(), Errno> {
        let dev = inside.dev();
        dev.counters.inc(Counter::SvmRetries);
        self.tries += 1;
        match self.tries < TRIES && dev.host.now_ns() < self.until_ns {
            true => Ok(()),
            false => Err(Errno::BUSY),
        }
    }
}

impl<H: Host> Inside<'_, H> {
    /// Makes pages valid and writes their page-table entries, whatever was there.
    ///
    /// # Errors
    /// `EFAULT`: no mapping or no permission at all;
    /// `EAGAIN`: the range is unmapped; `EPERM`: a page that may not be written; `EOPNOTSUPP`: the range
    /// would be in both memories and must not; `EBUSY`: the address space does not stand still; `ENOMEM`;
    /// `EINTR`.
    pub fn fill(&self, fill: Fill) -> Result<(), Errno> {
        let mut pages: Vec<Pfn> = Vec::new();
        pages.resize((fill.span.len() / PAGE_SIZE) as usize, Pfn::default())?;
        let mut stock = self.vm.space().spares.draw(Need::map(fill.span))?;
        let filled = self.fill_with(fill, &mut pages, &mut stock);
        self.vm.space().spares.give_back(stock);
        filled
    }

    fn fill_with(&self, fill: Fill, pages: &mut [Pfn], stock: &mut Stock) -> Result<(), Errno> {
        let host = &self.dev().host;
        let mut patience = Patience::new(host);
        let mut want = match fill.default_flags() {
            Some(default_flags) => Want { default_flags, mask: 0, owner: OWNER },
            None => Want { default_flags: 0, mask: Pfn::VALID | Pfn::WRITE, owner: OWNER },
        };
        loop {
            // What an earlier try left must not ask for anything.
            (0..).zip(pages.iter_mut()).for_each(|(index, page)| *page = fill.request(index));
            let read = self.in_window(fill.span.start, |window| {
                let notifier = window.notifier();
                let seq = host.read_begin(notifier);
                host.range_fault(&self.svm.mm, notifier, seq, fill.span, want, pages)?;
                Ok(seq)
            });
            match read {
                Ok(seq) => {
                    self.dev().delay(Point::SvmRead);
                    match self.commit(fill, seq, pages, stock)? {
                        Tried::Done => return Ok(()),
                        Tried::Retry => {}
                        // Nobody's memory is known: all of it comes back.
                        Tried::Remote => want.owner = 0,
                    }
                }
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(errno),
            }
            patience.again(self)?;
        }
    }

    /// Takes over what was read, if that still holds.
    fn commit(
        &self,
        fill: Fill,
        seq: u64,
        pages: &[Pfn],
        stock: &mut Stock,
    ) -> Result<Tried, Errno> {
        let mut zap = Zap::new();
        self.in_window(fill.span.start, |window| {
            let mut ranges = self.svm.ranges.lock();
            if self.dev().host.read_retry(window.notifier(), seq) {
                return Ok(Tried::Retry);
            }
            let range = usable(&mut ranges, fill.span.start)?;
            let mut asked = fill.parts().flat_map(|(_, run)| &pages[run]);
            if asked.any(|page| self.is_remote(*page)) {
                return Ok(Tried::Remote);
            }
            if !self.svm.tunes.mixed && mixes(range, &fill, pages) {
                return Err(Errno::OPNOTSUPP);
            }
            let mut write = |(part, run): (Span, core::ops::Range<usize>)| {
                range.clear(self.vm, part, &mut zap);
                self.record(range, part, fill.atomic, &pages[run])?;
                Ok(range.show(self.dev(), &mut self.vm.mmu(), part, stock)?)
            };
            let written: Result<(), Errno> = fill.parts().try_for_each(&mut write);
            match written {
                Ok(()) => self.dev().counters.inc(Counter::SvmFills),
                Err(_) => fill.parts().for_each(|(part, _)| range.clear(self.vm, part, &mut zap)),
            }
            written.map(|()| Tried::Done)
        })
    }

    /// Whether a page is in the memory of another device.
    pub fn is_remote(&self, page: Pfn) -> bool {
        page.has(Pfn::VALID | Pfn::DEVICE) && page.device() != self.dev().host.device()
    }

    /// Records pages in their range, mapping those of system memory for DMA.
    fn record(
        &self,
        range: &mut Range,
        part: Span,
        atomic: u64,
        pages: &[Pfn],
    ) -> Result<(), Errno> {
        let dev = self.dev();
        let mut at = 0;
        while at < pages.len() {
            let page = pages[at];
            let addr = part.start + at as u64 * PAGE_SIZE;
            if !page.has(Pfn::VALID) || page.has(Pfn::ERROR) {
                at += 1;
                continue;
            }
            let write = if page.has(Pfn::WRITE) { Page::WRITE } else { 0 };
            let atomic = match (atomic, page.has(Pfn::DEVICE)) {
                (SVM_ATOMIC_CPU, _) => 0,
                (SVM_ATOMIC_DEVICE, _) | (_, true) => Page::ATOMIC,
                _ => 0,
            };
            if page.has(Pfn::DEVICE) {
                range.set(addr, Page::device(page.number(), write | atomic));
                at += 1;
                continue;
            }
            let order = order_at(addr, page.order(), pages.len() - at);
            self.svm.inject(dev, INJECT_DMA_MAP, Errno::NOMEM)?;
            let dma = dev.host.dma_map_page(&self.svm.mm, page, order)?;
            dev.counters.add(Counter::LiveDmaPages, 1 << order);
            range.set(addr, Page::head(dma, order, write | atomic));
            for next in 1..1u64 << order {
                let by = next * PAGE_SIZE;
                range.set(addr + by, Page::tail(dma + by, write | atomic));
            }
            at += 1 << order;
        }
        Ok(())
    }

    /// Brings all of a range to system memory: the GPU is not to have it in two.
    ///
    /// # Errors
    /// As [`Inside::to_system`].
    pub fn unmix(&self, range: Span) -> Result<(), Errno> {
        self.dev().counters.inc(Counter::SvmMixed);
        self.to_system(range).map(drop)
    }

    /// Reads what the CPU has, without faulting anything in, in an open window; `also` is called under
    /// the lock under which it holds.
    ///
    /// # Errors
    /// `EFAULT`: the address space has ended; `EBUSY`: it does not stand still.
    pub fn snapshot(
        &self,
        span: Span,
        pages: &mut [Pfn],
        mut also: impl FnMut(&Ranges),
    ) -> Result<(), Errno> {
        let host = &self.dev().host;
        let mut patience = Patience::new(host);
        let want = Want { owner: OWNER, ..Want::default() };
        loop {
            pages.fill(Pfn::default());
            let read = self.in_window(span.start, |window| {
                let notifier = window.notifier();
                let seq = host.read_begin(notifier);
                host.range_fault(&self.svm.mm, notifier, seq, span, want, pages)?;
                let ranges = self.svm.ranges.lock();
                let holds = !host.read_retry(notifier, seq);
                if holds {
                    also(&ranges);
                }
                Ok(holds)
            });
            match read {
                Ok(true) => return Ok(()),
                Ok(false) | Err(Errno::BUSY) => patience.again(self)?,
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// The range that has an address, if it may be filled.
///
/// # Errors
/// `EAGAIN`: it is unmapped: collect and look again.
pub fn usable(ranges: &mut Ranges, addr: u64) -> Result<&mut Range, Errno> {
    ranges.at_mut(addr).filter(|range| !range.unmapped).ok_or(Errno::AGAIN)
}

/// Whether a range has pages in both memories once these are in it.
fn mixes(range: &Range, fill: &Fill, pages: &[Pfn]) -> bool {
    let index = |addr: u64| addr.checked_sub(fill.span.start).map(|by| (by / PAGE_SIZE) as usize);
    let stays = |addr: u64| !index(addr).is_some_and(|index| fill.asked.has(index));
    let has = |device: bool| {
        let is = |page: &Pfn| page.has(Pfn::VALID) && page.has(Pfn::DEVICE) == device;
        fill.parts().any(|(_, run)| pages[run].iter().any(is)) || range.has_any(device, stays)
    };
    has(true) && has(false)
}

/// The largest order at an address: no larger than the CPU maps it, aligned, and within `rest` pages.
fn order_at(addr: u64, map_order: u32, rest: usize) -> u32 {
    let aligned = (addr / PAGE_SIZE).trailing_zeros();
    map_order.min(aligned).min(rest.ilog2())
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn orders_are_those_of_the_cpu_clipped_to_the_range() {
        let cases = [
            ((0x20_0000, 9, 512), 9),
            ((0x20_0000, 9, 511), 8),
            ((0x20_1000, 9, 511), 0),
            ((0x20_2000, 9, 510), 1),
            ((0x21_0000, 4, 16), 4),
            ((0x20_0000, 0, 512), 0),
            ((0, 9, 512), 9),
        ];
        for ((addr, order, rest), expected) in cases {
            assert_eq!(order_at(addr, order, rest), expected, "{addr:#x} {order} {rest}");
        }
    }
}
