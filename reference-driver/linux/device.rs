//! The DRM device: card and render nodes whose opens, ioctls and mappings go to the driver.
//!
//! Owns registration and the calls that shim.c makes. The driver answers its own ioctls; those of
//! the DRM core (handles, PRIME, syncobjs) are Linux's.
#![expect(unsafe_code, reason = "called by C with raw pointers; each function says what it needs")]

use super::shim;
use super::world::World;
use crate::counters::Counter;
use crate::driver::{Driver, File};
use crate::drm as drm_core;
use crate::gem::GemRef;
use crate::host::BoMem;
use crate::vm::dump;
use core::ffi::{c_int, c_long, c_uint, c_ulong, c_void};
use fencepost_uapi::{drm as drm_ioctls, ioctl, Errno};
use kernel::alloc::flags::GFP_KERNEL_ACCOUNT;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::{bindings, device, drm, error::to_result};

/// The driver as DRM knows it.
pub(super) struct Drm;

/// Its device.
pub(super) type Device<C = drm::Registered> = drm::Device<Drm, C>;

/// What belongs to a device.
pub(super) struct Data {
    /// The driver proper.
    pub(super) driver: Driver<World>,
}

/// DRM wants a type of GEM objects; the driver has its own and makes none of these.
#[pin_data]
pub(super) struct Object {}

impl drm::gem::DriverObject for Object {
    type Driver = Drm;
    type Args = ();

    fn new<C: drm::DeviceContext>(
        _dev: &Device<C>,
        _size: usize,
        _args: (),
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Object {})
    }
}

/// An open file.
pub(super) struct Open {
    device: ARef<Device>,
    file: File<World>,
}

impl drm::file::DriverFile for Open {
    type Driver = Drm;

    fn open(device: &Device) -> Result<Pin<KBox<Self>>> {
        let file = device.driver.open().map_err(error)?;
        let open = Open { device: device.into(), file };
        Ok(KBox::pin(open, GFP_KERNEL_ACCOUNT)?)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.device.driver.close(&self.file);
    }
}

#[vtable]
impl drm::Driver for Drm {
    type Data = Data;
    type File = Open;
    type Object<C: drm::DeviceContext> = drm::gem::Object<Object, C>;

    const INFO: drm::DriverInfo = drm::DriverInfo {
        major: 1,
        minor: 0,
        patchlevel: 0,
        name: c"fencepost",
        desc: c"fencepost reference driver",
    };
    const IOCTLS: &'static [drm::ioctl::DrmIoctlDescriptor] = &[];
    const FEAT_RENDER: bool = true;
}

fn error(errno: Errno) -> Error {
    Error::from_errno(-errno.0)
}

/// `drm::Device` starts with its `struct drm_device`; there is no public way to it.
fn raw<C: drm::DeviceContext>(device: &Device<C>) -> *mut bindings::drm_device {
    core::ptr::from_ref(device).cast_mut().cast()
}

/// Registers a device of `parent`; it is unregistered when the parent is unbound.
pub(super) fn register(parent: &device::Device<device::Bound>, driver: Driver<World>) -> Result {
    let new = drm::UnregisteredDevice::<Drm>::new(parent, Ok::<_, Error>(Data { driver }))?;
    // SAFETY: not registered yet, so nobody else looks at it.
    to_result(unsafe { shim::fp_drm_patch(raw(&new).cast()) })?;
    drm::Registration::new_foreign_owned(new, parent, 0).map(|_| ())
}

/// The driver's file behind DRM's.
///
/// # Safety
/// `file` is an open file of this driver.
unsafe fn open_of<'a>(file: *mut bindings::drm_file) -> &'a Open {
    // SAFETY: as the caller guarantees; `driver_priv` was set by the open callback to the box.
    Pin::get_ref(unsafe { drm::File::<Open>::from_raw(file) }.inner())
}

/// A file was opened.
///
/// # Safety
/// `file` is an open file of this driver.
#[no_mangle]
unsafe extern "C" fn fp_rust_opened(file: *mut bindings::drm_file) {
    // SAFETY: as the caller guarantees.
    let open = unsafe { open_of(file) };
    let world = open.device.driver.host().raw();
    open.file.inner().handles.attach(file.cast(), world.cast());
}

/// `ioctl(2)` with a number of the driver's.
///
/// # Safety
/// `file` is an open file of this driver.
#[no_mangle]
unsafe extern "C" fn fp_rust_ioctl(
    file: *mut bindings::drm_file,
    cmd: c_uint,
    arg: c_ulong,
) -> c_long {
    // SAFETY: as the caller guarantees.
    let open = unsafe { open_of(file) };
    let driver = &open.device.driver;
    let answer = driver
        .host()
        .current_task()
        .and_then(|task| driver.ioctl(&open.file, task, cmd, arg as u64));
    match answer {
        Ok(value) => value as c_long,
        Err(errno) => -c_long::from(errno.0),
    }
}

/// Linux has answered a call; `done`: without an error.
///
/// # Safety
/// `file` is an open file of this driver.
#[no_mangle]
unsafe extern "C" fn fp_rust_count(file: *mut bindings::drm_file, cmd: c_uint, done: bool) {
    // SAFETY: as the caller guarantees.
    let open = unsafe { open_of(file) };
    let counters = &open.device.driver.device().counters;
    counters.inc(Counter::Ioctls);
    let nr = ioctl::nr(cmd);
    if done && nr == ioctl::nr(drm_ioctls::PRIME_HANDLE_TO_FD) {
        counters.inc(Counter::PrimeExports);
    } else if done && nr == ioctl::nr(drm_ioctls::PRIME_FD_TO_HANDLE) {
        counters.inc(Counter::PrimeImports);
    }
}

/// The world of a device.
///
/// # Safety
/// `device` is a device of this driver.
#[no_mangle]
unsafe extern "C" fn fp_rust_world(device: *mut bindings::drm_device) -> *mut shim::RawWorld {
    // SAFETY: as the caller guarantees.
    let device: &Device = unsafe { drm::Device::from_raw(device) };
    device.driver.host().raw()
}

/// Makes an object around imported memory, which it owns in any case. `fp_rust_gem_free` takes it.
///
/// # Safety
/// `device` is a device of this driver, the pointers are valid for writes.
#[no_mangle]
unsafe extern "C" fn fp_rust_import(
    device: *mut bindings::drm_device,
    mem: u64,
    size: u64,
    gem: *mut *mut c_void,
    id: *mut u64,
) -> c_int {
    // SAFETY: as the caller guarantees.
    let device: &Device = unsafe { drm::Device::from_raw(device) };
    let boxed = drm_core::import(device.driver.device(), BoMem(mem), size)
        .and_then(|new| KBox::new(new, GFP_KERNEL_ACCOUNT).map_err(|_| Errno::NOMEM));
    match boxed {
        Ok(boxed) => {
            // SAFETY: as the caller guarantees.
            unsafe {
                *id = boxed.id;
                *gem = KBox::into_raw(boxed).cast();
            }
            0
        }
        Err(errno) => -errno.0,
    }
}

/// DRM's object is gone.
///
/// # Safety
/// `gem` is a boxed reference that DRM's object was made with.
#[no_mangle]
unsafe extern "C" fn fp_rust_gem_free(gem: *mut c_void) {
    // SAFETY: as the caller guarantees.
    drop(unsafe { KBox::from_raw(gem.cast::<GemRef<World>>()) });
}

/// Shows the VMs of a file in debugfs.
///
/// # Safety
/// `file` is an open file of this driver, `m` the file that is being read.
#[no_mangle]
unsafe extern "C" fn fp_rust_show_vas(file: *mut bindings::drm_file, m: *mut c_void) -> c_int {
    // SAFETY: as the caller guarantees.
    let open = unsafe { open_of(file) };
    let mut after = 0;
    while let Some((id, vm)) = open.file.inner().next_vm(after) {
        // SAFETY: as the caller guarantees.
        unsafe { shim::fp_show_vm(m, id, vm.span.start, vm.span.end) };
        let vas = match dump::all(&vm) {
            Ok(vas) => vas,
            Err(errno) => return -errno.0,
        };
        for va in &vas {
            let shown = shim::ShownVa {
                addr: va.addr,
                range: va.range,
                object: va.object,
                offset: va.offset,
                flags: va.flags,
                ptes: [va.ptes_4k, va.ptes_64k, va.ptes_2m],
            };
            // SAFETY: as the caller guarantees.
            unsafe { shim::fp_show_va(m, &shown) };
        }
        after = id;
    }
    0
}
