//! What a kernel log says went wrong: the reports of panic, oops, sanitizers, lockdep, watchdogs.
//!
//! Owns the table of headlines. Each row earns its place by a log below fixtures/data/dmesg, which
//! says what must be found in it. Knows nothing of who runs the kernel.

use std::fmt;

/// What kind of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The kernel stopped itself.
    Panic,
    /// A fault or an assertion in the kernel.
    Oops,
    /// A use of memory that is not there (KASAN, KFENCE, the slab's own checks).
    Memory,
    /// Undefined behaviour (UBSAN).
    Undefined,
    /// A lock, sleep or RCU rule broken (lockdep and its kin).
    Locking,
    /// A task or CPU that makes no progress.
    Hang,
    /// Memory that nobody refers to (kmemleak).
    Leak,
    /// `WARN`.
    Warning,
}

impl Kind {
    /// Its name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Oops => "oops",
            Self::Memory => "memory error",
            Self::Undefined => "undefined behaviour",
            Self::Locking => "locking",
            Self::Hang => "hang",
            Self::Leak => "leak",
            Self::Warning => "warning",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One report of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// What kind.
    pub(crate) kind: Kind,
    /// Its headline, without the time stamp.
    pub(crate) title: String,
    /// The report's lines.
    pub(crate) excerpt: String,
}

/// Longest excerpt in lines.
const EXCERPT_LINES: usize = 80;

/// Beginnings of headlines; the first that fits counts.
const STARTS: &[(&str, Kind)] = &[
    ("BUG: KASAN: ", Kind::Memory),
    ("BUG: KFENCE: ", Kind::Memory),
    ("BUG: Bad page state", Kind::Memory),
    ("BUG: Bad page map", Kind::Memory),
    ("BUG: Bad rss-counter state", Kind::Memory),
    ("BUG kmalloc-", Kind::Memory),
    ("UBSAN: ", Kind::Undefined),
    ("WARNING: possible circular locking dependency", Kind::Locking),
    ("WARNING: possible recursive locking", Kind::Locking),
    ("WARNING: possible irq lock inversion", Kind::Locking),
    ("WARNING: inconsistent lock state", Kind::Locking),
    ("WARNING: bad unlock balance", Kind::Locking),
    ("WARNING: lock held when returning to user space", Kind::Locking),
    ("WARNING: Nested lock was not taken", Kind::Locking),
    ("WARNING: held lock freed", Kind::Locking),
    ("WARNING: suspicious RCU usage", Kind::Locking),
    ("WARNING: invalid context", Kind::Locking),
    ("BUG: sleeping function called from invalid context", Kind::Locking),
    ("BUG: scheduling while atomic", Kind::Locking),
    ("BUG: MAX_LOCK", Kind::Locking),
    ("watchdog: BUG: soft lockup", Kind::Hang),
    ("watchdog: CPU", Kind::Hang),
    ("BUG: workqueue lockup", Kind::Hang),
    ("rcu: INFO: rcu_", Kind::Hang),
    ("rust_kernel: panicked at", Kind::Oops),
    ("BUG: kernel NULL pointer dereference", Kind::Oops),
    ("BUG: unable to handle page fault", Kind::Oops),
    ("kernel BUG at ", Kind::Oops),
    ("Oops: ", Kind::Oops),
    ("general protection fault", Kind::Oops),
    ("Kernel panic - not syncing: ", Kind::Panic),
    ("WARNING: ", Kind::Warning),
];

/// Headlines told by a beginning and a later part.
const PARTS: &[(&str, &str, Kind)] = &[
    ("INFO: task ", " blocked for more than ", Kind::Hang),
    ("INFO: task ", " blocked on a mutex", Kind::Hang),
    ("kmemleak: ", " new suspected memory leaks", Kind::Leak),
];

fn kind_of(line: &str) -> Option<Kind> {
    let start = STARTS.iter().find(|(start, _)| line.starts_with(start)).map(|row| row.1);
    start.or_else(|| {
        let fits = |row: &&(&str, &str, Kind)| line.starts_with(row.0) && line.contains(row.1);
        PARTS.iter().find(fits).map(|row| row.2)
    })
}

/// The line without what the kernel puts first: `[    1.234567] `, `[    1.234567][   T99] `, and
/// the priority `<4>`.
fn message(line: &str) -> &str {
    let mut rest = line.trim_end();
    if let Some((_, after)) = rest.strip_prefix('<').and_then(|l| l.split_once('>')) {
        rest = after;
    }
    while let Some((_, after)) = rest.strip_prefix('[').and_then(|l| l.split_once(']')) {
        rest = after;
    }
    rest.trim_start()
}

fn is_rule(message: &str) -> bool {
    message.len() >= 20 && message.bytes().all(|b| b == b'=')
}

/// The index after the last line of the report that begins at `start`.
fn end_of(lines: &[&str], start: usize, kind: Kind) -> usize {
    let last = lines.len().min(start + EXCERPT_LINES);
    for (index, line) in lines.iter().enumerate().take(last).skip(start + 1) {
        let message = message(line);
        let ends = match kind {
            Kind::Memory | Kind::Undefined => is_rule(message) || message.starts_with("---[ end"),
            Kind::Leak => kind_of(message).is_some(),
            Kind::Locking | Kind::Hang => message == "</TASK>",
            Kind::Panic => message.starts_with("---[ end"),
            Kind::Oops | Kind::Warning => message.starts_with("---[ end trace"),
        };
        if ends {
            return index + 1;
        }
    }
    last
}

/// Whether a CPU that makes no progress executes a program, whose code no kernel lock can stop: then
/// it is the guest that got no time from its host.
fn in_user_mode(lines: &[&str]) -> bool {
    lines.iter().any(|line| message(line).starts_with("RIP: 0033:"))
        && !lines.iter().any(|line| message(line).starts_with("RIP: 0010:"))
}

/// Whether a panic only says that the kernel was told to stop upon an earlier report.
fn is_consequence(title: &str) -> bool {
    ["Fatal exception", "panic_on_warn set", "hung_task: blocked tasks", "softlockup: hung tasks"]
        .iter()
        .any(|reason| title.contains(reason))
}

/// All reports of a log, in order. A panic that merely follows from a report before is part of it.
pub(crate) fn scan(log: &str) -> Vec<Report> {
    let lines: Vec<&str> = log.lines().collect();
    let mut reports: Vec<Report> = Vec::new();
    let mut index = 0;
    while index < lines.len() {
        let title = message(lines[index]);
        let Some(kind) = kind_of(title) else {
            index += 1;
            continue;
        };
        let end = end_of(&lines, index, kind);
        if kind == Kind::Hang && in_user_mode(&lines[index..end]) {
            index = end;
            continue;
        }
        if kind != Kind::Panic || reports.is_empty() || !is_consequence(title) {
            let excerpt = lines[index..end].join("\n");
            reports.push(Report { kind, title: title.to_owned(), excerpt });
        }
        index = end;
    }
    reports
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A golden log: lines `KIND: NAME` and `TITLE: TEXT` for each report, a blank line, the log.
    fn check(name: &str, text: &str) {
        let (head, log) = text.split_once("\n\n").unwrap_or_else(|| panic!("{name}: no head"));
        let expected: Vec<&str> = head.lines().filter(|line| !line.starts_with('#')).collect();
        let found: Vec<String> = scan(log)
            .iter()
            .flat_map(|r| [format!("KIND: {}", r.kind), format!("TITLE: {}", r.title)])
            .collect();
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn golden_logs_give_the_reports_that_they_state() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/data/dmesg");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "log") {
                check(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap());
                seen += 1;
            }
        }
        assert!(seen >= 15, "{seen} golden logs");
    }

    #[test]
    fn prefixes_are_taken_off() {
        for line in ["Oops: x", "[    1.5] Oops: x", "<4>[ 1.5][   T99] Oops: x\r"] {
            assert_eq!(message(line), "Oops: x");
        }
    }

    #[test]
    fn a_panic_of_its_own_counts_one_after_an_oops_does_not() {
        let alone = scan("[1.0] Kernel panic - not syncing: VFS: Unable to mount root fs");
        assert_eq!(alone[0].kind, Kind::Panic);
        let after = scan(
            "Oops: 0002 [#1]\n---[ end trace 0 ]---\nKernel panic - not syncing: Fatal exception",
        );
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].kind, Kind::Oops);
    }
}
