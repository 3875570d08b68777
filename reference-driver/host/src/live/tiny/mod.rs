//! The smallest driver that mirrors address spaces, to test and to measure the mirror without the
//! driver: a page table of single pages, faults served in the caller's thread, one notifier for each
//! address space. Not part of this crate's interface.
//!
//! Its calls are `ioctl(-1, 0x6440 + n, record of five words)`: address, length, count, two results.

pub mod user;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use fencepost_core::gpuva::Span;
use fencepost_core::host::mirror::{Invalidation, Mirror, Pfn, Source, Target, Want, Way};
use fencepost_core::host::{Aperture, Atomic, Host, Phys, Step, Width};
use fencepost_uapi::Errno;

use super::arena::PAGE;
use super::migrate::Backend;
use super::mirror::{Mm, Notifier};
use super::mm::Spaces;
use super::mm::cpu_fault::CpuFault;
use super::mm::home::Sink;
use super::mm::space::END;
use super::serve::{Ends, Port, Service};
use super::spawn::{self, Child};
use super::sys::client;
use super::sys::notify::{Answer, Call};
use super::sys::number::ARCH;
use super::world::{Task, World};

/// Bytes of device memory.
const VRAM: u64 = 64 << 20;
const OWNER: u64 = 7;

/// The first request of the driver.
pub const FIRST: u32 = 0x6440;

/// Requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Does nothing.
    Nothing,
    /// Adds one to the word at the address, `count` times, one access each.
    Add,
    /// Moves the range to device memory; first result: pages moved.
    ToDevice,
    /// Moves it back; the same.
    ToSystem,
    /// Makes the pages exclusive and maps them; first result: pages.
    Exclusive,
    /// First result: the page as a snapshot reports it.
    Query,
    /// First result: the word at the address.
    Read,
    /// Results: pages that the CPU's touch brought back, commands given to the agent.
    Stats,
    /// Evicts all device memory; first result: pages moved.
    Evict,
    /// Adds one as [`Ask::Add`], in device memory or exclusive pages only, else not.
    AddThere,
    /// As [`Ask::Add`], as one loop of the GPU; first result: how often it was added.
    Loop,
}

const ASKS: [Ask; 11] = [
    Ask::Nothing,
    Ask::Add,
    Ask::ToDevice,
    Ask::ToSystem,
    Ask::Exclusive,
    Ask::Query,
    Ask::Read,
    Ask::Stats,
    Ask::Evict,
    Ask::AddThere,
    Ask::Loop,
];

#[derive(Clone, Copy)]
struct Entry {
    phys: Phys,
    write: bool,
    /// The CPU cannot access it.
    alone: bool,
}

struct Mapped {
    mm: Mm,
    notifier: Arc<Notifier>,
    pages: Arc<RwLock<HashMap<u64, Entry>>>,
}

/// The driver.
pub struct Tiny {
    world: World,
    ends: Arc<Ends>,
    mapped: Mutex<BTreeMap<u64, Arc<Mapped>>>,
    frames: Mutex<BTreeSet<u64>>,
    this: Weak<Tiny>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tiny {
    /// Starts one.
    ///
    /// # Panics
    /// Without memory for it.
    #[must_use]
    pub fn new(backend: Backend) -> Arc<Tiny> {
        let spaces = Arc::new(Spaces::new(backend));
        let world = World::new(VRAM, 0, Some(spaces)).expect("a world");
        let new = Arc::new_cyclic(|this| Tiny {
            world,
            ends: Arc::default(),
            mapped: Mutex::default(),
            frames: Mutex::new((0..VRAM / PAGE).collect()),
            this: Weak::clone(this),
        });
        let sink: Weak<dyn Sink> = Arc::<Tiny>::downgrade(&new);
        new.world.home.connect(sink);
        new
    }

    /// Starts a client.
    ///
    /// # Errors
    /// Those of [`Command::spawn`].
    ///
    /// # Panics
    /// Never: the driver is alive while it is called.
    pub fn spawn(&self, command: Command) -> std::io::Result<Child> {
        let service: Arc<dyn Service> = self.this.upgrade().expect("alive");
        spawn::spawn(command, service, &self.ends)
    }

    /// Frames that are not in use.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.collect();
        lock(&self.frames).len() as u64
    }

    /// Number of all frames.
    #[must_use]
    pub fn frames(&self) -> u64 {
        VRAM / PAGE
    }

    /// Ends everything that runs for it.
    pub fn stop(&self) {
        lock(&self.mapped).clear();
        if let Some(spaces) = &self.world.spaces {
            spaces.stop();
        }
    }

    fn collect(&self) {
        let mut frames = lock(&self.frames);
        self.world.frames_freed(&mut |first, count| frames.extend(first..first + count));
    }

    fn mapped(&self, mm: Mm) -> Result<Arc<Mapped>, Errno> {
        let id = self.world.mm_id(&mm);
        if let Some(found) = lock(&self.mapped).get(&id) {
            return Ok(Arc::clone(found));
        }
        let notifier = self.world.notifier_insert(&mm, Span::new(PAGE, END), id)?;
        let new = Arc::new(Mapped { mm, notifier: Arc::new(notifier), pages: Arc::default() });
        Ok(Arc::clone(lock(&self.mapped).entry(id).or_insert(new)))
    }

    fn ask(&self, ask: Ask, mm: Mm, words: &mut [u64; 5]) -> Result<(), Errno> {
        let mapped = self.mapped(mm)?;
        let [addr, len, count, first, second] = words;
        let span = Span::new(*addr & !(PAGE - 1), addr.saturating_add((*len).max(1)));
        match ask {
            Ask::Nothing => {}
            Ask::Add => *first = self.add(&mapped, *addr, *count, false)?,
            Ask::AddThere => *first = self.add(&mapped, *addr, *count, true)?,
            Ask::ToDevice => {
                let (mm, devices) = (&mapped.mm, false);
                *first = self.migrate(Way::ToDevice { mm, span, owner: OWNER, devices })?;
            }
            Ask::ToSystem => {
                let mm = &mapped.mm;
                *first = self.migrate(Way::ToSystem { mm, span, owner: OWNER })?;
            }
            Ask::Exclusive => {
                *first = 0;
                for page in (span.start..span.end).step_by(PAGE as usize) {
                    *first += u64::from(self.exclusive(&mapped, page)?);
                }
            }
            Ask::Loop => *first = self.repeat(&mapped, *addr, *count)?,
            Ask::Query => {
                let mut page = [Pfn::default()];
                let span = Span::new(span.start, span.start + PAGE);
                let seq = self.world.read_begin(&mapped.notifier);
                let want = Want { owner: OWNER, ..Want::default() };
                self.world.range_fault(&mapped.mm, &mapped.notifier, seq, span, want, &mut page)?;
                *first = page[0].0;
            }
            Ask::Read => {
                let load = |world: &World, phys| world.gpu_load(phys, Width::Eight);
                *first = self.access(&mapped, *addr, false, load)?;
            }
            Ask::Stats => {
                let space = &mapped.mm.0;
                *first = space.faults.load(std::sync::atomic::Ordering::Relaxed);
                *second = space.lane.messages();
            }
            Ask::Evict => *first = self.migrate(Way::Evict { frame: 0, count: VRAM / PAGE })?,
        }
        Ok(())
    }

    /// One access of the GPU, with as many faults as it takes.
    fn access<R>(
        &self,
        mapped: &Mapped,
        addr: u64,
        write: bool,
        f: impl Fn(&World, Phys) -> Result<R, fencepost_core::host::BusError>,
    ) -> Result<R, Errno> {
        let page = addr & !(PAGE - 1);
        loop {
            {
                let pages = mapped.pages.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(entry) = pages.get(&page).filter(|entry| entry.write || !write) {
                    let phys = Phys { addr: entry.phys.addr + addr % PAGE, ..entry.phys };
                    return f(&self.world, phys).map_err(|_| Errno::IO);
                }
            }
            self.fault(mapped, page, write)?;
        }
    }

    fn fault(&self, mapped: &Mapped, page: u64, write: bool) -> Result<(), Errno> {
        let (world, span) = (&self.world, Span::new(page, page + PAGE));
        let seq = world.read_begin(&mapped.notifier);
        let flags = Pfn::VALID | if write { Pfn::WRITE } else { 0 };
        let want = Want { default_flags: flags, mask: 0, owner: OWNER };
        let mut pfn = [Pfn::default()];
        match world.range_fault(&mapped.mm, &mapped.notifier, seq, span, want, &mut pfn) {
            Err(Errno::BUSY) => return Ok(()),
            result => result?,
        }
        self.commit(mapped, page, seq, pfn[0])
    }

    /// Enters a page unless it has changed meanwhile.
    fn commit(&self, mapped: &Mapped, page: u64, seq: u64, pfn: Pfn) -> Result<(), Errno> {
        let mut pages = mapped.pages.write().unwrap_or_else(PoisonError::into_inner);
        if self.world.read_retry(&mapped.notifier, seq) {
            return Ok(());
        }
        let phys = if pfn.has(Pfn::DEVICE) {
            Phys { aperture: Aperture::Vram, addr: pfn.number() * PAGE }
        } else {
            let addr = self.world.dma_map_page(&mapped.mm, pfn, 0)?;
            Phys { aperture: Aperture::System, addr }
        };
        let alone = pfn.has(Pfn::DEVICE) || pfn.number() != page / PAGE;
        pages.insert(page, Entry { phys, write: pfn.has(Pfn::WRITE), alone });
        Ok(())
    }

    fn add(&self, mapped: &Mapped, addr: u64, count: u64, there: bool) -> Result<u64, Errno> {
        let one = Atomic { op: fencepost_uapi::command::ATOMIC_ADD, operand: 1, compare: 0 };
        let mut done = 0;
        while done < count {
            if there {
                // Only where nobody else can be at the same time.
                let pages = mapped.pages.write().unwrap_or_else(PoisonError::into_inner);
                let entry = pages.get(&(addr & !(PAGE - 1)));
                let Some(entry) = entry.filter(|entry| entry.write && entry.alone) else {
                    return Ok(done);
                };
                let phys = Phys { addr: entry.phys.addr + addr % PAGE, ..entry.phys };
                let old = self.world.gpu_load(phys, Width::Eight).map_err(|_| Errno::IO)?;
                self.world
                    .gpu_store(phys, Width::Eight, old.wrapping_add(1))
                    .map_err(|_| Errno::IO)?;
            } else {
                self.access(mapped, addr, true, |world, phys| {
                    world.gpu_atomic(phys, Width::Eight, one, true)
                })?;
            }
            done += 1;
        }
        Ok(done)
    }

    fn repeat(&self, mapped: &Mapped, addr: u64, count: u64) -> Result<u64, Errno> {
        let atomic = Atomic { op: fencepost_uapi::command::ATOMIC_ADD, operand: 1, compare: 0 };
        let times = u32::try_from(count).map_err(|_| Errno::INVAL)?;
        self.access(mapped, addr, true, |world, at| {
            let step = Step::Atomic { at, width: Width::Eight, atomic, result: None };
            Ok(world.gpu_loop(&[step], times, &mut [0; 16]).unwrap_or(0))
        })
    }

    fn migrate(&self, way: Way<'_, World>) -> Result<u64, Errno> {
        let to_device = matches!(way, Way::ToDevice { .. });
        let mut migration = self.world.migrate_setup(way)?;
        let pages = self.world.migrate_span(&migration).len() / PAGE;
        self.collect();
        for index in 0..pages as usize {
            let target = match self.world.migrate_source(&migration, index) {
                Source::Stays => continue,
                Source::Device { .. } if to_device => continue,
                _ if to_device => match lock(&self.frames).pop_first() {
                    Some(frame) => Target::Device { frame, order: 0 },
                    None => continue,
                },
                _ => Target::System { order: 0 },
            };
            self.world.migrate_target(&mut migration, index, target)?;
            self.world.migrate_copy(&mut migration, index)?;
        }
        self.world.migrate_commit(&mut migration);
        let moved = (0..pages as usize).filter(|at| self.world.migrate_moved(&migration, *at));
        let moved = moved.count() as u64;
        self.world.migrate_end(migration);
        self.collect();
        Ok(moved)
    }

    fn exclusive(&self, mapped: &Mapped, page: u64) -> Result<bool, Errno> {
        let seq = self.world.read_begin(&mapped.notifier);
        match self.world.make_exclusive(&mapped.mm, page, OWNER) {
            Ok((pfn, guard)) => {
                // Our own invalidation was this one's, so the sequence number is of after it.
                let _ = seq;
                let seq = self.world.read_begin(&mapped.notifier);
                self.commit(mapped, page, seq, pfn)?;
                drop(guard);
                Ok(true)
            }
            Err(Errno::BUSY) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

impl Sink for Tiny {
    fn invalidate(
        &self,
        cookie: u64,
        invalidation: &Invalidation,
        set_seq: &mut dyn FnMut(),
    ) -> bool {
        let Some(mapped) = lock(&self.mapped).get(&cookie).cloned() else {
            set_seq();
            return true;
        };
        let mut pages = mapped.pages.write().unwrap_or_else(PoisonError::into_inner);
        set_seq();
        let span = invalidation.span;
        pages.retain(|page, _| *page < span.start || *page >= span.end);
        true
    }

    fn cpu_fault(&self, fault: &mut CpuFault, addr: u64, _frame: u64) -> Result<(), Errno> {
        let span = Span::new(addr, addr + PAGE);
        self.migrate(Way::CpuFault { fault, span, owner: OWNER }).map(drop)
    }

    fn wake(&self) {}
}

impl Service for Tiny {
    fn serve(&self, port: &Arc<Port>, call: &Call) -> Answer {
        if call.nr != ARCH.ioctl {
            return self.world.change(call);
        }
        let asked = (call.args[1] as u32).wrapping_sub(FIRST) as usize;
        let Some(ask) = ASKS.get(asked) else { return self.world.agents_call(port, call) };
        let mut bytes = [0; 40];
        let way = self.world.way;
        if client::read(way, call.tid, call.args[2], &mut bytes).is_err() {
            return Answer::Error(libc::EFAULT);
        }
        let mut words = [0; 5];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        let task = Task { tid: call.tid, serial: 0 };
        let done = self.world.mm(task).and_then(|mm| self.ask(*ask, mm, &mut words));
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        match done {
            Ok(()) if client::write(way, call.tid, call.args[2], &bytes).is_ok() => {
                Answer::Value(0)
            }
            Ok(()) => Answer::Error(libc::EFAULT),
            Err(errno) => Answer::Error(errno.0),
        }
    }

    fn may_block(&self, _call: &Call) -> bool {
        true
    }

    fn mirrors(&self) -> bool {
        true
    }
}
