//! The live world's side of shared virtual memory: the mirror trait over clients' address spaces.
//! Owns the handles that the driver keeps; what they do is [`super::mm`]'s and [`super::migrate`]'s.

use std::sync::Arc;

use fencepost_core::gpuva::Span;
use fencepost_core::host::mirror::{Event, Mirror, Pfn, Source, Target, Vma, Want, Way};
use fencepost_uapi::Errno;

use super::agent::layout;
use super::arena::PAGE;
use super::migrate::Migration;
use super::mm::cpu_fault::{self, CpuFault, Outcome};
use super::mm::moved::{Place, Run};
use super::mm::notifier::Interval;
use super::mm::space::Space;
use super::mm::view::{self, Request};
use super::mm::{Spaces, system_address, trap};
use super::serve::Port;
use super::sys::notify::{Answer, Call};
use super::world::World;

/// How often a page may be taken away again while it is made exclusive.
const TRIES: u32 = 1000;

/// An address space.
#[derive(Clone)]
pub(crate) struct Mm(pub(crate) Arc<Space>);

/// A notifier that is inserted.
pub(crate) struct Notifier {
    space: Arc<Space>,
    interval: Arc<Interval>,
}

/// A page that is exclusive and locked, up to the drop.
pub(crate) struct Exclusive {
    space: Arc<Space>,
    page: u64,
    slot: u64,
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        self.space.table().lock(self.page, self.slot, false);
        self.space.changed();
    }
}

impl World {
    /// A mirror was asked for, so there are address spaces.
    fn spaces(&self) -> Result<&Spaces, Errno> {
        self.spaces.as_deref().ok_or(Errno::OPNOTSUPP)
    }
}

/// Trapped calls that concern address spaces.
impl World {
    /// What the agent, or its signal handler in a client's thread, asks.
    pub(crate) fn agents_call(&self, port: &Port, call: &Call) -> Answer {
        let Some(spaces) = &self.spaces else { return Answer::Continue };
        let Some(process) = self.threads.process(call.tid) else { return Answer::Continue };
        match call.args[1] as u32 {
            layout::ASK_HELLO => spaces.hello(port, call, process),
            layout::ASK_FAULT => {
                let Some(space) = spaces.of(process) else { return Answer::Continue };
                let [_, _, addr, error, signal, _] = call.args;
                cpu_fault::signalled(&space, call.tid, addr, error, signal)
            }
            _ => Answer::Continue,
        }
    }

    /// A call that changes mappings.
    pub(crate) fn change(&self, call: &Call) -> Answer {
        let Some(spaces) = &self.spaces else { return Answer::Continue };
        if call.nr == libc::SYS_rt_sigaction {
            return trap::sigaction(call, self.way);
        }
        if spaces.is_empty() {
            return Answer::Continue;
        }
        let space = self.threads.process(call.tid).and_then(|process| spaces.of(process));
        if let Some(space) = &space {
            space.calls(call.tid);
        }
        match space.filter(|space| !space.is_over()) {
            Some(space) => trap::serve(&space, call, self.way),
            None => Answer::Continue,
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
        self.home.number
    }

    fn mm_id(&self, mm: &Mm) -> u64 {
        mm.0.number
    }

    fn vma(&self, mm: &Mm, addr: u64) -> Result<Vma, Errno> {
        let found = self.next_vma(mm, addr)?;
        if found.span.start <= addr { Ok(found) } else { Err(Errno::NOENT) }
    }

    fn next_vma(&self, mm: &Mm, addr: u64) -> Result<Vma, Errno> {
        let _entered = mm.0.enter();
        if mm.0.is_over() {
            return Err(Errno::FAULT);
        }
        view::vma(&mm.0, addr, self.inode)
    }

    fn notifier_insert(&self, mm: &Mm, span: Span, cookie: u64) -> Result<Notifier, Errno> {
        if mm.0.is_over() {
            return Err(Errno::FAULT);
        }
        let home = Arc::clone(&self.home);
        let interval = mm.0.notifiers.insert(span, cookie, home);
        Ok(Notifier { space: Arc::clone(&mm.0), interval })
    }

    fn notifier_remove(&self, notifier: Notifier) {
        notifier.space.notifiers.remove(&notifier.interval);
    }

    fn read_begin(&self, notifier: &Notifier) -> u64 {
        notifier.space.notifiers.read_begin(&notifier.interval)
    }

    fn read_retry(&self, notifier: &Notifier, seq: u64) -> bool {
        notifier.interval.read_retry(seq)
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
        let (space, interval, device) = (&mm.0, &*notifier.interval, self.inode);
        Request { space, interval, seq, span, want, device }.serve(pages)
    }

    fn dma_map_page(&self, mm: &Mm, page: Pfn, _order: u32) -> Result<u64, Errno> {
        Ok(system_address(mm.0.slot, page.number() * PAGE))
    }

    fn dma_unmap_page(&self, _addr: u64, _order: u32) {
        // An address names the page itself: there is nothing to give back.
    }

    fn migrate_setup(&self, way: Way<'_, Self>) -> Result<Migration, Errno> {
        match way {
            Way::ToDevice { mm, span, owner, devices } => {
                Migration::to_device(&mm.0, &self.home, span, owner, devices)
            }
            Way::ToSystem { mm, span, owner } => {
                Migration::to_system(&mm.0, &self.home, span, owner)
            }
            Way::CpuFault { fault, span, owner } => {
                Migration::for_fault(fault, &self.home, span, owner)
            }
            Way::Evict { frame, count } => {
                Ok(Migration::evict(self.spaces()?, &self.home, frame, count))
            }
        }
    }

    fn migrate_span(&self, migration: &Migration) -> Span {
        migration.span()
    }

    fn migrate_source(&self, migration: &Migration, index: usize) -> Source {
        migration.source(index)
    }

    fn migrate_target(
        &self,
        migration: &mut Migration,
        index: usize,
        target: Target,
    ) -> Result<(), Errno> {
        migration.target(index, target);
        Ok(())
    }

    fn migrate_copy(&self, migration: &mut Migration, index: usize) -> Result<(), Errno> {
        // Pages move as they are: nothing to copy, and nothing that could fail.
        migration.copy(index);
        Ok(())
    }

    fn migrate_keep(&self, migration: &mut Migration, index: usize) {
        migration.keep(index);
    }

    fn migrate_commit(&self, migration: &mut Migration) {
        migration.commit();
    }

    fn migrate_moved(&self, migration: &Migration, index: usize) -> bool {
        migration.moved(index)
    }

    fn migrate_end(&self, migration: Migration) {
        migration.end();
    }

    fn frames_freed(&self, each: &mut dyn FnMut(u64, u64)) {
        for (first, count) in self.home.take_freed() {
            each(first, count);
        }
    }

    fn make_exclusive(&self, mm: &Mm, addr: u64, owner: u64) -> Result<(Pfn, Exclusive), Errno> {
        let (space, page) = (&mm.0, addr & !(PAGE - 1));
        for _ in 0..TRIES {
            match take(space, page, owner)? {
                Some(exclusive) => {
                    let place = Place::Held { slot: exclusive.slot, locked: true };
                    let flags = Pfn::VALID | Pfn::WRITE;
                    return Ok((Pfn::new(flags, 0, 0, place.window() / PAGE), exclusive));
                }
                // In device memory: as if the CPU touched it.
                None if cpu_fault::serve(space, page) == Outcome::Lost => {
                    return Err(Errno::FAULT);
                }
                None => {}
            }
        }
        Err(Errno::BUSY)
    }
}

/// Makes a page exclusive; `None`: it is in device memory.
fn take(space: &Arc<Space>, page: u64, owner: u64) -> Result<Option<Exclusive>, Errno> {
    let _entered = space.enter_to_move();
    if space.is_over() {
        return Err(Errno::FAULT);
    }
    let mapping = space.mapping(page).ok().filter(|mapping| mapping.span.start <= page);
    let mapping = mapping.filter(|mapping| mapping.write).ok_or(Errno::FAULT)?;
    if !mapping.is_anonymous() {
        return Err(Errno::OPNOTSUPP);
    }
    let span = Span::new(page, page + PAGE);
    let place = space.table().get(page).map(|moved| moved.place.clone());
    match place {
        Some(Place::Device { .. }) => return Ok(None),
        Some(Place::Held { slot, .. }) => {
            // Whoever has it loses it.
            drop(space.notifiers.begin(span, Event::Exclusive, owner));
            space.table().lock(page, slot, true);
            return Ok(Some(Exclusive { space: Arc::clone(space), page, slot }));
        }
        None => {}
    }
    let slot = space.take_slot().ok_or(Errno::NOMEM)?;
    // Here the page goes to another place, so who takes it must not find it at the old one either.
    space.notifiers.end_translations(span);
    let _begun = space.notifiers.begin(span, Event::Exclusive, owner);
    let place = Place::Held { slot, locked: true };
    let run = Run { span, place, protection: mapping.protection(), huge: false };
    let stay = space.move_out(&run);
    if stay.as_ref().is_ok_and(Vec::is_empty) {
        return Ok(Some(Exclusive { space: Arc::clone(space), page, slot }));
    }
    space.give_slot(slot);
    stay?;
    // What is locked never moves: trying again would not end.
    Err(if space.kernel.is_locked(page) { Errno::OPNOTSUPP } else { Errno::BUSY })
}
