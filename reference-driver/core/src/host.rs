//! What the driver asks of its world: one trait, modelled on what Linux gives a driver.
//!
//! Owns the interface and its rules; the worlds themselves stand in `fencepost-host` (sim, live)
//! and in `linux/`. Nothing here knows the driver.
//!
//! Rules for every host:
//! - The driver calls from any thread, several at a time. It holds none of its locks while it is in
//!   [`Host::wait_event`], [`Host::copy_from_user`] or [`Host::copy_to_user`]; it may hold some in
//!   every other call, so these must not wait for the driver.
//! - [`Host::wake`] may be called with locks held and from the fence path: it must not call back.
//! - Functions marked "fence path" allocate nothing that may fail.

pub mod mirror;

use fencepost_uapi::Errno;
use mirror::Mirror;

/// Memory of one buffer object, named by its fake offset: the offset which `mmap(2)` of the device
/// file takes. A multiple of the page size, never 0, and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoMem(pub u64);

/// An aperture: the kind of physical address that a page-table entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Aperture {
    /// Device memory: frame number times the page size, from 0.
    Vram,
    /// System memory: a DMA address of [`Host::dma_map`].
    System,
}

/// A physical address as the GPU uses it, from a page-table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phys {
    /// Which aperture.
    pub aperture: Aperture,
    /// Byte address in it.
    pub addr: u64,
}

/// Nothing answers at a physical address: no object lives in the frame, or nothing is mapped for
/// DMA there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusError;

/// How many bytes an access moves at once, without tearing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 4 bytes.
    Four,
    /// 8 bytes.
    Eight,
}

impl Width {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Width::Four => 4,
            Width::Eight => 8,
        }
    }
}

/// One atomic operation; the numbers are `ATOMIC_*` of the uAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atomic {
    /// `fencepost_uapi::command::ATOMIC_*`.
    pub op: u8,
    /// Operand.
    pub operand: u64,
    /// What compare-exchange compares with.
    pub compare: u64,
}

impl Atomic {
    /// The value to store for the old value, at a width; `None`: store nothing (a failed
    /// compare-exchange). Hosts whose memory has no such instruction loop over this.
    #[must_use]
    pub fn apply(self, old: u64, width: Width) -> Option<u64> {
        use fencepost_uapi::command as c;
        let mask = match width {
            Width::Four => u64::from(u32::MAX),
            Width::Eight => u64::MAX,
        };
        let (old, operand) = (old & mask, self.operand & mask);
        Some(match self.op {
            c::ATOMIC_ADD => old.wrapping_add(operand) & mask,
            c::ATOMIC_EXCHANGE => operand,
            c::ATOMIC_COMPARE_EXCHANGE => {
                if old != self.compare & mask {
                    return None;
                }
                operand
            }
            c::ATOMIC_AND => old & operand,
            c::ATOMIC_OR => old | operand,
            c::ATOMIC_XOR => old ^ operand,
            c::ATOMIC_MIN => old.min(operand),
            _ => old.max(operand),
        })
    }
}

/// One step of a loop that a world runs by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Loads a word into a register.
    Load {
        /// Where.
        at: Phys,
        /// Its width.
        width: Width,
        /// The register.
        register: u8,
    },
    /// Stores a value.
    Store {
        /// Where.
        at: Phys,
        /// Its width.
        width: Width,
        /// The value.
        value: u64,
    },
    /// Stores a register.
    StoreRegister {
        /// Where.
        at: Phys,
        /// Its width.
        width: Width,
        /// The register.
        register: u8,
    },
    /// Does an atomic operation.
    Atomic {
        /// Where.
        at: Phys,
        /// Its width.
        width: Width,
        /// The operation.
        atomic: Atomic,
        /// The register for the old value.
        result: Option<u8>,
    },
    /// Adds to a register.
    AddRegister {
        /// The register.
        register: u8,
        /// What.
        value: u64,
    },
    /// A full barrier.
    Fence,
}

/// What an exported file descriptor stands for.
#[cfg(not(MODULE))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FdKind {
    /// A buffer object (dma-buf).
    Prime,
    /// A syncobj.
    Syncobj,
    /// A fence (sync file): poll says readable once [`Host::sync_file_signal`] was called for it.
    SyncFile,
}

/// What a file descriptor of the caller is.
#[cfg(not(MODULE))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdRef {
    /// Made by [`Host::install_fd`] of this device with this kind and number.
    Ours(FdKind, u64),
    /// Open, but something else.
    Other,
}

/// The world of a driver.
pub trait Host: Mirror + Send + Sync + Sized + 'static {
    /// A calling thread: its address space for user copies, its signals for interruptible waits.
    /// It stays valid, though copies may fail, after the thread has gone.
    type Task: Copy + Send + Sync + 'static;

    /// The address space of a calling thread, to be mirrored.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the world cannot mirror address spaces, or not this one; `RESTARTSYS`: the call is
    /// to be made again, having changed nothing.
    fn mm(&self, task: Self::Task) -> Result<Self::Mm, Errno>;

    /// Whether [`Host::mm`] would give one, at no cost worth mentioning.
    fn can_mirror(&self, task: Self::Task) -> bool {
        self.mm(task).is_ok()
    }

    // ---- time and user memory ------------------------------------------------------------------

    /// `CLOCK_MONOTONIC` in nanoseconds. Fence path.
    fn now_ns(&self) -> u64;

    /// Reads user memory.
    ///
    /// # Errors
    /// `EFAULT` when any byte of it cannot be read.
    fn copy_from_user(&self, task: Self::Task, addr: u64, buf: &mut [u8]) -> Result<(), Errno>;

    /// Writes user memory; also called by [`crate::driver::Driver::step`] for user fences of binds.
    ///
    /// # Errors
    /// `EFAULT` when any byte of it cannot be written (some may have been).
    fn copy_to_user(&self, task: Self::Task, addr: u64, buf: &[u8]) -> Result<(), Errno>;

    // ---- memory of buffer objects --------------------------------------------------------------

    /// Memory for an object of `size` bytes (a multiple of 4 KiB), filled with zeros.
    ///
    /// # Errors
    /// `ENOMEM`.
    fn bo_create(&self, size: u64) -> Result<BoMem, Errno>;

    /// The object is gone; the driver has undone all its bindings and DMA mappings before. CPU
    /// mappings of it may still exist and must keep working.
    fn bo_destroy(&self, mem: BoMem, size: u64);

    /// From now on the VRAM frames from `frame` hold the `count` pages of the object from `page`.
    /// The data moves with them; CPU mappings stay coherent. The frames held nothing before.
    ///
    /// # Errors
    /// `EIO` when the copy fails: the frames hold nothing.
    fn vram_bind(&self, frame: u64, mem: BoMem, page: u64, count: u64) -> Result<(), Errno>;

    /// The frames hold nothing any more; the data stays with the object.
    fn vram_unbind(&self, frame: u64, count: u64);

    /// Makes `count` pages of the object from `page` accessible to the GPU in [`Aperture::System`],
    /// contiguous from the returned address, which is aligned to the largest GPU page size (4 KiB,
    /// 64 KiB, 2 MiB) that is no larger than the range.
    ///
    /// # Errors
    /// `ENOMEM`.
    fn dma_map(&self, mem: BoMem, page: u64, count: u64) -> Result<u64, Errno>;

    /// Undoes [`Host::dma_map`]; accesses from then on are bus errors or reach another object's
    /// page, as on hardware.
    fn dma_unmap(&self, addr: u64, count: u64);

    // ---- access by the GPU, fence path ---------------------------------------------------------
    // A range lies in one page-table entry (4 KiB, 64 KiB or 2 MiB). The driver holds the VM's
    // page-table lock meanwhile, so that an invalidation waits for accesses under way.

    /// Reads bytes; words of the natural alignment are not torn.
    ///
    /// # Errors
    /// [`BusError`] when any byte of the range is not there.
    fn gpu_read(&self, at: Phys, buf: &mut [u8]) -> Result<(), BusError>;

    /// Writes bytes; words of the natural alignment are not torn.
    ///
    /// # Errors
    /// [`BusError`], as above; then nothing, or the part before, is written.
    fn gpu_write(&self, at: Phys, buf: &[u8]) -> Result<(), BusError>;

    /// Loads a word (aligned), with acquire ordering.
    ///
    /// # Errors
    /// [`BusError`].
    fn gpu_load(&self, at: Phys, width: Width) -> Result<u64, BusError>;

    /// Stores a word (aligned), with release ordering.
    ///
    /// # Errors
    /// [`BusError`].
    fn gpu_store(&self, at: Phys, width: Width, value: u64) -> Result<(), BusError>;

    /// Does an atomic operation on a word (aligned) and returns the old value. With `system` it is
    /// atomic against the CPU too; hosts may always make it so.
    ///
    /// # Errors
    /// [`BusError`].
    fn gpu_atomic(
        &self,
        at: Phys,
        width: Width,
        atomic: Atomic,
        system: bool,
    ) -> Result<u64, BusError>;

    /// Copies `len` bytes, ascending, from one page-table entry's range to another's.
    ///
    /// # Errors
    /// [`BusError`], with the side that failed: `true` for the target.
    fn gpu_copy(&self, to: Phys, from: Phys, len: u64) -> Result<(), (BusError, bool)>;

    /// Fills `len` bytes with the word's bytes, beginning with its first; address and length are
    /// multiples of the width.
    ///
    /// # Errors
    /// [`BusError`].
    fn gpu_fill(&self, at: Phys, len: u64, width: Width, value: u64) -> Result<(), BusError>;

    /// Whether [`Host::gpu_loop`] may be worth the preparations.
    fn runs_loops(&self) -> bool {
        false
    }

    /// Does steps in turn, and all of them `repeat` times, as if by the functions above, where the world
    /// can do that at once: how many it did; fewer than all when the next one is a bus error. `None`:
    /// it cannot, and has done none.
    fn gpu_loop(&self, steps: &[Step], repeat: u32, registers: &mut [u64; 16]) -> Option<u64> {
        let _ = (steps, repeat, registers);
        None
    }

    /// A full barrier of the device; with `system` against the CPU too.
    fn gpu_fence(&self, system: bool);

    // ---- waiting and work ----------------------------------------------------------------------

    /// Blocks the caller until `ready()`; evaluates it at least once at the start, after every
    /// [`Host::wake`], and once more when the deadline has passed. True when it was ready, false
    /// when the deadline came first. `ready` may call [`Host::copy_from_user`]. With a task the wait
    /// can be interrupted, without one only by the death of the calling process, where a world has one.
    ///
    /// # Errors
    /// `RESTARTSYS` when the task has a signal pending.
    fn wait_event(
        &self,
        task: Option<Self::Task>,
        deadline_ns: Option<u64>,
        ready: &mut dyn FnMut() -> bool,
    ) -> Result<bool, Errno>;

    /// Something changed: conditions of [`Host::wait_event`] are evaluated again, and workers look
    /// for work with [`crate::driver::Driver::step`]. Fence path.
    fn wake(&self);

    // ---- file descriptors: in the module Linux makes them --------------------------------------

    /// Installs a new descriptor in the caller's table. When its last copy is closed, the host
    /// calls [`crate::driver::Driver::release_fd`] with the number.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`; then nothing is installed and no release follows.
    #[cfg(not(MODULE))]
    fn install_fd(
        &self,
        task: Self::Task,
        kind: FdKind,
        id: u64,
        cloexec: bool,
    ) -> Result<i32, Errno>;

    /// Says what a descriptor of the caller is.
    ///
    /// # Errors
    /// `EBADF` when it is not open.
    #[cfg(not(MODULE))]
    fn lookup_fd(&self, task: Self::Task, fd: i32) -> Result<FdRef, Errno>;

    /// The fence of a sync file has signalled: its descriptor polls readable from now on. May come
    /// during [`Host::install_fd`] of it. Fence path; must not call back.
    #[cfg(not(MODULE))]
    fn sync_file_signal(&self, id: u64, error: Option<Errno>);
}
