//! What a dmirror file mirrors: a page table whose pages are all small, with a tag each.
//!
//! Owns the entries and what the world holds for them. The lock around it is the caller's.

use crate::facade::AllocError;
use crate::gpuva::Span;
use crate::host::{Aperture, BusError, Host, Phys};
use crate::pgtable::{
    Leave, PageTable, Props, Run, Source, Stock, Target, SIZE_2M, SIZE_4K, VA_END,
};

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

/// Ranges that are tried as a whole when they are empty.
const SKIPS: [u64; 3] = [1 << 39, 1 << 30, SIZE_2M];

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

    /// What is at an address.
    pub(super) fn walk(&self, addr: u64) -> Option<(Phys, Tag)> {
        let entry = self.pages.walk(addr)?;
        let Target::Memory(phys) = entry.target else { return None };
        let tag = match entry.kind {
            1 => Tag::Write,
            2 => Tag::Atomic,
            _ => Tag::Read,
        };
        Some((phys, tag))
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
        self.erase(host, span, stock);
        let page = |offset| pages[(offset / SIZE_4K) as usize];
        let mut runs = |offset| Run { phys: page(offset), len: SIZE_4K };
        let source = Source::Memory { offset: 0, runs: &mut runs };
        let readonly = tag == Tag::Read;
        let props = Props { readonly, kind: tag as u8, ..Props::default() };
        self.pages.map(span, source, props, stock).map(|_| ())
    }

    /// Forgets a range. Allocates nothing.
    pub(super) fn erase<H: Host>(&mut self, host: &H, span: Span, stock: &mut Stock) {
        let span = span.clip(Span::new(0, VA_END));
        let mut addr = span.start;
        let mut found = false;
        while addr < span.end {
            match self.walk(addr) {
                Some((phys, _)) => {
                    found = true;
                    release(host, phys);
                    addr += SIZE_4K;
                }
                None => addr = self.skip(addr, span.end),
            }
        }
        if found {
            // Small pages are taken out without new nodes.
            let done = self.pages.unmap(span, Leave::Nothing, stock);
            debug_assert!(done.is_ok(), "an unmap of small pages took nodes");
        }
    }

    /// The next address that may have a page.
    fn skip(&self, addr: u64, end: u64) -> u64 {
        if addr + SIZE_4K == end {
            return end;
        }
        for size in SKIPS {
            let piece = Span::new(addr, (addr / size + 1).saturating_mul(size).min(end));
            if self.pages.count(piece) == [0; 3] {
                return piece.end;
            }
        }
        addr + SIZE_4K
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
        let mut done = 0;
        for page in buf.chunks_exact_mut(SIZE_4K as usize) {
            let Some((phys, _)) = self.walk(start + done * SIZE_4K) else { break };
            host.gpu_read(phys, page)?;
            done += 1;
        }
        Ok(done)
    }

    /// Writes pages as long as they are there and may be written; gives their number.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub(super) fn write<H: Host>(&self, host: &H, start: u64, buf: &[u8]) -> Result<u64, BusError> {
        let mut done = 0;
        for page in buf.chunks_exact(SIZE_4K as usize) {
            let Some((phys, Tag::Write)) = self.walk(start + done * SIZE_4K) else { break };
            host.gpu_write(phys, page)?;
            done += 1;
        }
        Ok(done)
    }
}

/// Gives back what the world holds for an entry.
pub(super) fn release<H: Host>(host: &H, phys: Phys) {
    if phys.aperture == Aperture::System {
        host.dma_unmap_page(phys.addr, 0);
    }
}
