//! What SVM asks of a world, modelled on HMM so that the kernel's side of it is thin.
//!
//! Owns the interface: address spaces, interval notifiers, faulting ranges in, moving pages to device
//! memory and back, device-exclusive access. What the driver makes of it stands in `svm`.
//! Semantics are those of `Documentation/mm/hmm.rst`, `mm/migrate_device.c` and
//! `mm/rmap.c:make_device_exclusive` of Linux 7.2, unless said otherwise.
//!
//! Addresses and spans are CPU virtual addresses, spans whole pages. Every call may sleep and takes
//! the address space's locks itself, unless it is marked; the driver holds no lock that
//! [`crate::driver::Driver::invalidate`] takes.

use fencepost_uapi::Errno;

use crate::gpuva::Span;
use crate::pgtable::SIZE_4K;

/// A page as [`Mirror::range_fault`] reports it, and what is asked of it: `HMM_PFN_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Pfn(pub u64);

impl Pfn {
    /// Out: the page is there. In, as request: fault it in.
    pub const VALID: u64 = 1 << 63;
    /// Out: it may be written. In: fault it in for writing.
    pub const WRITE: u64 = 1 << 62;
    /// Out: it cannot be had: a hole, no permission, poison.
    pub const ERROR: u64 = 1 << 61;
    /// Out: device memory of the owner that was asked for; the number is a frame.
    pub const DEVICE: u64 = 1 << 60;
    /// Out: the zero page, where the world can tell.
    pub const ZERO: u64 = 1 << 59;
    const ORDER_SHIFT: u32 = 48;
    const DEVICE_SHIFT: u32 = 40;
    const NUMBER: u64 = (1 << Self::DEVICE_SHIFT) - 1;

    /// A page with these flags; `order`: it is mapped by the CPU with its neighbours, 1 << order
    /// pages, as one. `device` counts only with [`Pfn::DEVICE`].
    #[must_use]
    pub const fn new(flags: u64, order: u32, device: u8, number: u64) -> Self {
        let order = ((order & 31) as u64) << Self::ORDER_SHIFT;
        Pfn(flags | order | (device as u64) << Self::DEVICE_SHIFT | number & Self::NUMBER)
    }

    /// Whether all of these flags are set.
    #[must_use]
    pub const fn has(self, flags: u64) -> bool {
        self.0 & flags == flags
    }

    /// Map order: the CPU maps 1 << order pages as one.
    #[must_use]
    pub const fn order(self) -> u32 {
        (self.0 >> Self::ORDER_SHIFT) as u32 & 31
    }

    /// Number of the device that has the page, with [`Pfn::DEVICE`].
    #[must_use]
    pub const fn device(self) -> u8 {
        (self.0 >> Self::DEVICE_SHIFT) as u8
    }

    /// The world's number of the page or, with [`Pfn::DEVICE`], the frame of device memory.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0 & Self::NUMBER
    }
}

/// What is asked of every page of a range, besides what its own [`Pfn`] asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Flags asked of every page: nothing (a snapshot, which faults nothing in), [`Pfn::VALID`],
    /// [`Pfn::VALID`] with [`Pfn::WRITE`].
    pub default_flags: u64,
    /// Which flags of the pages as passed in are asked as well; 0: the array is output only.
    pub mask: u64,
    /// Device memory of this owner is reported where it is; that of others is faulted back.
    pub owner: u64,
}

/// The part of an address space with one set of properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vma {
    /// Its addresses.
    pub span: Span,
    /// It may be read.
    pub read: bool,
    /// It may be written.
    pub write: bool,
    /// Private anonymous memory.
    pub anonymous: bool,
    /// Huge pages of hugetlbfs.
    pub hugetlb: bool,
    /// Memory of a device: `VM_IO`, `VM_PFNMAP`, `VM_MIXEDMAP`.
    pub device: bool,
}

/// Why translations of a range end: `enum mmu_notifier_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The range is unmapped, by munmap, mremap, mmap over it, brk.
    Unmap,
    /// The pages behind it change: zap, copy on write, reclaim, restore from exclusive.
    Clear,
    /// Permissions of the mapping change.
    ProtectionVma,
    /// Permissions of pages change (write protection at fork and the like).
    ProtectionPage,
    /// Soft-dirty tracking protects pages.
    SoftDirty,
    /// The address space ends.
    Release,
    /// Pages are moved by the owner of device memory.
    Migrate,
    /// Pages become exclusive to an owner.
    Exclusive,
}

/// A range whose translations end.
#[derive(Clone, Copy, Debug)]
pub struct Invalidation {
    /// The addresses.
    pub span: Span,
    /// Why.
    pub event: Event,
    /// Who does it, for [`Event::Migrate`] and [`Event::Exclusive`]; 0: nobody in particular.
    pub owner: u64,
    /// The callback may sleep.
    pub blockable: bool,
}

/// Which pages a migration takes and which way: `struct migrate_vma`, `migrate_device_range`.
pub enum Way<'a, W: Mirror> {
    /// To device memory: system memory and empty pages of one VMA and, with `devices`, device
    /// memory of the owner as well, also that of this device, which is to stay.
    ToDevice {
        /// The address space.
        mm: &'a W::Mm,
        /// The range, in one VMA.
        span: Span,
        /// Who moves.
        owner: u64,
        /// Device memory of this owner moves as well.
        devices: bool,
    },
    /// Device memory of the owner in one VMA to system memory.
    ToSystem {
        /// The address space.
        mm: &'a W::Mm,
        /// The range, in one VMA.
        span: Span,
        /// Whose memory.
        owner: u64,
    },
    /// Device memory to system memory because the CPU touched it: within
    /// [`crate::driver::Driver::cpu_fault`] only.
    CpuFault {
        /// What the callback was given.
        fault: &'a mut W::CpuFault,
        /// The range, which has the faulting address; it is clipped to the VMA.
        span: Span,
        /// Whose memory.
        owner: u64,
    },
    /// Frames to system memory, wherever they are mapped.
    Evict {
        /// First frame.
        frame: u64,
        /// Number of frames.
        count: u64,
    },
}

/// What a migration found at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A page that does not move: none of the kinds asked for, pinned, shared in a way that forbids
    /// it, gone meanwhile.
    Stays,
    /// Nothing populated (or the zero page): its target must read as zeros.
    Empty,
    /// System memory: a folio of 1 << order pages begins here, as far as the migration has it.
    System {
        /// Its order.
        order: u32,
    },
    /// Device memory of a device of the owner.
    Device {
        /// Number of the device.
        device: u8,
        /// The frame.
        frame: u64,
        /// Order of the folio that begins here.
        order: u32,
    },
}

/// Where a page goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Frames of this device, 1 << order from this one, free so far. They are the world's until
    /// [`Mirror::frames_freed`] gives them back, whatever becomes of the migration.
    Device {
        /// First frame.
        frame: u64,
        /// Order; smaller than the source's: the source is split.
        order: u32,
    },
    /// System memory, which the world allocates.
    System {
        /// Order; smaller than the source's: the source is split.
        order: u32,
    },
}

/// The part of a world that mirrors address spaces.
pub trait Mirror: Sized {
    /// An address space (`mm_struct`), kept by reference: it may end meanwhile, which calls report
    /// as `EFAULT`.
    type Mm: Clone + Send + Sync + 'static;
    /// An interval notifier that is inserted.
    type Notifier: Send + Sync + 'static;
    /// A migration under way. It belongs to the thread that began it.
    type Migration;
    /// A page that is exclusive to the device and locked: until this is dropped the CPU's accesses
    /// to it wait.
    type Exclusive;
    /// A CPU fault on device memory, during the callback.
    type CpuFault;

    /// Number of this device among those whose memory the owner has.
    fn device(&self) -> u8 {
        0
    }

    /// Whether there may be other devices of the same owner, whose memory is found at addresses.
    fn has_peers(&self) -> bool {
        false
    }

    /// A number that no other address space has at the same time.
    fn mm_id(&self, mm: &Self::Mm) -> u64;

    /// The mapping that has an address.
    ///
    /// # Errors
    /// `ENOENT`: none; `EFAULT`: the address space has ended.
    fn vma(&self, mm: &Self::Mm, addr: u64) -> Result<Vma, Errno>;

    /// The first mapping that ends above an address.
    ///
    /// # Errors
    /// As [`Mirror::vma`].
    fn next_vma(&self, mm: &Self::Mm, addr: u64) -> Result<Vma, Errno>;

    // ---- notifiers: mmu_interval_notifier ------------------------------------------------------

    /// From now on [`crate::driver::Driver::invalidate`] is called with the cookie before
    /// translations in the span end.
    ///
    /// # Errors
    /// `ENOMEM`; `EFAULT`: the address space has ended.
    fn notifier_insert(
        &self,
        mm: &Self::Mm,
        span: Span,
        cookie: u64,
    ) -> Result<Self::Notifier, Errno>;

    /// Ends the calls; those under way have returned. The driver holds no lock at all.
    fn notifier_remove(&self, notifier: Self::Notifier);

    /// The sequence number to read the address space under; waits for invalidations under way.
    fn read_begin(&self, notifier: &Self::Notifier) -> u64;

    /// Whether what was read since is out of date. Called with the lock held under which the
    /// driver's callback sets the sequence. Does not sleep.
    fn read_retry(&self, notifier: &Self::Notifier, seq: u64) -> bool;

    // ---- pages: hmm_range_fault ----------------------------------------------------------------

    /// Reads, and as wanted faults in, the pages of a range that lies in the notifier's.
    ///
    /// # Errors
    /// `EBUSY`: an invalidation came, begin again with a new sequence number; `EFAULT`: no mapping,
    /// no permission for what is wanted at all (`PROT_NONE`), the address space has ended; `EPERM`: a
    /// page that is wanted for writing cannot be written; `ENOMEM`; `EINTR`: a fatal signal.
    fn range_fault(
        &self,
        mm: &Self::Mm,
        notifier: &Self::Notifier,
        seq: u64,
        span: Span,
        want: Want,
        pages: &mut [Pfn],
    ) -> Result<(), Errno>;

    /// Makes 1 << order pages of system memory from this one accessible in
    /// [`super::Aperture::System`], contiguous from the returned address, which is aligned to that
    /// size. Called under the notifier's lock: does not sleep.
    ///
    /// # Errors
    /// `ENOMEM`.
    fn dma_map_page(&self, mm: &Self::Mm, page: Pfn, order: u32) -> Result<u64, Errno>;

    /// Undoes [`Mirror::dma_map_page`]. Does not sleep.
    fn dma_unmap_page(&self, addr: u64, order: u32);

    // ---- migration: migrate_vma_* --------------------------------------------------------------
    // In this order: setup; source, target and copy for each page; commit; moved; end. Until the end
    // the thread makes no other call of this trait but `frames_freed`, and no user copy.

    /// Collects the pages of a migration and takes their translations away, telling the notifiers.
    ///
    /// # Errors
    /// `EINVAL`: not within one VMA; `ENOENT`: no VMA; `EBUSY`; `ENOMEM`; `EFAULT`.
    fn migrate_setup(&self, way: Way<'_, Self>) -> Result<Self::Migration, Errno>;

    /// Its addresses; those of [`Way::Evict`] count from 0.
    fn migrate_span(&self, migration: &Self::Migration) -> Span;

    /// What is at an index: page `index` of the span.
    fn migrate_source(&self, migration: &Self::Migration, index: usize) -> Source;

    /// Says where the page at an index goes.
    ///
    /// # Errors
    /// `ENOMEM`: no memory for it; it stays, unless another target is given.
    fn migrate_target(
        &self,
        migration: &mut Self::Migration,
        index: usize,
        target: Target,
    ) -> Result<(), Errno>;

    /// Copies what is at an index to its target, also from another device of the owner. A page without a copied target stays.
    ///
    /// # Errors
    /// `EIO`: the copy failed; the page stays where it is.
    fn migrate_copy(&self, migration: &mut Self::Migration, index: usize) -> Result<(), Errno>;

    /// The page at an index stays after all.
    fn migrate_keep(&self, migration: &mut Self::Migration, index: usize);

    /// Puts the copied pages in the place of their sources, with the CPU's own permissions. Each
    /// page that nobody used meanwhile has moved.
    fn migrate_commit(&self, migration: &mut Self::Migration);

    /// Whether the page at an index has moved; after the commit.
    fn migrate_moved(&self, migration: &Self::Migration, index: usize) -> bool;

    /// Lets everybody at the pages again; sources that were moved away are freed.
    fn migrate_end(&self, migration: Self::Migration);

    /// Whether [`Mirror::frames_freed`] has something to give; where a world does not say, the driver
    /// asks now and then. Does not sleep.
    fn has_freed_frames(&self) -> bool {
        false
    }

    /// Gives every run of frames (first, number) that came free since the last call: their pages
    /// were moved back, unmapped, or never used. The world calls [`super::Host::wake`] when there
    /// are some. Does not sleep.
    fn frames_freed(&self, each: &mut dyn FnMut(u64, u64));

    // ---- exclusive access: make_device_exclusive -----------------------------------------------

    /// Takes a page from all CPU mappings, so that the device alone accesses it, until the CPU
    /// touches it again: then the notifiers are told and the CPU goes on.
    ///
    /// # Errors
    /// `EFAULT`: no mapping, or none that can be written; `EOPNOTSUPP`: not private anonymous memory;
    /// `EBUSY`: try again; `EINTR`; `ENOMEM`.
    fn make_exclusive(
        &self,
        mm: &Self::Mm,
        addr: u64,
        owner: u64,
    ) -> Result<(Pfn, Self::Exclusive), Errno>;

    /// Makes the pages of a range exclusive one by one and calls `each` with the address and the page
    /// while it is locked. A world may hold its locks of the address space over all of them: `each`
    /// takes no lock but those that [`crate::driver::Driver::invalidate`] takes, and does not sleep
    /// otherwise.
    ///
    /// # Errors
    /// Those of [`Mirror::make_exclusive`] and of `each`; the pages before stay exclusive.
    fn make_range_exclusive(
        &self,
        mm: &Self::Mm,
        span: Span,
        owner: u64,
        each: &mut dyn FnMut(u64, Pfn) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        for addr in (span.start..span.end).step_by(SIZE_4K as usize) {
            let (page, held) = self.make_exclusive(mm, addr, owner)?;
            each(addr, page)?;
            // From here on the CPU's accesses, which wait, take it away again.
            drop(held);
        }
        Ok(())
    }
}

/// Implements [`Mirror`] for a world that cannot mirror: there is no [`Mirror::Mm`].
#[macro_export]
macro_rules! no_mirror {
    ($world:ty) => {
        impl $crate::host::mirror::Mirror for $world {
            type Mm = core::convert::Infallible;
            type Notifier = core::convert::Infallible;
            type Migration = core::convert::Infallible;
            type Exclusive = core::convert::Infallible;
            type CpuFault = core::convert::Infallible;

            fn mm_id(&self, mm: &Self::Mm) -> u64 {
                match *mm {}
            }
            fn vma(
                &self,
                mm: &Self::Mm,
                _: u64,
            ) -> Result<$crate::host::mirror::Vma, fencepost_uapi::Errno> {
                match *mm {}
            }
            fn next_vma(
                &self,
                mm: &Self::Mm,
                _: u64,
            ) -> Result<$crate::host::mirror::Vma, fencepost_uapi::Errno> {
                match *mm {}
            }
            fn notifier_insert(
                &self,
                mm: &Self::Mm,
                _: $crate::gpuva::Span,
                _: u64,
            ) -> Result<Self::Notifier, fencepost_uapi::Errno> {
                match *mm {}
            }
            fn notifier_remove(&self, notifier: Self::Notifier) {
                match notifier {}
            }
            fn read_begin(&self, notifier: &Self::Notifier) -> u64 {
                match *notifier {}
            }
            fn read_retry(&self, notifier: &Self::Notifier, _: u64) -> bool {
                match *notifier {}
            }
            fn range_fault(
                &self,
                mm: &Self::Mm,
                _: &Self::Notifier,
                _: u64,
                _: $crate::gpuva::Span,
                _: $crate::host::mirror::Want,
                _: &mut [$crate::host::mirror::Pfn],
            ) -> Result<(), fencepost_uapi::Errno> {
                match *mm {}
            }
            fn dma_map_page(
                &self,
                mm: &Self::Mm,
                _: $crate::host::mirror::Pfn,
                _: u32,
            ) -> Result<u64, fencepost_uapi::Errno> {
                match *mm {}
            }
            fn dma_unmap_page(&self, _: u64, _: u32) {}
            fn migrate_setup(
                &self,
                _: $crate::host::mirror::Way<'_, Self>,
            ) -> Result<Self::Migration, fencepost_uapi::Errno> {
                Err(fencepost_uapi::Errno::OPNOTSUPP)
            }
            fn migrate_span(&self, migration: &Self::Migration) -> $crate::gpuva::Span {
                match *migration {}
            }
            fn migrate_source(
                &self,
                migration: &Self::Migration,
                _: usize,
            ) -> $crate::host::mirror::Source {
                match *migration {}
            }
            fn migrate_target(
                &self,
                migration: &mut Self::Migration,
                _: usize,
                _: $crate::host::mirror::Target,
            ) -> Result<(), fencepost_uapi::Errno> {
                match *migration {}
            }
            fn migrate_copy(
                &self,
                migration: &mut Self::Migration,
                _: usize,
            ) -> Result<(), fencepost_uapi::Errno> {
                match *migration {}
            }
            fn migrate_keep(&self, migration: &mut Self::Migration, _: usize) {
                match *migration {}
            }
            fn migrate_commit(&self, migration: &mut Self::Migration) {
                match *migration {}
            }
            fn migrate_moved(&self, migration: &Self::Migration, _: usize) -> bool {
                match *migration {}
            }
            fn migrate_end(&self, migration: Self::Migration) {
                match migration {}
            }
            fn frames_freed(&self, _: &mut dyn FnMut(u64, u64)) {}
            fn make_exclusive(
                &self,
                mm: &Self::Mm,
                _: u64,
                _: u64,
            ) -> Result<($crate::host::mirror::Pfn, Self::Exclusive), fencepost_uapi::Errno> {
                match *mm {}
            }
        }
    };
}
