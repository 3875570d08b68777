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

/// The way from the root to a leaf: inner nodes and which child was taken. Needed only where nodes
/// split or join.
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
    /// Where the last look began, or [`NONE`] after a change of nodes: what follows a look is
    /// mostly a change there.
    finger: u32,
    /// The address that it looked for, which belongs to that leaf.
    finger_key: u64,
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
            finger_key: 0,
        }
    }

    /// Number of ranges.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Makes sure that `additional` more ranges, and any change meanwhile, need no memory.
    #[inline]
    pub(super) fn reserve(&mut self, additional: usize) -> Result<(), AllocError> {
        let ranges = self.len + additional;
        if ranges <= self.reserved {
            return Ok(());
        }
        self.grow(ranges)
    }

    #[cold]
    fn grow(&mut self, ranges: usize) -> Result<(), AllocError> {
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

    /// The leaf to which a range that starts at `key` belongs. The tree is not empty.
    #[inline]
    fn leaf_of(&self, key: u64) -> u32 {
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = &self.inners[node];
            node = inner.child[inner.place(key)];
        }
        node
    }

    /// The same, by the last look if that tells: `key` was looked for, or lies between two ranges
    /// of that leaf.
    #[inline]
    fn leaf_near(&self, key: u64) -> u32 {
        if self.finger != NONE {
            let leaf = &self.leaves[self.finger];
            let within = || leaf.len > 0 && leaf.start(0) <= key && key <= leaf.start(leaf.len - 1);
            if key == self.finger_key || within() {
                return self.finger;
            }
        }
        self.leaf_of(key)
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

    /// The first range that ends above `addr`, and where it stands.
    #[inline]
    pub(super) fn seek(&self, addr: u64) -> Option<(Position, Entry)> {
        if self.root == NONE {
            return None;
        }
        self.seek_from(self.leaf_of(addr), addr)
    }

    /// The same from the leaf to which `addr` belongs.
    #[inline]
    fn seek_from(&self, leaf: u32, addr: u64) -> Option<(Position, Entry)> {
        let node = &self.leaves[leaf];
        let rank = node.rank(addr);
        let before = match rank.checked_sub(1) {
            Some(at) => Some((Position { leaf, at }, node.entry(at))),
            // Keys are lower bounds: the range before may reach beyond the key of this leaf.
            None if node.prev == NONE => None,
            None => {
                let last = self.leaves[node.prev].len - 1;
                self.at(Position { leaf: node.prev, at: last })
            }
        };
        match before {
            Some((_, entry)) if entry.span.end > addr => before,
            _ => self.at(Position { leaf, at: rank }),
        }
    }

    /// What stands at a position; one past the end of a leaf is the first of the next leaf.
    #[inline]
    pub(super) fn at(&self, position: Position) -> Option<(Position, Entry)> {
        let leaf = &self.leaves[position.leaf];
        if position.at < leaf.len {
            return Some((position, leaf.entry(position.at)));
        }
        if leaf.next == NONE {
            return None;
        }
        let position = Position { leaf: leaf.next, at: 0 };
        Some((position, self.leaves[position.leaf].entry(0)))
    }

    /// What stands behind a position.
    #[inline]
    pub(super) fn after(&self, position: Position) -> Option<(Position, Entry)> {
        self.at(Position { at: position.at + 1, ..position })
    }

    /// The same as [`Tree::seek`], by a caller who will change the tree there.
    #[inline]
    pub(super) fn seek_to_change(&mut self, addr: u64) -> Option<(Position, Entry)> {
        if self.root == NONE {
            return None;
        }
        (self.finger, self.finger_key) = (self.leaf_of(addr), addr);
        self.seek_from(self.finger, addr)
    }

    /// The range that starts at `start`, if there is one.
    #[inline]
    pub(super) fn get(&self, start: u64) -> Option<Entry> {
        if self.root == NONE {
            return None;
        }
        let leaf = &self.leaves[self.leaf_of(start)];
        let at = leaf.rank(start).checked_sub(1)?;
        Some(leaf.entry(at)).filter(|entry| entry.span.start == start)
    }

    /// The first range that ends above `addr`.
    pub(super) fn first_after(&self, addr: u64) -> Option<Entry> {
        self.seek(addr).map(|(_, entry)| entry)
    }

    /// The ranges that overlap `span`, ascending.
    pub(super) fn iter(&self, span: Span) -> impl Iterator<Item = Entry> + '_ {
        let mut next = self.seek(span.start);
        core::iter::from_fn(move || {
            let (position, entry) = next.filter(|(_, entry)| entry.span.start < span.end)?;
            next = self.after(position);
            Some(entry)
        })
    }

    /// Adds a range, which overlaps none; room was reserved.
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) {
        self.len += 1;
        if self.root == NONE {
            self.root = self.leaves.insert(Leaf::EMPTY);
        }
        let key = entry.span.start;
        let leaf_id = self.leaf_near(key);
        let leaf = &mut self.leaves[leaf_id];
        if leaf.len < Leaf::CAP {
            let at = leaf.rank(key);
            debug_assert!(at == 0 || leaf.entry(at - 1).span.end <= key, "ranges are disjoint");
            debug_assert!(at == leaf.len || entry.span.end <= leaf.start(at), "they are disjoint");
            leaf.insert(at, entry);
        } else {
            self.insert_by_split(entry);
        }
    }

    /// The same where the leaf is full.
    #[cold]
    fn insert_by_split(&mut self, entry: Entry) {
        let (leaf_id, mut path) = self.path_to(entry.span.start);
        let at = self.leaves[leaf_id].rank(entry.span.start);
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
        let (key, after) = (right.start(0), right.next);
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

    /// Whether a leaf can lose a range as it is.
    #[inline]
    fn can_lose(&self, leaf: u32) -> bool {
        self.leaves[leaf].len > if self.height > 0 { Leaf::MIN } else { 1 }
    }

    /// Takes out the range that starts at `start`.
    #[inline]
    pub(super) fn remove(&mut self, start: u64) -> Entry {
        let leaf_id = self.leaf_near(start);
        let at = self.leaves[leaf_id].find(start);
        let entry = self.leaves[leaf_id].entry(at);
        self.remove_at(Position { leaf: leaf_id, at }, start);
        entry
    }

    /// Takes out the range at a position, which starts at `start`. The position names what comes
    /// behind it then, unless nodes were joined, which gives `false`.
    #[inline]
    pub(super) fn remove_at(&mut self, position: Position, start: u64) -> bool {
        if self.can_lose(position.leaf) {
            self.leaves[position.leaf].remove(position.at);
            self.len -= 1;
            return true;
        }
        self.remove_by_join(start);
        false
    }

    /// Puts a range in the place of the one at a position, within which it lies.
    #[inline]
    pub(super) fn replace_at(&mut self, position: Position, entry: Entry) {
        let leaf = &mut self.leaves[position.leaf];
        let old = leaf.start(position.at);
        // A start that moves up may come above the key of the next leaf, unless there is a range
        // behind it in this one.
        if entry.span.start == old || position.at + 1 < leaf.len {
            leaf.replace(position.at, entry);
        } else {
            self.remove_at(position, old);
            self.insert(entry);
        }
    }

    /// Takes out a range from a leaf that has too few then.
    #[cold]
    fn remove_by_join(&mut self, start: u64) {
        let (leaf_id, mut path) = self.path_to(start);
        let leaf = &mut self.leaves[leaf_id];
        leaf.remove(leaf.find(start));
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
            self.inners[parent].key[at + 1] = right.start(0);
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
