//! Bind jobs: what a bind call still has to do when it has updated the address space.
//!
//! Owns the second and third stage of VM_BIND: the commit, in the fence path, writes page tables
//! from what was prepared and allocates nothing; the clean-up afterwards frees what the call
//! removed. The first stage is [`crate::vm::prepare`]'s.

use fencepost_uapi::fencepost::BIND_READONLY;
use fencepost_uapi::Errno;

use super::lane::EntityId;
use super::queue::Queue;
use crate::counters::Counter;
use crate::debug::delay::{Hold, Point};
use crate::device::Device;
use crate::driver::Step;
use crate::facade::rank::FencePath;
use crate::facade::{Arc, Box, Ordering, Vec};
use crate::gem::GemRef;
use crate::gpuva::{Attrs, Removed, Span};
use crate::host::Host;
use crate::pgtable::{Leave, Props, Source, Stock};
use crate::sync::args::UserFence;
use crate::sync::fence::Fence;
use crate::vm::mmu::map_object;
use crate::vm::Vm;

/// Unfinished jobs that a bind queue has room for from the start; more need memory.
pub const BIND_ROOM: usize = 16;

/// One range to write.
pub enum PtOp<H: Host> {
    /// Show an object, or nothing (NULL).
    Map {
        /// The range.
        span: Span,
        /// The object; `None`: NULL.
        gem: Option<GemRef<H>>,
        /// Offset in it.
        offset: u64,
        /// Flags and kind.
        attrs: Attrs,
        /// It lies in a sparse region.
        in_sparse: bool,
    },
    /// Show a sparse region.
    Sparse(Span),
    /// Show nothing, or what sparse regions leave.
    Clear(Span, Leave),
}

impl<H: Host> PtOp<H> {
    /// The range.
    pub fn span(&self) -> Span {
        match self {
            PtOp::Map { span, .. } | PtOp::Sparse(span) | PtOp::Clear(span, _) => *span,
        }
    }
}

/// A user fence that is due when its job has signalled.
pub struct UserWrite<H: Host> {
    /// For whom.
    pub task: H::Task,
    /// What and where.
    pub fence: UserFence,
}

/// A bind job.
pub struct BindJob<H: Host> {
    /// The VM.
    pub vm: Arc<Vm<H>>,
    /// The queue, unless it is the VM's default one.
    pub queue: Option<Arc<Queue<H>>>,
    /// Signals when the page tables are written.
    pub fence: Arc<Fence>,
    /// What it waits for.
    pub deps: Vec<Arc<Fence>>,
    /// What it writes, in order.
    pub work: Vec<PtOp<H>>,
    /// Page-table nodes for it.
    pub stock: Stock,
    /// What the call took out of the address space.
    pub removed: Option<Removed>,
    /// The user fence to write for the caller.
    pub user_fence: Option<Box<UserWrite<H>>>,
    /// The update is to fail.
    pub fail: bool,
    /// Where it stands with [`Point::BindCommit`].
    pub hold_commit: Hold,
    /// Where it stands with [`Point::FenceSignal`].
    pub hold_signal: Hold,
    /// The page tables are written, with this result.
    pub written: Option<Option<Errno>>,
}

impl<H: Host> BindJob<H> {
    /// Whether everything that it waits for has happened. Work for a VM that is gone waits for
    /// nothing: it only cleans up.
    pub fn is_ready(&self) -> bool {
        self.vm.is_dead() || self.deps.iter().all(|fence| fence.is_signalled())
    }

    /// Writes the page tables. Fence path.
    fn write(&mut self, dev: &Device<H>) -> Option<Errno> {
        if self.fail {
            self.vm.ban(&mut self.stock);
            return Some(Errno::IO);
        }
        let banned = self.vm.is_banned() || self.vm.is_dead();
        for op in &self.work {
            let written = match op {
                // Nothing may be shown any more, but what was removed must not stay either.
                _ if banned => {
                    let (span, stock) = (op.span(), &mut self.stock);
                    self.vm.mmu().erase(dev, span, Leave::Nothing, stock).map_err(Errno::from)
                }
                op => write_one(dev, &self.vm, op, &mut self.stock),
            };
            if written.is_err() {
                // Too few nodes were prepared: a bug of the driver.
                debug_assert!(banned, "prepare draws what commit needs");
                self.vm.ban(&mut self.stock);
                return Some(Errno::IO);
            }
        }
        banned.then_some(Errno::CANCELED)
    }

    /// Signals whoever waits. Fence path.
    fn signal(&mut self, dev: &Device<H>, error: Option<Errno>) {
        self.vm.cleaning();
        if let Some(queue) = &self.queue {
            queue.completed.fetch_add(1, Ordering::Relaxed);
        }
        dev.signal(&self.fence, error);
    }

    /// Passes the caller's word on to be written: not in the fence path, since the page may have to
    /// come from somewhere.
    fn signal_user(&mut self, dev: &Device<H>, error: Option<Errno>) {
        match self.user_fence.take() {
            Some(write) if error.is_none() => dev.user_fences.submit(write),
            Some(_) => dev.user_fences.unreserve(),
            None => {}
        }
    }

    /// Frees what the call removed.
    fn clean_up(mut self) {
        let stock = core::mem::take(&mut self.stock);
        match self.removed.take() {
            Some(removed) => self.vm.release(removed, stock),
            None => drop(stock),
        }
        // References to objects go without the VM's lock.
        self.work.clear();
        self.vm.cleaned();
        self.vm.unhold();
    }
}

fn write_one<H: Host>(
    dev: &Device<H>,
    vm: &Vm<H>,
    op: &PtOp<H>,
    stock: &mut Stock,
) -> Result<(), Errno> {
    match op {
        PtOp::Map { span, gem, offset, attrs, in_sparse } => {
            let readonly = attrs.flags & BIND_READONLY != 0;
            let in_sparse = *in_sparse;
            let props = Props { readonly, kind: attrs.kind, in_sparse, ..Props::default() };
            match gem {
                Some(gem) => map_object(vm, *span, gem, *offset, props, stock),
                None => Ok(vm.mmu().write(dev, *span, Source::Null, props, stock)?),
            }
        }
        PtOp::Sparse(span) => {
            Ok(vm.mmu().write(dev, *span, Source::Sparse, Props::default(), stock)?)
        }
        PtOp::Clear(span, leave) => Ok(vm.mmu().erase(dev, *span, *leave, stock)?),
    }
}

/// Does one piece of work for the bind queues.
pub fn step<H: Host>(dev: &Device<H>) -> Step {
    match dev.binds.pick(BindJob::is_ready) {
        Some((id, job)) => run(dev, id, job, |job| dev.clean_ups.submit(job)),
        None => Step::Idle,
    }
}

/// Frees what one job removed.
pub fn clean_up_step<H: Host>(dev: &Device<H>) -> Step {
    let worked = dev.clean_ups.work(BindJob::clean_up);
    passed_on(dev, worked)
}

/// Writes one user fence.
pub fn user_fence_step<H: Host>(dev: &Device<H>) -> Step {
    let worked = dev.user_fences.work(|UserWrite { task, fence }| {
        // A bad address is noticed only here, and then nothing is written.
        if dev.host.copy_to_user(task, fence.addr, &fence.value.to_ne_bytes()).is_ok() {
            dev.counters.inc(Counter::UserFencesSignalled);
        }
    });
    passed_on(dev, worked)
}

/// The step of a worker that serves a line: others may wait for what it did.
fn passed_on<H: Host>(dev: &Device<H>, worked: bool) -> Step {
    if !worked {
        return Step::Idle;
    }
    dev.host.wake();
    Step::Worked
}

/// Runs what is ready in one queue, for a caller that waits for it; the worker does the rest.
pub fn help<H: Host>(dev: &Device<H>, id: EntityId, done: &Fence) {
    while !done.is_signalled() {
        let Some(job) = dev.binds.take(id, BindJob::is_ready) else { break };
        let clean_up = |job: Box<BindJob<H>>| {
            dev.clean_ups.unreserve();
            Box::into_inner(job).clean_up();
        };
        if run(dev, id, job, clean_up) != Step::Worked {
            break;
        }
    }
}

/// Runs a job that was taken from its queue, or lets it be held at a delay point. `clean_up` has a
/// promised place for it.
fn run<H: Host>(
    dev: &Device<H>,
    id: EntityId,
    mut job: Box<BindJob<H>>,
    clean_up: impl FnOnce(Box<BindJob<H>>),
) -> Step {
    let path = FencePath::enter();
    if job.written.is_none() {
        if let Some((until_ns, _)) = dev.delay_poll(Point::BindCommit, &mut job.hold_commit) {
            return put_back(dev, id, job, until_ns);
        }
        job.written = Some(job.write(dev));
    }
    if let Some((until_ns, _)) = dev.delay_poll(Point::FenceSignal, &mut job.hold_signal) {
        return put_back(dev, id, job, until_ns);
    }
    let error = job.written.flatten();
    job.signal(dev, error);
    job.signal_user(dev, error);
    drop(path);
    // The job may hold the last reference to its queue: the lane is done with that first.
    dev.binds.finish(id);
    clean_up(job);
    dev.host.wake();
    Step::Worked
}

fn put_back<H: Host>(dev: &Device<H>, id: EntityId, job: Box<BindJob<H>>, until_ns: u64) -> Step {
    let verdict = dev.binds.put_back(id, job, true);
    debug_assert!(matches!(verdict, super::lane::Verdict::Kept), "bind queues are not killed");
    Step::Stalled { until_ns }
}
