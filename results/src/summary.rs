//! What a journal amounts to: a verdict for each test, the failures with their evidence, the
//! latencies by operation.
//!
//! Owns the derivation; knows nothing of how it is printed. A test that began and did not finish is
//! incomplete; one that was planned and never began was not run.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use hdrhistogram::Histogram;

use crate::event::{
    Event, Latency, Line, Report, RunFinished, RunStarted, TestFinished, TestStarted,
};
use crate::hlog::IntervalLog;
use crate::journal::Journal;
use crate::latency;
use crate::verdict::{Totals, Verdict};

/// All that is known of one test.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Option<String>,
    /// Its start, unless it was skipped or never began.
    pub started: Option<TestStarted>,
    /// Start in microseconds since the run began.
    pub at_us: u64,
    /// Duration in microseconds.
    pub duration_us: u64,
    /// What the worker said, in order.
    pub reports: Vec<Report>,
}

/// A run as its journal tells it.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The frame; none when the runner died before it was written.
    pub run: Option<RunStarted>,
    /// The end; none when the runner died.
    pub finished: Option<RunFinished>,
    /// The tests, planned ones first in their order.
    pub tests: Vec<Test>,
}

impl Summary {
    /// Derives the summary.
    #[must_use]
    pub fn of(journal: &Journal) -> Self {
        let mut summary = Self { run: None, finished: None, tests: Vec::new() };
        let mut index = BTreeMap::new();
        for line in &journal.lines {
            summary.take(line, &mut index);
        }
        summary
    }

    fn take(&mut self, line: &Line, index: &mut BTreeMap<String, usize>) {
        match &line.event {
            Event::RunStarted(run) => {
                for name in &run.planned {
                    self.test(name, index);
                }
                self.run = Some(run.clone());
            }
            Event::TestStarted(started) => {
                let test = self.test(&started.test, index);
                test.verdict = Verdict::Incomplete;
                test.reason = Some("the runner ended while it ran".into());
                test.at_us = line.at_us;
                test.started = Some(started.clone());
                test.reports.clear();
            }
            Event::Reported { test, report } => {
                self.test(test, index).reports.push(report.clone());
            }
            Event::TestFinished(TestFinished { test, verdict, reason, duration_us, .. }) => {
                let test = self.test(test, index);
                test.verdict = *verdict;
                test.reason.clone_from(reason);
                test.duration_us = *duration_us;
            }
            Event::RunFinished(finished) => self.finished = Some(finished.clone()),
        }
    }

    fn test(&mut self, name: &str, index: &mut BTreeMap<String, usize>) -> &mut Test {
        let at = *index.entry(name.to_owned()).or_insert_with(|| {
            self.tests.push(Test {
                name: name.to_owned(),
                verdict: Verdict::Notrun,
                reason: Some("the run ended before it began".into()),
                started: None,
                at_us: 0,
                duration_us: 0,
                reports: Vec::new(),
            });
            self.tests.len() - 1
        });
        &mut self.tests[at]
    }

    /// How many tests got which verdict.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.tests.iter().map(|test| test.verdict).collect()
    }

    /// The test of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Test> {
        self.tests.iter().find(|test| test.name == name)
    }

    /// Each operation's latencies over all tests and actors. A histogram that does not decode is
    /// left out: a crashing worker may write anything.
    #[must_use]
    pub fn latencies(&self) -> BTreeMap<String, Operation> {
        let began = self.run.as_ref().map_or(0, |run| run.unix_ms);
        let mut tests: Vec<&Test> = self.tests.iter().collect();
        tests.sort_by_key(|test| test.at_us);
        let mut all: BTreeMap<String, Operation> = BTreeMap::new();
        for test in tests {
            // One at a time: a histogram has 230 KB, and a run ten thousands of them.
            for (name, histogram) in test.latencies() {
                if !all.contains_key(name) {
                    let log = IntervalLog::new(began, name);
                    all.insert(name.to_owned(), Operation { total: latency::histogram(), log });
                }
                let operation = all.get_mut(name).expect("it was put there");
                latency::merge(&mut operation.total, &histogram);
                operation.log.add(&test.name, test.at_us, test.duration_us, &histogram);
            }
        }
        all
    }
}

/// How long an operation took in a run.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Over all tests.
    pub total: Histogram<u64>,
    /// Test by test.
    pub log: IntervalLog,
}

impl Test {
    /// Each operation's latencies, all actors together.
    fn latencies(&self) -> BTreeMap<&str, Histogram<u64>> {
        let mut all: BTreeMap<&str, Histogram<u64>> = BTreeMap::new();
        for report in &self.reports {
            let Report::Latency(Latency { operation, histogram, .. }) = report else { continue };
            let Ok(histogram) = latency::decode(histogram) else { continue };
            match all.entry(operation) {
                Entry::Vacant(slot) => {
                    slot.insert(histogram);
                }
                Entry::Occupied(sum) => latency::merge(sum.into_mut(), &histogram),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FORMAT_VERSION;
    use crate::event::Source;

    fn journal(events: Vec<Event>) -> Journal {
        let lines =
            events.into_iter().zip(0..).map(|(event, n)| Line { at_us: n * 1000, event }).collect();
        Journal { lines, torn: false }
    }

    fn run(planned: &[&str]) -> Event {
        Event::RunStarted(RunStarted {
            version: FORMAT_VERSION,
            program: "0".into(),
            run: "r".into(),
            unix_ms: 5_000,
            seed: 1,
            device: "ref".into(),
            kernel: "6".into(),
            cpus: 1,
            argv: vec![],
            planned: planned.iter().map(|s| (*s).to_owned()).collect(),
        })
    }

    fn start(test: &str) -> Event {
        Event::TestStarted(TestStarted {
            test: test.into(),
            seed: 3,
            source: Source::Bundled("s/t.yaml".into()),
        })
    }

    fn finish(test: &str, verdict: Verdict) -> Event {
        Event::TestFinished(TestFinished {
            test: test.into(),
            verdict,
            reason: None,
            duration_us: 1500,
            ending: None,
        })
    }

    fn took(test: &str, actor: &str, ns: &[u64]) -> Event {
        let mut histogram = latency::histogram();
        ns.iter().for_each(|ns| histogram.saturating_record(*ns));
        let report = Report::Latency(Latency {
            actor: actor.into(),
            operation: "vm.bind".into(),
            histogram: latency::encode(&histogram),
        });
        Event::Reported { test: test.into(), report }
    }

    #[test]
    fn unfinished_tests_are_incomplete_or_not_run() {
        let summary = Summary::of(&journal(vec![
            run(&["a", "b", "c", "d"]),
            start("a"),
            start("b"),
            finish("a", Verdict::Pass),
            finish("d", Verdict::Skip),
        ]));
        let verdicts: Vec<_> = summary.tests.iter().map(|t| (&*t.name, t.verdict)).collect();
        assert_eq!(
            verdicts,
            [
                ("a", Verdict::Pass),
                ("b", Verdict::Incomplete),
                ("c", Verdict::Notrun),
                ("d", Verdict::Skip)
            ]
        );
        assert!(summary.finished.is_none());
        assert_eq!(summary.totals().all(), 4);
    }

    #[test]
    fn an_empty_journal_has_an_empty_summary() {
        let summary = Summary::of(&Journal::default());
        assert!(summary.run.is_none() && summary.tests.is_empty());
    }

    #[test]
    fn latencies_merge_over_actors_and_tests() {
        let garbage = Event::Reported {
            test: "b".into(),
            report: Report::Latency(Latency {
                actor: "x".into(),
                operation: "vm.bind".into(),
                histogram: "garbage".into(),
            }),
        };
        let summary = Summary::of(&journal(vec![
            run(&["a", "b"]),
            start("a"),
            took("a", "cpu0", &[100]),
            took("a", "cpu1", &[200, 300]),
            start("b"),
            took("b", "cpu0", &[400]),
            garbage,
            finish("a", Verdict::Pass),
            finish("b", Verdict::Pass),
        ]));
        let all = summary.latencies();
        assert_eq!(all["vm.bind"].total.len(), 4);
        assert_eq!(all["vm.bind"].total.max(), 400);
        let log = all["vm.bind"].log.text();
        let tagged: Vec<_> = log.lines().filter(|l| l.starts_with("Tag=")).collect();
        assert_eq!(tagged.len(), 2, "{log}");
        assert!(tagged[0].starts_with("Tag=a,0.001,0.002,"), "{log}");
    }
}
