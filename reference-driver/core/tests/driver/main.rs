//! Tests of the driver over the simulated world: each promise of the uapi's documentation.

mod bind;
mod client;
mod debug;
mod jobs;
mod objects;
mod skeleton;
mod svm;
mod svm_atomic;
mod svm_batch;
mod svm_mixed;
mod svm_move;
mod svm_peers;
mod svm_property;
mod svm_race;
mod syncobjs;
