//! A translation cache of one engine for one VM.
//!
//! Owns nothing but copies of page-table entries. What is in it stays until it is invalidated or
//! pushed out, whatever happens to the page table: a missing invalidation shows.

use super::node::Pte;
use super::{Entry, Props, SIZE_2M, SIZE_4K, SIZE_64K};
use crate::gpuva::Span;

/// Pages that share a place, for each size of page.
const WAYS: usize = 4;
/// Places for each size of page.
const SETS: usize = 8;
/// The sizes of page that it holds; larger ones are held by pieces of the last.
const SIZES: [u64; 3] = [SIZE_4K, SIZE_64K, SIZE_2M];

/// The cache: set-associative, with a part for each size of page.
#[derive(Clone, Debug)]
pub struct Tlb {
    sets: [[Set; SETS]; SIZES.len()],
}

#[derive(Clone, Copy, Debug)]
struct Set {
    ways: [Way; WAYS],
    /// The way to be replaced next when all are in use.
    next: usize,
}

/// A page in the cache; unused while its entry is empty. Kept small, as the whole may stand on a
/// kernel's stack.
#[derive(Clone, Copy, Debug)]
struct Way {
    start: u64,
    pte: Pte,
}

impl Way {
    const UNUSED: Self = Self { start: 0, pte: Pte::EMPTY };

    /// The page, of a size which all of its set have.
    fn entry(&self, size: u64) -> Option<Entry> {
        self.pte.entry(self.start, size)
    }
}

impl Tlb {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { sets: [[Set { ways: [Way::UNUSED; WAYS], next: 0 }; SETS]; SIZES.len()] }
    }

    fn set_of(addr: u64, size: u64) -> usize {
        (addr / size) as usize % SETS
    }

    /// The page that holds `addr`, if it is in the cache.
    #[must_use]
    pub fn lookup(&self, addr: u64) -> Option<Entry> {
        SIZES.iter().zip(&self.sets).find_map(|(size, sets)| {
            let start = addr & !(size - 1);
            let ways = &sets[Self::set_of(addr, *size)].ways;
            let way = ways.iter().find(|way| way.start == start && !way.pte.is_empty())?;
            way.entry(*size)
        })
    }

    /// Adds the page found by a walk for `addr`; the oldest of its set makes room.
    pub fn insert(&mut self, addr: u64, entry: Entry) {
        let size = entry.span.len().min(SIZE_2M);
        let Some(part) = SIZES.iter().position(|s| *s == size) else {
            unreachable!("a page has one of the sizes")
        };
        let start = addr & !(size - 1);
        let Entry { readonly, no_atomic, kind, .. } = entry;
        let props = Props { readonly, no_atomic, kind, in_sparse: false };
        let set = &mut self.sets[part][Self::set_of(start, size)];
        let used = |way: &Way| !way.pte.is_empty();
        let same = set.ways.iter().position(|way| used(way) && way.start == start);
        let free = || set.ways.iter().position(|way| !used(way));
        let way = same.or_else(free).unwrap_or_else(|| {
            let oldest = set.next;
            set.next = (oldest + 1) % WAYS;
            oldest
        });
        set.ways[way] = Way { start, pte: Pte::new(entry.target, props) };
    }

    /// Forgets every page that overlaps `span`; says how many there were.
    pub fn invalidate(&mut self, span: Span) -> usize {
        let mut forgotten = 0;
        for (size, sets) in SIZES.iter().zip(&mut self.sets) {
            for way in sets.iter_mut().flat_map(|set| &mut set.ways) {
                if way.entry(*size).is_some_and(|entry| entry.span.overlaps(span)) {
                    *way = Way::UNUSED;
                    forgotten += 1;
                }
            }
        }
        forgotten
    }

    /// Forgets everything.
    pub fn invalidate_all(&mut self) {
        *self = Self::new();
    }
}

impl Default for Tlb {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(size_of::<Tlb>() < 2048, "see Way");
