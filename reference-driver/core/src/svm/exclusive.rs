//! Exclusive access: pages of system memory that for a while only the device may touch.
//!
//! Owns the acquiring; until the CPU touches a page again the record of it says that atomics may be done.
//! Its end is an invalidation like any other. The sequence number is taken before the page is: the
//! device's own event does not count, whatever else happens to the page does.

use fencepost_uapi::fencepost::{INJECT_DMA_MAP, PAGE_SIZE};
use fencepost_uapi::Errno;

use super::fault::Asked;
use super::pages::{usable, Patience};
use super::range::{Page, Zap};
use super::{exclusive_owner, Inside};
use crate::counters::Counter;
use crate::debug::delay::Point;
use crate::gpuva::Span;
use crate::host::mirror::{Pfn, Want};
use crate::host::Host;
use crate::pgtable::{Need, Stock};
use crate::vm::mmu::Access;

impl<H: Host> Inside<'_, H> {
    /// Makes a page of a mirror exclusive to the device and maps it for atomics.
    ///
    /// # Errors
    /// Those of [`Inside::find_or_insert`] and `make_exclusive`; `EBUSY`: not to be had within a second.
    pub fn make_exclusive(&self, page: u64, mirror: Span) -> Result<(), Errno> {
        let host = &self.dev().host;
        let span = Span::new(page, page + PAGE_SIZE);
        let mut patience = Patience::new(host);
        loop {
            let range = match self.find_or_insert(page, true, mirror) {
                Err(Errno::AGAIN) => {
                    patience.again(self)?;
                    self.collect();
                    continue;
                }
                found => found?,
            };
            if !self.svm.tunes.mixed && self.has_device_beside(range, page) {
                self.unmix(range)?;
            }
            let mut stock = self.vm.space().spares.draw(Need::map(span))?;
            let tried = self.try_exclusive(span, &mut stock);
            self.vm.space().spares.give_back(stock);
            match tried {
                Ok(true) => {
                    self.dev().counters.inc(Counter::SvmExclusive);
                    return Ok(());
                }
                Ok(false) | Err(Errno::BUSY | Errno::AGAIN) => patience.again(self)?,
                Err(errno) => return Err(errno),
            }
            self.make_ordinary(span)?;
        }
    }

    fn has_device_beside(&self, range: Span, page: u64) -> bool {
        let ranges = self.svm.ranges.lock();
        ranges.at(range.start).is_some_and(|range| range.has_any(true, |addr| addr != page))
    }

    /// Lets a page be one that the CPU may write. An exclusive one, one that is shared and one in device
    /// memory would have to change for [`Inside::try_exclusive`], which would not get anywhere.
    fn make_ordinary(&self, span: Span) -> Result<(), Errno> {
        let host = &self.dev().host;
        let want = Want { default_flags: Pfn::VALID | Pfn::WRITE, mask: 0, owner: 0 };
        let mut page = [Pfn::default()];
        let faulted = self.in_window(span.start, |window| {
            let notifier = window.notifier();
            let seq = host.read_begin(notifier);
            host.range_fault(&self.svm.mm, notifier, seq, span, want, &mut page)
        });
        match faulted {
            // What is wrong with it the next try will say.
            Err(Errno::INTR) => Err(Errno::INTR),
            _ => Ok(()),
        }
    }

    /// One try. False: the address space has changed meanwhile.
    fn try_exclusive(&self, span: Span, stock: &mut Stock) -> Result<bool, Errno> {
        let host = &self.dev().host;
        let seq = self.in_window(span.start, |window| Ok(host.read_begin(window.notifier())))?;
        let (page, guard) = host.make_exclusive(&self.svm.mm, span.start, exclusive_owner(host))?;
        self.dev().delay(Point::SvmExclusive);
        let mapped = self.commit_exclusive(span, seq, page, stock);
        // From here on the CPU may have it back.
        drop(guard);
        mapped
    }

    fn commit_exclusive(
        &self,
        span: Span,
        seq: u64,
        page: Pfn,
        stock: &mut Stock,
    ) -> Result<bool, Errno> {
        let dev = self.dev();
        let mut zap = Zap::new();
        self.in_window(span.start, |window| {
            let mut ranges = self.svm.ranges.lock();
            if dev.host.read_retry(window.notifier(), seq) {
                return Ok(false);
            }
            let range = usable(&mut ranges, span.start)?;
            range.clear(self.vm, span, &mut zap);
            self.svm.inject(dev, INJECT_DMA_MAP, Errno::NOMEM)?;
            let dma = dev.host.dma_map_page(&self.svm.mm, page, 0)?;
            dev.counters.inc(Counter::LiveDmaPages);
            let flags = Page::WRITE | Page::ATOMIC | Page::EXCLUSIVE;
            range.set(span.start, Page::head(dma, 0, flags));
            let shown = range.show(dev, &mut self.vm.mmu(), span, stock);
            if shown.is_err() {
                range.clear(self.vm, span, &mut zap);
            }
            Ok(shown.map(|()| true)?)
        })
    }

    /// Lets atomics be done on a page: in device memory they can; a page of system memory becomes
    /// exclusive.
    ///
    /// # Errors
    /// As [`Inside::make_exclusive`].
    pub fn allow_atomic(&self, range: Span, asked: &Asked<'_, H>) -> Result<(), Errno> {
        let page = asked.page;
        let mut now = [Pfn::default()];
        self.snapshot(Span::new(page, page + PAGE_SIZE), &mut now, |_| ())?;
        if now[0].has(Pfn::VALID | Pfn::DEVICE) && !self.is_remote(now[0]) {
            self.touch(range, asked)?;
            // Unless it had to leave, since not all of its range is there.
            if self.is_shown(page, Access::Atomic) {
                return Ok(());
            }
        }
        self.make_exclusive(page, asked.mirror)
    }
}
