//! How a request is cut into elementary operations.
//!
//! Owns the rules of splitting, numbered as in `drm_gpuvm.c`, section DOC "Split and Merge". The
//! functions here change nothing. `a`, `b`: objects; `n`, `m`: offsets; U: unmap, R: remap, M: map;
//! (k): with `keep`.
//!
//! | | mapped | requested | then mapped | operations |
//! |-|-|-|-|-|
//! | 1 | a \[0,1) n | a \[0,1) n | a \[0,1) n | U(k) M |
//! | 2 | a \[0,1) n | a \[0,1) m | a \[0,1) m | U M |
//! | 3 | a \[0,1) n | b \[0,1) n | b \[0,1) n | U M |
//! | 4 | a \[0,1) n | a \[0,2) n | a \[0,2) n | U(k) M |
//! | 5 | a \[0,2) n | b \[0,1) n | b \[0,1) n, a \[1,2) n+1 | R(next) M |
//! | 6 | a \[0,2) n | a \[0,1) n | a \[0,1) n, a \[1,2) n+1 | R(next, k) M |
//! | 7 | a \[0,2) n | b \[1,2) m | a \[0,1) n, b \[1,2) m | R(prev) M |
//! | 8 | a \[0,2) n | a \[1,2) n+1 | a \[0,1) n, a \[1,2) n+1 | R(prev, k) M |
//! | 9 | a \[0,2) n | b \[1,3) m | a \[0,1) n, b \[1,3) m | R(prev) M |
//! | 10 | a \[0,2) n | a \[1,3) n+1 | a \[0,1) n, a \[1,3) n+1 | R(prev, k) M |
//! | 11 | a \[0,3) n | b \[1,2) m | a \[0,1) n, b \[1,2) m, a \[2,3) n+2 | R(prev, next) M |
//! | 12 | a \[0,3) n | a \[1,2) n+1 | a in three pieces | R(prev, next, k) M |
//! | 13 | a \[1,2) n+1 | a \[0,2) n | a \[0,2) n | U(k) M |
//! | 14 | a \[1,2) n+1 | a \[0,3) n | a \[0,3) n | U(k) M |
//! | 15 | a \[1,3) n | b \[0,2) m | b \[0,2) m, a \[2,3) n+1 | R(next) M |
//!
//! Several mappings under one request: a ragged left edge is R(prev), whole ones are U, a ragged
//! right edge is R(next), in ascending order, then M. Neighbours are never merged.

use super::{Manager, Mapping, Object, Span};
use crate::facade::Vec;
use fencepost_uapi::Errno;

/// One elementary operation. `R` is the object or a reference to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<R> {
    /// Add a mapping. Nothing is mapped there any more.
    Map(Mapping<R>),
    /// Take a mapping out; pieces of it stay.
    Remap {
        /// Piece before the request.
        prev: Option<Mapping<R>>,
        /// Piece behind it.
        next: Option<Mapping<R>>,
        /// The mapping taken out.
        unmap: Unmap<R>,
    },
    /// Take a mapping out.
    Unmap(Unmap<R>),
    /// Move the object of a mapping, named as a whole, to a region.
    Prefetch(Mapping<R>),
    /// The mapping has the preferred region that was asked for, from now on.
    Madvise(Mapping<R>),
}

/// A mapping that is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmap<R> {
    /// The mapping as it was.
    pub mapping: Mapping<R>,
    /// What replaces it maps the same object so that each address shows the same byte as before:
    /// page-table entries that both share may stay. It says nothing of flags and page kind, which
    /// may differ; NULL mappings are never kept.
    pub keep: bool,
}

impl<O: Clone> Op<&O> {
    /// The same with the objects themselves.
    #[must_use]
    pub fn cloned(&self) -> Op<O> {
        match self {
            Op::Map(map) => Op::Map(map.cloned()),
            Op::Remap { prev, next, unmap } => Op::Remap {
                prev: prev.as_ref().map(Mapping::cloned),
                next: next.as_ref().map(Mapping::cloned),
                unmap: unmap.cloned(),
            },
            Op::Unmap(unmap) => Op::Unmap(unmap.cloned()),
            Op::Prefetch(mapping) => Op::Prefetch(mapping.cloned()),
            Op::Madvise(mapping) => Op::Madvise(mapping.cloned()),
        }
    }
}

impl<O: Clone> Unmap<&O> {
    fn cloned(&self) -> Unmap<O> {
        Unmap { mapping: self.mapping.cloned(), keep: self.keep }
    }
}

/// What stays of `old` before and behind `request`, which overlaps it.
#[inline]
pub(super) fn cut(old: Span, request: Span) -> [Option<Span>; 2] {
    [
        (old.start < request.start).then_some(Span::new(old.start, request.start)),
        (old.end > request.end).then_some(Span::new(request.end, old.end)),
    ]
}

/// See [`Unmap::keep`].
fn keep<O: Object>(old: &Mapping<&O>, new: &Mapping<&O>) -> bool {
    let same = match (old.object, new.object) {
        (Some(old), Some(new)) => old.id() == new.id(),
        _ => false,
    };
    same && old.span.start.wrapping_sub(new.span.start) == old.offset.wrapping_sub(new.offset)
}

/// The operation that takes `old` out of the way of a request, so that the pieces given by [`cut`]
/// stay; `map` is what comes there.
#[inline]
pub(super) fn take_out<'a, O: Object>(
    old: Mapping<&'a O>,
    pieces: [Option<Span>; 2],
    map: Option<&Mapping<&O>>,
) -> Op<&'a O> {
    let unmap = Unmap { mapping: old, keep: map.is_some_and(|map| keep(&old, map)) };
    match pieces {
        [None, None] => Op::Unmap(unmap),
        [prev, next] => {
            let piece = |span: Option<Span>| span.map(|span| old.part(span));
            Op::Remap { prev: piece(prev), next: piece(next), unmap }
        }
    }
}

impl<O: Object> Manager<O> {
    /// Checks a request to map, as [`Manager::map`] does: range, offset, sparse region.
    pub(super) fn check_map(&self, request: &Mapping<&O>) -> Result<bool, Errno> {
        self.check(request.span)?;
        let offset = if request.object.is_some() { request.offset } else { 0 };
        offset.checked_add(request.span.len()).ok_or(Errno::INVAL)?;
        self.check_sparse(request.span)
    }

    /// The operations that map `request`, as a list; see [`Manager::map`]. Nothing is changed.
    ///
    /// # Errors
    /// As [`Manager::map`].
    pub fn map_ops(&self, request: &Mapping<&O>) -> Result<Vec<Op<O>>, Errno> {
        self.check_map(request)?;
        let mut list = Vec::new();
        for old in self.iter(request.span) {
            list.push(take_out(old, cut(old.span, request.span), Some(request)).cloned())?;
        }
        list.push(Op::Map(request.cloned()))?;
        Ok(list)
    }

    /// The operations that unmap `span`, as a list; see [`Manager::unmap`]. Nothing is changed.
    ///
    /// # Errors
    /// `EINVAL`: [`Manager::check`]. `ENOMEM`.
    pub fn unmap_ops(&self, span: Span) -> Result<Vec<Op<O>>, Errno> {
        self.check(span)?;
        let mut list = Vec::new();
        for old in self.iter(span) {
            list.push(take_out(old, cut(old.span, span), None).cloned())?;
        }
        Ok(list)
    }

    /// The operations that unmap every VA of an object, as a list. Nothing is changed.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn unmap_object_ops(&self, id: u64) -> Result<Vec<Op<O>>, Errno> {
        let mut list = Vec::new();
        for mapping in self.mappings_of(id) {
            list.push(Op::Unmap(Unmap { mapping, keep: false }).cloned())?;
        }
        Ok(list)
    }

    /// Tells each mapping that overlaps `span`, as a whole and in ascending order, as an
    /// [`Op::Prefetch`]. Nothing is changed here.
    ///
    /// # Errors
    /// `EINVAL`: [`Manager::check`]. The first error of `each` ends the walk.
    pub fn prefetch(
        &self,
        span: Span,
        mut each: impl FnMut(&Op<&O>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.check(span)?;
        for mapping in self.iter(span) {
            each(&Op::Prefetch(mapping))?;
        }
        Ok(())
    }

    /// What [`Manager::prefetch`] tells, as a list.
    ///
    /// # Errors
    /// `EINVAL`: [`Manager::check`]. `ENOMEM`.
    pub fn prefetch_ops(&self, span: Span) -> Result<Vec<Op<O>>, Errno> {
        let mut list = Vec::new();
        self.prefetch(span, |op| Ok(list.push(op.cloned())?))?;
        Ok(list)
    }

    /// The operations that split the NULL mappings at the edges of `span`, as a list: R and M for
    /// each that has a ragged edge there, none for those with an object, none where the edges
    /// match. Nothing is changed.
    ///
    /// # Errors
    /// `EINVAL`: [`Manager::check`]. `ENOMEM`.
    pub fn madvise_ops(&self, span: Span) -> Result<Vec<Op<O>>, Errno> {
        self.check(span)?;
        let mut list = Vec::new();
        for old in self.iter(span).filter(|old| old.object.is_none()) {
            if !span.contains(old.span) {
                list.push(take_out(old, cut(old.span, span), None).cloned())?;
                list.push(Op::Map(old.part(old.span.clip(span)).cloned()))?;
            }
        }
        Ok(list)
    }
}
