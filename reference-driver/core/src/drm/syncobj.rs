//! Syncobjs: create, destroy, reset, signal, query, transfer.

use fencepost_uapi::drm::{
    SyncobjArray, SyncobjCreate, SyncobjDestroy, SyncobjTimelineArray, SyncobjTransfer,
    SYNCOBJ_CREATE_SIGNALED, SYNCOBJ_QUERY_LAST_SUBMITTED, SYNCOBJ_WAIT_FOR_SUBMIT,
};
use fencepost_uapi::Errno;

use crate::call::Call;
use crate::facade::{Arc, Vec};
use crate::host::Host;
use crate::sync::fence::Fence;
use crate::sync::syncobj::{Place, Syncobj};

/// `DRM_IOCTL_SYNCOBJ_CREATE`.
pub fn create<H: Host>(call: &Call<'_, H>, args: &mut SyncobjCreate) -> Result<i64, Errno> {
    if args.flags & !SYNCOBJ_CREATE_SIGNALED != 0 {
        return Err(Errno::INVAL);
    }
    let fence = (args.flags & SYNCOBJ_CREATE_SIGNALED != 0).then(|| call.dev.stub.clone());
    let syncobj = Syncobj::new(&call.dev.counters, fence)?;
    args.handle = call.file.handles.add_syncobj(syncobj)?;
    Ok(0)
}

/// `DRM_IOCTL_SYNCOBJ_DESTROY`.
pub fn destroy<H: Host>(call: &Call<'_, H>, args: &mut SyncobjDestroy) -> Result<i64, Errno> {
    if args.pad != 0 {
        return Err(Errno::INVAL);
    }
    call.file.handles.remove_syncobj(args.handle).map(|_| 0)
}

/// Looks up an array of handles, as `drm_syncobj_array_find`.
pub(super) fn find_array<H: Host>(
    call: &Call<'_, H>,
    handles: u64,
    count: u32,
) -> Result<Vec<Arc<Syncobj>>, Errno> {
    let handles = call.read_numbers(handles, count, u32::from_ne_bytes)?;
    let mut syncobjs = Vec::with_capacity(handles.len())?;
    for handle in handles {
        syncobjs.push(call.file.handles.syncobj(handle)?)?;
    }
    Ok(syncobjs)
}

/// `DRM_IOCTL_SYNCOBJ_RESET`.
pub fn reset<H: Host>(call: &Call<'_, H>, args: &mut SyncobjArray) -> Result<i64, Errno> {
    replace_all(call, args, None)
}

/// `DRM_IOCTL_SYNCOBJ_SIGNAL`.
pub fn signal<H: Host>(call: &Call<'_, H>, args: &mut SyncobjArray) -> Result<i64, Errno> {
    replace_all(call, args, Some(call.dev.stub.clone()))
}

fn replace_all<H: Host>(
    call: &Call<'_, H>,
    args: &SyncobjArray,
    fence: Option<Arc<Fence>>,
) -> Result<i64, Errno> {
    if args.pad != 0 || args.count_handles == 0 {
        return Err(Errno::INVAL);
    }
    for syncobj in find_array(call, args.handles, args.count_handles)? {
        syncobj.replace(fence.clone());
    }
    call.dev.host.wake();
    Ok(0)
}

/// `DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL`. Without an array of points all are 0.
pub fn timeline_signal<H: Host>(
    call: &Call<'_, H>,
    args: &mut SyncobjTimelineArray,
) -> Result<i64, Errno> {
    if args.flags != 0 || args.count_handles == 0 {
        return Err(Errno::INVAL);
    }
    let syncobjs = find_array(call, args.handles, args.count_handles)?;
    let points = match args.points {
        0 => Vec::new(),
        points => call.read_numbers(points, args.count_handles, u64::from_ne_bytes)?,
    };
    let mut places: Vec<Place> = Vec::with_capacity(syncobjs.len())?;
    for syncobj in &syncobjs {
        match syncobj.reserve() {
            Ok(place) => places.push(place)?,
            Err(error) => {
                for (syncobj, place) in syncobjs.iter().zip(places) {
                    syncobj.cancel(place);
                }
                return Err(error.into());
            }
        }
    }
    for (index, (syncobj, place)) in syncobjs.iter().zip(places).enumerate() {
        let point = points.get(index).copied().unwrap_or(0);
        syncobj.add_point(place, point, call.dev.stub.clone());
    }
    call.dev.host.wake();
    Ok(0)
}

/// `DRM_IOCTL_SYNCOBJ_QUERY`.
pub fn query<H: Host>(call: &Call<'_, H>, args: &mut SyncobjTimelineArray) -> Result<i64, Errno> {
    if args.flags & !SYNCOBJ_QUERY_LAST_SUBMITTED != 0 || args.count_handles == 0 {
        return Err(Errno::INVAL);
    }
    let syncobjs = find_array(call, args.handles, args.count_handles)?;
    let last_submitted = args.flags & SYNCOBJ_QUERY_LAST_SUBMITTED != 0;
    for (index, syncobj) in syncobjs.iter().enumerate() {
        let at = args.points.wrapping_add(index as u64 * 8);
        call.write(at, &syncobj.query(last_submitted).to_ne_bytes())?;
    }
    Ok(0)
}

/// `DRM_IOCTL_SYNCOBJ_TRANSFER`.
pub fn transfer<H: Host>(call: &Call<'_, H>, args: &mut SyncobjTransfer) -> Result<i64, Errno> {
    if args.pad != 0 || args.flags & !SYNCOBJ_WAIT_FOR_SUBMIT != 0 {
        return Err(Errno::INVAL);
    }
    let target = call.file.handles.syncobj(args.dst_handle)?;
    let source = call.file.handles.syncobj(args.src_handle)?;
    let wait = args.flags & SYNCOBJ_WAIT_FOR_SUBMIT != 0;
    let fence = find_or_wait(call, &source, args.src_point, wait)?;
    match args.dst_point {
        0 => target.replace(Some(fence)),
        point => target.add_point(target.reserve()?, point, fence),
    }
    call.dev.host.wake();
    Ok(0)
}

/// The fence of a point, waiting for its submission if so asked, as `drm_syncobj_find_fence`.
pub(super) fn find_or_wait<H: Host>(
    call: &Call<'_, H>,
    syncobj: &Syncobj,
    point: u64,
    wait: bool,
) -> Result<Arc<Fence>, Errno> {
    let stub = &call.dev.stub;
    let mut found = syncobj.find(point, stub);
    if wait && found.as_ref().err() == Some(&Errno::INVAL) {
        let mut ready = || {
            found = syncobj.find(point, stub);
            found.as_ref().err() != Some(&Errno::INVAL)
        };
        call.dev.host.wait_event(Some(call.task), None, &mut ready)?;
    }
    found
}
