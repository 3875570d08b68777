//! Shared virtual memory: the GPU in the CPU's address space.
//!
//! Owns the way from a missing translation to a page and back.

pub mod ioctls;
