//! The verdict on a test from what its worker said and how worker and device ended: one total
//! function.

use std::collections::BTreeMap;
use std::time::Duration;

use fencepost_results::{Ending, Outcome, Report, Step, Verdict};

use crate::stop::Cause;

/// What there is to judge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// What the worker said last, if it came to that.
    pub(crate) outcome: Option<Outcome>,
    /// It reported something that did not hold.
    pub(crate) failed: bool,
    /// Each actor's last known step.
    pub(crate) places: BTreeMap<String, Step>,
    /// A line that was no report.
    pub(crate) garbage: Option<String>,
    /// How the process ended; none if it could not be started.
    pub(crate) ending: Option<Ending>,
    /// It was killed as it took longer than this.
    pub(crate) timed_out: Option<Duration>,
    /// It was killed as the run stops.
    pub(crate) stopped: Option<Cause>,
    /// The device died or could not be made: why.
    pub(crate) device: Option<String>,
    /// What was left of the test on the device after its processes were gone.
    pub(crate) leaks: Vec<String>,
}

impl Observed {
    /// Takes in a report.
    pub(crate) fn hear(&mut self, report: &Report) {
        match report {
            Report::Progress(step) => {
                self.places.insert(step.actor.clone(), step.clone());
            }
            Report::Failure(_) => self.failed = true,
            Report::Outcome(outcome) => self.outcome = Some(outcome.clone()),
            Report::Evidence(_) | Report::Latency(_) | Report::Note { .. } => {}
        }
    }

    /// The verdict and its reason. What makes the worker's own word worthless comes first.
    pub(crate) fn judge(&self) -> (Verdict, Option<String>) {
        let because = |verdict, reason: String| (verdict, Some(reason));
        if let Some(cause) = &self.stopped {
            return because(Verdict::Incomplete, cause.text());
        }
        if let Some(death) = &self.device {
            return because(Verdict::Crash, death.clone());
        }
        if let Some(limit) = self.timed_out {
            return because(Verdict::Timeout, format!("no end after {limit:?}{}", self.place()));
        }
        if let Some(Ending::Signal(signal)) = self.ending {
            return because(
                Verdict::Crash,
                format!("the worker was killed by {}{}", signal_name(signal), self.place()),
            );
        }
        if let Some(line) = &self.garbage {
            return because(Verdict::Crash, format!("the worker said what is no report: {line}"));
        }
        let status = match self.ending {
            Some(Ending::Exit(status)) => status,
            Some(Ending::Signal(_)) | None => -1,
        };
        let Some(outcome) = &self.outcome else {
            return because(
                Verdict::Crash,
                format!("the worker exited with {status} without an outcome{}", self.place()),
            );
        };
        self.word_of(outcome, status)
    }

    /// The worker's own word, unless something contradicts it.
    fn word_of(&self, outcome: &Outcome, status: i32) -> (Verdict, Option<String>) {
        let because = |verdict, reason: String| (verdict, Some(reason));
        match outcome.verdict {
            Verdict::Pass if self.failed => {
                because(Verdict::Fail, "a failure was reported, then a pass".into())
            }
            Verdict::Pass if status != 0 => {
                because(Verdict::Crash, format!("the worker passed, then exited with {status}"))
            }
            Verdict::Pass | Verdict::Inconclusive if !self.leaks.is_empty() => because(
                Verdict::Fail,
                format!("left on the device after the last close: {}", self.leaks.join(", ")),
            ),
            Verdict::Pass | Verdict::Fail | Verdict::Skip | Verdict::Inconclusive => {
                (outcome.verdict, outcome.reason.clone())
            }
            other => because(
                Verdict::Crash,
                format!("the worker gave the verdict {other}, which is not its to give"),
            ),
        }
    }

    /// Where the actors were, as the end of a sentence.
    fn place(&self) -> String {
        let places: Vec<String> = self
            .places
            .values()
            .map(|Step { actor, text, line }| format!("{actor} was at line {line}: {text}"))
            .collect();
        if places.is_empty() { String::new() } else { format!("; {}", places.join("; ")) }
    }
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(verdict: Verdict) -> Observed {
        Observed {
            outcome: Some(Outcome { verdict, reason: Some("own".into()) }),
            ending: Some(Ending::Exit(0)),
            ..Observed::default()
        }
    }

    #[test]
    fn the_worst_that_was_seen_decides() {
        use Verdict::*;
        let leaks = vec!["live.vms 1".to_owned()];
        let limit = Some(Duration::from_secs(2));
        let table = [
            (said(Pass), Pass, "own"),
            (said(Fail), Fail, "own"),
            (said(Skip), Skip, "own"),
            (said(Inconclusive), Inconclusive, "own"),
            (Observed { ending: Some(Ending::Exit(98)), ..said(Fail) }, Fail, "own"),
            (Observed { failed: true, ..said(Pass) }, Fail, "a failure was reported"),
            (Observed { ending: Some(Ending::Exit(1)), ..said(Pass) }, Crash, "exited with 1"),
            (Observed { leaks: leaks.clone(), ..said(Pass) }, Fail, "live.vms 1"),
            (Observed { leaks: leaks.clone(), ..said(Inconclusive) }, Fail, "live.vms 1"),
            (Observed { leaks, ..said(Skip) }, Skip, "own"),
            (said(Abort), Crash, "not its to give"),
            (said(Xfail), Crash, "not its to give"),
            (Observed::default(), Crash, "without an outcome"),
            (Observed { outcome: None, ..said(Pass) }, Crash, "exited with 0 without"),
            (Observed { ending: Some(Ending::Signal(11)), ..said(Pass) }, Crash, "SIGSEGV"),
            (Observed { garbage: Some("x".into()), ..said(Pass) }, Crash, "no report: x"),
            (Observed { timed_out: limit, ..said(Pass) }, Timeout, "no end after 2s"),
            (
                Observed {
                    timed_out: limit,
                    device: Some("the driver panicked".into()),
                    ..said(Pass)
                },
                Crash,
                "the driver panicked",
            ),
            (
                Observed { stopped: Some(Cause::Journal), timed_out: limit, ..said(Pass) },
                Incomplete,
                "journal",
            ),
        ];
        for (observed, verdict, reason) in table {
            let (seen, why) = observed.judge();
            assert_eq!(seen, verdict, "{observed:?}");
            assert!(why.as_deref().unwrap_or("").contains(reason), "{why:?} for {observed:?}");
        }
    }

    #[test]
    fn a_time_out_says_where_the_actors_were() {
        let mut observed =
            Observed { timed_out: Some(Duration::from_secs(1)), ..Observed::default() };
        for line in [3, 9] {
            observed.hear(&Report::Progress(Step {
                actor: "gpu0".into(),
                text: "wait".into(),
                line,
            }));
        }
        let (_, reason) = observed.judge();
        assert_eq!(reason.as_deref(), Some("no end after 1s; gpu0 was at line 9: wait"));
    }
}
