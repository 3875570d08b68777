//! Synchronisation: fences, syncobjs with their timelines, reservations of objects, and the syncs
//! of a call. In the kernel dma-fence, drm_syncobj and dma-resv stand behind the same calls.

pub mod args;
pub mod fence;
pub mod resv;
pub mod syncobj;
