//! SVM: what happens while something else does, and the fault buffer. What is to happen meanwhile is
//! held at a delay point or done while the driver waits there.

use fencepost_core::gpuva::Span;
use fencepost_host::sim::cpu::Kind;
use fencepost_host::sim::{Sim, Task};
use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;

use super::client::{sim, store, Client, K4, K64, M2};
use super::svm::{check, Svm, A};
use super::svm_atomic::add;

impl Svm<'_> {
    /// While the driver is held at a point for the next time, `event` happens; then it goes on.
    fn during(&self, point: &str, event: impl FnOnce(&Sim, Task) + Send + 'static) {
        self.c.delay(point, DELAY_ARM, 1).expect("a point");
        let (driver, task) = (self.c.sim.driver().clone(), self.task());
        self.host().meanwhile(move || {
            let sim = Sim::over(driver);
            event(&sim, task);
            std::mem::forget(sim);
        });
    }

    pub(crate) fn faults_call(&self, action: u32, entries: u64) -> Result<SvmFaults, Errno> {
        let timeout_ms = u32::from(action == SVM_FAULTS_WAIT);
        let mut args = SvmFaults { action, timeout_ms, entries, ..Default::default() };
        self.c.call(SVM_FAULTS, &mut args).map(|_| args)
    }
}

#[test]
fn what_was_read_before_an_unmap_is_not_shown() {
    check(|svm| {
        svm.mmap(A, M2);
        svm.cpu_store(A, 1);
        svm.during("svm.read", |sim, task| {
            sim.host().munmap(task, Span::new(A, A + M2));
        });
        assert!(!svm.run(&[store(A, 7)]), "9, X23, X24: there is nothing any more");
        assert_eq!(svm.c.faults(svm.vm)[0].kind, FAULT_KIND_NOT_PRESENT);
        assert_eq!((svm.counter("svm.retries"), svm.counter("bus_errors")), (1, 0));
    });
}

#[test]
fn every_page_of_a_change_is_invalidated_and_no_other() {
    for count in [1, 2, 3, 15, 16] {
        check(|svm| {
            svm.mmap(A, K64);
            let pages = || (0..16).map(|page| A + page * K4);
            pages().for_each(|page| svm.cpu_store(page, page));
            pages().for_each(|page| assert_eq!(svm.gpu_load(page), page));
            let invalidations = svm.counter("svm.invalidations");
            svm.host().discard(svm.task(), Span::new(A, A + count * K4));
            assert!(svm.counter("svm.invalidations") > invalidations);
            let end = A + count * K4;
            for page in pages() {
                assert_eq!(svm.gpu_load(page), if page < end { 0 } else { page }, "{count}");
            }
        });
    }
}

#[test]
fn a_page_of_a_large_mapping_ends_all_of_it() {
    for at in [0, 7, 15] {
        check(|svm| {
            let (all, at) = (Span::new(A, A + K64), A + at * K4);
            svm.host().mmap_cpu(svm.task(), all, true, Kind::Anon(4));
            let pages = || (0..16).map(|page| A + page * K4);
            pages().for_each(|page| svm.cpu_store(page, page));
            assert_eq!(svm.gpu_load(A), A);
            svm.host().discard(svm.task(), Span::new(at, at + K4));
            for page in pages() {
                assert_eq!(svm.gpu_load(page), if page == at { 0 } else { page });
            }
            assert_eq!(svm.counter("bus_errors"), 0);
        });
    }
}

#[test]
fn what_was_read_before_a_change_is_read_again() {
    check(|svm| {
        svm.mmap(A, M2);
        svm.cpu_store(A, 1);
        svm.during("svm.read", |sim, task| {
            sim.host().discard(task, Span::new(A, A + K4));
            sim.host().cpu_store(task, A, 2).expect("accessible");
        });
        assert_eq!(svm.gpu_load(A), 2, "9: the new page is shown");
        assert!(svm.counter("svm.retries") >= 1);
        svm.during("svm.read", |sim, task| {
            sim.host().mprotect(task, Span::new(A, A + M2), true, false);
        });
        svm.host().discard(svm.task(), Span::new(A, A + M2));
        assert!(!svm.run(&[store(A, 3)]), "M22: no write through what may only be read");
        assert_eq!(svm.c.faults(svm.vm)[0].kind, FAULT_KIND_PERMISSION);
    });
}

#[test]
fn a_page_that_goes_while_it_becomes_exclusive_is_not_shown() {
    check(|svm| {
        svm.mmap(A, K64);
        svm.during("svm.exclusive", |sim, task| {
            sim.host().discard(task, Span::new(A, A + K4));
        });
        assert!(svm.run(&[add(A, 5)]));
        assert_eq!(svm.cpu_load(A), 5, "the add went to the page that is there");
        assert!(svm.counter("svm.retries") >= 1);
    });
}

#[test]
fn a_page_that_is_pinned_during_a_move_stays() {
    check(|svm| {
        svm.mmap(A, K64);
        svm.cpu_store(A, 4);
        svm.cpu_store(A + K4, 5);
        svm.during("svm.copied", |sim, task| {
            sim.host().munmap(task, Span::new(A + K4, A + 2 * K4));
        });
        let (vm_id, start) = (svm.vm, A);
        let mut args = SvmMigrate { vm_id, start, size: K64, region: 2, ..Default::default() };
        svm.c.call(SVM_MIGRATE, &mut args).expect("best effort");
        assert_eq!(args.pages, 15, "19: not the one that went");
        assert_eq!(svm.cpu_load(A), 4);
    });
}

#[test]
fn faults_of_one_page_are_serviced_once() {
    check(|svm| {
        svm.mmap(A, K64);
        svm.faults_call(SVM_FAULTS_PAUSE, 0).expect("pauses");
        let others: Vec<u32> = (0..3).map(|_| svm.c.queue(svm.vm, QUEUE_CLASS_EXEC)).collect();
        let turn = svm.start(&[store(A, 1)]);
        for (i, queue) in others.iter().enumerate() {
            svm.start_on(*queue, &[store(A + 8 + i as u64 * 8, 2)]);
        }
        svm.c.sim.settle();
        let report = svm.faults_call(SVM_FAULTS_WAIT, 4).expect("they came");
        assert_eq!((report.entries, report.parked, report.paused), (4, 4, 1));
        assert_eq!((report.put, report.get), (4, 0));
        svm.faults_call(SVM_FAULTS_RESUME, 0).expect("goes on");
        svm.c.sim.settle();
        assert!(svm.is_done(turn) || svm.cpu_load(A) == 1);
        assert_eq!([8, 16, 24].map(|at| svm.cpu_load(A + at)), [2; 3]);
        assert_eq!((svm.counter("svm.faults"), svm.counter("svm.faults.coalesced")), (4, 3));
        assert_eq!(svm.counter("svm.replays"), 1);
        let report = svm.faults_call(SVM_FAULTS_STATE, 0).expect("a state");
        assert_eq!((report.entries, report.parked, report.get), (0, 0, 4));
    });
}

#[test]
fn a_full_buffer_loses_nothing() {
    check(|svm| {
        svm.mmap(A, M2);
        let mut args =
            SvmTune { param: SVM_TUNE_FAULT_ENTRIES, flags: 1, value: 1, ..Default::default() };
        svm.c.call(SVM_TUNE, &mut args).expect("tunes");
        assert_eq!(args.value, 256);
        svm.faults_call(SVM_FAULTS_PAUSE, 0).expect("pauses");
        let others: Vec<u32> = (0..5).map(|_| svm.c.queue(svm.vm, QUEUE_CLASS_EXEC)).collect();
        for (i, queue) in others.iter().enumerate() {
            svm.start_on(*queue, &[store(A + i as u64 * K4, i as u64 + 1)]);
        }
        svm.c.sim.settle();
        let report = svm.faults_call(SVM_FAULTS_STATE, 0).expect("a state");
        assert_eq!((report.entries, report.parked, report.room), (1, 1, 1));
        assert!(svm.counter("svm.buffer_full") >= 4);
        svm.faults_call(SVM_FAULTS_FLUSH, 0).expect("flushes");
        svm.faults_call(SVM_FAULTS_RESUME, 0).expect("goes on");
        svm.c.sim.settle();
        for i in 0..5 {
            assert_eq!(svm.cpu_load(A + i * K4), i + 1, "{i}");
        }
    });
}

#[test]
fn a_batch_refuses_only_what_is_wrong() {
    check(|svm| {
        svm.mmap(A, K4);
        svm.mmap(A + M2, K64);
        svm.host().mprotect(svm.task(), Span::new(A, A + K4), true, false);
        svm.faults_call(SVM_FAULTS_PAUSE, 0).expect("pauses");
        let others: Vec<u32> = (0..2).map(|_| svm.c.queue(svm.vm, QUEUE_CLASS_EXEC)).collect();
        let turn = svm.start(&[store(A, 1)]);
        svm.start_on(others[0], &[super::client::load(A, 1), store(A + M2, 2)]);
        svm.start_on(others[1], &[store(A + M2 + 8, 3)]);
        svm.c.sim.settle();
        svm.faults_call(SVM_FAULTS_RESUME, 0).expect("goes on");
        svm.c.sim.settle();
        assert!(!svm.is_done(turn) || svm.counter("svm.cancels") == 1);
        assert_eq!((svm.cpu_load(A + M2), svm.cpu_load(A + M2 + 8)), (2, 3));
        assert_eq!(svm.c.faults(svm.vm).len(), 1);
        assert_eq!(svm.c.queue_info(others[0]).state, QUEUE_STATE_ACTIVE);
        assert_eq!(svm.c.queue_info(svm.queue).state, QUEUE_STATE_BANNED);
    });
}

#[test]
fn an_address_space_that_ends_takes_its_jobs_along() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let svm = Svm::new(&c);
    svm.mmap(A, M2);
    svm.gpu_store(A, 1);
    let (vm_id, start) = (svm.vm, A);
    let mut args = SvmMigrate { vm_id, start, size: M2, region: 2, ..Default::default() };
    svm.c.call(SVM_MIGRATE, &mut args).expect("moves");
    svm.host().exit_mm(svm.task());
    assert!(!svm.run(&[store(A, 2)]));
    let mut query = SvmQuery { vm_id, start, size: K4, pages: 1 << 20, ..Default::default() };
    assert_eq!(c.call(SVM_QUERY, &mut query), Err(Errno::FAULT));
    svm.end();
}
