//! Delay points: named places of the driver where whoever comes by can be held.
//!
//! Owns the table of points and who is held. A call is held by waiting; a worker must not wait, so
//! it leaves the job aside and asks again ([`Delays::poll`]).

use crate::facade::{AllocError, AtomicU32, Mutex, Ordering, Rank};
use crate::host::Host;

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A delay point.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($(#[doc = $doc])+ $variant,)+ }

        /// Every point: its name and what is about to happen there.
        pub const POINTS: &[(Point, &str, &str)] =
            &[$((Point::$variant, $name, concat!($($doc,)+)),)+];
    };
}
points! {
    /// A bind call has updated the address space; its job is not queued yet.
    BindPrepared = "bind.prepared",
    /// A bind job whose dependencies have signalled is about to write page tables.
    BindCommit = "bind.commit",
    /// An exec call has locked and validated its objects; its job is not queued yet.
    ExecPrepared = "exec.prepared",
    /// An engine is about to run the first command of a job.
    ExecStart = "exec.start",
    /// The work of a bind or exec job is done; its fence is about to signal.
    FenceSignal = "fence.signal",
    /// An object that is about to move was taken out of all page tables; nothing was copied yet.
    EvictUnmapped = "evict.unmapped",
    /// An object was copied to its new place; no page table points there yet.
    EvictCopied = "evict.copied",
    /// Pages of a mirror were read from the CPU's address space; they are not in the page tables yet.
    SvmRead = "svm.read",
    /// Pages of an address space were copied to their new place; nobody finds them there yet.
    SvmCopied = "svm.copied",
    /// A page is exclusive to the device, and locked; it is not in the page tables yet.
    SvmExclusive = "svm.exclusive",
}

const COUNT: usize = POINTS.len();

/// Finds a point by its name, padded with zeros.
#[must_use]
pub fn find(name: &[u8]) -> Option<Point> {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let tail_is_zero = name[end..].iter().all(|byte| *byte == 0);
    let found = POINTS.iter().find(|(_, known, _)| known.as_bytes() == &name[..end]);
    found.filter(|_| tail_is_zero).map(|(point, _, _)| *point)
}

#[derive(Clone, Copy, Default)]
struct State {
    armed: bool,
    /// Number of the open file that armed it.
    owner: u64,
    /// Tells one arming from the next.
    generation: u64,
    until_ns: u64,
    hits: u64,
    held: u64,
}

/// What a point has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Passes since it was armed.
    pub hits: u64,
    /// Held there now.
    pub held: u64,
}

/// Where a job stands with regard to one point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Has not come by.
    #[default]
    Before,
    /// Is held by this arming.
    Held(u64),
    /// May go on.
    Passed,
}

/// The delay points of a device.
pub struct Delays {
    points: Mutex<[State; COUNT]>,
    /// Armed points, so that passing costs nothing when there is none.
    armed: AtomicU32,
}

impl Delays {
    /// None armed.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new() -> Result<Self, AllocError> {
        Ok(Delays {
            points: Mutex::new(Rank::Debug, [State::default(); COUNT])?,
            armed: AtomicU32::new(0),
        })
    }

    /// Arms a point until a time, for an open file. Whoever an earlier arming holds goes on.
    pub fn arm(&self, point: Point, owner: u64, until_ns: u64) {
        let mut points = self.points.lock();
        let state = &mut points[point as usize];
        if !state.armed {
            self.armed.fetch_add(1, Ordering::SeqCst);
        }
        let generation = state.generation + 1;
        *state = State { armed: true, owner, generation, until_ns, hits: 0, held: 0 };
    }

    /// Lets go and disarms; what it has seen stays to be reported.
    pub fn release(&self, point: Point) {
        self.disarm_if(|at, _| at == point as usize);
    }

    /// Disarms all that an open file armed.
    pub fn release_all_of(&self, owner: u64) {
        self.disarm_if(|_, state| state.owner == owner);
    }

    fn disarm_if(&self, mut which: impl FnMut(usize, &State) -> bool) {
        for (at, state) in self.points.lock().iter_mut().enumerate() {
            if state.armed && which(at, state) {
                state.armed = false;
                state.held = 0;
                self.armed.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// What a point has seen.
    pub fn report(&self, point: Point, now_ns: u64) -> Report {
        self.expire(now_ns);
        let state = self.points.lock()[point as usize];
        Report { hits: state.hits, held: state.held }
    }

    fn expire(&self, now_ns: u64) {
        if self.armed.load(Ordering::SeqCst) > 0 {
            self.disarm_if(|_, state| now_ns >= state.until_ns);
        }
    }

    /// A job comes by. `Some`: it is held, at the longest until that time; ask again. The second
    /// value says whether it is held from now on.
    pub fn poll(&self, point: Point, hold: &mut Hold, host: &impl Host) -> Option<(u64, bool)> {
        if *hold == Hold::Passed {
            return None;
        }
        if *hold == Hold::Before && self.armed.load(Ordering::SeqCst) == 0 {
            *hold = Hold::Passed;
            return None;
        }
        self.expire(host.now_ns());
        let mut points = self.points.lock();
        let state = &mut points[point as usize];
        match *hold {
            Hold::Before if state.armed => {
                *hold = Hold::Held(state.generation);
                state.hits += 1;
                state.held += 1;
                Some((state.until_ns, true))
            }
            Hold::Held(generation) if state.armed && state.generation == generation => {
                Some((state.until_ns, false))
            }
            _ => {
                *hold = Hold::Passed;
                None
            }
        }
    }

    /// A job that may be held goes away without passing.
    pub fn leave(&self, point: Point, hold: &mut Hold) {
        if let Hold::Held(generation) = *hold {
            let mut points = self.points.lock();
            let state = &mut points[point as usize];
            if state.armed && state.generation == generation {
                state.held -= 1;
            }
        }
        *hold = Hold::Passed;
    }

    /// Whether somebody is held at a point.
    pub fn is_held(&self, point: Point) -> bool {
        self.points.lock()[point as usize].held > 0
    }
}

impl<H: Host> crate::device::Device<H> {
    /// A call comes by a point and is held there if it is armed. No lock of the facade is held.
    pub fn delay(&self, point: Point) {
        let mut hold = Hold::Before;
        let Some((until_ns, _)) = self.delay_poll(point, &mut hold) else { return };
        let mut ready = || self.delay_poll(point, &mut hold).is_none();
        // Without a task the wait ends by release or by the deadline.
        let _ = self.host.wait_event(None, Some(until_ns), &mut ready);
        self.delays.leave(point, &mut hold);
    }

    /// As [`Device::delay`], for places that the CPU's page faults lead to as well.
    pub fn delay_unless_locked(&self, point: Point) {
        if crate::facade::rank::none_held() {
            self.delay(point);
        }
    }

    /// As [`Delays::poll`]; counts, and wakes whoever waits for somebody to be held.
    pub fn delay_poll(&self, point: Point, hold: &mut Hold) -> Option<(u64, bool)> {
        let held = self.delays.poll(point, hold, &self.host);
        if let Some((_, true)) = held {
            self.counters.inc(crate::counters::Counter::DelaysHit);
            self.host.wake();
        }
        held
    }
}
