//! What a word may hold that atomics hit.
//!
//! A value is allowed if some order of the word's writes gives it: an order that keeps
//! happens-before, contains every write before the read and none after it. So an update that is
//! lost, doubled or torn gives a value that no order explains. Two ways to find the set:
//!
//! - one store, and after it only atomics of one kind that commutes (add, and, or, xor, min, max):
//!   each timeline contributes a prefix of its atomics, in any combination;
//! - else every order is tried, up to a bound, beyond which any value is allowed.

use super::clock::{Clock, Clocks, Event};
use super::history::visible;
use super::memory::{Cell, Memory, What, Write};
use super::value::Source;
use fencepost_fixtures::device::{AtomicOp, Width};
use std::collections::{BTreeMap, BTreeSet};

/// An atomic read-modify-write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rmw {
    /// Operation.
    pub op: AtomicOp,
    /// Operand.
    pub operand: u64,
    /// Width of the word.
    pub width: Width,
    /// How often it is done in a row by this event.
    pub times: u32,
    /// Who it is atomic against.
    pub reach: Reach,
}

/// Against whom an atomic is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Done by the CPU.
    Cpu,
    /// Done by the GPU, ordered against GPU accesses only.
    Device,
    /// Done by the GPU, ordered against all.
    System,
}

/// A set of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// Not modelled: every number.
    Any,
    /// These.
    Some(BTreeSet<u64>),
    /// `first` plus 0 to `count` times `step`: a counter that many add the same number to.
    Steps {
        /// The least.
        first: u64,
        /// The distance, not 0.
        step: u64,
        /// How many beyond the first.
        count: u64,
    },
}

/// Most values that are told apart.
const MAX_VALUES: usize = 1 << 17;
/// Most steps taken when every order is tried.
const MAX_ORDERS: usize = 1 << 15;

impl Values {
    /// No number.
    #[must_use]
    pub fn none() -> Self {
        Self::Some(BTreeSet::new())
    }

    /// One number.
    #[must_use]
    pub fn single_value(value: u64) -> Self {
        Self::Some(BTreeSet::from([value]))
    }

    /// `first` and so many steps on from there, if the last one does not wrap.
    fn steps(first: u64, step: u64, count: u64, width: Width) -> Option<Self> {
        let last = step.checked_mul(count).and_then(|way| first.checked_add(way))?;
        if step == 0 || count == 0 {
            return Some(Self::single_value(first));
        }
        (width.mask(last) == last).then_some(Self::Steps { first, step, count })
    }

    /// As a list of numbers, unless there are too many.
    pub(super) fn listed(self) -> Self {
        match self {
            Self::Steps { first, step, count } if count < MAX_VALUES as u64 => {
                Self::Some((0..=count).map(|i| first + i * step).collect())
            }
            Self::Steps { .. } => Self::Any,
            other => other,
        }
    }

    /// The number, if there is exactly one.
    #[must_use]
    pub fn single(&self) -> Option<u64> {
        match self {
            Self::Some(values) if values.len() == 1 => values.first().copied(),
            _ => None,
        }
    }

    /// Whether the number is in the set.
    #[must_use]
    pub fn contains(&self, value: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Some(values) => values.contains(&value),
            Self::Steps { first, step, count } => value
                .checked_sub(*first)
                .is_some_and(|way| way.is_multiple_of(*step) && way / step <= *count),
        }
    }

    /// Both sets.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        match (self.listed(), other.listed()) {
            (Self::Some(mut a), Self::Some(b)) => {
                a.extend(b);
                Self::capped(a)
            }
            _ => Self::Any,
        }
    }

    /// Each number changed.
    #[must_use]
    pub fn map(self, f: impl Fn(u64) -> u64) -> Self {
        match self.listed() {
            Self::Some(values) => Self::Some(values.into_iter().map(f).collect()),
            _ => Self::Any,
        }
    }

    /// Each number of one set with each of the other.
    #[must_use]
    pub fn combine(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        match (self.listed(), other.listed()) {
            (Self::Some(a), Self::Some(b)) if a.len().saturating_mul(b.len()) <= MAX_VALUES => {
                Self::Some(a.iter().flat_map(|x| b.iter().map(|y| f(*x, *y))).collect())
            }
            _ => Self::Any,
        }
    }

    fn capped(values: BTreeSet<u64>) -> Self {
        if values.len() > MAX_VALUES { Self::Any } else { Self::Some(values) }
    }
}

/// Whether the order of several of these does not matter.
fn commutes(op: AtomicOp) -> bool {
    !matches!(op, AtomicOp::Exchange | AtomicOp::CompareExchange { .. })
}

/// The values of the word [`start`, `start + width`) for a read at `at`, or after everything.
pub(super) fn values(
    memory: &Memory,
    clocks: &Clocks,
    cell: &Cell,
    start: u64,
    width: u64,
    at: Option<Event>,
    depth: u32,
) -> Values {
    let visible = visible(clocks, cell, at);
    if not_atomic(clocks, &visible) {
        return Values::Any;
    }
    let mut stores = visible.iter().filter_map(|write| match &write.what {
        What::Store(source) => Some((write.at, source)),
        What::Rmw(_) => None,
    });
    if let (Some((base, source)), None) = (stores.next(), stores.next())
        && one_kind(clocks, &visible, base)
    {
        let first = memory.source_values(clocks, source, start, width, depth);
        let sums = first.single().and_then(|first| counter(clocks, &visible, at, first));
        return sums.unwrap_or_else(|| prefixes(clocks, &visible, at, first));
    }
    let word = Word { memory, clocks, start, width, depth };
    word.orders(cell, at)
}

/// An atomic of device scope that races with the CPU is none.
fn not_atomic(clocks: &Clocks, writes: &[&Write]) -> bool {
    let reach = |write: &Write| match write.what {
        What::Rmw(rmw) => Some(rmw.reach),
        What::Store(_) => None,
    };
    let device = |w: &&&Write| reach(w) == Some(Reach::Device);
    let cpu = |w: &&&Write| reach(w) == Some(Reach::Cpu);
    writes.iter().filter(device).any(|d| {
        let races = |c: &&Write| !clocks.before(c.at, d.at) && !clocks.before(d.at, c.at);
        writes.iter().filter(cpu).any(races)
    })
}

/// Whether all atomics are of one commuting kind and come after the store at `base`.
fn one_kind(clocks: &Clocks, writes: &[&Write], base: Event) -> bool {
    let mut kind = None;
    writes.iter().all(|write| match write.what {
        What::Store(_) => true,
        What::Rmw(Rmw { op, width, .. }) => {
            let first = *kind.get_or_insert((op, width));
            first == (op, width) && commutes(op) && clocks.before(base, write.at)
        }
    })
}

/// A counter to which all that race with the read add one number, and which does not wrap: the usual
/// case by far, and with thousands of additions the only one that is cheap.
fn counter(clocks: &Clocks, writes: &[&Write], at: Option<Event>, first: u64) -> Option<Values> {
    let (mut sum, mut step, mut count, mut width) = (first, None, 0u64, Width::U64);
    for write in writes {
        let What::Rmw(rmw) = &write.what else { continue };
        if rmw.op != AtomicOp::Add || !write.certain {
            return None;
        }
        width = rmw.width;
        if at.is_none_or(|at| clocks.before(write.at, at)) {
            sum = apply_all(rmw, sum);
        } else if *step.get_or_insert(rmw.operand) == rmw.operand {
            count += u64::from(rmw.times);
        } else {
            return None;
        }
    }
    Values::steps(sum, step.unwrap_or(0), count, width)
}

/// Every timeline contributes its atomics before the read and any number of those racing with it.
fn prefixes(clocks: &Clocks, writes: &[&Write], at: Option<Event>, first: Values) -> Values {
    let mut lines: BTreeMap<u16, Vec<(&Rmw, bool, bool)>> = BTreeMap::new();
    for write in writes {
        if let What::Rmw(rmw) = &write.what {
            let known = at.is_none_or(|at| clocks.before(write.at, at));
            lines.entry(write.at.timeline).or_default().push((rmw, known, write.certain));
        }
    }
    let mut values = first;
    for line in lines.values_mut() {
        // Known ones first: a timeline's events are known up to some point and racing from there.
        line.sort_by_key(|(_, known, _)| !*known);
        let Values::Some(mut current) = values.listed() else { return Values::Any };
        let mut reached = BTreeSet::new();
        for (rmw, known, certain) in line {
            if *known {
                let after: BTreeSet<u64> = current.iter().map(|v| apply_all(rmw, *v)).collect();
                current = if *certain { after } else { &current | &after };
            } else {
                reached.extend(&current);
                for _ in 0..distinct_times(rmw) {
                    let once = current.iter().map(|v| rmw.op.apply(rmw.width, *v, rmw.operand));
                    current = once.collect();
                    reached.extend(&current);
                    if reached.len() > MAX_VALUES {
                        return Values::Any;
                    }
                }
            }
        }
        reached.extend(current);
        values = Values::capped(reached);
    }
    values
}

/// Repetitions after which nothing new comes: all but add reach their end, or a cycle, in two.
fn distinct_times(rmw: &Rmw) -> u32 {
    if rmw.op == AtomicOp::Add { rmw.times } else { rmw.times.min(2) }
}

fn apply_all(rmw: &Rmw, value: u64) -> u64 {
    match rmw.op {
        AtomicOp::Add => {
            let sum = rmw.operand.wrapping_mul(u64::from(rmw.times));
            rmw.op.apply(rmw.width, value, sum)
        }
        AtomicOp::Xor if rmw.times.is_multiple_of(2) => value,
        _ => rmw.op.apply(rmw.width, value, rmw.operand),
    }
}

/// A word whose every order is tried.
struct Word<'a> {
    memory: &'a Memory,
    clocks: &'a Clocks,
    start: u64,
    width: u64,
    depth: u32,
}

/// How many writes of each timeline have happened.
type Progress = Vec<usize>;

impl Word<'_> {
    fn orders(&self, cell: &Cell, at: Option<Event>) -> Values {
        let mut lines: BTreeMap<u16, Vec<&Write>> = BTreeMap::new();
        let possible = |write: &&Write| {
            at.is_none_or(|at| write.at != at && !self.clocks.before(at, write.at))
        };
        for write in cell.iter().filter(possible) {
            lines.entry(write.at.timeline).or_default().push(write);
        }
        let lines: Vec<Vec<&Write>> = lines.into_values().collect();
        // A loop's rounds are one step here, so nobody may look between them.
        let loops = |w: &&Write| match w.what {
            What::Rmw(rmw) => rmw.times > 1 && at.is_some_and(|at| !self.clocks.before(w.at, at)),
            What::Store(_) => false,
        };
        if lines.iter().flatten().any(loops) {
            return Values::Any;
        }
        let needed: Progress = lines
            .iter()
            .map(|line| {
                let known = |w: &&&Write| at.is_none_or(|at| self.clocks.before(w.at, at));
                line.iter().filter(known).count()
            })
            .collect();
        self.explore(&lines, &needed)
    }

    /// Walks all states of progress, in order of their sums, with the values reachable in each.
    fn explore(&self, lines: &[Vec<&Write>], needed: &Progress) -> Values {
        let mut result = BTreeSet::new();
        let mut states: BTreeMap<Progress, BTreeSet<Option<u64>>> = BTreeMap::new();
        states.insert(vec![0; lines.len()], BTreeSet::from([None]));
        let mut steps = 0;
        while !states.is_empty() {
            let mut next: BTreeMap<Progress, BTreeSet<Option<u64>>> = BTreeMap::new();
            for (done, values) in &states {
                if done.iter().zip(needed).all(|(d, n)| d >= n) {
                    result.extend(values.iter().flatten());
                }
                for line in 0..lines.len() {
                    let Some(write) = self.next_write(lines, done, line) else { continue };
                    let Some(after) = self.after(write, values) else { return Values::Any };
                    steps += after.len();
                    if steps > MAX_ORDERS {
                        return Values::Any;
                    }
                    let mut further = done.clone();
                    further[line] += 1;
                    next.entry(further).or_default().extend(after);
                }
            }
            states = next;
        }
        Values::capped(result)
    }

    /// The next write of a timeline, if all that must come before it has happened.
    fn next_write<'w>(
        &self,
        lines: &[Vec<&'w Write>],
        done: &Progress,
        line: usize,
    ) -> Option<&'w Write> {
        let write = *lines[line].get(done[line])?;
        let waiting = lines
            .iter()
            .zip(done)
            .any(|(other, done)| other[*done..].iter().any(|w| self.clocks.before(w.at, write.at)));
        (!waiting).then_some(write)
    }

    /// The values after a write; none if they are not modelled.
    fn after(
        &self,
        write: &Write,
        before: &BTreeSet<Option<u64>>,
    ) -> Option<BTreeSet<Option<u64>>> {
        let mut after: BTreeSet<Option<u64>> = match &write.what {
            What::Store(source) => self.store_values(source)?.into_iter().map(Some).collect(),
            What::Rmw(rmw) => {
                before.iter().map(|value| value.map(|value| self.repeated(rmw, value))).collect()
            }
        };
        if !write.certain {
            after.extend(before);
        }
        Some(after)
    }

    fn repeated(&self, rmw: &Rmw, value: u64) -> u64 {
        if commutes(rmw.op) {
            apply_all(rmw, value)
        } else {
            rmw.op.apply(rmw.width, value, rmw.operand)
        }
    }

    fn store_values(&self, source: &Source) -> Option<BTreeSet<u64>> {
        let (start, width) = (self.start, self.width);
        match self.memory.source_values(self.clocks, source, start, width, self.depth).listed() {
            Values::Some(values) => Some(values),
            _ => None,
        }
    }
}

/// Folds atomics that everybody knows into the store before them, so that a counter that is added to
/// a million times has a short history. `start` is the word's offset.
pub(super) fn fold(cell: &mut Cell, start: u64, clocks: &Clocks, horizon: &Clock) {
    const WORTH_IT: usize = 64;
    if cell.len() < WORTH_IT {
        return;
    }
    let writes: Vec<&Write> = cell.iter().collect();
    let mut stores = writes.iter().filter(|w| matches!(w.what, What::Store(_)));
    let (Some(store), None) = (stores.next(), stores.next()) else { return };
    let What::Store(source) = &store.what else { return };
    let known = |w: &Write| horizon.covers(w.at);
    let foldable = one_kind(clocks, &writes, store.at)
        && !not_atomic(clocks, &writes)
        && writes.iter().all(|w| w.certain)
        && known(store);
    let mut folded: Option<(u64, &Write, u64)> = None;
    for write in writes.iter().filter(|w| known(w)) {
        let What::Rmw(rmw) = &write.what else { continue };
        let width = rmw.width.bytes();
        let before = folded.map(|(value, ..)| value).or_else(|| source.word(start, width));
        let Some(before) = before else { return };
        folded = Some((apply_all(rmw, before), write, width));
    }
    let (true, Some((value, last, width))) = (foldable, folded) else { return };
    let what = What::Store(Source::repeat(value, width, start));
    let base = Write { certain: true, what, ..(*last).clone() };
    cell.retain(|w| !known(w));
    cell.insert(0, base);
}
