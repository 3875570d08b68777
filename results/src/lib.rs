//! What a run leaves behind: events, verdicts, latency histograms, and the journal that holds them.
//!
//! Owns the only stable format, `journal.jsonl` ([`journal`]), and everything that is derived from
//! it: totals and the exit code ([`verdict`]), the summary ([`summary`]), the interval logs of
//! latency ([`hlog`]). It starts no process, knows no driver, and prints nothing.
//!
//! A worker (one test in one process) speaks [`Report`]s, a JSON object a line, to a descriptor that
//! the runner gave it. The runner puts each into the journal within an [`Event`] and adds what the
//! worker cannot know: when it began, how it ended.

pub mod event;
pub mod hlog;
pub mod journal;
pub mod latency;
pub mod summary;
pub mod verdict;

pub use event::{
    Ending, Event, Evidence, FORMAT_VERSION, Failure, Latency, Line, Outcome, Report, RunFinished,
    RunStarted, Source, Step, TestFinished, TestStarted,
};
pub use verdict::{ExitCode, Totals, Verdict};
