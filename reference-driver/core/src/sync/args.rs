//! The syncs of a bind or exec call.
//!
//! Owns their checks, in the order of the uAPI, and the two halves of a call's synchronisation: the
//! fences to wait for, found before anything happens, and the syncobjs to put the call's own fence
//! into, with room promised so that this cannot fail.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::Sync;
use fencepost_uapi::Errno;

use super::fence::{pending_into, Fence};
use super::syncobj::{Place, Syncobj};
use crate::call::Call;
use crate::counters::Counter;
use crate::facade::{Arc, Vec};
use crate::host::Host;

/// Where a user fence writes what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserFence {
    /// A CPU address (binds) or a GPU address (exec).
    pub addr: u64,
    /// The value.
    pub value: u64,
}

/// One out-fence.
struct Out {
    syncobj: Arc<Syncobj>,
    /// Point and its promised place; `None`: a binary syncobj.
    point: Option<(u64, Place)>,
}

/// The syncs of a call, checked and looked up.
pub struct Syncs {
    /// Unsignalled fences to wait for.
    pub deps: Vec<Arc<Fence>>,
    outs: Vec<Out>,
    /// The user fence.
    pub user_fence: Option<UserFence>,
}

/// Checks what needs no object.
///
/// # Errors
/// `EINVAL`, `EOPNOTSUPP`.
pub fn check(syncs: &[Sync]) -> Result<(), Errno> {
    let mut user_fences = 0;
    for sync in syncs {
        let signal = sync.flags & fp::SYNC_SIGNAL != 0;
        if sync.flags & !fp::SYNC_SIGNAL != 0 || sync.pad != 0 {
            return Err(Errno::INVAL);
        }
        match sync.kind {
            fp::SYNC_SYNCOBJ if sync.value != 0 || sync.addr != 0 => return Err(Errno::INVAL),
            fp::SYNC_TIMELINE if sync.value == 0 || sync.addr != 0 => return Err(Errno::INVAL),
            fp::SYNC_SYNCOBJ | fp::SYNC_TIMELINE => {}
            fp::SYNC_USER_FENCE => {
                user_fences += 1;
                if sync.handle != 0 || sync.addr % 8 != 0 || user_fences > 1 {
                    return Err(Errno::INVAL);
                }
                if !signal {
                    return Err(Errno::OPNOTSUPP);
                }
            }
            _ => return Err(Errno::INVAL),
        }
    }
    Ok(())
}

impl Syncs {
    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Syncs { deps: Vec::new(), outs: Vec::new(), user_fence: None }
    }

    /// Looks up checked syncs. `long_running`: the work makes no fence that a syncobj may hold.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: an out-syncobj of long-running work; `ENOENT`: unknown handle; `EINVAL`: an
    /// in-syncobj without that fence; `ENOMEM`. Then no room is promised any more.
    pub fn find<H: Host>(
        call: &Call<'_, H>,
        syncs: &[Sync],
        long_running: bool,
    ) -> Result<Self, Errno> {
        let is_out = |sync: &Sync| sync.flags & fp::SYNC_SIGNAL != 0;
        let is_syncobj = |sync: &Sync| sync.kind != fp::SYNC_USER_FENCE;
        if long_running && syncs.iter().any(|sync| is_out(sync) && is_syncobj(sync)) {
            return Err(Errno::OPNOTSUPP);
        }
        let mut found = Syncs::none();
        match found.fill(call, syncs) {
            Ok(()) => Ok(found),
            Err(errno) => {
                found.cancel();
                Err(errno)
            }
        }
    }

    fn fill<H: Host>(&mut self, call: &Call<'_, H>, syncs: &[Sync]) -> Result<(), Errno> {
        let mut objects = Vec::with_capacity(syncs.len())?;
        for sync in syncs {
            objects.push(match sync.kind {
                fp::SYNC_USER_FENCE => None,
                _ => Some(call.file.handles.syncobj(sync.handle)?),
            })?;
        }
        for (sync, syncobj) in syncs.iter().zip(objects) {
            let Some(syncobj) = syncobj else {
                self.user_fence = Some(UserFence { addr: sync.addr, value: sync.value });
                continue;
            };
            if sync.flags & fp::SYNC_SIGNAL == 0 {
                let fence = syncobj.find(sync.value, &call.dev.stub)?;
                pending_into(&fence, &mut self.deps)?;
                continue;
            }
            self.outs.reserve(1)?;
            let point = match sync.kind {
                fp::SYNC_TIMELINE => Some((sync.value, syncobj.reserve()?)),
                _ => None,
            };
            self.outs.push(Out { syncobj, point })?;
        }
        call.dev.counters.add(Counter::FencesWaited, self.deps.len() as u64);
        Ok(())
    }

    /// Puts the fence of the work into the out-syncobjs.
    pub fn install(&mut self, fence: &Arc<Fence>) {
        for out in core::mem::take(&mut self.outs) {
            match out.point {
                Some((seqno, place)) => out.syncobj.add_point(place, seqno, fence.clone()),
                None => out.syncobj.replace(Some(fence.clone())),
            }
        }
    }

    /// The call failed: gives promised room back.
    pub fn cancel(&mut self) {
        for out in core::mem::take(&mut self.outs) {
            if let Some((_, place)) = out.point {
                out.syncobj.cancel(place);
            }
        }
    }
}
