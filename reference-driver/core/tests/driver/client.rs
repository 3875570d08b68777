//! A client for core's tests: calls of the uAPI over the simulated world, as short as can be.

use fencepost_core::driver::Config;
use fencepost_core::host::BoMem;
use fencepost_host::sim::{Sim, SimFile, Task};
use fencepost_uapi::command as c;
use fencepost_uapi::drm;
use fencepost_uapi::fencepost::*;
use fencepost_uapi::{Errno, Record};

/// Nothing is left of all that was made.
pub(crate) fn assert_clean(sim: &Sim) {
    sim.settle();
    for (name, value) in COUNTERS.iter().zip(sim.driver().counters()) {
        if name.starts_with("live.") || *name == "leaks" {
            assert_eq!(value, 0, "{name}");
        }
    }
    assert_eq!(sim.host().objects(), 0, "memory of objects");
}

pub(crate) const K4: u64 = 4 << 10;
pub(crate) const K64: u64 = 64 << 10;
pub(crate) const M2: u64 = 2 << 20;
pub(crate) const BATCH_VA: u64 = 0x7000_0000_0000;

pub(crate) struct Client<'a> {
    pub(crate) sim: &'a Sim,
    pub(crate) file: SimFile,
    pub(crate) task: Task,
}

pub(crate) fn config() -> Config {
    Config { vram_bytes: 16 << 20, system_bytes: 64 << 20, engines: 2, testing: true }
}

pub(crate) fn sim() -> Sim {
    Sim::new(1, config()).expect("a device")
}

/// A buffer object of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bo {
    pub(crate) handle: u32,
    pub(crate) mem: BoMem,
}

impl<'a> Client<'a> {
    pub(crate) fn new(sim: &'a Sim) -> Self {
        let task = sim.process();
        Client { sim, file: sim.open(task).expect("opens"), task }
    }

    pub(crate) fn call<R: Record>(&self, request: u32, record: &mut R) -> Result<i64, Errno> {
        self.sim.call(&self.file, request, record)
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.sim.counter(name)
    }

    pub(crate) fn testing(self) -> Self {
        self.call(DEBUG_OPEN, &mut DebugOpen::default()).expect("a testing device");
        self
    }

    pub(crate) fn close(&self) {
        self.sim.close(&self.file);
        self.sim.settle();
    }

    // ---- objects

    pub(crate) fn try_bo(
        &self,
        size: u64,
        placement: u32,
        flags: u32,
        vm_id: u32,
    ) -> Result<Bo, Errno> {
        let mut args = GemCreate { size, placement, flags, vm_id, ..Default::default() };
        self.call(GEM_CREATE, &mut args)?;
        let mut offset = GemMmapOffset { handle: args.handle, ..Default::default() };
        self.call(GEM_MMAP_OFFSET, &mut offset)?;
        Ok(Bo { handle: args.handle, mem: BoMem(offset.offset) })
    }

    pub(crate) fn bo(&self, size: u64, placement: u32) -> Bo {
        self.try_bo(size, placement, 0, 0).expect("memory")
    }

    pub(crate) fn system(&self, size: u64) -> Bo {
        self.bo(size, REGION_SYSTEM)
    }

    pub(crate) fn vram(&self, size: u64) -> Bo {
        self.bo(size, REGION_VRAM)
    }

    pub(crate) fn gem_close(&self, bo: Bo) {
        let mut args = drm::GemClose { handle: bo.handle, pad: 0 };
        self.call(drm::GEM_CLOSE, &mut args).expect("a handle");
    }

    pub(crate) fn info(&self, bo: Bo) -> GemInfo {
        let mut args = GemInfo { handle: bo.handle, ..Default::default() };
        self.call(GEM_INFO, &mut args).expect("a handle");
        args
    }

    pub(crate) fn poke(&self, bo: Bo, offset: u64, value: u64) {
        self.sim.host().poke(bo.mem, offset, &value.to_le_bytes());
    }

    pub(crate) fn peek(&self, bo: Bo, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.sim.host().peek(bo.mem, offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    // ---- VMs and binds

    pub(crate) fn vm(&self) -> u32 {
        self.vm_with(VmCreate::default()).expect("a VM")
    }

    pub(crate) fn vm_with(&self, mut args: VmCreate) -> Result<u32, Errno> {
        self.call(VM_CREATE, &mut args)?;
        Ok(args.vm_id)
    }

    pub(crate) fn vm_destroy(&self, vm_id: u32) -> Result<i64, Errno> {
        self.call(VM_DESTROY, &mut VmDestroy { vm_id, ..Default::default() })
    }

    pub(crate) fn bind_call(
        &self,
        vm_id: u32,
        queue_id: u32,
        flags: u32,
        ops: &[BindOp],
        syncs: &[Sync],
    ) -> Result<i64, Errno> {
        let mark = self.sim.host().mark_user(self.task);
        let mut args = VmBind {
            vm_id,
            queue_id,
            flags,
            num_ops: ops.len() as u32,
            op_stride: BindOp::SIZE as u32,
            sync_stride: Sync::SIZE as u32,
            ops: self.sim.array(self.task, ops),
            num_syncs: syncs.len() as u32,
            syncs: self.sim.array(self.task, syncs),
            ..Default::default()
        };
        let result = self.call(VM_BIND, &mut args);
        self.sim.host().free_user(self.task, mark);
        result
    }

    pub(crate) fn bind(&self, vm_id: u32, ops: &[BindOp]) -> Result<i64, Errno> {
        self.bind_call(vm_id, 0, 0, ops, &[])
    }

    pub(crate) fn bind_async(
        &self,
        vm_id: u32,
        queue_id: u32,
        ops: &[BindOp],
        syncs: &[Sync],
    ) -> Result<i64, Errno> {
        self.bind_call(vm_id, queue_id, VM_BIND_ASYNC, ops, syncs)
    }

    pub(crate) fn dump(&self, vm_id: u32) -> Vec<Va> {
        let room = 256;
        let mark = self.sim.host().mark_user(self.task);
        let mut args = VaDump {
            vm_id,
            num: room,
            stride: Va::SIZE as u32,
            vas: self.sim.host().alloc_user(self.task, u64::from(room) * Va::SIZE as u64),
            ..Default::default()
        };
        self.call(VA_DUMP, &mut args).expect("a VM");
        let mut bytes = vec![0; args.num as usize * Va::SIZE];
        self.sim.host().read_user(self.task, args.vas, &mut bytes).expect("allocated");
        self.sim.host().free_user(self.task, mark);
        bytes.chunks_exact(Va::SIZE).map(Va::decode).collect()
    }

    /// The dump as (address, range, handle, offset).
    pub(crate) fn layout(&self, vm_id: u32) -> Vec<(u64, u64, u32, u64)> {
        self.dump(vm_id).iter().map(|va| (va.addr, va.range, va.handle, va.offset)).collect()
    }

    // ---- queues and jobs

    pub(crate) fn queue(&self, vm_id: u32, class: u32) -> u32 {
        self.queue_with(QueueCreate { vm_id, class, priority: 1, ..Default::default() })
            .expect("a queue")
    }

    pub(crate) fn queue_with(&self, mut args: QueueCreate) -> Result<u32, Errno> {
        self.call(QUEUE_CREATE, &mut args)?;
        Ok(args.queue_id)
    }

    pub(crate) fn queue_destroy(&self, queue_id: u32) {
        let mut args = QueueDestroy { queue_id, ..Default::default() };
        self.call(QUEUE_DESTROY, &mut args).expect("a queue");
    }

    pub(crate) fn queue_info(&self, queue_id: u32) -> QueueInfo {
        let mut args = QueueInfo { queue_id, ..Default::default() };
        self.call(QUEUE_INFO, &mut args).expect("a queue");
        args
    }

    pub(crate) fn exec(
        &self,
        queue_id: u32,
        batches: &[Batch],
        syncs: &[Sync],
    ) -> Result<i64, Errno> {
        let mark = self.sim.host().mark_user(self.task);
        let mut args = Exec {
            queue_id,
            batches: self.sim.array(self.task, batches),
            num_batches: batches.len() as u32,
            batch_stride: Batch::SIZE as u32,
            syncs: self.sim.array(self.task, syncs),
            num_syncs: syncs.len() as u32,
            sync_stride: Sync::SIZE as u32,
            ..Default::default()
        };
        let result = self.call(EXEC, &mut args);
        self.sim.host().free_user(self.task, mark);
        result
    }

    pub(crate) fn faults(&self, vm_id: u32) -> Vec<Fault> {
        let mark = self.sim.host().mark_user(self.task);
        let mut args = FaultReport {
            vm_id,
            num: 64,
            stride: Fault::SIZE as u32,
            faults: self.sim.host().alloc_user(self.task, 64 * Fault::SIZE as u64),
            ..Default::default()
        };
        self.call(FAULT_REPORT, &mut args).expect("a VM");
        let mut bytes = vec![0; args.num as usize * Fault::SIZE];
        self.sim.host().read_user(self.task, args.faults, &mut bytes).expect("allocated");
        self.sim.host().free_user(self.task, mark);
        bytes.chunks_exact(Fault::SIZE).map(Fault::decode).collect()
    }

    // ---- syncobjs

    pub(crate) fn syncobj(&self) -> u32 {
        let mut args = drm::SyncobjCreate::default();
        self.call(drm::SYNCOBJ_CREATE, &mut args).expect("a syncobj");
        args.handle
    }

    pub(crate) fn wait_for(
        &self,
        handles: &[u32],
        flags: u32,
        timeout_nsec: i64,
    ) -> Result<u32, Errno> {
        let bytes: Vec<u8> = handles.iter().flat_map(|h| h.to_ne_bytes()).collect();
        let mut args = drm::SyncobjWait {
            handles: self.sim.bytes(self.task, &bytes),
            count_handles: handles.len() as u32,
            flags,
            timeout_nsec,
            ..Default::default()
        };
        self.call(drm::SYNCOBJ_WAIT, &mut args).map(|_| args.first_signaled)
    }

    pub(crate) fn wait(&self, handle: u32) {
        self.wait_for(&[handle], 0, i64::MAX).expect("signals");
    }

    pub(crate) fn is_signalled(&self, handle: u32) -> bool {
        match self.wait_for(&[handle], 0, 0) {
            Ok(_) => true,
            Err(Errno::TIME) => false,
            Err(errno) => panic!("{errno}"),
        }
    }

    pub(crate) fn wait_point(
        &self,
        handle: u32,
        point: u64,
        flags: u32,
        timeout_nsec: i64,
    ) -> Result<i64, Errno> {
        let mut args = drm::SyncobjTimelineWait {
            handles: self.sim.bytes(self.task, &handle.to_ne_bytes()),
            points: self.sim.bytes(self.task, &point.to_ne_bytes()),
            count_handles: 1,
            flags,
            timeout_nsec,
            ..Default::default()
        };
        self.call(drm::SYNCOBJ_TIMELINE_WAIT, &mut args)
    }

    pub(crate) fn signal(&self, handle: u32) {
        let mut args = self.one(handle);
        self.call(drm::SYNCOBJ_SIGNAL, &mut args).expect("a syncobj");
    }

    pub(crate) fn reset(&self, handle: u32) {
        let mut args = self.one(handle);
        self.call(drm::SYNCOBJ_RESET, &mut args).expect("a syncobj");
    }

    fn one(&self, handle: u32) -> drm::SyncobjArray {
        let handles = self.sim.bytes(self.task, &handle.to_ne_bytes());
        drm::SyncobjArray { handles, count_handles: 1, pad: 0 }
    }

    fn timeline(&self, handle: u32, point: u64, flags: u32) -> drm::SyncobjTimelineArray {
        drm::SyncobjTimelineArray {
            handles: self.sim.bytes(self.task, &handle.to_ne_bytes()),
            points: self.sim.bytes(self.task, &point.to_ne_bytes()),
            count_handles: 1,
            flags,
        }
    }

    pub(crate) fn signal_point(&self, handle: u32, point: u64) {
        let mut args = self.timeline(handle, point, 0);
        self.call(drm::SYNCOBJ_TIMELINE_SIGNAL, &mut args).expect("a syncobj");
    }

    pub(crate) fn query(&self, handle: u32, flags: u32) -> u64 {
        let mut args = self.timeline(handle, 0, flags);
        self.call(drm::SYNCOBJ_QUERY, &mut args).expect("a syncobj");
        let mut bytes = [0; 8];
        self.sim.host().read_user(self.task, args.points, &mut bytes).expect("allocated");
        u64::from_ne_bytes(bytes)
    }

    pub(crate) fn transfer(
        &self,
        from: (u32, u64),
        to: (u32, u64),
        flags: u32,
    ) -> Result<i64, Errno> {
        let mut args = drm::SyncobjTransfer {
            src_handle: from.0,
            src_point: from.1,
            dst_handle: to.0,
            dst_point: to.1,
            flags,
            pad: 0,
        };
        self.call(drm::SYNCOBJ_TRANSFER, &mut args)
    }

    // ---- debug group

    pub(crate) fn inject(&self, kind: u32, nth: u64) -> DebugInject {
        let mut args = DebugInject { kind, nth, ..Default::default() };
        self.call(DEBUG_INJECT, &mut args).expect("a testing open");
        args
    }

    pub(crate) fn delay(
        &self,
        name: &str,
        action: u32,
        timeout_ms: u32,
    ) -> Result<DebugDelay, Errno> {
        let mut args = DebugDelay { action, timeout_ms, ..Default::default() };
        args.name[..name.len()].copy_from_slice(name.as_bytes());
        self.call(DEBUG_DELAY, &mut args).map(|_| args)
    }

    pub(crate) fn evict(&self, handle: u32) -> Result<u64, Errno> {
        let mut args = DebugEvict { handle, ..Default::default() };
        self.call(DEBUG_EVICT, &mut args).map(|_| args.bytes)
    }

    pub(crate) fn evict_svm(&self) -> Result<u64, Errno> {
        let mut args = DebugEvict { flags: DEBUG_EVICT_SVM, ..Default::default() };
        self.call(DEBUG_EVICT, &mut args).map(|_| args.bytes)
    }
}

// ---- operations

pub(crate) fn map(bo: Bo, addr: u64, range: u64, offset: u64) -> BindOp {
    BindOp { op: BIND_OP_MAP, handle: bo.handle, addr, range, offset, ..Default::default() }
}

pub(crate) fn map_null(addr: u64, range: u64) -> BindOp {
    BindOp { op: BIND_OP_MAP, flags: BIND_NULL, addr, range, ..Default::default() }
}

pub(crate) fn map_sparse(addr: u64, range: u64) -> BindOp {
    BindOp { op: BIND_OP_MAP, flags: BIND_SPARSE, addr, range, ..Default::default() }
}

pub(crate) fn unmap(addr: u64, range: u64) -> BindOp {
    BindOp { op: BIND_OP_UNMAP, addr, range, ..Default::default() }
}

pub(crate) fn unmap_sparse(addr: u64, range: u64) -> BindOp {
    BindOp { op: BIND_OP_UNMAP, flags: BIND_SPARSE, addr, range, ..Default::default() }
}

pub(crate) fn unmap_all(bo: Bo) -> BindOp {
    BindOp { op: BIND_OP_UNMAP_ALL, handle: bo.handle, ..Default::default() }
}

pub(crate) fn prefetch(addr: u64, range: u64, region: u32) -> BindOp {
    BindOp { op: BIND_OP_PREFETCH, addr, range, value: u64::from(region), ..Default::default() }
}

pub(crate) fn madvise(addr: u64, range: u64, region: u32) -> BindOp {
    BindOp { op: BIND_OP_MADVISE, addr, range, value: u64::from(region), ..Default::default() }
}

pub(crate) fn readonly(op: BindOp) -> BindOp {
    BindOp { flags: op.flags | BIND_READONLY, ..op }
}

// ---- syncs

pub(crate) fn sync_in(handle: u32) -> Sync {
    Sync { kind: SYNC_SYNCOBJ, handle, ..Default::default() }
}

pub(crate) fn sync_out(handle: u32) -> Sync {
    Sync { kind: SYNC_SYNCOBJ, flags: SYNC_SIGNAL, handle, ..Default::default() }
}

pub(crate) fn point_in(handle: u32, value: u64) -> Sync {
    Sync { kind: SYNC_TIMELINE, handle, value, ..Default::default() }
}

pub(crate) fn point_out(handle: u32, value: u64) -> Sync {
    Sync { kind: SYNC_TIMELINE, flags: SYNC_SIGNAL, handle, value, ..Default::default() }
}

pub(crate) fn user_fence(addr: u64, value: u64) -> Sync {
    Sync { kind: SYNC_USER_FENCE, flags: SYNC_SIGNAL, addr, value, ..Default::default() }
}

// ---- programs

pub(crate) fn store(addr: u64, value: u64) -> Vec<u64> {
    vec![c::header(c::STORE, c::WIDE, 0), addr, value]
}

pub(crate) fn load(addr: u64, register: u32) -> Vec<u64> {
    vec![c::header(c::LOAD, c::WIDE, register), addr]
}

pub(crate) fn store_reg(addr: u64, register: u32) -> Vec<u64> {
    vec![c::header(c::STORE_REG, c::WIDE, register), addr]
}

pub(crate) fn wait_for(addr: u64, value: u64) -> Vec<u64> {
    vec![c::header(c::SEMAPHORE_WAIT, c::WIDE, 0), addr, value, u64::MAX]
}

/// A VM with a queue and a place for batches and results.
pub(crate) struct Gpu<'a> {
    pub(crate) c: &'a Client<'a>,
    pub(crate) vm: u32,
    pub(crate) queue: u32,
    pub(crate) batch: Bo,
    pub(crate) sync: u32,
}

impl<'a> Gpu<'a> {
    pub(crate) fn new(c: &'a Client<'a>) -> Self {
        Self::in_vm(c, c.vm())
    }

    pub(crate) fn in_vm(c: &'a Client<'a>, vm: u32) -> Self {
        let batch = c.system(K64);
        c.bind(vm, &[map(batch, BATCH_VA, K64, 0)]).expect("binds");
        Gpu { c, vm, queue: c.queue(vm, QUEUE_CLASS_EXEC), batch, sync: c.syncobj() }
    }

    /// Writes a program at an offset and gives its batch record.
    pub(crate) fn program(&self, offset: u64, parts: &[Vec<u64>]) -> Batch {
        let words: Vec<u64> = parts.concat();
        for (i, word) in words.iter().enumerate() {
            self.c.poke(self.batch, offset + i as u64 * 8, *word);
        }
        Batch { addr: BATCH_VA + offset, length: words.len() as u32 * 8, flags: 0 }
    }

    /// Runs a program and waits for it.
    pub(crate) fn run(&self, parts: &[Vec<u64>]) {
        let batch = self.program(0, parts);
        self.c.exec(self.queue, &[batch], &[sync_out(self.sync)]).expect("submits");
        self.c.wait(self.sync);
    }

    /// Reads a word through the GPU.
    pub(crate) fn read(&self, addr: u64) -> u64 {
        let result = BATCH_VA + K64 - 8;
        self.run(&[load(addr, 1), store_reg(result, 1)]);
        self.c.peek(self.batch, K64 - 8)
    }
}
