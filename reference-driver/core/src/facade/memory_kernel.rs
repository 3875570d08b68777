//! `Vec` and `Box` over the kernel's allocators. Each allocation passes the injection first.
//!
//! Vectors take the page allocator's help when they are large (`KVVec`), since a VM's tables and
//! arrays may grow beyond what `kmalloc` gives.

use super::{inject, AllocError};
use core::ops::{Deref, DerefMut};
use kernel::alloc::allocator::KVmalloc;
use kernel::alloc::{flags::GFP_KERNEL_ACCOUNT, KBox, KVVec};
use kernel::prelude::InPlaceInit as _;
use pin_init::init_array_from_fn;

/// A growable array.
pub struct Vec<T>(KVVec<T>);

/// Iterator that takes a [`Vec`] apart.
pub type IntoIter<T> = kernel::alloc::IntoIter<T, KVmalloc>;

impl<T> Vec<T> {
    /// An empty one; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(KVVec::new())
    }

    /// Room for `capacity` elements.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn with_capacity(capacity: usize) -> Result<Self, AllocError> {
        let mut new = Self::new();
        new.reserve(capacity)?;
        Ok(new)
    }

    /// Makes room for `additional` more elements; nothing to do when there is room.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the vector is as before.
    pub fn reserve(&mut self, additional: usize) -> Result<(), AllocError> {
        if self.0.capacity() - self.0.len() >= additional {
            return Ok(());
        }
        inject::allocation()?;
        // kvmalloc() warns of more, which a caller's numbers must not make it do.
        let bytes =
            additional.checked_add(self.0.len()).and_then(|n| n.checked_mul(size_of::<T>()));
        if bytes.is_none_or(|bytes| bytes > i32::MAX as usize) {
            return Err(AllocError);
        }
        self.0.reserve(additional, GFP_KERNEL_ACCOUNT).map_err(|_| AllocError)
    }

    /// Appends.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the element is dropped.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), AllocError> {
        self.reserve(1)?;
        self.0.push_within_capacity(value).map_err(|_| AllocError)
    }

    /// Appends in the room there is.
    ///
    /// # Errors
    /// Gives the element back when the vector is full.
    #[inline]
    pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        self.0.push_within_capacity(value).map_err(|error| error.0)
    }

    /// Inserts before `index`.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the element is dropped.
    pub fn insert(&mut self, index: usize, value: T) -> Result<(), AllocError> {
        assert!(index <= self.0.len(), "insertion beyond the end");
        self.reserve(1)?;
        self.0.insert_within_capacity(index, value).map_err(|_| AllocError)
    }

    /// Number of elements that fit without allocation.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Takes the last element off.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Drops the elements from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Drops all elements.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes an element and puts the last one in its place.
    pub fn swap_remove(&mut self, index: usize) -> T {
        let last = self.0.len() - 1;
        self.0.swap(index, last);
        self.remove(last)
    }

    /// Removes an element; the later ones move up.
    pub fn remove(&mut self, index: usize) -> T {
        match self.0.remove(index) {
            Ok(value) => value,
            Err(_) => panic!("removal beyond the end"),
        }
    }

    /// Keeps the elements for which `keep` is true, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.0.retain(|value| keep(value));
    }
}

impl<T: Clone> Vec<T> {
    /// Appends copies of the elements.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the vector is as before.
    pub fn extend_from_slice(&mut self, other: &[T]) -> Result<(), AllocError> {
        self.reserve(other.len())?;
        self.0.extend_from_slice(other, GFP_KERNEL_ACCOUNT).map_err(|_| AllocError)
    }

    /// Cuts or extends to `len` elements.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the vector is as before.
    pub fn resize(&mut self, len: usize, value: T) -> Result<(), AllocError> {
        self.reserve(len.saturating_sub(self.0.len()))?;
        self.0.resize(len, value, GFP_KERNEL_ACCOUNT).map_err(|_| AllocError)
    }
}

impl<T> Deref for Vec<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Vec<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T> IntoIterator for Vec<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;
    fn into_iter(self) -> IntoIter<T> {
        self.0.into_iter()
    }
}

/// One value on the heap.
pub struct Box<T>(KBox<T>);

impl<T> Box<T> {
    /// Moves a value to the heap.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the value is dropped.
    pub fn new(value: T) -> Result<Self, AllocError> {
        inject::allocation()?;
        KBox::new(value, GFP_KERNEL_ACCOUNT).map(Self).map_err(|_| AllocError)
    }

    /// Moves the value out and frees the box.
    #[must_use]
    pub fn into_inner(this: Self) -> T {
        KBox::into_inner(this.0)
    }
}

impl<T, const N: usize> Box<[T; N]> {
    /// An array of `N` values, made on the heap: large ones have no place on a kernel's stack.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn filled(mut make: impl FnMut() -> T) -> Result<Self, AllocError> {
        inject::allocation()?;
        KBox::init(init_array_from_fn(|_| make()), GFP_KERNEL_ACCOUNT)
            .map(Self)
            .map_err(|_| AllocError)
    }
}

impl<T> Deref for Box<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Box<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
