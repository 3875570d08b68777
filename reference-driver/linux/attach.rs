//! The kernel's way to a device: who is told of invalidations and CPU faults of a world.
//!
//! Owns the tie between a world and its device, which is the driver or the dmirror personality.
#![expect(unsafe_code, reason = "hands the C side a pointer that comes back in callbacks")]

use super::shim;
use super::world::World;
use crate::dmirror::Dmirror;
use crate::driver::Driver;
use crate::host::mirror::{Invalidation, Mirror};
use fencepost_uapi::Errno;
use kernel::prelude::*;

/// Who listens.
pub(super) enum Listener {
    /// The driver.
    Driver(Driver<World>),
    /// A device that answers as test_hmm.
    Dmirror(Dmirror<World>),
}

impl Listener {
    fn world(&self) -> &World {
        match self {
            Listener::Driver(driver) => driver.host(),
            Listener::Dmirror(dmirror) => dmirror.host(),
        }
    }

    /// See [`Driver::invalidate`].
    pub(super) fn invalidate(
        &self,
        cookie: u64,
        inv: &Invalidation,
        set_seq: &mut dyn FnMut(),
    ) -> bool {
        match self {
            Listener::Driver(driver) => driver.invalidate(cookie, inv, set_seq),
            Listener::Dmirror(dmirror) => dmirror.invalidate(cookie, inv, set_seq),
        }
    }

    /// See [`Driver::cpu_fault`].
    pub(super) fn cpu_fault(
        &self,
        fault: &mut <World as Mirror>::CpuFault,
        addr: u64,
        frame: u64,
    ) -> Result<(), Errno> {
        match self {
            Listener::Driver(driver) => driver.cpu_fault(fault, addr, frame),
            Listener::Dmirror(dmirror) => dmirror.cpu_fault(fault, addr, frame),
        }
    }
}

/// A device that its world tells; dropping ends that, and brings all pages out of device memory.
pub(super) struct Attached(KBox<Listener>);

impl Attached {
    /// Ties a device to its world.
    pub(super) fn new(listener: Listener) -> Result<Self> {
        let new = Attached(KBox::new(listener, GFP_KERNEL)?);
        // SAFETY: the listener is in a box and stays there until it is detached by `drop`.
        unsafe { shim::fp_world_attach(new.0.world().raw(), new.ctx()) };
        Ok(new)
    }

    /// What callbacks are given: a [`Listener`].
    pub(super) fn ctx(&self) -> *const core::ffi::c_void {
        core::ptr::from_ref::<Listener>(&self.0).cast()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: attached by `new`; the files are closed, else the module could not go.
        unsafe { shim::fp_world_detach(self.0.world().raw()) }
    }
}
