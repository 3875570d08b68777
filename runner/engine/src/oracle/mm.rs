//! Address spaces of processes: what the CPU finds at its addresses, and so does the GPU through a mirror.
//!
//! As with a VM there are two views. The *layout* is what the calls so far have made, in the order in which
//! they were begun. The *translations* have histories: an access that is not ordered against a call may find
//! what was there before it or what it made. Objects are content; they keep it when `mremap` moves them, and
//! new memory is a new object.
//!
//! Owns also where pages may be ([`Stay`]): a page is in device memory only if something may have moved it
//! there, and nothing that is ordered after that has brought it back.

use super::clock::{Clock, Clocks, Event};
use super::history::{Dated, prune, visible};
use super::ranges::RangeMap;
use super::space::{Placed, Translation};
use super::value::{Object, Source};
use std::collections::BTreeMap;

/// An address space of a process.
pub type MmId = usize;

/// Permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// None.
    None,
    /// Reads.
    Read,
    /// Reads and writes.
    Write,
    /// Reads; writes wait for somebody who is told of them.
    Told,
    /// Reads and writes by the CPU; no device reaches it.
    Cpu,
}

/// What memory is.
#[derive(Clone, Debug)]
pub struct Nature {
    /// Each process has a copy of its own after a fork.
    pub private: bool,
    /// Anonymous, of ordinary pages: it may move to a device, and be exclusive.
    pub movable: bool,
    /// What it holds again when its pages are dropped; none: what it held, as the pages are only mapped.
    pub behind: Option<Source>,
}

/// What becomes of a mapping in a forked child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtFork {
    /// It is there.
    #[default]
    Copied,
    /// It is there, and holds zeros.
    Wiped,
    /// It is not there.
    Left,
}

/// A mapping. Equal at all of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vma {
    object: Object,
    /// To be added to an address to get the offset.
    shift: u64,
    access: Access,
    at_fork: AtFork,
    /// The device was told to leave atomics to the CPU.
    cpu_atomics: bool,
}

impl Vma {
    fn translation(&self, movable: bool) -> Translation {
        let Self { object, shift, access, cpu_atomics, .. } = *self;
        match access {
            Access::None => Translation::Shut,
            Access::Cpu => Translation::Cpu { object, shift },
            access => Translation::Object {
                object,
                shift,
                readonly: matches!(access, Access::Read | Access::Told),
                atomics: movable && !cpu_atomics,
                told: access == Access::Told,
            },
        }
    }
}

/// A call that changes mappings. Addresses and lengths are in bytes.
#[derive(Clone, Debug)]
pub enum MmOp {
    /// Memory in the place of what was there.
    Map {
        /// Where.
        addr: u64,
        /// Bytes.
        len: u64,
        /// What.
        object: Object,
        /// Permissions.
        access: Access,
    },
    /// Nothing any more.
    Unmap {
        /// Where.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// Other permissions.
    Protect {
        /// Where.
        addr: u64,
        /// Bytes.
        len: u64,
        /// Which.
        access: Access,
    },
    /// Moved or resized.
    Remap {
        /// From.
        addr: u64,
        /// Bytes.
        len: u64,
        /// To.
        to: u64,
        /// Bytes there.
        new_len: u64,
        /// What stays at the old address, with `MREMAP_DONTUNMAP`: a new object, or none for memory that
        /// is not private and so stays the same.
        kept: Option<Option<Object>>,
        /// The object of what is new there.
        grown: Option<Object>,
    },
    /// Whether the device is to leave atomics to the CPU.
    Atomics {
        /// Where.
        addr: u64,
        /// Bytes.
        len: u64,
        /// It is.
        cpu: bool,
    },
    /// What becomes of mappings at a fork.
    AtFork {
        /// Where.
        addr: u64,
        /// Bytes.
        len: u64,
        /// What.
        at_fork: AtFork,
    },
}

/// Where a page may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stay {
    at: Event,
    /// In device memory, perhaps; else in system memory, for certain.
    device: bool,
}

impl Dated for Stay {
    fn at(&self) -> Event {
        self.at
    }

    fn overwrites(&self) -> bool {
        !self.device
    }
}

/// A call in flight.
#[derive(Clone, Debug)]
pub struct MmCall {
    pub(super) mm: MmId,
    pub(super) at: Event,
    pub(super) touched: Vec<(u64, u64)>,
    /// The layout before, to go back to.
    before: Vec<(u64, u64, Option<Vma>)>,
}

/// An address space.
#[derive(Debug)]
pub struct Mm {
    layout: RangeMap<Vma>,
    translations: RangeMap<Vec<Placed>>,
    /// It has ended.
    pub(super) over: bool,
}

impl Mm {
    pub(super) fn new(at: Event) -> Self {
        let mut translations = RangeMap::default();
        let nothing = Placed { at, certain: true, to: Translation::None };
        translations.insert(0, u64::MAX, vec![nothing]);
        Self { layout: RangeMap::default(), translations, over: false }
    }

    /// Objects that are mapped, each once.
    pub(super) fn objects(&self) -> Vec<Object> {
        let mut objects: Vec<Object> = self.layout.iter().map(|(.., vma)| vma.object).collect();
        objects.sort_unstable();
        objects.dedup();
        objects
    }

    /// A child's address space: `of` gives the child's object for one of the parent's, `zeros` one for a
    /// mapping that is wiped.
    pub(super) fn forked(
        &self,
        at: Event,
        of: &mut dyn FnMut(Object) -> Object,
        zeros: &mut dyn FnMut(u64) -> Object,
        natures: &mut dyn FnMut(Object) -> bool,
    ) -> Self {
        let mut child = Self::new(at);
        for (start, end, vma) in self.layout.iter() {
            let vma = match vma.at_fork {
                AtFork::Copied => Vma { object: of(vma.object), ..*vma },
                AtFork::Left => continue,
                AtFork::Wiped => {
                    Vma { object: zeros(end - start), shift: start.wrapping_neg(), ..*vma }
                }
            };
            let to = vma.translation(natures(vma.object));
            child.layout.insert(start, end, vma);
            child.translations.insert(start, end, vec![Placed { at, certain: true, to }]);
        }
        child
    }

    /// A call is about to be made: what it makes may be found from now on.
    pub(super) fn begin(
        &mut self,
        mm: MmId,
        op: &MmOp,
        at: Event,
        movable: &dyn Fn(Object) -> bool,
    ) -> MmCall {
        let changes = self.changes(op);
        let mut touched = Vec::new();
        let mut before = Vec::new();
        for (start, end, _) in &changes {
            touched.push((*start, *end));
            let tiles = self.layout.tiling(*start, *end);
            before.extend(tiles.into_iter().map(|(a, b, vma)| (a, b, vma.copied())));
        }
        for (start, end, vma) in changes {
            let to = vma.map_or(Translation::None, |vma| vma.translation(movable(vma.object)));
            let placed = Placed { at, certain: false, to };
            for (.., history) in self.translations.within_mut(start, end) {
                history.push(placed);
            }
            self.layout.remove(start, end);
            if let Some(vma) = vma {
                self.layout.insert(start, end, vma);
            }
        }
        MmCall { mm, at, touched, before }
    }

    /// The call returned.
    pub(super) fn end(&mut self, call: &MmCall, done: bool, clocks: &Clocks, horizon: &Clock) {
        for (start, end) in &call.touched {
            for (.., history) in self.translations.within_mut(*start, *end) {
                if done {
                    let mine = history.iter_mut().filter(|placed| placed.at == call.at);
                    mine.for_each(|placed| placed.certain = true);
                } else {
                    history.retain(|placed| placed.at != call.at);
                }
                prune(history, clocks, horizon);
            }
        }
        if done {
            return;
        }
        for (start, end, vma) in &call.before {
            self.layout.remove(*start, *end);
            if let Some(vma) = vma {
                self.layout.insert(*start, *end, *vma);
            }
        }
    }

    /// What a call changes, in the order of the kernel's doing it.
    fn changes(&self, op: &MmOp) -> Vec<(u64, u64, Option<Vma>)> {
        let span = |addr: u64, len: u64| (addr, addr.saturating_add(len));
        let with = |addr: u64, len: u64, change: &dyn Fn(Vma) -> Vma| {
            let (start, end) = span(addr, len);
            let parts = self.layout.within(start, end);
            parts.map(|(a, b, vma)| (a, b, Some(change(*vma)))).collect::<Vec<_>>()
        };
        match *op {
            MmOp::Map { addr, len, object, access } => {
                let (start, end) = span(addr, len);
                let shift = addr.wrapping_neg();
                let at_fork = AtFork::default();
                let cpu_atomics = false;
                vec![(start, end, Some(Vma { object, shift, access, at_fork, cpu_atomics }))]
            }
            MmOp::Unmap { addr, len } => {
                let (start, end) = span(addr, len);
                vec![(start, end, None)]
            }
            MmOp::Protect { addr, len, access } => with(addr, len, &|vma| Vma { access, ..vma }),
            MmOp::AtFork { addr, len, at_fork } => with(addr, len, &|vma| Vma { at_fork, ..vma }),
            MmOp::Atomics { addr, len, cpu } => {
                with(addr, len, &|vma| Vma { cpu_atomics: cpu, ..vma })
            }
            MmOp::Remap { addr, len, to, new_len, kept, grown } => {
                self.moves((addr, len), (to, new_len), kept, grown)
            }
        }
    }

    fn moves(
        &self,
        (addr, len): (u64, u64),
        (to, new_len): (u64, u64),
        kept: Option<Option<Object>>,
        grown: Option<Object>,
    ) -> Vec<(u64, u64, Option<Vma>)> {
        let mut changes = Vec::new();
        let same = to == addr;
        if !same {
            changes.push((to, to + new_len, None));
        }
        for (a, b, vma) in self.layout.within(addr, addr + len) {
            let (from, until) = (a - addr, (b - addr).min(new_len));
            if from < until && !same {
                let shift = vma.shift.wrapping_add(addr).wrapping_sub(to);
                changes.push((to + from, to + until, Some(Vma { shift, ..*vma })));
            }
            let left = match kept {
                None => None,
                Some(None) => Some(*vma),
                Some(Some(object)) => Some(Vma { object, shift: addr.wrapping_neg(), ..*vma }),
            };
            if !same {
                changes.push((a, b, left));
            }
        }
        if same && new_len < len {
            changes.push((addr + new_len, addr + len, None));
        }
        let last = self.layout.get(addr + len - 1).map(|(.., vma)| *vma);
        if let (Some(object), Some(last)) = (grown, last)
            && new_len > len
        {
            // The object's offsets begin at the start of the new memory.
            let shift = (to + len).wrapping_neg();
            changes.push((to + len, to + new_len, Some(Vma { object, shift, ..last })));
        }
        changes
    }

    /// Where accesses to [`start`, `end`) at an event may go, piece by piece.
    pub(super) fn translate(
        &self,
        clocks: &Clocks,
        (start, end): (u64, u64),
        at: Event,
    ) -> Vec<(u64, u64, Vec<Placed>)> {
        let pieces = self.translations.within(start, end);
        pieces
            .map(|(a, b, history)| {
                (a, b, visible(clocks, history, Some(at)).into_iter().copied().collect())
            })
            .collect()
    }

    /// The objects mapped in a range now, with their offsets.
    pub(super) fn mapped(&self, start: u64, end: u64) -> Vec<(Object, u64, u64)> {
        let parts = self.layout.within(start, end);
        let offset = |at: u64, vma: &Vma| at.wrapping_add(vma.shift);
        parts.map(|(a, b, vma)| (vma.object, offset(a, vma), offset(b, vma))).collect()
    }

    /// Ranges of addresses that can be read now, and whether written.
    pub(super) fn accessible(&self, start: u64, end: u64) -> Vec<(u64, u64, Access)> {
        let parts = self.layout.tiling(start, end);
        parts
            .into_iter()
            .map(|(a, b, vma)| (a, b, vma.map_or(Access::None, |vma| vma.access)))
            .collect()
    }
}

/// Where pages are, of the objects that may leave system memory.
#[derive(Debug, Default)]
pub(super) struct Stays {
    objects: BTreeMap<Object, RangeMap<Vec<Stay>>>,
}

impl Stays {
    /// Something may move pages of an object to a device from this event on.
    pub(super) fn may_leave(&mut self, object: Object, (start, end): (u64, u64), at: Event) {
        let stays = self.objects.entry(object).or_default();
        let gaps: Vec<(u64, u64)> = stays
            .tiling(start, end)
            .into_iter()
            .filter(|(.., stay)| stay.is_none())
            .map(|(a, b, _)| (a, b))
            .collect();
        for (a, b) in gaps {
            stays.insert(a, b, Vec::new());
        }
        for (.., history) in stays.within_mut(start, end) {
            match history.last_mut() {
                // A later moment of one timeline says all that the earlier one did.
                Some(last) if last.device && last.at.timeline == at.timeline => last.at = at,
                _ => history.push(Stay { at, device: true }),
            }
        }
    }

    /// Pages of an object are in system memory at this event, for certain.
    pub(super) fn came_back(
        &mut self,
        object: Object,
        (start, end): (u64, u64),
        at: Event,
        clocks: &Clocks,
        horizon: &Clock,
    ) {
        let Some(stays) = self.objects.get_mut(&object) else { return };
        for (.., history) in stays.within_mut(start, end) {
            history.push(Stay { at, device: false });
            prune(history, clocks, horizon);
        }
    }

    /// Whether a page of an object may be in device memory at this event.
    pub(super) fn may_be_away(
        &self,
        object: Object,
        offset: u64,
        at: Event,
        clocks: &Clocks,
    ) -> bool {
        let history = self.objects.get(&object).and_then(|stays| stays.get(offset));
        history.is_some_and(|(.., history)| {
            visible(clocks, history, Some(at)).iter().any(|stay| stay.device)
        })
    }
}
