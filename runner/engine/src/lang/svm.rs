//! Steps and expectations about the CPU's memory and what the device has of it: system calls of a process,
//! shared virtual memory. Owns the tree only.

use super::ast::CpuKind;
use super::expect::{Check, Reader};
use super::expr::Expr;
use super::step::{Place, Region};
use fencepost_fixtures::area::{Advice, Protection};
use fencepost_fixtures::device::{SvmAtomic, SvmPlace, SvmReach};
pub use fencepost_fixtures::told::{By, Told};
use std::time::Duration;

/// A part of memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// First byte.
    pub at: Place,
    /// Bytes.
    pub size: Expr,
}

/// A call by which a process changes its memory.
#[derive(Clone, Debug, PartialEq)]
pub enum MmStep {
    /// `mmap` in the place of what is there.
    Map {
        /// Where.
        part: Part,
        /// What.
        kind: CpuKind,
        /// Permissions.
        access: Protection,
    },
    /// `mmap` of an object in the place of what is there.
    Show {
        /// Where.
        part: Part,
        /// The object.
        object: String,
    },
    /// `munmap`.
    Unmap(Part),
    /// `mprotect`.
    Protect {
        /// Where.
        part: Part,
        /// Permissions.
        access: Protection,
    },
    /// `mremap`.
    Remap {
        /// What.
        part: Part,
        /// The new place; none: where it is.
        to: Option<Place>,
        /// The new size; none: as it is.
        new_size: Option<Expr>,
        /// The old addresses stay mapped (`MREMAP_DONTUNMAP`).
        keep: bool,
    },
    /// `madvise`.
    Advise {
        /// Where.
        part: Part,
        /// What.
        advice: Advice,
    },
    /// `mlock`, `munlock`.
    Lock {
        /// Where.
        part: Part,
        /// Lock, rather than let go.
        locked: bool,
    },
    /// Pinned for input and output.
    Pin {
        /// Where.
        part: Part,
        /// Pin, rather than let go.
        pinned: bool,
    },
    /// A userfaultfd that nobody reads.
    Trap {
        /// Where.
        part: Part,
        /// Begin, rather than end.
        trapped: bool,
        /// Of what it is told.
        trap: Trap,
    },
    /// `move_pages`.
    Move {
        /// Where.
        part: Part,
        /// To which node.
        node: u8,
        /// How many pages must be there then.
        pages: Option<Check>,
    },
    /// Waits until the kernel tells so many pages to be in a state.
    Wait {
        /// Where.
        part: Part,
        /// Which state.
        told: Told,
        /// How many.
        pages: Check,
        /// Longest wait.
        timeout: Duration,
    },
}

/// What a userfaultfd is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// Pages that are missing, as all are.
    Missing,
    /// The same, where none is.
    Present,
    /// Writes to pages that are there.
    Writes,
}

/// The words of scenarios for that.
pub const TRAPS: [(&str, Trap); 3] =
    [("missing", Trap::Missing), ("present", Trap::Present), ("writes", Trap::Writes)];

/// States of pages that the kernel counts, with the words of scenarios.
pub const TOLD: [(&str, Told); 5] = [
    ("swap", Told::Swap),
    ("ksm", Told::Ksm),
    ("huge", Told::Huge),
    ("node0", Told::Node(0)),
    ("node1", Told::Node(1)),
];

/// Who accesses memory, if not an instruction, with the words of scenarios.
pub const ACCESSED_BY: [(&str, By); 2] = [("process_vm", By::ProcessVm), ("proc_mem", By::ProcMem)];

/// Words of scenarios for what `madvise` takes.
pub const ADVICE: [(&str, Advice); 19] = [
    ("dontneed", Advice::DontNeed),
    ("free", Advice::Free),
    ("hugepage", Advice::HugePage),
    ("nohugepage", Advice::NoHugePage),
    ("collapse", Advice::Collapse),
    ("pageout", Advice::PageOut),
    ("cold", Advice::Cold),
    ("willneed", Advice::WillNeed),
    ("populate_read", Advice::PopulateRead),
    ("populate_write", Advice::PopulateWrite),
    ("dontfork", Advice::DontFork),
    ("wipeonfork", Advice::WipeOnFork),
    ("mergeable", Advice::Mergeable),
    ("unmergeable", Advice::Unmergeable),
    ("remove", Advice::Remove),
    ("hwpoison", Advice::HwPoison),
    ("soft_offline", Advice::SoftOffline),
    ("guard_install", Advice::GuardInstall),
    ("guard_remove", Advice::GuardRemove),
];

/// What is asked of the device about memory that both reach.
#[derive(Clone, Debug, PartialEq)]
pub enum SvmStep {
    /// Moves pages.
    Migrate {
        /// Which.
        part: Part,
        /// The VM; none: the client's default.
        vm: Option<String>,
        /// Where to.
        to: Region,
        /// All or nothing.
        strict: bool,
        /// How many have to arrive.
        pages: Option<Check>,
    },
    /// Reserves pages for the device's atomics.
    Exclusive {
        /// Which.
        part: Part,
        /// The VM.
        vm: Option<String>,
        /// How many have to be reserved.
        pages: Option<Check>,
    },
    /// Sets attributes.
    Set {
        /// Of which.
        part: Part,
        /// The VM.
        vm: Option<String>,
        /// Those that are set.
        attributes: Attributes,
    },
    /// Sets sizes of the driver's.
    Tune(Tune),
    /// Acts on the buffer of faults.
    Faults {
        /// What.
        action: FaultAction,
        /// Waiting: how many faults.
        count: Expr,
        /// Longest wait.
        timeout: Duration,
    },
}

/// Attributes, as far as they are given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes {
    /// Preferred region; `Some(None)`: no preference.
    pub preferred: Option<Option<Region>>,
    /// Atomics.
    pub atomic: Option<SvmAtomic>,
    /// What a migration may take: all, or with `Some(true)` only what is in system memory.
    pub system_only: Option<bool>,
    /// How long a page stays on the device at least.
    pub timeslice: Option<Duration>,
}

/// Sizes of the driver's, as far as they are given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tune {
    /// Bytes of a notifier.
    pub notifier: Option<Expr>,
    /// Sizes of ranges.
    pub chunks: Vec<Expr>,
    /// Ranges up to this size are made of pages that are there.
    pub check_pages: Option<Expr>,
    /// Entries of the fault buffer.
    pub fault_entries: Option<Expr>,
    /// Faults handled at once.
    pub fault_batch: Option<Expr>,
    /// Ranges may be in device and system memory.
    pub mixed: Option<bool>,
}

/// Acts on the buffer of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultAction {
    /// Handles no fault from now on.
    Pause,
    /// Handles faults again.
    Resume,
    /// Drops what waits; it comes again.
    Flush,
    /// Waits until there are some.
    Wait,
}

/// Words of scenarios for where a page is.
pub const PLACES: &[(&str, SvmPlace)] = &[
    ("nowhere", SvmPlace::Nowhere),
    ("system", SvmPlace::System),
    ("vram", SvmPlace::Device),
    ("other", SvmPlace::OtherDevice),
    ("zero", SvmPlace::ZeroPage),
];

/// Words of scenarios for what a translation of the GPU allows.
pub const REACH: &[(&str, SvmReach)] = &[
    ("none", SvmReach::Nothing),
    ("ro", SvmReach::Read),
    ("rw", SvmReach::Write),
    ("atomic", SvmReach::Atomic),
];

/// What pages must be, as far as it is given.
#[derive(Clone, Debug, PartialEq)]
pub struct PagesExpect {
    /// Which.
    pub part: Part,
    /// The VM.
    pub vm: Option<String>,
    /// In one of these places; empty: anywhere.
    pub places: Vec<SvmPlace>,
    /// What the CPU may do there without another fault.
    pub access: Option<Protection>,
    /// What the GPU's translation allows, one of these; empty: anything.
    pub gpu: Vec<SvmReach>,
    /// Size of the CPU's mapping as a power of two of pages.
    pub order: Option<Check>,
    /// Size of the GPU's.
    pub gpu_order: Option<Check>,
    /// How many pages are so; none: all.
    pub count: Option<Check>,
}

/// What CPU and GPU have to find at each page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sees {
    /// Which.
    pub part: Part,
    /// The VM.
    pub vm: Option<String>,
    /// Who looks.
    pub by: Reader,
    /// The first and last page of each part that cannot be read have to fault, too.
    pub holes: bool,
}
