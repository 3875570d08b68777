//! One client's address space, as long as it is mirrored. Owns its lock, which stands for Linux's
//! `mmap_lock` here, the pages that are away, and its end.
//!
//! Locks, outermost first: the space ([`Space::enter`]), held while mappings change and while pages
//! move; the driver's (by its callbacks); the table of pages; the lane. A GPU access takes only the
//! last.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fencepost_core::gpuva::Span;
use fencepost_core::host::mirror::Event;
use fencepost_uapi::Errno;

use super::super::agent::lane::Lane;
use super::super::agent::layout::{HELD, HELD_PAGES, TAKEN, WINDOWS};
use super::super::arena::PAGE;
use super::super::migrate::{Backend, Mover, Piece, Userfault};
use super::exec::Exec;
use super::fork::Fork;
use super::moved::{Moved, Place, Run, Table};
use super::notifier::Notifiers;
use super::vma::{Kernel, Mapping, Page};

/// Addresses of a 64-bit process.
pub(crate) const END: u64 = 1 << 47;

/// An address space.
pub(crate) struct Space {
    /// Tells it from all others.
    pub(crate) number: u64,
    /// Its place in the table of [`super::Spaces`], part of system addresses.
    pub(crate) slot: u64,
    pub(crate) process: i32,
    pub(crate) lane: Lane,
    pub(crate) kernel: Kernel,
    pub(crate) notifiers: Notifiers,
    pub(crate) mover: Mover,
    /// The last fork, of which only the beginning can be seen.
    fork: Mutex<Option<Fork>>,
    /// The last exec, likewise.
    exec: Mutex<Option<Exec>>,
    table: Arc<Mutex<Table>>,
    entered: Mutex<bool>,
    left: Condvar,
    slots: Mutex<Vec<u64>>,
    /// Which windows are there: those of devices, and the one of exclusive pages.
    windows: Mutex<[bool; WINDOWS + 1]>,
    over: AtomicBool,
    /// Pages that came back because the CPU touched them.
    pub(crate) faults: AtomicU64,
}

/// The right to change an address space.
pub(crate) struct Entered(Arc<Space>);

impl Drop for Entered {
    fn drop(&mut self) {
        *self.0.entered.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.left.notify_all();
    }
}

/// What [`Space::new`] needs to know.
pub(crate) struct Start {
    pub(crate) number: u64,
    pub(crate) slot: u64,
    pub(crate) process: i32,
    pub(crate) lane: Lane,
    pub(crate) backend: Backend,
    /// Our end of a socket, and the number that the other end has in the agent.
    pub(crate) socket: (OwnedFd, u64),
}

impl Space {
    /// An address space whose agent has just come.
    pub(crate) fn new(start: Start) -> io::Result<Space> {
        let Start { number, slot, process, lane, backend, socket } = start;
        let table = Arc::new(Mutex::new(Table::default()));
        let (ours, theirs) = socket;
        let mover = match backend {
            Backend::Userfault => {
                let made = Userfault::new(
                    &lane,
                    std::os::fd::AsFd::as_fd(&ours),
                    theirs,
                    Arc::clone(&table),
                );
                made.map_or(Mover::Protect, Mover::Userfault)
            }
            Backend::Protect => Mover::Protect,
        };
        let _gone = lane.turn().calls(&[(libc::SYS_close, [theirs, 0, 0, 0, 0, 0])]);
        Ok(Space {
            number,
            slot,
            process,
            lane,
            kernel: Kernel::new(process)?,
            notifiers: Notifiers::new(),
            mover,
            fork: Mutex::default(),
            exec: Mutex::default(),
            table,
            entered: Mutex::new(false),
            left: Condvar::new(),
            slots: Mutex::new((0..HELD_PAGES).rev().collect()),
            windows: Mutex::default(),
            over: AtomicBool::new(false),
            faults: AtomicU64::new(0),
        })
    }

    /// Waits for the right to change it.
    pub(crate) fn enter(self: &Arc<Space>) -> Entered {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        while *entered {
            entered = self.left.wait(entered).unwrap_or_else(PoisonError::into_inner);
        }
        *entered = true;
        Entered(Arc::clone(self))
    }

    /// A fork has begun.
    pub(crate) fn forks(&self, fork: Fork) {
        *self.fork.lock().unwrap_or_else(PoisonError::into_inner) = Some(fork);
    }

    /// As [`Space::enter`], to take pages away: not while the client forks, since a page that is away
    /// then would be lost to the child.
    pub(crate) fn enter_to_move(self: &Arc<Space>) -> Entered {
        loop {
            let mut fork = self.fork.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(begun) = &*fork {
                begun.wait();
                *fork = None;
            }
            drop(fork);
            let entered = self.enter();
            if self.fork.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                return entered;
            }
        }
    }

    /// Sleeps until somebody has left.
    pub(crate) fn wait_for_change(&self) {
        let entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = std::time::Duration::from_millis(1);
        drop(self.left.wait_timeout(entered, limit));
    }

    /// Wakes those who sleep until something changes.
    pub(crate) fn changed(&self) {
        drop(self.entered.lock().unwrap_or_else(PoisonError::into_inner));
        self.left.notify_all();
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An exec has begun.
    pub(crate) fn execs(&self, exec: Exec) {
        *self.exec.lock().unwrap_or_else(PoisonError::into_inner) = Some(exec);
    }

    /// A thread makes a call: an exec that it began has failed, if its memory is still here.
    pub(crate) fn calls(&self, thread: i32) {
        let mut exec = self.exec.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |exec: &Exec| exec.is_of(thread) && !self.lane.is_dead();
        exec.take_if(|exec| failed(exec));
    }

    /// Whether the drivers were told of its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Whether it has ended. While the process execs, that is waited for: what is read of it then may be
    /// another program's.
    pub(crate) fn is_over(&self) -> bool {
        if self.has_ended() {
            return true;
        }
        let mut exec = self.exec.lock().unwrap_or_else(PoisonError::into_inner);
        let over = exec.as_ref().is_some_and(|exec| exec.wait(&self.lane));
        if !over {
            *exec = None;
        }
        over
    }

    /// Ends it: the drivers are told, and get their frames back. True for who did it.
    pub(crate) fn end(self: &Arc<Space>) -> bool {
        if self.over.swap(true, Ordering::SeqCst) {
            return false;
        }
        let _entered = self.enter();
        drop(self.notifiers.begin(Span::new(0, u64::MAX), Event::Release, 0));
        let runs = self.table().runs(Span::new(0, u64::MAX));
        self.table().forget(Span::new(0, u64::MAX));
        free(&runs);
        true
    }

    // ---- mappings ------------------------------------------------------------------------------

    /// The mapping at or after an address as the client knows it: pages that are away have split it
    /// in the kernel. `ENOENT`, `ESRCH`.
    pub(crate) fn mapping(&self, addr: u64) -> Result<Mapping, nix::errno::Errno> {
        let mut found = self.part(addr)?;
        if !found.is_private() {
            return Ok(found);
        }
        while let Ok(next) = self.part(found.span.end)
            && joins(&found, &next)
        {
            found.span.end = next.span.end;
        }
        while let Some(before) = found.span.start.checked_sub(PAGE)
            && let Ok(previous) = self.part(before)
            && joins(&previous, &found)
        {
            found.span.start = previous.span.start;
        }
        Ok(found)
    }

    /// A part of a mapping that is one to the kernel, with the client's permissions.
    fn part(&self, addr: u64) -> Result<Mapping, nix::errno::Errno> {
        let mut found = self.raw_mapping(addr)?;
        if found.read || found.write || !found.is_private() {
            return Ok(found);
        }
        // Closed: by the client, or because pages are away, or both side by side.
        let at = addr.max(found.span.start);
        let table = self.table();
        let Some(bits) = table.get(at).map(|page| page.protection) else {
            let before = table.pages().range(found.span.start..at).next_back();
            let after = table.pages().range(at..found.span.end).next();
            found.span.start = before.map_or(found.span.start, |(page, _)| page + PAGE);
            found.span.end = after.map_or(found.span.end, |(page, _)| *page);
            return Ok(found);
        };
        let alike = |page: &u64| table.get(*page).is_some_and(|page| page.protection == bits);
        let up = (at..found.span.end).step_by(PAGE as usize).take_while(alike).last();
        let down = (0..)
            .map(|n| at - n * PAGE)
            .take_while(|page| *page >= found.span.start && alike(page));
        let start = down.last().unwrap_or(at);
        found.span = Span::new(start, up.unwrap_or(at) + PAGE);
        (found.read, found.write, found.execute) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        Ok(found)
    }

    /// As the kernel has it, without what is ours.
    fn raw_mapping(&self, addr: u64) -> Result<Mapping, nix::errno::Errno> {
        let addr = if (TAKEN[0]..TAKEN[1]).contains(&addr) { TAKEN[1] } else { addr };
        let found = self.kernel.at_or_after(addr)?;
        if found.span.start >= TAKEN[0] && found.span.start < TAKEN[1] {
            return self.kernel.at_or_after(TAKEN[1]);
        }
        Ok(found)
    }

    // ---- pages that move -----------------------------------------------------------------------

    /// A slot for an exclusive page.
    pub(crate) fn take_slot(&self) -> Option<u64> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// A slot that was not used.
    pub(crate) fn give_slot(&self, slot: u64) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }

    /// Makes sure that there are pages to move to.
    fn open_window(&self, place: &Place) -> Result<(), Errno> {
        let Mover::Userfault(way) = &self.mover else { return Ok(()) };
        let (index, start, pages) = match place {
            Place::Device { home, .. } => (usize::from(home.number), home.window(0), home.frames),
            Place::Held { .. } => (WINDOWS, HELD, HELD_PAGES),
        };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows[index] {
            return Ok(());
        }
        let len = pages * PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let flags = (flags | libc::MAP_FIXED_NOREPLACE) as u64;
        let read_write = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let calls = [
            (libc::SYS_mmap, [start, len, read_write, flags, u64::MAX, 0]),
            (libc::SYS_madvise, [start, len, libc::MADV_DONTFORK as u64, 0, 0, 0]),
        ];
        match self.lane.turn().calls(&calls) {
            Ok((_, None)) => {}
            Ok((_, Some(_))) => return Err(Errno::NOMEM),
            Err(_) => return Err(Errno::FAULT),
        }
        way.register(Span::new(start, start + len)).map_err(|_| Errno::NOMEM)?;
        windows[index] = true;
        Ok(())
    }

    /// Takes pages of one mapping from the CPU to the place, and neighbouring ones after it. Those
    /// that stay are given.
    pub(crate) fn move_out(&self, run: &Run) -> Result<Vec<u64>, Errno> {
        self.open_window(&run.place)?;
        let piece = piece(run);
        // Noted first, so that a fault meanwhile finds the page.
        let mut table = self.table();
        for at in (run.span.start..run.span.end).step_by(PAGE as usize) {
            let place = shifted(&run.place, (at - run.span.start) / PAGE);
            table.insert(at, Moved { place, protection: run.protection, huge: run.huge });
        }
        drop(table);
        self.fill_watched(run.span);
        let stay = self.mover.out(&self.lane, piece);
        let mut table = self.table();
        for at in &stay {
            table.remove(*at);
        }
        drop(table);
        if let Place::Device { home, .. } = &run.place {
            let pages = (run.span.start..run.span.end).step_by(PAGE as usize);
            for (frame, _) in run.frames().zip(pages).filter(|(_, at)| !stay.contains(at)) {
                home.fill(frame, self.slot);
            }
        }
        Ok(stay)
    }

    /// Gives pages back to the CPU; their places are free then, except of those that stay.
    pub(crate) fn move_back(&self, run: &Run) -> Vec<u64> {
        let stay = self.mover.back(&self.lane, piece(run));
        let mut table = self.table();
        for at in (run.span.start..run.span.end).step_by(PAGE as usize) {
            if !stay.contains(&at) {
                table.remove(at);
            }
        }
        let idle = table.idle(run.span.start).filter(|_| stay.is_empty());
        if let (Some(span), Mover::Userfault(way)) = (idle, &self.mover) {
            table.unwatch(span);
            drop(table);
            way.unregister(span);
        } else {
            drop(table);
        }
        self.release_slots(run, &stay);
        stay
    }

    fn release_slots(&self, run: &Run, stay: &[u64]) {
        let Place::Held { slot, .. } = run.place else { return };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let pages = (run.span.start..run.span.end).step_by(PAGE as usize);
        slots
            .extend((slot..).zip(pages).filter(|(_, at)| !stay.contains(at)).map(|(slot, _)| slot));
    }

    /// Moves pages from place to place in device memory; false: they stay.
    pub(crate) fn move_across(&self, run: &Run, to: &Place) -> bool {
        if self.open_window(to).is_err() {
            return false;
        }
        if !self.mover.across(&self.lane, to.window(), run.place.window(), run.span.len()) {
            return false;
        }
        let mut table = self.table();
        for at in (run.span.start..run.span.end).step_by(PAGE as usize) {
            let place = shifted(to, (at - run.span.start) / PAGE);
            if let Place::Device { home, frame, .. } = &place {
                home.fill(*frame, self.slot);
            }
            table.insert(at, Moved { place, protection: run.protection, huge: run.huge });
        }
        true
    }

    /// Puts empty pages where userfaultfd would report that there are none: the kernel does not wait
    /// for us when a call touches them.
    pub(crate) fn fill_watched(&self, span: Span) {
        let Mover::Userfault(way) = &self.mover else { return };
        let holes: Vec<u64> = {
            let table = self.table();
            let pages = (span.start..span.end).step_by(PAGE as usize);
            let watched = |at: &u64| table.is_watched(Span::new(*at, *at + PAGE));
            pages.filter(watched).collect()
        };
        for at in holes {
            let mut page = [Page::default()];
            self.kernel.pages(at, &mut page);
            if !page[0].present && !page[0].swapped {
                way.zero(at);
            }
        }
    }

    /// Brings everything in a range back to system memory, telling the drivers.
    pub(crate) fn restore(&self, span: Span) {
        let runs = self.table().runs(span);
        for run in runs {
            let event = match run.place {
                Place::Device { .. } => Event::Migrate,
                Place::Held { .. } => Event::Clear,
            };
            let _begun = self.notifiers.begin(run.span, event, 0);
            let stay = self.move_back(&run);
            free_except(&run, &stay);
        }
        self.changed();
    }

    /// Ends what userfaultfd watches in a range, so that its mapping is one again.
    pub(crate) fn unwatch(&self, span: Span) {
        if let Mover::Userfault(way) = &self.mover {
            let parts = self.table().unwatch(span);
            for part in parts {
                way.unregister(part);
            }
        }
    }

    /// After the mapping of a range, or what it held, went: what was away of it goes as well.
    /// `mapped`: the mapping is still there.
    pub(crate) fn dropped(&self, span: Span, mapped: bool) {
        let runs = self.table().runs(span);
        self.table().forget(span);
        for run in &runs {
            self.mover.discard(&self.lane, run.place.window(), run.span.len());
            if mapped {
                self.mover.reopen(&self.lane, run.span, run.protection);
            }
            self.release_slots(run, &[]);
        }
        if !mapped {
            let _was = self.table().unwatch(span);
        }
        free(&runs);
        self.changed();
    }
}

/// Whether two neighbours are one mapping to the client.
fn joins(one: &Mapping, next: &Mapping) -> bool {
    one.span.end == next.span.start
        && one.is_private()
        && next.is_private()
        && one.inode == next.inode
        && one.protection() == next.protection()
}

fn piece(run: &Run) -> Piece {
    Piece { span: run.span, window: run.place.window(), protection: run.protection }
}

/// The place so many pages further.
pub(crate) fn shifted(place: &Place, pages: u64) -> Place {
    match place {
        Place::Device { home, frame, owner } => {
            Place::Device { home: Arc::clone(home), frame: frame + pages, owner: *owner }
        }
        Place::Held { slot, locked } => Place::Held { slot: slot + pages, locked: *locked },
    }
}

fn free(runs: &[Run]) {
    for run in runs {
        free_except(run, &[]);
    }
}

/// Gives the frames of a run back to their device, but those of pages that stay.
pub(crate) fn free_except(run: &Run, stay: &[u64]) {
    if let Place::Device { home, .. } = &run.place {
        let pages = (run.span.start..run.span.end).step_by(PAGE as usize);
        let gone = run.frames().zip(pages).filter(|(_, at)| !stay.contains(at));
        home.free(gone.map(|(frame, _)| frame));
    }
}
