//! Steps of actors: what each does and what counts as its success. Owns the tree only.
//!
//! A step that finishes with an outcome not listed in [`Step::outcomes`] fails the test. Names are
//! checked before a test is built, so the interpreter may take them as known.

use super::ast::{Memory, Queue, Span, Vm};
use super::expect::{Check, Expect, FaultExpect, Mapping};
use super::expr::Expr;
use super::kernel::KernelStep;
use super::svm::{By, MmStep, SvmStep};
use fencepost_fixtures::sys::process::Start;
use std::sync::Arc;
use std::time::Duration;

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Where it stands.
    pub span: Span,
    /// Its line, counted from 1.
    pub line: u32,
    /// Client whose file is used; none: the actor's.
    pub client: Option<String>,
    /// Outcomes that are right; never empty, `[Outcome::Ok]` unless `expect_errno` is given.
    pub outcomes: Vec<Outcome>,
    /// Repeat it with an injected failure at every step.
    pub inject: Option<InjectEvery>,
    /// What its times are recorded as, besides the names of its operations.
    pub latency: Option<Arc<str>>,
    /// What it does.
    pub action: Action,
}

/// A way in which a step may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Success.
    Ok,
    /// This errno.
    Errno(Errno),
    /// Any errno or success: for random steps.
    Any,
}

/// An error number with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Errno {
    /// As in `errno.h`.
    pub name: &'static str,
    /// Its number on Linux.
    pub code: i32,
}

/// `inject: {alloc: every}`: for k = 1, 2, ... arm the k-th operation of that kind to fail, then
/// run the step. If the failure fired, the step must have ended with one of `outcomes`, and the VA
/// dump of every VM of the client, the words of every object mapped there (read by the GPU), the
/// states of queues and syncobjs, and all `live.*` counters must equal those before; go on with k +
/// 1. If it did not fire, the step must have ended as [`Step::outcomes`] says, and that is the end.
#[derive(Clone, Debug, PartialEq)]
pub struct InjectEvery {
    /// What fails.
    pub kind: InjectKind,
    /// What the step may return when the failure fired; `[ENOMEM]` unless stated.
    pub outcomes: Vec<Outcome>,
    /// Rounds after which the test fails because injection never ends.
    pub limit: u32,
}

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InjectKind {
    /// An allocation of the driver.
    Alloc,
    /// A copy between regions.
    Copy,
    /// A DMA mapping.
    DmaMap,
    /// An asynchronous page-table update.
    AsyncBind,
    /// Memory for the pages of a migration.
    Migrate,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    // ---- sequence ------------------------------------------------------------------------------
    /// Runs the body `times` times; `index` is bound to 0, 1, ... in it.
    Repeat {
        /// How often.
        times: Expr,
        /// Name of the loop index.
        index: Option<String>,
        /// The body.
        body: Vec<Step>,
    },
    /// Runs one of the bodies, picked with the actor's random stream by weight.
    Choose(Vec<Choice>),
    /// Runs the body in an order shuffled with the actor's random stream.
    Shuffle(Vec<Step>),
    /// Meets the other actors.
    Barrier(String),
    /// Checks expectations now.
    Check(Vec<Expect>),

    // ---- CPU -----------------------------------------------------------------------------------
    /// CPU load.
    CpuRead(Read),
    /// CPU store.
    CpuWrite(Write),
    /// CPU stores of one value over a range.
    CpuFill(Fill),
    /// CPU atomic read-modify-write, sequentially consistent.
    CpuAtomic(Atomic),
    /// Writes the device's encoding of a program (without results) by the CPU, to be run as
    /// [`Batch::At`]; what follows it in memory stays. The end of the batch is encoded too.
    CpuProgram {
        /// Where.
        at: Place,
        /// What.
        body: Vec<Command>,
    },
    /// Waits until a word compares, looking at it with CPU loads (acquire); `ETIME` at the
    /// time-out.
    CpuWait(WordWait),

    // ---- GPU -----------------------------------------------------------------------------------
    /// Submits a program. With `finish` it is also waited for and its checks made.
    Submit(Submit),
    /// Waits for a submission to end; makes its checks.
    Finish(Finish),

    // ---- VM ------------------------------------------------------------------------------------
    /// One bind call.
    Bind(Bind),

    // ---- objects -------------------------------------------------------------------------------
    /// Makes an object that is not there from the start.
    Create(Create),
    /// Destroys an object (GEM handle close, VM, queue, syncobj destroy) or closes an fd.
    Destroy(ObjectRef),
    /// Closes a client's file: all it holds is released.
    Close(String),
    /// Makes an fd: PRIME for memory, a syncobj fd or a sync file for a syncobj.
    Export {
        /// What.
        object: ObjectRef,
        /// A sync file with the syncobj's present fence, not the syncobj itself.
        sync_file: bool,
        /// Name of the fd, known to all clients (passed by SCM_RIGHTS to process clients).
        fd: String,
    },
    /// Makes an object from an fd in the step's client.
    Import {
        /// The fd's name.
        fd: String,
        /// New memory, new syncobj (by the kind of the export), or the existing syncobj that a sync
        /// file is imported into.
        object: ObjectRef,
        /// The fd is a sync file.
        sync_file: bool,
    },

    // ---- sync ----------------------------------------------------------------------------------
    /// Waits for syncobjs.
    Wait(Wait),
    /// Signals from the CPU.
    Signal(Vec<Point>),
    /// Resets binary syncobjs.
    Reset(Vec<String>),
    /// Reads timeline values and checks them.
    Query(Vec<(String, Check)>),
    /// Copies a point's fence.
    Transfer {
        /// From.
        from: Point,
        /// To.
        to: Point,
        /// Waits until there is a fence.
        for_submit: bool,
    },
    /// Waits for a user fence by the driver's ioctl.
    WaitUserFence(WordWait),
    /// Makes one sync file of two.
    Merge {
        /// The first.
        first: String,
        /// The second.
        second: String,
        /// Name of the new one.
        fd: String,
    },
    /// Polls an fd.
    Poll {
        /// The fd.
        fd: String,
        /// Longest wait.
        timeout: Duration,
        /// Whether it must be readable in that time.
        ready: bool,
    },

    // ---- debug group ---------------------------------------------------------------------------
    /// Arms one failure for the client's file.
    Inject {
        /// What fails.
        kind: InjectKind,
        /// Which one from now, 1 the next; 0 disarms.
        nth: Expr,
    },
    /// Holds whoever comes by a delay point.
    DelayArm {
        /// Name of the point.
        point: String,
        /// Lets go by itself after this time.
        timeout: Duration,
    },
    /// Waits until somebody is held there.
    DelayWait {
        /// Name of the point.
        point: String,
        /// `ETIME` after this time.
        timeout: Duration,
    },
    /// Lets go and disarms.
    DelayRelease(String),
    /// Evicts an object, or with none every object that may leave VRAM.
    Evict(Option<String>),
    /// Evicts all CPU memory.
    EvictSvm,

    // ---- memory --------------------------------------------------------------------------------
    /// A call by which the process changes its own memory.
    Mm(MmStep),
    /// What a kernel does with pages by itself.
    Kernel(KernelStep),
    /// A call about memory that CPU and device share.
    Svm(SvmStep),

    // ---- processes -----------------------------------------------------------------------------
    /// Forks; the child (with the inherited file) runs the steps and exits, the actor waits for it.
    Fork(Vec<Step>),
    /// Ends the actor; a process actor with `_exit`.
    Exit(i32),
    /// Waits until the process of an actor or process client sleeps inside a call of the driver.
    Blocked {
        /// The actor or client.
        process: String,
        /// `ETIME` after this time.
        timeout: Duration,
    },
    /// SIGKILLs the process of an actor or of a process client, and reaps it.
    Kill(String),
    /// The process runs another program, which keeps its open file.
    Exec,
    /// The process has a child run another program, and waits for its end.
    Spawn(Start),

    // ---- ABI -----------------------------------------------------------------------------------
    /// Runs one generated uAPI case of the device adapter: it knows the errno and compares the
    /// state.
    Abi(String),
}

/// One alternative of a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Relative weight, at least 1.
    pub weight: u32,
    /// What to do.
    pub body: Vec<Step>,
}

/// A place that is read or written.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A byte offset in memory. CPU: through its mapping. GPU: home address plus offset.
    Memory {
        /// The memory.
        name: String,
        /// Byte offset.
        offset: Expr,
    },
    /// A GPU address; GPU commands only.
    Address(Expr),
}

/// Bytes of an access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Width {
    /// 4 bytes.
    Four,
    /// 8 bytes, the default.
    #[default]
    Eight,
}

impl Width {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Width::Four => 4,
            Width::Eight => 8,
        }
    }
}

/// A load.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Where.
    pub at: Place,
    /// How much.
    pub width: Width,
    /// What it must give, beside what the oracle allows anyway.
    pub check: Option<Check>,
    /// Name of the result, known to all later steps of the actor, and at the end to `expect`.
    pub name: Option<String>,
    /// Who reads, if not an instruction of the CPU or a command of the GPU.
    pub by: Option<By>,
}

/// A store.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Where.
    pub at: Place,
    /// What.
    pub value: Expr,
    /// How much.
    pub width: Width,
    /// Who writes, as in [`Read`].
    pub by: Option<By>,
}

/// A fill.
#[derive(Clone, Debug, PartialEq)]
pub struct Fill {
    /// First byte.
    pub at: Place,
    /// Bytes, a multiple of the width.
    pub size: Expr,
    /// Repeated value.
    pub value: Expr,
    /// Its width.
    pub width: Width,
}

/// A read-modify-write.
#[derive(Clone, Debug, PartialEq)]
pub struct Atomic {
    /// Operation.
    pub op: AtomicOp,
    /// Where.
    pub at: Place,
    /// Operand.
    pub value: Expr,
    /// Compare-exchange: the value that the word must have.
    pub compare: Option<Expr>,
    /// How much.
    pub width: Width,
    /// GPU: ordered against the CPU and other devices too (default), not only within the device.
    pub system: bool,
    /// What the old value must be.
    pub check: Option<Check>,
    /// Name of the old value; see [`Read::name`].
    pub name: Option<String>,
}

/// Atomic operations; min and max are unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as in every instruction set")]
pub enum AtomicOp {
    Add,
    Exchange,
    CompareExchange,
    And,
    Or,
    Xor,
    Min,
    Max,
}

/// Waiting for a word: until (`*at & mask`) compares with the value.
#[derive(Clone, Debug, PartialEq)]
pub struct WordWait {
    /// Where.
    pub at: Place,
    /// How it must compare.
    pub compare: Compare,
    /// With what.
    pub value: Expr,
    /// Which bits; none: all.
    pub mask: Option<Expr>,
    /// Longest wait.
    pub timeout: Duration,
    /// User fence: a queue whose ban ends the wait.
    pub queue: Option<String>,
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as everywhere")]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// A submission.
#[derive(Clone, Debug, PartialEq)]
pub struct Submit {
    /// Exec queue; none: the client's default.
    pub queue: Option<String>,
    /// Batches of one submission; empty: synchronisation only.
    pub batches: Vec<Batch>,
    /// Waited for before the first batch.
    pub wait: Vec<Fence>,
    /// Signalled after the last batch.
    pub signal: Vec<Fence>,
    /// Name for `finish`.
    pub name: Option<String>,
    /// Some: wait for the end in this step (`gpu:` and `gpu.*`); none: return at once (`submit:`).
    pub finish: Option<JobEnd>,
    /// Longest wait if `finish`.
    pub timeout: Duration,
}

/// A batch of a submission.
#[derive(Clone, Debug, PartialEq)]
pub enum Batch {
    /// Commands; the adapter places them.
    Program(Vec<Command>),
    /// Whatever stands at a GPU address: put there by `cpu.program`, or rubbish.
    At {
        /// Where.
        at: Place,
        /// Bytes, a multiple of 8.
        size: Expr,
    },
}

/// Waiting for a submission.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// The submission.
    pub job: String,
    /// How it must end.
    pub end: JobEnd,
    /// Longest wait, then the step fails with `ETIME`.
    pub timeout: Duration,
}

/// How a submission must end.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEnd {
    /// All commands done, all checks right.
    Complete,
    /// A fault; the queue is banned. The fault's fields as far as given must match the report.
    Fault(FaultExpect),
    /// It ran longer than the queue allows; the queue is banned.
    TimedOut,
    /// It never ran to its end because its queue went or was banned.
    Cancelled,
}

/// A GPU command.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Load; results are checked when the submission has ended.
    Load(Read),
    /// Store a value.
    Store(Write),
    /// Copy bytes.
    Copy {
        /// Source.
        from: Place,
        /// Target.
        to: Place,
        /// Bytes.
        size: Expr,
    },
    /// Fill.
    Fill(Fill),
    /// Atomic.
    Atomic(Atomic),
    /// Earlier accesses are visible before later ones.
    Fence {
        /// Against the CPU too.
        system: bool,
    },
    /// Wait until the word compares (`Equal` or `GreaterEqual`).
    Wait {
        /// Where.
        at: Place,
        /// How.
        compare: Compare,
        /// With what.
        value: Expr,
        /// Which bits.
        mask: Option<Expr>,
        /// How much.
        width: Width,
    },
    /// Store with release ordering.
    Release(Write),
    /// The device's time in nanoseconds: stored as 8 bytes at the place, or a result.
    Timestamp {
        /// Where to; none: a result.
        at: Option<Place>,
        /// Name of the result.
        name: Option<String>,
    },
    /// Repeat commands.
    Loop {
        /// How often.
        times: Expr,
        /// What.
        body: Vec<Command>,
    },
    /// Nothing.
    Nop,
}

/// A bind call.
#[derive(Clone, Debug, PartialEq)]
pub struct Bind {
    /// The VM; none: the client's default.
    pub vm: Option<String>,
    /// A bind queue; none: the VM's default one.
    pub queue: Option<String>,
    /// Asynchronous.
    pub run_async: bool,
    /// Operations, in order; empty: synchronise only.
    pub ops: Vec<BindOp>,
    /// In-fences.
    pub wait: Vec<Fence>,
    /// Out-fences.
    pub signal: Vec<Fence>,
}

/// An operation of a bind call.
#[derive(Clone, Debug, PartialEq)]
pub enum BindOp {
    /// Map.
    Map(Box<Mapping>),
    /// Unmap a range; with `sparse` exactly that sparse region and all within.
    Unmap {
        /// GPU address.
        addr: Expr,
        /// Bytes.
        size: Expr,
        /// A sparse region.
        sparse: bool,
    },
    /// Unmap every mapping of an object in the VM.
    UnmapAll(String),
    /// Move what is mapped in the range.
    Prefetch {
        /// GPU address.
        addr: Expr,
        /// Bytes.
        size: Expr,
        /// Where to.
        region: Region,
    },
    /// Prefer a region for object-less mappings.
    Madvise {
        /// GPU address.
        addr: Expr,
        /// Bytes.
        size: Expr,
        /// Which; none: no preference.
        region: Option<Region>,
    },
}

/// Memory regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// System memory.
    System,
    /// Device memory.
    Vram,
}

/// A synchronisation point of a submission or bind.
#[derive(Clone, Debug, PartialEq)]
pub enum Fence {
    /// A syncobj, binary or at a timeline point.
    Syncobj(Point),
    /// 8 bytes written when done (signal only). Bind: `at` by the CPU; submit: by the GPU.
    User {
        /// Where.
        at: Place,
        /// What is written.
        value: Expr,
    },
}

/// `s` or `t@5`.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The syncobj.
    pub syncobj: String,
    /// Timeline point; none: binary.
    pub value: Option<Expr>,
}

/// Waiting for syncobjs.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// What for.
    pub points: Vec<Point>,
    /// Until all are signalled (default) or any.
    pub all: bool,
    /// Also wait for fences that are not yet there (`WAIT_FOR_SUBMIT`); without it `EINVAL`.
    pub for_submit: bool,
    /// Only until fences are there (`WAIT_AVAILABLE`).
    pub available: bool,
    /// Longest wait, then `ETIME`.
    pub timeout: Duration,
}

/// An object to create while running.
#[derive(Clone, Debug, PartialEq)]
pub enum Create {
    /// Memory.
    Memory(Box<Memory>),
    /// A VM.
    Vm(Vm),
    /// A queue.
    Queue(Queue),
    /// A syncobj.
    Syncobj {
        /// Its name.
        name: String,
        /// Created signalled.
        signalled: bool,
    },
}

/// A named object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ObjectRef {
    /// Memory (a GEM handle; CPU memory is unmapped).
    Memory(String),
    /// A VM.
    Vm(String),
    /// A queue.
    Queue(String),
    /// A syncobj.
    Syncobj(String),
    /// A file descriptor.
    Fd(String),
}
