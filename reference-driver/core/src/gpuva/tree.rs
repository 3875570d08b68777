//! A B+tree of disjoint ranges, each with the index of a record.
//!
//! Owns the order of ranges and nothing else. Nodes live in arenas; leaves are linked, so that a
//! walk over neighbours costs no descent.
//!
//! # Invariants
//! - Every node but the root holds at least [`MIN`] entries, the root of a taller tree at least 2.
//!   So a tree of n ranges has at most [`nodes_for`] (n) nodes, whatever happened before; that
//!   many are reserved, and no change within the reserved number of ranges can need memory.
//! - `key[i]` of an inner node is at most every range of `child[i]` and above every range of
//!   `child[i - 1]`; `key[0]` is not looked at.

use super::arena::{Arena, NONE};
use super::Span;
use crate::facade::AllocError;

/// Entries in a node. 32 makes a leaf of about ten cache lines, three levels for 32,768 ranges.
pub(super) const CAP: usize = 32;
/// Fewest entries in a node that is not the root. Below half, so that a range that comes and goes
/// does not split and merge each time.
pub(super) const MIN: usize = 12;
/// More levels than 2^30 ranges can need at a fan-out of [`MIN`].
const MAX_HEIGHT: usize = 10;

/// A range and its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) span: Span,
    pub(super) record: u32,
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    len: usize,
    prev: u32,
    next: u32,
    start: [u64; CAP],
    end: [u64; CAP],
    record: [u32; CAP],
}

#[derive(Clone, Copy, Debug)]
struct Inner {
    len: usize,
    key: [u64; CAP],
    child: [u32; CAP],
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
    const EMPTY: Self =
        Self { len: 0, prev: NONE, next: NONE, start: [0; CAP], end: [0; CAP], record: [0; CAP] };

    /// Number of ranges that start at or below `key`.
    #[inline]
    fn rank(&self, key: u64) -> usize {
        self.start[..self.len].partition_point(|start| *start <= key)
    }

    /// Where the range that starts at `start` stands.
    fn find(&self, start: u64) -> usize {
        let at = self.rank(start).checked_sub(1).filter(|at| self.start[*at] == start);
        at.unwrap_or_else(|| unreachable!("a range starts at {start:#x}"))
    }

    fn insert(&mut self, at: usize, entry: Entry) {
        open(&mut self.start, self.len, at, entry.span.start);
        open(&mut self.end, self.len, at, entry.span.end);
        open(&mut self.record, self.len, at, entry.record);
        self.len += 1;
    }

    fn remove(&mut self, at: usize) {
        close(&mut self.start, self.len, at);
        close(&mut self.end, self.len, at);
        close(&mut self.record, self.len, at);
        self.len -= 1;
    }

    fn entry(&self, at: usize) -> Entry {
        Entry { span: Span::new(self.start[at], self.end[at]), record: self.record[at] }
    }

    /// Moves entries between neighbours so that `left_new` are left.
    fn spread(left: &mut Self, right: &mut Self, left_new: usize) {
        let lens = (left.len, right.len, left_new);
        spread(&mut left.start, &mut right.start, lens);
        spread(&mut left.end, &mut right.end, lens);
        spread(&mut left.record, &mut right.record, lens);
        right.len = left.len + right.len - left_new;
        left.len = left_new;
    }
}

impl Inner {
    const EMPTY: Self = Self { len: 0, key: [0; CAP], child: [0; CAP] };

    /// Which child holds `key`.
    #[inline]
    fn place(&self, key: u64) -> usize {
        self.key[1..self.len].partition_point(|lowest| *lowest <= key)
    }

    fn insert(&mut self, at: usize, key: u64, child: u32) {
        open(&mut self.key, self.len, at, key);
        open(&mut self.child, self.len, at, child);
        self.len += 1;
    }

    fn remove(&mut self, at: usize) {
        close(&mut self.key, self.len, at);
        close(&mut self.child, self.len, at);
        self.len -= 1;
    }

    fn spread(left: &mut Self, right: &mut Self, left_new: usize) {
        let lens = (left.len, right.len, left_new);
        spread(&mut left.key, &mut right.key, lens);
        spread(&mut left.child, &mut right.child, lens);
        right.len = left.len + right.len - left_new;
        left.len = left_new;
    }
}

/// The way from the root to a leaf: inner nodes and which child was taken.
struct Path {
    steps: [(u32, usize); MAX_HEIGHT],
    len: usize,
}

impl Path {
    fn pop(&mut self) -> Option<(u32, usize)> {
        self.len = self.len.checked_sub(1)?;
        Some(self.steps[self.len])
    }
}

/// Most leaves and inner nodes of a tree of `ranges`.
fn nodes_for(ranges: usize) -> (usize, usize) {
    let leaves = ranges / MIN + 1;
    let (mut inners, mut level) = (0, leaves);
    while level > 1 {
        level = level / MIN + 1;
        inners += level;
    }
    (leaves, inners)
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    leaf: u32,
    at: usize,
}

/// The tree.
#[derive(Debug)]
pub(super) struct Tree {
    leaves: Arena<Leaf, 16>,
    inners: Arena<Inner, 16>,
    root: u32,
    /// Levels of inner nodes above the leaves.
    height: usize,
    len: usize,
    /// Number of ranges for which nodes were reserved.
    reserved: usize,
    /// The leaf that was looked at last, or [`NONE`]: what follows a look is mostly a change there.
    finger: u32,
}

impl Tree {
    /// An empty one; allocates nothing.
    pub(super) const fn new() -> Self {
        Self {
            leaves: Arena::new(),
            inners: Arena::new(),
            root: NONE,
            height: 0,
            len: 0,
            reserved: 0,
            finger: NONE,
        }
    }

    /// Number of ranges.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes sure that `additional` more ranges, and any change meanwhile, need no memory.
    pub(super) fn reserve(&mut self, additional: usize) -> Result<(), AllocError> {
        let ranges = self.len + additional;
        if ranges <= self.reserved {
            return Ok(());
        }
        let (leaves, inners) = nodes_for(ranges);
        self.leaves.reserve(leaves.saturating_sub(self.leaves.len()))?;
        self.inners.reserve(inners.saturating_sub(self.inners.len()))?;
        self.reserved = ranges;
        Ok(())
    }

    /// Whether `additional` more ranges need no memory.
    pub(super) fn has_room(&self, additional: usize) -> bool {
        self.len + additional <= self.reserved
    }

    fn leaf_of(&self, key: u64) -> u32 {
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[node];
            node = inner.child[inner.place(key)];
        }
        node
    }

    /// The leaf looked at last, if `key` lies between its first and last range: then it belongs there
    /// whatever the keys above are.
    fn finger_at(&mut self, key: u64) -> Option<&mut Leaf> {
        if self.finger == NONE {
            return None;
        }
        let leaf = &mut self.leaves[self.finger];
        let within = leaf.start[0] <= key && key <= leaf.start[leaf.len - 1];
        within.then_some(leaf)
    }

    fn path_to(&self, key: u64) -> (u32, Path) {
        let mut path = Path { steps: [(NONE, 0); MAX_HEIGHT], len: self.height };
        let mut node = self.root;
        for step in &mut path.steps[..self.height] {
            let inner = &self.inners[node];
            *step = (node, inner.place(key));
            node = inner.child[step.1];
        }
        (node, path)
    }

    /// The first range that ends above `addr`, where it stands.
    pub(super) fn seek(&self, addr: u64) -> Option<Position> {
        if self.root == NONE {
            return None;
        }
        let leaf = self.leaf_of(addr);
        let node = &self.leaves[leaf];
        let rank = node.rank(addr);
        let before = match rank.checked_sub(1) {
            Some(at) => Some(Position { leaf, at }),
            // Keys are lower bounds: the range before may reach beyond the key of this leaf.
            None if node.prev == NONE => None,
            None => Some(Position { leaf: node.prev, at: self.leaves[node.prev].len - 1 }),
        };
        match before {
            Some(before) if self.entry(before).span.end > addr => Some(before),
            _ => self.settle(Position { leaf, at: rank }),
        }
    }

    /// A position one past the end of a leaf is the first of the next leaf.
    fn settle(&self, position: Position) -> Option<Position> {
        let leaf = &self.leaves[position.leaf];
        if position.at < leaf.len {
            return Some(position);
        }
        (leaf.next != NONE).then_some(Position { leaf: leaf.next, at: 0 })
    }

    /// The position after this one.
    pub(super) fn next(&self, position: Position) -> Option<Position> {
        self.settle(Position { at: position.at + 1, ..position })
    }

    /// The entry at a position, which no change may have come by.
    pub(super) fn entry(&self, position: Position) -> Entry {
        self.leaves[position.leaf].entry(position.at)
    }

    /// The same, by a caller who will change the tree there.
    pub(super) fn first_after_to_change(&mut self, addr: u64) -> Option<Entry> {
        let position = self.seek(addr)?;
        self.finger = position.leaf;
        Some(self.entry(position))
    }

    /// The first range that ends above `addr`.
    pub(super) fn first_after(&self, addr: u64) -> Option<Entry> {
        self.seek(addr).map(|position| self.entry(position))
    }

    /// The ranges that overlap `span`, ascending.
    pub(super) fn iter(&self, span: Span) -> impl Iterator<Item = Entry> + '_ {
        let mut position = self.seek(span.start);
        core::iter::from_fn(move || {
            let entry = self.entry(position?);
            position = self.next(position?);
            (entry.span.start < span.end).then_some(entry)
        })
    }

    /// Adds a range, which overlaps none; room was reserved.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.len += 1;
        if self.root == NONE {
            self.root = self.leaves.insert(Leaf::EMPTY);
        }
        let key = entry.span.start;
        if let Some(leaf) = self.finger_at(key).filter(|leaf| leaf.len < CAP) {
            leaf.insert(leaf.rank(key), entry);
            return;
        }
        let (leaf_id, mut path) = self.path_to(key);
        let leaf = &mut self.leaves[leaf_id];
        let at = leaf.rank(key);
        debug_assert!(at == 0 || leaf.end[at - 1] <= key, "ranges are disjoint");
        debug_assert!(at == leaf.len || entry.span.end <= leaf.start[at], "ranges are disjoint");
        if leaf.len < CAP {
            leaf.insert(at, entry);
            self.finger = leaf_id;
            return;
        }
        self.finger = NONE;
        let (mut key, mut child) = self.split_leaf(leaf_id, at, entry);
        while let Some((inner_id, at)) = path.pop() {
            let inner = &mut self.inners[inner_id];
            if inner.len < CAP {
                inner.insert(at + 1, key, child);
                return;
            }
            (key, child) = self.split_inner(inner_id, at + 1, key, child);
        }
        let mut root = Inner::EMPTY;
        root.insert(0, 0, self.root);
        root.insert(1, key, child);
        self.root = self.inners.insert(root);
        self.height += 1;
    }

    /// Splits a full leaf in two and adds an entry; returns the lowest start of the new right one.
    fn split_leaf(&mut self, left_id: u32, at: usize, entry: Entry) -> (u64, u32) {
        let mut right = Leaf::EMPTY;
        let left = &mut self.leaves[left_id];
        Leaf::spread(left, &mut right, CAP / 2);
        if at <= CAP / 2 {
            left.insert(at, entry);
        } else {
            right.insert(at - CAP / 2, entry);
        }
        (right.prev, right.next) = (left_id, left.next);
        let (key, after) = (right.start[0], right.next);
        let right_id = self.leaves.insert(right);
        self.leaves[left_id].next = right_id;
        if after != NONE {
            self.leaves[after].prev = right_id;
        }
        (key, right_id)
    }

    fn split_inner(&mut self, left_id: u32, at: usize, key: u64, child: u32) -> (u64, u32) {
        let mut right = Inner::EMPTY;
        let left = &mut self.inners[left_id];
        Inner::spread(left, &mut right, CAP / 2);
        if at <= CAP / 2 {
            left.insert(at, key, child);
        } else {
            right.insert(at - CAP / 2, key, child);
        }
        let key = right.key[0];
        (key, self.inners.insert(right))
    }

    /// Takes out the range that starts at `start`.
    pub(super) fn remove(&mut self, start: u64) -> Entry {
        if let Some(leaf) = self.finger_at(start).filter(|leaf| leaf.len > MIN) {
            let at = leaf.find(start);
            let entry = leaf.entry(at);
            leaf.remove(at);
            self.len -= 1;
            return entry;
        }
        let (leaf_id, mut path) = self.path_to(start);
        let leaf = &mut self.leaves[leaf_id];
        let at = leaf.find(start);
        let entry = leaf.entry(at);
        leaf.remove(at);
        self.finger = NONE;
        let mut short = leaf.len < MIN;
        self.len -= 1;
        let mut leaves = true;
        while short {
            let Some((parent, at)) = path.pop() else { break };
            let left = at.saturating_sub(1);
            if leaves {
                self.join_leaves(parent, left);
            } else {
                self.join_inners(parent, left);
            }
            leaves = false;
            short = self.inners[parent].len < MIN;
        }
        self.lower_root();
        entry
    }

    /// Drops a root with one child only, or an empty one.
    fn lower_root(&mut self) {
        if self.len == 0 {
            self.leaves.remove(self.root);
            self.root = NONE;
        } else if self.height > 0 && self.inners[self.root].len == 1 {
            self.root = self.inners.remove(self.root).child[0];
            self.height -= 1;
        }
    }

    /// Makes children `at` and `at + 1` one leaf, or two with enough entries each.
    fn join_leaves(&mut self, parent: u32, at: usize) {
        let (left_id, right_id) =
            (self.inners[parent].child[at], self.inners[parent].child[at + 1]);
        let (mut left, mut right) = (self.leaves[left_id], self.leaves[right_id]);
        let total = left.len + right.len;
        let merge = total <= CAP;
        Leaf::spread(&mut left, &mut right, if merge { total } else { total / 2 });
        if merge {
            left.next = right.next;
            self.leaves.remove(right_id);
            if right.next != NONE {
                self.leaves[right.next].prev = left_id;
            }
            self.inners[parent].remove(at + 1);
        } else {
            self.inners[parent].key[at + 1] = right.start[0];
            self.leaves[right_id] = right;
        }
        self.leaves[left_id] = left;
    }

    fn join_inners(&mut self, parent: u32, at: usize) {
        let (left_id, right_id) =
            (self.inners[parent].child[at], self.inners[parent].child[at + 1]);
        let (mut left, mut right) = (self.inners[left_id], self.inners[right_id]);
        right.key[0] = self.inners[parent].key[at + 1];
        let total = left.len + right.len;
        let merge = total <= CAP;
        Inner::spread(&mut left, &mut right, if merge { total } else { total / 2 });
        if merge {
            self.inners.remove(right_id);
            self.inners[parent].remove(at + 1);
        } else {
            self.inners[parent].key[at + 1] = right.key[0];
            self.inners[right_id] = right;
        }
        self.inners[left_id] = left;
    }

    /// Panics if an invariant is broken.
    pub(super) fn assert_consistent(&self) {
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
        let least = if id == self.root { 2 } else { MIN };
        assert!((least..=CAP).contains(&inner.len), "inner node of {} children", inner.len);
        for i in 0..inner.len {
            let low = if i == 0 { bounds.0 } else { inner.key[i] };
            let high = if i + 1 < inner.len { inner.key[i + 1] } else { bounds.1 };
            assert!(bounds.0 <= low && low < high && high <= bounds.1, "keys ascend");
            self.assert_node(inner.child[i], height - 1, (low, high), seen);
        }
    }

    fn assert_leaf(&self, id: u32, (low, high): (u64, u64), seen: &mut Seen) {
        let leaf = &self.leaves[id];
        let least = if id == self.root { 1 } else { MIN };
        assert!((least..=CAP).contains(&leaf.len), "leaf of {} ranges", leaf.len);
        assert_eq!(leaf.prev, seen.last, "leaves are linked in order");
        assert!(seen.last == NONE || self.leaves[seen.last].next == id, "both ways");
        for i in 0..leaf.len {
            let (start, end) = (leaf.start[i], leaf.end[i]);
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
