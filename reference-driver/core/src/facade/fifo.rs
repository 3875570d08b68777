//! A queue, first in first out, over one vector used as a ring.

use super::{AllocError, Vec};

/// A queue that grows fallibly.
#[derive(Debug)]
pub struct Fifo<T> {
    /// Places; `head` is the first in use, `len` of them are, wrapping around.
    ring: Vec<Option<T>>,
    head: usize,
    len: usize,
}

impl<T> Fifo<T> {
    /// An empty one; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { ring: Vec::new(), head: 0, len: 0 }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `additional` more elements.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the queue is as before.
    pub fn reserve(&mut self, additional: usize) -> Result<(), AllocError> {
        let wanted = self.len + additional;
        if wanted <= self.ring.len() {
            return Ok(());
        }
        let mut grown = Vec::with_capacity(wanted.max(2 * self.ring.len()).max(4))?;
        while let Some(value) = self.pop_front() {
            // Within the capacity just reserved.
            grown.push(Some(value))?;
        }
        self.len = grown.len();
        self.head = 0;
        while grown.push_within_capacity(None).is_ok() {}
        self.ring = grown;
        Ok(())
    }

    /// Appends at the end.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the element is dropped. Not after [`Fifo::reserve`].
    pub fn push_back(&mut self, value: T) -> Result<(), AllocError> {
        self.reserve(1)?;
        let place = (self.head + self.len) % self.ring.len();
        self.ring[place] = Some(value);
        self.len += 1;
        Ok(())
    }

    /// Takes the first element off.
    pub fn pop_front(&mut self) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        let value = self.ring[self.head].take();
        self.head = (self.head + 1) % self.ring.len();
        self.len -= 1;
        value
    }

    /// The first element.
    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.iter().next()
    }

    /// The first element, to change it.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.ring.get_mut(self.head).and_then(Option::as_mut)
    }

    /// The last element.
    #[must_use]
    pub fn back(&self) -> Option<&T> {
        let last = self.len.checked_sub(1)?;
        self.ring[(self.head + last) % self.ring.len()].as_ref()
    }

    /// The elements, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).filter_map(|i| self.ring[(self.head + i) % self.ring.len()].as_ref())
    }

    /// Keeps the elements for which `keep` is true, in order; allocates nothing.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for _ in 0..self.len {
            if let Some(value) = self.pop_front() {
                if keep(&value) {
                    let place = (self.head + self.len) % self.ring.len();
                    self.ring[place] = Some(value);
                    self.len += 1;
                }
            }
        }
    }
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self::new()
    }
}
