//! What the device is asked about memory that it shares with the CPU, and what it tells.

use super::actor::{Actor, Answer, Done, errno_name};
use super::area::Piece;
use super::bind::region;
use super::stage::{MemoryObject, VmObject, all};
use crate::lang::expect::{Check, Reader};
use crate::lang::step::Step;
use crate::lang::svm::{Attributes, FaultAction, PagesExpect, Part, Sees, SvmStep, Tune};
use crate::oracle::{self, Access, BindRequest, MmOp};
use fencepost_fixtures::device::{self as dev, SvmPage, SvmPlace, SvmRange, SvmReach};
use std::sync::Arc;
use std::time::Duration;

const PAGE: u64 = 4096;

impl Actor<'_, '_> {
    /// Mirrors a range of addresses in a new VM.
    pub(super) fn mirror_all(&mut self, vm: &Arc<VmObject>, start: u64, end: u64) -> Done<Answer> {
        let (addr, range) = (start, end.saturating_sub(start));
        let target = oracle::Target::Mirror(vm.mm);
        let ops = [oracle::Op::Map { addr, range, target, readonly: false, kind: 0 }];
        let request = BindRequest {
            space: vm.space,
            queue: vm.bind_queue,
            is_async: false,
            ops: &ops,
            wait: &[],
            signal: &[],
            user_fence: None,
            origin: self.origin,
        };
        let client = self.client_named(&vm.client)?;
        let id = self.stage.model().bind_begin(self.line, &request);
        let call = dev::BindCall::sync(vm.vm, [dev::BindOp::MapMirror { addr, range }]);
        let done = self.timed("vm_bind.mirror", || client.handle.bind(&call));
        self.stage.model().bind_end(self.line, id, done.is_ok());
        Ok(done.map_err(|error| error.errno))
    }

    /// The VM that a step names, or the default one of its client.
    fn svm_vm(&mut self, client: Option<&str>, vm: Option<&str>) -> Done<Arc<VmObject>> {
        let client = client.map_or_else(|| self.client.clone(), str::to_owned);
        self.vm(&client, vm)
    }

    pub(super) fn svm_step(&mut self, step: &Step, svm: &SvmStep) -> Done<Answer> {
        let client = step.client.as_deref();
        match svm {
            SvmStep::Migrate { part, vm, to, strict, pages } => {
                let vm = self.svm_vm(client, vm.as_deref())?;
                let piece = self.piece(part)?;
                let to_device = region(*to) == dev::Region::Vram;
                self.migrate(&vm, &piece, (to_device, *strict), pages.as_ref())
            }
            SvmStep::Exclusive { part, vm, pages } => {
                let vm = self.svm_vm(client, vm.as_deref())?;
                let piece = self.piece(part)?;
                self.exclusive(&vm, &piece, pages.as_ref())
            }
            SvmStep::Set { part, vm, attributes } => {
                let vm = self.svm_vm(client, vm.as_deref())?;
                let piece = self.piece(part)?;
                let change = change(attributes);
                let range = range(&vm, &piece);
                let client = self.client_named(&vm.client)?;
                let cpu = attributes.atomic.map(|mode| mode == dev::SvmAtomic::Cpu);
                let begun = cpu.map(|cpu| {
                    let op = MmOp::Atomics { addr: piece.addr, len: piece.len, cpu };
                    self.stage.model().mm_begin(self.line, vm.mm, &op)
                });
                let done = self.timed("svm.set", || client.handle.svm_set(range, &change));
                if let Some(begun) = &begun {
                    self.stage.model().mm_end(self.line, begun, done.is_ok());
                }
                Ok(done.map_err(|error| error.errno))
            }
            SvmStep::Tune(tune) => self.tune(step, tune),
            SvmStep::Faults { action, count, timeout } => {
                let count = self.value(count)?;
                self.fault_buffer(step, *action, count, *timeout)
            }
        }
    }

    fn migrate(
        &mut self,
        vm: &VmObject,
        piece: &Piece,
        (to_device, strict): (bool, bool),
        pages: Option<&Check>,
    ) -> Done<Answer> {
        let bytes = (piece.addr, piece.addr.saturating_add(piece.len));
        if to_device {
            self.stage.model().may_move(self.line, piece.mm, bytes);
        }
        let region = if to_device { dev::Region::Vram } else { dev::Region::System };
        let migrate = dev::SvmMigrate { range: range(vm, piece), region, strict };
        let client = self.client_named(&vm.client)?;
        let name = if to_device { "svm.migrate.to_device" } else { "svm.migrate.to_system" };
        match self.timed(name, || client.handle.svm_migrate(&migrate)) {
            Ok(moved) => {
                if !to_device && strict {
                    self.stage.model().brought_back(self.line, piece.mm, bytes);
                }
                self.must("pages that moved", pages, moved)?;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error.errno)),
        }
    }

    fn exclusive(&mut self, vm: &VmObject, piece: &Piece, pages: Option<&Check>) -> Done<Answer> {
        let client = self.client_named(&vm.client)?;
        let asked = range(vm, piece);
        match self.timed("svm.exclusive", || client.handle.svm_exclusive(asked)) {
            Ok(reserved) => {
                self.must("pages that were reserved", pages, reserved)?;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error.errno)),
        }
    }

    fn tune(&mut self, step: &Step, tune: &Tune) -> Done<Answer> {
        let mut chunks = None;
        for chunk in &tune.chunks {
            *chunks.get_or_insert(0) |= self.value(chunk)?;
        }
        let mut one = |expr: &Option<crate::lang::expr::Expr>| -> Done<Option<u64>> {
            expr.as_ref().map(|expr| self.value(expr)).transpose()
        };
        let asked = dev::SvmTune {
            notifier: one(&tune.notifier)?,
            chunks,
            check_pages: one(&tune.check_pages)?,
            timeslice_ns: None,
            fault_entries: one(&tune.fault_entries)?,
            fault_batch: one(&tune.fault_batch)?,
            mixed: tune.mixed,
        };
        let client = self.client(step)?;
        let done = self.timed("svm.tune", || client.handle.svm_tune(&asked));
        Ok(done.map_err(|error| error.errno))
    }

    fn fault_buffer(
        &mut self,
        step: &Step,
        action: FaultAction,
        count: u64,
        timeout: Duration,
    ) -> Done<Answer> {
        let action = match action {
            FaultAction::Pause => dev::SvmFaultAction::Pause,
            FaultAction::Resume => dev::SvmFaultAction::Resume,
            FaultAction::Flush => dev::SvmFaultAction::Flush,
            FaultAction::Wait => dev::SvmFaultAction::Wait(count, timeout),
        };
        let client = self.client(step)?;
        let done = self.timed("svm.faults", || client.handle.svm_faults(action));
        Ok(done.map(drop).map_err(|error| error.errno))
    }

    pub(super) fn evict_svm(&mut self, step: &Step) -> Done<Answer> {
        let client = self.client(step)?;
        let done = self.timed("svm.evict", || client.handle.svm_evict());
        Ok(done.map(drop).map_err(|error| error.errno))
    }

    // ---- expectations ----------------------------------------------------------------------

    /// Where the GPU finds CPU memory, if a VM mirrors it and it can be read.
    pub(super) fn reachable_cpu(
        &mut self,
        memory: &MemoryObject,
        addr: u64,
    ) -> Done<Option<(Arc<VmObject>, u64)>> {
        let Some(vm) = self.stage.default_vm(&memory.client) else { return Ok(None) };
        let model = self.stage.model();
        let mirrored = model.layout(vm.space).mappings(addr, addr + 1).next();
        let mirrored = mirrored.is_some_and(|(.., mapped)| mapped.mirror == Some(vm.mm));
        let readable = model.accessible(vm.mm, (addr, addr + 1));
        let readable =
            readable.iter().any(|(.., access)| !matches!(access, Access::None | Access::Cpu));
        drop(model);
        Ok((mirrored && readable).then_some((vm, addr)))
    }

    pub(super) fn check_sees(&mut self, sees: &Sees) -> Done {
        let piece = self.piece(&sees.part)?;
        if sees.by != Reader::Gpu {
            self.survey_area(&piece)?;
        }
        if sees.by == Reader::Cpu {
            return Ok(());
        }
        let own = piece.memory.client.clone();
        let vm = self.vm(&own, sees.vm.as_deref())?;
        let parts = self.stage.model().accessible(vm.mm, (piece.addr, piece.addr + piece.len));
        let mut words = Vec::new();
        let mut holes = Vec::new();
        for (start, end, access) in parts {
            match access {
                Access::None | Access::Cpu => holes.extend([start, end - 8]),
                _ => words.extend(word_of_each_page(start, end)),
            }
        }
        if !words.is_empty() {
            self.probe(&vm, &words)?;
        }
        if sees.holes {
            for addr in holes {
                self.probe_shut(&vm, addr)?;
            }
        }
        Ok(())
    }

    pub(super) fn check_pages(&mut self, expect: &PagesExpect) -> Done {
        let vm = self.svm_vm(None, expect.vm.as_deref())?;
        let piece = self.piece(&expect.part)?;
        let pages = self.ask_pages(&vm, &piece)?;
        let mut matching = 0;
        for (index, page) in pages.iter().enumerate() {
            let wrong = self.page_differs(expect, page)?;
            match (wrong, &expect.count) {
                (None, _) => matching += 1,
                (Some(_), Some(_)) => {}
                (Some(expected), None) => {
                    let what = format!("page {index} of {}", piece.memory.name);
                    return self.fail(&what, &expected, &page_text(page));
                }
            }
        }
        if let Some(count) = &expect.count {
            let what = format!("pages of {} that are so, of {}", piece.memory.name, pages.len());
            self.must(&what, Some(count), matching)?;
        }
        Ok(())
    }

    /// What a page should have been, if it is not.
    fn page_differs(&mut self, expect: &PagesExpect, page: &SvmPage) -> Done<Option<String>> {
        if !expect.places.is_empty() && !expect.places.contains(&page.place) {
            return Ok(Some(format!("place {:?}", expect.places)));
        }
        if !expect.gpu.is_empty() && !expect.gpu.contains(&page.gpu) {
            return Ok(Some(format!("the GPU to reach it by {:?}", expect.gpu)));
        }
        if let Some(access) = expect.access {
            use fencepost_fixtures::area::Protection;
            let seen = match (page.readable, page.writable) {
                (_, true) => Protection::Write,
                (true, false) => Protection::Read,
                (false, false) => Protection::None,
            };
            if seen != access {
                return Ok(Some(format!("access {access:?}")));
            }
        }
        for (check, order) in [(&expect.order, page.order), (&expect.gpu_order, page.gpu_order)] {
            if let Some(check) = check
                && let Some(expected) = self.check_value(check, u64::from(order))?
            {
                return Ok(Some(format!("order {expected}")));
            }
        }
        Ok(None)
    }

    /// What the device tells of pages, checked by the oracle.
    fn ask_pages(&mut self, vm: &VmObject, piece: &Piece) -> Done<Vec<SvmPage>> {
        let client = self.client_named(&vm.client)?;
        let asked = range(vm, piece);
        let pages = match self.timed("svm.query", || client.handle.svm_query(asked)) {
            Ok(pages) => pages,
            Err(error) => return self.fail("query of pages", "success", &error.to_string()),
        };
        if pages.len() as u64 != piece.len / PAGE {
            let expected = (piece.len / PAGE).to_string();
            return self.fail("number of pages told", &expected, &pages.len().to_string());
        }
        for (index, page) in pages.iter().enumerate() {
            let addr = piece.addr + index as u64 * PAGE;
            let may = self.stage.model().page_may(self.line, vm.mm, addr);
            if let Some(expected) = impossible(page, may) {
                let what = format!("page {index} of {}", piece.memory.name);
                return self.fail(&what, expected, &page_text(page));
            }
        }
        Ok(pages)
    }

    /// Asks every VM that mirrors an area about it, for the oracle to judge the answer.
    pub(super) fn query_area(&mut self, memory: &Arc<MemoryObject>) -> Done {
        const MOST: u64 = 64 << 20;
        if memory.area.is_none() || !self.stage.device.caps().has("svm.query") {
            return Ok(());
        }
        let piece = self.whole(memory);
        if piece.len > MOST {
            return Ok(());
        }
        for vm in all(&self.stage.names.vms) {
            let mirrored = {
                let model = self.stage.model();
                let mut parts = model.layout(vm.space).mappings(piece.addr, piece.addr + piece.len);
                parts.all(|(.., mapped)| mapped.mirror == Some(piece.mm))
            };
            // One that was destroyed answers as a banned one does.
            if vm.mirror && vm.mm == piece.mm && mirrored && !self.is_banned(&vm)? {
                self.ask_pages(&vm, &piece)?;
            }
        }
        Ok(())
    }

    pub(super) fn check_attributes(
        &mut self,
        part: &Part,
        vm: Option<&str>,
        expect: &Attributes,
    ) -> Done {
        let vm = self.svm_vm(None, vm)?;
        let piece = self.piece(part)?;
        let client = self.client_named(&vm.client)?;
        let seen = match client.handle.svm_attributes(range(&vm, &piece)) {
            Ok(seen) => seen,
            Err(error) => return self.fail("attributes", "success", &error.to_string()),
        };
        let wanted = change(expect);
        let right = wanted.preferred.is_none_or(|preferred| preferred == seen.preferred)
            && wanted.atomic.is_none_or(|atomic| atomic == seen.atomic)
            && wanted.policy.is_none_or(|policy| policy == seen.policy)
            && wanted.timeslice_ns.is_none_or(|time| time == seen.timeslice_ns);
        if right {
            return Ok(());
        }
        let what = format!("attributes of {}", piece.memory.name);
        self.fail(&what, &format!("{expect:?}"), &format!("{seen:?}"))
    }

    pub(super) fn check_fault_buffer(
        &mut self,
        pending: Option<&Check>,
        paused: Option<bool>,
    ) -> Done {
        let name = self.client.clone();
        let client = self.client_named(&name)?;
        let state = match client.handle.svm_faults(dev::SvmFaultAction::State) {
            Ok(state) => state,
            Err(error) => {
                return self.fail("state of the fault buffer", "success", &errno_name(error.errno));
            }
        };
        self.must("faults that wait", pending, state.pending)?;
        match paused.filter(|paused| *paused != state.paused) {
            Some(paused) => {
                let text = |paused| if paused { "paused" } else { "going on" };
                self.fail("fault buffer", text(paused), text(state.paused))
            }
            None => Ok(()),
        }
    }
}

fn range(vm: &VmObject, piece: &Piece) -> SvmRange {
    SvmRange { vm: vm.vm, addr: piece.addr, len: piece.len }
}

/// A word of each page, at another place in each, and the last one; of very many pages, of some.
fn word_of_each_page(start: u64, end: u64) -> Vec<u64> {
    const MOST: u64 = 1024;
    let pages = (end - start) / PAGE;
    let step = pages.div_ceil(MOST).max(1);
    let word = |page: u64| start + page * PAGE + (page % 512) * 8;
    let mut words: Vec<u64> = (0..pages).step_by(step as usize).map(word).collect();
    words.push(end - 8);
    words
}

/// What the oracle does not allow of a page, in words of what it has to be.
fn impossible(
    page: &SvmPage,
    (readable, writable, away): (bool, bool, bool),
) -> Option<&'static str> {
    let on_device = matches!(page.place, SvmPlace::Device | SvmPlace::OtherDevice);
    match () {
        () if on_device && !away => Some("not in device memory: nothing can have moved it there"),
        () if page.writable && !writable => Some("nobody to write it, as its mapping says"),
        () if page.readable && !readable => Some("nobody to read it, as its mapping says"),
        () if page.gpu > SvmReach::Nothing && !readable => {
            Some("no translation of the GPU, as the CPU has nothing there")
        }
        () if page.gpu > SvmReach::Read && !writable => {
            Some("no more than reads of the GPU, as the mapping says")
        }
        () => None,
    }
}

fn page_text(page: &SvmPage) -> String {
    let SvmPage { readable, writable, gpu, place, order, gpu_order } = page;
    let access = match (readable, writable) {
        (_, true) => "rw",
        (true, false) => "ro",
        (false, false) => "none",
    };
    format!("place {place:?}, access {access}, GPU {gpu:?}, order {order}, GPU order {gpu_order}")
}

fn change(attributes: &Attributes) -> dev::SvmChange {
    let Attributes { preferred, atomic, system_only, timeslice } = attributes;
    dev::SvmChange {
        preferred: preferred.map(|preferred| preferred.map(region)),
        atomic: *atomic,
        policy: system_only
            .map(|only| if only { dev::SvmPolicy::SystemOnly } else { dev::SvmPolicy::All }),
        timeslice_ns: timeslice.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
    }
}
