//! Bind calls, and what the VA dump must show after them.

use super::actor::{Actor, Answer, Done, answer_text, errno_name};
use super::stage::{VmObject, all, find};
use crate::lang::ast::QueueClass;
use crate::lang::expect::{Mapping, Target};
use crate::lang::step::{Bind, BindOp, Outcome, Region, Step};
use crate::oracle::space::Mapped;
use crate::oracle::{self, BindAnswer, BindRequest, Object};
use fencepost_fixtures::Errno;
use fencepost_fixtures::device as dev;
use fencepost_results::Failure;
use std::sync::Arc;

/// The vocabulary's region.
pub(super) fn region(region: Region) -> dev::Region {
    match region {
        Region::System => dev::Region::System,
        Region::Vram => dev::Region::Vram,
    }
}

impl Actor<'_, '_> {
    /// The VM of that name, or the client's default one.
    pub(super) fn vm(&mut self, client: &str, name: Option<&str>) -> Done<Arc<VmObject>> {
        let vm = match name {
            Some(name) => find(&self.stage.names.vms, name),
            None => self.stage.default_vm(client),
        };
        match vm {
            Some(vm) => Ok(vm),
            None => self.broken(&format!("there is no VM {}", name.unwrap_or("by default"))),
        }
    }

    pub(super) fn bind(&mut self, step: &Step, bind: &Bind) -> Done<Answer> {
        let client_name = step.client.clone().unwrap_or_else(|| self.client.clone());
        let vm = self.vm(&client_name, bind.vm.as_deref())?;
        let client = match &step.client {
            Some(name) => self.client_named(name)?,
            None => self.client_named(&vm.client.clone())?,
        };
        let queue = match &bind.queue {
            Some(name) => match find(&self.stage.names.queues, name) {
                Some(queue) => Some(queue),
                None => return self.broken(&format!("there is no queue {name}")),
            },
            None => None,
        };
        let mut device_ops = Vec::new();
        let mut model_ops = Vec::new();
        for op in &bind.ops {
            let (device, model) = self.bind_op(op, vm.mm)?;
            device_ops.push(device);
            model_ops.push(model);
        }
        let mut user_fence = None;
        let syncs = self.syncs(&bind.wait, &bind.signal, &mut |actor, at, value| {
            let (memory, offset) = actor.cpu_place(at)?;
            let view = actor.view_or_fail(&memory)?;
            let addr = view.addr().wrapping_add(offset);
            let (object, offset) = actor.behind(&memory, offset);
            user_fence = Some((object, offset, value));
            Ok(addr)
        })?;
        let request = BindRequest {
            space: vm.space,
            queue: queue.as_ref().map_or(vm.bind_queue, |queue| queue.number),
            is_async: bind.run_async,
            ops: &model_ops,
            wait: &syncs.wait,
            signal: &syncs.signal,
            user_fence,
            origin: self.origin,
        };
        let call = dev::BindCall {
            vm: vm.vm,
            queue: queue.as_ref().map(|queue| queue.queue),
            is_async: bind.run_async,
            ops: device_ops,
            syncs: syncs.points,
        };
        let stage = self.stage;
        let id = stage.model().bind_begin(self.line, &request);
        for op in &call.ops {
            if let dev::BindOp::Prefetch { addr, range, region: dev::Region::Vram } = *op {
                stage.model().may_move(self.line, vm.mm, (addr, addr.saturating_add(range)));
            }
        }
        let operation = operation(&bind.ops, bind.run_async);
        let answer = self.timed(&operation, || client.handle.bind(&call));
        let must = stage.model().bind_end(self.line, id, answer.is_ok());
        let answer = answer.map_err(|error| error.errno);
        self.judge_bind(step, bind, must, answer)?;
        if answer.is_err() {
            self.check_layout(&vm, "after the refused call")?;
        }
        Ok(answer)
    }

    /// Compares the answer with what the oracle says that it has to be.
    fn judge_bind(&mut self, step: &Step, bind: &Bind, must: BindAnswer, answer: Answer) -> Done {
        let open = step.outcomes.contains(&Outcome::Any);
        let seen = answer_text(answer);
        match (must, answer) {
            (BindAnswer::Refuse(errno), Ok(())) => {
                let expected = format!("refused with {}", errno_name(errno));
                self.fail("bind call, by drm_gpuvm's rules", &expected, &seen)
            }
            (BindAnswer::Refuse(errno), Err(other))
                if open && bind.ops.len() == 1 && errno != other =>
            {
                let expected = format!("refused with {}", errno_name(errno));
                self.fail("bind call, by drm_gpuvm's rules", &expected, &seen)
            }
            (BindAnswer::Accept, Err(Errno::EINVAL | Errno::EEXIST)) if open => {
                self.fail("bind call, by drm_gpuvm's rules", "success", &seen)
            }
            _ => Ok(()),
        }
    }

    /// An operation for the device and for the oracle.
    fn bind_op(&mut self, op: &BindOp, mm: oracle::MmId) -> Done<(dev::BindOp, oracle::Op)> {
        Ok(match op {
            BindOp::Map(mapping) => self.map_op(mapping, mm)?,
            BindOp::Unmap { addr, size, sparse } => {
                let (addr, range) = (self.value(addr)?, self.value(size)?);
                let device = match sparse {
                    true => dev::BindOp::UnmapSparse { addr, range },
                    false => dev::BindOp::Unmap { addr, range },
                };
                (device, oracle::Op::Unmap { addr, range, sparse: *sparse })
            }
            BindOp::UnmapAll(name) => {
                let memory = self.memory(name)?;
                let Some(gem) = memory.gem else { return self.broken("CPU memory is not mapped") };
                (dev::BindOp::UnmapAll { gem }, oracle::Op::UnmapAll(memory.object))
            }
            BindOp::Prefetch { addr, size, region: to } => {
                let (addr, range) = (self.value(addr)?, self.value(size)?);
                let device = dev::BindOp::Prefetch { addr, range, region: region(*to) };
                (device, oracle::Op::Prefetch { addr, range })
            }
            BindOp::Madvise { addr, size, region: to } => {
                let (addr, range) = (self.value(addr)?, self.value(size)?);
                let to = to.map(region);
                let device = dev::BindOp::Madvise { addr, range, region: to };
                (device, oracle::Op::Madvise { addr, range, region: to })
            }
        })
    }

    fn map_op(&mut self, mapping: &Mapping, mm: oracle::MmId) -> Done<(dev::BindOp, oracle::Op)> {
        let (addr, range) = (self.value(&mapping.addr)?, self.value(&mapping.size)?);
        let readonly = mapping.readonly;
        let kind = self.value(&mapping.kind)?;
        let kind = u32::try_from(kind).unwrap_or(u32::MAX);
        let (device, target) = match &mapping.target {
            Target::Memory { name, offset } => {
                let offset = self.value(offset)?;
                let memory = self.memory(name)?;
                let Some(gem) = memory.gem else { return self.broken("CPU memory is not mapped") };
                let map = dev::BindOp::Map { addr, range, gem, offset, readonly, kind };
                (map, oracle::Target::Object(memory.object, offset))
            }
            Target::Null => {
                (dev::BindOp::MapNull { addr, range, readonly, kind }, oracle::Target::Null)
            }
            Target::Sparse => (dev::BindOp::MapSparse { addr, range }, oracle::Target::Sparse),
            Target::CpuMirror => {
                (dev::BindOp::MapMirror { addr, range }, oracle::Target::Mirror(mm))
            }
        };
        Ok((device, oracle::Op::Map { addr, range, target, readonly, kind }))
    }

    // ---- the VA dump -----------------------------------------------------------------------

    /// The mappings of a VM as the device lists them.
    pub(super) fn va_dump(&mut self, vm: &VmObject) -> Done<Vec<dev::Mapping>> {
        let client = self.client_named(&vm.client)?;
        match self.timed("vm.va_dump", || client.handle.va_dump(vm.vm)) {
            Ok(dump) => Ok(dump),
            Err(error) => self.fail("VA dump", "success", &error.to_string()),
        }
    }

    /// Compares the device's list of mappings with the oracle's layout.
    pub(super) fn check_layout(&mut self, vm: &VmObject, when: &str) -> Done {
        if !self.stage.device.caps().has("va_dump") {
            return Ok(());
        }
        if !self.stage.model().layout(vm.space).is_sure() {
            return Ok(());
        }
        let before = self.layout_rows(vm);
        let dump = self.va_dump(vm)?;
        let seen: Vec<Row> = dump.iter().map(|mapping| self.seen_row(vm, mapping)).collect();
        let expected = self.layout_rows(vm);
        // Another actor may have changed the layout meanwhile: then nothing is known.
        if before != expected || !self.stage.model().layout(vm.space).is_sure() || seen == expected
        {
            return Ok(());
        }
        let mut failure = compare_rows(&expected, &seen, &|row| self.row_text(row));
        failure.what = format!("mappings of VM {} {when}", vm.name);
        self.fail_with(failure)
    }

    fn layout_rows(&self, vm: &VmObject) -> Vec<Row> {
        let model = self.stage.model();
        let layout = model.layout(vm.space);
        let mut rows: Vec<Row> = layout
            .mappings(0, u64::MAX)
            .map(|(start, end, mapped)| Row::of(start, end, mapped))
            .collect();
        rows.extend(layout.sparse_regions().map(|(start, end)| Row::sparse(start, end)));
        rows.sort_by_key(|row| (row.start, !row.sparse));
        rows
    }

    /// A mapping of the dump in the oracle's terms.
    pub(super) fn seen_row(&self, vm: &VmObject, mapping: &dev::Mapping) -> Row {
        let object = match mapping.backing {
            dev::Backing::Object { gem, object } => Some(self.identify(&vm.client, gem, object)),
            dev::Backing::Null | dev::Backing::Sparse | dev::Backing::Mirror => None,
        };
        Row {
            start: mapping.addr,
            end: mapping.addr.wrapping_add(mapping.range),
            sparse: mapping.backing == dev::Backing::Sparse,
            mirror: mapping.backing == dev::Backing::Mirror,
            object: object.map(|object| (object, mapping.offset)),
            readonly: mapping.readonly,
            kind: mapping.kind,
        }
    }

    /// The oracle's number of an object that the device names; the device's own numbers are learnt
    /// as long as a handle tells them.
    fn identify(&self, client: &str, gem: Option<dev::Gem>, number: u64) -> Object {
        let names = &self.stage.names;
        let mut numbers = names.numbers.lock().unwrap_or_else(|p| p.into_inner());
        if let Some(known) = numbers.get(&number) {
            return *known;
        }
        let named = gem.and_then(|gem| {
            let is_it = |memory: &Arc<super::stage::MemoryObject>| {
                memory.client == client && memory.gem == Some(gem)
            };
            all(&names.memory).into_iter().find(is_it)
        });
        match named {
            Some(memory) => {
                numbers.insert(number, memory.object);
                memory.object
            }
            // Nobody's: compares unequal to all.
            None => Object::MAX,
        }
    }

    /// A row in words.
    pub(super) fn row_text(&self, row: &Row) -> String {
        let what = match row.object {
            _ if row.sparse => "sparse region".to_owned(),
            _ if row.mirror => "CPU mirror".to_owned(),
            Some((Object::MAX, offset)) => format!("an unknown object from {offset:#x}"),
            Some((object, offset)) => {
                format!("{} from {offset:#x}", self.stage.object_name(object))
            }
            None => "NULL".to_owned(),
        };
        let readonly = if row.readonly { " read-only" } else { "" };
        let kind = if row.kind == 0 { String::new() } else { format!(" kind {}", row.kind) };
        format!("{:#x} to {:#x} {what}{readonly}{kind}", row.start, row.end)
    }

    /// Checks a VM by itself: layout, and through the GPU a sample of what is mapped.
    pub(super) fn check_vm(&mut self, vm: &Arc<VmObject>, when: &str) -> Done {
        self.check_layout(vm, when)?;
        let addrs: Vec<u64> = {
            let model = self.stage.model();
            let layout = model.layout(vm.space);
            layout
                .mappings(0, u64::MAX)
                .filter(|(start, end, m)| m.mirror.is_none() && !layout.is_unsure(*start, *end))
                .flat_map(|(start, end, _)| sample(start, end))
                .collect()
        };
        if !addrs.is_empty() {
            self.probe(vm, &addrs)?;
        }
        Ok(())
    }
}

/// A mapping or sparse region as far as dumps are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) sparse: bool,
    pub(super) mirror: bool,
    pub(super) object: Option<(Object, u64)>,
    pub(super) readonly: bool,
    pub(super) kind: u32,
}

impl Row {
    fn of(start: u64, end: u64, mapped: &Mapped) -> Self {
        let object = mapped.object.map(|(object, shift)| (object, start.wrapping_add(shift)));
        let Mapped { readonly, kind, .. } = *mapped;
        let mirror = mapped.mirror.is_some();
        Self { start, end, sparse: false, mirror, object, readonly, kind }
    }

    fn sparse(start: u64, end: u64) -> Self {
        let (mirror, object) = (false, None);
        Self { start, end, sparse: true, mirror, object, readonly: false, kind: 0 }
    }
}

/// A failure that shows two lists side by side, where they first differ.
pub(super) fn compare_rows<T: PartialEq>(
    expected: &[T],
    seen: &[T],
    text: &dyn Fn(&T) -> String,
) -> Failure {
    let differ =
        (0..expected.len().max(seen.len())).find(|i| expected.get(*i) != seen.get(*i)).unwrap_or(0);
    let at = |list: &[T]| list.get(differ).map_or_else(|| "no more".to_owned(), text);
    let mut details = vec![format!("{} expected, {} seen:", expected.len(), seen.len())];
    const AROUND: usize = 6;
    let from = differ.saturating_sub(AROUND / 2);
    for (title, list) in [("expected", expected), ("seen", seen)] {
        for (index, item) in list.iter().enumerate().skip(from).take(AROUND) {
            let mark = if index == differ { ">" } else { " " };
            details.push(format!("{mark} {title} {index}: {}", text(item)));
        }
    }
    Failure { step: None, what: String::new(), expected: at(expected), seen: at(seen), details }
}

/// Words to look at in a mapping: the first, the last, and at 4 KiB steps between, 64 in all.
pub(super) fn sample(start: u64, end: u64) -> Vec<u64> {
    const PAGE: u64 = 4096;
    const MOST: u64 = 62;
    if end < start.saturating_add(8) {
        return Vec::new();
    }
    let pages = (end - start) / PAGE;
    let step = pages.div_ceil(MOST).max(1) * PAGE;
    let mut words: Vec<u64> = (start..end).step_by(step as usize).collect();
    words.push(end - 8);
    words
}

/// The operation's name among the latencies.
fn operation(ops: &[BindOp], run_async: bool) -> String {
    let what = match ops {
        [] => "none",
        [BindOp::Map(mapping)] => match mapping.target {
            Target::Sparse => "map_sparse",
            Target::Null => "map_null",
            _ => "map",
        },
        [BindOp::Unmap { sparse: true, .. }] => "unmap_sparse",
        [BindOp::Unmap { .. }] => "unmap",
        [BindOp::UnmapAll(_)] => "unmap_all",
        [BindOp::Prefetch { .. }] => "prefetch",
        [BindOp::Madvise { .. }] => "madvise",
        _ => "array",
    };
    format!("vm_bind.{what}{}", if run_async { ".async" } else { "" })
}

/// The class of a queue for the vocabulary.
pub(super) fn queue_class(class: QueueClass) -> dev::QueueClass {
    match class {
        QueueClass::Exec => dev::QueueClass::Exec,
        QueueClass::Bind => dev::QueueClass::Bind,
    }
}
