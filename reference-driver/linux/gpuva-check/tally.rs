//! What was done and seen, counted: a check that exercised nothing is no check.
//!
//! Owns the counts, their names in an answer, and the recognition of the documented cases.

use crate::gpuvm::{self, Op};
use crate::plan::Request;
use core::fmt;

/// Kinds of request in the order of [`Tally::requests`].
const REQUESTS: [&str; 8] =
    ["map", "unmap", "unmap-object", "prefetch", "madvise", "map-sparse", "unmap-sparse", "find"];
/// Kinds of operation in the order of [`Tally::operations`].
const OPERATIONS: [&str; 6] = ["M", "R", "R(keep)", "U", "U(keep)", "P"];
/// The cases of drm_gpuvm.c, DOC "Split and Merge".
const CASES: usize = 15;

/// The counts.
#[derive(Default)]
pub(crate) struct Tally {
    requests: [u64; REQUESTS.len()],
    operations: [u64; OPERATIONS.len()],
    cases: [u64; CASES],
    /// Refused by both.
    pub(crate) refused: u64,
    /// Refused by core where drm_gpuvm leaves the rule to the driver.
    pub(crate) refused_by_core: u64,
    /// Done and undone by core first.
    pub(crate) rehearsals: u64,
    /// Mapping tables compared.
    pub(crate) tables: u64,
}

impl Tally {
    pub(crate) fn request(&mut self, request: &Request) {
        let kind = match request {
            Request::Map(_) => 0,
            Request::Unmap { .. } => 1,
            Request::UnmapObject { .. } => 2,
            Request::Prefetch { .. } => 3,
            Request::Madvise { .. } => 4,
            Request::MapSparse { .. } => 5,
            Request::UnmapSparse { .. } => 6,
            Request::Find { .. } => 7,
        };
        self.requests[kind] += 1;
    }

    pub(crate) fn operations(&mut self, ops: &[Op]) {
        for op in ops {
            let kind = match (op.kind, op.keep) {
                (gpuvm::MAP, _) => 0,
                (gpuvm::REMAP, 0) => 1,
                (gpuvm::REMAP, _) => 2,
                (gpuvm::UNMAP, 0) => 3,
                (gpuvm::UNMAP, _) => 4,
                _ => 5,
            };
            self.operations[kind] += 1;
        }
    }

    /// Counts the documented case of a map that meets one mapping.
    pub(crate) fn cases(&mut self, ops: &[Op]) {
        let [old, new] = ops else { return };
        let (keep, same_object) = (old.keep == 1, old.map.object == new.map.object);
        let (starts, ends) = (old.map.start == new.map.start, old.map.end == new.map.end);
        let case = match (old.kind, old.has_prev, old.has_next) {
            (gpuvm::UNMAP, _, _) if starts && ends && keep => 1,
            (gpuvm::UNMAP, _, _) if starts && ends && same_object => 2,
            (gpuvm::UNMAP, _, _) if starts && ends => 3,
            (gpuvm::UNMAP, _, _) if starts => 4,
            (gpuvm::UNMAP, _, _) if ends => 13,
            (gpuvm::UNMAP, _, _) => 14,
            (gpuvm::REMAP, 0, _) if starts && keep => 6,
            (gpuvm::REMAP, 0, _) if starts => 5,
            (gpuvm::REMAP, 0, _) => 15,
            (gpuvm::REMAP, _, 0) if ends && keep => 8,
            (gpuvm::REMAP, _, 0) if ends => 7,
            (gpuvm::REMAP, _, 0) if keep => 10,
            (gpuvm::REMAP, _, 0) => 9,
            (gpuvm::REMAP, _, _) if keep => 12,
            (gpuvm::REMAP, _, _) => 11,
            _ => return,
        };
        self.cases[case - 1] += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in REQUESTS.iter().zip(self.requests) {
            writeln!(f, "count request {name}: {count}")?;
        }
        for (name, count) in OPERATIONS.iter().zip(self.operations) {
            writeln!(f, "count operation {name}: {count}")?;
        }
        for (index, count) in self.cases.iter().enumerate() {
            writeln!(f, "count case {}: {count}", index + 1)?;
        }
        writeln!(f, "count refused by both: {}", self.refused)?;
        writeln!(f, "count refused by core's own rules: {}", self.refused_by_core)?;
        writeln!(f, "count undone and done again: {}", self.rehearsals)?;
        writeln!(f, "count tables compared: {}", self.tables)
    }
}
