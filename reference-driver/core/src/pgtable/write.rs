//! Writing the page table: map and unmap. Runs in the fence path: nodes come from a stock.

use super::node::{Dir, Leaf, Pte, Slot, GROUP};
use super::{
    index, overlapping, reach, Leave, PageTable, Props, Run, Source, Stock, Target, Written, ROOT,
    SIZE_2M, SIZE_4K, SIZE_64K, VA_END,
};
use crate::facade::{AllocError, Box};
use crate::gpuva::Span;
use crate::host::Phys;

/// One change under way.
struct Change<'a> {
    span: Span,
    stock: &'a mut Stock,
    /// Told of the memory behind each page that gives way.
    gone: &'a mut dyn FnMut(Phys),
    done: Written,
    /// Nodes that joined the table less those that left it.
    nodes: i64,
}

/// Where the entries of a map come from.
struct Pages<'a> {
    start: u64,
    source: Source<'a>,
    props: Props,
    /// The run found last, by offset in the object.
    run: Option<(u64, Run)>,
}

impl PageTable {
    /// Makes `span` show `source`, whatever was there. Allocates nothing.
    ///
    /// # Errors
    /// [`AllocError`] when the stock does not hold what [`super::Need`] says; the range is then
    /// written in part.
    pub fn map(
        &mut self,
        span: Span,
        source: Source<'_>,
        props: Props,
        stock: &mut Stock,
    ) -> Result<Written, AllocError> {
        self.map_over(span, source, props, stock, &mut |_| {})
    }

    /// As [`PageTable::map`]; `gone` is told of the memory behind each page that was there, of 4 KiB
    /// or 2 MiB.
    ///
    /// # Errors
    /// As [`PageTable::map`].
    pub fn map_over(
        &mut self,
        span: Span,
        source: Source<'_>,
        props: Props,
        stock: &mut Stock,
        gone: &mut dyn FnMut(Phys),
    ) -> Result<Written, AllocError> {
        let mut pages = Pages { start: span.start, source, props, run: None };
        self.change(span, stock, gone, |change, root| {
            if let Below::Leaf(leaf, base) = below(root, span) {
                change.map_leaf(leaf, base, &mut pages);
                return Ok(());
            }
            change.map_dir(root, ROOT, 0, &mut pages)
        })
    }

    /// Makes `span` show nothing or, with [`Leave::Sparse`], the sparse regions that are there.
    /// Allocates nothing.
    ///
    /// # Errors
    /// As [`PageTable::map`].
    pub fn unmap(
        &mut self,
        span: Span,
        leave: Leave,
        stock: &mut Stock,
    ) -> Result<Written, AllocError> {
        self.take(span, leave, stock, &mut |_| {})
    }

    /// As [`PageTable::unmap`]; `gone` as in [`PageTable::map_over`].
    ///
    /// # Errors
    /// As [`PageTable::map`].
    pub fn take(
        &mut self,
        span: Span,
        leave: Leave,
        stock: &mut Stock,
        gone: &mut dyn FnMut(Phys),
    ) -> Result<Written, AllocError> {
        self.change(span, stock, gone, |change, root| {
            match below(root, span) {
                Below::Nothing => return Ok(()),
                Below::Leaf(leaf, base) => {
                    change.unmap_leaf(leaf, base, leave);
                    if leaf.used > 0 {
                        return Ok(());
                    }
                }
                Below::Others => {}
            }
            change.unmap_dir(root, ROOT, 0, leave)
        })
    }

    fn change(
        &mut self,
        span: Span,
        stock: &mut Stock,
        gone: &mut dyn FnMut(Phys),
        work: impl FnOnce(&mut Change<'_>, &mut Dir) -> Result<(), AllocError>,
    ) -> Result<Written, AllocError> {
        assert!(!span.is_empty() && span.end <= VA_END, "the VA space is within the page table");
        assert!(span.start % SIZE_4K == 0 && span.end % SIZE_4K == 0, "whole pages");
        let mut change = Change { span, stock, gone, done: Written::default(), nodes: 0 };
        let result = work(&mut change, &mut self.root);
        self.nodes = self.nodes.saturating_add_signed(change.nodes);
        result.map(|()| change.done)
    }
}

/// What is there for a range.
enum Below<'a> {
    /// Nothing.
    Nothing,
    /// The range is a part of what this leaf has, which begins at the address.
    Leaf(&'a mut Leaf, u64),
    /// Anything else.
    Others,
}

/// The short way to the few pages that most changes are of.
fn below(root: &mut Dir, span: Span) -> Below<'_> {
    let base = span.start / SIZE_2M * SIZE_2M;
    if span.end > base + SIZE_2M || span.len() == SIZE_2M {
        return Below::Others;
    }
    let (mut dir, mut level) = (root, ROOT);
    loop {
        match &mut dir.slots[index(base, level)] {
            Slot::Empty => return Below::Nothing,
            Slot::Leaf(leaf) => return Below::Leaf(leaf, base),
            Slot::Dir(below) => (dir, level) = (below, level - 1),
            Slot::Page(_) | Slot::Folded(_) => return Below::Others,
        }
    }
}

impl Pages<'_> {
    /// The entry for a page at `addr`, if one of `size` may be used there and lies in the range,
    /// of which `rest` bytes are left from `addr` on.
    fn page(&mut self, addr: u64, size: u64, rest: u64) -> Option<Pte> {
        if addr % size != 0 || rest < size {
            return None;
        }
        let target = match &mut self.source {
            Source::Null => Target::Null,
            Source::Sparse => Target::Sparse,
            Source::Memory { .. } if size > SIZE_2M => return None,
            Source::Memory { offset, runs } => {
                let offset = *offset + (addr - self.start);
                let (at, run) = match self.run {
                    Some((at, run)) if at <= offset && offset - at < run.len => (at, run),
                    _ => (offset, runs(offset)),
                };
                assert!(run.len >= SIZE_4K, "a run is not empty");
                self.run = Some((at, run));
                let phys = Phys { addr: run.phys.addr + (offset - at), ..run.phys };
                let contiguous = run.len - (offset - at) >= size;
                if !contiguous || phys.addr % size != 0 || offset % size != 0 {
                    return None;
                }
                Target::Memory(phys)
            }
        };
        Some(Pte::new(target, self.props))
    }
}

impl Change<'_> {
    /// Notes that a present page of this entry gave way to `new`.
    fn replaced(&mut self, old: Pte, new: Pte) {
        if let Some(phys) = old.memory() {
            (self.gone)(phys);
        }
        if !old.is_empty() && old.single() != new.single() {
            self.done.invalidate = true;
        }
    }

    fn rest(&self, addr: u64) -> u64 {
        self.span.end - addr
    }

    // ---- map -----------------------------------------------------------------------------------

    fn map_dir(
        &mut self,
        dir: &mut Dir,
        level: u32,
        base: u64,
        pages: &mut Pages<'_>,
    ) -> Result<(), AllocError> {
        for (index, page) in overlapping(self.span, base, level) {
            if self.span.contains(page) {
                if let Some(pte) = pages.page(page.start, reach(level), self.rest(page.start)) {
                    self.put_page(dir, index, pte)?;
                    continue;
                }
            }
            self.open(dir, index, level)?;
            match &mut dir.slots[index] {
                Slot::Dir(below) => self.map_dir(below, level - 1, page.start, pages)?,
                Slot::Leaf(leaf) => self.map_leaf(leaf, page.start, pages),
                _ => unreachable!("the slot was opened"),
            }
        }
        Ok(())
    }

    /// Writes one page of an upper level.
    fn put_page(&mut self, dir: &mut Dir, index: usize, pte: Pte) -> Result<(), AllocError> {
        self.done.pages[2] += 1;
        let new = match dir.take(index) {
            Slot::Leaf(mut leaf) => {
                for (delta, old) in (0..).step_by(SIZE_4K as usize).zip(leaf.entries.iter()) {
                    self.replaced(*old, pte.plus(delta));
                }
                self.nodes -= 1;
                leaf.fold(pte);
                Slot::Folded(leaf)
            }
            Slot::Folded(mut leaf) => {
                self.replaced(leaf.entries[0], pte);
                leaf.fold(pte);
                Slot::Folded(leaf)
            }
            Slot::Dir(mut below) => {
                self.dismantle(&mut below);
                self.stock.put_dir(below);
                self.nodes -= 1;
                Slot::Page(pte)
            }
            old @ (Slot::Empty | Slot::Page(_)) => {
                if let Slot::Page(old) = old {
                    self.replaced(old, pte);
                }
                if pte.is_memory() {
                    let mut leaf = self.stock.take_leaf()?;
                    leaf.fold(pte);
                    Slot::Folded(leaf)
                } else {
                    Slot::Page(pte)
                }
            }
        };
        dir.set(index, new);
        Ok(())
    }

    /// Empties a node and all below it into the stock.
    fn dismantle(&mut self, dir: &mut Dir) {
        // A node in the table is not empty, so something present goes.
        self.done.invalidate = true;
        for index in 0..dir.slots.len() {
            match dir.take(index) {
                Slot::Empty | Slot::Page(_) => {}
                Slot::Dir(mut below) => {
                    self.dismantle(&mut below);
                    self.stock.put_dir(below);
                    self.nodes -= 1;
                }
                Slot::Leaf(leaf) => {
                    self.put_away(leaf);
                    self.nodes -= 1;
                }
                Slot::Folded(leaf) => self.put_away(leaf),
            }
        }
    }

    /// Empties a leaf into the stock.
    fn put_away(&mut self, mut leaf: Box<Leaf>) {
        leaf.entries.iter().filter_map(|pte| pte.memory()).for_each(&mut *self.gone);
        leaf.clear();
        self.stock.put_leaf(leaf);
    }

    /// Makes sure that there is a node below a slot; a page there is spread over it.
    fn open(&mut self, dir: &mut Dir, index: usize, level: u32) -> Result<(), AllocError> {
        if matches!(dir.slots[index], Slot::Dir(_) | Slot::Leaf(_)) {
            return Ok(());
        }
        let new = match dir.take(index) {
            Slot::Folded(mut leaf) => {
                self.done.splits += 1;
                let pte = leaf.entries[0];
                leaf.spread(pte);
                Slot::Leaf(leaf)
            }
            old => {
                let pte = if let Slot::Page(pte) = old { Some(pte) } else { None };
                self.done.splits += u64::from(pte.is_some());
                self.new_node(level, pte).inspect_err(|_| {
                    dir.set(index, pte.map_or(Slot::Empty, Slot::Page));
                })?
            }
        };
        self.nodes += 1;
        dir.set(index, new);
        Ok(())
    }

    /// A node for a slot at `level`, with a page spread over it.
    fn new_node(&mut self, level: u32, pte: Option<Pte>) -> Result<Slot, AllocError> {
        if level == 1 {
            let mut leaf = self.stock.take_leaf()?;
            if let Some(pte) = pte {
                leaf.spread(pte);
            }
            Ok(Slot::Leaf(leaf))
        } else {
            let mut dir = self.stock.take_dir()?;
            if let Some(pte) = pte {
                dir.spread(pte);
            }
            Ok(Slot::Dir(dir))
        }
    }

    fn map_leaf(&mut self, leaf: &mut Leaf, base: u64, pages: &mut Pages<'_>) {
        self.split_edges(leaf, base);
        let part = self.span.clip(Span::new(base, base + SIZE_2M));
        let mut addr = part.start;
        while addr < part.end {
            let index = ((addr - base) / SIZE_4K) as usize;
            if let Some(pte) = pages.page(addr, SIZE_64K, part.end - addr) {
                for i in 0..GROUP {
                    let new = pte.plus(i as u64 * SIZE_4K).grouped();
                    let old = leaf.set(index + i, new);
                    self.replaced(old, new);
                }
                self.done.pages[1] += 1;
                addr += SIZE_64K;
            } else {
                let pte = pages.page(addr, SIZE_4K, part.end - addr);
                let new = pte.unwrap_or_else(|| unreachable!("a small page always fits"));
                // The rest of a group that this page was in is written next, or was split.
                let old = leaf.set(index, new);
                self.replaced(old, new);
                self.done.pages[0] += 1;
                addr += SIZE_4K;
            }
        }
    }

    /// Splits the groups that the range's edges cut.
    fn split_edges(&mut self, leaf: &mut Leaf, base: u64) {
        for edge in [self.span.start, self.span.end] {
            if edge > base && edge < base + SIZE_2M && edge % SIZE_64K != 0 {
                let index = ((edge - base) / SIZE_4K) as usize;
                self.done.splits += u64::from(leaf.split_group(index));
            }
        }
    }

    // ---- unmap ---------------------------------------------------------------------------------

    fn unmap_dir(
        &mut self,
        dir: &mut Dir,
        level: u32,
        base: u64,
        leave: Leave,
    ) -> Result<(), AllocError> {
        for (index, page) in overlapping(self.span, base, level) {
            let pte = match &dir.slots[index] {
                Slot::Page(pte) => Some(*pte),
                Slot::Folded(leaf) => Some(leaf.entries[0]),
                Slot::Empty => continue,
                Slot::Dir(_) | Slot::Leaf(_) => None,
            };
            if let Some(pte) = pte {
                let rest = left(pte, leave);
                if rest == pte {
                    continue;
                }
                if self.span.contains(page) {
                    self.clear_page(dir, index, pte, rest);
                    continue;
                }
                self.open(dir, index, level)?;
            }
            match &mut dir.slots[index] {
                Slot::Dir(below) => self.unmap_dir(below, level - 1, page.start, leave)?,
                Slot::Leaf(leaf) => self.unmap_leaf(leaf, page.start, leave),
                _ => unreachable!("there is a node, or the slot was opened"),
            }
            self.close(dir, index);
        }
        Ok(())
    }

    /// Puts what is left in the place of a page of an upper level.
    fn clear_page(&mut self, dir: &mut Dir, index: usize, pte: Pte, rest: Pte) {
        self.done.cleared += 1;
        self.replaced(pte, rest);
        let new = match dir.take(index) {
            Slot::Folded(mut leaf) if rest.is_empty() => {
                leaf.clear();
                self.stock.put_leaf(leaf);
                Slot::Empty
            }
            Slot::Folded(mut leaf) => {
                leaf.fold(rest);
                Slot::Folded(leaf)
            }
            _ if rest.is_empty() => Slot::Empty,
            _ => Slot::Page(rest),
        };
        dir.set(index, new);
    }

    fn unmap_leaf(&mut self, leaf: &mut Leaf, base: u64, leave: Leave) {
        self.split_edges(leaf, base);
        for (index, _) in overlapping(self.span, base, 0) {
            let old = leaf.entries[index];
            let group = old.is_group();
            let rest = left(old.single(), leave);
            if old.is_empty() || rest == old.single() {
                continue;
            }
            // A whole group changes alike, so that what is left of it is a group again.
            leaf.set(index, if group && !rest.is_empty() { rest.grouped() } else { rest });
            self.done.cleared += u64::from(!group || index % GROUP == 0);
            self.replaced(old, rest);
        }
    }

    /// Takes an empty node below a slot out of the table.
    fn close(&mut self, dir: &mut Dir, index: usize) {
        let empty = match &dir.slots[index] {
            Slot::Dir(below) => below.used == 0,
            Slot::Leaf(leaf) => leaf.used == 0,
            _ => false,
        };
        if !empty {
            return;
        }
        self.nodes -= 1;
        match dir.take(index) {
            Slot::Dir(below) => self.stock.put_dir(below),
            Slot::Leaf(leaf) => self.stock.put_leaf(leaf),
            _ => unreachable!("the slot holds a node"),
        }
    }
}

/// What an entry becomes when the mapping goes.
fn left(pte: Pte, leave: Leave) -> Pte {
    match leave {
        Leave::Sparse => pte.below(),
        Leave::Nothing => Pte::EMPTY,
    }
}
