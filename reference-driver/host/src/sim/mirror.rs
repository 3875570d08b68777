//! [`Mirror`] over the simulated address spaces.
//!
//! Owns notifiers and the walk of [`Mirror::range_fault`].

use fencepost_core::gpuva::Span;
use fencepost_core::host::mirror::{Mirror, Pfn, Source, Target, Vma, Want, Way};
use fencepost_core::svm::OWNER;
use fencepost_uapi::Errno;
use fencepost_uapi::fencepost::PAGE_SIZE;

use super::host::SimHost;
use super::migrate::{SimExclusive, SimMigration};
use super::mm::{Kind, Notifier, Pte};

/// An address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimMm(pub(super) usize);

/// A notifier that is inserted.
pub struct SimNotifier {
    id: u64,
}

/// A fault of the CPU on device memory.
pub struct CpuFault {
    pub(super) mm: usize,
    pub(super) addr: u64,
}

/// What a page of a walk came to.
enum Step {
    Page(Pfn),
    /// Something changed, or must wait.
    Busy,
    Device {
        device: u8,
        frame: u64,
    },
    Exclusive,
    /// The CPU must fault on it.
    Touch,
}

impl SimHost {
    fn is_stale(&self, id: u64, seq: u64) -> bool {
        let machine = self.cpu().machine();
        let notifier = &machine.notifiers[&id];
        let active = &machine.spaces[notifier.mm].active;
        notifier.seq != seq || active.iter().any(|span| span.overlaps(notifier.span))
    }

    fn walk(&self, mm: usize, addr: u64, flags: u64, want: Want) -> Result<Step, Errno> {
        let machine = self.cpu().machine();
        let fault = flags & Pfn::VALID != 0;
        let write = flags & Pfn::WRITE != 0;
        let area = machine.area(mm, addr).map(|(_, area)| area);
        let Some(area) = area.filter(|area| area.read && area.kind != Kind::Device) else {
            return if fault { Err(Errno::FAULT) } else { Ok(Step::Page(Pfn(Pfn::ERROR))) };
        };
        if write && !area.write {
            return Err(Errno::PERM);
        }
        let number = addr / PAGE_SIZE;
        let order = machine.block_of(mm, number).map_or(0, |(_, order)| order);
        let pte = machine.spaces[mm].ptes.get(&number).copied();
        let valid = |write: bool| if write { Pfn::VALID | Pfn::WRITE } else { Pfn::VALID };
        Ok(match pte {
            Some(Pte::Moving) => Step::Busy,
            Some(Pte::Device { device, frame, write: may }) => {
                let known = want.owner == OWNER;
                match known && (may || !write) {
                    true => Step::Page(Pfn::new(valid(may) | Pfn::DEVICE, order, device, frame)),
                    false if fault => Step::Device { device, frame },
                    false => Step::Page(Pfn(0)),
                }
            }
            Some(Pte::Present { page, write: may }) if may || !write => {
                Step::Page(Pfn::new(valid(may), order, 0, page))
            }
            // A page of its own stands for the zero page in DMA.
            Some(Pte::Zero) if !write => Step::Page(Pfn::new(valid(false) | Pfn::ZERO, 0, 0, 0)),
            Some(Pte::Exclusive { .. }) if fault => Step::Exclusive,
            _ if fault => Step::Touch,
            _ => Step::Page(Pfn(0)),
        })
    }
}

impl Mirror for SimHost {
    type Mm = SimMm;
    type Notifier = SimNotifier;
    type Migration = SimMigration;
    type Exclusive = SimExclusive;
    type CpuFault = CpuFault;

    fn device(&self) -> u8 {
        self.number()
    }

    fn has_peers(&self) -> bool {
        self.cpu().next_device() > 1
    }

    fn mm_id(&self, mm: &SimMm) -> u64 {
        mm.0 as u64
    }

    fn vma(&self, mm: &SimMm, addr: u64) -> Result<Vma, Errno> {
        let vma = self.next_vma(mm, addr)?;
        if vma.span.start <= addr { Ok(vma) } else { Err(Errno::NOENT) }
    }

    fn next_vma(&self, mm: &SimMm, addr: u64) -> Result<Vma, Errno> {
        let mut machine = self.cpu().machine();
        let space = machine.space(mm.0);
        if space.ended {
            return Err(Errno::FAULT);
        }
        let next = space.areas.iter().find(|(_, area)| area.end > addr);
        let (start, area) = next.ok_or(Errno::NOENT)?;
        Ok(Vma {
            span: Span::new(*start, area.end),
            read: area.read,
            write: area.write,
            anonymous: matches!(area.kind, Kind::Anon(_)),
            hugetlb: area.kind == Kind::Hugetlb,
            device: area.kind == Kind::Device,
        })
    }

    fn notifier_insert(&self, mm: &SimMm, span: Span, cookie: u64) -> Result<SimNotifier, Errno> {
        let device = self.number();
        let mut machine = self.cpu().machine();
        let space = machine.space(mm.0);
        if space.ended {
            return Err(Errno::FAULT);
        }
        let seq = space.seq;
        machine.next_notifier += 1;
        let id = machine.next_notifier;
        machine.notifiers.insert(id, Notifier { mm: mm.0, device, span, cookie, seq });
        Ok(SimNotifier { id })
    }

    fn notifier_remove(&self, notifier: SimNotifier) {
        self.cpu().machine().notifiers.remove(&notifier.id).expect("it was inserted");
    }

    fn read_begin(&self, notifier: &SimNotifier) -> u64 {
        self.cpu().machine().notifiers[&notifier.id].seq
    }

    fn read_retry(&self, notifier: &SimNotifier, seq: u64) -> bool {
        self.is_stale(notifier.id, seq)
    }

    fn range_fault(
        &self,
        mm: &SimMm,
        notifier: &SimNotifier,
        seq: u64,
        span: Span,
        want: Want,
        pages: &mut [Pfn],
    ) -> Result<(), Errno> {
        if self.cpu().machine().space(mm.0).ended {
            return Err(Errno::FAULT);
        }
        for (at, page) in pages.iter_mut().enumerate() {
            let addr = span.start + at as u64 * PAGE_SIZE;
            let flags = want.default_flags | page.0 & want.mask;
            loop {
                if self.is_stale(notifier.id, seq) {
                    return Err(Errno::BUSY);
                }
                match self.walk(mm.0, addr, flags, want)? {
                    Step::Page(found) => {
                        *page = found;
                        break;
                    }
                    Step::Busy => return Err(Errno::BUSY),
                    Step::Device { device, frame } => {
                        self.device_fault(mm.0, addr, device, frame)?;
                    }
                    Step::Exclusive => self.revoke(mm.0, addr),
                    Step::Touch => self.cpu_touch(mm.0, addr, flags & Pfn::WRITE != 0)?,
                }
            }
        }
        Ok(())
    }

    fn dma_map_page(&self, _: &SimMm, page: Pfn, order: u32) -> Result<u64, Errno> {
        let mut machine = self.cpu().machine();
        let number = match page.has(Pfn::ZERO) {
            true => machine.new_page(),
            false => page.number(),
        };
        Ok(machine.dma_map(number, order))
    }

    fn dma_unmap_page(&self, addr: u64, order: u32) {
        self.cpu().machine().dma_unmap(addr, order);
    }

    fn migrate_setup(&self, way: Way<'_, Self>) -> Result<SimMigration, Errno> {
        self.setup(way)
    }

    fn migrate_span(&self, migration: &SimMigration) -> Span {
        Self::span_of(migration)
    }

    fn migrate_source(&self, migration: &SimMigration, index: usize) -> Source {
        Self::source_of(migration, index)
    }

    fn migrate_target(
        &self,
        migration: &mut SimMigration,
        index: usize,
        target: Target,
    ) -> Result<(), Errno> {
        self.give_target(migration, index, target)
    }

    fn migrate_copy(&self, migration: &mut SimMigration, index: usize) -> Result<(), Errno> {
        self.copy(migration, index);
        Ok(())
    }

    fn migrate_keep(&self, migration: &mut SimMigration, index: usize) {
        self.keep(migration, index);
    }

    fn migrate_commit(&self, migration: &mut SimMigration) {
        self.commit(migration);
    }

    fn migrate_moved(&self, migration: &SimMigration, index: usize) -> bool {
        Self::has_moved(migration, index)
    }

    fn migrate_end(&self, migration: SimMigration) {
        self.finish(migration);
    }

    fn has_freed_frames(&self) -> bool {
        self.has_freed()
    }

    fn frames_freed(&self, each: &mut dyn FnMut(u64, u64)) {
        for frame in self.take_freed() {
            each(frame, 1);
        }
    }

    fn make_exclusive(
        &self,
        mm: &SimMm,
        addr: u64,
        owner: u64,
    ) -> Result<(Pfn, SimExclusive), Errno> {
        self.exclusive(mm.0, addr, owner)
    }
}
