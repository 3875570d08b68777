//! Exec jobs: batches on their way through an engine.
//!
//! Owns a job from its queue to its fence: when it may start, its slices of time, its time-out and
//! the reset that follows, the ban of its queue, cancelling. What its commands do is
//! [`crate::executor`]'s.

use fencepost_uapi::fencepost::{Batch, Fault};
use fencepost_uapi::Errno;

use super::lane::{EntityId, Verdict};
use super::queue::Queue;
use crate::counters::Counter;
use crate::debug::delay::{Hold, Point};
use crate::device::Device;
use crate::driver::Step;
use crate::executor::access::Stop;
use crate::executor::{self, Slice};
use crate::facade::rank::FencePath;
use crate::facade::{Arc, Ordering, Vec};
use crate::host::Host;
use crate::svm::buffer::{Entry, Park};
use crate::sync::args::UserFence;
use crate::sync::fence::Fence;

pub use crate::executor::Progress;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All commands ran.
    Completed,
    /// It faulted.
    Failed,
    /// It ran too long.
    TimedOut,
    /// Its queue or VM is gone or banned.
    Cancelled,
}

impl Outcome {
    fn error(self) -> Option<Errno> {
        match self {
            Outcome::Completed => None,
            Outcome::Failed => Some(Errno::IO),
            Outcome::TimedOut => Some(Errno::TIME),
            Outcome::Cancelled => Some(Errno::CANCELED),
        }
    }

    fn counter(self) -> Counter {
        match self {
            Outcome::Completed => Counter::JobsCompleted,
            Outcome::Failed => Counter::JobsFailed,
            Outcome::TimedOut => Counter::JobsTimeout,
            Outcome::Cancelled => Counter::JobsCancelled,
        }
    }
}

/// An exec job.
pub struct ExecJob<H: Host> {
    /// Its queue.
    pub queue: Arc<Queue<H>>,
    /// Signals when it has ended.
    pub fence: Arc<Fence>,
    /// What it waits for.
    pub deps: Vec<Arc<Fence>>,
    /// What it runs.
    pub batches: Vec<Batch>,
    /// Written when it has completed.
    pub user_fence: Option<UserFence>,
    /// Number in its queue, from 1.
    pub number: u64,
    /// How far it is.
    pub progress: Progress,
    /// When its first command ran.
    pub started_ns: Option<u64>,
    /// Its last slice only waited.
    pub stalled: bool,
    /// In a VM that takes faults: whether it waits for a translation.
    pub park: Option<Arc<Park>>,
    /// The access that it waits for, or waited for last.
    pub missing: Option<executor::Fault>,
    /// Where it stands with [`Point::ExecStart`].
    pub hold_start: Hold,
    /// Where it stands with [`Point::FenceSignal`].
    pub hold_signal: Hold,
    /// How its commands ended.
    pub outcome: Option<Outcome>,
}

impl<H: Host> ExecJob<H> {
    /// Whether it may run.
    pub fn is_ready(&self) -> bool {
        let waits = self.park.as_ref().is_some_and(|park| park.is_waiting());
        self.deps.iter().all(|fence| fence.is_signalled()) && (!waits || self.is_out())
    }

    /// Whether its queue or VM is banned.
    fn is_out(&self) -> bool {
        self.queue.is_banned() || self.queue.vm.is_banned()
    }

    /// When it has run too long; `None`: never, or it has not started.
    fn deadline(&self) -> Option<u64> {
        let started = self.started_ns.filter(|_| !self.queue.vm.is_long_running())?;
        Some(started.saturating_add(self.queue.timeout_ns))
    }
}

/// Does one slice of an engine's work.
pub fn step<H: Host>(dev: &Device<H>, engine: u32) -> Step {
    let Some(lane) = dev.engines.get(engine as usize) else { return Step::Idle };
    let Some((id, mut job)) = lane.pick(ExecJob::is_ready) else { return Step::Idle };
    let path = FencePath::enter();
    let was_stalled = job.stalled;
    let until_ns = advance(dev, id, &mut job);
    let Some(until_ns) = until_ns else {
        finish(dev, id, &mut job);
        drop(path);
        // The job may hold the last reference to its queue: the lane is done with that first.
        lane.finish(id);
        drop(job);
        dev.host.wake();
        return Step::Worked;
    };
    let stalled = job.stalled;
    match lane.put_back(id, job, stalled) {
        Verdict::Kept => {}
        Verdict::Killed(job) => {
            cancel(dev, &job);
            drop(path);
            lane.finish(id);
            drop(job);
            return Step::Worked;
        }
    }
    match was_stalled && stalled {
        true => Step::Stalled { until_ns },
        false => Step::Worked,
    }
}

/// Runs a job until its slice is over. `None`: it has ended. Else when it must be looked at again.
fn advance<H: Host>(dev: &Device<H>, id: EntityId, job: &mut ExecJob<H>) -> Option<u64> {
    if job.is_out() {
        job.outcome.get_or_insert(Outcome::Cancelled);
    }
    if job.outcome.is_none() {
        if let Some((until_ns, _)) = dev.delay_poll(Point::ExecStart, &mut job.hold_start) {
            job.stalled = true;
            return Some(until_ns);
        }
        if let Some(until_ns) = run_slice(dev, id, job) {
            return Some(until_ns);
        }
    }
    if let Some((until_ns, _)) = dev.delay_poll(Point::FenceSignal, &mut job.hold_signal) {
        job.stalled = true;
        return Some(until_ns);
    }
    match job.outcome {
        Some(Outcome::Completed) => signal_user(dev, job),
        _ => None,
    }
}

/// Runs commands. `None`: the outcome is known.
fn run_slice<H: Host>(dev: &Device<H>, id: EntityId, job: &mut ExecJob<H>) -> Option<u64> {
    let now = dev.host.now_ns();
    job.started_ns.get_or_insert(now);
    let deadline = job.deadline();
    if deadline.is_some_and(|deadline| now >= deadline) {
        time_out(dev, job);
        return None;
    }
    if judged(dev, id, job) {
        return None;
    }
    let vm = job.queue.vm.clone();
    let slice = executor::run(dev, &vm, job.queue.engine, &job.batches, &mut job.progress);
    job.stalled = slice == Slice::Stalled;
    match slice {
        Slice::Over | Slice::Stalled => Some(deadline.unwrap_or(u64::MAX)),
        Slice::Done => {
            job.outcome = Some(Outcome::Completed);
            None
        }
        Slice::Missing(fault) => {
            miss(dev, job, fault);
            Some(u64::MAX)
        }
        Slice::Fault(fault) => {
            fail(dev, id, job, fault);
            None
        }
    }
}

/// A job faulted.
fn fail<H: Host>(dev: &Device<H>, id: EntityId, job: &mut ExecJob<H>, fault: executor::Fault) {
    let lane = &dev.engines[job.queue.engine as usize];
    // A job whose queue went away meanwhile is not to blame.
    let killed = lane.is_killed(id) || job.queue.vm.is_dead();
    job.outcome = Some(match killed {
        true => Outcome::Cancelled,
        false => Outcome::Failed,
    });
    if !killed {
        report(dev, job, fault);
        job.queue.ban();
    }
}

/// An access found no translation: the job waits for its replay. Without room in the fault buffer it
/// tries again later.
fn miss<H: Host>(dev: &Device<H>, job: &mut ExecJob<H>, fault: executor::Fault) {
    let Some(park) = &job.park else { return };
    // Before anybody knows of it, so that no replay comes too early.
    park.wait();
    let executor::Fault { addr, access, .. } = fault;
    let entry = Entry { vm: job.queue.vm.clone(), park: park.clone(), addr, access };
    dev.counters.inc(Counter::LiveParked);
    match dev.svm.buffer.put(entry) {
        Ok(()) => {
            job.missing = Some(fault);
            job.stalled = false;
            dev.counters.inc(Counter::SvmFaults);
            dev.host.wake();
        }
        Err(_) => {
            unpark(dev, job);
            job.stalled = true;
            dev.counters.inc(Counter::SvmBufferFull);
        }
    }
}

/// The job waits no more.
fn unpark<H: Host>(dev: &Device<H>, job: &ExecJob<H>) {
    if job.park.as_ref().is_some_and(|park| park.replay()) {
        dev.counters.dec(Counter::LiveParked);
    }
}

/// Whether the access that a job waited for was found to be a fault; then the job has failed.
fn judged<H: Host>(dev: &Device<H>, id: EntityId, job: &mut ExecJob<H>) -> bool {
    let verdict = job.park.as_ref().and_then(|park| park.verdict());
    let (Some(kind), Some(missing)) = (verdict, job.missing) else { return false };
    fail(dev, id, job, executor::Fault { kind, ..missing });
    true
}

/// Writes the user fence of a completed job. `Some`: its page must come first; when to look again.
fn signal_user<H: Host>(dev: &Device<H>, job: &mut ExecJob<H>) -> Option<u64> {
    // A bad address is noticed only here, and then nothing is written.
    if job.park.as_ref().is_some_and(|park| park.verdict().is_some()) {
        return None;
    }
    let UserFence { addr, value } = job.user_fence?;
    let (vm, engine) = (job.queue.vm.clone(), job.queue.engine);
    match executor::store(dev, &vm, engine, addr, value) {
        Ok(()) => dev.counters.inc(Counter::UserFencesSignalled),
        Err(Stop::Missing(fault)) => {
            miss(dev, job, fault);
            return Some(u64::MAX);
        }
        Err(Stop::Paused) => {
            job.stalled = true;
            return Some(u64::MAX);
        }
        Err(Stop::Fault(_)) => {}
    }
    None
}

fn report<H: Host>(dev: &Device<H>, job: &ExecJob<H>, fault: executor::Fault) {
    use fencepost_uapi::fencepost as fp;
    dev.counters.inc(Counter::FaultsDevice);
    match fault.kind {
        fp::FAULT_KIND_PERMISSION => dev.counters.inc(Counter::FaultsPermission),
        fp::FAULT_KIND_BUS => dev.counters.inc(Counter::BusErrors),
        _ => {}
    }
    job.queue.vm.faults.lock().push(Fault {
        addr: fault.addr,
        access: fault.access.number(),
        kind: fault.kind,
        queue_id: job.queue.id,
        pad: 0,
        job: job.number,
        time_ns: dev.host.now_ns(),
    });
}

/// The engine is reset: the guilty job and its queue are out, the others go on.
fn time_out<H: Host>(dev: &Device<H>, job: &mut ExecJob<H>) {
    job.outcome = Some(Outcome::TimedOut);
    job.queue.resets.fetch_add(1, Ordering::Relaxed);
    job.queue.ban();
    dev.counters.inc(Counter::Resets);
}

/// Ends a job whose outcome is known. Fence path.
fn finish<H: Host>(dev: &Device<H>, id: EntityId, job: &mut ExecJob<H>) {
    let outcome = job.outcome.unwrap_or(Outcome::Completed);
    end(dev, job, outcome);
    if job.queue.is_banned() {
        cancel_waiting(dev, job.queue.engine, id);
    }
}

/// Counts and signals.
fn end<H: Host>(dev: &Device<H>, job: &ExecJob<H>, outcome: Outcome) {
    unpark(dev, job);
    job.queue.completed.fetch_add(1, Ordering::Relaxed);
    dev.counters.inc(outcome.counter());
    dev.counters.dec(Counter::LiveJobs);
    dev.signal(&job.fence, outcome.error());
}

/// Ends a job that will not run any further.
pub fn cancel<H: Host>(dev: &Device<H>, job: &ExecJob<H>) {
    let (mut start, mut signal) = (job.hold_start, job.hold_signal);
    dev.delays.leave(Point::ExecStart, &mut start);
    dev.delays.leave(Point::FenceSignal, &mut signal);
    end(dev, job, Outcome::Cancelled);
}

/// Ends every job that waits in a queue.
pub fn cancel_waiting<H: Host>(dev: &Device<H>, engine: u32, id: EntityId) {
    while let Some(job) = dev.engines[engine as usize].cut(id) {
        cancel(dev, &job);
    }
}
