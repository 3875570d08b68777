//! The first stage of a bind call: updating the address space and setting aside what the later stages
//! need.
//!
//! Owns the order of a call. Everything that can fail comes first, under the reservations of the VM
//! and of every object concerned; then the call is final and nothing fails any more. When something
//! fails, the changes are reverted, newest first, and the call leaves no trace. The later stages are
//! in [`crate::sched::bind`].

use fencepost_uapi::fencepost::INJECT_ASYNC_BIND;
use fencepost_uapi::Errno;

use super::bind::Action;
use super::{Pending, Space, Vm};
use crate::call::Call;
use crate::counters::Counter;
use crate::debug::delay::{Hold, Point};
use crate::device::Device;
use crate::facade::{AllocError, Arc, Box, Ordering, Vec};
use crate::gem::{evict, GemRef};
use crate::gpuva::{Changes, Mapping, Op, Span};
use crate::host::Host;
use crate::pgtable::{Leave, Need, Stock};
use crate::sched::bind::{help, BindJob, PtOp, UserWrite};
use crate::sched::lane::EntityId;
use crate::sched::queue::Queue;
use crate::svm::Inside;
use crate::sync::args::Syncs;
use crate::sync::fence::Fence;
use crate::sync::resv::ExecLock;

/// A checked bind call.
pub struct Request<H: Host> {
    /// The VM.
    pub vm: Arc<Vm<H>>,
    /// The bind queue, unless it is the VM's default one.
    pub queue: Option<Arc<Queue<H>>>,
    /// What to do, in order.
    pub actions: Vec<Action<H>>,
    /// What to wait for and what to signal.
    pub syncs: Syncs,
    /// Return before the page tables are written.
    pub is_async: bool,
}

/// What the operations of a call came to; counted once the call is final.
#[derive(Default)]
struct Tally {
    maps: u64,
    unmaps: u64,
    remaps: u64,
    keeps: u64,
    prefetches: u64,
    madvises: u64,
}

impl Tally {
    fn note<O>(&mut self, op: &Op<O>) {
        match op {
            Op::Map(_) => self.maps += 1,
            Op::Remap { unmap, .. } => {
                self.remaps += 1;
                self.keeps += u64::from(unmap.keep);
            }
            Op::Unmap(unmap) => {
                self.unmaps += 1;
                self.keeps += u64::from(unmap.keep);
            }
            Op::Prefetch(_) => self.prefetches += 1,
            Op::Madvise(_) => self.madvises += 1,
        }
    }
}

/// A call under way.
struct Preparation<'a, 'c, H: Host> {
    call: &'a Call<'c, H>,
    vm: &'a Arc<Vm<H>>,
    changes: Changes,
    work: Vec<PtOp<H>>,
    stock: Stock,
    tally: Tally,
}

/// Runs a checked bind call.
///
/// # Errors
/// As documented with the record; then nothing has changed.
pub fn submit<H: Host>(call: &Call<'_, H>, request: Request<H>) -> Result<(), Errno> {
    let Request { vm, queue, actions, mut syncs, is_async } = request;
    if !vm.try_hold() {
        syncs.cancel();
        return Err(Errno::NOENT);
    }
    vm.settle();
    let mut lock = ExecLock::new(call.dev, Some(call.task));
    let entity = queue.as_ref().map_or(vm.bind_entity, |queue| queue.entity);
    // Faults see the address space before the call or behind it. Before the reservations, since who is
    // in the gate may want some.
    let entered = Inside::enter(&vm, call.task);
    let prepared = entered.and_then(|inside| {
        check_live(&inside, &actions)?;
        let prepared = prepare(call, &vm, &actions, &mut lock, entity, &mut syncs, is_async);
        drop(inside);
        prepared
    });
    let mut job = prepared.inspect_err(|_| {
        syncs.cancel();
        lock.unlock_all();
        vm.unhold();
    })?;
    let fence = job.fence.clone();
    job.queue = queue;
    call.dev.delay(Point::BindPrepared);
    syncs.install(&fence);
    if let Some(queue) = &job.queue {
        queue.submitted.fetch_add(1, Ordering::Relaxed);
    }
    // The job has taken over the hold on the VM.
    let submitted = call.dev.binds.submit(entity, job);
    debug_assert!(submitted.is_ok(), "bind queues are not killed");
    drop(lock);
    call.dev.counters.inc(match is_async {
        true => Counter::BindsAsync,
        false => Counter::BindsSync,
    });
    if is_async {
        call.dev.host.wake();
    } else {
        help(call.dev, entity, &fence);
        if !fence.is_signalled() {
            call.dev.host.wake();
            // What it waits for signals in finite time, and the call cannot be undone any more.
            call.dev.host.wait_event(None, None, &mut || fence.is_signalled())?;
        }
        vm.settle();
    }
    move_mirrored(call, &vm, &actions);
    Ok(())
}

/// Does for mirrors what the call says of the places of pages. The call has happened by now, so that
/// nothing of it fails.
fn move_mirrored<H: Host>(call: &Call<'_, H>, vm: &Arc<Vm<H>>, actions: &[Action<H>]) {
    let moves = |action: &Action<H>| matches!(action, Action::Prefetch(..) | Action::Madvise(..));
    let unmaps = |action: &Action<H>| matches!(action, Action::Unmap(_) | Action::Map { .. });
    let concerned = |action: &Action<H>| moves(action) || unmaps(action);
    if vm.svm.is_none() || !actions.iter().any(concerned) || !vm.try_hold() {
        return;
    }
    if let Ok(Some(inside)) = Inside::enter(vm, call.task) {
        for action in actions {
            // Without memory pages stay where they are.
            let _ = match action {
                Action::Prefetch(span, region) => inside.prefetch(*span, *region),
                Action::Madvise(span, region) => inside.prefer(*span, *region),
                Action::Unmap(span) => inside.forget_unmirrored(*span),
                Action::Map { span, attrs, .. } if !attrs.is_mirror() => {
                    inside.forget_unmirrored(*span)
                }
                _ => Ok(()),
            };
        }
    }
    vm.unhold();
}

/// A mirror is not unmapped or replaced while pages of it are mapped.
fn check_live<H: Host>(inside: &Option<Inside<'_, H>>, actions: &[Action<H>]) -> Result<(), Errno> {
    let Some(inside) = inside else { return Ok(()) };
    let ranges = inside.svm.ranges.lock();
    let is_live = |span: Span| ranges.in_span(span).any(|range| !range.unmapped);
    let takes_away = |action: &Action<H>| match action {
        Action::Map { span, attrs, .. } => !attrs.is_mirror() && is_live(*span),
        Action::Unmap(span) | Action::UnmapSparse(span) => is_live(*span),
        _ => false,
    };
    match actions.iter().any(takes_away) {
        true => Err(Errno::BUSY),
        false => Ok(()),
    }
}

/// Places promised to a job in all the lines that it will stand in.
struct Places {
    entity: EntityId,
    user_fence: bool,
}

impl Places {
    fn reserve<H: Host>(
        dev: &Device<H>,
        entity: EntityId,
        user_fence: bool,
    ) -> Result<Self, Errno> {
        // Without a limit there is always a place.
        dev.binds.reserve(entity, usize::MAX)?;
        if let Err(error) = dev.clean_ups.reserve() {
            dev.binds.unreserve(entity);
            return Err(error.into());
        }
        if user_fence {
            if let Err(error) = dev.user_fences.reserve() {
                Places { entity, user_fence: false }.give_back(dev);
                return Err(error.into());
            }
        }
        Ok(Places { entity, user_fence })
    }

    fn give_back<H: Host>(self, dev: &Device<H>) {
        dev.binds.unreserve(self.entity);
        dev.clean_ups.unreserve();
        if self.user_fence {
            dev.user_fences.unreserve();
        }
    }
}

/// Does everything of a call that can fail, and makes it final.
fn prepare<H: Host>(
    call: &Call<'_, H>,
    vm: &Arc<Vm<H>>,
    actions: &[Action<H>],
    lock: &mut ExecLock<'_, H>,
    entity: EntityId,
    syncs: &mut Syncs,
    is_async: bool,
) -> Result<Box<BindJob<H>>, Errno> {
    let objects = lock_objects(vm, actions, lock)?;
    if vm.is_banned() || vm.is_dead() {
        return Err(Errno::NOENT);
    }
    vm.resv.reserve_fence()?;
    for gem in &objects {
        gem.resv.reserve_fence()?;
    }
    let fence = Fence::new(&call.dev.counters)?;
    let mut deps = core::mem::take(&mut syncs.deps);
    depend_on_overlapping(vm, actions, &mut deps)?;
    let fail = is_async
        && !actions.is_empty()
        && call.inject(call.file.injection(INJECT_ASYNC_BIND), Errno::IO).is_err();
    let mut job = Box::new(BindJob {
        vm: vm.clone(),
        queue: None,
        fence,
        deps,
        work: Vec::new(),
        stock: Stock::new(),
        removed: None,
        user_fence: None,
        fail,
        hold_commit: Hold::Before,
        hold_signal: Hold::Before,
        written: None,
    })?;
    if let Some(fence) = syncs.user_fence {
        job.user_fence = Some(Box::new(UserWrite { task: call.task, fence })?);
    }
    let places = Places::reserve(call.dev, entity, job.user_fence.is_some())?;
    let mut preparation = Preparation {
        call,
        vm,
        changes: Changes::new(),
        work: Vec::new(),
        stock: Stock::new(),
        tally: Tally::default(),
    };
    let applied = preparation.apply_all(actions, lock, &job.fence);
    match applied {
        Ok(()) => preparation.finish(&mut job),
        Err(errno) => {
            preparation.revert(actions);
            places.give_back(call.dev);
            return Err(errno);
        }
    }
    vm.resv.add_fence(&job.fence);
    for gem in objects.iter().filter(|gem| gem.private_to == 0) {
        gem.resv.add_fence(&job.fence);
    }
    Ok(job)
}

/// Locks the VM and every object that the call names or finds in its ranges. Returns the objects.
fn lock_objects<H: Host>(
    vm: &Arc<Vm<H>>,
    actions: &[Action<H>],
    lock: &mut ExecLock<'_, H>,
) -> Result<Vec<GemRef<H>>, Errno> {
    lock.until_all_locked(|lock| {
        lock.lock(&vm.resv)?;
        let objects = concerned(vm, actions)?;
        for gem in &objects {
            lock.lock(&gem.resv)?;
        }
        Ok(objects)
    })
}

/// The objects that a call names or finds in its ranges, each once.
fn concerned<H: Host>(
    vm: &Arc<Vm<H>>,
    actions: &[Action<H>],
) -> Result<Vec<GemRef<H>>, AllocError> {
    let mut objects: Vec<GemRef<H>> = Vec::new();
    let add = |objects: &mut Vec<GemRef<H>>, gem: &GemRef<H>| match objects
        .binary_search_by_key(&gem.id, |known| known.id)
    {
        Ok(_) => Ok(()),
        Err(at) => objects.insert(at, gem.clone()),
    };
    let space = vm.space();
    for action in actions {
        match action {
            Action::Map { gem: Some(gem), .. } | Action::UnmapAll(gem) => add(&mut objects, gem)?,
            _ => {}
        }
        if let Some(span) = action.span() {
            for gem in space.manager.iter(span).filter_map(|mapping| mapping.object) {
                add(&mut objects, gem)?;
            }
        }
    }
    Ok(objects)
}

/// Binds of different queues are not ordered among themselves, but those that touch the same
/// addresses must be: a page-table entry left by the wrong one would show memory that is gone.
fn depend_on_overlapping<H: Host>(
    vm: &Vm<H>,
    actions: &[Action<H>],
    deps: &mut Vec<Arc<Fence>>,
) -> Result<(), AllocError> {
    let space = vm.space();
    if space.pending.is_empty() {
        return Ok(());
    }
    let mut depend = |span: Span| {
        for pending in space.pending.iter().filter(|pending| pending.span.overlaps(span)) {
            let known = deps.last().is_some_and(|last| Arc::ptr_eq(last, &pending.fence));
            if !known && !pending.fence.is_signalled() {
                deps.push(pending.fence.clone())?;
            }
        }
        Ok(())
    };
    for action in actions {
        match action {
            Action::UnmapAll(gem) => {
                for mapping in space.manager.mappings_of(gem.id) {
                    depend(mapping.span)?;
                }
            }
            _ => action.span().map_or(Ok(()), &mut depend)?,
        }
    }
    Ok(())
}

impl<H: Host> Preparation<'_, '_, H> {
    /// Applies every operation to the address space, each seeing those before it.
    fn apply_all(
        &mut self,
        actions: &[Action<H>],
        lock: &mut ExecLock<'_, H>,
        fence: &Arc<Fence>,
    ) -> Result<(), Errno> {
        // Objects move while the page tables still show what the address space says.
        for (index, action) in actions.iter().enumerate() {
            if let Action::Prefetch(span, region) = action {
                self.prefetch(&actions[..index], *span, *region, lock)?;
            }
        }
        for action in actions {
            self.apply(action)?;
        }
        let mut space = self.vm.space();
        space.pending.reserve(self.work.len())?;
        for op in &self.work {
            // Within the room just made: nothing fails from here on.
            space.pending.push(Pending { span: op.span(), fence: fence.clone() })?;
        }
        Ok(())
    }

    /// Applies one operation.
    fn apply(&mut self, action: &Action<H>) -> Result<(), Errno> {
        let vm = self.vm;
        let mut space = vm.space();
        let before = space.manager.len();
        let result = self.change(&mut space, action);
        let after = space.manager.len();
        let counters = &self.call.dev.counters;
        counters.add(Counter::LiveVas, after.saturating_sub(before) as u64);
        counters.sub(Counter::LiveVas, before.saturating_sub(after) as u64);
        result
    }

    fn change(&mut self, space: &mut Space<H>, action: &Action<H>) -> Result<(), Errno> {
        let Preparation { changes, work, stock, tally, vm, .. } = self;
        let Space { manager, spares, .. } = space;
        work.reserve(1)?;
        let op = match action {
            Action::Map { span, gem, offset, attrs } => {
                let need = gem.as_ref().map_or(Need::edges(*span), |_| Need::map(*span));
                stock.append(spares.draw(need)?);
                if let Some(gem) = gem {
                    gem.add_link(vm)?;
                }
                let request =
                    Mapping { span: *span, object: gem.as_ref(), offset: *offset, attrs: *attrs };
                if attrs.is_mirror() && manager.regions(*span).next().is_some() {
                    return Err(Errno::NOSPC);
                }
                let in_sparse = manager.map(&request, changes, |op| tally.note(op))?.in_sparse;
                let (span, gem, offset, attrs) = (*span, gem.clone(), *offset, *attrs);
                match attrs.is_mirror() {
                    // Accesses fault until pages are there.
                    true => PtOp::Clear(span, Leave::Nothing),
                    false => PtOp::Map { span, gem, offset, attrs, in_sparse },
                }
            }
            Action::MapSparse(span) => {
                stock.append(spares.draw(Need::edges(*span))?);
                manager.map_sparse(*span, changes)?;
                PtOp::Sparse(*span)
            }
            Action::Unmap(span) => {
                stock.append(spares.draw_unmap(Need::edges(*span))?);
                manager.unmap(*span, changes, |op| tally.note(op))?;
                PtOp::Clear(*span, Leave::Sparse)
            }
            Action::UnmapSparse(span) => {
                manager.unmap_sparse(*span, changes, |op| tally.note(op))?;
                PtOp::Clear(*span, Leave::Nothing)
            }
            Action::UnmapAll(gem) => {
                let count = manager.mappings_of(gem.id).count();
                work.reserve(count)?;
                manager.unmap_object(gem.id, changes, |op| {
                    tally.note(op);
                    if let Op::Unmap(unmap) = op {
                        let clear = PtOp::Clear(unmap.mapping.span, Leave::Sparse);
                        let fits = work.push_within_capacity(clear).is_ok();
                        debug_assert!(fits, "one for each mapping of the object");
                    }
                });
                return Ok(());
            }
            Action::Madvise(span, region) => {
                return manager.madvise(*span, *region, changes, |op| tally.note(op));
            }
            Action::Prefetch(..) => return Ok(()),
        };
        let fits = work.push_within_capacity(op).is_ok();
        debug_assert!(fits, "room was made first");
        Ok(())
    }

    /// Moves the objects that are mapped in a range, or will be by the operations before. A move is
    /// no change of the address space: it stays when the call fails later.
    fn prefetch(
        &mut self,
        before: &[Action<H>],
        span: Span,
        region: u32,
        lock: &mut ExecLock<'_, H>,
    ) -> Result<(), Errno> {
        let mut objects: Vec<GemRef<H>> = Vec::new();
        for action in before {
            match action {
                Action::Map { span: mapped, gem: Some(gem), .. } if mapped.overlaps(span) => {
                    self.tally.prefetches += 1;
                    objects.push(gem.clone())?;
                }
                _ => {}
            }
        }
        let tally = &mut self.tally;
        self.vm.space().manager.prefetch(span, |op| {
            tally.note(op);
            let Op::Prefetch(Mapping { object: Some(gem), .. }) = op else { return Ok(()) };
            Ok(objects.push((*gem).clone())?)
        })?;
        for gem in &objects {
            evict::prefetch(self.call, lock, gem, region)?;
            evict::validate(self.vm, gem)?;
        }
        Ok(())
    }

    /// Undoes everything.
    fn revert(self, actions: &[Action<H>]) {
        let unwound = !self.changes.is_empty();
        let counters = &self.call.dev.counters;
        let mut space = self.vm.space();
        let Space { manager, spares, .. } = &mut *space;
        let before = manager.len();
        manager.revert(self.changes, |gem| gem.remove_link(self.vm));
        let after = manager.len();
        counters.add(Counter::LiveVas, after.saturating_sub(before) as u64);
        counters.sub(Counter::LiveVas, before.saturating_sub(after) as u64);
        for action in actions {
            // The link made for a mapping goes unless others need it, which shows only now.
            if let Action::Map { gem: Some(gem), .. } = action {
                if manager.mappings_of(gem.id).next().is_none() {
                    gem.remove_link(self.vm);
                }
            }
        }
        spares.give_back(self.stock);
        drop(space);
        if unwound {
            counters.inc(Counter::BindsUnwound);
        }
    }

    /// Makes the call final.
    fn finish(self, job: &mut BindJob<H>) {
        let counters = &self.call.dev.counters;
        job.removed = Some(self.vm.space().manager.seal(self.changes));
        job.work = self.work;
        drop_covered(&mut job.work);
        job.stock = self.stock;
        counters.add(Counter::OpsMap, self.tally.maps);
        counters.add(Counter::OpsUnmap, self.tally.unmaps);
        counters.add(Counter::OpsRemap, self.tally.remaps);
        counters.add(Counter::OpsKeep, self.tally.keeps);
        counters.add(Counter::OpsPrefetch, self.tally.prefetches);
        counters.add(Counter::OpsMadvise, self.tally.madvises);
    }
}

/// What a call maps again behind an unmap is not cleared in between: the GPU sees the old or the new.
fn drop_covered<H: Host>(work: &mut Vec<PtOp<H>>) {
    let mut at = 0;
    while at < work.len() {
        let PtOp::Clear(span, _) = work[at] else {
            at += 1;
            continue;
        };
        let covers = |op: &PtOp<H>| matches!(op, PtOp::Map { span: m, .. } if m.contains(span));
        match work[at + 1..].iter().any(covers) {
            true => drop(work.remove(at)),
            false => at += 1,
        }
    }
}
