//! The invariants of the VA space, checked by walking all of it: for tests and the fuzzer.

use super::arena::NONE;
use super::{Manager, Object, Span};

impl<O: Object> Manager<O> {
    /// Panics if an invariant is broken: the trees are sound; each VA lies in the VA space, outside
    /// the hole, in one sparse region or none; each VA with an object is on its object's list once,
    /// and nothing else is; no record is lost.
    pub fn assert_consistent(&self) {
        self.tree.assert_consistent();
        self.object_tree.assert_consistent();
        self.region_tree.assert_consistent();
        self.assert_vas();
        self.assert_objects();
        for entry in self.region_tree.iter(Span::new(0, u64::MAX)) {
            assert_eq!(self.regions[entry.record].span, entry.span, "region and record agree");
            assert!(self.check(entry.span).is_ok(), "a region lies where one may be");
        }
        assert_eq!(self.regions.len(), self.region_tree.len(), "no region is lost");
    }

    fn assert_vas(&self) {
        let mut in_tree = 0;
        for entry in self.tree.iter(Span::new(0, u64::MAX)) {
            let va = &self.vas[entry.record];
            assert!(va.in_tree && va.span == entry.span, "tree and record agree");
            assert!(self.check(va.span).is_ok(), "a VA lies where one may be");
            let mut regions = self.regions(va.span);
            assert!(regions.next().is_none_or(|r| r.contains(va.span)), "in a region or not");
            in_tree += 1;
        }
        let marked = self.vas.iter().filter(|(_, va)| va.in_tree).count();
        assert_eq!(in_tree, marked, "a VA marked as in the tree is there");
    }

    fn assert_objects(&self) {
        assert_eq!(self.objects.len(), self.object_tree.len(), "no object is lost");
        let (mut listed, mut refs) = (0, 0);
        for entry in self.object_tree.iter(Span::new(0, u64::MAX)) {
            let list = &self.objects[entry.record];
            assert_eq!(list.object.id(), entry.span.start, "object and record agree");
            let mut before = NONE;
            for va in self.vas_of(entry.span.start) {
                assert!(self.vas[va].in_tree, "a listed VA is in the tree");
                assert_eq!((self.vas[va].object, self.vas[va].before), (entry.record, before));
                before = va;
                listed += 1;
            }
            assert_eq!(list.last, before, "the list ends where it says");
            refs += list.refs;
        }
        let with_object = |in_tree: bool| {
            self.vas.iter().filter(|(_, va)| va.object != NONE && (va.in_tree || !in_tree)).count()
        };
        assert_eq!(listed, with_object(true), "every VA with an object is on its list");
        assert_eq!(refs, with_object(false), "references are counted");
    }

    /// VA records that were taken out and wait for [`Manager::release`].
    pub fn retained(&self) -> usize {
        self.vas.len() - self.tree.len()
    }
}
