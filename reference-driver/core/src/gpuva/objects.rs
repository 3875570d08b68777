//! The VAs of one object in one VM: what Linux calls a `drm_gpuvm_bo`.
//!
//! Owns linking and unlinking, and the life of the record: it stands as long as a VA refers to it,
//! in the tree or taken out.

use super::arena::NONE;
use super::tree::Entry;
use super::{Manager, Object, Span, Va};
use crate::facade::AllocError;

/// List of the VAs of one object.
#[derive(Debug)]
pub(super) struct ObjectVas<O> {
    pub(super) object: O,
    /// VA records that refer to this, in the tree or not.
    pub(super) refs: usize,
    /// First and last VA in the tree, in the order in which they were linked.
    pub(super) first: u32,
    pub(super) last: u32,
}

impl<O: Object> Manager<O> {
    /// The record of an object, by its id.
    pub(super) fn object_vas(&self, id: u64) -> Option<u32> {
        self.object_tree.get(id).map(|entry| entry.record)
    }

    /// Reserves what [`Manager::obtain`] needs.
    pub(super) fn reserve_object(&mut self) -> Result<(), AllocError> {
        self.objects.reserve(1)?;
        self.object_tree.reserve(1)
    }

    /// The record of an object, made if it has none; the caller adds a VA at once.
    pub(super) fn obtain(&mut self, object: &O) -> u32 {
        let id = object.id();
        if let Some(record) = self.object_vas(id) {
            return record;
        }
        let new = ObjectVas { object: object.clone(), refs: 0, first: NONE, last: NONE };
        let record = self.objects.insert(new);
        self.object_tree.insert(Entry { span: Span::new(id, id + 1), record });
        record
    }

    /// Drops the reference of a VA whose record is gone; the object goes to the caller with the
    /// last one.
    #[inline]
    pub(super) fn put(&mut self, va: &Va, dropped: &mut impl FnMut(O)) {
        if va.object == NONE {
            return;
        }
        let vas = &mut self.objects[va.object];
        vas.refs -= 1;
        if vas.refs > 0 {
            return;
        }
        assert!(vas.first == NONE, "a VA in the tree keeps its object");
        let vas = self.objects.remove(va.object);
        self.object_tree.remove(vas.object.id());
        dropped(vas.object);
    }

    /// Appends a VA to the list of an object, if it has one, and returns the VA before it.
    #[inline]
    pub(super) fn append(&mut self, object: u32, va: u32) -> u32 {
        if object == NONE {
            return NONE;
        }
        let list = &mut self.objects[object];
        let last = core::mem::replace(&mut list.last, va);
        list.object.linked();
        if last == NONE {
            list.first = va;
        } else {
            self.vas[last].after = va;
        }
        last
    }

    /// Takes a VA with these neighbours out of the list of an object, if it has one.
    #[inline]
    pub(super) fn unlink(&mut self, object: u32, [before, after]: [u32; 2]) {
        if object == NONE {
            return;
        }
        let list = &mut self.objects[object];
        list.object.unlinked();
        if before == NONE {
            list.first = after;
        }
        if after == NONE {
            list.last = before;
        }
        if before != NONE {
            self.vas[before].after = after;
        }
        if after != NONE {
            self.vas[after].before = before;
        }
    }

    /// The VA records of an object in the tree, in the order in which they were linked.
    pub(super) fn vas_of(&self, id: u64) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.object_vas(id).map_or(NONE, |record| self.objects[record].first);
        core::iter::from_fn(move || {
            let va = next;
            (va != NONE).then(|| {
                next = self.vas[va].after;
                va
            })
        })
    }

    /// The objects with at least one mapping, ordered by id: what a job of this VM must lock.
    pub fn objects(&self) -> impl Iterator<Item = &O> + '_ {
        let all = self.object_tree.iter(Span::new(0, u64::MAX));
        all.map(|entry| &self.objects[entry.record])
            .filter(|vas| vas.first != NONE)
            .map(|vas| &vas.object)
    }

    /// The mappings of one object, in the order in which they were made; those that a refused call
    /// had taken out come last.
    pub fn mappings_of(&self, id: u64) -> impl Iterator<Item = super::Mapping<&O>> + '_ {
        self.vas_of(id).map(|va| self.view(va))
    }
}
