//! The threads that serve one process tree. Owns who receives calls and when a thread is added or
//! leaves; what a call means is the [`Service`]'s.
//!
//! Whoever receives a call serves it. So that a call which blocks, on a fence or on a lock that a
//! blocked one holds, never blocks the others, somebody else is always there to receive: who takes
//! the last free place starts another thread. There are thus at most one more threads than there are
//! calls in progress.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFlags, PollTimeout};

use super::sys::fd;
use super::sys::notify::{Answer, Call, Listener};

/// Threads that stay to receive when nothing is going on.
const SPARE: usize = 2;
/// Stack of a serving thread in bytes; it runs the driver, which does not recurse.
const STACK: usize = 512 << 10;

/// What calls mean.
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers one call. May block.
    fn serve(&self, port: &Arc<Port>, call: &Call) -> Answer;

    /// Whether serving this call may wait for another call.
    fn may_block(&self, call: &Call) -> bool;

    /// Whether clients' address spaces can be mirrored, so that changes of mappings are calls of
    /// interest.
    fn mirrors(&self) -> bool {
        false
    }
}

/// One listener and its threads.
pub(crate) struct Port {
    /// Answers go here.
    pub(crate) listener: Listener,
    service: Arc<dyn Service>,
    /// Threads that receive now, or are about to.
    idle: AtomicUsize,
    /// Held to receive, on kernels where that needs a poll first.
    turn: Mutex<()>,
    ends: Arc<Ends>,
}

/// Counts the serving threads of a device, so that their end can be awaited.
#[derive(Default)]
pub(crate) struct Ends {
    threads: Mutex<usize>,
    changed: Condvar,
}

impl Ends {
    fn add(&self) {
        *self.threads.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn remove(&self) {
        *self.threads.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.changed.notify_all();
    }

    /// Waits until no thread is left, that is until no process is left under the filters; `false` when
    /// the time is over.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while *threads > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            let waited = self.changed.wait_timeout(threads, left);
            threads = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Leaves [`Ends`] also when the thread panics.
struct Counted(Arc<Ends>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// Starts serving: the first thread takes the listener from `listener`, which may block, and ends if
/// none comes.
pub(crate) fn start(
    listener: impl FnOnce() -> Option<OwnedFd> + Send + 'static,
    service: Arc<dyn Service>,
    ends: &Arc<Ends>,
) -> io::Result<()> {
    let port_ends = Arc::clone(ends);
    thread(ends, move || {
        let Some(listener) = listener() else { return };
        let listener = Listener::new(listener);
        let (idle, turn) = (AtomicUsize::new(1), Mutex::new(()));
        Arc::new(Port { listener, service, idle, turn, ends: port_ends }).run();
    })
}

fn thread(ends: &Arc<Ends>, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    ends.add();
    let counted = Counted(Arc::clone(ends));
    let builder = std::thread::Builder::new().name("device".into()).stack_size(STACK);
    builder.spawn(move || {
        let _counted = counted;
        body();
    })?;
    Ok(())
}

impl Port {
    /// One thread's life. Whoever starts it has counted it as idle.
    fn run(self: Arc<Port>) {
        loop {
            let received = self.receive();
            let others = self.idle.fetch_sub(1, Ordering::SeqCst) - 1;
            match received {
                Ok(call) => {
                    if others == 0 && self.service.may_block(&call) {
                        self.grow();
                    }
                    let answer = self.service.serve(&self, &call);
                    // A refusal means that the caller was killed: nobody to tell.
                    let _gone = self.listener.answer(call.id, answer);
                }
                Err(libc::EINTR) => {}
                Err(libc::ENOENT) if !self.is_over() => {}
                Err(_) => return,
            }
            if self.idle.fetch_add(1, Ordering::SeqCst) >= SPARE {
                self.idle.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        }
    }

    /// Adds a thread. Without memory for one, calls are served one after the other.
    fn grow(self: &Arc<Port>) {
        self.idle.fetch_add(1, Ordering::SeqCst);
        let port = Arc::clone(self);
        if thread(&self.ends, move || port.run()).is_err() {
            self.idle.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn receive(&self) -> Result<Call, i32> {
        if receive_ends() {
            return self.listener.receive();
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _event = fd::ready(self.listener.as_fd(), PollFlags::POLLIN, PollTimeout::NONE);
        if self.is_over() { Err(libc::ENOENT) } else { self.listener.receive() }
    }

    /// Whether no process is left under the filter.
    fn is_over(&self) -> bool {
        let mut polled = [nix::poll::PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let count = nix::poll::poll(&mut polled, PollTimeout::ZERO);
        let events = polled[0].revents().unwrap_or(PollFlags::empty());
        count.is_ok() && events.contains(PollFlags::POLLHUP)
    }
}

/// Whether receiving ends by itself when the last process is gone: since Linux 6.11. Before, only
/// poll tells.
fn receive_ends() -> bool {
    static ENDS: OnceLock<bool> = OnceLock::new();
    *ENDS.get_or_init(|| {
        nix::sys::utsname::uname().is_ok_and(|name| {
            let release = name.release().to_string_lossy();
            let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
            let (major, minor) = (parts.next(), parts.next());
            matches!((major, minor), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 11))
        })
    })
}
