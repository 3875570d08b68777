//! The calls of the fuzzer: each mostly well-formed, about things that exist.
//!
//! Owns the weights and the building of records; what a batch does stands in [`super::program`].

use fencepost_core::host::BoMem;
use fencepost_host::sim::Sim;
use fencepost_uapi::drm;
use fencepost_uapi::fencepost::*;
use fencepost_uapi::{Errno, Record};

use super::client::{Bo, Client, FOREIGN_FD, Queue};
use super::program;
use super::random::Random;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
/// Things of one kind that a client has at most.
const MOST: usize = 10;
/// Where the hole of half of the VMs is.
const HOLE: u64 = 64 * M;

type Result = std::result::Result<i64, Errno>;

impl Client {
    /// Makes one call; true when it succeeded.
    pub(crate) fn random_call(&mut self, sim: &Sim, random: &mut Random) -> bool {
        let mark = sim.host().mark_user(self.task());
        let result = match random.below(100) {
            0..=7 => self.gem_create(sim, random),
            8..=9 => self.gem_close(sim, random),
            10..=12 => self.gem_look(sim, random),
            13..=15 => self.vm_create(sim, random),
            16 => self.vm_destroy(sim, random),
            17..=46 => self.vm_bind(sim, random),
            47..=50 => self.queue_create(sim, random),
            51 => self.queue_destroy(sim, random),
            52..=53 => self.look(sim, random),
            54..=69 => self.exec(sim, random),
            70..=71 => self.wait_user_fence(sim, random),
            72..=74 => self.prime(sim, random),
            75..=77 => self.syncobj_create(sim, random),
            78..=79 => self.syncobj_array(sim, random),
            80..=86 => self.syncobj_wait(sim, random),
            87..=88 => self.syncobj_transfer(sim, random),
            89..=91 => self.syncobj_fd(sim, random),
            92..=95 => self.inject(sim, random),
            96 => self.delay(sim, random),
            97..=98 => self.evict(sim, random),
            _ => self.core(sim, random),
        };
        sim.host().free_user(self.task(), mark);
        result.is_ok()
    }

    // ---- choices

    fn a_bo(&self, random: &mut Random) -> Bo {
        match self.bos.is_empty() || random.chance(1, 40) {
            true => Bo { handle: random.below(20) as u32, mem: BoMem(0), size: 64 * K },
            false => self.bos[random.index(self.bos.len())],
        }
    }

    fn a_vm(&self, random: &mut Random) -> u32 {
        match self.vms.is_empty() || random.chance(1, 40) {
            true => random.below(8) as u32,
            false => self.vms[random.index(self.vms.len())],
        }
    }

    fn a_queue(&self, random: &mut Random, is_bind: bool) -> Queue {
        let fitting: Vec<&Queue> = self.queues.iter().filter(|q| q.is_bind == is_bind).collect();
        match fitting.is_empty() || random.chance(1, 40) {
            true => Queue { id: random.below(8) as u32, vm: self.a_vm(random), is_bind },
            false => *fitting[random.index(fitting.len())],
        }
    }

    fn a_syncobj(&self, random: &mut Random) -> u32 {
        match self.syncobjs.is_empty() || random.chance(1, 40) {
            true => random.below(8) as u32,
            false => self.syncobjs[random.index(self.syncobjs.len())],
        }
    }

    fn some_syncobjs(&self, sim: &Sim, random: &mut Random) -> (u64, u32) {
        let count = 1 + random.below(3) as u32;
        let bytes: Vec<u8> =
            (0..count).flat_map(|_| self.a_syncobj(random).to_ne_bytes()).collect();
        (sim.bytes(self.task(), &bytes), count)
    }

    fn some_points(&self, sim: &Sim, random: &mut Random, count: u32) -> u64 {
        let bytes: Vec<u8> = (0..count).flat_map(|_| random.below(12).to_ne_bytes()).collect();
        sim.bytes(self.task(), &bytes)
    }

    // ---- objects

    fn gem_create(&mut self, sim: &Sim, random: &mut Random) -> Result {
        if self.bos.len() >= MOST {
            let at = random.index(self.bos.len());
            self.forget_bo(sim, at);
        }
        let size = match random.below(8) {
            0 => 4 * K,
            1 => 2 * M,
            2 => 3 * M + 4 * K,
            3 => random.below(400) * 4 * K,
            4 => 64 * K,
            5 => M,
            6 => random.below(40) * 64 * K,
            _ => 16 * K,
        };
        let is_private = random.chance(1, 4);
        let mut args = GemCreate {
            size,
            placement: 1 + random.below(3) as u32,
            flags: u32::from(is_private),
            vm_id: if is_private { self.a_vm(random) } else { 0 },
            ..Default::default()
        };
        self.send(sim, random, GEM_CREATE, &mut args)?;
        let mut offset = GemMmapOffset { handle: args.handle, ..Default::default() };
        sim.call(&self.file, GEM_MMAP_OFFSET, &mut offset)?;
        let mut info = GemInfo { handle: args.handle, ..Default::default() };
        sim.call(&self.file, GEM_INFO, &mut info)?;
        self.bos.push(Bo { handle: args.handle, mem: BoMem(offset.offset), size: info.size });
        Ok(0)
    }

    fn gem_close(&mut self, sim: &Sim, random: &mut Random) -> Result {
        if self.bos.is_empty() {
            let mut args = drm::GemClose { handle: random.below(9) as u32, pad: 0 };
            return self.send(sim, random, drm::GEM_CLOSE, &mut args);
        }
        let at = random.index(self.bos.len());
        self.forget_bo(sim, at);
        Ok(0)
    }

    fn gem_look(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let handle = self.a_bo(random).handle;
        match random.below(3) {
            0 => {
                let mut args = GemInfo { handle, ..Default::default() };
                self.send(sim, random, GEM_INFO, &mut args)
            }
            1 => {
                let mut args = GemMmapOffset { handle, ..Default::default() };
                self.send(sim, random, GEM_MMAP_OFFSET, &mut args)
            }
            _ => {
                let offset = self.a_bo(random).mem.0.wrapping_add(random.below(4) * 4 * K);
                sim.mmap(&self.file, offset, random.below(64) * 4 * K).map(|_| 0)
            }
        }
    }

    // ---- VMs

    fn vm_create(&mut self, sim: &Sim, random: &mut Random) -> Result {
        if self.vms.len() >= 4 {
            return self.vm_destroy(sim, random);
        }
        let with_hole = random.chance(1, 2);
        let mut args = VmCreate {
            flags: u32::from(random.chance(1, 5)),
            kernel_start: if with_hole { HOLE } else { 0 },
            kernel_size: if with_hole { 4 * M } else { 0 },
            va_end: if random.chance(1, 4) { 128 * M } else { 0 },
            ..Default::default()
        };
        let result = self.send(sim, random, VM_CREATE, &mut args)?;
        self.vms.push(args.vm_id);
        Ok(result)
    }

    fn vm_destroy(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let vm_id = self.a_vm(random);
        if random.chance(2, 3) {
            let (gone, kept) = self.queues.iter().partition(|queue| queue.vm == vm_id);
            self.queues = kept;
            let gone: Vec<Queue> = gone;
            for queue in gone {
                let mut args = QueueDestroy { queue_id: queue.id, ..Default::default() };
                let _ = sim.call(&self.file, QUEUE_DESTROY, &mut args);
            }
        }
        let mut args = VmDestroy { vm_id, ..Default::default() };
        let result = self.send(sim, random, VM_DESTROY, &mut args);
        if result.is_ok() {
            self.vms.retain(|known| *known != args.vm_id);
        }
        result
    }

    fn vm_bind(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let queue = match random.chance(1, 3) {
            true => Some(self.a_queue(random, true)),
            false => None,
        };
        let count = match random.below(8) {
            0 => 0,
            1..=4 => 1,
            5..=6 => 1 + random.below(4),
            _ => 1 + random.below(12),
        };
        let ops: Vec<BindOp> = (0..count).map(|_| self.bind_op(random)).collect();
        let is_async = random.chance(1, 3);
        let syncs = match is_async {
            true => {
                let addr = self.words + random.below(512) * 8;
                self.syncs(random, addr)
            }
            false => vec![],
        };
        let mut args = VmBind {
            vm_id: queue.map_or_else(|| self.a_vm(random), |queue| queue.vm),
            queue_id: queue.map_or(0, |queue| queue.id),
            flags: u32::from(is_async),
            num_ops: ops.len() as u32,
            op_stride: BindOp::SIZE as u32,
            sync_stride: Sync::SIZE as u32,
            ops: sim.array(self.task(), &ops),
            num_syncs: syncs.len() as u32,
            syncs: sim.array(self.task(), &syncs),
            ..Default::default()
        };
        self.send(sim, random, VM_BIND, &mut args)
    }

    fn bind_op(&self, random: &mut Random) -> BindOp {
        let bo = self.a_bo(random);
        let addr = program::an_address(random);
        let mut op = BindOp { addr, range: a_range(random), ..Default::default() };
        match random.below(16) {
            0..=7 => {
                op.op = BIND_OP_MAP;
                op.handle = bo.handle;
                let pages = (bo.size / (4 * K)).max(1);
                let first = if random.chance(1, 3) { random.below(pages) } else { 0 };
                op.offset = first * 4 * K;
                op.range = match random.chance(1, 2) {
                    true => (pages - first) * 4 * K,
                    false => (1 + random.below(pages - first)) * 4 * K,
                };
                op.flags = if random.chance(1, 4) { BIND_READONLY } else { 0 };
                op.kind = if random.chance(1, 3) { random.below(256) as u32 } else { 0 };
            }
            8 => {
                op.op = BIND_OP_MAP;
                op.flags = BIND_NULL;
                op.range = random.pick(&[op.range, op.range, 1 << 30, 1 << 40]);
            }
            9 => {
                op.op = BIND_OP_MAP;
                op.flags = BIND_SPARSE;
                op.range = random.pick(&[op.range, op.range, 1 << 30]);
            }
            10..=11 => {
                op.op = BIND_OP_UNMAP;
                op.range = random.pick(&[op.range, op.range, 1 << 40]);
            }
            12 => {
                op.op = BIND_OP_UNMAP;
                op.flags = BIND_SPARSE;
            }
            13 => {
                op = BindOp { op: BIND_OP_UNMAP_ALL, handle: bo.handle, ..Default::default() };
            }
            14 => {
                op.op = BIND_OP_PREFETCH;
                op.value = 1 + random.below(2);
            }
            _ => {
                op.op = BIND_OP_MADVISE;
                op.value = random.below(3);
            }
        }
        if random.chance(1, 60) {
            let mut bytes = [0; BindOp::SIZE];
            op.encode(&mut bytes);
            let at = random.index(bytes.len());
            bytes[at] = random.any() as u8;
            op = BindOp::decode(&bytes);
        }
        op
    }

    fn syncs(&self, random: &mut Random, fence_addr: u64) -> Vec<Sync> {
        let count = random.below(4);
        let mut syncs: Vec<Sync> = (0..count)
            .map(|_| Sync {
                kind: random.below(2) as u32,
                flags: u32::from(random.chance(2, 3)),
                handle: self.a_syncobj(random),
                value: 0,
                ..Default::default()
            })
            .collect();
        for sync in &mut syncs {
            if sync.kind == SYNC_TIMELINE {
                sync.value = random.below(12);
            }
        }
        if random.chance(1, 5) {
            let (kind, flags) = (SYNC_USER_FENCE, SYNC_SIGNAL);
            let (addr, value) = (fence_addr, random.below(100));
            syncs.push(Sync { kind, flags, value, addr, ..Default::default() });
        }
        syncs
    }

    // ---- queues

    fn queue_create(&mut self, sim: &Sim, random: &mut Random) -> Result {
        if self.queues.len() >= MOST {
            return self.queue_destroy(sim, random);
        }
        let is_bind = random.chance(1, 3);
        let mut args = QueueCreate {
            vm_id: self.a_vm(random),
            class: u32::from(is_bind),
            priority: random.below(3) as u32,
            timeout_ms: 1 + random.below(20) as u32,
            engine: if is_bind { 0 } else { random.below(2) as u32 },
            ..Default::default()
        };
        let result = self.send(sim, random, QUEUE_CREATE, &mut args)?;
        let is_bind = args.class == QUEUE_CLASS_BIND;
        self.queues.push(Queue { id: args.queue_id, vm: args.vm_id, is_bind });
        Ok(result)
    }

    fn queue_destroy(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let is_bind = random.chance(1, 3);
        let mut args =
            QueueDestroy { queue_id: self.a_queue(random, is_bind).id, ..Default::default() };
        let result = self.send(sim, random, QUEUE_DESTROY, &mut args);
        if result.is_ok() {
            self.queues.retain(|queue| queue.id != args.queue_id);
        }
        result
    }

    fn look(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let room = random.below(64);
        let to = sim.host().alloc_user(self.task(), 64 * 64);
        let (vm_id, num) = (self.a_vm(random), room as u32);
        match random.below(4) {
            0 => {
                let queue_id = self.a_queue(random, false).id;
                let mut args = QueueInfo { queue_id, ..Default::default() };
                self.send(sim, random, QUEUE_INFO, &mut args)
            }
            1 => {
                let mut args = VaDump { vm_id, num, stride: 64, vas: to, ..Default::default() };
                self.send(sim, random, VA_DUMP, &mut args)
            }
            2 => {
                let flags = random.below(2) as u32;
                let mut args =
                    FaultReport { vm_id, flags, num, stride: 40, faults: to, ..Default::default() };
                self.send(sim, random, FAULT_REPORT, &mut args)
            }
            _ => {
                let size = random.pick(&[0, 4096, 8]);
                let query = random.below(3) as u32;
                let mut args = Query { query, size, data: to, ..Default::default() };
                self.send(sim, random, QUERY, &mut args)
            }
        }
    }

    fn exec(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let queue = self.a_queue(random, false);
        let count = random.pick(&[0, 1, 1, 1, 2]);
        let batches: Vec<Batch> =
            (0..count).map(|_| program::place(sim, random, &self.bos)).collect();
        let fence_addr = program::an_address(random);
        let syncs = self.syncs(random, fence_addr);
        let mut args = Exec {
            queue_id: queue.id,
            batches: sim.array(self.task(), &batches),
            syncs: sim.array(self.task(), &syncs),
            num_batches: batches.len() as u32,
            batch_stride: Batch::SIZE as u32,
            num_syncs: syncs.len() as u32,
            sync_stride: Sync::SIZE as u32,
            ..Default::default()
        };
        self.send(sim, random, EXEC, &mut args)
    }

    fn wait_user_fence(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let mut args = WaitUserFence {
            addr: self.words + random.below(512) * 8,
            op: random.below(6) as u32,
            value: random.below(100),
            mask: random.pick(&[u64::MAX, 0xff, 0]),
            timeout_ns: random.below(1_000_000) as i64,
            queue_id: if random.chance(1, 2) { self.a_queue(random, false).id } else { 0 },
            ..Default::default()
        };
        self.send(sim, random, WAIT_USER_FENCE, &mut args)
    }

    // ---- descriptors

    fn prime(&mut self, sim: &Sim, random: &mut Random) -> Result {
        if random.chance(1, 2) {
            let flags = random.pick(&[0, 2, 0o2_000_000]);
            let handle = self.a_bo(random).handle;
            let mut args = drm::PrimeHandle { handle, flags, ..Default::default() };
            let result = self.send(sim, random, drm::PRIME_HANDLE_TO_FD, &mut args)?;
            self.keep_fd(sim, random, args.fd);
            return Ok(result);
        }
        let mut args = drm::PrimeHandle { fd: self.an_fd(random), ..Default::default() };
        let result = self.send(sim, random, drm::PRIME_FD_TO_HANDLE, &mut args)?;
        let mut info = GemInfo { handle: args.handle, ..Default::default() };
        sim.call(&self.file, GEM_INFO, &mut info)?;
        let mut offset = GemMmapOffset { handle: args.handle, ..Default::default() };
        sim.call(&self.file, GEM_MMAP_OFFSET, &mut offset)?;
        if !self.bos.iter().any(|bo| bo.handle == args.handle) {
            self.bos.push(Bo { handle: args.handle, mem: BoMem(offset.offset), size: info.size });
        }
        Ok(result)
    }

    fn an_fd(&self, random: &mut Random) -> i32 {
        match self.fds.is_empty() || random.chance(1, 8) {
            true => random.pick(&[-1, 3, FOREIGN_FD, 77]),
            false => self.fds[random.index(self.fds.len())],
        }
    }

    /// Keeps a new descriptor, passes it on, and closes old ones.
    fn keep_fd(&mut self, sim: &Sim, random: &mut Random, fd: i32) {
        self.fds.push(fd);
        if random.chance(1, 3) {
            self.outbox.push(fd);
        }
        while self.fds.len() > MOST {
            let fd = self.fds.swap_remove(random.index(self.fds.len()));
            let _ = sim.close_fd(self.task(), fd);
        }
    }

    // ---- syncobjs

    fn syncobj_create(&mut self, sim: &Sim, random: &mut Random) -> Result {
        if self.syncobjs.len() >= MOST {
            let handle = self.syncobjs.swap_remove(random.index(self.syncobjs.len()));
            let mut args = drm::SyncobjDestroy { handle, pad: 0 };
            return self.send(sim, random, drm::SYNCOBJ_DESTROY, &mut args);
        }
        let mut args = drm::SyncobjCreate { flags: random.below(2) as u32, handle: 0 };
        let result = self.send(sim, random, drm::SYNCOBJ_CREATE, &mut args)?;
        self.syncobjs.push(args.handle);
        Ok(result)
    }

    fn syncobj_array(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let (handles, count_handles) = self.some_syncobjs(sim, random);
        let points = self.some_points(sim, random, count_handles);
        let request = random.pick(&[drm::SYNCOBJ_RESET, drm::SYNCOBJ_SIGNAL]);
        match random.below(3) {
            0 => {
                let mut args = drm::SyncobjArray { handles, count_handles, pad: 0 };
                self.send(sim, random, request, &mut args)
            }
            1 => {
                let mut args =
                    drm::SyncobjTimelineArray { handles, points, count_handles, flags: 0 };
                self.send(sim, random, drm::SYNCOBJ_TIMELINE_SIGNAL, &mut args)
            }
            _ => {
                let flags = random.below(2) as u32;
                let mut args = drm::SyncobjTimelineArray { handles, points, count_handles, flags };
                self.send(sim, random, drm::SYNCOBJ_QUERY, &mut args)
            }
        }
    }

    fn syncobj_wait(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let (handles, count_handles) = self.some_syncobjs(sim, random);
        let timeout_nsec = random.pick(&[0, 0, 1_000, i64::MAX, -1]);
        if random.chance(1, 2) {
            let flags = random.below(4) as u32;
            let mut args = drm::SyncobjWait {
                handles,
                timeout_nsec,
                count_handles,
                flags,
                ..Default::default()
            };
            return self.send(sim, random, drm::SYNCOBJ_WAIT, &mut args);
        }
        let mut args = drm::SyncobjTimelineWait {
            handles,
            points: self.some_points(sim, random, count_handles),
            timeout_nsec,
            count_handles,
            flags: random.below(8) as u32,
            ..Default::default()
        };
        self.send(sim, random, drm::SYNCOBJ_TIMELINE_WAIT, &mut args)
    }

    fn syncobj_transfer(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let mut args = drm::SyncobjTransfer {
            src_handle: self.a_syncobj(random),
            dst_handle: self.a_syncobj(random),
            src_point: random.below(8),
            dst_point: random.below(8),
            flags: if random.chance(1, 8) { drm::SYNCOBJ_WAIT_FOR_SUBMIT } else { 0 },
            pad: 0,
        };
        self.send(sim, random, drm::SYNCOBJ_TRANSFER, &mut args)
    }

    fn syncobj_fd(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let flags = random.below(4) as u32;
        let point = if flags & drm::SYNCOBJ_FD_TIMELINE != 0 { random.below(8) } else { 0 };
        let handle = self.a_syncobj(random);
        if random.chance(1, 2) {
            let mut args = drm::SyncobjHandle { handle, flags, point, ..Default::default() };
            let result = self.send(sim, random, drm::SYNCOBJ_HANDLE_TO_FD, &mut args)?;
            self.keep_fd(sim, random, args.fd);
            return Ok(result);
        }
        let fd = self.an_fd(random);
        let mut args = drm::SyncobjHandle { handle, flags, fd, point, ..Default::default() };
        let result = self.send(sim, random, drm::SYNCOBJ_FD_TO_HANDLE, &mut args)?;
        if args.flags & drm::SYNCOBJ_FD_SYNC_FILE == 0 {
            self.syncobjs.push(args.handle);
        }
        Ok(result)
    }

    // ---- debug group and the rest

    fn inject(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let kind = random.pick(&[0, 0, 0, 1, 2, 3]);
        let mut args = DebugInject { kind, nth: random.below(24), ..Default::default() };
        self.send(sim, random, DEBUG_INJECT, &mut args)
    }

    fn delay(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let names = fencepost_core::debug::delay::POINTS;
        let name = names[random.index(names.len())].1;
        let action = random.below(4) as u32;
        let timeout_ms = if action & 1 == 0 { 1 + random.below(3) as u32 } else { 0 };
        let mut args = DebugDelay { action, timeout_ms, ..Default::default() };
        args.name[..name.len()].copy_from_slice(name.as_bytes());
        self.send(sim, random, DEBUG_DELAY, &mut args)
    }

    fn evict(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let handle = if random.chance(1, 4) { 0 } else { self.a_bo(random).handle };
        let mut args = DebugEvict { handle, ..Default::default() };
        self.send(sim, random, DEBUG_EVICT, &mut args)
    }

    fn core(&mut self, sim: &Sim, random: &mut Random) -> Result {
        let to = sim.host().alloc_user(self.task(), 64);
        match random.below(3) {
            0 => {
                let (name_len, name) = (random.below(20), to);
                let mut args = drm::Version { name_len, name, ..Default::default() };
                self.send(sim, random, drm::VERSION, &mut args)
            }
            1 => {
                let mut args = drm::GetCap { capability: random.below(32), value: 0 };
                self.send(sim, random, drm::GET_CAP, &mut args)
            }
            _ => {
                let mut args = drm::SetClientCap { capability: random.below(8), value: 1 };
                self.send(sim, random, drm::SET_CLIENT_CAP, &mut args)
            }
        }
    }
}

/// A size of a range.
fn a_range(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => 4 * K,
        1 => 64 * K,
        2 => 2 * M,
        3 => random.below(1024) * 4 * K,
        4 => (1 + random.below(16)) * 4 * K,
        _ => (1 + random.below(4)) * M,
    }
}
