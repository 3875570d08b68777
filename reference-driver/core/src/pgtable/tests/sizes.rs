//! The choice of page sizes, and what cuts do to large pages.

use super::*;

const G: u64 = 1 << 30;

/// A mapping of contiguous memory gets the largest pages for which address, offset, physical
/// address and rest of the range are aligned.
#[test]
fn largest_page_that_is_aligned() {
    struct Row {
        addr: u64,
        len: u64,
        offset: u64,
        phys: u64,
        /// Pages of 4K, 64K, 2M.
        pages: [u64; 3],
    }
    let row = |addr, len, offset, phys, pages| Row { addr, len, offset, phys, pages };
    let rows = [
        row(0, SIZE_4K, 0, 0, [1, 0, 0]),
        row(0, SIZE_64K, 0, 0, [0, 1, 0]),
        row(0, SIZE_2M, 0, 0, [0, 0, 1]),
        // One page less, one page more.
        row(0, SIZE_64K - SIZE_4K, 0, 0, [15, 0, 0]),
        row(0, SIZE_64K + SIZE_4K, 0, 0, [1, 1, 0]),
        row(0, SIZE_2M - SIZE_4K, 0, 0, [15, 31, 0]),
        row(0, SIZE_2M + SIZE_4K, 0, 0, [1, 0, 1]),
        row(G - SIZE_4K, SIZE_2M + 2 * SIZE_4K, SIZE_2M - SIZE_4K, SIZE_2M - SIZE_4K, [2, 0, 1]),
        // Each of the three not aligned.
        row(SIZE_4K, SIZE_2M, 0, 0, [512, 0, 0]),
        row(0, SIZE_2M, SIZE_4K, 0, [512, 0, 0]),
        row(0, SIZE_2M, 0, SIZE_4K, [512, 0, 0]),
        row(0, SIZE_2M, SIZE_64K, 0, [0, 32, 0]),
        row(0, SIZE_2M, 0, SIZE_64K, [0, 32, 0]),
        row(SIZE_64K, SIZE_2M, SIZE_64K, SIZE_64K, [0, 32, 0]),
        // All of them off by the same.
        row(SIZE_64K, 2 * SIZE_2M, SIZE_64K, SIZE_64K, [0, 32, 1]),
        // Memory never gets a page of an upper level.
        row(G, G, 0, 0, [0, 0, 512]),
        // The top of the VA.
        row(super::super::VA_END - SIZE_2M, SIZE_2M, 0, 0, [0, 0, 1]),
        row(super::super::VA_END - SIZE_4K, SIZE_4K, 0, 0, [1, 0, 0]),
    ];
    for (number, Row { addr, len, offset, phys, pages }) in rows.into_iter().enumerate() {
        let mut table = Table::new();
        let span = Span::new(addr, addr + len);
        let written = table.map(span, offset, phys, Props::default());
        assert_eq!(written, Written { pages, ..Written::default() }, "row {number}");
        assert_eq!(table.table.count(span), pages, "row {number}: counted");
        for at in [0, SIZE_4K - 1, len / 2, len - 1] {
            assert_eq!(table.phys(addr + at), Some(phys + at), "row {number}: +{at:#x}");
        }
        assert_eq!(table.table.walk(addr + len), None, "row {number}: behind");
        assert_eq!(addr.checked_sub(1).and_then(|a| table.table.walk(a)), None, "row {number}");
        let cleared = table.unmap(span);
        assert_eq!(cleared.cleared, pages.iter().sum::<u64>(), "row {number}: cleared");
        assert!(cleared.invalidate, "row {number}");
        assert_eq!(table.table.nodes(), 1, "row {number}: only the root is left");
    }
}

/// Memory in pieces: no page may cross the end of a run.
#[test]
fn pages_do_not_cross_runs() {
    let mut table = Table::new();
    let span = Span::new(0, 2 * SIZE_2M);
    // Runs of 1 MiB, which follow each other with gaps between.
    let run = 1 << 20;
    let written = table.map_runs(span, 0, Props::default(), &mut |offset| {
        let first = offset / run * run;
        let phys = Phys { aperture: Aperture::Vram, addr: 4 * offset - 3 * (offset - first) };
        Run { phys, len: first + run - offset }
    });
    assert_eq!(written.pages, [0, 64, 0]);
    for addr in [0, run - 1, run, 3 * run + 5] {
        assert_eq!(table.phys(addr), Some(addr / run * run * 4 + addr % run), "{addr:#x}");
    }
    // Runs of one page each, in descending order.
    let mut table = Table::new();
    let written = table.map_runs(span, 0, Props::default(), &mut |offset| Run {
        phys: Phys { aperture: Aperture::System, addr: (1 << 40) - offset },
        len: SIZE_4K,
    });
    assert_eq!(written.pages, [1024, 0, 0]);
    let phys = table.table.walk(SIZE_4K).and_then(|e| e.phys(SIZE_4K + 7)).expect("mapped");
    assert_eq!(phys, Phys { aperture: Aperture::System, addr: (1 << 40) - SIZE_4K + 7 });
}

/// Cutting a hole into a 2 MiB page leaves the rest as it was, in the largest groups that remain.
#[test]
fn unmap_splits_large_pages() {
    struct Row {
        hole: (u64, u64),
        left: [u64; 3],
        splits: u64,
    }
    let row = |start, end, left, splits| Row { hole: (start, end), left, splits };
    let rows = [
        row(SIZE_4K, 2 * SIZE_4K, [15, 31, 0], 2),
        row(0, SIZE_4K, [15, 31, 0], 2),
        row(SIZE_2M - SIZE_4K, SIZE_2M, [15, 31, 0], 2),
        row(0, SIZE_64K, [0, 31, 0], 1),
        row(SIZE_64K, SIZE_2M, [0, 1, 0], 1),
        row(SIZE_4K, SIZE_2M - SIZE_4K, [2, 0, 0], 3),
        row(SIZE_64K - SIZE_4K, SIZE_64K + SIZE_4K, [30, 30, 0], 3),
    ];
    for (number, Row { hole: (start, end), left, splits }) in rows.into_iter().enumerate() {
        let mut table = Table::new();
        let page = Span::new(G, G + SIZE_2M);
        let props = Props { readonly: true, kind: 99, ..Props::default() };
        table.map(page, 0, 8 * SIZE_2M, props);
        let written = table.unmap(Span::new(G + start, G + end));
        assert_eq!((table.table.count(page), written.splits), (left, splits), "row {number}");
        for at in (0..SIZE_2M).step_by(SIZE_4K as usize) {
            let expected = (at < start || at >= end).then_some(8 * SIZE_2M + at + 9);
            assert_eq!(table.phys(G + at + 9), expected, "row {number}: +{at:#x}");
            if let Some(entry) = table.table.walk(G + at) {
                assert_eq!((entry.readonly, entry.kind), (true, 99), "row {number}");
            }
        }
    }
}

/// Mapping over a part of a large page replaces that part only.
#[test]
fn map_over_a_part_of_a_large_page() {
    let mut table = Table::new();
    let page = Span::new(0, SIZE_2M);
    table.map(page, 0, 0, Props::default());
    let written = table.map(Span::new(SIZE_64K, 2 * SIZE_64K), 0, 64 * SIZE_2M, Props::default());
    assert_eq!((written.pages, written.invalidate), ([0, 1, 0], true));
    assert_eq!(table.table.count(page), [0, 32, 0]);
    assert_eq!(table.phys(SIZE_64K - 1), Some(SIZE_64K - 1));
    assert_eq!(table.phys(SIZE_64K), Some(64 * SIZE_2M));
    assert_eq!(table.phys(2 * SIZE_64K), Some(2 * SIZE_64K));
    // And a large page over the pieces.
    let written = table.map(page, 0, 32 * SIZE_2M, Props::default());
    assert_eq!((written.pages, written.invalidate), ([0, 0, 1], true));
    assert_eq!((table.table.count(page), table.phys(5)), ([0, 0, 1], Some(32 * SIZE_2M + 5)));
}

/// Only a translation that was present and is another one now needs an invalidation.
#[test]
fn invalidate_tells_what_a_tlb_may_hold() {
    let mut table = Table::new();
    let span = Span::new(0, SIZE_2M);
    let kind = Props { kind: 3, ..Props::default() };
    let readonly = Props { readonly: true, ..kind };
    assert!(!table.map(span, 0, 0, kind).invalidate, "nothing was there");
    assert!(!table.map(span, 0, 0, kind).invalidate, "the same was there");
    assert!(table.map(span, 0, 0, readonly).invalidate, "a flag changed");
    assert!(table.map(span, 0, SIZE_2M, readonly).invalidate, "the address changed");
    let half = Span::new(0, SIZE_2M / 2);
    assert!(!table.map(half, 0, SIZE_2M, readonly).invalidate, "the same in smaller pages");
    assert!(!table.map(span, 0, SIZE_2M, readonly).invalidate, "the same in a larger page");
    assert!(table.map(half, 0, SIZE_2M, Props::default()).invalidate, "the kind of a part changed");
    assert!(table.map(span, 0, SIZE_2M, readonly).invalidate, "and back");
    assert!(table.unmap(Span::new(0, SIZE_4K)).invalidate, "a page went");
    assert!(!table.unmap(Span::new(0, SIZE_4K)).invalidate, "it had gone");
}

/// NULL and sparse ranges use the upper levels, so that the largest cost a few nodes.
#[test]
fn null_and_sparse_use_upper_levels() {
    let mut table = Table::new();
    let all = Span::new(0, super::super::VA_END);
    table.map_no_memory(all, Source::Sparse, Props::default());
    assert_eq!(table.table.nodes(), 1);
    assert_eq!(table.target(1 << 47), Some(Target::Sparse));

    let inside = Props { in_sparse: true, ..Props::default() };
    let span = Span::new(5 * SIZE_4K, 5 * SIZE_4K + SIZE_64K);
    table.map(span, 0, 0, inside);
    assert_eq!(table.table.nodes(), 4);
    assert_eq!(table.target(4 * SIZE_4K), Some(Target::Sparse));
    assert_eq!(table.phys(5 * SIZE_4K), Some(0));
    assert_eq!(table.target(21 * SIZE_4K), Some(Target::Sparse));

    let written = table.unmap(span);
    assert_eq!((written.cleared, written.invalidate), (16, true));
    assert_eq!(table.target(5 * SIZE_4K), Some(Target::Sparse), "the sparse behaviour is back");
    let nodes = table.table.nodes();
    assert!(!table.unmap(all).invalidate, "sparse stays sparse");
    table.unmap(Span::new((1 << 40) + SIZE_4K, 1 << 41));
    assert_eq!(table.table.nodes(), nodes, "and needs no node where it is cut");
    let written = table.unmap_any(all, Leave::Nothing);
    assert!(written.invalidate);
    assert_eq!((table.target(0), table.table.nodes()), (None, 1));
}

/// An unmap that cuts a NULL page of an upper level needs the nodes of [`Need::edges`].
#[test]
fn null_is_cut_at_both_edges() {
    let mut table = Table::new();
    let props = Props { readonly: true, kind: 4, ..Props::default() };
    table.map_no_memory(Span::new(0, 1 << 40), Source::Null, props);
    assert_eq!(table.table.nodes(), 1);
    let hole = Span::new((1 << 39) - SIZE_4K, (1 << 39) + SIZE_4K);
    table.unmap_any(hole, Leave::Sparse);
    assert_eq!(table.table.nodes(), 7);
    assert_eq!(table.target(hole.start - 1), Some(Target::Null));
    assert_eq!(table.target(hole.start), None);
    assert_eq!(table.target(hole.end - 1), None);
    assert_eq!(table.target(hole.end), Some(Target::Null));
    let entry = table.table.walk(hole.end).expect("mapped");
    assert_eq!((entry.readonly, entry.kind, entry.phys(hole.end)), (true, 4, None));
    assert!(table
        .table
        .unmap(Span::new(SIZE_4K, 2 * SIZE_4K), Leave::Sparse, &mut Stock::new())
        .is_err());
    assert_eq!(table.target(SIZE_4K), Some(Target::Null), "the page is as before");
    table.table.assert_consistent();
}
