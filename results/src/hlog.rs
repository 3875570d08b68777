//! Interval logs of latency (`.hlog`), the format that the HdrHistogram tools of every language read.
//!
//! Owns their text: one file for each operation, one interval for each test, tagged with the test's
//! name. Format: `HistogramLogWriter` of HdrHistogram, version 1.3. Values are nanoseconds; the
//! column of the interval's maximum is in milliseconds, as those tools expect.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::latency::encode_compressed;

/// An interval log being written. Intervals are added in the order of their starts.
#[derive(Clone, Debug)]
pub struct IntervalLog(String);

impl IntervalLog {
    /// An empty log of a run that began at `unix_ms`.
    #[must_use]
    pub fn new(unix_ms: u64, operation: &str) -> Self {
        let start = seconds(unix_ms * 1000);
        Self(format!(
            "#[fencepost: latency of {operation} in nanoseconds]\n\
             #[Histogram log format version 1.3]\n\
             #[StartTime: {start} (seconds since epoch)]\n\
             #[BaseTime: {start} (seconds since epoch)]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
        ))
    }

    /// Adds the samples of one test, in nanoseconds. Start and length are microseconds, the start
    /// since the run began. In the tag, which is the test's name, commas and white space become `_`.
    pub fn add(&mut self, test: &str, start_us: u64, length_us: u64, samples: &Histogram<u64>) {
        let plain = |c: char| if c == ',' || c.is_whitespace() { '_' } else { c };
        let tag: String = test.chars().map(plain).collect();
        writeln!(
            self.0,
            "Tag={tag},{},{},{:.6},{}",
            seconds(start_us),
            seconds(length_us),
            samples.max() as f64 / 1e6,
            encode_compressed(samples)
        )
        .expect("a string takes any text");
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
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
        let mut log = IntervalLog::new(1_700_000_000_123, "vm.bind");
        log.add("a@early@", 1_000, 1_500_000, &h);
        log.add("b@late@x, y", 2_000_000, 1_500_000, &h);
        let text = log.text();
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
