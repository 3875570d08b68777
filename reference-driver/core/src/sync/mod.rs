//! Synchronisation: fences, syncobjs with their timelines, reservations of objects, and the syncs
//! of a call. The module takes fences and syncobjs from Linux: `dma_fence` and `drm_syncobj` stand
//! behind the same calls.

pub mod args;
#[cfg(not(MODULE))]
pub mod fence;
#[cfg(MODULE)]
#[path = "../../../linux/fence.rs"]
pub mod fence;
pub mod resv;
#[cfg(not(MODULE))]
pub mod syncobj;
#[cfg(MODULE)]
#[path = "../../../linux/syncobj.rs"]
pub mod syncobj;
