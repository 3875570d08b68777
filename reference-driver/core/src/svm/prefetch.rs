//! Prefetch and madvise over mirrors.
//!
//! Owns the moving and mapping of pages before anything asks for them. Nothing here fails for what an
//! address space has or lacks: an access will find out.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::Errno;

use super::fault::Asked;
use super::Inside;
use crate::counters::Counter;
use crate::facade::Vec;
use crate::gpuva::Span;
use crate::host::Host;
use crate::vm::mmu::Access;

impl<H: Host> Inside<'_, H> {
    /// The mirrors in a span.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn mirrors(&self, span: Span) -> Result<Vec<Span>, Errno> {
        let mut mirrors = Vec::new();
        let space = self.vm.space();
        for mapping in space.manager.iter(span).filter(|mapping| mapping.attrs.is_mirror()) {
            mirrors.push(mapping.span)?;
        }
        Ok(mirrors)
    }

    /// Moves what the mirrors in a span have to a region, and maps it.
    ///
    /// # Errors
    /// `ENOMEM`; `EINTR`.
    pub fn prefetch(&self, span: Span, region: u32) -> Result<(), Errno> {
        for mirror in self.mirrors(span)? {
            let part = mirror.clip(span);
            let moved = match region {
                fp::REGION_VRAM => self.to_device(part),
                _ => self.to_system(part),
            };
            match moved {
                Err(Errno::INTR) => return Err(Errno::INTR),
                _ => self.map_all(part, mirror)?,
            }
        }
        Ok(())
    }

    /// Maps what the CPU has in a part of a mirror.
    fn map_all(&self, part: Span, mirror: Span) -> Result<(), Errno> {
        let mut at = part.start;
        while at < part.end {
            let Ok(vma) = self.dev().host.next_vma(&self.svm.mm, at) else { break };
            at = at.max(vma.span.start);
            let end = vma.span.end.min(part.end);
            while at < end {
                at = match self.map_one(at, vma.write, mirror) {
                    Ok(range) => {
                        self.dev().counters.inc(Counter::SvmPrefetched);
                        range.end
                    }
                    Err(Errno::INTR) => return Err(Errno::INTR),
                    // Whatever is the matter with it.
                    Err(_) => at + fp::PAGE_SIZE,
                };
            }
        }
        Ok(())
    }

    /// Maps the range around an address.
    fn map_one(&self, addr: u64, write: bool, mirror: Span) -> Result<Span, Errno> {
        let access = if write { Access::Write } else { Access::Read };
        let range = self.find_or_insert(addr, write, mirror)?;
        self.touch(range, &Asked { page: addr, access, mirror, batch: &[] })?;
        Ok(range)
    }

    /// The region that accesses in mirrors of a span move pages to from now on.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn prefer(&self, span: Span, region: u32) -> Result<(), Errno> {
        for mirror in self.mirrors(span)? {
            self.set_attr(mirror.clip(span), fp::SVM_ATTR_PREFERRED, region.into())?;
        }
        Ok(())
    }
}
