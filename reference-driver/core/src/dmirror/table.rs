//! What a dmirror file mirrors: a page table whose pages are all small, with a tag each.
//!
//! Owns the entries and what the world holds for them. The lock around it is the caller's.

use core::ops::ControlFlow;

use crate::facade::AllocError;
use crate::gpuva::Span;
use crate::host::{Aperture, BusError, Host, Phys};
use crate::pgtable::{Entry, Leave, PageTable, Props, Run, Source, Stock, Target, SIZE_4K, VA_END};

/// What may be done with a page of the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// Read.
    Read = 0,
    /// Read and write.
    Write = 1,
    /// It is exclusive to the device; by the interface it is read, and counts as absent for writes.
    Atomic = 2,
}

/// The mirror of one file.
pub(super) struct Table {
    pages: PageTable,
}

impl Table {
    /// Mirrors nothing.
    ///
    /// # Errors
    /// [`AllocError`].
    pub(super) fn new() -> Result<Self, AllocError> {
        Ok(Table { pages: PageTable::new()? })
    }

    /// Shows pages from an address on, in place of what was there. The stock holds what a map of them
    /// needs.
    ///
    /// # Errors
    /// [`AllocError`]: it does not; the pages are the caller's still.
    pub(super) fn map<H: Host>(
        &mut self,
        host: &H,
        addr: u64,
        pages: &[Phys],
        tag: Tag,
        stock: &mut Stock,
    ) -> Result<(), AllocError> {
        let span = Span::new(addr, addr + pages.len() as u64 * SIZE_4K);
        let page = |offset| pages[(offset / SIZE_4K) as usize];
        let mut runs = |offset| Run { phys: page(offset), len: SIZE_4K };
        let source = Source::Memory { offset: 0, runs: &mut runs };
        let readonly = tag == Tag::Read;
        let props = Props { readonly, kind: tag as u8, ..Props::default() };
        let mut gone = |phys| release(host, phys);
        self.pages.map_over(span, source, props, stock, &mut gone).map(|_| ())
    }

    /// Forgets a range. Allocates nothing.
    pub(super) fn erase<H: Host>(&mut self, host: &H, span: Span, stock: &mut Stock) {
        let span = span.clip(Span::new(0, VA_END));
        if span.is_empty() {
            return;
        }
        let mut gone = |phys| release(host, phys);
        // Small pages are taken out without new nodes.
        let done = self.pages.take(span, Leave::Nothing, stock, &mut gone);
        debug_assert!(done.is_ok(), "an unmap of small pages took nodes");
    }

    /// Whether a page of a range is exclusive.
    pub(super) fn has_exclusive(&self, span: Span) -> bool {
        let walked = self.pages.each(span, |entry| match page(&entry) {
            Some((_, Tag::Atomic)) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        walked.is_break()
    }

    /// Reads pages as long as they are there, into `buf`; gives their number.
    ///
    /// # Errors
    /// [`BusError`]: an entry leads nowhere.
    pub(super) fn read<H: Host>(
        &self,
        host: &H,
        start: u64,
        buf: &mut [u8],
    ) -> Result<u64, BusError> {
        let span = Span::new(start, start + buf.len() as u64);
        let mut parts = buf.chunks_exact_mut(SIZE_4K as usize);
        self.run(span, |phys, _| parts.next().map(|part| host.gpu_read(phys, part)))
    }

    /// Writes pages as long as they are there and may be written; gives their number.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub(super) fn write<H: Host>(&self, host: &H, start: u64, buf: &[u8]) -> Result<u64, BusError> {
        let span = Span::new(start, start + buf.len() as u64);
        let mut parts = buf.chunks_exact(SIZE_4K as usize);
        self.run(span, |phys, tag| {
            let part = parts.next().filter(|_| tag == Tag::Write);
            part.map(|part| host.gpu_write(phys, part))
        })
    }

    /// Does something with the pages of a range as long as they are there and `one` takes them; gives
    /// their number.
    fn run(
        &self,
        span: Span,
        mut one: impl FnMut(Phys, Tag) -> Option<Result<(), BusError>>,
    ) -> Result<u64, BusError> {
        let mut done = 0;
        let walked = self.pages.each(span, |entry| {
            let here = page(&entry).filter(|_| entry.span.start == span.start + done * SIZE_4K);
            match here.and_then(|(phys, tag)| one(phys, tag)) {
                Some(Ok(())) => done += 1,
                Some(Err(error)) => return ControlFlow::Break(Err(error)),
                None => return ControlFlow::Break(Ok(())),
            }
            ControlFlow::Continue(())
        });
        match walked {
            ControlFlow::Break(Err(error)) => Err(error),
            _ => Ok(done),
        }
    }
}

/// What an entry shows.
fn page(entry: &Entry) -> Option<(Phys, Tag)> {
    let Target::Memory(phys) = entry.target else { return None };
    let tag = match entry.kind {
        1 => Tag::Write,
        2 => Tag::Atomic,
        _ => Tag::Read,
    };
    Some((phys, tag))
}

/// Gives back what the world holds for an entry.
pub(super) fn release<H: Host>(host: &H, phys: Phys) {
    if phys.aperture == Aperture::System {
        host.dma_unmap_page(phys.addr, 0);
    }
}
