//! The address space of the models: one page, which the CPU discards, adds to, and the driver mirrors.
//!
//! Owns the notifier's protocol as Linux has it, and the proof of its use: an access of the GPU to a page
//! that was discarded panics. A world that lies says that nothing has changed whenever it is asked.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex as Plain;

use fencepost_core::driver::Driver;
use fencepost_core::gpuva::Span;
use fencepost_core::host::mirror::{
    Event, Invalidation, Mirror, Pfn, Source, Target, Vma, Want, Way,
};
use fencepost_core::host::BusError;
use fencepost_uapi::Errno;
use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
use shuttle::thread;

use crate::world::World;

/// Where the page is.
pub(crate) const PAGE: u64 = 0x7000_0000_0000;
/// DMA addresses of pages begin here.
pub(crate) const DMA_BASE: u64 = 1 << 44;
const SIZE: u64 = 4096;

struct Notifier {
    id: u64,
    cookie: u64,
    seq: u64,
}

#[derive(Default)]
struct State {
    page: Option<u64>,
    exclusive: bool,
    locked: bool,
    seq: u64,
    /// An invalidation is under way.
    active: bool,
    notifiers: Vec<Notifier>,
    numbers: u64,
    /// The first word of each page.
    data: HashMap<u64, u64>,
    freed: HashSet<u64>,
    dma: HashMap<u64, u64>,
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn populate(&mut self) -> u64 {
        if let Some(page) = self.page {
            return page;
        }
        let page = self.number();
        self.data.insert(page, 0);
        self.page = Some(page);
        page
    }
}

/// The address space.
pub(crate) struct Pages {
    state: Mutex<State>,
    changed: Condvar,
    /// Nothing has ever changed, if asked.
    lies: bool,
    driver: Plain<Option<Driver<World>>>,
}

impl Pages {
    pub(crate) fn new(lies: bool) -> Arc<Self> {
        Arc::new(Pages {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            lies,
            driver: Plain::new(None),
        })
    }

    /// Who is told of changes.
    pub(crate) fn attach(&self, driver: Option<Driver<World>>) {
        let before = std::mem::replace(&mut *self.driver.lock().expect("not poisoned"), driver);
        drop(before);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).expect("not poisoned")
    }

    fn begin(&self, event: Event, owner: u64) {
        let (seq, told) = {
            let mut state = self.state();
            while state.active {
                state = self.wait(state);
            }
            state.active = true;
            state.seq += 1;
            let told: Vec<_> = state.notifiers.iter().map(|n| (n.id, n.cookie)).collect();
            (state.seq, told)
        };
        let driver = self.driver.lock().expect("not poisoned").clone();
        let Some(driver) = driver else { return };
        let span = Span::new(PAGE, PAGE + SIZE);
        let invalidation = Invalidation { span, event, owner, blockable: true };
        for (id, cookie) in told {
            let mut set_seq = || {
                let mut state = self.state();
                let known = state.notifiers.iter_mut().find(|known| known.id == id);
                if let Some(known) = known {
                    known.seq = seq;
                }
            };
            assert!(driver.invalidate(cookie, &invalidation, &mut set_seq), "it may sleep");
        }
    }

    fn end(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.active = false;
        drop(state);
        self.changed.notify_all();
    }

    /// `madvise(MADV_DONTNEED)`.
    pub(crate) fn discard(&self) {
        self.begin(Event::Clear, 0);
        self.end(|state| {
            let gone = state.page.take();
            state.freed.extend(gone);
            state.exclusive = false;
        });
    }

    fn revoke(&self) {
        self.begin(Event::Clear, 0);
        self.end(|state| state.exclusive = false);
    }

    /// The CPU adds one to the word.
    pub(crate) fn cpu_add(&self) {
        loop {
            let mut state = self.state();
            if !state.exclusive {
                let page = state.populate();
                *state.data.entry(page).or_default() += 1;
                return;
            }
            if state.locked {
                drop(self.wait(state));
                continue;
            }
            drop(state);
            self.revoke();
        }
    }

    pub(crate) fn value(&self) -> u64 {
        let state = self.state();
        state.page.map_or(0, |page| state.data[&page])
    }

    /// An access of the GPU: reads, computes, and writes if there is something to write.
    pub(crate) fn gpu(
        &self,
        addr: u64,
        new: impl FnOnce(u64) -> Option<u64>,
    ) -> Result<u64, BusError> {
        thread::yield_now();
        let (page, old) = {
            let state = self.state();
            let page = *state.dma.get(&(addr & !(SIZE - 1))).ok_or(BusError)?;
            assert!(!state.freed.contains(&page), "a stale translation is used");
            (page, state.data[&page])
        };
        // Whoever must not come between comes here if it can.
        thread::yield_now();
        if let Some(new) = new(old) {
            let mut state = self.state();
            assert!(!state.freed.contains(&page), "a stale translation is used");
            state.data.insert(page, new);
        }
        Ok(old)
    }

    fn is_stale(&self, id: u64, seq: u64) -> bool {
        let state = self.state();
        let known = state.notifiers.iter().find(|known| known.id == id);
        !self.lies && (state.active || known.is_none_or(|known| known.seq != seq))
    }
}

/// A page that is exclusive and locked.
pub(crate) struct Locked(Arc<Pages>);

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.state().locked = false;
        self.0.changed.notify_all();
    }
}

impl Mirror for World {
    type Mm = ();
    type Notifier = u64;
    type Migration = std::convert::Infallible;
    type Exclusive = Locked;
    type CpuFault = std::convert::Infallible;

    fn mm_id(&self, (): &()) -> u64 {
        1
    }

    fn vma(&self, (): &(), addr: u64) -> Result<Vma, Errno> {
        let vma = self.next_vma(&(), addr)?;
        if vma.span.start <= addr {
            Ok(vma)
        } else {
            Err(Errno::NOENT)
        }
    }

    fn next_vma(&self, (): &(), addr: u64) -> Result<Vma, Errno> {
        let span = Span::new(PAGE, PAGE + SIZE);
        let vma =
            Vma { span, read: true, write: true, anonymous: true, hugetlb: false, device: false };
        (addr < span.end).then_some(vma).ok_or(Errno::NOENT)
    }

    fn notifier_insert(&self, (): &(), _: Span, cookie: u64) -> Result<u64, Errno> {
        let mut state = self.pages.state();
        let (id, seq) = (state.number(), state.seq);
        state.notifiers.push(Notifier { id, cookie, seq });
        Ok(id)
    }

    fn notifier_remove(&self, notifier: u64) {
        let mut state = self.pages.state();
        while state.active {
            state = self.pages.wait(state);
        }
        state.notifiers.retain(|known| known.id != notifier);
    }

    fn read_begin(&self, notifier: &u64) -> u64 {
        let mut state = self.pages.state();
        while state.active {
            state = self.pages.wait(state);
        }
        state.notifiers.iter().find(|known| known.id == *notifier).map_or(0, |known| known.seq)
    }

    fn read_retry(&self, notifier: &u64, seq: u64) -> bool {
        self.pages.is_stale(*notifier, seq)
    }

    fn range_fault(
        &self,
        (): &(),
        notifier: &u64,
        seq: u64,
        _: Span,
        want: Want,
        pages: &mut [Pfn],
    ) -> Result<(), Errno> {
        if self.pages.is_stale(*notifier, seq) {
            return Err(Errno::BUSY);
        }
        let fault = want.default_flags & Pfn::VALID != 0;
        let mut state = self.pages.state();
        if fault && state.exclusive {
            let locked = state.locked;
            drop(state);
            if !locked {
                self.pages.revoke();
            }
            return Err(Errno::BUSY);
        }
        if fault {
            state.populate();
        }
        let shown = state.page.filter(|_| !state.exclusive);
        pages[0] = shown.map_or(Pfn(0), |page| Pfn::new(Pfn::VALID | Pfn::WRITE, 0, 0, page));
        Ok(())
    }

    fn dma_map_page(&self, (): &(), page: Pfn, _: u32) -> Result<u64, Errno> {
        let mut state = self.pages.state();
        let addr = DMA_BASE + state.number() * SIZE;
        state.dma.insert(addr, page.number());
        Ok(addr)
    }

    fn dma_unmap_page(&self, addr: u64, _: u32) {
        self.pages.state().dma.remove(&addr).expect("it was mapped");
    }

    fn migrate_setup(&self, _: Way<'_, Self>) -> Result<Self::Migration, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    fn migrate_span(&self, migration: &Self::Migration) -> Span {
        match *migration {}
    }

    fn migrate_source(&self, migration: &Self::Migration, _: usize) -> Source {
        match *migration {}
    }

    fn migrate_target(
        &self,
        migration: &mut Self::Migration,
        _: usize,
        _: Target,
    ) -> Result<(), Errno> {
        match *migration {}
    }

    fn migrate_copy(&self, migration: &mut Self::Migration, _: usize) -> Result<(), Errno> {
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

    fn make_exclusive(&self, (): &(), _: u64, owner: u64) -> Result<(Pfn, Locked), Errno> {
        if self.pages.state().exclusive {
            self.pages.revoke();
        }
        self.pages.begin(Event::Exclusive, owner);
        let mut taken = None;
        self.pages.end(|state| {
            taken = Some(state.populate());
            (state.exclusive, state.locked) = (true, true);
        });
        let page = taken.expect("taken above");
        Ok((Pfn::new(Pfn::VALID | Pfn::WRITE, 0, 0, page), Locked(self.pages.clone())))
    }
}
