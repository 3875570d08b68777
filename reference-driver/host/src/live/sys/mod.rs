//! The system calls under the transport, wrapped so that everything above is safe Rust. Owns the
//! architecture table, the filter, the notification channel and access to client memory; knows
//! nothing of devices.

pub(crate) mod client;
pub(crate) mod fd;
pub(crate) mod filter;
pub(crate) mod notify;
pub(crate) mod number;
