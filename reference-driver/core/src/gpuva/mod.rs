//! The GPU VA manager: which range of a GPU address space maps what. Behaves as Linux's
//! `drivers/gpu/drm/drm_gpuvm.c`, with nouveau's rules for sparse regions (`nouveau_uvmm.c`).
//!
//! Owns the VA space view: mappings (VAs), sparse regions, the kernel-reserved hole, and for each
//! object the list of its VAs. It knows no page table, no fence and no lock: the caller holds the
//! VM's lock. Every step takes O(log n) time for n mappings.
//!
//! # A bind call
//!
//! 1. *Prepare*, at submission, under the VM lock; may allocate, may fail. For each operation one
//!    of [`Manager::map`], [`Manager::unmap`], [`Manager::unmap_object`], [`Manager::madvise`],
//!    [`Manager::map_sparse`], [`Manager::unmap_sparse`] changes the VA tree at once, so that the
//!    next operation sees it, and tells the caller each elementary [`Op`] before it is done. One
//!    [`Changes`] collects the whole call. Each of them does all or nothing; what it needs is
//!    reserved before the first change.
//! 2. If anything in the call fails, [`Manager::revert`] undoes all of it, newest first, before the
//!    VM lock is dropped. It allocates nothing and cannot fail. Otherwise [`Manager::seal`] makes
//!    the call final and gives [`Removed`]: the VAs that went away, whose objects must stay alive
//!    and whose sparse regions stay reserved until the page tables no longer show them.
//! 3. *Commit*, in the fence path: `crate::pgtable` only; nothing here.
//! 4. *Clean up*, under the VM lock: [`Manager::release`] frees what was removed and hands the
//!    objects that lost their last VA to the caller.
//!
//! Operations that only unmap never fail for lack of memory: a stock of records is kept for them
//! ([`STANDBY`]), which other operations do not touch and which is filled up at each chance.
//!
//! The `*_ops` functions give the same operations as a list and change nothing, as
//! `drm_gpuvm_sm_map_ops_create` does.

mod arena;
mod change;
mod check;
mod objects;
mod ops;
mod sparse;
mod tree;

pub use change::{Changes, Removed};
pub use ops::{Op, Unmap};

use crate::facade::AllocError;
use arena::{Arena, NONE};
use fencepost_uapi::fencepost::BIND_CPU_MIRROR;
use fencepost_uapi::Errno;
use objects::ObjectVas;
use sparse::Region;
use tree::Tree;

/// Records kept for operations that only unmap; each of them needs two at most.
pub const STANDBY: usize = 64;

/// A half-open range of GPU addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
}

impl Span {
    /// [`start`, `end`).
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end }
    }

    /// `range` bytes from `start`; `None` if that is nothing or wraps.
    #[must_use]
    pub fn sized(start: u64, range: u64) -> Option<Self> {
        let end = start.checked_add(range).filter(|_| range > 0)?;
        Some(Self { start, end })
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// Whether it holds no address.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Whether both have an address in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether `other` lies within.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What both have in common; may be empty.
    #[must_use]
    pub fn clip(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }
}

/// What a mapping points to: a buffer object. Clones share identity.
pub trait Object: Clone {
    /// Tells objects apart; never used again for another one, and not `u64::MAX`.
    fn id(&self) -> u64;
    /// A VA of it was added to a VA space.
    fn linked(&self) {}
    /// A VA of it was taken out.
    fn unlinked(&self) {}
}

/// What a mapping carries besides range and object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// `BIND_READONLY`, `BIND_NULL`, `BIND_CPU_MIRROR`.
    pub flags: u32,
    /// Page kind.
    pub kind: u8,
    /// Preferred region, `REGION_*`; 0: none.
    pub preferred: u32,
}

impl Attrs {
    /// Whether the mapping mirrors the CPU's address space.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        self.flags & BIND_CPU_MIRROR != 0
    }
}

/// A mapping, as asked for or as it is. `R` is the object or a reference to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<R> {
    /// The range.
    pub span: Span,
    /// The object; `None`: NULL.
    pub object: Option<R>,
    /// Offset of the range's start in the object, in bytes; 0 without one.
    pub offset: u64,
    /// The rest.
    pub attrs: Attrs,
}

impl<R> Mapping<R> {
    /// The same with a reference to the object.
    pub fn as_ref(&self) -> Mapping<&R> {
        let Self { span, ref object, offset, attrs } = *self;
        Mapping { span, object: object.as_ref(), offset, attrs }
    }

    /// The part of the mapping that lies in `span`.
    #[must_use]
    fn part(self, span: Span) -> Self {
        let delta = if self.object.is_some() { span.start - self.span.start } else { 0 };
        Self { span, offset: self.offset + delta, ..self }
    }
}

impl<O: Clone> Mapping<&O> {
    /// The same with the object itself.
    #[must_use]
    pub fn cloned(&self) -> Mapping<O> {
        Mapping {
            span: self.span,
            object: self.object.cloned(),
            offset: self.offset,
            attrs: self.attrs,
        }
    }
}

/// What [`Manager::map`] found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The mapping lies in a sparse region: where it is unmapped, the sparse behaviour comes back.
    pub in_sparse: bool,
}

/// A VA's record. In the tree, or taken out and held by [`Changes`] or [`Removed`].
#[derive(Clone, Copy, Debug)]
struct Va {
    span: Span,
    offset: u64,
    attrs: Attrs,
    /// Record of its object's list, [`NONE`] without object.
    object: u32,
    /// Neighbours in that list.
    before: u32,
    after: u32,
    /// Next entry of the change log after this VA's insertion and after its removal.
    log: [u32; 2],
    in_tree: bool,
}

/// The VA space of one VM.
#[derive(Debug)]
pub struct Manager<O> {
    span: Span,
    hole: Span,
    tree: Tree,
    vas: Arena<Va, 64>,
    /// Object id to the record of its VAs.
    object_tree: Tree,
    objects: Arena<ObjectVas<O>, 16>,
    region_tree: Tree,
    regions: Arena<Region, 16>,
}

impl<O: Object> Manager<O> {
    /// An empty VA space over `span`, with a hole that the kernel keeps (empty: none).
    ///
    /// # Errors
    /// `EINVAL`: `span` is empty or `hole` not within it. `ENOMEM`.
    pub fn new(span: Span, hole: Span) -> Result<Self, Errno> {
        if span.is_empty() || !hole.is_empty() && !span.contains(hole) {
            return Err(Errno::INVAL);
        }
        let mut new = Self {
            span,
            hole,
            tree: Tree::new(),
            vas: Arena::new(),
            object_tree: Tree::new(),
            objects: Arena::new(),
            region_tree: Tree::new(),
            regions: Arena::new(),
        };
        new.reserve(0)?;
        Ok(new)
    }

    /// The addresses of the VA space, the hole included.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The kernel-reserved hole; empty if there is none.
    pub fn hole(&self) -> Span {
        self.hole
    }

    /// Checks that a request may use a range: `drm_gpuvm_range_valid`.
    ///
    /// # Errors
    /// `EINVAL`: the range is empty, not within the VA space, or overlaps the hole.
    pub fn check(&self, span: Span) -> Result<(), Errno> {
        if span.is_empty() || !self.span.contains(span) {
            return Err(Errno::INVAL);
        }
        if !self.hole.is_empty() && self.hole.overlaps(span) {
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    /// Number of mappings.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there is no mapping. There may be sparse regions.
    pub fn is_empty(&self) -> bool {
        self.tree.len() == 0
    }

    /// The mappings that overlap `span`, ascending.
    pub fn iter(&self, span: Span) -> impl Iterator<Item = Mapping<&O>> + '_ {
        self.tree.iter(span).map(|entry| self.view(entry.record))
    }

    /// The mapping that covers an address.
    pub fn find(&self, addr: u64) -> Option<Mapping<&O>> {
        let entry = self.tree.first_after(addr).filter(|entry| entry.span.start <= addr)?;
        Some(self.view(entry.record))
    }

    #[inline]
    fn view(&self, va: u32) -> Mapping<&O> {
        let Va { span, offset, attrs, object, .. } = self.vas[va];
        let object = (object != NONE).then(|| &self.objects[object].object);
        Mapping { span, object, offset, attrs }
    }

    /// Reserves what `vas` new VAs and as many ranges more in the tree need, above the stock.
    fn reserve(&mut self, vas: usize) -> Result<(), AllocError> {
        self.vas.reserve(STANDBY + vas)?;
        self.tree.reserve(STANDBY + vas)
    }

    /// The same for an operation that only unmaps: the stock serves when there is no memory.
    fn reserve_unmap(&mut self) -> Result<(), AllocError> {
        /// A mapping is cut at both ends at most.
        const PIECES: usize = 2;
        if self.reserve(PIECES).is_ok() {
            return Ok(());
        }
        if self.vas.room() >= PIECES && self.tree.has_room(PIECES) {
            return Ok(());
        }
        Err(AllocError)
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
