//! The interpreter: runs one test on a device, in this process and its children, and judges it.
//!
//! [`run`] goes through a test as `lang::ast` describes it: objects, setup, rounds of actors,
//! expectations, evidence, leak check. Actors are threads; each tells the oracle what it is about to
//! do and what came of it. Every call is timed under the name of its operation. The first thing that
//! does not hold stops all actors and is the reason of the verdict.
//!
//! Leaves out: what a read may give (the oracle), how a device is called (fixtures), where reports
//! go (the caller's sink).

mod actor;
mod area;
mod bind;
mod cpu;
mod debug;
mod exec;
mod expect;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_tests;
mod gpu;
mod kernel;
mod objects;
mod probe;
mod process;
#[cfg(test)]
mod process_tests;
mod remote;
mod rendezvous;
mod report;
mod run;
mod stage;
mod svm;
#[cfg(test)]
mod svm_tests;
mod sync;
mod view;

pub(crate) use remote::serve_on;
pub use run::{Setting, run};
