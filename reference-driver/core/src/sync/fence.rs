//! Fences: something that happens once, in finite time, with or without an error.
//!
//! Owns the state of a fence. Who waits is the business of [`crate::host::Host::wait_event`], whose
//! conditions are evaluated again after each signal; in the kernel this is a `dma_fence`.

use fencepost_uapi::Errno;

use crate::counters::{Counter, Counters};
use crate::facade::{AllocError, Arc, AtomicU32, Ordering, Vec};

const PENDING: u32 = 0;
const SIGNALLED: u32 = 1;
/// Errors are kept as this plus the number.
const ERROR: u32 = 2;

/// A fence.
pub struct Fence {
    status: AtomicU32,
    /// The fences that a collection stands for; all of them plain. Empty for a plain fence.
    members: Vec<Arc<Fence>>,
}

impl Fence {
    /// A fence that has not signalled.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new(counters: &Counters) -> Result<Arc<Fence>, AllocError> {
        let fence = Arc::new(Fence { status: AtomicU32::new(PENDING), members: Vec::new() })?;
        counters.inc(Counter::FencesCreated);
        Ok(fence)
    }

    /// A fence that has always been signalled.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn stub() -> Result<Arc<Fence>, AllocError> {
        Arc::new(Fence { status: AtomicU32::new(SIGNALLED), members: Vec::new() })
    }

    /// A fence that is signalled once all of these are. Collections among them are taken apart, so
    /// that nesting stays one deep.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn all_of(fences: &[Arc<Fence>], stub: &Arc<Fence>) -> Result<Arc<Fence>, AllocError> {
        let mut members = Vec::new();
        for fence in fences {
            pending_into(fence, &mut members)?;
        }
        if members.len() <= 1 {
            return Ok(members.pop().unwrap_or_else(|| stub.clone()));
        }
        Arc::new(Fence { status: AtomicU32::new(PENDING), members })
    }

    /// Whether it has signalled.
    #[must_use]
    pub fn is_signalled(&self) -> bool {
        if self.members.is_empty() {
            return self.status.load(Ordering::Acquire) != PENDING;
        }
        self.members.iter().all(|member| member.is_signalled())
    }

    /// The error that it signalled with.
    #[must_use]
    pub fn error(&self) -> Option<Errno> {
        let own = self.status.load(Ordering::Acquire).checked_sub(ERROR);
        own.map(|number| Errno(number as i32))
            .or_else(|| self.members.iter().find_map(|member| member.error()))
    }

    /// Signals; only the first call counts. True for that one.
    pub(crate) fn set(&self, error: Option<Errno>) -> bool {
        debug_assert!(self.members.is_empty(), "only plain fences are signalled");
        let status = error.map_or(SIGNALLED, |errno| ERROR + errno.0.unsigned_abs());
        self.status.compare_exchange(PENDING, status, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Appends what a fence still waits for: itself or its unsignalled members.
///
/// # Errors
/// [`AllocError`] without memory.
pub fn pending_into(fence: &Arc<Fence>, out: &mut Vec<Arc<Fence>>) -> Result<(), AllocError> {
    if fence.is_signalled() {
        return Ok(());
    }
    if fence.members.is_empty() {
        return out.push(fence.clone());
    }
    for member in fence.members.iter().filter(|member| !member.is_signalled()) {
        out.push(member.clone())?;
    }
    Ok(())
}
