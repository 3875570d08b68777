//! Records in chunks, named by small index, with a free list.
//!
//! Chunks never move and are never given back, so growth copies nothing, and a place that was
//! reserved once stays available: this is what makes unwinding possible without memory.

use crate::facade::{AllocError, Box, Vec};
use core::ops::{Index, IndexMut};

/// No record.
pub(super) const NONE: u32 = u32::MAX;
/// Most records in one arena: the change log packs an index with two bits.
const MAX: u32 = (1 << 30) - 1;

/// One place: free, with the index of the next free one, or in use.
#[derive(Clone, Debug)]
enum Slot<T> {
    Free(u32),
    Used(T),
}

/// Records of one type, `CHUNK` (a power of two) to an allocation.
#[derive(Debug)]
pub(super) struct Arena<T, const CHUNK: usize> {
    chunks: Vec<Box<[Slot<T>; CHUNK]>>,
    /// Head of the free list.
    free: u32,
    free_len: usize,
    len: usize,
}

impl<T, const CHUNK: usize> Arena<T, CHUNK> {
    pub(super) const fn new() -> Self {
        assert!(CHUNK.is_power_of_two(), "an index is split into chunk and place by masks");
        Self { chunks: Vec::new(), free: NONE, free_len: 0, len: 0 }
    }

    /// Number of records in use.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Number of records that [`Arena::insert`] can take without memory.
    pub(super) fn room(&self) -> usize {
        self.free_len
    }

    /// Makes room for `additional` more records.
    #[inline]
    pub(super) fn reserve(&mut self, additional: usize) -> Result<(), AllocError> {
        while self.free_len < additional {
            self.grow()?;
        }
        Ok(())
    }

    #[cold]
    fn grow(&mut self) -> Result<(), AllocError> {
        let first = self.chunks.len() * CHUNK;
        if first + CHUNK > MAX as usize {
            return Err(AllocError);
        }
        self.chunks.reserve(1)?;
        // Ascending indices come off the list first, so that neighbours in time are neighbours in
        // memory.
        let (mut index, last) = (first, first + CHUNK - 1);
        let chunk = Box::filled(|| {
            index += 1;
            Slot::Free(if index <= last { index as u32 } else { self.free })
        })?;
        self.chunks.push(chunk)?;
        self.free = first as u32;
        self.free_len += CHUNK;
        Ok(())
    }

    /// The place that [`Arena::insert`] will use, which was reserved.
    #[inline]
    pub(super) fn next(&self) -> u32 {
        self.free
    }

    /// Puts a record into a place that was reserved.
    #[inline]
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let index = self.free;
        assert!(index != NONE, "the place was reserved before");
        let slot = &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        let Slot::Free(next) = *slot else { unreachable!("the free list holds free places only") };
        *slot = Slot::Used(value);
        self.free = next;
        self.free_len -= 1;
        self.len += 1;
        index
    }

    /// Takes a record out; its place is free for [`Arena::insert`].
    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> T {
        let slot = &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        let Slot::Used(value) = core::mem::replace(slot, Slot::Free(self.free)) else {
            unreachable!("record {index} is in use");
        };
        self.free = index;
        self.free_len += 1;
        self.len -= 1;
        value
    }

    /// The records in use with their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.chunks.iter().flat_map(|chunk| chunk.iter()).enumerate();
        slots.filter_map(|(index, slot)| match slot {
            Slot::Used(value) => Some((index as u32, value)),
            Slot::Free(_) => None,
        })
    }
}

impl<T, const CHUNK: usize> Index<u32> for Arena<T, CHUNK> {
    type Output = T;
    #[inline]
    fn index(&self, index: u32) -> &T {
        match &self.chunks[index as usize / CHUNK][index as usize % CHUNK] {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("record {index} is in use"),
        }
    }
}

impl<T, const CHUNK: usize> IndexMut<u32> for Arena<T, CHUNK> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut T {
        match &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK] {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("record {index} is in use"),
        }
    }
}
