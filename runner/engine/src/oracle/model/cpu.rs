//! The model's part for address spaces of processes: calls that change them, and the CPU's accesses by
//! address.

use super::super::atomics::{Reach, Rmw};
use super::super::clock::{Event, Timeline};
use super::super::jobs::World;
use super::super::memory::{Grain, Mismatch, Origin, What, Write};
use super::super::mm::{Access, Mm, MmCall, MmId, MmOp, Nature};
use super::super::space::Translation;
use super::super::value::{Object, Source};
use super::{JobId, Model};
use fencepost_fixtures::device::{AtomicOp, Width};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Why an access by the CPU is not what the model allows.
#[derive(Clone, Debug)]
pub enum Denied {
    /// It had to fail: nothing is mapped there, or not for that.
    Gone,
    /// It gave what it must not.
    Value(Box<Mismatch>),
}

/// A write of the CPU's, recorded before it is made.
#[derive(Clone, Debug)]
pub struct CpuWrite {
    at: Event,
    mm: MmId,
    range: (u64, u64),
    /// Objects that it may have gone to.
    places: Vec<(Object, u64, u64)>,
    /// It had to fail.
    pub gone: bool,
}

/// Content that goes, recorded before the call that drops it.
#[derive(Clone, Debug)]
pub struct Discard {
    at: Event,
    certain: bool,
    places: Vec<(Object, u64, u64)>,
}

fn pages(start: u64, end: u64) -> (u64, u64) {
    (start & !(PAGE - 1), end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX))
}

impl Model {
    /// A process's address space, empty.
    pub fn mm(&mut self, actor: Timeline) -> MmId {
        let at = self.clocks.tick(actor);
        self.mms.push(Mm::new(at));
        self.mms.len() - 1
    }

    /// Notes what an object is, before it is mapped.
    pub fn note_nature(&mut self, object: Object, nature: Nature) {
        self.natures.insert(object, nature);
    }

    fn is_movable(&self, object: Object) -> bool {
        self.natures.get(&object).is_some_and(|nature| nature.movable)
    }

    /// A call that changes mappings is about to be made.
    pub fn mm_begin(&mut self, actor: Timeline, mm: MmId, op: &MmOp) -> MmCall {
        let at = self.clocks.tick(actor);
        let natures = &self.natures;
        let movable = |object| natures.get(&object).is_some_and(|n: &Nature| n.movable);
        let call = self.mms[mm].begin(mm, op, at, &movable);
        self.meet_mm(mm, &call.touched, at);
        call
    }

    /// Jobs in flight may meet what changes at these addresses.
    fn meet_mm(&mut self, mm: MmId, touched: &[(u64, u64)], at: Event) {
        let mirrors: Vec<bool> = self.spaces.iter().map(|space| space.mirrors(mm)).collect();
        self.meet_jobs(&|space| mirrors[space], touched, at);
    }

    /// The call returned.
    pub fn mm_end(&mut self, actor: Timeline, call: &MmCall, done: bool) {
        self.clocks.tick(actor);
        self.mms[call.mm].end(call, done, &self.clocks, &self.horizon);
    }

    /// An address space has ended, and what was mapped there.
    pub fn mm_ended(&mut self, mm: MmId) {
        self.mms[mm].over = true;
    }

    /// Whether an address space has ended.
    #[must_use]
    pub fn mm_has_ended(&self, mm: MmId) -> bool {
        self.mms[mm].over
    }

    /// A child was forked: its address space is a copy of its parent's.
    pub fn mm_fork(&mut self, actor: Timeline, parent: MmId, origin: Origin) -> MmId {
        let at = self.clocks.tick(actor);
        let mut copies = Vec::new();
        for object in self.mms[parent].objects() {
            let Some(nature) = self.natures.get(&object).cloned() else { continue };
            if !nature.private {
                continue;
            }
            let size = self.memory.size(object);
            let content = Source::Copy { object, shift: 0, at };
            let copy = self.memory.create(size, content, at, origin);
            self.memory.settle_copies(&self.clocks, copy, (0, size), at);
            self.natures.insert(copy, nature);
            copies.push((object, copy));
        }
        let (memory, natures) = (&mut self.memory, &mut self.natures);
        let mut fresh = Vec::new();
        let child = self.mms[parent].forked(
            at,
            &mut |object| {
                let copy = copies.iter().find(|(old, _)| *old == object);
                copy.map_or(object, |(_, copy)| *copy)
            },
            &mut |size| {
                let object = memory.create(size, Source::repeat(0, 8, 0), at, origin);
                fresh.push(object);
                object
            },
            &mut |object| natures.get(&object).is_none_or(|nature| nature.movable),
        );
        for object in fresh {
            natures.insert(object, Nature { private: true, movable: true, behind: None });
        }
        self.mms.push(child);
        self.mms.len() - 1
    }

    /// The parts of a range of addresses by what may be done there now.
    #[must_use]
    pub fn accessible(&self, mm: MmId, range: (u64, u64)) -> Vec<(u64, u64, Access)> {
        self.mms[mm].accessible(range.0, range.1)
    }

    /// The object mapped at an address now, with the offset.
    #[must_use]
    pub fn mapped_at(&self, mm: MmId, addr: u64) -> Option<(Object, u64)> {
        self.mms[mm].mapped(addr, addr + 1).first().map(|(object, offset, _)| (*object, *offset))
    }

    // ---- contents that go ------------------------------------------------------------------

    /// Pages of a range are about to be dropped; with `certain`, else they may be, until they are written
    /// again. `all`: of a file too (a hole is punched), else only what is the process's own.
    pub fn discard_begin(
        &mut self,
        actor: Timeline,
        mm: MmId,
        (start, end): (u64, u64),
        (certain, all): (bool, bool),
        origin: Origin,
    ) -> Discard {
        let at = self.clocks.tick(actor);
        let mut places = Vec::new();
        for (object, from, to) in self.mms[mm].mapped(start, end) {
            let Some(nature) = self.natures.get(&object).cloned() else { continue };
            let source = match nature.behind {
                _ if all => Source::repeat(0, 8, 0),
                Some(source) => source,
                None if nature.private => Source::repeat(0, 8, 0),
                None => continue,
            };
            let what = What::Store(source);
            let write = Write { at, origin, certain: false, release: false, what };
            self.memory.write(&self.clocks, &self.horizon, object, (from, to), &write);
            places.push((object, from, to));
        }
        Discard { at, certain, places }
    }

    /// The call that drops them returned.
    pub fn discard_end(&mut self, discard: &Discard, done: bool) {
        for (object, start, end) in &discard.places {
            if !done || discard.certain {
                self.memory.confirm(*object, (*start, *end), discard.at, done);
            }
            if done && discard.certain {
                let (range, at) = ((*start, *end), discard.at);
                self.stays.came_back(*object, range, at, &self.clocks, &self.horizon);
            }
        }
    }

    // ---- accesses --------------------------------------------------------------------------

    /// The objects that an access may reach, and whether it may fail and must.
    fn reach(&self, mm: MmId, range: (u64, u64), at: Event, writes: bool) -> Reached {
        let mut reached = Reached::default();
        for (a, b, placed) in self.mms[mm].translate(&self.clocks, range, at) {
            let mut places = Vec::new();
            let mut refused = 0;
            for placed in &placed {
                let (object, shift) = match placed.to {
                    Translation::Object { object, shift, readonly, .. }
                        if !(readonly && writes) =>
                    {
                        (object, shift)
                    }
                    Translation::Cpu { object, shift } => (object, shift),
                    _ => {
                        refused += 1;
                        continue;
                    }
                };
                let place = (object, a.wrapping_add(shift), b.wrapping_add(shift));
                if !places.contains(&place) {
                    places.push(place);
                }
            }
            reached.may_fail |= refused > 0;
            reached.must_fail |= places.is_empty();
            reached.pieces.push((a, b, places));
        }
        reached
    }

    /// Whether an access of the CPU's that failed was allowed to.
    pub fn mm_may_fail(
        &mut self,
        actor: Timeline,
        mm: MmId,
        range: (u64, u64),
        writes: bool,
    ) -> bool {
        let at = self.clocks.tick(actor);
        self.reach(mm, range, at, writes).may_fail
    }

    /// The CPU has read at an address.
    ///
    /// # Errors
    /// What it saw is not allowed.
    pub fn mm_read(
        &mut self,
        actor: Timeline,
        mm: MmId,
        addr: u64,
        seen: &[u8],
        grain: Grain,
    ) -> Result<(), Denied> {
        let at = self.clocks.tick(actor);
        let reached = self.reach(mm, (addr, addr + seen.len() as u64), at, false);
        for (a, b, places) in &reached.pieces {
            let bytes = &seen[(a - addr) as usize..(b - addr) as usize];
            let mut wrong = None;
            for (object, offset, _) in places {
                match self.memory.check(&self.clocks, *object, *offset, bytes, at, grain) {
                    Ok(()) => {
                        wrong = None;
                        break;
                    }
                    Err(mismatch) => wrong = wrong.or(Some(mismatch)),
                }
            }
            match (places.is_empty(), wrong) {
                (true, _) => return Err(Denied::Gone),
                (false, Some(mismatch)) => return Err(Denied::Value(mismatch)),
                (false, None) => {}
            }
        }
        self.came_back(&reached, at);
        Ok(())
    }

    /// What the CPU has certainly touched is in system memory.
    fn came_back(&mut self, reached: &Reached, at: Event) {
        for (.., places) in &reached.pieces {
            if let [(object, start, end)] = places[..] {
                let range = pages(start, end);
                self.stays.came_back(object, range, at, &self.clocks, &self.horizon);
            }
        }
    }

    /// The CPU is about to write; `source` is by addresses.
    pub fn mm_write(
        &mut self,
        actor: Timeline,
        mm: MmId,
        range: (u64, u64),
        source: &Source,
        origin: Origin,
    ) -> CpuWrite {
        let what = |delta: u64| What::Store(source.shifted(delta));
        self.mm_write_what(actor, mm, range, &what, origin)
    }

    fn mm_write_what(
        &mut self,
        actor: Timeline,
        mm: MmId,
        range: (u64, u64),
        what: &dyn Fn(u64) -> What,
        origin: Origin,
    ) -> CpuWrite {
        let at = self.clocks.tick(actor);
        self.grow_old();
        let reached = self.reach(mm, range, at, true);
        let mut written = Vec::new();
        for (a, _, places) in &reached.pieces {
            for (object, start, end) in places {
                let certain = places.len() == 1;
                let what = what(a.wrapping_sub(*start));
                let write = Write { at, origin, certain, release: true, what };
                let range = (*start, *end);
                self.memory.write(&self.clocks, &self.horizon, *object, range, &write);
                written.push((*object, *start, *end));
            }
        }
        CpuWrite { at, mm, range, places: written, gone: reached.must_fail }
    }

    /// The write was made, or failed.
    pub fn mm_write_end(&mut self, actor: Timeline, write: &CpuWrite, done: bool) {
        if !done {
            for (object, start, end) in &write.places {
                self.memory.forget(*object, (*start, *end), |event| event == write.at);
            }
            return;
        }
        let at = self.clocks.tick(actor);
        let reached = self.reach(write.mm, write.range, at, true);
        self.came_back(&reached, at);
    }

    /// The CPU is about to do an atomic.
    pub fn mm_atomic(
        &mut self,
        actor: Timeline,
        mm: MmId,
        addr: u64,
        width: Width,
        (op, operand): (AtomicOp, u64),
        origin: Origin,
    ) -> CpuWrite {
        let rmw = Rmw { op, operand, width, times: 1, reach: Reach::Cpu };
        let range = (addr, addr + width.bytes());
        self.mm_write_what(actor, mm, range, &|_| What::Rmw(rmw), origin)
    }

    /// The atomic gave an old value.
    ///
    /// # Errors
    /// The value is not allowed.
    pub fn mm_atomic_end(&self, write: &CpuWrite, width: Width, old: u64) -> Result<(), Denied> {
        let bytes = &old.to_le_bytes()[..width.bytes() as usize];
        let mut wrong = None;
        for (object, start, _) in &write.places {
            let (clocks, at) = (&self.clocks, write.at);
            match self.memory.check(clocks, *object, *start, bytes, at, Grain::Word) {
                Ok(()) => return Ok(()),
                Err(mismatch) => wrong = wrong.or(Some(mismatch)),
            }
        }
        Err(wrong.map_or(Denied::Gone, Denied::Value))
    }

    // ---- where pages are -------------------------------------------------------------------

    /// A job may have the pages moved that it uses.
    pub(super) fn may_move_by(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let world = World {
            clocks: &self.clocks,
            horizon: &self.horizon,
            memory: &mut self.memory,
            space: &self.spaces[job.space],
            mms: &self.mms,
        };
        let mut moved = Vec::new();
        for access in &job.accesses {
            for (addr, len, ..) in access.ranges() {
                for (a, b, placed) in world.translate((addr, addr.saturating_add(len)), access.at) {
                    for placed in placed {
                        if let Translation::Object { object, shift, .. } = placed.to
                            && self.natures.get(&object).is_some_and(|nature| nature.movable)
                        {
                            let range = pages(a.wrapping_add(shift), b.wrapping_add(shift));
                            moved.push((object, range, access.at));
                        }
                    }
                }
            }
        }
        for (object, range, at) in moved {
            self.stays.may_leave(object, range, at);
        }
    }

    /// A call that moves pages to a device is about to be made.
    pub fn may_move(&mut self, actor: Timeline, mm: MmId, (start, end): (u64, u64)) {
        let at = self.clocks.tick(actor);
        for (object, from, to) in self.mms[mm].mapped(start, end) {
            if self.is_movable(object) {
                self.stays.may_leave(object, pages(from, to), at);
            }
        }
    }

    /// Every page of a range is back in system memory.
    pub fn brought_back(&mut self, actor: Timeline, mm: MmId, (start, end): (u64, u64)) {
        let at = self.clocks.tick(actor);
        for (object, from, to) in self.mms[mm].mapped(start, end) {
            self.stays.came_back(object, pages(from, to), at, &self.clocks, &self.horizon);
        }
    }

    /// What may be said of a page now: it is readable, it is writable, it is in device memory.
    pub fn page_may(&mut self, actor: Timeline, mm: MmId, addr: u64) -> (bool, bool, bool) {
        let at = self.clocks.tick(actor);
        let (mut readable, mut writable, mut away) = (false, false, false);
        for (.., placed) in self.mms[mm].translate(&self.clocks, (addr, addr + 1), at) {
            for placed in placed {
                if let Translation::Cpu { .. } = placed.to {
                    (readable, writable) = (true, true);
                }
                if let Translation::Object { object, shift, readonly, .. } = placed.to {
                    readable = true;
                    writable |= !readonly;
                    let offset = addr.wrapping_add(shift);
                    away |= self.stays.may_be_away(object, offset, at, &self.clocks);
                }
            }
        }
        (readable, writable, away)
    }
}

/// A part of an access, from and to, and where it may lead: object, from and to in it.
type Piece = (u64, u64, Vec<(Object, u64, u64)>);

/// What an access may reach.
#[derive(Debug, Default)]
struct Reached {
    pieces: Vec<Piece>,
    may_fail: bool,
    must_fail: bool,
}
