//! Other programs in a client's process. Owns two guesses: whether an `exec`, of which only the beginning is
//! a trapped call, has succeeded, and whether a child has its parent's memory until it execs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::agent::lane::Lane;
use super::super::agent::layout::{DATA, data};
use super::super::sys::client::{self, Way};
use super::is_prepared;

/// Longest time that an exec is taken to last.
const LIMIT: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_micros(50);

/// An exec that has begun.
pub(crate) struct Exec {
    thread: i32,
    began: Instant,
}

impl Exec {
    /// One that a thread is about to begin.
    pub(crate) fn begin(thread: i32) -> Exec {
        Exec { thread, began: Instant::now() }
    }

    /// Whether it was this thread's, which makes another call now.
    pub(crate) fn is_of(&self, thread: i32) -> bool {
        self.thread == thread
    }

    /// Waits for its end: true when the process has another program. The agent goes before that one runs.
    pub(crate) fn wait(&self, lane: &Lane) -> bool {
        while !lane.is_dead() {
            if self.began.elapsed() > LIMIT {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

/// Whether the process of a thread has its memory from its parent (`vfork`): a word that is written to the one
/// is then read from the other.
pub(crate) fn is_borrowed(tid: i32, way: Way) -> bool {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let Some(parent) = parent(tid).filter(|parent| is_prepared(*parent, way)) else {
        return false;
    };
    let place = DATA + data::SCRATCH;
    let word = NEXT.fetch_add(1, Ordering::Relaxed).to_ne_bytes();
    let mut seen = [0; 8];
    client::write(way, tid, place, &word).is_ok()
        && client::read(way, parent, place, &mut seen).is_ok()
        && seen == word
}

/// The parent of a thread's process.
fn parent(tid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}
