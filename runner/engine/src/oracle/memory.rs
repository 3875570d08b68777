//! What every byte of every object may hold.
//!
//! An object is cut into cells; all bytes of a cell share one history of writes. A read may give
//! any write of the history that was not certainly overwritten before it: `w` is out when a certain
//! store `v` exists with `w` before `v` before the read, or when the read is before `w`. Histories
//! are pruned by the *horizon*, what every actor and every unfinished job knows: a write
//! overwritten within the horizon can be seen by nobody any more.
//!
//! Owns recording and checking; atomics, whose value depends on the others, are in `atomics`; which
//! accesses happen when is the caller's knowledge.

use super::atomics::{self, Rmw, Values};
use super::clock::{Clock, Clocks, Event};
use super::history::{Dated, prune, visible};
use super::ranges::RangeMap;
use super::value::{Object, Source};

/// Who wrote: an index into the interpreter's list of steps.
pub type Origin = u32;

/// A write in a cell's history.
#[derive(Clone, Debug)]
pub struct Write {
    /// When.
    pub at: Event,
    /// By which step.
    pub origin: Origin,
    /// It happened for certain; else it may have (its target was ambiguous, its job was cancelled).
    pub certain: bool,
    /// Who sees it with acquire ordering knows what its writer knew.
    pub release: bool,
    /// What.
    pub what: What,
}

/// Kinds of write.
#[derive(Clone, Debug)]
pub enum What {
    /// A plain store.
    Store(Source),
    /// An atomic read-modify-write.
    Rmw(Rmw),
}

impl Dated for Write {
    fn at(&self) -> Event {
        self.at
    }

    /// Atomics overwrite nothing, as their value contains what was there before.
    fn overwrites(&self) -> bool {
        self.certain && matches!(self.what, What::Store(_))
    }
}

/// A history of writes, in the order of recording; writes of one timeline are in their order.
pub(super) type Cell = Vec<Write>;

/// A value that the oracle does not allow.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// Where.
    pub object: Object,
    /// Byte offset of the wrong bytes: the first bad unit of at most 8 bytes.
    pub offset: u64,
    /// What was read there.
    pub seen: Vec<u8>,
    /// How many bytes of the read were wrong.
    pub wrong: u64,
    /// What was allowed, and who wrote it.
    pub allowed: Vec<Candidate>,
    /// The writer of the value that was seen although it is not allowed (a stale read), if one is
    /// known.
    pub stale: Option<Origin>,
}

/// A value that was allowed.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The value, as far as it is one number.
    pub value: Option<u64>,
    /// Who wrote it.
    pub origin: Origin,
    /// It races with the read: it may be seen or not.
    pub racing: bool,
}

/// How deep a copy of a copy is followed before anything is allowed.
const MAX_COPY_DEPTH: u32 = 8;

/// All objects.
#[derive(Debug, Default)]
pub struct Memory {
    objects: Vec<RangeMap<Cell>>,
    sizes: Vec<u64>,
}

/// How a read looks at memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// One access: all bytes of one write.
    Word,
    /// Many accesses, whose bytes may come from different racing writes.
    Bulk,
}

impl Memory {
    /// A new object with its first content.
    pub fn create(&mut self, size: u64, content: Source, at: Event, origin: Origin) -> Object {
        let mut cells = RangeMap::default();
        let what = What::Store(content);
        cells.insert(0, size, vec![Write { at, origin, certain: true, release: false, what }]);
        self.objects.push(cells);
        self.sizes.push(size);
        self.objects.len() - 1
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self, object: Object) -> u64 {
        self.sizes[object]
    }

    /// Records a write to [`start`, `end`).
    pub fn write(
        &mut self,
        clocks: &Clocks,
        horizon: &Clock,
        object: Object,
        range: (u64, u64),
        write: &Write,
    ) {
        let (start, end) = range;
        if matches!(write.what, What::Rmw(_)) {
            self.make_word(clocks, object, start, end);
        } else {
            self.break_word(clocks, object, start);
            self.break_word(clocks, object, end);
        }
        let mut single = true;
        for (at, _, cell) in self.objects[object].within_mut(start, end) {
            cell.push(write.clone());
            prune(cell, clocks, horizon);
            atomics::fold(cell, at, clocks, horizon);
            single &= cell.len() == 1;
        }
        if single {
            self.objects[object].insert(start, end, vec![write.clone()]);
        }
    }

    /// Takes back the writes of some events of a timeline: their target turned out to be another.
    pub fn forget(&mut self, object: Object, range: (u64, u64), is_gone: impl Fn(Event) -> bool) {
        for (.., cell) in self.objects[object].within_mut(range.0, range.1) {
            if cell.len() > 1 {
                cell.retain(|write| !is_gone(write.at));
            }
        }
    }

    /// A write that may have been made was made for certain, or not at all.
    pub fn confirm(&mut self, object: Object, range: (u64, u64), at: Event, done: bool) {
        if !done {
            return self.forget(object, range, |event| event == at);
        }
        for (.., cell) in self.objects[object].within_mut(range.0, range.1) {
            cell.iter_mut().filter(|write| write.at == at).for_each(|write| write.certain = true);
        }
    }

    /// Makes one cell of a word that an atomic is about to hit.
    fn make_word(&mut self, clocks: &Clocks, object: Object, start: u64, end: u64) {
        self.break_word(clocks, object, start);
        self.break_word(clocks, object, end);
        let cells: Vec<_> = self.objects[object]
            .within_mut(start, end)
            .map(|(a, b, c)| (a, b, c.clone()))
            .collect();
        if cells.len() <= 1 {
            return;
        }
        // Several histories in one word: known constants make a constant, the rest is not modelled.
        let mut bytes = vec![0; (end - start) as usize];
        let constant = cells.iter().all(|(a, b, cell)| match &cell[..] {
            [Write { what: What::Store(source), .. }] => {
                source.fill(*a, &mut bytes[(a - start) as usize..(b - start) as usize])
            }
            _ => false,
        });
        let source = if constant { Source::bytes(&bytes, start) } else { Source::Unknown };
        let last = latest(clocks, cells.iter().flat_map(|(.., cell)| cell));
        self.objects[object].insert(
            start,
            end,
            vec![Write { what: What::Store(source), certain: true, ..last }],
        );
    }

    /// Before a word with atomics is cut at `at`: replaces its history by the value, if it is one.
    fn break_word(&mut self, clocks: &Clocks, object: Object, at: u64) {
        let Some((start, end, cell)) = self.objects[object].get(at) else { return };
        if start == at || !cell.iter().any(|write| matches!(write.what, What::Rmw(_))) {
            return;
        }
        let width = end - start;
        let values = atomics::values(self, clocks, cell, start, width, None, 0);
        let source = match values.single() {
            Some(value) => Source::bytes(&value.to_le_bytes()[..width as usize], start),
            None => Source::Unknown,
        };
        let last = latest(clocks, cell.iter());
        let store = Write { what: What::Store(source), certain: true, ..last };
        self.objects[object].insert(start, end, vec![store]);
    }

    /// Checks what a read at event `at` gave.
    ///
    /// # Errors
    /// The first place where the oracle does not allow what was seen.
    pub fn check(
        &self,
        clocks: &Clocks,
        object: Object,
        offset: u64,
        seen: &[u8],
        at: Event,
        grain: Grain,
    ) -> Result<(), Box<Mismatch>> {
        let look = Look { memory: self, clocks, at, grain, depth: 0 };
        let wrong = look.wrong(object, offset, seen);
        let Some((first, _)) = wrong.first().copied() else { return Ok(()) };
        let unit = 8 - (first & 7);
        let from = (first - offset) as usize;
        let bytes = seen[from..seen.len().min(from + unit as usize)].to_vec();
        let (allowed, stale) = self.explain(clocks, object, first, &bytes, at);
        let wrong = wrong.iter().map(|(a, b)| b - a).sum();
        Err(Box::new(Mismatch { object, offset: first, seen: bytes, wrong, allowed, stale }))
    }

    /// What was allowed at a place, and whose overwritten value was seen there.
    fn explain(
        &self,
        clocks: &Clocks,
        object: Object,
        offset: u64,
        seen: &[u8],
        at: Event,
    ) -> (Vec<Candidate>, Option<Origin>) {
        let Some((_, end, cell)) = self.objects[object].get(offset) else {
            return (Vec::new(), None);
        };
        let width = (seen.len() as u64).min(end - offset);
        let value = |write: &Write| match &write.what {
            What::Store(source) => source.word(offset, width),
            What::Rmw(_) => None,
        };
        let words = self.words(clocks, object, offset, width, at).listed();
        let visible = visible(clocks, cell, Some(at));
        let last = visible.last().map_or(0, |write| write.origin);
        let candidates = match words {
            Values::Some(values) if visible.iter().any(|w| matches!(w.what, What::Rmw(_))) => {
                let candidate =
                    |value| Candidate { value: Some(value), origin: last, racing: false };
                values.into_iter().map(candidate).collect()
            }
            _ => visible
                .iter()
                .map(|write| Candidate {
                    value: value(write),
                    origin: write.origin,
                    racing: !clocks.before(write.at, at),
                })
                .collect(),
        };
        let mut bytes = [0; 8];
        bytes[..width as usize].copy_from_slice(&seen[..width as usize]);
        let seen = u64::from_le_bytes(bytes);
        let stale = cell.iter().rev().find(|write| value(write) == Some(seen));
        (candidates, stale.map(|write| write.origin))
    }

    /// The numbers that a word may hold for a read at event `at`.
    #[must_use]
    pub fn words(
        &self,
        clocks: &Clocks,
        object: Object,
        offset: u64,
        width: u64,
        at: Event,
    ) -> Values {
        self.words_deep(clocks, object, offset, width, Some(at), 0)
    }

    pub(super) fn words_deep(
        &self,
        clocks: &Clocks,
        object: Object,
        offset: u64,
        width: u64,
        at: Option<Event>,
        depth: u32,
    ) -> Values {
        if depth > MAX_COPY_DEPTH || offset.saturating_add(width) > self.size(object) {
            return Values::Any;
        }
        let mut values = Values::single_value(0);
        for (a, b, cell) in self.objects[object].overlapping(offset, offset + width) {
            let (from, to) = (a.max(offset), b.min(offset + width));
            let has_rmw = cell.iter().any(|write| matches!(write.what, What::Rmw(_)));
            let part = if has_rmw {
                let whole = atomics::values(self, clocks, cell, a, b - a, at, depth);
                whole.map(|v| cut_bits(v >> ((from - a) * 8), to - from))
            } else {
                self.stores(clocks, cell, from, to - from, at, depth)
            };
            values = values.combine(part, |low, high| low | high << ((from - offset) * 8));
        }
        values
    }

    /// The values of the plain stores that a read may give.
    fn stores(
        &self,
        clocks: &Clocks,
        cell: &Cell,
        offset: u64,
        width: u64,
        at: Option<Event>,
        depth: u32,
    ) -> Values {
        let mut values = Values::none();
        for write in visible(clocks, cell, at) {
            if let What::Store(source) = &write.what {
                values = values.union(self.source_values(clocks, source, offset, width, depth));
            }
        }
        values
    }

    /// The values that a source may have at a place.
    pub(super) fn source_values(
        &self,
        clocks: &Clocks,
        source: &Source,
        offset: u64,
        width: u64,
        depth: u32,
    ) -> Values {
        match source {
            Source::Copy { object, shift, at } => {
                let from = offset.wrapping_add(*shift);
                self.words_deep(clocks, *object, from, width, Some(*at), depth + 1)
            }
            Source::OneOf(sources) => sources.iter().fold(Values::none(), |values, source| {
                values.union(self.source_values(clocks, source, offset, width, depth))
            }),
            source => source.word(offset, width).map_or(Values::Any, Values::single_value),
        }
    }

    /// What somebody knows who saw a word for which `holds` is true, with acquire ordering: what all
    /// writers know whose release can have made it so.
    #[must_use]
    pub fn acquired(
        &self,
        clocks: &Clocks,
        object: Object,
        offset: u64,
        width: u64,
        at: Event,
        holds: &dyn Fn(u64) -> bool,
    ) -> Clock {
        let Some((start, end, cell)) = self.objects[object].get(offset) else {
            return Clock::default();
        };
        let visible = visible(clocks, cell, Some(at));
        if visible.iter().any(|write| matches!(write.what, What::Rmw(_))) {
            return self.acquired_atomics(clocks, cell, (start, end), at, &visible, holds);
        }
        let makes = |write: &&&Write| match &write.what {
            What::Store(source) => source.word(offset, width).is_none_or(holds),
            What::Rmw(_) => false,
        };
        let makers: Vec<&&Write> = visible.iter().filter(makes).collect();
        if makers.iter().all(|write| write.release) {
            let events: Vec<Event> = makers.iter().map(|write| write.at).collect();
            return clocks.common(&events);
        }
        Clock::default()
    }

    /// As [`Self::acquired`] for a word with atomics: those without which it could not have been.
    fn acquired_atomics(
        &self,
        clocks: &Clocks,
        cell: &Cell,
        (start, end): (u64, u64),
        at: Event,
        visible: &[&Write],
        holds: &dyn Fn(u64) -> bool,
    ) -> Clock {
        const MAX_RACING: usize = 64;
        let mut learnt = Clock::default();
        let racing: Vec<&&Write> =
            visible.iter().filter(|w| w.release && !clocks.before(w.at, at)).collect();
        if racing.len() > MAX_RACING {
            return learnt;
        }
        for write in racing {
            let mut without = cell.clone();
            without.retain(|w| {
                w.at != write.at
                    && !(w.at.timeline == write.at.timeline && w.at.index > write.at.index)
            });
            let values =
                atomics::values(self, clocks, &without, start, end - start, Some(at), 0).listed();
            if let Values::Some(values) = values
                && !values.into_iter().any(holds)
            {
                learnt.join(&clocks.at(write.at));
            }
        }
        learnt
    }

    /// Replaces the copies that an event made by what they took, now that no write can race with
    /// them any more, so that their sources' histories may go.
    pub fn settle_copies(&mut self, clocks: &Clocks, object: Object, range: (u64, u64), at: Event) {
        let mut settled = Vec::new();
        for (a, b, cell) in self.objects[object].within(range.0, range.1) {
            for write in cell {
                if let What::Store(Source::Copy { object: from, shift, at: when }) = &write.what
                    && write.at == at
                {
                    settled.extend(self.contents(clocks, *from, (a, b), *shift, *when));
                }
            }
        }
        for (a, b, source) in settled {
            for (.., cell) in self.objects[object].within_mut(a, b) {
                for write in cell.iter_mut().filter(|write| write.at == at) {
                    write.what = What::Store(source.clone());
                }
            }
        }
    }

    /// What a copy to [`start`, `end`) took, piece by piece of the target.
    fn contents(
        &self,
        clocks: &Clocks,
        from: Object,
        target: (u64, u64),
        shift: u64,
        at: Event,
    ) -> Vec<(u64, u64, Source)> {
        let (start, end) = (target.0.wrapping_add(shift), target.1.wrapping_add(shift));
        let mut pieces = Vec::new();
        for (a, b, cell) in self.objects[from].overlapping(start, end) {
            let (low, high) = (a.max(start), b.min(end));
            let source = self.piece(clocks, cell, (a, b), at).shifted(shift);
            pieces.push((low.wrapping_sub(shift), high.wrapping_sub(shift), source));
        }
        pieces
    }

    /// The content of a cell as one source.
    fn piece(&self, clocks: &Clocks, cell: &Cell, range: (u64, u64), at: Event) -> Source {
        const MAX_CHOICES: usize = 64;
        let visible = visible(clocks, cell, Some(at));
        if visible.iter().any(|write| matches!(write.what, What::Rmw(_))) {
            let width = range.1 - range.0;
            return match atomics::values(self, clocks, cell, range.0, width, Some(at), 0).listed() {
                Values::Some(values) if values.len() <= MAX_CHOICES => {
                    let word = |v: u64| Source::bytes(&v.to_le_bytes()[..width as usize], range.0);
                    Source::OneOf(values.into_iter().map(word).collect())
                }
                _ => Source::Unknown,
            };
        }
        let mut sources: Vec<Source> = visible
            .iter()
            .filter_map(|write| match &write.what {
                What::Store(source) => Some(source.clone()),
                What::Rmw(_) => None,
            })
            .collect();
        match sources.len() {
            1 => sources.remove(0),
            2..=MAX_CHOICES => Source::OneOf(sources.into()),
            _ => Source::Unknown,
        }
    }

    /// Number of cells of an object, and of writes in them: for tests of pruning.
    #[must_use]
    pub fn weight(&self, object: Object) -> (usize, usize) {
        let cells = &self.objects[object];
        (cells.len(), cells.iter().map(|(.., cell)| cell.len()).sum())
    }
}

/// The low `width` bytes.
fn cut_bits(value: u64, width: u64) -> u64 {
    if width >= 8 { value } else { value & ((1 << (width * 8)) - 1) }
}

/// The write that no other comes after, as far as that is known.
fn latest<'a>(clocks: &Clocks, writes: impl Iterator<Item = &'a Write>) -> Write {
    let mut latest: Option<&Write> = None;
    for write in writes {
        if latest.is_none_or(|so_far| !clocks.before(write.at, so_far.at)) {
            latest = Some(write);
        }
    }
    latest.expect("a cell has at least its first content").clone()
}

/// One read, while it is checked.
struct Look<'a> {
    memory: &'a Memory,
    clocks: &'a Clocks,
    at: Event,
    grain: Grain,
    depth: u32,
}

impl Look<'_> {
    /// The ranges of `seen` that are not allowed, units of 8 bytes or parts of them.
    fn wrong(&self, object: Object, offset: u64, seen: &[u8]) -> Vec<(u64, u64)> {
        let mut wrong = Vec::new();
        if self.depth > MAX_COPY_DEPTH {
            return wrong;
        }
        for (a, b, cell) in self.memory.objects[object].within(offset, offset + seen.len() as u64) {
            let bytes = &seen[(a - offset) as usize..(b - offset) as usize];
            self.wrong_in_cell(object, cell, a, bytes, &mut wrong);
        }
        wrong
    }

    fn wrong_in_cell(
        &self,
        object: Object,
        cell: &Cell,
        start: u64,
        seen: &[u8],
        wrong: &mut Vec<(u64, u64)>,
    ) {
        let end = start + seen.len() as u64;
        let visible = visible(self.clocks, cell, Some(self.at));
        if visible.iter().any(|write| matches!(write.what, What::Rmw(_))) {
            let width = seen.len() as u64;
            let allowed = self.memory.words(self.clocks, object, start, width, self.at);
            if !allowed.contains(number(seen)) {
                wrong.push((start, end));
            }
            return;
        }
        let sources: Vec<&Source> = visible
            .iter()
            .filter_map(|write| match &write.what {
                What::Store(source) => Some(source),
                What::Rmw(_) => None,
            })
            .collect();
        if sources.iter().any(|source| self.matches(source, start, seen)) {
            return;
        }
        self.wrong_units(&sources, start, seen, wrong);
    }

    /// No source matches as a whole: looks at each unit by itself.
    fn wrong_units(
        &self,
        sources: &[&Source],
        start: u64,
        seen: &[u8],
        wrong: &mut Vec<(u64, u64)>,
    ) {
        let end = start + seen.len() as u64;
        let mut at = start;
        while at < end {
            let next = ((at & !7) + 8).min(end);
            let unit = &seen[(at - start) as usize..(next - start) as usize];
            let whole = sources.iter().any(|source| self.matches(source, at, unit));
            let torn = || {
                let place = |i: usize| at + i as u64;
                let byte = |i: usize| {
                    sources.iter().any(|source| self.matches(source, place(i), &unit[i..=i]))
                };
                self.grain == Grain::Bulk && sources.len() > 1 && (0..unit.len()).all(byte)
            };
            if !whole && !torn() {
                wrong.push((at, next));
            }
            at = next;
        }
    }

    /// Whether a source can have given these bytes.
    fn matches(&self, source: &Source, offset: u64, seen: &[u8]) -> bool {
        match source {
            Source::Unknown => true,
            Source::OneOf(sources) => sources.iter().any(|one| self.matches(one, offset, seen)),
            Source::Copy { object, shift, at } => {
                let deeper = Look { at: *at, grain: Grain::Bulk, depth: self.depth + 1, ..*self };
                deeper.wrong(*object, offset.wrapping_add(*shift), seen).is_empty()
            }
            constant => {
                // Compared piece by piece, so that a large region needs no copy of itself.
                let mut expected = [0; 4096];
                seen.chunks(expected.len()).enumerate().all(|(i, chunk)| {
                    let expected = &mut expected[..chunk.len()];
                    let place = offset + i as u64 * 4096;
                    constant.fill(place, expected) && expected == chunk
                })
            }
        }
    }
}

/// Up to 8 bytes as a number.
#[must_use]
pub fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let count = bytes.len().min(8);
    word[..count].copy_from_slice(&bytes[..count]);
    u64::from_le_bytes(word)
}
