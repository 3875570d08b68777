//! The invariants of the tree, checked by walking all of it.

use super::super::arena::NONE;
use super::super::Span;
use super::node::{Inner, Leaf};
use super::{nodes_for, Tree};

impl Tree {
    /// Panics if an invariant is broken.
    pub(in super::super) fn assert_consistent(&self) {
        let (leaves, inners) = nodes_for(self.len);
        assert!(self.leaves.len() <= leaves, "{} leaves, bound {leaves}", self.leaves.len());
        assert!(self.inners.len() <= inners, "{} inner nodes, bound {inners}", self.inners.len());
        if self.root == NONE {
            assert_eq!((self.len, self.leaves.len(), self.inners.len()), (0, 0, 0));
            return;
        }
        assert!(self.finger == NONE || self.leaves[self.finger].len > 0, "a leaf in use");
        let mut seen = Seen { last: NONE, end: 0, ranges: 0, leaves: 0, inners: 0 };
        self.assert_node(self.root, self.height, (0, u64::MAX), &mut seen);
        assert_eq!(self.leaves[seen.last].next, NONE, "the last leaf ends the list");
        assert_eq!(seen.ranges, self.len, "number of ranges");
        assert_eq!(seen.leaves, self.leaves.len(), "no leaf is lost");
        assert_eq!(seen.inners, self.inners.len(), "no inner node is lost");
    }

    fn assert_node(&self, id: u32, height: usize, bounds: (u64, u64), seen: &mut Seen) {
        if height == 0 {
            return self.assert_leaf(id, bounds, seen);
        }
        seen.inners += 1;
        let inner = &self.inners[id];
        let least = if id == self.root { 2 } else { Inner::MIN };
        assert!((least..=Inner::CAP).contains(&inner.len), "inner node of {} children", inner.len);
        for i in 0..inner.len {
            let low = if i == 0 { bounds.0 } else { inner.key[i] };
            let high = if i + 1 < inner.len { inner.key[i + 1] } else { bounds.1 };
            assert!(bounds.0 <= low && low < high && high <= bounds.1, "keys ascend");
            self.assert_node(inner.child[i], height - 1, (low, high), seen);
        }
    }

    fn assert_leaf(&self, id: u32, (low, high): (u64, u64), seen: &mut Seen) {
        let leaf = &self.leaves[id];
        let least = if id == self.root { 1 } else { Leaf::MIN };
        assert!((least..=Leaf::CAP).contains(&leaf.len), "leaf of {} ranges", leaf.len);
        assert_eq!(leaf.prev, seen.last, "leaves are linked in order");
        assert!(seen.last == NONE || self.leaves[seen.last].next == id, "both ways");
        for i in 0..leaf.len {
            let Span { start, end } = leaf.entry(i).span;
            assert!(start < end && seen.end <= start, "ranges ascend and are disjoint");
            assert!(low <= start && start < high, "a range stands under its key");
            seen.end = end;
        }
        seen.last = id;
        seen.ranges += leaf.len;
        seen.leaves += 1;
    }
}

/// What the consistency walk has come by.
struct Seen {
    last: u32,
    end: u64,
    ranges: usize,
    leaves: usize,
    inners: usize,
}
