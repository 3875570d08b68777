//! The check's random numbers: ChaCha8 from a seed, the same numbers as `rand_chacha` gives, with
//! the project's own bounded helpers.
//!
//! Owns the generator, as the kernel offers none by rounds of 8 to modules. Knows nothing of the
//! kernel: a test of runner/cli compares it with `rand_chacha`.

/// A stream of random numbers: key = seed, stream = `stream`.
pub(crate) struct Random {
    input: [u32; 16],
    block: [u32; 16],
    used: usize,
}

/// One quarter of a round on four words.
fn quarter(s: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    let mut half = |left: u32, right: u32| {
        s[a] = s[a].wrapping_add(s[b]);
        s[d] = (s[d] ^ s[a]).rotate_left(left);
        s[c] = s[c].wrapping_add(s[d]);
        s[b] = (s[b] ^ s[c]).rotate_left(right);
    };
    half(16, 12);
    half(8, 7);
}

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut input = [0; 16];
        // "expand 32-byte k"
        input[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]);
        (input[4], input[5]) = (seed as u32, (seed >> 32) as u32);
        (input[14], input[15]) = (stream as u32, (stream >> 32) as u32);
        Self { input, block: [0; 16], used: 16 }
    }

    fn refill(&mut self) {
        let mut s = self.input;
        for _ in 0..4 {
            for i in 0..4 {
                quarter(&mut s, [i, i + 4, i + 8, i + 12]);
            }
            for i in 0..4 {
                quarter(&mut s, [i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12]);
            }
        }
        for (word, input) in s.iter_mut().zip(&self.input) {
            *word = word.wrapping_add(*input);
        }
        (self.block, self.used) = (s, 0);
        let (low, wrapped) = self.input[12].overflowing_add(1);
        self.input[12] = low;
        self.input[13] = self.input[13].wrapping_add(u32::from(wrapped));
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        if self.used == 16 {
            self.refill();
        }
        let at = self.used;
        self.used += 2;
        u64::from(self.block[at]) | u64::from(self.block[at + 1]) << 32
    }

    /// A number below `bound`, by the high half of a product.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (u128::from(self.next_u64()).wrapping_mul(u128::from(bound)) >> 64) as u64
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
