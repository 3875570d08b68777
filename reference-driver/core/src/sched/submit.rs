//! The exec call.
//!
//! Owns its checks and its order: lock the VM and every shared object mapped in it, validate what was
//! evicted, add the job's fence to all of them, queue the job.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::{Batch, Exec, Sync};
use fencepost_uapi::Errno;

use super::exec::{ExecJob, Progress};
use super::queue::{Queue, MAX_JOBS};
use crate::call::Call;
use crate::counters::Counter;
use crate::debug::delay::{Hold, Point};
use crate::facade::{Arc, Box, Ordering, Vec};
use crate::gem::{evict, GemRef};
use crate::host::Host;
use crate::svm::buffer::Park;
use crate::sync::args::{self, Syncs};
use crate::sync::fence::Fence;
use crate::sync::resv::ExecLock;
use crate::vm::Vm;

/// [`fp::EXEC`].
pub fn exec<H: Host>(call: &Call<'_, H>, args: &mut Exec) -> Result<i64, Errno> {
    Call::<H>::check_stride::<Batch>(args.batch_stride)?;
    Call::<H>::check_stride::<Sync>(args.sync_stride)?;
    let batches: Vec<Batch> = call.read_array(args.batches, args.num_batches, args.batch_stride)?;
    let syncs: Vec<Sync> = call.read_array(args.syncs, args.num_syncs, args.sync_stride)?;
    for batch in &batches {
        let length = u64::from(batch.length);
        let fits = (1..=fp::MAX_BATCH_BYTES).contains(&length) && length % 8 == 0;
        if !fits || batch.addr % 8 != 0 || batch.flags != 0 {
            return Err(Errno::INVAL);
        }
    }
    args::check(&syncs)?;
    let queue = call.file.queue(args.queue_id)?;
    if queue.class != fp::QUEUE_CLASS_EXEC {
        return Err(Errno::INVAL);
    }
    if queue.vm.is_banned() || !queue.vm.try_hold() {
        return Err(Errno::NOENT);
    }
    let result = submit(call, &queue, batches, &syncs);
    queue.vm.unhold();
    result.map(|()| 0)
}

fn submit<H: Host>(
    call: &Call<'_, H>,
    queue: &Arc<Queue<H>>,
    batches: Vec<Batch>,
    syncs: &[Sync],
) -> Result<(), Errno> {
    if queue.is_banned() {
        return Err(Errno::CANCELED);
    }
    let dev = call.dev;
    let vm = &queue.vm;
    let mut syncs = Syncs::find(call, syncs, vm.is_long_running())?;
    let mut lock = ExecLock::new(dev, Some(call.task));
    let prepared = prepare(call, queue, batches, &mut lock, &mut syncs);
    let (job, shared) = prepared.inspect_err(|_| syncs.cancel())?;
    dev.delay(Point::ExecPrepared);
    let fence = job.fence.clone();
    let stamp = dev.next_use();
    vm.resv.touch(stamp);
    if !vm.is_long_running() {
        vm.resv.add_fence(&fence);
    }
    for gem in &shared {
        gem.resv.touch(stamp);
        if !vm.is_long_running() {
            gem.resv.add_fence(&fence);
        }
    }
    syncs.install(&fence);
    queue.submitted.fetch_add(1, Ordering::Relaxed);
    dev.counters.inc(Counter::JobsSubmitted);
    dev.counters.inc(Counter::LiveJobs);
    if let Err(job) = dev.engines[queue.engine as usize].submit(queue.entity, job) {
        // The queue was destroyed meanwhile.
        super::exec::cancel(dev, &job);
    }
    drop(lock);
    dev.host.wake();
    Ok(())
}

/// Does everything of a call that can fail. Returns the job and the objects shared with others.
#[expect(clippy::type_complexity, reason = "used once, above")]
fn prepare<H: Host>(
    call: &Call<'_, H>,
    queue: &Arc<Queue<H>>,
    batches: Vec<Batch>,
    lock: &mut ExecLock<'_, H>,
    syncs: &mut Syncs,
) -> Result<(Box<ExecJob<H>>, Vec<GemRef<H>>), Errno> {
    let dev = call.dev;
    let vm = &queue.vm;
    let shared = lock.until_all_locked(|lock| {
        lock.lock(&vm.resv)?;
        let shared = shared_objects(vm)?;
        for gem in &shared {
            lock.lock(&gem.resv)?;
        }
        Ok(shared)
    })?;
    if vm.is_banned() || vm.is_dead() {
        return Err(Errno::NOENT);
    }
    vm.resv.reserve_fence()?;
    for gem in &shared {
        gem.resv.reserve_fence()?;
    }
    validate(call, vm)?;
    let job = Box::new(ExecJob {
        queue: queue.clone(),
        fence: Fence::new(&dev.counters)?,
        deps: core::mem::take(&mut syncs.deps),
        batches,
        user_fence: syncs.user_fence,
        number: queue.submitted.load(Ordering::Relaxed) + 1,
        progress: Progress::default(),
        started_ns: None,
        stalled: false,
        park: match &vm.svm {
            Some(_) => Some(Park::new()?),
            None => None,
        },
        missing: None,
        hold_start: Hold::Before,
        hold_signal: Hold::Before,
        outcome: None,
    })?;
    match dev.engines[queue.engine as usize].reserve(queue.entity, MAX_JOBS)? {
        true => Ok((job, shared)),
        false => Err(Errno::AGAIN),
    }
}

/// The objects that a VM maps and that have a reservation of their own.
fn shared_objects<H: Host>(vm: &Vm<H>) -> Result<Vec<GemRef<H>>, Errno> {
    let mut shared = Vec::new();
    for gem in vm.space().manager.objects().filter(|gem| gem.private_to == 0) {
        shared.push(gem.clone())?;
    }
    Ok(shared)
}

/// Makes the page tables show everything that was evicted.
fn validate<H: Host>(call: &Call<'_, H>, vm: &Arc<Vm<H>>) -> Result<(), Errno> {
    if vm.evicted.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    let mut evicted: Vec<GemRef<H>> = Vec::new();
    for gem in vm.space().manager.objects().filter(|gem| gem.is_evicted(vm)) {
        evicted.push(gem.clone())?;
    }
    for gem in &evicted {
        evict::bring_back(call, gem);
        evict::validate(vm, gem)?;
    }
    Ok(())
}
