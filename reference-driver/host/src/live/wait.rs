//! Sleeping and waking inside one device. Owns the event counter that every sleeper watches.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One event counter: sleepers remember its value before they look, and sleep until it changes.
#[derive(Default)]
pub(crate) struct Events {
    count: AtomicU64,
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Events {
    /// The value to remember before looking at the condition.
    pub(crate) fn now(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Something changed. Cheap when nobody sleeps.
    pub(crate) fn wake(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        // A sleeper counts itself before it compares, so either it sees the new value or we see it.
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }

    /// Sleeps until something changed after `seen` was taken, or for `limit`.
    pub(crate) fn sleep(&self, seen: u64, limit: Option<Duration>) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.now() == seen {
            guard = match deadline.map(|at| at.checked_duration_since(Instant::now())) {
                None => self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(None) => break,
                Some(Some(left)) => {
                    let waited = self.changed.wait_timeout(guard, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        drop(guard);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_change_between_looking_and_sleeping_is_not_missed() {
        let events = Events::default();
        let seen = events.now();
        events.wake();
        events.sleep(seen, None);
        events.sleep(events.now(), Some(Duration::ZERO));
    }

    #[test]
    fn sleepers_of_several_threads_are_woken() {
        let (events, value) = (Arc::new(Events::default()), Arc::new(AtomicU64::new(0)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (events, value) = (Arc::clone(&events), Arc::clone(&value));
                std::thread::spawn(move || {
                    loop {
                        let seen = events.now();
                        if value.load(Ordering::SeqCst) == 100 {
                            return;
                        }
                        events.sleep(seen, None);
                    }
                })
            })
            .collect();
        for _ in 0..100 {
            value.fetch_add(1, Ordering::SeqCst);
            events.wake();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
