//! Barriers between actors, which hand on what each knew when it came.

use crate::oracle::clock::Event;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A reusable barrier.
pub(super) struct Rendezvous {
    parties: u32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// How often the barrier has opened.
    openings: u64,
    waiting: Vec<Event>,
    /// Who met at the last openings, by their number.
    met: BTreeMap<u64, Vec<Event>>,
}

/// Why nobody was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// The test is over.
    Stopped,
    /// The others did not come in time: so many had.
    Late(usize),
}

impl Rendezvous {
    /// A barrier for so many actors.
    pub(super) fn new(parties: u32) -> Self {
        Self { parties, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for the others; gives the events of all who met, the caller's included.
    pub(super) fn meet(
        &self,
        mine: Event,
        patience: Duration,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<Event>, Missed> {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        let opening = state.openings;
        state.waiting.push(mine);
        if state.waiting.len() as u32 >= self.parties {
            state.openings += 1;
            let met = std::mem::take(&mut state.waiting);
            state.met.insert(opening, met.clone());
            // Whoever is so late to leave has been overtaken by all others this often.
            const KEPT: usize = 64;
            if state.met.len() > KEPT {
                state.met.pop_first();
            }
            self.changed.notify_all();
            return Ok(met);
        }
        while state.openings == opening {
            let left = deadline.saturating_duration_since(Instant::now());
            if is_stopped() {
                return Err(Missed::Stopped);
            }
            if left.is_zero() {
                return Err(Missed::Late(state.waiting.len()));
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        Ok(state.met.get(&opening).cloned().unwrap_or_default())
    }

    /// Has those who wait look whether the test is over.
    pub(super) fn wake(&self) {
        // Taking the lock makes sure that nobody is between looking and waiting.
        drop(self.state());
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::clock::Clocks;
    use std::sync::atomic::{AtomicBool, Ordering};

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn all_meet_and_the_barrier_can_be_used_again() {
        let mut clocks = Clocks::default();
        let lines: Vec<u16> = (0..3).map(|_| clocks.timeline()).collect();
        let events: Vec<Event> = lines.iter().map(|line| clocks.tick(*line)).collect();
        let barrier = Rendezvous::new(3);
        std::thread::scope(|scope| {
            for event in &events {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let met = barrier.meet(*event, LONG, &|| false).expect("all come");
                        assert_eq!(met.len(), 3);
                    }
                });
            }
        });
        assert_eq!(barrier.state().openings, 50);
    }

    #[test]
    fn who_waits_alone_learns_why() {
        let mut clocks = Clocks::default();
        let line = clocks.timeline();
        let event = clocks.tick(line);
        let barrier = Rendezvous::new(2);
        assert_eq!(barrier.meet(event, Duration::ZERO, &|| false), Err(Missed::Late(1)));
        let barrier = Rendezvous::new(2);
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| barrier.meet(event, LONG, &|| stopped.load(Ordering::SeqCst)));
            stopped.store(true, Ordering::SeqCst);
            barrier.wake();
            assert_eq!(waiting.join().expect("no panic"), Err(Missed::Stopped));
        });
    }
}
