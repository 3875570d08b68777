//! Device memory: a buddy allocator of 4 KiB frames, as Linux's `drm_buddy`.
//!
//! Owns which frames are in use. All it needs is allocated at its creation: its lock is taken where
//! memory may not be asked for. A frame is named by its number; what it holds is the host's.
//!
//! # Invariants
//! - A block of order n has 1 << n frames and begins at a multiple of that.
//! - Two free blocks that are buddies do not exist: they were merged.
//! - Every frame is in one free block or in one allocation.

use crate::facade::{AllocError, Vec};
use fencepost_uapi::Errno;

/// No block.
const NONE: u32 = u32::MAX;
/// Largest order: blocks of 64 MiB.
pub const MAX_ORDER: u32 = 14;

/// A power of two of contiguous frames, aligned to their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First frame.
    pub frame: u64,
    /// Number of frames.
    pub frames: u64,
}

/// What [`Buddy::alloc`] gave: to be given to [`Buddy::free`].
#[derive(Debug)]
#[must_use = "an allocation must be freed"]
pub struct Allocation {
    /// First block of the chain.
    first: u32,
    /// Number of blocks.
    blocks: usize,
    frames: u64,
}

impl Allocation {
    /// Number of blocks.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Number of frames.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }
}

/// State of the block that begins at a frame; the frames inside a block say [`State::Inside`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Inside,
    Free,
    Used,
}

/// What is known of one frame.
#[derive(Clone, Copy, Debug)]
struct Frame {
    state: State,
    order: u8,
    /// Neighbours in the free list, or `next` in the allocation's chain.
    prev: u32,
    next: u32,
}

/// The allocator.
#[derive(Debug)]
pub struct Buddy {
    frames: Vec<Frame>,
    /// First free block of each order.
    free: [u32; MAX_ORDER as usize + 1],
    used: u64,
}

impl Buddy {
    /// An allocator of `frames` frames, all free.
    ///
    /// # Errors
    /// [`AllocError`] without memory for the table, or with more frames than it can number.
    pub fn new(frames: u64) -> Result<Self, AllocError> {
        let len = u32::try_from(frames).ok().filter(|n| *n < NONE).ok_or(AllocError)?;
        let mut table = Vec::new();
        let inside = Frame { state: State::Inside, order: 0, prev: NONE, next: NONE };
        table.resize(len as usize, inside)?;
        let mut new = Self { frames: table, free: [NONE; MAX_ORDER as usize + 1], used: 0 };
        // From the top down, so that the lists begin with the lowest block.
        let mut end = len;
        while end > 0 {
            let order = new.largest_ending(end);
            end -= 1 << order;
            new.push(end, order);
        }
        Ok(new)
    }

    /// The largest order of an aligned block that ends at `end`, when all below is to be covered by
    /// blocks as large as possible.
    fn largest_ending(&self, end: u32) -> u32 {
        let mut order = end.trailing_zeros().min(MAX_ORDER);
        while 1 << order > end {
            order -= 1;
        }
        order
    }

    /// Number of frames.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Frames in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    fn push(&mut self, frame: u32, order: u32) {
        let next = core::mem::replace(&mut self.free[order as usize], frame);
        if next != NONE {
            self.frames[next as usize].prev = frame;
        }
        self.frames[frame as usize] =
            Frame { state: State::Free, order: order as u8, prev: NONE, next };
    }

    fn unlink(&mut self, frame: u32) {
        let Frame { order, prev, next, .. } = self.frames[frame as usize];
        if prev == NONE {
            self.free[order as usize] = next;
        } else {
            self.frames[prev as usize].next = next;
        }
        if next != NONE {
            self.frames[next as usize].prev = prev;
        }
        self.frames[frame as usize].state = State::Inside;
    }

    /// Takes one block of `order`, splitting a larger one if there is none.
    fn take(&mut self, order: u32) -> Option<u32> {
        let mut from = (order..=MAX_ORDER).find(|o| self.free[*o as usize] != NONE)?;
        let frame = self.free[from as usize];
        self.unlink(frame);
        while from > order {
            from -= 1;
            self.push(frame + (1 << from), from);
        }
        self.frames[frame as usize] =
            Frame { state: State::Used, order: order as u8, prev: NONE, next: NONE };
        Some(frame)
    }

    /// Allocates `frames` frames in blocks as large as there are, each no larger than what is
    /// still wanted. Allocates no memory of the driver.
    ///
    /// # Errors
    /// `ENOMEM`: fewer frames are free. Nothing is taken then.
    pub fn alloc(&mut self, frames: u64) -> Result<Allocation, Errno> {
        if frames > self.total() - self.used {
            return Err(Errno::NOMEM);
        }
        let mut allocation = Allocation { first: NONE, blocks: 0, frames };
        let (mut rest, mut last) = (frames, NONE);
        while rest > 0 {
            let wanted = rest.ilog2().min(MAX_ORDER);
            let taken = (0..=wanted).rev().find_map(|order| self.take(order));
            let frame = taken.unwrap_or_else(|| unreachable!("enough frames are free"));
            rest -= 1 << self.frames[frame as usize].order;
            if last == NONE {
                allocation.first = frame;
            } else {
                self.frames[last as usize].next = frame;
            }
            last = frame;
            allocation.blocks += 1;
        }
        self.used += frames;
        Ok(allocation)
    }

    /// The blocks of an allocation, in the order in which its frames count.
    pub fn blocks<'a>(&'a self, allocation: &Allocation) -> impl Iterator<Item = Block> + 'a {
        let mut next = allocation.first;
        core::iter::from_fn(move || {
            let first = next;
            let frame = self.frames.get(first as usize)?;
            next = frame.next;
            Some(Block { frame: u64::from(first), frames: 1 << frame.order })
        })
    }

    /// Frees an allocation and merges buddies. Allocates nothing.
    pub fn free(&mut self, allocation: Allocation) {
        self.used -= allocation.frames;
        let mut next = allocation.first;
        while next != NONE {
            let block = self.frames[next as usize];
            assert!(block.state == State::Used, "frame {next} is allocated");
            let first = core::mem::replace(&mut next, block.next);
            self.merge(first, u32::from(block.order));
        }
    }

    /// Takes one block of 1 << order frames.
    pub fn alloc_block(&mut self, order: u32) -> Option<u64> {
        let frame = self.take(order.min(MAX_ORDER))?;
        self.used += 1 << order;
        Some(frame.into())
    }

    /// Frees some frames of blocks that [`Buddy::alloc_block`] gave. Allocates nothing.
    pub fn free_run(&mut self, first: u64, count: u64) {
        let (mut at, end) = (first as u32, (first + count) as u32);
        while at < end {
            let (head, order) = self.block_of(at);
            let mut piece = at.trailing_zeros().min(order);
            while at + (1 << piece) > end {
                piece -= 1;
            }
            self.cut(head, order, at, piece);
            self.used -= 1 << piece;
            self.merge(at, piece);
            at += 1 << piece;
        }
    }

    /// The block in use that has a frame: its first frame and its order.
    fn block_of(&self, frame: u32) -> (u32, u32) {
        let heads = (0..=MAX_ORDER).map(|order| frame & !((1 << order) - 1));
        let is_head = |head: &u32| self.frames[*head as usize].state != State::Inside;
        let head = heads.into_iter().find(is_head).unwrap_or(frame);
        let block = self.frames[head as usize];
        assert!(block.state == State::Used, "frame {frame} is allocated");
        (head, u32::from(block.order))
    }

    /// Splits a block in use until a piece of it is a block.
    fn cut(&mut self, mut head: u32, mut order: u32, at: u32, piece: u32) {
        while order > piece {
            order -= 1;
            let upper = head + (1 << order);
            for half in [head, upper] {
                self.frames[half as usize] =
                    Frame { state: State::Used, order: order as u8, prev: NONE, next: NONE };
            }
            head = if at >= upper { upper } else { head };
        }
    }

    /// Frees one block; as long as its buddy is free as a whole, both become one.
    fn merge(&mut self, mut frame: u32, mut order: u32) {
        self.frames[frame as usize].state = State::Inside;
        while order < MAX_ORDER {
            let buddy = frame ^ (1 << order);
            let Some(other) = self.frames.get(buddy as usize) else { break };
            if other.state != State::Free || u32::from(other.order) != order {
                break;
            }
            self.unlink(buddy);
            frame = frame.min(buddy);
            order += 1;
        }
        self.push(frame, order);
    }

    /// Panics if an invariant is broken.
    pub fn assert_consistent(&self) {
        let (mut at, mut used, mut free_blocks) = (0, 0, 0);
        while at < self.frames.len() {
            let Frame { state, order, .. } = self.frames[at];
            let size = 1usize << order;
            assert!(at % size == 0 && at + size <= self.frames.len(), "block {at} is aligned");
            let inside = &self.frames[at + 1..at + size];
            assert!(inside.iter().all(|f| f.state == State::Inside), "block {at} is one");
            match state {
                State::Used => used += size as u64,
                State::Free => {
                    free_blocks += 1;
                    let buddy = self.frames.get(at ^ size);
                    let merged = u32::from(order) == MAX_ORDER
                        || buddy.is_none_or(|b| b.state != State::Free || b.order != order);
                    assert!(merged, "block {at} and its buddy are merged");
                }
                State::Inside => unreachable!("frame {at} is in no block"),
            }
            at += size;
        }
        assert_eq!(used, self.used, "frames in use");
        assert_eq!(free_blocks, self.listed(), "every free block is on its list");
    }

    fn listed(&self) -> usize {
        let mut listed = 0;
        for (order, first) in self.free.iter().enumerate() {
            let (mut prev, mut at) = (NONE, *first);
            while at != NONE {
                let frame = self.frames[at as usize];
                assert_eq!(frame.state, State::Free, "a listed block is free");
                assert_eq!((usize::from(frame.order), frame.prev), (order, prev), "on its list");
                (prev, at) = (at, frame.next);
                listed += 1;
            }
        }
        listed
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
