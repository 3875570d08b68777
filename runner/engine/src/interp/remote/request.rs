//! What is said between a process and its children that make calls: requests, answers, bounds.

use fencepost_fixtures::area::{AreaSpec, MmCall, Reach};
use fencepost_fixtures::device as dev;
use fencepost_fixtures::device::{AtomicOp, Gem, Program, Queue, Syncobj, Vm, Width};
use fencepost_fixtures::sys::process::Start;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// Longest time that an answer takes: beyond every time-out of a call.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
/// How long a child may take to end when told to.
pub(super) const FAREWELL: Duration = Duration::from_secs(10);
/// Bytes in one message that carries memory.
pub(super) const PIECE: usize = 8 * 1024;

/// A call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Lane,
    Open {
        debug: bool,
    },
    Exit,
    /// Runs the program again; numbers of views and jobs go on from there.
    Again {
        first: usize,
    },
    /// What the open file has from before.
    RecallVm(Vm, dev::VmSpec),
    RecallQueue(Queue, dev::QueueSpec),
    Spawn(Start),
    /// Closes the device's file.
    Close,
    /// Lets the process be dumped.
    AllowDump,
    GemCreate(dev::GemSpec),
    GemClose(Gem),
    GemInfo(Gem),
    GemExport(Gem),
    GemImport,
    MapGem {
        gem: Gem,
        size: u64,
    },
    Area(AreaSpec),
    Reach(Reach),
    Mm(MmCall),
    SvmMigrate(dev::SvmMigrate),
    SvmExclusive(dev::SvmRange),
    SvmQuery(dev::SvmRange),
    SvmSet(dev::SvmRange, dev::SvmChange),
    SvmAttributes(dev::SvmRange),
    SvmTune(dev::SvmTune),
    SvmFaults(dev::SvmFaultAction),
    SvmEvict,
    Load {
        view: usize,
        offset: u64,
        width: Width,
    },
    Store {
        view: usize,
        offset: u64,
        width: Width,
        value: u64,
    },
    Atomic {
        view: usize,
        offset: u64,
        width: Width,
        op: AtomicOp,
        operand: u64,
    },
    Read {
        view: usize,
        offset: u64,
        len: usize,
    },
    Write {
        view: usize,
        offset: u64,
        bytes: Vec<u8>,
    },
    Fill {
        view: usize,
        offset: u64,
        bytes: u64,
        width: Width,
        value: u64,
    },
    VmCreate(dev::VmSpec),
    VmDestroy(Vm),
    Bind(dev::BindCall),
    VaDump(Vm),
    Faults {
        vm: Vm,
        clear: bool,
    },
    Window(Vm),
    QueueCreate(dev::QueueSpec),
    QueueDestroy(Queue),
    QueueInfo(Queue),
    Submit {
        queue: Queue,
        work: Vec<Batch>,
        syncs: Vec<dev::SyncPoint>,
    },
    Finish {
        job: usize,
        timeout: Duration,
    },
    Encode(Program),
    SyncobjCreate(bool),
    SyncobjDestroy(Syncobj),
    SyncobjWait {
        points: Vec<(Syncobj, u64)>,
        flags: [bool; 3],
        timeout: Duration,
    },
    SyncobjReset(Vec<Syncobj>),
    SyncobjSignal(Vec<Syncobj>),
    TimelineSignal(Vec<(Syncobj, u64)>),
    TimelineQuery {
        syncobjs: Vec<Syncobj>,
        last_submitted: bool,
    },
    Transfer {
        from: (Syncobj, u64),
        to: (Syncobj, u64),
        for_submit: bool,
    },
    SyncobjExport {
        syncobj: Syncobj,
        form: dev::SyncForm,
    },
    SyncobjImport,
    SyncFileImport(Syncobj),
    UserFence(dev::UserFenceWait),
    Counters,
    Regions,
    Inject {
        kind: dev::Inject,
        nth: u64,
    },
    Delay {
        point: String,
        action: dev::DelayAction,
    },
    Evict(Option<Gem>),
}

/// A batch of a submission.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Batch {
    Program(Program),
    At { addr: u64, bytes: u32 },
}

/// An answer: a value or an errno.
pub(super) type Answer = Result<Value, i32>;

/// The text of a request.
pub(super) fn encode(request: &Request) -> Vec<u8> {
    serde_json::to_vec(request).expect("requests have string keys only")
}
