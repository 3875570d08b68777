//! Entries and nodes of the page table.
//!
//! # Invariants
//! - `used` of a node is the number of its entries that are not empty; a node in the table has
//!   some.
//! - A group (64 KiB) is 16 aligned entries of a leaf, all marked, that map one run.
//! - A folded leaf stands for one 2 MiB page: its first entry holds it, the others are empty. It is
//!   the node that splitting the page will need.

use super::{Entry, Props, Target, SIZE_4K};
use crate::facade::{AllocError, Box};
use crate::gpuva::Span;
use crate::host::{Aperture, Phys};

/// Small pages in a group.
pub(super) const GROUP: usize = 16;

/// A page-table entry: bits 0-1 what it is, 2 the aperture, 3 read-only, 4 one of a group,
/// 5 in a sparse region, 6 no atomics, 12-51 the address, 56-63 the page kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pte(u64);

impl Pte {
    pub(super) const EMPTY: Self = Self(0);
    const MEMORY: u64 = 1;
    const NULL: u64 = 2;
    const SPARSE: u64 = 3;
    const WHAT: u64 = 3;
    const SYSTEM: u64 = 1 << 2;
    const READONLY: u64 = 1 << 3;
    const GROUP: u64 = 1 << 4;
    const IN_SPARSE: u64 = 1 << 5;
    const NO_ATOMIC: u64 = 1 << 6;
    const ADDR: u64 = (1 << 52) - SIZE_4K;
    const KIND_SHIFT: u32 = 56;

    pub(super) const ALL_SPARSE: Self = Self(Self::SPARSE);

    pub(super) fn new(target: Target, props: Props) -> Self {
        let what = match target {
            Target::Memory(Phys { aperture, addr }) => {
                assert!(addr & !Self::ADDR == 0, "an address of 52 bits, page aligned");
                let system = if aperture == Aperture::System { Self::SYSTEM } else { 0 };
                Self::MEMORY | system | addr
            }
            Target::Null => Self::NULL,
            Target::Sparse => return Self::ALL_SPARSE,
        };
        let readonly = if props.readonly { Self::READONLY } else { 0 };
        let in_sparse = if props.in_sparse { Self::IN_SPARSE } else { 0 };
        let no_atomic = if props.no_atomic { Self::NO_ATOMIC } else { 0 };
        Self(what | readonly | no_atomic | in_sparse | u64::from(props.kind) << Self::KIND_SHIFT)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 & Self::WHAT == 0
    }

    pub(super) const fn is_memory(self) -> bool {
        self.0 & Self::WHAT == Self::MEMORY
    }

    pub(super) const fn is_group(self) -> bool {
        self.0 & Self::GROUP != 0
    }

    pub(super) const fn grouped(self) -> Self {
        Self(self.0 | Self::GROUP)
    }

    pub(super) const fn single(self) -> Self {
        Self(self.0 & !Self::GROUP)
    }

    /// The entry for what lies `delta` bytes further.
    pub(super) const fn plus(self, delta: u64) -> Self {
        if self.is_memory() {
            Self(self.0 + delta)
        } else {
            self
        }
    }

    /// What is left when a mapping goes but its sparse region stays.
    pub(super) const fn below(self) -> Self {
        if self.0 & Self::WHAT == Self::SPARSE || self.0 & Self::IN_SPARSE != 0 {
            Self::ALL_SPARSE
        } else {
            Self::EMPTY
        }
    }

    /// The memory that it shows.
    pub(super) fn memory(self) -> Option<Phys> {
        match self.target() {
            Some(Target::Memory(phys)) => Some(phys),
            _ => None,
        }
    }

    fn target(self) -> Option<Target> {
        let aperture = if self.0 & Self::SYSTEM != 0 { Aperture::System } else { Aperture::Vram };
        match self.0 & Self::WHAT {
            Self::MEMORY => Some(Target::Memory(Phys { aperture, addr: self.0 & Self::ADDR })),
            Self::NULL => Some(Target::Null),
            Self::SPARSE => Some(Target::Sparse),
            _ => None,
        }
    }

    /// The page of `size` bytes around `addr`, of which this is an entry.
    pub(super) fn entry(self, addr: u64, size: u64) -> Option<Entry> {
        let start = addr & !(size - 1);
        let target = match self.target()? {
            // An entry of a group holds its own address, the page that of the group.
            Target::Memory(phys) if self.is_group() => {
                Target::Memory(Phys { addr: phys.addr & !(size - 1), ..phys })
            }
            target => target,
        };
        Some(Entry {
            span: Span::new(start, start + size),
            target,
            readonly: self.0 & Self::READONLY != 0,
            no_atomic: self.0 & Self::NO_ATOMIC != 0,
            kind: (self.0 >> Self::KIND_SHIFT) as u8,
        })
    }
}

/// Entries of a node.
pub(super) const ENTRIES: usize = 512;

/// A node of 4 KiB entries.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) used: u32,
    pub(super) entries: Box<[Pte; ENTRIES]>,
    /// Next node of a stock.
    pub(super) next: Option<Box<Leaf>>,
}

impl Leaf {
    pub(super) fn new() -> Result<Box<Self>, AllocError> {
        Box::new(Self { used: 0, entries: Box::filled(|| Pte::EMPTY)?, next: None })
    }

    /// Makes the leaf empty.
    pub(super) fn clear(&mut self) {
        self.used = 0;
        self.entries.fill(Pte::EMPTY);
    }

    /// Makes the leaf stand for one 2 MiB page.
    pub(super) fn fold(&mut self, pte: Pte) {
        self.clear();
        (self.used, self.entries[0]) = (1, pte);
    }

    /// Spreads one 2 MiB page over the leaf, in groups.
    pub(super) fn spread(&mut self, pte: Pte) {
        for (index, entry) in (0..).zip(self.entries.iter_mut()) {
            *entry = pte.plus(index * SIZE_4K).grouped();
        }
        self.used = ENTRIES as u32;
    }

    /// Sets one entry and returns what it was.
    pub(super) fn set(&mut self, index: usize, pte: Pte) -> Pte {
        let old = core::mem::replace(&mut self.entries[index], pte);
        self.used = self.used + u32::from(!pte.is_empty()) - u32::from(!old.is_empty());
        old
    }

    /// Splits the group that `index` is in, if it is in one. True if so.
    pub(super) fn split_group(&mut self, index: usize) -> bool {
        if !self.entries[index].is_group() {
            return false;
        }
        let first = index / GROUP * GROUP;
        for entry in &mut self.entries[first..first + GROUP] {
            *entry = entry.single();
        }
        true
    }
}

/// One entry of an upper node.
#[derive(Debug)]
pub(super) enum Slot {
    /// Nothing below.
    Empty,
    /// A NULL or sparse page of the level's size.
    Page(Pte),
    /// A node of upper entries.
    Dir(Box<Dir>),
    /// A node of 4 KiB entries.
    Leaf(Box<Leaf>),
    /// A 2 MiB page.
    Folded(Box<Leaf>),
}

/// A node of the upper levels.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) used: u32,
    pub(super) slots: Box<[Slot; ENTRIES]>,
    /// Next node of a stock.
    pub(super) next: Option<Box<Dir>>,
}

impl Dir {
    pub(super) fn new() -> Result<Box<Self>, AllocError> {
        Box::new(Self { used: 0, slots: Box::filled(|| Slot::Empty)?, next: None })
    }

    /// Sets one entry and returns what it was.
    pub(super) fn set(&mut self, index: usize, slot: Slot) -> Slot {
        let filled = !matches!(slot, Slot::Empty);
        let old = core::mem::replace(&mut self.slots[index], slot);
        self.used = self.used + u32::from(filled) - u32::from(!matches!(old, Slot::Empty));
        old
    }

    /// Takes one entry out.
    pub(super) fn take(&mut self, index: usize) -> Slot {
        self.set(index, Slot::Empty)
    }

    /// Spreads one NULL or sparse page over the node.
    pub(super) fn spread(&mut self, pte: Pte) {
        for slot in self.slots.iter_mut() {
            *slot = Slot::Page(pte);
        }
        self.used = ENTRIES as u32;
    }
}
