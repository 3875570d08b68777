//! What the user sees of a run: a progress bar on a terminal, plain lines elsewhere; each test that
//! needs attention with its evidence and the command that repeats it; the end.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, stderr, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fencepost_results::summary::{Operation, Summary};
use fencepost_results::{Failure, Report, Step, Totals, Verdict};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::watch::Watched;
use super::{Order, needs_attention, summary};
use crate::output::{Style, complain, count, program, quote, say, shown};

/// Lines of a test's output that are quoted when it failed.
const QUOTED_LINES: usize = 10;

/// Off a terminal a line says how far the run is, at most this often.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Shows a run.
pub(crate) struct Reporter {
    /// Text goes to standard error because standard output is for the JSON object.
    json: bool,
    verbose: bool,
    style: Style,
    bar: Option<ProgressBar>,
    folder: PathBuf,
    seed: u64,
    total: usize,
    totals: Totals,
    began: Instant,
    last_line: Instant,
}

impl Reporter {
    pub(crate) fn new(order: &Order, folder: &Path) -> Self {
        let json = order.conduct.json;
        let style = if json { Style::of(&stderr()) } else { Style::of(&stdout()) };
        let now = Instant::now();
        let reporter = Self {
            json,
            verbose: order.conduct.verbose,
            style,
            bar: stderr().is_terminal().then(|| bar(order.tests.len() as u64)),
            folder: folder.to_owned(),
            seed: order.seed,
            total: order.tests.len(),
            totals: Totals::default(),
            began: now,
            last_line: now,
        };
        let what = count(reporter.total as u64, "test");
        reporter.print(&format!("running {what} on {}, seed {}", order.device, order.seed));
        reporter
    }

    /// A test is over.
    pub(crate) fn finished(&mut self, test: &str, watched: &Watched) {
        self.totals.add(watched.verdict);
        if needs_attention(watched.verdict) {
            self.print(&self.story(test, watched));
        } else if self.verbose {
            self.print(&self.headline(test, watched));
        } else if self.bar.is_none() && self.last_line.elapsed() >= HEARTBEAT {
            self.print(&format!("{}/{} tests: {}", self.totals.all(), self.total, self.totals));
            self.last_line = Instant::now();
        }
        if let Some(bar) = &self.bar {
            bar.set_message(self.totals.to_string());
            bar.inc(1);
        }
    }

    /// Something is wrong with the run itself.
    pub(crate) fn trouble(&self, text: &str) {
        self.print(&format!("{}: {text}", self.style.bad("error")));
    }

    /// The run is over.
    pub(crate) fn end(self, summary: &Summary, latencies: &BTreeMap<String, Operation>) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let text = summary::text(summary, latencies, self.style, self.began.elapsed());
        self.print(text.trim_end());
        let folder = shown(&self.folder);
        let folder = folder.display();
        self.print(&format!("results  {folder}\nseed     {}", self.seed));
    }

    fn print(&self, text: &str) {
        let write = || {
            if self.json { complain!("{text}") } else { say!("{text}") }
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn headline(&self, test: &str, watched: &Watched) -> String {
        let verdict = format!("{:12}", watched.verdict);
        let verdict = match watched.verdict {
            Verdict::Pass | Verdict::Xfail => self.style.good(verdict),
            Verdict::Skip => self.style.faint(verdict),
            Verdict::Inconclusive | Verdict::Xpass | Verdict::Incomplete | Verdict::Notrun => {
                self.style.odd(verdict)
            }
            _ => self.style.bad(verdict),
        };
        let reason = watched.reason.as_ref().map_or_else(String::new, |r| format!(": {r}"));
        let time = watched.duration.as_secs_f64() * 1e3;
        format!("{verdict} {test} ({time:.1} ms){reason}")
    }

    /// Everything that is needed to understand and repeat a test.
    fn story(&self, test: &str, watched: &Watched) -> String {
        let mut text = self.headline(test, watched);
        text.push_str(&describe(watched));
        row(&mut text, "seed", &self.seed.to_string());
        row(&mut text, "replay", &replay_command(&self.folder, test));
        text
    }
}

/// What was seen of a test that needs attention: each failure, missing evidence, the end of its output.
pub(crate) fn describe(watched: &Watched) -> String {
    let mut text = String::new();
    for report in &watched.reports {
        match report {
            Report::Failure(failure) => tell(&mut text, failure),
            Report::Evidence(evidence) if !evidence.met => {
                row(&mut text, "evidence", &evidence.counter);
                row(&mut text, "expected", &evidence.wanted);
                row(&mut text, "seen", &evidence.seen.to_string());
            }
            _ => {}
        }
    }
    if let Some(path) = &watched.output {
        row(&mut text, "output", &format!("{}{}", shown(path).display(), tail(path)));
    }
    text
}

/// Adds a row with a name; further lines of the value stand below its first.
fn row(text: &mut String, name: &str, value: &str) {
    for (n, line) in value.lines().enumerate() {
        let name = if n == 0 { name } else { "" };
        text.push_str(&format!("\n    {name:<9} {line}"));
    }
}

fn tell(text: &mut String, failure: &Failure) {
    let Failure { step, what, expected, seen, details } = failure;
    if let Some(Step { actor, text: words, line }) = step {
        let place = if *line == 0 { String::new() } else { format!(", line {line}") };
        row(text, "step", &format!("{actor}{place}: {words}"));
    }
    row(text, "checked", what);
    row(text, "expected", expected);
    row(text, "seen", seen);
    details.iter().for_each(|detail| row(text, "", detail));
}

/// The command that runs the test again as it was.
pub(crate) fn replay_command(folder: &Path, test: &str) -> String {
    let result = format!("{}@{test}", shown(folder).display());
    format!("{} replay {}", program(), quote(&result))
}

/// The end of a test's output, each line on a line of its own.
fn tail(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(QUOTED_LINES);
    lines[from..].iter().map(|line| format!("\n| {line}")).collect()
}

fn bar(total: u64) -> ProgressBar {
    let template = "{bar:30.green/dim} {pos}/{len} {elapsed}  {wide_msg}";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.with_style(style.progress_chars("=> "))
}
