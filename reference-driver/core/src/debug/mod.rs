//! The debug group: failures on demand, delay points, forced eviction. Refused to ordinary opens.

pub mod delay;
pub mod ioctls;
