//! SVM: pages that move between two devices, and which of them may (`SVM_ATTR_POLICY`).

use fencepost_core::gpuva::Span;
use fencepost_host::sim::cpu::Kind;
use fencepost_host::sim::Sim;
use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;

use super::client::{config, sim, Client, K4, K64, M2};
use super::svm::{Svm, A};
use super::svm_move::{DEVICE, SYSTEM};

const PEER: Option<Option<u8>> = Some(Some(1));

/// Runs a test with VMs of two devices on one address space.
fn check(test: impl FnOnce(&Svm<'_>, &Svm<'_>)) {
    let one = sim();
    let c = Client::new(&one).testing();
    let two: Sim = one.beside(2, config()).expect("a device");
    let other =
        Client { sim: &two, file: two.open(c.task).expect("opens"), task: c.task }.testing();
    let (svm, peer) = (Svm::new(&c), Svm::new(&other));
    test(&svm, &peer);
    peer.c.close();
    assert_eq!(peer.counter("live.svm_pages"), 0);
    two.driver().assert_consistent(&[]);
    svm.end();
}

impl Svm<'_> {
    /// Pages that moved: to this device, of these from another one, and to system memory.
    fn moved(&self) -> (u64, u64, u64) {
        let one = |name| self.counter(name);
        (one("svm.migrated.to_device"), one("svm.migrated.across"), one("svm.migrated.to_system"))
    }
}

#[test]
fn pages_move_from_one_device_to_the_other() {
    for strict in [0, SVM_MIGRATE_STRICT] {
        check(|svm, peer| {
            svm.mmap(A, M2);
            svm.fill(A, M2);
            assert_eq!(peer.to_device(A, M2), Ok(512));
            peer.gpu_store(A + 8, 3);
            assert_eq!(svm.migrate(A, M2, REGION_VRAM, strict), Ok(512));
            assert_eq!((svm.location(A), svm.location(A + M2 - K4)), (DEVICE, DEVICE));
            assert_eq!((svm.moved(), peer.moved()), ((512, 512, 0), (512, 0, 0)));
            peer.c.sim.settle();
            assert_eq!(peer.counter("live.svm_pages"), 0, "its frames are free");
            assert_eq!(svm.gpu_load(A + 8), 3, "with what it wrote");
            assert_eq!(peer.migrate(A, K64, REGION_VRAM, strict), Ok(16), "and back");
            assert_eq!((svm.location(A), svm.location(A + K64)), (PEER, DEVICE));
            assert_eq!(peer.gpu_load(A + 8), 3);
            svm.assert_filled(A, M2);
        });
    }
}

#[test]
fn pages_that_may_not_leave_a_device_stay_there() {
    check(|svm, peer| {
        svm.mmap(A, K64);
        svm.fill(A, K64);
        svm.attr(SVM_ATTR_POLICY, A, 8 * K4, SVM_POLICY_SYSTEM);
        assert_eq!(peer.to_device(A, 12 * K4), Ok(12));
        assert_eq!(svm.to_device(A, K64), Err(Errno::BUSY), "all or none");
        let places = || [0, 7, 8, 11, 12, 15].map(|page| svm.location(A + page * K4));
        assert_eq!(places(), [PEER, PEER, PEER, PEER, SYSTEM, SYSTEM]);
        assert_eq!(svm.migrate(A, K64, REGION_VRAM, 0), Ok(8));
        assert_eq!(places(), [PEER, PEER, DEVICE, DEVICE, DEVICE, DEVICE]);
        assert_eq!(svm.counter("svm.migrated.across"), 4);
        let faults = svm.counter("svm.faults");
        assert_eq!(svm.gpu_load(A + 2 * K4), (A + 2 * K4) ^ 0x55);
        assert_eq!(places()[..2], [SYSTEM, SYSTEM], "an access of this device brings them back");
        assert_eq!(svm.counter("svm.faults"), faults + 1);
        assert_eq!(svm.to_device(A, K64), Ok(8), "from there they may move");
        svm.assert_filled(A, K64);
    });
}

#[test]
fn a_preferred_region_takes_pages_from_the_other_device() {
    check(|svm, peer| {
        svm.mmap(A, K64);
        svm.fill(A, K64);
        svm.attr(SVM_ATTR_PREFERRED, A, K64, REGION_VRAM.into());
        peer.attr(SVM_ATTR_PREFERRED, A, K64, REGION_VRAM.into());
        for round in 0..5 {
            peer.gpu_store(A + 8, round);
            assert_eq!(svm.location(A + K4), PEER);
            assert_eq!(svm.gpu_load(A + 8), round);
            assert_eq!(svm.location(A + K4), DEVICE);
        }
        assert_eq!((svm.moved(), peer.moved()), ((80, 80, 0), (80, 64, 0)));
    });
}

#[test]
fn a_failure_leaves_pages_on_the_other_device() {
    check(|svm, peer| {
        svm.mmap(A, K64);
        svm.fill(A, K64);
        assert_eq!(peer.to_device(A, K64), Ok(16));
        for (kind, errno) in [(INJECT_COPY, Errno::IO), (INJECT_MIGRATE, Errno::NOMEM)] {
            svm.c.inject(kind, 5);
            assert_eq!(svm.to_device(A, K64), Err(errno));
            svm.c.inject(kind, 0);
            assert_eq!((svm.location(A), svm.location(A + 8 * K4)), (PEER, PEER));
            assert_eq!(svm.counter("live.svm_pages"), 0);
        }
        assert_eq!(peer.gpu_load(A + K4), (A + K4) ^ 0x55);
        svm.assert_filled(A, K64);
    });
}

#[test]
fn a_huge_page_and_a_fork_keep_their_data_on_the_way() {
    check(|svm, peer| {
        svm.host().mmap_cpu(svm.task(), Span::new(A, A + M2), true, Kind::Anon(9));
        svm.fill(A, M2);
        assert_eq!(peer.to_device(A, M2), Ok(512));
        let child = svm.host().fork(svm.task());
        // Shared with the child: no move takes it.
        assert_eq!(svm.migrate(A, M2, REGION_VRAM, 0), Ok(0));
        svm.host().exit_mm(child);
        assert_eq!(svm.migrate(A, M2, REGION_VRAM, 0), Ok(512));
        assert_eq!(svm.location(A), DEVICE);
        svm.assert_filled(A, M2);
    });
}
