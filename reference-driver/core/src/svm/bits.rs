//! Sets of pages within 2 MiB, by index.
//!
//! Owns nothing but the bits: a set takes no memory, so that it can be made and changed under any lock.

use core::ops::Range;

/// A set of indices below 512.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bits([u64; 8]);

impl Bits {
    /// How many indices there are.
    pub const ROOM: usize = 512;

    /// Those of a range.
    #[must_use]
    pub fn range(range: Range<usize>) -> Self {
        let mut bits = Bits::default();
        range.for_each(|index| bits.put(index, true));
        bits
    }

    /// Puts an index in, or takes it out.
    pub fn put(&mut self, index: usize, present: bool) {
        let (word, bit) = (index / 64, 1 << (index % 64));
        match present {
            true => self.0[word] |= bit,
            false => self.0[word] &= !bit,
        }
    }

    /// Whether an index is in the set.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    /// Neighbours that are in the set, ascending.
    pub fn runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut at = 0;
        core::iter::from_fn(move || {
            let start = (at..Self::ROOM).find(|index| self.has(*index))?;
            at = (start..Self::ROOM).find(|index| !self.has(*index)).unwrap_or(Self::ROOM);
            Some(start..at)
        })
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;

    #[test]
    fn runs_are_what_was_put() {
        assert_eq!(Bits::default().runs().count(), 0);
        assert!(Bits::range(0..512).runs().eq(core::iter::once(0..512)));
        let mut bits = Bits::range(60..70);
        bits.put(65, false);
        bits.put(511, true);
        assert!(bits.runs().eq([60..65, 66..70, 511..512]));
        assert!(bits.has(60) && !bits.has(65) && !bits.has(512));
    }
}
