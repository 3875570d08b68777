//! What a scenario means, after parameters are expanded and names are checked: the seam between
//! the language and the interpreter. Owns declarations (clients, VMs, memory, queues, actors);
//! steps are in [`super::step`], what must hold in [`super::expect`].
//!
//! How a test runs:
//! 1. Clients open the device; VMs, memory, queues, syncobjs are made in the order of the lists
//!    here. Memory with a home address is bound. Then the `setup` steps run, one after the other.
//! 2. Counters are read: evidence and `counters` expectations count from here.
//! 3. All actors start together and run their steps; `rounds` times, with every object's content
//!    set back to its initial pattern before each round but the first.
//! 4. After each round, when all actors have ended, the `after` steps run and then the `expect`
//!    list is checked; after the last round the evidence is.
//! 5. Everything is closed, and the leak counters must be 0.

use super::expect::{Bound, Expect};
use super::expr::Expr;
use super::step::Step;
use fencepost_fixtures::area::Protection;
use std::fmt;
use std::time::Duration;

/// A place in the scenario's text, in bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// When a test is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Seconds for all of them together.
    Smoke,
    /// The ordinary case.
    #[default]
    Full,
    /// Only when asked for: minutes each.
    Soak,
}

/// One variant of a scenario with every parameter filled in: what the interpreter runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// `suite@scenario@variant`, or `suite@scenario` when there is one variant only.
    pub name: String,
    /// What the scenario shows, one sentence.
    pub about: String,
    /// When it runs.
    pub tier: Tier,
    /// A case of the device's kernel that runs before anything is opened.
    pub kernel: Option<String>,
    /// Capabilities without which it is skipped, all that the steps imply included.
    pub needs: Vec<String>,
    /// How often the actors run from the initial state; at least 1.
    pub rounds: u32,
    /// Longest time the whole test may take; none: the runner's.
    pub timeout: Option<Duration>,
    /// Open files of the device; never empty, the first is the default.
    pub clients: Vec<Client>,
    /// GPU address spaces; the first of a client is its default. Empty if nothing uses one.
    pub vms: Vec<Vm>,
    /// Memory.
    pub memory: Vec<Memory>,
    /// Queues; the first exec queue of a client is its default.
    pub queues: Vec<Queue>,
    /// DRM syncobjs.
    pub syncobjs: Vec<Syncobj>,
    /// Barriers.
    pub barriers: Vec<Barrier>,
    /// Run before the counters are read, by the first client.
    pub setup: Vec<Step>,
    /// Never empty. `steps:` is one actor called `main`.
    pub actors: Vec<Actor>,
    /// Run by the first client when all actors have ended.
    pub after: Vec<Step>,
    /// What must hold at the end of each round.
    pub expect: Vec<Expect>,
    /// Counters that must have moved, else the verdict is inconclusive.
    pub evidence: Vec<Bound>,
}

/// An open file of the device.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// Its name; `main` if the scenario declares none.
    pub name: String,
    /// It lives in a process of its own: a child that opens the device itself, makes the client's
    /// objects, and runs its actors as threads. Only `export`/`import` steps, barriers and `shared`
    /// memory connect it with the others.
    pub process: bool,
    /// A file of another device beside the one under test: `vgem`, `twin`.
    pub on: Option<String>,
    /// Bytes that its process' memory control group may hold.
    pub memory_max: Option<u64>,
    /// Opened for testing (debug group); set when a step needs it.
    pub debug: bool,
    /// Where it is declared.
    pub span: Span,
}

/// A GPU address space.
#[derive(Clone, Debug, PartialEq)]
pub struct Vm {
    /// Its name; `vm` if the scenario declares none.
    pub name: String,
    /// Owner.
    pub client: String,
    /// One past the highest address; none: the device's.
    pub va_end: Option<Expr>,
    /// Kernel-reserved hole: start and size in bytes.
    pub hole: Option<(Expr, Expr)>,
    /// Long-running: no dma-fences, user fences instead.
    pub long_running: bool,
    /// Accesses that find nothing in a mirror wait for the driver to handle the fault.
    pub fault: bool,
    /// All addresses of the CPU are mirrored from the start.
    pub mirror: bool,
    /// Where it is declared.
    pub span: Span,
}

/// A piece of memory with a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: MemoryKind,
    /// Size in bytes, a multiple of 4 KiB.
    pub size: Expr,
    /// Initial content of each round.
    pub pattern: Pattern,
    /// CPU memory: permissions at first.
    pub access: Protection,
    /// CPU memory: it begins at a multiple of this, below 2 MiB at no multiple of more.
    pub align: Option<Expr>,
    /// Owner of the buffer object or of the CPU mapping.
    pub client: String,
    /// VM and address where a buffer object is bound before `setup` runs: what its name means in
    /// GPU commands. None: GPU commands reach it by address only.
    pub home: Option<Home>,
    /// Where it is declared.
    pub span: Span,
}

/// Where memory is bound from the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Home {
    /// The VM.
    pub vm: String,
    /// The GPU address.
    pub addr: Expr,
    /// Bound read-only.
    pub readonly: bool,
}

/// Kinds of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// A buffer object of the device.
    Bo {
        /// Where it may live: device memory, system memory, or both (device first).
        vram: bool,
        /// See `vram`.
        system: bool,
        /// The VM that it is private to (shares its reservation, cannot be exported).
        private: Option<String>,
    },
    /// CPU memory that the device reaches through SVM, or that only the CPU uses (user fences).
    Cpu(CpuKind),
}

/// Kinds of CPU memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuKind {
    /// Private anonymous.
    Anon,
    /// Private anonymous in transparent huge pages.
    Thp,
    /// Private anonymous in pages of the smallest size.
    Small,
    /// Private anonymous, read but never written: the shared zero page.
    Zero,
    /// Anonymous, shared with the processes of the test (in all of them from the start).
    Shared,
    /// A memfd mapping, shared.
    Memfd,
    /// A file, shared.
    FileShared,
    /// A file, private (copy-on-write).
    FilePrivate,
    /// hugetlb pages.
    Hugetlb,
    /// Memory that grows down, as a stack does.
    Stack,
    /// Nothing is mapped at its address.
    Hole,
    /// Mapped without any permission.
    ProtNone,
    /// A mapping of a device file.
    DeviceFile,
}

impl CpuKind {
    /// All kinds with the name used in scenarios.
    pub const NAMES: &'static [(&'static str, CpuKind)] = &[
        ("anon", CpuKind::Anon),
        ("thp", CpuKind::Thp),
        ("small", CpuKind::Small),
        ("zero", CpuKind::Zero),
        ("shared", CpuKind::Shared),
        ("memfd", CpuKind::Memfd),
        ("file_shared", CpuKind::FileShared),
        ("file_private", CpuKind::FilePrivate),
        ("hugetlb", CpuKind::Hugetlb),
        ("stack", CpuKind::Stack),
        ("hole", CpuKind::Hole),
        ("prot_none", CpuKind::ProtNone),
        ("device_file", CpuKind::DeviceFile),
    ];

    /// What it is, in a few words.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            CpuKind::Anon => "private anonymous CPU memory",
            CpuKind::Thp => "the same in transparent huge pages",
            CpuKind::Small => "the same without huge pages",
            CpuKind::Zero => "the shared zero page: anonymous memory that was only read",
            CpuKind::Shared => "anonymous memory shared by all processes of the test",
            CpuKind::Memfd => "a memfd, shared",
            CpuKind::FileShared => "a file, shared",
            CpuKind::FilePrivate => "a file, private (copy-on-write)",
            CpuKind::Hugetlb => "hugetlb pages",
            CpuKind::Stack => "memory that grows down, as a stack does",
            CpuKind::Hole => "addresses where nothing is mapped",
            CpuKind::ProtNone => "mapped without any permission",
            CpuKind::DeviceFile => "a mapping of a device file",
        }
    }
}

/// What memory holds at first, as 8-byte little-endian words. Buffer objects are `Unique` unless
/// the scenario says otherwise, CPU memory is `Zero`.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// Zeros: whatever the device gives, which must be zeros.
    Zero,
    /// Every word different, and different in every object; see [`pattern_word`].
    Unique,
    /// The same word everywhere.
    Word(Expr),
}

/// Word at a byte offset of an object with [`Pattern::Unique`]; `index` counts the test's memory
/// list from 0. Never 0, and its lowest 48 bits alone tell object and offset.
#[must_use]
pub fn pattern_word(index: usize, offset: u64) -> u64 {
    let place = ((index as u64 + 1) << 40) | (offset >> 3);
    (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) & 0xFFFF_0000_0000_0000) | place
}

/// A queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// Its name; `queue` if the scenario declares none and needs one.
    pub name: String,
    /// The VM that it works in (and so the client).
    pub vm: String,
    /// What it does.
    pub class: QueueClass,
    /// Engine to run on.
    pub engine: u32,
    /// 0 low, 1 normal, 2 high.
    pub priority: u32,
    /// Time a job may run; none: the driver's default.
    pub timeout: Option<Duration>,
    /// Where it is declared.
    pub span: Span,
}

/// Classes of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueClass {
    /// Runs batches.
    Exec,
    /// Orders binds.
    Bind,
}

/// A DRM syncobj, binary or timeline as its user wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Syncobj {
    /// Its name.
    pub name: String,
    /// Owner.
    pub client: String,
    /// Created signalled.
    pub signalled: bool,
    /// Where it is declared.
    pub span: Span,
}

/// A barrier: the first `parties - 1` who come wait for the last; reusable.
#[derive(Clone, Debug, PartialEq)]
pub struct Barrier {
    /// Its name.
    pub name: String,
    /// How many actors meet there.
    pub parties: u32,
}

/// A sequence of steps that runs beside the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Actor {
    /// Its name.
    pub name: String,
    /// Whose objects its steps use by default.
    pub client: String,
    /// It is a process forked when the actors start (it inherits the client's file), not a thread.
    pub process: bool,
    /// How many copies run beside each other; at least 1. The variable `copy` counts them from 0.
    pub copies: u32,
    /// What it does.
    pub steps: Vec<Step>,
    /// Where it is declared.
    pub span: Span,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Smoke => "smoke",
            Tier::Full => "full",
            Tier::Soak => "soak",
        })
    }
}

impl Test {
    /// The memory of that name.
    #[must_use]
    pub fn memory(&self, name: &str) -> Option<&Memory> {
        self.memory.iter().find(|m| m.name == name)
    }

    /// The VM that a client's steps use unless they name one.
    #[must_use]
    pub fn default_vm(&self, client: &str) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.client == client)
    }

    /// The VM of that name.
    #[must_use]
    pub fn vm(&self, name: &str) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.name == name)
    }

    /// The exec queue that a client's GPU steps use unless they name one.
    #[must_use]
    pub fn default_queue(&self, client: &str) -> Option<&Queue> {
        self.queues.iter().find(|queue| {
            let owner = self.vm(&queue.vm).map(|vm| vm.client.as_str());
            queue.class == QueueClass::Exec && owner == Some(client)
        })
    }
}
