//! The vocabulary as tables: types of values and every mapping with its keys. The parser takes
//! known keys and suggestions from here, the JSON Schema and the reference tables of
//! docs/SCENARIOS.md are made from here. Owns words, not their conversion; steps, commands and
//! expectations are in [`super::verbs`].

use super::ast::CpuKind;

/// Types of values, for the schema and the documentation. Everywhere a `$param` may stand instead.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ty {
    /// Arithmetic: `4K`, `2*page`.
    Expr,
    /// Free text.
    Text,
    /// `true` or `false`.
    Bool,
    /// `10ms`, `2s`.
    Time,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A name of something declared.
    Name,
    /// One name or a list.
    Names,
    /// One compact text or a list; the text is the grammar's name of it.
    Compact(&'static str),
    /// Compact text or a mapping of this shape.
    CompactOr(&'static str, &'static Shape),
    /// One or the other.
    Either(&'static Ty, &'static Ty),
    /// A mapping of this shape.
    Shape(&'static Shape),
    /// A mapping from own names to values.
    MapOf(&'static Ty),
    /// The same, or only the names in a list.
    Named(&'static Ty),
    /// A list of steps, or a mapping of this shape.
    StepsOr(&'static Shape),
    /// A list.
    List(&'static Ty),
    /// A list or one of it.
    Many(&'static Ty),
    /// Steps.
    Steps,
    /// GPU commands.
    Commands,
    /// Expectations.
    Expects,
    /// Nothing.
    Nothing,
    /// Anything.
    Any,
}

/// A key of a mapping.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) ty: Ty,
    pub(crate) required: bool,
    pub(crate) doc: &'static str,
}

/// A mapping with known keys.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [Key],
}

/// A word that does something (step, command, expectation), its value, and keys beside it.
#[derive(Debug)]
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    pub(crate) value: Ty,
    pub(crate) beside: &'static [Key],
    pub(crate) example: &'static str,
    pub(crate) doc: &'static str,
}

pub(crate) const fn key(name: &'static str, ty: Ty, doc: &'static str) -> Key {
    Key { name, ty, required: false, doc }
}

pub(crate) const fn must(name: &'static str, ty: Ty, doc: &'static str) -> Key {
    Key { name, ty, required: true, doc }
}

const TIERS: &[&str] = &["smoke", "full", "soak"];

/// The whole scenario.
pub(crate) const SCENARIO: Shape = Shape {
    name: "scenario",
    doc: "One document of a file",
    keys: &[
        must("scenario", Ty::Text, "name, `suite/name`; without `suite/` the file's folder"),
        must("about", Ty::Text, "what it shows, one sentence"),
        key("tier", Ty::Word(TIERS), "when it runs (default `full`)"),
        key(
            "smoke",
            Ty::Many(&Ty::MapOf(&Ty::Any)),
            "combinations that run in tier smoke, the others in `tier`; `*` is any text",
        ),
        key("needs", Ty::Names, "capabilities; if given, all that the steps imply must be there"),
        key("params", Ty::MapOf(&Ty::Any), "parameters, crossed: `name: [values]`"),
        key("cases", Ty::MapOf(&Ty::Any), "a table: each row gives several parameters at once"),
        key("exclude", Ty::Many(&Ty::MapOf(&Ty::Any)), "combinations to leave out"),
        key("base", Ty::Expr, "address 0 of compact ranges (default 0)"),
        key("unit", Ty::Expr, "bytes per unit of compact ranges (default 1)"),
        key("rounds", Ty::Expr, "how often the actors run from the initial state (default 1)"),
        key("timeout", Ty::Time, "longest time of the whole test"),
        key("kernel", Ty::Text, "a case of the kernel's that runs before the device is opened"),
        key("clients", Ty::Named(&Ty::Shape(&CLIENT)), "open files of the device (default `main`)"),
        key("vm", Ty::Shape(&VM), "options of the default VM, called `vm`"),
        key("vms", Ty::Named(&Ty::Shape(&VM)), "several VMs, the first is the default"),
        key("memory", Ty::MapOf(&Ty::CompactOr("memory", &MEMORY)), "memory with names"),
        key("queues", Ty::Named(&Ty::CompactOr("queue", &QUEUE)), "queues (default `queue`: exec)"),
        key("syncobjs", Ty::Named(&Ty::CompactOr("syncobj", &SYNCOBJ)), "syncobjs, or their names"),
        key("barriers", Ty::MapOf(&Ty::Expr), "parties of barriers (default: actors that use it)"),
        key("setup", Ty::Steps, "steps before the counters are read"),
        key("steps", Ty::Steps, "steps of one actor called `main`"),
        key("actors", Ty::MapOf(&Ty::StepsOr(&ACTOR)), "steps that run beside each other"),
        key("after", Ty::Steps, "steps when all actors have ended"),
        must("expect", Ty::Expects, "what must hold at the end"),
        must("evidence", Ty::MapOf(&Ty::Compact("bound")), "counters that must have moved"),
    ],
};

/// An open file.
pub(crate) const CLIENT: Shape = Shape {
    name: "client",
    doc: "An open file of the device",
    keys: &[
        key("process", Ty::Bool, "lives in a process of its own (default false)"),
        key("on", Ty::Word(BESIDE), "another device beside the one under test"),
        key("memory_max", Ty::Expr, "bytes for its process and objects: a memory control group"),
    ],
};

/// Devices beside the one under test.
pub(crate) const BESIDE: &[&str] = &["vgem", "twin"];

/// An address space.
pub(crate) const VM: Shape = Shape {
    name: "vm",
    doc: "A GPU address space",
    keys: &[
        key("client", Ty::Name, "owner (default: the first client)"),
        key("va_end", Ty::Expr, "one past the highest address (default: the device's)"),
        key("hole", Ty::Compact("range"), "range kept from binds, in bytes: `1G..2G`"),
        key("long_running", Ty::Bool, "no dma-fences, user fences instead (default false)"),
        key(
            "fault",
            Ty::Bool,
            "accesses that find nothing in a mirror wait for the driver; implies `long_running`",
        ),
        key("svm", Ty::Bool, "`fault`, with all addresses of the CPU mirrored from the start"),
    ],
};

/// What the CPU may do to memory.
pub(crate) const ACCESS: &[&str] = &["none", "ro", "rw"];

const MEMORY_KINDS: &[&str] = &[
    "vram",
    "system",
    "either",
    "anon",
    "thp",
    "small",
    "zero",
    "shared",
    "memfd",
    "file_shared",
    "file_private",
    "hugetlb",
    "stack",
    "hole",
    "prot_none",
    "device_file",
];

/// Memory.
pub(crate) const MEMORY: Shape = Shape {
    name: "memory",
    doc: "Memory; compact: `KIND SIZE [at ADDRESS] [ro] [zero]`",
    keys: &[
        must("kind", Ty::Word(MEMORY_KINDS), "what it is, see memory kinds"),
        key("size", Ty::Expr, "bytes, a multiple of 4K"),
        key("pages", Ty::Expr, "in place of `size`: number of 4K pages"),
        key(
            "pattern",
            Ty::Expr,
            "`unique` (default for objects), `zero` (for CPU memory), or a word for all places",
        ),
        key("at", Ty::Expr, "bound there from the start: what the name means on the GPU"),
        key("vm", Ty::Name, "VM of `at` (default: the client's first)"),
        key("ro", Ty::Bool, "bound read-only at `at` (default false)"),
        key("access", Ty::Word(ACCESS), "CPU memory: what the CPU may do there (default `rw`)"),
        key("align", Ty::Expr, "CPU memory: begins at a multiple of this, below 2M of no more"),
        key("private", Ty::Name, "a VM that alone may bind it"),
        key("client", Ty::Name, "owner (default: the first client)"),
    ],
};

/// Sizes of the driver's.
pub(crate) const TUNE: Shape = Shape {
    name: "tune",
    doc: "Sizes by which the driver cuts memory that CPU and GPU share",
    keys: &[
        key("notifier", Ty::Expr, "bytes watched by one notifier"),
        key("chunks", Ty::Many(&Ty::Expr), "sizes of ranges in bytes"),
        key("check_pages", Ty::Expr, "ranges up to this size are made of pages that are there"),
        key("fault_entries", Ty::Expr, "entries of the fault buffer"),
        key("fault_batch", Ty::Expr, "faults handled at once"),
        key("mixed", Ty::Bool, "a range may have pages on the device and pages that are not"),
    ],
};

/// The buffer of faults, as it must be.
pub(crate) const FAULT_BUFFER: Shape = Shape {
    name: "fault_buffer",
    doc: "The buffer of faults that wait to be handled",
    keys: &[
        key("pending", Ty::Compact("bound"), "entries that wait"),
        key("paused", Ty::Bool, "nobody handles faults"),
    ],
};

/// A queue.
pub(crate) const QUEUE: Shape = Shape {
    name: "queue",
    doc: "A queue; compact: its class",
    keys: &[
        key("class", Ty::Word(&["exec", "bind"]), "what it does (default `exec`)"),
        key("vm", Ty::Name, "its VM (default: the first)"),
        key("engine", Ty::Expr, "engine to run on (default 0)"),
        key("priority", Ty::Word(&["low", "normal", "high"]), "default `normal`"),
        key("timeout", Ty::Time, "time that a job may run"),
    ],
};

/// A syncobj.
pub(crate) const SYNCOBJ: Shape = Shape {
    name: "syncobj",
    doc: "A syncobj; compact: `signalled` or nothing",
    keys: &[
        key("signalled", Ty::Bool, "created signalled (default false)"),
        key("client", Ty::Name, "owner (default: the first client)"),
    ],
};

/// An actor.
pub(crate) const ACTOR: Shape = Shape {
    name: "actor",
    doc: "Steps beside others; compact: only the list of steps",
    keys: &[
        key("client", Ty::Name, "whose objects it uses (default: the first client)"),
        key("process", Ty::Bool, "a forked process, not a thread (default false)"),
        key("copies", Ty::Expr, "how many of it; `copy` is 0, 1, ... in each (default 1)"),
        must("steps", Ty::Steps, "what it does"),
    ],
};

/// One alternative of `choose`.
pub(crate) const CHOICE: Shape = Shape {
    name: "choice",
    doc: "An alternative of `choose`",
    keys: &[
        key("weight", Ty::Expr, "relative weight (default 1)"),
        must("do", Ty::Steps, "the steps"),
    ],
};

/// A fault.
pub(crate) const FAULT: Shape = Shape {
    name: "fault",
    doc: "A fault as far as it must match; compact: its kind",
    keys: &[
        key("at", Ty::Compact("place"), "address to the byte"),
        key("access", Ty::Word(&["read", "write", "atomic", "fetch"]), "what was tried"),
        key("kind", Ty::Word(FAULT_KINDS), "why it failed"),
    ],
};

/// Names of fault kinds.
pub(crate) const FAULT_KINDS: &[&str] = &["not_present", "permission", "address", "bus", "command"];

/// A fence of a submission or a bind.
pub(crate) const USER_FENCE: Shape = Shape {
    name: "user_fence",
    doc: "A user fence among `signal`",
    keys: &[
        must("user_fence", Ty::Compact("place"), "where 8 bytes are written"),
        must("value", Ty::Expr, "what is written"),
    ],
};

/// A mapping, long form.
pub(crate) const MAPPING: Shape = Shape {
    name: "mapping",
    doc: "A mapping; compact: `RANGE TARGET[+OFFSET] [ro] [kind=N] ...` in units",
    keys: &[
        must("map", Ty::Name, "memory, `null`, `sparse` or `mirror`"),
        must("at", Ty::Expr, "GPU address in bytes"),
        must("size", Ty::Expr, "bytes"),
        key("offset", Ty::Expr, "bytes into the memory (default 0)"),
        key("ro", Ty::Bool, "the GPU may only read (default false)"),
        key("kind", Ty::Expr, "page kind 0 to 255 (default 0)"),
        key("pages", Ty::Expr, "expected: every page-table entry has this size"),
        key("ptes", Ty::List(&Ty::Expr), "expected: number of 2M, 64K and 4K entries"),
        key("preferred", Ty::Word(REGIONS_OR_NONE), "expected: region set by madvise"),
    ],
};

/// A range operation of a bind, long form.
pub(crate) const RANGE_OP: Shape = Shape {
    name: "range_op",
    doc: "A bind operation on a range, in bytes",
    keys: &[
        key("at", Ty::Expr, "GPU address"),
        key("size", Ty::Expr, "bytes"),
        key("unmap", Ty::Word(&["memory", "sparse"]), "unmap, or remove a sparse region"),
        key("prefetch", Ty::Word(REGIONS), "move what is mapped there"),
        key("madvise", Ty::Word(REGIONS_OR_NONE), "prefer a region"),
    ],
};

/// Names of regions.
pub(crate) const REGIONS: &[&str] = &["vram", "system"];
/// The same, or none of them.
pub(crate) const REGIONS_OR_NONE: &[&str] = &["vram", "system", "none"];

/// Kinds of CPU memory by name.
pub(crate) fn cpu_kind(name: &str) -> Option<CpuKind> {
    CpuKind::NAMES.iter().find(|(n, _)| *n == name).map(|(_, kind)| *kind)
}

/// The verb of that name.
pub(crate) fn verb<'a>(verbs: &'a [Verb], name: &str) -> Option<&'a Verb> {
    verbs.iter().find(|v| v.name == name)
}
