//! The oracle's own address spaces: drm_gpuvm's rules, written down once more.
//!
//! Two views of one VM. The *layout* is what a VA dump must show; it changes when a bind call
//! returns. The *translations* are what GPU accesses go through; they change when the page tables
//! are written, which for an asynchronous bind is some time between its in-fences and its
//! out-fences. So translations have histories like memory has: an access that is not ordered against
//! a bind may see the old or the new one.
//!
//! Calls in flight at the same time that touch the same addresses have no known order: those
//! addresses are *unsure* until a later call covers them, and nothing is expected of them.

use super::clock::{Clock, Clocks, Event};
use super::history::{Dated, prune, visible};
use super::mm::MmId;
use super::ranges::RangeMap;
use super::value::Object;
use fencepost_fixtures::Errno;
use fencepost_fixtures::device::Region;

/// What a mapping maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An object from a byte offset on.
    Object(Object, u64),
    /// Nothing: reads give 0.
    Null,
    /// Nothing in particular: a sparse region.
    Sparse,
    /// A process's own addresses.
    Mirror(MmId),
}

/// An operation of a bind call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Map, replacing.
    Map {
        /// Address.
        addr: u64,
        /// Bytes.
        range: u64,
        /// What.
        target: Target,
        /// The GPU may only read.
        readonly: bool,
        /// Page kind.
        kind: u32,
    },
    /// Unmap; with `sparse` exactly that region and all within.
    Unmap {
        /// Address.
        addr: u64,
        /// Bytes.
        range: u64,
        /// A sparse region.
        sparse: bool,
    },
    /// Unmap every mapping of an object.
    UnmapAll(Object),
    /// Move objects: changes neither layout nor translation.
    Prefetch {
        /// Address.
        addr: u64,
        /// Bytes.
        range: u64,
    },
    /// Prefer a region for NULL mappings, splitting at the edges.
    Madvise {
        /// Address.
        addr: u64,
        /// Bytes.
        range: u64,
        /// Which.
        region: Option<Region>,
    },
}

/// A mapping in the layout. Equal at all of its addresses, so that cutting leaves it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The object and what is to be added to an address to get the offset, modulo 2^64; none: NULL.
    pub object: Option<(Object, u64)>,
    /// The GPU may only read.
    pub readonly: bool,
    /// Page kind.
    pub kind: u32,
    /// Preferred region.
    pub preferred: Option<Region>,
    /// The address space that it mirrors.
    pub mirror: Option<MmId>,
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// Nowhere: it faults.
    None,
    /// To an object; see [`Mapped::object`].
    Object {
        /// The object.
        object: Object,
        /// To be added to an address.
        shift: u64,
        /// Writes fault.
        readonly: bool,
        /// Atomics of the GPU are done in any case; else they may be refused.
        atomics: bool,
        /// Writes wait for somebody else's leave: as what a refusal comes is the driver's affair.
        told: bool,
    },
    /// Reads give 0, writes are dropped, or fault if read-only.
    Zero {
        /// Writes fault.
        readonly: bool,
    },
    /// To memory that may not be accessed: it faults.
    Shut,
    /// To an object that only the CPU reaches; for a device it is shut.
    Cpu {
        /// The object.
        object: Object,
        /// To be added to an address.
        shift: u64,
    },
    /// To what a process has at the same address; never where an access ends up.
    Mirror(MmId),
}

/// A translation put in place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) at: Event,
    pub(super) certain: bool,
    pub(super) to: Translation,
}

impl Dated for Placed {
    fn at(&self) -> Event {
        self.at
    }

    fn overwrites(&self) -> bool {
        self.certain
    }
}

/// What one bind call changes, as it is found out before the call.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What the model says that the call must answer; nothing if it is not known.
    pub refusal: Option<Errno>,
    /// Translations to be placed by each operation.
    pub(super) writes: Vec<(usize, u64, u64, Translation)>,
    /// Addresses that it touches.
    pub(super) touched: Vec<(u64, u64)>,
}

/// A VM.
#[derive(Debug)]
pub struct Space {
    start: u64,
    end: u64,
    hole: Option<(u64, u64)>,
    layout: RangeMap<Mapped>,
    sparse: RangeMap<()>,
    unsure: RangeMap<()>,
    translations: RangeMap<Vec<Placed>>,
    in_flight: Vec<InFlight>,
    next_call: u64,
}

#[derive(Debug)]
struct InFlight {
    call: u64,
    ops: Vec<Op>,
    touched: Vec<(u64, u64)>,
    events: Vec<Event>,
    /// Parts that an overlapping call touches too.
    contested: Vec<(u64, u64)>,
}

/// A bind call in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call(u64);

impl Space {
    /// An empty VM of addresses [`start`, `end`) with a hole (start, end) kept from binds.
    #[must_use]
    pub fn new(start: u64, end: u64, hole: Option<(u64, u64)>, at: Event) -> Self {
        let mut translations = RangeMap::default();
        let nothing = Placed { at, certain: true, to: Translation::None };
        translations.insert(0, u64::MAX, vec![nothing]);
        Self {
            start,
            end,
            hole,
            layout: RangeMap::default(),
            sparse: RangeMap::default(),
            unsure: RangeMap::default(),
            translations,
            in_flight: Vec::new(),
            next_call: 0,
        }
    }

    /// Whether an access may use these addresses at all.
    #[must_use]
    pub fn contains(&self, addr: u64, len: u64) -> bool {
        addr >= self.start && addr.checked_add(len).is_some_and(|end| end <= self.end)
    }

    /// What a bind call would do. `sizes` gives an object's size.
    #[must_use]
    pub fn plan(&self, ops: &[Op], sizes: &dyn Fn(Object) -> u64) -> Plan {
        let mut plan = Plan::default();
        let mut trial = Trial {
            layout: &self.layout,
            changes: RangeMap::default(),
            sparse: self.sparse.clone(),
            removed: RangeMap::default(),
        };
        for (index, op) in ops.iter().enumerate() {
            plan.touched.extend(trial.touched(op));
            if let Err(errno) =
                self.check(op, sizes).and_then(|()| trial.apply(index, op, &mut plan))
            {
                plan.refusal.get_or_insert(errno);
            }
        }
        if plan.refusal.is_some() {
            plan.writes.clear();
        }
        plan
    }

    /// The rules that do not depend on what is mapped.
    fn check(&self, op: &Op, sizes: &dyn Fn(Object) -> u64) -> Result<(), Errno> {
        let (addr, range) = match op {
            Op::UnmapAll(_) => return Ok(()),
            Op::Map { addr, range, .. }
            | Op::Unmap { addr, range, .. }
            | Op::Prefetch { addr, range }
            | Op::Madvise { addr, range, .. } => (*addr, *range),
        };
        let page = |n: u64| n.is_multiple_of(4096);
        let end = addr.checked_add(range).ok_or(Errno::EINVAL)?;
        let in_hole = self.hole.is_some_and(|(start, stop)| addr < stop && start < end);
        if range == 0 || !page(addr) || !page(range) || !self.contains(addr, range) || in_hole {
            return Err(Errno::EINVAL);
        }
        if let Op::Map { target: Target::Object(object, offset), .. } = op {
            let fits = offset.checked_add(range).is_some_and(|end| end <= sizes(*object));
            if !page(*offset) || !fits {
                return Err(Errno::EINVAL);
            }
        }
        Ok(())
    }

    /// A call is about to be made: its translations may be in place from now on. `events` are
    /// those of its operations.
    pub(super) fn begin(&mut self, plan: &Plan, ops: &[Op], events: &[Event]) -> Call {
        for (op, start, end, to) in &plan.writes {
            let placed = Placed { at: events[*op], certain: false, to: *to };
            for (.., history) in self.translations.within_mut(*start, *end) {
                history.push(placed);
            }
        }
        let call = Call(self.next_call);
        self.next_call += 1;
        let mut contested = Vec::new();
        for other in &mut self.in_flight {
            let shared = intersections(&other.touched, &plan.touched);
            other.contested.extend(&shared);
            contested.extend(shared);
        }
        self.in_flight.push(InFlight {
            call: call.0,
            ops: ops.to_vec(),
            touched: plan.touched.clone(),
            events: events.to_vec(),
            contested,
        });
        call
    }

    /// The call returned. Gives whether others were in flight on the same addresses, so that what
    /// it should have answered is not known.
    pub(super) fn end(&mut self, call: Call, done: bool, clocks: &Clocks, horizon: &Clock) -> bool {
        let Some(index) = self.in_flight.iter().position(|c| c.call == call.0) else {
            return false;
        };
        let call = self.in_flight.swap_remove(index);
        for (start, end) in &call.touched {
            for (.., history) in self.translations.within_mut(*start, *end) {
                if done {
                    let mine = history.iter_mut().filter(|p| call.events.contains(&p.at));
                    mine.for_each(|placed| placed.certain = true);
                } else {
                    history.retain(|placed| !call.events.contains(&placed.at));
                }
                prune(history, clocks, horizon);
            }
        }
        if done {
            self.settle(&call);
        }
        !call.contested.is_empty()
    }

    /// Brings the layout up to date with a call that succeeded.
    fn settle(&mut self, call: &InFlight) {
        for (start, end) in &call.touched {
            self.unsure.remove(*start, *end);
        }
        let mut plan = Plan::default();
        for (index, op) in call.ops.iter().enumerate() {
            let mut trial = Trial {
                layout: &self.layout,
                changes: RangeMap::default(),
                sparse: std::mem::take(&mut self.sparse),
                removed: RangeMap::default(),
            };
            // A refusal here means that a contested call got in between: those addresses are unsure.
            let _ = trial.apply(index, op, &mut plan);
            let Trial { changes, sparse, .. } = trial;
            self.sparse = sparse;
            self.merge(&changes);
        }
        for (start, end) in &call.contested {
            self.unsure.insert(*start, *end, ());
        }
    }

    fn merge(&mut self, changes: &RangeMap<Option<Mapped>>) {
        for (start, end, change) in changes.iter() {
            self.layout.remove(start, end);
            if let Some(mapped) = change {
                self.layout.insert(start, end, *mapped);
            }
        }
    }

    /// Where accesses to [`start`, `end`) at an event may go, piece by piece.
    pub(super) fn translate(
        &self,
        clocks: &Clocks,
        range: (u64, u64),
        at: Event,
    ) -> Vec<(u64, u64, Vec<Placed>)> {
        self.translations
            .within(range.0, range.1)
            .map(|(a, b, history)| {
                (a, b, visible(clocks, history, Some(at)).into_iter().copied().collect())
            })
            .collect()
    }

    /// Mappings of the layout that overlap a range, clipped to it.
    pub fn mappings(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, &Mapped)> {
        self.layout.within(start, end)
    }

    /// Whether a part of it mirrors this address space, or may.
    pub(super) fn mirrors(&self, mm: MmId) -> bool {
        let is_it = |placed: &Placed| placed.to == Translation::Mirror(mm);
        self.translations.iter().any(|(.., history)| history.iter().any(is_it))
    }

    /// Sparse regions.
    pub fn sparse_regions(&self) -> impl Iterator<Item = (u64, u64)> {
        self.sparse.iter().map(|(start, end, ())| (start, end))
    }

    /// Whether a part of the range is unsure.
    #[must_use]
    pub fn is_unsure(&self, start: u64, end: u64) -> bool {
        self.unsure.within(start, end).next().is_some()
    }

    /// Whether no address is unsure.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.unsure.is_empty() && self.in_flight.is_empty()
    }
}

fn intersections(a: &[(u64, u64)], b: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let both = |x: &(u64, u64), y: &(u64, u64)| (x.0.max(y.0), x.1.min(y.1));
    a.iter().flat_map(|x| b.iter().map(move |y| both(x, y))).filter(|(s, e)| s < e).collect()
}

/// A bind call played on top of a layout, without changing it.
struct Trial<'a> {
    layout: &'a RangeMap<Mapped>,
    /// What differs from the layout: a mapping, or none any more.
    changes: RangeMap<Option<Mapped>>,
    sparse: RangeMap<()>,
    /// Regions that this call removes: their range is taken until the page tables are written.
    removed: RangeMap<()>,
}

impl Trial<'_> {
    /// The mappings in a range, as the call so far left them.
    fn mapped(&self, start: u64, end: u64) -> Vec<(u64, u64, Mapped)> {
        let mut found = Vec::new();
        for (a, b, change) in self.changes.tiling(start, end) {
            match change {
                Some(Some(mapped)) => found.push((a, b, *mapped)),
                Some(None) => {}
                None => found.extend(self.layout.within(a, b).map(|(a, b, m)| (a, b, *m))),
            }
        }
        found
    }

    /// Addresses that an operation touches.
    fn touched(&self, op: &Op) -> Vec<(u64, u64)> {
        match op {
            Op::Map { addr, range, .. }
            | Op::Unmap { addr, range, .. }
            | Op::Madvise { addr, range, .. } => vec![(*addr, addr.saturating_add(*range))],
            Op::Prefetch { .. } => Vec::new(),
            Op::UnmapAll(object) => self.of_object(*object),
        }
    }

    fn of_object(&self, object: Object) -> Vec<(u64, u64)> {
        let all = self.mapped(0, u64::MAX);
        let mine = all.into_iter().filter(|(.., m)| m.object.is_some_and(|(o, _)| o == object));
        mine.map(|(a, b, _)| (a, b)).collect()
    }

    fn apply(&mut self, index: usize, op: &Op, plan: &mut Plan) -> Result<(), Errno> {
        match *op {
            Op::Map { addr, range, target: Target::Sparse, .. } => {
                self.map_sparse(index, addr, addr + range, plan)
            }
            Op::Map { addr, range, target, readonly, kind } => {
                let (object, mirror) = match target {
                    Target::Object(object, offset) => {
                        (Some((object, offset.wrapping_sub(addr))), None)
                    }
                    Target::Mirror(mm) => (None, Some(mm)),
                    _ => (None, None),
                };
                let mapped = Mapped { object, readonly, kind, preferred: None, mirror };
                self.map(index, (addr, addr + range), mapped, plan)
            }
            Op::Unmap { addr, range, sparse: true } => {
                self.unmap_sparse(index, addr, addr + range, plan)
            }
            Op::Unmap { addr, range, sparse: false } => {
                self.unmap(index, addr, addr + range, plan);
                Ok(())
            }
            Op::UnmapAll(object) => {
                for (start, end) in self.of_object(object) {
                    self.unmap(index, start, end, plan);
                }
                Ok(())
            }
            Op::Prefetch { .. } => Ok(()),
            Op::Madvise { addr, range, region } => {
                for (start, end, mapped) in self.mapped(addr, addr + range) {
                    if mapped.object.is_none() && mapped.mirror.is_none() {
                        let advised = Mapped { preferred: region, ..mapped };
                        self.changes.insert(start, end, Some(advised));
                    }
                }
                Ok(())
            }
        }
    }

    fn map(
        &mut self,
        index: usize,
        (start, end): (u64, u64),
        mapped: Mapped,
        plan: &mut Plan,
    ) -> Result<(), Errno> {
        let crosses = |(a, b, ()): (u64, u64, &())| start < a || b < end;
        if self.sparse.overlapping(start, end).any(crosses) {
            return Err(Errno::ENOSPC);
        }
        if self.removed.overlapping(start, end).next().is_some() {
            return Err(Errno::EINVAL);
        }
        self.changes.insert(start, end, Some(mapped));
        let readonly = mapped.readonly;
        let to = match (mapped.object, mapped.mirror) {
            (Some((object, shift)), _) => {
                Translation::Object { object, shift, readonly, atomics: true, told: false }
            }
            (None, Some(mm)) => Translation::Mirror(mm),
            (None, None) => Translation::Zero { readonly },
        };
        plan.writes.push((index, start, end, to));
        Ok(())
    }

    /// Removes mappings; where a sparse region is, its behaviour comes back.
    fn unmap(&mut self, index: usize, start: u64, end: u64, plan: &mut Plan) {
        self.changes.insert(start, end, None);
        for (a, b, sparse) in self.sparse.tiling(start, end) {
            let to = match sparse {
                Some(()) => Translation::Zero { readonly: false },
                None => Translation::None,
            };
            plan.writes.push((index, a, b, to));
        }
    }

    fn map_sparse(
        &mut self,
        index: usize,
        start: u64,
        end: u64,
        plan: &mut Plan,
    ) -> Result<(), Errno> {
        let taken = |map: &RangeMap<()>| map.overlapping(start, end).next().is_some();
        if taken(&self.sparse) || taken(&self.removed) {
            return Err(Errno::EEXIST);
        }
        if !self.mapped(start, end).is_empty() {
            return Err(Errno::ENOSPC);
        }
        self.sparse.insert(start, end, ());
        plan.writes.push((index, start, end, Translation::Zero { readonly: false }));
        Ok(())
    }

    fn unmap_sparse(
        &mut self,
        index: usize,
        start: u64,
        end: u64,
        plan: &mut Plan,
    ) -> Result<(), Errno> {
        let exact = self.sparse.get(start).is_some_and(|(a, b, ())| (a, b) == (start, end));
        if !exact {
            return Err(Errno::ENOENT);
        }
        self.sparse.remove(start, end);
        self.removed.insert(start, end, ());
        self.unmap(index, start, end, plan);
        Ok(())
    }
}
