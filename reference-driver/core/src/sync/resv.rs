//! Reservations: the lock of a buffer object (or of a VM with its private objects) together with the
//! fences of the work that uses it; and the context that locks many of them.
//!
//! Owns wait-die ordering by ticket: who is older waits, who is younger backs off, drops everything
//! and begins anew with the contended one, as `drm_exec` over `ww_mutex` does. A reservation is held
//! across waits and calls of the host, so it is no mutex of the facade: its place in the lock order
//! is before [`Rank::Vm`], and no mutex may be held when one is taken.

use fencepost_uapi::Errno;

use crate::counters::Counter;
use crate::device::Device;
use crate::facade::{rank, AllocError, Arc, AtomicU64, Mutex, Ordering, Rank, Vec};
use crate::host::Host;
use crate::sync::fence::Fence;

/// Nobody holds it.
const FREE: u64 = 0;

/// A reservation.
pub struct Resv {
    state: Mutex<State>,
    /// Stamp of the last use of what it guards, for the least-recently-used order.
    last_use: AtomicU64,
}

struct State {
    /// Ticket of the holder.
    owner: u64,
    /// Callers that wait for it.
    waiters: u32,
    /// Work that uses the object; who moves it waits for all of them.
    fences: Vec<Arc<Fence>>,
}

impl Resv {
    /// A free one.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new() -> Result<Arc<Resv>, AllocError> {
        // Some room from the start: whoever cannot get more waits until there is some again.
        let fences = Vec::with_capacity(4)?;
        let state = State { owner: FREE, waiters: 0, fences };
        let last_use = AtomicU64::new(0);
        Arc::new(Resv { state: Mutex::new(Rank::Resv, state)?, last_use })
    }

    /// Stamp of the last use.
    #[must_use]
    pub fn last_use(&self) -> u64 {
        self.last_use.load(Ordering::Relaxed)
    }

    /// What it guards is used now.
    pub fn touch(&self, stamp: u64) {
        self.last_use.store(stamp, Ordering::Relaxed);
    }

    /// Makes room for a fence. The caller holds the reservation until it has added it.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn reserve_fence(&self) -> Result<(), AllocError> {
        let mut state = self.state.lock();
        state.fences.retain(|fence| !fence.is_signalled());
        state.fences.reserve(1)
    }

    /// Adds a fence in the room made for it.
    pub fn add_fence(&self, fence: &Arc<Fence>) {
        let added = self.state.lock().fences.push_within_capacity(fence.clone());
        debug_assert!(added.is_ok(), "room was reserved under the same lock");
    }

    /// Whether all work has finished.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state.lock().fences.iter().all(|fence| fence.is_signalled())
    }

    /// Waits until all work has finished. With a task the wait can be interrupted.
    ///
    /// # Errors
    /// `RESTARTSYS`.
    pub fn wait_idle<H: Host>(&self, dev: &Device<H>, task: Option<H::Task>) -> Result<(), Errno> {
        if self.is_idle() {
            return Ok(());
        }
        rank::assert_none_held();
        dev.counters.inc(Counter::FencesWaited);
        dev.host.wait_event(task, None, &mut || self.is_idle()).map(|_| ())
    }

    /// Takes it for a ticket if it is free. `Err` holds the holder's ticket.
    fn try_take(&self, ticket: u64) -> Result<(), u64> {
        let mut state = self.state.lock();
        if state.owner != FREE {
            return Err(state.owner);
        }
        state.owner = ticket;
        Ok(())
    }

    /// Frees it; true when somebody waits for it.
    fn free(&self) -> bool {
        let mut state = self.state.lock();
        state.owner = FREE;
        state.waiters > 0
    }
}

/// Why a reservation was not locked.
#[derive(Debug)]
pub enum LockError {
    /// An older context holds one: unlock everything and begin anew.
    Deadlock,
    /// The call fails.
    Errno(Errno),
}

impl From<Errno> for LockError {
    fn from(errno: Errno) -> Self {
        LockError::Errno(errno)
    }
}

impl From<AllocError> for LockError {
    fn from(_: AllocError) -> Self {
        LockError::Errno(Errno::NOMEM)
    }
}

/// Holds any number of reservations; all are freed when it is dropped.
pub struct ExecLock<'a, H: Host> {
    dev: &'a Device<H>,
    task: Option<H::Task>,
    ticket: u64,
    held: Vec<Arc<Resv>>,
    contended: Option<Arc<Resv>>,
}

impl<'a, H: Host> ExecLock<'a, H> {
    /// A context that holds nothing. With a task its waits can be interrupted.
    pub fn new(dev: &'a Device<H>, task: Option<H::Task>) -> Self {
        let ticket = dev.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        ExecLock { dev, task, ticket, held: Vec::new(), contended: None }
    }

    /// Runs `lock_all` until it has locked all that it wants without meeting an older context.
    ///
    /// # Errors
    /// Those of `lock_all`; then nothing is held.
    pub fn until_all_locked<T>(
        &mut self,
        mut lock_all: impl FnMut(&mut Self) -> Result<T, LockError>,
    ) -> Result<T, Errno> {
        loop {
            match lock_all(self) {
                Ok(value) => return Ok(value),
                Err(LockError::Errno(errno)) => {
                    self.unlock_all();
                    return Err(errno);
                }
                Err(LockError::Deadlock) => self.back_off()?,
            }
        }
    }

    /// Locks one; no effect when this context holds it already.
    ///
    /// # Errors
    /// [`LockError::Deadlock`] when an older context holds it; `RESTARTSYS`, `ENOMEM`.
    pub fn lock(&mut self, resv: &Arc<Resv>) -> Result<(), LockError> {
        self.held.reserve(1)?;
        match resv.try_take(self.ticket) {
            Ok(()) => self.hold(resv.clone()),
            Err(owner) if owner == self.ticket => {}
            Err(owner) if owner < self.ticket => {
                self.contended = Some(resv.clone());
                return Err(LockError::Deadlock);
            }
            Err(_) => {
                self.wait_for(resv)?;
                self.hold(resv.clone());
            }
        }
        Ok(())
    }

    /// Locks one if that needs no wait: false when somebody else, or this context, holds it.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn try_lock(&mut self, resv: &Arc<Resv>) -> Result<bool, AllocError> {
        self.held.reserve(1)?;
        if resv.try_take(self.ticket).is_err() {
            return Ok(false);
        }
        self.hold(resv.clone());
        Ok(true)
    }

    /// Whether this context holds it.
    #[must_use]
    pub fn holds(&self, resv: &Arc<Resv>) -> bool {
        self.held.iter().any(|held| Arc::ptr_eq(held, resv))
    }

    /// Frees one before the others.
    pub fn unlock(&mut self, resv: &Arc<Resv>) {
        if let Some(index) = self.held.iter().position(|held| Arc::ptr_eq(held, resv)) {
            let held = self.held.swap_remove(index);
            if held.free() {
                self.dev.host.wake();
            }
        }
    }

    /// Frees all.
    pub fn unlock_all(&mut self) {
        let mut wake = false;
        while let Some(resv) = self.held.pop() {
            wake |= resv.free();
        }
        if wake {
            self.dev.host.wake();
        }
    }

    fn hold(&mut self, resv: Arc<Resv>) {
        let held = self.held.push_within_capacity(resv);
        debug_assert!(held.is_ok(), "room was made before the lock was taken");
    }

    /// Drops everything, then waits for the contended one and keeps it.
    fn back_off(&mut self) -> Result<(), Errno> {
        self.unlock_all();
        self.dev.counters.inc(Counter::LockBackoffs);
        let Some(resv) = self.contended.take() else { return Ok(()) };
        self.held.reserve(1)?;
        self.wait_for(&resv)?;
        self.hold(resv);
        Ok(())
    }

    fn wait_for(&self, resv: &Arc<Resv>) -> Result<(), Errno> {
        rank::assert_none_held();
        resv.state.lock().waiters += 1;
        let ticket = self.ticket;
        let mut ready = || resv.try_take(ticket).is_ok();
        let waited = self.dev.host.wait_event(self.task, None, &mut ready);
        resv.state.lock().waiters -= 1;
        waited.map(|_| ())
    }
}

impl<H: Host> Drop for ExecLock<'_, H> {
    fn drop(&mut self) {
        self.unlock_all();
    }
}
