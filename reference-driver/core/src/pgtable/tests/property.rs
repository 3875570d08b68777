//! Random maps and unmaps against a naive model: one cell for each small page.

use core::ops::ControlFlow;

use super::*;
use crate::pgtable::VA_END;
use crate::seed::{for_seeds, Random};

/// What a small page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    target: Target,
    readonly: bool,
    kind: u8,
    in_sparse: bool,
}

const SPARSE: Cell = Cell { target: Target::Sparse, readonly: false, kind: 0, in_sparse: false };

/// Pages of the window that is modelled, 8 MiB around 1 GiB.
const PAGES: usize = 2048;
const BASE: u64 = (1 << 30) - 4 * SIZE_2M / 2;

struct Model {
    cells: Vec<Option<Cell>>,
    /// The sparse region, if there is one.
    sparse: Option<(usize, usize)>,
}

fn span(first: usize, end: usize) -> Span {
    Span::new(BASE + first as u64 * SIZE_4K, BASE + end as u64 * SIZE_4K)
}

fn range(random: &mut Random) -> (usize, usize) {
    let align = random.pick(&[1, 1, 16, 512]);
    let most = random.pick(&[1, 16, 40, 512, 1100]);
    let first = random.below(PAGES as u64) / align * align;
    let end = (first + 1 + random.below(most)).next_multiple_of(random.pick(&[1, align]));
    (first as usize, (end as usize).min(PAGES))
}

impl Model {
    fn unmap(&mut self, (first, end): (usize, usize), leave: Leave) -> bool {
        let mut changed = false;
        for cell in &mut self.cells[first..end] {
            let Some(old) = *cell else { continue };
            let back = leave == Leave::Sparse && (old.in_sparse || old == SPARSE);
            *cell = back.then_some(SPARSE);
            changed |= *cell != Some(old);
        }
        changed
    }

    fn map(&mut self, first: usize, new: &[Cell]) -> bool {
        let mut changed = false;
        for (cell, new) in self.cells[first..].iter_mut().zip(new) {
            changed |= cell.is_some_and(|old| old != *new);
            *cell = Some(*new);
        }
        changed
    }

    fn agree(&self, table: &Table) {
        let mut small = 0;
        for (i, cell) in self.cells.iter().enumerate() {
            let addr = BASE + i as u64 * SIZE_4K;
            let seen = table.table.walk(addr + 8);
            let at = |entry: &Entry| {
                let target = entry.phys(addr).map_or(entry.target, Target::Memory);
                (target, entry.readonly, entry.kind)
            };
            let expected = cell.map(|cell| (cell.target, cell.readonly, cell.kind));
            assert_eq!(seen.as_ref().map(at), expected, "page {i}");
            small += u64::from(cell.is_some());
        }
        self.agree_in_order(table);
        let [pages_4k, pages_64k, pages_2m] = table.table.count(Span::new(0, VA_END));
        assert_eq!(pages_4k + 16 * pages_64k + 512 * pages_2m, small, "pages counted");
    }
}

impl Model {
    /// The pages in order are those of the walks.
    fn agree_in_order(&self, table: &Table) {
        let (window, mut next) = (span(0, PAGES), BASE);
        let shown = |addr: u64| self.cells[((addr - BASE) / SIZE_4K) as usize].is_some();
        let _ = table.table.each::<()>(window, |entry| {
            let page = entry.span.clip(window);
            let skipped = (next..page.start).step_by(SIZE_4K as usize);
            assert!(next <= page.start && !skipped.into_iter().any(shown), "before {page:?}");
            assert_eq!(table.table.walk(page.start), Some(entry));
            next = page.end;
            ControlFlow::Continue(())
        });
        assert!(!(next..window.end).step_by(SIZE_4K as usize).any(shown), "after {next:#x}");
    }
}

/// The memory behind a mapping: chunks of one size, each at a random place. Within a chunk, offset
/// and place differ by a multiple of 2 MiB, or of less.
fn memory(random: &mut Random, pages: usize, offset: u64) -> impl Fn(u64) -> Run {
    let small = 1 + random.below(700);
    let chunk = random.pick(&[1, 16, 512, 2048, small]) * SIZE_4K;
    let off = random.pick(&[0, 0, 0, SIZE_4K, SIZE_64K]);
    let end = offset + pages as u64 * SIZE_4K;
    let places: Vec<u64> =
        (0..=end / chunk).map(|_| random.below(1000) * 8 * SIZE_2M + off).collect();
    move |at| {
        let (index, within) = (at / chunk, at % chunk);
        let phys = Phys { aperture: Aperture::System, addr: places[index as usize] + at };
        Run { phys, len: chunk - within }
    }
}

fn step(random: &mut Random, table: &mut Table, model: &mut Model) {
    let (first, end) = range(random);
    let in_region = model.sparse.is_some_and(|(from, to)| from <= first && end <= to);
    let crosses = model.sparse.is_some_and(|(from, to)| from < end && first < to) && !in_region;
    let (readonly, kind) = (random.one_in(3), random.below(3) as u8);
    let props = Props { readonly, kind, in_sparse: in_region, ..Props::default() };
    let cell = |target| Cell { target, readonly, kind, in_sparse: in_region };
    let (seen, expected) = match random.below(10) {
        // A mapping lies in the region or outside; the VA manager refuses others.
        0..6 if crosses => return,
        0..4 => {
            let offset = random.pick(&[0, SIZE_4K, SIZE_64K, SIZE_2M, 3 * SIZE_2M]);
            let run = memory(random, end - first, offset);
            let pages = (0..(end - first) as u64).map(|i| run(offset + i * SIZE_4K).phys);
            let cells: Vec<_> = pages.map(|phys| cell(Target::Memory(phys))).collect();
            let written = table.map_runs(span(first, end), offset, props, &mut |at| run(at));
            (written, model.map(first, &cells))
        }
        4..6 => {
            let written = table.map_no_memory(span(first, end), Source::Null, props);
            (written, model.map(first, &vec![cell(Target::Null); end - first]))
        }
        6 if model.sparse.is_none() => {
            // A region takes the place of nothing only.
            if model.cells[first..end].iter().any(Option::is_some) {
                return;
            }
            model.sparse = Some((first, end));
            let written = table.map_no_memory(span(first, end), Source::Sparse, Props::default());
            (written, model.map(first, &vec![SPARSE; end - first]))
        }
        7 if random.one_in(3) && model.sparse.is_some() => {
            let Some((first, end)) = model.sparse.take() else { return };
            let written = table.unmap_any(span(first, end), Leave::Nothing);
            (written, model.unmap((first, end), Leave::Nothing))
        }
        _ => {
            let written = table.unmap_any(span(first, end), Leave::Sparse);
            (written, model.unmap((first, end), Leave::Sparse))
        }
    };
    assert_eq!(seen.invalidate, expected, "what a TLB may hold");
}

#[test]
fn random_changes_agree_with_the_model() {
    for_seeds(30, |mut random| {
        let mut table = Table::new();
        let mut model = Model { cells: vec![None; PAGES], sparse: None };
        for _ in 0..80 {
            step(&mut random, &mut table, &mut model);
            model.agree(&table);
        }
    });
}
