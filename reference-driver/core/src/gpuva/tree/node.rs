//! The nodes of the tree: sorted arrays, and how entries move within and between them.
//!
//! Keys, ends and records stand in arrays of their own, so that a search touches keys only.

use super::super::arena::NONE;
use super::super::Span;
use super::Entry;

/// A node of ranges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    pub(super) len: usize,
    pub(super) prev: u32,
    pub(super) next: u32,
    pub(super) start: [u64; Leaf::CAP],
    pub(super) end: [u64; Leaf::CAP],
    pub(super) record: [u32; Leaf::CAP],
}

/// A node of nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    pub(super) len: usize,
    /// Lowest start under each child.
    pub(super) key: [u64; Inner::CAP],
    pub(super) child: [u32; Inner::CAP],
}

/// Opens a gap at `at` in the first `len` elements.
fn open<T: Copy>(slots: &mut [T], len: usize, at: usize, value: T) {
    slots.copy_within(at..len, at + 1);
    slots[at] = value;
}

/// Closes the gap at `at` in the first `len` elements.
fn close<T: Copy>(slots: &mut [T], len: usize, at: usize) {
    slots.copy_within(at + 1..len, at);
}

/// Spreads the first `left_len` and `right_len` elements so that `left_new` are left.
fn spread<T: Copy>(
    left: &mut [T],
    right: &mut [T],
    (left_len, right_len, left_new): (usize, usize, usize),
) {
    if left_new >= left_len {
        let moved = left_new - left_len;
        left[left_len..left_new].copy_from_slice(&right[..moved]);
        right.copy_within(moved..right_len, 0);
    } else {
        let moved = left_len - left_new;
        right.copy_within(..right_len, moved);
        right[..moved].copy_from_slice(&left[left_new..left_len]);
    }
}

impl Leaf {
    /// Most ranges in a leaf: the cost of a search and of opening a gap, about ten cache lines.
    pub(super) const CAP: usize = 32;
    /// Fewest ranges in a leaf that is not the root. Below half, so that a range that comes and
    /// goes does not split and merge each time.
    pub(super) const MIN: usize = 12;

    pub(super) const EMPTY: Self = Self {
        len: 0,
        prev: NONE,
        next: NONE,
        start: [0; Leaf::CAP],
        end: [0; Leaf::CAP],
        record: [0; Leaf::CAP],
    };

    /// Number of ranges that start at or below `key`.
    #[inline]
    pub(super) fn rank(&self, key: u64) -> usize {
        self.start[..self.len].partition_point(|start| *start <= key)
    }

    /// Where the range that starts at `start` stands.
    pub(super) fn find(&self, start: u64) -> usize {
        let at = self.rank(start).checked_sub(1).filter(|at| self.start[*at] == start);
        at.unwrap_or_else(|| unreachable!("a range starts at {start:#x}"))
    }

    pub(super) fn insert(&mut self, at: usize, entry: Entry) {
        open(&mut self.start, self.len, at, entry.span.start);
        open(&mut self.end, self.len, at, entry.span.end);
        open(&mut self.record, self.len, at, entry.record);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) {
        close(&mut self.start, self.len, at);
        close(&mut self.end, self.len, at);
        close(&mut self.record, self.len, at);
        self.len -= 1;
    }

    pub(super) fn entry(&self, at: usize) -> Entry {
        Entry { span: Span::new(self.start[at], self.end[at]), record: self.record[at] }
    }

    /// Moves entries between neighbours so that `left_new` are left.
    pub(super) fn spread(left: &mut Self, right: &mut Self, left_new: usize) {
        let lens = (left.len, right.len, left_new);
        spread(&mut left.start, &mut right.start, lens);
        spread(&mut left.end, &mut right.end, lens);
        spread(&mut left.record, &mut right.record, lens);
        right.len = left.len + right.len - left_new;
        left.len = left_new;
    }
}

impl Inner {
    /// Most children of an inner node.
    pub(super) const CAP: usize = 32;
    /// Fewest children of one that is not the root.
    pub(super) const MIN: usize = 12;

    pub(super) const EMPTY: Self = Self { len: 0, key: [0; Inner::CAP], child: [0; Inner::CAP] };

    /// Which child holds `key`.
    #[inline]
    pub(super) fn place(&self, key: u64) -> usize {
        self.key[1..self.len].partition_point(|lowest| *lowest <= key)
    }

    pub(super) fn insert(&mut self, at: usize, key: u64, child: u32) {
        open(&mut self.key, self.len, at, key);
        open(&mut self.child, self.len, at, child);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, at: usize) {
        close(&mut self.key, self.len, at);
        close(&mut self.child, self.len, at);
        self.len -= 1;
    }

    pub(super) fn spread(left: &mut Self, right: &mut Self, left_new: usize) {
        let lens = (left.len, right.len, left_new);
        spread(&mut left.key, &mut right.key, lens);
        spread(&mut left.child, &mut right.child, lens);
        right.len = left.len + right.len - left_new;
        left.len = left_new;
    }
}
