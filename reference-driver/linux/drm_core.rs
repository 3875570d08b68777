//! The DRM core's part in the kernel, where Linux has it: handles of an open file are those of its
//! `drm_file`, an object that has one is a `drm_gem_object`.
//!
//! Owns the way from a handle to the driver's object and back. PRIME, syncobj and handle ioctls are
//! Linux's own, and mmap of the device file as well; see shim.c.
#![expect(unsafe_code, reason = "calls the C side")]

use core::ffi::{c_int, c_void};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};
use fencepost_uapi::fencepost::{GEM_CREATE_VM_PRIVATE, REGION_SYSTEM};
use fencepost_uapi::Errno;
use kernel::alloc::{flags::GFP_KERNEL_ACCOUNT, KBox};

use crate::device::Device;
use crate::facade::{AllocError, Arc};
use crate::gem::{placement, Gem, GemRef, NewGem};
use crate::host::{BoMem, Host};
use crate::sync::resv::Resv;
use crate::sync::syncobj::{RawSyncobj, Syncobj};

/// `struct drm_file`.
#[repr(C)]
pub(crate) struct RawFile(c_void);

/// `struct drm_gem_object`.
#[repr(C)]
struct RawObject(c_void);

unsafe extern "C" {
    fn fp_gem_create_handle(
        file: *mut RawFile,
        new: *const NewObject,
        gem: *mut c_void,
        handle: *mut u32,
    ) -> c_int;
    fn fp_gem_find(file: *mut RawFile, handle: u32, gem: *mut *mut c_void) -> *mut RawObject;
    fn fp_gem_put(object: *mut RawObject);
    fn fp_gem_handle_of(file: *mut RawFile, id: u64) -> u32;
    fn fp_gem_mmap_offset(file: *mut RawFile, handle: u32, offset: *mut u64) -> c_int;
    fn fp_syncobj_find(file: *mut RawFile, handle: u32) -> *mut RawSyncobj;
}

/// `struct fp_new_gem`: what shim.c must know of an object.
#[repr(C)]
struct NewObject {
    /// `fp_world`.
    world: *mut c_void,
    /// Its memory.
    mem: u64,
    /// Number that no other object of the device has.
    id: u64,
    /// It may not be exported.
    private: bool,
}

/// What the DRM core keeps for a device: all of it in Linux.
pub struct Shared<H: Host>(PhantomData<fn(H)>);

impl<H: Host> Shared<H> {
    /// Nothing.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self, AllocError> {
        Ok(Shared(PhantomData))
    }

    /// Linux's own waiters are told by the fence itself.
    pub fn fence_signalled(&self, _host: &H) {}
}

/// The handles of an open file.
pub struct Handles<H: Host> {
    file: AtomicPtr<RawFile>,
    world: AtomicPtr<c_void>,
    host: PhantomData<fn(H)>,
}

impl<H: Host> Handles<H> {
    /// Those of a file that is not known yet.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self, AllocError> {
        let (file, world) = (AtomicPtr::default(), AtomicPtr::default());
        Ok(Handles { file, world, host: PhantomData })
    }

    /// From now on those of this file.
    pub(crate) fn attach(&self, file: *mut RawFile, world: *mut c_void) {
        self.world.store(world, Ordering::Relaxed);
        self.file.store(file, Ordering::Release);
    }

    /// The file; it is open during a call.
    fn file(&self) -> *mut RawFile {
        self.file.load(Ordering::Acquire)
    }

    fn world(&self) -> *mut c_void {
        self.world.load(Ordering::Relaxed)
    }

    /// The object of a handle.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn gem(&self, handle: u32) -> Result<GemRef<H>, Errno> {
        let mut gem = core::ptr::null_mut();
        // SAFETY: the file is open during a call.
        let object = unsafe { fp_gem_find(self.file(), handle, &mut gem) };
        if object.is_null() {
            return Err(Errno::NOENT);
        }
        // SAFETY: `fp_gem_find` gives what `add_gem` or `import` boxed, alive with the object, of which
        // this holds a reference until it is put.
        unsafe {
            let gem = (*gem.cast::<GemRef<H>>()).clone();
            fp_gem_put(object);
            Ok(gem)
        }
    }

    /// A handle for a new object.
    ///
    /// # Errors
    /// `ENOMEM`, `ENOSPC`.
    pub fn add_gem(&self, gem: GemRef<H>) -> Result<u32, Errno> {
        let private = gem.flags & GEM_CREATE_VM_PRIVATE != 0;
        let new = NewObject { world: self.world(), mem: gem.mem.0, id: gem.id, private };
        let boxed = KBox::into_raw(KBox::new(gem, GFP_KERNEL_ACCOUNT).map_err(|_| Errno::NOMEM)?);
        let mut handle = 0;
        // SAFETY: the file is open during a call; the box belongs to the callee now.
        let ret = unsafe { fp_gem_create_handle(self.file(), &new, boxed.cast(), &mut handle) };
        match ret {
            0 => Ok(handle),
            errno => Err(Errno(-errno)),
        }
    }

    /// A handle of an object; 0: it has none here.
    pub fn handle_of(&self, gem: &GemRef<H>) -> u32 {
        // SAFETY: the file is open during a call.
        unsafe { fp_gem_handle_of(self.file(), gem.id) }
    }

    /// What `mmap(2)` takes for an object.
    ///
    /// # Errors
    /// `ENOENT`; `ENOMEM`, `ENOSPC` without room for offsets.
    pub fn mmap_offset(&self, handle: u32) -> Result<u64, Errno> {
        let mut offset = 0;
        // SAFETY: the file is open during a call.
        match unsafe { fp_gem_mmap_offset(self.file(), handle, &mut offset) } {
            0 => Ok(offset),
            errno => Err(Errno(-errno)),
        }
    }

    /// The syncobj of a handle.
    ///
    /// # Errors
    /// `ENOENT`; `ENOMEM`.
    pub fn syncobj(&self, handle: u32) -> Result<Arc<Syncobj>, Errno> {
        // SAFETY: the file is open during a call.
        let raw = unsafe { fp_syncobj_find(self.file(), handle) };
        let raw = NonNull::new(raw).ok_or(Errno::NOENT)?;
        // SAFETY: a reference of ours now; the world is that of the file's device.
        Ok(unsafe { Syncobj::found(raw, self.world()) }?)
    }

    /// The file is closed: Linux lets its handles go.
    pub fn close(&self) {}
}

/// An object around memory of another driver, in system memory for good.
///
/// # Errors
/// `ENOMEM`; the memory is freed.
pub(crate) fn import<H: Host>(
    dev: &Arc<Device<H>>,
    mem: BoMem,
    size: u64,
) -> Result<GemRef<H>, Errno> {
    let resv = Resv::new().inspect_err(|_| dev.host.bo_destroy(mem, size))?;
    let new = NewGem { size, placement: REGION_SYSTEM, flags: 0, private_to: 0, resv };
    let gem = Gem::create(dev, new, mem)?;
    let place = placement::map_system(dev, &gem, || Ok(()))?;
    gem.set_place(place);
    Ok(gem)
}
