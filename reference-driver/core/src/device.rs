//! The device: what all open files share.
//!
//! Owns the struct and its start; each part's behaviour stands in the part's own module.

use fencepost_uapi::fencepost::PAGE_SIZE;
use fencepost_uapi::Errno;

use crate::counters::Counters;
use crate::debug::delay::Delays;
use crate::driver::Config;
use crate::drm;
use crate::facade::{Arc, AtomicU64, Mutex, Ordering, Rank, Slab, Vec};
use crate::gem::Gem;
use crate::host::Host;
use crate::sched::bind::{BindJob, UserWrite, BIND_ROOM};
use crate::sched::exec::ExecJob;
use crate::sched::lane::{Lane, Line};
use crate::svm;
use crate::sync::fence::Fence;
use crate::vram::Buddy;

/// Most engines of a device.
pub const MAX_ENGINES: u32 = 16;

/// One device.
pub struct Device<H: Host> {
    /// Its world.
    pub host: H,
    /// How it was made.
    pub config: Config,
    /// The counters of the uAPI.
    pub counters: Arc<Counters>,
    /// Tickets of [`crate::sync::resv::ExecLock`]: the smaller, the older.
    pub tickets: AtomicU64,
    /// A fence that has always been signalled.
    pub stub: Arc<Fence>,
    /// Allocator of device memory.
    pub vram: Mutex<Buddy>,
    /// Every buffer object.
    pub objects: Mutex<Slab<Arc<Gem<H>>>>,
    /// What the DRM core keeps for a device.
    pub drm: drm::Shared<H>,
    /// Bind queues, served by [`crate::driver::Worker::Bind`].
    pub binds: Lane<BindJob<H>>,
    /// Bind jobs that have signalled, for [`crate::driver::Worker::CleanUp`].
    pub clean_ups: Line<BindJob<H>>,
    /// User fences of binds to write, for [`crate::driver::Worker::UserFence`].
    pub user_fences: Line<UserWrite<H>>,
    /// Exec queues of each engine.
    pub engines: Vec<Lane<ExecJob<H>>>,
    /// SVM.
    pub svm: svm::Shared<H>,
    /// Delay points.
    pub delays: Delays,
    /// Bytes of system memory that objects take.
    pub system_used: AtomicU64,
    ids: AtomicU64,
    uses: AtomicU64,
}

impl<H: Host> Device<H> {
    /// Starts a device.
    ///
    /// # Errors
    /// `EINVAL` for a configuration out of range; `ENOMEM`.
    pub fn new(host: H, config: Config) -> Result<Arc<Self>, Errno> {
        let engines = 1..=MAX_ENGINES;
        if config.vram_bytes % PAGE_SIZE != 0 || !engines.contains(&config.engines) {
            return Err(Errno::INVAL);
        }
        let mut lanes = Vec::new();
        for _ in 0..config.engines {
            lanes.push(Lane::new()?)?;
        }
        Ok(Arc::new(Device {
            host,
            config,
            counters: Arc::new(Counters::new())?,
            tickets: AtomicU64::new(0),
            stub: Fence::stub()?,
            vram: Mutex::new(Rank::Vram, Buddy::new(config.vram_bytes / PAGE_SIZE)?)?,
            objects: Mutex::new(Rank::Object, Slab::new())?,
            drm: drm::Shared::new()?,
            binds: Lane::new()?,
            clean_ups: Line::new(BIND_ROOM)?,
            user_fences: Line::new(BIND_ROOM)?,
            engines: lanes,
            svm: svm::Shared::new(config.vram_bytes / PAGE_SIZE)?,
            delays: Delays::new()?,
            system_used: AtomicU64::new(0),
            ids: AtomicU64::new(0),
            uses: AtomicU64::new(0),
        })?)
    }

    /// A number that no other object of the device has; never 0.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The next stamp of the least-recently-used order.
    pub fn next_use(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Signals a fence: tells sync files, waiters and workers.
    pub fn signal(&self, fence: &Arc<Fence>, error: Option<Errno>) {
        if fence.set(error) {
            self.counters.inc(crate::counters::Counter::FencesSignalled);
            self.drm.fence_signalled(&self.host);
            self.host.wake();
        }
    }
}
