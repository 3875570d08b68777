//! The functions of shim.c as Rust sees them. Declarations only; `world` and `device` make them safe.
#![expect(unsafe_code, reason = "declares the C side")]

use core::ffi::{c_int, c_void};

/// `struct fp_world`.
#[repr(C)]
pub(super) struct RawWorld(c_void);

/// `struct fp_thread`.
#[repr(C)]
pub(super) struct RawThread(c_void);

/// `struct mm_struct`.
#[repr(C)]
pub(super) struct RawMm(c_void);

/// `struct fp_notifier`.
#[repr(C)]
pub(super) struct RawNotifier(c_void);

/// `struct fp_migration`.
#[repr(C)]
pub(super) struct RawMigration(c_void);

pub(super) const VMA_READ: u32 = 1;
pub(super) const VMA_WRITE: u32 = 2;
pub(super) const VMA_ANONYMOUS: u32 = 4;
pub(super) const VMA_HUGETLB: u32 = 8;
pub(super) const VMA_DEVICE: u32 = 16;

/// `struct fp_vma`.
#[repr(C)]
#[derive(Default)]
pub(super) struct FoundVma {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) flags: u32,
}

/// `struct fp_want`.
#[repr(C)]
pub(super) struct Want {
    pub(super) flags: u64,
    pub(super) mask: u64,
    pub(super) owner: u64,
    pub(super) trusting: bool,
}

/// `struct fp_invalidation`.
#[repr(C)]
pub(super) struct RawInvalidation {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) owner: u64,
    pub(super) event: u32,
    pub(super) blockable: bool,
    mni: *mut c_void,
    seq: usize,
}

pub(super) const SELECT_SYSTEM: u32 = 1;
pub(super) const SELECT_DEVICE: u32 = 2;

pub(super) const SOURCE_EMPTY: u32 = 1;
pub(super) const SOURCE_SYSTEM: u32 = 2;
pub(super) const SOURCE_DEVICE: u32 = 3;

/// `struct fp_source`.
#[repr(C)]
#[derive(Default)]
pub(super) struct FoundSource {
    pub(super) kind: u32,
    pub(super) order: u32,
    pub(super) frame: u64,
    pub(super) device: u32,
}

/// `struct fp_va`.
#[repr(C)]
pub(super) struct ShownVa {
    pub(super) addr: u64,
    pub(super) range: u64,
    pub(super) object: u64,
    pub(super) offset: u64,
    pub(super) flags: u32,
    pub(super) ptes: [u32; 3],
}

/// A condition to wait for.
pub(super) type Ready = unsafe extern "C" fn(*mut c_void) -> bool;

/// What is done with an address and the page there; 0 or a negative errno.
pub(super) type EachPage = unsafe extern "C" fn(*mut c_void, u64, u64) -> c_int;

unsafe extern "C" {
    pub(super) fn fp_world_create(vram_frames: u64, number: u32, owner: u64) -> *mut RawWorld;
    pub(super) fn fp_world_destroy(w: *mut RawWorld);

    pub(super) safe fn fp_now_ns() -> u64;
    pub(super) fn fp_task_current(w: *mut RawWorld, task: *mut u64) -> c_int;
    pub(super) fn fp_copy_from_user(
        w: *mut RawWorld,
        task: u64,
        to: *mut c_void,
        addr: u64,
        len: usize,
    ) -> c_int;
    pub(super) fn fp_copy_to_user(
        w: *mut RawWorld,
        task: u64,
        addr: u64,
        from: *const c_void,
        len: usize,
    ) -> c_int;

    pub(super) fn fp_bo_create(w: *mut RawWorld, size: u64, offset: *mut u64) -> c_int;
    pub(super) fn fp_bo_destroy(w: *mut RawWorld, offset: u64);
    pub(super) fn fp_vram_bind(
        w: *mut RawWorld,
        frame: u64,
        offset: u64,
        page: u64,
        count: u64,
    ) -> c_int;
    pub(super) fn fp_vram_unbind(w: *mut RawWorld, frame: u64, count: u64);
    pub(super) fn fp_dma_map(
        w: *mut RawWorld,
        offset: u64,
        page: u64,
        count: u64,
        addr: *mut u64,
    ) -> c_int;
    pub(super) fn fp_dma_unmap(w: *mut RawWorld, addr: u64, count: u64);

    pub(super) fn fp_world_attach(w: *mut RawWorld, driver: *const c_void);
    pub(super) fn fp_world_detach(w: *mut RawWorld);

    pub(super) fn fp_dmirror_register(
        number: u32,
        ctx: *const c_void,
        out: *mut *mut c_void,
    ) -> c_int;
    pub(super) fn fp_dmirror_unregister(node: *mut c_void);

    pub(super) safe fn fp_access_begin();
    pub(super) fn fp_access_end();
    pub(super) fn fp_vram_page(w: *mut RawWorld, addr: u64) -> *mut u8;
    pub(super) fn fp_system_page(w: *mut RawWorld, addr: u64) -> *mut u8;

    pub(super) fn fp_wait(
        w: *mut RawWorld,
        interruptible: bool,
        deadline_ns: u64,
        ready: Ready,
        ctx: *mut c_void,
    ) -> c_int;
    pub(super) fn fp_wake(w: *mut RawWorld);
    pub(super) fn fp_thread_run(w: *mut RawWorld, worker: u32, ctx: *mut c_void) -> *mut RawThread;
    pub(super) fn fp_thread_stop(t: *mut RawThread);
    pub(super) fn fp_thread_should_stop() -> bool;
    pub(super) safe fn fp_thread_breathe();
    pub(super) fn fp_thread_wait(w: *mut RawWorld, until_ns: u64, ready: Ready, ctx: *mut c_void);

    pub(super) fn fp_show_vm(m: *mut c_void, vm: u32, start: u64, end: u64);
    pub(super) fn fp_show_va(m: *mut c_void, va: *const ShownVa);

    pub(super) fn fp_drm_patch(drm: *mut c_void) -> c_int;
}

#[cfg(all(CONFIG_HMM_MIRROR, CONFIG_DEVICE_PRIVATE))]
unsafe extern "C" {
    pub(super) fn fp_mm_of_task(w: *mut RawWorld, task: u64) -> *mut RawMm;
    pub(super) fn fp_mm_grab(mm: *mut RawMm);
    pub(super) fn fp_mm_drop(mm: *mut RawMm);
    pub(super) fn fp_vma(mm: *mut RawMm, addr: u64, next: bool, out: *mut FoundVma) -> c_int;

    pub(super) fn fp_notifier_insert(
        w: *mut RawWorld,
        mm: *mut RawMm,
        start: u64,
        end: u64,
        cookie: u64,
        out: *mut *mut RawNotifier,
    ) -> c_int;
    pub(super) fn fp_notifier_remove(n: *mut RawNotifier);
    pub(super) fn fp_invalidation_set_seq(inv: *const RawInvalidation);
    pub(super) fn fp_read_begin(n: *mut RawNotifier) -> u64;
    pub(super) fn fp_read_retry(n: *mut RawNotifier, seq: u64) -> bool;

    pub(super) fn fp_range_fault(
        w: *mut RawWorld,
        mm: *mut RawMm,
        n: *mut RawNotifier,
        seq: u64,
        start: u64,
        end: u64,
        want: *const Want,
        pages: *mut u64,
    ) -> c_int;
    pub(super) fn fp_mirror_map(
        w: *mut RawWorld,
        pfn: u64,
        order: u32,
        write: bool,
        addr: *mut u64,
    ) -> c_int;
    pub(super) fn fp_mirror_unmap(w: *mut RawWorld, addr: u64, order: u32);
    pub(super) fn fp_make_exclusive(
        w: *mut RawWorld,
        mm: *mut RawMm,
        addr: u64,
        owner: u64,
        page: *mut u64,
        out: *mut *mut c_void,
    ) -> c_int;
    pub(super) fn fp_make_range_exclusive(
        w: *mut RawWorld,
        mm: *mut RawMm,
        start: u64,
        end: u64,
        owner: u64,
        each: EachPage,
        ctx: *mut c_void,
    ) -> c_int;
    pub(super) fn fp_exclusive_end(folio: *mut c_void);

    pub(super) fn fp_migrate_setup(
        w: *mut RawWorld,
        mm: *mut RawMm,
        start: u64,
        end: u64,
        owner: u64,
        select: u32,
        out: *mut *mut RawMigration,
    ) -> c_int;
    pub(super) fn fp_migrate_setup_fault(
        w: *mut RawWorld,
        vmf: *mut c_void,
        start: u64,
        end: u64,
        owner: u64,
        out: *mut *mut RawMigration,
    ) -> c_int;
    pub(super) fn fp_migrate_setup_frames(
        w: *mut RawWorld,
        frame: u64,
        count: u64,
        out: *mut *mut RawMigration,
    ) -> c_int;
    pub(super) fn fp_migrate_span(m: *mut RawMigration, start: *mut u64, count: *mut u64);
    pub(super) fn fp_migrate_source(m: *mut RawMigration, i: u64, out: *mut FoundSource);
    pub(super) fn fp_migrate_to_device(
        m: *mut RawMigration,
        i: u64,
        frame: u64,
        order: u32,
    ) -> c_int;
    pub(super) fn fp_migrate_to_system(m: *mut RawMigration, i: u64, order: u32) -> c_int;
    pub(super) fn fp_migrate_copy(m: *mut RawMigration, i: u64);
    pub(super) fn fp_migrate_keep(m: *mut RawMigration, i: u64);
    pub(super) fn fp_migrate_commit(m: *mut RawMigration);
    pub(super) fn fp_migrate_moved(m: *mut RawMigration, i: u64) -> bool;
    pub(super) fn fp_migrate_end(m: *mut RawMigration);
    pub(super) fn fp_has_freed_frames(w: *mut RawWorld) -> bool;
    pub(super) fn fp_frames_freed(
        w: *mut RawWorld,
        cursor: *mut u64,
        first: *mut u64,
        count: *mut u64,
    ) -> bool;
}
