//! Client processes: starting one under the filter, waiting for it, killing it. Owns the pidfd.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use nix::poll::{PollFlags, PollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::agent;
use super::serve::{self, Ends, Service};
use super::sys::{fd, filter, notify};

/// The filter, without and with mirrors.
static PROGRAMS: LazyLock<[Vec<libc::sock_filter>; 2]> =
    LazyLock::new(|| [false, true].map(filter::program));

/// Held for reading while this process has a copy of a client's description, for writing while it
/// forks: a fork in between would copy it, and keep it open up to its exec.
static FORK: RwLock<()> = RwLock::new(());

/// Keeps forks away as long as the guard lives.
pub(crate) fn no_fork() -> RwLockReadGuard<'static, ()> {
    FORK.read().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `f`, which may fork: a program that holds live devices should start other processes within
/// this, else a client's close may take effect late.
pub fn forking<R>(f: impl FnOnce() -> R) -> R {
    let _alone = FORK.write().unwrap_or_else(PoisonError::into_inner);
    f()
}

/// A process that sees the device. Dropping it kills and reaps the process.
///
/// The process dies with the thread that spawned it (`PR_SET_PDEATHSIG`), so that thread should
/// outlive it.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    ended: OwnedFd,
}

/// The filter for a service's clients, who are told whether they may prepare for an agent.
fn program(command: &mut Command, service: &dyn Service) -> &'static [libc::sock_filter] {
    let mirrors = service.mirrors();
    if mirrors {
        command.env(agent::VARIABLE, "1");
    } else {
        command.env_remove(agent::VARIABLE);
    }
    &PROGRAMS[usize::from(mirrors)]
}

/// Starts `command` under the filter, its calls served by `service`.
pub(crate) fn spawn(
    mut command: Command,
    service: Arc<dyn Service>,
    ends: &Arc<Ends>,
) -> io::Result<Child> {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    let (ours, theirs) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC)?;
    let program = program(&mut command, &*service);
    // Before the fork, so that the thread comes up while the child does.
    serve::start(move || fd::receive(ours.as_fd()).ok().flatten(), service, ends)?;
    let parent = std::process::id();
    let enter = move || {
        // SAFETY: plain numbers.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        if nix::unistd::getppid().as_raw().cast_unsigned() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        fd::send(theirs.as_fd(), notify::confine(program)?.as_fd())
    };
    // SAFETY: between fork and exec the closure only makes system calls; it neither allocates nor
    // takes a lock (the program was built above).
    unsafe { command.pre_exec(enter) };
    let process = forking(|| command.spawn())?;
    Child::new(process)
}

/// Starts `command` without any device: it sees the machine's own. It outlives this process unless
/// it asks to die with it.
///
/// # Errors
/// Those of [`Command::spawn`].
pub fn spawn_outside(mut command: Command) -> io::Result<Child> {
    Child::new(forking(|| command.spawn())?)
}

impl Child {
    fn new(mut process: std::process::Child) -> io::Result<Child> {
        match fd::pidfd(process.id()) {
            Ok(ended) => Ok(Child { process, ended }),
            Err(error) => {
                let _killed = process.kill().and_then(|()| process.wait());
                Err(error)
            }
        }
    }
}

impl Child {
    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The process as the standard library knows it, for its pipes.
    pub fn process_mut(&mut self) -> &mut std::process::Child {
        &mut self.process
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// Those of `waitpid(2)`.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        // Only then: the process may be traced from here for a moment, and its stops are not for us.
        fd::ready(self.ended.as_fd(), PollFlags::POLLIN, PollTimeout::NONE)?;
        self.process.wait()
    }

    /// Waits for the end of the process, at most `limit` (rounded up to milliseconds); `None` if it
    /// still runs then.
    ///
    /// # Errors
    /// Those of `poll(2)` and `waitpid(2)`.
    pub fn wait_timeout(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let ms = limit.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
        if fd::ready(self.ended.as_fd(), PollFlags::POLLIN, timeout)? {
            return self.wait().map(Some);
        }
        Ok(None)
    }

    /// The exit status, if the process has ended.
    ///
    /// # Errors
    /// Those of `waitpid(2)`.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// Kills the process by SIGKILL; one that has ended already is no error.
    ///
    /// # Errors
    /// Those of `kill(2)`.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Readable once the process has ended: for a caller's own `poll(2)`.
    #[must_use]
    pub fn ended(&self) -> std::os::fd::BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let _killed = self.process.kill().and_then(|()| self.process.wait());
        }
    }
}
