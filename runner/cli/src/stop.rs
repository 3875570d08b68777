//! Stopping a run early: signals and the overall time-out, as something that every thread can poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};

use fencepost_results::ExitCode;

/// Why a run stops before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A signal asked for it.
    Signal(Signal),
    /// The overall time-out is over.
    Time(Duration),
    /// The journal cannot be written.
    Journal,
    /// The machine is not fit to go on: why.
    Kernel(String),
}

impl Cause {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Signal(signal) => format!("interrupted by {signal}"),
            Self::Time(limit) => format!("the overall time-out of {limit:?} is over"),
            Self::Journal => "the journal cannot be written".into(),
            Self::Kernel(why) => why.clone(),
        }
    }
}

/// A flag that is raised once, pollable by any number of threads.
#[derive(Debug)]
pub(crate) struct Stop {
    raised: EventFd,
    cause: Mutex<Option<Cause>>,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let raised = EventFd::from_value_and_flags(0, flags)?;
        Ok(Self { raised, cause: Mutex::new(None) })
    }

    /// Raises the flag; the first cause stays.
    pub(crate) fn raise(&self, cause: Cause) {
        let mut slot = self.cause.lock().unwrap_or_else(|e| e.into_inner());
        slot.get_or_insert(cause);
        // It never overflows, and nobody reads it: once raised it stays readable.
        let _ = self.raised.write(1);
    }

    /// Why, if it is raised.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.cause.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Readable once it is raised.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.raised.as_fd()
    }
}

/// Blocks the signals that end a run, in this thread and all that it starts; child processes get
/// an empty mask from the standard library. Call before the first thread is started.
pub(crate) fn block_signals() -> io::Result<SigSet> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(signals)
}

/// Raises `stop` at the first of the signals; the second one ends the process at once, and the
/// kernel kills the workers with it.
pub(crate) fn on_signals(signals: SigSet, stop: Arc<Stop>) -> io::Result<()> {
    let watch = move || {
        let mut again = false;
        while let Ok(signal) = signals.wait() {
            if again {
                std::process::exit(ExitCode::Interrupted.code().into());
            }
            stop.raise(Cause::Signal(signal));
            again = true;
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map(drop)
}

/// Raises `stop` when the time is over.
pub(crate) fn on_timeout(limit: Duration, stop: Arc<Stop>) -> io::Result<()> {
    let watch = move || {
        thread::sleep(limit);
        stop.raise(Cause::Time(limit));
    };
    thread::Builder::new().name("time-out".into()).spawn(watch).map(drop)
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn the_first_cause_stays_and_the_flag_stays_readable() {
        let stop = Stop::new().expect("made");
        let readable = || {
            let mut fds = [PollFd::new(stop.fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).expect("polls") == 1
        };
        assert!(!readable() && stop.cause().is_none());
        stop.raise(Cause::Signal(Signal::SIGINT));
        stop.raise(Cause::Time(Duration::from_secs(1)));
        assert_eq!(stop.cause(), Some(Cause::Signal(Signal::SIGINT)));
        assert!(readable() && readable());
    }
}
