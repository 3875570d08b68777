//! SVM: faults that are serviced together, as nouveau's window grows over those that follow.

use fencepost_core::gpuva::Span;
use fencepost_uapi::fencepost::*;

use super::client::{load, store, K4, K64};
use super::svm::{check, Svm, A};
use super::svm_atomic::add;

fn page(number: u64) -> u64 {
    A + number * K4
}

impl Svm<'_> {
    /// A range of 16 pages that the GPU has, of which some go again.
    fn range_without(&self, gone: &[u64]) {
        self.mmap(A, K64);
        self.fill(A, K64);
        self.gpu_load(A);
        assert_eq!(self.counter("svm.ranges_64k"), 1);
        self.drop_pages(gone);
    }

    fn drop_pages(&self, gone: &[u64]) {
        for number in gone {
            self.host().discard(self.task(), Span::new(page(*number), page(*number + 1)));
        }
    }

    /// Runs programs of one command in queues of their own, the last first, so that their faults make
    /// one batch. Returns what was counted: faults, and reads of pages.
    fn batch(&self, programs: &[Vec<u64>]) -> (u64, u64) {
        let counted = || (self.counter("svm.faults"), self.counter("svm.fills"));
        let before = counted();
        self.faults_call(SVM_FAULTS_PAUSE, 0).expect("pauses");
        for program in programs.iter().rev() {
            let queue = self.c.queue(self.vm, QUEUE_CLASS_EXEC);
            self.start_on(queue, std::slice::from_ref(program));
        }
        self.c.sim.settle();
        self.faults_call(SVM_FAULTS_RESUME, 0).expect("goes on");
        self.c.sim.settle();
        assert_eq!(self.counter("live.parked"), 0);
        let after = counted();
        (after.0 - before.0, after.1 - before.1)
    }

    fn gpu_may_write(&self, number: u64) -> bool {
        let bits = self.query(page(number), K4)[0];
        assert!(bits & SVM_PAGE_GPU_READ != 0, "page {number}: {bits:#x}");
        bits & SVM_PAGE_GPU_WRITE != 0
    }
}

#[test]
fn faults_of_a_range_are_read_together() {
    check(|svm| {
        let gone = [0, 2, 5, 6, 15];
        svm.range_without(&gone);
        let programs = gone.map(|number| load(page(number), 1));
        assert_eq!(svm.batch(&programs), (5, 1));
        assert_eq!(svm.gpu_load(page(4)), page(4) ^ 0x55, "what lay between is as it was");
        assert_eq!(svm.counter("svm.faults"), 6);
        svm.drop_pages(&[3]);
        svm.mmap(page(16), K64);
        svm.fill(page(16), K64);
        let programs = [load(page(3), 1), load(page(16), 1)];
        assert_eq!(svm.batch(&programs), (2, 2), "another range has its own");
    });
}

#[test]
fn each_page_gets_what_its_fault_asked_for() {
    for (first, second) in [(true, false), (false, true)] {
        check(|svm| {
            svm.range_without(&[0, 1, 8]);
            let program = |number, write| match write {
                true => store(page(number), 7),
                false => load(page(number), 1),
            };
            let programs = [program(0, first), program(1, second), load(page(8), 1)];
            assert_eq!(svm.batch(&programs), (3, 1));
            let may = [0, 1, 8].map(|number| svm.gpu_may_write(number));
            assert_eq!(may, [first, second, false], "the zero page stays where nobody wrote");
            assert_eq!(svm.cpu_load(page(u64::from(second))), 7);
        });
    }
}

#[test]
fn of_a_page_the_strongest_access_counts() {
    check(|svm| {
        svm.range_without(&[0, 4]);
        let programs = [load(page(0), 1), load(page(4), 1), store(page(4), 9), load(page(4), 1)];
        assert_eq!(svm.batch(&programs), (4, 1));
        assert_eq!((svm.gpu_may_write(0), svm.gpu_may_write(4)), (false, true));
        assert_eq!(svm.cpu_load(page(4)), 9);
    });
}

#[test]
fn a_page_that_cannot_be_had_ends_its_own_job_alone() {
    check(|svm| {
        svm.range_without(&[0, 4]);
        svm.host().mprotect(svm.task(), Span::new(page(2), page(3)), false, false);
        svm.batch(&[load(page(0), 1), load(page(2) + 8, 1), store(page(4), 3)]);
        let faults = svm.c.faults(svm.vm);
        assert_eq!((faults.len(), faults[0].addr), (1, page(2) + 8));
        assert_eq!(svm.counter("svm.cancels"), 1);
        assert_eq!(svm.cpu_load(page(4)), 3);
        assert!(!svm.gpu_may_write(0));
        svm.host().mprotect(svm.task(), Span::new(page(2), page(3)), true, true);
    });
}

#[test]
fn exclusive_pages_between_stay() {
    check(|svm| {
        svm.range_without(&[]);
        assert!(svm.run(&[add(page(1), 1)]));
        svm.drop_pages(&[0, 2]);
        assert_eq!(svm.batch(&[load(page(0), 1), load(page(2), 1)]), (2, 1));
        assert!(svm.host().is_exclusive(svm.task(), page(1)));
        assert!(svm.run(&[add(page(1), 1)]));
        assert_eq!(svm.counter("svm.exclusive"), 1);
        assert_eq!(svm.cpu_load(page(1)), (page(1) ^ 0x55) + 2);
    });
}

#[test]
fn pages_with_other_attributes_have_their_own_turn() {
    check(|svm| {
        svm.range_without(&[]);
        svm.attr(SVM_ATTR_ATOMIC, page(2), K4, SVM_ATOMIC_DEVICE);
        svm.drop_pages(&[0, 2, 4]);
        let programs = [0, 2, 4].map(|number| add(page(number), 1));
        svm.batch(&programs);
        assert_eq!([0, 2, 4].map(|number| svm.cpu_load(page(number))), [1; 3]);
        assert_eq!(svm.counter("svm.exclusive"), 2, "all but the one with the attribute");
    });
}
