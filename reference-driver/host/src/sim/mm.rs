//! Address spaces of the simulated world: what the CPU maps where, pages of system memory and of
//! devices, DMA mappings.
//!
//! Owns the data and what an access finds; pure, without the driver. Who is told before something changes
//! stands in [`super::cpu`], what the driver asks in [`super::mirror`]. Misuse by the driver (a page
//! unmapped twice, a frame used twice) panics.

use std::collections::{BTreeMap, HashMap};

use fencepost_core::gpuva::Span;
use fencepost_core::host::BusError;
use fencepost_uapi::Errno;
use fencepost_uapi::fencepost::PAGE_SIZE;

const PAGE: usize = PAGE_SIZE as usize;

/// The bytes of a page.
pub(super) type Data = Box<[u8; PAGE]>;

pub(super) fn zeros() -> Data {
    Box::new([0; PAGE])
}

/// What memory an area has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Private anonymous memory in pages of 1 << order.
    Anon(u32),
    /// Shared memory.
    Shared,
    /// Huge pages of hugetlbfs.
    Hugetlb,
    /// Memory of some other device.
    Device,
}

/// An area of an address space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) end: u64,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) kind: Kind,
}

/// What an address space has at a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pte {
    /// The zero page.
    Zero,
    /// A page of system memory.
    Present { page: u64, write: bool },
    /// The same, exclusive to a device.
    Exclusive { page: u64, write: bool, owner: u64 },
    /// The same, written to a disk in the meantime.
    Swapped { page: u64, write: bool },
    /// A frame of a device.
    Device { device: u8, frame: u64, write: bool },
    /// It is being moved; who moves it knows from where.
    Moving,
}

impl Pte {
    /// An ordinary page of system memory again.
    pub(super) fn make_present(&mut self, writable: bool) {
        if let Pte::Exclusive { page, write, .. } = *self {
            *self = Pte::Present { page, write: write && writable };
        }
    }

    /// The page of system memory that it refers to.
    pub(super) fn page(self) -> Option<u64> {
        match self {
            Pte::Present { page, .. } | Pte::Exclusive { page, .. } | Pte::Swapped { page, .. } => {
                Some(page)
            }
            Pte::Zero | Pte::Device { .. } | Pte::Moving => None,
        }
    }
}

/// One address space.
#[derive(Default)]
pub(super) struct Space {
    pub(super) areas: BTreeMap<u64, Area>,
    /// By page number.
    pub(super) ptes: BTreeMap<u64, Pte>,
    /// Pages mapped as one: number of the first, order.
    pub(super) blocks: BTreeMap<u64, u32>,
    pub(super) ended: bool,
    /// Invalidations begun, and under way.
    pub(super) seq: u64,
    pub(super) active: Vec<Span>,
}

/// A page of system memory.
pub(super) struct SystemPage {
    pub(super) data: Data,
    pub(super) maps: u32,
    pub(super) pins: u32,
    pub(super) dma: u32,
    pub(super) locked: bool,
}

/// A frame of a device in the hands of the CPU's address spaces.
pub(super) struct Frame {
    pub(super) data: Data,
    pub(super) maps: u32,
    pub(super) locked: bool,
}

/// An interval notifier.
pub(super) struct Notifier {
    pub(super) mm: usize,
    pub(super) device: u8,
    pub(super) span: Span,
    pub(super) cookie: u64,
    pub(super) seq: u64,
}

struct Dma {
    page: u64,
    order: u32,
}

/// What an access of the CPU finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is done.
    Done,
    /// The page is in a device.
    Device { device: u8, frame: u64 },
    /// The page is exclusive to a device.
    Exclusive,
    /// The page is to be replaced before it is written.
    Copy,
    /// The page is being moved or locked.
    Wait,
}

/// What all devices of a simulated machine share.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) spaces: Vec<Space>,
    pub(super) pages: HashMap<u64, SystemPage>,
    pub(super) frames: HashMap<(u8, u64), Frame>,
    pub(super) notifiers: HashMap<u64, Notifier>,
    dma: BTreeMap<u64, Dma>,
    pub(super) freed: Vec<(u8, u64)>,
    next_page: u64,
    next_dma: u64,
    pub(super) next_notifier: u64,
}

/// DMA addresses of pages begin here, above those of objects.
pub(super) const DMA_BASE: u64 = 1 << 44;

impl Machine {
    pub(super) fn space(&mut self, mm: usize) -> &mut Space {
        while self.spaces.len() <= mm {
            self.spaces.push(Space::default());
        }
        &mut self.spaces[mm]
    }

    /// The area that has an address.
    pub(super) fn area(&self, mm: usize, addr: u64) -> Option<(Span, Area)> {
        let (start, area) = self.spaces.get(mm)?.areas.range(..=addr).next_back()?;
        (addr < area.end).then_some((Span::new(*start, area.end), *area))
    }

    /// Pages of system memory, contiguous and aligned to their number.
    fn alloc(&mut self, order: u32) -> u64 {
        let first = self.next_page.next_multiple_of(1 << order);
        self.next_page = first + (1 << order);
        for page in first..self.next_page {
            let new = SystemPage { data: zeros(), maps: 0, pins: 0, dma: 0, locked: false };
            self.pages.insert(page, new);
        }
        first
    }

    /// A page that nobody maps yet.
    pub(super) fn new_page(&mut self) -> u64 {
        self.alloc(0)
    }

    /// Contiguous pages that nobody maps yet.
    pub(super) fn new_pages(&mut self, order: u32) -> u64 {
        self.alloc(order)
    }

    /// Puts an entry where there is none, or in the place of one that moved away.
    pub(super) fn put(&mut self, mm: usize, number: u64, pte: Pte) {
        if let Some(page) = pte.page() {
            self.pages.get_mut(&page).expect("the page exists").maps += 1;
        }
        if let Pte::Device { device, frame, .. } = pte {
            self.frames.get_mut(&(device, frame)).expect("the frame exists").maps += 1;
        }
        self.space(mm).ptes.insert(number, pte);
    }

    /// Takes an entry out and lets go of what it mapped.
    pub(super) fn take(&mut self, mm: usize, number: u64) -> Option<Pte> {
        self.split(mm, number);
        let pte = self.space(mm).ptes.remove(&number)?;
        if let Some(page) = pte.page() {
            self.pages.get_mut(&page).expect("the page exists").maps -= 1;
            self.free_page(page);
        }
        if let Pte::Device { device, frame, .. } = pte {
            self.frames.get_mut(&(device, frame)).expect("the frame exists").maps -= 1;
            self.free_frame(device, frame);
        }
        Some(pte)
    }

    /// A large mapping becomes small ones.
    pub(super) fn split(&mut self, mm: usize, number: u64) {
        if let Some((first, _)) = self.block_of(mm, number) {
            self.space(mm).blocks.remove(&first);
        }
    }

    /// The large mapping around a page: its first page and order.
    pub(super) fn block_of(&self, mm: usize, number: u64) -> Option<(u64, u32)> {
        let (first, order) = self.spaces.get(mm)?.blocks.range(..=number).next_back()?;
        (number < first + (1 << order)).then_some((*first, *order))
    }

    /// A page goes when nobody has it any more.
    pub(super) fn free_page(&mut self, page: u64) {
        let Some(used) = self.pages.get(&page) else { return };
        if used.maps == 0 && used.pins == 0 && used.dma == 0 && !used.locked {
            self.pages.remove(&page);
        }
    }

    /// A frame goes when nobody has it any more.
    pub(super) fn free_frame(&mut self, device: u8, frame: u64) {
        let used = self.frames.get(&(device, frame)).expect("the frame exists");
        if used.maps == 0 && !used.locked {
            self.frames.remove(&(device, frame));
            self.freed.push((device, frame));
        }
    }

    /// Who maps a frame.
    pub(super) fn mappers(&self, device: u8, frame: u64) -> Vec<(usize, u64, bool)> {
        let mut all = vec![];
        for (mm, space) in self.spaces.iter().enumerate() {
            for (number, pte) in &space.ptes {
                match *pte {
                    Pte::Device { device: d, frame: f, write } if (d, f) == (device, frame) => {
                        all.push((mm, *number, write));
                    }
                    _ => {}
                }
            }
        }
        all
    }

    /// Makes what the CPU has at a page fit an access, as far as nobody must be told before.
    pub(super) fn touch(&mut self, mm: usize, addr: u64, write: bool) -> Result<Found, Errno> {
        let (span, area) = self.area(mm, addr).ok_or(Errno::FAULT)?;
        if self.spaces[mm].ended || !area.read || write && !area.write {
            return Err(Errno::FAULT);
        }
        let number = addr / PAGE_SIZE;
        let pte = self.spaces[mm].ptes.get(&number).copied();
        Ok(match pte {
            None => {
                self.populate(mm, span, area, number, write);
                Found::Done
            }
            Some(Pte::Zero) if !write => Found::Done,
            Some(Pte::Zero) => Found::Copy,
            Some(Pte::Present { write: true, .. }) => Found::Done,
            Some(Pte::Present { .. }) if !write => Found::Done,
            Some(Pte::Present { page, .. }) => self.write_fault(mm, number, page, area),
            Some(Pte::Swapped { page, write }) => {
                self.space(mm).ptes.insert(number, Pte::Present { page, write });
                return self.touch(mm, addr, write);
            }
            Some(Pte::Exclusive { page, .. }) if self.pages[&page].locked => Found::Wait,
            Some(Pte::Exclusive { .. }) => Found::Exclusive,
            Some(Pte::Device { device, frame, .. }) => Found::Device { device, frame },
            Some(Pte::Moving) => Found::Wait,
        })
    }

    /// A write to a page that is mapped for reading: alone it becomes writable, shared it is copied.
    fn write_fault(&mut self, mm: usize, number: u64, page: u64, area: Area) -> Found {
        let used = &self.pages[&page];
        let private = !matches!(area.kind, Kind::Shared | Kind::Device);
        if private && used.maps > 1 {
            return Found::Copy;
        }
        self.space(mm).ptes.insert(number, Pte::Present { page, write: true });
        Found::Done
    }

    /// First touch: the zero page for a read of private memory, else fresh pages, as many together
    /// as the area has.
    fn populate(&mut self, mm: usize, span: Span, area: Area, number: u64, write: bool) {
        let order = match area.kind {
            Kind::Anon(order) => order,
            Kind::Hugetlb => 9,
            Kind::Shared | Kind::Device => 0,
        };
        let first = number & !((1 << order) - 1);
        let block = Span::new(first * PAGE_SIZE, (first + (1 << order)) * PAGE_SIZE);
        let empty = self.spaces[mm].ptes.range(first..first + (1 << order)).next().is_none();
        let large = order > 0 && span.contains(block) && empty;
        let anonymous = matches!(area.kind, Kind::Anon(_));
        if anonymous && !write && !large {
            self.put(mm, number, Pte::Zero);
            return;
        }
        let (first, order) = if large { (first, order) } else { (number, 0) };
        let page = self.alloc(order);
        for i in 0..1u64 << order {
            self.put(mm, first + i, Pte::Present { page: page + i, write: area.write });
        }
        if order > 0 {
            self.space(mm).blocks.insert(first, order);
        }
    }

    /// Replaces the page at an address by a copy that may be written.
    pub(super) fn copy_on_write(&mut self, mm: usize, number: u64) {
        let page = self.new_page();
        let old = self.spaces[mm].ptes.get(&number).copied();
        if let Some(from) = old.and_then(Pte::page) {
            let data = self.pages[&from].data.clone();
            self.pages.get_mut(&page).expect("just made").data = data;
        }
        let _gone = self.take(mm, number);
        self.put(mm, number, Pte::Present { page, write: true });
    }

    /// The data behind an address that was just touched.
    pub(super) fn data(&mut self, mm: usize, addr: u64) -> Option<&mut Data> {
        let page = self.spaces[mm].ptes.get(&(addr / PAGE_SIZE))?.page()?;
        self.pages.get_mut(&page).map(|page| &mut page.data)
    }

    // ---- DMA

    pub(super) fn dma_map(&mut self, page: u64, order: u32) -> u64 {
        let size = PAGE_SIZE << order;
        let addr = (self.next_dma.max(DMA_BASE) + PAGE_SIZE).next_multiple_of(size);
        self.next_dma = addr + size;
        for page in page..page + (1 << order) {
            self.pages.get_mut(&page).expect("the page exists").dma += 1;
        }
        self.dma.insert(addr, Dma { page, order });
        addr
    }

    pub(super) fn dma_unmap(&mut self, addr: u64, order: u32) {
        let dma = self.dma.remove(&addr).expect("something is mapped there");
        assert_eq!(dma.order, order, "unmapped as it was mapped");
        for page in dma.page..dma.page + (1 << order) {
            self.pages.get_mut(&page).expect("the page exists").dma -= 1;
            self.free_page(page);
        }
    }

    /// DMA mappings of pages.
    pub(super) fn dma_count(&self) -> usize {
        self.dma.len()
    }

    /// Pages that they map.
    pub(super) fn dma_pages(&self) -> u64 {
        self.dma.values().map(|dma| 1 << dma.order).sum()
    }

    /// The bytes behind a DMA address.
    pub(super) fn dma_data(&mut self, addr: u64) -> Result<&mut Data, BusError> {
        let (start, dma) = self.dma.range(..=addr).next_back().ok_or(BusError)?;
        let within = (addr - start) / PAGE_SIZE;
        if within >= 1 << dma.order {
            return Err(BusError);
        }
        self.pages.get_mut(&(dma.page + within)).map(|page| &mut page.data).ok_or(BusError)
    }

    /// The bytes of a frame that an address space has.
    pub(super) fn frame_data(&mut self, device: u8, frame: u64) -> Option<&mut Data> {
        self.frames.get_mut(&(device, frame)).map(|frame| &mut frame.data)
    }
}
