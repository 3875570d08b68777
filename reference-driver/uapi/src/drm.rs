//! The DRM core's ioctls that a fencepost node answers, with the layout of
//! `include/uapi/drm/drm.h`. In user space the reference driver implements them itself; in the
//! kernel the DRM core does.

use crate::ioctl::{drm, READ, WRITE};
use crate::record::{record, Object, Record, Role};

const RW: u32 = READ | WRITE;

record! {
    /// `struct drm_version`: driver name, date and description; two-step for the strings.
    pub struct Version("drm_version"), 64 {
        /// Driver's major version.
        version_major: i32 = Role::Out,
        /// Driver's minor version.
        version_minor: i32 = Role::Out,
        /// Driver's patch level.
        version_patchlevel: i32 = Role::Out,
        /// Hole in the C record on 64-bit; ignored.
        pad: u32 = Role::In,
        /// In: room at `name` in bytes. Out: length of the driver's name.
        name_len: u64 = Role::InOut,
        /// Receives the driver's name, not terminated.
        name: u64 = Role::Pointer,
        /// In: room at `date` in bytes. Out: length of the date.
        date_len: u64 = Role::InOut,
        /// Receives the date.
        date: u64 = Role::Pointer,
        /// In: room at `desc` in bytes. Out: length of the description.
        desc_len: u64 = Role::InOut,
        /// Receives the description.
        desc: u64 = Role::Pointer,
    }
}

record! {
    /// `struct drm_get_cap`.
    pub struct GetCap("drm_get_cap"), 16 {
        /// Which capability (`CAP_*`); unknown: `EINVAL`.
        capability: u64 = Role::In,
        /// Its value.
        value: u64 = Role::Out,
    }
}

record! {
    /// `struct drm_set_client_cap`: client capabilities are about display, which this device has
    /// none of. `EACCES` on a render node, as `drm_ioctl_permit` answers before the call is looked
    /// at; `EOPNOTSUPP` on the card node, as for every driver without modesetting.
    pub struct SetClientCap("drm_set_client_cap"), 16 {
        /// Which capability.
        capability: u64 = Role::In,
        /// Its value.
        value: u64 = Role::In,
    }
}

record! {
    /// `struct drm_gem_close`: drops a handle.
    pub struct GemClose("drm_gem_close"), 8 {
        /// The handle; unknown: `EINVAL`, as in `drm_gem_handle_delete`.
        handle: u32 = Role::In,
        /// Not checked by the DRM core.
        pad: u32 = Role::In,
    }
}

record! {
    /// `struct drm_prime_handle`: a buffer object to and from a file descriptor.
    pub struct PrimeHandle("drm_prime_handle"), 16 {
        /// GEM handle (in for export, out for import).
        handle: u32 = Role::Handle(Object::Gem),
        /// `O_CLOEXEC` and `O_RDWR` (export only); others: `EINVAL`.
        flags: u32 = Role::Flags(0o2_000_002),
        /// File descriptor (out for export, in for import). Import of a descriptor that is no
        /// dma-buf: `EINVAL`; not open: `EBADF`.
        fd: i32 = Role::InOut,
        /// Hole; ignored.
        pad: u32 = Role::In,
    }
}

record! {
    /// `struct drm_syncobj_create`.
    pub struct SyncobjCreate("drm_syncobj_create"), 8 {
        /// The new syncobj.
        handle: u32 = Role::Out,
        /// [`SYNCOBJ_CREATE_SIGNALED`] or 0.
        flags: u32 = Role::Flags(1),
    }
}

record! {
    /// `struct drm_syncobj_destroy`.
    pub struct SyncobjDestroy("drm_syncobj_destroy"), 8 {
        /// The syncobj; unknown: `EINVAL`, as in `drm_syncobj_destroy`.
        handle: u32 = Role::In,
        /// Must be zero.
        pad: u32 = Role::Zero,
    }
}

record! {
    /// `struct drm_syncobj_handle`: a syncobj, or its fence as a sync file, to and from a descriptor.
    pub struct SyncobjHandle("drm_syncobj_handle"), 24 {
        /// The syncobj; unknown: `EINVAL` when the syncobj itself is exported, `ENOENT` where its fence
        /// is meant, as in `drm_syncobj_handle_to_fd` and `drm_syncobj_export_sync_file`.
        handle: u32 = Role::Handle(Object::Syncobj),
        /// [`SYNCOBJ_FD_SYNC_FILE`], [`SYNCOBJ_FD_TIMELINE`].
        flags: u32 = Role::Flags(3),
        /// The file descriptor. Import of one that is not open or of another kind: `EINVAL`.
        fd: i32 = Role::InOut,
        /// Must be zero.
        pad: u32 = Role::Zero,
        /// Timeline point, with [`SYNCOBJ_FD_TIMELINE`].
        point: u64 = Role::In,
    }
}

record! {
    /// `struct drm_syncobj_wait`.
    pub struct SyncobjWait("drm_syncobj_wait"), 40 {
        /// Array of `u32` handles.
        handles: u64 = Role::Pointer,
        /// Absolute `CLOCK_MONOTONIC` time; in the past: poll. Elapsed: `ETIME`.
        timeout_nsec: i64 = Role::In,
        /// Number of handles; 0: `EINVAL`.
        count_handles: u32 = Role::In,
        /// `SYNCOBJ_WAIT_*`, but [`SYNCOBJ_WAIT_AVAILABLE`] only in the timeline wait (`EINVAL`).
        flags: u32 = Role::Flags(0xf),
        /// Index of the first signalled one, unless all are waited for.
        first_signaled: u32 = Role::Out,
        /// Must be zero.
        pad: u32 = Role::In,
        /// Deadline hint, with `WAIT_DEADLINE`.
        deadline_nsec: u64 = Role::In,
    }
}

record! {
    /// `struct drm_syncobj_timeline_wait`.
    pub struct SyncobjTimelineWait("drm_syncobj_timeline_wait"), 48 {
        /// Array of `u32` handles.
        handles: u64 = Role::Pointer,
        /// Array of `u64` points; address 0: all are 0.
        points: u64 = Role::Pointer,
        /// Absolute `CLOCK_MONOTONIC` time.
        timeout_nsec: i64 = Role::In,
        /// Number of handles; 0: `EINVAL`.
        count_handles: u32 = Role::In,
        /// `SYNCOBJ_WAIT_*`.
        flags: u32 = Role::Flags(0xf),
        /// Index of the first signalled one, unless all are waited for.
        first_signaled: u32 = Role::Out,
        /// Must be zero.
        pad: u32 = Role::In,
        /// Deadline hint, with `WAIT_DEADLINE`.
        deadline_nsec: u64 = Role::In,
    }
}

record! {
    /// `struct drm_syncobj_array`: reset or signal several.
    pub struct SyncobjArray("drm_syncobj_array"), 16 {
        /// Array of `u32` handles.
        handles: u64 = Role::Pointer,
        /// Their number; 0: `EINVAL`.
        count_handles: u32 = Role::In,
        /// Must be zero.
        pad: u32 = Role::Zero,
    }
}

record! {
    /// `struct drm_syncobj_timeline_array`: query or signal points.
    pub struct SyncobjTimelineArray("drm_syncobj_timeline_array"), 24 {
        /// Array of `u32` handles.
        handles: u64 = Role::Pointer,
        /// Array of `u64` points; for a signal address 0: all are 0.
        points: u64 = Role::Pointer,
        /// Their number; 0: `EINVAL`.
        count_handles: u32 = Role::In,
        /// [`SYNCOBJ_QUERY_LAST_SUBMITTED`] for a query; else 0.
        flags: u32 = Role::Flags(1),
    }
}

record! {
    /// `struct drm_syncobj_transfer`: one fence from a point of one syncobj to another's.
    pub struct SyncobjTransfer("drm_syncobj_transfer"), 32 {
        /// From.
        src_handle: u32 = Role::Handle(Object::Syncobj),
        /// To.
        dst_handle: u32 = Role::Handle(Object::Syncobj),
        /// 0 for a binary one.
        src_point: u64 = Role::In,
        /// 0 for a binary one.
        dst_point: u64 = Role::In,
        /// [`SYNCOBJ_WAIT_FOR_SUBMIT`] or 0; others: `EINVAL`.
        flags: u32 = Role::In,
        /// Must be zero.
        pad: u32 = Role::Zero,
    }
}

/// `DRM_IOCTL_VERSION`.
pub const VERSION: u32 = drm(RW, 0x00, Version::SIZE);
/// `DRM_IOCTL_GEM_CLOSE`.
pub const GEM_CLOSE: u32 = drm(WRITE, 0x09, GemClose::SIZE);
/// `DRM_IOCTL_GET_CAP`.
pub const GET_CAP: u32 = drm(RW, 0x0c, GetCap::SIZE);
/// `DRM_IOCTL_SET_CLIENT_CAP`.
pub const SET_CLIENT_CAP: u32 = drm(WRITE, 0x0d, SetClientCap::SIZE);
/// `DRM_IOCTL_PRIME_HANDLE_TO_FD`. The C record has 12 bytes; the trailing hole is ours.
pub const PRIME_HANDLE_TO_FD: u32 = drm(RW, 0x2d, 12);
/// `DRM_IOCTL_PRIME_FD_TO_HANDLE`.
pub const PRIME_FD_TO_HANDLE: u32 = drm(RW, 0x2e, 12);
/// `DRM_IOCTL_SYNCOBJ_CREATE`.
pub const SYNCOBJ_CREATE: u32 = drm(RW, 0xbf, SyncobjCreate::SIZE);
/// `DRM_IOCTL_SYNCOBJ_DESTROY`.
pub const SYNCOBJ_DESTROY: u32 = drm(RW, 0xc0, SyncobjDestroy::SIZE);
/// `DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD`.
pub const SYNCOBJ_HANDLE_TO_FD: u32 = drm(RW, 0xc1, SyncobjHandle::SIZE);
/// `DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE`.
pub const SYNCOBJ_FD_TO_HANDLE: u32 = drm(RW, 0xc2, SyncobjHandle::SIZE);
/// `DRM_IOCTL_SYNCOBJ_WAIT`.
pub const SYNCOBJ_WAIT: u32 = drm(RW, 0xc3, SyncobjWait::SIZE);
/// `DRM_IOCTL_SYNCOBJ_RESET`.
pub const SYNCOBJ_RESET: u32 = drm(RW, 0xc4, SyncobjArray::SIZE);
/// `DRM_IOCTL_SYNCOBJ_SIGNAL`.
pub const SYNCOBJ_SIGNAL: u32 = drm(RW, 0xc5, SyncobjArray::SIZE);
/// `DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT`.
pub const SYNCOBJ_TIMELINE_WAIT: u32 = drm(RW, 0xca, SyncobjTimelineWait::SIZE);
/// `DRM_IOCTL_SYNCOBJ_QUERY`.
pub const SYNCOBJ_QUERY: u32 = drm(RW, 0xcb, SyncobjTimelineArray::SIZE);
/// `DRM_IOCTL_SYNCOBJ_TRANSFER`.
pub const SYNCOBJ_TRANSFER: u32 = drm(RW, 0xcc, SyncobjTransfer::SIZE);
/// `DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL`.
pub const SYNCOBJ_TIMELINE_SIGNAL: u32 = drm(RW, 0xcd, SyncobjTimelineArray::SIZE);

/// `DRM_CAP_PRIME`: 1 import, 2 export.
pub const CAP_PRIME: u64 = 0x5;
/// `DRM_CAP_TIMESTAMP_MONOTONIC`.
pub const CAP_TIMESTAMP_MONOTONIC: u64 = 0x6;
/// `DRM_CAP_SYNCOBJ`.
pub const CAP_SYNCOBJ: u64 = 0x13;
/// `DRM_CAP_SYNCOBJ_TIMELINE`.
pub const CAP_SYNCOBJ_TIMELINE: u64 = 0x14;

/// `DRM_SYNCOBJ_CREATE_SIGNALED`.
pub const SYNCOBJ_CREATE_SIGNALED: u32 = 1;
/// `DRM_SYNCOBJ_*_FLAGS_*_SYNC_FILE`: the descriptor is a sync file, not the syncobj.
pub const SYNCOBJ_FD_SYNC_FILE: u32 = 1;
/// `DRM_SYNCOBJ_*_FLAGS_TIMELINE`: `point` counts.
pub const SYNCOBJ_FD_TIMELINE: u32 = 2;
/// `DRM_SYNCOBJ_WAIT_FLAGS_WAIT_ALL`.
pub const SYNCOBJ_WAIT_ALL: u32 = 1;
/// `DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT`.
pub const SYNCOBJ_WAIT_FOR_SUBMIT: u32 = 2;
/// `DRM_SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE`.
pub const SYNCOBJ_WAIT_AVAILABLE: u32 = 4;
/// `DRM_SYNCOBJ_WAIT_FLAGS_WAIT_DEADLINE`.
pub const SYNCOBJ_WAIT_DEADLINE: u32 = 8;
/// `DRM_SYNCOBJ_QUERY_FLAGS_LAST_SUBMITTED`.
pub const SYNCOBJ_QUERY_LAST_SUBMITTED: u32 = 1;
