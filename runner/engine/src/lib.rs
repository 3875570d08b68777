//! The scenario language, its interpreter and the oracle.
pub mod lang;
pub mod oracle;
pub mod seed;
