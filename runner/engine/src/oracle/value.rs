//! What a write puts into memory, as a function of the place: constants, patterns, literal bytes,
//! and what a copy took from elsewhere. Owns the bytes; who wrote them when is in `memory`.

use super::clock::Event;
use crate::lang::ast::pattern_word;
use std::sync::Arc;

/// An object of the test's memory list, or one made while it runs.
pub type Object = usize;

/// Content of a range. Offsets are those of the object written to; `shift` is added to one, modulo
/// 2^64, to find the place in the source.
#[derive(Clone, Debug)]
pub enum Source {
    /// The same 8 (or twice the same 4) bytes over and over, little-endian.
    Word {
        /// The bytes; a 4-byte value stands in both halves.
        word: u64,
        /// Where its byte 0 goes.
        shift: u64,
    },
    /// The test's unique pattern of the object with this number.
    Unique {
        /// Number of the object whose pattern it is.
        index: usize,
        /// To find the offset in that object.
        shift: u64,
    },
    /// Literal bytes.
    Bytes {
        /// The bytes.
        data: Arc<[u8]>,
        /// To find the index.
        shift: u64,
    },
    /// What another range held at an event.
    Copy {
        /// The object copied from.
        object: Object,
        /// To find the offset in that object.
        shift: u64,
        /// When it was copied.
        at: Event,
    },
    /// One of these, for each word anew.
    OneOf(Arc<[Source]>),
    /// Anything: the oracle does not model how it came about.
    Unknown,
}

impl Source {
    /// A value of `width` bytes repeated from `offset` on.
    #[must_use]
    pub fn repeat(value: u64, width: u64, offset: u64) -> Self {
        let word = if width == 4 { (value & 0xffff_ffff) | (value << 32) } else { value };
        Self::Word { word, shift: offset.wrapping_neg() }
    }

    /// Literal bytes from `offset` on.
    #[must_use]
    pub fn bytes(data: &[u8], offset: u64) -> Self {
        Self::Bytes { data: data.into(), shift: offset.wrapping_neg() }
    }

    /// The same content for a range that is `by` away (target offset + `by` = old offset).
    #[must_use]
    pub fn shifted(&self, by: u64) -> Self {
        let mut moved = self.clone();
        match &mut moved {
            Self::Word { shift, .. }
            | Self::Unique { shift, .. }
            | Self::Bytes { shift, .. }
            | Self::Copy { shift, .. } => *shift = shift.wrapping_add(by),
            Self::OneOf(sources) => {
                *sources = sources.iter().map(|source| source.shifted(by)).collect();
            }
            Self::Unknown => {}
        }
        moved
    }

    /// Writes the content at `offset` to `out`; false if it is not a constant.
    #[must_use]
    pub fn fill(&self, offset: u64, out: &mut [u8]) -> bool {
        match self {
            Self::Word { word, shift } => {
                let start = offset.wrapping_add(*shift);
                let turned = word.rotate_right((start & 7) as u32 * 8).to_le_bytes();
                for chunk in out.chunks_mut(8) {
                    chunk.copy_from_slice(&turned[..chunk.len()]);
                }
            }
            Self::Unique { index, shift } => {
                let mut at = offset.wrapping_add(*shift);
                let mut rest = out;
                while !rest.is_empty() {
                    let word = pattern_word(*index, at & !7).to_le_bytes();
                    let from = (at & 7) as usize;
                    let count = (8 - from).min(rest.len());
                    let (now, later) = rest.split_at_mut(count);
                    now.copy_from_slice(&word[from..from + count]);
                    at = at.wrapping_add(count as u64);
                    rest = later;
                }
            }
            Self::Bytes { data, shift } => {
                let from = offset.wrapping_add(*shift) as usize;
                out.copy_from_slice(&data[from..from + out.len()]);
            }
            Self::Copy { .. } | Self::OneOf(_) | Self::Unknown => return false,
        }
        true
    }

    /// The content at `offset` as a number of `width` bytes, if it is a constant.
    #[must_use]
    pub fn word(&self, offset: u64, width: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.fill(offset, &mut bytes[..width as usize]).then(|| u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_source_equals_that_part_of_the_whole() {
        let data: Vec<u8> = (0..64).collect();
        for source in [
            Source::repeat(0x1122_3344_5566_7788, 8, 1000),
            Source::repeat(0xaabb_ccdd, 4, 1000),
            Source::Unique { index: 3, shift: 5 },
            Source::bytes(&data, 1000),
        ] {
            let mut whole = [0; 64];
            assert!(source.fill(1000, &mut whole));
            for (from, len) in [(0, 1), (3, 9), (8, 8), (13, 40), (63, 1)] {
                let mut part = vec![0; len];
                assert!(source.fill(1000 + from as u64, &mut part));
                assert_eq!(part, whole[from..from + len], "{source:?} from {from}");
                assert!(source.shifted(100).fill(900 + from as u64, &mut part));
                assert_eq!(part, whole[from..from + len], "{source:?} shifted");
            }
        }
    }

    #[test]
    fn words_are_little_endian_and_fours_are_doubled() {
        assert_eq!(Source::repeat(7, 8, 16).word(16, 8), Some(7));
        assert_eq!(Source::repeat(0x1_0000_0007, 4, 12).word(16, 4), Some(7));
        assert_eq!(Source::repeat(7, 4, 12).word(16, 8), Some(0x7_0000_0007));
        assert_eq!(Source::Unique { index: 1, shift: 0 }.word(8, 8), Some(pattern_word(1, 8)));
        assert_eq!(Source::Unknown.word(0, 8), None);
    }
}
