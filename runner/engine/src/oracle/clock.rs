//! Happens-before: which event must come before which.
//!
//! A *timeline* is something that does one thing after the other: an actor, a queue. Its events
//! are numbered from 1. A *segment* is a stretch of a timeline during which it learns nothing new
//! from others; it carries a vector clock: for each timeline the last event that is known to have
//! happened. An event is a timeline, its number there, and its segment. Event `a` happens before
//! `b` when `a` is the earlier one of one timeline, or when the clock of `b`'s segment covers `a`.
//!
//! Segments are nodes of a graph, since a GPU job's knowledge may grow after later segments were
//! derived from it (a semaphore that it waits for is released by work submitted later):
//! [`Clocks::learn`] hands new knowledge on to all successors.

/// A timeline's number.
pub type Timeline = u16;

/// A stretch of a timeline with one state of knowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment(u32);

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub timeline: Timeline,
    /// Its number on the timeline, from 1.
    pub index: u32,
    /// The segment that holds it.
    pub segment: Segment,
}

/// For each timeline the last event known to have happened; missing entries are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock(Vec<u32>);

impl Clock {
    /// The last event of `timeline` that is known.
    #[must_use]
    pub fn get(&self, timeline: Timeline) -> u32 {
        self.0.get(usize::from(timeline)).copied().unwrap_or(0)
    }

    /// Learns of an event and all before it on its timeline. Returns whether that was new.
    pub fn raise(&mut self, timeline: Timeline, index: u32) -> bool {
        let slot = usize::from(timeline);
        if self.0.len() <= slot {
            self.0.resize(slot + 1, 0);
        }
        let new = index > self.0[slot];
        self.0[slot] = self.0[slot].max(index);
        new
    }

    /// Learns all that `other` knows. Returns whether anything was new.
    pub fn join(&mut self, other: &Self) -> bool {
        let mut new = false;
        for (timeline, index) in other.0.iter().enumerate() {
            if *index > 0 {
                new |= self.raise(timeline as Timeline, *index);
            }
        }
        new
    }

    /// Keeps only what `other` knows as well.
    pub fn meet(&mut self, other: &Self) {
        self.0.truncate(other.0.len());
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).min(*theirs);
        }
    }

    /// Whether the event is known here.
    #[must_use]
    pub fn covers(&self, event: Event) -> bool {
        self.get(event.timeline) >= event.index
    }
}

#[derive(Debug)]
struct Node {
    clock: Clock,
    /// Segments that took over this one's knowledge, up to the given event of its timeline.
    successors: Vec<(Segment, u32)>,
}

#[derive(Debug)]
struct Line {
    /// Number of the last event.
    last: u32,
    /// The segment that new events go to.
    current: Segment,
}

/// All timelines and segments.
#[derive(Debug, Default)]
pub struct Clocks {
    lines: Vec<Line>,
    nodes: Vec<Node>,
}

impl Clocks {
    /// A new timeline, which knows nothing.
    pub fn timeline(&mut self) -> Timeline {
        let timeline = self.lines.len() as Timeline;
        let current = self.node(Clock::default());
        self.lines.push(Line { last: 0, current });
        timeline
    }

    fn node(&mut self, clock: Clock) -> Segment {
        self.nodes.push(Node { clock, successors: Vec::new() });
        Segment(self.nodes.len() as u32 - 1)
    }

    /// The next event of a timeline.
    pub fn tick(&mut self, timeline: Timeline) -> Event {
        let line = &mut self.lines[usize::from(timeline)];
        line.last += 1;
        Event { timeline, index: line.last, segment: line.current }
    }

    /// The last event of a timeline so far.
    #[must_use]
    pub fn now(&self, timeline: Timeline) -> Event {
        let line = &self.lines[usize::from(timeline)];
        Event { timeline, index: line.last, segment: line.current }
    }

    /// What is known at an event, itself included.
    #[must_use]
    pub fn at(&self, event: Event) -> Clock {
        let mut clock = self.nodes[event.segment.0 as usize].clock.clone();
        clock.raise(event.timeline, event.index);
        clock
    }

    /// Starts a new segment of `timeline` that knows, besides its own past, what each of `from`
    /// knew. Later knowledge of those segments is handed on.
    pub fn acquire(&mut self, timeline: Timeline, from: &[Event]) {
        let past = self.now(timeline);
        if from.iter().all(|event| self.covers(past, *event)) {
            return;
        }
        let mut clock = self.at(past);
        for event in from {
            clock.join(&self.at(*event));
        }
        let segment = self.node(clock);
        for event in from.iter().chain([&past]) {
            self.nodes[event.segment.0 as usize].successors.push((segment, event.index));
        }
        self.lines[usize::from(timeline)].current = segment;
    }

    /// Starts a new segment that knows of others only what is given: for knowledge that is
    /// certain only in part (one of several fences was waited for).
    pub fn acquire_clock(&mut self, timeline: Timeline, learnt: &Clock) {
        let past = self.now(timeline);
        let mut clock = self.at(past);
        if !clock.join(learnt) {
            return;
        }
        let segment = self.node(clock);
        self.nodes[past.segment.0 as usize].successors.push((segment, past.index));
        self.lines[usize::from(timeline)].current = segment;
    }

    /// Whether everything that `event` knew is known at `past`.
    fn covers(&self, past: Event, event: Event) -> bool {
        // Knowledge may still flow into the event's segment, so equal clocks are not enough unless
        // both are one segment.
        past.segment == event.segment && past.index >= event.index
    }

    /// Starts a new segment with the knowledge so far, for something of which more may be learnt.
    pub fn fork(&mut self, timeline: Timeline) -> Segment {
        let past = self.now(timeline);
        let segment = self.node(self.at(past));
        self.nodes[past.segment.0 as usize].successors.push((segment, past.index));
        self.lines[usize::from(timeline)].current = segment;
        segment
    }

    /// Adds knowledge to a segment afterwards, and to all that took over from it.
    pub fn learn(&mut self, segment: Segment, learnt: &Clock) {
        let mut work = vec![(segment, learnt.clone())];
        while let Some((segment, learnt)) = work.pop() {
            let node = &mut self.nodes[segment.0 as usize];
            if node.clock.join(&learnt) {
                work.extend(node.successors.iter().map(|(next, _)| (*next, learnt.clone())));
            }
        }
    }

    /// Adds knowledge to what comes after an event that a new segment was started behind.
    pub fn learn_after(&mut self, event: Event, learnt: &Clock) {
        let node = &self.nodes[event.segment.0 as usize];
        let behind: Vec<Segment> = node
            .successors
            .iter()
            .filter(|(_, upto)| *upto >= event.index)
            .map(|(segment, _)| *segment)
            .collect();
        behind.into_iter().for_each(|segment| self.learn(segment, learnt));
    }

    /// What a segment knows.
    #[must_use]
    pub fn of(&self, segment: Segment) -> &Clock {
        &self.nodes[segment.0 as usize].clock
    }

    /// Whether `a` must have happened before `b`.
    #[must_use]
    pub fn before(&self, a: Event, b: Event) -> bool {
        if a.timeline == b.timeline {
            return a.index < b.index;
        }
        self.nodes[b.segment.0 as usize].clock.covers(a)
    }

    /// What all of the given events know in common.
    #[must_use]
    pub fn common(&self, events: &[Event]) -> Clock {
        let mut events = events.iter();
        let Some(first) = events.next() else { return Clock::default() };
        let mut clock = self.at(*first);
        events.for_each(|event| clock.meet(&self.at(*event)));
        clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_events_are_in_order_and_others_race() {
        let mut clocks = Clocks::default();
        let (a, b) = (clocks.timeline(), clocks.timeline());
        let (a1, a2, b1) = (clocks.tick(a), clocks.tick(a), clocks.tick(b));
        assert!(clocks.before(a1, a2) && !clocks.before(a2, a1) && !clocks.before(a1, a1));
        assert!(!clocks.before(a1, b1) && !clocks.before(b1, a1));
    }

    #[test]
    fn acquiring_orders_what_came_before_only() {
        let mut clocks = Clocks::default();
        let (a, b, c) = (clocks.timeline(), clocks.timeline(), clocks.timeline());
        let a1 = clocks.tick(a);
        let b1 = clocks.tick(b);
        clocks.acquire(b, &[a1]);
        let (a2, b2) = (clocks.tick(a), clocks.tick(b));
        assert!(clocks.before(a1, b2) && !clocks.before(a1, b1) && !clocks.before(a2, b2));
        clocks.acquire(c, &[b2]);
        let c1 = clocks.tick(c);
        assert!(clocks.before(a1, c1) && clocks.before(b1, c1), "happens-before is transitive");
    }

    #[test]
    fn later_knowledge_reaches_successors() {
        let mut clocks = Clocks::default();
        let (job, next, releaser) = (clocks.timeline(), clocks.timeline(), clocks.timeline());
        let job1 = clocks.tick(job);
        clocks.acquire(next, &[job1]);
        let next1 = clocks.tick(next);
        let release = clocks.tick(releaser);
        assert!(!clocks.before(release, next1));
        clocks.learn(job1.segment, &clocks.at(release));
        assert!(clocks.before(release, next1));
    }

    #[test]
    fn the_common_part_is_the_minimum() {
        let mut clocks = Clocks::default();
        let (a, b, c) = (clocks.timeline(), clocks.timeline(), clocks.timeline());
        let a1 = clocks.tick(a);
        clocks.acquire(b, &[a1]);
        let (b1, c1) = (clocks.tick(b), clocks.tick(c));
        assert!(!clocks.common(&[b1, c1]).covers(a1));
        let a2 = clocks.tick(a);
        assert!(clocks.common(&[b1, a2]).covers(a1) && !clocks.common(&[b1, a2]).covers(a2));
    }
}
