//! The fencepost reference driver, the same files in every world: in user space over std, under
//! shuttle, and (by Kbuild) as a Linux module.
//!
//! Owns the whole behaviour of the driver. Does no I/O, reads no clock and spawns nothing: what it
//! needs of the world it asks of its host. Memory, locks and atomics come from [`facade`] only;
//! neither `std` nor `alloc` can be named outside that module, which the missing prelude enforces.
#![cfg_attr(not(any(test, MODULE)), no_std)]
// Cargo's lints do not reach Kbuild; in linux/ each file says why it may.
#![cfg_attr(MODULE, deny(unsafe_code))]

pub mod call;
pub mod check;
pub mod counters;
pub mod debug;
pub mod device;
pub mod dmirror;
pub mod driver;
#[cfg(not(MODULE))]
pub mod drm;
#[cfg(MODULE)]
#[path = "../../linux/drm_core.rs"]
pub mod drm;
pub mod executor;
pub mod facade;
pub mod file;
pub mod gem;
pub mod gpuva;
pub mod host;
pub mod ioctl;
pub mod pgtable;
pub mod query;
pub mod sched;
pub mod svm;
pub mod sync;
pub mod vm;
pub mod vram;

#[cfg(all(test, not(feature = "shuttle")))]
#[path = "tests/seed.rs"]
mod seed;

// The kernel's host is part of this crate, since Kbuild makes a module of one crate root.
#[cfg(MODULE)]
#[path = "../../linux/host.rs"]
mod linux;
/// What the kernel's `pr_info!` and its kin put first; they look for it here.
#[cfg(MODULE)]
const __LOG_PREFIX: &[u8] = b"fencepost\0";
