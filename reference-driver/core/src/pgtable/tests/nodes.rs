//! Nodes: the fence path allocates nothing, what is computed suffices, unmaps need no memory.

use super::*;
use crate::facade::inject::{self, Injection};
use crate::facade::rank::FencePath;
use crate::facade::Arc;
use crate::pgtable::{Spares, VA_END};
use crate::seed::for_seeds;

#[test]
fn map_and_unmap_run_in_the_fence_path() {
    let mut table = Table::new();
    let span = Span::new(SIZE_4K, (1 << 30) + 3 * SIZE_2M);
    let mut stock = stock(Need::map(span));
    let _path = FencePath::enter();
    let phys = |addr| Phys { aperture: Aperture::Vram, addr };
    let mut runs = |at| Run { phys: phys(at), len: SIZE_4K };
    let source = Source::Memory { offset: 0, runs: &mut runs };
    table.table.map(span, source, Props::default(), &mut stock).expect("the stock suffices");
    table.table.unmap(span, Leave::Sparse, &mut stock).expect("needs nothing");
}

/// The stock that was computed beforehand suffices whatever the table has become by then.
#[test]
fn need_holds_whatever_is_there() {
    for_seeds(60, |mut random| {
        let mut table = Table::new();
        let sizes = [SIZE_4K, SIZE_64K, SIZE_2M, 1 << 30, 1 << 39];
        for _ in 0..60 {
            let align = random.pick(&sizes);
            let start = random.below(1 << 41) / align * align;
            let most = random.pick(&[SIZE_4K, SIZE_64K, SIZE_2M, 4 * SIZE_2M]);
            let len = (1 + random.below(most / SIZE_4K)) * SIZE_4K;
            let span = Span::new(start, (start + len).min(VA_END));
            // Many at the same few places, so that they cut each other.
            let near = random.below(4) * (1 << 39);
            let span = if random.one_in(2) { Span::new(near, near + span.len()) } else { span };
            let wide = Span::new(span.start, (span.start + (1 << 40) + len).min(VA_END));
            match random.below(5) {
                0 | 1 => drop(table.map(span, 0, 0, Props::default())),
                2 => drop(table.map_no_memory(wide, Source::Null, Props::default())),
                3 => drop(table.map_no_memory(span, Source::Null, Props::default())),
                _ => drop(table.unmap_any(span, Leave::Sparse)),
            }
        }
        table.unmap_any(Span::new(0, VA_END), Leave::Nothing);
        assert_eq!(table.table.nodes(), 1, "no node is lost");
    });
}

/// Every allocation of a draw fails once: nothing is lost, and unmaps are served all the same.
#[test]
fn draws_fail_without_loss_but_those_of_unmaps_do_not() {
    let injection = Arc::new(Injection::new()).expect("memory");
    let need = Need::edges(Span::new(SIZE_4K, (1 << 40) + SIZE_4K));
    for nth in 1..=6 {
        let mut spares = Spares::new();
        spares.fill().expect("memory");
        injection.arm(nth);
        let scope = inject::scope(injection.clone());
        assert!(spares.draw(need).is_err(), "allocation {nth}");
        drop(scope);
        assert_eq!(injection.arm(nth).fired, 1);
        let scope = inject::scope(injection.clone());
        let stock = spares.draw_unmap(need).expect("served from what is set aside");
        drop(scope);
        spares.give_back(stock);
        spares.draw(need).expect("there is memory again");
    }
    let mut spares = Spares::new();
    spares.fill().expect("memory");
    let _scope = inject::scope(Arc::new(Injection::exhausted()).expect("memory"));
    let stock = spares.draw_unmap(need).expect("set aside");
    assert!(spares.draw_unmap(need).is_err(), "once only");
    assert!(spares.draw_unmap(Need::NOTHING).is_ok(), "nothing is always there");
    spares.give_back(stock);
    assert!(spares.draw_unmap(need).is_ok(), "given back");
}

/// A huge stock is freed without recursion.
#[test]
fn a_long_stock_is_dropped() {
    drop(stock(Need::map(Span::new(0, 1 << 35))));
}

/// Who counts what is mapped is told of the memory behind each page that goes, once.
#[test]
fn memory_that_gives_way_is_told() {
    let pages = |first: u64, end: u64| Span::new(first * SIZE_4K, end * SIZE_4K);
    let vram = |frame: u64| Phys { aperture: Aperture::Vram, addr: frame * SIZE_4K };
    let mut table = Table::new();
    table.map(pages(0, 2), 0, 5 * SIZE_4K, Props::default());
    table.map(Span::new(SIZE_2M, 2 * SIZE_2M), 0, 7 * SIZE_2M, Props::default());
    let (mut gone, mut stock) = (Vec::new(), stock(Need::map(pages(1, 3))));
    let mut runs = |at| Run { phys: vram(6 + at / SIZE_4K), len: SIZE_4K };
    let source = Source::Memory { offset: 0, runs: &mut runs };
    let mut told = |phys: Phys| gone.push(phys.addr / SIZE_4K);
    let props = Props::default();
    table
        .table
        .map_over(pages(1, 3), source, props, &mut stock, &mut told)
        .expect("the stock suffices");
    assert_eq!(gone, [6], "the same page once more counts as another");
    let mut told = |phys: Phys| gone.push(phys.addr / SIZE_4K);
    let all = Span::new(0, VA_END);
    table.table.take(all, Leave::Nothing, &mut stock, &mut told).expect("needs nothing");
    assert_eq!(gone, [6, 5, 6, 7, 7 * 512]);
    table.map(pages(512, 513), 0, 9 * SIZE_4K, props);
    let mut told = |phys: Phys| gone.push(phys.addr / SIZE_4K);
    let large = Span::new(0, 1 << 30);
    table.table.map_over(large, Source::Null, props, &mut stock, &mut told).expect("needs nothing");
    assert_eq!(gone[5..], [9]);
}
