//! An open file: its ids and handles, its part of the debug group, its end.
//!
//! Owns who may name what. The objects themselves live as long as something uses them.

use fencepost_uapi::Errno;

use crate::counters::Counter;
use crate::device::Device;
use crate::drm::Handles;
use crate::facade::inject::Injection;
use crate::facade::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, Rank, Slab};
use crate::host::Host;
use crate::sched::queue::Queue;
use crate::svm::tune::Tunes;
use crate::vm::Vm;

/// Kinds of failure that can be armed; the index is `INJECT_*` of the uAPI.
pub const INJECTIONS: usize = 5;

/// An open file.
pub struct OpenFile<H: Host> {
    dev: Arc<Device<H>>,
    id: u64,
    tables: Mutex<Tables<H>>,
    /// Handles of buffer objects and syncobjs.
    pub handles: Handles<H>,
    injections: [Arc<Injection>; INJECTIONS],
    tunes: Mutex<Tunes>,
    testing: AtomicBool,
}

/// What an open file can name.
pub struct Tables<H: Host> {
    /// VM ids.
    pub vms: Slab<Arc<Vm<H>>>,
    /// Queue ids.
    pub queues: Slab<Arc<Queue<H>>>,
}

impl<H: Host> OpenFile<H> {
    /// Opens the device.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(dev: &Arc<Device<H>>) -> Result<Arc<Self>, Errno> {
        let tables = Tables { vms: Slab::new(), queues: Slab::new() };
        let injection = || Arc::new(Injection::new());
        let file = Arc::new(OpenFile {
            dev: dev.clone(),
            id: dev.next_id(),
            tables: Mutex::new(Rank::File, tables)?,
            handles: Handles::new()?,
            injections: [injection()?, injection()?, injection()?, injection()?, injection()?],
            tunes: Mutex::new(Rank::Leaf, Tunes::default())?,
            testing: AtomicBool::new(false),
        })?;
        dev.counters.inc(Counter::LiveFiles);
        Ok(file)
    }

    /// Number that tells open files apart.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The tables, locked.
    pub fn tables(&self) -> MutexGuard<'_, Tables<H>> {
        self.tables.lock()
    }

    /// Whether the debug group may be used.
    pub fn is_testing(&self) -> bool {
        self.testing.load(Ordering::Relaxed)
    }

    /// From now on it may.
    pub fn set_testing(&self) {
        self.testing.store(true, Ordering::Relaxed);
    }

    /// The failure that is armed for an `INJECT_*` kind.
    pub fn injection(&self, kind: u32) -> &Arc<Injection> {
        &self.injections[kind as usize]
    }

    /// Parameters of the VMs that are made from now on.
    pub fn tunes(&self) -> Tunes {
        *self.tunes.lock()
    }

    /// Sets them.
    pub fn set_tunes(&self, tunes: Tunes) {
        *self.tunes.lock() = tunes;
    }

    /// The VM of an id, banned or not.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn any_vm(&self, id: u32) -> Result<Arc<Vm<H>>, Errno> {
        self.tables().vms.get(id).cloned().ok_or(Errno::NOENT)
    }

    /// The VM of an id, to be changed or run in.
    ///
    /// # Errors
    /// `ENOENT`, also for a banned one.
    pub fn vm(&self, id: u32) -> Result<Arc<Vm<H>>, Errno> {
        let vm = self.any_vm(id)?;
        match vm.is_banned() {
            true => Err(Errno::NOENT),
            false => Ok(vm),
        }
    }

    /// The VM with the smallest id above `after`.
    pub fn next_vm(&self, after: u32) -> Option<(u32, Arc<Vm<H>>)> {
        let tables = self.tables();
        let rest = tables.vms.iter().filter(|(id, _)| *id > after);
        rest.min_by_key(|(id, _)| *id).map(|(id, vm)| (id, vm.clone()))
    }

    /// The queue of an id.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn queue(&self, id: u32) -> Result<Arc<Queue<H>>, Errno> {
        self.tables().queues.get(id).cloned().ok_or(Errno::NOENT)
    }

    /// The last reference to the open file description is gone: what it held is let go, queues
    /// first, since they keep VMs busy.
    pub fn close(&self) {
        self.dev.delays.release_all_of(self.id);
        self.dev.svm.buffer.release_all_of(self.id);
        while let Some(queue) = self.pop(|tables| &mut tables.queues) {
            queue.destroy();
        }
        while let Some(vm) = self.pop(|tables| &mut tables.vms) {
            vm.destroy();
        }
        self.handles.close();
        self.dev.counters.dec(Counter::LiveFiles);
        self.dev.host.wake();
    }

    /// Takes one entry out of a table, to be dropped without the lock.
    fn pop<T>(&self, table: impl FnOnce(&mut Tables<H>) -> &mut Slab<T>) -> Option<T> {
        table(&mut self.tables()).pop().map(|(_, value)| value)
    }
}
