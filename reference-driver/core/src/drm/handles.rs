//! Handles of an open file: of buffer objects and of syncobjs.
//!
//! Owns both tables; the objects live as long as something uses them.

use fencepost_uapi::Errno;

use crate::facade::{AllocError, Arc, Mutex, Rank, Slab};
use crate::gem::GemRef;
use crate::host::Host;
use crate::sync::syncobj::Syncobj;

/// The handles of an open file.
pub struct Handles<H: Host> {
    tables: Mutex<Tables<H>>,
}

struct Tables<H: Host> {
    gems: Slab<GemRef<H>>,
    syncobjs: Slab<Arc<Syncobj>>,
}

impl<H: Host> Handles<H> {
    /// None yet.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new() -> Result<Self, AllocError> {
        let tables = Tables { gems: Slab::new(), syncobjs: Slab::new() };
        Ok(Handles { tables: Mutex::new(Rank::File, tables)? })
    }

    /// The object of a handle.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn gem(&self, handle: u32) -> Result<GemRef<H>, Errno> {
        self.tables.lock().gems.get(handle).cloned().ok_or(Errno::NOENT)
    }

    /// A handle for a new object.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn add_gem(&self, gem: GemRef<H>) -> Result<u32, Errno> {
        Ok(self.tables.lock().gems.insert(gem)?)
    }

    /// The handle that an object has here, or a new one.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn find_or_add_gem(&self, gem: GemRef<H>) -> Result<u32, Errno> {
        let gems = &mut self.tables.lock().gems;
        let known = gems.iter().find(|(_, known)| known.same(&gem)).map(|(handle, _)| handle);
        match known {
            Some(handle) => Ok(handle),
            None => Ok(gems.insert(gem)?),
        }
    }

    /// Takes an object out.
    ///
    /// # Errors
    /// `EINVAL`: no such handle.
    pub fn remove_gem(&self, handle: u32) -> Result<GemRef<H>, Errno> {
        self.tables.lock().gems.remove(handle).ok_or(Errno::INVAL)
    }

    /// A handle of an object; 0: it has none here.
    pub fn handle_of(&self, gem: &GemRef<H>) -> u32 {
        let tables = self.tables.lock();
        let found = tables.gems.iter().find(|(_, known)| known.same(gem)).map(|(handle, _)| handle);
        found.unwrap_or(0)
    }

    /// What `mmap(2)` takes for an object.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn mmap_offset(&self, handle: u32) -> Result<u64, Errno> {
        Ok(self.gem(handle)?.mem.0)
    }

    /// The object whose fake offset this is.
    pub fn at_offset(&self, offset: u64) -> Option<GemRef<H>> {
        let tables = self.tables.lock();
        let found = tables.gems.iter().find(|(_, gem)| gem.mem.0 == offset);
        found.map(|(_, gem)| gem.clone())
    }

    /// The syncobj of a handle.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn syncobj(&self, handle: u32) -> Result<Arc<Syncobj>, Errno> {
        self.tables.lock().syncobjs.get(handle).cloned().ok_or(Errno::NOENT)
    }

    /// A handle for a syncobj.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn add_syncobj(&self, syncobj: Arc<Syncobj>) -> Result<u32, Errno> {
        Ok(self.tables.lock().syncobjs.insert(syncobj)?)
    }

    /// Takes a syncobj out.
    ///
    /// # Errors
    /// `EINVAL`: no such handle.
    pub fn remove_syncobj(&self, handle: u32) -> Result<Arc<Syncobj>, Errno> {
        self.tables.lock().syncobjs.remove(handle).ok_or(Errno::INVAL)
    }

    /// The file is closed. What it held is dropped without the lock.
    pub fn close(&self) {
        while let Some(gone) = self.pop(|tables| tables.gems.pop()) {
            drop(gone);
        }
        while let Some(gone) = self.pop(|tables| tables.syncobjs.pop()) {
            drop(gone);
        }
    }

    fn pop<T>(&self, take: impl FnOnce(&mut Tables<H>) -> Option<(u32, T)>) -> Option<(u32, T)> {
        take(&mut self.tables.lock())
    }
}
