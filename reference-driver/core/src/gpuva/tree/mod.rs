//! A B+tree of disjoint ranges, each with the index of a record.
//!
//! Owns the order of ranges and nothing else. Nodes live in arenas; leaves are linked, so that a
//! walk over neighbours costs no descent.
//!
//! # Invariants
//! - Every node but the root holds at least `MIN` entries, the root of a taller tree at least 2.
//!   So a tree of n ranges has at most [`nodes_for`] (n) nodes, whatever happened before; that
//!   many are reserved, and no change within the reserved number of ranges can need memory.
//! - `key[i]` of an inner node is at most every range of `child[i]` and above every range of
//!   `child[i - 1]`; `key[0]` is not looked at.

mod check;
mod node;

use super::arena::{Arena, NONE};
use super::Span;
use crate::facade::AllocError;
use node::{Inner, Leaf};

/// More levels than 2^30 ranges can need at a fan-out of [`Inner::MIN`].
const MAX_HEIGHT: usize = 10;

/// A range and its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) span: Span,
    pub(super) record: u32,
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
    let leaves = ranges / Leaf::MIN + 1;
    let (mut inners, mut level) = (0, leaves);
    while level > 1 {
        level = level / Inner::MIN + 1;
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

    /// The leaf looked at last, if `key` lies between its first and last range: then it belongs
    /// there whatever the keys above are.
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
        if let Some(leaf) = self.finger_at(key).filter(|leaf| leaf.len < Leaf::CAP) {
            leaf.insert(leaf.rank(key), entry);
            return;
        }
        let (leaf_id, mut path) = self.path_to(key);
        let leaf = &mut self.leaves[leaf_id];
        let at = leaf.rank(key);
        debug_assert!(at == 0 || leaf.end[at - 1] <= key, "ranges are disjoint");
        debug_assert!(at == leaf.len || entry.span.end <= leaf.start[at], "ranges are disjoint");
        if leaf.len < Leaf::CAP {
            leaf.insert(at, entry);
            self.finger = leaf_id;
            return;
        }
        self.finger = NONE;
        let (mut key, mut child) = self.split_leaf(leaf_id, at, entry);
        while let Some((inner_id, at)) = path.pop() {
            let inner = &mut self.inners[inner_id];
            if inner.len < Inner::CAP {
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
        Leaf::spread(left, &mut right, Leaf::CAP / 2);
        if at <= Leaf::CAP / 2 {
            left.insert(at, entry);
        } else {
            right.insert(at - Leaf::CAP / 2, entry);
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
        Inner::spread(left, &mut right, Inner::CAP / 2);
        if at <= Inner::CAP / 2 {
            left.insert(at, key, child);
        } else {
            right.insert(at - Inner::CAP / 2, key, child);
        }
        let key = right.key[0];
        (key, self.inners.insert(right))
    }

    /// Takes out the range that starts at `start`.
    pub(super) fn remove(&mut self, start: u64) -> Entry {
        if let Some(leaf) = self.finger_at(start).filter(|leaf| leaf.len > Leaf::MIN) {
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
        let mut short = leaf.len < Leaf::MIN;
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
            short = self.inners[parent].len < Inner::MIN;
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
        let merge = total <= Leaf::CAP;
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
        let merge = total <= Inner::CAP;
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
}
