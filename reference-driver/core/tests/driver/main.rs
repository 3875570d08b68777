//! Tests of the driver over the simulated world: each promise of the uapi's documentation.

mod client;
mod skeleton;
