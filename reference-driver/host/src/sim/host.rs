//! The simulated host: [`Host`] over [`super::memory`], the clock, and the descriptors of processes.
//!
//! Owns waiting: whoever waits drives the workers. When nothing can happen any more, a wait that can be
//! interrupted is, as if a signal had come; one that cannot is a deadlock of the driver and panics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fencepost_core::driver::{Config, Driver};
use fencepost_core::host::{Aperture, Atomic, BoMem, BusError, FdKind, FdRef, Host, Phys, Width};
use fencepost_uapi::Errno;
use fencepost_uapi::fencepost::PAGE_SIZE;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::cpu::Shared;
use super::memory::{Objects, Process};
use super::mirror::SimMm;
use super::mm::DMA_BASE;
use super::{Progress, step_any};

/// Descriptors that a process can have.
const MAX_FDS: usize = 1024;
/// Nobody waits longer in vain: then a signal comes.
const PATIENCE_NS: u64 = 3_600_000_000_000;

/// A process, which has one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task(usize);

impl Task {
    /// Number of its address space.
    pub(super) fn mm(self) -> usize {
        self.0
    }
}

struct World {
    processes: Vec<Process>,
    fds: Vec<Vec<Option<(FdKind, u64)>>>,
    objects: Objects,
    signalled_sync_files: Vec<(u64, Option<Errno>)>,
    rng: ChaCha8Rng,
    driver: Option<Driver<SimHost>>,
}

/// The simulated world.
pub struct SimHost {
    world: Mutex<World>,
    now_ns: AtomicU64,
    wakes: AtomicU64,
    /// The machine that the device is in, and its number there.
    cpu: Shared,
    number: u8,
    /// What happens while somebody waits next.
    meanwhile: Mutex<Option<Meanwhile>>,
}

/// Something that happens while the driver waits.
type Meanwhile = Box<dyn FnOnce() + Send>;

impl SimHost {
    /// A world with one process; the seed decides the order of work.
    #[must_use]
    pub fn new(seed: u64, _config: Config) -> Self {
        Self::on(seed, Shared::default())
    }

    /// A device of the same machine as another one.
    #[must_use]
    pub fn beside(seed: u64, other: &Self) -> Self {
        let new = Self::on(seed, other.cpu.clone());
        let processes = other.world().processes.len();
        for _ in 0..processes {
            let _task = new.new_process();
        }
        new
    }

    fn on(seed: u64, cpu: Shared) -> Self {
        let world = World {
            processes: vec![],
            fds: vec![],
            objects: Objects::default(),
            signalled_sync_files: vec![],
            rng: ChaCha8Rng::seed_from_u64(seed),
            driver: None,
        };
        SimHost {
            world: Mutex::new(world),
            now_ns: AtomicU64::new(1_000_000_000),
            wakes: AtomicU64::new(0),
            number: cpu.next_device(),
            cpu,
            meanwhile: Mutex::new(None),
        }
    }

    pub(super) fn cpu(&self) -> &Shared {
        &self.cpu
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// The next time that somebody waits, this happens first.
    pub fn meanwhile(&self, action: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(action));
    }

    /// Moves the clock of another device along.
    pub(super) fn advance_if_other(&self, other: &Self, ns: u64) {
        if self.number != other.number {
            self.advance(ns);
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn attach(&self, driver: Driver<SimHost>) {
        self.cpu.attach(self.number, Some(driver.clone()));
        self.world().driver = Some(driver);
    }

    pub(super) fn detach(&self) {
        self.cpu.attach(self.number, None);
        let driver = self.world().driver.take();
        drop(driver);
    }

    pub(super) fn new_process(&self) -> Task {
        let mut world = self.world();
        world.processes.push(Process::new());
        world.fds.push(vec![]);
        Task(world.processes.len() - 1)
    }

    /// A number below a bound, from the seed.
    pub(super) fn below(&self, bound: u32) -> u32 {
        let random = u64::from(self.world().rng.next_u32());
        ((random * u64::from(bound)) >> 32) as u32
    }

    /// Moves the clock.
    pub fn advance(&self, ns: u64) {
        self.now_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Moves the clock to a time, or a little when that is past.
    pub(super) fn advance_to(&self, until: u64) {
        self.advance(until.saturating_sub(self.now_ns()).max(1));
    }

    /// The address of a page for records of calls.
    #[must_use]
    pub fn scratch(&self, task: Task) -> u64 {
        self.world().processes[task.0].scratch
    }

    /// Maps fresh memory into a process.
    #[must_use]
    pub fn alloc_user(&self, task: Task, len: u64) -> u64 {
        self.world().processes[task.0].alloc(len)
    }

    /// A mark for [`SimHost::free_user`].
    #[must_use]
    pub fn mark_user(&self, task: Task) -> u64 {
        self.world().processes[task.0].mark()
    }

    /// Unmaps all that was allocated since a mark.
    pub fn free_user(&self, task: Task, mark: u64) {
        self.world().processes[task.0].truncate(mark);
    }

    /// Reads a process' memory.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read_user(&self, task: Task, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.world().processes[task.0].read(addr, buf)
    }

    /// Writes a process' memory.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write_user(&self, task: Task, addr: u64, buf: &[u8]) -> Result<(), Errno> {
        self.world().processes[task.0].write(addr, buf)
    }

    /// Reads an object through a CPU mapping.
    pub fn peek(&self, mem: BoMem, offset: u64, buf: &mut [u8]) {
        self.world().objects.peek(mem, offset, buf);
    }

    /// Writes an object through a CPU mapping.
    pub fn poke(&self, mem: BoMem, offset: u64, buf: &[u8]) {
        self.world().objects.poke(mem, offset, buf);
    }

    /// Objects whose memory exists.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.world().objects.count()
    }

    /// Sync files that poll readable, with their fence's error.
    #[must_use]
    pub fn signalled_sync_files(&self) -> Vec<(u64, Option<Errno>)> {
        self.world().signalled_sync_files.clone()
    }

    /// What a descriptor of a process stands for.
    #[must_use]
    pub fn fd(&self, task: Task, fd: i32) -> Option<(FdKind, u64)> {
        let at = usize::try_from(fd).ok()?;
        self.world().fds[task.0].get(at).copied().flatten()
    }

    pub(super) fn fd_count(&self, task: Task) -> i32 {
        self.world().fds[task.0].len() as i32
    }

    /// Copies a descriptor to another process, as SCM_RIGHTS does.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn pass_fd(&self, from: Task, fd: i32, to: Task) -> Result<i32, Errno> {
        let what = self.fd(from, fd).ok_or(Errno::BADF)?;
        let mut world = self.world();
        world.fds[to.0].push(Some(what));
        Ok(world.fds[to.0].len() as i32 - 1)
    }

    /// Takes a descriptor out; gives what it stood for when that was the last copy.
    pub(super) fn take_fd(&self, task: Task, fd: i32) -> Result<Option<(FdKind, u64)>, Errno> {
        let at = usize::try_from(fd).map_err(|_| Errno::BADF)?;
        let mut world = self.world();
        let place = world.fds[task.0].get_mut(at).ok_or(Errno::BADF)?;
        let what = place.take().ok_or(Errno::BADF)?;
        let another = world.fds.iter().flatten().any(|other| *other == Some(what));
        Ok((!another).then_some(what))
    }
}

impl SimHost {
    /// Reads what a device finds at a physical address: pages of address spaces, else objects.
    fn phys_read(&self, at: Phys, buf: &mut [u8]) -> Result<(), BusError> {
        each_page(at, buf.len(), |here, range| {
            let within = (here.addr % PAGE_SIZE) as usize;
            let out = &mut buf[range];
            self.with_page(here, |data| out.copy_from_slice(&data[within..within + out.len()]))?
                .map_or_else(|| self.world().objects.read(here, out), Ok)
        })
    }

    /// Writes there.
    fn phys_write(&self, at: Phys, buf: &[u8]) -> Result<(), BusError> {
        each_page(at, buf.len(), |here, range| {
            let within = (here.addr % PAGE_SIZE) as usize;
            let from = &buf[range];
            self.with_page(here, |data| data[within..within + from.len()].copy_from_slice(from))?
                .map_or_else(|| self.world().objects.write(here, from), Ok)
        })
    }

    /// Does something with the page of an address space at a physical address. `None`: it is none.
    fn with_page<R>(
        &self,
        at: Phys,
        f: impl FnOnce(&mut [u8; PAGE_SIZE as usize]) -> R,
    ) -> Result<Option<R>, BusError> {
        let mut machine = self.cpu.machine();
        match at.aperture {
            Aperture::System if at.addr >= DMA_BASE => {
                machine.dma_data(at.addr).map(|data| Some(f(data)))
            }
            Aperture::System => Ok(None),
            Aperture::Vram => {
                Ok(machine.frame_data(self.number, at.addr / PAGE_SIZE).map(|data| f(data)))
            }
        }
    }
}

/// Cuts a physical range at page borders.
fn each_page(
    at: Phys,
    len: usize,
    mut each: impl FnMut(Phys, std::ops::Range<usize>) -> Result<(), BusError>,
) -> Result<(), BusError> {
    let mut done = 0;
    while done < len {
        let here = Phys { addr: at.addr + done as u64, ..at };
        let left = (PAGE_SIZE - here.addr % PAGE_SIZE) as usize;
        let piece = left.min(len - done);
        each(here, done..done + piece)?;
        done += piece;
    }
    Ok(())
}

impl Host for SimHost {
    type Task = Task;

    fn mm(&self, task: Self::Task) -> Result<SimMm, Errno> {
        Ok(SimMm(task.mm()))
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::Relaxed)
    }

    fn copy_from_user(&self, task: Task, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.read_user(task, addr, buf).or_else(|_| self.cpu_read(task, addr, buf))
    }

    fn copy_to_user(&self, task: Task, addr: u64, buf: &[u8]) -> Result<(), Errno> {
        self.write_user(task, addr, buf).or_else(|_| self.cpu_write(task, addr, buf))
    }

    fn bo_create(&self, size: u64) -> Result<BoMem, Errno> {
        Ok(self.world().objects.create(size))
    }

    fn bo_destroy(&self, mem: BoMem, _size: u64) {
        self.world().objects.destroy(mem);
    }

    fn vram_bind(&self, frame: u64, mem: BoMem, page: u64, count: u64) -> Result<(), Errno> {
        self.world().objects.vram_bind(frame, mem, page, count);
        Ok(())
    }

    fn vram_unbind(&self, frame: u64, count: u64) {
        self.world().objects.vram_unbind(frame, count);
    }

    fn dma_map(&self, mem: BoMem, page: u64, count: u64) -> Result<u64, Errno> {
        Ok(self.world().objects.dma_map(mem, page, count))
    }

    fn dma_unmap(&self, addr: u64, count: u64) {
        self.world().objects.dma_unmap(addr, count);
    }

    fn gpu_read(&self, at: Phys, buf: &mut [u8]) -> Result<(), BusError> {
        self.phys_read(at, buf)
    }

    fn gpu_write(&self, at: Phys, buf: &[u8]) -> Result<(), BusError> {
        self.phys_write(at, buf)
    }

    fn gpu_load(&self, at: Phys, width: Width) -> Result<u64, BusError> {
        if self.with_page(at, |_| ())?.is_none() {
            return self.world().objects.load(at, width);
        }
        let mut bytes = [0; 8];
        self.phys_read(at, &mut bytes[..width.bytes() as usize])?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn gpu_store(&self, at: Phys, width: Width, value: u64) -> Result<(), BusError> {
        if self.with_page(at, |_| ())?.is_none() {
            return self.world().objects.store(at, width, value);
        }
        self.phys_write(at, &value.to_le_bytes()[..width.bytes() as usize])
    }

    fn gpu_atomic(
        &self,
        at: Phys,
        width: Width,
        atomic: Atomic,
        _system: bool,
    ) -> Result<u64, BusError> {
        if self.with_page(at, |_| ())?.is_none() {
            return self.world().objects.atomic(at, width, atomic);
        }
        let old = self.gpu_load(at, width)?;
        if let Some(new) = atomic.apply(old, width) {
            self.gpu_store(at, width, new)?;
        }
        Ok(old)
    }

    fn gpu_copy(&self, to: Phys, from: Phys, len: u64) -> Result<(), (BusError, bool)> {
        let mut done = 0;
        let mut buf = [0; 4096];
        // Ascending: bytes written are read again when the target begins within the source.
        let behind = to.addr.checked_sub(from.addr).filter(|by| *by > 0);
        let overlap = behind.filter(|_| to.aperture == from.aperture).unwrap_or(u64::MAX);
        while done < len {
            let piece = (len - done).min(buf.len() as u64).min(overlap) as usize;
            let source = Phys { addr: from.addr + done, ..from };
            let target = Phys { addr: to.addr + done, ..to };
            self.phys_read(source, &mut buf[..piece]).map_err(|error| (error, false))?;
            self.phys_write(target, &buf[..piece]).map_err(|error| (error, true))?;
            done += piece as u64;
        }
        Ok(())
    }

    fn gpu_fill(&self, at: Phys, len: u64, width: Width, value: u64) -> Result<(), BusError> {
        let word = &value.to_le_bytes()[..width.bytes() as usize];
        let mut buf = [0; 4096];
        for (byte, pattern) in buf.iter_mut().zip(word.iter().cycle()) {
            *byte = *pattern;
        }
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(buf.len() as u64);
            let target = Phys { addr: at.addr + done, ..at };
            self.phys_write(target, &buf[..piece as usize])?;
            done += piece;
        }
        Ok(())
    }

    fn gpu_fence(&self, _system: bool) {}

    fn wait_event(
        &self,
        task: Option<Task>,
        deadline_ns: Option<u64>,
        ready: &mut dyn FnMut() -> bool,
    ) -> Result<bool, Errno> {
        let driver = self.world().driver.clone();
        let meanwhile = self.meanwhile.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(action) = meanwhile {
            action();
        }
        loop {
            if ready() {
                return Ok(true);
            }
            if deadline_ns.is_some_and(|deadline| self.now_ns() >= deadline) {
                return Ok(false);
            }
            let end = deadline_ns.filter(|end| end - self.now_ns() < PATIENCE_NS);
            match (driver.as_ref().map_or(Progress::None, step_any), end, task) {
                (Progress::Work, ..) => {}
                (Progress::Until(until), Some(end), _) => self.advance_to(until.min(end)),
                (Progress::Until(until), None, _) => self.advance_to(until),
                (Progress::None, Some(end), _) => self.advance_to(end),
                (Progress::None, None, Some(_)) => return Err(Errno::RESTARTSYS),
                (Progress::None, None, None) => panic!("deadlock: nothing can end this wait"),
            }
        }
    }

    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }

    fn install_fd(&self, task: Task, kind: FdKind, id: u64, _cloexec: bool) -> Result<i32, Errno> {
        let mut world = self.world();
        let fds = &mut world.fds[task.0];
        let free = fds.iter().position(Option::is_none);
        if free.is_none() && fds.len() >= MAX_FDS {
            return Err(Errno::MFILE);
        }
        let at = free.unwrap_or(fds.len());
        if at == fds.len() {
            fds.push(None);
        }
        fds[at] = Some((kind, id));
        Ok(at as i32)
    }

    fn lookup_fd(&self, task: Task, fd: i32) -> Result<FdRef, Errno> {
        // Numbers above those of the driver stand for other open files, such as pipes.
        if fd as usize >= MAX_FDS && (fd as usize) < MAX_FDS + 8 {
            return Ok(FdRef::Other);
        }
        let (kind, id) = self.fd(task, fd).ok_or(Errno::BADF)?;
        Ok(FdRef::Ours(kind, id))
    }

    fn sync_file_signal(&self, id: u64, error: Option<Errno>) {
        self.world().signalled_sync_files.push((id, error));
    }
}
