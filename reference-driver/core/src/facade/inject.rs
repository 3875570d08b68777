//! Failure injection into allocations: the k-th one fails, as the kernel's failslab does for a task
//! that asked for it.
//!
//! Owns the arming and the counting. The driver puts the state of an open file into force for the
//! length of a call ([`scope`]); every allocation of the facade on that thread then counts.

use super::{AllocError, Arc};
use core::sync::atomic::{AtomicU64, Ordering};

/// The injection state of one open file. Shared by all its calls.
///
/// The counters are plain atomics in every flavour: they are no part of the driver's protocol.
#[derive(Debug, Default)]
pub struct Injection {
    /// Which allocation from the arming on fails; 0: none.
    nth: AtomicU64,
    seen: AtomicU64,
    fired: AtomicU64,
    /// Every one fails.
    exhausted: bool,
}

/// What an [`Injection`] has seen since it was armed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Allocations counted.
    pub seen: u64,
    /// 1 if the armed failure happened.
    pub fired: u64,
}

impl Injection {
    /// Not armed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A world in which every operation fails.
    #[must_use]
    pub fn exhausted() -> Self {
        Self { exhausted: true, ..Self::default() }
    }

    /// Lets the `nth` operation from now (1: the next) fail once; 0 disarms. Returns what was seen
    /// since the last arming.
    pub fn arm(&self, nth: u64) -> Report {
        self.nth.store(nth, Ordering::Relaxed);
        Report {
            seen: self.seen.swap(0, Ordering::Relaxed),
            fired: self.fired.swap(0, Ordering::Relaxed),
        }
    }

    /// What was seen since the last arming, and whether the armed failure happened.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            seen: self.seen.load(Ordering::Relaxed),
            fired: self.fired.load(Ordering::Relaxed),
        }
    }

    /// Counts one operation.
    ///
    /// # Errors
    /// [`AllocError`] when this is the one that was armed.
    pub fn hit(&self) -> Result<(), AllocError> {
        let seen = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        if self.exhausted || seen == self.nth.load(Ordering::Relaxed) {
            self.fired.store(1, Ordering::Relaxed);
            return Err(AllocError);
        }
        Ok(())
    }
}

/// Puts `injection` into force on this thread until the guard is dropped; the scope before it then
/// applies again.
#[must_use = "injection ends when the guard is dropped"]
pub fn scope(injection: Arc<Injection>) -> Scope {
    Scope { outer: state::swap(Some(injection)) }
}

/// Suspends injection on this thread until the guard is dropped: for work that the call must do
/// whatever happens, such as its unwinding.
#[must_use = "injection resumes when the guard is dropped"]
pub fn suspend() -> Scope {
    Scope { outer: state::swap(None) }
}

/// See [`scope`].
pub struct Scope {
    outer: Option<Arc<Injection>>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _inner = state::swap(self.outer.take());
    }
}

/// Counts an allocation of this thread; checked by every allocation of the facade.
///
/// # Errors
/// [`AllocError`] when it is to fail.
#[cfg(any(feature = "std", MODULE))]
#[cfg_attr(debug_assertions, track_caller)]
pub(crate) fn allocation() -> Result<(), AllocError> {
    #[cfg(feature = "std")]
    super::rank::check_alloc();
    state::hit()
}

#[cfg(feature = "std")]
mod state {
    use super::{AllocError, Arc, Injection};
    use core::cell::RefCell;

    #[cfg(not(feature = "shuttle"))]
    use super::super::std::thread_local;
    #[cfg(feature = "shuttle")]
    use {super::super::std, shuttle::thread_local};

    thread_local! {
        static CURRENT: RefCell<Option<Arc<Injection>>> = const { RefCell::new(None) };
    }

    pub(super) fn swap(new: Option<Arc<Injection>>) -> Option<Arc<Injection>> {
        // A thread that is being torn down has no injection.
        CURRENT.try_with(|current| current.replace(new)).ok().flatten()
    }

    pub(super) fn hit() -> Result<(), AllocError> {
        CURRENT
            .try_with(|current| match &*current.borrow() {
                Some(injection) => injection.hit(),
                None => Ok(()),
            })
            .unwrap_or(Ok(()))
    }
}

#[cfg(MODULE)]
#[path = "../../../linux/inject_state.rs"]
mod state;

#[cfg(not(any(feature = "std", MODULE)))]
mod state {
    use super::{Arc, Injection};

    pub(super) fn swap(_: Option<Arc<Injection>>) -> Option<Arc<Injection>> {
        None
    }
}
