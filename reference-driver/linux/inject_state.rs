//! Which injection is in force on the calling thread, in the kernel: there are no thread-locals, so
//! a few slots are claimed by task for as long as a scope lasts.
//!
//! Owns the slots. When all are taken a scope has no effect: injection is a means of testing, by few
//! callers at a time.
#![expect(unsafe_code, reason = "slots belong to tasks, which no type can say")]

use super::{AllocError, Arc, Injection};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};
use kernel::task::Task;

struct Slot {
    /// Address of the task that owns the slot; 0: free.
    task: AtomicUsize,
    current: UnsafeCell<Option<Arc<Injection>>>,
}

// SAFETY: `current` is only touched by the task whose address `task` holds; a task runs on one CPU
// at a time, and claiming (acquire) follows the release by the owner before.
unsafe impl Sync for Slot {}

static SLOTS: [Slot; 64] =
    [const { Slot { task: AtomicUsize::new(0), current: UnsafeCell::new(None) } }; 64];
/// Slots in use, so that an allocation without any injection costs one load.
static USED: AtomicUsize = AtomicUsize::new(0);

fn me() -> usize {
    Task::current_raw() as usize
}

fn mine() -> Option<&'static Slot> {
    let me = me();
    SLOTS.iter().find(|slot| slot.task.load(Ordering::Relaxed) == me)
}

fn claim() -> Option<&'static Slot> {
    let me = me();
    let slot = SLOTS.iter().find(|slot| {
        slot.task.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed).is_ok()
    })?;
    USED.fetch_add(1, Ordering::Relaxed);
    Some(slot)
}

pub(super) fn swap(new: Option<Arc<Injection>>) -> Option<Arc<Injection>> {
    let slot = match (mine(), &new) {
        (Some(slot), _) => slot,
        (None, None) => return None,
        (None, Some(_)) => claim()?,
    };
    let last = new.is_none();
    // SAFETY: the slot is this task's.
    let old = core::mem::replace(unsafe { &mut *slot.current.get() }, new);
    if last {
        USED.fetch_sub(1, Ordering::Relaxed);
        slot.task.store(0, Ordering::Release);
    }
    old
}

pub(super) fn hit() -> Result<(), AllocError> {
    if USED.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    // SAFETY: the slot is this task's, and nothing in `hit` of an injection comes back here.
    match mine().and_then(|slot| unsafe { &*slot.current.get() }.as_ref()) {
        Some(injection) => injection.hit(),
        None => Ok(()),
    }
}
