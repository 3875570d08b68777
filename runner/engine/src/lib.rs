//! The scenario language, its interpreter and the oracle.
pub mod seed;
