//! Changing the VA space, undoing a refused call, and cleaning up after an accepted one.
//!
//! Owns the change log. It is a stack threaded through the records themselves: a VA is added once
//! and taken out once in its life, so two links in each record hold every log there can be, and
//! logging needs no memory.

use super::arena::NONE;
use super::ops::{cut, take_out};
use super::tree::Entry;
use super::{Manager, Mapped, Mapping, Object, Op, Span, Unmap, Va};
use fencepost_uapi::Errno;

/// What a bind call has done to the VA space so far, to be given to [`Manager::revert`] or
/// [`Manager::seal`].
#[derive(Debug)]
#[must_use = "changes must be reverted or sealed"]
pub struct Changes {
    head: u32,
}

impl Changes {
    /// None yet.
    pub const fn new() -> Self {
        Self { head: NONE }
    }

    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}

/// The VAs and sparse regions that a call took out of the VA space, to be given to
/// [`Manager::release`] when the page tables no longer show them.
#[derive(Debug)]
#[must_use = "what was removed must be released"]
pub struct Removed {
    head: u32,
}

/// One entry of the log, with the record that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Log {
    VaAdded(u32),
    VaRemoved(u32),
    RegionAdded(u32),
    RegionDirtied(u32),
}

impl Log {
    fn pack(self) -> u32 {
        match self {
            Log::VaAdded(record) => record << 2,
            Log::VaRemoved(record) => record << 2 | 1,
            Log::RegionAdded(record) => record << 2 | 2,
            Log::RegionDirtied(record) => record << 2 | 3,
        }
    }

    fn unpack(packed: u32) -> Option<Self> {
        let record = packed >> 2;
        (packed != NONE).then_some(match packed & 3 {
            0 => Log::VaAdded(record),
            1 => Log::VaRemoved(record),
            2 => Log::RegionAdded(record),
            _ => Log::RegionDirtied(record),
        })
    }
}

impl<O: Object> Manager<O> {
    /// The link behind an entry of a log.
    fn link_of(&mut self, entry: Log) -> &mut u32 {
        match entry {
            Log::VaAdded(record) => &mut self.vas[record].log[0],
            Log::VaRemoved(record) => &mut self.vas[record].log[1],
            Log::RegionAdded(record) => &mut self.regions[record].log[0],
            Log::RegionDirtied(record) => &mut self.regions[record].log[1],
        }
    }

    fn push(&mut self, head: &mut u32, entry: Log) {
        let next = core::mem::replace(head, entry.pack());
        *self.link_of(entry) = next;
    }

    fn pop(&mut self, head: &mut u32) -> Option<Log> {
        let entry = Log::unpack(*head)?;
        *head = core::mem::replace(self.link_of(entry), NONE);
        Some(entry)
    }

    pub(super) fn log(&mut self, changes: &mut Changes, entry: Log) {
        self.push(&mut changes.head, entry);
    }

    /// Puts a VA record into the tree and its object's list.
    fn attach(&mut self, va: u32) {
        self.vas[va].in_tree = true;
        self.tree.insert(Entry { span: self.vas[va].span, record: va });
        self.link(va);
    }

    /// Takes a VA record out of the tree and its object's list; the record stays.
    fn detach(&mut self, va: u32) {
        self.vas[va].in_tree = false;
        let entry = self.tree.remove(self.vas[va].span.start);
        assert!(entry.record == va, "the tree names this record");
        self.unlink(va);
    }

    fn add(&mut self, va: Va, changes: &mut Changes) {
        if va.object != NONE {
            self.objects[va.object].refs += 1;
        }
        let record = self.vas.insert(va);
        self.attach(record);
        self.log(changes, Log::VaAdded(record));
    }

    fn take(&mut self, va: u32, changes: &mut Changes) {
        self.detach(va);
        self.log(changes, Log::VaRemoved(va));
    }

    /// Adds the part of `old`, which was taken out, that lies in `span`.
    fn add_part(&mut self, old: &Va, span: Span, changes: &mut Changes) {
        let delta = if old.object == NONE { 0 } else { span.start - old.span.start };
        self.add(Va { span, offset: old.offset + delta, ..*old }, changes);
    }

    /// Takes out everything in `span`, splitting at its edges. Room for two VAs was reserved.
    pub(super) fn clear_way(
        &mut self,
        span: Span,
        map: Option<&Mapping<&O>>,
        changes: &mut Changes,
        mut each: impl FnMut(&Op<&O>),
    ) {
        let mut from = span.start;
        while let Some(entry) = self.tree.first_after_to_change(from) {
            if entry.span.start >= span.end {
                break;
            }
            each(&take_out(self.view(entry.record), span, map));
            self.take(entry.record, changes);
            for piece in cut(entry.span, span).into_iter().flatten() {
                let old = self.vas[entry.record];
                self.add_part(&old, piece, changes);
            }
            if entry.span.end >= span.end {
                break;
            }
            from = entry.span.end;
        }
    }

    /// Maps `request`, replacing what is mapped there. `each` is told every elementary operation
    /// before it is done: any number of U and at most two R in ascending order, then one M.
    ///
    /// # Errors
    /// `EINVAL`: [`Manager::check`], the offset wraps, or the range is in a sparse region that is
    /// being removed. `ENOSPC`: it crosses the edge of a sparse region. `ENOMEM`. Nothing is
    /// changed then.
    pub fn map(
        &mut self,
        request: &Mapping<&O>,
        changes: &mut Changes,
        mut each: impl FnMut(&Op<&O>),
    ) -> Result<Mapped, Errno> {
        let in_sparse = self.check_map(request)?;
        // The new VA, and a piece at either edge.
        self.reserve(3)?;
        self.reserve_object()?;
        self.clear_way(request.span, Some(request), changes, &mut each);
        each(&Op::Map(*request));
        let Mapping { span, object, offset, attrs } = *request;
        let (object, offset) = match object {
            Some(object) => (self.obtain(object), offset),
            None => (NONE, 0),
        };
        self.add(Va::new(span, object, offset, attrs), changes);
        Ok(Mapped { in_sparse })
    }

    /// Unmaps `span`: mappings that cross its edges are split, holes are fine. `each` is told every
    /// elementary operation before it is done: any number of U and at most two R, ascending.
    ///
    /// # Errors
    /// `EINVAL`: [`Manager::check`]. `ENOMEM` only after [`super::STANDBY`] / 2 such operations for
    /// which there was no memory; nothing is changed then.
    pub fn unmap(
        &mut self,
        span: Span,
        changes: &mut Changes,
        each: impl FnMut(&Op<&O>),
    ) -> Result<(), Errno> {
        self.check(span)?;
        self.reserve_unmap()?;
        self.clear_way(span, None, changes, each);
        Ok(())
    }

    /// Unmaps every VA of an object; none is fine. Needs no memory.
    pub fn unmap_object(&mut self, id: u64, changes: &mut Changes, mut each: impl FnMut(&Op<&O>)) {
        loop {
            let Some(va) = self.vas_of(id).next() else { break };
            each(&Op::Unmap(Unmap { mapping: self.view(va), keep: false }));
            self.take(va, changes);
        }
    }

    /// Sets the preferred region of the NULL mappings in `span`, splitting them at its edges; those
    /// with an object are left alone. `each` is told R and M for each one that is split, then
    /// [`Op::Madvise`] for every one that lies in `span` afterwards.
    ///
    /// # Errors
    /// `EINVAL`: [`Manager::check`]. `ENOMEM`. Nothing is changed then.
    pub fn madvise(
        &mut self,
        span: Span,
        preferred: u32,
        changes: &mut Changes,
        mut each: impl FnMut(&Op<&O>),
    ) -> Result<(), Errno> {
        self.check(span)?;
        let advised = self.iter(span).filter(|old| old.object.is_none()).count();
        self.reserve(advised + 2)?;
        let mut from = span.start;
        while let Some(entry) = self.tree.first_after(from) {
            if entry.span.start >= span.end {
                break;
            }
            from = entry.span.end;
            if self.vas[entry.record].object == NONE {
                self.advise(entry, span, preferred, changes, &mut each);
            }
        }
        Ok(())
    }

    /// Replaces a NULL mapping by its pieces, of which the inner one has a new preferred region.
    fn advise(
        &mut self,
        entry: Entry,
        span: Span,
        preferred: u32,
        changes: &mut Changes,
        each: &mut impl FnMut(&Op<&O>),
    ) {
        let old = self.vas[entry.record];
        let inner = entry.span.clip(span);
        let mut mapping = self.view(entry.record);
        if inner != entry.span {
            each(&take_out(mapping, span, None));
            each(&Op::Map(mapping.part(inner)));
        }
        (mapping.span, mapping.attrs.preferred) = (inner, preferred);
        each(&Op::Madvise(mapping));
        let attrs = mapping.attrs;
        self.take(entry.record, changes);
        for piece in cut(entry.span, span).into_iter().flatten() {
            self.add_part(&old, piece, changes);
        }
        self.add(Va { span: inner, attrs, ..old }, changes);
    }

    /// Undoes the changes of a call, newest first; nothing else may have changed the VA space
    /// meanwhile. Allocates nothing. Objects that the call had brought in go to `dropped`.
    pub fn revert(&mut self, changes: Changes, mut dropped: impl FnMut(O)) {
        let Changes { mut head } = changes;
        while let Some(entry) = self.pop(&mut head) {
            match entry {
                Log::VaAdded(va) => {
                    self.detach(va);
                    if let Some(object) = self.free_va(va) {
                        dropped(object);
                    }
                }
                Log::VaRemoved(va) => self.attach(va),
                Log::RegionAdded(region) => self.free_region(region),
                Log::RegionDirtied(region) => self.regions[region].dirty = false,
            }
        }
    }

    /// Makes the changes of a call final and gives what they removed. Allocates nothing.
    pub fn seal(&mut self, changes: Changes) -> Removed {
        let Changes { mut head } = changes;
        let mut removed = Removed { head: NONE };
        while let Some(entry) = self.pop(&mut head) {
            if matches!(entry, Log::VaRemoved(_) | Log::RegionDirtied(_)) {
                self.push(&mut removed.head, entry);
            }
        }
        removed
    }

    /// Frees what a call removed, after the page tables were updated. Allocates nothing. Objects
    /// without a VA left go to `dropped`.
    pub fn release(&mut self, removed: Removed, mut dropped: impl FnMut(O)) {
        let Removed { mut head } = removed;
        while let Some(entry) = self.pop(&mut head) {
            match entry {
                Log::VaRemoved(va) => {
                    if let Some(object) = self.free_va(va) {
                        dropped(object);
                    }
                }
                Log::RegionDirtied(region) => self.free_region(region),
                Log::VaAdded(_) | Log::RegionAdded(_) => unreachable!("seal keeps removals only"),
            }
        }
    }

    fn free_va(&mut self, va: u32) -> Option<O> {
        let Va { object, in_tree, .. } = self.vas.remove(va);
        assert!(!in_tree, "a freed VA was taken out of the tree before");
        if object == NONE {
            None
        } else {
            self.put(object)
        }
    }

    fn free_region(&mut self, region: u32) {
        let region = self.regions.remove(region);
        self.region_tree.remove(region.span.start);
    }

    /// Takes everything out when the VM goes: mappings, sparse regions, the hole does not matter.
    /// Every other [`Removed`] was released before. Allocates nothing.
    pub fn clear(&mut self, mut dropped: impl FnMut(O)) {
        let mut changes = Changes::new();
        self.clear_way(self.span, None, &mut changes, |_| {});
        while let Some(entry) = self.region_tree.first_after(0) {
            self.free_region(entry.record);
        }
        let removed = self.seal(changes);
        self.release(removed, &mut dropped);
    }
}

impl Va {
    fn new(span: Span, object: u32, offset: u64, attrs: super::Attrs) -> Self {
        let (before, after, log) = (NONE, NONE, [NONE; 2]);
        Self { span, offset, attrs, object, before, after, log, in_tree: false }
    }
}
