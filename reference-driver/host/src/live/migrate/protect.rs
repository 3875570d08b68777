//! Migration without userfaultfd: the mapping is closed, so that the CPU's accesses end in `SIGSEGV`
//! and wait for the host; then the page tables move to the window. Works for any private mapping and
//! needs nothing that containers refuse.

use fencepost_core::gpuva::Span;

use super::super::agent::lane::{Lane, Request};
use super::super::arena::PAGE;
use super::Piece;

const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const TO_PLACE: u64 = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;

fn protect(at: u64, len: u64, protection: u64) -> Request {
    (libc::SYS_mprotect, [at, len, protection, 0, 0, 0])
}

fn remap(from: u64, len: u64, to: u64, keep: bool) -> Request {
    let flags = TO_PLACE | if keep { libc::MREMAP_DONTUNMAP as u64 } else { 0 };
    (libc::SYS_mremap, [from, len, len, flags, to, 0])
}

fn pages(span: Span) -> Vec<u64> {
    (span.start..span.end).step_by(PAGE as usize).collect()
}

/// As [`super::Mover::out`].
pub(super) fn out(lane: &Lane, piece: Piece) -> Vec<u64> {
    let Piece { span, window, protection } = piece;
    let (at, len) = (span.start, span.len());
    let calls = [
        piece.populate(),
        protect(at, len, libc::PROT_NONE as u64),
        remap(at, len, window, true),
        protect(window, len, READ_WRITE),
    ];
    let mut turn = lane.turn();
    match turn.calls(&calls) {
        Ok((_, None)) => return Vec::new(),
        Ok((2, _)) => {
            // Closed, but not moved.
            let _gone = turn.calls(&[protect(at, len, protection)]);
        }
        _ => {}
    }
    drop(turn);
    if len == PAGE {
        return vec![at];
    }
    // One page may be what forbids it.
    pages(span)
        .into_iter()
        .flat_map(|at| {
            let window = window + (at - span.start);
            out(lane, Piece { span: Span::new(at, at + PAGE), window, protection })
        })
        .collect()
}

/// As [`super::Mover::back`].
pub(super) fn back(lane: &Lane, piece: Piece) -> Vec<u64> {
    let Piece { span, window, protection } = piece;
    let (at, len) = (span.start, span.len());
    let mut calls = Vec::with_capacity(2);
    if protection != READ_WRITE {
        calls.push(protect(window, len, protection));
    }
    calls.push(remap(window, len, at, false));
    // The lane is free again before pages are tried one by one.
    let made = lane.turn().calls(&calls);
    match made {
        Ok((_, None)) => Vec::new(),
        _ if len > PAGE => pages(span)
            .into_iter()
            .flat_map(|at| {
                let window = window + (at - span.start);
                back(lane, Piece { span: Span::new(at, at + PAGE), window, protection })
            })
            .collect(),
        _ => vec![at],
    }
}

/// As [`super::Mover::across`].
pub(super) fn across(lane: &Lane, to: u64, from: u64, len: u64) -> bool {
    matches!(lane.turn().calls(&[remap(from, len, to, false)]), Ok((_, None)))
}
