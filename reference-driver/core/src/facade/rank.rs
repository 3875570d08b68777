//! The one lock order of the driver, and its check.
//!
//! Owns the ranks, what each lock protects, and the rules of the fence path. A thread that holds a
//! lock may take only locks of a higher rank; in debug builds of the std flavours each thread keeps
//! count and panics with both names when it would not. A `try_lock` cannot deadlock and may take
//! any rank, as in lockdep.

/// Declares the ranks in order, outermost first.
macro_rules! ranks {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The locks of the driver, outermost first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Rank { $($(#[doc = $doc])+ $name,)+ }

        /// Every rank, outermost first.
        pub const RANKS: &[Rank] = &[$(Rank::$name,)+];
    };
}
ranks! {
    /// The device: list of open files, start and stop.
    Device,
    /// An open file: its tables of handles, VMs, queues and syncobjs.
    File,
    /// The notifiers and attributes of a VM that takes faults; only who is in its gate takes it. Held
    /// across calls that read the CPU's address space. May allocate while held.
    Svm,
    /// A VM: its VA tree, sparse regions and object lists. May allocate while held.
    Vm,
    /// Reservations of objects; many are held together by an exec context, which orders them by
    /// ticket, so that this mutex only guards the table of holders.
    Resv,
    /// A buffer object: placement, backing memory, list of mappings. May allocate while held.
    Object,
    /// A syncobj: its fence or its chain of points. May allocate while held.
    Syncobj,
    /// What SVM has in device memory. From here on no lock is held across an allocation, so that
    /// all of them may be taken in the fence path.
    Devmem,
    /// The allocator of device memory.
    Vram,
    /// Where the pages of a buffer object are.
    Location,
    /// Which VM a notifier belongs to.
    Hooks,
    /// The ranges of a VM that takes faults: what of the CPU's pages is valid. Whoever invalidates takes
    /// it, memory reclaim as well.
    Notifier,
    /// The page tables and the TLBs of a VM.
    PageTable,
    /// The replayable fault buffer.
    FaultBuffer,
    /// The scheduler: queues, jobs, dependencies.
    Scheduler,
    /// A fence: state and list of waiters.
    Fence,
    /// The fault ring of a VM.
    Faults,
    /// Delay points and injection.
    Debug,
    /// Whatever takes no further lock.
    Leaf,
}

/// The first rank that may be taken in the fence path: an outer lock may be held by somebody who
/// waits for memory, which may wait for the fence.
pub const FENCE_PATH_FROM: Rank = Rank::Devmem;

/// Marks the fence path, from a point where a fence is bound to signal to its signalling, as
/// `dma_fence_begin_signalling` does. Until the guard is dropped this thread may not allocate and
/// not take a lock outside [`FENCE_PATH_FROM`], nor may anyone allocate who holds such a lock; debug
/// builds of the std flavours panic.
#[must_use = "the fence path ends when the guard is dropped"]
pub struct FencePath(state::Cookie);

impl FencePath {
    /// Enters the fence path; nests.
    pub fn enter() -> Self {
        FencePath(state::enter())
    }
}

impl Drop for FencePath {
    fn drop(&mut self) {
        state::leave(&self.0);
    }
}

/// Panics in debug builds of the std flavours if the calling thread holds any lock: for places that
/// wait for something which others must be able to make happen.
#[track_caller]
pub fn assert_none_held() {
    state::assert_none_held();
}

/// Whether the calling thread holds no lock, where that is known; else true.
#[must_use]
pub fn none_held() -> bool {
    state::none_held()
}

#[cfg(feature = "std")]
pub(super) use state::{acquire, check, check_alloc, release};

#[cfg(all(feature = "std", debug_assertions))]
mod state {
    use super::{Rank, FENCE_PATH_FROM, RANKS};
    use core::cell::Cell;

    /// What one thread holds.
    #[derive(Clone, Copy)]
    struct Held {
        locks: [u8; RANKS.len()],
        fence_path: u32,
    }

    #[cfg(not(feature = "shuttle"))]
    use super::super::std::thread_local;
    #[cfg(feature = "shuttle")]
    use {super::super::std, shuttle::thread_local};

    thread_local! {
        static HELD: Cell<Held> = const {
            Cell::new(Held { locks: [0; RANKS.len()], fence_path: 0 })
        };
    }

    /// Runs `f` on this thread's state; while the thread is torn down there is none.
    fn with(f: impl FnOnce(&mut Held)) {
        // Destructors of other thread-locals may drop guards after ours is gone.
        let _ = HELD.try_with(|cell| {
            let mut held = cell.get();
            f(&mut held);
            cell.set(held);
        });
    }

    #[track_caller]
    fn check_held(held: &Held, rank: Rank) {
        let inner = RANKS.iter().rev().find(|r| held.locks[**r as usize] > 0);
        if let Some(inner) = inner.filter(|inner| **inner >= rank) {
            panic!("lock order: {rank:?} wanted while {inner:?} is held");
        }
        assert!(
            held.fence_path == 0 || rank >= FENCE_PATH_FROM,
            "fence path: {rank:?} wanted, but its holder may wait for memory"
        );
    }

    /// Panics unless a lock of this rank may be waited for now.
    #[track_caller]
    pub(in super::super) fn check(rank: Rank) {
        with(|held| check_held(held, rank));
    }

    /// Notes that a lock of this rank is held.
    pub(in super::super) fn acquire(rank: Rank) {
        with(|held| held.locks[rank as usize] += 1);
    }

    /// Notes that a lock of this rank was dropped.
    pub(in super::super) fn release(rank: Rank) {
        with(|held| held.locks[rank as usize] -= 1);
    }

    /// Panics if this thread may not allocate now: in the fence path, and while it holds a lock that
    /// the fence path takes.
    #[track_caller]
    pub(in super::super) fn check_alloc() {
        with(|held| {
            assert!(held.fence_path == 0, "fence path: allocation");
            let inner = RANKS.iter().skip(FENCE_PATH_FROM as usize);
            if let Some(rank) = inner.clone().find(|rank| held.locks[**rank as usize] > 0) {
                panic!("fence path: allocation while {rank:?} is held");
            }
        });
    }

    /// What a fence path is left with.
    pub(super) struct Cookie;

    pub(super) fn enter() -> Cookie {
        with(|held| held.fence_path += 1);
        Cookie
    }

    pub(super) fn leave(_: &Cookie) {
        with(|held| held.fence_path -= 1);
    }

    pub(super) fn none_held() -> bool {
        let mut none = true;
        with(|held| none = held.locks.iter().all(|locks| *locks == 0));
        none
    }

    #[track_caller]
    pub(super) fn assert_none_held() {
        with(|held| {
            if let Some(rank) = RANKS.iter().find(|r| held.locks[**r as usize] > 0) {
                panic!("sleep: {rank:?} is held");
            }
        });
    }
}

// In the module lockdep keeps count.
#[cfg(MODULE)]
#[path = "../../../linux/fence_path.rs"]
mod state;

#[cfg(not(any(MODULE, all(feature = "std", debug_assertions))))]
mod state {
    #[cfg(feature = "std")]
    mod unchecked {
        use super::super::Rank;

        #[inline]
        pub(in super::super::super) fn check(_: Rank) {}
        #[inline]
        pub(in super::super::super) fn acquire(_: Rank) {}
        #[inline]
        pub(in super::super::super) fn release(_: Rank) {}
        #[inline]
        pub(in super::super::super) fn check_alloc() {}
    }
    #[cfg(feature = "std")]
    pub(in super::super) use unchecked::{acquire, check, check_alloc, release};

    pub(super) struct Cookie;
    #[inline]
    pub(super) fn enter() -> Cookie {
        Cookie
    }
    #[inline]
    pub(super) fn leave(_: &Cookie) {}
    #[inline]
    pub(super) fn none_held() -> bool {
        true
    }
    #[inline]
    pub(super) fn assert_none_held() {}
}
