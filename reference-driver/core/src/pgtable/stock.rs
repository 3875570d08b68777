//! Nodes set aside, so that the fence path needs no memory.
//!
//! Owns how many an operation can need, and the free nodes themselves. They are chained through
//! themselves, so that taking and giving back needs no memory either. Free nodes are empty ones.

use super::node::{Dir, Leaf};
use super::{reach, ROOT};
use crate::facade::{AllocError, Box};
use crate::gpuva::Span;

/// Number of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Upper nodes.
    dirs: usize,
    /// Nodes of 4 KiB entries.
    leaves: usize,
}

impl Need {
    /// No node.
    pub const NOTHING: Self = Self { dirs: 0, leaves: 0 };
    /// The most that [`Need::edges`] can come to.
    const MOST_EDGES: Self = Self { dirs: 4, leaves: 2 };

    /// Enough to map memory in `span`, whatever the sizes of its pages and whatever is there.
    #[must_use]
    pub fn map(span: Span) -> Self {
        let blocks =
            |level| ((span.end - 1) / reach(level) - span.start / reach(level) + 1) as usize;
        Self { dirs: blocks(ROOT) + blocks(ROOT - 1), leaves: blocks(1) }
    }

    /// Enough to map NULL or a sparse region in `span`, or to unmap `span`, whatever is there: a
    /// large page may be cut at either edge.
    #[must_use]
    pub fn edges(span: Span) -> Self {
        let cut = |level: u32| {
            let size = reach(level);
            let both = [span.start, span.end].map(|edge| usize::from(edge % size != 0));
            if span.start / size == span.end / size {
                both[0].max(both[1])
            } else {
                both[0] + both[1]
            }
        };
        Self { dirs: cut(ROOT) + cut(ROOT - 1), leaves: cut(1) }
    }
}

/// Free nodes for one operation, or for several.
#[derive(Debug, Default)]
pub struct Stock {
    have: Need,
    dirs: Option<Box<Dir>>,
    leaves: Option<Box<Leaf>>,
}

impl Stock {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self { have: Need::NOTHING, dirs: None, leaves: None }
    }

    /// Allocates until the stock holds `need`. Not in the fence path.
    ///
    /// # Errors
    /// [`AllocError`]; what was allocated until then stays in the stock.
    pub fn fill(&mut self, need: Need) -> Result<(), AllocError> {
        while self.have.dirs < need.dirs {
            self.put_dir(Dir::new()?);
        }
        while self.have.leaves < need.leaves {
            self.put_leaf(Leaf::new()?);
        }
        Ok(())
    }

    /// Adds all nodes of another stock.
    pub fn append(&mut self, mut other: Stock) {
        while let Ok(dir) = other.take_dir() {
            self.put_dir(dir);
        }
        while let Ok(leaf) = other.take_leaf() {
            self.put_leaf(leaf);
        }
    }

    /// Moves nodes from another stock until this one holds `need`, leaving `least` there.
    fn fill_from(&mut self, other: &mut Stock, need: Need, least: Need) {
        while self.have.dirs < need.dirs && other.have.dirs > least.dirs {
            let Ok(dir) = other.take_dir() else { break };
            self.put_dir(dir);
        }
        while self.have.leaves < need.leaves && other.have.leaves > least.leaves {
            let Ok(leaf) = other.take_leaf() else { break };
            self.put_leaf(leaf);
        }
    }

    fn covers(&self, need: Need) -> bool {
        self.have.dirs >= need.dirs && self.have.leaves >= need.leaves
    }

    pub(super) fn take_dir(&mut self) -> Result<Box<Dir>, AllocError> {
        let mut dir = self.dirs.take().ok_or(AllocError)?;
        self.dirs = dir.next.take();
        self.have.dirs -= 1;
        Ok(dir)
    }

    pub(super) fn take_leaf(&mut self) -> Result<Box<Leaf>, AllocError> {
        let mut leaf = self.leaves.take().ok_or(AllocError)?;
        self.leaves = leaf.next.take();
        self.have.leaves -= 1;
        Ok(leaf)
    }

    /// Takes an empty node back.
    pub(super) fn put_dir(&mut self, mut dir: Box<Dir>) {
        debug_assert!(dir.used == 0, "free nodes are empty");
        dir.next = self.dirs.take();
        self.dirs = Some(dir);
        self.have.dirs += 1;
    }

    /// Takes an empty node back.
    pub(super) fn put_leaf(&mut self, mut leaf: Box<Leaf>) {
        debug_assert!(leaf.used == 0, "free nodes are empty");
        leaf.next = self.leaves.take();
        self.leaves = Some(leaf);
        self.have.leaves += 1;
    }
}

impl Drop for Stock {
    /// One by one: a chain dropped as a whole would recurse as deep as it is long.
    fn drop(&mut self) {
        while self.take_dir().is_ok() {}
        while self.take_leaf().is_ok() {}
    }
}

/// The free nodes of a VM, kept between bind calls under the VM lock, with some set aside for
/// unmaps.
#[derive(Debug, Default)]
pub struct Spares {
    stock: Stock,
}

impl Spares {
    /// Nodes kept at most when some are given back; the rest is freed.
    const KEEP: Need = Need { dirs: 8, leaves: 16 };

    /// None yet; call [`Spares::fill`].
    #[must_use]
    pub const fn new() -> Self {
        Self { stock: Stock::new() }
    }

    /// Fills up what is set aside for unmaps. When the VM is created, before anything is mapped;
    /// later each draw does it.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn fill(&mut self) -> Result<(), AllocError> {
        self.stock.fill(Need::MOST_EDGES)
    }

    /// A stock that covers `need`; for operations that may fail for lack of memory.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn draw(&mut self, need: Need) -> Result<Stock, AllocError> {
        self.fill()?;
        let mut stock = Stock::new();
        stock.fill_from(&mut self.stock, need, Need::MOST_EDGES);
        match stock.fill(need) {
            Ok(()) => Ok(stock),
            Err(error) => {
                self.give_back(stock);
                Err(error)
            }
        }
    }

    /// A stock that covers `need`, which must be that of an unmap; takes what is set aside when
    /// there is no memory.
    ///
    /// # Errors
    /// [`AllocError`] when that was taken before and could not be filled up since.
    pub fn draw_unmap(&mut self, need: Need) -> Result<Stock, AllocError> {
        if need == Need::NOTHING {
            return Ok(Stock::new());
        }
        if let Ok(stock) = self.draw(need) {
            return Ok(stock);
        }
        let mut stock = Stock::new();
        stock.fill_from(&mut self.stock, need, Need::NOTHING);
        if stock.covers(need) {
            return Ok(stock);
        }
        self.give_back(stock);
        Err(AllocError)
    }

    /// Takes back what a commit left over or freed; frees what is too much. Not in the fence path.
    pub fn give_back(&mut self, mut stock: Stock) {
        self.stock.fill_from(&mut stock, Self::KEEP, Need::NOTHING);
    }
}
