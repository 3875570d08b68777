//! Syncobjs in the kernel: `drm_syncobj`, as Linux's own calls make and change them.
//!
//! Owns a reference to one, and what a bind or exec call does with it: find a fence, put one in.
#![expect(unsafe_code, reason = "calls the C side")]

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use fencepost_uapi::Errno;

use super::fence::{Fence, RawFence};
use crate::facade::{inject, AllocError, Arc};

/// `struct drm_syncobj`.
#[repr(C)]
pub(crate) struct RawSyncobj(c_void);

/// `struct dma_fence_chain`.
#[repr(C)]
struct RawChain(c_void);

unsafe extern "C" {
    fn fp_syncobj_put(syncobj: *mut RawSyncobj);
    fn fp_syncobj_fence(syncobj: *mut RawSyncobj, point: u64, out: *mut *mut RawFence) -> c_int;
    fn fp_syncobj_replace(syncobj: *mut RawSyncobj, fence: *mut RawFence);
    safe fn fp_chain_alloc() -> *mut RawChain;
    fn fp_chain_free(chain: *mut RawChain);
    fn fp_syncobj_add_point(
        syncobj: *mut RawSyncobj,
        chain: *mut RawChain,
        fence: *mut RawFence,
        point: u64,
    );
}

/// A syncobj.
pub struct Syncobj {
    raw: NonNull<RawSyncobj>,
    /// The world whose waiters wait for its fences.
    world: *mut c_void,
}

// SAFETY: drm_syncobj locks where it must; the world is only handed on.
unsafe impl Send for Syncobj {}
// SAFETY: as above.
unsafe impl Sync for Syncobj {}

/// A chain node for a point, promised by [`Syncobj::reserve`]; to be given to
/// [`Syncobj::add_point`] or [`Syncobj::cancel`].
#[must_use = "a place must be used or given back"]
pub struct Place(NonNull<RawChain>);

// SAFETY: the node is nobody else's.
unsafe impl Send for Place {}
// SAFETY: a shared reference gives no access.
unsafe impl Sync for Place {}

impl Syncobj {
    /// One that was found; takes the reference over.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the reference is dropped.
    ///
    /// # Safety
    /// `raw` is a reference to a syncobj, `world` the world of the device that it was found for.
    pub(crate) unsafe fn found(
        raw: NonNull<RawSyncobj>,
        world: *mut c_void,
    ) -> Result<Arc<Self>, AllocError> {
        Arc::new(Syncobj { raw, world })
    }

    /// Puts a fence, or nothing, in the place of whatever it held.
    pub fn replace(&self, fence: Option<Arc<Fence>>) {
        let fence = fence.as_ref().map_or(core::ptr::null_mut(), |fence| fence.raw());
        // SAFETY: both references live; the syncobj takes one of its own.
        unsafe { fp_syncobj_replace(self.raw.as_ptr(), fence) }
    }

    /// Makes a chain node, so that adding a point cannot fail.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn reserve(&self) -> Result<Place, AllocError> {
        inject::allocation()?;
        NonNull::new(fp_chain_alloc()).map(Place).ok_or(AllocError)
    }

    /// Gives a promised node back.
    pub fn cancel(&self, place: Place) {
        // SAFETY: made by `reserve`, not used.
        unsafe { fp_chain_free(place.0.as_ptr()) }
    }

    /// Adds a point after those there are.
    pub fn add_point(&self, place: Place, seqno: u64, fence: Arc<Fence>) {
        // SAFETY: the node goes to the chain, which takes a reference to the fence.
        unsafe { fp_syncobj_add_point(self.raw.as_ptr(), place.0.as_ptr(), fence.raw(), seqno) }
    }

    /// The fence to wait for: the whole payload for point 0, else the point.
    ///
    /// # Errors
    /// `EINVAL`: there is no fence, or the point is not submitted yet. `ENOMEM`.
    pub fn find(&self, seqno: u64, _stub: &Arc<Fence>) -> Result<Arc<Fence>, Errno> {
        let mut raw = core::ptr::null_mut();
        // SAFETY: the reference lives, the pointer is valid.
        let ret = unsafe { fp_syncobj_fence(self.raw.as_ptr(), seqno, &mut raw) };
        let raw = NonNull::new(raw).filter(|_| ret == 0).ok_or(Errno(-ret))?;
        // SAFETY: a reference of ours now; the world was given with the syncobj.
        Ok(unsafe { Fence::found(raw, self.world) }?)
    }
}

impl Drop for Syncobj {
    fn drop(&mut self) {
        // SAFETY: the reference is this one's.
        unsafe { fp_syncobj_put(self.raw.as_ptr()) }
    }
}
