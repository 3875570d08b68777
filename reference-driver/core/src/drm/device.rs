//! Version and capabilities.

use fencepost_uapi::drm::{
    GetCap, SetClientCap, Version, CAP_PRIME, CAP_SYNCOBJ, CAP_SYNCOBJ_TIMELINE,
    CAP_TIMESTAMP_MONOTONIC,
};
use fencepost_uapi::Errno;

use crate::call::Call;
use crate::host::Host;

/// Driver's name.
const NAME: &str = "fencepost";
/// Date of the interface.
const DATE: &str = "20261120";
/// What it is.
const DESCRIPTION: &str = "fencepost reference driver";
/// PRIME import and export.
const PRIME_BOTH: u64 = 3;

/// `DRM_IOCTL_VERSION`: as many bytes of each string as there is room for, and its whole length.
pub fn version<H: Host>(call: &Call<'_, H>, args: &mut Version) -> Result<i64, Errno> {
    args.version_major = 1;
    args.version_minor = 0;
    args.version_patchlevel = 0;
    copy_string(call, NAME, args.name, &mut args.name_len)?;
    copy_string(call, DATE, args.date, &mut args.date_len)?;
    copy_string(call, DESCRIPTION, args.desc, &mut args.desc_len)?;
    Ok(0)
}

fn copy_string<H: Host>(
    call: &Call<'_, H>,
    text: &str,
    to: u64,
    len: &mut u64,
) -> Result<(), Errno> {
    let room = core::mem::replace(len, text.len() as u64).min(text.len() as u64);
    if to == 0 {
        return Ok(());
    }
    call.write(to, &text.as_bytes()[..room as usize])
}

/// `DRM_IOCTL_GET_CAP`.
pub fn get_cap<H: Host>(_call: &Call<'_, H>, args: &mut GetCap) -> Result<i64, Errno> {
    args.value = match args.capability {
        CAP_PRIME => PRIME_BOTH,
        CAP_TIMESTAMP_MONOTONIC | CAP_SYNCOBJ | CAP_SYNCOBJ_TIMELINE => 1,
        // All others are about display.
        _ => return Err(Errno::OPNOTSUPP),
    };
    Ok(0)
}

/// `DRM_IOCTL_SET_CLIENT_CAP`: not for render nodes, and user space has no other.
pub fn set_client_cap<H: Host>(
    _call: &Call<'_, H>,
    _args: &mut SetClientCap,
) -> Result<i64, Errno> {
    Err(Errno::ACCES)
}
