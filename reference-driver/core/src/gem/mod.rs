//! Buffer objects.
//!
//! Owns an object's identity, its references and its end, and who maps it. Where its pages are is
//! [`placement`]'s, who must leave VRAM is [`evict`]'s.
//!
//! An object lives as long as something uses it: a handle, a mapping, a file descriptor, a call in
//! progress. The device's table also points to it but does not keep it alive: as with a weak
//! pointer, it is used only through [`GemRef::try_get`].

pub mod evict;
pub mod ioctls;
pub mod placement;

use crate::counters::Counter;
use crate::device::Device;
use crate::facade::{AllocError, Arc, AtomicU32, AtomicU64, Mutex, Ordering, Rank, Vec};
use crate::gpuva::Object;
use crate::host::{BoMem, Host};
use crate::sync::resv::Resv;
use crate::vm::Vm;
use placement::Place;

/// A buffer object.
pub struct Gem<H: Host> {
    dev: Arc<Device<H>>,
    /// Number that no other object has.
    pub id: u64,
    /// Size in bytes.
    pub size: u64,
    /// Regions it may live in.
    pub placement: u32,
    /// Flags of its creation.
    pub flags: u32,
    /// Number of the VM that alone may map it; 0: any.
    pub private_to: u64,
    /// Its memory.
    pub mem: BoMem,
    /// Guards where it is and who uses it; that of the VM for a private object.
    pub resv: Arc<Resv>,
    /// Where its pages are. Changes only while `resv` is held and idle.
    pub place: Mutex<Place>,
    /// VMs that map it.
    links: Mutex<Vec<Link<H>>>,
    /// References of [`GemRef`].
    users: AtomicU32,
    /// Number in the device's table.
    slot: AtomicU32,
    /// GPU mappings in all VMs.
    pub mappings: AtomicU32,
    /// Times that it was evicted.
    pub evictions: AtomicU64,
    /// Stamp of its last own use; that of its reservation counts as well.
    last_use: AtomicU64,
}

/// A VM that maps an object.
struct Link<H: Host> {
    vm: Arc<Vm<H>>,
    /// The VM's page tables do not show the object until it is validated.
    evicted: bool,
}

/// What an object is made with.
pub struct NewGem {
    /// Size in bytes.
    pub size: u64,
    /// Regions it may live in.
    pub placement: u32,
    /// `GEM_CREATE_*`.
    pub flags: u32,
    /// Number of the VM that alone may map it; 0: any.
    pub private_to: u64,
    /// Its reservation.
    pub resv: Arc<Resv>,
}

impl<H: Host> Gem<H> {
    /// Makes an object around memory, and takes the memory over in any case.
    ///
    /// # Errors
    /// [`AllocError`] without memory; the memory is freed.
    pub fn create(dev: &Arc<Device<H>>, new: NewGem, mem: BoMem) -> Result<GemRef<H>, AllocError> {
        Self::build(dev, &new, mem).inspect_err(|_| dev.host.bo_destroy(mem, new.size))
    }

    fn build(dev: &Arc<Device<H>>, new: &NewGem, mem: BoMem) -> Result<GemRef<H>, AllocError> {
        let gem = Arc::new(Gem {
            dev: dev.clone(),
            id: dev.next_id(),
            size: new.size,
            placement: new.placement,
            flags: new.flags,
            private_to: new.private_to,
            mem,
            resv: new.resv.clone(),
            place: Mutex::new(Rank::Location, Place::Nowhere)?,
            links: Mutex::new(Rank::Object, Vec::new())?,
            users: AtomicU32::new(1),
            slot: AtomicU32::new(0),
            mappings: AtomicU32::new(0),
            evictions: AtomicU64::new(0),
            last_use: AtomicU64::new(dev.next_use()),
        })?;
        let slot = dev.objects.lock().insert(gem.clone())?;
        gem.slot.store(slot, Ordering::Relaxed);
        dev.counters.inc(Counter::LiveBos);
        Ok(GemRef { gem })
    }

    /// The device.
    pub fn dev(&self) -> &Arc<Device<H>> {
        &self.dev
    }

    /// Stamp of its last use, for the least-recently-used order.
    pub fn last_use(&self) -> u64 {
        self.last_use.load(Ordering::Relaxed).max(self.resv.last_use())
    }

    /// It is used now.
    pub fn touch(&self) {
        self.last_use.store(self.dev.next_use(), Ordering::Relaxed);
    }

    /// Notes that a VM maps it. The caller holds that VM's lock.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn add_link(&self, vm: &Arc<Vm<H>>) -> Result<(), AllocError> {
        let mut links = self.links.lock();
        match links.iter().any(|link| link.vm.id == vm.id) {
            true => Ok(()),
            false => links.push(Link { vm: vm.clone(), evicted: false }),
        }
    }

    /// The VM maps it no more. The caller holds that VM's lock.
    pub fn remove_link(&self, vm: &Vm<H>) {
        let gone = {
            let mut links = self.links.lock();
            let at = links.iter().position(|link| link.vm.id == vm.id);
            at.map(|at| links.swap_remove(at))
        };
        if gone.is_some_and(|link| link.evicted) {
            vm.evicted.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The VM with the smallest number above `after` that maps it: for walking the list without
    /// holding its lock.
    pub fn next_link(&self, after: u64) -> Option<Arc<Vm<H>>> {
        let links = self.links.lock();
        let rest = links.iter().filter(|link| link.vm.id > after);
        rest.min_by_key(|link| link.vm.id).map(|link| link.vm.clone())
    }

    /// Notes whether a VM's page tables lack it; returns what was noted before.
    pub fn set_evicted(&self, vm: &Vm<H>, evicted: bool) -> bool {
        let mut links = self.links.lock();
        let Some(link) = links.iter_mut().find(|link| link.vm.id == vm.id) else { return false };
        let before = core::mem::replace(&mut link.evicted, evicted);
        match (before, evicted) {
            (false, true) => vm.evicted.fetch_add(1, Ordering::Relaxed),
            (true, false) => vm.evicted.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        before
    }

    /// Whether a VM's page tables lack it.
    pub fn is_evicted(&self, vm: &Vm<H>) -> bool {
        self.links.lock().iter().any(|link| link.vm.id == vm.id && link.evicted)
    }

    /// The last reference is gone.
    fn destroy(&self) {
        let dev = &self.dev;
        let pointer = dev.objects.lock().remove(self.slot.load(Ordering::Relaxed));
        debug_assert!(pointer.is_some(), "every object is in the table");
        if self.mappings.load(Ordering::Relaxed) != 0 {
            dev.counters.inc(Counter::Leaks);
        }
        let place = core::mem::replace(&mut *self.place.lock(), Place::Nowhere);
        place.free(dev, self.size);
        dev.host.bo_destroy(self.mem, self.size);
        dev.counters.dec(Counter::LiveBos);
    }
}

/// A reference that keeps an object alive.
pub struct GemRef<H: Host> {
    gem: Arc<Gem<H>>,
}

impl<H: Host> GemRef<H> {
    /// A reference to an object found in the device's table, unless it is about to go.
    pub fn try_get(gem: &Arc<Gem<H>>) -> Option<Self> {
        let grow = |users: u32| (users > 0).then(|| users + 1);
        let grown = gem.users.fetch_update(Ordering::AcqRel, Ordering::Acquire, grow);
        grown.ok().map(|_| GemRef { gem: gem.clone() })
    }

    /// Whether both are the same object.
    pub fn same(&self, other: &Self) -> bool {
        self.gem.id == other.gem.id
    }
}

impl<H: Host> Clone for GemRef<H> {
    fn clone(&self) -> Self {
        self.gem.users.fetch_add(1, Ordering::Relaxed);
        GemRef { gem: self.gem.clone() }
    }
}

impl<H: Host> Drop for GemRef<H> {
    fn drop(&mut self) {
        if self.gem.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.gem.destroy();
        }
    }
}

impl<H: Host> core::ops::Deref for GemRef<H> {
    type Target = Gem<H>;
    fn deref(&self) -> &Gem<H> {
        &self.gem
    }
}

impl<H: Host> Object for GemRef<H> {
    fn id(&self) -> u64 {
        self.gem.id
    }

    fn linked(&self) {
        self.gem.mappings.fetch_add(1, Ordering::Relaxed);
    }

    fn unlinked(&self) {
        self.gem.mappings.fetch_sub(1, Ordering::Relaxed);
    }
}
