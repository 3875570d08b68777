//! Waiting for syncobjs: `drm_syncobj_array_wait_timeout`.

use fencepost_uapi::drm::{
    SyncobjTimelineWait, SyncobjWait, SYNCOBJ_WAIT_ALL, SYNCOBJ_WAIT_AVAILABLE,
    SYNCOBJ_WAIT_DEADLINE, SYNCOBJ_WAIT_FOR_SUBMIT,
};
use fencepost_uapi::Errno;

use super::syncobj::find_array;
use crate::call::Call;
use crate::counters::Counter;
use crate::facade::{Arc, Vec};
use crate::host::Host;
use crate::sync::fence::Fence;
use crate::sync::syncobj::Syncobj;

/// Flags of the binary wait.
const BINARY: u32 = SYNCOBJ_WAIT_ALL | SYNCOBJ_WAIT_FOR_SUBMIT | SYNCOBJ_WAIT_DEADLINE;

/// `DRM_IOCTL_SYNCOBJ_WAIT`.
pub fn wait<H: Host>(call: &Call<'_, H>, args: &mut SyncobjWait) -> Result<i64, Errno> {
    if args.flags & !BINARY != 0 {
        return Err(Errno::INVAL);
    }
    if args.count_handles == 0 {
        return Ok(0);
    }
    let syncobjs = find_array(call, args.handles, args.count_handles)?;
    args.first_signaled = wait_array(call, syncobjs, &[], args.flags, args.timeout_nsec)?;
    Ok(0)
}

/// `DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT`.
pub fn timeline_wait<H: Host>(
    call: &Call<'_, H>,
    args: &mut SyncobjTimelineWait,
) -> Result<i64, Errno> {
    if args.flags & !(BINARY | SYNCOBJ_WAIT_AVAILABLE) != 0 {
        return Err(Errno::INVAL);
    }
    if args.count_handles == 0 {
        return Ok(0);
    }
    let syncobjs = find_array(call, args.handles, args.count_handles)?;
    let points = match args.points {
        0 => Vec::new(),
        points => call.read_numbers(points, args.count_handles, u64::from_ne_bytes)?,
    };
    args.first_signaled = wait_array(call, syncobjs, &points, args.flags, args.timeout_nsec)?;
    Ok(0)
}

/// One entry of a wait.
struct Entry {
    syncobj: Arc<Syncobj>,
    point: u64,
    /// Found once it is submitted.
    fence: Option<Arc<Fence>>,
}

impl Entry {
    /// Looks for the fence if it is not known yet.
    fn look(&mut self, stub: &Arc<Fence>) -> Result<(), Errno> {
        if self.fence.is_none() {
            match self.syncobj.find(self.point, stub) {
                Ok(fence) => self.fence = Some(fence),
                Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

/// Waits for any or all. Returns the index of the first that was signalled; 0 if all were waited for
/// and none was at first.
fn wait_array<H: Host>(
    call: &Call<'_, H>,
    syncobjs: Vec<Arc<Syncobj>>,
    points: &[u64],
    flags: u32,
    timeout_ns: i64,
) -> Result<u32, Errno> {
    let stub = &call.dev.stub;
    let mut entries = Vec::with_capacity(syncobjs.len())?;
    for (index, syncobj) in syncobjs.into_iter().enumerate() {
        let point = points.get(index).copied().unwrap_or(0);
        let mut entry = Entry { syncobj, point, fence: None };
        entry.look(stub)?;
        let may_come = flags & (SYNCOBJ_WAIT_FOR_SUBMIT | SYNCOBJ_WAIT_AVAILABLE) != 0;
        if entry.fence.is_none() && !may_come {
            return Err(Errno::INVAL);
        }
        entries.push(entry)?;
    }
    if let Some(first) = done(&entries, flags) {
        return Ok(first);
    }
    call.dev.counters.add(Counter::FencesWaited, entries.len() as u64);
    // A negative or past time polls.
    let deadline = u64::try_from(timeout_ns).unwrap_or(0);
    let mut result = Err(Errno::TIME);
    let mut ready = || {
        if let Some(errno) = entries.iter_mut().find_map(|entry| entry.look(stub).err()) {
            result = Err(errno);
            return true;
        }
        match done(&entries, flags) {
            Some(first) => {
                result = Ok(first);
                true
            }
            None => false,
        }
    };
    let host = &call.dev.host;
    host.wait_event(Some(call.task), Some(deadline), &mut ready)?;
    result
}

/// Whether the wait is over, and the first signalled entry.
fn done(entries: &[Entry], flags: u32) -> Option<u32> {
    let available = flags & SYNCOBJ_WAIT_AVAILABLE != 0;
    let is_done =
        |entry: &Entry| entry.fence.as_ref().is_some_and(|fence| available || fence.is_signalled());
    let first = entries.iter().position(is_done)?;
    let all = flags & SYNCOBJ_WAIT_ALL == 0 || entries.iter().all(is_done);
    all.then_some(u32::try_from(first).unwrap_or(u32::MAX))
}
