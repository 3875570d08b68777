//! `fencepost run`: executes a plan, records it, and judges the whole.
//!
//! Owns the run's frame: its folder and journal, the threads that take tests in turn, what stops
//! them early, the summary at the end. One test is [`watch`]'s matter, its verdict [`judge`]'s,
//! what the user sees meanwhile [`report`]'s.

mod folder;
mod judge;
mod report;
mod summary;
mod watch;

use std::num::NonZero;
use std::process::ExitCode as Status;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fencepost_results::journal::{Journal, Writer};
use fencepost_results::summary::Summary;
use fencepost_results::verdict::{Circumstances, exit_code};
use fencepost_results::{
    Event, ExitCode, FORMAT_VERSION, RunFinished, RunStarted, Source, TestFinished, Verdict,
};
use nix::sys::signal::SigSet;

pub(crate) use folder::Folder;
pub(crate) use report::describe;
pub(crate) use watch::{Job, Watched, watch};

use crate::args::{Conduct, RunArgs};
use crate::error::Error;
use crate::expectations::Expectations;
use crate::kernel::Kernel;
use crate::output::complain;
use crate::plan::{Planned, plan};
use crate::stop::{Cause, Stop, block_signals, on_signals, on_timeout};
use report::Reporter;

/// Longest time for a test that sets none itself.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// What a run is to do.
pub(crate) struct Order {
    /// The tests.
    pub(crate) tests: Vec<Planned>,
    /// The device.
    pub(crate) device: String,
    /// The seed of all.
    pub(crate) seed: u64,
    /// Tests known to fail.
    pub(crate) expectations: Expectations,
    /// How, and where to record.
    pub(crate) conduct: Conduct,
    /// The signals that end the run; blocked in every thread.
    pub(crate) signals: SigSet,
}

/// What came of a run.
pub(crate) struct Outcome {
    /// What happened.
    pub(crate) summary: Summary,
    /// What it amounts to.
    pub(crate) code: ExitCode,
}

/// `fencepost run`
pub(crate) fn command(args: RunArgs) -> Result<Status, Error> {
    // Before the first thread is started: asking the device what it can do starts some.
    let signals = block_signals().map_err(Error::system("block signals"))?;
    let expectations = match &args.expect {
        Some(file) => Expectations::read(file)?,
        None => Expectations::default(),
    };
    let seed = match args.seed {
        Some(seed) => seed,
        None => new_seed()?,
    };
    let tests = plan(&args.selection)?;
    let device = args.selection.device;
    let conduct = args.conduct;
    let outcome = execute(Order { tests, device, seed, expectations, conduct, signals })?;
    Ok(Status::from(outcome.code.code()))
}

/// Executes an order from the first line of its journal to its summary.
pub(crate) fn execute(order: Order) -> Result<Outcome, Error> {
    let folder = Folder::create(order.conduct.results.as_deref())?;
    let journal = Writer::create(folder.path()).map_err(Error::system("create the journal"))?;
    journal.append(Event::RunStarted(started(&order, &folder))).map_err(Error::Journal)?;
    folder.keep_scenarios(&order.tests)?;
    let stop = Arc::new(Stop::new().map_err(Error::system("create an event descriptor"))?);
    let kernel = watch_kernel(&order.device);
    let run = Run {
        kernel,
        reporter: Mutex::new(Reporter::new(&order, folder.path())),
        order,
        folder,
        journal,
        stop,
        next: AtomicUsize::new(0),
    };
    run.go()
}

/// A run in progress, shared by its threads.
struct Run {
    order: Order,
    folder: Folder,
    journal: Writer,
    stop: Arc<Stop>,
    next: AtomicUsize,
    reporter: Mutex<Reporter>,
    /// The kernel whose driver is tested.
    kernel: Option<Mutex<Kernel>>,
}

impl Run {
    fn go(self) -> Result<Outcome, Error> {
        on_signals(self.order.signals, Arc::clone(&self.stop))
            .map_err(Error::system("start a thread"))?;
        if let Some(limit) = self.order.conduct.overall_timeout {
            on_timeout(limit, Arc::clone(&self.stop)).map_err(Error::system("start a thread"))?;
        }
        let wanted = match crate::device::is_shared(&self.order.device) {
            true => Some(1),
            false => self.order.conduct.jobs,
        };
        let jobs = jobs(wanted).min(self.order.tests.len().max(1));
        thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| self.take_tests());
            }
        });
        self.end()
    }

    /// One of the threads: takes tests until there is none or the run stops.
    fn take_tests(&self) {
        while self.stop.cause().is_none() {
            // Relaxed: only the number itself is shared.
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(test) = self.order.tests.get(at) else { return };
            if let Err(error) = self.one(test) {
                let reporter = self.reporter.lock().unwrap_or_else(|e| e.into_inner());
                reporter.trouble(&format!("the run cannot be recorded: {error}"));
                self.stop.raise(Cause::Journal);
            }
        }
    }

    /// Runs one test. An error means that the journal cannot be written.
    fn one(&self, test: &Planned) -> std::io::Result<()> {
        let mut watched = match &test.skip {
            Some(reason) => Watched::skipped(reason),
            None => {
                let conduct = &self.order.conduct;
                let usual = test.timeout.unwrap_or(DEFAULT_TIMEOUT) * conduct.slow;
                let timeout = conduct.per_test_timeout.unwrap_or(usual);
                watch(&Job {
                    test: &test.name,
                    source: &test.source,
                    seed: self.order.seed,
                    device: &self.order.device,
                    timeout,
                    folder: &self.folder,
                    journal: Some(&self.journal),
                    stop: &self.stop,
                })?
            }
        };
        if test.skip.is_none() {
            self.look_at_kernel(&test.name, &mut watched)?;
        }
        self.order.expectations.apply(&test.name, &mut watched.verdict, &mut watched.reason);
        self.journal.append(Event::TestFinished(TestFinished {
            test: test.name.clone(),
            verdict: watched.verdict,
            reason: watched.reason.clone(),
            duration_us: u64::try_from(watched.duration.as_micros()).unwrap_or(u64::MAX),
            ending: watched.ending,
        }))?;
        let mut reporter = self.reporter.lock().unwrap_or_else(|e| e.into_inner());
        reporter.finished(&test.name, &watched);
        Ok(())
    }

    /// Lets what the kernel said and became during a test count for it, and ends the run on a machine
    /// that is not fit to go on.
    fn look_at_kernel(&self, test: &str, watched: &mut Watched) -> std::io::Result<()> {
        let Some(kernel) = &self.kernel else { return Ok(()) };
        let seen = kernel.lock().unwrap_or_else(|e| e.into_inner()).since();
        if let Some((verdict, reason)) = seen.verdict(watched.verdict) {
            let own = watched.reason.take().map_or_else(String::new, |own| format!("; {own}"));
            (watched.verdict, watched.reason) = (verdict, Some(reason + &own));
            let output = self.folder.output(test);
            seen.keep(&output)?;
            watched.output = Some(output);
        }
        if let Some(why) = seen.unfit() {
            self.stop.raise(Cause::Kernel(why));
        }
        Ok(())
    }

    /// Closes the journal and derives from it what the user is told, so that the record and the
    /// summary cannot differ.
    fn end(self) -> Result<Outcome, Error> {
        let Self { order, folder, journal, stop, reporter, .. } = self;
        let cause = stop.cause();
        let written = Journal::read(folder.path())
            .map_err(|e| Error::Journal(std::io::Error::other(e.to_string())))?;
        let mut summary = Summary::of(&written);
        let totals = summary.totals();
        let circumstances = Circumstances {
            interrupted: matches!(cause, Some(Cause::Signal(_))),
            aborted: matches!(cause, Some(Cause::Kernel(_))),
            ..Circumstances::default()
        };
        let code = exit_code(&totals, circumstances);
        let finished =
            RunFinished { exit: code.code(), cut_short: cause.as_ref().map(Cause::text) };
        journal.append(Event::RunFinished(finished.clone())).map_err(Error::Journal)?;
        journal.close().map_err(Error::Journal)?;
        summary.finished = Some(finished);
        let latencies = summary.latencies();
        folder.write_latencies(&latencies)?;
        let reporter = reporter.into_inner().unwrap_or_else(|e| e.into_inner());
        reporter.end(&summary, &latencies);
        if order.conduct.json {
            summary::print_json(&summary, folder.path(), order.seed, code);
        }
        Ok(Outcome { summary, code })
    }
}

/// The kernel's log counts where the device is the kernel's.
fn watch_kernel(device: &str) -> Option<Mutex<Kernel>> {
    if !crate::device::is_shared(device) {
        return None;
    }
    match Kernel::watch() {
        Ok(kernel) => Some(Mutex::new(kernel)),
        Err(error) => {
            complain!("the kernel's log cannot be read, tests are judged without it: {error}");
            None
        }
    }
}

fn started(order: &Order, folder: &Folder) -> RunStarted {
    RunStarted {
        version: FORMAT_VERSION,
        program: env!("CARGO_PKG_VERSION").into(),
        run: folder.name(),
        unix_ms: folder::unix_ms(),
        seed: order.seed,
        device: order.device.clone(),
        kernel: nix::sys::utsname::uname()
            .map_or_else(|_| "unknown".into(), |u| u.release().to_string_lossy().into_owned()),
        cpus: u32::try_from(jobs(None)).unwrap_or(u32::MAX),
        argv: std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect(),
        planned: order.tests.iter().map(|test| test.name.clone()).collect(),
    }
}

fn jobs(wanted: Option<u16>) -> usize {
    match wanted {
        Some(jobs) => usize::from(jobs),
        None => thread::available_parallelism().map_or(1, NonZero::get),
    }
}

/// A seed from the kernel's generator.
pub(crate) fn new_seed() -> Result<u64, Error> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::system("read /dev/urandom"))?;
    // 53 bits, so that every reader of the JSON keeps it exactly.
    Ok(u64::from_le_bytes(bytes) >> 11)
}

/// A verdict that a user has to look at.
pub(crate) const fn needs_attention(verdict: Verdict) -> bool {
    !matches!(verdict, Verdict::Pass | Verdict::Skip | Verdict::Xfail)
}

/// The source as `--source` takes it.
pub(crate) fn source_argument(source: &Source) -> String {
    match source {
        Source::Bundled(path) => format!("bundled:{path}"),
        Source::File(path) => format!("file:{path}"),
    }
}
