//! Tests of the page table and the TLB: page sizes, splits, sparse regions, nodes, and a random
//! comparison with a naive model.

mod nodes;
mod property;
mod sizes;
mod tlb;

use super::{
    Entry, Leave, Need, PageTable, Props, Run, Source, Stock, Target, Written, SIZE_2M, SIZE_4K,
    SIZE_64K,
};
use crate::gpuva::Span;
use crate::host::{Aperture, Phys};

/// A page table with the stock that its tests draw from.
struct Table {
    table: PageTable,
}

impl Table {
    fn new() -> Self {
        Self { table: PageTable::new().expect("memory") }
    }

    /// Maps memory that is contiguous from physical address `phys` on.
    fn map(&mut self, span: Span, offset: u64, phys: u64, props: Props) -> Written {
        let base = phys.wrapping_sub(offset);
        self.map_runs(span, offset, props, &mut |at| Run {
            phys: Phys { aperture: Aperture::Vram, addr: base.wrapping_add(at) },
            len: u64::MAX / 2,
        })
    }

    fn map_runs(
        &mut self,
        span: Span,
        offset: u64,
        props: Props,
        runs: &mut dyn FnMut(u64) -> Run,
    ) -> Written {
        let mut stock = stock(Need::map(span));
        let source = Source::Memory { offset, runs };
        let written = self.table.map(span, source, props, &mut stock).expect("the stock suffices");
        self.table.assert_consistent();
        written
    }

    /// Maps NULL or sparse.
    fn map_no_memory(&mut self, span: Span, source: Source<'_>, props: Props) -> Written {
        let mut stock = stock(Need::edges(span));
        let written = self.table.map(span, source, props, &mut stock).expect("the stock suffices");
        self.table.assert_consistent();
        written
    }

    /// Unmaps memory: without any stock.
    fn unmap(&mut self, span: Span) -> Written {
        let mut stock = Stock::new();
        let written = self.table.unmap(span, Leave::Sparse, &mut stock).expect("needs no stock");
        self.table.assert_consistent();
        written
    }

    /// Unmaps what may be NULL.
    fn unmap_any(&mut self, span: Span, leave: Leave) -> Written {
        let mut stock = stock(Need::edges(span));
        let written = self.table.unmap(span, leave, &mut stock).expect("the stock suffices");
        self.table.assert_consistent();
        written
    }

    /// Physical address behind a GPU address.
    fn phys(&self, addr: u64) -> Option<u64> {
        let phys = self.table.walk(addr)?.phys(addr)?;
        assert_eq!(phys.aperture, Aperture::Vram);
        Some(phys.addr)
    }

    fn target(&self, addr: u64) -> Option<Target> {
        self.table.walk(addr).map(|entry| entry.target)
    }
}

fn stock(need: Need) -> Stock {
    let mut stock = Stock::new();
    stock.fill(need).expect("memory");
    stock
}
