//! `Arc`, `Mutex` and atomics over the kernel's.
//!
//! Each rank is one lockdep class, so that lockdep checks the driver's lock order by the same names
//! as `rank` does in user space, and against the kernel's own locks. Atomics are the compiler's,
//! which on the supported architectures are at least as strong as the kernel's memory model asks.

use super::rank::Rank;
use super::{inject, AllocError};
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use kernel::alloc::{flags::GFP_KERNEL_ACCOUNT, KBox};
use kernel::prelude::InPlaceInit as _;
use kernel::sync::{self, static_lock_class, LockClassKey};

pub use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A shared pointer.
pub struct Arc<T>(sync::Arc<T>);

impl<T> Arc<T> {
    /// Moves a value to the heap, shared.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the value is dropped.
    pub fn new(value: T) -> Result<Self, AllocError> {
        inject::allocation()?;
        sync::Arc::new(value, GFP_KERNEL_ACCOUNT).map(Self).map_err(|_| AllocError)
    }

    /// Whether both point to the same value.
    #[must_use]
    pub fn ptr_eq(a: &Self, b: &Self) -> bool {
        sync::Arc::ptr_eq(&a.0, &b.0)
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// What a lock protects. Core never pins it, whatever it is.
struct Unpinned<T>(T);
impl<T> Unpin for Unpinned<T> {}

/// A mutual exclusion lock with its place in the lock order. In a box, since the kernel's must not
/// move.
pub struct Mutex<T>(Pin<KBox<sync::Mutex<Unpinned<T>>>>);

/// The lockdep class of a rank.
macro_rules! classes {
    ($rank:expr; $($name:ident)+) => {
        match $rank {
            $(Rank::$name => (
                static_lock_class!(),
                kernel::c_str!(concat!("fencepost::", stringify!($name))),
            ),)+
        }
    };
}

fn class(rank: Rank) -> (Pin<&'static LockClassKey>, &'static kernel::str::CStr) {
    classes!(
        rank;
        Device File Svm Vm Resv Object Syncobj Devmem Vram Location Hooks Notifier PageTable
        FaultBuffer Scheduler Fence Faults Debug Leaf
    )
}

impl<T> Mutex<T> {
    /// A lock over `value`, at a place in the lock order.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the value is dropped.
    pub fn new(rank: Rank, value: T) -> Result<Self, AllocError> {
        inject::allocation()?;
        let (class, name) = class(rank);
        KBox::pin_init(sync::Mutex::new(Unpinned(value), name, class), GFP_KERNEL_ACCOUNT)
            .map(Self)
            .map_err(|_| AllocError)
    }

    /// Waits for the lock and takes it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(self.0.lock())
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().map(MutexGuard)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// Holds a [`Mutex`] until it is dropped.
#[must_use = "the lock is dropped with the guard"]
pub struct MutexGuard<'a, T>(sync::MutexGuard<'a, Unpinned<T>>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0 .0
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0 .0
    }
}
