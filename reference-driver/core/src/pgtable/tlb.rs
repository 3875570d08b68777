//! A translation cache of one engine for one VM.
//!
//! Owns nothing but copies of page-table entries. What is in it stays until it is invalidated or
//! pushed out, whatever happens to the page table: a missing invalidation shows.

use super::{Entry, SIZE_2M, SIZE_4K, SIZE_64K};
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
    ways: [Option<Entry>; WAYS],
    /// The way to be replaced next when all are in use.
    next: usize,
}

impl Tlb {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { sets: [[Set { ways: [None; WAYS], next: 0 }; SETS]; SIZES.len()] }
    }

    fn set_of(addr: u64, size: u64) -> usize {
        (addr / size) as usize % SETS
    }

    /// The page that holds `addr`, if it is in the cache.
    #[must_use]
    pub fn lookup(&self, addr: u64) -> Option<Entry> {
        SIZES.iter().zip(&self.sets).find_map(|(size, sets)| {
            let ways = &sets[Self::set_of(addr, *size)].ways;
            ways.iter().flatten().find(|e| e.span.start <= addr && addr < e.span.end).copied()
        })
    }

    /// Adds the page found by a walk for `addr`; the oldest of its set makes room.
    pub fn insert(&mut self, addr: u64, mut entry: Entry) {
        if entry.span.len() > SIZE_2M {
            let start = addr & !(SIZE_2M - 1);
            entry.span = Span::new(start, start + SIZE_2M);
        }
        let Some(part) = SIZES.iter().position(|size| *size == entry.span.len()) else {
            unreachable!("a page has one of the sizes")
        };
        let set = &mut self.sets[part][Self::set_of(entry.span.start, SIZES[part])];
        let same = set.ways.iter().position(|way| way.is_some_and(|old| old.span == entry.span));
        let way = same.or_else(|| set.ways.iter().position(Option::is_none)).unwrap_or_else(|| {
            let oldest = set.next;
            set.next = (oldest + 1) % WAYS;
            oldest
        });
        set.ways[way] = Some(entry);
    }

    /// Forgets every page that overlaps `span`; says how many there were.
    pub fn invalidate(&mut self, span: Span) -> usize {
        let mut forgotten = 0;
        for way in self.sets.iter_mut().flatten().flat_map(|set| &mut set.ways) {
            if way.is_some_and(|entry| entry.span.overlaps(span)) {
                *way = None;
                forgotten += 1;
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
