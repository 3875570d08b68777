//! The memory of the simulated world: processes' address spaces, buffer objects, VRAM frames and DMA
//! mappings.
//!
//! Owns the data and the check of every access. Pages exist once they are written; before that they
//! read as zeros. Misuse by the driver (a frame bound twice, an object destroyed while bound) is a bug
//! of the driver and panics.

use std::collections::{BTreeMap, HashMap};

use fencepost_core::host::{Aperture, Atomic, BoMem, BusError, Phys, Width};
use fencepost_uapi::errno::Errno;
use fencepost_uapi::fencepost::PAGE_SIZE;

const PAGE: usize = PAGE_SIZE as usize;

/// Pages by number; absent ones are zero.
#[derive(Default)]
pub(super) struct Pages(HashMap<u64, Box<[u8; PAGE]>>);

impl Pages {
    fn read(&self, at: u64, buf: &mut [u8]) {
        pieces(at, buf.len(), |page, offset, range| match self.0.get(&page) {
            Some(data) => {
                let len = range.len();
                buf[range].copy_from_slice(&data[offset..offset + len]);
            }
            None => buf[range].fill(0),
        });
    }

    fn write(&mut self, at: u64, buf: &[u8]) {
        pieces(at, buf.len(), |page, offset, range| {
            let data = self.0.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            let len = range.len();
            data[offset..offset + len].copy_from_slice(&buf[range]);
        });
    }
}

/// Cuts a range at page borders: page number, offset in it, range of the buffer.
fn pieces(at: u64, len: usize, mut each: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let addr = at + done as u64;
        let offset = (addr % PAGE_SIZE) as usize;
        let piece = (PAGE - offset).min(len - done);
        each(addr / PAGE_SIZE, offset, done..done + piece);
        done += piece;
    }
}

/// A process' memory: what was allocated can be used, the rest faults.
pub(super) struct Process {
    pages: Pages,
    /// Start and end of what is mapped.
    mapped: BTreeMap<u64, u64>,
    next: u64,
    /// A page for records of calls.
    pub(super) scratch: u64,
}

impl Process {
    pub(super) fn new() -> Self {
        let mut new = Process {
            pages: Pages::default(),
            mapped: BTreeMap::new(),
            next: 0x10_0000,
            scratch: 0,
        };
        new.scratch = new.alloc(PAGE_SIZE);
        new
    }

    /// Maps fresh pages, with a hole behind them.
    pub(super) fn alloc(&mut self, len: u64) -> u64 {
        let start = self.next;
        let end = start + len.max(1).next_multiple_of(PAGE_SIZE);
        self.mapped.insert(start, end);
        self.next = end + PAGE_SIZE;
        start
    }

    /// Unmaps everything above an address, for worlds that live long.
    pub(super) fn truncate(&mut self, above: u64) {
        let gone = self.mapped.split_off(&above);
        for (start, end) in gone {
            for page in start / PAGE_SIZE..end / PAGE_SIZE {
                self.pages.0.remove(&page);
            }
        }
        self.next = above;
    }

    pub(super) fn mark(&self) -> u64 {
        self.next
    }

    fn check(&self, addr: u64, len: usize) -> Result<(), Errno> {
        let end = addr.checked_add(len as u64).ok_or(Errno::FAULT)?;
        let around = self.mapped.range(..=addr).next_back();
        around.filter(|(_, mapped)| end <= **mapped).map(|_| ()).ok_or(Errno::FAULT)
    }

    pub(super) fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.check(addr, buf.len())?;
        self.pages.read(addr, buf);
        Ok(())
    }

    pub(super) fn write(&mut self, addr: u64, buf: &[u8]) -> Result<(), Errno> {
        self.check(addr, buf.len())?;
        self.pages.write(addr, buf);
        Ok(())
    }
}

struct Bo {
    size: u64,
    pages: Pages,
    /// Frames and DMA mappings that refer to it.
    uses: u64,
}

struct Dma {
    count: u64,
    mem: BoMem,
    page: u64,
}

/// Buffer objects and what the GPU sees of them.
#[derive(Default)]
pub(super) struct Objects {
    bos: HashMap<BoMem, Bo>,
    frames: HashMap<u64, (BoMem, u64)>,
    dma: BTreeMap<u64, Dma>,
    next_mem: u64,
    next_dma: u64,
}

impl Objects {
    pub(super) fn create(&mut self, size: u64) -> BoMem {
        self.next_mem += 1 << 32;
        let mem = BoMem(self.next_mem);
        self.next_mem += size;
        self.next_mem = self.next_mem.next_multiple_of(1 << 32);
        self.bos.insert(mem, Bo { size, pages: Pages::default(), uses: 0 });
        mem
    }

    pub(super) fn destroy(&mut self, mem: BoMem) {
        let bo = self.bos.remove(&mem).expect("the object exists");
        assert_eq!(bo.uses, 0, "an object that goes has no frame and no DMA mapping");
    }

    /// Number of objects.
    pub(super) fn count(&self) -> usize {
        self.bos.len()
    }

    pub(super) fn vram_bind(&mut self, frame: u64, mem: BoMem, page: u64, count: u64) {
        let bo = self.bos.get_mut(&mem).expect("the object exists");
        assert!((page + count) * PAGE_SIZE <= bo.size, "pages of the object");
        bo.uses += count;
        for i in 0..count {
            let before = self.frames.insert(frame + i, (mem, page + i));
            assert!(before.is_none(), "frame {} holds something", frame + i);
        }
    }

    pub(super) fn vram_unbind(&mut self, frame: u64, count: u64) {
        for i in 0..count {
            let (mem, _) = self.frames.remove(&(frame + i)).expect("the frame held something");
            self.bos.get_mut(&mem).expect("the object exists").uses -= 1;
        }
    }

    pub(super) fn dma_map(&mut self, mem: BoMem, page: u64, count: u64) -> u64 {
        let bo = self.bos.get_mut(&mem).expect("the object exists");
        assert!((page + count) * PAGE_SIZE <= bo.size, "pages of the object");
        bo.uses += 1;
        let align = [1 << 21, 1 << 16, 1 << 12].into_iter().find(|a| *a <= count * PAGE_SIZE);
        // A hole between two mappings, and no address twice: stale ones are noticed.
        let addr = (self.next_dma + PAGE_SIZE).next_multiple_of(align.unwrap_or(PAGE_SIZE));
        self.next_dma = addr + count * PAGE_SIZE;
        self.dma.insert(addr, Dma { count, mem, page });
        addr
    }

    pub(super) fn dma_unmap(&mut self, addr: u64, count: u64) {
        let dma = self.dma.remove(&addr).expect("something is mapped there");
        assert_eq!(dma.count, count, "unmapped as it was mapped");
        self.bos.get_mut(&dma.mem).expect("the object exists").uses -= 1;
    }

    /// The object behind a page of an aperture.
    fn resolve(&self, at: Phys) -> Result<(BoMem, u64), BusError> {
        match at.aperture {
            Aperture::Vram => {
                let (mem, page) = self.frames.get(&(at.addr / PAGE_SIZE)).ok_or(BusError)?;
                Ok((*mem, page * PAGE_SIZE + at.addr % PAGE_SIZE))
            }
            Aperture::System => {
                let (start, dma) = self.dma.range(..=at.addr).next_back().ok_or(BusError)?;
                let within = at.addr - start;
                match within < dma.count * PAGE_SIZE {
                    true => Ok((dma.mem, dma.page * PAGE_SIZE + within)),
                    false => Err(BusError),
                }
            }
        }
    }

    pub(super) fn read(&self, at: Phys, buf: &mut [u8]) -> Result<(), BusError> {
        let mut result = Ok(());
        pieces(at.addr, buf.len(), |page, offset, range| {
            let here = Phys { addr: page * PAGE_SIZE + offset as u64, ..at };
            match self.resolve(here) {
                Ok((mem, from)) => self.bos[&mem].pages.read(from, &mut buf[range]),
                Err(error) => result = Err(error),
            }
        });
        result
    }

    pub(super) fn write(&mut self, at: Phys, buf: &[u8]) -> Result<(), BusError> {
        let mut result = Ok(());
        pieces(at.addr, buf.len(), |page, offset, range| {
            let here = Phys { addr: page * PAGE_SIZE + offset as u64, ..at };
            match self.resolve(here) {
                Ok((mem, to)) => {
                    let bo = self.bos.get_mut(&mem).expect("resolved");
                    bo.pages.write(to, &buf[range]);
                }
                Err(error) => result = Err(error),
            }
        });
        result
    }

    pub(super) fn load(&self, at: Phys, width: Width) -> Result<u64, BusError> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes[..width.bytes() as usize])?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(super) fn store(&mut self, at: Phys, width: Width, value: u64) -> Result<(), BusError> {
        self.write(at, &value.to_le_bytes()[..width.bytes() as usize])
    }

    pub(super) fn atomic(
        &mut self,
        at: Phys,
        width: Width,
        atomic: Atomic,
    ) -> Result<u64, BusError> {
        let old = self.load(at, width)?;
        if let Some(new) = atomic.apply(old, width) {
            self.store(at, width, new)?;
        }
        Ok(old)
    }

    /// Reads an object's memory as a CPU mapping would.
    pub(super) fn peek(&self, mem: BoMem, offset: u64, buf: &mut [u8]) {
        self.bos[&mem].pages.read(offset, buf);
    }

    /// Writes an object's memory as a CPU mapping would; nothing when the object is gone.
    pub(super) fn poke(&mut self, mem: BoMem, offset: u64, buf: &[u8]) {
        if let Some(bo) = self.bos.get_mut(&mem) {
            bo.pages.write(offset, buf);
        }
    }
}
