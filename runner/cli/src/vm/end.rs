//! How a guest ended, and what that means for the caller.
//!
//! Owns the mapping from what is seen at the end of a guest - its status file, the kernel's log,
//! the time - to a verdict and an exit code. One total function, [`judge`].

use fencepost_results::ExitCode;

use super::guest::Status;
use crate::kernel::{letters, worrying};
use crate::klog::{Kind, Report};

/// All that is known at the end of a guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// What the guest wrote last, if it came so far.
    pub(super) status: Option<Status>,
    /// What the kernel's log reports.
    pub(super) reports: Vec<Report>,
    /// The time was up and the guest was ended.
    pub(super) timed_out: bool,
}

/// How a guest ended, the worst thing first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The kernel's log reports something; the first report.
    Kernel(Report),
    /// The kernel is tainted though its log reports nothing: the letters.
    Tainted(String),
    /// It did not end in time.
    Hang,
    /// The user wanted no more.
    Stopped,
    /// It ended without a word: reset, killed, or never came up.
    Lost,
    /// The machine could not do as asked, in words.
    Trouble(String),
    /// The program was killed by this signal.
    Killed(i32),
    /// The program ended with this code.
    Exited(i32),
}

/// What the evidence says.
pub(super) fn judge(evidence: &Evidence) -> End {
    // The worst report is the one to start from; of equals the first.
    if let Some(report) = evidence.reports.iter().min_by_key(|report| report.kind) {
        return End::Kernel(report.clone());
    }
    if evidence.timed_out {
        return End::Hang;
    }
    let Some(status) = &evidence.status else {
        return End::Lost;
    };
    let taint = worrying(status.tainted);
    if taint != 0 {
        return End::Tainted(letters(taint));
    }
    if let Some(trouble) = &status.trouble {
        return End::Trouble(trouble.clone());
    }
    match (status.code, status.signal) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Killed(signal),
        (None, None) => End::Lost,
    }
}

impl End {
    /// The exit code of the command.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Kernel(_) | Self::Tainted(_) | Self::Hang => ExitCode::Aborted.code(),
            Self::Stopped => ExitCode::Interrupted.code(),
            Self::Lost | Self::Killed(_) => ExitCode::Incomplete.code(),
            Self::Trouble(_) => ExitCode::Usage.code(),
            Self::Exited(code) => u8::try_from(*code).unwrap_or(ExitCode::Incomplete.code()),
        }
    }

    /// One line for the caller; `None` when the program said all there is to say.
    pub(super) fn headline(&self) -> Option<String> {
        Some(match self {
            Self::Kernel(report) => format!("kernel {}: {}", report.kind, report.title),
            Self::Tainted(letters) => format!("kernel tainted: {letters}"),
            Self::Hang => "hang: the guest showed no sign of life, or took too long".to_owned(),
            Self::Stopped => "interrupted".to_owned(),
            Self::Lost => "the guest ended without a word".to_owned(),
            Self::Trouble(what) => what.clone(),
            Self::Killed(signal) => format!("the program was killed by signal {signal}"),
            Self::Exited(_) => return None,
        })
    }

    /// The name of the verdict, for records.
    pub(super) fn verdict(&self) -> &'static str {
        match self {
            Self::Kernel(report) => report.kind.name(),
            Self::Tainted(_) => "taint",
            Self::Hang => Kind::Hang.name(),
            Self::Stopped => "interrupted",
            Self::Lost => "lost",
            Self::Trouble(_) => "trouble",
            Self::Killed(_) => "killed",
            Self::Exited(_) => "exited",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(kind: Kind) -> Report {
        Report { kind, title: "t".to_owned(), excerpt: String::new() }
    }

    fn status(code: i32, tainted: u64) -> Option<Status> {
        Some(Status { code: Some(code), tainted, ..Status::default() })
    }

    #[test]
    fn each_end_has_its_verdict_and_exit_code() {
        let oot = 1 << 12;
        let killed = Some(Status { signal: Some(9), ..Status::default() });
        let trouble = Some(Status { trouble: Some("x".to_owned()), ..Status::default() });
        type Row<'a> = (Option<Status>, &'a [Kind], bool, &'a str, u8);
        let table: &[Row<'_>] = &[
            (status(0, 0), &[], false, "exited", 0),
            (status(3, oot), &[], false, "exited", 3),
            (status(0, oot | 1 << 9), &[], false, "taint", 6),
            (status(0, oot), &[Kind::Warning], false, "warning", 6),
            (status(1, oot), &[Kind::Warning, Kind::Memory], false, "memory error", 6),
            (None, &[Kind::Oops], false, "oops", 6),
            (None, &[Kind::Panic], false, "panic", 6),
            (None, &[Kind::Locking, Kind::Hang], true, "locking", 6),
            (status(0, oot), &[Kind::Leak], false, "leak", 6),
            (None, &[], true, "hang", 6),
            (None, &[], false, "lost", 7),
            (killed, &[], false, "killed", 7),
            (trouble, &[], false, "trouble", 2),
        ];
        for (status, kinds, timed_out, verdict, code) in table {
            let evidence = Evidence {
                status: status.clone(),
                reports: kinds.iter().map(|kind| report(*kind)).collect(),
                timed_out: *timed_out,
            };
            let end = judge(&evidence);
            assert_eq!((end.verdict(), end.exit_code()), (*verdict, *code), "{evidence:?}");
        }
    }
}
