//! Forks of a client. Owns the guess when one is over: its beginning is a trapped call, its end nobody
//! tells.

use std::time::{Duration, Instant};

/// Longest time that a fork is taken to last.
const LIMIT: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_micros(50);

/// A fork that has begun.
pub(crate) struct Fork {
    thread: i32,
    children: Option<String>,
    began: Instant,
}

impl Fork {
    /// One that a thread is about to begin.
    pub(crate) fn begin(thread: i32) -> Fork {
        Fork { thread, children: children(thread), began: Instant::now() }
    }

    /// Whether it is over: the thread has another child, has ended, or time is up.
    fn is_over(&self) -> bool {
        self.began.elapsed() > LIMIT
            || self.children.is_none()
            || children(self.thread) != self.children
    }

    /// Waits for its end. A page that moved meanwhile would be lost to the child.
    pub(crate) fn wait(&self) {
        while !self.is_over() {
            std::thread::sleep(LOOK);
        }
    }
}

/// The children that a thread has forked; `None`: it cannot be told.
fn children(thread: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{thread}/task/{thread}/children")).ok()
}
