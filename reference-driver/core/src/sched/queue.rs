//! Queues: their calls, their state, their end.
//!
//! Owns what a queue is to user space. Its jobs wait in a [`super::lane`].

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::{QueueCreate, QueueDestroy, QueueInfo};
use fencepost_uapi::Errno;

use super::exec;
use super::lane::EntityId;
use crate::call::Call;
use crate::counters::Counter;
use crate::device::Device;
use crate::facade::{Arc, AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::host::Host;
use crate::vm::Vm;

/// Most unfinished jobs of an exec queue.
pub const MAX_JOBS: usize = 256;
/// Longest job time-out.
pub const MAX_TIMEOUT_MS: u32 = 600_000;
/// The time-out of a queue that asks for none.
const DEFAULT_TIMEOUT_MS: u32 = 10_000;

/// A queue.
pub struct Queue<H: Host> {
    dev: Arc<Device<H>>,
    /// Its id in the file that made it.
    pub id: u32,
    /// The VM that it works in.
    pub vm: Arc<Vm<H>>,
    /// `QUEUE_CLASS_*`.
    pub class: u32,
    /// Engine that it runs on.
    pub engine: u32,
    /// Time that a job may run.
    pub timeout_ns: u64,
    /// Its place among the queues of the worker.
    pub entity: EntityId,
    /// Jobs submitted.
    pub submitted: AtomicU64,
    /// Jobs finished, with or without an error.
    pub completed: AtomicU64,
    /// Resets of its engine that it caused.
    pub resets: AtomicU32,
    banned: AtomicBool,
}

impl<H: Host> Queue<H> {
    fn new(
        dev: &Arc<Device<H>>,
        id: u32,
        vm: Arc<Vm<H>>,
        args: &QueueCreate,
    ) -> Result<Arc<Self>, Errno> {
        let timeout_ms = match args.timeout_ms {
            0 => DEFAULT_TIMEOUT_MS,
            timeout_ms => timeout_ms,
        };
        let entity = match args.class {
            fp::QUEUE_CLASS_EXEC => {
                dev.engines[args.engine as usize].add(args.priority, MAX_JOBS)?
            }
            _ => dev.binds.add(args.priority, super::bind::BIND_ROOM)?,
        };
        let queue = Queue {
            dev: dev.clone(),
            id,
            vm,
            class: args.class,
            engine: args.engine,
            timeout_ns: u64::from(timeout_ms) * 1_000_000,
            entity,
            submitted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            resets: AtomicU32::new(0),
            banned: AtomicBool::new(false),
        };
        // Its end gives back what it counts here, also when there is no memory for it.
        dev.counters.inc(Counter::LiveQueues);
        Ok(Arc::new(queue)?)
    }

    /// Whether a job faulted or timed out.
    pub fn is_banned(&self) -> bool {
        self.banned.load(Ordering::Acquire)
    }

    /// No job of it runs any more.
    pub fn ban(&self) {
        self.banned.store(true, Ordering::Release);
    }

    /// User space is done with it. Jobs of an exec queue are cancelled. Those of a bind queue still
    /// happen: their calls have changed the address space already.
    pub fn destroy(&self) {
        if self.class == fp::QUEUE_CLASS_EXEC {
            self.dev.engines[self.engine as usize].kill(self.entity);
            exec::cancel_waiting(&self.dev, self.engine, self.entity);
        }
        self.vm.queues.fetch_sub(1, Ordering::AcqRel);
        self.dev.host.wake();
    }
}

impl<H: Host> Drop for Queue<H> {
    fn drop(&mut self) {
        match self.class {
            fp::QUEUE_CLASS_EXEC => self.dev.engines[self.engine as usize].remove(self.entity),
            _ => self.dev.binds.remove(self.entity),
        }
        self.dev.counters.dec(Counter::LiveQueues);
    }
}

/// [`fp::QUEUE_CREATE`].
pub fn create<H: Host>(call: &Call<'_, H>, args: &mut QueueCreate) -> Result<i64, Errno> {
    let engines = match args.class {
        fp::QUEUE_CLASS_EXEC => call.dev.config.engines,
        _ => 1,
    };
    if args.timeout_ms > MAX_TIMEOUT_MS || args.engine >= engines {
        return Err(Errno::INVAL);
    }
    let vm = call.file.vm(args.vm_id)?;
    let slot = call.file.tables().queues.reserve()?;
    let made = Queue::new(call.dev, slot.id(), vm, args);
    let mut tables = call.file.tables();
    let result = made.and_then(|queue| {
        // The VM may have gone meanwhile; this table decides, as for VM_DESTROY.
        match tables.vms.get(args.vm_id).is_some_and(|vm| Arc::ptr_eq(vm, &queue.vm)) {
            true => Ok(queue),
            false => Err(Errno::NOENT),
        }
    });
    match result {
        Ok(queue) => {
            queue.vm.queues.fetch_add(1, Ordering::AcqRel);
            args.queue_id = tables.queues.commit(slot, queue);
            Ok(0)
        }
        Err(errno) => {
            tables.queues.cancel(slot);
            Err(errno)
        }
    }
}

/// [`fp::QUEUE_DESTROY`].
pub fn destroy<H: Host>(call: &Call<'_, H>, args: &mut QueueDestroy) -> Result<i64, Errno> {
    let queue = call.file.tables().queues.remove(args.queue_id).ok_or(Errno::NOENT)?;
    queue.destroy();
    Ok(0)
}

/// [`fp::QUEUE_INFO`].
pub fn info<H: Host>(call: &Call<'_, H>, args: &mut QueueInfo) -> Result<i64, Errno> {
    let queue = call.file.queue(args.queue_id)?;
    args.state = match queue.is_banned() {
        true => fp::QUEUE_STATE_BANNED,
        false => fp::QUEUE_STATE_ACTIVE,
    };
    args.resets = queue.resets.load(Ordering::Relaxed);
    args.submitted = queue.submitted.load(Ordering::Relaxed);
    args.completed = queue.completed.load(Ordering::Relaxed);
    Ok(0)
}
