//! Where the pages of an object are, and moving them.
//!
//! Owns the backing of objects: frames of VRAM or DMA mappings of system memory, the accounting of
//! both, and the steps of a move. Who has to move, and what page tables show meanwhile, is
//! [`super::evict`]'s.

use fencepost_uapi::fencepost::{
    INJECT_COPY, INJECT_DMA_MAP, PAGE_SIZE, REGION_SYSTEM, REGION_VRAM,
};
use fencepost_uapi::Errno;

use super::Gem;
use crate::call::Call;
use crate::counters::Counter;
use crate::device::Device;
use crate::facade::{Ordering, Vec};
use crate::host::{Aperture, Host, Phys};
use crate::vram::{Allocation, Block};

/// Frames of VRAM that an object has.
pub struct Frames {
    allocation: Allocation,
    /// Its blocks, each with the offset in the object that it holds, ascending.
    blocks: Vec<(u64, Block)>,
}

/// Where an object's pages are.
pub enum Place {
    /// Not placed yet, or not any more.
    Nowhere,
    /// In device memory.
    Vram(Frames),
    /// In system memory, all of it at this DMA address.
    System(u64),
}

impl Place {
    /// The region as the uAPI names it; 0: nowhere.
    #[must_use]
    pub fn region(&self) -> u32 {
        match self {
            Place::Nowhere => 0,
            Place::Vram(_) => REGION_VRAM,
            Place::System(_) => REGION_SYSTEM,
        }
    }

    /// The physically contiguous run that backs an object of `size` bytes from `offset` on: where it
    /// begins and its length.
    #[must_use]
    pub fn run(&self, offset: u64, size: u64) -> Option<(Phys, u64)> {
        match self {
            Place::Nowhere => None,
            Place::System(addr) => {
                let phys = Phys { aperture: Aperture::System, addr: addr + offset };
                Some((phys, size - offset))
            }
            Place::Vram(frames) => {
                let behind = frames.blocks.partition_point(|(start, _)| *start <= offset);
                let (start, block) = frames.blocks.get(behind.checked_sub(1)?)?;
                let within = offset - start;
                let len = (block.frames * PAGE_SIZE).checked_sub(within).filter(|len| *len > 0)?;
                let addr = block.frame * PAGE_SIZE + within;
                Some((Phys { aperture: Aperture::Vram, addr }, len))
            }
        }
    }

    /// Gives the backing of an object of `size` bytes back.
    pub fn free<H: Host>(self, dev: &Device<H>, size: u64) {
        match self {
            Place::Nowhere => {}
            Place::Vram(frames) => {
                for (_, block) in &frames.blocks {
                    dev.host.vram_unbind(block.frame, block.frames);
                }
                free_vram(dev, frames);
            }
            Place::System(addr) => {
                dev.host.dma_unmap(addr, size / PAGE_SIZE);
                dev.system_used.fetch_sub(size, Ordering::Relaxed);
                dev.counters.sub(Counter::LiveSystemBytes, size);
            }
        }
    }
}

/// Gives frames back that hold nothing.
pub fn free_vram<H: Host>(dev: &Device<H>, frames: Frames) {
    dev.counters.sub(Counter::LiveVramBytes, frames.allocation.frames() * PAGE_SIZE);
    dev.vram.lock().free(frames.allocation);
}

/// Frames of VRAM for `size` bytes, holding nothing yet.
///
/// # Errors
/// `ENOMEM`.
pub fn alloc_vram<H: Host>(dev: &Device<H>, size: u64) -> Result<Frames, Errno> {
    let allocation = dev.vram.lock().alloc(size / PAGE_SIZE)?;
    // The allocator's lock is taken in the fence path: memory for the list comes without it.
    let mut blocks = match Vec::with_capacity(allocation.blocks()) {
        Ok(blocks) => blocks,
        Err(error) => {
            dev.vram.lock().free(allocation);
            return Err(error.into());
        }
    };
    let mut offset = 0;
    for block in dev.vram.lock().blocks(&allocation) {
        let fits = blocks.push_within_capacity((offset, block)).is_ok();
        debug_assert!(fits, "the allocation said how many blocks it has");
        offset += block.frames * PAGE_SIZE;
    }
    dev.counters.add(Counter::LiveVramBytes, size);
    Ok(Frames { allocation, blocks })
}

/// Moves an object's data into frames of VRAM; with `is_copy` from another place, which may fail on
/// demand.
///
/// # Errors
/// `EIO`; the frames are free again and the data is where it was.
pub fn fill_vram<H: Host>(
    call: &Call<'_, H>,
    gem: &Gem<H>,
    frames: Frames,
    is_copy: bool,
) -> Result<Place, Errno> {
    let dev = call.dev;
    let mut result = match is_copy {
        true => call.inject(call.file.injection(INJECT_COPY), Errno::IO),
        false => Ok(()),
    };
    let mut bound = 0;
    for (offset, block) in &frames.blocks {
        if result.is_err() {
            break;
        }
        result = dev.host.vram_bind(block.frame, gem.mem, offset / PAGE_SIZE, block.frames);
        bound += usize::from(result.is_ok());
    }
    if let Err(errno) = result {
        for (_, block) in frames.blocks.iter().take(bound) {
            dev.host.vram_unbind(block.frame, block.frames);
        }
        free_vram(dev, frames);
        return Err(errno);
    }
    Ok(Place::Vram(frames))
}

/// System memory for an object, mapped for DMA, which may fail on demand.
///
/// # Errors
/// `ENOMEM`.
pub fn alloc_system<H: Host>(call: &Call<'_, H>, gem: &Gem<H>) -> Result<Place, Errno> {
    map_system(call.dev, gem, || call.inject(call.file.injection(INJECT_DMA_MAP), Errno::NOMEM))
}

/// As [`alloc_system`], for any caller.
///
/// # Errors
/// `ENOMEM`, and what `before` says just before the mapping is made.
pub fn map_system<H: Host>(
    dev: &Device<H>,
    gem: &Gem<H>,
    before: impl FnOnce() -> Result<(), Errno>,
) -> Result<Place, Errno> {
    let limit = dev.config.system_bytes;
    let grow = |used: u64| used.checked_add(gem.size).filter(|sum| *sum <= limit);
    dev.system_used
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow)
        .map_err(|_| Errno::NOMEM)?;
    let mapped = before().and_then(|()| dev.host.dma_map(gem.mem, 0, gem.size / PAGE_SIZE));
    match mapped {
        Ok(addr) => {
            dev.counters.add(Counter::LiveSystemBytes, gem.size);
            Ok(Place::System(addr))
        }
        Err(errno) => {
            dev.system_used.fetch_sub(gem.size, Ordering::Relaxed);
            Err(errno)
        }
    }
}

impl<H: Host> Gem<H> {
    /// The region it lives in now.
    pub fn resident(&self) -> u32 {
        self.place.lock().region()
    }

    /// Puts it elsewhere and returns the place before.
    pub fn set_place(&self, place: Place) -> Place {
        core::mem::replace(&mut *self.place.lock(), place)
    }
}
