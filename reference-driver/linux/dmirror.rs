//! The nodes of the dmirror personality: `/dev/hmm_dmirror0` and so on, as test_hmm has them.
//!
//! Owns their registration and the calls from shim_dmirror.c; what they answer is core's `dmirror`.
#![expect(unsafe_code, reason = "called by C with raw pointers; each function says what it needs")]

use super::attach::{Attached, Listener};
use super::shim;
use super::world::World;
use crate::dmirror::{self, Dmirror, File};
use core::ffi::{c_int, c_long, c_uint, c_ulong, c_void};
use fencepost_uapi::Errno;
use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;

/// A device with its node. The fields are dropped in this order: nobody can open it any more when it
/// is detached.
pub(super) struct Node {
    _registered: Registered,
    _attached: Attached,
}

impl Node {
    /// Shows a device with so much device memory.
    pub(super) fn new(number: u8, vram_bytes: u64) -> Result<Self, Errno> {
        let world = World::new(number, dmirror::owner(number), vram_bytes)?;
        let device = Dmirror::new(world, vram_bytes)?;
        let attached = Attached::new(Listener::Dmirror(device)).map_err(|_| Errno::NOMEM)?;
        let mut raw = core::ptr::null_mut();
        // SAFETY: the context lives until the node is gone, by the order of the fields.
        let ret = unsafe { shim::fp_dmirror_register(number.into(), attached.ctx(), &mut raw) };
        super::world::check(ret)?;
        Ok(Node { _registered: Registered(raw), _attached: attached })
    }
}

/// `struct fp_dmirror`, registered.
struct Registered(*mut c_void);

// SAFETY: it is only unregistered, by whichever thread.
unsafe impl Send for Registered {}
// SAFETY: a shared reference gives no access.
unsafe impl Sync for Registered {}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: registered, and unregistered once.
        unsafe { shim::fp_dmirror_unregister(self.0) }
    }
}

/// An open file.
struct Open {
    listener: *const Listener,
    file: File<World>,
}

/// # Safety
/// `ctx` is a listener that outlives what is done with the answer.
unsafe fn device_of<'a>(ctx: *const Listener) -> Option<&'a Dmirror<World>> {
    // SAFETY: as the caller guarantees.
    match unsafe { &*ctx } {
        Listener::Dmirror(device) => Some(device),
        Listener::Driver(_) => None,
    }
}

fn open(ctx: *const Listener, device: &Dmirror<World>) -> Result<KBox<Open>, Errno> {
    let task = device.host().current_task()?;
    let file = device.open(task)?;
    KBox::new(Open { listener: ctx, file }, GFP_KERNEL_ACCOUNT).map_err(|_| Errno::NOMEM)
}

/// `open(2)`; gives what the other calls take.
///
/// # Safety
/// `ctx` is what the node was registered with, `out` valid.
#[no_mangle]
unsafe extern "C" fn fp_rust_dmirror_open(ctx: *const c_void, out: *mut *mut c_void) -> c_int {
    // SAFETY: as the caller guarantees; the node is gone before the listener.
    let Some(device) = (unsafe { device_of(ctx.cast()) }) else { return -Errno::NODEV.0 };
    match open(ctx.cast(), device) {
        Ok(open) => {
            // SAFETY: as the caller guarantees.
            unsafe { *out = KBox::into_raw(open).cast() };
            0
        }
        Err(errno) => -errno.0,
    }
}

/// The last reference to a file is gone.
///
/// # Safety
/// `open` was given by [`fp_rust_dmirror_open`], and is not used again.
#[no_mangle]
unsafe extern "C" fn fp_rust_dmirror_release(open: *mut c_void) {
    // SAFETY: as the caller guarantees.
    let open = KBox::into_inner(unsafe { KBox::from_raw(open.cast::<Open>()) });
    // SAFETY: an open file keeps the module, and with it the listener.
    if let Some(device) = unsafe { device_of(open.listener) } {
        device.close(open.file);
    }
}

/// `ioctl(2)`.
///
/// # Safety
/// `open` was given by [`fp_rust_dmirror_open`].
#[no_mangle]
unsafe extern "C" fn fp_rust_dmirror_ioctl(
    open: *const c_void,
    cmd: c_uint,
    arg: c_ulong,
) -> c_long {
    // SAFETY: as the caller guarantees.
    let open = unsafe { &*open.cast::<Open>() };
    // SAFETY: an open file keeps the module, and with it the listener.
    let Some(device) = (unsafe { device_of(open.listener) }) else {
        return -c_long::from(Errno::NODEV.0);
    };
    let answer = device
        .host()
        .current_task()
        .and_then(|task| device.ioctl(&open.file, task, cmd, arg as u64));
    match answer {
        Ok(value) => value as c_long,
        Err(errno) => -c_long::from(errno.0),
    }
}
