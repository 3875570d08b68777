//! The calls of SVM.
//!
//! Owns their checks.

#[cfg_attr(not(doc), expect(unused_imports, reason = "for the links above the calls"))]
use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::{SvmAttr, SvmExclusive, SvmFaults, SvmMigrate, SvmQuery, SvmTune};
use fencepost_uapi::Errno;

use crate::call::Call;
use crate::host::Host;

/// Whether the caller's address space can be mirrored.
pub fn is_possible<H: Host>(call: &Call<'_, H>) -> bool {
    call.dev.host.mm(call.task).is_ok()
}

/// [`fp::SVM_ATTR`].
pub fn attr<H: Host>(call: &Call<'_, H>, args: &mut SvmAttr) -> Result<i64, Errno> {
    call.file.vm(args.vm_id)?;
    Err(Errno::OPNOTSUPP)
}

/// [`fp::SVM_MIGRATE`].
pub fn migrate<H: Host>(call: &Call<'_, H>, args: &mut SvmMigrate) -> Result<i64, Errno> {
    call.file.vm(args.vm_id)?;
    Err(Errno::OPNOTSUPP)
}

/// [`fp::SVM_EXCLUSIVE`].
pub fn exclusive<H: Host>(call: &Call<'_, H>, args: &mut SvmExclusive) -> Result<i64, Errno> {
    call.file.vm(args.vm_id)?;
    Err(Errno::OPNOTSUPP)
}

/// [`fp::SVM_QUERY`].
pub fn query<H: Host>(call: &Call<'_, H>, args: &mut SvmQuery) -> Result<i64, Errno> {
    call.file.vm(args.vm_id)?;
    Err(Errno::OPNOTSUPP)
}

/// [`fp::SVM_TUNE`].
pub fn tune<H: Host>(_: &Call<'_, H>, _: &mut SvmTune) -> Result<i64, Errno> {
    Err(Errno::OPNOTSUPP)
}

/// [`fp::SVM_FAULTS`].
pub fn faults<H: Host>(_: &Call<'_, H>, _: &mut SvmFaults) -> Result<i64, Errno> {
    Err(Errno::OPNOTSUPP)
}
