//! Moving pages between a client's mappings and the windows where the device has them. Owns the two
//! ways to do that and the choice between them; which pages move, and who is told, is decided by the
//! callers.
//!
//! A page is moved, not copied, so that no store is lost: what the CPU stores before it goes with the
//! page, what comes after faults and waits.

mod migration;
mod protect;
mod userfault;

pub(crate) use migration::Migration;
pub(crate) use userfault::Userfault;

use fencepost_core::gpuva::Span;

use super::agent::lane::{Lane, Request};

/// How pages are taken from the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// userfaultfd for user mode only, with `UFFDIO_MOVE` (Linux 6.8).
    Userfault,
    /// `mprotect`, `mremap` and `SIGSEGV`.
    Protect,
}

impl Backend {
    /// The environment variable by which tests choose.
    pub(crate) const VARIABLE: &str = "FENCEPOST_MIGRATION";

    /// The best that works here, or what the environment says.
    #[must_use]
    pub fn here() -> Backend {
        match std::env::var(Self::VARIABLE).as_deref() {
            Ok("protect") => Backend::Protect,
            _ if userfault::works() => Backend::Userfault,
            _ => Backend::Protect,
        }
    }
}

/// A way, made ready in one address space.
pub(crate) enum Mover {
    /// See [`Backend::Userfault`].
    Userfault(Userfault),
    /// See [`Backend::Protect`].
    Protect,
}

/// Pages to be moved: from a mapping with this protection, to the address of a window or back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// The client's pages.
    pub(crate) span: Span,
    /// First address in the window.
    pub(crate) window: u64,
    /// `PROT_*` of the client's mapping.
    pub(crate) protection: u64,
}

impl Piece {
    /// What faults the pages in, so that something moves: for writing where that is allowed.
    pub(crate) fn populate(&self) -> Request {
        let write = self.protection & libc::PROT_WRITE as u64 != 0;
        let how = if write { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
        (libc::SYS_madvise, [self.span.start, self.span.len(), how as u64, 0, 0, 0])
    }
}

impl Mover {
    /// Takes pages from the CPU. Gives the addresses of those that stay.
    pub(crate) fn out(&self, lane: &Lane, piece: Piece) -> Vec<u64> {
        match self {
            Mover::Userfault(way) => way.out(lane, piece),
            Mover::Protect => protect::out(lane, piece),
        }
    }

    /// Gives pages back to the CPU. Gives the addresses of those that stay.
    pub(crate) fn back(&self, lane: &Lane, piece: Piece) -> Vec<u64> {
        match self {
            Mover::Userfault(way) => way.back(lane, piece),
            Mover::Protect => protect::back(lane, piece),
        }
    }

    /// Moves pages from one place of a window to another; false: they stay.
    pub(crate) fn across(&self, lane: &Lane, to: u64, from: u64, len: u64) -> bool {
        match self {
            Mover::Userfault(way) => way.across(lane, to, from, len),
            Mover::Protect => protect::across(lane, to, from, len),
        }
    }

    /// Drops pages of a window.
    pub(crate) fn discard(&self, lane: &Lane, window: u64, len: u64) {
        let call = match self {
            Mover::Userfault(_) => {
                (libc::SYS_madvise, [window, len, libc::MADV_DONTNEED as u64, 0, 0, 0])
            }
            Mover::Protect => (libc::SYS_munmap, [window, len, 0, 0, 0, 0]),
        };
        // An address space that has ended has nothing to drop.
        let _gone = lane.turn().calls(&[call]);
    }

    /// After pages were dropped that are away: makes their mapping usable again.
    pub(crate) fn reopen(&self, lane: &Lane, span: Span, protection: u64) {
        if let Mover::Protect = self {
            let call = (libc::SYS_mprotect, [span.start, span.len(), protection, 0, 0, 0]);
            let _gone = lane.turn().calls(&[call]);
        }
    }
}
