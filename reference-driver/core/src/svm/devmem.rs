//! Device memory in the hands of the CPU's address spaces.
//!
//! Owns the chunks: frames that were filled together, for whom, how long they may stay, in which order
//! they are evicted, and their way back to the allocator that objects use as well. Frames given to a
//! migration are the world's until it gives them back. Moving is [`super::migrate`]'s.

use fencepost_uapi::fencepost::PAGE_SIZE;
use fencepost_uapi::Errno;

use crate::counters::Counter;
use crate::device::Device;
use crate::facade::inject::Injection;
use crate::facade::{AllocError, Arc, Mutex, Slab, Vec};
use crate::host::Host;

/// Failures that may hit a migration.
#[derive(Clone)]
pub struct Failures {
    /// Of copies.
    pub copy: Arc<Injection>,
    /// Of memory for the pages.
    pub memory: Arc<Injection>,
}

/// Frames that were filled together.
pub struct Chunk {
    /// First frame.
    pub frame: u64,
    /// Number of frames, a power of two.
    pub frames: u64,
    /// Tells it from others that had its place before.
    serial: u64,
    /// Frames that are not given back.
    live: u64,
    /// The migration that fills it has ended.
    ready: bool,
    /// The VM that brought it.
    vm: u64,
    /// Until then it stays, though the CPU touches it.
    until_ns: u64,
    /// Stamp of the least-recently-used order.
    last_use: u64,
    failures: Failures,
}

/// What a chunk is made with.
pub struct NewChunk<'a> {
    /// Order of its block.
    pub order: u32,
    /// The VM that brings it.
    pub vm: u64,
    /// Until when it stays, though the CPU touches it.
    pub until_ns: u64,
    /// Failures that may hit its way back.
    pub failures: &'a Failures,
}

/// A chunk as others know it.
#[derive(Clone)]
pub struct Known {
    /// First frame.
    pub frame: u64,
    /// Number of frames.
    pub frames: u64,
    /// Until when it stays.
    pub until_ns: u64,
    /// Its place in the order of eviction.
    pub key: (u64, u64),
    /// Failures that may hit its way back.
    pub failures: Failures,
}

/// The chunks of a device.
pub struct Devmem {
    chunks: Slab<Chunk>,
    /// Number of the chunk of each frame; 0: none.
    owners: Vec<u32>,
    serials: u64,
}

impl Devmem {
    /// None.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new(frames: u64) -> Result<Self, AllocError> {
        let mut owners = Vec::new();
        owners.resize(usize::try_from(frames).map_err(|_| AllocError)?, 0)?;
        Ok(Devmem { chunks: Slab::new(), owners, serials: 0 })
    }

    fn known(chunk: &Chunk) -> Known {
        Known {
            frame: chunk.frame,
            frames: chunk.frames,
            until_ns: chunk.until_ns,
            key: (chunk.last_use, chunk.serial),
            failures: chunk.failures.clone(),
        }
    }

    /// The chunk that has a frame.
    fn of(&self, frame: u64) -> Option<&Chunk> {
        self.chunks.get(*self.owners.get(frame as usize)?)
    }

    /// Takes frames out of their chunks; a chunk goes with its last frame.
    fn take(&mut self, first: u64, count: u64) {
        for frame in first..first + count {
            let Some(owner) = self.owners.get_mut(frame as usize) else { return };
            let id = core::mem::take(owner);
            debug_assert!(id != 0, "the frame has a chunk");
            let Some(chunk) = self.chunks.get_mut(id) else { continue };
            chunk.live -= 1;
            if chunk.live == 0 {
                drop(self.chunks.remove(id));
            }
        }
    }
}

/// A block of frames for a migration.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    /// First frame.
    pub frame: u64,
    serial: u64,
}

/// Takes a block that is free.
///
/// # Errors
/// `ENOMEM`.
pub fn reserve<H: Host>(dev: &Device<H>, new: &NewChunk<'_>) -> Result<Reserved, Errno> {
    let frames = 1 << new.order;
    let frame = dev.vram.lock().alloc_block(new.order).ok_or(Errno::NOMEM)?;
    let serial = {
        let mut devmem = dev.svm.devmem.lock();
        devmem.serials += 1;
        devmem.serials
    };
    let chunk = Chunk {
        frame,
        frames,
        serial,
        live: frames,
        ready: false,
        vm: new.vm,
        until_ns: new.until_ns,
        last_use: dev.next_use(),
        failures: new.failures.clone(),
    };
    let id = match Slab::insert_locked(&dev.svm.devmem, |devmem| &mut devmem.chunks, chunk) {
        Ok(id) => id,
        Err(error) => {
            dev.vram.lock().free_run(frame, frames);
            return Err(error.into());
        }
    };
    dev.svm.devmem.lock().owners[frame as usize..(frame + frames) as usize].fill(id);
    dev.counters.add(Counter::LiveVramBytes, frames * PAGE_SIZE);
    dev.counters.add(Counter::LiveSvmPages, frames);
    Ok(Reserved { frame, serial })
}

/// The migration that fills a block has ended: it may be evicted from now on.
pub fn ready<H: Host>(dev: &Device<H>, block: Reserved) {
    let mut devmem = dev.svm.devmem.lock();
    let id = devmem.owners.get(block.frame as usize).copied().unwrap_or(0);
    let chunk = match devmem.chunks.get(id) {
        Some(chunk) if chunk.serial == block.serial => devmem.chunks.get_mut(id),
        // Its first frame is not its any more, or all of it is given back.
        _ => find_serial(&mut devmem.chunks, block.serial),
    };
    if let Some(chunk) = chunk {
        chunk.ready = true;
    }
}

fn find_serial(chunks: &mut Slab<Chunk>, serial: u64) -> Option<&mut Chunk> {
    let found = chunks.iter().find(|(_, chunk)| chunk.serial == serial).map(|(id, _)| id)?;
    chunks.get_mut(found)
}

/// Frames are nobody's any more.
pub fn give_back<H: Host>(dev: &Device<H>, first: u64, count: u64) {
    dev.svm.devmem.lock().take(first, count);
    dev.vram.lock().free_run(first, count);
    dev.counters.sub(Counter::LiveVramBytes, count * PAGE_SIZE);
    dev.counters.sub(Counter::LiveSvmPages, count);
}

/// Takes back what the world has freed.
pub fn drain<H: Host>(dev: &Device<H>) {
    dev.host.frames_freed(&mut |first, count| give_back(dev, first, count));
}

/// What is known of the chunk that has a frame.
pub fn known<H: Host>(dev: &Device<H>, frame: u64) -> Option<Known> {
    dev.svm.devmem.lock().of(frame).map(Devmem::known)
}

/// The GPU uses a frame: its chunk goes to the end of the order of eviction.
pub fn touch<H: Host>(dev: &Device<H>, frame: u64) {
    let stamp = dev.next_use();
    let mut devmem = dev.svm.devmem.lock();
    let id = devmem.owners.get(frame as usize).copied().unwrap_or(0);
    if let Some(chunk) = devmem.chunks.get_mut(id) {
        chunk.last_use = stamp;
    }
}

/// The least recently used chunk behind a place in the order; of a VM, or of all (0).
pub fn oldest<H: Host>(dev: &Device<H>, after: (u64, u64), vm: u64) -> Option<Known> {
    let devmem = dev.svm.devmem.lock();
    let fits = |chunk: &&Chunk| {
        chunk.ready && (chunk.last_use, chunk.serial) > after && (vm == 0 || chunk.vm == vm)
    };
    let chunks = devmem.chunks.iter().map(|(_, chunk)| chunk);
    chunks.filter(fits).min_by_key(|chunk| (chunk.last_use, chunk.serial)).map(Devmem::known)
}

/// Panics if the chunks do not add up; returns the frames that they have.
pub fn check<H: Host>(dev: &Device<H>) -> u64 {
    let devmem = dev.svm.devmem.lock();
    let owned = devmem.owners.iter().filter(|owner| **owner != 0).count() as u64;
    let live: u64 = devmem.chunks.iter().map(|(_, chunk)| chunk.live).sum();
    assert_eq!(live, owned, "frames of chunks");
    owned
}

/// The chunks of a new device.
///
/// # Errors
/// `ENOMEM`.
pub fn new(frames: u64) -> Result<Mutex<Devmem>, Errno> {
    Ok(Mutex::new(crate::facade::Rank::Devmem, Devmem::new(frames)?)?)
}
