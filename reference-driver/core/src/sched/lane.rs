//! A lane: the queues that one worker serves, each with its jobs in order.
//!
//! Owns the choice of who runs next (priority, least recently run, nobody starves), the order within
//! a queue (a job is taken only when the one before has finished) and the killing of a queue. What a
//! job does, and when it is ready, is the caller's.

use crate::facade::{AllocError, AtomicU64, Box, Fifo, Mutex, Ordering, Rank, Slab};

/// Every so many picks the queue that waited longest goes first, whatever its priority.
const FAIRNESS: u64 = 8;

/// Jobs of the queues that one worker serves.
pub struct Lane<J> {
    state: Mutex<State<J>>,
    /// Unfinished jobs, to look at without the lock.
    load: AtomicU64,
}

struct State<J> {
    entities: Slab<Entity<J>>,
    tick: u64,
}

/// One queue.
struct Entity<J> {
    jobs: Fifo<Box<J>>,
    /// Places in `jobs`, and how many of them callers were promised.
    room: usize,
    promised: usize,
    /// A job that was begun and put back.
    begun: Option<Box<J>>,
    /// A job is with the worker.
    running: bool,
    /// No job starts any more.
    killed: bool,
    priority: u32,
    last_run: u64,
    /// The job begun last time only waited.
    stalled: bool,
}

impl<J> Entity<J> {
    fn unfinished(&self) -> usize {
        self.jobs.len() + usize::from(self.begun.is_some()) + usize::from(self.running)
    }

    fn head(&self) -> Option<&J> {
        if self.running || self.killed {
            return None;
        }
        self.begun.as_ref().or_else(|| self.jobs.front()).map(|job| &**job)
    }
}

/// Names a queue in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityId(u32);

/// What became of a job that its worker gives back.
pub enum Verdict<J> {
    /// The queue keeps it and will run it further.
    Kept,
    /// The queue was killed meanwhile: the caller cancels the job.
    Killed(Box<J>),
}

impl<J> Lane<J> {
    /// No queue yet.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new() -> Result<Self, AllocError> {
        let state = State { entities: Slab::new(), tick: 0 };
        Ok(Lane { state: Mutex::new(Rank::Scheduler, state)?, load: AtomicU64::new(0) })
    }

    /// Adds a queue with room for `room` unfinished jobs.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn add(&self, priority: u32, room: usize) -> Result<EntityId, AllocError> {
        let mut jobs = Fifo::new();
        jobs.reserve(room)?;
        let entity = Entity {
            jobs,
            room,
            promised: 0,
            begun: None,
            running: false,
            killed: false,
            priority,
            last_run: 0,
            stalled: false,
        };
        Slab::insert_locked(&self.state, |state| &mut state.entities, entity).map(EntityId)
    }

    /// Promises a place for a job, so that [`Lane::submit`] cannot fail. `false`: `limit` unfinished
    /// jobs are there already.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn reserve(&self, id: EntityId, limit: usize) -> Result<bool, AllocError> {
        loop {
            let wanted = {
                let mut state = self.state.lock();
                let entity = state.entities.get_mut(id.0).expect("the queue holds its entity");
                if entity.unfinished() + entity.promised >= limit {
                    return Ok(false);
                }
                let wanted = entity.jobs.len() + entity.promised + 1;
                if wanted <= entity.room {
                    entity.promised += 1;
                    return Ok(true);
                }
                wanted * 2
            };
            // The lock is taken in the fence path: memory comes without it.
            let mut bigger = Fifo::new();
            bigger.reserve(wanted)?;
            let mut state = self.state.lock();
            let entity = state.entities.get_mut(id.0).expect("the queue holds its entity");
            if entity.room < wanted {
                while let Some(job) = entity.jobs.pop_front() {
                    let fits = bigger.push_back(job).is_ok();
                    debug_assert!(fits, "the new ring is larger");
                }
                core::mem::swap(&mut entity.jobs, &mut bigger);
                entity.room = wanted;
            }
        }
    }

    /// Gives a promised place back.
    pub fn unreserve(&self, id: EntityId) {
        if let Some(entity) = self.state.lock().entities.get_mut(id.0) {
            entity.promised -= 1;
        }
    }

    /// Appends a job in a promised place. `Err` gives it back when the queue was killed.
    pub fn submit(&self, id: EntityId, job: Box<J>) -> Result<(), Box<J>> {
        let mut state = self.state.lock();
        let Some(entity) = state.entities.get_mut(id.0) else { return Err(job) };
        entity.promised -= 1;
        if entity.killed {
            return Err(job);
        }
        let fits = entity.jobs.push_back(job).is_ok();
        debug_assert!(fits, "the place was promised");
        self.load.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a queue has no unfinished job.
    pub fn is_idle(&self, id: EntityId) -> bool {
        self.state.lock().entities.get(id.0).is_none_or(|entity| entity.unfinished() == 0)
    }

    /// Number of unfinished jobs of the whole lane.
    pub fn load(&self) -> u64 {
        self.load.load(Ordering::Relaxed)
    }

    /// Whether any head job passes the test.
    pub fn any(&self, mut ready: impl FnMut(&J) -> bool) -> bool {
        self.load() > 0
            && self.state.lock().entities.iter().any(|(_, e)| e.head().is_some_and(&mut ready))
    }

    /// Takes the head job of the queue whose turn it is, among those whose head is ready.
    pub fn pick(&self, mut ready: impl FnMut(&J) -> bool) -> Option<(EntityId, Box<J>)> {
        if self.load() == 0 {
            return None;
        }
        let mut state = self.state.lock();
        state.tick += 1;
        let tick = state.tick;
        let fair = tick % FAIRNESS == 0;
        let mut best: Option<(u32, (bool, u32, u64))> = None;
        for (id, entity) in state.entities.iter() {
            if !entity.head().is_some_and(&mut ready) {
                continue;
            }
            // Smaller is better: those that do work, high priority, least recently run.
            let key = match fair {
                true => (false, 0, entity.last_run),
                false => (entity.stalled, u32::MAX - entity.priority, entity.last_run),
            };
            if best.is_none_or(|(_, least)| key < least) {
                best = Some((id, key));
            }
        }
        let (id, _) = best?;
        let entity = state.entities.get_mut(id)?;
        entity.running = true;
        entity.last_run = tick;
        let job = entity.begun.take().or_else(|| entity.jobs.pop_front())?;
        Some((EntityId(id), job))
    }

    /// As [`Lane::pick`], but only from one queue.
    pub fn take(&self, id: EntityId, mut ready: impl FnMut(&J) -> bool) -> Option<Box<J>> {
        let mut state = self.state.lock();
        let entity = state.entities.get_mut(id.0)?;
        if !entity.head().is_some_and(&mut ready) {
            return None;
        }
        entity.running = true;
        entity.begun.take().or_else(|| entity.jobs.pop_front())
    }

    /// Whether the queue of a picked job was killed meanwhile.
    pub fn is_killed(&self, id: EntityId) -> bool {
        self.state.lock().entities.get(id.0).is_none_or(|entity| entity.killed)
    }

    /// Gives a picked job back unfinished.
    pub fn put_back(&self, id: EntityId, job: Box<J>, stalled: bool) -> Verdict<J> {
        let mut state = self.state.lock();
        let Some(entity) = state.entities.get_mut(id.0) else { return Verdict::Killed(job) };
        if entity.killed {
            return Verdict::Killed(job);
        }
        entity.running = false;
        entity.stalled = stalled;
        entity.begun = Some(job);
        Verdict::Kept
    }

    /// A picked job is done, or was cancelled after [`Verdict::Killed`].
    pub fn finish(&self, id: EntityId) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        if let Some(entity) = self.state.lock().entities.get_mut(id.0) {
            entity.running = false;
            entity.stalled = false;
        }
    }

    /// Cuts off the first waiting job for cancelling: for emptying a queue that stays (a ban). The
    /// one that is with the worker is not touched.
    pub fn cut(&self, id: EntityId) -> Option<Box<J>> {
        let mut state = self.state.lock();
        let entity = state.entities.get_mut(id.0)?;
        let job = entity.begun.take().or_else(|| entity.jobs.pop_front())?;
        self.load.fetch_sub(1, Ordering::Relaxed);
        Some(job)
    }

    /// No job of the queue starts any more. The caller then cuts off those that wait; the one with
    /// the worker is cancelled when it comes back.
    pub fn kill(&self, id: EntityId) {
        if let Some(entity) = self.state.lock().entities.get_mut(id.0) {
            entity.killed = true;
        }
    }

    /// Removes a queue without jobs; its name may be used again.
    pub fn remove(&self, id: EntityId) {
        let gone = self.state.lock().entities.remove(id.0);
        debug_assert!(gone.is_some_and(|entity| entity.unfinished() == 0), "jobs hold their queue");
    }
}

/// A lane with one queue, for work that is passed on: first in, first out.
pub struct Line<J> {
    lane: Lane<J>,
    queue: EntityId,
}

impl<J> Line<J> {
    /// An empty one with room for `room` jobs.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new(room: usize) -> Result<Self, AllocError> {
        let lane = Lane::new()?;
        let queue = lane.add(0, room)?;
        Ok(Line { lane, queue })
    }

    /// Promises a place, so that [`Line::submit`] cannot fail.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn reserve(&self) -> Result<(), AllocError> {
        self.lane.reserve(self.queue, usize::MAX).map(|_| ())
    }

    /// Gives a promised place back.
    pub fn unreserve(&self) {
        self.lane.unreserve(self.queue);
    }

    /// Appends a job in a promised place.
    pub fn submit(&self, job: Box<J>) {
        let submitted = self.lane.submit(self.queue, job);
        debug_assert!(submitted.is_ok(), "a line is not killed");
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lane.load() == 0
    }

    /// Does the first job with `work`; false if there is none.
    pub fn work(&self, work: impl FnOnce(J)) -> bool {
        let Some(job) = self.lane.take(self.queue, |_| true) else { return false };
        work(Box::into_inner(job));
        self.lane.finish(self.queue);
        true
    }
}
