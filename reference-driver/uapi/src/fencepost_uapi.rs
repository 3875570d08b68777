//! The fencepost driver's interface to user space: ioctl numbers, records, GPU commands.
//!
//! Owns the layout and the meaning of everything that crosses the boundary, and one table of it,
//! from which the C header, docs/UAPI.md and the `abi` suite are generated. Does no I/O and holds no
//! behaviour. Builds without std and without alloc, in Kbuild as well.
// Kbuild says no_std itself.
#![cfg_attr(not(MODULE), no_std)]

pub mod command;
pub mod drm;
pub mod errno;
pub mod fencepost;
pub mod ioctl;
pub mod record;

pub use errno::Errno;
pub use record::{Field, Object, Record, Role};

/// One ioctl of the driver: the row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Ioctl {
    /// Name, as in the C header after `DRM_IOCTL_FENCEPOST_`.
    pub name: &'static str,
    /// The request number.
    pub request: u32,
    /// C name of the record.
    pub record: &'static str,
    /// Size of the record in bytes.
    pub size: usize,
    /// Fields of the record.
    pub fields: &'static [Field],
    /// What the call does and its errors.
    pub doc: &'static str,
}
