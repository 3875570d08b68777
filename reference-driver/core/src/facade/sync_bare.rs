//! `Arc` and `Mutex` of a world without memory: neither ever exists. Atomics are the language's
//! own.

use super::{AllocError, Rank};
use core::convert::Infallible;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

pub use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A shared value.
pub struct Arc<T>(Infallible, PhantomData<T>);

impl<T> Arc<T> {
    /// Moves a value to the heap.
    ///
    /// # Errors
    /// Always [`AllocError`].
    pub fn new(_: T) -> Result<Self, AllocError> {
        Err(AllocError)
    }

    /// Whether both point to the same value.
    #[must_use]
    pub fn ptr_eq(a: &Self, _: &Self) -> bool {
        match a.0 {}
    }
}

/// To drop one means something in every flavour.
impl<T> Drop for Arc<T> {
    fn drop(&mut self) {}
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        match self.0 {}
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;
    fn deref(&self) -> &T {
        match self.0 {}
    }
}

/// A lock.
#[derive(Debug)]
pub struct Mutex<T>(Infallible, PhantomData<T>);

impl<T> Mutex<T> {
    /// A new lock.
    ///
    /// # Errors
    /// Always [`AllocError`].
    pub fn new(_: Rank, _: T) -> Result<Self, AllocError> {
        Err(AllocError)
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        match self.0 {}
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0 {}
    }

    /// The value, of which the caller is the only user.
    pub fn get_mut(&mut self) -> &mut T {
        match self.0 {}
    }
}

/// Holds a [`Mutex`] until it is dropped.
#[must_use = "the lock is dropped with the guard"]
pub struct MutexGuard<'a, T>(Infallible, PhantomData<&'a mut T>);

/// To drop one means something in every flavour.
impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {}
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        match self.0 {}
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        match self.0 {}
    }
}
