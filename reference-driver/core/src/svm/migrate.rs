//! Moving pages between system and device memory.
//!
//! Owns every way: there by call, prefetch and attribute, all or nothing and best effort; back by call,
//! because the CPU touched a page, and to make room. The world does it in steps; between setup and end
//! nothing else is asked of it, so that room is made before. Page tables follow by the invalidations that
//! the world reports.

use fencepost_uapi::fencepost::{INJECT_COPY, INJECT_MIGRATE, PAGE_SIZE, SVM_POLICY_ALL};
use fencepost_uapi::Errno;

use super::bits::Bits;
use super::devmem::{self, Failures, NewChunk, Reserved};
use super::room;
use super::{Inside, OWNER};
use crate::counters::Counter;
use crate::debug::delay::Point;
use crate::device::Device;
use crate::facade::Vec;
use crate::gpuva::Span;
use crate::host::mirror::{Source, Target, Way};
use crate::host::Host;
use crate::pgtable::SIZE_2M;

/// Order of the largest block: 2 MiB.
const MAX_ORDER: u32 = 9;
/// How often a chunk is tried to be evicted.
const EVICT_TRIES: u32 = 2;

/// The part of a range that is moved at once: up to the next 2 MiB.
fn pieces(part: Span) -> impl Iterator<Item = Span> {
    let mut at = part.start;
    core::iter::from_fn(move || {
        let end = ((at | (SIZE_2M - 1)) + 1).min(part.end);
        let piece = Span::new(at, end);
        at = end;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A block of frames for pages of a piece.
struct Block {
    /// Index of the first page.
    first: usize,
    order: u32,
    reserved: Reserved,
}

/// What became of the pages of a piece.
struct Fate {
    /// Index and order of those with a target.
    targets: Vec<(usize, u32)>,
    /// Pages whose frames went to the migration.
    handed: Bits,
    /// Of these, pages that come from another device.
    across: Bits,
    /// Why not all of them move.
    failed: Option<Errno>,
}

/// What is to become of the folio at an index.
enum Choice {
    /// It moves, if there is a place for it.
    Move {
        /// Its order.
        order: u32,
        /// It comes from another device.
        across: bool,
    },
    /// It stays.
    Stay {
        /// Its order.
        order: u32,
        /// Why; `None`: it is there already.
        why: Option<Errno>,
    },
}

impl Fate {
    /// A folio goes to frames that are the migration's from now on.
    fn hand(&mut self, at: usize, order: u32, across: bool) {
        for page in at..at + (1 << order) {
            self.handed.put(page, true);
        }
        self.across.put(at, across);
        let fits = self.targets.push_within_capacity((at, order)).is_ok();
        debug_assert!(fits, "one for each page at most");
    }

    /// The pages that have moved, and how many of them came from another device.
    fn count_moved(&mut self, has_moved: impl Fn(usize) -> bool) -> (u64, u64) {
        let (mut moved, mut across) = (0, 0);
        for (at, order) in &self.targets {
            match has_moved(*at) {
                true => {
                    moved += 1 << order;
                    across += if self.across.has(*at) { 1 << order } else { 0 };
                }
                false => self.failed = self.failed.or(Some(Errno::BUSY)),
            }
        }
        (moved, across)
    }
}

impl<H: Host> Inside<'_, H> {
    fn failures(&self) -> Failures {
        let of = |kind| self.svm.file.injection(kind).clone();
        Failures { copy: of(INJECT_COPY), memory: of(INJECT_MIGRATE) }
    }

    /// Moves pages of private anonymous memory to device memory, as far as they can. Returns how many
    /// moved.
    ///
    /// # Errors
    /// `EFAULT`: the address space has ended; `EINTR`.
    pub fn to_device(&self, span: Span) -> Result<u64, Errno> {
        let mut moved = 0;
        self.each_piece(span, |piece| match self.piece_to_device(piece, false) {
            Ok(count) => {
                moved += count;
                Ok(())
            }
            Err(Errno::INTR) => Err(Errno::INTR),
            Err(_) => Ok(()),
        })?;
        Ok(moved)
    }

    /// Moves all pages to device memory, or none. Returns how many moved.
    ///
    /// # Errors
    /// As documented with `SvmMigrate`.
    pub fn all_to_device(&self, span: Span) -> Result<u64, Errno> {
        self.all_or_none(span, |piece| self.piece_to_device(piece, true))
    }

    /// Moves all pages of device memory to system memory, or none. Returns how many moved.
    ///
    /// # Errors
    /// As documented with `SvmMigrate`.
    pub fn all_to_system(&self, span: Span) -> Result<u64, Errno> {
        self.all_or_none(span, |piece| self.piece_to_system(piece))
    }

    /// Moves the pieces of a span; when one fails, what was moved goes back to where it was.
    fn all_or_none(
        &self,
        span: Span,
        move_piece: impl Fn(Span) -> Result<u64, Errno>,
    ) -> Result<u64, Errno> {
        self.check_vma(span)?;
        let before = self.on_device(span)?;
        let mut moved = 0;
        for piece in pieces(span) {
            moved += move_piece(piece).inspect_err(|_| self.put_back(span, &before))?;
        }
        Ok(moved)
    }

    /// Lets these parts of a span be on this device and the rest be elsewhere, as far as that is
    /// possible. All of the span: to make room, pages may have left that nobody asked to.
    fn put_back(&self, span: Span, on_device: &[Span]) {
        let mut at = span.start;
        for part in on_device {
            let _ = self.bring_back(Span::new(at, part.start), Whose::Ours);
            at = part.end;
        }
        let _ = self.bring_back(Span::new(at, span.end), Whose::Ours);
        for part in on_device {
            let _ = self.to_device(*part);
        }
    }

    /// Checks that all of a span can move together.
    ///
    /// # Errors
    /// `EINVAL`: not within one mapping; `ENOENT`: nothing mapped; `EBUSY`: not private anonymous memory;
    /// `EFAULT`: the address space has ended.
    pub fn check_vma(&self, span: Span) -> Result<(), Errno> {
        let vma = self.dev().host.vma(&self.svm.mm, span.start)?;
        if !vma.span.contains(span) {
            return Err(Errno::INVAL);
        }
        match vma.anonymous && !vma.hugetlb {
            true => Ok(()),
            false => Err(Errno::BUSY),
        }
    }

    /// Moves pages of device memory to system memory. Returns how many moved.
    ///
    /// # Errors
    /// `EFAULT`: the address space has ended; `EINTR`.
    pub fn to_system(&self, span: Span) -> Result<u64, Errno> {
        self.bring_back(span, Whose::Anyones)
    }

    fn bring_back(&self, span: Span, whose: Whose) -> Result<u64, Errno> {
        let dev = self.dev();
        let mut moved = 0;
        self.each_piece(span, |piece| {
            let way = Way::ToSystem { mm: &self.svm.mm, span: piece, owner: OWNER };
            match dev.host.migrate_setup(way) {
                Ok(migration) => {
                    let done = back(dev, migration, &self.failures(), Watched::Nothing, whose);
                    moved += done.moved;
                }
                Err(Errno::INTR) => return Err(Errno::INTR),
                Err(_) => {}
            }
            Ok(())
        })?;
        devmem::drain(dev);
        Ok(moved)
    }

    /// All of a piece to system memory; with an error some of it may have gone.
    fn piece_to_system(&self, piece: Span) -> Result<u64, Errno> {
        let dev = self.dev();
        let way = Way::ToSystem { mm: &self.svm.mm, span: piece, owner: OWNER };
        let migration = dev.host.migrate_setup(way)?;
        let done = back(dev, migration, &self.failures(), Watched::All, Whose::Anyones);
        devmem::drain(dev);
        match done.failed {
            Some(errno) => Err(errno),
            None if self.any_device(piece)? => Err(Errno::BUSY),
            None => Ok(done.moved),
        }
    }

    /// Calls `f` for the pieces of a span that can have device memory.
    fn each_piece(
        &self,
        span: Span,
        mut f: impl FnMut(Span) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut at = span.start;
        while at < span.end {
            let vma = match self.dev().host.next_vma(&self.svm.mm, at) {
                Err(Errno::NOENT) => break,
                vma => vma?,
            };
            let part = vma.span.clip(Span::new(at, span.end));
            if part.is_empty() {
                break;
            }
            at = part.end;
            if vma.anonymous && !vma.hugetlb {
                pieces(part).try_for_each(&mut f)?;
            }
        }
        Ok(())
    }

    fn piece_to_device(&self, piece: Span, strict: bool) -> Result<u64, Errno> {
        let dev = self.dev();
        let leaving = self.may_leave_peers(piece);
        let devices = strict || dev.host.has_peers() && leaving != Bits::default();
        let blocks = self.make_blocks(piece)?;
        // All that can fail for lack of memory comes before pages are locked.
        let pages = (piece.len() / PAGE_SIZE) as usize;
        let targets = Vec::with_capacity(pages).map_err(Errno::from);
        let way = Way::ToDevice { mm: &self.svm.mm, span: piece, owner: OWNER, devices };
        let begun = targets.and_then(|targets| Ok((targets, dev.host.migrate_setup(way)?)));
        let (targets, mut migration) = match begun {
            Ok(begun) => begun,
            Err(errno) => {
                give_back_unused(dev, &blocks, &Bits::default());
                return Err(errno);
            }
        };
        let (handed, across) = (Bits::default(), Bits::default());
        let mut fate = Fate { targets, handed, across, failed: None };
        self.choose_targets(&mut migration, (pages, &blocks, &leaving), strict, &mut fate);
        copy_all(dev, &mut migration, &self.failures(), &mut fate);
        if strict && fate.failed.is_some() {
            fate.targets.iter().for_each(|(at, _)| dev.host.migrate_keep(&mut migration, *at));
        }
        dev.delay(Point::SvmCopied);
        dev.host.migrate_commit(&mut migration);
        let (moved, across) = fate.count_moved(|at| dev.host.migrate_moved(&migration, at));
        dev.host.migrate_end(migration);
        blocks.iter().for_each(|block| devmem::ready(dev, block.reserved));
        give_back_unused(dev, &blocks, &fate.handed);
        devmem::drain(dev);
        dev.counters.add(Counter::SvmToDevice, moved);
        dev.counters.add(Counter::SvmAcross, across);
        match fate.failed.filter(|_| strict) {
            Some(errno) => Err(errno),
            None => Ok(moved),
        }
    }

    /// Pages of a piece that may leave the memory of other devices, if they are there.
    fn may_leave_peers(&self, piece: Span) -> Bits {
        let mut leaving = Bits::default();
        let attrs = self.svm.attrs.lock();
        for (part, _) in attrs.pieces(piece).filter(|(_, attr)| attr.policy == SVM_POLICY_ALL) {
            let index = |addr: u64| ((addr - piece.start) / PAGE_SIZE) as usize;
            (index(part.start)..index(part.end)).for_each(|index| leaving.put(index, true));
        }
        leaving
    }

    /// Blocks for a piece, as large as alignment and memory allow; pages may be left without.
    fn make_blocks(&self, piece: Span) -> Result<Vec<Block>, Errno> {
        let pages = (piece.len() / PAGE_SIZE) as usize;
        let mut blocks = Vec::with_capacity(pages.min(64))?;
        let (mut at, mut limit) = (0, MAX_ORDER);
        let failures = self.failures();
        while at < pages {
            let aligned = (piece.start / PAGE_SIZE + at as u64).trailing_zeros();
            let mut order = aligned.min((pages - at).ilog2()).min(limit);
            let new = |order| NewChunk {
                order,
                vm: self.vm.id,
                until_ns: self.stay_until(piece.start),
                failures: &failures,
            };
            let reserved = loop {
                match room::reserve(self, &new(order)) {
                    Ok(reserved) => break Some(reserved),
                    Err(_) if order > 0 => order -= 1,
                    Err(_) => break None,
                }
                limit = order;
            };
            let Some(reserved) = reserved else { break };
            if let Err(error) = blocks.push(Block { first: at, order, reserved }) {
                devmem::give_back(self.dev(), reserved.frame, 1 << order);
                give_back_unused(self.dev(), &blocks, &Bits::default());
                return Err(error.into());
            }
            at += 1 << order;
        }
        Ok(blocks)
    }

    /// When the CPU may have pages back that are moved now.
    fn stay_until(&self, addr: u64) -> u64 {
        match self.attr_at(addr).timeslice_ns.unwrap_or(self.svm.tunes.timeslice_ns) {
            0 => 0,
            timeslice => self.dev().host.now_ns().saturating_add(timeslice),
        }
    }

    /// Gives each page that can move its frame; a strict move ends with the first that cannot.
    fn choose_targets(
        &self,
        migration: &mut H::Migration,
        (pages, blocks, leaving): (usize, &[Block], &Bits),
        strict: bool,
        fate: &mut Fate,
    ) {
        let mut at = 0;
        while at < pages && !(strict && fate.failed.is_some()) {
            let order = match self.choice(migration, at, leaving) {
                Choice::Move { order, across } => {
                    let given = self.give_target(migration, at, order, blocks);
                    match given {
                        Some(order) => fate.hand(at, order, across),
                        None => self.keep(migration, at, Some(Errno::NOMEM), fate),
                    }
                    given.unwrap_or(order)
                }
                Choice::Stay { order, why } => {
                    self.keep(migration, at, why, fate);
                    order
                }
            };
            at += 1 << order;
        }
    }

    /// The folio at an index is to stay.
    fn keep(&self, migration: &mut H::Migration, at: usize, why: Option<Errno>, fate: &mut Fate) {
        self.dev().host.migrate_keep(migration, at);
        fate.failed = fate.failed.or(why);
    }

    /// Whether the folio at an index is to move; those of other devices only where they may leave.
    fn choice(&self, migration: &H::Migration, at: usize, leaving: &Bits) -> Choice {
        let host = &self.dev().host;
        match host.migrate_source(migration, at) {
            Source::System { order } => Choice::Move { order, across: false },
            Source::Empty => Choice::Move { order: 0, across: false },
            Source::Device { device, order, .. } if device == host.device() => {
                Choice::Stay { order, why: None }
            }
            Source::Device { order, .. } if leaving.has(at) => Choice::Move { order, across: true },
            Source::Device { order, .. } => Choice::Stay { order, why: Some(Errno::BUSY) },
            Source::Stays => Choice::Stay { order: 0, why: Some(Errno::BUSY) },
        }
    }

    /// Frames for the folio at an index: as a whole, else for its first page alone. `None`: there are
    /// none.
    fn give_target(
        &self,
        migration: &mut H::Migration,
        at: usize,
        order: u32,
        blocks: &[Block],
    ) -> Option<u32> {
        let dev = self.dev();
        let behind = blocks.partition_point(|block| block.first <= at);
        let block = blocks.get(behind.checked_sub(1)?)?;
        let within = at - block.first;
        let room = (1usize << block.order).checked_sub(within).filter(|room| *room > 0)?;
        let whole = room >= 1 << order && within % (1 << order) == 0;
        let frame = block.reserved.frame + within as u64;
        let injected = || self.svm.inject(dev, INJECT_MIGRATE, Errno::NOMEM).is_err();
        let mut give = |order| {
            let target = Target::Device { frame, order };
            dev.host.migrate_target(migration, at, target).is_ok()
        };
        if order > 0 && whole && !injected() && give(order) {
            return Some(order);
        }
        let single = order > 0 || !injected();
        (single && give(0)).then_some(0)
    }
}

/// Copies what has a target.
fn copy_all<H: Host>(
    dev: &Device<H>,
    migration: &mut H::Migration,
    failures: &Failures,
    fate: &mut Fate,
) {
    let Fate { targets, failed, .. } = fate;
    targets.retain(|(at, _)| match copy(dev, migration, failures, *at) {
        Ok(()) => true,
        Err(errno) => {
            dev.host.migrate_keep(migration, *at);
            *failed = failed.or(Some(errno));
            false
        }
    });
}

fn copy<H: Host>(
    dev: &Device<H>,
    migration: &mut H::Migration,
    failures: &Failures,
    at: usize,
) -> Result<(), Errno> {
    failures.copy.hit().map_err(|_| {
        dev.counters.inc(Counter::Injected);
        Errno::IO
    })?;
    dev.host.migrate_copy(migration, at)
}

/// Gives the frames back that no migration has seen.
fn give_back_unused<H: Host>(dev: &Device<H>, blocks: &[Block], handed: &Bits) {
    for block in blocks {
        for page in 0..1usize << block.order {
            if !handed.has(block.first + page) {
                devmem::give_back(dev, block.reserved.frame + page as u64, 1);
            }
        }
    }
}

/// What a move to system memory came to.
pub struct Back {
    /// Pages that moved.
    pub moved: u64,
    /// Why a page that was watched did not move, if it was one of those that could.
    pub failed: Option<Errno>,
}

/// Which pages of a move to system memory matter.
#[derive(Clone, Copy)]
enum Watched {
    /// None: what moves, moves.
    Nothing,
    /// The one at an index.
    Page(usize),
    /// All of them: where one fails, none is to move.
    All,
}

impl Watched {
    fn has(self, at: usize, order: u32) -> bool {
        match self {
            Watched::Nothing => false,
            Watched::Page(index) => (at..at + (1 << order)).contains(&index),
            Watched::All => true,
        }
    }
}

/// From which device pages move to system memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// From any that the world has given.
    Anyones,
    /// From this one.
    Ours,
}

/// Does a move to system memory after its setup.
fn back<H: Host>(
    dev: &Device<H>,
    mut migration: H::Migration,
    failures: &Failures,
    watched: Watched,
    whose: Whose,
) -> Back {
    let host = &dev.host;
    let pages = (host.migrate_span(&migration).len() / PAGE_SIZE) as usize;
    let mut done = Back { moved: 0, failed: None };
    let mut at = 0;
    while at < pages {
        let Source::Device { order, device, .. } = host.migrate_source(&migration, at) else {
            at += 1;
            continue;
        };
        if whose == Whose::Ours && device != host.device() {
            host.migrate_keep(&mut migration, at);
            at += 1 << order;
            continue;
        }
        let taken = take_back(dev, &mut migration, at, order, failures);
        let (Ok(order) | Err((order, _))) = taken;
        if let Err((_, errno)) = taken {
            host.migrate_keep(&mut migration, at);
            if watched.has(at, order) {
                done.failed = done.failed.or(Some(errno));
            }
        }
        at += 1 << order;
    }
    if matches!(watched, Watched::All) && done.failed.is_some() {
        keep_all(dev, &mut migration, pages);
    }
    dev.delay_unless_locked(Point::SvmCopied);
    host.migrate_commit(&mut migration);
    let mut at = 0;
    while at < pages {
        done.moved += u64::from(host.migrate_moved(&migration, at));
        at += 1;
    }
    host.migrate_end(migration);
    dev.counters.add(Counter::SvmToSystem, done.moved);
    done
}

/// Nothing of a move to system memory is to be done.
fn keep_all<H: Host>(dev: &Device<H>, migration: &mut H::Migration, pages: usize) {
    let mut at = 0;
    while at < pages {
        at += match dev.host.migrate_source(migration, at) {
            Source::Device { order, .. } => {
                dev.host.migrate_keep(migration, at);
                1 << order
            }
            _ => 1,
        };
    }
}

/// Gives a folio of device memory its place in system memory and copies it there: as a whole, else
/// its first page. Returns the order that was tried last.
fn take_back<H: Host>(
    dev: &Device<H>,
    migration: &mut H::Migration,
    at: usize,
    order: u32,
    failures: &Failures,
) -> Result<u32, (u32, Errno)> {
    let injected = || {
        let hit = failures.memory.hit().is_err();
        dev.counters.add(Counter::Injected, u64::from(hit));
        hit
    };
    let mut give = |order| match dev.host.migrate_target(migration, at, Target::System { order }) {
        Ok(()) => Ok(order),
        Err(errno) => Err((order, errno)),
    };
    let given = match order {
        0 if injected() => Err((0, Errno::NOMEM)),
        0 => give(0),
        _ if injected() => give(0),
        _ => give(order).or_else(|_| give(0)),
    };
    let order = given?;
    copy(dev, migration, failures, at).map(|()| order).map_err(|errno| (order, errno))
}

/// The CPU touched device memory: see [`crate::driver::Driver::cpu_fault`]. The whole chunk comes back,
/// as far as the mapping goes.
///
/// # Errors
/// Why the page did not move.
pub fn cpu_fault<H: Host>(
    dev: &Device<H>,
    fault: &mut H::CpuFault,
    addr: u64,
    frame: u64,
) -> Result<(), Errno> {
    dev.counters.inc(Counter::SvmCpuFaults);
    let page = addr & !(PAGE_SIZE - 1);
    let Some(chunk) = devmem::known(dev, frame) else {
        // It has moved meanwhile.
        return Ok(());
    };
    if dev.host.now_ns() < chunk.until_ns {
        dev.counters.inc(Counter::SvmTimeslices);
        return Ok(());
    }
    let before = ((frame - chunk.frame) * PAGE_SIZE).min(page);
    let after = (chunk.frames - (frame - chunk.frame)) * PAGE_SIZE;
    let span = Span::new(page - before, page + after);
    let migration = dev.host.migrate_setup(Way::CpuFault { fault, span, owner: OWNER })?;
    let start = dev.host.migrate_span(&migration).start;
    let watched = page
        .checked_sub(start)
        .map_or(Watched::Nothing, |by| Watched::Page((by / PAGE_SIZE) as usize));
    let done = back(dev, migration, &chunk.failures, watched, Whose::Anyones);
    devmem::drain(dev);
    done.failed.map_or(Ok(()), Err)
}

/// Evicts a chunk. Returns the pages that moved.
pub fn evict<H: Host>(dev: &Device<H>, chunk: &devmem::Known) -> u64 {
    let mut moved = 0;
    for _ in 0..EVICT_TRIES {
        let way = Way::Evict { frame: chunk.frame, count: chunk.frames };
        let Ok(migration) = dev.host.migrate_setup(way) else { break };
        moved += back(dev, migration, &chunk.failures, Watched::Nothing, Whose::Anyones).moved;
        devmem::drain(dev);
        if devmem::known(dev, chunk.frame).is_none_or(|now| now.key.1 != chunk.key.1) {
            break;
        }
    }
    if moved > 0 {
        dev.counters.inc(Counter::SvmEvictions);
    }
    moved
}

/// Evicts every chunk that a VM brought, or all (0). Returns the pages that moved.
pub fn evict_all<H: Host>(dev: &Device<H>, vm: u64) -> u64 {
    devmem::drain(dev);
    let (mut moved, mut after) = (0, (0, 0));
    while let Some(chunk) = devmem::oldest(dev, after, vm) {
        after = chunk.key;
        moved += evict(dev, &chunk);
    }
    moved
}
