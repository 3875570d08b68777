//! The kernel under the tests: what it says and becomes while one of them runs.
//!
//! Owns the reading of `/dev/kmsg` and of the taint, and what both mean for a test's verdict and for
//! the run. What a line of the log means is [`crate::klog`]'s matter. Counts only where the device
//! is the machine's: the bundled driver in user space has nothing to do with the kernel's log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use fencepost_results::Verdict;

use crate::klog::{self, Kind, Report};

/// Taint that does not say that something went wrong: a module from outside the tree, unsigned,
/// or a test module (Documentation/admin-guide/tainted-kernels.rst: O, E, N).
const HARMLESS_TAINT: u64 = 1 << 12 | 1 << 13 | 1 << 18;
/// The letters of the bits from 0 on.
const TAINT_LETTERS: &str = "PFSRMBUDAWCIOELKXTNJ";
/// Longest record that `/dev/kmsg` gives; a shorter buffer would get an error.
const RECORD: usize = 8 << 10;
/// How much of the log is kept with a test.
const KEPT: usize = 256 << 10;

/// The letters of a taint, as the kernel prints them.
pub(crate) fn letters(taint: u64) -> String {
    let bits = TAINT_LETTERS.chars().enumerate();
    bits.filter(|(bit, _)| taint >> bit & 1 == 1).map(|(_, letter)| letter).collect()
}

/// The bits of a taint that say that something went wrong.
pub(crate) const fn worrying(taint: u64) -> u64 {
    taint & !HARMLESS_TAINT
}

/// The kernel's taint now; nothing where it cannot be read.
pub(crate) fn taint() -> u64 {
    let text = fs::read_to_string("/proc/sys/kernel/tainted").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Looks at the kernel between tests.
#[derive(Debug)]
pub(crate) struct Kernel {
    log: File,
    /// Taint that was there before.
    tainted: u64,
}

/// What happened to the kernel during a test.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Its log.
    text: String,
    /// What the log reports.
    reports: Vec<Report>,
    /// Taint that was not there before and says that something is wrong.
    taint: u64,
}

impl Kernel {
    /// Begins to look: from here on the log counts.
    ///
    /// # Errors
    /// The log may not be read.
    pub(crate) fn watch() -> io::Result<Self> {
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let mut log = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")?;
        log.seek(SeekFrom::End(0))?;
        Ok(Self { log, tainted: taint() })
    }

    /// What happened since the last call.
    pub(crate) fn since(&mut self) -> Seen {
        let mut text = String::new();
        let mut record = [0; RECORD];
        loop {
            match self.log.read(&mut record) {
                Ok(0) => break,
                Ok(n) => push(&mut text, &String::from_utf8_lossy(&record[..n])),
                // Records were overwritten before they were read: the next one is there.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let now = worrying(taint());
        let new = now & !self.tainted;
        self.tainted |= now;
        Seen { reports: klog::scan(&text), text, taint: new }
    }
}

/// Adds the message of a record `PRIORITY,SEQUENCE,TIME,FLAGS;MESSAGE`, which properties follow on
/// lines that begin with a blank. Only the kernel's own messages count: facility 0.
fn push(text: &mut String, record: &str) {
    let Some((prefix, rest)) = record.split_once(';') else { return };
    let priority = prefix.split(',').next().and_then(|p| p.parse::<u32>().ok());
    if priority.is_none_or(|p| p >> 3 != 0) {
        return;
    }
    text.push_str(rest.lines().next().unwrap_or_default());
    text.push('\n');
}

impl Seen {
    /// What it makes of a verdict: a warning spoils a pass, anything worse every verdict but those
    /// that say more.
    pub(crate) fn verdict(&self, own: Verdict) -> Option<(Verdict, String)> {
        let worst = self.reports.iter().min_by_key(|report| report.kind);
        let reason = match worst {
            Some(report) => format!("kernel {}: {}", report.kind, report.title),
            None if self.taint != 0 => format!("kernel tainted: {}", letters(self.taint)),
            None => return None,
        };
        let mild = worst.is_some_and(|report| report.kind == Kind::Warning);
        let verdict = match own {
            Verdict::Pass | Verdict::Skip | Verdict::Inconclusive if mild => Verdict::DmesgWarn,
            Verdict::Pass | Verdict::Skip | Verdict::Inconclusive | Verdict::Fail => {
                Verdict::DmesgFail
            }
            other => other,
        };
        Some((verdict, reason))
    }

    /// What the log reports, in words.
    pub(crate) fn findings(&self) -> Vec<String> {
        let told = |r: &Report| format!("kernel log: {}: {}\n{}", r.kind, r.title, r.excerpt);
        self.reports.iter().map(told).collect()
    }

    /// Why the machine is not fit to go on, if it is not: it is tainted, or lockdep has switched
    /// itself off, as it does after its first report.
    pub(crate) fn unfit(&self) -> Option<String> {
        if self.taint != 0 {
            return Some(format!("the kernel is tainted: {}", letters(self.taint)));
        }
        let locking = self.reports.iter().find(|report| report.kind == Kind::Locking);
        locking.map(|report| format!("lockdep is off after its report: {}", report.title))
    }

    /// Adds the log to the file with a test's output.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn keep(&self, output: &Path) -> io::Result<()> {
        if let Some(folder) = output.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(output)?;
        let kept = self.text.get(..KEPT).unwrap_or(&self.text);
        write!(file, "---- the kernel's log\n{kept}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::*;

    #[test]
    fn taint_is_said_in_the_kernels_letters() {
        assert_eq!(letters(1 << 7 | 1 << 9), "DW");
        assert_eq!(worrying(1 << 12 | 1 << 9), 1 << 9);
    }

    #[test]
    fn records_of_the_kernel_count_those_of_others_do_not() {
        let mut text = String::new();
        push(&mut text, "4,812,99,-;WARNING: x\n SUBSYSTEM=drm\n");
        push(&mut text, "12,813,99,-;WARNING: from user space\n");
        push(&mut text, "garbage");
        assert_eq!(text, "WARNING: x\n");
    }

    #[test]
    fn what_the_log_says_decides_over_the_workers_word() {
        let seen =
            |text: &str, taint| Seen { text: text.to_owned(), reports: klog::scan(text), taint };
        let warning = "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n---[ end trace 0 ]---\n";
        let lockdep = "WARNING: possible circular locking dependency detected\n";
        let table = [
            (seen("fencepost: loaded\n", 0), Pass, None, false),
            (seen(warning, 0), Pass, Some(DmesgWarn), false),
            (seen(warning, 1 << 9), Pass, Some(DmesgWarn), true),
            (seen(warning, 0), Fail, Some(DmesgFail), false),
            (seen(lockdep, 0), Pass, Some(DmesgFail), true),
            (seen(&format!("{warning}{lockdep}"), 0), Skip, Some(DmesgFail), true),
            (seen(lockdep, 0), Timeout, Some(Timeout), true),
            (seen("", 1 << 5), Pass, Some(DmesgFail), true),
        ];
        for (seen, own, verdict, unfit) in table {
            assert_eq!(seen.verdict(own).map(|v| v.0), verdict, "{seen:?} after {own}");
            assert_eq!(seen.unfit().is_some(), unfit, "{seen:?}");
        }
    }
}
