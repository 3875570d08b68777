//! Jobs: what a submission may do to memory, and whether what it reported is allowed.
//!
//! A job's writes are recorded when it is submitted, since from then on they may be seen, and again
//! whenever more is known: a bind that races with it, its in-fences, how it ended. Its reads are
//! checked when it has ended: by then every write that it can have seen is recorded.

use super::atomics::{Reach, Rmw};
use super::clock::{Clock, Clocks, Event, Segment};
use super::memory::{Grain, Memory, Mismatch, Origin, What, Write};
use super::mm::Mm;
use super::program::{Access, Kind, ResultIndex, Stored, Use};
use super::space::{Placed, Space, Translation};
use super::value::{Object, Source};
use fencepost_fixtures::device::{Compare, Fault, FaultAccess, FaultKind, Scope};

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All commands were done.
    Finished,
    /// It faulted.
    Fault(Fault),
    /// It was cut off at an unknown place: cancelled, timed out.
    Cut,
}

/// What may become of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is done.
    Done,
    /// It may fault or be done.
    Open,
    /// It faults.
    Faults,
}

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    pub(super) space: usize,
    pub(super) accesses: Vec<Access>,
    pub(super) start: Segment,
    pub(super) end: Event,
    pub(super) known_end: Option<End>,
    /// The access that faulted, once the job is known to have ended by that.
    faulted: Option<usize>,
    results: Vec<Vec<u64>>,
    /// Ranges of objects that its writes were recorded for.
    touched: Vec<(Object, u64, u64)>,
}

/// Something that a job did and must not have, or the other way round.
#[derive(Clone, Debug)]
pub enum Wrong {
    /// A load or atomic gave a value that is not allowed.
    Value {
        /// The command.
        origin: Origin,
        /// Its address.
        addr: u64,
        /// What it gave.
        seen: u64,
        /// The object behind, with what was allowed; none: nothing (reads give 0).
        mismatch: Option<Box<Mismatch>>,
    },
    /// A fault where none can be.
    Fault {
        /// The fault.
        fault: Fault,
        /// The command that uses the address, if one does.
        origin: Option<Origin>,
        /// What is mapped there.
        mapped: Option<Translation>,
    },
    /// No fault where one must be.
    NoFault {
        /// The command.
        origin: Origin,
        /// Its first bad address.
        addr: u64,
        /// How it uses it.
        usage: Use,
        /// What is mapped there.
        mapped: Translation,
    },
}

/// What jobs look at and change.
pub(super) struct World<'a> {
    pub(super) clocks: &'a Clocks,
    pub(super) horizon: &'a Clock,
    pub(super) memory: &'a mut Memory,
    pub(super) space: &'a Space,
    pub(super) mms: &'a [Mm],
}

impl World<'_> {
    /// Where accesses to a range at an event may go, piece by piece, through mirrors too.
    pub(super) fn translate(&self, range: (u64, u64), at: Event) -> Vec<(u64, u64, Vec<Placed>)> {
        let pieces = self.space.translate(self.clocks, range, at);
        let mirror = |placed: &[Placed]| {
            placed.iter().find_map(|placed| match placed.to {
                Translation::Mirror(mm) => Some(mm),
                _ => None,
            })
        };
        if pieces.iter().all(|(.., placed)| mirror(placed).is_none()) {
            return pieces;
        }
        let mut out = Vec::new();
        for (a, b, placed) in pieces {
            let Some(mm) = mirror(&placed) else {
                out.push((a, b, placed));
                continue;
            };
            for (c, d, seen) in self.mms[mm].translate(self.clocks, (a, b), at) {
                let others = placed.iter().filter(|p| !matches!(p.to, Translation::Mirror(_)));
                out.push((c, d, others.copied().chain(seen).collect()));
            }
        }
        out
    }
}

impl Job {
    pub(super) fn new(space: usize, accesses: Vec<Access>, start: Segment, end: Event) -> Self {
        Self {
            space,
            accesses,
            start,
            end,
            known_end: None,
            faulted: None,
            results: Vec::new(),
            touched: Vec::new(),
        }
    }

    /// Whether an access uses one of these addresses and is not ordered before `at`.
    pub(super) fn may_meet(&self, clocks: &Clocks, ranges: &[(u64, u64)], at: Event) -> bool {
        self.accesses.iter().any(|access| {
            let used = access.ranges();
            let hit = |(addr, len, ..): &(u64, u64, Use, u64)| {
                ranges.iter().any(|(a, b)| addr < b && *a < addr.saturating_add(*len))
            };
            used.iter().any(hit) && !clocks.before(access.at, at)
        })
    }

    /// Takes back what was recorded, and records it anew by what is known now.
    pub(super) fn apply(&mut self, world: &mut World<'_>) {
        self.retract(world.memory);
        let mut certain = self.known_end != Some(End::Cut);
        for index in 0..self.accesses.len() {
            let access = self.accesses[index].clone();
            let fate = self.fate(world, index);
            certain &= fate == Fate::Done;
            self.write(world, &access, certain);
            if fate == Fate::Faults {
                break;
            }
        }
    }

    /// Takes back what was recorded.
    pub(super) fn retract(&mut self, memory: &mut Memory) {
        let (line, last) = (self.end.timeline, self.end.index);
        let Some(first) = self.accesses.first().map(|access| access.at.index) else { return };
        for (object, start, end) in self.touched.drain(..) {
            let mine = |e: Event| e.timeline == line && (first..=last).contains(&e.index);
            memory.forget(object, (start, end), mine);
        }
    }

    fn fate(&self, world: &World<'_>, index: usize) -> Fate {
        match &self.known_end {
            Some(End::Finished) => Fate::Done,
            Some(End::Fault(_)) if self.faulted == Some(index) => Fate::Faults,
            // Before the fault: done. After it nothing is looked at.
            Some(End::Fault(_)) if self.faulted.is_some() => Fate::Done,
            _ => self.prediction(world, &self.accesses[index]).0,
        }
    }

    /// Whether an access faults as far as the model knows, and the first address that must.
    fn prediction(
        &self,
        world: &World<'_>,
        access: &Access,
    ) -> (Fate, Option<(u64, Use, Translation)>) {
        let mut fate = Fate::Done;
        match access.kind {
            Kind::Bad => return (Fate::Faults, None),
            Kind::Opaque => return (Fate::Open, None),
            _ => {}
        }
        for (addr, len, usage, align) in access.ranges() {
            if !addr.is_multiple_of(align) || !world.space.contains(addr, len) {
                return (Fate::Faults, Some((addr, usage, Translation::None)));
            }
            for (start, _, placed) in world.translate(span(addr, len), access.at) {
                let must = |p: &&Placed| refusal(p.to, usage) == Refusal::Certain;
                let may = |p: &Placed| refusal(p.to, usage) != Refusal::No;
                let bad = placed.iter().filter(must).count();
                // Of a batch only the first word is fetched for certain: it may end early.
                let needed = usage != Use::Fetch || start == addr;
                if bad == placed.len() && needed {
                    return (Fate::Faults, Some((start, usage, placed[0].to)));
                }
                if placed.iter().any(may) {
                    fate = Fate::Open;
                }
            }
        }
        (fate, None)
    }

    /// The access that a reported fault belongs to, if it can have faulted there.
    fn faulted_at(&self, world: &World<'_>, fault: &Fault) -> Option<usize> {
        self.accesses.iter().position(|access| {
            match access.kind {
                Kind::Bad => return fault.kind == FaultKind::Command,
                Kind::Opaque => return true,
                _ => {}
            }
            access.ranges().into_iter().any(|(addr, len, usage, align)| {
                let within = fault.addr >= addr && fault.addr - addr < len;
                within && fault.access == fault_access(usage) && {
                    let outside = !world.space.contains(fault.addr, 1)
                        || !world.space.contains(addr, len)
                        || !addr.is_multiple_of(align);
                    let at = span(fault.addr, 1);
                    let reasons = world.translate(at, access.at);
                    let mapped = reasons.iter().flat_map(|(.., placed)| placed);
                    (outside && fault.kind == FaultKind::Address)
                        || mapped.into_iter().any(|p| refuses_with(p.to, usage, fault.kind))
                }
            })
        })
    }

    // ---- writes ----------------------------------------------------------------------------

    fn write(&mut self, world: &mut World<'_>, access: &Access, certain: bool) {
        let at = access.at;
        match access.kind.clone() {
            Kind::Load { .. }
            | Kind::Wait { .. }
            | Kind::Fetch { .. }
            | Kind::Bad
            | Kind::Opaque => {}
            Kind::Store { addr, width, value, release } => {
                let value = match value {
                    Stored::Value(value) => Some(value),
                    Stored::Result(index, add) => {
                        self.result(index).map(|value| value.wrapping_add(add))
                    }
                };
                let what = move |offset: u64| match value {
                    Some(value) => What::Store(Source::repeat(value, width.bytes(), offset)),
                    None => What::Store(Source::Unknown),
                };
                self.record(world, access, (addr, width.bytes()), certain, release, &what);
            }
            Kind::Fill { addr, bytes, value, width } => {
                let what = |offset: u64| {
                    // The fill's own start decides the phase of its words, also in later pieces.
                    What::Store(Source::repeat(value, width.bytes(), offset))
                };
                self.record(world, access, (addr, bytes), certain, false, &what);
            }
            Kind::Unknown { addr, bytes } => {
                let what = |_| What::Store(Source::Unknown);
                self.record(world, access, (addr, bytes), certain, false, &what);
            }
            Kind::Atomic { addr, width, op, operand, scope, times, release, .. } => {
                let reach = match scope {
                    Scope::Device => Reach::Device,
                    Scope::System => Reach::System,
                };
                let rmw = Rmw { op, operand, width, times, reach };
                let what = move |_| What::Rmw(rmw);
                self.record(world, access, (addr, width.bytes()), certain, release, &what);
            }
            Kind::Copy { src, dst, bytes } => {
                for (a, b, sources) in world.translate(span(src, bytes), at) {
                    let target = a.wrapping_sub(src).wrapping_add(dst);
                    self.copy(world, access, (a, target, b - a), &sources, certain);
                }
            }
        }
    }

    /// Records a write to each object that the address may lead to. `what` gets the offset in the
    /// object that corresponds to the access's first address.
    fn record(
        &mut self,
        world: &mut World<'_>,
        access: &Access,
        (addr, len): (u64, u64),
        certain: bool,
        release: bool,
        what: &dyn Fn(u64) -> What,
    ) {
        for (a, b, placed) in world.translate(span(addr, len), access.at) {
            let possible = self.possible(&placed, Use::Write);
            for to in &possible {
                let Translation::Object { object, shift, .. } = *to else { continue };
                let (start, end) = (a.wrapping_add(shift), b.wrapping_add(shift));
                let write = Write {
                    at: access.at,
                    origin: access.origin,
                    certain: certain && possible.len() == 1,
                    release,
                    what: what(addr.wrapping_add(shift)),
                };
                if matches!(write.what, What::Rmw(_)) && end - start != len {
                    continue;
                }
                let (clocks, horizon) = (world.clocks, world.horizon);
                world.memory.write(clocks, horizon, object, (start, end), &write);
                self.touched.push((object, start, end));
            }
        }
    }

    /// Targets that remain, given how the job ended: one that ran to its end met no refusal.
    fn possible(&self, placed: &[Placed], usage: Use) -> Vec<Translation> {
        let finished = self.known_end == Some(End::Finished);
        let mut targets: Vec<Translation> = Vec::new();
        for p in placed {
            let refused = refusal(p.to, usage) == Refusal::Certain;
            let dropped = finished && refused;
            let target = if refused { Translation::None } else { p.to };
            if !dropped && !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }

    /// Records a part of a copy whose source has one set of translations.
    fn copy(
        &mut self,
        world: &mut World<'_>,
        access: &Access,
        (from, to, len): (u64, u64, u64),
        sources: &[Placed],
        certain: bool,
    ) {
        let sources = self.possible(sources, Use::Read);
        for (a, b, targets) in world.translate(span(to, len), access.at) {
            let targets = self.possible(&targets, Use::Write);
            for target in &targets {
                let Translation::Object { object, shift, .. } = *target else { continue };
                let range = (a.wrapping_add(shift), b.wrapping_add(shift));
                let content = |source: &Translation| match *source {
                    Translation::Object { object: origin, shift: by, .. } => {
                        // Offset in the target to offset in the source.
                        let delta = from.wrapping_add(by).wrapping_sub(to.wrapping_add(shift));
                        let lead = range.0.wrapping_sub(range.0.wrapping_add(delta));
                        if origin == object && lead != 0 && lead < len {
                            // Ascending over itself: repeats what it wrote, in the device's chunks.
                            Source::Unknown
                        } else {
                            Source::Copy { object: origin, shift: delta, at: access.at }
                        }
                    }
                    Translation::Zero { .. } => Source::repeat(0, 8, 0),
                    _ => Source::Unknown,
                };
                let mut contents: Vec<Source> = sources.iter().map(content).collect();
                let source = match contents.len() {
                    1 => contents.remove(0),
                    _ => Source::OneOf(contents.into()),
                };
                let write = Write {
                    at: access.at,
                    origin: access.origin,
                    certain: certain && targets.len() == 1,
                    release: false,
                    what: What::Store(source),
                };
                let (clocks, horizon) = (world.clocks, world.horizon);
                world.memory.write(clocks, horizon, object, range, &write);
                self.touched.push((object, range.0, range.1));
            }
        }
    }

    fn result(&self, (program, index): ResultIndex) -> Option<u64> {
        self.results.get(program)?.get(index).copied()
    }

    // ---- the end ---------------------------------------------------------------------------

    /// What semaphore waits have seen tells what happened before: for each wait the segment after it
    /// and what it learnt.
    pub(super) fn semaphores(&self, world: &World<'_>) -> Vec<(Event, Clock)> {
        let mut learnt = Vec::new();
        for access in &self.accesses {
            let Kind::Wait { addr, width, value, mask, compare } = &access.kind else { continue };
            let range = span(*addr, width.bytes());
            let pieces = world.translate(range, access.at);
            let [(.., placed)] = &pieces[..] else { continue };
            let [Placed { to: Translation::Object { object, shift, .. }, .. }] = placed[..] else {
                continue;
            };
            let holds = |word: u64| match compare {
                Compare::Equal => word & mask == *value,
                Compare::GreaterEqual => word & mask >= *value,
            };
            let offset = addr.wrapping_add(shift);
            let (clocks, memory) = (world.clocks, &*world.memory);
            let known = memory.acquired(clocks, object, offset, width.bytes(), access.at, &holds);
            learnt.push((access.at, known));
        }
        learnt
    }

    /// The job has ended: checks what it reported and records its writes for good.
    pub(super) fn finish(
        &mut self,
        world: &mut World<'_>,
        end: End,
        results: Vec<Vec<u64>>,
    ) -> Vec<Wrong> {
        let mut wrong: Vec<Wrong> = self.wrong_end(world, &end).into_iter().collect();
        if let End::Fault(fault) = &end {
            self.faulted = self.faulted_at(world, fault);
        }
        self.known_end = Some(end);
        self.results = results;
        self.apply(world);
        if self.known_end == Some(End::Finished) {
            for access in &self.accesses {
                wrong.extend(self.wrong_value(world, access));
            }
        }
        for access in &self.accesses {
            if matches!(access.kind, Kind::Copy { .. }) {
                for (object, start, end) in &self.touched {
                    world.memory.settle_copies(world.clocks, *object, (*start, *end), access.at);
                }
            }
        }
        wrong
    }

    /// Whether the way in which it ended is a wrong one.
    fn wrong_end(&self, world: &World<'_>, end: &End) -> Option<Wrong> {
        match end {
            End::Cut => None,
            End::Finished => self.accesses.iter().find_map(|access| {
                let (Fate::Faults, at) = self.prediction(world, access) else { return None };
                let (addr, usage, mapped) = at.unwrap_or((0, Use::Read, Translation::None));
                Some(Wrong::NoFault { origin: access.origin, addr, usage, mapped })
            }),
            End::Fault(fault) if self.faulted_at(world, fault).is_some() => None,
            End::Fault(fault) => {
                let uses = |access: &&Access| {
                    let within = |(addr, len, ..): &(u64, u64, Use, u64)| {
                        fault.addr >= *addr && fault.addr - addr < *len
                    };
                    access.ranges().iter().any(within)
                };
                let access = self.accesses.iter().find(uses);
                let mapped = access.and_then(|access| {
                    let at = span(fault.addr, 1);
                    let pieces = world.translate(at, access.at);
                    pieces.first().map(|(.., placed)| placed[placed.len() - 1].to)
                });
                let origin = access.map(|access| access.origin);
                Some(Wrong::Fault { fault: *fault, origin, mapped })
            }
        }
    }

    /// Whether a load or an atomic gave what it must not.
    fn wrong_value(&self, world: &World<'_>, access: &Access) -> Option<Wrong> {
        let (addr, width, result) = match &access.kind {
            Kind::Load { addr, width, result } => (*addr, *width, (*result)?),
            Kind::Atomic { addr, width, result, .. } => (*addr, *width, (*result)?),
            _ => return None,
        };
        let seen = self.result(result)?;
        let bytes = &seen.to_le_bytes()[..width.bytes() as usize];
        let mut first = None;
        let range = span(addr, width.bytes());
        for (.., placed) in world.translate(range, access.at) {
            for to in self.possible(&placed, Use::Read) {
                let found = match to {
                    Translation::Object { object, shift, .. } => {
                        let offset = addr.wrapping_add(shift);
                        let (clocks, at) = (world.clocks, access.at);
                        world
                            .memory
                            .check(clocks, object, offset, bytes, at, Grain::Word)
                            .map_err(Some)
                    }
                    Translation::Zero { .. } if width.mask(seen) == 0 => Ok(()),
                    _ => Err(None),
                };
                match found {
                    Ok(()) => return None,
                    Err(mismatch) => first = first.or(Some(mismatch)),
                }
            }
        }
        let mismatch = first?;
        Some(Wrong::Value { origin: access.origin, addr, seen: width.mask(seen), mismatch })
    }
}

/// The range of an access; one that runs over the top of all addresses ends there.
fn span(addr: u64, len: u64) -> (u64, u64) {
    (addr, addr.saturating_add(len))
}

/// Whether a translation refuses a use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// It does not.
    No,
    /// It may: the driver chooses.
    Open,
    /// It does.
    Certain,
}

fn refusal(to: Translation, usage: Use) -> Refusal {
    let writes = matches!(usage, Use::Write | Use::Atomic);
    match to {
        Translation::None
        | Translation::Shut
        | Translation::Cpu { .. }
        | Translation::Mirror(_) => Refusal::Certain,
        Translation::Object { readonly, .. } | Translation::Zero { readonly }
            if readonly && writes =>
        {
            Refusal::Certain
        }
        Translation::Object { atomics: false, .. } if usage == Use::Atomic => Refusal::Open,
        Translation::Object { .. } | Translation::Zero { .. } => Refusal::No,
    }
}

/// Whether a translation may refuse a use by a fault of this kind.
fn refuses_with(to: Translation, usage: Use, kind: FaultKind) -> bool {
    if refusal(to, usage) == Refusal::No {
        return false;
    }
    match to {
        Translation::None | Translation::Mirror(_) => kind == FaultKind::NotPresent,
        Translation::Object { readonly: true, told: false, .. } | Translation::Zero { .. } => {
            kind == FaultKind::Permission
        }
        // How a driver calls this is its own affair.
        Translation::Shut | Translation::Cpu { .. } | Translation::Object { .. } => {
            matches!(kind, FaultKind::NotPresent | FaultKind::Permission)
        }
    }
}

fn fault_access(usage: Use) -> FaultAccess {
    match usage {
        Use::Read => FaultAccess::Read,
        Use::Write => FaultAccess::Write,
        Use::Atomic => FaultAccess::Atomic,
        Use::Fetch => FaultAccess::Fetch,
    }
}
