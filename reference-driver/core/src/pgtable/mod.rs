//! The GPU page table of one VM: four levels of 9 bits over 48-bit addresses.
//!
//! Owns the translation from GPU address to [`Phys`] and the choice of page sizes. It knows no
//! object, no fence and no lock: the caller holds the VM's page-table lock, which is taken in the
//! fence path, so nothing here allocates once a bind call is accepted.
//!
//! # Sizes
//! Memory is mapped by pages of 4 KiB, 64 KiB (16 neighbouring aligned entries marked contiguous)
//! and 2 MiB: the largest for which GPU address, rest of the range, offset in the object and
//! physical address are aligned and memory is contiguous. NULL and sparse ranges also use entries
//! of the upper levels (1 GiB, 512 GiB), so that a huge sparse region costs next to nothing.
//!
//! # Memory
//! 1. *Prepare*, outside the page-table lock: the nodes that the operation can need at most,
//!    whatever the table looks like by then, are computed ([`Need`]) and drawn as a [`Stock`], best
//!    through the VM's [`Spares`]. A map needs [`Need::map`] or, for NULL and sparse,
//!    [`Need::edges`]. An unmap needs [`Need::edges`] if it cuts a NULL mapping, else nothing: a 2
//!    MiB memory entry keeps the node that splitting it takes, as Linux deposits a page table
//!    behind a huge page.
//! 2. *Commit*, in the fence path: [`PageTable::map`], [`PageTable::unmap`] take nodes from the
//!    stock and put those they free into it. They fail only if the stock was too small, which is a
//!    bug of the driver: the VM is banned.
//! 3. *Clean up*: what is left in the stock goes back ([`Spares::give_back`]) or is dropped.
//!
//! [`Written::invalidate`] tells whether a TLB may hold something that is true no more.

mod check;
mod node;
mod stock;
mod tlb;
mod write;

pub use stock::{Need, Spares, Stock};
pub use tlb::Tlb;

use core::ops::ControlFlow;

use crate::facade::{AllocError, Box};
use crate::gpuva::Span;
use crate::host::Phys;
use node::{Dir, Leaf, Slot};

/// Size of the smallest page.
pub const SIZE_4K: u64 = 1 << 12;
/// Size of a contiguous group of small pages.
pub const SIZE_64K: u64 = 1 << 16;
/// Size of a large page.
pub const SIZE_2M: u64 = 1 << 21;
/// One past the highest address.
pub const VA_END: u64 = 1 << 48;

/// Level of the root; that of a node which holds 4 KiB entries is 0.
const ROOT: u32 = 3;

/// Bits of an address within a small page.
const SHIFT: u32 = SIZE_4K.trailing_zeros();

/// Bytes that one entry of a node at `level` spans.
#[inline]
const fn reach(level: u32) -> u64 {
    1 << (SHIFT + 9 * level)
}

/// What a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Memory from this address on.
    Memory(Phys),
    /// A NULL mapping: reads give 0, writes are dropped.
    Null,
    /// An unbacked part of a sparse region: the same.
    Sparse,
}

/// The translation of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// GPU addresses of the page.
    pub span: Span,
    /// What it shows.
    pub target: Target,
    /// Writes and atomics fault.
    pub readonly: bool,
    /// Atomics fault.
    pub no_atomic: bool,
    /// Page kind.
    pub kind: u8,
}

impl Entry {
    /// Whether a write, or an atomic, gets through.
    #[must_use]
    pub fn allows(&self, write: bool, atomic: bool) -> bool {
        !(write && self.readonly || atomic && self.no_atomic)
    }

    /// Where `addr`, which lies in the page, is in memory; `None` for NULL and sparse.
    #[must_use]
    pub fn phys(&self, addr: u64) -> Option<Phys> {
        match self.target {
            Target::Memory(Phys { aperture, addr: base }) => {
                Some(Phys { aperture, addr: base + (addr - self.span.start) })
            }
            Target::Null | Target::Sparse => None,
        }
    }
}

/// Physically contiguous memory: what backs a part of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it begins.
    pub phys: Phys,
    /// Its length in bytes from there, a multiple of 4 KiB, not 0.
    pub len: u64,
}

/// What a range is to show.
pub enum Source<'a> {
    /// Memory. The function gives the run that backs the object from a byte offset on.
    Memory {
        /// Offset of the range's start in the object, in bytes.
        offset: u64,
        /// Finds a run.
        runs: &'a mut dyn FnMut(u64) -> Run,
    },
    /// A NULL mapping.
    Null,
    /// A sparse region.
    Sparse,
}

/// Properties of the entries of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Props {
    /// Writes and atomics fault.
    pub readonly: bool,
    /// Atomics fault.
    pub no_atomic: bool,
    /// Page kind.
    pub kind: u8,
    /// The mapping lies in a sparse region, which comes back when it is unmapped.
    pub in_sparse: bool,
}

/// What an unmap leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Sparse regions: they come back where a mapping was.
    Sparse,
    /// Nothing: the sparse region goes as well.
    Nothing,
}

/// What a change of the page table came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pages written: of 4 KiB, of 64 KiB, of 2 MiB and above.
    pub pages: [u64; 3],
    /// Pages that were present and are not any more, or became sparse again.
    pub cleared: u64,
    /// Large pages and groups split.
    pub splits: u64,
    /// A translation that was present has changed: the TLBs must forget the range.
    pub invalidate: bool,
}

impl Written {
    /// Adds the figures of another change.
    pub fn add(&mut self, other: Written) {
        for (sum, more) in self.pages.iter_mut().zip(other.pages) {
            *sum += more;
        }
        self.cleared += other.cleared;
        self.splits += other.splits;
        self.invalidate |= other.invalidate;
    }
}

/// The page table.
#[derive(Debug)]
pub struct PageTable {
    root: Box<Dir>,
    /// Nodes below the root in use; those that large pages keep for their split do not count.
    nodes: u64,
}

impl PageTable {
    /// Maps nothing.
    ///
    /// # Errors
    /// [`AllocError`] without memory for the root.
    pub fn new() -> Result<Self, AllocError> {
        Ok(Self { root: Dir::new()?, nodes: 0 })
    }

    /// Number of nodes, the root included.
    #[must_use]
    pub fn nodes(&self) -> u64 {
        self.nodes + 1
    }

    /// The page that holds `addr`, if it is mapped. Pages of the upper levels (NULL and sparse) are
    /// given with their whole range.
    #[must_use]
    pub fn walk(&self, addr: u64) -> Option<Entry> {
        if addr >= VA_END {
            return None;
        }
        let mut dir = &self.root;
        let mut level = ROOT;
        loop {
            match &dir.slots[index(addr, level)] {
                Slot::Empty => return None,
                Slot::Page(pte) => return pte.entry(addr, reach(level)),
                Slot::Folded(leaf) => return leaf.entries[0].entry(addr, SIZE_2M),
                Slot::Leaf(leaf) => {
                    let pte = leaf.entries[index(addr, 0)];
                    return pte.entry(addr, if pte.is_group() { SIZE_64K } else { SIZE_4K });
                }
                Slot::Dir(below) => (dir, level) = (below, level - 1),
            }
        }
    }

    /// Calls `each` for the pages that overlap `span`, in order, until it breaks.
    pub fn each<B>(
        &self,
        span: Span,
        mut each: impl FnMut(Entry) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        each_of_dir(&self.root, ROOT, 0, span, &mut each)
    }

    /// Number of pages in `span`, present ones: of 4 KiB, of 64 KiB, of 2 MiB. A page of an upper
    /// level counts as the 2 MiB pages it stands for in `span`.
    #[must_use]
    pub fn count(&self, span: Span) -> [u64; 3] {
        let mut count = [0; 3];
        let _ = self.each::<()>(span, |entry| {
            let part = entry.span.clip(span).len();
            match entry.span.len() {
                SIZE_4K => count[0] += 1,
                SIZE_64K => count[1] += u64::from(part == SIZE_64K),
                _ => count[2] += part.div_ceil(SIZE_2M),
            }
            ControlFlow::Continue(())
        });
        count
    }
}

/// Index of `addr` in a node at `level`.
#[inline]
const fn index(addr: u64, level: u32) -> usize {
    ((addr >> (SHIFT + 9 * level)) % 512) as usize
}

/// The entries of a node at `level`, which begins at `base`, that overlap `span`: index and range.
#[inline]
fn overlapping(span: Span, base: u64, level: u32) -> impl Iterator<Item = (usize, Span)> {
    let (part, shift) = (span.clip(Span::new(base, base + 512 * reach(level))), SHIFT + 9 * level);
    let first = (part.start - base) >> shift;
    let end = if part.is_empty() { first } else { ((part.end - 1 - base) >> shift) + 1 };
    (first..end).map(move |index| {
        let start = base + (index << shift);
        (index as usize, Span::new(start, start + (1 << shift)))
    })
}

fn each_of_dir<B>(
    dir: &Dir,
    level: u32,
    base: u64,
    span: Span,
    each: &mut impl FnMut(Entry) -> ControlFlow<B>,
) -> ControlFlow<B> {
    for (index, page) in overlapping(span, base, level) {
        let entry = match &dir.slots[index] {
            Slot::Empty => None,
            Slot::Page(pte) => pte.entry(page.start, reach(level)),
            Slot::Folded(leaf) => leaf.entries[0].entry(page.start, SIZE_2M),
            Slot::Leaf(leaf) => {
                each_of_leaf(leaf, page.start, span, each)?;
                None
            }
            Slot::Dir(below) => {
                each_of_dir(below, level - 1, page.start, span, each)?;
                None
            }
        };
        if let Some(entry) = entry {
            each(entry)?;
        }
    }
    ControlFlow::Continue(())
}

fn each_of_leaf<B>(
    leaf: &Leaf,
    base: u64,
    span: Span,
    each: &mut impl FnMut(Entry) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let mut next = base;
    for (index, page) in overlapping(span, base, 0) {
        // The rest of a group has been given with its first.
        if page.start < next {
            continue;
        }
        let pte = leaf.entries[index];
        let size = if pte.is_group() { SIZE_64K } else { SIZE_4K };
        if let Some(entry) = pte.entry(page.start, size) {
            next = entry.span.end;
            each(entry)?;
        }
    }
    ControlFlow::Continue(())
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
