//! SVM: ranges that are not to be in device and system memory at once (`SVM_TUNE_MIXED`); the
//! propositions of `drm_gpusvm_range_get_pages` without `allow_mixed`.

use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;

use super::client::{K4, K64, M2};
use super::svm::{check, Svm, A};
use super::svm_atomic::add;
use super::svm_move::{DEVICE, SYSTEM};

/// A VM whose ranges are in one memory.
fn unmixed<'a>(svm: &Svm<'a>) -> Svm<'a> {
    svm.tune(SVM_TUNE_MIXED, 0);
    Svm::new(svm.c)
}

fn pages(start: u64, len: u64) -> impl Iterator<Item = u64> {
    (start..start + len).step_by(K4 as usize)
}

#[test]
fn a_range_in_both_memories_comes_back_whole() {
    for mixed in [true, false] {
        check(|first| {
            let svm = if mixed { Svm::new(first.c) } else { unmixed(first) };
            svm.mmap(A, K64);
            svm.fill(A, K64);
            assert_eq!(svm.to_device(A + 4 * K4, 4 * K4), Ok(4));
            assert_eq!(svm.gpu_load(A + 8 * K4), (A + 8 * K4) ^ 0x55);
            for page in pages(A, K64) {
                let stays = mixed && (4..8).contains(&((page - A) / K4));
                assert_eq!(svm.location(page), if stays { DEVICE } else { SYSTEM }, "{page:#x}");
            }
            assert_eq!(svm.counter("svm.mixed"), u64::from(!mixed));
            assert_eq!(svm.counter("svm.faults"), 1, "which is not seen by the job");
            svm.assert_filled(A, K64);
        });
    }
}

#[test]
fn a_range_in_one_memory_stays() {
    check(|first| {
        let svm = unmixed(first);
        svm.mmap(A, M2);
        svm.fill(A, M2);
        assert_eq!(svm.gpu_load(A), A ^ 0x55);
        assert_eq!(svm.to_device(A, M2), Ok(512));
        assert_eq!(svm.gpu_load(A), A ^ 0x55);
        assert_eq!((svm.location(A), svm.counter("svm.mixed")), (DEVICE, 0));
    });
}

#[test]
fn what_the_gpu_has_already_counts() {
    check(|first| {
        let svm = unmixed(first);
        svm.mmap(A, K64);
        svm.fill(A, K64);
        for page in pages(A, K64) {
            assert_eq!(svm.to_device(page, K4), Ok(1));
        }
        assert_eq!(svm.gpu_load(A), A ^ 0x55);
        assert_eq!(svm.cpu_load(A + 3 * K4), (A + 3 * K4) ^ 0x55);
        assert_eq!((svm.location(A + 3 * K4), svm.location(A)), (SYSTEM, DEVICE));
        assert_eq!(svm.gpu_load(A), A ^ 0x55, "the others are used where they are");
        assert_eq!((svm.counter("svm.mixed"), svm.location(A)), (0, DEVICE));
        assert_eq!(svm.gpu_load(A + 3 * K4), (A + 3 * K4) ^ 0x55, "until this one is wanted");
        assert_eq!((svm.counter("svm.mixed"), svm.location(A)), (1, SYSTEM));
        svm.assert_filled(A, K64);
    });
}

#[test]
fn an_exclusive_page_has_no_neighbours_on_the_device() {
    for place in [0, SVM_ATOMIC_GLOBAL] {
        check(|first| {
            let svm = unmixed(first);
            svm.mmap(A, K64);
            svm.fill(A, K64);
            assert_eq!(svm.gpu_load(A + K4), (A + K4) ^ 0x55);
            svm.attr(SVM_ATTR_ATOMIC, A, K64, place);
            assert_eq!(svm.to_device(A, 8 * K4), Ok(8));
            assert_eq!(svm.gpu_load(A), A ^ 0x55);
            svm.host().pin(svm.task(), A + 12 * K4, true);
            assert!(svm.run(&[add(A + 10 * K4, 1)]), "with a page that cannot move {place}");
            assert!(svm.host().is_exclusive(svm.task(), A + 10 * K4));
            assert_eq!((svm.location(A), svm.location(A + K4)), (SYSTEM, SYSTEM));
            assert!(svm.counter("svm.mixed") >= 1);
            svm.host().pin(svm.task(), A + 12 * K4, false);
            assert_eq!(svm.cpu_load(A + 10 * K4), ((A + 10 * K4) ^ 0x55) + 1);
        });
    }
}

#[test]
fn a_preference_that_not_all_of_a_range_can_follow_ends_nowhere() {
    check(|first| {
        let svm = unmixed(first);
        svm.mmap(A, K64);
        svm.fill(A, K64);
        svm.attr(SVM_ATTR_PREFERRED, A, K64, REGION_VRAM.into());
        svm.host().pin(svm.task(), A + 12 * K4, true);
        assert_eq!(svm.gpu_load(A), A ^ 0x55);
        assert_eq!((svm.location(A), svm.counter("svm.mixed")), (SYSTEM, 1));
        svm.host().pin(svm.task(), A + 12 * K4, false);
        svm.assert_filled(A, K64);
    });
}

#[test]
fn the_parameter_is_yes_or_no() {
    check(|svm| {
        let mut args = SvmTune { param: SVM_TUNE_MIXED, ..Default::default() };
        assert_eq!(svm.c.call(SVM_TUNE, &mut args).map(|_| args.value), Ok(1));
        args = SvmTune { flags: SVM_TUNE_SET, value: 2, ..args };
        assert_eq!(svm.c.call(SVM_TUNE, &mut args), Err(Errno::INVAL));
        assert_eq!(svm.c.call(SVM_TUNE, &mut SvmTune { flags: 0, ..args }), Ok(0));
        args = SvmTune { flags: SVM_TUNE_SET, value: 0, ..args };
        assert_eq!(svm.c.call(SVM_TUNE, &mut args).map(|_| args.value), Ok(1), "as before");
    });
}
