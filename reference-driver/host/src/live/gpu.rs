//! What the GPU's physical addresses lead to: the frame table of VRAM and the DMA mappings of system
//! memory, both onto the [`Arena`]. Owns the two tables; page tables and TLBs are the driver's.
//!
//! An object's data stays where it is when the object moves: frames are relabelled. So CPU mappings
//! are coherent at all times, and a stale translation finds an empty frame or somebody else's
//! page.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, PoisonError, RwLock};

use fencepost_core::host::{Aperture, Atomic, BoMem, BusError, Phys, Width};
use fencepost_uapi::{Errno, command};

use super::arena::{Arena, PAGE};
use super::mm::CLIENTS;

/// Page sizes of the GPU in bytes, largest first.
const PAGES: [u64; 3] = [2 << 20, 64 << 10, 4 << 10];
/// First DMA address.
const DMA_START: u64 = 1 << 32;
/// One past the last DMA address.
const DMA_END: u64 = 1 << 48;

/// Physical memory as the GPU sees it.
pub(crate) struct Physical {
    /// Arena offset of the page in each frame; 0: empty.
    frames: Arc<Box<[AtomicU64]>>,
    dma: RwLock<Dma>,
}

struct Dma {
    /// First address: pages and arena offset.
    ranges: BTreeMap<u64, (u64, u64)>,
    next: u64,
}

/// Words of zero in pages that the kernel gives out on first use: a table costs what is used of it.
fn zeroed(len: usize) -> Box<[AtomicU64]> {
    let words: Box<[u64]> = vec![0; len].into_boxed_slice();
    // SAFETY: AtomicU64 has the size, alignment and validity of u64, and the box is passed on whole.
    unsafe { Box::from_raw(Box::into_raw(words) as *mut [AtomicU64]) }
}

impl Physical {
    /// Empty frames for so much VRAM.
    pub(crate) fn new(vram_bytes: u64) -> Physical {
        let frames = Arc::new(zeroed((vram_bytes / PAGE) as usize));
        let dma = Dma { ranges: BTreeMap::new(), next: DMA_START };
        Physical { frames, dma: RwLock::new(dma) }
    }

    /// The content of the frames, for those who fill them otherwise.
    pub(crate) fn content(&self) -> Arc<Box<[AtomicU64]>> {
        Arc::clone(&self.frames)
    }

    fn frames(&self, frame: u64, count: u64) -> &[AtomicU64] {
        let end = frame.saturating_add(count).min(self.frames.len() as u64);
        self.frames.get(frame.min(end) as usize..end as usize).unwrap_or(&[])
    }

    /// What is in a frame; 0: nothing.
    pub(crate) fn in_frame(&self, frame: u64) -> u64 {
        self.frames.get(frame as usize).map_or(0, |content| content.load(Ordering::Acquire))
    }

    /// Puts pages of an object into frames.
    pub(crate) fn bind(&self, frame: u64, mem: BoMem, page: u64, count: u64) {
        for (i, slot) in (page..).zip(self.frames(frame, count)) {
            slot.store(mem.0 + i * PAGE, Ordering::Release);
        }
    }

    /// Empties frames.
    pub(crate) fn unbind(&self, frame: u64, count: u64) {
        for slot in self.frames(frame, count) {
            slot.store(0, Ordering::Release);
        }
    }

    /// Maps pages of an object for DMA. Addresses are not used again.
    pub(crate) fn dma_map(&self, mem: BoMem, page: u64, count: u64) -> Result<u64, Errno> {
        let bytes = count.checked_mul(PAGE).ok_or(Errno::NOMEM)?;
        let align = PAGES.into_iter().find(|size| *size <= bytes).unwrap_or(PAGE);
        let mut dma = self.dma.write().unwrap_or_else(PoisonError::into_inner);
        let start = dma.next.next_multiple_of(align);
        // A page stays free behind each range.
        let next = start.checked_add(bytes + PAGE).filter(|end| *end <= DMA_END);
        dma.next = next.ok_or(Errno::NOMEM)?;
        dma.ranges.insert(start, (count, mem.0 + page * PAGE));
        Ok(start)
    }

    /// Undoes a DMA mapping.
    pub(crate) fn dma_unmap(&self, addr: u64) {
        self.dma.write().unwrap_or_else(PoisonError::into_inner).ranges.remove(&addr);
    }

    /// The arena offset behind an address; good up to the end of its page.
    fn translate(&self, at: Phys) -> Result<u64, BusError> {
        let within = at.addr % PAGE;
        match at.aperture {
            Aperture::Vram => {
                let slot = usize::try_from(at.addr / PAGE).ok().and_then(|i| self.frames.get(i));
                match slot.map(|slot| slot.load(Ordering::Acquire)) {
                    // A client's is not here.
                    Some(page) if page != 0 && page & CLIENTS == 0 => Ok(page + within),
                    _ => Err(BusError),
                }
            }
            Aperture::System => {
                let dma = self.dma.read().unwrap_or_else(PoisonError::into_inner);
                let (start, (count, page)) =
                    dma.ranges.range(..=at.addr).next_back().ok_or(BusError)?;
                let offset = at.addr - start;
                if offset < count * PAGE { Ok(page + offset) } else { Err(BusError) }
            }
        }
    }

    /// Calls `f` with arena offset and length of each piece within a page.
    fn pieces(
        &self,
        at: Phys,
        len: u64,
        mut f: impl FnMut(u64, u64, u64) -> Result<(), BusError>,
    ) -> Result<(), BusError> {
        let mut done = 0;
        while done < len {
            let addr = at.addr.checked_add(done).ok_or(BusError)?;
            let offset = self.translate(Phys { aperture: at.aperture, addr })?;
            let part = (PAGE - addr % PAGE).min(len - done);
            f(offset, done, part)?;
            done += part;
        }
        Ok(())
    }

    /// Reads bytes.
    pub(crate) fn read(&self, arena: &Arena, at: Phys, buf: &mut [u8]) -> Result<(), BusError> {
        self.pieces(at, buf.len() as u64, |offset, done, part| {
            let to = &mut buf[done as usize..(done + part) as usize];
            arena.read(offset, to).map_err(|_| BusError)
        })
    }

    /// Writes bytes.
    pub(crate) fn write(&self, arena: &Arena, at: Phys, buf: &[u8]) -> Result<(), BusError> {
        self.pieces(at, buf.len() as u64, |offset, done, part| {
            let from = &buf[done as usize..(done + part) as usize];
            arena.write(offset, from).map_err(|_| BusError)
        })
    }

    /// Loads a word.
    pub(crate) fn load(&self, arena: &Arena, at: Phys, width: Width) -> Result<u64, BusError> {
        let offset = self.translate(at)?;
        match width {
            Width::Four => arena.half(offset).map(|word| u64::from(word.load(Ordering::Acquire))),
            Width::Eight => arena.word(offset).map(|word| word.load(Ordering::Acquire)),
        }
        .map_err(|_| BusError)
    }

    /// Stores a word.
    pub(crate) fn store(
        &self,
        arena: &Arena,
        at: Phys,
        width: Width,
        value: u64,
    ) -> Result<(), BusError> {
        let offset = self.translate(at)?;
        match width {
            Width::Four => {
                arena.half(offset).map(|word| word.store(value as u32, Ordering::Release))
            }
            Width::Eight => arena.word(offset).map(|word| word.store(value, Ordering::Release)),
        }
        .map_err(|_| BusError)
    }

    /// Does an atomic operation, always atomic against the CPU too.
    pub(crate) fn atomic(
        &self,
        arena: &Arena,
        at: Phys,
        width: Width,
        atomic: Atomic,
    ) -> Result<u64, BusError> {
        let offset = self.translate(at)?;
        let order = Ordering::SeqCst;
        macro_rules! run {
            ($word:expr, $t:ty) => {{
                let word = $word.map_err(|_| BusError)?;
                let operand = atomic.operand as $t;
                let old = match atomic.op {
                    command::ATOMIC_ADD => word.fetch_add(operand, order),
                    command::ATOMIC_EXCHANGE => word.swap(operand, order),
                    command::ATOMIC_COMPARE_EXCHANGE => word
                        .compare_exchange(atomic.compare as $t, operand, order, order)
                        .unwrap_or_else(|old| old),
                    command::ATOMIC_AND => word.fetch_and(operand, order),
                    command::ATOMIC_OR => word.fetch_or(operand, order),
                    command::ATOMIC_XOR => word.fetch_xor(operand, order),
                    command::ATOMIC_MIN => word.fetch_min(operand, order),
                    _ => word.fetch_max(operand, order),
                };
                Ok(u64::from(old))
            }};
        }
        match width {
            Width::Four => run!(arena.half(offset), u32),
            Width::Eight => run!(arena.word(offset), u64),
        }
    }

    /// Copies, ascending, by words where both sides are aligned.
    pub(crate) fn copy(
        &self,
        arena: &Arena,
        to: Phys,
        from: Phys,
        len: u64,
    ) -> Result<(), (BusError, bool)> {
        let wide = to.addr.is_multiple_of(8) && from.addr.is_multiple_of(8);
        let step = if wide { 8 } else { 1 };
        let mut done = 0;
        while done < len {
            let next = |at: Phys| Phys { addr: at.addr + done, ..at };
            let (target, source) = (next(to), next(from));
            let source_at = self.translate(source).map_err(|error| (error, false))?;
            let target_at = self.translate(target).map_err(|error| (error, true))?;
            let room = (PAGE - target.addr % PAGE).min(PAGE - source.addr % PAGE).min(len - done);
            let mut word = [0; 8];
            for at in (0..room).step_by(step) {
                let word = &mut word[..step.min((room - at) as usize)];
                arena.read(source_at + at, word).map_err(|_| (BusError, false))?;
                arena.write(target_at + at, word).map_err(|_| (BusError, true))?;
            }
            done += room;
        }
        Ok(())
    }

    /// Fills with a word.
    pub(crate) fn fill(
        &self,
        arena: &Arena,
        at: Phys,
        len: u64,
        width: Width,
        value: u64,
    ) -> Result<(), BusError> {
        self.pieces(at, len, |offset, _, part| {
            for word in (offset..offset + part).step_by(width.bytes() as usize) {
                match width {
                    Width::Four => {
                        arena.half(word).map(|word| word.store(value as u32, Ordering::Relaxed))
                    }
                    Width::Eight => {
                        arena.word(word).map(|word| word.store(value, Ordering::Relaxed))
                    }
                }
                .map_err(|_| BusError)?;
            }
            Ok(())
        })?;
        fence(Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VRAM: fn(u64) -> Phys = |addr| Phys { aperture: Aperture::Vram, addr };
    const SYSTEM: fn(u64) -> Phys = |addr| Phys { aperture: Aperture::System, addr };

    fn world() -> (Arena, Physical, BoMem) {
        let arena = Arena::new().unwrap();
        let mem = BoMem(arena.allocate(8 * PAGE).unwrap());
        (arena, Physical::new(16 * PAGE), mem)
    }

    #[test]
    fn moving_relabels_frames_and_keeps_data() {
        let (arena, physical, mem) = world();
        physical.bind(4, mem, 1, 2);
        physical.write(&arena, VRAM(4 * PAGE + 4090), &[7; 12]).unwrap();
        physical.unbind(4, 2);
        let dma = physical.dma_map(mem, 0, 8).unwrap();
        let mut seen = [0; 12];
        physical.read(&arena, SYSTEM(dma + PAGE + 4090), &mut seen).unwrap();
        assert_eq!(seen, [7; 12]);
    }

    #[test]
    fn addresses_without_memory_are_bus_errors() {
        let (arena, physical, mem) = world();
        physical.bind(0, mem, 0, 1);
        let dma = physical.dma_map(mem, 0, 1).unwrap();
        let gone = physical.dma_map(mem, 0, 1).unwrap();
        physical.dma_unmap(gone);
        for at in [VRAM(PAGE), VRAM(1 << 40), VRAM(!7), SYSTEM(0), SYSTEM(dma + PAGE)] {
            assert_eq!(physical.load(&arena, at, Width::Eight), Err(BusError), "{at:?}");
        }
        assert_eq!(physical.load(&arena, SYSTEM(gone), Width::Four), Err(BusError));
        assert_eq!(physical.write(&arena, VRAM(PAGE - 4), &[1; 8]), Err(BusError), "half of it");
        assert_eq!(physical.copy(&arena, VRAM(PAGE), VRAM(0), 8), Err((BusError, true)));
        assert_eq!(physical.copy(&arena, VRAM(0), SYSTEM(gone), 8), Err((BusError, false)));
        physical.bind(15, mem, 0, 9);
        assert_eq!(physical.load(&arena, VRAM(15 * PAGE), Width::Eight), Ok(0), "the last frame");
    }

    #[test]
    fn dma_ranges_are_aligned_to_the_largest_page_within() {
        let (_arena, physical, mem) = world();
        for (count, align) in [(1, 4 << 10), (16, 64 << 10), (17, 64 << 10), (512, 2 << 20)] {
            let addr = physical.dma_map(mem, 0, count).unwrap();
            assert!(addr.is_multiple_of(align), "{count} pages at {addr:#x}");
        }
        assert_eq!(physical.dma_map(mem, 0, 1 << 40), Err(Errno::NOMEM));
    }

    #[test]
    fn atomics_agree_with_their_definition() {
        let (arena, physical, mem) = world();
        physical.bind(0, mem, 0, 1);
        let values = [0, 1, 5, u64::MAX, 1 << 63, 0xffff_ffff];
        for op in 0..8 {
            for (width, old, operand) in [Width::Four, Width::Eight]
                .into_iter()
                .flat_map(|w| values.map(|a| values.map(|b| (w, a, b))).into_iter().flatten())
            {
                let atomic = Atomic { op, operand, compare: 5 };
                physical.store(&arena, VRAM(8), width, old).unwrap();
                let before = physical.load(&arena, VRAM(8), width).unwrap();
                let want = atomic.apply(before, width).unwrap_or(before);
                assert_eq!(physical.atomic(&arena, VRAM(8), width, atomic), Ok(before));
                let seen = physical.load(&arena, VRAM(8), width).unwrap();
                assert_eq!(seen, want, "{op} {width:?} {old} {operand}");
            }
        }
    }

    #[test]
    fn copies_and_fills_cross_pages() {
        let (arena, physical, mem) = world();
        physical.bind(0, mem, 0, 8);
        physical.fill(&arena, VRAM(0), 2 * PAGE, Width::Four, 0x0403_0201).unwrap();
        for (to, from, len) in [(PAGE * 4 + 3, 1, 5000), (PAGE * 4, PAGE - 8, 4100)] {
            physical.copy(&arena, VRAM(to), VRAM(from), len).unwrap();
            let (mut want, mut seen) = (vec![0; len as usize], vec![0; len as usize]);
            physical.read(&arena, VRAM(from), &mut want).unwrap();
            physical.read(&arena, VRAM(to), &mut seen).unwrap();
            assert_eq!(seen, want);
            assert_eq!(want[0], (from % 4 + 1) as u8);
        }
    }
}
