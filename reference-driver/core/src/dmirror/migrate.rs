//! Moving the pages of a dmirror device: there, back, back because the CPU touched them, all of them.
//!
//! Owns which pages move and in which sizes. Large pages move whole where a large place is to be
//! had, else page by page. Translations end by the world's notifications; those to device memory are
//! made anew from what the address space has afterwards.

use fencepost_uapi::Errno;

use super::frames::LARGE;
use super::{batches, Dmirror, File, Mirrored};
use crate::gpuva::Span;
use crate::host::mirror::{Pfn, Source, Target, Way};
use crate::host::Host;
use crate::pgtable::{SIZE_2M, SIZE_4K};

/// Order of a large page.
const LARGE_ORDER: u32 = LARGE.trailing_zeros();

impl<H: Host> Dmirror<H> {
    /// Calls `one` for the parts of a range that lie in one mapping and one batch each.
    ///
    /// # Errors
    /// `EINVAL`: no mapping, or one that cannot be read; those of `one`. Parts before stay done.
    fn each_part(
        &self,
        file: &File<H>,
        span: Span,
        mut one: impl FnMut(Span) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut addr = span.start;
        while addr < span.end {
            let vma = self.host.vma(&file.mm, addr).map_err(|_| Errno::INVAL)?;
            if !vma.read {
                return Err(Errno::INVAL);
            }
            let rest = Span::new(addr, span.end.min(vma.span.end));
            let part = batches(rest).next().unwrap_or(rest);
            one(part)?;
            addr = part.end;
        }
        Ok(())
    }

    /// Moves system memory and what is empty to the device, and mirrors what is there then.
    pub(super) fn migrate_to_device(&self, file: &File<H>, span: Span) -> Result<(), Errno> {
        self.each_part(file, span, |part| self.part_to_device(file, part))?;
        // Without asking for anything: no page is faulted in, only those of the device are wanted.
        self.mirror(file, span, 0, |page| page.has(Pfn::VALID | Pfn::DEVICE))
    }

    fn part_to_device(&self, file: &File<H>, span: Span) -> Result<(), Errno> {
        let way = Way::ToDevice { mm: &file.mm, span, owner: self.owner(), devices: false };
        let mut migration = self.host.migrate_setup(way)?;
        let count = (span.len() / SIZE_4K) as usize;
        let mut index = 0;
        while index < count {
            let whole = self.is_large(&migration, index, count, span);
            let moved = whole && self.large_to_device(&file.mirrored, &mut migration, index);
            let pages = if whole { LARGE as usize } else { 1 };
            for page in index..index + pages {
                if !moved {
                    // A failure that was asked for has been used up by the large one.
                    let fails = !whole && file.mirrored.take_fail_alloc();
                    self.page_to_device(&file.mirrored, &mut migration, page, fails);
                }
            }
            index += pages;
        }
        self.host.migrate_commit(&mut migration);
        self.host.migrate_end(migration);
        Ok(())
    }

    /// Whether what begins at an index may move as a large page.
    fn is_large(&self, migration: &H::Migration, index: usize, count: usize, span: Span) -> bool {
        let addr = span.start + index as u64 * SIZE_4K;
        if addr % SIZE_2M != 0 || count - index < LARGE as usize {
            return false;
        }
        let source = |page| self.host.migrate_source(migration, page);
        match source(index) {
            Source::System { order } => order == LARGE_ORDER,
            Source::Empty => {
                (index..index + LARGE as usize).all(|page| source(page) == Source::Empty)
            }
            _ => false,
        }
    }

    fn large_to_device(
        &self,
        mirrored: &Mirrored,
        migration: &mut H::Migration,
        index: usize,
    ) -> bool {
        if mirrored.take_fail_alloc() {
            return false;
        }
        let Some(frame) = self.with_frames(|frames| frames.alloc_large(mirrored.slot)) else {
            return false;
        };
        let target = Target::Device { frame, order: LARGE_ORDER };
        if self.host.migrate_target(migration, index, target).is_err() {
            return false;
        }
        // The target may have become one of single pages.
        for page in index..index + LARGE as usize {
            if self.host.migrate_copy(migration, page).is_err() {
                self.host.migrate_keep(migration, page);
            }
        }
        true
    }

    fn page_to_device(
        &self,
        mirrored: &Mirrored,
        migration: &mut H::Migration,
        index: usize,
        fails: bool,
    ) {
        let source = self.host.migrate_source(migration, index);
        if fails || !matches!(source, Source::System { .. } | Source::Empty) {
            return;
        }
        let Some(frame) = self.with_frames(|frames| frames.alloc(mirrored.slot)) else { return };
        let target = Target::Device { frame, order: 0 };
        if self.host.migrate_target(migration, index, target).is_ok()
            && self.host.migrate_copy(migration, index).is_err()
        {
            self.host.migrate_keep(migration, index);
        }
    }

    /// The allocator, with what came back meanwhile.
    fn with_frames<T>(&self, f: impl FnOnce(&mut super::Frames) -> T) -> T {
        let mut frames = self.frames.lock();
        self.host.frames_freed(&mut |first, count| frames.free(first, count));
        f(&mut frames)
    }

    /// Moves device memory back; gives the number of pages.
    pub(super) fn migrate_to_system(&self, file: &File<H>, span: Span) -> Result<u64, Errno> {
        let mut moved = 0;
        self.each_part(file, span, |part| {
            let way = Way::ToSystem { mm: &file.mm, span: part, owner: self.owner() };
            match self.to_system(way, Some(&file.mirrored)) {
                Ok(more) => moved += more,
                Err(Errno::AGAIN) => return Err(Errno::NOMEM),
                Err(errno) => return Err(errno),
            }
            Ok(())
        })?;
        Ok(moved)
    }

    /// Moves everything that `way` has to system memory.
    ///
    /// # Errors
    /// `ENOMEM`, `EAGAIN` for an allocation that was to fail: nothing has moved; those of the setup.
    fn to_system(&self, way: Way<'_, H>, mirrored: Option<&Mirrored>) -> Result<u64, Errno> {
        let mut migration = self.host.migrate_setup(way)?;
        let count = (self.host.migrate_span(&migration).len() / SIZE_4K) as usize;
        let mut index = 0;
        let mut result = Ok(());
        while index < count && result.is_ok() {
            let Source::Device { order, .. } = self.host.migrate_source(&migration, index) else {
                index += 1;
                continue;
            };
            let pages = (1 << order).min(count - index);
            result = self.folio_to_system(&mut migration, index, order, pages, mirrored);
            index += pages;
        }
        if result.is_err() {
            (0..count).for_each(|index| self.host.migrate_keep(&mut migration, index));
        }
        self.host.migrate_commit(&mut migration);
        let moved = |index: &usize| self.host.migrate_moved(&migration, *index);
        let moved = (0..count).filter(moved).count() as u64;
        self.host.migrate_end(migration);
        result.map(|()| moved)
    }

    fn folio_to_system(
        &self,
        migration: &mut H::Migration,
        index: usize,
        order: u32,
        pages: usize,
        mirrored: Option<&Mirrored>,
    ) -> Result<(), Errno> {
        let fails = mirrored.is_some_and(Mirrored::take_fail_alloc);
        if fails && order == 0 {
            return Err(Errno::AGAIN);
        }
        let whole = Target::System { order };
        let as_one = !fails && self.host.migrate_target(migration, index, whole).is_ok();
        for page in index..index + pages {
            if !as_one {
                self.host.migrate_target(migration, page, Target::System { order: 0 })?;
            }
            if self.host.migrate_copy(migration, page).is_err() {
                self.host.migrate_keep(migration, page);
            }
        }
        Ok(())
    }

    /// The CPU touched device memory, see [`crate::driver::Driver::cpu_fault`]: what was given out as
    /// a large page comes back as one.
    ///
    /// # Errors
    /// Those of the move; after an allocation that was to fail the access is tried again.
    pub fn cpu_fault(&self, fault: &mut H::CpuFault, addr: u64, frame: u64) -> Result<(), Errno> {
        let given = self.frames.lock().owner(frame);
        let large = given.is_some_and(|(_, large)| large);
        let size = if large { SIZE_2M } else { SIZE_4K };
        let start = addr / size * size;
        let mirrored = given.and_then(|(slot, _)| self.file(slot.into()));
        let way =
            Way::CpuFault { fault, span: Span::new(start, start + size), owner: self.owner() };
        match self.to_system(way, mirrored.as_deref()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Moves all pages out of the device, as far as they move.
    pub(super) fn evict_all(&self) {
        let total = self.with_frames(|frames| frames.total());
        for frame in (0..total).step_by(LARGE as usize) {
            let used = self.frames.lock().is_used(frame);
            if used {
                // Without memory pages stay; they come back when the CPU touches them.
                let _ = self.to_system(Way::Evict { frame, count: LARGE }, None);
            }
        }
    }
}
