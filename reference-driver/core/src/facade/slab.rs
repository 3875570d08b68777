//! A table of values by small number: the handles and ids given to user space.
//!
//! Numbers start at 1, since 0 means "none" in the uAPI. Every operation takes constant time.

use super::{AllocError, Mutex, Vec};

/// One place of the table.
#[derive(Debug)]
enum Slot<T> {
    /// Free; holds the next free place plus one.
    Free(u32),
    /// Promised to a [`Reserved`]; nobody finds it yet.
    Reserved,
    /// In use.
    Used(T),
}

/// A table of values with numbers from 1 on. Freed numbers are used again, the last one first.
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    /// First free place plus one; 0: none.
    free: u32,
    len: u32,
}

/// A number promised by [`Slab::reserve`], to be given to [`Slab::commit`] or [`Slab::cancel`].
/// One that is dropped keeps its number out of use.
#[derive(Debug)]
#[must_use = "a reserved number must be committed or cancelled"]
pub struct Reserved(u32);

impl Reserved {
    /// The number that the value will have.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0
    }
}

impl<T> Slab<T> {
    /// An empty table; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: Vec::new(), free: 0, len: 0 }
    }

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reserves a number: what follows cannot fail any more.
    ///
    /// # Errors
    /// [`AllocError`] without memory, or when all numbers are in use.
    pub fn reserve(&mut self) -> Result<Reserved, AllocError> {
        if let Some(index) = self.free.checked_sub(1) {
            let Slot::Free(next) = self.slots[index as usize] else {
                unreachable!("the free list holds free places only");
            };
            self.free = next;
            self.slots[index as usize] = Slot::Reserved;
            return Ok(Reserved(index + 1));
        }
        let id = u32::try_from(self.slots.len() + 1).map_err(|_| AllocError)?;
        self.slots.push(Slot::Reserved)?;
        Ok(Reserved(id))
    }

    /// Puts the value under a reserved number, which becomes visible.
    pub fn commit(&mut self, reserved: Reserved, value: T) -> u32 {
        let slot = &mut self.slots[reserved.0 as usize - 1];
        assert!(matches!(slot, Slot::Reserved), "the number was reserved in this table");
        *slot = Slot::Used(value);
        self.len += 1;
        reserved.0
    }

    /// Gives a reserved number back.
    pub fn cancel(&mut self, reserved: Reserved) {
        let slot = &mut self.slots[reserved.0 as usize - 1];
        assert!(matches!(slot, Slot::Reserved), "the number was reserved in this table");
        *slot = Slot::Free(self.free);
        self.free = reserved.0;
    }

    /// Puts a value into the table and returns its number.
    ///
    /// # Errors
    /// As [`Slab::reserve`]; the value is dropped.
    pub fn insert(&mut self, value: T) -> Result<u32, AllocError> {
        let reserved = self.reserve()?;
        Ok(self.commit(reserved, value))
    }

    /// Puts a value into the table if there is room; else gives it back.
    fn insert_within_capacity(&mut self, value: T) -> Result<u32, T> {
        let has_room = self.free != 0 || self.slots.len() < self.slots.capacity();
        match has_room.then(|| self.reserve()) {
            Some(Ok(reserved)) => Ok(self.commit(reserved, value)),
            _ => Err(value),
        }
    }

    /// Changes to larger storage, and leaves the old in its place; nothing if it is not larger.
    fn move_into(&mut self, storage: &mut Vec<Slot<T>>) {
        if storage.capacity() <= self.slots.capacity() {
            return;
        }
        for slot in self.slots.iter_mut() {
            let slot = core::mem::replace(slot, Slot::Reserved);
            let fits = storage.push_within_capacity(slot).is_ok();
            debug_assert!(fits, "the storage is larger");
        }
        core::mem::swap(&mut self.slots, storage);
    }

    /// Puts a value into a table behind a lock of the fence path, where memory must come without
    /// the lock.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the value is dropped, without the lock.
    pub fn insert_locked<S>(
        lock: &Mutex<S>,
        table: impl Fn(&mut S) -> &mut Slab<T>,
        mut value: T,
    ) -> Result<u32, AllocError> {
        loop {
            let places = {
                let mut guard = lock.lock();
                let table = table(&mut guard);
                match table.insert_within_capacity(value) {
                    Ok(id) => return Ok(id),
                    Err(back) => value = back,
                }
                table.slots.len()
            };
            let mut storage = Vec::with_capacity((2 * places).max(4))?;
            table(&mut lock.lock()).move_into(&mut storage);
        }
    }

    /// The value of a number.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&T> {
        match self.slots.get((id as usize).checked_sub(1)?)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) | Slot::Reserved => None,
        }
    }

    /// The value of a number, to change it.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        match self.slots.get_mut((id as usize).checked_sub(1)?)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) | Slot::Reserved => None,
        }
    }

    /// Takes a value out; its number may be used again.
    pub fn remove(&mut self, id: u32) -> Option<T> {
        let slot = self.slots.get_mut((id as usize).checked_sub(1)?)?;
        if !matches!(slot, Slot::Used(_)) {
            return None;
        }
        let Slot::Used(value) = core::mem::replace(slot, Slot::Free(self.free)) else {
            unreachable!("matched above");
        };
        self.free = id;
        self.len -= 1;
        Some(value)
    }

    /// Takes the value with the highest number out: for emptying the table. No number may be
    /// reserved then.
    pub fn pop(&mut self) -> Option<(u32, T)> {
        // The free places cut off here may be on the free list; those below wait until the table
        // is empty.
        self.free = 0;
        while let Some(slot) = self.slots.pop() {
            if let Slot::Used(value) = slot {
                self.len -= 1;
                return Some((self.slots.len() as u32 + 1, value));
            }
        }
        None
    }

    /// Calls `f` with each number and value, ascending.
    pub fn for_each_mut(&mut self, mut f: impl FnMut(u32, &mut T)) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Slot::Used(value) = slot {
                f(index as u32 + 1, value);
            }
        }
    }

    /// The values with their numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match slot {
            Slot::Used(value) => Some((index as u32 + 1, value)),
            Slot::Free(_) | Slot::Reserved => None,
        })
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}
