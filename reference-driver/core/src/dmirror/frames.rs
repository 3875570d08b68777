//! The frames of a dmirror device: which are free, and whose the others are.
//!
//! Owns the allocator. Frames come back one by one and in any order, from whoever had the pages
//! last, which the buddy allocator of buffer objects does not take.

use crate::facade::{AllocError, Vec};

/// Frames of a large page.
pub(super) const LARGE: u64 = 512;

/// Nobody's.
const FREE: u16 = u16::MAX;

/// The allocator.
pub(super) struct Frames {
    /// Whose each frame is: the place of a file in the device's table.
    owners: Vec<u16>,
    /// Free frames of each group of [`LARGE`].
    free: Vec<u16>,
    /// Which groups were given out as one.
    large: Vec<bool>,
    /// The frame at which the search for a single one begins, in the group that is begun.
    next: usize,
}

impl Frames {
    /// All free; what is beyond the last whole group is left out.
    ///
    /// # Errors
    /// [`AllocError`].
    pub(super) fn new(frames: u64) -> Result<Self, AllocError> {
        let groups = (frames / LARGE) as usize;
        let (mut owners, mut free, mut large) = (Vec::new(), Vec::new(), Vec::new());
        owners.resize(groups * LARGE as usize, FREE)?;
        free.resize(groups, LARGE as u16)?;
        large.resize(groups, false)?;
        Ok(Frames { owners, free, large, next: 0 })
    }

    /// Number of frames.
    pub(super) fn total(&self) -> u64 {
        self.owners.len() as u64
    }

    /// One frame: of a group that is begun already, if there is one.
    pub(super) fn alloc(&mut self, owner: u16) -> Option<u64> {
        let begun = |free: &u16| (1..LARGE as u16).contains(free);
        let group = self.next / LARGE as usize;
        let group = match self.free.get(group).is_some_and(begun) {
            true => group,
            false => {
                let begun = self.free.iter().position(begun);
                begun.or_else(|| self.free.iter().position(|free| *free > 0))?
            }
        };
        let (first, end) = (group * LARGE as usize, (group + 1) * LARGE as usize);
        let from = self.next.clamp(first, end);
        let mut frames = (from..end).chain(first..from);
        let frame = frames.find(|frame| self.owners[*frame] == FREE)?;
        // The next one is in the same group as long as that has any.
        self.next = if frame + 1 < end { frame + 1 } else { first };
        self.take(frame, owner);
        Some(frame as u64)
    }

    /// A whole group.
    pub(super) fn alloc_large(&mut self, owner: u16) -> Option<u64> {
        let group = self.free.iter().position(|free| u64::from(*free) == LARGE)?;
        let first = group * LARGE as usize;
        for frame in first..first + LARGE as usize {
            self.take(frame, owner);
        }
        self.large[group] = true;
        Some(first as u64)
    }

    fn take(&mut self, frame: usize, owner: u16) {
        self.owners[frame] = owner;
        self.free[frame / LARGE as usize] -= 1;
    }

    /// Frames came back.
    pub(super) fn free(&mut self, first: u64, count: u64) {
        for frame in first..first + count {
            let owner = self.owners.get_mut(frame as usize).filter(|owner| **owner != FREE);
            let Some(owner) = owner else { continue };
            *owner = FREE;
            let group = (frame / LARGE) as usize;
            self.free[group] += 1;
            self.large[group] = false;
        }
    }

    /// Whether any frame of the group of a frame is in use.
    pub(super) fn is_used(&self, frame: u64) -> bool {
        self.free.get((frame / LARGE) as usize).is_some_and(|free| u64::from(*free) < LARGE)
    }

    /// Whose a frame is, and whether it was given out with its neighbours.
    pub(super) fn owner(&self, frame: u64) -> Option<(u16, bool)> {
        let owner = self.owners.get(frame as usize).copied().filter(|owner| *owner != FREE)?;
        Some((owner, self.large[(frame / LARGE) as usize]))
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn single_frames_fill_a_group_before_they_begin_another() {
        let mut frames = Frames::new(2 * LARGE + 7).unwrap();
        assert_eq!(frames.total(), 2 * LARGE);
        let large = frames.alloc_large(1).unwrap();
        assert_eq!(frames.owner(large + 3), Some((1, true)));
        for _ in 0..LARGE {
            assert!(frames.alloc(2).is_some_and(|frame| frame >= LARGE));
        }
        assert_eq!((frames.alloc(2), frames.alloc_large(2)), (None, None));
        frames.free(large + 9, 1);
        frames.free(large + 9, 1);
        assert_eq!(frames.owner(large + 3), Some((1, false)), "it is not whole any more");
        assert_eq!((frames.alloc(3), frames.alloc(3)), (Some(large + 9), None));
        frames.free(0, 2 * LARGE);
        assert_eq!(frames.owner(5), None);
        assert!(frames.alloc_large(4).is_some() && frames.alloc_large(4).is_some());
    }
}
