//! Rounds of the check, and what is told of one that found a difference.
//!
//! Owns the shrinking: requests are left out for as long as both managers still part, so that what
//! is shown is short enough to be read and to become a test of core.

use crate::check::{Difference, Lists, Round, Source, Stop};
use crate::gpuvm::{self, Map, Op};
use crate::plan::{Plan, Shape, Step};
use crate::tally::Tally;
use core::fmt::{self, Write};
use kernel::alloc::KVVec;
use kernel::prelude::*;

/// Requests in a round.
const STEPS: usize = 2_000;
/// Tables are compared after so many requests.
const EVERY: usize = 64;

/// What to check.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) seed: u64,
    pub(crate) first_round: u64,
    /// Requests in all; rounds of [`STEPS`].
    pub(crate) requests: u64,
}

/// Does the rounds and writes the answer: `equal` and counts, or `different` and all about it.
pub(crate) fn check(order: &Order, answer: &mut impl Write) -> Result {
    let mut lists = Lists::new()?;
    let mut tally = Tally::default();
    let (mut round, mut left) = (order.first_round, order.requests);
    while left > 0 {
        let mut plan = Plan::new(order.seed, round);
        let count = left.min(STEPS as u64) as usize;
        let mut steps = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            steps.push(plan.next(), GFP_KERNEL)?;
        }
        let found = run(plan.shape, &steps, EVERY, &mut lists, &mut tally)?;
        if let Some(found) = found {
            writeln!(answer, "different")?;
            writeln!(answer, "seed {} round {round} request {}", order.seed, found.step)?;
            return explain(plan.shape, steps, &found, &mut lists, answer);
        }
        (round, left) = (round + 1, left - count as u64);
    }
    writeln!(answer, "equal")?;
    write!(answer, "{tally}")?;
    Ok(())
}

fn run(
    shape: Shape,
    steps: &[Step],
    every: usize,
    lists: &mut Lists,
    tally: &mut Tally,
) -> Result<Option<Difference>> {
    match Round::new(shape, lists, tally)?.run(steps, every) {
        Ok(()) => Ok(None),
        Err(Stop::Differ(difference)) => Ok(Some(difference)),
        Err(Stop::Trouble(error)) => Err(error),
    }
}

/// Leaves out what is not needed for a difference, large parts first.
fn shrink(shape: Shape, mut steps: KVVec<Step>, lists: &mut Lists) -> Result<KVVec<Step>> {
    let mut tally = Tally::default();
    let mut part = steps.len().div_ceil(2);
    while part > 0 {
        let (mut at, mut less) = (0, false);
        while at < steps.len() {
            let end = (at + part).min(steps.len());
            let mut rest = KVVec::with_capacity(steps.len(), GFP_KERNEL)?;
            rest.extend_from_slice(&steps[..at], GFP_KERNEL)?;
            rest.extend_from_slice(&steps[end..], GFP_KERNEL)?;
            match run(shape, &rest, 1, lists, &mut tally)? {
                Some(found) => {
                    rest.truncate(found.step + 1);
                    (steps, less) = (rest, true);
                }
                None => at = end,
            }
        }
        if !less || part > 1 {
            part /= 2;
        }
    }
    for at in 0..steps.len() {
        let before = core::mem::replace(&mut steps[at].rehearse, false);
        if before && run(shape, &steps, 1, lists, &mut tally)?.is_none() {
            steps[at].rehearse = true;
        }
    }
    Ok(steps)
}

fn explain(
    shape: Shape,
    mut steps: KVVec<Step>,
    first: &Difference,
    lists: &mut Lists,
    answer: &mut impl Write,
) -> Result {
    steps.truncate(first.step + 1);
    let steps = shrink(shape, steps, lists)?;
    let mut tally = Tally::default();
    let (span, hole) = (shape.span, shape.hole);
    write!(answer, "VA space [{:#x},{:#x}), ", span.0, span.1)?;
    writeln!(answer, "hole [{:#x},{:#x}), {} objects", hole.0, hole.1, shape.objects)?;
    writeln!(answer, "the shortest sequence found that shows it, {} requests:", steps.len())?;
    for (index, step) in steps.iter().enumerate() {
        writeln!(answer, "  {} {step}", index + 1)?;
    }
    if let Some((_, before)) = steps.split_last() {
        writeln!(answer, "mapped before the last one:")?;
        let mut round = Round::new(shape, lists, &mut tally)?;
        if round.run(before, usize::MAX).is_ok() {
            show(round.table(), answer)?;
        }
    }
    let Some(found) = run(shape, &steps, 1, lists, &mut tally)? else {
        writeln!(answer, "it is not seen again: the managers depend on more than the requests")?;
        return Ok(());
    };
    writeln!(answer, "{}", found.what)?;
    if found.errors != [0; 2] {
        writeln!(answer, "  core {}, expected {}", found.errors[0], found.errors[1])?;
    }
    for source in found.lists.iter().flatten() {
        let name = match source {
            Source::CoreList => "core, as a list",
            Source::CoreTold => "core, as it happens",
            Source::KernelList => "drm_gpuvm, as a list",
            Source::KernelTold => "drm_gpuvm, as it happens",
        };
        writeln!(answer, "{name}:")?;
        show(lists.of(*source).ops(), answer)?;
    }
    Ok(())
}

/// Most operations shown of a list.
const SHOWN: usize = 100;

fn show(ops: &[Op], answer: &mut impl Write) -> fmt::Result {
    for op in ops.iter().take(SHOWN) {
        writeln!(answer, "  {op}")?;
    }
    if ops.len() > SHOWN {
        writeln!(answer, "  and {} more", ops.len() - SHOWN)?;
    }
    Ok(())
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object {
            0 => write!(f, "[{:#x},{:#x}) null", self.start, self.end),
            object => {
                write!(f, "[{:#x},{:#x}) object {object}", self.start, self.end)?;
                write!(f, " offset {:#x}", self.offset)
            }
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            gpuvm::MAP => "M",
            gpuvm::REMAP => "R",
            gpuvm::UNMAP => "U",
            _ => "P",
        };
        write!(f, "{name}{} {}", if self.keep == 0 { "" } else { "(keep)" }, self.map)?;
        if self.has_prev != 0 {
            write!(f, " prev {}", self.prev)?;
        }
        if self.has_next != 0 {
            write!(f, " next {}", self.next)?;
        }
        Ok(())
    }
}
