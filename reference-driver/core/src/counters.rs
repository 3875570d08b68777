//! The device's counters: one atomic for each name of the uAPI.
//!
//! Owns the numbers; what each of them means stands in `fencepost_uapi::fencepost::COUNTERS`.

use fencepost_uapi::fencepost::COUNTERS;

use crate::facade::{AtomicU64, Ordering};

/// Number of counters.
pub const COUNT: usize = COUNTERS.len();

macro_rules! counters {
    ($($variant:ident = $name:literal,)+) => {
        /// One counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $(#[doc = concat!("`", $name, "`.")] $variant,)+ }

        const NAMES: [&str; COUNT] = [$($name,)+];
    };
}
counters! {
    Ioctls = "ioctls",
    BindsSync = "binds.sync",
    BindsAsync = "binds.async",
    BindsFailed = "binds.failed",
    BindsUnwound = "binds.unwound",
    OpsMap = "ops.map",
    OpsUnmap = "ops.unmap",
    OpsRemap = "ops.remap",
    OpsPrefetch = "ops.prefetch",
    OpsMadvise = "ops.madvise",
    OpsKeep = "ops.keep",
    Splits = "splits",
    PtWrites = "pt.writes",
    PtClears = "pt.clears",
    PtPages2m = "pt.pages_2m",
    PtPages64k = "pt.pages_64k",
    PtPages4k = "pt.pages_4k",
    TlbHits = "tlb.hits",
    TlbMisses = "tlb.misses",
    TlbInvalidations = "tlb.invalidations",
    FaultsDevice = "faults.device",
    FaultsPermission = "faults.permission",
    SparseReads = "sparse.reads",
    SparseWrites = "sparse.writes",
    BusErrors = "bus_errors",
    Evictions = "evictions",
    EvictedBytes = "evicted_bytes",
    Restores = "restores",
    MovesToVram = "moves.to_vram",
    MovesToSystem = "moves.to_system",
    LockBackoffs = "lock.backoffs",
    JobsSubmitted = "jobs.submitted",
    JobsCompleted = "jobs.completed",
    JobsFailed = "jobs.failed",
    JobsTimeout = "jobs.timeout",
    JobsCancelled = "jobs.cancelled",
    Resets = "resets",
    Commands = "commands",
    FencesCreated = "fences.created",
    FencesSignalled = "fences.signalled",
    FencesWaited = "fences.waited",
    UserFencesSignalled = "user_fences.signalled",
    Injected = "injected",
    DelaysHit = "delays.hit",
    PrimeExports = "prime.exports",
    PrimeImports = "prime.imports",
    Leaks = "leaks",
    LiveFiles = "live.files",
    LiveVms = "live.vms",
    LiveVas = "live.vas",
    LiveBos = "live.bos",
    LiveQueues = "live.queues",
    LiveSyncobjs = "live.syncobjs",
    LiveJobs = "live.jobs",
    LiveVramBytes = "live.vram_bytes",
    LiveSystemBytes = "live.system_bytes",
    LivePtNodes = "live.pt_nodes",
    SvmFaults = "svm.faults",
    SvmFaultsRead = "svm.faults.read",
    SvmFaultsWrite = "svm.faults.write",
    SvmFaultsAtomic = "svm.faults.atomic",
    SvmFaultsCoalesced = "svm.faults.coalesced",
    SvmBatches = "svm.batches",
    SvmReplays = "svm.replays",
    SvmCancels = "svm.cancels",
    SvmBufferFull = "svm.buffer_full",
    SvmRetries = "svm.retries",
    SvmInvalidations = "svm.invalidations",
    SvmRanges = "svm.ranges",
    SvmRanges2m = "svm.ranges_2m",
    SvmRanges64k = "svm.ranges_64k",
    SvmRanges4k = "svm.ranges_4k",
    SvmRangeSplits = "svm.range_splits",
    SvmCollected = "svm.collected",
    SvmPrefetched = "svm.prefetched",
    SvmToDevice = "svm.migrated.to_device",
    SvmToSystem = "svm.migrated.to_system",
    SvmCpuFaults = "svm.cpu_faults",
    SvmTimeslices = "svm.timeslices",
    SvmEvictions = "svm.evictions",
    SvmExclusive = "svm.exclusive",
    SvmRevokes = "svm.revokes",
    LiveSvmRanges = "live.svm_ranges",
    LiveNotifiers = "live.notifiers",
    LiveSvmPages = "live.svm_pages",
    LiveDmaPages = "live.dma_pages",
    LiveParked = "live.parked",
    SvmMixed = "svm.mixed",
    SvmFills = "svm.fills",
    SvmAcross = "svm.migrated.across",
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut equal = a.len() == b.len();
    let mut i = 0;
    while equal && i < a.len() {
        equal = a[i] == b[i];
        i += 1;
    }
    equal
}

const _: () = {
    let mut i = 0;
    while i < COUNT {
        assert!(same(NAMES[i], COUNTERS[i]), "the enum follows the uAPI's table");
        i += 1;
    }
};

/// The counters of a device.
pub struct Counters([AtomicU64; COUNT]);

impl Counters {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Counters(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Counts one.
    pub fn inc(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts several.
    pub fn add(&self, counter: Counter, n: u64) {
        self.0[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// One object fewer; `live.*` counters only.
    pub fn dec(&self, counter: Counter) {
        self.sub(counter, 1);
    }

    /// Several fewer; `live.*` counters only.
    pub fn sub(&self, counter: Counter, n: u64) {
        self.0[counter as usize].fetch_sub(n, Ordering::Relaxed);
    }

    /// The value of one.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// All values, in the order of the uAPI's table.
    #[must_use]
    pub fn all(&self) -> [u64; COUNT] {
        core::array::from_fn(|i| self.0[i].load(Ordering::Relaxed))
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
