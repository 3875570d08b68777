//! What the CPU does to memory.

use super::actor::{Actor, Answer, Done, holds};
use super::stage::{MemoryObject, find};
use super::view::View;
use crate::lang::step::{self, Place};
use crate::oracle::{CpuWrite, Denied, Grain, Source};
use fencepost_fixtures::Errno;
use fencepost_fixtures::device::{AtomicOp, Width};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at a word that is waited for, after the first few.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// The vocabulary's width.
pub(super) fn width(width: step::Width) -> Width {
    match width {
        step::Width::Four => Width::U32,
        step::Width::Eight => Width::U64,
    }
}

/// The vocabulary's atomic.
pub(super) fn atomic_op(op: step::AtomicOp, compare: u64) -> AtomicOp {
    match op {
        step::AtomicOp::Add => AtomicOp::Add,
        step::AtomicOp::Exchange => AtomicOp::Exchange,
        step::AtomicOp::CompareExchange => AtomicOp::CompareExchange { compare },
        step::AtomicOp::And => AtomicOp::And,
        step::AtomicOp::Or => AtomicOp::Or,
        step::AtomicOp::Xor => AtomicOp::Xor,
        step::AtomicOp::Min => AtomicOp::Min,
        step::AtomicOp::Max => AtomicOp::Max,
    }
}

impl Actor<'_, '_> {
    /// The memory of that name.
    pub(super) fn memory(&mut self, name: &str) -> Done<Arc<MemoryObject>> {
        match find(&self.stage.names.memory, name) {
            Some(memory) => Ok(memory),
            None => self.broken(&format!("there is no memory {name}")),
        }
    }

    /// Memory and offset of a place.
    pub(super) fn cpu_place(&mut self, place: &Place) -> Done<(Arc<MemoryObject>, u64)> {
        match place {
            Place::Memory { name, offset } => Ok((self.memory(name)?, self.value(offset)?)),
            Place::Address(_) => self.broken("the CPU has no GPU addresses"),
        }
    }

    /// How the CPU sees memory; mapped when it is first asked for.
    pub(super) fn view(&mut self, memory: &MemoryObject) -> Done<Result<Arc<dyn View>, Errno>> {
        if let Some(process) = self.process.clone() {
            return self.process_view(&process, memory);
        }
        if let Some(view) = memory.view.get() {
            return Ok(Ok(Arc::clone(view)));
        }
        let Some(gem) = memory.gem else { return self.broken("memory without a mapping") };
        let client = self.client_named(&memory.client)?;
        let mapped = self.timed("gem.map", || client.handle.map(gem, memory.size));
        match mapped {
            // Two actors may have mapped it at the same time: one mapping is kept.
            Ok(view) => Ok(Ok(Arc::clone(memory.view.get_or_init(|| view)))),
            Err(error) => Ok(Err(error.errno)),
        }
    }

    /// The view, which must be there.
    pub(super) fn view_or_fail(&mut self, memory: &MemoryObject) -> Done<Arc<dyn View>> {
        match self.view(memory)? {
            Ok(view) => Ok(view),
            Err(errno) => {
                let what = format!("CPU mapping of {}", memory.name);
                self.fail(&what, "success", &super::actor::errno_name(errno))
            }
        }
    }

    pub(super) fn cpu_read(&mut self, read: &step::Read) -> Done<Answer> {
        let (memory, offset) = self.cpu_place(&read.at)?;
        let view = match self.view(&memory)? {
            Ok(view) => view,
            Err(errno) => return Ok(Err(errno)),
        };
        let width = width(read.width);
        let loaded = match read.by {
            Some(by) => self.peek(&memory, offset, width, by)?,
            None => self.timed("cpu.read", || view.load(offset, width)),
        };
        let value = match loaded {
            Ok(value) => value,
            Err(error) => {
                return self.failed_access(&memory, (offset, width.bytes()), false, &error);
            }
        };
        let bytes = &value.to_le_bytes()[..width.bytes() as usize];
        if let Err(denied) = self.saw(&memory, offset, bytes, Grain::Word)? {
            return self.denied("CPU read", denied);
        }
        self.keep(read.name.as_deref(), value);
        let what = format!("CPU read of {} at byte {offset:#x}", memory.name);
        self.must(&what, read.check.as_ref(), value)?;
        Ok(Ok(()))
    }

    pub(super) fn cpu_write(&mut self, write: &step::Write) -> Done<Answer> {
        let (memory, offset) = self.cpu_place(&write.at)?;
        let value = self.value(&write.value)?;
        let view = match self.view(&memory)? {
            Ok(view) => view,
            Err(errno) => return Ok(Err(errno)),
        };
        let width = width(write.width);
        let noted = self.note_write(&memory, offset, width.bytes(), value, width);
        let done = match write.by {
            Some(by) => self.poke(&memory, offset, (width, value), by)?,
            None => self.timed("cpu.write", || view.store(offset, width, value)),
        };
        self.wrote(&memory, (offset, width.bytes()), noted, done)
    }

    pub(super) fn cpu_fill(&mut self, fill: &step::Fill) -> Done<Answer> {
        let (memory, offset) = self.cpu_place(&fill.at)?;
        let (bytes, value) = (self.value(&fill.size)?, self.value(&fill.value)?);
        let view = match self.view(&memory)? {
            Ok(view) => view,
            Err(errno) => return Ok(Err(errno)),
        };
        let width = width(fill.width);
        let noted = self.note_write(&memory, offset, bytes, value, width);
        let done = self.timed("cpu.fill", || view.fill(offset, bytes, width, value));
        self.wrote(&memory, (offset, bytes), noted, done)
    }

    fn note_write(
        &mut self,
        memory: &MemoryObject,
        offset: u64,
        bytes: u64,
        value: u64,
        width: Width,
    ) -> Option<CpuWrite> {
        let end = offset.checked_add(bytes).filter(|end| *end <= memory.size)?;
        let range = (offset, end);
        let mut model = self.stage.model();
        let Some(area) = &memory.area else {
            let source = Source::repeat(value, width.bytes(), offset);
            model.cpu_write(self.line, memory.object, range, source, self.origin);
            return None;
        };
        let range = (area.addr + offset, area.addr + end);
        let source = Source::repeat(value, width.bytes(), range.0);
        Some(model.mm_write(self.line, self.mm_of(memory), range, &source, self.origin))
    }

    /// A write returned.
    fn wrote(
        &mut self,
        memory: &MemoryObject,
        range: (u64, u64),
        noted: Option<CpuWrite>,
        done: fencepost_fixtures::Result<()>,
    ) -> Done<Answer> {
        if let Some(noted) = &noted {
            self.stage.model().mm_write_end(self.line, noted, done.is_ok());
            if done.is_ok() && noted.gone {
                return self.denied("CPU write", Denied::Gone);
            }
        }
        match done {
            Ok(()) => Ok(Ok(())),
            Err(error) => self.failed_access(memory, range, true, &error),
        }
    }

    pub(super) fn cpu_atomic(&mut self, atomic: &step::Atomic) -> Done<Answer> {
        let (memory, offset) = self.cpu_place(&atomic.at)?;
        let operand = self.value(&atomic.value)?;
        let compare = match &atomic.compare {
            Some(compare) => self.value(compare)?,
            None => 0,
        };
        let view = match self.view(&memory)? {
            Ok(view) => view,
            Err(errno) => return Ok(Err(errno)),
        };
        let (op, width) = (atomic_op(atomic.op, compare), width(atomic.width));
        if offset.checked_add(width.bytes()).is_none_or(|end| end > memory.size) {
            return Ok(Err(Errno::EFAULT));
        }
        if memory.area.is_some() {
            return self.area_atomic(&memory, &*view, atomic, offset, (op, operand, width));
        }
        let (stage, object) = (self.stage, memory.object);
        let at =
            stage.model().cpu_atomic(self.line, object, offset, width, (op, operand), self.origin);
        let old = match self.timed("cpu.atomic", || view.atomic(offset, width, op, operand)) {
            Ok(old) => old,
            Err(error) => return Ok(Err(error.errno)),
        };
        let seen = stage.model().cpu_atomic_end(object, offset, width, at, old);
        if let Err(wrong) = seen {
            return self.wrong_value("old value of a CPU atomic", &wrong);
        }
        self.keep(atomic.name.as_deref(), old);
        let what = format!("old value of a CPU atomic on {} at byte {offset:#x}", memory.name);
        self.must(&what, atomic.check.as_ref(), old)?;
        Ok(Ok(()))
    }

    /// As [`Self::cpu_atomic`], for memory at addresses of its own.
    fn area_atomic(
        &mut self,
        memory: &MemoryObject,
        view: &dyn View,
        atomic: &step::Atomic,
        offset: u64,
        (op, operand, width): (AtomicOp, u64, Width),
    ) -> Done<Answer> {
        let Some(area) = &memory.area else { return Ok(Ok(())) };
        let (addr, mm) = (area.addr + offset, self.mm_of(memory));
        let stage = self.stage;
        let noted = stage.model().mm_atomic(self.line, mm, addr, width, (op, operand), self.origin);
        let done = self.timed("cpu.atomic", || view.atomic(offset, width, op, operand));
        let old = match done {
            Ok(old) => old,
            Err(error) => {
                return self.wrote(memory, (offset, width.bytes()), Some(noted), Err(error));
            }
        };
        stage.model().mm_write_end(self.line, &noted, true);
        let seen = stage.model().mm_atomic_end(&noted, width, old);
        if let Err(denied) = seen {
            return self.denied("old value of a CPU atomic", denied);
        }
        self.keep(atomic.name.as_deref(), old);
        let what = format!("old value of a CPU atomic on {} at byte {offset:#x}", memory.name);
        self.must(&what, atomic.check.as_ref(), old)?;
        Ok(Ok(()))
    }

    pub(super) fn cpu_wait(&mut self, wait: &step::WordWait) -> Done<Answer> {
        let (memory, offset) = self.cpu_place(&wait.at)?;
        let value = self.value(&wait.value)?;
        let mask = match &wait.mask {
            Some(mask) => self.value(mask)?,
            None => u64::MAX,
        };
        let view = match self.view(&memory)? {
            Ok(view) => view,
            Err(errno) => return Ok(Err(errno)),
        };
        let start = Instant::now();
        let mut looks = 0u32;
        let seen = loop {
            match view.load(offset, Width::U64) {
                Ok(seen) if holds(wait.compare, seen & mask, value) => break seen,
                Ok(_) if start.elapsed() >= wait.timeout => return Ok(Err(Errno::ETIME)),
                Ok(_) if self.stage.is_stopped() => return Err(super::actor::Stop::Failed),
                Ok(_) => {}
                Err(error) => return Ok(Err(error.errno)),
            }
            looks += 1;
            const EAGER: u32 = 64;
            if looks > EAGER {
                std::thread::sleep(LOOK_EVERY);
            } else {
                std::thread::yield_now();
            }
        };
        self.took("cpu.wait", start.elapsed());
        self.acquired(&memory, offset, seen)?;
        Ok(Ok(()))
    }

    /// The actor has waited until a word was `seen`: what its writer knew is known now.
    pub(super) fn acquired(&mut self, memory: &MemoryObject, offset: u64, seen: u64) -> Done {
        let stage = self.stage;
        let (object, offset) = self.behind(memory, offset);
        let found = stage.model().cpu_acquire(self.line, object, offset, Width::U64, seen);
        match found {
            Ok(()) => Ok(()),
            Err(wrong) => self.wrong_value("word that was waited for", &wrong),
        }
    }

    /// Writes the initial content of memory.
    pub(super) fn write_pattern(&mut self, memory: &MemoryObject) -> Done {
        const CHUNK: u64 = 64 * 1024;
        let view = self.view_or_fail(memory)?;
        let range = (0, memory.size);
        let source = memory.pattern.clone();
        // An area was mapped anew just now: one object is behind all of it.
        let (object, _) = self.behind(memory, 0);
        self.stage.model().cpu_write(self.line, object, range, source, self.origin);
        let mut bytes = vec![0; CHUNK.min(memory.size) as usize];
        let mut offset = 0;
        while offset < memory.size {
            let part = &mut bytes[..(memory.size - offset).min(CHUNK) as usize];
            let constant = memory.pattern.fill(offset, part);
            debug_assert!(constant, "a pattern is constant");
            if let Err(error) = view.write(offset, part) {
                let what = format!("writing the initial content of {}", memory.name);
                return self.fail(&what, "success", &error.to_string());
            }
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// Reads all of an object, or of a large one a word of each page, for the oracle to check: so
    /// writes that went astray are found where nobody looks for them.
    pub(super) fn cpu_survey(&mut self, memory: &Arc<MemoryObject>) -> Done {
        const CHUNK: u64 = 64 * 1024;
        const WHOLE: u64 = 4 << 20;
        const PAGE: u64 = 4096;
        if memory.area.is_some() {
            let piece = self.whole(memory);
            return self.survey_area(&piece);
        }
        let view = self.view_or_fail(memory)?;
        let (len, step) = if memory.size <= WHOLE { (CHUNK, CHUNK) } else { (8, PAGE) };
        let mut bytes = vec![0; len.min(memory.size) as usize];
        for offset in (0..memory.size).step_by(step as usize) {
            let part = &mut bytes[..(memory.size - offset).min(len) as usize];
            if let Err(error) = view.read(offset, part) {
                return self.fail("CPU read", "success", &error.to_string());
            }
            let (line, object) = (self.line, memory.object);
            let seen = self.stage.model().cpu_read(line, object, offset, part, Grain::Bulk);
            if let Err(wrong) = seen {
                return self.wrong_value("CPU read of all memory at the end", &wrong);
            }
        }
        Ok(())
    }
}
