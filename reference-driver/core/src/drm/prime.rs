//! GEM handles and PRIME: buffer objects to and from file descriptors.

use fencepost_uapi::drm::{GemClose, PrimeHandle};
use fencepost_uapi::fencepost::GEM_CREATE_VM_PRIVATE;
use fencepost_uapi::Errno;

use super::Export;
use crate::call::Call;
use crate::counters::Counter;
use crate::host::{FdKind, FdRef, Host};

/// `O_CLOEXEC`.
const CLOEXEC: u32 = 0o2_000_000;
/// `O_RDWR`.
const RDWR: u32 = 0o2;

/// `DRM_IOCTL_GEM_CLOSE`.
pub fn gem_close<H: Host>(call: &Call<'_, H>, args: &mut GemClose) -> Result<i64, Errno> {
    call.file.handles.remove_gem(args.handle).map(|_| 0)
}

/// `DRM_IOCTL_PRIME_HANDLE_TO_FD`.
pub fn handle_to_fd<H: Host>(call: &Call<'_, H>, args: &mut PrimeHandle) -> Result<i64, Errno> {
    if args.flags & !(CLOEXEC | RDWR) != 0 {
        return Err(Errno::INVAL);
    }
    let gem = call.file.handles.gem(args.handle)?;
    if gem.flags & GEM_CREATE_VM_PRIVATE != 0 {
        return Err(Errno::INVAL);
    }
    let cloexec = args.flags & CLOEXEC != 0;
    args.fd = call.dev.drm.install(&call.dev.host, call.task, Export::Prime(gem), cloexec)?;
    call.dev.counters.inc(Counter::PrimeExports);
    Ok(0)
}

/// `DRM_IOCTL_PRIME_FD_TO_HANDLE`: the handle that this file has already, or a new one.
pub fn fd_to_handle<H: Host>(call: &Call<'_, H>, args: &mut PrimeHandle) -> Result<i64, Errno> {
    let gem = match call.dev.host.lookup_fd(call.task, args.fd)? {
        FdRef::Ours(FdKind::Prime, id) => match call.dev.drm.get(FdKind::Prime, id) {
            Some(Export::Prime(gem)) => gem,
            _ => return Err(Errno::INVAL),
        },
        _ => return Err(Errno::INVAL),
    };
    args.handle = call.file.handles.find_or_add_gem(gem)?;
    call.dev.counters.inc(Counter::PrimeImports);
    Ok(0)
}
