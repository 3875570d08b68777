//! Everything that core takes from its world's runtime: growable containers, shared pointers, locks
//! and atomics. Every constructor that may need memory is fallible.
//!
//! Four flavours stand behind one interface, picked at compile time:
//!
//! | flavour | when | memory | locks and atomics |
//! |---|---|---|---|
//! | std | feature `std` | std | std |
//! | shuttle | features `std` and `shuttle` | std | shuttle, which explores their schedules |
//! | kernel | `cfg(MODULE)`, by Kbuild | `KVVec`, `KBox` | the kernel's, one lockdep class a rank |
//! | bare | none of these | none: every allocation fails | none are ever made |
//!
//! The bare flavour exists to be compiled: it proves that core needs neither std nor alloc. The
//! interface is the intersection with the kernel's `KVec`, `KBox`, `Arc` and `Mutex`: no weak
//! pointers, no reference counts to look at, no unsizing.
//!
//! [`Slab`], [`Fifo`] and [`SortedMap`] are built on [`Vec`] and are the same everywhere.

mod fifo;
pub mod inject;
pub mod rank;
mod slab;
mod sorted_map;
mod views;

#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
#[path = "memory_std.rs"]
mod memory;
#[cfg(feature = "std")]
#[path = "sync_std.rs"]
mod sync;

#[cfg(MODULE)]
#[path = "memory_kernel.rs"]
mod memory;
#[cfg(MODULE)]
#[path = "sync_kernel.rs"]
mod sync;

#[cfg(not(any(feature = "std", MODULE)))]
#[path = "memory_bare.rs"]
mod memory;
#[cfg(not(any(feature = "std", MODULE)))]
#[path = "sync_bare.rs"]
mod sync;

pub use fifo::Fifo;
pub use memory::{Box, IntoIter, Vec};
pub use rank::Rank;
pub use slab::{Reserved, Slab};
pub use sorted_map::SortedMap;
pub use sync::{Arc, AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering};

use fencepost_uapi::Errno;

/// No memory; `ENOMEM` to user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocError;

impl From<AllocError> for Errno {
    fn from(_: AllocError) -> Self {
        Errno::NOMEM
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests;
