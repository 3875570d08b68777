//! The end of a run in words and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use fencepost_results::latency::{Nanos, Percentiles};
use fencepost_results::summary::{Operation, Summary};
use fencepost_results::{ExitCode, Totals, Verdict};
use serde::Serialize;

use super::needs_attention;
use crate::output::{Style, count, say};

/// The summary that closes the text of a run: latencies, why tests were skipped, what needs
/// attention, totals.
pub(crate) fn text(
    summary: &Summary,
    latencies: &BTreeMap<String, Operation>,
    style: Style,
    elapsed: Duration,
) -> String {
    let mut text = String::new();
    table(latencies, style, &mut text);
    skips(summary, &mut text);
    attention(summary, style, &mut text);
    let totals = summary.totals();
    let tests = count(totals.all(), "test");
    let line = format!("{tests} in {:.1} s: {totals}", elapsed.as_secs_f64());
    let fine = summary.tests.iter().all(|test| !needs_attention(test.verdict));
    text.push_str(&if fine { style.good(line) } else { style.bad(line) });
    if let Some(cause) = summary.finished.as_ref().and_then(|f| f.cut_short.as_ref()) {
        write!(text, "\nThe run was cut short: {cause}").expect("a string takes any text");
    }
    text
}

fn table(all: &BTreeMap<String, Operation>, style: Style, text: &mut String) {
    if all.is_empty() {
        return;
    }
    let width = all.keys().map(String::len).max().unwrap_or(0).max(7);
    let head = format!(
        "{:width$} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "latency", "count", "p50", "p90", "p99", "p99.9", "max"
    );
    text.push_str(&style.faint(head));
    for (operation, latency) in all {
        let Percentiles { count, p50, p90, p99, p999, max, .. } = Percentiles::of(&latency.total);
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(Nanos);
        write!(
            text,
            "\n{operation:width$} {count:>9} {p50:>8} {p90:>8} {p99:>8} {p999:>8} {max:>8}"
        )
        .expect("a string takes any text");
    }
    text.push_str("\n\n");
}

fn skips(summary: &Summary, text: &mut String) {
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for test in summary.tests.iter().filter(|test| test.verdict == Verdict::Skip) {
        *reasons.entry(test.reason.as_deref().unwrap_or("no reason")).or_default() += 1;
    }
    for (reason, number) in reasons {
        writeln!(text, "skipped {}: {reason}", count(number, "test"))
            .expect("a string takes any text");
    }
}

/// The tests that need attention once more, together, as their stories may be far above.
fn attention(summary: &Summary, style: Style, text: &mut String) {
    let bad: Vec<_> = summary.tests.iter().filter(|t| needs_attention(t.verdict)).collect();
    for test in bad.iter().take(20) {
        let verdict = style.bad(format!("{:12}", test.verdict));
        writeln!(text, "{verdict} {}", test.name).expect("a string takes any text");
    }
    if bad.len() > 20 {
        writeln!(text, "... and {} more", bad.len() - 20).expect("a string takes any text");
    }
}

/// What `run --json` prints.
#[derive(Serialize)]
struct RunJson<'a> {
    version: u32,
    totals: &'a Totals,
    results: &'a Path,
    seed: u64,
    exit: u8,
}

/// Prints the one JSON object of a run on standard output.
pub(crate) fn print_json(summary: &Summary, folder: &Path, seed: u64, code: ExitCode) {
    let totals = summary.totals();
    let json = RunJson { version: 1, totals: &totals, results: folder, seed, exit: code.code() };
    say!("{}", serde_json::to_string(&json).expect("all keys are strings"));
}
