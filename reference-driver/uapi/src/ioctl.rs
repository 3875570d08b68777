//! Ioctl numbers: direction, size, type and number packed as in `include/uapi/asm-generic/ioctl.h`.

/// Type byte of every DRM ioctl (`include/uapi/drm/drm.h`, `DRM_IOCTL_BASE`).
pub const DRM_TYPE: u32 = b'd' as u32;
/// First number of driver-private ioctls (`DRM_COMMAND_BASE`).
pub const DRM_COMMAND_BASE: u32 = 0x40;
/// One past the last driver-private number (`DRM_COMMAND_END`).
pub const DRM_COMMAND_END: u32 = 0xa0;

/// User space writes, the driver reads (`_IOC_WRITE`).
pub const WRITE: u32 = 1;
/// The driver writes, user space reads (`_IOC_READ`).
pub const READ: u32 = 2;

/// A DRM ioctl number with its argument direction and size, as passed to `ioctl(2)`.
#[must_use]
pub const fn drm(direction: u32, nr: u32, size: usize) -> u32 {
    assert!(size < 1 << 14, "the size field has 14 bits");
    (direction << 30) | ((size as u32) << 16) | (DRM_TYPE << 8) | nr
}

/// The number (low byte) of an ioctl.
#[must_use]
pub const fn nr(request: u32) -> u32 {
    request & 0xff
}

/// The type byte of an ioctl.
#[must_use]
pub const fn kind(request: u32) -> u32 {
    (request >> 8) & 0xff
}

/// The argument size of an ioctl in bytes.
#[must_use]
pub const fn size(request: u32) -> usize {
    ((request >> 16) & 0x3fff) as usize
}

/// The direction bits ([`WRITE`], [`READ`]) of an ioctl.
#[must_use]
pub const fn direction(request: u32) -> u32 {
    request >> 30
}
