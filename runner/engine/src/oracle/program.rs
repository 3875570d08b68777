//! A GPU program as the list of accesses that it makes, in order, each with its event.
//!
//! Loops are unrolled up to a bound; beyond it a body of one atomic becomes one event that happens
//! many times, and any other body makes what it writes unknown.

use super::clock::{Clocks, Event, Timeline};
use super::memory::Origin;
use fencepost_fixtures::device::{AtomicOp, Compare, GpuOp, Program, Scope, Width};

/// A result of a submission: number of the program, number in it.
pub type ResultIndex = (usize, usize);

/// One access of a job.
#[derive(Clone, Debug)]
pub struct Access {
    /// When.
    pub at: Event,
    /// Which command.
    pub origin: Origin,
    /// What.
    pub kind: Kind,
}

/// Kinds of access. Addresses and lengths are in bytes.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "fields are those of the GPU operations")]
pub enum Kind {
    /// A load.
    Load { addr: u64, width: Width, result: Option<ResultIndex> },
    /// A store; with release ordering after a fence or as a semaphore release.
    Store { addr: u64, width: Width, value: Stored, release: bool },
    /// A fill.
    Fill { addr: u64, bytes: u64, value: u64, width: Width },
    /// A copy.
    Copy { src: u64, dst: u64, bytes: u64 },
    /// An atomic.
    Atomic {
        addr: u64,
        width: Width,
        op: AtomicOp,
        operand: u64,
        scope: Scope,
        times: u32,
        release: bool,
        result: Option<ResultIndex>,
    },
    /// A semaphore wait.
    Wait { addr: u64, width: Width, value: u64, mask: u64, compare: Compare },
    /// A store of a value that is not modelled.
    Unknown { addr: u64, bytes: u64 },
    /// The fetch of a batch that stands in memory of the scenario.
    Fetch { addr: u64, bytes: u64 },
    /// A command that always faults.
    Bad,
    /// Words that nobody knows as commands: they may fault in any way, and write nothing.
    Opaque,
}

/// What a store puts.
#[derive(Clone, Copy, Debug)]
pub enum Stored {
    /// A number.
    Value(u64),
    /// A result plus a number.
    Result(ResultIndex, u64),
}

/// How an access uses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Does both.
    Atomic,
    /// Fetches commands.
    Fetch,
}

impl Access {
    /// The addresses used, with how: (start, length, use, alignment). A copy has two.
    #[must_use]
    pub fn ranges(&self) -> Vec<(u64, u64, Use, u64)> {
        match &self.kind {
            Kind::Load { addr, width, .. } | Kind::Wait { addr, width, .. } => {
                vec![(*addr, width.bytes(), Use::Read, width.bytes())]
            }
            Kind::Store { addr, width, .. } => {
                vec![(*addr, width.bytes(), Use::Write, width.bytes())]
            }
            Kind::Atomic { addr, width, .. } => {
                vec![(*addr, width.bytes(), Use::Atomic, width.bytes())]
            }
            Kind::Fill { addr, bytes, .. } => vec![(*addr, *bytes, Use::Write, 1)],
            Kind::Unknown { addr, bytes } => vec![(*addr, *bytes, Use::Write, 1)],
            Kind::Copy { src, dst, bytes } => {
                vec![(*src, *bytes, Use::Read, 1), (*dst, *bytes, Use::Write, 1)]
            }
            Kind::Fetch { addr, bytes } => vec![(*addr, *bytes, Use::Fetch, 8)],
            Kind::Bad | Kind::Opaque => Vec::new(),
        }
    }
}

/// Most accesses of one job that are told apart.
const MAX_ACCESSES: usize = 1 << 14;

/// Lists the accesses of a program. `origins` has one entry for each of its operations.
pub fn expand(
    clocks: &mut Clocks,
    line: Timeline,
    number: usize,
    program: &Program,
    origins: &[Origin],
) -> Vec<Access> {
    let mut expansion = Expansion { clocks, line, number, list: Vec::new(), fenced: false };
    let mut result = 0;
    for (index, op) in program.ops.iter().enumerate() {
        let origin = origins.get(index).copied().unwrap_or_default();
        expansion.op(op, origin, result, true);
        result += op.results();
    }
    expansion.list
}

struct Expansion<'a> {
    clocks: &'a mut Clocks,
    line: Timeline,
    number: usize,
    list: Vec<Access>,
    fenced: bool,
}

impl Expansion<'_> {
    /// `last` is false in all rounds of a loop but its last, whose results are the ones kept.
    fn op(&mut self, op: &GpuOp, origin: Origin, result: usize, last: bool) {
        let index = last.then_some((self.number, result));
        let kind = match op {
            GpuOp::Nop => return,
            GpuOp::Fence { .. } => {
                self.fenced = true;
                return;
            }
            GpuOp::Loop { times, body } => return self.repeat(*times, body, origin, result, last),
            GpuOp::Timestamp { addr: None } => return,
            GpuOp::Timestamp { addr: Some(addr) } => Kind::Unknown { addr: *addr, bytes: 8 },
            GpuOp::Store { addr, value, width } => Kind::Store {
                addr: *addr,
                width: *width,
                value: Stored::Value(*value),
                release: self.fenced,
            },
            GpuOp::SemaphoreRelease { addr, value, width } => Kind::Store {
                addr: *addr,
                width: *width,
                value: Stored::Value(*value),
                release: true,
            },
            GpuOp::StoreResult { addr, result, add, width } => Kind::Store {
                addr: *addr,
                width: *width,
                value: Stored::Result((self.number, *result), *add),
                release: self.fenced,
            },
            GpuOp::Load { addr, width } => Kind::Load { addr: *addr, width: *width, result: index },
            GpuOp::Copy { src, dst, bytes } => Kind::Copy { src: *src, dst: *dst, bytes: *bytes },
            GpuOp::Fill { addr, bytes, value, width } => {
                Kind::Fill { addr: *addr, bytes: *bytes, value: *value, width: *width }
            }
            GpuOp::Atomic { addr, op, operand, width, scope } => Kind::Atomic {
                addr: *addr,
                width: *width,
                op: *op,
                operand: *operand,
                scope: *scope,
                times: 1,
                release: self.fenced,
                result: index,
            },
            GpuOp::SemaphoreWait { addr, value, mask, compare, width } => Kind::Wait {
                addr: *addr,
                width: *width,
                value: *value,
                mask: *mask,
                compare: *compare,
            },
            GpuOp::Bad => Kind::Bad,
        };
        self.push(kind, origin);
    }

    fn push(&mut self, kind: Kind, origin: Origin) {
        let wait = matches!(kind, Kind::Wait { .. });
        let at = self.clocks.tick(self.line);
        self.list.push(Access { at, origin, kind });
        if wait {
            // What the release's writer knew is learnt when the job has ended.
            self.clocks.fork(self.line);
        }
    }

    fn repeat(&mut self, times: u32, body: &[GpuOp], origin: Origin, result: usize, last: bool) {
        if let [GpuOp::Atomic { addr, op, operand, width, scope }] = body
            && times > 1
        {
            let result = (last && times == 1).then_some((self.number, result));
            let (addr, op, operand, width, scope) = (*addr, *op, *operand, *width, *scope);
            let release = self.fenced;
            return self.push(
                Kind::Atomic { addr, width, op, operand, scope, times, release, result },
                origin,
            );
        }
        let before = self.list.len();
        for round in 1..=times {
            if self.list.len() + (self.list.len() - before) / round as usize > MAX_ACCESSES {
                return self.give_up(before, origin);
            }
            let mut result = result;
            for op in body {
                self.op(op, origin, result, last && round == times);
                result += op.results();
            }
        }
    }

    /// Too long to follow: what the loop writes is not modelled.
    fn give_up(&mut self, from: usize, origin: Origin) {
        let mut written: Vec<(u64, u64)> = self.list[from..]
            .iter()
            .flat_map(Access::ranges)
            .filter(|(.., usage, _)| matches!(usage, Use::Write | Use::Atomic))
            .map(|(addr, bytes, ..)| (addr, bytes))
            .collect();
        written.sort_unstable();
        written.dedup();
        for (addr, bytes) in written {
            self.push(Kind::Unknown { addr, bytes }, origin);
        }
    }
}
