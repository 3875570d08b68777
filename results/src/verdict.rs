//! Verdicts, their totals, and the exit code that follows from them.
//!
//! Owns the rule by which a run is judged: one total function, [`exit_code`]. A verdict is given by
//! the worker (pass, fail, skip, inconclusive) or by the runner that watched it (the others).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What is said of a test. Only a checked and evidenced success is a [`Verdict::Pass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All expectations held and the evidence was there.
    Pass,
    /// An expectation did not hold.
    Fail,
    /// Could not run here, for a stated reason.
    Skip,
    /// Nothing was wrong, but the mechanism under test was not seen to run.
    Inconclusive,
    /// The worker or the device died.
    Crash,
    /// It took longer than it may.
    Timeout,
    /// Did not fail, but the kernel's log has a warning.
    DmesgWarn,
    /// The kernel's log has a warning and it failed, or the log has worse than a warning.
    DmesgFail,
    /// Was running when the run ended.
    Incomplete,
    /// Never began.
    Notrun,
    /// Asked for the end of the run: the machine is not fit to go on.
    Abort,
    /// Failed as the expectations file says.
    Xfail,
    /// Passed although the expectations file says that it fails.
    Xpass,
}

impl Verdict {
    /// Every verdict, in the order of reports.
    pub const ALL: [Self; 13] = [
        Self::Pass,
        Self::Fail,
        Self::Skip,
        Self::Inconclusive,
        Self::Crash,
        Self::Timeout,
        Self::DmesgWarn,
        Self::DmesgFail,
        Self::Incomplete,
        Self::Notrun,
        Self::Abort,
        Self::Xfail,
        Self::Xpass,
    ];

    /// The name in reports and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Inconclusive => "inconclusive",
            Self::Crash => "crash",
            Self::Timeout => "timeout",
            Self::DmesgWarn => "dmesg-warn",
            Self::DmesgFail => "dmesg-fail",
            Self::Incomplete => "incomplete",
            Self::Notrun => "notrun",
            Self::Abort => "abort",
            Self::Xfail => "xfail",
            Self::Xpass => "xpass",
        }
    }

    /// The verdict of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.name() == name)
    }

    /// What the verdict means for the run as a whole.
    #[must_use]
    pub const fn weight(self) -> Weight {
        match self {
            Self::Pass | Self::Xfail => Weight::Good,
            Self::Fail
            | Self::Inconclusive
            | Self::Crash
            | Self::Timeout
            | Self::DmesgWarn
            | Self::DmesgFail => Weight::Bad,
            Self::Skip => Weight::Absent,
            Self::Incomplete | Self::Notrun => Weight::Missing,
            Self::Abort => Weight::Fatal,
            Self::Xpass => Weight::Surprising,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a verdict means for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// As expected.
    Good,
    /// A failure.
    Bad,
    /// Says nothing about the device: it could not run.
    Absent,
    /// Should have run and did not.
    Missing,
    /// Ends the run.
    Fatal,
    /// Better than expected.
    Surprising,
}

/// How many tests got which verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Totals(BTreeMap<Verdict, u64>);

impl Totals {
    /// Counts one more test.
    pub fn add(&mut self, verdict: Verdict) {
        *self.0.entry(verdict).or_insert(0) += 1;
    }

    /// Number of tests with that verdict.
    #[must_use]
    pub fn get(&self, verdict: Verdict) -> u64 {
        self.0.get(&verdict).copied().unwrap_or(0)
    }

    /// Number of tests in all.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// Number of tests whose verdict has that weight.
    #[must_use]
    pub fn weighing(&self, weight: Weight) -> u64 {
        self.0.iter().filter(|(v, _)| v.weight() == weight).map(|(_, n)| n).sum()
    }

    /// The verdicts that occurred, in the order of reports, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Verdict, u64)> + '_ {
        self.0.iter().map(|(v, n)| (*v, *n))
    }
}

impl FromIterator<Verdict> for Totals {
    fn from_iter<I: IntoIterator<Item = Verdict>>(verdicts: I) -> Self {
        let mut totals = Self::default();
        verdicts.into_iter().for_each(|v| totals.add(v));
        totals
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (verdict, count) in self.iter() {
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            write!(f, "{count} {verdict}")?;
        }
        if first {
            f.write_str("no tests")?;
        }
        Ok(())
    }
}

/// How the whole program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All as expected.
    Success = 0,
    /// Failures or regressions.
    Failures = 1,
    /// A usage error or a bad scenario.
    Usage = 2,
    /// The only thing unexpected are passes.
    OnlyXpass = 3,
    /// No test ran.
    NothingRan = 4,
    /// The only thing unexpected is performance.
    OnlyPerformance = 5,
    /// The run was given up: taint, lockdep, hang.
    Aborted = 6,
    /// The run did not get to its end.
    Incomplete = 7,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl ExitCode {
    /// The status as the parent process sees it.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// What besides the verdicts decides about the exit code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// A signal asked the run to stop.
    pub interrupted: bool,
    /// The run was given up: the machine is not fit to go on.
    pub aborted: bool,
    /// A latency is worse than its baseline.
    pub slower: bool,
}

/// The exit code of a run. The worst wins: an interrupted run, then an aborted one, failures, tests
/// missing, nothing run, and what was merely unexpected; both unexpected passes and a performance
/// regression together are a failure, as neither is the only thing.
#[must_use]
pub fn exit_code(totals: &Totals, circumstances: Circumstances) -> ExitCode {
    let has = |weight| totals.weighing(weight) > 0;
    let Circumstances { interrupted, aborted, slower } = circumstances;
    if interrupted {
        ExitCode::Interrupted
    } else if aborted || has(Weight::Fatal) {
        ExitCode::Aborted
    } else if has(Weight::Bad) {
        ExitCode::Failures
    } else if has(Weight::Missing) {
        ExitCode::Incomplete
    } else if !has(Weight::Good) && !has(Weight::Surprising) {
        ExitCode::NothingRan
    } else {
        match (has(Weight::Surprising), slower) {
            (false, false) => ExitCode::Success,
            (true, false) => ExitCode::OnlyXpass,
            (false, true) => ExitCode::OnlyPerformance,
            (true, true) => ExitCode::Failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::*;

    #[test]
    fn names_agree_with_the_json_form() {
        for verdict in Verdict::ALL {
            let json = serde_json::to_string(&verdict).expect("serialises");
            assert_eq!(json, format!("\"{}\"", verdict.name()));
            assert_eq!(Verdict::from_name(verdict.name()), Some(verdict));
        }
        assert_eq!(Verdict::from_name("Pass"), None);
    }

    #[test]
    fn the_exit_code_is_the_worst_of_all() {
        let plain = Circumstances::default();
        let table: &[(&[Verdict], Circumstances, ExitCode)] = &[
            (&[], plain, ExitCode::NothingRan),
            (&[Skip, Skip], plain, ExitCode::NothingRan),
            (&[Pass], plain, ExitCode::Success),
            (&[Pass, Skip], plain, ExitCode::Success),
            (&[Xfail], plain, ExitCode::Success),
            (&[Pass, Xpass], plain, ExitCode::OnlyXpass),
            (&[Xpass, Skip], plain, ExitCode::OnlyXpass),
            (&[Pass, Xpass, Fail], plain, ExitCode::Failures),
            (&[Pass, Fail], plain, ExitCode::Failures),
            (&[Pass, Inconclusive], plain, ExitCode::Failures),
            (&[Pass, Crash], plain, ExitCode::Failures),
            (&[Pass, Timeout], plain, ExitCode::Failures),
            (&[Pass, DmesgWarn], plain, ExitCode::Failures),
            (&[Pass, DmesgFail], plain, ExitCode::Failures),
            (&[Pass, Incomplete], plain, ExitCode::Incomplete),
            (&[Pass, Notrun], plain, ExitCode::Incomplete),
            (&[Notrun], plain, ExitCode::Incomplete),
            (&[Fail, Notrun], plain, ExitCode::Failures),
            (&[Pass, Abort, Fail], plain, ExitCode::Aborted),
            (&[Pass], Circumstances { aborted: true, ..plain }, ExitCode::Aborted),
            (&[Abort], Circumstances { interrupted: true, ..plain }, ExitCode::Interrupted),
            (&[Fail], Circumstances { interrupted: true, ..plain }, ExitCode::Interrupted),
            (&[Pass], Circumstances { slower: true, ..plain }, ExitCode::OnlyPerformance),
            (&[Pass, Xpass], Circumstances { slower: true, ..plain }, ExitCode::Failures),
            (&[Fail], Circumstances { slower: true, ..plain }, ExitCode::Failures),
            (&[Skip], Circumstances { slower: true, ..plain }, ExitCode::NothingRan),
        ];
        for (verdicts, circumstances, expected) in table {
            let totals: Totals = verdicts.iter().copied().collect();
            assert_eq!(
                exit_code(&totals, *circumstances),
                *expected,
                "{verdicts:?} {circumstances:?}"
            );
        }
    }

    #[test]
    fn only_good_and_skipped_tests_make_success() {
        // Every verdict besides a pass: the table above must not have forgotten one.
        for verdict in Verdict::ALL {
            let code = exit_code(&[Pass, verdict].into_iter().collect(), Circumstances::default());
            let good = matches!(verdict, Pass | Skip | Xfail);
            assert_eq!(code == ExitCode::Success, good, "{verdict}");
        }
    }

    #[test]
    fn totals_count_and_print_in_order() {
        let totals: Totals = [Fail, Pass, Skip, Pass].into_iter().collect();
        assert_eq!(totals.all(), 4);
        assert_eq!(totals.get(Pass), 2);
        assert_eq!(totals.to_string(), "2 pass, 1 fail, 1 skip");
        assert_eq!(Totals::default().to_string(), "no tests");
        let json = serde_json::to_string(&totals).expect("serialises");
        assert_eq!(json, r#"{"pass":2,"fail":1,"skip":1}"#);
    }
}
