//! Randomness of a run: one 64-bit seed, one ChaCha8 stream an actor.
//!
//! A seed must mean the same in every release of one format version, so nothing here comes from a
//! library but the ChaCha8 block function: key layout, integer order, bounded integers, shuffle and
//! weighted choice are ours, written down at each function, and pinned by golden values.
//!
//! Key (format 1): the seed's eight bytes, little-endian, then the 24 bytes of [`DOMAIN`]. Stream
//! number: 0 for decisions of the test as a whole, `1 + n` for actor n in the order of the file.
//! Every draw takes whole 64-bit words of the key stream, so that no draw depends on how earlier
//! ones were grouped.
//!
//! Leaves out: where the seed comes from and that it is printed (the runner).

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Second part of the key: what the stream is for, and the format version.
pub const DOMAIN: &[u8; 24] = b"fencepost scenario seed1";

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Random {
    generator: ChaCha8Rng,
}

impl Random {
    /// The stream `stream` of a seed.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..].copy_from_slice(DOMAIN);
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(stream);
        Self { generator }
    }

    /// The stream of actor number `actor`, counted from 0 in the order of the scenario file.
    #[must_use]
    pub fn for_actor(seed: u64, actor: usize) -> Self {
        Self::new(seed, actor as u64 + 1)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.generator.next_u64()
    }

    /// A number below `bound`, each equally likely; 0 for a bound of 0 or 1 (which draws nothing).
    ///
    /// Multiply and reject: the high half of `word * bound` is the result, unless the low half is
    /// below `2^64 mod bound`, when the word is dropped and another is drawn. Every result then
    /// stands for exactly `floor(2^64 / bound)` words.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound <= 1 {
            return 0;
        }
        let rejected = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.word()) * u128::from(bound);
            // CAST: the low half is what is meant.
            if product as u64 >= rejected {
                return (product >> 64) as u64;
            }
        }
    }

    /// A number from `low` to `high`, both included, each equally likely.
    ///
    /// # Panics
    /// If `low > high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range {low}..={high} has no number to draw");
        match (high - low).checked_add(1) {
            Some(count) => low + self.below(count),
            None => self.word(),
        }
    }

    /// Shuffles in place, each order equally likely: for i from the last index down to 1, swaps
    /// items i and `below(i + 1)`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1);
            items.swap(i, j as usize);
        }
    }

    /// An index, each as likely as its weight: `below(sum of weights)`, then the first index
    /// whose weights up to and with it exceed that number. `None` if all weights are 0.
    pub fn weighted(&mut self, weights: &[u64]) -> Option<usize> {
        let total = weights.iter().fold(0u64, |sum, weight| sum.saturating_add(*weight));
        if total == 0 {
            return None;
        }
        let drawn = self.below(total);
        let mut sum = 0u64;
        weights.iter().position(|weight| {
            sum = sum.saturating_add(*weight);
            drawn < sum
        })
    }
}

/// A fixed mixing function (the finaliser of splitmix64): gives each index of a pattern its own
/// word without a stream. Not for choices, which need an unbiased draw.
#[must_use]
pub const fn mix(mut word: u64) -> u64 {
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        // Goal: any change of key layout, stream use or draw order is seen. The numbers are those
        // of format 1; a new format gets a new DOMAIN and new numbers, these never change.
        let mut words = Random::new(1, 0);
        assert_eq!([words.word(), words.word(), words.word()], GOLDEN_WORDS);
        let mut actor = Random::for_actor(0xfeed_face_cafe_beef, 2);
        let drawn: Vec<u64> = [10, 10, 1000, 3, 1 << 40, u64::MAX].map(|b| actor.below(b)).into();
        assert_eq!(drawn, GOLDEN_BELOW);
        let mut order = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        Random::new(7, 0).shuffle(&mut order);
        assert_eq!(order, GOLDEN_ORDER);
        let mut choice = Random::new(7, 1);
        let picks: Vec<_> = (0..8).map(|_| choice.weighted(&[5, 0, 3, 2]).unwrap()).collect();
        assert_eq!(picks, GOLDEN_PICKS);
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }

    const GOLDEN_WORDS: [u64; 3] =
        [0x061b_de9e_a918_8177, 0xaa7a_693b_b0cc_c567, 0x14e5_f52a_359b_9954];
    const GOLDEN_BELOW: [u64; 6] = [5, 0, 887, 2, 459_771_286_486, 8_036_390_886_429_848_244];
    const GOLDEN_ORDER: [i32; 10] = [6, 7, 0, 1, 2, 3, 9, 4, 5, 8];
    const GOLDEN_PICKS: [usize; 8] = [0, 3, 0, 2, 0, 2, 2, 2];

    #[test]
    fn streams_and_seeds_differ() {
        let first = |seed, stream| Random::new(seed, stream).word();
        let drawn = [first(1, 0), first(1, 1), first(2, 0), first(2, 1), first(1 << 63, 0)];
        for (i, a) in drawn.iter().enumerate() {
            assert!(drawn[i + 1..].iter().all(|b| a != b), "two streams begin with {a:#x}");
        }
    }

    #[test]
    fn bounded_numbers_are_even_and_in_range() {
        // 60,000 draws below 6: each count is within 5 % of 10,000 (seed fixed, so no flake).
        let mut random = Random::new(3, 0);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[random.below(6) as usize] += 1;
        }
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
        assert!((0..1000).all(|_| (5..=9).contains(&random.between(5, 9))));
        assert_eq!(random.between(4, 4), 4);
        assert_eq!(random.below(0), 0);
        random.between(0, u64::MAX);
    }

    #[test]
    fn rejection_hits_the_biased_words() {
        // 3 * 2^62 rejects a quarter of all words: without rejection the multiples of 3 would come
        // up half of the time in place of a third.
        let mut random = Random::new(9, 0);
        let multiples = (0..30_000).filter(|_| random.below(3 << 62).is_multiple_of(3)).count();
        assert!((9_700..10_300).contains(&multiples), "{multiples} of 30000 are multiples of 3");
    }

    #[test]
    fn weights_are_followed() {
        let mut random = Random::new(4, 0);
        let mut counts = [0u32; 4];
        for _ in 0..10_000 {
            counts[random.weighted(&[1, 0, 6, 3]).unwrap()] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((900..1100).contains(&counts[0]) && (5_800..6_200).contains(&counts[2]));
        assert_eq!(random.weighted(&[0, 0]), None);
        assert_eq!(random.weighted(&[]), None);
    }

    #[test]
    fn shuffle_reaches_every_order() {
        let mut random = Random::new(5, 0);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut order = [0u8, 1, 2];
            random.shuffle(&mut order);
            seen.insert(order);
        }
        assert_eq!(seen.len(), 6);
    }
}
