//! Submissions: from commands to a program, to the queue, and to the judgement of its end.

use super::actor::{Actor, Answer, Done, LAST_WAIT, Stop};
use super::cpu::{atomic_op, width};
use super::stage::{JobObject, QueueObject, VmObject, find};
use crate::lang::expect::{Check, FaultAccess, FaultExpect, FaultKind};
use crate::lang::step::{
    Batch, Command, Compare, Fence, Finish, JobEnd, Place, Point, Step, Submit,
};
use crate::oracle::{self, End, Origin, SubmitRequest, Wrong};
use fencepost_fixtures::Errno;
use fencepost_fixtures::device::{self as dev, GpuOp, Outcome, Program, Scope, SubmitCall, Work};
use fencepost_results::Failure;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A result of a submission that the scenario looks at.
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// Number of the program and of the result in it.
    pub(super) index: (usize, usize),
    /// The load or atomic, in words.
    pub(super) what: String,
    /// What it must give.
    pub(super) check: Option<Check>,
    /// The result's name.
    pub(super) name: Option<String>,
}

/// A program under construction.
#[derive(Default)]
struct Builder {
    number: usize,
    results: usize,
    reads: Vec<Read>,
}

impl Actor<'_, '_> {
    /// The GPU address of a place in a VM.
    pub(super) fn gpu_place(&mut self, vm: &VmObject, place: &Place) -> Done<u64> {
        match place {
            Place::Address(addr) => self.value(addr),
            Place::Memory { name, offset } => {
                let offset = self.value(offset)?;
                let memory = self.memory(name)?;
                if let Some(area) = &memory.area {
                    return Ok(area.addr.wrapping_add(offset));
                }
                match &memory.home {
                    Some((home, addr)) if *home == vm.name => Ok(addr.wrapping_add(offset)),
                    _ => self.broken(&format!("{name} has no home address in VM {}", vm.name)),
                }
            }
        }
    }

    /// The exec queue of a submission, with its VM.
    fn exec_queue(
        &mut self,
        step: &Step,
        name: Option<&str>,
    ) -> Done<(Arc<QueueObject>, Arc<VmObject>)> {
        let client = step.client.clone().unwrap_or_else(|| self.client.clone());
        let queue = match name {
            Some(name) => find(&self.stage.names.queues, name),
            None => self.stage.default_queue(&client),
        };
        let Some(queue) = queue else { return self.broken("there is no queue to submit to") };
        match find(&self.stage.names.vms, &queue.vm) {
            Some(vm) => Ok((queue, vm)),
            None => self.broken("the queue's VM is gone"),
        }
    }

    // ---- programs --------------------------------------------------------------------------

    /// Makes a program of commands; its operations' steps go with it.
    fn program(
        &mut self,
        vm: &VmObject,
        commands: &[Command],
        number: usize,
    ) -> Done<(Program, Vec<Origin>, Vec<Read>)> {
        let mut builder = Builder { number, ..Builder::default() };
        let mut ops = Vec::new();
        let mut origins = Vec::new();
        for command in commands {
            let op = self.command(vm, command, &mut builder)?;
            // A step of one command needs no further words.
            let origin = if commands.len() == 1 { self.origin } else { self.part(op_text(&op)) };
            origins.push(origin);
            ops.push(op);
        }
        Ok((Program::new(ops), origins, builder.reads))
    }

    fn command(&mut self, vm: &VmObject, command: &Command, builder: &mut Builder) -> Done<GpuOp> {
        Ok(match command {
            Command::Nop => GpuOp::Nop,
            Command::Fence { system } => GpuOp::Fence { scope: scope(*system) },
            Command::Load(read) => {
                let addr = self.gpu_place(vm, &read.at)?;
                let what = format!("GPU load at {addr:#x}");
                builder.result(what, read.check.clone(), read.name.clone());
                GpuOp::Load { addr, width: width(read.width) }
            }
            Command::Store(write) => GpuOp::Store {
                addr: self.gpu_place(vm, &write.at)?,
                value: self.value(&write.value)?,
                width: width(write.width),
            },
            Command::Release(write) => GpuOp::SemaphoreRelease {
                addr: self.gpu_place(vm, &write.at)?,
                value: self.value(&write.value)?,
                width: width(write.width),
            },
            Command::Copy { from, to, size } => GpuOp::Copy {
                src: self.gpu_place(vm, from)?,
                dst: self.gpu_place(vm, to)?,
                bytes: self.value(size)?,
            },
            Command::Fill(fill) => GpuOp::Fill {
                addr: self.gpu_place(vm, &fill.at)?,
                bytes: self.value(&fill.size)?,
                value: self.value(&fill.value)?,
                width: width(fill.width),
            },
            Command::Atomic(atomic) => {
                let addr = self.gpu_place(vm, &atomic.at)?;
                let compare = match &atomic.compare {
                    Some(compare) => self.value(compare)?,
                    None => 0,
                };
                let what = format!("old value of a GPU atomic at {addr:#x}");
                builder.result(what, atomic.check.clone(), atomic.name.clone());
                GpuOp::Atomic {
                    addr,
                    op: atomic_op(atomic.op, compare),
                    operand: self.value(&atomic.value)?,
                    width: width(atomic.width),
                    scope: scope(atomic.system),
                }
            }
            Command::Wait { at, compare, value, mask, width: bytes } => GpuOp::SemaphoreWait {
                addr: self.gpu_place(vm, at)?,
                value: self.value(value)?,
                mask: match mask {
                    Some(mask) => self.value(mask)?,
                    None => u64::MAX,
                },
                compare: match compare {
                    Compare::GreaterEqual => dev::Compare::GreaterEqual,
                    _ => dev::Compare::Equal,
                },
                width: width(*bytes),
            },
            Command::Timestamp { at: Some(at), .. } => {
                GpuOp::Timestamp { addr: Some(self.gpu_place(vm, at)?) }
            }
            Command::Timestamp { at: None, name } => {
                builder.result("GPU timestamp".to_owned(), None, name.clone());
                GpuOp::Timestamp { addr: None }
            }
            Command::Loop { times, body } => {
                let times = self.value(times)?;
                let Ok(times) = u32::try_from(times) else {
                    return self.broken("a loop of more than 2^32 rounds");
                };
                let body: Done<Vec<GpuOp>> =
                    body.iter().map(|command| self.command(vm, command, builder)).collect();
                GpuOp::Loop { times, body: body? }
            }
        })
    }

    /// A batch as the oracle and the device take it.
    fn batch(
        &mut self,
        vm: &VmObject,
        batch: &Batch,
        number: usize,
    ) -> Done<(oracle::Batch, Vec<Read>)> {
        match batch {
            Batch::Program(commands) => {
                let (program, origins, reads) = self.program(vm, commands, number)?;
                Ok((oracle::Batch::placed(program, origins), reads))
            }
            Batch::At { at, size } => {
                let (addr, bytes) = (self.gpu_place(vm, at)?, self.value(size)?);
                let program = self.program_at(vm, addr);
                let ops = program.as_ref().map_or(0, |program| program.ops.len());
                let origins = vec![self.origin; ops];
                Ok((oracle::Batch { program, origins, at: Some((addr, bytes)) }, Vec::new()))
            }
        }
    }

    /// The program that a `cpu.program` step put where an address leads.
    fn program_at(&self, vm: &VmObject, addr: u64) -> Option<Program> {
        let place = {
            let model = self.stage.model();
            let (.., mapped) = model.layout(vm.space).mappings(addr, addr + 1).next()?;
            match (mapped.object, mapped.mirror) {
                (Some((object, shift)), _) => (object, addr.wrapping_add(shift)),
                (None, Some(mm)) => model.mapped_at(mm, addr)?,
                (None, None) => return None,
            }
        };
        let programs = self.stage.programs.lock().unwrap_or_else(|p| p.into_inner());
        programs.get(&place).cloned()
    }

    /// Writes a program's encoding into memory by the CPU.
    pub(super) fn cpu_program(
        &mut self,
        step: &Step,
        at: &Place,
        body: &[Command],
    ) -> Done<Answer> {
        let (memory, offset) = self.cpu_place(at)?;
        let client = self.client(step)?;
        let own = client.name.clone();
        let vm = self.vm(&own, memory.home.as_ref().map(|(vm, _)| vm.as_str()))?;
        let (program, ..) = self.program(&vm, body, 0)?;
        let bytes = match client.handle.encode(&program) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error.errno)),
        };
        let view = self.view_or_fail(&memory)?;
        if offset.saturating_add(bytes.len() as u64) > memory.size {
            return self.broken("the program is larger than the memory behind its place");
        }
        let (object, offset_there) = self.behind(&memory, offset);
        let range = (offset_there, offset_there + bytes.len() as u64);
        let source = oracle::Source::bytes(&bytes, offset_there);
        self.stage.model().cpu_write(self.line, object, range, source, self.origin);
        let done = self.timed("cpu.program", || view.write(offset, &bytes));
        let mut programs = self.stage.programs.lock().unwrap_or_else(|p| p.into_inner());
        programs.insert((object, offset_there), program);
        Ok(done.map_err(|error| error.errno))
    }

    // ---- syncs -----------------------------------------------------------------------------

    /// The vocabulary's and the oracle's names of a point.
    pub(super) fn point(&mut self, point: &Point) -> Done<(dev::Syncobj, oracle::Point)> {
        let syncobj = self.syncobj(&point.syncobj)?;
        let value = match &point.value {
            Some(value) => self.value(value)?,
            None => 0,
        };
        Ok((syncobj.handle, (syncobj.id, value)))
    }

    /// Syncs of a call: waits and signals for the vocabulary and for the oracle; user fences are
    /// given to `user`, which says where they are.
    pub(super) fn syncs(
        &mut self,
        wait: &[Fence],
        signal: &[Fence],
        user: &mut dyn FnMut(&mut Self, &Place, u64) -> Done<u64>,
    ) -> Done<Syncs> {
        let mut syncs = Syncs::default();
        for (fences, is_signal) in [(wait, false), (signal, true)] {
            for fence in fences {
                let fence = match fence {
                    Fence::Syncobj(point) => {
                        let (handle, known) = self.point(point)?;
                        let list = if is_signal { &mut syncs.signal } else { &mut syncs.wait };
                        list.push(known);
                        match &point.value {
                            Some(_) => dev::Fence::Timeline(handle, known.1),
                            None => dev::Fence::Binary(handle),
                        }
                    }
                    Fence::User { at, value } => {
                        let value = self.value(value)?;
                        let addr = user(self, at, value)?;
                        dev::Fence::User { addr, value }
                    }
                };
                syncs.points.push(dev::SyncPoint { fence, signal: is_signal });
            }
        }
        Ok(syncs)
    }

    // ---- submitting ------------------------------------------------------------------------

    pub(super) fn submit(&mut self, step: &Step, submit: &Submit) -> Done<Answer> {
        let (queue, vm) = self.exec_queue(step, submit.queue.as_deref())?;
        let mut batches = Vec::new();
        let mut reads = Vec::new();
        for (number, batch) in submit.batches.iter().enumerate() {
            let (batch, read) = self.batch(&vm, batch, number)?;
            batches.push(batch);
            reads.extend(read);
        }
        let mut user_fence = None;
        let in_vm = Arc::clone(&vm);
        let syncs = self.syncs(&submit.wait, &submit.signal, &mut |actor, at, value| {
            let addr = actor.gpu_place(&in_vm, at)?;
            user_fence = Some((addr, value));
            Ok(addr)
        })?;
        let job = match self.submit_batches(&queue, &vm, &batches, &syncs, user_fence)? {
            Ok((id, number, submission, started)) => JobObject {
                id,
                queue,
                number,
                submission,
                reads,
                origin: self.origin,
                started,
                finished: AtomicBool::new(false),
            },
            Err(errno) => return Ok(Err(errno)),
        };
        let job = Arc::new(job);
        if let Some(name) = &submit.name {
            put_job(self, name, &job);
        }
        match &submit.finish {
            Some(end) => self.finish_job(&job, end, submit.timeout),
            None => {
                self.open_jobs.push(job);
                Ok(Ok(()))
            }
        }
    }

    /// Submits batches, with the oracle told before and after.
    pub(super) fn submit_batches(
        &mut self,
        queue: &Arc<QueueObject>,
        vm: &VmObject,
        batches: &[oracle::Batch],
        syncs: &Syncs,
        user_fence: Option<(u64, u64)>,
    ) -> Done<Result<Submitted, Errno>> {
        let client = self.client_named(&queue.client)?;
        let request = SubmitRequest {
            space: vm.space,
            queue: queue.number,
            batches,
            wait: &syncs.wait,
            signal: &syncs.signal,
            user_fence,
            origin: self.origin,
        };
        let stage = self.stage;
        let id = stage.model().submit_begin(self.line, &request);
        let work = batches.iter().map(work).collect();
        let call = SubmitCall { queue: queue.queue, work, syncs: syncs.points.clone() };
        let started = Instant::now();
        let submitted = self.timed("exec.submit", || client.handle.submit(&call));
        stage.model().submit_end(id, submitted.is_ok());
        let submission = match submitted {
            Ok(submission) => submission,
            Err(error) => return Ok(Err(error.errno)),
        };
        let number = queue.submitted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut users = queue.users.lock().unwrap_or_else(|p| p.into_inner());
        if !users.contains(&self.line) {
            users.push(self.line);
        }
        Ok(Ok((id, number, submission, started)))
    }

    // ---- finishing -------------------------------------------------------------------------

    pub(super) fn finish(&mut self, finish: &Finish) -> Done<Answer> {
        let Some(job) = find(&self.stage.names.jobs, &finish.job) else {
            return self.broken(&format!("no submission is called {}", finish.job));
        };
        self.open_jobs.retain(|open| open.id != job.id);
        self.finish_job(&job, &finish.end, finish.timeout)
    }

    fn finish_job(
        &mut self,
        job: &Arc<JobObject>,
        end: &JobEnd,
        timeout: Duration,
    ) -> Done<Answer> {
        let completion = match job.submission.wait(timeout) {
            Ok(completion) => completion,
            Err(_) if self.is_killed() => {
                self.cut(job)?;
                return Err(Stop::Exit);
            }
            Err(error) => {
                self.open_jobs.push(Arc::clone(job));
                return Ok(Err(error.errno));
            }
        };
        let (seen, fault) = self.job_end(job, &completion)?;
        self.finished(job, seen, &completion)?;
        self.judge_end(end, &completion, fault)?;
        if completion.outcome == Outcome::Finished {
            self.check_reads(job, &completion)?;
        }
        Ok(Ok(()))
    }

    /// A submission that no step waits for has to end in some way that can be explained.
    pub(super) fn finish_any(&mut self, job: &Arc<JobObject>) -> Done {
        if job.is_lost() || self.is_killed() {
            return self.cut(job);
        }
        self.origin = job.origin;
        match job.submission.wait(LAST_WAIT) {
            Ok(completion) => {
                let (seen, _) = self.job_end(job, &completion)?;
                self.finished(job, seen, &completion)?;
                if completion.outcome == Outcome::Finished {
                    self.check_reads(job, &completion)?;
                }
                Ok(())
            }
            Err(_) if job.is_lost() || self.is_killed() => self.cut(job),
            Err(error) => {
                let what = "submission that no step waits for";
                self.fail(
                    what,
                    &format!("to end within {} s", LAST_WAIT.as_secs()),
                    &error.to_string(),
                )
            }
        }
    }

    /// Nobody will tell how a submission ended.
    fn cut(&mut self, job: &Arc<JobObject>) -> Done {
        job.finished.store(true, Ordering::SeqCst);
        let wrong = self.stage.model().finished(self.line, job.id, End::Cut, Vec::new());
        debug_assert!(wrong.is_empty(), "a submission cut off promises nothing");
        Ok(())
    }

    /// How a submission ended, as the oracle counts it, and its fault if it had one.
    pub(super) fn job_end(
        &mut self,
        job: &JobObject,
        completion: &dev::Completion,
    ) -> Done<(End, Option<dev::Fault>)> {
        if completion.outcome == Outcome::Finished {
            return Ok((End::Finished, None));
        }
        if !self.stage.device.caps().has("fault_report") {
            return Ok((End::Cut, None));
        }
        let Some(vm) = find(&self.stage.names.vms, &job.queue.vm) else {
            return Ok((End::Cut, None));
        };
        let client = self.client_named(&vm.client)?;
        let log = match self.timed("vm.faults", || client.handle.faults(vm.vm, false)) {
            Ok(log) => log,
            Err(error) => return self.fail("fault report", "success", &error.to_string()),
        };
        let alone = job.queue.users.lock().unwrap_or_else(|p| p.into_inner()).len() <= 1;
        // A queue is banned by its first fault, so that it has one at most; of a destroyed queue
        // whose number came back there may be older ones.
        let fault =
            log.faults.iter().rev().find(|fault| {
                fault.queue == job.queue.queue && (!alone || fault.job == job.number)
            });
        Ok(match fault {
            Some(fault) => (End::Fault(*fault), Some(*fault)),
            None => (End::Cut, None),
        })
    }

    /// Tells the oracle, and notes a failure if it objects.
    pub(super) fn finished(
        &mut self,
        job: &JobObject,
        end: End,
        completion: &dev::Completion,
    ) -> Done {
        if job.finished.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        if end == End::Finished {
            self.took("exec.complete", job.started.elapsed());
        }
        let results = completion.results.clone();
        let wrong = self.stage.model().finished(self.line, job.id, end, results);
        match wrong.first() {
            None => Ok(()),
            Some(first) => {
                let first = first.clone();
                self.wrong_job(&first)
            }
        }
    }

    fn wrong_job(&mut self, wrong: &Wrong) -> Done {
        let stage = self.stage;
        let name = |object| stage.object_name(object);
        let words = |to, addr| super::report::translation(to, addr, &name);
        let at = |origin: Origin| vec![format!("command: {}", stage.labels.inline(origin))];
        let failure = match wrong {
            Wrong::Value { origin, addr, seen, mismatch: Some(mismatch) } => {
                let what = format!("GPU read of {seen:#x} at {addr:#x}");
                let mut failure = super::report::mismatch(&stage.labels, &name, &what, mismatch);
                failure.details.extend(at(*origin));
                failure
            }
            Wrong::Value { origin, addr, seen, mismatch: None } => Failure {
                step: None,
                what: format!("GPU read at {addr:#x}, where nothing is backed"),
                expected: "0x0".to_owned(),
                seen: format!("{seen:#x}"),
                details: at(*origin),
            },
            Wrong::Fault { fault, origin, mapped } => Failure {
                step: None,
                what: format!("fault at {:#x}", fault.addr),
                expected: mapped.map_or_else(
                    || "no fault: no command uses this address".to_owned(),
                    |to| format!("no such fault: {}", words(to, fault.addr)),
                ),
                seen: fault_text(fault),
                details: origin.map(at).unwrap_or_default(),
            },
            Wrong::NoFault { origin, addr, usage, mapped } => Failure {
                step: None,
                what: format!("GPU {usage:?} at {addr:#x}").to_lowercase().replace("gpu", "GPU"),
                expected: format!("a fault: {}", words(*mapped, *addr)),
                seen: "the submission ran to its end".to_owned(),
                details: at(*origin),
            },
        };
        self.fail_with(failure)
    }

    /// Whether a submission ended as the step says.
    pub(super) fn judge_end(
        &mut self,
        end: &JobEnd,
        completion: &dev::Completion,
        fault: Option<dev::Fault>,
    ) -> Done {
        let finished = completion.outcome == Outcome::Finished;
        let seen = match &fault {
            _ if finished => "it ran to its end".to_owned(),
            Some(fault) => fault_text(fault),
            None => "it was cut off without a fault".to_owned(),
        };
        let what = "end of the submission";
        match (end, finished, fault) {
            (JobEnd::Complete, true, _) | (JobEnd::TimedOut | JobEnd::Cancelled, false, None) => {
                Ok(())
            }
            (JobEnd::Fault(expect), false, Some(fault)) => self.judge_fault(expect, &fault),
            (JobEnd::Complete, ..) => self.fail(what, "all commands done", &seen),
            (JobEnd::Fault(_), ..) => self.fail(what, "a fault", &seen),
            (JobEnd::TimedOut, ..) => self.fail(what, "a time-out", &seen),
            (JobEnd::Cancelled, ..) => self.fail(what, "cancelled", &seen),
        }
    }

    /// Compares a fault with what is expected of it.
    pub(super) fn judge_fault(&mut self, expect: &FaultExpect, fault: &dev::Fault) -> Done {
        let mut expected = Vec::new();
        let mut right = true;
        if let Some(place) = &expect.at {
            let addr = self.fault_place(place)?;
            right &= addr == fault.addr;
            expected.push(format!("at {addr:#x}"));
        }
        if let Some(access) = expect.access {
            right &= access_of(access) == fault.access;
            expected.push(format!("access {access:?}"));
        }
        if let Some(kind) = expect.kind {
            right &= kind_of(kind) == fault.kind;
            expected.push(format!("kind {kind:?}"));
        }
        if right {
            return Ok(());
        }
        self.fail("fault", &expected.join(", "), &fault_text(fault))
    }

    fn fault_place(&mut self, place: &Place) -> Done<u64> {
        match place {
            Place::Address(addr) => self.value(addr),
            Place::Memory { name, offset } => {
                let offset = self.value(offset)?;
                let memory = self.memory(name)?;
                if let Some(area) = &memory.area {
                    return Ok(area.addr.wrapping_add(offset));
                }
                match &memory.home {
                    Some((_, addr)) => Ok(addr.wrapping_add(offset)),
                    None => self.broken(&format!("{name} has no home address")),
                }
            }
        }
    }

    /// Checks and keeps the results that the scenario looks at.
    fn check_reads(&mut self, job: &JobObject, completion: &dev::Completion) -> Done {
        for read in &job.reads {
            let (program, index) = read.index;
            let value = completion.results.get(program).and_then(|results| results.get(index));
            let Some(value) = value.copied() else {
                return self.fail(&read.what, "a result", "none");
            };
            self.keep(read.name.as_deref(), value);
            self.must(&read.what, read.check.as_ref(), value)?;
        }
        Ok(())
    }
}

/// An accepted submission: the oracle's number, that of its queue, the handle, when it was made.
pub(super) type Submitted = (oracle::JobId, u64, Box<dyn dev::Submission>, Instant);

/// Syncs of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Syncs {
    /// For the device.
    pub(super) points: Vec<dev::SyncPoint>,
    /// For the oracle.
    pub(super) wait: Vec<oracle::Point>,
    /// For the oracle.
    pub(super) signal: Vec<oracle::Point>,
}

impl Builder {
    fn result(&mut self, what: String, check: Option<Check>, name: Option<String>) {
        let index = (self.number, self.results);
        self.results += 1;
        self.reads.push(Read { index, what, check, name });
    }
}

fn put_job(actor: &Actor<'_, '_>, name: &str, job: &Arc<JobObject>) {
    let mut jobs = actor.stage.names.jobs.write().unwrap_or_else(|p| p.into_inner());
    jobs.insert(name.to_owned(), Arc::clone(job));
}

/// A batch for the device.
fn work(batch: &oracle::Batch) -> Work<'_> {
    match (batch.at, &batch.program) {
        (None, Some(program)) => Work::Program(program),
        (Some((addr, bytes)), _) => {
            Work::At { addr, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }
        }
        // Only what stands in memory may be unknown.
        (None, None) => Work::At { addr: 0, bytes: 0 },
    }
}

fn scope(system: bool) -> Scope {
    if system { Scope::System } else { Scope::Device }
}

/// A command in words.
fn op_text(op: &GpuOp) -> String {
    match op {
        GpuOp::Nop => "nop".to_owned(),
        GpuOp::Bad => "a bad command".to_owned(),
        GpuOp::Store { addr, value, .. } => format!("store {value:#x} at {addr:#x}"),
        GpuOp::StoreResult { addr, .. } => format!("store of a result at {addr:#x}"),
        GpuOp::Load { addr, .. } => format!("load at {addr:#x}"),
        GpuOp::Copy { src, dst, bytes } => format!("copy {bytes:#x} bytes {src:#x} to {dst:#x}"),
        GpuOp::Fill { addr, bytes, value, .. } => {
            format!("fill {bytes:#x} bytes at {addr:#x} with {value:#x}")
        }
        GpuOp::Atomic { addr, op, operand, .. } => {
            format!("atomic {op:?} {operand:#x} at {addr:#x}")
        }
        GpuOp::Fence { .. } => "fence".to_owned(),
        GpuOp::SemaphoreWait { addr, value, .. } => format!("wait for {value:#x} at {addr:#x}"),
        GpuOp::SemaphoreRelease { addr, value, .. } => format!("release {value:#x} at {addr:#x}"),
        GpuOp::Timestamp { .. } => "timestamp".to_owned(),
        GpuOp::Loop { times, body } => {
            let body: Vec<String> = body.iter().map(op_text).collect();
            format!("{times} times: {}", body.join("; "))
        }
    }
}

/// A fault in words.
pub(super) fn fault_text(fault: &dev::Fault) -> String {
    let dev::Fault { addr, access, kind, job, .. } = fault;
    format!("a fault of kind {kind:?} by access {access:?} at {addr:#x} in job {job} of its queue")
}

fn access_of(access: FaultAccess) -> dev::FaultAccess {
    match access {
        FaultAccess::Read => dev::FaultAccess::Read,
        FaultAccess::Write => dev::FaultAccess::Write,
        FaultAccess::Atomic => dev::FaultAccess::Atomic,
        FaultAccess::Fetch => dev::FaultAccess::Fetch,
    }
}

fn kind_of(kind: FaultKind) -> dev::FaultKind {
    match kind {
        FaultKind::NotPresent => dev::FaultKind::NotPresent,
        FaultKind::Permission => dev::FaultKind::Permission,
        FaultKind::Address => dev::FaultKind::Address,
        FaultKind::Bus => dev::FaultKind::Bus,
        FaultKind::Command => dev::FaultKind::Command,
    }
}
