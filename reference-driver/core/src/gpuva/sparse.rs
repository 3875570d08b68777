//! Sparse regions, with nouveau's rules (`nouveau_uvmm.c`): a second tree beside that of mappings.
//!
//! Reads of an unbacked part of a region give 0 and writes are dropped. Mappings inside take
//! precedence; where one is unmapped the sparse behaviour comes back. A mapping lies in one region
//! as a whole or in none. A region that is being removed is *dirty* until the page tables no longer
//! show it: it takes no mapping, cannot be removed twice, and still keeps its range from other
//! regions.

use super::change::Log;
use super::tree::Entry;
use super::{Changes, Manager, Object, Op, Span};
use fencepost_uapi::Errno;

/// A region's record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Region {
    pub(super) span: Span,
    pub(super) dirty: bool,
    /// Next entry of the change log after this region's insertion and after it became dirty.
    pub(super) log: [u32; 2],
}

impl<O: Object> Manager<O> {
    /// The sparse regions that overlap `span`, ascending; dirty ones are left out.
    pub fn regions(&self, span: Span) -> impl Iterator<Item = Span> + '_ {
        let all = self.region_tree.iter(span);
        all.filter(|entry| !self.regions[entry.record].dirty).map(|entry| entry.span)
    }

    /// Whether `span`, which is that of a mapping, lies in a sparse region that is not being
    /// removed.
    pub fn in_sparse(&self, span: Span) -> bool {
        self.regions(span).next().is_some()
    }

    /// Whether a mapping may go to `span`, and whether that is in a region.
    ///
    /// `EINVAL`: the first region there is dirty. `ENOSPC`: the mapping would cross a region's
    /// edge.
    pub(super) fn check_sparse(&self, span: Span) -> Result<bool, Errno> {
        let Some(entry) = self.region_tree.iter(span).next() else { return Ok(false) };
        if self.regions[entry.record].dirty {
            return Err(Errno::INVAL);
        }
        if entry.span.contains(span) {
            Ok(true)
        } else {
            Err(Errno::NOSPC)
        }
    }

    /// Makes a sparse region.
    ///
    /// # Errors
    /// `EINVAL`: [`Manager::check`]. `EEXIST`: it overlaps a region. `ENOSPC`: it overlaps a
    /// mapping. `ENOMEM`.
    pub fn map_sparse(&mut self, span: Span, changes: &mut Changes) -> Result<(), Errno> {
        self.check(span)?;
        if self.region_tree.iter(span).next().is_some() {
            return Err(Errno::EXIST);
        }
        if self.tree.iter(span).next().is_some() {
            return Err(Errno::NOSPC);
        }
        self.regions.reserve(1)?;
        self.region_tree.reserve(1)?;
        let record =
            self.regions.insert(Region { span, dirty: false, log: [super::arena::NONE; 2] });
        self.region_tree.insert(Entry { span, record });
        self.log(changes, Log::RegionAdded(record));
        Ok(())
    }

    /// Removes a sparse region and every mapping in it, which `each` is told of. The region stays
    /// dirty until [`Manager::release`].
    ///
    /// # Errors
    /// `EINVAL`: [`Manager::check`]. `ENOENT`: there is no region of exactly this range, or it is
    /// dirty. No memory is needed.
    pub fn unmap_sparse(
        &mut self,
        span: Span,
        changes: &mut Changes,
        each: impl FnMut(&Op<&O>),
    ) -> Result<(), Errno> {
        self.check(span)?;
        let entry = self.region_tree.first_after(span.start).filter(|entry| entry.span == span);
        let record = entry.ok_or(Errno::NOENT)?.record;
        if self.regions[record].dirty {
            return Err(Errno::NOENT);
        }
        // Every mapping in a region lies within it, so none is cut and nothing need be reserved.
        self.clear_way(span, None, changes, each);
        self.regions[record].dirty = true;
        self.log(changes, Log::RegionDirtied(record));
        Ok(())
    }
}
