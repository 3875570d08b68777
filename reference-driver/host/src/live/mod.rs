//! The live world: unmodified test processes make real system calls on real descriptors, and the
//! driver in this process serves them. Unprivileged.
//!
//! A child is started under a seccomp filter that sends every `open`, DRM ioctl and file `mmap` to
//! this process ([`serve`]); what concerns the device's nodes is answered, all else runs in the kernel
//! as if nobody had asked ([`machine`]). The device is one sparse memfd ([`arena`]): descriptors are open
//! file descriptions of it ([`files`]), buffer objects are regions of it, so that `mmap`, `dup`, `fork`,
//! `exec` and SCM_RIGHTS are the kernel's own. The last close shows by locks ([`reaper`]).
//!
//! Clients' address spaces are mirrored ([`mm`], [`migrate`]) with the help of a thread in each
//! ([`agent`]).
//!
//! Leaves out: interception of `stat` and `readdir` of the nodes (they exist only for `open`), `mmap` of
//! a dma-buf, merging of sync files, and private mappings of a node below 4 GiB, which no object
//! has.
#![expect(unsafe_code, reason = "the transport is made of system calls and shared memory")]

mod agent;
mod arena;
mod bare;
mod client_memory;
mod device;
mod dmirror;
mod files;
mod gpu;
mod guard;
mod machine;
mod maps;
mod migrate;
mod mirror;
mod mm;
mod probe;
mod reaper;
mod serve;
mod spawn;
mod sync_file;
mod sys;
mod threads;
#[doc(hidden)]
pub mod tiny;
mod wait;
mod world;

pub use agent::hook;
#[doc(hidden)]
pub use bare::{break_driver, container_profile, refuse_calls, spawn_bare};
pub use device::{Config, Device, Leaks};
pub use migrate::Backend;
pub use probe::{Probe, probe};
pub use spawn::{Child, forking, spawn_outside};
