//! The CPU's side of the simulated world: its accesses and what programs do to their address spaces.
//!
//! Owns the order that a kernel keeps: notifiers are told before translations end, then the change
//! happens, then waiters go on. No lock is held while the driver is told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fencepost_core::driver::Driver;
use fencepost_core::gpuva::Span;
use fencepost_core::host::Host;
use fencepost_core::host::mirror::{Event, Invalidation};
use fencepost_uapi::Errno;
use fencepost_uapi::fencepost::PAGE_SIZE;

use super::host::{SimHost, Task};
use super::mirror::CpuFault;
pub use super::mm::Kind;
use super::mm::{Area, Found, Machine, Pte};

/// What the devices of a machine share.
#[derive(Default)]
pub(super) struct Cpu {
    machine: Mutex<Machine>,
    drivers: Mutex<Vec<Option<Driver<SimHost>>>>,
}

impl Cpu {
    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drivers(&self) -> MutexGuard<'_, Vec<Option<Driver<SimHost>>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a device known, or forgets it.
    pub(super) fn attach(&self, device: u8, driver: Option<Driver<SimHost>>) {
        let before = {
            let mut drivers = self.drivers();
            while drivers.len() <= usize::from(device) {
                drivers.push(None);
            }
            std::mem::replace(&mut drivers[usize::from(device)], driver)
        };
        drop(before);
    }

    /// The driver of a device.
    pub(super) fn driver(&self, device: u8) -> Option<Driver<SimHost>> {
        self.drivers().get(usize::from(device)).cloned().flatten()
    }

    /// Number for one more device.
    pub(super) fn next_device(&self) -> u8 {
        self.drivers().len() as u8
    }

    /// Translations of a span end: tells every notifier.
    pub(super) fn begin(&self, mm: usize, span: Span, event: Event, owner: u64) {
        let (seq, told) = {
            let mut machine = self.machine();
            let space = machine.space(mm);
            space.seq += 1;
            space.active.push(span);
            let seq = space.seq;
            let mut told: Vec<(u64, u8, u64)> = machine
                .notifiers
                .iter()
                .filter(|(_, notifier)| notifier.mm == mm && notifier.span.overlaps(span))
                .map(|(id, notifier)| (*id, notifier.device, notifier.cookie))
                .collect();
            told.sort_unstable();
            (seq, told)
        };
        for (id, device, cookie) in told {
            let Some(driver) = self.driver(device) else { continue };
            let invalidation = Invalidation { span, event, owner, blockable: true };
            let mut set_seq = || {
                if let Some(notifier) = self.machine().notifiers.get_mut(&id) {
                    notifier.seq = seq;
                }
            };
            assert!(driver.invalidate(cookie, &invalidation, &mut set_seq), "it may sleep");
        }
    }

    /// The change has happened.
    pub(super) fn end(&self, mm: usize, span: Span) {
        let mut machine = self.machine();
        let active = &mut machine.space(mm).active;
        let at = active.iter().position(|one| *one == span).expect("it was begun");
        active.swap_remove(at);
        let freed: Vec<u8> = machine.freed.iter().map(|(device, _)| *device).collect();
        drop(machine);
        for device in freed {
            if let Some(driver) = self.driver(device) {
                driver.host().wake();
            }
        }
    }

    /// Changes a span as the kernel does.
    pub(super) fn change<R>(
        &self,
        mm: usize,
        span: Span,
        event: Event,
        owner: u64,
        change: impl FnOnce(&mut Machine) -> R,
    ) -> R {
        self.begin(mm, span, event, owner);
        let result = change(&mut self.machine());
        self.end(mm, span);
        result
    }
}

/// The pages of a span, by number.
pub(super) fn numbers(span: Span) -> std::ops::Range<u64> {
    span.start / PAGE_SIZE..span.end.div_ceil(PAGE_SIZE)
}

fn page_span(addr: u64) -> Span {
    let start = addr & !(PAGE_SIZE - 1);
    Span::new(start, start + PAGE_SIZE)
}

impl SimHost {
    /// Lets the CPU fault on an address until an access is possible.
    ///
    /// # Errors
    /// `EFAULT`: a segmentation fault; `EAGAIN`: the page is locked by somebody who goes on only after
    /// this; what moving it back came to (`SIGBUS`).
    pub(super) fn cpu_touch(&self, mm: usize, addr: u64, write: bool) -> Result<(), Errno> {
        for _ in 0..2_000_000 {
            let found = self.cpu().machine().touch(mm, addr, write)?;
            match found {
                Found::Done => return Ok(()),
                Found::Wait => return Err(Errno::AGAIN),
                Found::Device { device, frame } => self.device_fault(mm, addr, device, frame)?,
                Found::Exclusive => self.revoke(mm, addr),
                Found::Copy => {
                    let number = addr / PAGE_SIZE;
                    let copy = |machine: &mut Machine| machine.copy_on_write(mm, number);
                    self.cpu().change(mm, page_span(addr), Event::Clear, 0, copy);
                }
            }
        }
        panic!("{addr:#x} is never accessible");
    }

    /// The CPU touched a frame of a device.
    pub(super) fn device_fault(
        &self,
        mm: usize,
        addr: u64,
        device: u8,
        frame: u64,
    ) -> Result<(), Errno> {
        let driver = self.cpu().driver(device).ok_or(Errno::NODEV)?;
        let mut fault = CpuFault { mm, addr };
        let moved = driver.cpu_fault(&mut fault, addr, frame);
        // Whoever must wait for a timeslice does not wait for ever.
        self.advance(1_000);
        driver.host().advance_if_other(self, 1_000);
        moved
    }

    /// A page that is exclusive to a device becomes an ordinary one again.
    pub(super) fn revoke(&self, mm: usize, addr: u64) {
        let number = addr / PAGE_SIZE;
        self.cpu().change(mm, page_span(addr), Event::Clear, 0, |machine| {
            let writable = machine.area(mm, addr).is_some_and(|(_, area)| area.write);
            let pte = machine.space(mm).ptes.get_mut(&number);
            if let Some(pte) = pte {
                pte.make_present(writable);
            }
        });
    }

    /// Reads a process' memory as its own load does.
    ///
    /// # Errors
    /// As the access.
    pub fn cpu_read(&self, task: Task, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < buf.len() {
            let at = addr + done as u64;
            let within = (at % PAGE_SIZE) as usize;
            let piece = (PAGE_SIZE as usize - within).min(buf.len() - done);
            self.cpu_touch(task.mm(), at, false)?;
            let out = &mut buf[done..done + piece];
            match self.cpu().machine().data(task.mm(), at) {
                Some(data) => out.copy_from_slice(&data[within..within + piece]),
                None => out.fill(0),
            }
            done += piece;
        }
        Ok(())
    }

    /// Writes a process' memory as its own store does.
    ///
    /// # Errors
    /// As the access.
    pub fn cpu_write(&self, task: Task, addr: u64, buf: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        while done < buf.len() {
            let at = addr + done as u64;
            let within = (at % PAGE_SIZE) as usize;
            let piece = (PAGE_SIZE as usize - within).min(buf.len() - done);
            self.cpu_touch(task.mm(), at, true)?;
            let mut machine = self.cpu().machine();
            let data = machine.data(task.mm(), at).expect("it was touched for writing");
            data[within..within + piece].copy_from_slice(&buf[done..done + piece]);
            done += piece;
        }
        Ok(())
    }

    /// Loads a word.
    ///
    /// # Errors
    /// As the access.
    pub fn cpu_load(&self, task: Task, addr: u64) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        self.cpu_read(task, addr, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Stores a word.
    ///
    /// # Errors
    /// As the access.
    pub fn cpu_store(&self, task: Task, addr: u64, value: u64) -> Result<(), Errno> {
        self.cpu_write(task, addr, &value.to_le_bytes())
    }

    // ---- what programs do to their address space

    /// `mmap`, over whatever is there.
    pub fn mmap_cpu(&self, task: Task, span: Span, write: bool, kind: Kind) {
        self.munmap(task, span);
        let area = Area { end: span.end, read: true, write, kind };
        self.cpu().machine().space(task.mm()).areas.insert(span.start, area);
    }

    /// `munmap`.
    pub fn munmap(&self, task: Task, span: Span) {
        let mm = task.mm();
        self.cpu().change(mm, span, Event::Unmap, 0, |machine| {
            split_areas(machine, mm, span);
            machine.space(mm).areas.retain(|start, _| !(span.start..span.end).contains(start));
            drop_pages(machine, mm, span);
        });
    }

    /// `mprotect`.
    pub fn mprotect(&self, task: Task, span: Span, read: bool, write: bool) {
        let mm = task.mm();
        self.cpu().change(mm, span, Event::ProtectionVma, 0, |machine| {
            split_areas(machine, mm, span);
            let space = machine.space(mm);
            for (_, area) in space.areas.range_mut(span.start..span.end) {
                (area.read, area.write) = (read, write);
            }
            // What may be written is found out at the next access.
            for (_, pte) in space.ptes.range_mut(numbers(span)) {
                match pte {
                    Pte::Present { write, .. }
                    | Pte::Swapped { write, .. }
                    | Pte::Device { write, .. } => *write = false,
                    _ => {}
                }
            }
            for number in [span.start / PAGE_SIZE, span.end / PAGE_SIZE] {
                machine.split(mm, number);
            }
        });
    }

    /// `mremap` to a fixed place of the same size; with `keep` the old mapping stays, empty.
    pub fn mremap(&self, task: Task, span: Span, to: u64, keep: bool) {
        let mm = task.mm();
        self.munmap(task, Span::new(to, to + span.len()));
        self.cpu().change(mm, span, Event::Unmap, 0, |machine| {
            split_areas(machine, mm, span);
            for number in numbers(span) {
                machine.split(mm, number);
            }
            let space = machine.space(mm);
            let shift = |at: u64| at - span.start + to;
            let areas: Vec<_> =
                space.areas.range(span.start..span.end).map(|(k, v)| (*k, *v)).collect();
            for (start, area) in areas {
                space.areas.insert(shift(start), Area { end: shift(area.end), ..area });
                if !keep {
                    space.areas.remove(&start);
                }
            }
            let ptes: Vec<_> = space.ptes.range(numbers(span)).map(|(k, v)| (*k, *v)).collect();
            for (number, pte) in ptes {
                space.ptes.remove(&number);
                space.ptes.insert(shift(number * PAGE_SIZE) / PAGE_SIZE, pte);
            }
        });
    }

    /// `madvise(MADV_DONTNEED)`.
    pub fn discard(&self, task: Task, span: Span) {
        let mm = task.mm();
        let zap = |machine: &mut Machine| drop_pages(machine, mm, span);
        self.cpu().change(mm, span, Event::Clear, 0, zap);
    }

    /// The kernel writes system memory to a disk.
    pub fn swap_out(&self, task: Task, span: Span) {
        let mm = task.mm();
        self.cpu().change(mm, span, Event::Clear, 0, |machine| {
            for number in numbers(span) {
                machine.split(mm, number);
            }
            for (_, pte) in machine.space(mm).ptes.range_mut(numbers(span)) {
                if let Pte::Present { page, write } = *pte {
                    *pte = Pte::Swapped { page, write };
                }
            }
        });
    }

    /// Somebody pins the page at an address, so that it cannot move, or lets go of it.
    /// False: there is no page of system memory.
    pub fn pin(&self, task: Task, addr: u64, pinned: bool) -> bool {
        let mut machine = self.cpu().machine();
        let page =
            machine.space(task.mm()).ptes.get(&(addr / PAGE_SIZE)).and_then(|pte| pte.page());
        let Some(page) = page.and_then(|page| machine.pages.get_mut(&page)) else { return false };
        page.pins = if pinned { page.pins + 1 } else { page.pins - 1 };
        true
    }

    /// `fork`: a new process with a copy of the address space, private pages shared until they are
    /// written.
    #[must_use]
    pub fn fork(&self, task: Task) -> Task {
        let child = self.new_process();
        let (mm, new) = (task.mm(), child.mm());
        let exclusive: Vec<u64> = {
            let mut machine = self.cpu().machine();
            let space = machine.space(mm);
            let is = |pte: &Pte| matches!(pte, Pte::Exclusive { .. });
            space.ptes.iter().filter(|(_, pte)| is(pte)).map(|(number, _)| *number).collect()
        };
        for number in exclusive {
            self.revoke(mm, number * PAGE_SIZE);
        }
        let all = Span::new(0, 1 << 47);
        self.cpu()
            .change(mm, all, Event::ProtectionPage, 0, |machine| copy_space(machine, mm, new));
        child
    }

    /// The address space ends: its process exits.
    pub fn exit_mm(&self, task: Task) {
        let (mm, all) = (task.mm(), Span::new(0, 1 << 47));
        self.cpu().change(mm, all, Event::Release, 0, |machine| {
            drop_pages(machine, mm, all);
            let space = machine.space(mm);
            space.areas.clear();
            space.ended = true;
        });
    }

    /// Where the page at an address is: nothing, system memory (`Some(None)`), or a device.
    #[must_use]
    pub fn location(&self, task: Task, addr: u64) -> Option<Option<u8>> {
        let mut machine = self.cpu().machine();
        match machine.space(task.mm()).ptes.get(&(addr / PAGE_SIZE))? {
            Pte::Device { device, .. } => Some(Some(*device)),
            _ => Some(None),
        }
    }

    /// Whether the page at an address is exclusive to a device.
    #[must_use]
    pub fn is_exclusive(&self, task: Task, addr: u64) -> bool {
        let mut machine = self.cpu().machine();
        let pte = machine.space(task.mm()).ptes.get(&(addr / PAGE_SIZE)).copied();
        matches!(pte, Some(Pte::Exclusive { .. }))
    }

    /// Pages that are mapped for DMA, as often as they are.
    #[must_use]
    pub fn dma_pages(&self) -> u64 {
        self.cpu().machine().dma_pages()
    }

    /// DMA mappings of pages, notifiers, frames of devices that there are.
    #[must_use]
    pub fn mirrored(&self) -> (usize, usize, usize) {
        let machine = self.cpu().machine();
        (machine.dma_count(), machine.notifiers.len(), machine.frames.len())
    }
}

/// Cuts areas at the edges of a span.
fn split_areas(machine: &mut Machine, mm: usize, span: Span) {
    for edge in [span.start, span.end] {
        let Some((whole, area)) = machine.area(mm, edge) else { continue };
        if whole.start < edge {
            let areas = &mut machine.space(mm).areas;
            areas.insert(whole.start, Area { end: edge, ..area });
            areas.insert(edge, area);
        }
    }
}

fn drop_pages(machine: &mut Machine, mm: usize, span: Span) {
    let there: Vec<u64> = machine.space(mm).ptes.range(numbers(span)).map(|(n, _)| *n).collect();
    for number in there {
        let _gone = machine.take(mm, number);
    }
}

fn copy_space(machine: &mut Machine, mm: usize, new: usize) {
    let areas = machine.space(mm).areas.clone();
    let ptes: Vec<(u64, Pte)> = machine.space(mm).ptes.iter().map(|(n, pte)| (*n, *pte)).collect();
    for (number, pte) in ptes {
        let shared =
            machine.area(mm, number * PAGE_SIZE).is_some_and(|(_, a)| a.kind == Kind::Shared);
        let copy = match pte {
            _ if shared => pte,
            Pte::Present { page, .. } => Pte::Present { page, write: false },
            Pte::Swapped { page, .. } => Pte::Swapped { page, write: false },
            Pte::Device { device, frame, .. } => Pte::Device { device, frame, write: false },
            other => other,
        };
        machine.space(mm).ptes.insert(number, copy);
        machine.put(new, number, copy);
    }
    machine.space(new).areas = areas;
}

/// The machine that a host is part of.
pub(super) type Shared = Arc<Cpu>;
