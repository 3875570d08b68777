//! The scenario language: from YAML text to tests that the interpreter runs. Owns parsing, checking,
//! parameters and the schema; runs nothing and touches no device.

pub mod ast;
pub mod diag;
pub mod expect;
pub mod expr;
pub mod step;
mod yaml;

pub use ast::{Span, Test, Tier};
