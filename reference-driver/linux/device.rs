//! The DRM device: card and render nodes whose opens, ioctls and mappings go to the driver.
//!
//! Owns registration and the calls that shim.c makes. Ioctls of the DRM core that concern objects
//! (GEM, PRIME, syncobjs) are the driver's own here as in user space; the rest is DRM's.
#![expect(unsafe_code, reason = "called by C with raw pointers; each function says what it needs")]

use super::shim;
use super::world::{self, World};
use crate::driver::{Driver, File, Mapping};
use core::ffi::{c_int, c_long, c_uint, c_ulong, c_void};
use fencepost_uapi::{drm as core_ioctls, ioctl, Errno};
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
        Ok(KBox::pin(open, GFP_KERNEL)?)
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
pub(super) fn register(
    parent: &device::Device<device::Bound>,
    driver: Driver<World>,
) -> Result<ARef<Device>> {
    let new = drm::UnregisteredDevice::<Drm>::new(parent, Ok::<_, Error>(Data { driver }))?;
    // SAFETY: not registered yet, so nobody else looks at it.
    to_result(unsafe { shim::fp_drm_patch(raw(&new).cast()) })?;
    new.driver.host().set_drm(raw(&new));
    Ok(drm::Registration::new_foreign_owned(new, parent, 0)?.into())
}

/// Whether the driver answers a call itself.
fn is_ours(request: u32) -> bool {
    let nr = ioctl::nr(request);
    let object_calls = [
        core_ioctls::VERSION,
        core_ioctls::GEM_CLOSE,
        core_ioctls::GET_CAP,
        core_ioctls::SET_CLIENT_CAP,
        core_ioctls::PRIME_HANDLE_TO_FD,
        core_ioctls::PRIME_FD_TO_HANDLE,
    ];
    let (first, last) = (core_ioctls::SYNCOBJ_CREATE, core_ioctls::SYNCOBJ_TIMELINE_SIGNAL);
    ioctl::kind(request) == ioctl::DRM_TYPE
        && ((ioctl::DRM_COMMAND_BASE..ioctl::DRM_COMMAND_END).contains(&nr)
            || (ioctl::nr(first)..=ioctl::nr(last)).contains(&nr)
            || object_calls.iter().any(|ours| ioctl::nr(*ours) == nr))
}

/// The driver's file behind DRM's.
///
/// # Safety
/// `file` is an open file of this driver.
unsafe fn open_of<'a>(file: *mut bindings::drm_file) -> &'a Open {
    // SAFETY: as the caller guarantees; `driver_priv` was set by the open callback to the box.
    Pin::get_ref(unsafe { drm::File::<Open>::from_raw(file) }.inner())
}

/// `ioctl(2)`, from shim.c; sets `ours` when the driver answered.
///
/// # Safety
/// `file` is an open file of this driver, `ours` valid for writes.
#[no_mangle]
unsafe extern "C" fn fp_rust_ioctl(
    file: *mut bindings::drm_file,
    cmd: c_uint,
    arg: c_ulong,
    ours: *mut bool,
) -> c_long {
    if !is_ours(cmd) {
        return 0;
    }
    // SAFETY: as the caller guarantees.
    let open = unsafe {
        *ours = true;
        open_of(file)
    };
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

/// `mmap(2)`, from shim.c: finds the object and keeps it until `fp_rust_unmap`.
///
/// # Safety
/// `file` is an open file of this driver; the others are valid for writes.
#[no_mangle]
unsafe extern "C" fn fp_rust_mmap(
    file: *mut bindings::drm_file,
    offset: u64,
    len: u64,
    mapping: *mut *mut c_void,
    start: *mut u64,
    world: *mut *mut c_void,
) -> c_int {
    // SAFETY: as the caller guarantees.
    let open = unsafe { open_of(file) };
    let driver = &open.device.driver;
    let found = match driver.mmap(&open.file, offset, len) {
        Ok(found) => found,
        Err(errno) => return -errno.0,
    };
    let mem = found.mem;
    let Ok(kept) = KBox::new(found, GFP_KERNEL) else {
        return -Errno::NOMEM.0;
    };
    // SAFETY: as the caller guarantees.
    unsafe {
        *start = mem.0;
        *world = driver.host().raw().cast();
        *mapping = KBox::into_raw(kept).cast();
    }
    0
}

/// The last CPU mapping made by a call is gone.
///
/// # Safety
/// `mapping` comes from `fp_rust_mmap`, once.
#[no_mangle]
unsafe extern "C" fn fp_rust_unmap(mapping: *mut c_void) {
    // SAFETY: as the caller guarantees.
    drop(unsafe { KBox::from_raw(mapping.cast::<Mapping<World>>()) });
}

/// The last copy of a descriptor made by the host is closed.
///
/// # Safety
/// `device` is a device of this driver.
#[no_mangle]
unsafe extern "C" fn fp_rust_release_fd(device: *mut bindings::drm_device, kind: u32, id: u64) {
    // SAFETY: as the caller guarantees.
    let device: &Device = unsafe { drm::Device::from_raw(device) };
    device.driver.release_fd(world::kind(kind), id);
}
