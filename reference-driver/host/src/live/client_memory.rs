//! The GPU's accesses to client memory: system addresses that name a client's page, and frames of
//! device memory in the window of a client. The agent there makes them. Owns the decision whose memory
//! an address leads to.

use std::sync::Arc;

use fencepost_core::host::{Aperture, Atomic, BusError, Phys, Step, Width};

use super::arena::PAGE;
use super::mm::space::Space;
use super::mm::{CLIENTS, behind};
use super::world::World;

/// Bytes that pass through the host at once.
const CHUNK: u64 = 64 << 10;

/// Whose memory a range is.
pub(crate) enum Side {
    /// The arena's.
    Arena,
    /// A client's, from this address on.
    Client(Arc<Space>, u64),
}

impl World {
    /// Whose memory it is; a range lies in one page-table entry.
    pub(crate) fn side(&self, at: Phys, len: u64) -> Result<Side, BusError> {
        let Some(spaces) = self.spaces.as_ref().filter(|spaces| !spaces.is_empty()) else {
            return Ok(Side::Arena);
        };
        let (slot, addr) = match at.aperture {
            Aperture::System => match behind(at.addr) {
                Some(found) => found,
                None => return Ok(Side::Arena),
            },
            Aperture::Vram => {
                let first = self.physical.in_frame(at.addr / PAGE);
                if first & CLIENTS == 0 {
                    return Ok(Side::Arena);
                }
                let last = at.addr.saturating_add(len.max(1) - 1) / PAGE;
                let mut frames = at.addr / PAGE..last + 1;
                if !frames.all(|frame| self.physical.in_frame(frame) == first) {
                    return Err(BusError);
                }
                (first & !CLIENTS, self.home.window(0) + at.addr)
            }
        };
        spaces.at(slot).map(|space| Side::Client(space, addr)).ok_or(BusError)
    }

    pub(crate) fn read_memory(&self, at: Phys, buf: &mut [u8]) -> Result<(), BusError> {
        match self.side(at, buf.len() as u64)? {
            Side::Arena => self.physical.read(&self.arena, at, buf),
            Side::Client(space, addr) => space.lane.turn().read(addr, buf),
        }
    }

    pub(crate) fn write_memory(&self, at: Phys, buf: &[u8]) -> Result<(), BusError> {
        match self.side(at, buf.len() as u64)? {
            Side::Arena => self.physical.write(&self.arena, at, buf),
            Side::Client(space, addr) => space.lane.turn().write(addr, buf),
        }
    }

    pub(crate) fn load_word(&self, at: Phys, width: Width) -> Result<u64, BusError> {
        match self.side(at, width.bytes())? {
            Side::Arena => self.physical.load(&self.arena, at, width),
            Side::Client(space, addr) => space.lane.turn().load(addr, width),
        }
    }

    pub(crate) fn store_word(&self, at: Phys, width: Width, value: u64) -> Result<(), BusError> {
        match self.side(at, width.bytes())? {
            Side::Arena => self.physical.store(&self.arena, at, width, value),
            Side::Client(space, addr) => space.lane.turn().store(addr, width, value),
        }
    }

    pub(crate) fn atomic_word(
        &self,
        at: Phys,
        width: Width,
        atomic: Atomic,
    ) -> Result<u64, BusError> {
        match self.side(at, width.bytes())? {
            Side::Arena => self.physical.atomic(&self.arena, at, width, atomic),
            Side::Client(space, addr) => space.lane.turn().atomic(addr, width, atomic),
        }
    }

    pub(crate) fn fill_memory(
        &self,
        at: Phys,
        len: u64,
        width: Width,
        value: u64,
    ) -> Result<(), BusError> {
        match self.side(at, len)? {
            Side::Arena => self.physical.fill(&self.arena, at, len, width, value),
            Side::Client(space, addr) => space.lane.turn().fill(addr, len, width, value),
        }
    }

    /// As [`fencepost_core::host::Host::gpu_loop`], where all memory is that of one client.
    pub(crate) fn run_steps(
        &self,
        steps: &[Step],
        repeat: u32,
        registers: &mut [u64; 16],
    ) -> Option<u64> {
        let mut client: Option<Arc<Space>> = None;
        let mut placed = Vec::with_capacity(steps.len());
        for step in steps {
            let (Step::Load { at, width, .. }
            | Step::Store { at, width, .. }
            | Step::StoreRegister { at, width, .. }
            | Step::Atomic { at, width, .. }) = step
            else {
                placed.push((*step, 0));
                continue;
            };
            let Ok(Side::Client(space, addr)) = self.side(*at, width.bytes()) else { return None };
            if client.get_or_insert_with(|| Arc::clone(&space)).number != space.number {
                return None;
            }
            placed.push((*step, addr));
        }
        client?.lane.turn().steps(&placed, repeat, registers)
    }

    pub(crate) fn copy_memory(
        &self,
        to: Phys,
        from: Phys,
        len: u64,
    ) -> Result<(), (BusError, bool)> {
        let source = self.side(from, len).map_err(|error| (error, false))?;
        let target = self.side(to, len).map_err(|error| (error, true))?;
        match (&target, &source) {
            (Side::Arena, Side::Arena) => {
                return self.physical.copy(&self.arena, to, from, len);
            }
            (Side::Client(one, target), Side::Client(other, source)) if Arc::ptr_eq(one, other) => {
                // Which side failed does not show; the source is the likelier to be tried first.
                let copied = one.lane.turn().copy(*target, *source, len);
                return copied.map_err(|error| {
                    let readable = one.lane.turn().load(*source & !7, Width::Eight).is_ok();
                    (error, readable)
                });
            }
            _ => {}
        }
        let mut buf = vec![0; len.min(CHUNK) as usize];
        let mut done = 0;
        while done < len {
            let part = &mut buf[..(len - done).min(CHUNK) as usize];
            let further = |at: Phys| Phys { addr: at.addr + done, ..at };
            self.read_memory(further(from), part).map_err(|error| (error, false))?;
            self.write_memory(further(to), part).map_err(|error| (error, true))?;
            done += part.len() as u64;
        }
        Ok(())
    }
}
