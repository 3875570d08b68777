//! Interval notifiers of one address space and the sequence number that readers check, after
//! `mm/mmu_notifier.c` of Linux. Owns the protocol; who changes what is [`super::trap`]'s and the
//! migrations'.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fencepost_core::gpuva::Span;
use fencepost_core::host::mirror::{Event, Invalidation};

use super::home::Home;

/// One notifier.
pub(crate) struct Interval {
    id: u64,
    span: Span,
    cookie: u64,
    home: Arc<Home>,
    /// Sequence number of the last invalidation; set by the driver under its own lock.
    seq: AtomicU64,
}

struct State {
    /// Odd while ranges with notifiers are invalidated.
    seq: u64,
    /// Invalidations under way.
    active: u32,
    next: u64,
    intervals: BTreeMap<u64, Arc<Interval>>,
    /// Notifiers being called, once for each call.
    busy: Vec<u64>,
}

/// The notifiers of an address space.
pub(crate) struct Notifiers {
    state: Mutex<State>,
    changed: Condvar,
}

/// An invalidation under way.
#[must_use]
pub(crate) struct Begun<'a>(&'a Notifiers);

fn overlap(one: Span, other: Span) -> bool {
    one.start < other.end && other.start < one.end
}

impl Notifiers {
    pub(crate) fn new() -> Notifiers {
        let state =
            State { seq: 2, active: 0, next: 1, intervals: BTreeMap::new(), busy: Vec::new() };
        Notifiers { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a notifier.
    pub(crate) fn insert(&self, span: Span, cookie: u64, home: Arc<Home>) -> Arc<Interval> {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        // One that comes during an invalidation waits for its end, others read as if one had passed.
        let seq = if state.seq & 1 == 1 { state.seq } else { state.seq - 1 };
        let interval = Interval { id, span, cookie, home, seq: AtomicU64::new(seq) };
        let interval = Arc::new(interval);
        state.intervals.insert(id, Arc::clone(&interval));
        interval
    }

    /// Removes a notifier; no call of it is under way any more.
    pub(crate) fn remove(&self, interval: &Interval) {
        let mut state = self.lock();
        state.intervals.remove(&interval.id);
        while state.busy.contains(&interval.id) {
            state = self.wait(state);
        }
    }

    /// Begins an invalidation: the drivers are told, readers wait from then on.
    pub(crate) fn begin(&self, span: Span, event: Event, owner: u64) -> Begun<'_> {
        self.tell(Invalidation { span, event, owner, blockable: true }, true)
    }

    /// Ends translations of a page that its own driver takes: what that driver has read stays good.
    pub(crate) fn end_translations(&self, span: Span) {
        let event = Event::Clear;
        drop(self.tell(Invalidation { span, event, owner: 0, blockable: true }, false));
    }

    /// `news`: what was read before is out of date.
    fn tell(&self, invalidation: Invalidation, news: bool) -> Begun<'_> {
        let span = invalidation.span;
        let mut state = self.lock();
        state.active += 1;
        let hit = state.intervals.values().filter(|interval| overlap(interval.span, span));
        let hit: Vec<Arc<Interval>> = hit.map(Arc::clone).collect();
        if !hit.is_empty() {
            state.seq |= 1;
            state.busy.extend(hit.iter().map(|interval| interval.id));
        }
        let seq = state.seq;
        drop(state);
        for interval in &hit {
            let mut set = || {
                if news {
                    interval.seq.store(seq, Ordering::SeqCst);
                }
            };
            let called = interval
                .home
                .call(|sink| sink.invalidate(interval.cookie, &invalidation, &mut set));
            // A driver that has died reads no more.
            if called.is_none() {
                set();
            }
            let mut state = self.lock();
            if let Some(index) = state.busy.iter().position(|id| *id == interval.id) {
                state.busy.swap_remove(index);
            }
            self.changed.notify_all();
        }
        Begun(self)
    }

    /// Number under which to read; waits for invalidations under way.
    pub(crate) fn read_begin(&self, interval: &Interval) -> u64 {
        let mut state = self.lock();
        let seq = interval.seq.load(Ordering::SeqCst);
        while state.seq == seq {
            state = self.wait(state);
        }
        seq
    }
}

impl Interval {
    /// Whether what was read under this number is out of date.
    pub(crate) fn read_retry(&self, seq: u64) -> bool {
        self.seq.load(Ordering::SeqCst) != seq
    }
}

impl Drop for Begun<'_> {
    /// The end of the invalidation.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.active -= 1;
        if state.active == 0 && state.seq & 1 == 1 {
            state.seq += 1;
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencepost_uapi::Errno;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl super::super::home::Sink for Counting {
        fn invalidate(&self, _: u64, _: &Invalidation, set_seq: &mut dyn FnMut()) -> bool {
            set_seq();
            self.0.fetch_add(1, Ordering::SeqCst);
            true
        }
        fn cpu_fault(
            &self,
            _: &mut super::super::cpu_fault::CpuFault,
            _: u64,
            _: u64,
        ) -> Result<(), Errno> {
            Err(Errno::FAULT)
        }
        fn wake(&self) {}
    }

    #[test]
    fn readers_see_what_overlapped_them_only() {
        let sink: Arc<dyn super::super::home::Sink> = Arc::new(Counting::default());
        let home = Arc::new(Home::new(0, Arc::default(), 1));
        home.connect(Arc::downgrade(&sink));
        let notifiers = Notifiers::new();
        let one = notifiers.insert(Span::new(0x1000, 0x3000), 1, Arc::clone(&home));
        let other = notifiers.insert(Span::new(0x3000, 0x4000), 2, home);
        let (seq, other_seq) = (notifiers.read_begin(&one), notifiers.read_begin(&other));
        drop(notifiers.begin(Span::new(0x2000, 0x3000), Event::Unmap, 0));
        assert!(one.read_retry(seq));
        assert!(!other.read_retry(other_seq));
        assert!(!one.read_retry(notifiers.read_begin(&one)));
    }

    #[test]
    fn readers_wait_for_the_end() {
        let sink: Arc<dyn super::super::home::Sink> = Arc::new(Counting::default());
        let home = Arc::new(Home::new(0, Arc::default(), 1));
        home.connect(Arc::downgrade(&sink));
        let notifiers = Notifiers::new();
        let one = notifiers.insert(Span::new(0, 0x1000), 1, home);
        let begun = notifiers.begin(Span::new(0, 0x1000), Event::Clear, 0);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| notifiers.read_begin(&one));
            drop(begun);
            assert!(!one.read_retry(reader.join().unwrap()));
        });
        notifiers.remove(&one);
        assert!(notifiers.lock().intervals.is_empty());
    }
}
