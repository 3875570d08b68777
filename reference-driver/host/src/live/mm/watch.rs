//! The threads behind one address space: one that sees its end, and one that serves the faults which
//! userfaultfd reports, with another taking over when that one is held up by the driver.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::agent::layout::TAKEN;
use super::super::migrate::Mover;
use super::super::sys::fd;
use super::cpu_fault::{self, Outcome};
use super::space::Space;

/// How often, in milliseconds, the watcher looks whether the server of faults is held up, and whether
/// the process has another program.
const TICK: u16 = 5;
/// Stack of a thread in bytes; they run the driver.
const STACK: usize = 512 << 10;

/// What the threads share.
struct Shared {
    space: Arc<Space>,
    over: AtomicBool,
    /// Number of the thread that serves faults, and faults begun and ended.
    server: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
}

/// The watcher's handle.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts watching.
    pub(crate) fn start(space: &Arc<Space>) -> io::Result<Watch> {
        let process = fd::pidfd(space.process.cast_unsigned())?;
        let shared = Arc::new(Shared {
            space: Arc::clone(space),
            over: AtomicBool::new(false),
            server: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        });
        if matches!(space.mover, Mover::Userfault(_)) {
            serve_faults(&shared)?;
        }
        let watched = Arc::clone(&shared);
        let thread = builder("watch").spawn(move || watch(&watched, &process))?;
        Ok(Watch { shared, thread })
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ended = self.thread.join();
    }
}

fn builder(name: &str) -> std::thread::Builder {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK)
}

fn watch(shared: &Arc<Shared>, process: &OwnedFd) {
    let mut before = 0;
    while !shared.over.load(Ordering::SeqCst) {
        let ended = fd::ready(process.as_fd(), PollFlags::POLLIN, PollTimeout::from(TICK));
        // Without a thread of its own the address space has ended as well: exec.
        if ended != Ok(false) || shared.space.lane.is_dead() {
            shared.space.end();
            break;
        }
        let (begun, done) =
            (shared.begun.load(Ordering::SeqCst), shared.ended.load(Ordering::SeqCst));
        if begun > done && begun == before {
            // No memory for another: the faults wait for the first.
            let _alone = serve_faults(shared);
        }
        before = begun;
    }
    shared.over.store(true, Ordering::SeqCst);
}

/// Starts a thread that serves faults in the place of the one before.
fn serve_faults(shared: &Arc<Shared>) -> io::Result<()> {
    let number = shared.server.fetch_add(1, Ordering::SeqCst) + 1;
    let shared = Arc::clone(shared);
    builder("faults").spawn(move || {
        let Mover::Userfault(way) = &shared.space.mover else { return };
        let mine = || shared.server.load(Ordering::SeqCst) == number;
        while mine() && !shared.over.load(Ordering::SeqCst) {
            let mut polled = [PollFd::new(way.fd(), PollFlags::POLLIN)];
            if poll(&mut polled, PollTimeout::from(TICK)).is_err() {
                continue;
            }
            while let Some((page, thread)) = way.fault() {
                shared.begun.fetch_add(1, Ordering::SeqCst);
                serve(&shared.space, page, thread);
                shared.ended.fetch_add(1, Ordering::SeqCst);
                if !mine() {
                    break;
                }
            }
        }
    })?;
    Ok(())
}

fn serve(space: &Arc<Space>, page: u64, thread: i32) {
    let Mover::Userfault(way) = &space.mover else { return };
    if (TAKEN[0]..TAKEN[1]).contains(&page) {
        // The agent, at a page that was never moved to: a hole of the source.
        way.zero(page);
        return;
    }
    match cpu_fault::serve(space, page) {
        Outcome::Again => way.wake(page),
        // Watched, but not away: an empty page, as without us.
        Outcome::NotAway => way.zero(page),
        Outcome::Lost => {
            // This access fails; the next one is another try, so nothing may stay behind.
            cpu_fault::fail(space, thread);
            way.wake(page);
        }
    }
}
