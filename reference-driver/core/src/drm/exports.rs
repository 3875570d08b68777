//! What file descriptors stand for: buffer objects, syncobjs and sync files.
//!
//! Owns the references that descriptors hold. The descriptors themselves are the host's; each
//! [`Host::install_fd`] has its own number here and one release.

use fencepost_uapi::Errno;

use crate::facade::{AllocError, Arc, AtomicU64, Mutex, Ordering, Rank, Slab};
use crate::gem::GemRef;
use crate::host::{FdKind, Host};
use crate::sync::fence::Fence;
use crate::sync::syncobj::Syncobj;

/// What one descriptor stands for.
pub enum Export<H: Host> {
    /// A buffer object.
    Prime(GemRef<H>),
    /// A syncobj.
    Syncobj(Arc<Syncobj>),
    /// A fence; `told` once the host knows that it has signalled.
    SyncFile {
        /// The fence.
        fence: Arc<Fence>,
        /// The host was told.
        told: bool,
    },
}

impl<H: Host> Export<H> {
    fn kind(&self) -> FdKind {
        match self {
            Export::Prime(_) => FdKind::Prime,
            Export::Syncobj(_) => FdKind::Syncobj,
            Export::SyncFile { .. } => FdKind::SyncFile,
        }
    }
}

impl<H: Host> Clone for Export<H> {
    fn clone(&self) -> Self {
        match self {
            Export::Prime(gem) => Export::Prime(gem.clone()),
            Export::Syncobj(syncobj) => Export::Syncobj(syncobj.clone()),
            Export::SyncFile { fence, told } => {
                Export::SyncFile { fence: fence.clone(), told: *told }
            }
        }
    }
}

/// The exports of a device.
pub struct Exports<H: Host> {
    table: Mutex<Slab<Export<H>>>,
    /// Sync files whose fence has not signalled yet, so that signalling costs nothing without them.
    untold: AtomicU64,
}

impl<H: Host> Exports<H> {
    /// None yet.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new() -> Result<Self, AllocError> {
        Ok(Exports { table: Mutex::new(Rank::Debug, Slab::new())?, untold: AtomicU64::new(0) })
    }

    /// Installs a descriptor for something.
    ///
    /// # Errors
    /// `ENOMEM`, and those of [`Host::install_fd`].
    pub fn install(
        &self,
        host: &H,
        task: H::Task,
        export: Export<H>,
        cloexec: bool,
    ) -> Result<i32, Errno> {
        let kind = export.kind();
        if kind == FdKind::SyncFile {
            self.untold.fetch_add(1, Ordering::SeqCst);
        }
        let id = match Slab::insert_locked(&self.table, |table| table, export) {
            Ok(id) => id,
            Err(error) => {
                self.forget_untold(kind);
                return Err(error.into());
            }
        };
        let fd = host.install_fd(task, kind, u64::from(id), cloexec);
        match fd {
            Ok(_) => self.fence_signalled(host),
            Err(_) => self.release(kind, u64::from(id)),
        }
        fd
    }

    /// What a number stands for.
    pub fn get(&self, kind: FdKind, id: u64) -> Option<Export<H>> {
        let id = u32::try_from(id).ok()?;
        self.table.lock().get(id).filter(|export| export.kind() == kind).cloned()
    }

    /// The last copy of a descriptor is closed.
    pub fn release(&self, kind: FdKind, id: u64) {
        let removed = {
            let mut table = self.table.lock();
            let known = u32::try_from(id)
                .ok()
                .filter(|id| table.get(*id).is_some_and(|export| export.kind() == kind));
            known.and_then(|id| table.remove(id))
        };
        if let Some(Export::SyncFile { told: false, .. }) = removed {
            self.forget_untold(kind);
        }
        // `removed` drops its reference here, without the lock.
    }

    /// Tells the host of sync files whose fence has signalled.
    pub fn fence_signalled(&self, host: &H) {
        if self.untold.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut table = self.table.lock();
        table.for_each_mut(|id, export| {
            if let Export::SyncFile { fence, told } = export {
                if !*told && fence.is_signalled() {
                    *told = true;
                    self.forget_untold(FdKind::SyncFile);
                    host.sync_file_signal(u64::from(id), fence.error());
                }
            }
        });
    }

    fn forget_untold(&self, kind: FdKind) {
        if kind == FdKind::SyncFile {
            self.untold.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
