//! The nodes of the tree, and how entries move within and between them.
//!
//! Keys, ends and records stand in arrays of their own, so that a search touches keys only. The
//! entries of a leaf, which come and go all the time, never move within it: their order is a word of
//! 16 numbers of 4 bits, as in Masstree (Mao and others, EuroSys 2012). Those of an inner node, which
//! seldom change, are sorted in place.

use super::super::arena::NONE;
use super::super::Span;
use super::Entry;

/// A node of ranges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    /// Places of the ranges in their order, then the free places: 4 bits each.
    order: u64,
    pub(super) len: usize,
    pub(super) prev: u32,
    pub(super) next: u32,
    start: [u64; Leaf::CAP],
    end: [u64; Leaf::CAP],
    record: [u32; Leaf::CAP],
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

/// The lowest bit of number `n` of an order.
#[inline]
fn bit(n: usize) -> usize {
    (n & 15) * 4
}

/// The bits of the first `n` numbers of an order.
#[inline]
fn first(n: usize) -> u64 {
    if n < Leaf::CAP {
        (1 << bit(n)) - 1
    } else {
        u64::MAX
    }
}

impl Leaf {
    /// Most ranges in a leaf: as many as an order has numbers.
    pub(super) const CAP: usize = 16;
    /// Fewest ranges in a leaf that is not the root. Below half, so that a range that comes and
    /// goes does not split and merge each time.
    pub(super) const MIN: usize = 6;

    pub(super) const EMPTY: Self = Self {
        order: 0xfedc_ba98_7654_3210,
        len: 0,
        prev: NONE,
        next: NONE,
        start: [0; Leaf::CAP],
        end: [0; Leaf::CAP],
        record: [0; Leaf::CAP],
    };

    /// The place of the range number `at`, or of a free one behind the last.
    #[inline]
    fn place(&self, at: usize) -> usize {
        (self.order >> bit(at) & 15) as usize
    }

    /// Where the range number `at` starts.
    #[inline]
    pub(super) fn start(&self, at: usize) -> u64 {
        self.start[self.place(at)]
    }

    /// Number of ranges that start at or below `key`.
    #[inline]
    pub(super) fn rank(&self, key: u64) -> usize {
        let mut rank = 0;
        // A binary search of fixed length, so that it unrolls.
        for step in [8, 4, 2, 1, 1] {
            let next = rank + step;
            if next <= self.len && self.start(next - 1) <= key {
                rank = next;
            }
        }
        rank
    }

    /// Which range starts at `start`.
    #[inline]
    pub(super) fn find(&self, start: u64) -> usize {
        let at = self.rank(start).checked_sub(1).filter(|at| self.start(*at) == start);
        at.unwrap_or_else(|| unreachable!("a range starts at {start:#x}"))
    }

    /// Adds a range as number `at`. There is room.
    #[inline]
    pub(super) fn insert(&mut self, at: usize, entry: Entry) {
        let place = self.place(self.len);
        let moved = self.order & first(self.len) & !first(at);
        let rest = self.order & !first(self.len + 1);
        self.order = self.order & first(at) | (place as u64) << bit(at) | moved << 4 | rest;
        self.len += 1;
        self.set(place, entry);
    }

    /// Takes out the range number `at`.
    #[inline]
    pub(super) fn remove(&mut self, at: usize) {
        let place = self.place(at) as u64;
        let moved = self.order & first(self.len) & !first(at + 1);
        let rest = self.order & !first(self.len);
        self.len -= 1;
        self.order = self.order & first(at) | moved >> 4 | place << bit(self.len) | rest;
    }

    /// Puts another range in the place of number `at`, which keeps the order.
    #[inline]
    pub(super) fn replace(&mut self, at: usize, entry: Entry) {
        self.set(self.place(at), entry);
    }

    #[inline]
    fn set(&mut self, place: usize, entry: Entry) {
        self.start[place] = entry.span.start;
        self.end[place] = entry.span.end;
        self.record[place] = entry.record;
    }

    /// The range number `at`.
    #[inline]
    pub(super) fn entry(&self, at: usize) -> Entry {
        let place = self.place(at);
        Entry { span: Span::new(self.start[place], self.end[place]), record: self.record[place] }
    }

    /// Moves entries between neighbours so that `left_new` are left.
    pub(super) fn spread(left: &mut Self, right: &mut Self, left_new: usize) {
        while left.len < left_new {
            left.insert(left.len, right.entry(0));
            right.remove(0);
        }
        while left.len > left_new {
            let last = left.len - 1;
            right.insert(0, left.entry(last));
            left.remove(last);
        }
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
        let mut place = 0;
        for step in [16, 8, 4, 2, 1] {
            let next = place + step;
            if next < self.len && self.key[next] <= key {
                place = next;
            }
        }
        place
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
