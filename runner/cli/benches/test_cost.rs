//! What a test costs: a trivial one through the runner, against starting and ending the same
//! program. Prints the ratio; nothing asserts it.
//!
//! Method: rounds of both in turn, so that a change of the machine's speed meets both; the median
//! round of each counts. The runner's own start is left out: from the journal, the time from the
//! first test's start to the last one's end, one test at a time.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use fencepost_results::Event;
use fencepost_results::journal::Journal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fencepost");
const ROUNDS: usize = 9;
const TESTS: usize = 200;

/// Hardly more than a test: what it costs is the runner's, the device's and the worker's start and
/// end.
const TRIVIAL: &str = "\
scenario: bench/trivial
about: Makes a buffer object and reads one of its words
params: { n: [NUMBERS] }
memory: { a: system 4K }
steps: [ { cpu.read: a + 8*$n == a@(8*$n) } ]
expect: [ { resident: { a: system } } ]
evidence: { ioctls: \">= 1\" }
";

fn main() {
    let scratch = tempfile::tempdir().expect("scratch folder");
    let numbers: Vec<String> = (0..TESTS).map(|n| n.to_string()).collect();
    let text = TRIVIAL.replace("NUMBERS", &numbers.join(", "));
    std::fs::write(scratch.path().join("trivial.yaml"), text).expect("written");
    let (mut bare, mut full) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        bare.push(bare_process());
        full.push(one_test(scratch.path(), round));
    }
    let (bare, full) = (median(bare), median(full));
    println!("fork, exec, exit of fencepost   {:8.1} us", bare);
    println!("a trivial test in the runner    {:8.1} us", full);
    println!("ratio                           {:8.2}  (at most 2)", full / bare);
}

/// Microseconds of a process that begins and ends.
fn bare_process() -> f64 {
    let began = Instant::now();
    for _ in 0..TESTS {
        let status = Command::new(PROGRAM)
            .args(["worker", "--nothing"])
            .stdin(Stdio::null())
            .status()
            .expect("starts");
        assert!(status.success());
    }
    began.elapsed().as_secs_f64() * 1e6 / TESTS as f64
}

/// Microseconds of a test.
fn one_test(folder: &Path, round: usize) -> f64 {
    let results = format!("r{round}");
    let output = Command::new(PROGRAM)
        .args(["run", "trivial.yaml", "--jobs", "1", "--seed", "1", "--results", &results])
        .current_dir(folder)
        .output()
        .expect("starts");
    assert!(output.status.success(), "{output:?}");
    let journal = Journal::read(&folder.join(results)).expect("reads");
    let at = |of: fn(&Event) -> bool| journal.lines.iter().filter(move |l| of(&l.event));
    let first = at(|e| matches!(e, Event::TestStarted(_))).next().expect("a test").at_us;
    let last = at(|e| matches!(e, Event::TestFinished(_))).next_back().expect("a test").at_us;
    (last - first) as f64 / TESTS as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
