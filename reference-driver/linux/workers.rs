//! The driver's background work as kernel threads: one for each common worker, one an engine.
//!
//! Owns the threads, and what they leave when they stop: an unsignalled fence must not outlive the
//! module.
#![expect(unsafe_code, reason = "threads of the C side borrow the driver")]

use super::shim::{self, RawThread};
use super::world::World;
use crate::driver::{Driver, Step, Worker};
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::prelude::*;

/// How soon a stalled worker tries again, in nanoseconds: it polls memory.
const STALL_NS: u64 = 100_000;

/// Running threads; dropping stops them.
pub(super) struct Workers {
    threads: KVec<NonNull<RawThread>>,
    /// What the threads work on; in a box, since they point to it.
    driver: KBox<Driver<World>>,
}

// SAFETY: the threads may be stopped from any thread.
unsafe impl Send for Workers {}
// SAFETY: a shared reference gives no access.
unsafe impl Sync for Workers {}

impl Workers {
    /// Starts the threads of a driver.
    pub(super) fn start(driver: Driver<World>) -> Result<Self> {
        let count = Worker::COMMON.len() as u32 + driver.config().engines;
        let threads = KVec::with_capacity(count as usize, GFP_KERNEL)?;
        let mut new = Workers { threads, driver: KBox::new(driver, GFP_KERNEL)? };
        for number in 0..count {
            let driver: &Driver<World> = &new.driver;
            let ctx = core::ptr::from_ref(driver).cast_mut().cast();
            // SAFETY: the driver outlives the thread, which `drop` stops first.
            let thread = unsafe { shim::fp_thread_run(driver.host().raw(), number, ctx) };
            new.threads.push(NonNull::new(thread).ok_or(ENOMEM)?, GFP_KERNEL)?;
        }
        Ok(new)
    }

    /// Does what the threads have left of jobs whose files were closed. A job refers to its device: one
    /// that stayed would keep the device, its memory and its work queue beyond the module's text.
    fn finish(&self) {
        let driver = &self.driver;
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

/// The worker of that number: the common ones, then the engines.
fn worker_of(number: u32) -> Worker {
    match Worker::COMMON.get(number as usize) {
        Some(worker) => *worker,
        None => Worker::Engine(number - Worker::COMMON.len() as u32),
    }
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
            Step::Worked => {
                shim::fp_thread_breathe();
                continue;
            }
            Step::Idle => (u64::MAX, runnable),
            Step::Stalled { until_ns } => (until_ns.min(shim::fp_now_ns() + STALL_NS), never),
        };
        // SAFETY: the world is alive; both conditions accept this context.
        unsafe { shim::fp_thread_wait(driver.host().raw(), until, ready, ctx) };
    }
}
