//! What the fake device holds, and how it works off its jobs.

use super::Bug;
use super::space::{Found, Space};
use fencepost_fixtures::area::Reach;
use fencepost_fixtures::device::{
    AtomicOp, BindOp, Compare, Fault, FaultAccess, FaultKind, GpuOp, Queue, Width,
};
use fencepost_fixtures::memory::Window;
use fencepost_fixtures::sys::guard;
use std::collections::{BTreeMap, HashMap};

/// A fence: signalled or not.
pub(super) type FenceId = usize;

/// What a syncobj holds.
#[derive(Clone, Debug, Default)]
pub(super) struct SyncState {
    pub(super) binary: Option<FenceId>,
    pub(super) points: Vec<(u64, FenceId)>,
}

/// A queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueState {
    pub(super) file: u32,
    pub(super) vm: u32,
    pub(super) banned: bool,
    pub(super) submitted: u64,
    pub(super) completed: u64,
}

/// Something to be done when its fences are signalled.
pub(super) struct Task {
    pub(super) vm: u32,
    /// Order is kept within a lane: an exec queue, or a bind queue.
    pub(super) lane: (u32, u32),
    pub(super) wait: Vec<FenceId>,
    pub(super) signal: Vec<FenceId>,
    pub(super) write: Option<(u64, u64)>,
    pub(super) what: Work,
}

pub(super) enum Work {
    /// A job: flattened operations, where it is, its number on its queue.
    Run { ops: Vec<(GpuOp, Option<usize>)>, at: usize, job: usize, number: u64, queue: u32 },
    /// A bind that is to be done with the translations.
    Bind { ops: Vec<BindOp>, handles: HashMap<u32, (usize, u64)> },
}

/// How a job ended, and what it gave.
#[derive(Clone, Debug, Default)]
pub(super) struct JobState {
    pub(super) over: bool,
    pub(super) failed: bool,
    pub(super) results: Vec<u64>,
}

/// An address space: what a dump shows, and what accesses go through.
#[derive(Clone, Debug, Default)]
pub(super) struct VmState {
    pub(super) file: u32,
    pub(super) shown: Space,
    pub(super) used: Space,
    pub(super) faults: Vec<Fault>,
}

/// Everything.
pub(super) struct State {
    pub(super) bug: Option<Bug>,
    pub(super) files: Vec<u32>,
    pub(super) objects: Vec<Window>,
    /// Handles: by file and number, the object.
    pub(super) handles: BTreeMap<(u32, u32), usize>,
    pub(super) vms: BTreeMap<u32, VmState>,
    pub(super) queues: BTreeMap<u32, QueueState>,
    pub(super) syncobjs: BTreeMap<u32, (u32, SyncState)>,
    pub(super) fences: Vec<bool>,
    pub(super) jobs: Vec<JobState>,
    pub(super) tasks: Vec<Task>,
    pub(super) leaked: u64,
    pub(super) maps: u64,
    pub(super) failed_binds: u64,
    next: u32,
    atomics: u64,
    loads: HashMap<(u32, u64), u64>,
}

impl State {
    pub(super) fn new(bug: Option<Bug>) -> Self {
        Self {
            bug,
            files: Vec::new(),
            objects: Vec::new(),
            handles: BTreeMap::new(),
            vms: BTreeMap::new(),
            queues: BTreeMap::new(),
            syncobjs: BTreeMap::new(),
            fences: Vec::new(),
            jobs: Vec::new(),
            tasks: Vec::new(),
            leaked: 0,
            maps: 0,
            failed_binds: 0,
            next: 0,
            atomics: 0,
            loads: HashMap::new(),
        }
    }

    pub(super) fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    pub(super) fn fence(&mut self, signalled: bool) -> FenceId {
        self.fences.push(signalled);
        self.fences.len() - 1
    }

    /// A point counts as signalled when it and all attached before it are.
    pub(super) fn value(&self, sync: &SyncState) -> u64 {
        let mut value = 0;
        for (point, fence) in &sync.points {
            if !self.fences[*fence] && self.bug != Some(Bug::EagerTimeline) {
                break;
            }
            value = value.max(*point);
        }
        value
    }

    /// Whether a point, or with 0 the binary payload, is signalled; none: no fence is there.
    pub(super) fn signalled(&self, sync: &SyncState, point: u64) -> Option<bool> {
        if point == 0 {
            let last = sync.points.last().map(|(_, fence)| *fence);
            return sync.binary.or(last).map(|fence| self.fences[fence]);
        }
        let attached = sync.points.iter().any(|(at, _)| *at >= point);
        attached.then(|| self.value(sync) >= point)
    }

    /// The fences that a wait for a point waits for.
    pub(super) fn fences_of(&self, sync: &SyncState, point: u64) -> Option<Vec<FenceId>> {
        if point == 0 {
            return sync.binary.map(|fence| vec![fence]);
        }
        let upto = sync.points.iter().position(|(at, _)| *at >= point)?;
        Some(sync.points[..=upto].iter().map(|(_, fence)| *fence).collect())
    }

    /// Does what can be done.
    pub(super) fn pump(&mut self) {
        loop {
            let mut moved = false;
            let mut index = 0;
            while index < self.tasks.len() {
                if !self.is_first(index) || !self.may_start(index) {
                    index += 1;
                    continue;
                }
                let mut task = self.tasks.remove(index);
                if self.work(&mut task) {
                    self.complete(&task);
                    moved = true;
                } else {
                    self.tasks.insert(index, task);
                    index += 1;
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn is_first(&self, index: usize) -> bool {
        let lane = self.tasks[index].lane;
        let others = if self.bug == Some(Bug::Disorder) && lane.0 == 1 {
            &self.tasks[index + 1..]
        } else {
            &self.tasks[..index]
        };
        !others.iter().any(|task| task.lane == lane)
    }

    fn may_start(&self, index: usize) -> bool {
        let ready = self.tasks[index].wait.iter().all(|fence| self.fences[*fence]);
        ready || self.bug == Some(Bug::NoInFence)
    }

    fn complete(&mut self, task: &Task) {
        if let (Some((addr, value)), Work::Run { queue, .. }) = (task.write, &task.what) {
            let queue = *queue;
            // A user fence: a fault there goes unseen.
            let _ = self.store(task.vm, addr, value, Width::U64, (queue, 0));
        }
        for fence in &task.signal {
            self.fences[*fence] = true;
        }
        if let Work::Run { queue, job, .. } = &task.what {
            self.jobs[*job].over = true;
            if let Some(queue) = self.queues.get_mut(queue) {
                queue.completed += 1;
            }
        }
    }

    /// Goes on with a task; true when it is over.
    fn work(&mut self, task: &mut Task) -> bool {
        match &mut task.what {
            Work::Bind { ops, handles } => {
                let bug = self.bug;
                if let Some(vm) = self.vms.get_mut(&task.vm) {
                    // It was found possible when the call was made.
                    let _ = vm.used.bind(ops, &|handle| handles.get(&handle).copied(), bug);
                }
                true
            }
            Work::Run { ops, at, job, number, queue } => {
                if self.queues.get(queue).is_none_or(|queue| queue.banned) {
                    self.jobs[*job].failed = true;
                    return true;
                }
                while *at < ops.len() {
                    let (op, result) = ops[*at].clone();
                    match self.op(task.vm, &op, (*queue, *number)) {
                        Step::Done(value) => {
                            if let (Some(value), Some(result)) = (value, result) {
                                self.jobs[*job].results[result] = value;
                            }
                        }
                        Step::Blocked => return false,
                        Step::Faulted => {
                            self.jobs[*job].failed = true;
                            if let Some(queue) = self.queues.get_mut(queue) {
                                queue.banned = true;
                            }
                            return true;
                        }
                    }
                    *at += 1;
                }
                true
            }
        }
    }

    fn op(&mut self, vm: u32, op: &GpuOp, who: (u32, u64)) -> Step {
        let done = match op {
            GpuOp::Store { addr, value, width }
            | GpuOp::SemaphoreRelease { addr, value, width } => {
                self.store(vm, *addr, *value, *width, who).map(|()| None)
            }
            GpuOp::Load { addr, width } => self.load_op(vm, *addr, *width, who).map(Some),
            GpuOp::Copy { src, dst, bytes } => {
                let bytes = bytes - u64::from(self.bug == Some(Bug::ShortCopy));
                (0..bytes)
                    .try_for_each(|i| {
                        let byte = self.byte(vm, src + i, who)?;
                        self.put_byte(vm, dst + i, byte, who)
                    })
                    .map(|()| None)
            }
            GpuOp::Fill { addr, bytes, value, width } => {
                let extra = if self.bug == Some(Bug::LongFill) { width.bytes() } else { 0 };
                (0..bytes + extra)
                    .step_by(width.bytes() as usize)
                    .try_for_each(|i| self.store(vm, addr + i, *value, *width, who))
                    .map(|()| None)
            }
            GpuOp::Atomic { addr, op, operand, width, .. } => {
                self.atomic(vm, *addr, (*op, *operand), *width, who).map(Some)
            }
            GpuOp::SemaphoreWait { addr, value, mask, compare, width } => {
                match self.load(vm, *addr, *width, who, FaultAccess::Read) {
                    Ok(word) => {
                        let holds = match compare {
                            Compare::Equal => word & mask == *value,
                            Compare::GreaterEqual => word & mask >= *value,
                        };
                        if !holds {
                            return Step::Blocked;
                        }
                        Ok(None)
                    }
                    Err(fault) => Err(fault),
                }
            }
            GpuOp::Timestamp { addr: Some(addr) } => {
                self.store(vm, *addr, 1, Width::U64, who).map(|()| None)
            }
            GpuOp::Bad => {
                self.fault(vm, 0, (FaultAccess::Fetch, FaultKind::Command), who);
                Err(Faulted)
            }
            _ => Ok(None),
        };
        match done {
            Ok(value) => Step::Done(value),
            Err(Faulted) => Step::Faulted,
        }
    }

    fn fault(
        &mut self,
        vm: u32,
        addr: u64,
        (access, kind): (FaultAccess, FaultKind),
        who: (u32, u64),
    ) {
        let addr = if self.bug == Some(Bug::RoundedFault) { addr & !0xfff } else { addr };
        if let Some(vm) = self.vms.get_mut(&vm) {
            vm.faults.push(Fault { addr, access, kind, queue: Queue(who.0), job: who.1 });
        }
    }

    /// Where an access goes; none: nowhere, it reads 0.
    fn place(
        &mut self,
        vm: u32,
        addr: u64,
        access: FaultAccess,
        who: (u32, u64),
    ) -> Result<Option<Spot>, Faulted> {
        let bug = self.bug;
        let found = self.vms.get(&vm).map_or(Found::Nothing, |vm| vm.used.find(addr, bug));
        let writes = access != FaultAccess::Read;
        let refused = match found {
            Found::Nothing if bug == Some(Bug::NoFault) => return Ok(None),
            Found::Nothing => Some(FaultKind::NotPresent),
            Found::Object(.., true) | Found::Zero(true)
                if writes && bug != Some(Bug::WritableReadOnly) =>
            {
                Some(FaultKind::Permission)
            }
            Found::Cpu => {
                // Changes nothing, for others may write there at the same time.
                let word = addr & !7;
                let value = guard::load8(word);
                let writable = || value.is_ok_and(|old| guard::cas8(word, old, old).is_ok());
                match value {
                    Err(_) if bug == Some(Bug::NoFault) => return Ok(None),
                    Err(_) => Some(FaultKind::NotPresent),
                    Ok(_) if writes && !writable() && bug == Some(Bug::WritableReadOnly) => {
                        return Ok(None);
                    }
                    Ok(_) => (writes && !writable()).then_some(FaultKind::Permission),
                }
            }
            _ => None,
        };
        if let Some(kind) = refused {
            self.fault(vm, addr, (access, kind), who);
            return Err(Faulted);
        }
        match found {
            Found::Object(object, offset, _) => {
                Ok(Some(Spot::Object(self.objects[object].clone(), offset)))
            }
            Found::Cpu => Ok(Some(Spot::Cpu(addr))),
            _ => Ok(None),
        }
    }

    fn load_op(
        &mut self,
        vm: u32,
        addr: u64,
        width: Width,
        who: (u32, u64),
    ) -> Result<u64, Faulted> {
        let value = self.load(vm, addr, width, who, FaultAccess::Read)?;
        let first = *self.loads.entry((vm, addr)).or_insert(value);
        Ok(if self.bug == Some(Bug::StaleRead) { first } else { value })
    }

    fn load(
        &mut self,
        vm: u32,
        addr: u64,
        width: Width,
        who: (u32, u64),
        access: FaultAccess,
    ) -> Result<u64, Faulted> {
        let place = self.place(vm, addr, access, who)?;
        Ok(place.map_or(0, |spot| spot.load(width).unwrap_or(0)))
    }

    fn store(
        &mut self,
        vm: u32,
        addr: u64,
        value: u64,
        width: Width,
        who: (u32, u64),
    ) -> Result<(), Faulted> {
        if let Some(spot) = self.place(vm, addr, FaultAccess::Write, who)? {
            // The place is within the object, as the mapping is.
            let _ = spot.store(width, value);
        }
        Ok(())
    }

    fn byte(&mut self, vm: u32, addr: u64, who: (u32, u64)) -> Result<u8, Faulted> {
        let place = self.place(vm, addr, FaultAccess::Read, who)?;
        Ok(place.map_or(0, |spot| spot.load_u8().unwrap_or(0)))
    }

    fn put_byte(&mut self, vm: u32, addr: u64, byte: u8, who: (u32, u64)) -> Result<(), Faulted> {
        if let Some(spot) = self.place(vm, addr, FaultAccess::Write, who)? {
            let _ = spot.store_u8(byte);
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        vm: u32,
        addr: u64,
        (op, operand): (AtomicOp, u64),
        width: Width,
        who: (u32, u64),
    ) -> Result<u64, Faulted> {
        let Some(spot) = self.place(vm, addr, FaultAccess::Atomic, who)? else {
            return Ok(0);
        };
        self.atomics += 1;
        if self.bug == Some(Bug::LostUpdate) && self.atomics.is_multiple_of(3) {
            return Ok(spot.load(width).unwrap_or(0));
        }
        let old = spot.atomic(width, op, operand).unwrap_or(0);
        let new = op.apply(width, old, operand);
        Ok(if self.bug == Some(Bug::NewForOld) { new } else { old })
    }

    /// A file is closed: all it has goes.
    pub(super) fn close(&mut self, file: u32) {
        self.tasks.retain(|task| self.vms.get(&task.vm).is_none_or(|vm| vm.file != file));
        if self.bug == Some(Bug::Leak) {
            self.leaked += self.vms.values().filter(|vm| vm.file == file).count() as u64;
        }
        self.files.retain(|f| *f != file);
        self.handles.retain(|(f, _), _| *f != file);
        self.vms.retain(|_, vm| vm.file != file);
        self.queues.retain(|_, queue| queue.file != file);
        self.syncobjs.retain(|_, (f, _)| *f != file);
    }
}

enum Step {
    Done(Option<u64>),
    Blocked,
    Faulted,
}

struct Faulted;

/// A place in memory.
enum Spot {
    /// In an object.
    Object(Window, u64),
    /// At an address of this process.
    Cpu(u64),
}

impl Spot {
    fn reach(addr: u64) -> Reach {
        Reach { addr, len: 8 }
    }

    fn load(&self, width: Width) -> fencepost_fixtures::Result<u64> {
        match self {
            Self::Object(window, offset) => window.load(*offset, width),
            Self::Cpu(addr) => Self::reach(*addr).load(0, width),
        }
    }

    fn store(&self, width: Width, value: u64) -> fencepost_fixtures::Result<()> {
        match self {
            Self::Object(window, offset) => window.store(*offset, width, value),
            Self::Cpu(addr) => Self::reach(*addr).store(0, width, value),
        }
    }

    fn load_u8(&self) -> fencepost_fixtures::Result<u8> {
        match self {
            Self::Object(window, offset) => window.load_u8(*offset),
            Self::Cpu(addr) => {
                let mut byte = [0];
                Self::reach(*addr).read(0, &mut byte).map(|()| byte[0])
            }
        }
    }

    fn store_u8(&self, byte: u8) -> fencepost_fixtures::Result<()> {
        match self {
            Self::Object(window, offset) => window.store_u8(*offset, byte),
            Self::Cpu(addr) => Self::reach(*addr).write(0, &[byte]),
        }
    }

    fn atomic(&self, width: Width, op: AtomicOp, operand: u64) -> fencepost_fixtures::Result<u64> {
        match self {
            Self::Object(window, offset) => window.atomic(*offset, width, op, operand),
            Self::Cpu(addr) => Self::reach(*addr).atomic(0, width, op, operand),
        }
    }
}
