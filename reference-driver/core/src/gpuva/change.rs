//! Changing the VA space, undoing a refused call, and cleaning up after an accepted one.
//!
//! Owns the change log. It is a stack threaded through the records themselves: a VA is added once
//! and taken out once in its life, so two links in each record hold every log there can be, and
//! logging needs no memory.

use super::arena::NONE;
use super::ops::{cut, take_out};
use super::tree::{Entry, Position};
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
    #[inline]
    fn pack(self) -> u32 {
        match self {
            Log::VaAdded(record) => record << 2,
            Log::VaRemoved(record) => record << 2 | 1,
            Log::RegionAdded(record) => record << 2 | 2,
            Log::RegionDirtied(record) => record << 2 | 3,
        }
    }

    #[inline]
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
    #[inline]
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

    /// Puts a VA record, which was taken out, back into the tree and its object's list.
    fn attach(&mut self, record: u32) {
        let va = &mut self.vas[record];
        va.in_tree = true;
        let (span, object) = (va.span, va.object);
        let before = self.append(object, record);
        let va = &mut self.vas[record];
        (va.before, va.after) = (before, NONE);
        self.tree.insert(Entry { span, record });
    }

    /// Takes a VA record out of the tree and its object's list; the record stays.
    fn detach(&mut self, record: u32) {
        let va = &mut self.vas[record];
        va.in_tree = false;
        let (start, object, neighbours) = (va.span.start, va.object, [va.before, va.after]);
        let entry = self.tree.remove(start);
        assert!(entry.record == record, "the tree names this record");
        self.unlink(object, neighbours);
    }

    /// Makes the record of a new VA, which is on its object's list and in the log; the caller puts
    /// it into the tree.
    #[inline]
    fn add(&mut self, new: &Mapping<u32>, changes: &mut Changes) -> Entry {
        let record = self.vas.next();
        let object = new.object.unwrap_or(NONE);
        if object != NONE {
            self.objects[object].refs += 1;
        }
        let before = self.append(object, record);
        let next = core::mem::replace(&mut changes.head, Log::VaAdded(record).pack());
        let Mapping { span, offset, attrs, .. } = *new;
        let (after, log, in_tree) = (NONE, [next, NONE], true);
        self.vas.insert(Va { span, offset, attrs, object, before, after, log, in_tree });
        Entry { span, record }
    }

    /// Takes a VA record off its object's list and logs that; the caller takes it out of the tree.
    #[inline]
    fn take(&mut self, record: u32, changes: &mut Changes) {
        let va = &mut self.vas[record];
        va.in_tree = false;
        va.log[1] = core::mem::replace(&mut changes.head, Log::VaRemoved(record).pack());
        let (object, neighbours) = (va.object, [va.before, va.after]);
        self.unlink(object, neighbours);
    }

    /// What a VA maps, with its object's record.
    fn raw(&self, record: u32) -> Mapping<u32> {
        let Va { span, offset, attrs, object, .. } = self.vas[record];
        Mapping { span, object: (object != NONE).then_some(object), offset, attrs }
    }

    /// Puts pieces of a mapping in its place. Returns where what comes behind it stands, unless
    /// that must be looked for.
    #[inline]
    fn replace(
        &mut self,
        position: Position,
        entry: Entry,
        pieces: [Option<Span>; 2],
        changes: &mut Changes,
    ) -> Option<Position> {
        if pieces == [None; 2] {
            self.take(entry.record, changes);
            return self.tree.remove_at(position, entry.span.start).then_some(position);
        }
        let old = self.raw(entry.record);
        self.take(entry.record, changes);
        let mut place = Some(position);
        for piece in pieces.into_iter().flatten() {
            let new = self.add(&old.part(piece), changes);
            match place.take() {
                Some(position) => self.tree.replace_at(position, new),
                None => self.tree.insert(new),
            }
        }
        None
    }

    /// Takes out everything in `span`, splitting at its edges. Room for two VAs was reserved.
    #[inline]
    pub(super) fn clear_way(
        &mut self,
        span: Span,
        map: Option<&Mapping<&O>>,
        changes: &mut Changes,
        mut each: impl FnMut(&Op<&O>),
    ) {
        let mut found = self.tree.seek_to_change(span.start);
        while let Some((position, entry)) = found.filter(|(_, entry)| entry.span.start < span.end) {
            let pieces = cut(entry.span, span);
            each(&take_out(self.view(entry.record), pieces, map));
            let behind = self.replace(position, entry, pieces, changes);
            if entry.span.end >= span.end {
                break;
            }
            found = match behind {
                Some(position) => self.tree.at(position),
                None => self.tree.seek(entry.span.end),
            };
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
        let object = request.object.map(|object| self.obtain(object));
        let offset = if object.is_some() { request.offset } else { 0 };
        let Mapping { span, attrs, .. } = *request;
        let new = self.add(&Mapping { span, object, offset, attrs }, changes);
        self.tree.insert(new);
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
            self.tree.remove(self.vas[va].span.start);
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
        let (inner, pieces) = (entry.span.clip(span), cut(entry.span, span));
        let mut mapping = self.view(entry.record);
        if inner != entry.span {
            each(&take_out(mapping, pieces, None));
            each(&Op::Map(mapping.part(inner)));
        }
        (mapping.span, mapping.attrs.preferred) = (inner, preferred);
        each(&Op::Madvise(mapping));
        let old = self.raw(entry.record);
        self.tree.remove(entry.span.start);
        self.take(entry.record, changes);
        for piece in pieces.into_iter().flatten() {
            let new = self.add(&old.part(piece), changes);
            self.tree.insert(new);
        }
        let attrs = super::Attrs { preferred, ..old.attrs };
        let new = self.add(&Mapping { span: inner, attrs, ..old }, changes);
        self.tree.insert(new);
    }

    /// Undoes the changes of a call, newest first; nothing else may have changed the VA space
    /// meanwhile. Allocates nothing. Objects that the call had brought in go to `dropped`.
    pub fn revert(&mut self, changes: Changes, mut dropped: impl FnMut(O)) {
        let Changes { mut head } = changes;
        while let Some(entry) = self.pop(&mut head) {
            match entry {
                Log::VaAdded(va) => {
                    self.detach(va);
                    let va = self.vas.remove(va);
                    self.put(&va, &mut dropped);
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
        while let Some(entry) = Log::unpack(head) {
            let link = self.link_of(entry);
            let next = *link;
            if matches!(entry, Log::VaRemoved(_) | Log::RegionDirtied(_)) {
                *link = core::mem::replace(&mut removed.head, head);
            }
            head = next;
        }
        removed
    }

    /// Frees what a call removed, after the page tables were updated. Allocates nothing. Objects
    /// without a VA left go to `dropped`.
    pub fn release(&mut self, removed: Removed, mut dropped: impl FnMut(O)) {
        let Removed { mut head } = removed;
        while let Some(entry) = Log::unpack(head) {
            match entry {
                Log::VaRemoved(va) => {
                    let va = self.vas.remove(va);
                    assert!(!va.in_tree, "a freed VA was taken out of the tree before");
                    head = va.log[1];
                    self.put(&va, &mut dropped);
                }
                Log::RegionDirtied(region) => {
                    head = self.regions[region].log[1];
                    self.free_region(region);
                }
                Log::VaAdded(_) | Log::RegionAdded(_) => unreachable!("seal keeps removals only"),
            }
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
