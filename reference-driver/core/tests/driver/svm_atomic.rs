//! SVM: exclusive access and atomics. Numbers are those of the propositions of `make_device_exclusive`.

use fencepost_core::gpuva::Span;
use fencepost_host::sim::cpu::Kind;
use fencepost_uapi::command as c;
use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;

use super::client::{config, sim, Client, K4, K64, M2};
use super::svm::{check, Svm, A};

/// A program that adds to a word.
pub(crate) fn add(addr: u64, by: u64) -> Vec<u64> {
    let imm = u32::from(c::ATOMIC_ADD) << 8;
    vec![c::header(c::ATOMIC, c::WIDE | c::SYSTEM_SCOPE, imm), addr, by, 0]
}

impl Svm<'_> {
    fn exclusive(&self, start: u64, size: u64) -> (Result<i64, Errno>, u64) {
        let mut args = SvmExclusive { vm_id: self.vm, start, size, ..Default::default() };
        (self.c.call(SVM_EXCLUSIVE, &mut args), args.pages)
    }

    fn is_exclusive(&self, addr: u64) -> bool {
        self.host().is_exclusive(self.task(), addr)
    }

    fn set_atomic(&self, start: u64, size: u64, value: u64) {
        let (vm_id, attr) = (self.vm, SVM_ATTR_ATOMIC);
        let mut args = SvmAttr { vm_id, attr, start, size, value, ..Default::default() };
        self.c.call(SVM_ATTR, &mut args).expect("an attribute");
    }
}

#[test]
fn no_update_is_lost_under_revocation() {
    check(|svm| {
        svm.mmap(A, K64);
        for round in 0..20 {
            assert!(svm.run(&[add(A, 1), add(A + 8, 1), add(A, 1)]));
            assert!(svm.is_exclusive(A), "5");
            if round % 3 == 0 {
                let seen = svm.cpu_load(A);
                svm.cpu_store(A, seen + 100);
                assert!(!svm.is_exclusive(A), "5: the CPU has it back");
            }
        }
        assert_eq!((svm.cpu_load(A), svm.cpu_load(A + 8)), (40 + 700, 20), "14");
        assert_eq!((svm.counter("svm.exclusive"), svm.counter("svm.revokes")), (8, 8));
        assert_eq!(
            svm.counter("svm.faults.atomic"),
            8,
            "as long as it is exclusive none is needed"
        );
    });
}

#[test]
fn exclusive_pages_are_where_they_can_be() {
    check(|svm| {
        svm.mmap(A, K64);
        svm.cpu_store(A + K4, 4);
        assert_eq!(svm.exclusive(A, K64), (Ok(0), 16));
        assert!(svm.is_exclusive(A) && svm.is_exclusive(A + K64 - K4));
        assert_eq!(svm.gpu_load(A + K4), 4);
        assert!(svm.is_exclusive(A + K4), "the device's own loads do not end it");
        assert_eq!(svm.exclusive(A, K4), (Ok(0), 1), "13: again");
        assert_eq!(svm.cpu_load(A + K4), 4, "5: a load ends it as well");
        assert!(!svm.is_exclusive(A + K4));
        assert_eq!(svm.exclusive(A + M2, K4), (Err(Errno::FAULT), 0), "1: nothing there");
        let task = svm.task();
        let span = Span::new(A + M2, A + M2 + K64);
        svm.host().mmap_cpu(task, span, true, Kind::Shared);
        assert_eq!(svm.exclusive(A + M2, K4), (Err(Errno::OPNOTSUPP), 0), "1: shared memory");
        assert_eq!(svm.exclusive(A + K64 - K4, M2).1, 1, "the pages before stay");
        svm.host().mprotect(task, Span::new(A, A + K64), true, false);
        assert_eq!(svm.exclusive(A, K4), (Err(Errno::FAULT), 0), "1: read-only");
        assert_eq!(svm.exclusive(4 * A, K4), (Err(Errno::INVAL), 0), "not in a mirror");
    });
}

#[test]
fn atomics_without_permission_are_faults() {
    for kind in [Kind::Shared, Kind::Anon(0)] {
        check(|svm| {
            let span = Span::new(A, A + K4);
            svm.host().mmap_cpu(svm.task(), span, true, kind);
            svm.cpu_store(A, 1);
            if kind != Kind::Shared {
                svm.host().mprotect(svm.task(), span, true, false);
            }
            assert!(!svm.run(&[add(A, 1)]));
            assert_eq!(svm.c.faults(svm.vm)[0].kind, FAULT_KIND_PERMISSION, "1, 10");
            assert_eq!(svm.c.faults(svm.vm)[0].access, FAULT_ACCESS_ATOMIC);
            assert_eq!(svm.cpu_load(A), 1);
        });
    }
}

#[test]
fn the_mode_says_what_atomics_do() {
    check(|svm| {
        svm.mmap(A, 4 * M2);
        svm.set_atomic(A, M2, SVM_ATOMIC_GLOBAL);
        assert!(svm.run(&[add(A, 1)]));
        let location = |addr| svm.host().location(svm.task(), addr);
        assert_eq!(location(A), Some(Some(0)), "global: to device memory");
        assert_eq!(svm.cpu_load(A), 1);
        svm.set_atomic(A + M2, M2, SVM_ATOMIC_DEVICE);
        assert!(svm.run(&[add(A + M2, 1)]));
        assert!(!svm.is_exclusive(A + M2), "device: where it is");
        assert_eq!((location(A + M2), svm.cpu_load(A + M2)), (Some(None), 1));
        svm.set_atomic(A + 2 * M2, M2, SVM_ATOMIC_CPU);
        assert!(!svm.run(&[add(A + 2 * M2, 1)]), "CPU: refused");
        assert_eq!(svm.cpu_load(A + 2 * M2), 0);
    });
}

#[test]
fn a_page_in_device_memory_comes_back_to_be_exclusive() {
    check(|svm| {
        svm.mmap(A, K64);
        svm.cpu_store(A, 5);
        let vm_id = svm.vm;
        let mut args =
            SvmMigrate { vm_id, start: A, size: K64, region: REGION_VRAM, ..Default::default() };
        svm.c.call(SVM_MIGRATE, &mut args).expect("moves");
        assert!(svm.run(&[add(A, 1)]), "there atomics can be done");
        assert_eq!(svm.counter("svm.exclusive"), 0);
        assert_eq!(svm.exclusive(A, K4), (Ok(0), 1), "4");
        assert!(svm.run(&[add(A, 1)]));
        assert_eq!(svm.cpu_load(A), 7);
    });
}

#[test]
fn a_child_has_no_exclusive_page() {
    check(|svm| {
        svm.mmap(A, K4);
        assert!(svm.run(&[add(A, 1)]));
        let child = svm.host().fork(svm.task());
        assert!(!svm.is_exclusive(A), "8: restored");
        assert!(svm.run(&[add(A, 1)]));
        assert_eq!(svm.host().cpu_load(child, A), Ok(1), "8");
        svm.host().cpu_store(child, A, 50).expect("its own");
        assert_eq!(svm.cpu_load(A), 2, "8: copies from here on");
        svm.host().exit_mm(child);
    });
}

#[test]
fn what_the_device_wrote_is_not_lost_on_the_way_out() {
    check(|svm| {
        svm.mmap(A, M2);
        assert!(svm.run(&[add(A, 3), add(A + K4, 4), add(A + 2 * K4, 5)]));
        svm.host().swap_out(svm.task(), Span::new(A, A + M2));
        assert_eq!(svm.cpu_load(A), 3, "6");
        svm.host().discard(svm.task(), Span::new(A + K4, A + 2 * K4));
        assert_eq!(svm.cpu_load(A + K4), 0, "9");
        let to = A + 8 * M2;
        svm.host().mremap(svm.task(), Span::new(A + 2 * K4, A + 3 * K4), to, false);
        assert_eq!(svm.cpu_load(to), 5, "11");
        svm.host().mprotect(svm.task(), Span::new(A, A + M2), true, false);
        assert_eq!(svm.gpu_load(A), 3, "10");
    });
}

#[test]
fn two_devices_take_turns() {
    let one = sim();
    let c = Client::new(&one).testing();
    let two = one.beside(2, config()).expect("a device");
    let other = Client { sim: &two, file: two.open(c.task).expect("opens"), task: c.task };
    let (svm, peer) = (Svm::new(&c), Svm::new(&other));
    svm.mmap(A, K64);
    for _ in 0..10 {
        assert!(svm.run(&[add(A, 1)]));
        assert!(peer.run(&[add(A, 10)]), "7: the other's access ends");
    }
    assert_eq!(svm.counter("svm.revokes"), 10);
    svm.cpu_store(A + 8, 3);
    assert_eq!(svm.cpu_load(A), 110, "14");
    // Memory of the other device is faulted back.
    let (vm_id, start, region) = (svm.vm, A, REGION_VRAM);
    let mut args = SvmMigrate { vm_id, start, size: K64, region, ..Default::default() };
    c.call(SVM_MIGRATE, &mut args).expect("moves");
    assert_eq!(args.pages, 16);
    let seen =
        |svm: &Svm<'_>| (svm.query(A, K4)[0] & SVM_PAGE_LOCATION_MASK) >> SVM_PAGE_LOCATION_SHIFT;
    assert_eq!((seen(&svm), seen(&peer)), (SVM_LOCATION_DEVICE, SVM_LOCATION_OTHER));
    assert_eq!(peer.gpu_load(A), 110);
    assert_eq!((seen(&svm), seen(&peer)), (SVM_LOCATION_SYSTEM, SVM_LOCATION_SYSTEM));
    peer.c.close();
    svm.end();
}
