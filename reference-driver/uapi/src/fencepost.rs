//! The driver's own ioctls and their records.
//!
//! Common rules, checked in this order: the record is copied in (`EFAULT`); fields that must be
//! zero, unknown flags and out-of-bound numbers are refused (`EINVAL`); arrays are copied in
//! (`EFAULT`, `ENOMEM`); objects are looked up (`ENOENT`); then the call runs. A call that fails
//! leaves every object as it was. Sizes, ranges and addresses are in bytes; GPU pages have 4 KiB.
//!
//! Arrays carry the caller's element size (`*_stride`): an element shorter than the driver's is
//! taken as padded with zeros; bytes beyond the driver's must be zero (`E2BIG`).

use crate::ioctl::{drm, DRM_COMMAND_BASE, READ, WRITE};
use crate::record::{record, Object, Record, Role};

const RW: u32 = READ | WRITE;

/// GPU page size.
pub const PAGE_SIZE: u64 = 4096;
/// Highest GPU address plus one: 48 bits, as four-level page tables give.
pub const VA_END: u64 = 1 << 48;
/// Most operations in one [`VmBind`].
pub const MAX_OPS: u64 = 4096;
/// Most entries in one array of [`Sync`].
pub const MAX_SYNCS: u64 = 1024;
/// Most batches in one [`Exec`].
pub const MAX_BATCHES: u64 = 64;
/// Longest batch in bytes.
pub const MAX_BATCH_BYTES: u64 = 1 << 20;
/// Largest buffer object in bytes.
pub const MAX_BO_BYTES: u64 = 1 << 34;

// ---- query -------------------------------------------------------------------------------------

record! {
    /// Asks for a block of information. Two-step: with `size` 0 the driver returns the size
    /// needed; with a smaller size `ENOSPC`; with a larger one it writes what there is and returns
    /// that size.
    pub struct Query("drm_fencepost_query"), 32 {
        /// `QUERY_*`.
        query: u32 = Role::Below(3),
        /// Must be zero.
        flags: u32 = Role::Zero,
        /// Size of the block at `data` in bytes.
        size: u64 = Role::InOut,
        /// Receives the block.
        data: u64 = Role::Pointer,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}
/// [`Query`]: one [`Caps`].
pub const QUERY_CAPS: u32 = 0;
/// [`Query`]: an array of [`Region`].
pub const QUERY_REGIONS: u32 = 1;
/// [`Query`]: an array of `u64` counters of the whole device, in the order of [`COUNTERS`].
pub const QUERY_COUNTERS: u32 = 2;

record! {
    /// What the device can do.
    pub struct Caps("drm_fencepost_caps"), 64 {
        /// `CAP_*` bits.
        caps: u64 = Role::Out,
        /// First GPU address that a VM can use.
        va_start: u64 = Role::Out,
        /// One past the last.
        va_end: u64 = Role::Out,
        /// Bit n set: pages of 1 << n bytes.
        page_sizes: u64 = Role::Out,
        /// Number of execution engines.
        engines: u32 = Role::Out,
        /// Most operations in one bind call.
        max_ops: u32 = Role::Out,
        /// Most syncs in one call.
        max_syncs: u32 = Role::Out,
        /// Most batches in one exec.
        max_batches: u32 = Role::Out,
        /// Longest job time-out in milliseconds.
        max_timeout_ms: u32 = Role::Out,
        /// Always zero.
        pad: u32 = Role::Out,
        /// Frequency of the timestamp command in Hz.
        timestamp_hz: u64 = Role::Out,
    }
}
/// [`Caps::caps`]: sparse regions.
pub const CAP_SPARSE: u64 = 1 << 0;
/// [`Caps::caps`]: NULL mappings.
pub const CAP_NULL: u64 = 1 << 1;
/// [`Caps::caps`]: prefetch operations.
pub const CAP_PREFETCH: u64 = 1 << 2;
/// [`Caps::caps`]: madvise operations.
pub const CAP_MADVISE: u64 = 1 << 3;
/// [`Caps::caps`]: PRIME import and export.
pub const CAP_PRIME: u64 = 1 << 4;
/// [`Caps::caps`]: objects in device memory are evicted under pressure.
pub const CAP_EVICTION: u64 = 1 << 5;
/// [`Caps::caps`]: user fences.
pub const CAP_USER_FENCE: u64 = 1 << 6;
/// [`Caps::caps`]: the debug group can be opened on this device.
pub const CAP_DEBUG: u64 = 1 << 7;
/// [`Caps::caps`]: atomics in device scope.
pub const CAP_ATOMICS_DEVICE: u64 = 1 << 8;
/// [`Caps::caps`]: atomics in system scope, against CPU atomics on a mapped buffer object.
pub const CAP_ATOMICS_SYSTEM: u64 = 1 << 9;
/// [`Caps::caps`]: a fault report per VM.
pub const CAP_FAULT_REPORT: u64 = 1 << 10;
/// [`Caps::caps`]: SVM: VMs that take faults, mirrors of the caller's address space.
pub const CAP_SVM: u64 = 1 << 11;

record! {
    /// One memory region.
    pub struct Region("drm_fencepost_region"), 40 {
        /// `REGION_*` bit that names it in placements.
        region: u32 = Role::Out,
        /// Always zero.
        flags: u32 = Role::Out,
        /// Size in bytes.
        size: u64 = Role::Out,
        /// Bytes in use now.
        used: u64 = Role::Out,
        /// Smallest allocation in bytes.
        min_page: u64 = Role::Out,
        /// Always zero.
        reserved: u64 = Role::Out,
    }
}
/// System memory.
pub const REGION_SYSTEM: u32 = 1;
/// Device memory (VRAM).
pub const REGION_VRAM: u32 = 2;

/// Names of the device counters, in the order of [`QUERY_COUNTERS`]. Counters only grow, but for
/// the `live.*` ones, which say how many objects exist now; new ones are added at the end.
pub const COUNTERS: &[&str] = &[
    "ioctls",
    "binds.sync",
    "binds.async",
    "binds.failed",
    "binds.unwound",
    "ops.map",
    "ops.unmap",
    "ops.remap",
    "ops.prefetch",
    "ops.madvise",
    "ops.keep",
    "splits",
    "pt.writes",
    "pt.clears",
    "pt.pages_2m",
    "pt.pages_64k",
    "pt.pages_4k",
    "tlb.hits",
    "tlb.misses",
    "tlb.invalidations",
    "faults.device",
    "faults.permission",
    "sparse.reads",
    "sparse.writes",
    "bus_errors",
    "evictions",
    "evicted_bytes",
    "restores",
    "moves.to_vram",
    "moves.to_system",
    "lock.backoffs",
    "jobs.submitted",
    "jobs.completed",
    "jobs.failed",
    "jobs.timeout",
    "jobs.cancelled",
    "resets",
    "commands",
    "fences.created",
    "fences.signalled",
    "fences.waited",
    "user_fences.signalled",
    "injected",
    "delays.hit",
    "prime.exports",
    "prime.imports",
    "leaks",
    "live.files",
    "live.vms",
    "live.vas",
    "live.bos",
    "live.queues",
    "live.syncobjs",
    "live.jobs",
    "live.vram_bytes",
    "live.system_bytes",
    "live.pt_nodes",
    "svm.faults",
    "svm.faults.read",
    "svm.faults.write",
    "svm.faults.atomic",
    "svm.faults.coalesced",
    "svm.batches",
    "svm.replays",
    "svm.cancels",
    "svm.buffer_full",
    "svm.retries",
    "svm.invalidations",
    "svm.ranges",
    "svm.ranges_2m",
    "svm.ranges_64k",
    "svm.ranges_4k",
    "svm.range_splits",
    "svm.collected",
    "svm.prefetched",
    "svm.migrated.to_device",
    "svm.migrated.to_system",
    "svm.cpu_faults",
    "svm.timeslices",
    "svm.evictions",
    "svm.exclusive",
    "svm.revokes",
    "live.svm_ranges",
    "live.notifiers",
    "live.svm_pages",
    "live.dma_pages",
    "live.parked",
    "svm.mixed",
    "svm.fills",
    "svm.migrated.across",
];

// ---- GEM ---------------------------------------------------------------------------------------

record! {
    /// Creates a buffer object, filled with zeros. With both placements it goes to VRAM, driving out
    /// idle objects that may live in system memory, least recently used first; without success to
    /// system memory. With VRAM alone objects in use are waited for as well. `ENOSPC`: larger than any region it may be
    /// placed in; `ENOMEM`: no memory now, even after eviction.
    pub struct GemCreate("drm_fencepost_gem_create"), 48 {
        /// Must be zero.
        extensions: u64 = Role::Zero,
        /// Size in bytes, a multiple of 4 KiB, not 0, at most [`MAX_BO_BYTES`].
        size: u64 = Role::Page,
        /// Regions it may live in, first choice VRAM; 0 or an unknown bit: `EINVAL`.
        placement: u32 = Role::Flags(3),
        /// `GEM_CREATE_*`.
        flags: u32 = Role::Flags(1),
        /// With [`GEM_CREATE_VM_PRIVATE`] the VM; else must be zero.
        vm_id: u32 = Role::Handle(Object::Vm),
        /// The new object's handle, never 0.
        handle: u32 = Role::Out,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}
/// The object is used by one VM only and shares its reservation lock: it cannot be exported
/// (`EINVAL`) nor bound in another VM (`EINVAL`).
pub const GEM_CREATE_VM_PRIVATE: u32 = 1;

record! {
    /// Gives the offset to pass to `mmap(2)` on the same device file. A mapping begins with the object (else
    /// `EINVAL`) and is no longer than it (`EINVAL`); the file needs a handle of it (`EACCES`). As `drm_gem_mmap`.
    pub struct GemMmapOffset("drm_fencepost_gem_mmap_offset"), 24 {
        /// The object.
        handle: u32 = Role::Handle(Object::Gem),
        /// Must be zero.
        flags: u32 = Role::Zero,
        /// The offset in bytes.
        offset: u64 = Role::Out,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}

record! {
    /// Tells where an object is.
    pub struct GemInfo("drm_fencepost_gem_info"), 48 {
        /// The object.
        handle: u32 = Role::Handle(Object::Gem),
        /// Must be zero.
        pad: u32 = Role::Zero,
        /// Size in bytes.
        size: u64 = Role::Out,
        /// Regions it may live in.
        placement: u32 = Role::Out,
        /// The region that it lives in now.
        resident: u32 = Role::Out,
        /// Flags of its creation.
        flags: u32 = Role::Out,
        /// Number of GPU mappings (VAs) of it in all VMs.
        mappings: u32 = Role::Out,
        /// Number of times that it was evicted.
        evictions: u64 = Role::Out,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}

// ---- VM ----------------------------------------------------------------------------------------

record! {
    /// Creates a GPU address space. The hole [`kernel_start`, `kernel_start` + `kernel_size`) is
    /// kept from binds, as by nouveau's VM_INIT; overflow, a hole outside the space, or a size
    /// without alignment to 4 KiB: `EINVAL`.
    pub struct VmCreate("drm_fencepost_vm_create"), 56 {
        /// Must be zero.
        extensions: u64 = Role::Zero,
        /// `VM_CREATE_*`.
        flags: u32 = Role::Flags(3),
        /// The new VM, never 0.
        vm_id: u32 = Role::Out,
        /// Start of the kernel-reserved hole.
        kernel_start: u64 = Role::Page,
        /// Size of the hole; 0: none.
        kernel_size: u64 = Role::Page,
        /// One past the highest address; 0 means [`VA_END`], beyond it `EINVAL`.
        va_end: u64 = Role::Page,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}
/// A long-running VM: jobs may run without bound and so make no `dma_fence`: out-syncobjs of its
/// exec and bind calls are `EOPNOTSUPP`, user fences are used in their place.
pub const VM_CREATE_LONG_RUNNING: u32 = 1;
/// A VM that takes faults: an access that finds no translation in a mirror ([`BIND_CPU_MIRROR`]) waits
/// until the driver has asked the CPU's address space, and faults only when that has nothing there.
/// The address space is that of the caller. Without [`VM_CREATE_LONG_RUNNING`]: `EINVAL`, since no
/// fence may wait for a page; without [`CAP_SVM`]: `EOPNOTSUPP`.
pub const VM_CREATE_FAULT: u32 = 2;

record! {
    /// Destroys a VM. `EBUSY` while queues use it.
    pub struct VmDestroy("drm_fencepost_vm_destroy"), 16 {
        /// The VM.
        vm_id: u32 = Role::Handle(Object::Vm),
        /// Must be zero.
        pad: u32 = Role::Zero,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}

record! {
    /// Changes mappings. All operations happen or none does. Without [`VM_BIND_ASYNC`] the call
    /// takes no syncs (`EINVAL`) and returns when the page tables are written. With it the call
    /// returns once the address space is updated; page tables are written after the in-fences, in
    /// the order of the bind queue's calls, and then the out-fences signal.
    /// A VM whose asynchronous bind failed is banned: `ENOENT` from then on.
    pub struct VmBind("drm_fencepost_vm_bind"), 64 {
        /// Must be zero.
        extensions: u64 = Role::Zero,
        /// The VM.
        vm_id: u32 = Role::Handle(Object::Vm),
        /// A bind queue of that VM, 0 for its default one. Other classes, other VMs: `EINVAL`.
        queue_id: u32 = Role::Handle(Object::Queue),
        /// `VM_BIND_*`.
        flags: u32 = Role::Flags(1),
        /// Number of [`BindOp`]; 0: synchronise only.
        num_ops: u32 = Role::Count(MAX_OPS),
        /// Size of one operation, at least 64.
        op_stride: u32 = Role::Stride,
        /// Size of one sync, at least 32.
        sync_stride: u32 = Role::Stride,
        /// Array of [`BindOp`].
        ops: u64 = Role::Pointer,
        /// Number of [`Sync`].
        num_syncs: u32 = Role::Count(MAX_SYNCS),
        /// Must be zero.
        pad: u32 = Role::Zero,
        /// Array of [`Sync`].
        syncs: u64 = Role::Pointer,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}
/// [`VmBind::flags`]: see there.
pub const VM_BIND_ASYNC: u32 = 1;

record! {
    /// One operation of a bind call.
    pub struct BindOp("drm_fencepost_bind_op"), 64 {
        /// `BIND_OP_*`.
        op: u32 = Role::Below(5),
        /// `BIND_*` bits; which are allowed depends on the operation, others: `EINVAL`.
        flags: u32 = Role::Flags(0xf),
        /// The object to map or, for unmap-all, to unmap (0 there: `EINVAL`); else must be 0.
        handle: u32 = Role::Handle(Object::Gem),
        /// Page kind 0 to 255 (map only), carried into page-table entries and the VA dump.
        kind: u32 = Role::Below(256),
        /// GPU address.
        addr: u64 = Role::Page,
        /// Size; 0: `EINVAL` but for unmap-all, where `addr` and `range` must be 0.
        range: u64 = Role::Page,
        /// Offset into the object; offset + range beyond the object: `EINVAL`.
        offset: u64 = Role::Page,
        /// Prefetch: the region (`REGION_*`). Madvise: the preferred region, 0 for none. Else 0.
        value: u64 = Role::In,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}
/// Map an object, NULL ([`BIND_NULL`]) or a sparse region ([`BIND_SPARSE`]), replacing what is
/// mapped there. A memory mapping that crosses the edge of a sparse region: `ENOSPC`. A sparse
/// region that overlaps a region: `EEXIST`; a mapping: `ENOSPC`.
pub const BIND_OP_MAP: u32 = 0;
/// Unmap a range: mappings are split, holes are fine. Inside a sparse region the sparse behaviour
/// comes back. With [`BIND_SPARSE`]: remove exactly that region (`ENOENT`) and all within. Until the
/// page tables are written the region takes no mapping (`EINVAL`), keeps its range from other
/// regions (`EEXIST`) and cannot be removed again (`ENOENT`), in the same call neither.
pub const BIND_OP_UNMAP: u32 = 1;
/// Unmap every mapping of an object in this VM.
pub const BIND_OP_UNMAP_ALL: u32 = 2;
/// Move the objects mapped in the range to a region; nothing mapped there: no effect. A region
/// that an object may not be in is skipped for that object. Pages of a mirror are moved as far as
/// they can be, and mapped; those that the CPU has nothing for are skipped.
pub const BIND_OP_PREFETCH: u32 = 3;
/// Set the preferred region of object-less mappings (NULL, mirrors), splitting at the edges.
pub const BIND_OP_MADVISE: u32 = 4;

/// The GPU may only read: a write or atomic faults.
pub const BIND_READONLY: u32 = 1;
/// Map nothing: reads give 0, writes are dropped. No handle, no offset.
pub const BIND_NULL: u32 = 2;
/// The operation is about a sparse region: reads of unbacked parts give 0, writes are dropped.
pub const BIND_SPARSE: u32 = 4;
/// Mirror the CPU's address space: GPU addresses show what the CPU has at the same addresses, from
/// the first access on. No handle, offset, kind or other flag. `EOPNOTSUPP` unless the VM is one of
/// [`VM_CREATE_FAULT`]. Unmapping or replacing a mirror of which pages were mapped: `EBUSY`, until the
/// CPU has unmapped them; but by a mirror it can be replaced.
pub const BIND_CPU_MIRROR: u32 = 8;

record! {
    /// A synchronisation point. In-fences of a syncobj that has none: `EINVAL`; unknown handle:
    /// `ENOENT`; a timeline point of 0: `EINVAL`. A user fence needs [`SYNC_SIGNAL`]
    /// (`EOPNOTSUPP`), an address aligned to 8 (`EINVAL`), and there is one at most in a call
    /// (`EINVAL`).
    pub struct Sync("drm_fencepost_sync"), 32 {
        /// `SYNC_*`.
        kind: u32 = Role::Below(3),
        /// [`SYNC_SIGNAL`] or 0 to wait.
        flags: u32 = Role::Flags(1),
        /// The syncobj; 0 for a user fence.
        handle: u32 = Role::Handle(Object::Syncobj),
        /// Must be zero.
        pad: u32 = Role::Zero,
        /// The timeline point, or the value that a user fence writes; else 0.
        value: u64 = Role::In,
        /// User fence: where 8 bytes are written, a CPU address for binds (soon after the bind has
        /// signalled), a GPU address for exec (before); else 0.
        addr: u64 = Role::In,
    }
}
/// A binary syncobj.
pub const SYNC_SYNCOBJ: u32 = 0;
/// A point of a timeline syncobj.
pub const SYNC_TIMELINE: u32 = 1;
/// A user fence.
pub const SYNC_USER_FENCE: u32 = 2;
/// Signal after the work in place of waiting before it.
pub const SYNC_SIGNAL: u32 = 1;

// ---- queues and execution ----------------------------------------------------------------------

record! {
    /// Creates a queue.
    pub struct QueueCreate("drm_fencepost_queue_create"), 56 {
        /// Must be zero.
        extensions: u64 = Role::Zero,
        /// The VM that it works in.
        vm_id: u32 = Role::Handle(Object::Vm),
        /// `QUEUE_CLASS_*`.
        class: u32 = Role::Below(2),
        /// Must be zero.
        flags: u32 = Role::Zero,
        /// 0 low, 1 normal, 2 high.
        priority: u32 = Role::Below(3),
        /// Time a job may run in milliseconds; 0 for the default of 10,000; above
        /// [`Caps::max_timeout_ms`]: `EINVAL`.
        timeout_ms: u32 = Role::In,
        /// The new queue, never 0.
        queue_id: u32 = Role::Out,
        /// Engine to run on (below [`Caps::engines`]); must be 0 for a bind queue.
        engine: u32 = Role::In,
        /// Must be zero.
        pad: u32 = Role::Zero,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}
/// Runs batches.
pub const QUEUE_CLASS_EXEC: u32 = 0;
/// Orders binds.
pub const QUEUE_CLASS_BIND: u32 = 1;

record! {
    /// Destroys a queue. Jobs of an exec queue are cancelled, their out-fences signal with
    /// `ECANCELED`. Those of a bind queue still happen, since their calls have changed the address
    /// space already.
    pub struct QueueDestroy("drm_fencepost_queue_destroy"), 16 {
        /// The queue.
        queue_id: u32 = Role::Handle(Object::Queue),
        /// Must be zero.
        pad: u32 = Role::Zero,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}

record! {
    /// Tells the state of a queue.
    pub struct QueueInfo("drm_fencepost_queue_info"), 48 {
        /// The queue.
        queue_id: u32 = Role::Handle(Object::Queue),
        /// Must be zero.
        pad: u32 = Role::Zero,
        /// `QUEUE_STATE_*`.
        state: u32 = Role::Out,
        /// Resets of its engine that this queue caused.
        resets: u32 = Role::Out,
        /// Jobs submitted.
        submitted: u64 = Role::Out,
        /// Jobs finished, with or without an error.
        completed: u64 = Role::Out,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}
/// The queue works.
pub const QUEUE_STATE_ACTIVE: u32 = 0;
/// A job of it faulted or timed out: exec is `ECANCELED`.
pub const QUEUE_STATE_BANNED: u32 = 1;

record! {
    /// Submits batches. Always asynchronous. Banned queue: `ECANCELED`; bind queue: `EINVAL`; banned
    /// VM: `ENOENT`; more than 256 unfinished jobs of the queue: `EAGAIN`. With no batch: syncs only.
    pub struct Exec("drm_fencepost_exec"), 64 {
        /// Must be zero.
        extensions: u64 = Role::Zero,
        /// The queue.
        queue_id: u32 = Role::Handle(Object::Queue),
        /// Must be zero.
        flags: u32 = Role::Zero,
        /// Array of [`Batch`].
        batches: u64 = Role::Pointer,
        /// Array of [`Sync`].
        syncs: u64 = Role::Pointer,
        /// Number of batches.
        num_batches: u32 = Role::Count(MAX_BATCHES),
        /// Size of one batch record, at least 16.
        batch_stride: u32 = Role::Stride,
        /// Number of syncs.
        num_syncs: u32 = Role::Count(MAX_SYNCS),
        /// Size of one sync, at least 32.
        sync_stride: u32 = Role::Stride,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}

record! {
    /// One batch: commands of [`crate::command`] in GPU memory.
    pub struct Batch("drm_fencepost_batch"), 16 {
        /// GPU address, a multiple of 8.
        addr: u64 = Role::In,
        /// Length in bytes, a multiple of 8, not 0, at most [`MAX_BATCH_BYTES`].
        length: u32 = Role::In,
        /// Must be zero.
        flags: u32 = Role::Zero,
    }
}

record! {
    /// Waits until (`*addr` & `mask`) compares with `value`. `ETIME` when the time is over; `EIO`
    /// when `queue_id` is given and banned; `EFAULT` for a bad address; `EINTR` with the rest of a
    /// relative time written back.
    pub struct WaitUserFence("drm_fencepost_wait_user_fence"), 72 {
        /// Must be zero.
        extensions: u64 = Role::Zero,
        /// CPU address, a multiple of 8.
        addr: u64 = Role::In,
        /// `WAIT_OP_*`.
        op: u32 = Role::Below(6),
        /// [`WAIT_ABSOLUTE`] or 0.
        flags: u32 = Role::Flags(1),
        /// To compare with.
        value: u64 = Role::In,
        /// Which bits; 0: `EINVAL`.
        mask: u64 = Role::In,
        /// Nanoseconds: relative, or absolute `CLOCK_MONOTONIC`; negative: for ever.
        timeout_ns: i64 = Role::InOut,
        /// A queue whose ban ends the wait, or 0.
        queue_id: u32 = Role::Handle(Object::Queue),
        /// Must be zero.
        pad: u32 = Role::Zero,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}
/// Equal.
pub const WAIT_OP_EQ: u32 = 0;
/// Not equal.
pub const WAIT_OP_NEQ: u32 = 1;
/// Greater.
pub const WAIT_OP_GT: u32 = 2;
/// Greater or equal.
pub const WAIT_OP_GTE: u32 = 3;
/// Less.
pub const WAIT_OP_LT: u32 = 4;
/// Less or equal.
pub const WAIT_OP_LTE: u32 = 5;
/// [`WaitUserFence::timeout_ns`] is absolute.
pub const WAIT_ABSOLUTE: u32 = 1;

// ---- reports -----------------------------------------------------------------------------------

record! {
    /// Reads the oldest faults of a VM. Up to `num` records are written; `num` becomes the number
    /// there is; `lost` counts those that the ring of 64 had no room for.
    pub struct FaultReport("drm_fencepost_fault_report"), 48 {
        /// The VM, banned or not.
        vm_id: u32 = Role::Handle(Object::Vm),
        /// [`FAULT_REPORT_CLEAR`] or 0.
        flags: u32 = Role::Flags(1),
        /// In: room. Out: faults recorded.
        num: u32 = Role::InOut,
        /// Size of one record, at least 40.
        stride: u32 = Role::Stride,
        /// Array of [`Fault`].
        faults: u64 = Role::Pointer,
        /// Faults that were not recorded.
        lost: u64 = Role::Out,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}
/// Forget the faults that were returned.
pub const FAULT_REPORT_CLEAR: u32 = 1;

record! {
    /// One fault.
    pub struct Fault("drm_fencepost_fault"), 40 {
        /// The GPU address of the access, to the byte.
        addr: u64 = Role::Out,
        /// `FAULT_ACCESS_*`.
        access: u32 = Role::Out,
        /// `FAULT_KIND_*`.
        kind: u32 = Role::Out,
        /// The queue.
        queue_id: u32 = Role::Out,
        /// Always zero.
        pad: u32 = Role::Out,
        /// Job of that queue, counted from 1.
        job: u64 = Role::Out,
        /// Time in nanoseconds, `CLOCK_MONOTONIC`.
        time_ns: u64 = Role::Out,
    }
}
/// A load, the source of a copy, a semaphore wait.
pub const FAULT_ACCESS_READ: u32 = 0;
/// A store, fill, the target of a copy, a semaphore release, a timestamp.
pub const FAULT_ACCESS_WRITE: u32 = 1;
/// An atomic.
pub const FAULT_ACCESS_ATOMIC: u32 = 2;
/// The fetch of a command.
pub const FAULT_ACCESS_FETCH: u32 = 3;
/// Nothing is mapped there.
pub const FAULT_KIND_NOT_PRESENT: u32 = 0;
/// The mapping is read-only.
pub const FAULT_KIND_PERMISSION: u32 = 1;
/// The address is outside the address space, or not aligned for an atomic.
pub const FAULT_KIND_ADDRESS: u32 = 2;
/// The translation led to memory that is not there: a stale page-table or TLB entry.
pub const FAULT_KIND_BUS: u32 = 3;
/// The command is unknown or malformed.
pub const FAULT_KIND_COMMAND: u32 = 4;

record! {
    /// Lists the mappings in [`start`, `end`) in ascending order: up to `num` records are written,
    /// `num` becomes the number there is.
    pub struct VaDump("drm_fencepost_va_dump"), 56 {
        /// The VM, banned or not.
        vm_id: u32 = Role::Handle(Object::Vm),
        /// Must be zero.
        flags: u32 = Role::Zero,
        /// In: room. Out: mappings.
        num: u32 = Role::InOut,
        /// Size of one record, at least 64.
        stride: u32 = Role::Stride,
        /// Array of [`Va`].
        vas: u64 = Role::Pointer,
        /// First address.
        start: u64 = Role::In,
        /// One past the last; 0: all of the VM. Below `start`: `EINVAL`.
        end: u64 = Role::In,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}

record! {
    /// One mapping, or a sparse region (flag [`BIND_SPARSE`], listed before what is inside).
    pub struct Va("drm_fencepost_va"), 64 {
        /// GPU address.
        addr: u64 = Role::Out,
        /// Size.
        range: u64 = Role::Out,
        /// Offset into the object.
        offset: u64 = Role::Out,
        /// A handle of the object in this file; 0: none (NULL, sparse, or the handle is closed).
        handle: u32 = Role::Out,
        /// `BIND_*` bits.
        flags: u32 = Role::Out,
        /// Page kind.
        kind: u32 = Role::Out,
        /// The region that the object lives in now; 0: none.
        resident: u32 = Role::Out,
        /// Valid page-table entries of 2 MiB in the range.
        ptes_2m: u32 = Role::Out,
        /// Of 64 KiB.
        ptes_64k: u32 = Role::Out,
        /// Of 4 KiB.
        ptes_4k: u32 = Role::Out,
        /// Preferred region set by madvise.
        preferred: u32 = Role::Out,
        /// Number that tells objects apart across files; 0: none.
        object: u64 = Role::Out,
    }
}

// ---- SVM ---------------------------------------------------------------------------------------

record! {
    /// Sets or gets an attribute of addresses, which holds for the mirrors of the VM, whatever the CPU
    /// maps there. Setting the value that is set already has no effect; another one takes the pages out
    /// of the page tables, so that the next access sees it. `EOPNOTSUPP`: the VM does not take
    /// faults; `EINVAL`: no size, or a range beyond the VM, a value out of range. Unbinding a mirror
    /// forgets its attributes.
    pub struct SvmAttr("drm_fencepost_svm_attr"), 56 {
        /// Must be zero.
        extensions: u64 = Role::Zero,
        /// The VM.
        vm_id: u32 = Role::Handle(Object::Vm),
        /// [`SVM_ATTR_SET`] or [`SVM_ATTR_GET`].
        op: u32 = Role::Below(2),
        /// `SVM_ATTR_*`: which one.
        attr: u32 = Role::Below(4),
        /// Must be zero.
        flags: u32 = Role::Zero,
        /// First address.
        start: u64 = Role::Page,
        /// Size of the range in bytes.
        size: u64 = Role::Page,
        /// The value; got: [`SVM_ATTR_MIXED`] when not all addresses have the same.
        value: u64 = Role::InOut,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}
/// [`SvmAttr::op`]: set the attribute.
pub const SVM_ATTR_SET: u32 = 0;
/// [`SvmAttr::op`]: get it.
pub const SVM_ATTR_GET: u32 = 1;
/// [`SvmAttr::attr`]: the region that a GPU access moves pages to: `REGION_*`, or 0 for none, the
/// default: pages stay where they are. A page that cannot move is used where it is.
pub const SVM_ATTR_PREFERRED: u32 = 0;
/// [`SvmAttr::attr`]: what atomics of the device may do: `SVM_ATOMIC_*`.
pub const SVM_ATTR_ATOMIC: u32 = 1;
/// [`SvmAttr::attr`]: which pages move: `SVM_POLICY_*`.
pub const SVM_ATTR_POLICY: u32 = 2;
/// [`SvmAttr::attr`]: for how many nanoseconds pages that were moved to device memory stay, though the
/// CPU touches them; the access waits meanwhile. At most 1,000,000,000. Eviction does not ask.
pub const SVM_ATTR_TIMESLICE: u32 = 3;
/// Not one value.
pub const SVM_ATTR_MIXED: u64 = 0xffff_ffff_ffff_ffff;
/// Atomics make a page of system memory exclusive to the device until the CPU touches it.
pub const SVM_ATOMIC_UNDEFINED: u64 = 0;
/// Atomics of the device work on system memory as it is; they are not atomic against the CPU's.
pub const SVM_ATOMIC_DEVICE: u64 = 1;
/// Atomics move the page to device memory; where that fails, as undefined.
pub const SVM_ATOMIC_GLOBAL: u64 = 2;
/// Atomics of the device fault (kind `PERMISSION`).
pub const SVM_ATOMIC_CPU: u64 = 3;
/// All pages that can; those in the memory of another device of the driver move from there directly.
pub const SVM_POLICY_ALL: u64 = 0;
/// Pages of system memory; those in the memory of another device stay, which [`SVM_MIGRATE_STRICT`]
/// tells as `EBUSY`. An access of the GPU still brings them to system memory.
pub const SVM_POLICY_SYSTEM: u64 = 1;

record! {
    /// Moves the pages of a range of the caller's address space to a region. Best effort, as nouveau's
    /// SVM_BIND: what cannot be moved (holes, shared and pinned pages, no memory) is left out, and the
    /// call succeeds. With [`SVM_MIGRATE_STRICT`] all pages move or none does, as
    /// `drm_pagemap_migrate_to_devmem`: `EINVAL`: not within one mapping of the CPU; `ENOENT`: nothing
    /// mapped; `EBUSY`: not private anonymous memory, or a page that does not move now; `ENOMEM`: no
    /// memory there, also after eviction; `EIO`: the copy failed. None means that each is where it was;
    /// what was in another device's memory may be in the system's. `EOPNOTSUPP`: the VM does not take
    /// faults; `EINVAL`: no size, a range beyond the VM; `EFAULT`: the address space has ended.
    pub struct SvmMigrate("drm_fencepost_svm_migrate"), 56 {
        /// Must be zero.
        extensions: u64 = Role::Zero,
        /// The VM.
        vm_id: u32 = Role::Handle(Object::Vm),
        /// [`SVM_MIGRATE_STRICT`] or 0.
        flags: u32 = Role::Flags(1),
        /// First address.
        start: u64 = Role::Page,
        /// Size of the range in bytes.
        size: u64 = Role::Page,
        /// Where to: one of `REGION_*`, else `EINVAL`.
        region: u32 = Role::In,
        /// Must be zero.
        pad: u32 = Role::Zero,
        /// Pages that moved.
        pages: u64 = Role::Out,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}
/// All or nothing.
pub const SVM_MIGRATE_STRICT: u32 = 1;

record! {
    /// Makes the pages of a range exclusive to the device and maps them, so that atomics work: until the
    /// CPU touches a page, only the device accesses it. Pages in device memory are moved to system
    /// memory before. `EFAULT`: nothing mapped, or not writable; `EOPNOTSUPP`: not private anonymous
    /// memory, or the VM does not take faults; `EINVAL`: no size, or a range that is not in mirrors of the
    /// VM; `EACCES`: [`SVM_ATOMIC_CPU`] is set there; `EBUSY`: a page that others hold; `ENOMEM`. The pages before the one that failed stay
    /// exclusive; `pages` says how many in any case.
    pub struct SvmExclusive("drm_fencepost_svm_exclusive"), 56 {
        /// Must be zero.
        extensions: u64 = Role::Zero,
        /// The VM.
        vm_id: u32 = Role::Handle(Object::Vm),
        /// Must be zero.
        flags: u32 = Role::Zero,
        /// First address.
        start: u64 = Role::Page,
        /// Size of the range in bytes.
        size: u64 = Role::Page,
        /// Pages that became exclusive.
        pages: u64 = Role::Out,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}

record! {
    /// Tells of each page of a range what the CPU and the GPU have there, now, and faults nothing in. One
    /// `u32` a page is written. `EOPNOTSUPP`: the VM does not take faults; `EINVAL`: no size, more
    /// than 1 GiB, a range beyond the VM; `EFAULT`: a bad address, or the address space has ended;
    /// `EBUSY`: the address space did not stand still for a second.
    pub struct SvmQuery("drm_fencepost_svm_query"), 56 {
        /// Must be zero.
        extensions: u64 = Role::Zero,
        /// The VM.
        vm_id: u32 = Role::Handle(Object::Vm),
        /// Must be zero.
        flags: u32 = Role::Zero,
        /// First address.
        start: u64 = Role::Page,
        /// Size of the range in bytes.
        size: u64 = Role::Page,
        /// Receives `size` / 4096 numbers of `SVM_PAGE_*` bits.
        pages: u64 = Role::Pointer,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}
/// The CPU has a page there, which may be read.
pub const SVM_PAGE_READ: u32 = 1;
/// And written.
pub const SVM_PAGE_WRITE: u32 = 2;
/// Nothing can be had there: no mapping, or one without permissions.
pub const SVM_PAGE_ERROR: u32 = 4;
/// The zero page, where the world can tell.
pub const SVM_PAGE_ZERO: u32 = 8;
/// This VM's page tables show the page.
pub const SVM_PAGE_GPU_READ: u32 = 0x10;
/// And let it be written.
pub const SVM_PAGE_GPU_WRITE: u32 = 0x20;
/// And let atomics be done.
pub const SVM_PAGE_GPU_ATOMIC: u32 = 0x40;
/// A range of this VM covers the address.
pub const SVM_PAGE_RANGE: u32 = 0x80;
/// Where the page is: `SVM_LOCATION_*`.
pub const SVM_PAGE_LOCATION_MASK: u32 = 0x300;
/// See [`SVM_PAGE_LOCATION_MASK`].
pub const SVM_PAGE_LOCATION_SHIFT: u32 = 8;
/// The CPU maps it with its neighbours as one: 1 << this many pages.
pub const SVM_PAGE_ORDER_MASK: u32 = 0x1f_0000;
/// See [`SVM_PAGE_ORDER_MASK`].
pub const SVM_PAGE_ORDER_SHIFT: u32 = 16;
/// The GPU maps it with its neighbours as one: 1 << this many pages: 0, 4, 9.
pub const SVM_PAGE_GPU_ORDER_MASK: u32 = 0x1f00_0000;
/// See [`SVM_PAGE_GPU_ORDER_MASK`].
pub const SVM_PAGE_GPU_ORDER_SHIFT: u32 = 24;
/// Nothing is populated there, or it is exclusive to a device.
pub const SVM_LOCATION_NONE: u32 = 0;
/// System memory.
pub const SVM_LOCATION_SYSTEM: u32 = 1;
/// Memory of this device.
pub const SVM_LOCATION_DEVICE: u32 = 2;
/// Memory of another device.
pub const SVM_LOCATION_OTHER: u32 = 3;

// ---- debug group -------------------------------------------------------------------------------

record! {
    /// Makes this open file a testing one. `EPERM` unless the device was started for testing.
    /// Until then every other call of the group is `EPERM`.
    pub struct DebugOpen("drm_fencepost_debug_open"), 16 {
        /// Must be zero.
        flags: u64 = Role::Zero,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}

record! {
    /// Arms a failure for calls made through this open file: the `nth` operation of that kind from
    /// now (1: the next) fails once. `nth` 0 disarms. Always reports the previous state.
    pub struct DebugInject("drm_fencepost_debug_inject"), 40 {
        /// `INJECT_*`.
        kind: u32 = Role::Below(5),
        /// Must be zero.
        flags: u32 = Role::Zero,
        /// Which one fails.
        nth: u64 = Role::In,
        /// Operations of that kind since the last arming.
        seen: u64 = Role::Out,
        /// 1 if the armed failure happened.
        fired: u64 = Role::Out,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}
/// An allocation of the driver.
pub const INJECT_ALLOC: u32 = 0;
/// A copy between regions.
pub const INJECT_COPY: u32 = 1;
/// A DMA mapping.
pub const INJECT_DMA_MAP: u32 = 2;
/// An asynchronous page-table update: the VM is banned.
pub const INJECT_ASYNC_BIND: u32 = 3;
/// Device or system memory for the pages of a migration, also of one that the CPU or the GPU caused in
/// a VM of this open file. A larger piece is then moved in pages of 4 KiB.
pub const INJECT_MIGRATE: u32 = 4;

record! {
    /// Holds whoever comes by a named delay point of the driver (list: docs/UAPI.md). Unknown
    /// name: `ENOENT`. An armed point lets go by itself after `timeout_ms`, and when the file closes.
    pub struct DebugDelay("drm_fencepost_debug_delay"), 64 {
        /// The name, padded with zeros.
        name: [u8; 32] = Role::In,
        /// `DELAY_*`.
        action: u32 = Role::Below(4),
        /// Arm: how long at most. Wait: longest wait, then `ETIME`. Both 1 to 60,000; else 0.
        timeout_ms: u32 = Role::In,
        /// How often the point was passed since it was armed.
        hits: u64 = Role::Out,
        /// Held there now.
        held: u64 = Role::Out,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}
/// Hold whoever comes.
pub const DELAY_ARM: u32 = 0;
/// Let go and disarm.
pub const DELAY_RELEASE: u32 = 1;
/// Wait until somebody is held.
pub const DELAY_WAIT: u32 = 2;
/// Only report.
pub const DELAY_STATE: u32 = 3;

record! {
    /// Evicts objects from VRAM to system memory. `EBUSY`: an object's only placement is VRAM.
    pub struct DebugEvict("drm_fencepost_debug_evict"), 24 {
        /// The object; 0: every object of the device that may leave.
        handle: u32 = Role::Handle(Object::Gem),
        /// [`DEBUG_EVICT_SVM`] or 0.
        flags: u32 = Role::Flags(1),
        /// Bytes moved.
        bytes: u64 = Role::Out,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}

/// Memory that SVM has in VRAM leaves it, in place of objects; `handle` must be 0 (`EINVAL`).
pub const DEBUG_EVICT_SVM: u32 = 1;

record! {
    /// Sets a parameter of SVM, or only tells it. `EINVAL`: a value out of range. A parameter of VMs holds
    /// for those made through this open file from then on; one of the device until this open file closes.
    pub struct SvmTune("drm_fencepost_svm_tune"), 32 {
        /// `SVM_TUNE_*`.
        param: u32 = Role::Below(7),
        /// [`SVM_TUNE_SET`] or 0.
        flags: u32 = Role::Flags(1),
        /// In: the new value. Out: the value before.
        value: u64 = Role::InOut,
        /// Must be zero.
        reserved: [u64; 2] = Role::Zero,
    }
}
/// Set the parameter.
pub const SVM_TUNE_SET: u32 = 1;
/// Of VMs: size of the window of a notifier in bytes: a power of two from 64 KiB to 1 TiB; 512 MiB.
pub const SVM_TUNE_NOTIFIER: u32 = 0;
/// Of VMs: sizes of ranges: bit n for 1 << n bytes, of 4 KiB (always), 64 KiB and 2 MiB; all.
pub const SVM_TUNE_CHUNKS: u32 = 1;
/// Of VMs: a range of up to this many bytes is made only where the CPU has all pages: 0 to 2 MiB;
/// 64 KiB.
pub const SVM_TUNE_CHECK_PAGES: u32 = 2;
/// Of VMs: nanoseconds of [`SVM_ATTR_TIMESLICE`] where it is not set; 0.
pub const SVM_TUNE_TIMESLICE: u32 = 3;
/// Of the device: entries of the replayable fault buffer: 1 to 1024; 256.
pub const SVM_TUNE_FAULT_ENTRIES: u32 = 4;
/// Of the device: most entries that are serviced together: 1 to 256; 64.
pub const SVM_TUNE_FAULT_BATCH: u32 = 5;
/// Of VMs: 1: the GPU may have pages of a range in device and system memory at once; 0: a fault that
/// would make it so brings all of the range to system memory, as xe does; 1.
pub const SVM_TUNE_MIXED: u32 = 6;

record! {
    /// Looks at the replayable fault buffer of the device, or takes its servicing in hand.
    pub struct SvmFaults("drm_fencepost_svm_faults"), 64 {
        /// `SVM_FAULTS_*`.
        action: u32 = Role::Below(5),
        /// Wait: for how long at most, 1 to 60,000, then `ETIME`; else 0 (`EINVAL`).
        timeout_ms: u32 = Role::In,
        /// Wait: in the number of entries to wait for, else 0 (`EINVAL`). Out: entries to be serviced.
        entries: u64 = Role::InOut,
        /// Entries that were ever put.
        put: u64 = Role::Out,
        /// Entries that were ever taken.
        get: u64 = Role::Out,
        /// Room for entries.
        room: u64 = Role::Out,
        /// Jobs that wait for a replay.
        parked: u64 = Role::Out,
        /// 1 while paused.
        paused: u64 = Role::Out,
        /// Must be zero.
        reserved: u64 = Role::Zero,
    }
}
/// Only report.
pub const SVM_FAULTS_STATE: u32 = 0;
/// Service no entry until it is resumed, or this open file closes.
pub const SVM_FAULTS_PAUSE: u32 = 1;
/// Go on.
pub const SVM_FAULTS_RESUME: u32 = 2;
/// Drop the entries and replay: accesses that still miss put theirs again.
pub const SVM_FAULTS_FLUSH: u32 = 3;
/// Wait until there are as many entries to be serviced.
pub const SVM_FAULTS_WAIT: u32 = 4;

// ---- numbers -----------------------------------------------------------------------------------

/// Declares the driver's ioctls; numbers are consecutive within a group.
macro_rules! ioctls {
    ($($(#[doc = $doc:literal])+ $name:ident = $nr:literal, $record:ident;)+) => {
        $($(#[doc = $doc])+ pub const $name: u32 = drm(RW, DRM_COMMAND_BASE + $nr, $record::SIZE);)+
        /// Every ioctl of the driver.
        pub const IOCTLS: &[crate::Ioctl] = &[$(crate::Ioctl {
            name: stringify!($name),
            request: $name,
            record: $record::NAME,
            size: $record::SIZE,
            fields: $record::FIELDS,
            doc: $record::DOC,
        },)+];
    };
}
ioctls! {
    /// See [`Query`].
    QUERY = 0x00, Query;
    /// See [`GemCreate`].
    GEM_CREATE = 0x01, GemCreate;
    /// See [`GemMmapOffset`].
    GEM_MMAP_OFFSET = 0x02, GemMmapOffset;
    /// See [`GemInfo`].
    GEM_INFO = 0x03, GemInfo;
    /// See [`VmCreate`].
    VM_CREATE = 0x04, VmCreate;
    /// See [`VmDestroy`].
    VM_DESTROY = 0x05, VmDestroy;
    /// See [`VmBind`].
    VM_BIND = 0x06, VmBind;
    /// See [`QueueCreate`].
    QUEUE_CREATE = 0x07, QueueCreate;
    /// See [`QueueDestroy`].
    QUEUE_DESTROY = 0x08, QueueDestroy;
    /// See [`QueueInfo`].
    QUEUE_INFO = 0x09, QueueInfo;
    /// See [`Exec`].
    EXEC = 0x0a, Exec;
    /// See [`WaitUserFence`].
    WAIT_USER_FENCE = 0x0b, WaitUserFence;
    /// See [`FaultReport`].
    FAULT_REPORT = 0x0c, FaultReport;
    /// See [`VaDump`].
    VA_DUMP = 0x0d, VaDump;
    /// See [`SvmAttr`].
    SVM_ATTR = 0x10, SvmAttr;
    /// See [`SvmMigrate`].
    SVM_MIGRATE = 0x11, SvmMigrate;
    /// See [`SvmExclusive`].
    SVM_EXCLUSIVE = 0x12, SvmExclusive;
    /// See [`SvmQuery`].
    SVM_QUERY = 0x13, SvmQuery;
    /// See [`DebugOpen`].
    DEBUG_OPEN = 0x30, DebugOpen;
    /// See [`DebugInject`].
    DEBUG_INJECT = 0x31, DebugInject;
    /// See [`DebugDelay`].
    DEBUG_DELAY = 0x32, DebugDelay;
    /// See [`DebugEvict`].
    DEBUG_EVICT = 0x33, DebugEvict;
    /// See [`SvmTune`].
    SVM_TUNE = 0x34, SvmTune;
    /// See [`SvmFaults`].
    SVM_FAULTS = 0x35, SvmFaults;
}
