//! How commands reach memory: every access goes through the VM's MMU, by the piece that one page-table
//! entry maps.
//!
//! Owns the checks of addresses, the cutting of long accesses, what NULL and sparse memory answers, and
//! the making of faults. An access holds the MMU's lock from translation to completion, so that an
//! invalidation waits for it.

use fencepost_uapi::fencepost as fp;

use crate::device::Device;
use crate::host::{Atomic, BusError, Host, Phys, Width};
use crate::pgtable::Entry;
use crate::vm::mmu::{Access, Mmu, Refused};
use crate::vm::Vm;

/// A fault of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// GPU address.
    pub addr: u64,
    /// What was tried.
    pub access: Access,
    /// `FAULT_KIND_*`.
    pub kind: u32,
}

/// Why a command did not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It faulted.
    Fault(Fault),
    /// The VM is paused; it can be tried again.
    Paused,
    /// There is no translation, but there may be one: the VM takes faults.
    Missing(Fault),
}

fn fault<T>(addr: u64, access: Access, kind: u32) -> Result<T, Stop> {
    Err(Stop::Fault(Fault { addr, access, kind }))
}

/// An engine's way to the memory of a VM.
pub struct Port<'a, H: Host> {
    /// The device.
    pub dev: &'a Device<H>,
    /// The VM.
    pub vm: &'a Vm<H>,
    /// The engine, which has a TLB of its own.
    pub engine: u32,
}

impl<H: Host> Port<'_, H> {
    fn translate(&self, mmu: &mut Mmu, addr: u64, access: Access) -> Result<Entry, Stop> {
        if addr >= self.vm.span.end {
            return fault(addr, access, fp::FAULT_KIND_ADDRESS);
        }
        match mmu.translate(self.dev, self.engine, addr, access) {
            Ok(entry) => Ok(entry),
            Err(Refused::Paused) => Err(Stop::Paused),
            Err(Refused::Fault(kind)) if self.vm.svm.is_some() => {
                Err(Stop::Missing(Fault { addr, access, kind }))
            }
            Err(Refused::Fault(kind)) => fault(addr, access, kind),
        }
    }

    /// One aligned word's access: `none` for NULL and sparse memory, else what `some` does.
    fn word<T>(
        &self,
        addr: u64,
        width: Width,
        access: Access,
        none: T,
        some: impl FnOnce(&H, Phys) -> Result<T, BusError>,
    ) -> Result<T, Stop> {
        // The address space ends at a page, so an aligned word is in it as a whole or not at all.
        if addr % width.bytes() != 0 {
            return fault(addr, access, fp::FAULT_KIND_ADDRESS);
        }
        let mut mmu = self.vm.mmu();
        let entry = self.translate(&mut mmu, addr, access)?;
        match entry.phys(addr).map(|phys| some(&self.dev.host, phys)) {
            None => Ok(none),
            Some(Ok(value)) => Ok(value),
            Some(Err(BusError)) => fault(addr, access, fp::FAULT_KIND_BUS),
        }
    }

    /// Fetches one word of a command.
    pub fn fetch(&self, addr: u64) -> Result<u64, Stop> {
        let load = |host: &H, phys| host.gpu_load(phys, Width::Eight);
        self.word(addr, Width::Eight, Access::Fetch, 0, load)
    }

    /// Loads a word.
    pub fn load(&self, addr: u64, width: Width) -> Result<u64, Stop> {
        self.word(addr, width, Access::Read, 0, |host, phys| host.gpu_load(phys, width))
    }

    /// Stores a word.
    pub fn store(&self, addr: u64, width: Width, value: u64) -> Result<(), Stop> {
        let store = |host: &H, phys| host.gpu_store(phys, width, value);
        self.word(addr, width, Access::Write, (), store)
    }

    /// Does an atomic; the old value.
    pub fn atomic(
        &self,
        addr: u64,
        width: Width,
        atomic: Atomic,
        system: bool,
    ) -> Result<u64, Stop> {
        let change = |host: &H, phys| host.gpu_atomic(phys, width, atomic, system);
        self.word(addr, width, Access::Atomic, 0, change)
    }

    /// Copies; `done` says how far it is. True when all is copied, false when the budget is used up.
    pub fn copy(
        &self,
        from: u64,
        to: u64,
        len: u64,
        done: &mut u64,
        budget: &mut u64,
    ) -> Result<bool, Stop> {
        while *done < len {
            if *budget == 0 {
                return Ok(false);
            }
            let src = at(from, *done, Access::Read)?;
            let dst = at(to, *done, Access::Write)?;
            let moved = self.copy_piece(src, dst, (len - *done).min(*budget))?;
            *done += moved;
            *budget -= moved;
        }
        Ok(true)
    }

    /// Copies up to `len` bytes, as far as one entry on either side goes.
    fn copy_piece(&self, src: u64, dst: u64, len: u64) -> Result<u64, Stop> {
        let mut mmu = self.vm.mmu();
        let source = self.translate(&mut mmu, src, Access::Read)?;
        let target = self.translate(&mut mmu, dst, Access::Write)?;
        let end = self.vm.span.end;
        let room = (source.span.end.min(end) - src).min(target.span.end.min(end) - dst);
        let len = len.min(room);
        let host = &self.dev.host;
        let result = match (source.phys(src), target.phys(dst)) {
            (_, None) => Ok(()),
            (None, Some(to)) => zero(host, to, len),
            (Some(from), Some(to)) => host.gpu_copy(to, from, len),
        };
        match result {
            Ok(()) => Ok(len),
            Err((BusError, true)) => fault(dst, Access::Write, fp::FAULT_KIND_BUS),
            Err((BusError, false)) => fault(src, Access::Read, fp::FAULT_KIND_BUS),
        }
    }

    /// Fills; `done` says how far it is. True when all is filled, false when the budget is used up.
    pub fn fill(
        &self,
        start: u64,
        len: u64,
        width: Width,
        value: u64,
        done: &mut u64,
        budget: &mut u64,
    ) -> Result<bool, Stop> {
        if start % width.bytes() != 0 {
            return fault(start, Access::Write, fp::FAULT_KIND_ADDRESS);
        }
        while *done < len {
            // Whole words, so that the pattern goes on where it stopped.
            let allowed = *budget - *budget % width.bytes();
            if allowed == 0 {
                *budget = 0;
                return Ok(false);
            }
            let addr = at(start, *done, Access::Write)?;
            let mut mmu = self.vm.mmu();
            let entry = self.translate(&mut mmu, addr, Access::Write)?;
            let room = entry.span.end.min(self.vm.span.end) - addr;
            let piece = (len - *done).min(room).min(allowed);
            if let Some(phys) = entry.phys(addr) {
                if self.dev.host.gpu_fill(phys, piece, width, value).is_err() {
                    return fault(addr, Access::Write, fp::FAULT_KIND_BUS);
                }
            }
            drop(mmu);
            *done += piece;
            *budget -= piece;
        }
        Ok(true)
    }
}

/// The address `done` bytes behind `start`.
fn at(start: u64, done: u64, access: Access) -> Result<u64, Stop> {
    match start.checked_add(done) {
        Some(addr) => Ok(addr),
        None => fault(u64::MAX, access, fp::FAULT_KIND_ADDRESS),
    }
}

/// Writes zeros, which is what NULL and sparse memory reads as, at any alignment.
fn zero<H: Host>(host: &H, to: Phys, len: u64) -> Result<(), (BusError, bool)> {
    const ZEROS: [u8; 256] = [0; 256];
    let mut done = 0;
    while done < len {
        let piece = (len - done).min(ZEROS.len() as u64);
        let here = Phys { addr: to.addr + done, ..to };
        host.gpu_write(here, &ZEROS[..piece as usize]).map_err(|error| (error, true))?;
        done += piece;
    }
    Ok(())
}
