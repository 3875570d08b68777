//! How ranges come about.
//!
//! Owns the choice of a range for an address: the rules and errors of `drm_gpusvm_range_find_or_insert`.
//! What is in its pages is [`super::pages`]'s.

use fencepost_uapi::fencepost::PAGE_SIZE;
use fencepost_uapi::Errno;

use super::range::{Range, Ranges};
use super::Inside;
use crate::counters::Counter;
use crate::facade::Vec;
use crate::gpuva::Span;
use crate::host::mirror::{Pfn, Vma};
use crate::host::Host;
use crate::pgtable::{SIZE_2M, SIZE_64K};

impl<H: Host> Inside<'_, H> {
    /// The range that has an address of a mirror, made if there is none. A range that is there is
    /// returned as it is, even if another size would fit by now.
    ///
    /// # Errors
    /// `ENOENT`: the CPU has no mapping there; `EPERM`: none that may be written; `EFAULT`: none that
    /// may be accessed, or the address space has ended; `EIO`: memory of a device; `EAGAIN`: it was just
    /// unmapped: collect and try again; `EINVAL`: no size of range fits; `ENOMEM`.
    pub fn find_or_insert(&self, addr: u64, write: bool, mirror: Span) -> Result<Span, Errno> {
        if let Some(found) = self.find(addr) {
            return found;
        }
        let vma = self.dev().host.vma(&self.svm.mm, addr)?;
        if vma.device {
            return Err(Errno::IO);
        }
        if !vma.read && !vma.write {
            return Err(Errno::FAULT);
        }
        if write && !vma.write {
            return Err(Errno::PERM);
        }
        self.open_window(addr)?;
        let made = self.insert(addr, &vma, mirror);
        if made.is_err() {
            self.close_window(addr);
        }
        made
    }

    fn find(&self, addr: u64) -> Option<Result<Span, Errno>> {
        let ranges = self.svm.ranges.lock();
        let range = ranges.at(addr)?;
        Some(if range.unmapped { Err(Errno::AGAIN) } else { Ok(range.span()) })
    }

    fn insert(&self, addr: u64, vma: &Vma, mirror: Span) -> Result<Span, Errno> {
        let limits = vma.span.clip(mirror).clip(self.window_of(addr));
        let span = self.choose(addr, limits)?.ok_or(Errno::INVAL)?;
        Ranges::insert(&self.svm.ranges, Range::new(span)?)?;
        let counters = &self.dev().counters;
        counters.inc(Counter::LiveSvmRanges);
        counters.inc(Counter::SvmRanges);
        counters.inc(match span.len() {
            SIZE_2M => Counter::SvmRanges2m,
            SIZE_64K => Counter::SvmRanges64k,
            _ => Counter::SvmRanges4k,
        });
        Ok(span)
    }

    /// The largest aligned chunk around an address that fits.
    fn choose(&self, addr: u64, limits: Span) -> Result<Option<Span>, Errno> {
        for size in self.svm.tunes.sizes() {
            let start = addr & !(size - 1);
            let Some(span) = Span::sized(start, size).filter(|span| limits.contains(*span)) else {
                continue;
            };
            if self.svm.ranges.lock().in_span(span).next().is_some() {
                continue;
            }
            let checked = size > PAGE_SIZE && size <= self.svm.tunes.check_pages;
            if !checked || self.is_populated(span)? {
                return Ok(Some(span));
            }
        }
        Ok(None)
    }

    /// Whether the CPU has every page of a span in an open window.
    fn is_populated(&self, span: Span) -> Result<bool, Errno> {
        let mut pages = Vec::new();
        pages.resize((span.len() / PAGE_SIZE) as usize, Pfn::default())?;
        self.snapshot(span, &mut pages, |_| ())?;
        Ok(pages.iter().all(|page| page.has(Pfn::VALID)))
    }
}
