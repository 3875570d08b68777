//! What CPU and GPU have at each page.
//!
//! Owns the bits of the query call. It reads both under one lock, so that what it says was true at one
//! moment, for each 2 MiB.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::PAGE_SIZE;
use fencepost_uapi::Errno;

use super::range::Ranges;
use super::Inside;
use crate::facade::Vec;
use crate::gpuva::Span;
use crate::host::mirror::Pfn;
use crate::host::Host;
use crate::pgtable::SIZE_2M;
use crate::vm::Vm;

impl<H: Host> Inside<'_, H> {
    /// The bits of each page of a span.
    ///
    /// # Errors
    /// As documented with `SvmQuery`.
    pub fn query(&self, span: Span) -> Result<Vec<u8>, Errno> {
        let mut all = Vec::with_capacity((span.len() / PAGE_SIZE * 4) as usize)?;
        let mut pages: Vec<Pfn> = Vec::new();
        pages.resize((SIZE_2M / PAGE_SIZE) as usize, Pfn::default())?;
        let mut bits: Vec<u32> = Vec::new();
        bits.resize(pages.len(), 0)?;
        let mut at = span.start;
        while at < span.end {
            let end = ((at | (SIZE_2M - 1)) + 1).min(span.end).min(self.window_of(at).end);
            let piece = Span::new(at, end);
            let count = (piece.len() / PAGE_SIZE) as usize;
            self.open_window(at)?;
            let read = self.snapshot(piece, &mut pages[..count], |ranges| {
                look(self.vm, ranges, piece, &mut bits[..count]);
            });
            self.close_window(at);
            read?;
            for (page, gpu) in pages[..count].iter().zip(&bits[..count]) {
                all.extend_from_slice(
                    &(cpu_bits(*page, self.is_remote(*page)) | gpu).to_ne_bytes(),
                )?;
            }
            at = end;
        }
        Ok(all)
    }

    /// Whether any page of a span is in memory of this device.
    ///
    /// # Errors
    /// As [`Inside::query`].
    pub fn any_device(&self, span: Span) -> Result<bool, Errno> {
        Ok(!self.on_device(span)?.is_empty())
    }

    /// The parts of a span that are in memory of this device.
    ///
    /// # Errors
    /// As [`Inside::query`].
    pub fn on_device(&self, span: Span) -> Result<Vec<Span>, Errno> {
        let wanted = fp::SVM_LOCATION_DEVICE << fp::SVM_PAGE_LOCATION_SHIFT;
        let bits = self.query(span)?;
        let mut parts: Vec<Span> = Vec::new();
        let words = bits.chunks_exact(4).filter_map(|raw| raw.try_into().ok());
        for (page, raw) in (span.start..span.end).step_by(PAGE_SIZE as usize).zip(words) {
            if u32::from_ne_bytes(raw) & fp::SVM_PAGE_LOCATION_MASK != wanted {
                continue;
            }
            match parts.last_mut() {
                Some(last) if last.end == page => last.end += PAGE_SIZE,
                _ => parts.push(Span::new(page, page + PAGE_SIZE))?,
            }
        }
        Ok(parts)
    }
}

fn cpu_bits(page: Pfn, is_remote: bool) -> u32 {
    let mut bits = 0;
    if page.has(Pfn::ERROR) {
        return fp::SVM_PAGE_ERROR;
    }
    if !page.has(Pfn::VALID) {
        return 0;
    }
    bits |= fp::SVM_PAGE_READ;
    if page.has(Pfn::WRITE) {
        bits |= fp::SVM_PAGE_WRITE;
    }
    if page.has(Pfn::ZERO) {
        bits |= fp::SVM_PAGE_ZERO;
    }
    let location = match page.has(Pfn::DEVICE) {
        true if is_remote => fp::SVM_LOCATION_OTHER,
        true => fp::SVM_LOCATION_DEVICE,
        false => fp::SVM_LOCATION_SYSTEM,
    };
    bits | location << fp::SVM_PAGE_LOCATION_SHIFT | page.order() << fp::SVM_PAGE_ORDER_SHIFT
}

/// What the GPU has: what is recorded and shown.
fn look<H: Host>(vm: &Vm<H>, ranges: &Ranges, span: Span, bits: &mut [u32]) {
    bits.fill(0);
    for range in ranges.in_span(span).filter(|range| !range.unmapped) {
        let part = range.span().clip(span);
        for addr in (part.start..part.end).step_by(PAGE_SIZE as usize) {
            let index = ((addr - span.start) / PAGE_SIZE) as usize;
            bits[index] = fp::SVM_PAGE_RANGE;
            if range.page(addr).is_none() {
                continue;
            }
            let Some(entry) = vm.mmu().table.walk(addr) else { continue };
            bits[index] |= fp::SVM_PAGE_GPU_READ;
            if entry.allows(true, false) {
                bits[index] |= fp::SVM_PAGE_GPU_WRITE;
            }
            if entry.allows(true, true) {
                bits[index] |= fp::SVM_PAGE_GPU_ATOMIC;
            }
            let order = (entry.span.len() / PAGE_SIZE).ilog2();
            bits[index] |= order << fp::SVM_PAGE_GPU_ORDER_SHIFT;
        }
    }
}
