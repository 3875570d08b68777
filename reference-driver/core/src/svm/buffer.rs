//! The replayable fault buffer: where engines put accesses that found no translation.
//!
//! Owns the ring with its put and get, and what a job that waits knows of its fate. Servicing is
//! [`super::fault`]'s. The room for entries is made with the device: an engine puts in the fence path.
//! When there is no room the engine tries the access again later, so that no fault is lost.

use fencepost_uapi::Errno;

use crate::facade::{Arc, AtomicBool, AtomicU32, AtomicU64, Fifo, Mutex, Ordering, Rank, Vec};
use crate::host::Host;
use crate::vm::mmu::Access;
use crate::vm::Vm;

/// Most entries that the buffer may be tuned to.
pub const MAX_ENTRIES: usize = 1024;
/// Most entries of a batch.
pub const MAX_BATCH: usize = 256;
const DEFAULT_ENTRIES: usize = 256;
const DEFAULT_BATCH: usize = 64;

/// Whether a job waits for a replay; shared by the job and its entry.
pub struct Park(AtomicU32);

const RUNNING: u32 = 0;
const WAITING: u32 = 1;
/// Plus the kind of the fault.
const CANCELLED: u32 = 2;

impl Park {
    /// It does not.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Self>, Errno> {
        Ok(Arc::new(Park(AtomicU32::new(RUNNING)))?)
    }

    /// Whether it waits.
    pub fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Acquire) == WAITING
    }

    /// It waits from now on.
    pub fn wait(&self) {
        self.0.store(WAITING, Ordering::Release);
    }

    fn end(&self, state: u32) -> bool {
        self.0.compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// It tries its access again. False: it did not wait.
    pub fn replay(&self) -> bool {
        self.end(RUNNING)
    }

    /// Its access is a fault of this kind. False: it did not wait.
    pub fn cancel(&self, kind: u32) -> bool {
        self.end(CANCELLED + kind)
    }

    /// The kind of the fault that its access was found to be.
    pub fn verdict(&self) -> Option<u32> {
        self.0.load(Ordering::Acquire).checked_sub(CANCELLED)
    }
}

/// An access that found no translation.
pub struct Entry<H: Host> {
    /// Where.
    pub vm: Arc<Vm<H>>,
    /// The job that waits.
    pub park: Arc<Park>,
    /// The address, to the byte.
    pub addr: u64,
    /// What it does.
    pub access: Access,
}

struct Ring<H: Host> {
    entries: Fifo<Entry<H>>,
    put: u64,
    get: u64,
    room: usize,
    batch: usize,
    /// Open file that tuned it; 0: none.
    tuned_by: u64,
    /// Open file that paused it; 0: none.
    paused_by: u64,
}

/// What the buffer is like now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Entries to be serviced.
    pub entries: u64,
    /// Entries ever put.
    pub put: u64,
    /// Entries ever taken.
    pub get: u64,
    /// Room for entries.
    pub room: u64,
    /// Servicing is paused.
    pub paused: bool,
}

/// The buffer of a device.
pub struct FaultBuffer<H: Host> {
    ring: Mutex<Ring<H>>,
    /// Entries taken and not serviced yet; the worker's, which takes the vector out while it works.
    work: Mutex<Vec<Entry<H>>>,
    /// Entries in both, to look at without the lock.
    load: AtomicU64,
    paused: AtomicBool,
    /// The worker is at it.
    busy: AtomicBool,
}

impl<H: Host> FaultBuffer<H> {
    /// An empty one, with all its memory.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new() -> Result<Self, Errno> {
        let mut entries = Fifo::new();
        entries.reserve(MAX_ENTRIES)?;
        let (room, batch) = (DEFAULT_ENTRIES, DEFAULT_BATCH);
        let ring = Ring { entries, put: 0, get: 0, room, batch, tuned_by: 0, paused_by: 0 };
        Ok(FaultBuffer {
            ring: Mutex::new(Rank::FaultBuffer, ring)?,
            work: Mutex::new(Rank::FaultBuffer, Vec::with_capacity(MAX_BATCH)?)?,
            load: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            busy: AtomicBool::new(false),
        })
    }

    /// Puts an entry; gives it back when there is no room. Fence path.
    ///
    /// # Errors
    /// The entry.
    pub fn put(&self, entry: Entry<H>) -> Result<(), Entry<H>> {
        let mut ring = self.ring.lock();
        if ring.entries.len() >= ring.room {
            return Err(entry);
        }
        let fits = ring.entries.push_back(entry).is_ok();
        debug_assert!(fits, "room for all was made with the device");
        ring.put += 1;
        self.load.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Whether there is something to service.
    pub fn is_runnable(&self) -> bool {
        self.load.load(Ordering::Acquire) > 0
            && !self.paused.load(Ordering::Acquire)
            && !self.busy.load(Ordering::Acquire)
    }

    /// The worker begins: gives it what it had left, or the next batch. `None`: there is nothing to do,
    /// or it is at work already.
    pub fn begin(&self) -> Option<Vec<Entry<H>>> {
        if !self.is_runnable() || self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let mut work = core::mem::take(&mut *self.work.lock());
        let mut ring = self.ring.lock();
        let batch = ring.batch.min(work.capacity());
        if work.is_empty() {
            while work.len() < batch {
                let Some(entry) = ring.entries.pop_front() else { break };
                let fits = work.push_within_capacity(entry).is_ok();
                debug_assert!(fits, "no more than the capacity");
                ring.get += 1;
            }
        }
        drop(ring);
        Some(work)
    }

    /// The worker ends; what is left it will find again.
    pub fn end(&self, work: Vec<Entry<H>>) {
        *self.work.lock() = work;
        self.busy.store(false, Ordering::Release);
    }

    /// An entry is serviced.
    pub fn serviced(&self) {
        self.load.fetch_sub(1, Ordering::AcqRel);
    }

    /// Drops the oldest entry of the ring without servicing it.
    pub fn flush_one(&self) -> Option<Entry<H>> {
        let mut ring = self.ring.lock();
        let entry = ring.entries.pop_front()?;
        ring.get += 1;
        self.load.fetch_sub(1, Ordering::AcqRel);
        Some(entry)
    }

    /// Services nothing until [`FaultBuffer::resume`], or the open file closes.
    pub fn pause(&self, file: u64) {
        self.ring.lock().paused_by = file;
        self.paused.store(true, Ordering::Release);
    }

    /// Goes on.
    pub fn resume(&self) {
        self.ring.lock().paused_by = 0;
        self.paused.store(false, Ordering::Release);
    }

    /// Sets the room for entries and the size of a batch until the open file closes.
    pub fn tune(&self, file: u64, room: Option<usize>, batch: Option<usize>) {
        let mut ring = self.ring.lock();
        ring.tuned_by = file;
        ring.room = room.unwrap_or(ring.room);
        ring.batch = batch.unwrap_or(ring.batch);
    }

    /// The size of a batch.
    pub fn batch(&self) -> usize {
        self.ring.lock().batch
    }

    /// An open file closes: what it did here ends.
    pub fn release_all_of(&self, file: u64) {
        let mut ring = self.ring.lock();
        if ring.tuned_by == file {
            (ring.room, ring.batch, ring.tuned_by) = (DEFAULT_ENTRIES, DEFAULT_BATCH, 0);
        }
        if ring.paused_by == file {
            ring.paused_by = 0;
            self.paused.store(false, Ordering::Release);
        }
    }

    /// What it is like now.
    pub fn report(&self) -> Report {
        let ring = self.ring.lock();
        Report {
            entries: self.load.load(Ordering::Acquire),
            put: ring.put,
            get: ring.get,
            room: ring.room as u64,
            paused: self.paused.load(Ordering::Acquire),
        }
    }
}
