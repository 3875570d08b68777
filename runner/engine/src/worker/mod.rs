//! The worker: runs one test in this process and tells the runner what came of it.
//!
//! Owns the protocol of one worker: reports as JSON lines, the outcome last, each written at once; an
//! exit status that says no more than whether the outcome could be given. Parsing its command line,
//! and finding the scenario's text, is the program's matter.

use crate::catalog;
use crate::interp::{self, Setting};
use fencepost_fixtures::Errno;
use fencepost_fixtures::device::{self, DeviceSpec};
use fencepost_fixtures::sys::process::{self, Start};
use fencepost_results::{Outcome, Report, Verdict};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Mutex;

/// Last argument but one of a worker that goes on in the place of another one's child; the last one is of
/// [`again`].
pub const AGAIN: &str = "--again";
/// Arguments of a worker that only begins and ends.
pub const NOTHING: [&str; 2] = ["worker", "--nothing"];

/// What a worker is to run.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// Path of the scenario file: for messages and the suite's name.
    pub file: &'a str,
    /// Its text, checked before.
    pub text: &'a str,
    /// Full name of the test.
    pub test: &'a str,
    /// The test's seed.
    pub seed: u64,
    /// The device.
    pub device: &'a DeviceSpec,
}

/// Runs a test; reports go to `out`. Gives the exit status of the process: 0 if the outcome was
/// told, whatever it is.
pub fn run(job: &Job<'_>, out: impl Write + Send) -> u8 {
    let out = Mutex::new(out);
    let sink = |report: Report| {
        let mut out = out.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A runner that is gone cannot be told; the missing outcome is what it would notice.
        let _ = out.write_all(report.to_line().as_bytes()).and_then(|()| out.flush());
    };
    let outcome = judge(job, &sink);
    let text = Report::Outcome(outcome).to_line();
    let mut out = out.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let told = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    u8::from(told.is_err())
}

/// What a worker's child adds to its command line to run it again with its connection and its open file.
pub(crate) fn again(channel: BorrowedFd<'_>, file: BorrowedFd<'_>, first: usize) -> [String; 2] {
    let (channel, file) = (channel.as_raw_fd(), file.as_raw_fd());
    [AGAIN.to_owned(), format!("{channel},{file},{first}")]
}

/// The life of a worker that was run so: it makes the calls that it is told to. Gives the exit status.
///
/// # Errors
/// What is wrong with the argument, or the device.
pub fn go_on(argument: &str, device: &DeviceSpec) -> Result<u8, String> {
    let mut words = argument.splitn(3, ',');
    let mut number = || words.next().and_then(|word| word.parse::<RawFd>().ok());
    let (Some(channel), Some(file), Some(first)) = (number(), number(), number()) else {
        return Err(format!("{AGAIN} {argument} is not what a worker gives"));
    };
    let opened =
        |fd| process::started_with(fd).map_err(|errno| format!("descriptor {fd}: {errno}"));
    let (channel, file) = (opened(channel)?, opened(file)?);
    let device = device::open(device).map_err(|error| error.to_string())?;
    let first = usize::try_from(first).unwrap_or_default();
    Ok(u8::from(interp::serve_on(&*device, channel, file, first) != 0))
}

/// Runs this program in a process of its own, where it has nothing to do.
pub(crate) fn spawn(start: Start) -> Result<(), Errno> {
    process::run_self(start, &NOTHING)
}

fn judge(job: &Job<'_>, sink: &(dyn Fn(Report) + Sync)) -> Outcome {
    let cannot = |reason: String| Outcome { verdict: Verdict::Fail, reason: Some(reason) };
    let variant = match catalog::find(job.file, job.text, job.test) {
        Ok(Some(variant)) => variant,
        Ok(None) => return cannot(format!("{} has no test {}", job.file, job.test)),
        Err(diagnostics) => return cannot(diagnostics.to_string()),
    };
    let device = match device::open(job.device) {
        Ok(device) => device,
        Err(error) => return cannot(format!("the device {} cannot be used: {error}", job.device)),
    };
    let setting =
        Setting { test: &variant.test, text: job.text, device: &*device, seed: job.seed, sink };
    interp::run(&setting)
}
