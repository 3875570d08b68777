//! What must hold: checks on single values, on address spaces, on queues and counters. Owns the
//! tree only; the oracle and the interpreter evaluate it.

use super::ast::Span;
use super::expr::Expr;
use super::step::{Compare, Place, Region, Width};
use super::svm::{Attributes, PagesExpect, Part, Sees};

/// What a value must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// Compares so with the expression.
    Compare(Compare, Expr),
    /// Is one of these.
    In(Vec<Expr>),
    /// Lies between, ends included.
    Between(Expr, Expr),
}

/// An expectation with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Expect {
    /// Where it stands.
    pub span: Span,
    /// Its line, counted from 1.
    pub line: u32,
    /// What.
    pub kind: ExpectKind,
}

/// Kinds of expectation.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpectKind {
    /// A word has a value; read by the CPU, and by the GPU too where it has a home address.
    Value {
        /// Where.
        at: Place,
        /// How much.
        width: Width,
        /// What.
        check: Check,
        /// Who reads.
        by: Reader,
    },
    /// The VM's mappings are exactly these, in ascending order: checked by the VA dump, and each
    /// piece by GPU reads of its first and last word and words at 4K steps between (a sample of
    /// 64): they give what the oracle says that the object holds at that offset, 0 for NULL and
    /// sparse.
    Maps {
        /// The VM; none: the default.
        vm: Option<String>,
        /// The mappings.
        maps: Vec<Mapping>,
        /// Only look at mappings in these addresses (start, end).
        within: Option<(Expr, Expr)>,
        /// Read each piece by the GPU (default).
        read: bool,
        /// Also check that a GPU read just before the first and just after each piece faults when
        /// nothing is mapped there (each such read costs a queue).
        holes: bool,
    },
    /// Faults recorded for the VM since the counters were read, oldest first; empty: none.
    Faults {
        /// The VM; none: the default.
        vm: Option<String>,
        /// The faults.
        faults: Vec<FaultExpect>,
    },
    /// A queue's state.
    Queue {
        /// The queue.
        name: String,
        /// Banned or active.
        banned: Option<bool>,
        /// Resets that it caused.
        resets: Option<Check>,
        /// Jobs submitted.
        submitted: Option<Check>,
        /// Jobs finished.
        completed: Option<Check>,
    },
    /// A VM is banned (or not): any further bind is `ENOENT`. Asked with a bind call without ops.
    VmBanned {
        /// The VM.
        name: String,
        /// Banned or not.
        banned: bool,
    },
    /// A syncobj is signalled or not (a wait without time-out), or a timeline's value.
    Syncobj {
        /// The syncobj.
        name: String,
        /// Signalled or not.
        signalled: Option<bool>,
        /// Last signalled point.
        value: Option<Check>,
    },
    /// Where an object lives now.
    Resident {
        /// The memory.
        memory: String,
        /// The region.
        region: Region,
    },
    /// CPU and GPU find at each page of memory what the oracle says.
    Sees(Box<Sees>),
    /// Where pages are, and who may use them.
    Pages(Box<PagesExpect>),
    /// Attributes of the first page.
    Attributes {
        /// Of which.
        part: Part,
        /// The VM.
        vm: Option<String>,
        /// As far as they are given.
        attributes: Attributes,
    },
    /// The buffer of faults.
    FaultBuffer {
        /// Entries that wait.
        pending: Option<Check>,
        /// Nobody handles faults.
        paused: Option<bool>,
    },
    /// Counters, as in evidence; but a miss is a failure.
    Counters(Vec<Bound>),
    /// The condition over named results holds in every round. With results that were read several
    /// times in a round: for each set read in one repetition.
    Always(Expr),
    /// The condition holds in no round.
    Never(Expr),
    /// The condition holds in one round at least; else the verdict is inconclusive.
    Sometimes(Expr),
}

/// Who reads a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reader {
    /// The CPU through its mapping; the GPU too if the place has a GPU address.
    #[default]
    Both,
    /// The CPU only.
    Cpu,
    /// The GPU only.
    Gpu,
}

/// A mapping, as requested or as expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// Where it stands.
    pub span: Span,
    /// GPU address.
    pub addr: Expr,
    /// Bytes.
    pub size: Expr,
    /// What is mapped.
    pub target: Target,
    /// The GPU may only read.
    pub readonly: bool,
    /// Page kind.
    pub kind: Expr,
    /// Expected only: page-table entries of 2M, 64K and 4K in the range.
    pub ptes: Option<[Expr; 3]>,
    /// Expected only: every page-table entry has this size.
    pub pages: Option<Expr>,
    /// Expected only: preferred region by madvise; none: not looked at.
    pub preferred: Option<Option<Region>>,
}

/// What is mapped.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Memory from an offset on.
    Memory {
        /// Its name.
        name: String,
        /// Byte offset.
        offset: Expr,
    },
    /// NULL: reads give 0, writes are dropped.
    Null,
    /// A sparse region.
    Sparse,
    /// A mirror of the CPU's addresses (needs `svm`).
    CpuMirror,
}

/// A fault as far as it must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultExpect {
    /// Address to the byte.
    pub at: Option<Place>,
    /// Access.
    pub access: Option<FaultAccess>,
    /// Kind.
    pub kind: Option<FaultKind>,
}

/// Accesses that fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as in the fault report")]
pub enum FaultAccess {
    Read,
    Write,
    Atomic,
    Fetch,
}

/// Kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Nothing is mapped.
    NotPresent,
    /// Read-only.
    Permission,
    /// Outside the address space or misaligned.
    Address,
    /// A stale translation.
    Bus,
    /// A malformed command.
    Command,
}

/// A counter and how much it must have moved; `live.*` counters are taken as they are, all others
/// as the growth since the setup ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Where it stands.
    pub span: Span,
    /// Name of the counter.
    pub counter: String,
    /// What the growth must be.
    pub check: Check,
}
