//! The driver's background work as kernel threads: one for page-table updates, one an engine.
//!
//! Owns the threads. They borrow the driver of a device that the owner keeps alive.
#![expect(unsafe_code, reason = "threads of the C side borrow the driver")]

use super::device::Device;
use super::shim::{self, RawThread};
use super::world::World;
use crate::driver::{Driver, Step, Worker};
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// How soon a stalled worker tries again, in nanoseconds: it polls memory.
const STALL_NS: u64 = 100_000;

/// Running threads; dropping stops them.
pub(super) struct Workers {
    threads: KVec<NonNull<RawThread>>,
    /// What the threads work on: stopped before this reference goes.
    device: ARef<Device>,
}

// SAFETY: the threads may be stopped from any thread.
unsafe impl Send for Workers {}
// SAFETY: a shared reference gives no access.
unsafe impl Sync for Workers {}

impl Workers {
    /// Starts the bind worker and so many engines.
    pub(super) fn start(device: ARef<Device>, engines: u32) -> Result<Self> {
        let threads = KVec::with_capacity(engines as usize + 1, GFP_KERNEL)?;
        let mut new = Workers { threads, device };
        for worker in 0..=engines {
            let driver = &new.device.driver;
            let ctx = core::ptr::from_ref(driver).cast_mut().cast();
            // SAFETY: the driver outlives the thread, which `drop` stops first.
            let thread = unsafe { shim::fp_thread_run(driver.host().raw(), worker, ctx) };
            new.threads.push(NonNull::new(thread).ok_or(ENOMEM)?, GFP_KERNEL)?;
        }
        Ok(new)
    }
}

impl Workers {
    /// Does what the threads have left of jobs whose files were closed. A job refers to its device: one
    /// that stayed would keep the device, its memory and its work queue beyond the module's text.
    fn finish(&self) {
        let driver = &self.device.driver;
        let mut idle = 0;
        while idle < self.threads.len() {
            idle = 0;
            for number in 0..self.threads.len() as u32 {
                match driver.step(worker_of(number)) {
                    Step::Worked => {}
                    Step::Idle => idle += 1,
                    Step::Stalled { until_ns } => {
                        let until = until_ns.min(shim::fp_now_ns() + STALL_NS);
                        let (world, none) = (driver.host().raw(), core::ptr::null_mut());
                        // SAFETY: the world is alive; the condition looks at no context. Whether the
                        // deadline came or a signal, there is more to do.
                        let _ = unsafe { shim::fp_wait(world, false, until, never, none) };
                    }
                }
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for thread in &self.threads {
            // SAFETY: started by `start`, stopped once.
            unsafe { shim::fp_thread_stop(thread.as_ptr()) }
        }
        self.finish();
    }
}

/// The worker of that number: the bind worker, then the engines.
fn worker_of(number: u32) -> Worker {
    number.checked_sub(1).map_or(Worker::Bind, Worker::Engine)
}

/// What a waiting thread looks for.
struct Wanted<'a> {
    driver: &'a Driver<World>,
    worker: Worker,
}

/// # Safety
/// `ctx` points at a `Wanted`.
unsafe extern "C" fn runnable(ctx: *mut c_void) -> bool {
    // SAFETY: as the caller guarantees.
    let wanted = unsafe { &*ctx.cast::<Wanted<'_>>() };
    wanted.driver.runnable(wanted.worker)
}

/// # Safety
/// None; the type is the shim's.
unsafe extern "C" fn never(_ctx: *mut c_void) -> bool {
    false
}

/// A thread's life, from shim.c: works until told to stop.
///
/// # Safety
/// `ctx` is the driver that `Workers::start` passed.
#[no_mangle]
unsafe extern "C" fn fp_rust_worker(ctx: *mut c_void, number: u32) {
    // SAFETY: as the caller guarantees.
    let driver = unsafe { &*ctx.cast::<Driver<World>>() };
    let worker = worker_of(number);
    let mut wanted = Wanted { driver, worker };
    let ctx = (&raw mut wanted).cast();
    // SAFETY: this is a kernel thread of the shim.
    while !unsafe { shim::fp_thread_should_stop() } {
        let (until, ready): (u64, shim::Ready) = match driver.step(worker) {
            Step::Worked => continue,
            Step::Idle => (u64::MAX, runnable),
            Step::Stalled { until_ns } => (until_ns.min(shim::fp_now_ns() + STALL_NS), never),
        };
        // SAFETY: the world is alive; both conditions accept this context.
        unsafe { shim::fp_thread_wait(driver.host().raw(), until, ready, ctx) };
    }
}
