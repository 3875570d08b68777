//! The oracle: what every read may give, whatever ran beside it.
//!
//! # The model
//!
//! *Timelines.* Actors do one thing after the other; so do the jobs that one actor submits to one
//! queue. Each is a timeline of events. What orders events of different timelines are the scenario's
//! own means: start and end of actors, barriers, fences that a job or an actor waited for,
//! semaphores and words waited for with acquire ordering, one submission to a queue returning before
//! the next is made. Vector clocks say which event happens before which ([`clock`]); all others race.
//!
//! *Memory.* Each byte of each object has a history of writes ([`memory`]). A read may give a write
//! that is not certainly overwritten before it; racing writes may be seen or not. Atomics on a word
//! are explained by orders of its writes, so none may be lost ([`atomics`]). A copy takes what its
//! source may have held. A write is recorded before it is made, a read is checked after it was
//! made: so every write that it can have seen is in the history by then.
//!
//! *Addresses.* A VM is modelled by this module's own interval map with drm_gpuvm's rules ([`space`]):
//! a layout, which changes when a bind call returns, and translations, which have histories like
//! memory has, because page tables are written later. An access that races with a bind may go either
//! way; one that is ordered after an unmap must fault.
//!
//! *Jobs.* A job's writes are recorded when it is submitted and again as more becomes known; its
//! reads are checked when it has ended ([`jobs`]). A fault must be one that the translations
//! explain, and must be there when they leave no way around it.
//!
//! Where the model cannot follow (too many racing atomics, copies of copies of copies, a loop too
//! long), it allows everything: it may miss a bug, but what it reports is one.
//!
//! The oracle shares no code with any driver and knows nothing of YAML. All calls go through one
//! lock, never held while the device is at work.

pub mod atomics;
pub mod clock;
pub mod fences;
mod history;
pub mod jobs;
pub mod memory;
#[cfg(test)]
mod memory_tests;
pub mod mm;
mod model;
#[cfg(test)]
mod model_tests;
pub mod program;
pub mod ranges;
pub mod space;
#[cfg(test)]
mod space_tests;
pub mod value;

pub use jobs::{End, Wrong};
pub use memory::{Grain, Mismatch, Origin};
pub use mm::{Access, AtFork, MmCall, MmId, MmOp, Nature};
pub use model::{
    Batch, BindAnswer, BindId, BindRequest, CpuWrite, Denied, Discard, JobId, Model, Point,
    SpaceId, SubmitRequest, SyncId,
};
pub use space::{Op, Target};
pub use value::{Object, Source};
