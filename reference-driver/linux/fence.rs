//! Fences in the kernel: each is a `dma_fence`, the driver's own or one that somebody else made.
//!
//! Owns a reference to it and, for one found in a syncobj, the callback that wakes the driver's
//! waiters. Signalling an own fence runs the callbacks of everybody who waits for it.
#![expect(unsafe_code, reason = "calls the C side")]

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use fencepost_uapi::Errno;

use crate::counters::{Counter, Counters};
use crate::facade::{AllocError, Arc, Vec};

/// `struct dma_fence`.
#[repr(C)]
pub(crate) struct RawFence(c_void);

/// `struct fp_watch`.
#[repr(C)]
struct RawWatch(c_void);

unsafe extern "C" {
    fn fp_fence_create() -> *mut RawFence;
    safe fn fp_fence_stub() -> *mut RawFence;
    fn fp_fence_put(fence: *mut RawFence);
    fn fp_fence_is_signalled(fence: *mut RawFence) -> bool;
    fn fp_fence_error(fence: *mut RawFence) -> c_int;
    fn fp_fence_signal(fence: *mut RawFence, error: c_int) -> bool;
    fn fp_fence_watch(world: *mut c_void, fence: *mut RawFence) -> *mut RawWatch;
    fn fp_fence_unwatch(watch: *mut RawWatch);
}

/// A fence.
pub struct Fence {
    raw: NonNull<RawFence>,
    watch: Option<NonNull<RawWatch>>,
}

// SAFETY: a dma_fence may be used and put from any thread; a watch is only removed, once.
unsafe impl Send for Fence {}
// SAFETY: as above.
unsafe impl Sync for Fence {}

impl Fence {
    /// A fence that has not signalled.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new(counters: &Counters) -> Result<Arc<Fence>, AllocError> {
        // SAFETY: no requirements.
        let raw = NonNull::new(unsafe { fp_fence_create() }).ok_or(AllocError)?;
        let fence = Arc::new(Fence { raw, watch: None })?;
        counters.inc(Counter::FencesCreated);
        Ok(fence)
    }

    /// A fence that has always been signalled.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn stub() -> Result<Arc<Fence>, AllocError> {
        let raw = NonNull::new(fp_fence_stub()).ok_or(AllocError)?;
        Arc::new(Fence { raw, watch: None })
    }

    /// A fence that was found; takes the reference over. The world's waiters are woken when it
    /// signals.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the reference is dropped.
    ///
    /// # Safety
    /// `raw` is a reference to a fence, `world` the world of a device that outlives the fence's users.
    pub(crate) unsafe fn found(
        raw: NonNull<RawFence>,
        world: *mut c_void,
    ) -> Result<Arc<Fence>, AllocError> {
        let mut fence = Fence { raw, watch: None };
        // SAFETY: as the caller guarantees.
        let watch = unsafe { fp_fence_watch(world, raw.as_ptr()) };
        fence.watch = Some(NonNull::new(watch).ok_or(AllocError)?);
        Arc::new(fence)
    }

    /// The dma_fence; the reference stays this one's.
    pub(crate) fn raw(&self) -> *mut RawFence {
        self.raw.as_ptr()
    }

    /// Whether it has signalled.
    #[must_use]
    pub fn is_signalled(&self) -> bool {
        // SAFETY: this holds a reference.
        unsafe { fp_fence_is_signalled(self.raw()) }
    }

    /// The error that it signalled with.
    #[must_use]
    pub fn error(&self) -> Option<Errno> {
        // SAFETY: this holds a reference.
        let error = unsafe { fp_fence_error(self.raw()) };
        (error != 0).then_some(Errno(error))
    }

    /// Signals; only the first call counts. True for that one.
    pub(crate) fn set(&self, error: Option<Errno>) -> bool {
        // SAFETY: this holds a reference.
        unsafe { fp_fence_signal(self.raw(), error.map_or(0, |errno| errno.0)) }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // SAFETY: the watch is removed once, before the reference goes, and nobody uses either then.
        unsafe {
            if let Some(watch) = self.watch {
                fp_fence_unwatch(watch.as_ptr());
            }
            fp_fence_put(self.raw());
        }
    }
}

/// Appends what a fence still waits for: itself, unless it has signalled.
///
/// # Errors
/// [`AllocError`] without memory.
pub fn pending_into(fence: &Arc<Fence>, out: &mut Vec<Arc<Fence>>) -> Result<(), AllocError> {
    match fence.is_signalled() {
        true => Ok(()),
        false => out.push(fence.clone()),
    }
}
