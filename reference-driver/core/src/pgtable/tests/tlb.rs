//! The TLB: what is in it stays until it is invalidated or pushed out.

use super::*;
use crate::pgtable::Tlb;

fn page(start: u64, size: u64, phys: u64) -> Entry {
    let target = Target::Memory(Phys { aperture: Aperture::Vram, addr: phys });
    let span = Span::new(start, start + size);
    Entry { span, target, readonly: false, no_atomic: false, kind: 0 }
}

#[test]
fn holds_pages_of_every_size() {
    let mut tlb = Tlb::new();
    for (start, size) in [(0x1000, SIZE_4K), (0x10000, SIZE_64K), (SIZE_2M, SIZE_2M)] {
        let entry = page(start, size, start);
        tlb.insert(start + 5, entry);
        assert_eq!(tlb.lookup(start + size - 1), Some(entry));
        assert_eq!(tlb.lookup(start + size), None);
        assert_eq!(tlb.lookup(start - 1), None);
    }
    // An upper page is held by the 2 MiB around the address.
    let upper = Entry { target: Target::Null, ..page(1 << 30, 1 << 30, 0) };
    let addr = (1 << 30) + 5 * SIZE_2M;
    tlb.insert(addr, upper);
    assert_eq!(tlb.lookup(addr).map(|e| e.span), Some(Span::new(addr, addr + SIZE_2M)));
    assert_eq!(tlb.lookup(addr - 1), None);
}

#[test]
fn a_stale_entry_stays_until_its_range_is_invalidated() {
    let mut table = Table::new();
    let span = Span::new(0, SIZE_64K);
    table.map(span, 0, 0, Props::default());
    let mut tlb = Tlb::new();
    tlb.insert(0, table.table.walk(0).expect("mapped"));
    table.unmap(span);
    assert_eq!(table.table.walk(0), None);
    assert!(tlb.lookup(0).is_some(), "stale");
    assert_eq!(tlb.invalidate(Span::new(SIZE_64K, SIZE_2M)), 0, "another range");
    assert!(tlb.lookup(0).is_some(), "stale");
    assert_eq!(tlb.invalidate(Span::new(SIZE_64K - 1, SIZE_64K)), 1, "its last byte");
    assert_eq!(tlb.lookup(0), None);
    tlb.insert(SIZE_64K, page(SIZE_64K, SIZE_64K, 0));
    assert_eq!(tlb.invalidate(Span::new(0, SIZE_64K + SIZE_4K)), 1, "its first page and more");
}

#[test]
fn a_page_replaces_itself_and_the_oldest_of_its_set() {
    let mut tlb = Tlb::new();
    tlb.insert(0, page(0, SIZE_4K, 0));
    tlb.insert(0, page(0, SIZE_4K, SIZE_2M));
    assert_eq!(tlb.lookup(0), Some(page(0, SIZE_4K, SIZE_2M)));
    for i in 1..=4 {
        let start = i << 20;
        tlb.insert(start, page(start, SIZE_4K, start));
    }
    assert_eq!(tlb.lookup(0), None, "the fifth of one set pushed it out");
    assert!((1..=4).all(|i| tlb.lookup(i << 20).is_some()));
    tlb.invalidate_all();
    assert!((1..=4).all(|i| tlb.lookup(i << 20).is_none()));
}
