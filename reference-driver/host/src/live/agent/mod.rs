//! The agent: a thread in a client's address space that does what the host tells it. It is the only
//! way to the client's memory that is atomic against the client's own accesses, and the only one
//! to change its mappings.
//!
//! The thread belongs to the client's process, so that it ends with it; it has descriptors of its own,
//! blocks signals, and is told from the client's threads by its calls, which come from one fixed
//! page ([`layout::CODE`]) that the filter lets pass. The host starts it when a process first asks
//! for a mirror: it sends the asking thread a signal, whose handler makes the thread, and has the
//! call restarted. A program that was not prepared for that is, by `ptrace` ([`inject`]).

#[cfg(target_arch = "x86_64")]
mod blob;
mod hook;
#[cfg(target_arch = "x86_64")]
pub(crate) mod inject;
pub(crate) mod lane;
pub(crate) mod layout;

pub(crate) use hook::VARIABLE;
pub use hook::hook;
