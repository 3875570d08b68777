//! The oracle's front: everything that a test does, told to the model in the order in which the
//! actors do it. Owns timelines, lanes of queues, fences and pending work; memory and addresses are
//! in their modules.
//!
//! What the CPU does to its own addresses is in [`cpu`].
//!
//! Calls to the device come in pairs: `*_begin` before it is made, `*_end` with its answer.

use super::atomics::{Reach, Rmw, Values};
use super::clock::{Clock, Clocks, Event, Segment, Timeline};
use super::fences::{Attaching, Fence, Moment, Syncobj};
use super::jobs::{End, Job, World, Wrong};
use super::memory::{Grain, Memory, Mismatch, Origin, What, Write};
use super::mm::{Mm, Nature, Stays};
use super::program;
use super::space::{Call, Op, Plan, Space};
use super::value::{Object, Source};
use fencepost_fixtures::Errno;
use fencepost_fixtures::device::{AtomicOp, Program, Width};
use std::collections::BTreeMap;

mod cpu;

pub use cpu::{CpuWrite, Denied, Discard};

/// A VM.
pub type SpaceId = usize;
/// A syncobj.
pub type SyncId = usize;
/// A submission.
pub type JobId = u64;
/// A bind call in flight.
pub type BindId = u64;

/// A syncobj with a timeline point, 0 for its binary payload.
pub type Point = (SyncId, u64);

/// A batch of a submission.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What it does; none: nobody knows.
    pub program: Option<Program>,
    /// The step of each of its operations.
    pub origins: Vec<Origin>,
    /// GPU address and length, if it stands in memory of the scenario.
    pub at: Option<(u64, u64)>,
}

impl Batch {
    /// A program that the adapter places.
    #[must_use]
    pub fn placed(program: Program, origins: Vec<Origin>) -> Self {
        Self { program: Some(program), origins, at: None }
    }
}

/// A submission, as it is about to be made.
#[derive(Clone, Debug)]
pub struct SubmitRequest<'a> {
    /// The VM of its queue.
    pub space: SpaceId,
    /// The queue.
    pub queue: u32,
    /// What runs, in order.
    pub batches: &'a [Batch],
    /// Waited for.
    pub wait: &'a [Point],
    /// Signalled.
    pub signal: &'a [Point],
    /// A user fence: GPU address and value.
    pub user_fence: Option<(u64, u64)>,
    /// The step.
    pub origin: Origin,
}

/// A bind call, as it is about to be made.
#[derive(Clone, Debug)]
pub struct BindRequest<'a> {
    /// The VM.
    pub space: SpaceId,
    /// The bind queue, one of the VM's own for its default.
    pub queue: u32,
    /// It returns before the page tables are written.
    pub is_async: bool,
    /// Operations.
    pub ops: &'a [Op],
    /// Waited for.
    pub wait: &'a [Point],
    /// Signalled.
    pub signal: &'a [Point],
    /// A user fence in CPU memory: object, offset and value.
    pub user_fence: Option<(Object, u64, u64)>,
    /// The step.
    pub origin: Origin,
}

/// What the model says of a bind call's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindAnswer {
    /// It had to succeed, or fail for want of something.
    Accept,
    /// It had to be refused with this errno.
    Refuse(Errno),
    /// Others were at work on the same addresses.
    Unknown,
}

/// A queue as several actors use it: each has a lane of its own, in order; lanes are ordered only
/// where one submission returned before the next was made.
#[derive(Debug, Default)]
struct Lanes {
    lines: BTreeMap<Timeline, Timeline>,
    /// End of the last submission of each lane that returned.
    ends: BTreeMap<Timeline, Event>,
}

#[derive(Debug)]
struct PendingCall {
    space: SpaceId,
    lane: (u32, Timeline),
    start: Segment,
    end: Event,
    begun: Moment,
    wait: Vec<Point>,
    attaching: Vec<(SyncId, Attaching)>,
    detail: Detail,
}

#[derive(Debug)]
enum Detail {
    Submit {
        job: JobId,
    },
    Bind {
        call: Option<Call>,
        refusal: Option<Errno>,
        is_async: bool,
        user_fence: Option<UserFence>,
    },
}

#[derive(Clone, Copy, Debug)]
struct UserFence {
    object: Object,
    offset: u64,
    write_at: Event,
}

/// Everything that is known of a test.
#[derive(Debug, Default)]
pub struct Model {
    clocks: Clocks,
    memory: Memory,
    spaces: Vec<Space>,
    mms: Vec<Mm>,
    natures: BTreeMap<Object, Nature>,
    stays: Stays,
    syncobjs: Vec<Syncobj>,
    lanes: BTreeMap<u32, Lanes>,
    actors: Vec<Timeline>,
    jobs: BTreeMap<JobId, Job>,
    calls: BTreeMap<u64, PendingCall>,
    next: u64,
    now: Moment,
    horizon: Clock,
    age: u32,
}

/// How many writes are recorded between two looks at what everybody knows.
const HORIZON_AGE: u32 = 32;

impl Model {
    /// Nothing, and the first actor, which is running.
    #[must_use]
    pub fn new() -> (Self, Timeline) {
        let mut model = Self::default();
        let main = model.clocks.timeline();
        model.clocks.tick(main);
        model.actors.push(main);
        (model, main)
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    // ---- actors ----------------------------------------------------------------------------

    /// A new actor that knows what `parent` knows.
    pub fn start(&mut self, parent: Timeline) -> Timeline {
        let line = self.clocks.timeline();
        let known = self.clocks.tick(parent);
        self.clocks.acquire(line, &[known]);
        self.actors.push(line);
        line
    }

    /// `parent` waits for the end of actors and does nothing meanwhile.
    pub fn pause(&mut self, parent: Timeline) {
        self.actors.retain(|line| *line != parent);
        self.refresh();
    }

    /// `parent` goes on and knows what the ended actors knew.
    pub fn join(&mut self, parent: Timeline, ended: &[Timeline]) {
        let events: Vec<Event> = ended.iter().map(|line| self.clocks.now(*line)).collect();
        self.clocks.acquire(parent, &events);
        self.actors.retain(|line| !ended.contains(line) && *line != parent);
        self.actors.push(parent);
        self.refresh();
    }

    /// An actor comes to a barrier; what it gives goes to [`Self::leave`] of all who met there.
    pub fn arrive(&mut self, actor: Timeline) -> Event {
        self.clocks.tick(actor)
    }

    /// An actor leaves a barrier at which these had arrived.
    pub fn leave(&mut self, actor: Timeline, arrived: &[Event]) {
        let others: Vec<Event> =
            arrived.iter().filter(|event| event.timeline != actor).copied().collect();
        self.clocks.acquire(actor, &others);
        self.refresh();
    }

    /// What everybody knows is found out anew.
    fn refresh(&mut self) {
        self.age = 0;
        let mut known: Option<Clock> = None;
        let mut meet = |clock: Clock| match &mut known {
            None => known = Some(clock),
            Some(known) => known.meet(&clock),
        };
        for line in &self.actors {
            meet(self.clocks.at(self.clocks.now(*line)));
        }
        for job in self.jobs.values() {
            meet(self.clocks.of(job.start).clone());
        }
        self.horizon = known.unwrap_or_default();
    }

    fn grow_old(&mut self) {
        self.age += 1;
        if self.age >= HORIZON_AGE {
            self.refresh();
        }
    }

    // ---- memory ----------------------------------------------------------------------------

    /// A new object.
    pub fn create(
        &mut self,
        actor: Timeline,
        size: u64,
        content: Source,
        origin: Origin,
    ) -> Object {
        let at = self.clocks.tick(actor);
        self.memory.create(size, content, at, origin)
    }

    /// Size of an object.
    #[must_use]
    pub fn size(&self, object: Object) -> u64 {
        self.memory.size(object)
    }

    /// The CPU is about to write.
    pub fn cpu_write(
        &mut self,
        actor: Timeline,
        object: Object,
        (start, end): (u64, u64),
        source: Source,
        origin: Origin,
    ) {
        let at = self.clocks.tick(actor);
        let what = What::Store(source);
        let write = Write { at, origin, certain: true, release: true, what };
        self.grow_old();
        self.memory.write(&self.clocks, &self.horizon, object, (start, end), &write);
    }

    /// The CPU is about to do an atomic. What it gives goes to [`Self::cpu_atomic_end`].
    pub fn cpu_atomic(
        &mut self,
        actor: Timeline,
        object: Object,
        offset: u64,
        width: Width,
        (op, operand): (AtomicOp, u64),
        origin: Origin,
    ) -> Event {
        let at = self.clocks.tick(actor);
        let what = What::Rmw(Rmw { op, operand, width, times: 1, reach: Reach::Cpu });
        let write = Write { at, origin, certain: true, release: true, what };
        self.grow_old();
        let range = (offset, offset + width.bytes());
        self.memory.write(&self.clocks, &self.horizon, object, range, &write);
        at
    }

    /// The CPU's atomic gave an old value.
    ///
    /// # Errors
    /// The value is not allowed.
    pub fn cpu_atomic_end(
        &self,
        object: Object,
        offset: u64,
        width: Width,
        at: Event,
        old: u64,
    ) -> Result<(), Box<Mismatch>> {
        let bytes = &old.to_le_bytes()[..width.bytes() as usize];
        self.memory.check(&self.clocks, object, offset, bytes, at, Grain::Word)
    }

    /// The CPU has read.
    ///
    /// # Errors
    /// What it saw is not allowed.
    pub fn cpu_read(
        &mut self,
        actor: Timeline,
        object: Object,
        offset: u64,
        seen: &[u8],
        grain: Grain,
    ) -> Result<(), Box<Mismatch>> {
        let at = self.clocks.tick(actor);
        self.memory.check(&self.clocks, object, offset, seen, at, grain)
    }

    /// The CPU has waited, with acquire ordering, until a word was `seen`.
    ///
    /// # Errors
    /// What it saw is not allowed.
    pub fn cpu_acquire(
        &mut self,
        actor: Timeline,
        object: Object,
        offset: u64,
        width: Width,
        seen: u64,
    ) -> Result<(), Box<Mismatch>> {
        let bytes = &seen.to_le_bytes()[..width.bytes() as usize];
        let at = self.clocks.tick(actor);
        self.memory.check(&self.clocks, object, offset, bytes, at, Grain::Word)?;
        let is_it = |word: u64| word == width.mask(seen);
        let learnt = self.memory.acquired(&self.clocks, object, offset, width.bytes(), at, &is_it);
        self.acquire(actor, learnt);
        Ok(())
    }

    /// What a word holds for an actor now, if that is one value.
    #[must_use]
    pub fn content(&mut self, actor: Timeline, object: Object, offset: u64, width: u64) -> Values {
        let at = self.clocks.tick(actor);
        self.memory.words(&self.clocks, object, offset, width, at)
    }

    // ---- syncobjs --------------------------------------------------------------------------

    /// A new syncobj.
    pub fn syncobj(&mut self, actor: Timeline, signalled: bool) -> SyncId {
        let mut syncobj = Syncobj::default();
        if signalled {
            let fence = vec![self.clocks.tick(actor)];
            let (begin, end) = (self.tick(), self.tick());
            let attaching = syncobj.attach(0, fence, begin);
            syncobj.attached(attaching, true, end);
        }
        self.syncobjs.push(syncobj);
        self.syncobjs.len() - 1
    }

    /// A call begins that looks at syncobjs: gives the moment for its end.
    pub fn look(&mut self) -> Moment {
        self.tick()
    }

    /// The actor has waited since `begun` until these points were signalled.
    pub fn waited(&mut self, actor: Timeline, points: &[Point], begun: Moment) {
        let now = self.tick();
        let learnt = self.learnt(points, begun, now);
        // Semaphores of jobs that are over by what was learnt may tell more.
        if self.settle_semaphores(&learnt) {
            let learnt = self.learnt(points, begun, now);
            self.acquire(actor, learnt);
        } else {
            self.acquire(actor, learnt);
        }
    }

    fn learnt(&self, points: &[Point], begun: Moment, now: Moment) -> Clock {
        let mut learnt = Clock::default();
        for (syncobj, point) in points {
            learnt.join(&self.syncobjs[*syncobj].learnt(&self.clocks, *point, begun, now));
        }
        learnt
    }

    fn acquire(&mut self, actor: Timeline, learnt: Clock) {
        self.clocks.acquire_clock(actor, &learnt);
        self.refresh();
    }

    /// A CPU signal or a transfer is about to put a fence into a syncobj.
    pub fn attach_begin(&mut self, point: Point, fence: Fence) -> (SyncId, Attaching) {
        let now = self.tick();
        (point.0, self.syncobjs[point.0].attach(point.1, fence, now))
    }

    /// A reset is about to be made.
    pub fn reset_begin(&mut self, syncobj: SyncId) -> (SyncId, Attaching) {
        let now = self.tick();
        (syncobj, self.syncobjs[syncobj].reset(now))
    }

    /// The call that attaches returned.
    pub fn attach_end(&mut self, attaching: (SyncId, Attaching), done: bool) {
        let now = self.tick();
        self.syncobjs[attaching.0].attached(attaching.1, done, now);
    }

    /// The actor's present, as a fence that it signals now.
    pub fn signal(&mut self, actor: Timeline) -> Fence {
        vec![self.clocks.tick(actor)]
    }

    /// The fence that a call begun then took from a syncobj.
    #[must_use]
    pub fn fence(&mut self, point: Point, begun: Moment) -> Fence {
        let now = self.tick();
        self.syncobjs[point.0].fence(point.1, begun, now)
    }

    /// The actor knows that a fence (of a sync file) is signalled.
    pub fn waited_fence(&mut self, actor: Timeline, fence: &Fence) {
        let learnt = self.clocks.common(fence);
        self.settle_semaphores(&learnt);
        let learnt = self.clocks.common(fence);
        self.acquire(actor, learnt);
    }

    /// Bounds of a timeline's value for an actor who asked since `begun`.
    pub fn timeline_bounds(
        &mut self,
        actor: Timeline,
        syncobj: SyncId,
        begun: Moment,
    ) -> (u64, u64) {
        let now = self.tick();
        let at = self.clocks.tick(actor);
        self.syncobjs[syncobj].bounds(&self.clocks, at, begun, now)
    }

    // ---- address spaces --------------------------------------------------------------------

    /// A new VM of addresses [`start`, `end`) with a hole (start, end).
    pub fn space(
        &mut self,
        actor: Timeline,
        (start, end): (u64, u64),
        hole: Option<(u64, u64)>,
    ) -> SpaceId {
        let at = self.clocks.tick(actor);
        self.spaces.push(Space::new(start, end, hole, at));
        self.spaces.len() - 1
    }

    /// The layout of a VM.
    #[must_use]
    pub fn layout(&self, space: SpaceId) -> &Space {
        &self.spaces[space]
    }

    /// A bind call is about to be made.
    pub fn bind_begin(&mut self, actor: Timeline, request: &BindRequest<'_>) -> BindId {
        let (lane, start) = self.enter_lane(actor, request.queue);
        let events: Vec<Event> = request.ops.iter().map(|_| self.clocks.tick(lane)).collect();
        let user_fence =
            request.user_fence.map(|fence| self.bind_fence(lane, fence, request.origin));
        let end = self.clocks.tick(lane);
        let memory = &self.memory;
        let sizes = |object| memory.size(object);
        let plan = self.spaces[request.space].plan(request.ops, &sizes);
        let call = plan.refusal.is_none().then(|| {
            let call = self.spaces[request.space].begin(&plan, request.ops, &events);
            self.meet_pending(request.space, &plan, &events, end);
            call
        });
        let refusal = plan.refusal;
        let detail = Detail::Bind { call, refusal, is_async: request.is_async, user_fence };
        let (wait, signal) = (request.wait, request.signal);
        self.begin_call(request.space, (request.queue, actor), (start, end), wait, signal, detail)
    }

    fn bind_fence(
        &mut self,
        lane: Timeline,
        (object, offset, value): (Object, u64, u64),
        origin: Origin,
    ) -> UserFence {
        let write_at = self.clocks.tick(lane);
        let what = What::Store(Source::repeat(value, 8, offset));
        let write = Write { at: write_at, origin, certain: false, release: true, what };
        self.memory.write(&self.clocks, &self.horizon, object, (offset, offset + 8), &write);
        UserFence { object, offset, write_at }
    }

    /// Jobs in flight may see the new translations: their accesses are looked at again.
    fn meet_pending(&mut self, space: SpaceId, plan: &Plan, events: &[Event], end: Event) {
        let first = events.first().copied().unwrap_or(end);
        self.meet_jobs(&|of| of == space, &plan.touched, first);
    }

    /// As that, for jobs of several VMs.
    fn meet_jobs(&mut self, spaces: &dyn Fn(SpaceId) -> bool, touched: &[(u64, u64)], at: Event) {
        let met: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| spaces(job.space))
            .filter(|(_, job)| job.may_meet(&self.clocks, touched, at))
            .map(|(id, _)| *id)
            .collect();
        met.into_iter().for_each(|id| self.apply(id));
    }

    /// The bind call returned: gives what it had to answer.
    pub fn bind_end(&mut self, actor: Timeline, bind: BindId, done: bool) -> BindAnswer {
        let Some(call) = self.end_call(bind, done) else { return BindAnswer::Unknown };
        let Detail::Bind { call: mapped, refusal, is_async, user_fence } = call.detail else {
            return BindAnswer::Unknown;
        };
        let mut contested = false;
        if let Some(mapped) = mapped {
            let space = &mut self.spaces[call.space];
            contested = space.end(mapped, done, &self.clocks, &self.horizon);
        }
        if let Some(fence) = user_fence {
            let range = (fence.offset, fence.offset + 8);
            self.memory.confirm(fence.object, range, fence.write_at, done);
        }
        if done && !is_async {
            self.clocks.acquire(actor, &[call.end]);
            self.refresh();
        }
        match refusal {
            _ if contested => BindAnswer::Unknown,
            Some(errno) => BindAnswer::Refuse(errno),
            None => BindAnswer::Accept,
        }
    }

    // ---- jobs ------------------------------------------------------------------------------

    /// The lane of an actor on a queue, with a segment of its own for what is now submitted.
    fn enter_lane(&mut self, actor: Timeline, queue: u32) -> (Timeline, Segment) {
        let known = self.clocks.tick(actor);
        let lanes = self.lanes.entry(queue).or_default();
        let clocks = &mut self.clocks;
        let lane = *lanes.lines.entry(actor).or_insert_with(|| clocks.timeline());
        let mut before: Vec<Event> = lanes.ends.values().copied().collect();
        before.push(known);
        clocks.acquire(lane, &before);
        let start = clocks.fork(lane);
        (lane, start)
    }

    fn begin_call(
        &mut self,
        space: SpaceId,
        lane: (u32, Timeline),
        (start, end): (Segment, Event),
        wait: &[Point],
        signal: &[Point],
        detail: Detail,
    ) -> u64 {
        let begun = self.tick();
        let attach = |(syncobj, point): &Point| {
            (*syncobj, self.syncobjs[*syncobj].attach(*point, vec![end], begun))
        };
        let attaching = signal.iter().map(attach).collect();
        let wait = wait.to_vec();
        let call = PendingCall { space, lane, start, end, begun, wait, attaching, detail };
        self.next += 1;
        self.calls.insert(self.next, call);
        self.next
    }

    fn end_call(&mut self, id: u64, done: bool) -> Option<PendingCall> {
        let call = self.calls.remove(&id)?;
        let now = self.tick();
        for (syncobj, attaching) in &call.attaching {
            self.syncobjs[*syncobj].attached(*attaching, done, now);
        }
        if done {
            let mut learnt = Clock::default();
            for (syncobj, point) in &call.wait {
                let wait = self.syncobjs[*syncobj].learnt(&self.clocks, *point, call.begun, now);
                learnt.join(&wait);
            }
            self.clocks.learn(call.start, &learnt);
            let (queue, actor) = call.lane;
            self.lanes.entry(queue).or_default().ends.insert(actor, call.end);
        }
        Some(call)
    }

    /// A submission is about to be made.
    pub fn submit_begin(&mut self, actor: Timeline, request: &SubmitRequest<'_>) -> JobId {
        let (lane, start) = self.enter_lane(actor, request.queue);
        let mut accesses = Vec::new();
        for (number, batch) in request.batches.iter().enumerate() {
            let Batch { program, origins, at } = batch;
            if let Some((addr, bytes)) = *at {
                let at = self.clocks.tick(lane);
                let kind = program::Kind::Fetch { addr, bytes };
                accesses.push(program::Access { at, origin: request.origin, kind });
            }
            match program {
                Some(program) => {
                    let clocks = &mut self.clocks;
                    accesses.extend(program::expand(clocks, lane, number, program, origins));
                }
                None => {
                    let (at, origin) = (self.clocks.tick(lane), request.origin);
                    accesses.push(program::Access { at, origin, kind: program::Kind::Opaque });
                }
            }
        }
        if let Some((addr, value)) = request.user_fence {
            let at = self.clocks.tick(lane);
            let value = program::Stored::Value(value);
            let kind = program::Kind::Store { addr, width: Width::U64, value, release: true };
            accesses.push(program::Access { at, origin: request.origin, kind });
        }
        let end = self.clocks.tick(lane);
        let id = self.next + 1;
        let detail = Detail::Submit { job: id };
        let (wait, signal) = (request.wait, request.signal);
        let lane = (request.queue, actor);
        let call = self.begin_call(request.space, lane, (start, end), wait, signal, detail);
        debug_assert_eq!(call, id, "a submission's call and job share a number");
        self.jobs.insert(id, Job::new(request.space, accesses, start, end));
        self.refresh();
        self.apply(id);
        self.may_move_by(id);
        id
    }

    /// The submission returned.
    pub fn submit_end(&mut self, job: JobId, done: bool) {
        let Some(call) = self.end_call(job, done) else { return };
        if !done {
            if let Some(mut gone) = self.jobs.remove(&job) {
                gone.retract(&mut self.memory);
            }
            self.refresh();
        } else if !call.wait.is_empty() {
            // Its in-fences are known now: more of what it does is certain.
            self.apply(job);
        }
        debug_assert!(matches!(call.detail, Detail::Submit { job: id } if id == job));
    }

    fn apply(&mut self, id: JobId) {
        let Some(mut job) = self.jobs.remove(&id) else { return };
        job.apply(&mut World {
            clocks: &self.clocks,
            horizon: &self.horizon,
            memory: &mut self.memory,
            space: &self.spaces[job.space],
            mms: &self.mms,
        });
        self.jobs.insert(id, job);
    }

    /// Learns from the semaphores of jobs that are over by what is known. Returns whether there was
    /// anything.
    fn settle_semaphores(&mut self, known: &Clock) -> bool {
        let mut learnt = Vec::new();
        for job in self.jobs.values().filter(|job| known.covers(job.end)) {
            let world = World {
                clocks: &self.clocks,
                horizon: &self.horizon,
                memory: &mut self.memory,
                space: &self.spaces[job.space],
                mms: &self.mms,
            };
            learnt.extend(job.semaphores(&world));
        }
        for (wait, clock) in &learnt {
            self.clocks.learn_after(*wait, clock);
        }
        !learnt.is_empty()
    }

    /// The actor knows that a submission has ended, and how. Gives what was wrong with it.
    pub fn finished(
        &mut self,
        actor: Timeline,
        id: JobId,
        end: End,
        results: Vec<Vec<u64>>,
    ) -> Vec<Wrong> {
        let Some(job) = self.jobs.get(&id) else { return Vec::new() };
        let (job_end, completed) = (job.end, end == End::Finished);
        if completed {
            let known = self.clocks.at(job_end);
            self.settle_semaphores(&known);
        }
        let Some(mut job) = self.jobs.remove(&id) else { return Vec::new() };
        let wrong = job.finish(
            &mut World {
                clocks: &self.clocks,
                horizon: &self.horizon,
                memory: &mut self.memory,
                space: &self.spaces[job.space],
                mms: &self.mms,
            },
            end,
            results,
        );
        self.clocks.acquire(actor, &[job_end]);
        self.refresh();
        wrong
    }

    /// Submissions whose end nobody has told yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.jobs.len()
    }
}
