//! The functions of shim.c as Rust sees them. Declarations only; `world` and `device` make them safe.
#![expect(unsafe_code, reason = "declares the C side")]

use core::ffi::{c_int, c_void};

/// `struct fp_world`.
#[repr(C)]
pub(super) struct RawWorld(c_void);

/// `struct fp_thread`.
#[repr(C)]
pub(super) struct RawThread(c_void);

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

unsafe extern "C" {
    pub(super) fn fp_world_create(vram_frames: u64) -> *mut RawWorld;
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
