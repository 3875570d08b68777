//! CPU memory at addresses of its own: making it, changing it, and accesses to it with the oracle's leave.
//!
//! A name stands for addresses; what is there changes by `mm.*` steps. The oracle keeps both apart.

use super::actor::{Actor, Answer, Done};
use super::remote::RemoteClient;
use super::stage::{AreaObject, ClientObject, MemoryObject, find};
use super::view::{ClientHandle, View};
use crate::lang::ast::{CpuKind, Pattern};
use crate::lang::expect::Check;
use crate::lang::step::Place;
use crate::lang::svm::{By, MmStep, Part, Told, Trap};
use crate::oracle::{self, Access, AtFork, Denied, MmId, MmOp, Nature, Object, Source};
use fencepost_fixtures::Errno;
use fencepost_fixtures::area::{Advice, Area, AreaSpec, Kind, MmCall, Protection, Reach, Remap};
use fencepost_fixtures::device::{self as dev, Width};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAGE: u64 = 4096;

/// A part of an area, with numbers.
pub(super) struct Piece {
    pub(super) memory: Arc<MemoryObject>,
    pub(super) addr: u64,
    pub(super) len: u64,
    /// Of the process of the actor.
    pub(super) mm: MmId,
}

/// Memory that was mapped: its addresses, the area if it is this process's, how it is seen.
type Made = (u64, Option<Area>, Arc<dyn View>, bool);

fn kind_of(kind: CpuKind) -> Kind {
    match kind {
        CpuKind::Anon | CpuKind::ProtNone => Kind::Anon,
        CpuKind::Thp => Kind::Thp,
        CpuKind::Small | CpuKind::Zero => Kind::Small,
        CpuKind::Shared => Kind::Shared,
        CpuKind::Memfd => Kind::Memfd,
        CpuKind::FileShared => Kind::FileShared,
        CpuKind::FilePrivate => Kind::FilePrivate,
        CpuKind::Hugetlb => Kind::Hugetlb,
        CpuKind::Stack => Kind::Stack,
        CpuKind::Hole => Kind::Hole,
        CpuKind::DeviceFile => Kind::DeviceFile,
    }
}

fn oracle_access(kind: Kind, access: Protection) -> Access {
    match access {
        Protection::Read | Protection::Write if kind == Kind::DeviceFile => Access::Cpu,
        Protection::None => Access::None,
        Protection::Read => Access::Read,
        Protection::Write => Access::Write,
    }
}

/// What the oracle has to know of a kind. `behind`: what a private file holds.
fn nature(kind: Kind, behind: Source) -> Nature {
    let private = matches!(
        kind,
        Kind::Anon | Kind::Thp | Kind::Small | Kind::Stack | Kind::Hugetlb | Kind::FilePrivate
    );
    Nature {
        private,
        // Pages of a private file are anonymous once they were written.
        movable: private && kind != Kind::Hugetlb,
        behind: (kind == Kind::FilePrivate).then_some(behind),
    }
}

/// What advice changes as far as contents and permissions go.
enum Effect {
    Nothing,
    /// Contents go, for certain or perhaps; of files too.
    Discard {
        certain: bool,
        all: bool,
    },
    Change(MmOp),
}

fn effect(advice: Advice, addr: u64, len: u64) -> Effect {
    match advice {
        Advice::DontNeed => Effect::Discard { certain: true, all: false },
        Advice::Free => Effect::Discard { certain: false, all: false },
        Advice::Remove => Effect::Discard { certain: true, all: true },
        Advice::DontFork => Effect::Change(MmOp::AtFork { addr, len, at_fork: AtFork::Left }),
        Advice::WipeOnFork => Effect::Change(MmOp::AtFork { addr, len, at_fork: AtFork::Wiped }),
        Advice::GuardInstall | Advice::HwPoison => {
            Effect::Change(MmOp::Protect { addr, len, access: Access::None })
        }
        Advice::GuardRemove => Effect::Change(MmOp::Protect { addr, len, access: Access::Write }),
        _ => Effect::Nothing,
    }
}

/// What is to be mapped as an area.
#[derive(Clone)]
pub(super) struct Wanted<'t> {
    pub(super) client: &'t str,
    pub(super) kind: CpuKind,
    pub(super) size: u64,
    pub(super) align: u64,
    pub(super) access: Protection,
    pub(super) pattern: &'t Pattern,
}

/// CPU memory that was made: what stands for it, its object and its view.
type NewArea = (AreaObject, Object, Arc<dyn View>);

impl Actor<'_, '_> {
    // ---- making ----------------------------------------------------------------------------

    /// Maps an area in the process of a client.
    fn map_area(&mut self, client: &ClientObject, spec: &AreaSpec) -> Done<Result<Made, Errno>> {
        let made = self.timed("memory.area", || -> dev::Result<Made> {
            match &client.handle {
                ClientHandle::Local(_) => {
                    let area = Area::new(spec)?;
                    let reach = Reach { addr: area.addr(), len: spec.len };
                    let has_file = area.has_file();
                    Ok((area.addr(), Some(area), Arc::new(reach) as Arc<dyn View>, has_file))
                }
                ClientHandle::Remote(remote) => {
                    let addr = remote.area(spec)?;
                    let view = remote.reach(Reach { addr, len: spec.len })?;
                    Ok((addr, None, view, false))
                }
            }
        });
        Ok(made.map_err(|error| error.errno))
    }

    /// Makes CPU memory; gives what stands for it, its object and its view.
    pub(super) fn make_area(
        &mut self,
        wanted: &Wanted<'_>,
        content: &Source,
    ) -> Done<Result<NewArea, Errno>> {
        let client = self.client_named(wanted.client)?;
        let mm = self.process.as_ref().map_or(client.mm, |process| process.mm);
        let kind = kind_of(wanted.kind);
        let spec = AreaSpec {
            kind,
            len: wanted.size,
            align: wanted.align,
            // The pattern is written first.
            protection: Protection::Write,
        };
        let (addr, area, view, has_file) = match self.map_area(&client, &spec)? {
            Ok(made) => made,
            Err(errno) => return Ok(Err(errno)),
        };
        let by_file = has_file && *wanted.pattern != Pattern::Zero;
        if let (Some(area), true) = (&area, by_file) {
            self.fill_file(area, content)?;
        }
        let first = if by_file { content.clone() } else { Source::repeat(0, 8, 0) };
        let object = self.stage.model().create(self.line, wanted.size, first.clone(), self.origin);
        self.stage.model().note_nature(object, nature(kind, first));
        let object_ = AreaObject { addr, mm, kind, access: wanted.access, area, by_file };
        if kind != Kind::Hole {
            self.place_object(
                mm,
                addr,
                wanted.size,
                object,
                oracle_access(kind, Protection::Write),
            );
        }
        Ok(Ok((object_, object, view)))
    }

    fn fill_file(&mut self, area: &Area, content: &Source) -> Done {
        const CHUNK: u64 = 64 * 1024;
        let mut bytes = vec![0; CHUNK.min(area.size()) as usize];
        for offset in (0..area.size()).step_by(CHUNK as usize) {
            let part = &mut bytes[..(area.size() - offset).min(CHUNK) as usize];
            let constant = content.fill(offset, part);
            debug_assert!(constant, "a pattern is constant");
            if let Err(error) = area.write_file(offset, part) {
                return self.fail("writing a file", "success", &error.to_string());
            }
        }
        Ok(())
    }

    /// Tells the oracle that an object is at an address from now on.
    fn place_object(&mut self, mm: MmId, addr: u64, len: u64, object: Object, access: Access) {
        let op = MmOp::Map { addr, len, object, access };
        let mut model = self.stage.model();
        let call = model.mm_begin(self.line, mm, &op);
        model.mm_end(self.line, &call, true);
    }

    /// After the pattern was written: permissions as declared, and for the zero page a read of each page.
    pub(super) fn finish_area(&mut self, memory: &Arc<MemoryObject>, zero: bool) -> Done<Answer> {
        let Some(area) = &memory.area else { return Ok(Ok(())) };
        if zero {
            let view = self.view_or_fail(memory)?;
            for offset in (0..memory.size).step_by(PAGE as usize) {
                if let Err(error) = view.load(offset, Width::U64) {
                    return self.fail("touching memory", "success", &error.to_string());
                }
            }
        }
        if area.access == Protection::Write || area.kind == Kind::Hole {
            return Ok(Ok(()));
        }
        let piece = self.whole(memory);
        self.protect(&piece, area.access)
    }

    /// All of an area.
    pub(super) fn whole(&self, memory: &Arc<MemoryObject>) -> Piece {
        let addr = memory.area.as_ref().map_or(0, |area| area.addr);
        let mm = self.mm_of(memory);
        Piece { memory: Arc::clone(memory), addr, len: memory.size, mm }
    }

    /// The address space in which this actor sees memory.
    pub(super) fn mm_of(&self, memory: &MemoryObject) -> MmId {
        let own = self.process.as_ref().map(|process| process.mm);
        own.unwrap_or_else(|| memory.area.as_ref().map_or(0, |area| area.mm))
    }

    /// Maps an area anew, as it was at first.
    pub(super) fn renew_area(&mut self, memory: &Arc<MemoryObject>) -> Done {
        let Some(area) = &memory.area else { return Ok(()) };
        let piece = self.whole(memory);
        let (addr, len) = (piece.addr, piece.len);
        let done = self.map_new(&piece, area.kind, Protection::Write)?;
        if let Err(errno) = done {
            let what = format!("mapping {} anew", memory.name);
            return self.fail(&what, "success", &super::actor::errno_name(errno));
        }
        if area.kind == Kind::Hole {
            return Ok(());
        }
        if memory.written {
            self.write_pattern(memory)?;
        }
        let access = area.access;
        if access != Protection::Write {
            let done = self.protect(&Piece { addr, len, ..piece }, access)?;
            if let Err(errno) = done {
                return self.fail("mprotect", "success", &super::actor::errno_name(errno));
            }
        }
        Ok(())
    }

    // ---- steps -----------------------------------------------------------------------------

    /// The part of an area that a step is about.
    pub(super) fn piece(&mut self, part: &Part) -> Done<Piece> {
        let (memory, offset) = self.cpu_place(&part.at)?;
        let len = self.value(&part.size)?;
        let Some(area) = &memory.area else {
            return self.broken(&format!("{} is no CPU memory", memory.name));
        };
        let addr = area.addr + offset;
        let mm = self.mm_of(&memory);
        Ok(Piece { addr, len, mm, memory })
    }

    /// Makes a call in the process that the memory is in.
    fn call_mm(&mut self, memory: &MemoryObject, name: &str, call: &MmCall) -> Done<Answer> {
        Ok(self.ask_mm(memory, name, call)?.map(drop))
    }

    /// The same, for what it gives.
    pub(super) fn ask_mm(
        &mut self,
        memory: &MemoryObject,
        name: &str,
        call: &MmCall,
    ) -> Done<Result<u64, Errno>> {
        let process = self.process.clone();
        let owner = find(&self.stage.names.clients, &memory.client);
        let run = || match (&process, &owner) {
            (Some(process), _) => process.remote().mm(call),
            (None, Some(owner)) => match &owner.handle {
                ClientHandle::Remote(remote) => RemoteClient::mm(remote, call),
                ClientHandle::Local(_) => call.run(),
            },
            (None, None) => call.run(),
        };
        Ok(self.timed(name, run).map_err(|error| error.errno))
    }

    pub(super) fn mm_step(&mut self, step: &MmStep) -> Done<Answer> {
        match step {
            MmStep::Map { part, kind, access } => {
                let piece = self.piece(part)?;
                self.map_new(&piece, kind_of(*kind), *access)
            }
            MmStep::Show { part, object } => {
                let piece = self.piece(part)?;
                self.show(&piece, object)
            }
            MmStep::Unmap(part) => {
                let piece = self.piece(part)?;
                let (addr, len) = (piece.addr, piece.len);
                let call = MmCall::Unmap { addr, len };
                self.changing(&piece, "mm.unmap", &MmOp::Unmap { addr, len }, &call)
            }
            MmStep::Protect { part, access } => {
                let piece = self.piece(part)?;
                self.protect(&piece, *access)
            }
            MmStep::Lock { part, locked } => {
                let piece = self.piece(part)?;
                let call = MmCall::Lock { addr: piece.addr, len: piece.len, locked: *locked };
                self.call_mm(&piece.memory, "mm.lock", &call)
            }
            MmStep::Advise { part, advice } => {
                let piece = self.piece(part)?;
                self.advise(&piece, *advice)
            }
            MmStep::Pin { part, pinned } => {
                let piece = self.piece(part)?;
                let call = MmCall::Pin { addr: piece.addr, len: piece.len, pinned: *pinned };
                self.call_mm(&piece.memory, "mm.pin", &call)
            }
            MmStep::Trap { part, trapped, trap } => {
                let piece = self.piece(part)?;
                let (addr, len) = (piece.addr, piece.len);
                let access = match (trapped, trap) {
                    (true, Trap::Missing) => Access::None,
                    (true, Trap::Writes) => Access::Told,
                    (false, _) | (true, Trap::Present) => Access::Write,
                };
                let op = MmOp::Protect { addr, len, access };
                let writes = *trap == Trap::Writes;
                let call = MmCall::Trap { addr, len, trapped: *trapped, writes };
                self.changing(&piece, "mm.trap", &op, &call)
            }
            MmStep::Move { part, node, pages } => {
                let piece = self.piece(part)?;
                let call = MmCall::Move { addr: piece.addr, len: piece.len, node: *node };
                match self.ask_mm(&piece.memory, "mm.move", &call)? {
                    Ok(there) => {
                        self.must("pages on the node", pages.as_ref(), there)?;
                        Ok(Ok(()))
                    }
                    Err(errno) => Ok(Err(errno)),
                }
            }
            MmStep::Wait { part, told, pages, timeout } => {
                let piece = self.piece(part)?;
                self.wait_told(&piece, *told, pages, *timeout)
            }
            MmStep::Remap { part, to, new_size, keep } => {
                let piece = self.piece(part)?;
                let new_len = match new_size {
                    Some(size) => self.value(size)?,
                    None => piece.len,
                };
                self.remap(&piece, to.as_ref(), new_len, *keep)
            }
        }
    }

    /// Looks at what the kernel tells until it is so: some of it happens by the kernel's own threads.
    fn wait_told(
        &mut self,
        piece: &Piece,
        told: Told,
        pages: &Check,
        timeout: Duration,
    ) -> Done<Answer> {
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        let call = MmCall::Told { addr: piece.addr, len: piece.len, told };
        let start = Instant::now();
        loop {
            let count = match self.ask_mm(&piece.memory, "mm.wait", &call)? {
                Ok(count) => count,
                Err(errno) => return Ok(Err(errno)),
            };
            if self.check_value(pages, count)?.is_none() {
                return Ok(Ok(()));
            }
            if start.elapsed() >= timeout {
                return Ok(Err(Errno::ETIME));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// A word, read by others than an instruction.
    pub(super) fn peek(
        &mut self,
        memory: &MemoryObject,
        offset: u64,
        width: Width,
        by: By,
    ) -> Done<dev::Result<u64>> {
        let Some(area) = &memory.area else { return self.broken("`by` is about CPU memory") };
        let call = MmCall::Peek { addr: area.addr + offset, width, by };
        let read = self.ask_mm(memory, "cpu.read", &call)?;
        Ok(read.map_err(|errno| dev::Error::new("cpu.read", errno)))
    }

    /// The same, of writing.
    pub(super) fn poke(
        &mut self,
        memory: &MemoryObject,
        offset: u64,
        (width, value): (Width, u64),
        by: By,
    ) -> Done<dev::Result<()>> {
        let Some(area) = &memory.area else { return self.broken("`by` is about CPU memory") };
        let call = MmCall::Poke { addr: area.addr + offset, width, value, by };
        let wrote = self.call_mm(memory, "cpu.write", &call)?;
        Ok(wrote.map_err(|errno| dev::Error::new("cpu.write", errno)))
    }

    /// A call that changes mappings, with the oracle told before and after.
    fn changing(&mut self, piece: &Piece, name: &str, op: &MmOp, call: &MmCall) -> Done<Answer> {
        let begun = self.stage.model().mm_begin(self.line, piece.mm, op);
        let answer = self.call_mm(&piece.memory, name, call)?;
        self.stage.model().mm_end(self.line, &begun, answer.is_ok());
        Ok(answer)
    }

    fn protect(&mut self, piece: &Piece, access: Protection) -> Done<Answer> {
        let (addr, len) = (piece.addr, piece.len);
        let kind = piece.memory.area.as_ref().map_or(Kind::Anon, |area| area.kind);
        let op = MmOp::Protect { addr, len, access: oracle_access(kind, access) };
        let call = MmCall::Protect { addr, len, protection: access };
        self.changing(piece, "mm.protect", &op, &call)
    }

    /// New memory of zeros in the place of what is there.
    fn map_new(&mut self, piece: &Piece, kind: Kind, access: Protection) -> Done<Answer> {
        let (addr, len) = (piece.addr, piece.len);
        if kind == Kind::Hole {
            let call = MmCall::Unmap { addr, len };
            return self.changing(piece, "mm.unmap", &MmOp::Unmap { addr, len }, &call);
        }
        let object = self.new_object(piece, len, kind);
        let op = MmOp::Map { addr, len, object, access: oracle_access(kind, access) };
        let call = MmCall::Map { addr, len, kind, protection: access };
        self.changing(piece, "mm.map", &op, &call)
    }

    /// An object of a device, from its start, in the place of what is there.
    fn show(&mut self, piece: &Piece, name: &str) -> Done<Answer> {
        let memory = self.memory(name)?;
        let client = self.client_named(&memory.client)?;
        let (Some(gem), None) = (memory.gem, client.handle.remote()) else {
            return self.broken(&format!("{name} is no object of this process"));
        };
        let (addr, len, object) = (piece.addr, piece.len, memory.object);
        // Another driver's mapping has no pages that this one could know of.
        let others = self.stage.test.clients.iter().find(|client| client.name == memory.client);
        let vgem = others.is_some_and(|client| client.on.as_deref() == Some("vgem"));
        let access = if vgem { Access::Cpu } else { Access::Write };
        let op = MmOp::Map { addr, len, object, access };
        let begun = self.stage.model().mm_begin(self.line, piece.mm, &op);
        let done = self.timed("mm.map", || client.handle.gem_map_at(gem, addr, len));
        self.stage.model().mm_end(self.line, &begun, done.is_ok());
        Ok(done.map_err(|error| error.errno))
    }

    /// An object of zeros for a part of an area.
    fn new_object(&mut self, piece: &Piece, len: u64, kind: Kind) -> Object {
        let zeros = Source::repeat(0, 8, 0);
        let object = self.stage.model().create(self.line, len, zeros.clone(), self.origin);
        self.stage.model().note_nature(object, nature(kind, zeros));
        let name = format!("{}, mapped later", piece.memory.name);
        let mut others = self.stage.other_objects.lock().unwrap_or_else(|p| p.into_inner());
        others.insert(object, name);
        object
    }

    fn remap(
        &mut self,
        piece: &Piece,
        to: Option<&Place>,
        new_len: u64,
        keep: bool,
    ) -> Done<Answer> {
        let target = match to {
            Some(place) => {
                let (memory, offset) = self.cpu_place(place)?;
                let Some(area) = &memory.area else {
                    return self.broken(&format!("{} is no CPU memory", memory.name));
                };
                Some(area.addr + offset)
            }
            None => None,
        };
        let kind = piece.memory.area.as_ref().map_or(Kind::Anon, |area| area.kind);
        // Where memory is mapped later, what is there decides; private memory is the usual case.
        let kind = if kind == Kind::Hole { Kind::Anon } else { kind };
        let private = nature(kind, Source::Unknown).private;
        let kept = match (keep, private) {
            (false, _) => None,
            (true, false) => Some(None),
            (true, true) => Some(Some(self.new_object(piece, piece.len, kind))),
        };
        let grown =
            (new_len > piece.len).then(|| self.new_object(piece, new_len - piece.len, kind));
        let (addr, len) = (piece.addr, piece.len);
        let op = MmOp::Remap { addr, len, to: target.unwrap_or(addr), new_len, kept, grown };
        let call = MmCall::Remap(Remap { addr, len, new_len, to: target, keep });
        self.changing(piece, "mm.remap", &op, &call)
    }

    fn advise(&mut self, piece: &Piece, advice: Advice) -> Done<Answer> {
        let (addr, len, mm) = (piece.addr, piece.len, piece.mm);
        let call = MmCall::Advise { addr, len, advice };
        match effect(advice, addr, len) {
            Effect::Nothing => self.call_mm(&piece.memory, "mm.advise", &call),
            Effect::Discard { certain, all } => {
                let range = (addr, addr.saturating_add(len));
                let begun = {
                    let mut model = self.stage.model();
                    model.discard_begin(self.line, mm, range, (certain, all), self.origin)
                };
                let answer = self.call_mm(&piece.memory, "mm.advise", &call)?;
                self.stage.model().discard_end(&begun, answer.is_ok());
                Ok(answer)
            }
            Effect::Change(op) => {
                if advice == Advice::GuardInstall {
                    let range = (addr, addr.saturating_add(len));
                    let mut model = self.stage.model();
                    let gone =
                        model.discard_begin(self.line, mm, range, (true, false), self.origin);
                    model.discard_end(&gone, true);
                }
                self.changing(piece, "mm.advise", &op, &call)
            }
        }
    }

    // ---- accesses --------------------------------------------------------------------------

    /// An access that failed: whether it was allowed to.
    pub(super) fn failed_access(
        &mut self,
        memory: &MemoryObject,
        (offset, len): (u64, u64),
        writes: bool,
        error: &dev::Error,
    ) -> Done<Answer> {
        let Some(area) = &memory.area else { return Ok(Err(error.errno)) };
        let start = area.addr.saturating_add(offset);
        let inside = offset.checked_add(len).is_some_and(|end| end <= memory.size);
        if !inside || !matches!(error.errno, Errno::EFAULT | Errno::EIO) {
            return Ok(Err(error.errno));
        }
        let (mm, range) = (self.mm_of(memory), (start, start + len));
        if self.stage.model().mm_may_fail(self.line, mm, range, writes) {
            return Ok(Err(error.errno));
        }
        // SIGBUS: a page that cannot be brought back from the device. The step has to allow for it.
        let (_, _, away) = self.stage.model().page_may(self.line, mm, start);
        if error.errno == Errno::EIO && away {
            return Ok(Err(error.errno));
        }
        let what = if writes { "write" } else { "read" };
        let what = format!("CPU {what} of {} at byte {offset:#x}", memory.name);
        self.fail(&what, "success: it is mapped for that", &error.to_string())
    }

    /// The CPU has read.
    pub(super) fn saw(
        &mut self,
        memory: &MemoryObject,
        offset: u64,
        bytes: &[u8],
        grain: oracle::Grain,
    ) -> Done<Result<(), Denied>> {
        let mm = self.mm_of(memory);
        let mut model = self.stage.model();
        Ok(match &memory.area {
            Some(area) => model.mm_read(self.line, mm, area.addr + offset, bytes, grain),
            None => model
                .cpu_read(self.line, memory.object, offset, bytes, grain)
                .map_err(Denied::Value),
        })
    }

    /// Notes a failure for a read that the oracle does not allow.
    pub(super) fn denied<T>(&mut self, what: &str, denied: Denied) -> Done<T> {
        match denied {
            Denied::Value(wrong) => self.wrong_value(what, &wrong),
            Denied::Gone => {
                self.fail(what, "a fault: nothing is mapped there, or not for that", "it was done")
            }
        }
    }

    /// The object behind a place of memory, and the offset there.
    pub(super) fn behind(&self, memory: &MemoryObject, offset: u64) -> (Object, u64) {
        let found = memory
            .area
            .as_ref()
            .and_then(|area| self.stage.model().mapped_at(self.mm_of(memory), area.addr + offset));
        found.unwrap_or((memory.object, offset))
    }

    /// Reads all that can be read of an area, and looks whether the rest cannot.
    pub(super) fn survey_area(&mut self, piece: &Piece) -> Done {
        const CHUNK: u64 = 64 * 1024;
        const WHOLE: u64 = 4 << 20;
        let Some(area) = &piece.memory.area else { return Ok(()) };
        let base = area.addr;
        let range = (piece.addr, piece.addr + piece.len);
        let parts = self.stage.model().accessible(piece.mm, range);
        let view = self.view_or_fail(&piece.memory)?;
        for (start, end, access) in parts {
            if access == Access::None {
                self.survey_hole(&piece.memory, &view, (start - base, end - base))?;
                continue;
            }
            let (len, step) = if piece.len <= WHOLE { (CHUNK, CHUNK) } else { (8, PAGE) };
            let mut bytes = vec![0; len as usize];
            for at in (start..end).step_by(step as usize) {
                let part = &mut bytes[..(end - at).min(len) as usize];
                let offset = at - base;
                if let Err(error) = view.read(offset, part) {
                    let what = format!("CPU read of {} at byte {offset:#x}", piece.memory.name);
                    return self.fail(&what, "success", &error.to_string());
                }
                let part = part.to_vec();
                let seen = self.saw(&piece.memory, offset, &part, oracle::Grain::Bulk)?;
                if let Err(denied) = seen {
                    return self.denied("CPU read of all memory", denied);
                }
            }
        }
        Ok(())
    }

    fn survey_hole(
        &mut self,
        memory: &MemoryObject,
        view: &Arc<dyn View>,
        (start, end): (u64, u64),
    ) -> Done {
        for offset in [start, end - PAGE] {
            match view.load(offset, Width::U64) {
                Err(error) if matches!(error.errno, Errno::EFAULT | Errno::EIO) => {}
                Err(error) => {
                    return self.fail("CPU read", "EFAULT", &error.to_string());
                }
                Ok(seen) => {
                    let what = format!("CPU read of {} at byte {offset:#x}", memory.name);
                    let expected = "a fault: nothing can be read there";
                    return self.fail(&what, expected, &format!("{seen:#x}"));
                }
            }
        }
        Ok(())
    }
}
