//! The kernel's side of mirrored address spaces: the mirror trait over shim_mirror.c and
//! shim_devmem.c.
//!
//! Owns the handles that core keeps, each of which gives back what it holds when it is dropped, and
//! the two calls from the kernel into the driver.
#![expect(unsafe_code, reason = "calls the C side and is called by it")]

use super::attach::Listener;
use super::shim::{self, RawMigration, RawMm, RawNotifier};
use super::world::{check, World};
use crate::gpuva::Span;
use crate::host::mirror::{Event, Invalidation, Mirror, Pfn, Source, Target, Vma, Want, Way};
use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use fencepost_uapi::Errno;

/// An address space: the `mm_struct`, held, not its users.
pub(crate) struct Mm(NonNull<RawMm>);

// SAFETY: a reference to an `mm_struct` may be used and dropped by any thread.
unsafe impl Send for Mm {}
// SAFETY: as above.
unsafe impl Sync for Mm {}

impl Mm {
    /// The address space of a task that the shim knows.
    ///
    /// # Errors
    /// `EFAULT`: it is gone.
    pub(super) fn of_task(world: &World, task: u64) -> Result<Self, Errno> {
        // SAFETY: the world is alive.
        let mm = unsafe { shim::fp_mm_of_task(world.raw(), task) };
        NonNull::new(mm).map(Mm).ok_or(Errno::FAULT)
    }

    fn raw(&self) -> *mut RawMm {
        self.0.as_ptr()
    }

    fn find(&self, addr: u64, next: bool) -> Result<Vma, Errno> {
        let mut found = shim::FoundVma::default();
        // SAFETY: the `mm_struct` is held; `found` is written.
        check(unsafe { shim::fp_vma(self.raw(), addr, next, &mut found) })?;
        let has = |flag| found.flags & flag != 0;
        Ok(Vma {
            span: Span::new(found.start, found.end),
            read: has(shim::VMA_READ),
            write: has(shim::VMA_WRITE),
            anonymous: has(shim::VMA_ANONYMOUS),
            hugetlb: has(shim::VMA_HUGETLB),
            device: has(shim::VMA_DEVICE),
        })
    }
}

impl Clone for Mm {
    fn clone(&self) -> Self {
        // SAFETY: held by `self` already.
        unsafe { shim::fp_mm_grab(self.raw()) };
        Mm(self.0)
    }
}

impl Drop for Mm {
    fn drop(&mut self) {
        // SAFETY: this reference is ours.
        unsafe { shim::fp_mm_drop(self.raw()) }
    }
}

/// An interval notifier that is inserted. It has no `Drop`: removing waits for callbacks.
pub(crate) struct Notifier(NonNull<RawNotifier>);

// SAFETY: the shim's functions on it may be called from any thread.
unsafe impl Send for Notifier {}
// SAFETY: as above.
unsafe impl Sync for Notifier {}

/// A migration under way.
pub(crate) struct Migration(NonNull<RawMigration>);

impl Drop for Migration {
    fn drop(&mut self) {
        // SAFETY: set up, and ended once; pages that were not committed stay.
        unsafe { shim::fp_migrate_end(self.0.as_ptr()) }
    }
}

/// A page that is exclusive and locked.
pub(crate) struct Exclusive(NonNull<c_void>);

impl Drop for Exclusive {
    fn drop(&mut self) {
        // SAFETY: the folio was locked and held for us.
        unsafe { shim::fp_exclusive_end(self.0.as_ptr()) }
    }
}

/// A CPU fault, during the callback.
pub(crate) struct CpuFault(NonNull<c_void>);

impl World {
    fn setup(&self, way: Way<'_, Self>, out: &mut *mut RawMigration) -> c_int {
        let world = self.raw();
        // SAFETY: the world is alive, the `mm_struct` held, the fault that of the callback we are in.
        unsafe {
            match way {
                Way::ToDevice { mm, span, owner, devices } => {
                    let device = if devices { shim::SELECT_DEVICE } else { 0 };
                    let select = shim::SELECT_SYSTEM | device;
                    let (start, end) = (span.start, span.end);
                    shim::fp_migrate_setup(world, mm.raw(), start, end, owner, select, out)
                }
                Way::ToSystem { mm, span, owner } => {
                    let (start, end, select) = (span.start, span.end, shim::SELECT_DEVICE);
                    shim::fp_migrate_setup(world, mm.raw(), start, end, owner, select, out)
                }
                Way::CpuFault { fault, span, owner } => {
                    let (fault, start, end) = (fault.0.as_ptr(), span.start, span.end);
                    shim::fp_migrate_setup_fault(world, fault, start, end, owner, out)
                }
                Way::Evict { frame, count } => {
                    shim::fp_migrate_setup_frames(world, frame, count, out)
                }
            }
        }
    }
}

impl Mirror for World {
    type Mm = Mm;
    type Notifier = Notifier;
    type Migration = Migration;
    type Exclusive = Exclusive;
    type CpuFault = CpuFault;

    fn device(&self) -> u8 {
        self.number()
    }

    fn has_peers(&self) -> bool {
        *super::module_parameters::devices.value() > 1
    }

    fn mm_id(&self, mm: &Mm) -> u64 {
        mm.raw() as u64
    }

    fn vma(&self, mm: &Mm, addr: u64) -> Result<Vma, Errno> {
        mm.find(addr, false)
    }

    fn next_vma(&self, mm: &Mm, addr: u64) -> Result<Vma, Errno> {
        mm.find(addr, true)
    }

    fn notifier_insert(&self, mm: &Mm, span: Span, cookie: u64) -> Result<Notifier, Errno> {
        let mut new = core::ptr::null_mut();
        let (start, end) = (span.start, span.end);
        // SAFETY: the world is alive, the `mm_struct` held; `new` is written.
        check(unsafe {
            shim::fp_notifier_insert(self.raw(), mm.raw(), start, end, cookie, &mut new)
        })?;
        NonNull::new(new).map(Notifier).ok_or(Errno::NOMEM)
    }

    fn notifier_remove(&self, notifier: Notifier) {
        // SAFETY: inserted, and removed once.
        unsafe { shim::fp_notifier_remove(notifier.0.as_ptr()) }
    }

    fn read_begin(&self, notifier: &Notifier) -> u64 {
        // SAFETY: inserted.
        unsafe { shim::fp_read_begin(notifier.0.as_ptr()) }
    }

    fn read_retry(&self, notifier: &Notifier, seq: u64) -> bool {
        // SAFETY: inserted.
        unsafe { shim::fp_read_retry(notifier.0.as_ptr(), seq) }
    }

    fn range_fault(
        &self,
        mm: &Mm,
        notifier: &Notifier,
        seq: u64,
        span: Span,
        want: Want,
        pages: &mut [Pfn],
    ) -> Result<(), Errno> {
        if (pages.len() as u64) < (span.end - span.start) / super::world::PAGE {
            return Err(Errno::INVAL);
        }
        let trusting = *super::module_parameters::trust_hmm.value() != 0;
        let want =
            shim::Want { flags: want.default_flags, mask: want.mask, owner: want.owner, trusting };
        // SAFETY: the world is alive, the `mm_struct` held, the notifier inserted; `pages` has a word
        // for each page, and is transparent over u64.
        check(unsafe {
            shim::fp_range_fault(
                self.raw(),
                mm.raw(),
                notifier.0.as_ptr(),
                seq,
                span.start,
                span.end,
                &want,
                pages.as_mut_ptr().cast(),
            )
        })?;
        Ok(())
    }

    fn dma_map_page(&self, _: &Mm, page: Pfn, order: u32) -> Result<u64, Errno> {
        let mut addr = 0;
        let write = page.has(Pfn::WRITE);
        // SAFETY: the world is alive; the page was reported under a sequence that still holds.
        check(unsafe { shim::fp_mirror_map(self.raw(), page.number(), order, write, &mut addr) })?;
        Ok(addr)
    }

    fn dma_unmap_page(&self, addr: u64, order: u32) {
        // SAFETY: the world is alive; the shim checks the addresses.
        unsafe { shim::fp_mirror_unmap(self.raw(), addr, order) }
    }

    fn migrate_setup(&self, way: Way<'_, Self>) -> Result<Migration, Errno> {
        let mut new = core::ptr::null_mut();
        check(self.setup(way, &mut new))?;
        NonNull::new(new).map(Migration).ok_or(Errno::NOMEM)
    }

    fn migrate_span(&self, migration: &Migration) -> Span {
        let (mut start, mut count) = (0, 0);
        // SAFETY: under way; both are written.
        unsafe { shim::fp_migrate_span(migration.0.as_ptr(), &mut start, &mut count) };
        Span::new(start, start + count * super::world::PAGE)
    }

    fn migrate_source(&self, migration: &Migration, index: usize) -> Source {
        let mut found = shim::FoundSource::default();
        // SAFETY: under way; core stays within the span.
        unsafe { shim::fp_migrate_source(migration.0.as_ptr(), index as u64, &mut found) };
        match found.kind {
            shim::SOURCE_EMPTY => Source::Empty,
            shim::SOURCE_SYSTEM => Source::System { order: found.order },
            shim::SOURCE_DEVICE => Source::Device {
                device: found.device as u8,
                frame: found.frame,
                order: found.order,
            },
            _ => Source::Stays,
        }
    }

    fn migrate_target(
        &self,
        migration: &mut Migration,
        index: usize,
        target: Target,
    ) -> Result<(), Errno> {
        let (raw, index) = (migration.0.as_ptr(), index as u64);
        // SAFETY: under way; core stays within the span.
        check(unsafe {
            match target {
                Target::Device { frame, order } => {
                    shim::fp_migrate_to_device(raw, index, frame, order)
                }
                Target::System { order } => shim::fp_migrate_to_system(raw, index, order),
            }
        })?;
        Ok(())
    }

    fn migrate_copy(&self, migration: &mut Migration, index: usize) -> Result<(), Errno> {
        // SAFETY: under way; core stays within the span.
        unsafe { shim::fp_migrate_copy(migration.0.as_ptr(), index as u64) };
        Ok(())
    }

    fn migrate_keep(&self, migration: &mut Migration, index: usize) {
        // SAFETY: under way; core stays within the span.
        unsafe { shim::fp_migrate_keep(migration.0.as_ptr(), index as u64) }
    }

    fn migrate_commit(&self, migration: &mut Migration) {
        // SAFETY: under way.
        unsafe { shim::fp_migrate_commit(migration.0.as_ptr()) }
    }

    fn migrate_moved(&self, migration: &Migration, index: usize) -> bool {
        // SAFETY: under way; core stays within the span.
        unsafe { shim::fp_migrate_moved(migration.0.as_ptr(), index as u64) }
    }

    fn migrate_end(&self, migration: Migration) {
        drop(migration);
    }

    fn has_freed_frames(&self) -> bool {
        // SAFETY: the world is alive.
        unsafe { shim::fp_has_freed_frames(self.raw()) }
    }

    fn frames_freed(&self, each: &mut dyn FnMut(u64, u64)) {
        let (mut cursor, mut first, mut count) = (0, 0, 0);
        // SAFETY: the world is alive; all three are written.
        while unsafe { shim::fp_frames_freed(self.raw(), &mut cursor, &mut first, &mut count) } {
            each(first, count);
        }
    }

    fn make_exclusive(&self, mm: &Mm, addr: u64, owner: u64) -> Result<(Pfn, Exclusive), Errno> {
        let (mut page, mut folio) = (0, core::ptr::null_mut());
        // SAFETY: the world is alive, the `mm_struct` held; both are written.
        check(unsafe {
            shim::fp_make_exclusive(self.raw(), mm.raw(), addr, owner, &mut page, &mut folio)
        })?;
        let held = NonNull::new(folio).map(Exclusive).ok_or(Errno::BUSY)?;
        Ok((Pfn(page), held))
    }

    fn make_range_exclusive(
        &self,
        mm: &Mm,
        span: Span,
        owner: u64,
        mut each: &mut dyn FnMut(u64, Pfn) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let (world, start, end) = (self.raw(), span.start, span.end);
        let ctx = (&raw mut each).cast();
        // SAFETY: the world is alive, the `mm_struct` held; `ctx` is what `call_each` wants, used by
        // this call only.
        check(unsafe {
            shim::fp_make_range_exclusive(world, mm.raw(), start, end, owner, call_each, ctx)
        })?;
        Ok(())
    }
}

/// Calls the closure behind `ctx`.
///
/// # Safety
/// `ctx` points at a `&mut dyn FnMut(u64, Pfn) -> Result<(), Errno>` that nobody else uses meanwhile.
unsafe extern "C" fn call_each(ctx: *mut c_void, addr: u64, page: u64) -> c_int {
    // SAFETY: as the caller guarantees.
    let each = unsafe { &mut *ctx.cast::<&mut dyn FnMut(u64, Pfn) -> Result<(), Errno>>() };
    match each(addr, Pfn(page)) {
        Ok(()) => 0,
        Err(errno) => -errno.0,
    }
}

/// `enum mmu_notifier_event`.
fn event(number: u32) -> Event {
    match number {
        0 => Event::Unmap,
        2 => Event::ProtectionVma,
        3 => Event::ProtectionPage,
        4 => Event::SoftDirty,
        5 => Event::Release,
        6 => Event::Migrate,
        7 => Event::Exclusive,
        // Also whatever a later kernel adds: pages change.
        _ => Event::Clear,
    }
}

/// Translations of a mirrored range end.
///
/// # Safety
/// `driver` is the listener that was attached to the notifier's world, `inv` valid.
#[no_mangle]
unsafe extern "C" fn fp_rust_invalidate(
    driver: *const c_void,
    cookie: u64,
    inv: *const shim::RawInvalidation,
) -> bool {
    // SAFETY: as the caller guarantees.
    let (driver, raw) = unsafe { (&*driver.cast::<Listener>(), &*inv) };
    let invalidation = Invalidation {
        span: Span::new(raw.start, raw.end),
        event: event(raw.event),
        owner: raw.owner,
        blockable: raw.blockable,
    };
    driver.invalidate(cookie, &invalidation, &mut || {
        // SAFETY: valid during the callback, which core calls this in, under its lock.
        unsafe { shim::fp_invalidation_set_seq(inv) }
    })
}

/// The CPU touched device memory. Returns 0 or a negative errno.
///
/// # Safety
/// `driver` is the listener that was attached to the world, `vmf` a fault on one of its frames.
#[no_mangle]
unsafe extern "C" fn fp_rust_cpu_fault(
    driver: *const c_void,
    vmf: *mut c_void,
    addr: u64,
    frame: u64,
) -> c_int {
    let (Some(vmf), false) = (NonNull::new(vmf), driver.is_null()) else {
        return -Errno::FAULT.0;
    };
    // SAFETY: as the caller guarantees.
    let driver = unsafe { &*driver.cast::<Listener>() };
    match driver.cpu_fault(&mut CpuFault(vmf), addr, frame) {
        Ok(()) => 0,
        Err(errno) => -errno.0,
    }
}
