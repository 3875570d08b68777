//! SVM: moving pages. Numbers in names are those of the propositions of `drm_gpusvm` and
//! `drm_pagemap` that the reference driver follows (see docs/UAPI.md).

use fencepost_core::gpuva::Span;
use fencepost_host::sim::cpu::Kind;
use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;

use super::client::{madvise, prefetch, store, unmap, K4, K64, M2};
use super::svm::{check, mirror, Svm, A};

pub(crate) const DEVICE: Option<Option<u8>> = Some(Some(0));
pub(crate) const SYSTEM: Option<Option<u8>> = Some(None);

impl Svm<'_> {
    pub(crate) fn migrate(
        &self,
        start: u64,
        size: u64,
        region: u32,
        flags: u32,
    ) -> Result<u64, Errno> {
        let vm_id = self.vm;
        let mut args = SvmMigrate { vm_id, flags, start, size, region, ..Default::default() };
        self.c.call(SVM_MIGRATE, &mut args).map(|_| args.pages)
    }

    pub(crate) fn to_device(&self, start: u64, size: u64) -> Result<u64, Errno> {
        self.migrate(start, size, REGION_VRAM, SVM_MIGRATE_STRICT)
    }

    pub(crate) fn attr(&self, attr: u32, start: u64, size: u64, value: u64) {
        let mut args = SvmAttr { vm_id: self.vm, attr, start, size, value, ..Default::default() };
        self.c.call(SVM_ATTR, &mut args).expect("an attribute");
    }

    fn get_attr(&self, attr: u32, start: u64, size: u64) -> u64 {
        let (vm_id, op) = (self.vm, SVM_ATTR_GET);
        let mut args = SvmAttr { vm_id, op, attr, start, size, ..Default::default() };
        self.c.call(SVM_ATTR, &mut args).expect("an attribute");
        args.value
    }

    pub(crate) fn query(&self, start: u64, size: u64) -> Vec<u32> {
        let pages = self.host().alloc_user(self.task(), size / K4 * 4);
        let mut args = SvmQuery { vm_id: self.vm, start, size, pages, ..Default::default() };
        self.c.call(SVM_QUERY, &mut args).expect("a query");
        let mut bytes = vec![0; (size / K4 * 4) as usize];
        self.host().read_user(self.task(), pages, &mut bytes).expect("allocated");
        bytes.chunks_exact(4).map(|raw| u32::from_ne_bytes(raw.try_into().expect("four"))).collect()
    }

    pub(crate) fn location(&self, addr: u64) -> Option<Option<u8>> {
        self.host().location(self.task(), addr)
    }

    pub(crate) fn fill(&self, start: u64, len: u64) {
        for page in (start..start + len).step_by(K4 as usize) {
            self.cpu_store(page, page ^ 0x55);
        }
    }

    pub(crate) fn assert_filled(&self, start: u64, len: u64) {
        for page in (start..start + len).step_by(K4 as usize) {
            assert_eq!(self.cpu_load(page), page ^ 0x55, "{page:#x}");
        }
    }

    pub(crate) fn tune(&self, param: u32, value: u64) {
        let mut args = SvmTune { param, flags: SVM_TUNE_SET, value, ..Default::default() };
        self.c.call(SVM_TUNE, &mut args).expect("a parameter");
    }
}

#[test]
fn pages_move_there_and_back_with_their_data() {
    check(|svm| {
        svm.mmap(A, M2);
        svm.fill(A, M2);
        assert_eq!(svm.to_device(A, M2), Ok(512));
        assert_eq!((svm.location(A), svm.location(A + M2 - K4)), (DEVICE, DEVICE));
        assert_eq!(svm.counter("live.svm_pages"), 512);
        assert_eq!(svm.gpu_load(A + K64), (A + K64) ^ 0x55);
        let bits = svm.query(A, M2)[16];
        let order = (bits & SVM_PAGE_GPU_ORDER_MASK) >> SVM_PAGE_GPU_ORDER_SHIFT;
        assert_eq!(order, 9, "contiguous frames are shown as one page");
        svm.gpu_store(A + 8, 7);
        assert_eq!(svm.cpu_load(A + 8), 7, "22: the CPU has it back");
        assert_eq!(svm.location(A + M2 - K4), SYSTEM, "22: all of it");
        svm.assert_filled(A, M2);
        assert_eq!(
            (svm.counter("svm.cpu_faults"), svm.counter("svm.migrated.to_system")),
            (1, 512)
        );
        assert_eq!(svm.counter("live.svm_pages"), 0);
        assert_eq!(svm.gpu_load(A + 8), 7);
    });
}

#[test]
fn strict_moves_are_refused_as_documented() {
    check(|svm| {
        svm.mmap(A, K64);
        svm.mmap(A + K64, K64);
        svm.fill(A, 2 * K64);
        assert_eq!(svm.to_device(A, 2 * K64), Err(Errno::INVAL), "19: two mappings");
        assert_eq!(svm.to_device(A + M2, K4), Err(Errno::NOENT), "19: none");
        let span = Span::new(A + M2, A + M2 + K64);
        svm.host().mmap_cpu(svm.task(), span, true, Kind::Shared);
        assert_eq!(svm.to_device(A + M2, K4), Err(Errno::BUSY), "19: shared memory");
        svm.host().pin(svm.task(), A + K4, true);
        assert_eq!(svm.to_device(A, K64), Err(Errno::BUSY), "19: a pinned page");
        assert_eq!(svm.location(A), SYSTEM, "19: all or nothing");
        assert_eq!(svm.migrate(A, K64, REGION_VRAM, 0), Ok(15), "best effort");
        assert_eq!((svm.location(A), svm.location(A + K4)), (DEVICE, SYSTEM));
        svm.host().pin(svm.task(), A + K4, false);
        assert_eq!(svm.to_device(A, K64), Ok(1), "18: what is there already stays");
        assert_eq!(svm.migrate(A, K64, REGION_SYSTEM, SVM_MIGRATE_STRICT), Ok(16));
        svm.assert_filled(A, 2 * K64);
        assert_eq!(svm.migrate(A - K64, 4 * M2, REGION_VRAM, 0), Ok(32), "holes are skipped");
        svm.assert_filled(A, 2 * K64);
    });
}

#[test]
fn strict_moves_to_system_memory_are_all_or_nothing() {
    for (kind, nth, errno) in [
        (INJECT_COPY, 3, Errno::IO),
        (INJECT_COPY, 20, Errno::IO),
        (INJECT_MIGRATE, 20, Errno::NOMEM),
    ] {
        check(|svm| {
            // Two pieces, each of single pages, of which the second ends with one that was never away.
            let start = A + M2 - 16 * K4;
            svm.mmap(start, 32 * K4);
            svm.fill(start, 32 * K4);
            for page in (start..start + 31 * K4).step_by(K4 as usize) {
                assert_eq!(svm.to_device(page, K4), Ok(1));
            }
            svm.c.inject(kind, nth);
            let strict = SVM_MIGRATE_STRICT;
            assert_eq!(svm.migrate(start, 32 * K4, REGION_SYSTEM, strict), Err(errno));
            svm.c.inject(kind, 0);
            for page in (start..start + 31 * K4).step_by(K4 as usize) {
                assert_eq!(svm.location(page), DEVICE, "{kind} {nth}: {page:#x}");
            }
            assert_eq!(svm.location(start + 31 * K4), SYSTEM);
            assert_eq!(svm.migrate(start, 32 * K4, REGION_SYSTEM, strict), Ok(31));
            svm.assert_filled(start, 32 * K4);
        });
    }
}

#[test]
fn strict_moves_to_the_device_leave_alone_what_is_there() {
    for (kind, nth, errno) in [
        (INJECT_COPY, 2, Errno::IO),
        (INJECT_COPY, 18, Errno::IO),
        (INJECT_MIGRATE, 18, Errno::NOMEM),
    ] {
        check(|svm| {
            // Two pieces, each of which begins with pages that are there already.
            let start = A + M2 - 16 * K4;
            let is_there = |page: u64| (page - start) / K4 % 16 < 4;
            svm.mmap(start, 32 * K4);
            svm.fill(start, 32 * K4);
            for part in [start, start + 16 * K4] {
                assert_eq!(svm.to_device(part, 4 * K4), Ok(4));
            }
            svm.c.inject(kind, nth);
            assert_eq!(svm.to_device(start, 32 * K4), Err(errno));
            svm.c.inject(kind, 0);
            for page in (start..start + 32 * K4).step_by(K4 as usize) {
                let expected = if is_there(page) { DEVICE } else { SYSTEM };
                assert_eq!(svm.location(page), expected, "{kind} {nth}: {page:#x}");
            }
            assert_eq!(svm.counter("live.svm_pages"), 8);
            assert_eq!(svm.to_device(start, 32 * K4), Ok(24));
            svm.assert_filled(start, 32 * K4);
        });
    }
}

#[test]
fn room_for_a_strict_move_that_fails_is_given_back() {
    check(|svm| {
        // All of the device: its objects cannot leave, and one page of the mapping is pinned.
        let bo = svm.c.vram(12 << 20);
        svm.mmap(A, 2 * M2);
        svm.fill(A, 2 * M2);
        let last = A + 2 * M2 - K64;
        assert_eq!(svm.to_device(last, K64), Ok(16));
        svm.mmap(A + 8 * M2, M2);
        svm.fill(A + 8 * M2, M2);
        assert_eq!(svm.to_device(A + 8 * M2, M2), Ok(512));
        svm.host().pin(svm.task(), last - K4, true);
        assert_eq!(svm.to_device(A, 2 * M2), Err(Errno::BUSY));
        assert_eq!((svm.location(A), svm.location(last - K4)), (SYSTEM, SYSTEM));
        assert_eq!(svm.location(last), DEVICE, "though it may have left to make room");
        svm.host().pin(svm.task(), last - K4, false);
        svm.assert_filled(A, 2 * M2);
        svm.c.gem_close(bo);
    });
}

#[test]
fn untouched_memory_moves_as_zeros() {
    check(|svm| {
        svm.mmap(A, M2);
        assert_eq!(svm.cpu_load(A + K4), 0);
        assert_eq!(svm.to_device(A, M2), Ok(512));
        assert_eq!((svm.gpu_load(A), svm.gpu_load(A + K4)), (0, 0));
        svm.gpu_store(A + K64, 3);
        assert_eq!((svm.cpu_load(A), svm.cpu_load(A + K64)), (0, 3));
    });
}

#[test]
fn large_folios_move_whole_or_split() {
    check(|svm| {
        svm.host().mmap_cpu(svm.task(), Span::new(A, A + M2), true, Kind::Anon(9));
        svm.fill(A, M2);
        let order = |svm: &Svm<'_>| (svm.query(A, K4)[0] & SVM_PAGE_ORDER_MASK) >> 16;
        assert_eq!(order(svm), 9);
        svm.gpu_store(A + 8, 1);
        assert_eq!(svm.to_device(A, M2), Ok(512));
        assert_eq!(order(svm), 9, "one folio there as well");
        svm.assert_filled(A, M2);
        svm.c.inject(INJECT_MIGRATE, 1);
        svm.host().mmap_cpu(svm.task(), Span::new(A + M2, A + 2 * M2), true, Kind::Anon(9));
        svm.fill(A + M2, M2);
        assert_eq!(svm.to_device(A + M2, M2), Ok(512), "page by page");
        assert_eq!(svm.query(A + M2, K4)[0] & SVM_PAGE_ORDER_MASK, 0);
        svm.assert_filled(A + M2, M2);
    });
}

#[test]
fn failures_leave_data_where_it_was() {
    check(|svm| {
        svm.mmap(A, K64);
        svm.fill(A, K64);
        svm.c.inject(INJECT_COPY, 3);
        assert_eq!(svm.to_device(A, K64), Err(Errno::IO), "24");
        assert_eq!((svm.location(A), svm.counter("live.svm_pages")), (SYSTEM, 0));
        svm.c.inject(INJECT_MIGRATE, 5);
        assert_eq!(svm.to_device(A, K64), Err(Errno::NOMEM), "19");
        assert_eq!((svm.location(A), svm.counter("live.svm_pages")), (SYSTEM, 0));
        svm.assert_filled(A, K64);
        assert_eq!(svm.to_device(A, K64), Ok(16));
        svm.c.inject(INJECT_COPY, 1);
        assert_eq!(svm.host().cpu_load(svm.task(), A), Err(Errno::IO), "22: SIGBUS");
        svm.assert_filled(A, K64);
    });
}

#[test]
fn unmapping_a_part_leaves_the_rest() {
    for (cut, len) in [(0, K64), (M2 / 2, K4), (M2 - K64, K64)] {
        check(|svm| {
            svm.mmap(A, M2);
            svm.fill(A, M2);
            assert_eq!(svm.to_device(A, M2), Ok(512));
            svm.gpu_store(A + 8, 1);
            svm.munmap(A + cut, len);
            svm.c.sim.settle();
            assert_eq!(svm.counter("live.svm_pages"), 512 - len / K4, "the frames are free");
            for part in [Span::new(A, A + cut), Span::new(A + cut + len, A + M2)] {
                for page in (part.start..part.end).step_by(K4 as usize).take(3) {
                    assert_eq!(svm.gpu_load(page), page ^ 0x55, "16: {page:#x}");
                }
                svm.assert_filled(part.start, part.len());
            }
            assert!(!svm.run(&[store(A + cut, 1)]));
        });
    }
}

#[test]
fn a_mapping_that_moves_takes_its_pages_along() {
    for keep in [false, true] {
        check(|svm| {
            svm.mmap(A, K64);
            svm.fill(A, K64);
            assert_eq!(svm.to_device(A, K64), Ok(16));
            assert_eq!(svm.gpu_load(A), A ^ 0x55);
            let to = A + 8 * M2 + K4;
            svm.host().mremap(svm.task(), Span::new(A, A + K64), to, keep);
            assert_eq!(svm.gpu_load(to + K4), (A + K4) ^ 0x55, "the data is at the new address");
            assert_eq!(svm.cpu_load(to), A ^ 0x55);
            match keep {
                true => assert_eq!(svm.gpu_load(A), 0, "the old one is empty"),
                false => assert!(!svm.run(&[store(A, 1)]), "the old one is gone"),
            }
        });
    }
}

#[test]
fn the_oldest_make_room() {
    check(|svm| {
        // The device has 16 MiB.
        svm.mmap(A, 24 * M2);
        svm.fill(A, 24 * M2);
        for at in 0..24 {
            assert_eq!(svm.to_device(A + at * M2, M2), Ok(512), "{at}");
        }
        assert_eq!(svm.counter("svm.evictions"), 16);
        assert_eq!((svm.location(A), svm.location(A + 23 * M2)), (SYSTEM, DEVICE));
        let bo = svm.c.vram(8 * M2);
        assert_eq!(svm.c.info(bo).resident, REGION_VRAM, "objects drive chunks out");
        assert_eq!(svm.counter("live.svm_pages"), 0);
        svm.c.gem_close(bo);
        let movable = svm.c.bo(12 << 20, REGION_VRAM | REGION_SYSTEM);
        assert_eq!(svm.to_device(A, 4 * M2), Ok(2048));
        assert_eq!(svm.c.info(movable).resident, REGION_SYSTEM, "and chunks drive objects out");
        let all = svm.c.evict_svm().expect("evicts");
        assert_eq!((all, svm.counter("live.svm_pages")), (8 << 20, 0), "21");
        assert_eq!(svm.c.evict_svm(), Ok(0), "21: idempotent");
        svm.assert_filled(A, 24 * M2);
    });
}

#[test]
fn a_timeslice_keeps_pages_for_a_while() {
    check(|svm| {
        svm.mmap(A, K64);
        svm.fill(A, K64);
        svm.attr(SVM_ATTR_TIMESLICE, A, K64, 50_000);
        assert_eq!(svm.to_device(A, K64), Ok(16));
        svm.gpu_store(A + 8, 5);
        assert_eq!(svm.cpu_load(A + 8), 5, "20: it waits, and the value is right");
        assert!(svm.counter("svm.timeslices") > 10, "20");
        assert_eq!(svm.to_device(A, K64), Ok(16));
        assert_eq!(svm.c.evict_svm(), Ok(K64), "20: eviction does not ask");
    });
}

#[test]
fn attributes_move_pages_at_the_next_access() {
    check(|svm| {
        svm.mmap(A, M2);
        svm.fill(A, M2);
        assert_eq!(svm.gpu_load(A), A ^ 0x55);
        svm.attr(SVM_ATTR_PREFERRED, A, M2, REGION_VRAM.into());
        assert_eq!(svm.get_attr(SVM_ATTR_PREFERRED, A, M2), u64::from(REGION_VRAM));
        assert_eq!(svm.get_attr(SVM_ATTR_PREFERRED, A, 2 * M2), SVM_ATTR_MIXED);
        assert_eq!(svm.gpu_load(A), A ^ 0x55);
        assert_eq!(svm.location(A + M2 - K4), DEVICE);
        let faults = svm.counter("svm.faults");
        svm.attr(SVM_ATTR_PREFERRED, A, M2, REGION_VRAM.into());
        assert_eq!(svm.gpu_load(A), A ^ 0x55);
        assert_eq!(svm.counter("svm.faults"), faults, "the same value changes nothing");
        svm.c.bind(svm.vm, &[madvise(A, K64, REGION_SYSTEM)]).expect("advises");
        assert_eq!(svm.get_attr(SVM_ATTR_PREFERRED, A, K64), u64::from(REGION_SYSTEM));
        assert_eq!(svm.gpu_load(A), A ^ 0x55);
        assert_eq!(svm.location(A), SYSTEM);
        svm.munmap(A, M2);
        svm.c.bind(svm.vm, &[unmap(A, M2), mirror(A, M2)]).expect("binds anew");
        assert_eq!(svm.get_attr(SVM_ATTR_PREFERRED, A, M2), SVM_ATTR_MIXED, "still a mirror");
        svm.c.bind(svm.vm, &[unmap(A, M2)]).expect("unbinds");
        svm.c.bind(svm.vm, &[mirror(A, M2)]).expect("binds");
        assert_eq!(svm.get_attr(SVM_ATTR_PREFERRED, A, M2), 0, "forgotten");
    });
}

#[test]
fn what_was_prefetched_does_not_fault() {
    check(|svm| {
        svm.mmap(A, 2 * M2);
        svm.fill(A, M2);
        let faults = svm.counter("svm.faults");
        svm.c.bind(svm.vm, &[prefetch(A, 4 * M2, REGION_VRAM)]).expect("prefetches");
        assert_eq!(svm.location(A + M2 - K4), DEVICE);
        svm.gpu_store(A + 8, 1);
        svm.gpu_store(A + 2 * M2 - 8, 2);
        svm.c.bind(svm.vm, &[prefetch(A, M2, REGION_SYSTEM)]).expect("prefetches");
        assert_eq!(svm.location(A), SYSTEM);
        assert_eq!(svm.gpu_load(A + 8), 1);
        assert_eq!(svm.counter("svm.faults"), faults);
        assert!(svm.counter("svm.prefetched") >= 3);
    });
}

#[test]
fn chunks_are_as_large_as_mappings_and_windows_allow() {
    check(|svm| {
        svm.mmap(A + K64, M2);
        svm.gpu_store(A + K64, 1);
        assert_eq!(svm.counter("svm.ranges_4k"), 1, "4: pages of 64 KiB are not all there");
        svm.fill(A + 2 * K64, K64);
        svm.gpu_store(A + 2 * K64, 1);
        assert_eq!(svm.counter("svm.ranges_64k"), 1, "3: within the mapping");
        svm.gpu_store(A + M2, 1);
        assert_eq!(svm.counter("svm.ranges_2m"), 0, "3: 2 MiB do not fit");
        svm.mmap(A + 4 * M2, M2);
        svm.gpu_store(A + 4 * M2 + K64, 1);
        assert_eq!(svm.counter("svm.ranges_2m"), 1, "3");
        assert_eq!(svm.counter("live.notifiers"), 1, "2: one window");
        svm.mmap(A + (512 << 20), K4);
        svm.gpu_store(A + (512 << 20), 1);
        assert_eq!(svm.counter("live.notifiers"), 2, "2");
        svm.munmap(A + (512 << 20), K4);
        svm.c.sim.settle();
        assert_eq!(svm.counter("live.notifiers"), 1, "2: gone with its last range");
    });
}

#[test]
fn small_windows_cut_ranges() {
    check(|svm| {
        svm.tune(SVM_TUNE_NOTIFIER, K64);
        svm.tune(SVM_TUNE_CHECK_PAGES, 0);
        let other = Svm::new(svm.c);
        svm.mmap(A, M2);
        other.gpu_store(A, 1);
        other.gpu_store(A + 3 * K64, 1);
        assert_eq!(svm.counter("svm.ranges_64k"), 2, "3: within the window");
        assert_eq!(svm.counter("live.notifiers"), 2);
        svm.tune(SVM_TUNE_CHUNKS, K4);
        let third = Svm::new(svm.c);
        third.gpu_store(A + K64, 1);
        assert_eq!(svm.counter("svm.ranges_4k"), 1);
    });
}
