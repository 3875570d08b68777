//! Open files of the fake device.

use super::state::{FenceId, JobState, QueueState, State, SyncState, Task, VmState, Work};
use super::{Bug, locked};
use fencepost_fixtures::Errno;
use fencepost_fixtures::device::{self as dev, *};
use fencepost_fixtures::memory::{Memfd, Window};
use fencepost_fixtures::sys::guard;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(super) struct FakeClient {
    state: Arc<Mutex<State>>,
    file: u32,
    memfd: Memfd,
}

fn error(op: &'static str, errno: Errno) -> Error {
    Error::new(op, errno)
}

fn bad<T>(op: &'static str, errno: Errno) -> Result<T> {
    Err(error(op, errno))
}

impl FakeClient {
    pub(super) fn new(state: Arc<Mutex<State>>) -> Self {
        let mut inner = locked(&state);
        let file = inner.number();
        inner.files.push(file);
        drop(inner);
        Self { state, file, memfd: Memfd::new(4096).expect("a memfd") }
    }

    /// Fences to wait for and the new ones to signal, attached.
    fn attach(
        &self,
        state: &mut State,
        points: &[SyncPoint],
    ) -> Result<(Vec<FenceId>, Vec<FenceId>)> {
        let (mut wait, mut signal) = (Vec::new(), Vec::new());
        let find = |state: &State, syncobj: Syncobj| match state.syncobjs.get(&syncobj.0) {
            Some((file, sync)) if *file == self.file => Ok(sync.clone()),
            _ => bad("sync", Errno::ENOENT),
        };
        for point in points.iter().filter(|point| !point.signal) {
            let (syncobj, at) = match point.fence {
                Fence::Binary(syncobj) => (syncobj, 0),
                Fence::Timeline(syncobj, at) => (syncobj, at),
                Fence::User { .. } => return bad("sync", Errno::EOPNOTSUPP),
            };
            let sync = find(state, syncobj)?;
            let fences = state.fences_of(&sync, at).ok_or(error("sync", Errno::EINVAL))?;
            wait.extend(fences);
        }
        for point in points.iter().filter(|point| point.signal) {
            let (syncobj, at) = match point.fence {
                Fence::Binary(syncobj) => (syncobj, 0),
                Fence::Timeline(syncobj, at) => (syncobj, at),
                Fence::User { .. } => continue,
            };
            find(state, syncobj)?;
            let early = state.bug == Some(Bug::EarlyFence);
            let fence = state.fence(early);
            signal.push(fence);
            let (_, sync) = state.syncobjs.get_mut(&syncobj.0).expect("found before");
            put_fence(sync, at, fence);
        }
        Ok((wait, signal))
    }

    fn vm<'s>(&self, state: &'s mut State, op: &'static str, vm: Vm) -> Result<&'s mut VmState> {
        match state.vms.get_mut(&vm.0) {
            Some(found) if found.file == self.file => Ok(found),
            _ => bad(op, Errno::ENOENT),
        }
    }

    fn object(&self, state: &State, op: &'static str, gem: Gem) -> Result<usize> {
        state.handles.get(&(self.file, gem.0)).copied().ok_or(error(op, Errno::ENOENT))
    }
}

fn put_fence(sync: &mut SyncState, at: u64, fence: FenceId) {
    if at == 0 {
        *sync = SyncState { binary: Some(fence), points: Vec::new() };
    } else {
        sync.points.push((at, fence));
    }
}

impl Drop for FakeClient {
    fn drop(&mut self) {
        locked(&self.state).close(self.file);
    }
}

impl Client for FakeClient {
    fn fd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    fn at_rest(&self, fork: &mut dyn FnMut()) {
        let _state = locked(&self.state);
        fork();
    }

    fn gem_create(&self, spec: &GemSpec) -> Result<Gem> {
        let mut state = locked(&self.state);
        let window = Window::shared(spec.size)?;
        if state.bug == Some(Bug::DirtyMemory) {
            window.store(spec.size - 8, Width::U64, 0xdead)?;
        }
        state.objects.push(window);
        let object = state.objects.len() - 1;
        let handle = state.number();
        state.handles.insert((self.file, handle), object);
        Ok(Gem(handle))
    }

    fn gem_close(&self, gem: Gem) -> Result<()> {
        let gone = locked(&self.state).handles.remove(&(self.file, gem.0));
        gone.map(drop).ok_or(error("gem.close", Errno::EINVAL))
    }

    fn gem_map(&self, gem: Gem, offset: u64, len: u64) -> Result<Window> {
        let state = locked(&self.state);
        let object = self.object(&state, "gem.map", gem)?;
        state.objects[object].slice(offset, len)
    }

    fn gem_info(&self, gem: Gem) -> Result<GemInfo> {
        let state = locked(&self.state);
        let object = self.object(&state, "gem.info", gem)?;
        Ok(GemInfo {
            size: state.objects[object].len(),
            placement: Placement::System,
            resident: Some(Region::System),
            private: false,
            mappings: 0,
            evictions: 0,
        })
    }

    fn gem_export(&self, gem: Gem) -> Result<OwnedFd> {
        let object = self.object(&locked(&self.state), "prime.export", gem)?;
        // The descriptor's size tells the object.
        let file = Memfd::new(object as u64 + 1)?;
        file.as_fd().try_clone_to_owned().map_err(|e| Error::from_io("prime.export", &e))
    }

    fn gem_import(&self, fd: BorrowedFd<'_>) -> Result<Gem> {
        let file = std::fs::File::from(
            fd.try_clone_to_owned().map_err(|e| Error::from_io("prime.import", &e))?,
        );
        let size = file.metadata().map_err(|e| Error::from_io("prime.import", &e))?.len();
        let mut state = locked(&self.state);
        let handle = state.number();
        state.handles.insert((self.file, handle), size as usize - 1);
        Ok(Gem(handle))
    }

    fn vm_create(&self, spec: &VmSpec) -> Result<Vm> {
        let mut state = locked(&self.state);
        let number = state.number();
        let mut vm = VmState { file: self.file, ..VmState::default() };
        vm.used.end = spec.va_end.unwrap_or(1 << 48);
        vm.used.hole = spec.hole.map_or((0, 0), |(start, size)| (start, start + size));
        vm.shown = vm.used.clone();
        state.vms.insert(number, vm);
        Ok(Vm(number))
    }

    fn vm_destroy(&self, vm: Vm) -> Result<()> {
        let mut state = locked(&self.state);
        self.vm(&mut state, "vm.destroy", vm)?;
        if state.queues.values().any(|queue| queue.vm == vm.0) {
            return bad("vm.destroy", Errno::EBUSY);
        }
        state.vms.remove(&vm.0);
        Ok(())
    }

    fn bind(&self, call: &BindCall) -> Result<()> {
        let mut state = locked(&self.state);
        let bug = state.bug;
        let handles: HashMap<u32, (usize, u64)> = state
            .handles
            .iter()
            .filter(|((file, _), _)| *file == self.file)
            .map(|((_, handle), object)| (*handle, (*object, state.objects[*object].len())))
            .collect();
        let vm = self.vm(&mut state, "vm.bind", call.vm)?;
        let done = vm.shown.bind(&call.ops, &|handle| handles.get(&handle).copied(), bug);
        if let Err(errno) = done {
            state.failed_binds += 1;
            if bug == Some(Bug::HalfDone) {
                let vm = self.vm(&mut state, "vm.bind", call.vm)?;
                vm.used = vm.shown.clone();
            }
            return bad("vm.bind", errno);
        }
        let (wait, mut signal) = self.attach(&mut state, &call.syncs)?;
        let own = state.fence(false);
        signal.push(own);
        state.maps += call.ops.len() as u64;
        let lane = (1, call.queue.map_or(call.vm.0, |queue| queue.0));
        let what = Work::Bind { ops: call.ops.clone(), handles };
        state.tasks.push(Task { vm: call.vm.0, lane, wait, signal, write: None, what });
        state.pump();
        drop(state);
        if !call.is_async {
            wait_until(&self.state, Duration::from_secs(10), |state| state.fences[own])?;
        }
        Ok(())
    }

    fn va_dump(&self, vm: Vm) -> Result<Vec<Mapping>> {
        let mut state = locked(&self.state);
        let bug = state.bug;
        let space = self.vm(&mut state, "vm.va_dump", vm)?.shown.clone();
        let mut list: Vec<Mapping> = space
            .dump(bug)
            .iter()
            .map(|va| {
                let backing = match va.object {
                    Some((object, _)) => Backing::Object {
                        gem: state
                            .handles
                            .iter()
                            .find(|((file, _), o)| *file == self.file && **o == object)
                            .map(|((_, handle), _)| Gem(*handle)),
                        object: object as u64 + 1,
                    },
                    None if va.mirror => Backing::Mirror,
                    None => Backing::Null,
                };
                let offset = va.object.map_or(0, |(_, offset)| offset);
                mapping(va.start, va.end, backing, offset, (va.readonly, va.kind))
            })
            .collect();
        for (start, end) in &space.sparse {
            list.push(mapping(*start, *end, Backing::Sparse, 0, (false, 0)));
        }
        list.sort_by_key(|m| (m.addr, m.backing != Backing::Sparse));
        Ok(list)
    }

    fn svm_migrate(&self, migrate: &SvmMigrate) -> Result<u64> {
        Ok(migrate.range.len / 4096)
    }

    fn svm_exclusive(&self, range: SvmRange) -> Result<u64> {
        Ok(range.len / 4096)
    }

    fn svm_query(&self, range: SvmRange) -> Result<Vec<SvmPage>> {
        let bug = locked(&self.state).bug;
        let page = |page: u64| {
            let addr = range.addr + page * 4096;
            let value = guard::load8(addr);
            let writable = value.is_ok_and(|value| guard::cas8(addr, value, value).is_ok());
            let device = bug == Some(Bug::SaysDevice) && page == 1;
            SvmPage {
                readable: value.is_ok(),
                writable: writable || bug == Some(Bug::SaysWritable),
                gpu: SvmReach::Nothing,
                place: if device { SvmPlace::Device } else { SvmPlace::System },
                order: 0,
                gpu_order: 0,
            }
        };
        Ok((0..range.len / 4096).map(page).collect())
    }

    fn faults(&self, vm: Vm, clear: bool) -> Result<FaultLog> {
        let mut state = locked(&self.state);
        let vm = self.vm(&mut state, "vm.faults", vm)?;
        let faults = if clear { std::mem::take(&mut vm.faults) } else { vm.faults.clone() };
        Ok(FaultLog { faults, lost: 0 })
    }

    fn internal_window(&self, _: Vm) -> Range<u64> {
        0..0
    }

    fn queue_create(&self, spec: &QueueSpec) -> Result<Queue> {
        let mut state = locked(&self.state);
        self.vm(&mut state, "queue.create", spec.vm)?;
        let number = state.number();
        let queue = QueueState {
            file: self.file,
            vm: spec.vm.0,
            banned: false,
            submitted: 0,
            completed: 0,
        };
        state.queues.insert(number, queue);
        Ok(Queue(number))
    }

    fn queue_destroy(&self, queue: Queue) -> Result<()> {
        let gone = locked(&self.state).queues.remove(&queue.0);
        gone.map(drop).ok_or(error("queue.destroy", Errno::ENOENT))
    }

    fn queue_info(&self, queue: Queue) -> Result<QueueInfo> {
        let state = locked(&self.state);
        let found = state.queues.get(&queue.0).ok_or(error("queue.info", Errno::ENOENT))?;
        Ok(QueueInfo {
            banned: found.banned,
            resets: u32::from(found.banned),
            submitted: found.submitted,
            completed: found.completed,
        })
    }

    fn submit(&self, call: &SubmitCall<'_>) -> Result<Box<dyn Submission>> {
        const OP: &str = "gpu.submit";
        let mut state = locked(&self.state);
        let queue = *state.queues.get(&call.queue.0).ok_or(error(OP, Errno::ENOENT))?;
        if queue.banned {
            return bad(OP, Errno::ECANCELED);
        }
        let (wait, signal) = self.attach(&mut state, &call.syncs)?;
        let (mut ops, mut counts, mut results) = (Vec::new(), Vec::new(), 0);
        for work in &call.work {
            let dev::Work::Program(program) = work else { return bad(OP, Errno::EOPNOTSUPP) };
            flatten(&program.ops, &mut results, &mut ops);
            counts.push(program.results());
        }
        let write = call.syncs.iter().find_map(|point| match point.fence {
            Fence::User { addr, value } => Some((addr, value)),
            _ => None,
        });
        state.jobs.push(JobState { results: vec![0; results], ..JobState::default() });
        let job = state.jobs.len() - 1;
        let number = queue.submitted + 1;
        state.queues.insert(call.queue.0, QueueState { submitted: number, ..queue });
        let what = Work::Run { ops, at: 0, job, number, queue: call.queue.0 };
        let lane = (0, call.queue.0);
        state.tasks.push(Task { vm: queue.vm, lane, wait, signal, write, what });
        if state.bug != Some(Bug::EarlyFence) {
            state.pump();
        }
        Ok(Box::new(FakeSubmission { state: Arc::clone(&self.state), job, counts }))
    }

    fn syncobj_create(&self, signalled: bool) -> Result<Syncobj> {
        let mut state = locked(&self.state);
        let binary = signalled.then(|| state.fence(true));
        let number = state.number();
        let sync = SyncState { binary, points: Vec::new() };
        state.syncobjs.insert(number, (self.file, sync));
        Ok(Syncobj(number))
    }

    fn syncobj_destroy(&self, syncobj: Syncobj) -> Result<()> {
        let gone = locked(&self.state).syncobjs.remove(&syncobj.0);
        gone.map(drop).ok_or(error("syncobj.destroy", Errno::EINVAL))
    }

    fn syncobj_wait(&self, wait: &SyncobjWait<'_>) -> Result<u32> {
        const OP: &str = "syncobj.wait";
        let look = |state: &State| -> Result<Vec<Option<bool>>> {
            let one = |(syncobj, point): &(Syncobj, u64)| {
                let found = state.syncobjs.get(&syncobj.0).ok_or(error(OP, Errno::ENOENT))?;
                Ok(state.signalled(&found.1, *point))
            };
            wait.points.iter().map(one).collect()
        };
        let first = look(&locked(&self.state))?;
        if !wait.for_submit && !wait.available && first.contains(&None) {
            return bad(OP, Errno::EINVAL);
        }
        let is_there =
            |state: Option<bool>| state == Some(true) || (wait.available && state.is_some());
        let over = |state: &State| {
            let now = look(state).unwrap_or_default();
            if wait.all {
                now.iter().all(|s| is_there(*s))
            } else {
                now.iter().any(|s| is_there(*s))
            }
        };
        wait_until(&self.state, wait.timeout, over)?;
        let now = look(&locked(&self.state))?;
        let index = now.iter().position(|state| is_there(*state)).unwrap_or(0);
        Ok(if wait.all { 0 } else { index as u32 })
    }

    fn syncobj_reset(&self, syncobjs: &[Syncobj]) -> Result<()> {
        let mut state = locked(&self.state);
        for syncobj in syncobjs {
            let found = state.syncobjs.get_mut(&syncobj.0);
            found.ok_or(error("syncobj.reset", Errno::ENOENT))?.1 = SyncState::default();
        }
        Ok(())
    }

    fn syncobj_signal(&self, syncobjs: &[Syncobj]) -> Result<()> {
        let points: Vec<(Syncobj, u64)> = syncobjs.iter().map(|s| (*s, 0)).collect();
        self.timeline_signal(&points)
    }

    fn timeline_signal(&self, points: &[(Syncobj, u64)]) -> Result<()> {
        let mut state = locked(&self.state);
        for (syncobj, point) in points {
            let fence = state.fence(true);
            let found = state.syncobjs.get_mut(&syncobj.0);
            let (_, sync) = found.ok_or(error("syncobj.signal", Errno::ENOENT))?;
            put_fence(sync, *point, fence);
        }
        state.pump();
        Ok(())
    }

    fn timeline_query(&self, syncobjs: &[Syncobj], _: bool) -> Result<Vec<u64>> {
        let state = locked(&self.state);
        let one = |syncobj: &Syncobj| {
            let found = state.syncobjs.get(&syncobj.0);
            Ok(state.value(&found.ok_or(error("syncobj.query", Errno::ENOENT))?.1))
        };
        syncobjs.iter().map(one).collect()
    }

    fn counters(&self) -> Result<BTreeMap<String, u64>> {
        let state = locked(&self.state);
        let completed = state.jobs.iter().filter(|job| job.over && !job.failed).count();
        let live = [
            ("live.files", state.files.len() as u64),
            ("live.vms", state.vms.len() as u64 + state.leaked),
            ("live.queues", state.queues.len() as u64),
            ("live.syncobjs", state.syncobjs.len() as u64),
            ("ops.map", state.maps),
            ("binds.failed", state.failed_binds),
            ("jobs.completed", completed as u64),
        ];
        Ok(live.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
    }

    fn regions(&self) -> Result<Vec<RegionInfo>> {
        Ok(Vec::new())
    }
}

fn mapping(
    start: u64,
    end: u64,
    backing: Backing,
    offset: u64,
    (readonly, kind): (bool, u32),
) -> Mapping {
    Mapping {
        addr: start,
        range: end - start,
        offset,
        backing,
        readonly,
        kind,
        resident: None,
        preferred: None,
        ptes: [0; 3],
    }
}

/// Unrolls loops; `results` counts, a loop's body once.
fn flatten(ops: &[GpuOp], results: &mut usize, out: &mut Vec<(GpuOp, Option<usize>)>) {
    for op in ops {
        if let GpuOp::Loop { times, body } = op {
            let from = *results;
            for _ in 0..*times {
                *results = from;
                flatten(body, results, out);
            }
            continue;
        }
        let result = (op.results() == 1).then_some(*results);
        *results += op.results();
        out.push((op.clone(), result));
    }
}

/// Works tasks off until a condition holds.
fn wait_until(
    state: &Mutex<State>,
    timeout: Duration,
    over: impl Fn(&State) -> bool,
) -> Result<()> {
    let start = Instant::now();
    loop {
        {
            let mut state = locked(state);
            if over(&state) {
                return Ok(());
            }
            state.pump();
            if over(&state) {
                return Ok(());
            }
        }
        if start.elapsed() >= timeout {
            return bad("wait", Errno::ETIME);
        }
        std::thread::yield_now();
    }
}

struct FakeSubmission {
    state: Arc<Mutex<State>>,
    job: usize,
    counts: Vec<usize>,
}

impl FakeSubmission {
    fn completion(&self) -> Option<Completion> {
        let state = locked(&self.state);
        let job = &state.jobs[self.job];
        if !job.over {
            return None;
        }
        let mut rest = &job.results[..];
        let mut results = Vec::new();
        for count in &self.counts {
            let (now, later) = rest.split_at(*count);
            results.push(now.to_vec());
            rest = later;
        }
        let outcome = if job.failed { Outcome::Failed } else { Outcome::Finished };
        Some(Completion { outcome, results })
    }
}

impl Submission for FakeSubmission {
    fn wait(&self, timeout: Duration) -> Result<Completion> {
        wait_until(&self.state, timeout, |state| state.jobs[self.job].over)?;
        self.completion().ok_or(error("gpu.wait", Errno::ETIME))
    }

    fn poll(&self) -> Result<Option<Completion>> {
        Ok(self.completion())
    }
}
