//! The dmirror personality: a device that answers the ioctls of the kernel's test_hmm.
//!
//! Owns the interface (`lib/test_hmm_uapi.h` of Linux 7.2) and what it means, over the same mirror
//! trait, page tables and GPU accesses as SVM. A device of its own, without DRM nodes: the worlds give
//! it character devices. Moving pages stands in `migrate`, the record in `record`.
//!
//! Where test_hmm leaves translations of other files of the same device alone when a page moves, this
//! one takes them away: every notification counts.

mod frames;
mod migrate;
pub mod record;
mod table;

use fencepost_uapi::Errno;

use crate::facade::{Arc, AtomicU64, Mutex, MutexGuard, Ordering, Rank, Vec};
use crate::gpuva::Span;
use crate::host::mirror::{Invalidation, Pfn, Want};
use crate::host::{Aperture, Host, Phys};
use crate::pgtable::{Need, Spares, Stock, SIZE_4K, VA_END};
use frames::Frames;
use record::{Command, Record};
use table::{Table, Tag};

/// Most files that are open at a time.
const MAX_FILES: u16 = 1024;
/// Pages that are faulted in together.
const BATCH: u64 = 512;
/// For how long a range is tried again that others change all the time, in nanoseconds.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Most pages of one call.
const MAX_PAGES: u64 = 1 << 18;
/// A device as the owner of its memory, which it shares with no other.
#[must_use]
pub const fn owner(device: u8) -> u64 {
    0x646d_0000 + device as u64
}

/// Bit of [`record::Command::Flags`]: the next allocation fails.
const FAIL_ALLOC: u64 = 1;

/// What callbacks know of a file.
struct Mirrored {
    slot: u16,
    table: Mutex<Table>,
    flags: AtomicU64,
}

impl Mirrored {
    /// Whether an allocation is to fail; once.
    fn take_fail_alloc(&self) -> bool {
        self.flags.fetch_and(!FAIL_ALLOC, Ordering::Relaxed) & FAIL_ALLOC != 0
    }
}

/// An open file.
pub struct File<H: Host> {
    mm: H::Mm,
    notifier: H::Notifier,
    mirrored: Arc<Mirrored>,
    /// Nodes of page tables that are kept from call to call.
    spares: Mutex<Spares>,
    /// A buffer that is kept from call to call.
    buffer: Mutex<Vec<u8>>,
}

impl<H: Host> File<H> {
    /// Calls `f` with room for the pages of a range. What is in there is that of an earlier call.
    fn with_buffer<T>(
        &self,
        span: Span,
        f: impl FnOnce(&mut [u8]) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if span.len() / SIZE_4K > MAX_PAGES {
            return Err(Errno::NOMEM);
        }
        let len = span.len() as usize;
        let mut buf = core::mem::take(&mut *self.buffer.lock());
        if buf.len() < len {
            // Not what is there made longer, which would copy it.
            buf = Vec::new();
            buf.resize(len, 0)?;
        }
        let result = f(&mut buf[..len]);
        if buf.len() as u64 <= BATCH * SIZE_4K {
            let other = core::mem::replace(&mut *self.buffer.lock(), buf);
            drop(other);
        }
        result
    }
}

/// A device.
pub struct Dmirror<H: Host> {
    host: H,
    frames: Mutex<Frames>,
    files: Mutex<Vec<Option<Arc<Mirrored>>>>,
}

impl<H: Host> Dmirror<H> {
    /// A device with so much device memory, of which whole 2 MiB are used.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(host: H, vram_bytes: u64) -> Result<Self, Errno> {
        let mut files = Vec::new();
        files.resize(MAX_FILES.into(), None)?;
        Ok(Dmirror {
            host,
            frames: Mutex::new(Rank::Vram, Frames::new(vram_bytes / SIZE_4K)?)?,
            files: Mutex::new(Rank::Leaf, files)?,
        })
    }

    /// Its world.
    #[must_use]
    pub fn host(&self) -> &H {
        &self.host
    }

    fn owner(&self) -> u64 {
        owner(self.host.device())
    }

    /// `open(2)`: mirrors the caller's address space.
    ///
    /// # Errors
    /// `ENOMEM`; `EMFILE`; `EOPNOTSUPP`: the world cannot mirror.
    pub fn open(&self, task: H::Task) -> Result<File<H>, Errno> {
        let mm = self.host.mm(task)?;
        let spares = Mutex::new(Rank::Vm, Spares::default())?;
        let buffer = Mutex::new(Rank::Leaf, Vec::new())?;
        let mirrored = self.enter()?;
        let cookie = u64::from(mirrored.slot);
        match self.host.notifier_insert(&mm, Span::new(0, VA_END), cookie) {
            Ok(notifier) => Ok(File { mm, notifier, mirrored, spares, buffer }),
            Err(errno) => {
                self.leave(&mirrored);
                Err(errno)
            }
        }
    }

    /// A new file with its place in the table.
    fn enter(&self) -> Result<Arc<Mirrored>, Errno> {
        for slot in 0..MAX_FILES {
            if self.files.lock()[usize::from(slot)].is_some() {
                continue;
            }
            let table = Mutex::new(Rank::PageTable, Table::new()?)?;
            let new = Arc::new(Mirrored { slot, table, flags: AtomicU64::new(0) })?;
            let mut files = self.files.lock();
            let place = &mut files[usize::from(slot)];
            if place.is_none() {
                *place = Some(new.clone());
                return Ok(new);
            }
        }
        Err(Errno::MFILE)
    }

    fn leave(&self, mirrored: &Mirrored) {
        let old = self.files.lock()[usize::from(mirrored.slot)].take();
        drop(old);
    }

    fn file(&self, slot: u64) -> Option<Arc<Mirrored>> {
        self.files.lock().get(slot as usize)?.clone()
    }

    /// The last reference to a file is gone: its mirror ends, and all pages leave the device, those
    /// of other files too.
    pub fn close(&self, file: File<H>) {
        let File { notifier, mirrored, .. } = file;
        self.host.notifier_remove(notifier);
        self.evict_all();
        let mut stock = Stock::default();
        mirrored.table.lock().erase(&self.host, Span::new(0, VA_END), &mut stock);
        self.leave(&mirrored);
    }

    /// Translations of a mirrored address space end, see [`crate::driver::Driver::invalidate`].
    pub fn invalidate(&self, cookie: u64, inv: &Invalidation, set_seq: &mut dyn FnMut()) -> bool {
        let Some(mirrored) = self.file(cookie) else {
            set_seq();
            return true;
        };
        let mut stock = Stock::default();
        let table = match inv.blockable {
            true => Some(mirrored.table.lock()),
            false => mirrored.table.try_lock(),
        };
        let Some(mut table) = table else { return false };
        set_seq();
        table.erase(&self.host, inv.span, &mut stock);
        drop(table);
        true
    }

    /// `ioctl(2)`.
    ///
    /// # Errors
    /// As `test_hmm`: `EFAULT`, `EINVAL`, `EPERM`, `ENOENT`, `EBUSY`, `ENOMEM`.
    pub fn ioctl(
        &self,
        file: &File<H>,
        task: H::Task,
        request: u32,
        arg: u64,
    ) -> Result<i64, Errno> {
        let mut bytes = [0; Record::SIZE];
        self.host.copy_from_user(task, arg, &mut bytes)?;
        let mut record = Record::decode(&bytes);
        let span = record.span()?;
        (record.cpages, record.faults) = (0, 0);
        match Command::from_request(request).ok_or(Errno::INVAL)? {
            Command::Read => self.read(file, task, span, &mut record)?,
            Command::Write => self.write(file, task, span, &mut record)?,
            Command::MigrateToDevice => {
                self.migrate_to_device(file, span)?;
                self.read_mirror(file, task, span, &mut record)?;
            }
            Command::MigrateToSystem => record.cpages = self.migrate_to_system(file, span)?,
            Command::Snapshot => self.snapshot(file, task, span, &mut record)?,
            Command::Exclusive => {
                self.exclusive(file, span)?;
                self.read_mirror(file, task, span, &mut record)?;
            }
            Command::CheckExclusive => Self::check_exclusive(file, span)?,
            Command::Release => self.evict_all(),
            Command::Flags => file.mirrored.flags.store(record.npages, Ordering::Relaxed),
        }
        self.host.copy_to_user(task, arg, &record.encode())?;
        Ok(0)
    }

    fn read(
        &self,
        file: &File<H>,
        task: H::Task,
        span: Span,
        record: &mut Record,
    ) -> Result<(), Errno> {
        file.with_buffer(span, |buf| {
            loop {
                let start = span.start + record.cpages * SIZE_4K;
                let rest = &mut buf[(start - span.start) as usize..];
                let read = file.mirrored.table.lock().read(&self.host, start, rest);
                record.cpages += read.map_err(|_| Errno::IO)?;
                if record.cpages == record.npages {
                    break;
                }
                let rest = Span::new(span.start + record.cpages * SIZE_4K, span.end);
                self.fault(file, rest, false)?;
                record.faults += 1;
            }
            self.host.copy_to_user(task, record.ptr, buf)
        })
    }

    fn write(
        &self,
        file: &File<H>,
        task: H::Task,
        span: Span,
        record: &mut Record,
    ) -> Result<(), Errno> {
        file.with_buffer(span, |buf| {
            self.host.copy_from_user(task, record.ptr, buf)?;
            loop {
                let start = span.start + record.cpages * SIZE_4K;
                let rest = &buf[(start - span.start) as usize..];
                let written = file.mirrored.table.lock().write(&self.host, start, rest);
                record.cpages += written.map_err(|_| Errno::IO)?;
                if record.cpages == record.npages {
                    return Ok(());
                }
                let rest = Span::new(span.start + record.cpages * SIZE_4K, span.end);
                self.fault(file, rest, true)?;
                record.faults += 1;
            }
        })
    }

    /// Reads what is mirrored; nothing is faulted in.
    fn read_mirror(
        &self,
        file: &File<H>,
        task: H::Task,
        span: Span,
        record: &mut Record,
    ) -> Result<(), Errno> {
        file.with_buffer(span, |buf| {
            let read = file.mirrored.table.lock().read(&self.host, span.start, buf);
            record.cpages = read.map_err(|_| Errno::IO)?;
            if record.cpages < record.npages {
                return Err(Errno::NOENT);
            }
            self.host.copy_to_user(task, record.ptr, buf)
        })
    }

    /// Asks the address space for pages under a sequence that holds, and calls `found` with them
    /// and the table, whose lock is held.
    fn pages(
        &self,
        file: &File<H>,
        span: Span,
        flags: u64,
        pages: &mut [Pfn],
        found: impl FnOnce(&[Pfn], MutexGuard<'_, Table>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let want = Want { default_flags: flags, mask: 0, owner: self.owner() };
        let host = &self.host;
        let until = host.now_ns() + PATIENCE_NS;
        loop {
            if host.now_ns() > until {
                return Err(Errno::BUSY);
            }
            let seq = host.read_begin(&file.notifier);
            match host.range_fault(&file.mm, &file.notifier, seq, span, want, pages) {
                Err(Errno::BUSY) => continue,
                other => other?,
            }
            let table = file.mirrored.table.lock();
            if !host.read_retry(&file.notifier, seq) {
                return found(pages, table);
            }
        }
    }

    /// Faults a range in and mirrors it.
    fn fault(&self, file: &File<H>, span: Span, write: bool) -> Result<(), Errno> {
        let flags = if write { Pfn::VALID | Pfn::WRITE } else { Pfn::VALID };
        self.mirror(file, span, flags, |page| page.has(flags))
    }

    /// Mirrors the pages of a range which `choose` wants; with flags it must want all.
    fn mirror(
        &self,
        file: &File<H>,
        span: Span,
        flags: u64,
        choose: impl Fn(Pfn) -> bool,
    ) -> Result<(), Errno> {
        let most = (span.len() / SIZE_4K).min(BATCH) as usize;
        let (mut pages, mut room) = (Vec::new(), Vec::with_capacity(most)?);
        pages.resize(most, Pfn::default())?;
        for batch in batches(span) {
            if batch.end > VA_END {
                return Err(Errno::FAULT);
            }
            let mut stock = file.spares.lock().draw(Need::map(batch))?;
            let count = (batch.len() / SIZE_4K) as usize;
            let done = self.pages(file, batch, flags, &mut pages[..count], |pages, mut table| {
                if flags != 0 && !pages.iter().all(|page| choose(*page)) {
                    return Err(Errno::FAULT);
                }
                let mut addr = batch.start;
                for group in pages.chunk_by(|a, b| kind(&choose, *a) == kind(&choose, *b)) {
                    if let Some(tag) = kind(&choose, group[0]) {
                        self.show(file, &mut table, addr, group, tag, &mut stock, &mut room)?;
                    }
                    addr += group.len() as u64 * SIZE_4K;
                }
                Ok(())
            });
            file.spares.lock().give_back(stock);
            done?;
        }
        Ok(())
    }

    /// Mirrors pages from an address on; `room` holds as many.
    #[expect(clippy::too_many_arguments, reason = "what one call has at hand")]
    fn show(
        &self,
        file: &File<H>,
        table: &mut Table,
        addr: u64,
        pages: &[Pfn],
        tag: Tag,
        stock: &mut Stock,
        room: &mut Vec<Phys>,
    ) -> Result<(), Errno> {
        room.clear();
        let mut shown = Ok(());
        for page in pages {
            match self.phys(file, *page) {
                Ok(phys) => {
                    let fits = room.push_within_capacity(phys).is_ok();
                    debug_assert!(fits, "room for a batch");
                }
                Err(errno) => shown = Err(errno),
            }
        }
        if shown.is_ok() {
            shown = table.map(&self.host, addr, room, tag, stock).map_err(Errno::from);
        }
        if shown.is_err() {
            room.iter().for_each(|phys| table::release(&self.host, *phys));
        }
        shown
    }

    /// Where a page is for the device.
    fn phys(&self, file: &File<H>, page: Pfn) -> Result<Phys, Errno> {
        if page.has(Pfn::DEVICE) {
            return Ok(Phys { aperture: Aperture::Vram, addr: page.number() * SIZE_4K });
        }
        let addr = self.host.dma_map_page(&file.mm, page, 0)?;
        Ok(Phys { aperture: Aperture::System, addr })
    }

    fn snapshot(
        &self,
        file: &File<H>,
        task: H::Task,
        span: Span,
        record: &mut Record,
    ) -> Result<(), Errno> {
        let mut pages = Vec::new();
        pages.resize((span.len() / SIZE_4K).min(BATCH) as usize, Pfn::default())?;
        let mut shown = Vec::new();
        shown.resize(pages.len(), 0)?;
        for batch in batches(span) {
            let count = (batch.len() / SIZE_4K) as usize;
            self.pages(file, batch, 0, &mut pages[..count], |pages, _| {
                for (byte, page) in shown.iter_mut().zip(pages) {
                    *byte = record::permission(*page);
                }
                Ok(())
            })?;
            self.host.copy_to_user(task, record.ptr + record.cpages, &shown[..count])?;
            record.cpages += count as u64;
        }
        Ok(())
    }

    fn exclusive(&self, file: &File<H>, span: Span) -> Result<(), Errno> {
        let mut room = Vec::with_capacity(1)?;
        for batch in batches(span.clip(Span::new(0, VA_END))) {
            let mut stock = file.spares.lock().draw(Need::map(batch))?;
            // Nobody in particular, as test_hmm: our own translations end as well.
            let done = self.host.make_range_exclusive(&file.mm, batch, 0, &mut |addr, page| {
                let mut table = file.mirrored.table.lock();
                let (pages, tag) = (core::slice::from_ref(&page), Tag::Atomic);
                self.show(file, &mut table, addr, pages, tag, &mut stock, &mut room)
            });
            file.spares.lock().give_back(stock);
            done?;
        }
        Ok(())
    }

    /// `EPERM` when a page of the range is exclusive still.
    fn check_exclusive(file: &File<H>, span: Span) -> Result<(), Errno> {
        match file.mirrored.table.lock().has_exclusive(span) {
            true => Err(Errno::PERM),
            false => Ok(()),
        }
    }
}

/// How a page is mirrored, if it is chosen.
fn kind(choose: &impl Fn(Pfn) -> bool, page: Pfn) -> Option<Tag> {
    let tag = if page.has(Pfn::WRITE) { Tag::Write } else { Tag::Read };
    choose(page).then_some(tag)
}

/// The range in parts of [`BATCH`] pages at most.
fn batches(span: Span) -> impl Iterator<Item = Span> {
    let step = BATCH * SIZE_4K;
    (span.start..span.end)
        .step_by(step as usize)
        .map(move |start| Span::new(start, span.end.min(start.saturating_add(step))))
}
