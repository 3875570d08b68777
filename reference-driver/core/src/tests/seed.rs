//! Randomness of this crate's tests: ChaCha8 from a printed seed.
//!
//! Owns the seed and the bounded helpers. `FENCEPOST_SEED=N` replaces the seeds that a test would
//! use; a failing test prints the one it used.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A stream of random numbers.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `bound`, by the high half of a product.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "some number is below the bound");
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of the choices.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Runs `test` with each of the seeds 0 to `count`, printing it.
pub(crate) fn for_seeds(count: u64, test: impl Fn(Random)) {
    let chosen = std::env::var("FENCEPOST_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = chosen.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        println!("FENCEPOST_SEED={seed}");
        test(Random::new(seed));
    }
}
