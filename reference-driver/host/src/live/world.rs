//! The driver's host in real time: [`Host`] over client memory, the arena, descriptors and sleeping.
//! Owns what the driver sees of the world; who calls the driver is [`super::machine`]'s.

use std::cell::RefCell;
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fencepost_core::host::{Atomic, BoMem, BusError, FdKind, FdRef, Host, Phys, Step, Width};
use fencepost_uapi::Errno;
use nix::fcntl::OFlag;
use nix::time::{ClockId, clock_gettime};

use super::arena::{Arena, PAGE};
use super::files::{Files, What};
use super::gpu::Physical;
use super::mirror::Mm;
use super::mm::home::Home;
use super::mm::{self, Spaces, cpu_fault};
use super::serve::Port;
use super::sys::client::{self, Way};
use super::threads::{Pending, Threads};
use super::wait::Events;

/// How often a blocked call looks whether its caller was killed or has a signal, shortest and longest.
const LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(5)];

/// A calling thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) tid: i32,
    /// Tells it from a later thread with the same id.
    pub(crate) serial: u32,
}

/// The world of one device.
pub(crate) struct World {
    pub(crate) arena: Arena,
    pub(crate) files: Files,
    pub(crate) threads: Threads,
    pub(crate) events: Events,
    /// The driver has panicked or is shut down: nothing waits any more.
    pub(crate) over: AtomicBool,
    pub(crate) physical: Physical,
    /// Clients' address spaces, if they can be mirrored.
    pub(crate) spaces: Option<Arc<Spaces>>,
    /// This device, as they see it.
    pub(crate) home: Arc<Home>,
    /// Inode of the arena.
    pub(crate) inode: u64,
    regions: Mutex<Regions>,
    /// Bytes of [`Regions::destroyed`].
    destroyed_bytes: AtomicU64,
    pub(crate) way: Way,
}

/// Memory of objects that a client may have mapped.
#[derive(Default)]
struct Regions {
    /// Mapped at some time.
    mapped: HashSet<u64>,
    /// Mapped at some time and then destroyed: offset and size.
    destroyed: Vec<(u64, u64)>,
}

/// The call that a serving thread is in.
struct Current {
    port: Arc<Port>,
    call: u64,
    tid: i32,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Runs `f` as the service of a call: waits watch its caller, descriptors go to it.
pub(crate) fn within<R>(port: &Arc<Port>, call: u64, tid: i32, f: impl FnOnce() -> R) -> R {
    CURRENT.set(Some(Current { port: Arc::clone(port), call, tid }));
    let result = f();
    CURRENT.set(None);
    result
}

/// Runs `f` on the call that this thread serves, if it is one of that thread.
fn current<R>(task: Task, f: impl FnOnce(&Current) -> R) -> Option<R> {
    CURRENT.with_borrow(|current| current.as_ref().filter(|now| now.tid == task.tid).map(f))
}

/// The uAPI's form of a system call's error.
pub(crate) fn errno(errno: nix::errno::Errno) -> Errno {
    Errno(errno as i32)
}

impl World {
    /// A world with so much VRAM: the device of that number among those that share `spaces`.
    pub(crate) fn new(
        vram_bytes: u64,
        device: u8,
        spaces: Option<Arc<Spaces>>,
    ) -> Result<World, nix::errno::Errno> {
        let arena = Arena::new()?;
        let physical = Physical::new(vram_bytes);
        let home = Arc::new(Home::new(device, physical.content(), vram_bytes / PAGE));
        Ok(World {
            inode: nix::sys::stat::fstat(arena.memfd())?.st_ino,
            spaces,
            home,
            files: Files::new(arena.memfd())?,
            arena,
            threads: Threads::default(),
            events: Events::default(),
            over: AtomicBool::new(false),
            physical,
            regions: Mutex::default(),
            destroyed_bytes: AtomicU64::new(0),
            way: client::way(),
        })
    }

    /// Notes that a client maps an object's memory.
    pub(crate) fn note_mapped(&self, mem: BoMem) {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner).mapped.insert(mem.0);
    }

    /// Bytes of destroyed objects that could not be given back, because a client may have them mapped.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.destroyed_bytes.load(Ordering::Relaxed)
    }

    /// Gives back the memory of destroyed objects of which `in_use` knows no mapping.
    pub(crate) fn give_back(&self, in_use: impl Fn(u64, u64) -> bool) {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let Regions { mapped, destroyed } = &mut *regions;
        destroyed.retain(|(offset, size)| {
            let keep = in_use(*offset, *size);
            if !keep {
                mapped.remove(offset);
                self.punch(*offset, *size);
                self.destroyed_bytes.fetch_sub(*size, Ordering::Relaxed);
            }
            keep
        });
    }

    fn punch(&self, offset: u64, size: u64) {
        // Failure keeps memory until the device ends, no more.
        let _kept = self.arena.punch(offset, size);
    }

    /// Whether the caller of the call that this thread serves cannot go on waiting. `shared`
    /// remembers a signal that another thread may have taken meanwhile.
    fn is_interrupted(&self, task: Task, shared: &mut bool) -> bool {
        if !current(task, |now| now.port.listener.is_waiting(now.call)).unwrap_or(true) {
            return true;
        }
        match self.threads.signal_pending(task.tid) {
            Pending::Own => true,
            // Seen twice: this is the thread that the kernel has chosen.
            Pending::Shared => std::mem::replace(shared, true),
            Pending::No => {
                *shared = false;
                false
            }
        }
    }

    /// Brings back what is away of a range that the host is to copy; true when anything was.
    fn bring_back(&self, task: Task, addr: u64, len: u64) -> bool {
        let spaces = self.spaces.as_ref().filter(|spaces| !spaces.is_empty());
        let process = spaces.and_then(|_| self.threads.process(task.tid));
        let space = spaces.zip(process).and_then(|(spaces, process)| spaces.of(process));
        space.is_some_and(|space| cpu_fault::serve_range(&space, addr, len))
    }

    /// Whether memory of the task may be accessed: for one whose call is over, it must still be the
    /// same thread.
    fn check(&self, task: Task) -> Result<(), Errno> {
        let served = current(task, |_| ()).is_some();
        if served || self.threads.is_alive(task.tid, task.serial) {
            Ok(())
        } else {
            Err(Errno::FAULT)
        }
    }
}

impl Host for World {
    type Task = Task;

    fn mm(&self, task: Task) -> Result<Mm, Errno> {
        let spaces = self.spaces.as_ref().ok_or(Errno::OPNOTSUPP)?;
        let process = self.threads.process(task.tid).ok_or(Errno::OPNOTSUPP)?;
        spaces.enlist(process, task.tid, self.way).map(Mm)
    }

    fn can_mirror(&self, task: Task) -> bool {
        let spaces = self.spaces.as_ref();
        spaces.is_some_and(|_| mm::can_be_mirrored(task.tid, self.way))
    }

    fn now_ns(&self) -> u64 {
        // The clock cannot fail for this id.
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
            time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned()
        })
    }

    fn copy_from_user(&self, task: Task, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.check(task)?;
        let len = buf.len() as u64;
        let mut read = || client::read(self.way, task.tid, addr, buf).map_err(|_| Errno::FAULT);
        match read() {
            Err(_) if self.bring_back(task, addr, len) => read(),
            result => result,
        }
    }

    fn copy_to_user(&self, task: Task, addr: u64, buf: &[u8]) -> Result<(), Errno> {
        self.check(task)?;
        let write = || client::write(self.way, task.tid, addr, buf).map_err(|_| Errno::FAULT);
        match write() {
            Err(_) if self.bring_back(task, addr, buf.len() as u64) => write(),
            result => result,
        }
    }

    fn bo_create(&self, size: u64) -> Result<BoMem, Errno> {
        self.arena.allocate(size).map(BoMem).map_err(errno)
    }

    fn bo_destroy(&self, mem: BoMem, size: u64) {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        if regions.mapped.contains(&mem.0) {
            regions.destroyed.push((mem.0, size));
            self.destroyed_bytes.fetch_add(size, Ordering::Relaxed);
        } else {
            drop(regions);
            self.punch(mem.0, size);
        }
    }

    fn vram_bind(&self, frame: u64, mem: BoMem, page: u64, count: u64) -> Result<(), Errno> {
        self.physical.bind(frame, mem, page, count);
        Ok(())
    }

    fn vram_unbind(&self, frame: u64, count: u64) {
        self.physical.unbind(frame, count);
    }

    fn dma_map(&self, mem: BoMem, page: u64, count: u64) -> Result<u64, Errno> {
        self.physical.dma_map(mem, page, count)
    }

    fn dma_unmap(&self, addr: u64, _count: u64) {
        self.physical.dma_unmap(addr);
    }

    fn gpu_read(&self, at: Phys, buf: &mut [u8]) -> Result<(), BusError> {
        self.read_memory(at, buf)
    }

    fn gpu_write(&self, at: Phys, buf: &[u8]) -> Result<(), BusError> {
        self.write_memory(at, buf)
    }

    fn gpu_load(&self, at: Phys, width: Width) -> Result<u64, BusError> {
        self.load_word(at, width)
    }

    fn gpu_store(&self, at: Phys, width: Width, value: u64) -> Result<(), BusError> {
        self.store_word(at, width, value)
    }

    fn gpu_atomic(
        &self,
        at: Phys,
        width: Width,
        atomic: Atomic,
        _system: bool,
    ) -> Result<u64, BusError> {
        self.atomic_word(at, width, atomic)
    }

    fn gpu_copy(&self, to: Phys, from: Phys, len: u64) -> Result<(), (BusError, bool)> {
        self.copy_memory(to, from, len)
    }

    fn gpu_fill(&self, at: Phys, len: u64, width: Width, value: u64) -> Result<(), BusError> {
        self.fill_memory(at, len, width, value)
    }

    fn runs_loops(&self) -> bool {
        self.spaces.as_ref().is_some_and(|spaces| !spaces.is_empty())
    }

    fn gpu_loop(&self, steps: &[Step], repeat: u32, registers: &mut [u64; 16]) -> Option<u64> {
        self.run_steps(steps, repeat, registers)
    }

    fn gpu_fence(&self, _system: bool) {
        fence(Ordering::SeqCst);
    }

    fn wait_event(
        &self,
        task: Option<Task>,
        deadline_ns: Option<u64>,
        ready: &mut dyn FnMut() -> bool,
    ) -> Result<bool, Errno> {
        let (mut look, mut shared) = (LOOK[0], false);
        let mut look_at = Instant::now() + look;
        loop {
            let seen = self.events.now();
            let left = deadline_ns.map(|at| at.saturating_sub(self.now_ns()));
            if ready() {
                return Ok(true);
            }
            if left == Some(0) {
                return Ok(false);
            }
            if self.over.load(Ordering::SeqCst) {
                return Err(Errno::NODEV);
            }
            let left = left.map(Duration::from_nanos);
            let Some(task) = task else {
                self.events.sleep(seen, left);
                continue;
            };
            let until_look = look_at.saturating_duration_since(Instant::now());
            self.events.sleep(seen, Some(left.map_or(until_look, |left| left.min(until_look))));
            if Instant::now() >= look_at {
                if self.is_interrupted(task, &mut shared) {
                    return Err(Errno::RESTARTSYS);
                }
                look = (look * 2).min(LOOK[1]);
                look_at = Instant::now() + look;
            }
        }
    }

    fn wake(&self) {
        self.events.wake();
    }

    fn install_fd(&self, task: Task, kind: FdKind, id: u64, cloexec: bool) -> Result<i32, Errno> {
        let what = What::Object(kind, id);
        let made = match kind {
            FdKind::SyncFile => self.files.create_sync_file(id),
            FdKind::Prime | FdKind::Syncobj => self.files.create(what, OFlag::O_RDWR),
        };
        let made = made.map_err(errno)?;
        let give = |now: &Current| now.port.listener.install(now.call, made.fd.as_fd(), cloexec);
        match current(task, give) {
            Some(Ok(fd)) => Ok(fd),
            Some(Err(code)) => {
                self.files.discard(what, made);
                // A caller that was killed meanwhile hears nothing.
                Err(if code == libc::ENOENT { Errno::INTR } else { Errno(code) })
            }
            None => {
                self.files.discard(what, made);
                Err(Errno::BADF)
            }
        }
    }

    fn lookup_fd(&self, task: Task, fd: i32) -> Result<FdRef, Errno> {
        self.files.look_up(&self.threads, task.tid, fd).map_err(errno)
    }

    fn sync_file_signal(&self, id: u64, error: Option<Errno>) {
        self.files.signal(id, error.map_or(1, |errno| -errno.0));
    }
}
