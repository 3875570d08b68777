//! The verbs as tables: steps, GPU commands and expectations with their values, the keys beside
//! them, an example and the meaning. Owns words, not their conversion; the types of values are in
//! [`super::grammar`].

use super::grammar::{
    ACCESS, CHOICE, FAULT, FAULT_BUFFER, Key, MAPPING, MEMORY, QUEUE, RANGE_OP, REGIONS,
    REGIONS_OR_NONE, SYNCOBJ, TUNE, Ty, USER_FENCE, VM, Verb, key, must,
};
use super::step::AtomicOp;
use super::svm;

/// The words of a table of words and what they mean.
const fn words<T, const N: usize>(table: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut i = 0;
    while i < N {
        words[i] = table[i].0;
        i += 1;
    }
    words
}

const WIDTH: Key = key("width", Ty::Word(&["4", "8"]), "bytes of the access (default 8)");
pub(crate) const NAME_RESULT: Key = key("as", Ty::Text, "name of the result");
pub(crate) const TIMEOUT: Key = key("timeout", Ty::Time, "longest wait (default 10s)");
const DO: Key = must("do", Ty::Steps, "the steps");
const EQUALS: Key = key("equals", Ty::Expr, "must be this");
const IN: Key = key("in", Ty::List(&Ty::Expr), "must be one of these");
const BETWEEN: Key = key("between", Ty::List(&Ty::Expr), "must lie between the two, ends included");
pub(crate) const SIZE: Key = key("size", Ty::Expr, "bytes (default: to the end of the memory)");
const IN_VM: Key = key("vm", Ty::Name, "the VM (default: the client's first)");
pub(crate) const PAGES: Key = key("pages", Ty::Compact("bound"), "how many pages it must be");
const BY: Key =
    key("by", Ty::Word(ACCESSED_BY_WORDS), "the kernel for somebody, not an instruction");
/// Ways to memory beside instructions.
pub(crate) const ACCESSED_BY_WORDS: &[&str] = &words(&svm::ACCESSED_BY);
/// Ways to start a program.
pub(crate) const STARTS: &[&str] = &["vfork", "fork"];
/// Nodes of memory.
pub(crate) const NODES: &[&str] = &["0", "1"];
/// States of pages that the kernel counts.
pub(crate) const TOLD_WORDS: &[&str] = &words(&svm::TOLD);
/// Words of advice, as `madvise` takes it.
pub(crate) const ADVICE_WORDS: &[&str] = &words(&svm::ADVICE);
/// Words for CPU memory.
pub(crate) const CPU_KINDS: &[&str] = &[
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
    "device_file",
];
/// What a userfaultfd can be told of.
pub(crate) const TRAP_WORDS: &[&str] = &words(&svm::TRAPS);
/// Words for which atomics a range is for.
pub(crate) const ATOMIC_MODES: &[&str] = &["undefined", "device", "global", "cpu"];
/// Words for what a migration may take.
pub(crate) const POLICIES: &[&str] = &["all", "system_only"];
const PREFERRED: Key =
    key("preferred", Ty::Word(REGIONS_OR_NONE), "region preferred when a fault maps a page");
const ATOMIC: Key = key("atomic", Ty::Word(ATOMIC_MODES), "which atomics it is for");
const POLICY: Key = key("policy", Ty::Word(POLICIES), "what a migration by the driver may take");
const TIMESLICE: Key = key("timeslice", Ty::Time, "how long a page stays on the device at least");
const SUBMIT_KEYS: &[Key] = &[
    key("queue", Ty::Name, "exec queue (default: the client's first)"),
    key("wait", Ty::Names, "fences to wait for before"),
    key("signal", Ty::Many(&Ty::CompactOr("fence", &USER_FENCE)), "fences to signal after"),
    key("as", Ty::Text, "name of the job, for `finish`"),
    key("ends", Ty::Word(&["complete", "fault", "timeout", "cancelled"]), "how it must end"),
    key("expect_fault", Ty::CompactOr("fault kind", &FAULT), "it must fault so"),
    TIMEOUT,
];

/// Keys that every step takes.
pub(crate) const STEP_KEYS: &[Key] = &[
    key("expect_errno", Ty::Names, "errnos that are right (with `ok`: success too; `any`: all)"),
    key("client", Ty::Name, "whose file is used (default: the actor's)"),
    key("when", Ty::MapOf(&Ty::Any), "only in variants with these parameter values"),
    key("inject", Ty::MapOf(&Ty::Any), "`{ alloc: every }`: repeat with each allocation failing"),
    key("latency", Ty::Text, "its times are recorded apart, as `OPERATION:` and this"),
];

/// What can be done to the buffer of faults.
pub(crate) const FAULT_ACTIONS: &[&str] = &["pause", "resume", "flush", "wait"];

/// Kinds of injected failure.
pub(crate) const INJECT_KINDS: &[&str] = &["alloc", "copy", "dma_map", "async_bind", "migrate"];

/// Steps.
pub(crate) const STEPS: &[Verb] = &[
    Verb {
        name: "repeat",
        value: Ty::Expr,
        beside: &[DO, key("as", Ty::Text, "name of the index, 0, 1, ...")],
        example: "repeat: 8, as: i, do: [ ... ]",
        doc: "does the steps so many times",
    },
    Verb {
        name: "choose",
        value: Ty::List(&Ty::Shape(&CHOICE)),
        beside: &[],
        example: "choose: [ { weight: 3, do: [ ... ] }, { do: [ ... ] } ]",
        doc: "does one of the alternatives, at random by weight",
    },
    Verb {
        name: "shuffle",
        value: Ty::Steps,
        beside: &[],
        example: "shuffle: [ ... ]",
        doc: "does the steps in random order",
    },
    Verb {
        name: "barrier",
        value: Ty::Name,
        beside: &[],
        example: "barrier: bound",
        doc: "waits until all actors that use the barrier are there",
    },
    Verb {
        name: "check",
        value: Ty::Expects,
        beside: &[],
        example: "check: [ { maps: [ 0..1 a ] } ]",
        doc: "checks expectations now",
    },
    Verb {
        name: "cpu.read",
        value: Ty::Compact("read"),
        beside: &[WIDTH, NAME_RESULT, EQUALS, IN, BETWEEN, BY],
        example: "cpu.read: a+8 == 5",
        doc: "CPU load; beside what it must give, the oracle checks it anyway",
    },
    Verb {
        name: "cpu.write",
        value: Ty::Compact("write"),
        beside: &[WIDTH, BY],
        example: "cpu.write: a+8 = 5",
        doc: "CPU store",
    },
    Verb {
        name: "cpu.fill",
        value: Ty::Compact("write"),
        beside: &[WIDTH, key("size", Ty::Expr, "bytes (default: to the end of the memory)")],
        example: "cpu.fill: a = 7, size: 4K",
        doc: "CPU stores over a range",
    },
    Verb {
        name: "cpu.wait",
        value: Ty::Compact("condition"),
        beside: &[WIDTH, TIMEOUT, key("mask", Ty::Expr, "which bits (default all)")],
        example: "cpu.wait: a >= 5",
        doc: "looks at a word until it compares; `ETIME`",
    },
    Verb {
        name: "cpu.program",
        value: Ty::Compact("place"),
        beside: &[must("do", Ty::Commands, "the commands")],
        example: "cpu.program: a, do: [ { store: b = 1 } ]",
        doc: "writes a GPU program into memory by the CPU, to be run as `submit: { at: ... }`",
    },
    Verb {
        name: "gpu",
        value: Ty::Commands,
        beside: SUBMIT_KEYS,
        example: "gpu: [ { store: a = 5 }, { load: a == 5 } ]",
        doc: "runs commands as one batch and waits for the end; also `gpu.COMMAND` for one command",
    },
    Verb {
        name: "submit",
        value: Ty::Commands,
        beside: SUBMIT_KEYS,
        example: "submit: [ { store: a = 5 } ], signal: s, as: job",
        doc: "submits and goes on; lists in the list are several batches, `{ at: a, size: 64 }` \
              runs what stands in memory, `[]` only synchronises",
    },
    Verb {
        name: "finish",
        value: Ty::Name,
        beside: &[
            key("ends", Ty::Word(&["complete", "fault", "timeout", "cancelled"]), "how"),
            key("expect_fault", Ty::CompactOr("fault kind", &FAULT), "it must fault so"),
            TIMEOUT,
        ],
        example: "finish: job",
        doc: "waits for a submission to end and checks its loads",
    },
    Verb {
        name: "bind",
        value: Ty::Many(&Ty::Either(
            &Ty::CompactOr("bind operation", &MAPPING),
            &Ty::Shape(&RANGE_OP),
        )),
        beside: &[
            key("vm", Ty::Name, "the VM (default: the client's first)"),
            key("queue", Ty::Name, "a bind queue (default: the VM's)"),
            key("async", Ty::Bool, "return before page tables are written (default false)"),
            key("wait", Ty::Names, "fences to wait for before (async only)"),
            key("signal", Ty::Many(&Ty::CompactOr("fence", &USER_FENCE)), "to signal after"),
        ],
        example: "bind: [ map 0..2 a, unmap 1..2 ]",
        doc: "one bind call; all of its operations happen or none",
    },
    Verb {
        name: "create",
        value: Ty::Text,
        beside: &[
            key("memory", Ty::CompactOr("memory", &MEMORY), "memory of that name"),
            key("vm", Ty::Shape(&VM), "a VM of that name"),
            key("queue", Ty::CompactOr("queue", &QUEUE), "a queue of that name"),
            key("syncobj", Ty::CompactOr("syncobj", &SYNCOBJ), "a syncobj of that name"),
        ],
        example: "create: b, memory: vram 64K",
        doc: "makes an object while running",
    },
    Verb {
        name: "destroy",
        value: Ty::Name,
        beside: &[],
        example: "destroy: b",
        doc: "drops a memory's handle, destroys a VM, queue or syncobj, closes an fd",
    },
    Verb {
        name: "close",
        value: Ty::Name,
        beside: &[],
        example: "close: other",
        doc: "closes a client's file; all that it holds is released",
    },
    Verb {
        name: "export",
        value: Ty::Name,
        beside: &[
            must("as", Ty::Text, "name of the fd, known to all clients"),
            key("sync_file", Ty::Bool, "the syncobj's present fence as a sync file"),
        ],
        example: "export: a, as: fd",
        doc: "makes an fd of memory (PRIME) or a syncobj",
    },
    Verb {
        name: "import",
        value: Ty::Name,
        beside: &[
            key("as", Ty::Text, "name of the new memory or syncobj"),
            key("into", Ty::Name, "sync file: the existing syncobj"),
        ],
        example: "import: fd, as: b, client: other",
        doc: "makes memory or a syncobj of an fd",
    },
    Verb {
        name: "wait",
        value: Ty::Names,
        beside: &[
            key("any", Ty::Bool, "until one is signalled, not all (default false)"),
            key("for_submit", Ty::Bool, "also for fences to come (default false)"),
            key("available", Ty::Bool, "only until fences are there (default false)"),
            TIMEOUT,
        ],
        example: "wait: [ s, t@5 ]",
        doc: "waits for syncobjs; `ETIME`",
    },
    Verb {
        name: "signal",
        value: Ty::Names,
        beside: &[],
        example: "signal: [ s, t@5 ]",
        doc: "signals syncobjs from the CPU",
    },
    Verb {
        name: "reset",
        value: Ty::Names,
        beside: &[],
        example: "reset: s",
        doc: "resets syncobjs",
    },
    Verb {
        name: "query",
        value: Ty::MapOf(&Ty::Compact("bound")),
        beside: &[],
        example: "query: { t: 5 }",
        doc: "reads timelines and checks their values",
    },
    Verb {
        name: "transfer",
        value: Ty::Compact("transfer"),
        beside: &[key("for_submit", Ty::Bool, "waits for a fence to come (default false)")],
        example: "transfer: t@3 -> s",
        doc: "copies a point's fence to another syncobj",
    },
    Verb {
        name: "wait_user_fence",
        value: Ty::Compact("condition"),
        beside: &[
            TIMEOUT,
            key("mask", Ty::Expr, "which bits (default all)"),
            key("queue", Ty::Name, "a queue whose ban ends the wait with `EIO`"),
        ],
        example: "wait_user_fence: a >= 5",
        doc: "waits by the driver's ioctl; `ETIME`",
    },
    Verb {
        name: "poll",
        value: Ty::Name,
        beside: &[TIMEOUT, key("ready", Ty::Bool, "it must become readable (default true)")],
        example: "poll: fd, timeout: 10ms, ready: false",
        doc: "polls an fd",
    },
    Verb {
        name: "merge",
        value: Ty::Names,
        beside: &[must("as", Ty::Text, "name of the new fd")],
        example: "merge: [ fd1, fd2 ], as: both",
        doc: "makes a sync file that is ready when both are",
    },
    Verb {
        name: "inject",
        value: Ty::MapOf(&Ty::Expr),
        beside: &[],
        example: "inject: { alloc: 3 }",
        doc: "arms one failure, counted from now (0 disarms); kinds alloc, copy, dma_map, \
              async_bind, migrate",
    },
    Verb {
        name: "delay.arm",
        value: Ty::Text,
        beside: &[TIMEOUT],
        example: "delay.arm: bind.commit",
        doc: "holds whoever comes by that point of the driver",
    },
    Verb {
        name: "delay.wait",
        value: Ty::Text,
        beside: &[TIMEOUT],
        example: "delay.wait: bind.commit",
        doc: "waits until somebody is held there; `ETIME`",
    },
    Verb {
        name: "delay.release",
        value: Ty::Text,
        beside: &[],
        example: "delay.release: bind.commit",
        doc: "lets go",
    },
    Verb {
        name: "evict",
        value: Ty::Name,
        beside: &[],
        example: "evict: a",
        doc: "moves memory out of VRAM, `all` objects, or `svm` for all CPU memory",
    },
    Verb {
        name: "mm.map",
        value: Ty::Compact("place"),
        beside: &[
            SIZE,
            key("kind", Ty::Word(CPU_KINDS), "kind of memory (default `anon`)"),
            key("of", Ty::Name, "in place of a kind: an object, from its start"),
            key("access", Ty::Word(ACCESS), "what the CPU may do there (default `rw`)"),
        ],
        example: "mm.map: a + 64K, size: 4K",
        doc: "`mmap`: new memory of zeros in the place of what is there",
    },
    Verb {
        name: "mm.unmap",
        value: Ty::Compact("place"),
        beside: &[SIZE],
        example: "mm.unmap: a + 64K, size: 4K",
        doc: "`munmap`",
    },
    Verb {
        name: "mm.protect",
        value: Ty::Compact("place"),
        beside: &[SIZE, must("access", Ty::Word(ACCESS), "what the CPU may do there")],
        example: "mm.protect: a, access: ro",
        doc: "`mprotect`",
    },
    Verb {
        name: "mm.remap",
        value: Ty::Compact("place, or `FROM -> TO`"),
        beside: &[
            SIZE,
            key("new_size", Ty::Expr, "bytes afterwards (default: as before)"),
            key("keep", Ty::Bool, "the old addresses stay mapped, empty (`MREMAP_DONTUNMAP`)"),
        ],
        example: "mm.remap: a -> b, size: 64K",
        doc: "`mremap`: moves memory to the addresses of another, or resizes it where it is",
    },
    Verb {
        name: "mm.advise",
        value: Ty::Compact("place"),
        beside: &[SIZE, must("advice", Ty::Word(ADVICE_WORDS), "as `madvise` takes it")],
        example: "mm.advise: a, advice: dontneed",
        doc: "`madvise`",
    },
    Verb {
        name: "mm.lock",
        value: Ty::Compact("place"),
        beside: &[SIZE],
        example: "mm.lock: a",
        doc: "`mlock`",
    },
    Verb {
        name: "mm.unlock",
        value: Ty::Compact("place"),
        beside: &[SIZE],
        example: "mm.unlock: a",
        doc: "`munlock`",
    },
    Verb {
        name: "mm.pin",
        value: Ty::Compact("place"),
        beside: &[SIZE],
        example: "mm.pin: a",
        doc: "pins pages for input and output: they can neither move nor go",
    },
    Verb {
        name: "mm.unpin",
        value: Ty::Compact("place"),
        beside: &[],
        example: "mm.unpin: a",
        doc: "lets go of what was pinned from that place on",
    },
    Verb {
        name: "mm.trap",
        value: Ty::Compact("place"),
        beside: &[SIZE, key("of", Ty::Word(TRAP_WORDS), "what it is told of (default `missing`)")],
        example: "mm.trap: a",
        doc: "registers memory with a userfaultfd that nobody reads: it is told of accesses, as all \
              pages are `missing`, of none, as all are `present`, or of `writes`",
    },
    Verb {
        name: "mm.untrap",
        value: Ty::Compact("place"),
        beside: &[],
        example: "mm.untrap: a",
        doc: "ends that: missing pages are zeros again, others can be written",
    },
    Verb {
        name: "mm.move",
        value: Ty::Compact("place"),
        beside: &[SIZE, must("node", Ty::Word(NODES), "where to"), PAGES],
        example: "mm.move: a, node: 1",
        doc: "`move_pages`: to another node of memory, as far as pages can",
    },
    Verb {
        name: "mm.wait",
        value: Ty::Compact("place"),
        beside: &[
            SIZE,
            must("told", Ty::Word(TOLD_WORDS), "state of pages"),
            must("pages", Ty::Compact("bound"), "how many, of all mappings that begin there"),
            TIMEOUT,
        ],
        example: "mm.wait: a, told: swap, pages: \">= 1\"",
        doc: "waits until the kernel tells so many pages to be in a state; `ETIME`",
    },
    Verb {
        name: "svm.migrate",
        value: Ty::Compact("place"),
        beside: &[
            SIZE,
            IN_VM,
            key("to", Ty::Word(REGIONS), "where to (default `vram`)"),
            key("strict", Ty::Bool, "all or nothing, with an errno (default false)"),
            PAGES,
        ],
        example: "svm.migrate: a, to: vram, pages: 16",
        doc: "moves pages of CPU memory to the device or back; holes and what cannot move are passed               over",
    },
    Verb {
        name: "svm.exclusive",
        value: Ty::Compact("place"),
        beside: &[SIZE, IN_VM, PAGES],
        example: "svm.exclusive: a, size: 4K",
        doc: "reserves pages for the device's atomics until the CPU touches them",
    },
    Verb {
        name: "svm.set",
        value: Ty::Compact("place"),
        beside: &[SIZE, IN_VM, PREFERRED, ATOMIC, POLICY, TIMESLICE],
        example: "svm.set: a, preferred: vram",
        doc: "sets attributes of CPU memory for a VM",
    },
    Verb {
        name: "svm.tune",
        value: Ty::Shape(&TUNE),
        beside: &[],
        example: "svm.tune: { chunks: [4K], fault_entries: 16 }",
        doc: "sets sizes by which the driver cuts memory that CPU and GPU share",
    },
    Verb {
        name: "svm.faults",
        value: Ty::Word(FAULT_ACTIONS),
        beside: &[key("count", Ty::Expr, "wait: how many faults (default 1)"), TIMEOUT],
        example: "svm.faults: pause",
        doc: "holds, lets go, drops or awaits the faults that wait to be handled",
    },
    Verb {
        name: "fork",
        value: Ty::Steps,
        beside: &[],
        example: "fork: [ ... ]",
        doc: "a child with the inherited file does the steps; waits for it",
    },
    Verb { name: "exit", value: Ty::Expr, beside: &[], example: "exit: 0", doc: "ends the actor" },
    Verb {
        name: "blocked",
        value: Ty::Name,
        beside: &[TIMEOUT],
        example: "blocked: victim",
        doc: "waits until the process of an actor or client sleeps inside an ioctl, as the kernel \
              tells; `ETIME`",
    },
    Verb {
        name: "kill",
        value: Ty::Name,
        beside: &[],
        example: "kill: gpu1",
        doc: "SIGKILLs the process of an actor or client",
    },
    Verb {
        name: "exec",
        value: Ty::Nothing,
        beside: &[],
        example: "exec: , client: other",
        doc: "the client's process, or the forked child, runs another program: it keeps its open file, and its \
              memory ends",
    },
    Verb {
        name: "spawn",
        value: Ty::Word(STARTS),
        beside: &[],
        example: "spawn: vfork",
        doc: "has a child run another program, with the memory lent (`vfork`) or copied (`fork`), and waits \
              for its end",
    },
    Verb {
        name: "abi",
        value: Ty::Text,
        beside: &[],
        example: "abi: $case",
        doc: "runs a uAPI case of the device adapter (`params: { case: { from: abi.cases } }`)",
    },
];

const COMMAND_WIDTH: &[Key] = &[WIDTH];

/// GPU commands.
pub(crate) const COMMANDS: &[Verb] = &[
    Verb {
        name: "load",
        value: Ty::Compact("read"),
        beside: &[WIDTH, NAME_RESULT, EQUALS, IN, BETWEEN],
        example: "load: a == 5",
        doc: "a result; the oracle checks it too",
    },
    Verb {
        name: "store",
        value: Ty::Compact("write"),
        beside: COMMAND_WIDTH,
        example: "store: a+8 = 5",
        doc: "stores a value",
    },
    Verb {
        name: "copy",
        value: Ty::Compact("copy"),
        beside: &[must("size", Ty::Expr, "bytes")],
        example: "copy: a -> b, size: 4K",
        doc: "copies bytes, ascending",
    },
    Verb {
        name: "fill",
        value: Ty::Compact("write"),
        beside: &[WIDTH, key("size", Ty::Expr, "bytes (default: to the end of the memory)")],
        example: "fill: a = 7",
        doc: "fills with a value",
    },
    Verb {
        name: "fence",
        value: Ty::Word(&["device", "system"]),
        beside: &[],
        example: "fence: system",
        doc: "earlier accesses before later ones",
    },
    Verb {
        name: "wait",
        value: Ty::Compact("condition"),
        beside: &[WIDTH, key("mask", Ty::Expr, "which bits (default all)")],
        example: "wait: a >= 5",
        doc: "semaphore wait; `==` or `>=`",
    },
    Verb {
        name: "release",
        value: Ty::Compact("write"),
        beside: COMMAND_WIDTH,
        example: "release: a = 5",
        doc: "semaphore release: a store ordered after all earlier accesses",
    },
    Verb {
        name: "timestamp",
        value: Ty::Compact("place"),
        beside: &[NAME_RESULT],
        example: "timestamp: a",
        doc: "the device's time in ns, stored, or without a place a result",
    },
    Verb {
        name: "loop",
        value: Ty::Expr,
        beside: &[must("do", Ty::Commands, "the commands")],
        example: "loop: 10, do: [ ... ]",
        doc: "repeats commands",
    },
    Verb { name: "nop", value: Ty::Nothing, beside: &[], example: "nop:", doc: "nothing" },
];

/// Keys beside an atomic, of the CPU (`cpu.atomic_add`) or the GPU.
pub(crate) const ATOMIC_KEYS: &[Key] = &[
    WIDTH,
    NAME_RESULT,
    EQUALS,
    IN,
    BETWEEN,
    key("compare", Ty::Expr, "compare_exchange: what the word must hold"),
    key("scope", Ty::Word(&["system", "device"]), "GPU: against whom (default `system`)"),
];

/// Atomics: name, operation, compact operator.
pub(crate) const ATOMICS: &[(&str, AtomicOp, &str)] = &[
    ("atomic_add", AtomicOp::Add, "+="),
    ("atomic_exchange", AtomicOp::Exchange, "="),
    ("atomic_compare_exchange", AtomicOp::CompareExchange, "="),
    ("atomic_and", AtomicOp::And, "&="),
    ("atomic_or", AtomicOp::Or, "|="),
    ("atomic_xor", AtomicOp::Xor, "^="),
    ("atomic_min", AtomicOp::Min, "="),
    ("atomic_max", AtomicOp::Max, "="),
];

/// Keys of the long form of a value that is compact otherwise.
pub(crate) const LONG_KEYS: &[Key] = &[
    key("at", Ty::Compact("place"), "where"),
    key("value", Ty::Expr, "operand"),
    key("from", Ty::Compact("place"), "copy: source"),
    key("to", Ty::Compact("place"), "copy: target"),
];

/// Expectations.
pub(crate) const EXPECTS: &[Verb] = &[
    Verb {
        name: "value",
        value: Ty::Compact("read"),
        beside: &[
            WIDTH,
            EQUALS,
            IN,
            BETWEEN,
            key("by", Ty::Word(&["both", "cpu", "gpu"]), "who reads (default: both that can)"),
        ],
        example: "value: a+8 == 5",
        doc: "a word's value",
    },
    Verb {
        name: "sees",
        value: Ty::Compact("place"),
        beside: &[
            SIZE,
            IN_VM,
            key("by", Ty::Word(&["both", "cpu", "gpu"]), "who looks (default both)"),
            key("holes", Ty::Bool, "what cannot be read must fault (default true)"),
        ],
        example: "sees: a",
        doc: "at every page of CPU memory CPU and GPU find what the oracle says, and nothing where               nothing is mapped",
    },
    Verb {
        name: "svm.pages",
        value: Ty::Compact("place"),
        beside: &[
            SIZE,
            IN_VM,
            key("place", Ty::Names, "where they are: nowhere, system, vram, other, zero"),
            key("access", Ty::Word(ACCESS), "what the CPU may do without another fault"),
            key("gpu", Ty::Names, "what the GPU's translation allows: none, ro, rw, atomic"),
            key("order", Ty::Compact("bound"), "size of the CPU's mapping: 9 is 2^9 pages"),
            key("gpu_order", Ty::Compact("bound"), "size of the GPU's mapping"),
            key("count", Ty::Compact("bound"), "how many pages are so (default: all)"),
        ],
        example: "svm.pages: a, place: vram",
        doc: "what the device tells of pages; the oracle checks it anyway",
    },
    Verb {
        name: "svm.attributes",
        value: Ty::Compact("place"),
        beside: &[SIZE, IN_VM, PREFERRED, ATOMIC, POLICY, TIMESLICE],
        example: "svm.attributes: a, preferred: vram",
        doc: "attributes of the first page",
    },
    Verb {
        name: "svm.fault_buffer",
        value: Ty::Shape(&FAULT_BUFFER),
        beside: &[],
        example: "svm.fault_buffer: { pending: 0 }",
        doc: "faults that wait to be handled",
    },
    Verb {
        name: "maps",
        value: Ty::Many(&Ty::CompactOr("mapping", &MAPPING)),
        beside: &[
            key("vm", Ty::Name, "the VM (default: the first)"),
            key("within", Ty::Compact("range"), "only mappings there, in units"),
            key("read", Ty::Bool, "read every piece by the GPU too (default true)"),
            key("holes", Ty::Bool, "reads beside the pieces must fault (default false)"),
        ],
        example: "maps: [ 0..1 a, 1..2 b+1 ro ]",
        doc: "exactly these mappings, by VA dump and by GPU reads of every piece",
    },
    Verb {
        name: "faults",
        value: Ty::List(&Ty::CompactOr("fault kind", &FAULT)),
        beside: &[key("vm", Ty::Name, "the VM (default: the first)")],
        example: "faults: []",
        doc: "exactly these faults since the setup, oldest first",
    },
    Verb {
        name: "queue",
        value: Ty::Name,
        beside: &[
            key("banned", Ty::Bool, "whether it is banned"),
            key("resets", Ty::Compact("bound"), "resets that it caused"),
            key("submitted", Ty::Compact("bound"), "jobs submitted"),
            key("completed", Ty::Compact("bound"), "jobs over"),
        ],
        example: "queue: q, banned: true",
        doc: "a queue's state",
    },
    Verb {
        name: "vm",
        value: Ty::Name,
        beside: &[must("banned", Ty::Bool, "whether it is banned")],
        example: "vm: vm, banned: true",
        doc: "a VM's state",
    },
    Verb {
        name: "syncobj",
        value: Ty::Name,
        beside: &[
            key("signalled", Ty::Bool, "whether it is signalled"),
            key("value", Ty::Compact("bound"), "last signalled point"),
        ],
        example: "syncobj: t, value: 5",
        doc: "a syncobj's state",
    },
    Verb {
        name: "resident",
        value: Ty::MapOf(&Ty::Word(REGIONS)),
        beside: &[],
        example: "resident: { a: system }",
        doc: "where memory lives now",
    },
    Verb {
        name: "counters",
        value: Ty::MapOf(&Ty::Compact("bound")),
        beside: &[],
        example: "counters: { ops.keep: 1, live.vas: 0 }",
        doc: "growth of counters since the setup (`live.*`: present value); a miss is a failure",
    },
    Verb {
        name: "always",
        value: Ty::Compact("condition"),
        beside: &[],
        example: "always: r1 <= r2",
        doc: "holds for the named results of every round",
    },
    Verb {
        name: "never",
        value: Ty::Compact("condition"),
        beside: &[],
        example: "never: r1 == 1 && r2 == 0",
        doc: "holds in no round",
    },
    Verb {
        name: "sometimes",
        value: Ty::Compact("condition"),
        beside: &[],
        example: "sometimes: r1 == 1",
        doc: "holds in one round at least, else inconclusive",
    },
];

/// Keys that every expectation takes.
pub(crate) const EXPECT_KEYS: &[Key] =
    &[key("when", Ty::MapOf(&Ty::Any), "only in variants with these parameter values")];
