//! One test: its device, its worker process, what both say until they are gone.
//!
//! Owns the life of the process and its pipes. The worker's reports come through a pipe that stands
//! in the place of its standard input, because that is the one descriptor besides output that a
//! process can be handed without any unsafe code between fork and exec, and without leaking it
//! into workers that are started at the same moment. Standard output and error share another.

use std::fs::File;
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fencepost_host::live;
use fencepost_results::journal::Writer;
use fencepost_results::{Ending, Event, Report, Source, TestStarted, Verdict};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::judge::Observed;
use super::{Folder, source_argument};
use crate::device::{self, Subject};
use crate::stop::Stop;

/// Longest line of a report; a worker that says more is broken.
const MAX_LINE: usize = 16 << 20;

/// How much of a test's output is kept; a test that says more says too much.
const MAX_OUTPUT: u64 = 64 << 20;

/// A test to run.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    /// Its name.
    pub(crate) test: &'a str,
    /// Where its scenario is.
    pub(crate) source: &'a Source,
    /// Its seed.
    pub(crate) seed: u64,
    /// The device.
    pub(crate) device: &'a str,
    /// Longest time.
    pub(crate) timeout: Duration,
    /// The folder of the run, for the output.
    pub(crate) folder: &'a Folder,
    /// Where what happens is written, but for the end.
    pub(crate) journal: Option<&'a Writer>,
    /// Ends the test early.
    pub(crate) stop: &'a Stop,
}

/// What came of a test.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// The verdict.
    pub(crate) verdict: Verdict,
    /// Why.
    pub(crate) reason: Option<String>,
    /// From before the device was made until it was gone.
    pub(crate) duration: Duration,
    /// How the process ended.
    pub(crate) ending: Option<Ending>,
    /// What the worker said.
    pub(crate) reports: Vec<Report>,
    /// The file with its output, if there was any.
    pub(crate) output: Option<PathBuf>,
}

impl Watched {
    /// A test that was not started.
    pub(crate) fn skipped(reason: &str) -> Self {
        Self {
            verdict: Verdict::Skip,
            reason: Some(reason.to_owned()),
            duration: Duration::ZERO,
            ending: None,
            reports: Vec::new(),
            output: None,
        }
    }
}

/// Runs a test and judges it. An error means that the journal cannot be written.
pub(crate) fn watch(job: &Job<'_>) -> io::Result<Watched> {
    let began = Instant::now();
    if let Some(journal) = job.journal {
        let ticket = journal.append(Event::TestStarted(TestStarted {
            test: job.test.to_owned(),
            seed: job.seed,
            source: job.source.clone(),
        }))?;
        if device::may_take_the_machine_down(job.device) {
            journal.wait(ticket)?;
        }
    }
    let mut watcher = Watcher {
        job: *job,
        observed: Observed::default(),
        reports: Vec::new(),
        partial: Vec::new(),
        output: Output { path: job.folder.output(job.test), file: None, written: 0 },
    };
    watcher.whole_life()?;
    let (verdict, reason) = watcher.observed.judge();
    Ok(Watched {
        verdict,
        reason,
        duration: began.elapsed(),
        ending: watcher.observed.ending,
        reports: watcher.reports,
        output: watcher.output.file.map(|_| watcher.output.path),
    })
}

struct Watcher<'a> {
    job: Job<'a>,
    observed: Observed,
    reports: Vec<Report>,
    /// The beginning of a report whose end is still to come.
    partial: Vec<u8>,
    output: Output,
}

impl Watcher<'_> {
    /// From the making of the device to its end. Trouble with either goes into `observed`.
    fn whole_life(&mut self) -> io::Result<()> {
        let device = match Subject::new(self.job.device) {
            Ok(device) => device,
            Err(error) => {
                self.observed.device = Some(format!("the device cannot be made: {error}"));
                return Ok(());
            }
        };
        let (mut reports, theirs) = io::pipe()?;
        let (mut output, its_output) = io::pipe()?;
        let mut command = device::program("worker");
        command
            .args(["--test", self.job.test, "--device", self.job.device])
            .args(["--source", &source_argument(self.job.source)])
            .args(["--seed", &self.job.seed.to_string()])
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(its_output.try_clone()?))
            .stderr(Stdio::from(its_output))
            // Its own group, so that Ctrl-C reaches the runner only and nothing outlives the test.
            .process_group(0);
        if let Source::File(path) = self.job.source {
            // What was copied when the run began, whatever became of the file since.
            command.arg("--text").arg(self.job.folder.scenario_copy(path));
        }
        match device.spawn(command) {
            Ok(mut child) => {
                self.attend(&mut child, &mut reports, &mut output)?;
                self.bury(&mut child);
                self.drain(&mut reports, &mut output)?;
            }
            Err(error) => {
                self.observed.device = Some(format!("the worker cannot be started: {error}"));
            }
        }
        self.close(device);
        Ok(())
    }

    /// Listens until the process is over, its time is, or the run is.
    fn attend(
        &mut self,
        child: &mut live::Child,
        reports: &mut PipeReader,
        output: &mut PipeReader,
    ) -> io::Result<()> {
        let deadline = Instant::now() + self.job.timeout;
        let (mut reports_open, mut output_open) = (true, true);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.observed.timed_out = Some(self.job.timeout);
                return Ok(());
            }
            // A closed pipe is left out: its hang-up would wake us for ever.
            let mut fds = vec![
                PollFd::new(child.ended(), PollFlags::POLLIN),
                PollFd::new(self.job.stop.fd(), PollFlags::POLLIN),
            ];
            let mut open = |pipe: bool, fd| {
                if pipe {
                    fds.push(PollFd::new(fd, PollFlags::POLLIN));
                }
                fds.len() - 1
            };
            let reports_at = open(reports_open, reports.as_fd());
            let output_at = open(output_open, output.as_fd());
            match poll(&mut fds, milliseconds(left)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            if reports_open && ready[reports_at] {
                reports_open = self.hear(reports)?;
            }
            if output_open && ready[output_at] {
                output_open = self.output.take(output)?;
            }
            if ready[0] {
                return Ok(());
            }
            if ready[1] {
                self.observed.stopped = self.job.stop.cause();
                return Ok(());
            }
        }
    }

    /// Kills what is left of the test's process group, then reaps the worker.
    fn bury(&mut self, child: &mut live::Child) {
        // Before the worker is reaped: as long as it is a zombie, its group's number is taken.
        if let Ok(group) = i32::try_from(child.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        self.observed.ending = child.wait().ok().map(ending);
    }

    /// Reads what was said before the end. Processes that left the group may still hold the pipes,
    /// so only what is there is read.
    fn drain(&mut self, reports: &mut PipeReader, output: &mut PipeReader) -> io::Result<()> {
        while readable(reports)? && self.hear(reports)? {}
        while readable(output)? && self.output.take(output)? {}
        Ok(())
    }

    /// Reads reports; false at the end of the pipe.
    fn hear(&mut self, pipe: &mut PipeReader) -> io::Result<bool> {
        let mut buffer = [0; 16 << 10];
        let n = pipe.read(&mut buffer)?;
        self.partial.extend_from_slice(&buffer[..n]);
        let mut rest = 0;
        while let Some(length) = self.partial[rest..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.partial[rest..rest + length]).into_owned();
            rest += length + 1;
            self.line(&line)?;
        }
        self.partial.drain(..rest);
        if self.partial.len() > MAX_LINE {
            self.partial.clear();
            self.observed.garbage.get_or_insert("a line without end".into());
        }
        Ok(n > 0)
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        let Ok(report) = Report::from_line(line) else {
            let excerpt = line.chars().take(200).collect();
            self.observed.garbage.get_or_insert(excerpt);
            return Ok(());
        };
        self.observed.hear(&report);
        if let Some(journal) = self.job.journal {
            let test = self.job.test.to_owned();
            journal.append(Event::Reported { test, report: report.clone() })?;
        }
        self.reports.push(report);
        Ok(())
    }

    /// Ends the device and notes what was left on it.
    fn close(&mut self, device: Subject) {
        let Subject::Served(device) = device else { return };
        let leaks = device.shutdown();
        self.observed.leaks = device::leaks(&leaks);
        if let Some(death) = device::death(&leaks) {
            self.observed.device.get_or_insert(death);
        }
    }
}

/// Standard output and error of a test, in one file that is made when there is something to say.
struct Output {
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

impl Output {
    /// Copies what is there; false at the end of the pipe.
    fn take(&mut self, pipe: &mut PipeReader) -> io::Result<bool> {
        let mut buffer = [0; 16 << 10];
        let n = pipe.read(&mut buffer)?;
        if n == 0 {
            return Ok(false);
        }
        if self.written < MAX_OUTPUT {
            if self.file.is_none() {
                let folder = self.path.parent().expect("below the run's folder");
                std::fs::create_dir_all(folder)?;
                self.file = Some(File::create(&self.path)?);
            }
            if let Some(file) = &mut self.file {
                file.write_all(&buffer[..n])?;
            }
            self.written += n as u64;
        }
        Ok(true)
    }
}

/// A time for `poll(2)`, rounded up.
fn milliseconds(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
}

fn readable(pipe: &PipeReader) -> io::Result<bool> {
    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exit(code),
        (None, signal) => Ending::Signal(signal.unwrap_or(0)),
    }
}
