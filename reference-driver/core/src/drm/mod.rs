//! The DRM core's part, as far as a driver without display has one: handles, PRIME, syncobjs.
//!
//! Linux has all of this; these files stand for it in user space, where they follow
//! `drivers/gpu/drm/drm_ioctl.c`, `drm_gem.c`, `drm_prime.c` and `drm_syncobj.c`, error for error. The
//! module takes `linux/drm_core.rs` in their place, which goes to Linux for the same things.

pub mod device;
mod exports;
mod handles;
pub mod prime;
pub mod syncobj;
pub mod syncobj_fd;
pub mod syncobj_wait;

pub use exports::{Export, Exports as Shared};
pub use handles::Handles;
