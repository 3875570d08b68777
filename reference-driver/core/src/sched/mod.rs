//! The scheduler: queues, their jobs, and who runs next. In the kernel drm_sched stands behind the
//! same few calls ([`lane`]); jobs of binds ([`bind`]) and of batches ([`exec`]) are the driver's.

pub mod bind;
pub mod exec;
pub mod lane;
pub mod queue;
pub mod submit;
pub mod user_fence;
