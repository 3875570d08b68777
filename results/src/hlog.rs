//! Interval logs of latency (`.hlog`), the format that the HdrHistogram tools of every language read.
//!
//! Owns their text: one file for each operation, one interval for each test, tagged with the test's
//! name. Format: `HistogramLogWriter` of HdrHistogram, version 1.3. Values are nanoseconds; the
//! column of the interval's maximum is in milliseconds, as those tools expect.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::latency::encode_compressed;

/// One interval: the samples of one test.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Its tag: the test's name, in which commas and white space become `_`.
    pub tag: String,
    /// Start of the test in microseconds since the run began.
    pub start_us: u64,
    /// Duration of the test in microseconds.
    pub length_us: u64,
    /// The samples, in nanoseconds.
    pub histogram: Histogram<u64>,
}

/// The text of an interval log of a run that began at `unix_ms`. Intervals are put in order.
#[must_use]
pub fn interval_log(unix_ms: u64, operation: &str, mut intervals: Vec<Interval>) -> String {
    intervals.sort_by(|a, b| (a.start_us, &a.tag).cmp(&(b.start_us, &b.tag)));
    let start = seconds(unix_ms * 1000);
    let mut text = format!(
        "#[fencepost: latency of {operation} in nanoseconds]\n\
         #[Histogram log format version 1.3]\n\
         #[StartTime: {start} (seconds since epoch)]\n\
         #[BaseTime: {start} (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
    );
    for Interval { tag, start_us, length_us, histogram } in &intervals {
        let tag: String =
            tag.chars().map(|c| if c == ',' || c.is_whitespace() { '_' } else { c }).collect();
        writeln!(
            text,
            "Tag={tag},{},{},{:.6},{}",
            seconds(*start_us),
            seconds(*length_us),
            histogram.max() as f64 / 1e6,
            encode_compressed(histogram)
        )
        .expect("a string takes any text");
    }
    text
}

/// Microseconds as seconds with three decimals.
fn seconds(us: u64) -> String {
    let ms = (us + 500) / 1000;
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::latency::{decode, histogram};

    #[test]
    fn the_crate_s_own_reader_reads_it_back() {
        let mut h = histogram();
        [5, 70_000, 2_000_000].into_iter().for_each(|v| h.saturating_record(v));
        let interval = |tag: &str, start_us| Interval {
            tag: tag.into(),
            start_us,
            length_us: 1_500_000,
            histogram: h.clone(),
        };
        let text = interval_log(
            1_700_000_000_123,
            "vm.bind",
            vec![interval("b@late@x, y", 2_000_000), interval("a@early@", 1_000)],
        );
        let mut tags = Vec::new();
        let mut base = None;
        // The crate's reader does not know the line of column names, which others want.
        let readable: String =
            text.lines().filter(|l| !l.starts_with('"')).map(|l| format!("{l}\n")).collect();
        for entry in IntervalLogIterator::new(readable.as_bytes()) {
            match entry.expect("each line parses") {
                LogEntry::Interval(i) => {
                    tags.push((
                        i.tag().expect("tagged").as_str().to_owned(),
                        i.start_timestamp(),
                        i.duration(),
                    ));
                    assert_eq!(decode(i.encoded_histogram()).expect("decodes"), h);
                    assert!((i.max() - h.max() as f64 / 1e6).abs() < 1e-6);
                }
                LogEntry::BaseTime(t) => base = Some(t),
                LogEntry::StartTime(_) => {}
            }
        }
        let length = Duration::from_millis(1_500);
        assert_eq!(
            tags,
            [
                ("a@early@".to_owned(), Duration::from_millis(1), length),
                ("b@late@x__y".to_owned(), Duration::from_secs(2), length)
            ]
        );
        assert_eq!(base, Some(Duration::from_millis(1_700_000_000_123)));
    }
}
