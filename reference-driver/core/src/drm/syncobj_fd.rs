//! Syncobjs and their fences to and from file descriptors.

use fencepost_uapi::drm::{SyncobjHandle, SYNCOBJ_FD_SYNC_FILE, SYNCOBJ_FD_TIMELINE};
use fencepost_uapi::Errno;

use super::Export;
use crate::call::Call;
use crate::host::{FdKind, FdRef, Host};

/// Checks what both directions check. Returns the point.
fn check(args: &SyncobjHandle) -> Result<u64, Errno> {
    if args.pad != 0 || args.flags & !(SYNCOBJ_FD_SYNC_FILE | SYNCOBJ_FD_TIMELINE) != 0 {
        return Err(Errno::INVAL);
    }
    let point = match args.flags & SYNCOBJ_FD_TIMELINE != 0 {
        true => args.point,
        false => 0,
    };
    match args.flags & SYNCOBJ_FD_SYNC_FILE == 0 && point != 0 {
        true => Err(Errno::INVAL),
        false => Ok(point),
    }
}

/// `DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD`. The descriptor is closed on exec, as in the kernel.
pub fn handle_to_fd<H: Host>(call: &Call<'_, H>, args: &mut SyncobjHandle) -> Result<i64, Errno> {
    let point = check(args)?;
    let syncobj = call.file.handles.syncobj(args.handle);
    let export = match args.flags & SYNCOBJ_FD_SYNC_FILE != 0 {
        true => {
            let fence = syncobj?.find(point, &call.dev.stub)?;
            Export::SyncFile { fence, told: false }
        }
        // drm_syncobj_handle_to_fd answers an unknown handle in this way.
        false => Export::Syncobj(syncobj.map_err(|_| Errno::INVAL)?),
    };
    args.fd = call.dev.drm.install(&call.dev.host, call.task, export, true)?;
    Ok(0)
}

/// `DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE`: a new handle for a syncobj, or a sync file's fence into the
/// syncobj of the handle that was passed in.
pub fn fd_to_handle<H: Host>(call: &Call<'_, H>, args: &mut SyncobjHandle) -> Result<i64, Errno> {
    let point = check(args)?;
    let wanted = match args.flags & SYNCOBJ_FD_SYNC_FILE != 0 {
        true => FdKind::SyncFile,
        false => FdKind::Syncobj,
    };
    // A descriptor that is not open is EINVAL here, not EBADF: drm_syncobj_fd_to_handle.
    let export = match call.dev.host.lookup_fd(call.task, args.fd) {
        Ok(FdRef::Ours(kind, id)) if kind == wanted => call.dev.drm.get(kind, id),
        _ => None,
    };
    match export {
        Some(Export::Syncobj(syncobj)) => args.handle = call.file.handles.add_syncobj(syncobj)?,
        Some(Export::SyncFile { fence, .. }) => {
            let syncobj = call.file.handles.syncobj(args.handle)?;
            match point {
                0 => syncobj.replace(Some(fence)),
                point => syncobj.add_point(syncobj.reserve()?, point, fence),
            }
            call.dev.host.wake();
        }
        _ => return Err(Errno::INVAL),
    }
    Ok(0)
}
