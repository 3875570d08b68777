//! `Vec` and `Box` over std, with fallible growth. Each real allocation passes the injection first.
//!
//! A failure of the system's allocator is reported where std can (vectors); for a single box std
//! offers no fallible constructor on stable, so there only injected failures are seen.

use super::std::{boxed, vec};
use super::{inject, AllocError};
use core::ops::{Deref, DerefMut};

/// A growable array.
pub struct Vec<T>(vec::Vec<T>);

/// Iterator that takes a [`Vec`] apart.
pub type IntoIter<T> = vec::IntoIter<T>;

impl<T> Vec<T> {
    /// An empty one; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(vec::Vec::new())
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
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn reserve(&mut self, additional: usize) -> Result<(), AllocError> {
        if self.0.capacity() - self.0.len() >= additional {
            return Ok(());
        }
        inject::allocation()?;
        self.0.try_reserve(additional).map_err(|_| AllocError)
    }

    /// Appends.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the element is dropped.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), AllocError> {
        self.reserve(1)?;
        self.0.push(value);
        Ok(())
    }

    /// Appends in the room there is.
    ///
    /// # Errors
    /// Gives the element back when the vector is full.
    #[inline]
    pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        if self.0.len() == self.0.capacity() {
            return Err(value);
        }
        self.0.push(value);
        Ok(())
    }

    /// Inserts before `index`.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the element is dropped.
    pub fn insert(&mut self, index: usize, value: T) -> Result<(), AllocError> {
        self.reserve(1)?;
        self.0.insert(index, value);
        Ok(())
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

    /// Drops all elements; the room stays.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes an element; the last one takes its place.
    pub fn swap_remove(&mut self, index: usize) -> T {
        self.0.swap_remove(index)
    }

    /// Removes an element; those behind it move up.
    pub fn remove(&mut self, index: usize) -> T {
        self.0.remove(index)
    }

    /// Keeps the elements for which `keep` is true.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.0.retain(keep);
    }
}

impl<T: Clone> Vec<T> {
    /// Appends copies of the elements.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the vector is as before.
    pub fn extend_from_slice(&mut self, other: &[T]) -> Result<(), AllocError> {
        self.reserve(other.len())?;
        self.0.extend_from_slice(other);
        Ok(())
    }

    /// Cuts or extends to `len` elements.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the vector is as before.
    pub fn resize(&mut self, len: usize, value: T) -> Result<(), AllocError> {
        self.reserve(len.saturating_sub(self.0.len()))?;
        self.0.resize(len, value);
        Ok(())
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
pub struct Box<T>(boxed::Box<T>);

impl<T> Box<T> {
    /// Moves a value to the heap.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the value is dropped.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn new(value: T) -> Result<Self, AllocError> {
        inject::allocation()?;
        Ok(Self(boxed::Box::new(value)))
    }

    /// Moves the value out and frees the box.
    #[must_use]
    pub fn into_inner(this: Self) -> T {
        *this.0
    }
}

impl<T, const N: usize> Box<[T; N]> {
    /// An array of `N` values, made on the heap: large ones have no place on a kernel's stack.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn filled(make: impl FnMut() -> T) -> Result<Self, AllocError> {
        inject::allocation()?;
        let mut all = vec::Vec::new();
        all.try_reserve_exact(N).map_err(|_| AllocError)?;
        all.resize_with(N, make);
        all.into_boxed_slice().try_into().map(Self).map_err(|_| AllocError)
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
