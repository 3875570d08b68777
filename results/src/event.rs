//! The events of a run: what stands on the lines of the journal, and what a worker says.
//!
//! Owns the records and their JSON form. Rules of the format: every line is one [`Line`]; a reader
//! ignores keys that it does not know; a change that an older reader would misunderstand raises
//! [`FORMAT_VERSION`]. Who writes them when is the journal's and the runner's matter.

use serde::{Deserialize, Serialize};

use crate::verdict::Verdict;

/// Version of the journal's format, in its first line.
pub const FORMAT_VERSION: u32 = 1;

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since the run began, by the monotonic clock.
    pub at_us: u64,
    /// What happened.
    pub event: Event,
}

/// What happened in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The run began; always the first line.
    RunStarted(RunStarted),
    /// A test's process is about to be started.
    TestStarted(TestStarted),
    /// A worker said something about its test.
    Reported {
        /// The test's name.
        test: String,
        /// What it said.
        report: Report,
    },
    /// A test is over, or was skipped without being started.
    TestFinished(TestFinished),
    /// The run is over; missing when the runner itself was killed.
    RunFinished(RunFinished),
}

/// The frame of a run: what would be needed to do it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// [`FORMAT_VERSION`] of the writer.
    pub version: u32,
    /// Version of the program.
    pub program: String,
    /// Name of the run: the name of its folder.
    pub run: String,
    /// Wall clock at the start, milliseconds since 1970.
    pub unix_ms: u64,
    /// The run's seed, which is the seed of each of its tests.
    pub seed: u64,
    /// Device under test, as given to `--device`.
    pub device: String,
    /// Kernel release of the machine.
    pub kernel: String,
    /// Number of CPUs that the runner may use.
    pub cpus: u32,
    /// Command line, program name first.
    pub argv: Vec<String>,
    /// Names of the tests that the run means to execute, in order, skips included.
    pub planned: Vec<String>,
}

/// The start of a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestStarted {
    /// Its name, `suite@scenario@variant`.
    pub test: String,
    /// Its seed.
    pub seed: u64,
    /// Where its scenario's text comes from.
    pub source: Source,
}

/// Where a scenario's text comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Bundled in the program: path below `suites/`.
    Bundled(String),
    /// A user's file: its path as given.
    File(String),
}

/// The end of a test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestFinished {
    /// Its name.
    pub test: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, where the verdict needs a reason: one line.
    pub reason: Option<String>,
    /// Its duration in microseconds, from before its process started until it was reaped; 0 for a
    /// test that was not started.
    pub duration_us: u64,
    /// How its process ended; none when there was no process.
    pub ending: Option<Ending>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It exited with this status.
    Exit(i32),
    /// This signal killed it.
    Signal(i32),
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFinished {
    /// Exit status of the runner.
    pub exit: u8,
    /// The run was interrupted by a signal or by its overall time-out; the reason in one line.
    pub cut_short: Option<String>,
}

/// What a worker says of its test. The last one is always [`Report::Outcome`]; a worker that ends
/// without one has crashed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// Where an actor is. Sent before steps that may never return; the runner quotes each actor's
    /// last one when the test crashes or times out.
    Progress(Step),
    /// Something did not hold. There may be several.
    Failure(Failure),
    /// A counter that had to move, and whether it did.
    Evidence(Evidence),
    /// How long an operation took, all calls of one actor.
    Latency(Latency),
    /// Anything worth keeping that has no form of its own, e.g. a choice made from the seed.
    Note {
        /// The text.
        text: String,
    },
    /// The end of the test.
    Outcome(Outcome),
}

/// A step of a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The actor, or `setup`, `expect`.
    pub actor: String,
    /// The step in words, e.g. `gpu.store at=a+4K value=7`.
    pub text: String,
    /// Line in the scenario, from 1; 0 when unknown.
    pub line: u32,
}

/// Something that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that showed it.
    pub step: Option<Step>,
    /// What was looked at, e.g. `word 3 of a, read by the CPU`.
    pub what: String,
    /// What had to be.
    pub expected: String,
    /// What was.
    pub seen: String,
    /// Further lines for the reader, e.g. the history of the word.
    pub details: Vec<String>,
}

/// A counter that had to move during the test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The counter's name.
    pub counter: String,
    /// The condition, e.g. `>= 1`.
    pub wanted: String,
    /// By how much it moved.
    pub seen: i64,
    /// The condition held.
    pub met: bool,
}

/// The latencies of one operation of one actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The actor.
    pub actor: String,
    /// The operation, e.g. `vm.bind`; also the name of the file that collects it.
    pub operation: String,
    /// The histogram of nanoseconds, as [`crate::latency::encode`] gives it.
    pub histogram: String,
}

/// How a worker judges its test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// `Pass`, `Fail`, `Skip` or `Inconclusive`; the others are the runner's to give.
    pub verdict: Verdict,
    /// Why; needed unless it is a pass.
    pub reason: Option<String>,
}

impl Report {
    /// The report as a line of JSON with its newline, to be written with one write.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a report has only string keys");
        line.push('\n');
        line
    }

    /// Reads a line that [`Self::to_line`] wrote.
    ///
    /// # Errors
    /// The line is no report.
    pub fn from_line(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_line() {
        let reports = [
            Report::Progress(Step { actor: "gpu0".into(), text: "gpu.store".into(), line: 7 }),
            Report::Failure(Failure {
                step: None,
                what: "word 3 of \"a\"\n".into(),
                expected: "7".into(),
                seen: "0".into(),
                details: vec!["stored by gpu0".into()],
            }),
            Report::Evidence(Evidence {
                counter: "ops.map".into(),
                wanted: ">= 1".into(),
                seen: -1,
                met: false,
            }),
            Report::Note { text: "seed 5".into() },
            Report::Outcome(Outcome { verdict: Verdict::Fail, reason: Some("x".into()) }),
        ];
        for report in reports {
            let line = report.to_line();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert_eq!(Report::from_line(&line).expect("parses"), report);
        }
    }

    #[test]
    fn unknown_keys_are_ignored_and_unknown_reports_are_not() {
        let more = r#"{"report":"note","text":"t","later":1}"#;
        assert_eq!(Report::from_line(more).expect("parses"), Report::Note { text: "t".into() });
        assert!(Report::from_line(r#"{"report":"later"}"#).is_err());
    }

    #[test]
    fn the_largest_seed_is_kept() {
        let line = Line {
            at_us: 1,
            event: Event::TestStarted(TestStarted {
                test: "a@b@c".into(),
                seed: u64::MAX,
                source: Source::Bundled("a/b.yaml".into()),
            }),
        };
        let text = serde_json::to_string(&line).expect("serialises");
        assert_eq!(serde_json::from_str::<Line>(&text).expect("parses"), line);
    }
}
