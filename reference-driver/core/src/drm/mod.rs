//! The DRM core's calls, as far as a driver without display has them. In the kernel the DRM core
//! answers them itself; here they follow `drivers/gpu/drm/drm_ioctl.c`, `drm_gem.c`, `drm_prime.c`
//! and `drm_syncobj.c`, error for error.

pub mod device;
pub mod prime;
pub mod syncobj;
pub mod syncobj_fd;
pub mod syncobj_wait;
