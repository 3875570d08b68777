//! Pages that are not where the client's CPU finds them: in device memory, or exclusive to the
//! device. Owns the table of one address space, its runs, and the ranges registered with userfaultfd;
//! moves nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use fencepost_core::gpuva::Span;

use super::super::agent::layout::HELD;
use super::super::arena::PAGE;
use super::home::Home;

/// Size of a huge page in bytes.
pub(crate) const HUGE: u64 = 2 << 20;
/// Its order.
pub(crate) const HUGE_ORDER: u32 = 9;

/// Where a page is.
#[derive(Clone)]
pub(crate) enum Place {
    /// A frame of a device, whose memory is the owner's.
    Device {
        /// The device.
        home: Arc<Home>,
        /// Its frame.
        frame: u64,
        /// Whom the frame belongs to.
        owner: u64,
    },
    /// Exclusive to a device, in a slot.
    Held {
        /// The slot.
        slot: u64,
        /// While the driver makes use of it the CPU waits.
        locked: bool,
    },
}

impl Place {
    /// Address in the client's address space.
    pub(crate) fn window(&self) -> u64 {
        match self {
            Place::Device { home, frame, .. } => home.window(*frame),
            Place::Held { slot, .. } => HELD + slot * PAGE,
        }
    }

    fn follows(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Device { home: a, owner: x, .. }, Place::Device { home: b, owner: y, .. }) => {
                Arc::ptr_eq(a, b) && x == y && self.window() == other.window() + PAGE
            }
            (Place::Held { .. }, Place::Held { .. }) => self.window() == other.window() + PAGE,
            _ => false,
        }
    }
}

/// One page.
#[derive(Clone)]
pub(crate) struct Moved {
    pub(crate) place: Place,
    /// Protection of its mapping, `PROT_*`.
    pub(crate) protection: u64,
    /// It went as part of a huge page.
    pub(crate) huge: bool,
}

/// Neighbouring pages in neighbouring places.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) span: Span,
    /// Of the first page.
    pub(crate) place: Place,
    pub(crate) protection: u64,
    /// As [`Moved::huge`].
    pub(crate) huge: bool,
}

impl Run {
    /// Frames of the run, if it is in device memory.
    pub(crate) fn frames(&self) -> impl Iterator<Item = u64> + use<> {
        let pages = self.span.len() / PAGE;
        let first = match self.place {
            Place::Device { frame, .. } => Some(frame),
            Place::Held { .. } => None,
        };
        first.into_iter().flat_map(move |first| first..first + pages)
    }
}

/// The table.
#[derive(Default)]
pub(crate) struct Table {
    pages: BTreeMap<u64, Moved>,
    /// Addresses by device and frame.
    frames: BTreeMap<(u8, u64), u64>,
    /// Disjoint ranges that userfaultfd watches: start, end.
    watched: BTreeMap<u64, u64>,
}

impl Table {
    /// All pages that are away, by address.
    pub(crate) fn pages(&self) -> &BTreeMap<u64, Moved> {
        &self.pages
    }

    /// A page.
    pub(crate) fn get(&self, addr: u64) -> Option<&Moved> {
        self.pages.get(&addr)
    }

    /// An exclusive page stays locked or not.
    pub(crate) fn lock(&mut self, addr: u64, slot: u64, locked: bool) {
        if let Some(Moved { place: Place::Held { slot: at, locked: now }, .. }) =
            self.pages.get_mut(&addr)
            && *at == slot
        {
            *now = locked;
        }
    }

    /// Notes that a page is away.
    pub(crate) fn insert(&mut self, addr: u64, page: Moved) {
        self.remove(addr);
        if let Place::Device { home, frame, .. } = &page.place {
            self.frames.insert((home.number, *frame), addr);
        }
        self.pages.insert(addr, page);
    }

    /// Notes that a page is where the CPU finds it.
    pub(crate) fn remove(&mut self, addr: u64) {
        if let Some(Moved { place: Place::Device { home, frame, .. }, .. }) =
            self.pages.remove(&addr)
            && self.frames.get(&(home.number, frame)) == Some(&addr)
        {
            self.frames.remove(&(home.number, frame));
        }
    }

    /// Addresses of the pages in these frames of a device, with the frame.
    pub(crate) fn in_frames(&self, device: u8, first: u64, count: u64) -> Vec<(u64, u64)> {
        let found = self.frames.range((device, first)..(device, first.saturating_add(count)));
        found.map(|((_, frame), addr)| (*frame, *addr)).collect()
    }

    /// The pages of a range as runs.
    pub(crate) fn runs(&self, span: Span) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut last: Option<&Moved> = None;
        for (addr, page) in self.pages.range(span.start..span.end) {
            match (runs.last_mut(), last) {
                (Some(run), Some(before))
                    if run.span.end == *addr
                        && (run.protection, run.huge) == (page.protection, page.huge)
                        && page.place.follows(&before.place) =>
                {
                    run.span.end += PAGE;
                }
                _ => runs.push(Run {
                    span: Span::new(*addr, addr + PAGE),
                    place: page.place.clone(),
                    protection: page.protection,
                    huge: page.huge,
                }),
            }
            last = Some(page);
        }
        runs
    }

    /// Whether the huge page around an address is in device memory as a whole, as it went.
    pub(crate) fn is_whole(&self, addr: u64) -> bool {
        let start = addr / HUGE * HUGE;
        match self.runs(Span::new(start, start + HUGE)).as_slice() {
            [run] => run.huge && run.span.len() == HUGE && run.place.window().is_multiple_of(HUGE),
            _ => false,
        }
    }

    /// Forgets pages of a range.
    pub(crate) fn forget(&mut self, span: Span) {
        let pages: Vec<u64> = self.pages.range(span.start..span.end).map(|(at, _)| *at).collect();
        for addr in pages {
            self.remove(addr);
        }
    }

    /// Whether all of a range is watched.
    pub(crate) fn is_watched(&self, span: Span) -> bool {
        let found = self.watched.range(..=span.start).next_back();
        found.is_some_and(|(_, end)| span.end <= *end)
    }

    /// A range is watched from now on.
    pub(crate) fn watch(&mut self, span: Span) {
        let mut all = span;
        let touching: Vec<u64> = self
            .watched
            .range(..=span.end)
            .filter(|(_, end)| **end >= span.start)
            .map(|(start, _)| *start)
            .collect();
        for start in touching {
            let end = self.watched.remove(&start).unwrap_or(start);
            all = Span::new(all.start.min(start), all.end.max(end));
        }
        self.watched.insert(all.start, all.end);
    }

    /// A range is watched no more; gives the parts that were.
    pub(crate) fn unwatch(&mut self, span: Span) -> Vec<Span> {
        let hit: Vec<(u64, u64)> = self
            .watched
            .range(..span.end)
            .filter(|(_, end)| **end > span.start)
            .map(|(start, end)| (*start, *end))
            .collect();
        let mut parts = Vec::new();
        for (start, end) in hit {
            self.watched.remove(&start);
            if start < span.start {
                self.watched.insert(start, span.start);
            }
            if span.end < end {
                self.watched.insert(span.end, end);
            }
            parts.push(Span::new(start.max(span.start), end.min(span.end)));
        }
        parts
    }

    /// The watched range around an address in which no page is away any more.
    pub(crate) fn idle(&self, addr: u64) -> Option<Span> {
        let (start, end) = self.watched.range(..=addr).next_back()?;
        let idle = addr < *end && self.pages.range(*start..*end).next().is_none();
        idle.then(|| Span::new(*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pages: &[(u64, u64)]) -> Table {
        let home = Arc::new(Home::new(0, Arc::default(), 16));
        let mut table = Table::default();
        for (addr, frame) in pages {
            let place = Place::Device { home: Arc::clone(&home), frame: *frame, owner: 1 };
            table.insert(addr * PAGE, Moved { place, protection: 3, huge: false });
        }
        table
    }

    #[test]
    fn neighbours_in_neighbouring_frames_are_one_run() {
        let table = table(&[(1, 4), (2, 5), (3, 7), (5, 8)]);
        let runs: Vec<(u64, u64)> = table
            .runs(Span::new(0, 100 * PAGE))
            .iter()
            .map(|run| (run.span.start / PAGE, run.span.len() / PAGE))
            .collect();
        assert_eq!(runs, [(1, 2), (3, 1), (5, 1)]);
        assert_eq!(table.runs(Span::new(2 * PAGE, 3 * PAGE)).len(), 1);
    }

    #[test]
    fn watched_ranges_join_and_split() {
        let mut table = table(&[(12, 0)]);
        let span = |from: u64, to: u64| Span::new(from * PAGE, to * PAGE);
        table.watch(span(1, 3));
        table.watch(span(3, 5));
        assert!(table.is_watched(span(1, 5)));
        assert_eq!(table.unwatch(span(2, 4)), [span(2, 4)]);
        assert!(!table.is_watched(span(1, 3)) && table.is_watched(span(4, 5)));
        assert_eq!(table.idle(PAGE), Some(span(1, 2)));
        assert_eq!(table.idle(3 * PAGE), None);
        table.watch(span(10, 16));
        assert_eq!(table.idle(11 * PAGE), None, "a page is away");
    }
}
