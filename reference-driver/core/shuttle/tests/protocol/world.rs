//! The world of the models: threads, locks and condition variables of shuttle; memory as in the
//! simulated world.
//!
//! Owns a host whose waits are real ones, and the workers as threads. One process; its descriptors do
//! not exist.

use std::sync::{Mutex as Plain, MutexGuard as PlainGuard};

use fencepost_core::driver::{Config, Driver, File, Step, Worker};
use fencepost_core::host::{Atomic, BoMem, BusError, FdKind, FdRef, Host, Phys, Width};
use fencepost_uapi::{Errno, Record};
use shuttle::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::thread::{self, JoinHandle};

use crate::memory::{Objects, Process};
use crate::mirror::{Pages, DMA_BASE};

/// Memory, which no schedule need interrupt: what the driver must order is what it does with it.
struct Memory {
    process: Process,
    objects: Objects,
}

pub(crate) struct World {
    memory: Plain<Memory>,
    wakes: Mutex<u64>,
    woken: Condvar,
    now: AtomicU64,
    pub(crate) pages: Arc<Pages>,
}

impl World {
    fn memory(&self) -> PlainGuard<'_, Memory> {
        self.memory.lock().expect("no panic while it is held")
    }

    fn wait_for_wake(&self, seen: u64) {
        let mut wakes = self.wakes.lock().expect("not poisoned");
        while *wakes == seen {
            wakes = self.woken.wait(wakes).expect("not poisoned");
        }
    }

    fn seen(&self) -> u64 {
        *self.wakes.lock().expect("not poisoned")
    }
}

impl Host for World {
    type Task = ();

    fn mm(&self, _: Self::Task) -> Result<Self::Mm, Errno> {
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst)
    }

    fn copy_from_user(&self, (): (), addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.memory().process.read(addr, buf)
    }

    fn copy_to_user(&self, (): (), addr: u64, buf: &[u8]) -> Result<(), Errno> {
        self.memory().process.write(addr, buf)
    }

    fn bo_create(&self, size: u64) -> Result<BoMem, Errno> {
        Ok(self.memory().objects.create(size))
    }

    fn bo_destroy(&self, mem: BoMem, _size: u64) {
        self.memory().objects.destroy(mem);
    }

    fn vram_bind(&self, frame: u64, mem: BoMem, page: u64, count: u64) -> Result<(), Errno> {
        self.memory().objects.vram_bind(frame, mem, page, count);
        Ok(())
    }

    fn vram_unbind(&self, frame: u64, count: u64) {
        self.memory().objects.vram_unbind(frame, count);
    }

    fn dma_map(&self, mem: BoMem, page: u64, count: u64) -> Result<u64, Errno> {
        Ok(self.memory().objects.dma_map(mem, page, count))
    }

    fn dma_unmap(&self, addr: u64, count: u64) {
        self.memory().objects.dma_unmap(addr, count);
    }

    fn gpu_read(&self, at: Phys, buf: &mut [u8]) -> Result<(), BusError> {
        self.memory().objects.read(at, buf)
    }

    fn gpu_write(&self, at: Phys, buf: &[u8]) -> Result<(), BusError> {
        self.memory().objects.write(at, buf)
    }

    fn gpu_load(&self, at: Phys, width: Width) -> Result<u64, BusError> {
        self.memory().objects.load(at, width)
    }

    fn gpu_store(&self, at: Phys, width: Width, value: u64) -> Result<(), BusError> {
        if at.addr >= DMA_BASE {
            return self.pages.gpu(at.addr, |_| Some(value)).map(drop);
        }
        // Between translation and access: here an invalidation that does not wait would show.
        thread::yield_now();
        self.memory().objects.store(at, width, value)
    }

    fn gpu_atomic(&self, at: Phys, width: Width, atomic: Atomic, _: bool) -> Result<u64, BusError> {
        if at.addr >= DMA_BASE {
            return self.pages.gpu(at.addr, |old| atomic.apply(old, width));
        }
        self.memory().objects.atomic(at, width, atomic)
    }

    fn gpu_copy(&self, _: Phys, _: Phys, _: u64) -> Result<(), (BusError, bool)> {
        Err((BusError, true))
    }

    fn gpu_fill(&self, _: Phys, _: u64, _: Width, _: u64) -> Result<(), BusError> {
        Err(BusError)
    }

    fn gpu_fence(&self, _: bool) {}

    fn wait_event(
        &self,
        _: Option<()>,
        _: Option<u64>,
        ready: &mut dyn FnMut() -> bool,
    ) -> Result<bool, Errno> {
        loop {
            let seen = self.seen();
            if ready() {
                return Ok(true);
            }
            self.wait_for_wake(seen);
        }
    }

    fn wake(&self) {
        *self.wakes.lock().expect("not poisoned") += 1;
        self.woken.notify_all();
    }

    fn install_fd(&self, (): (), _: FdKind, _: u64, _: bool) -> Result<i32, Errno> {
        Err(Errno::MFILE)
    }

    fn lookup_fd(&self, (): (), _: i32) -> Result<FdRef, Errno> {
        Err(Errno::BADF)
    }

    fn sync_file_signal(&self, _: u64, _: Option<Errno>) {}
}

/// A device with its workers, and one open file.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) driver: Driver<World>,
    pub(crate) file: File<World>,
    /// How many workers were told to stop: those that give work to others first.
    stop: Arc<AtomicUsize>,
}

impl Device {
    pub(crate) fn start() -> (Self, Vec<JoinHandle<()>>) {
        Self::start_with(false)
    }

    /// With an address space that may lie.
    pub(crate) fn start_with(lies: bool) -> (Self, Vec<JoinHandle<()>>) {
        let world = World {
            memory: Plain::new(Memory { process: Process::new(), objects: Objects::default() }),
            wakes: Mutex::new(0),
            woken: Condvar::new(),
            now: AtomicU64::new(1),
            pages: Pages::new(lies),
        };
        let config =
            Config { vram_bytes: 64 << 10, system_bytes: 1 << 20, engines: 1, testing: true };
        let driver = Driver::new(world, config).expect("a device");
        let file = driver.open().expect("opens");
        driver.host().pages.attach(Some(driver.clone()));
        let device = Device { driver, file, stop: Arc::new(AtomicUsize::new(0)) };
        let all = [Worker::Engine(0)].into_iter().chain(Worker::COMMON);
        let workers = all.enumerate().map(|(place, worker)| {
            let device = device.clone();
            thread::spawn(move || device.work(worker, place))
        });
        let workers = workers.collect();
        (device, workers)
    }

    fn work(&self, worker: Worker, place: usize) {
        loop {
            let seen = self.driver.host().seen();
            // Looked at before the step: what was there when it was set is still done.
            let stopping = self.stop.load(Ordering::SeqCst) > place;
            match self.driver.step(worker) {
                Step::Worked => {}
                _ if stopping => break,
                Step::Stalled { .. } => thread::yield_now(),
                Step::Idle => self.driver.host().wait_for_wake(seen),
            }
        }
    }

    /// Closes the file, stops the workers and checks that nothing is left.
    pub(crate) fn stop(self, workers: Vec<JoinHandle<()>>) {
        self.driver.close(&self.file);
        for (place, worker) in workers.into_iter().enumerate() {
            self.stop.store(place + 1, Ordering::SeqCst);
            self.driver.host().wake();
            worker.join().expect("no worker panics");
        }
        self.pages().attach(None);
        let names = fencepost_uapi::fencepost::COUNTERS.iter();
        for (name, value) in names.zip(self.driver.counters()) {
            let must_be_zero = name.starts_with("live.") || *name == "leaks";
            assert!(value == 0 || !must_be_zero, "{value} {name}");
        }
        assert_eq!(self.driver.host().memory().objects.count(), 0, "memory of objects");
    }

    pub(crate) fn pages(&self) -> &Pages {
        &self.driver.host().pages
    }

    /// Waits for something that comes with a wake.
    pub(crate) fn wait_until(&self, mut ready: impl FnMut() -> bool) {
        let ready = self.driver.host().wait_event(None, None, &mut ready);
        assert_eq!(ready, Ok(true));
    }

    pub(crate) fn call<R: Record>(&self, request: u32, record: &mut R) -> Result<i64, Errno> {
        let mut bytes = vec![0; R::SIZE];
        record.encode(&mut bytes);
        let addr = self.bytes(&bytes);
        let result = self.driver.ioctl(&self.file, (), request, addr);
        self.driver.host().memory().process.read(addr, &mut bytes)?;
        *record = R::decode(&bytes);
        result
    }

    pub(crate) fn bytes(&self, bytes: &[u8]) -> u64 {
        let mut memory = self.driver.host().memory();
        let addr = memory.process.alloc(bytes.len() as u64);
        memory.process.write(addr, bytes).expect("just allocated");
        addr
    }

    pub(crate) fn array<R: Record>(&self, records: &[R]) -> u64 {
        let mut bytes = vec![0; records.len() * R::SIZE];
        for (record, out) in records.iter().zip(bytes.chunks_exact_mut(R::SIZE)) {
            record.encode(out);
        }
        self.bytes(&bytes)
    }

    pub(crate) fn peek(&self, mem: BoMem, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.driver.host().memory().objects.peek(mem, offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn poke(&self, mem: BoMem, offset: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.driver.host().memory().objects.poke(mem, offset, &bytes);
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let at = fencepost_uapi::fencepost::COUNTERS.iter().position(|known| *known == name);
        self.driver.counters()[at.expect("a counter")]
    }
}
