//! The scenario language, its interpreter and the oracle.
pub mod catalog;
pub mod interp;
pub mod lang;
pub mod oracle;
pub mod seed;
pub mod worker;
