//! `Vec` and `Box` of a world without memory: a vector is always empty, a box never exists.

use super::AllocError;
use core::convert::Infallible;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

/// A growable array that cannot grow.
pub struct Vec<T>(PhantomData<T>);

/// Iterator that takes a [`Vec`] apart.
pub type IntoIter<T> = core::iter::Empty<T>;

impl<T> Vec<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Room for `capacity` elements.
    ///
    /// # Errors
    /// [`AllocError`] unless `capacity` is 0.
    pub fn with_capacity(capacity: usize) -> Result<Self, AllocError> {
        let mut new = Self::new();
        new.reserve(capacity)?;
        Ok(new)
    }

    /// Makes room for `additional` more elements.
    ///
    /// # Errors
    /// [`AllocError`] unless `additional` is 0.
    pub fn reserve(&mut self, additional: usize) -> Result<(), AllocError> {
        if additional == 0 {
            Ok(())
        } else {
            Err(AllocError)
        }
    }

    /// Appends.
    ///
    /// # Errors
    /// Always [`AllocError`].
    pub fn push(&mut self, _: T) -> Result<(), AllocError> {
        Err(AllocError)
    }

    /// Appends in the room there is.
    ///
    /// # Errors
    /// Always gives the element back.
    pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        Err(value)
    }

    /// Inserts before `index`.
    ///
    /// # Errors
    /// Always [`AllocError`].
    pub fn insert(&mut self, _: usize, _: T) -> Result<(), AllocError> {
        Err(AllocError)
    }

    /// Number of elements that fit without allocation.
    #[must_use]
    pub fn capacity(&self) -> usize {
        0
    }

    /// Takes the last element off.
    pub fn pop(&mut self) -> Option<T> {
        None
    }

    /// Drops the elements from `len` on.
    pub fn truncate(&mut self, _: usize) {}

    /// Drops all elements.
    pub fn clear(&mut self) {}

    /// Removes an element: there is none, so this panics.
    pub fn swap_remove(&mut self, index: usize) -> T {
        panic!("swap_remove of element {index} of an empty vector")
    }

    /// Removes an element: there is none, so this panics.
    pub fn remove(&mut self, index: usize) -> T {
        panic!("remove of element {index} of an empty vector")
    }

    /// Keeps the elements for which `keep` is true.
    pub fn retain(&mut self, _: impl FnMut(&T) -> bool) {}
}

impl<T: Clone> Vec<T> {
    /// Appends copies of the elements.
    ///
    /// # Errors
    /// [`AllocError`] unless there are none.
    pub fn extend_from_slice(&mut self, other: &[T]) -> Result<(), AllocError> {
        self.reserve(other.len())
    }

    /// Cuts or extends to `len` elements.
    ///
    /// # Errors
    /// [`AllocError`] unless `len` is 0.
    pub fn resize(&mut self, len: usize, _: T) -> Result<(), AllocError> {
        self.reserve(len)
    }
}

impl<T> Deref for Vec<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &[]
    }
}

impl<T> DerefMut for Vec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut []
    }
}

impl<T> IntoIterator for Vec<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;
    fn into_iter(self) -> IntoIter<T> {
        core::iter::empty()
    }
}

/// One value on a heap that is not there.
pub struct Box<T>(Infallible, PhantomData<T>);

impl<T> Box<T> {
    /// Moves a value to the heap.
    ///
    /// # Errors
    /// Always [`AllocError`].
    pub fn new(_: T) -> Result<Self, AllocError> {
        Err(AllocError)
    }

    /// Moves the value out and frees the box.
    #[must_use]
    pub fn into_inner(this: Self) -> T {
        match this.0 {}
    }
}

/// To drop one means something in every flavour.
impl<T> Drop for Box<T> {
    fn drop(&mut self) {}
}

impl<T, const N: usize> Box<[T; N]> {
    /// An array of `N` values, made on the heap.
    ///
    /// # Errors
    /// Always [`AllocError`].
    pub fn filled(_: impl FnMut() -> T) -> Result<Self, AllocError> {
        Err(AllocError)
    }
}

impl<T> Deref for Box<T> {
    type Target = T;
    fn deref(&self) -> &T {
        match self.0 {}
    }
}

impl<T> DerefMut for Box<T> {
    fn deref_mut(&mut self) -> &mut T {
        match self.0 {}
    }
}
