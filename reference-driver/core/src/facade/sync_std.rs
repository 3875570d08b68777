//! `Arc`, `Mutex` and atomics over std or, under the feature `shuttle`, over shuttle.

use super::rank::{self, Rank};
use super::{inject, AllocError};
use core::ops::{Deref, DerefMut};

#[cfg(not(feature = "shuttle"))]
mod world {
    pub(super) use super::super::std::sync;
    pub use super::super::std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}
#[cfg(feature = "shuttle")]
mod world {
    pub(super) use shuttle::sync;
    pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}
use world::sync;
pub use world::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A shared value, freed with the last pointer to it.
pub struct Arc<T>(sync::Arc<T>);

impl<T> Arc<T> {
    /// Moves a value to the heap.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the value is dropped.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn new(value: T) -> Result<Self, AllocError> {
        inject::allocation()?;
        Ok(Self(sync::Arc::new(value)))
    }

    /// Whether both point to the same value.
    #[must_use]
    pub fn ptr_eq(a: &Self, b: &Self) -> bool {
        sync::Arc::ptr_eq(&a.0, &b.0)
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        Self(sync::Arc::clone(&self.0))
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A sleeping lock with a place in the lock order.
#[derive(Debug)]
pub struct Mutex<T> {
    rank: Rank,
    inner: sync::Mutex<T>,
}

impl<T> Mutex<T> {
    /// A new lock. It allocates in the kernel, where a lock must not move, and so counts as an
    /// allocation everywhere.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the value is dropped.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn new(rank: Rank, value: T) -> Result<Self, AllocError> {
        inject::allocation()?;
        Ok(Self { rank, inner: sync::Mutex::new(value) })
    }

    /// Waits for the lock. After a panic of a holder the next one gets the value as it was left,
    /// so that the crash can be reported and the device taken down.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        rank::check(self.rank);
        let inner = self.inner.lock().unwrap_or_else(sync::PoisonError::into_inner);
        rank::acquire(self.rank);
        MutexGuard { rank: self.rank, inner }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(sync::TryLockError::WouldBlock) => return None,
        };
        rank::acquire(self.rank);
        Some(MutexGuard { rank: self.rank, inner })
    }

    /// The value, of which the caller is the only user.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap_or_else(sync::PoisonError::into_inner)
    }
}

/// Holds a [`Mutex`] until it is dropped.
#[must_use = "the lock is dropped with the guard"]
pub struct MutexGuard<'a, T> {
    rank: Rank,
    inner: sync::MutexGuard<'a, T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        rank::release(self.rank);
    }
}
