//! Models of the bind, exec, fence and eviction protocol: shuttle runs the driver itself under many
//! schedules of client threads and workers. Each model is explored from a fixed seed; a failing
//! schedule is printed by shuttle and can be replayed.

extern crate fencepost_core_shuttle as fencepost_core;

#[expect(dead_code, reason = "the simulated world uses more of it")]
#[path = "../../../../host/src/sim/memory.rs"]
mod memory;
mod mirror;
mod svm;
mod world;

use fencepost_core::host::BoMem;
use fencepost_uapi::command as c;
use fencepost_uapi::drm;
use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;
use world::Device;

const K4: u64 = 4096;
const BATCH: u64 = 0x10_0000;
const A: u64 = 0x20_0000;
const B: u64 = 0x30_0000;
const SEED: u64 = 20_261_120;

/// Explores a model: random schedules, and schedules with few but well-placed preemptions.
fn explore(model: fn()) {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    config.max_steps = shuttle::MaxSteps::FailAfter(200_000);
    let runs = std::env::var("FENCEPOST_SHUTTLE_RUNS").ok().and_then(|runs| runs.parse().ok());
    let runs = runs.unwrap_or(200);
    let random = RandomScheduler::new_from_seed(SEED, runs);
    shuttle::Runner::new(random, config.clone()).run(model);
    let pct = PctScheduler::new_from_seed(SEED, 3, runs);
    shuttle::Runner::new(pct, config).run(model);
}

#[derive(Clone, Copy)]
struct Bo {
    handle: u32,
    mem: BoMem,
}

impl Device {
    fn bo(&self, placement: u32) -> Bo {
        let mut args = GemCreate { size: K4, placement, ..Default::default() };
        self.call(GEM_CREATE, &mut args).expect("memory");
        let mut offset = GemMmapOffset { handle: args.handle, ..Default::default() };
        self.call(GEM_MMAP_OFFSET, &mut offset).expect("a handle");
        Bo { handle: args.handle, mem: BoMem(offset.offset) }
    }

    fn close_bo(&self, bo: Bo) {
        let mut args = drm::GemClose { handle: bo.handle, pad: 0 };
        self.call(drm::GEM_CLOSE, &mut args).expect("a handle");
    }

    fn vm(&self) -> u32 {
        let mut args = VmCreate::default();
        self.call(VM_CREATE, &mut args).expect("a VM");
        args.vm_id
    }

    fn queue(&self, vm_id: u32) -> u32 {
        let mut args = QueueCreate { vm_id, timeout_ms: 600_000, ..Default::default() };
        self.call(QUEUE_CREATE, &mut args).expect("a queue");
        args.queue_id
    }

    fn syncobj(&self) -> u32 {
        let mut args = drm::SyncobjCreate::default();
        self.call(drm::SYNCOBJ_CREATE, &mut args).expect("a syncobj");
        args.handle
    }

    fn bind(&self, vm_id: u32, ops: &[BindOp], syncs: &[Sync]) -> Result<i64, Errno> {
        let mut args = VmBind {
            vm_id,
            flags: if syncs.is_empty() { 0 } else { VM_BIND_ASYNC },
            num_ops: ops.len() as u32,
            op_stride: 64,
            sync_stride: 32,
            ops: self.array(ops),
            num_syncs: syncs.len() as u32,
            syncs: self.array(syncs),
            ..Default::default()
        };
        self.call(VM_BIND, &mut args)
    }

    /// Puts a program into a batch object, which is mapped at [`BATCH`].
    fn program(&self, batch: Bo, offset: u64, words: &[u64]) -> Batch {
        self.poke(batch.mem, offset, words);
        Batch { addr: BATCH + offset, length: words.len() as u32 * 8, flags: 0 }
    }

    fn exec(&self, queue_id: u32, batch: Batch, syncs: &[Sync]) -> Result<i64, Errno> {
        let mut args = Exec {
            queue_id,
            batches: self.array(&[batch]),
            num_batches: 1,
            batch_stride: 16,
            syncs: self.array(syncs),
            num_syncs: syncs.len() as u32,
            sync_stride: 32,
            ..Default::default()
        };
        self.call(EXEC, &mut args)
    }

    fn wait(&self, handle: u32) {
        let mut args = drm::SyncobjWait {
            handles: self.bytes(&handle.to_ne_bytes()),
            count_handles: 1,
            timeout_nsec: i64::MAX,
            ..Default::default()
        };
        self.call(drm::SYNCOBJ_WAIT, &mut args).expect("signals");
    }

    fn testing(&self) {
        self.call(DEBUG_OPEN, &mut DebugOpen::default()).expect("a testing device");
    }

    fn evict(&self, bo: Bo) -> Result<i64, Errno> {
        self.call(DEBUG_EVICT, &mut DebugEvict { handle: bo.handle, ..Default::default() })
    }
}

fn map(bo: Bo, addr: u64) -> BindOp {
    BindOp { handle: bo.handle, addr, range: K4, ..Default::default() }
}

fn unmap(addr: u64) -> BindOp {
    BindOp { op: BIND_OP_UNMAP, addr, range: K4, ..Default::default() }
}

fn wait_on(handle: u32) -> Sync {
    Sync { handle, ..Default::default() }
}

fn signal(handle: u32) -> Sync {
    Sync { handle, flags: SYNC_SIGNAL, ..Default::default() }
}

fn store(addr: u64, value: u64) -> [u64; 3] {
    [c::header(c::STORE, c::WIDE, 0), addr, value]
}

/// An asynchronous bind, and a job that waits for its out-fence, find the memory mapped.
#[test]
fn a_job_that_waits_for_a_bind_sees_it() {
    explore(|| {
        let (device, workers) = Device::start();
        let (vm, batch, bo) = (device.vm(), device.bo(REGION_SYSTEM), device.bo(REGION_SYSTEM));
        device.bind(vm, &[map(batch, BATCH)], &[]).expect("binds");
        let (queue, bound, done) = (device.queue(vm), device.syncobj(), device.syncobj());
        device.bind(vm, &[map(bo, A)], &[signal(bound)]).expect("submits");
        let job = device.program(batch, 0, &store(A, 7));
        device.exec(queue, job, &[wait_on(bound), signal(done)]).expect("submits");
        device.wait(done);
        assert_eq!(device.peek(bo.mem, 0), 7);
        assert_eq!(device.counter("faults.device"), 0);
        device.stop(workers);
    });
}

/// Memory that was unmapped and freed is never written by a job that runs meanwhile, whoever has it
/// next.
#[test]
fn an_unmap_shuts_a_running_job_out() {
    explore(|| {
        let (device, workers) = Device::start();
        let (vm, batch, old) = (device.vm(), device.bo(REGION_SYSTEM), device.bo(REGION_VRAM));
        device.bind(vm, &[map(batch, BATCH), map(old, A)], &[]).expect("binds");
        let (queue, done) = (device.queue(vm), device.syncobj());
        let [header, addr, value] = store(A, 7);
        let repeat = [c::header(c::LOOP, 0, 4), header, addr, value, c::header(c::LOOP_END, 0, 0)];
        let job = device.program(batch, 0, &repeat);
        device.exec(queue, job, &[signal(done)]).expect("submits");
        device.bind(vm, &[unmap(A)], &[]).expect("unbinds");
        device.close_bo(old);
        // It gets the frames of the old one.
        let new = device.bo(REGION_VRAM);
        device.wait(done);
        assert_eq!(device.peek(new.mem, 0), 0, "the job has no way to the new object");
        assert_eq!(device.counter("bus_errors"), 0, "nor to where the old one was");
        device.stop(workers);
    });
}

/// An object that moves while jobs are submitted is where each job looks.
#[test]
fn an_eviction_and_a_job_exclude_each_other() {
    explore(|| {
        let (device, workers) = Device::start();
        device.testing();
        let (vm, batch) = (device.vm(), device.bo(REGION_SYSTEM));
        let bo = device.bo(REGION_VRAM | REGION_SYSTEM);
        device.bind(vm, &[map(batch, BATCH), map(bo, A)], &[]).expect("binds");
        let (queue, done) = (device.queue(vm), device.syncobj());
        let evictor = {
            let device = device.clone();
            thread::spawn(move || device.evict(bo).expect("evicts"))
        };
        for i in 0..2 {
            let job = device.program(batch, i * 64, &store(A + i * 8, i + 1));
            device.exec(queue, job, &[signal(done)]).expect("submits");
        }
        device.wait(done);
        evictor.join().expect("no panic");
        assert_eq!([0, 8].map(|at| device.peek(bo.mem, at)), [1, 2]);
        assert_eq!(device.counter("faults.device"), 0);
        device.stop(workers);
    });
}

/// Two VMs, two objects, taken in opposite order: locks back off and all calls succeed.
#[test]
fn crossing_locks_back_off() {
    explore(|| {
        let (device, workers) = Device::start();
        device.testing();
        let (one, two) = (device.vm(), device.vm());
        let (a, b) = (device.bo(REGION_VRAM | REGION_SYSTEM), device.bo(REGION_SYSTEM));
        let others = [(one, a, b), (two, b, a)].map(|(vm, first, second)| {
            let device = device.clone();
            thread::spawn(move || {
                device.bind(vm, &[map(first, A), map(second, B)], &[]).expect("binds");
                device.bind(vm, &[map(second, A), unmap(B)], &[]).expect("binds");
            })
        });
        device.evict(a).expect("evicts");
        for other in others {
            other.join().expect("no panic");
        }
        device.stop(workers);
    });
}

/// A long-running VM goes while an object that it maps moves: the way back of the move writes no page
/// table that nobody clears any more.
#[test]
fn a_vm_that_goes_during_a_move_leaves_nothing() {
    explore(|| {
        let (device, workers) = Device::start();
        device.testing();
        let mut vm = VmCreate { flags: VM_CREATE_LONG_RUNNING, ..Default::default() };
        device.call(VM_CREATE, &mut vm).expect("a VM");
        let bo = device.bo(REGION_VRAM | REGION_SYSTEM);
        device.bind(vm.vm_id, &[map(bo, A)], &[]).expect("binds");
        let evictor = {
            let device = device.clone();
            thread::spawn(move || device.evict(bo).expect("evicts"))
        };
        let mut gone = VmDestroy { vm_id: vm.vm_id, ..Default::default() };
        device.call(VM_DESTROY, &mut gone).expect("destroys");
        evictor.join().expect("no panic");
        device.stop(workers);
    });
}

/// A process that goes with binds and jobs in flight leaves nothing behind.
#[test]
fn closing_with_work_in_flight_leaves_nothing() {
    explore(|| {
        let (device, workers) = Device::start();
        let (vm, batch, bo) = (device.vm(), device.bo(REGION_SYSTEM), device.bo(REGION_VRAM));
        device.bind(vm, &[map(batch, BATCH)], &[]).expect("binds");
        let (queue, gate) = (device.queue(vm), device.syncobj());
        let wait = [c::header(c::SEMAPHORE_WAIT, c::WIDE, 0), BATCH + 2048, 1, u64::MAX];
        let job = device.program(batch, 0, &wait);
        device.exec(queue, job, &[signal(gate)]).expect("submits");
        device.bind(vm, &[map(bo, A)], &[wait_on(gate), signal(gate)]).expect("submits");
        device.stop(workers);
    });
}
