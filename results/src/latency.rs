//! Latency histograms: how they are made, sent by a worker, merged, and read as percentiles.
//!
//! Owns the range and precision that all share: nanoseconds from 1 ns to 100 s, three significant
//! digits. Where they are kept is the matter of [`crate::hlog`] and the journal.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
pub use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer, V2Serializer};
use thiserror::Error;

/// The longest latency that is told apart, in nanoseconds; longer ones count as this.
pub const MAX_NS: u64 = 100_000_000_000;

/// Significant decimal digits of every recorded latency.
pub const DIGITS: u8 = 3;

/// A text is no histogram.
#[derive(Debug, Error)]
#[error("not a latency histogram: {0}")]
pub struct DecodeError(String);

/// An empty histogram. Record with [`Histogram::saturating_record`]: it cannot fail.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_NS, DIGITS).expect("the bounds are constants that fit")
}

/// The histogram as text for the journal: base64 of the V2 encoding. It is not compressed, as
/// that would cost a worker more than the few dozen bytes of a short test are worth.
#[must_use]
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).expect("a vector takes any bytes");
    STANDARD.encode(bytes)
}

/// The histogram as text for an interval log: base64 of the compressed V2 encoding.
#[must_use]
pub fn encode_compressed(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("a vector takes any bytes");
    STANDARD.encode(bytes)
}

/// Reads what [`encode`] or [`encode_compressed`] wrote.
///
/// # Errors
/// The text is neither.
pub fn decode(text: &str) -> Result<Histogram<u64>, DecodeError> {
    let bytes = STANDARD.decode(text).map_err(|e| DecodeError(e.to_string()))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|e| DecodeError(format!("{e:?}")))
}

/// Adds `other` to `sum`. Values beyond the bounds of `sum` count as the nearest.
pub fn merge(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    // Ends with the last sample, where an addition of all counts goes through all the empty ones.
    for step in other.iter_recorded() {
        sum.saturating_record_n(step.value_iterated_to(), step.count_since_last_iteration());
    }
}

/// What a reader wants to know of a distribution, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentiles {
    /// Number of samples.
    pub count: u64,
    /// The shortest.
    pub min: u64,
    /// Half are no longer.
    pub p50: u64,
    /// 90 of 100 are no longer.
    pub p90: u64,
    /// 99 of 100 are no longer.
    pub p99: u64,
    /// 999 of 1000 are no longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Percentiles {
    /// Reads them from a histogram; all are 0 for an empty one.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            min: if histogram.is_empty() { 0 } else { histogram.min() },
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        }
    }
}

/// A duration in nanoseconds with a fitting unit and three digits: `1.23us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nanos(pub u64);

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = match self.0 {
            0..1_000 => return f.pad(&format!("{}ns", self.0)),
            1_000..1_000_000 => ("us", 1e3),
            1_000_000..1_000_000_000 => ("ms", 1e6),
            _ => ("s", 1e9),
        };
        let value = self.0 as f64 / scale;
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        f.pad(&format!("{value:.digits$}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    fn filled(seed: u64, samples: u32) -> Histogram<u64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut h = histogram();
        for _ in 0..samples {
            // All magnitudes, beyond the range too.
            h.saturating_record(rng.next_u64() >> (rng.next_u32() % 64));
        }
        h
    }

    #[test]
    fn both_encodings_give_the_histogram_back() {
        for seed in 0..50 {
            let h = filled(seed, seed as u32 * 7);
            assert_eq!(decode(&encode(&h)).expect("decodes"), h, "seed {seed}");
            assert_eq!(decode(&encode_compressed(&h)).expect("decodes"), h, "seed {seed}");
        }
    }

    #[test]
    fn a_few_samples_make_a_short_text() {
        let mut h = histogram();
        [900, 1_500, 40_000].into_iter().for_each(|v| h.saturating_record(v));
        assert!(encode(&h).len() < 100, "{}", encode(&h).len());
    }

    #[test]
    fn merging_is_recording_in_one() {
        for seed in 0..20 {
            let (a, b) = (filled(seed, 300), filled(seed + 1000, 40));
            let mut sum = a.clone();
            merge(&mut sum, &b);
            assert_eq!(sum.len(), a.len() + b.len());
            assert_eq!(sum.max(), a.max().max(b.max()));
            assert_eq!(sum.min(), a.min().min(b.min()));
        }
    }

    #[test]
    fn percentiles_are_within_the_precision() {
        let mut h = histogram();
        (1..=1000).for_each(|v| h.saturating_record(v * 1_000));
        let p = Percentiles::of(&h);
        assert_eq!(p.count, 1000);
        for (seen, wanted) in [(p.p50, 500_000), (p.p90, 900_000), (p.p99, 990_000)] {
            assert!(seen.abs_diff(wanted) * 1000 <= wanted, "{seen} for {wanted}");
        }
        assert_eq!(Percentiles::of(&histogram()).max, 0);
    }

    #[test]
    fn garbage_is_refused() {
        for text in ["", "!", "AAAA", "SGVsbG8gd29ybGQ="] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_three_digits() {
        let table = [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1.00us"),
            (12_340, "12.3us"),
            (123_400, "123us"),
            (5_000_000, "5.00ms"),
            (61_000_000_000, "61.0s"),
        ];
        for (ns, text) in table {
            assert_eq!(Nanos(ns).to_string(), text);
        }
    }
}
