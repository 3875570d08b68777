//! Syncobjs: which fences a wait may have waited for, and so what the waiter knows afterwards.
//!
//! A fence is known by the event that signals it. What a syncobj holds changes while calls are in
//! flight: an attachment has a beginning (the call was made) and an end (it returned), counted in
//! the oracle's own time. A wait may have found any payload that could be the present one at some
//! moment between its own beginning and end; only what all of these know is certain.

use super::clock::{Clock, Clocks, Event};

/// The oracle's time: counts what it is told.
pub type Moment = u64;

/// A fence, or several of which one is meant.
pub type Fence = Vec<Event>;

/// What was put into a syncobj.
#[derive(Clone, Debug)]
enum Payload {
    /// A binary fence.
    Binary(Fence),
    /// Nothing.
    Reset,
    /// A point of the timeline.
    Point(u64, Fence),
}

#[derive(Clone, Debug)]
struct Attachment {
    id: u64,
    begin: Moment,
    /// None while the call is in flight.
    end: Option<Moment>,
    payload: Payload,
}

/// A syncobj.
#[derive(Clone, Debug, Default)]
pub struct Syncobj {
    attachments: Vec<Attachment>,
    next: u64,
}

/// An attachment that a call in flight is making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attaching(u64);

/// Longest history that is kept: older attachments are certainly over.
const MAX_HISTORY: usize = 64;

impl Syncobj {
    /// A call is about to attach a fence: a timeline point, or with 0 the binary payload.
    pub fn attach(&mut self, point: u64, fence: Fence, now: Moment) -> Attaching {
        let payload =
            if point == 0 { Payload::Binary(fence) } else { Payload::Point(point, fence) };
        self.put(payload, now)
    }

    /// A call is about to take the fence away.
    pub fn reset(&mut self, now: Moment) -> Attaching {
        self.put(Payload::Reset, now)
    }

    fn put(&mut self, payload: Payload, begin: Moment) -> Attaching {
        self.forget();
        let id = self.next;
        self.next += 1;
        self.attachments.push(Attachment { id, begin, end: None, payload });
        Attaching(id)
    }

    /// The call returned; without success nothing was attached.
    pub fn attached(&mut self, attaching: Attaching, done: bool, now: Moment) {
        let Some(index) = self.attachments.iter().position(|a| a.id == attaching.0) else { return };
        if done {
            self.attachments[index].end = Some(now);
        } else {
            self.attachments.remove(index);
        }
    }

    /// Drops binary payloads that were replaced long ago. Points stay: they make up the chain.
    fn forget(&mut self) {
        if self.attachments.len() < MAX_HISTORY {
            return;
        }
        let keep = self.attachments.len() - MAX_HISTORY / 2;
        let mut index = 0;
        self.attachments.retain(|a| {
            index += 1;
            index > keep || a.end.is_none() || matches!(a.payload, Payload::Point(..))
        });
    }

    /// Attachments that may have been the present payload between two moments.
    fn present(&self, begin: Moment, end: Moment) -> Vec<&Attachment> {
        let over = |a: &Attachment| {
            // A later attachment that was complete before the wait began, and began after this
            // one was complete.
            self.attachments.iter().any(|b| {
                a.end.is_some_and(|ended| b.begin >= ended && b.id != a.id)
                    && b.end.is_some_and(|ended| ended <= begin)
            })
        };
        self.attachments.iter().filter(|a| a.begin <= end && !over(a)).collect()
    }

    /// What a successful wait between two moments for a point (0: the binary payload) tells.
    #[must_use]
    pub fn learnt(&self, clocks: &Clocks, point: u64, begin: Moment, end: Moment) -> Clock {
        if point == 0 {
            return self.learnt_binary(clocks, begin, end);
        }
        let mut learnt = Clock::default();
        let mut exact = Vec::new();
        let mut beyond = Vec::new();
        for attachment in self.attachments.iter().filter(|a| a.begin <= end) {
            let Payload::Point(at, fence) = &attachment.payload else { continue };
            let certain = attachment.end.is_some_and(|ended| ended <= begin);
            if *at <= point && certain {
                learnt.join(&clocks.common(fence));
            }
            match at.cmp(&point) {
                std::cmp::Ordering::Equal => exact.extend(fence),
                std::cmp::Ordering::Greater => beyond.extend(fence),
                std::cmp::Ordering::Less => {}
            }
        }
        let waited = if exact.is_empty() { beyond } else { exact };
        learnt.join(&clocks.common(&waited));
        learnt
    }

    fn learnt_binary(&self, clocks: &Clocks, begin: Moment, end: Moment) -> Clock {
        let mut fences = Vec::new();
        for attachment in self.present(begin, end) {
            match &attachment.payload {
                // Nothing can be waited for there, so it was another one.
                Payload::Reset => {}
                Payload::Binary(fence) | Payload::Point(_, fence) => fences.extend(fence),
            }
        }
        clocks.common(&fences)
    }

    /// The fence that a call between two moments took from here.
    #[must_use]
    pub fn fence(&self, point: u64, begin: Moment, end: Moment) -> Fence {
        let mut fences = Vec::new();
        for attachment in self.present(begin, end) {
            match &attachment.payload {
                Payload::Binary(fence) if point == 0 => fences.extend(fence),
                Payload::Point(at, fence) if point == 0 || *at >= point => fences.extend(fence),
                _ => {}
            }
        }
        if point != 0 && fences.is_empty() {
            let points = self.attachments.iter().filter_map(|a| match &a.payload {
                Payload::Point(at, fence) if *at >= point => Some(fence),
                _ => None,
            });
            fences.extend(points.flatten());
        }
        fences
    }

    /// Bounds of a timeline's value for somebody at event `at` who asked between two moments: the
    /// highest point whose signal is known, with all that were attached before it, and the highest
    /// that was attached at all.
    #[must_use]
    pub fn bounds(&self, clocks: &Clocks, at: Event, begin: Moment, end: Moment) -> (u64, u64) {
        let known = |fence: &Fence| {
            !fence.is_empty() && fence.iter().all(|e| clocks.before(*e, at) || *e == at)
        };
        let (mut low, mut high, mut chain) = (0, 0, true);
        for attachment in self.attachments.iter().filter(|a| a.begin <= end) {
            let Payload::Point(point, fence) = &attachment.payload else { continue };
            high = high.max(*point);
            chain &= known(fence) && attachment.end.is_some_and(|ended| ended <= begin);
            if chain {
                low = low.max(*point);
            }
        }
        (low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        clocks: Clocks,
        lines: Vec<u16>,
        syncobj: Syncobj,
    }

    impl World {
        fn new() -> (Self, [Event; 3]) {
            let mut clocks = Clocks::default();
            let lines: Vec<u16> = (0..4).map(|_| clocks.timeline()).collect();
            let events = [0, 1, 2].map(|i| clocks.tick(lines[i]));
            (Self { clocks, lines, syncobj: Syncobj::default() }, events)
        }

        fn attach(&mut self, point: u64, event: Event, begin: Moment, end: Option<Moment>) {
            let attaching = self.syncobj.attach(point, vec![event], begin);
            if let Some(end) = end {
                self.syncobj.attached(attaching, true, end);
            }
        }

        fn knows(&self, point: u64, begin: Moment, end: Moment, events: &[Event]) -> Vec<bool> {
            let learnt = self.syncobj.learnt(&self.clocks, point, begin, end);
            events.iter().map(|event| learnt.covers(*event)).collect()
        }
    }

    #[test]
    fn a_wait_knows_the_present_fence_only() {
        let (mut world, e) = World::new();
        world.attach(0, e[0], 1, Some(2));
        assert_eq!(world.knows(0, 3, 4, &e), [true, false, false]);
        world.attach(0, e[1], 5, Some(6));
        assert_eq!(world.knows(0, 7, 8, &e), [false, true, false]);
    }

    #[test]
    fn a_wait_beside_a_replacement_knows_what_both_know() {
        let (mut world, e) = World::new();
        world.attach(0, e[0], 1, Some(2));
        world.attach(0, e[1], 5, None);
        assert_eq!(world.knows(0, 6, 7, &e), [false, false, false]);
        assert_eq!(world.knows(0, 3, 4, &e), [true, false, false], "the call came later");
    }

    #[test]
    fn a_refused_call_attaches_nothing() {
        let (mut world, e) = World::new();
        world.attach(0, e[0], 1, Some(2));
        let attaching = world.syncobj.attach(0, vec![e[1]], 3);
        world.syncobj.attached(attaching, false, 4);
        assert_eq!(world.knows(0, 5, 6, &e), [true, false, false]);
    }

    #[test]
    fn a_point_comes_with_all_before_it() {
        let (mut world, e) = World::new();
        world.attach(1, e[0], 1, Some(2));
        world.attach(3, e[1], 3, Some(4));
        world.attach(5, e[2], 5, Some(6));
        assert_eq!(world.knows(1, 7, 8, &e), [true, false, false]);
        assert_eq!(world.knows(2, 7, 8, &e), [true, false, false], "any of 3 and 5 would do");
        assert_eq!(world.knows(3, 7, 8, &e), [true, true, false]);
        assert_eq!(world.knows(5, 7, 8, &e), [true, true, true]);
    }

    #[test]
    fn a_timeline_value_has_bounds() {
        let (mut world, e) = World::new();
        world.attach(1, e[0], 1, Some(2));
        world.attach(3, e[1], 3, Some(4));
        world.clocks.acquire(world.lines[3], &[e[0]]);
        let at = world.clocks.tick(world.lines[3]);
        assert_eq!(world.syncobj.bounds(&world.clocks, at, 5, 6), (1, 3));
    }
}
