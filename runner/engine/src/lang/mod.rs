//! The scenario language: from YAML text to tests that the interpreter runs. Owns parsing,
//! checking, parameters and the schema; runs nothing and touches no device.
//!
//! [`load`] gives the scenarios of a file or every mistake in it; [`Scenario::variants`] gives what
//! runs. The tree is in [`ast`], [`step`], [`expect`] and [`expr`], the grammar in
//! docs/SCENARIOS.md.

pub mod ast;
mod check;
pub mod counters;
pub mod diag;
pub mod errno;
pub mod expect;
pub mod expr;
mod expr_parse;
mod grammar;
pub mod kernel;
mod lower;
mod params;
pub mod reference;
mod scenario;
pub mod schema;
pub mod step;
pub mod svm;
mod verbs;
mod words;
mod yaml;

pub use ast::{Span, Test, Tier};
pub use diag::{Diagnostic, Diagnostics};
pub use params::Source;
pub use scenario::{Scenario, Variant, load, parse};
