//! The one table of system-call numbers and register layouts that the transport depends on: another
//! architecture is another table. Owns no behaviour.

/// What a filter needs to know about an architecture.
pub(crate) struct Arch {
    /// `AUDIT_ARCH_*` of `include/uapi/linux/audit.h`: calls of another personality (32-bit) are let
    /// through, they cannot name the device.
    pub(crate) audit: u32,
    /// Calls that open by path: number, and where path and flags stand among the arguments.
    pub(crate) opens: &'static [Open],
    /// `ioctl`.
    pub(crate) ioctl: i64,
    /// `mmap` with a byte offset as sixth argument.
    pub(crate) mmap: i64,
    /// Calls that change mappings, whatever their arguments.
    pub(crate) mm: &'static [i64],
}

/// On every architecture.
const MM: &[i64] = &[
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_pkey_mprotect,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_shmdt,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_clone3,
    libc::SYS_execve,
    libc::SYS_execveat,
];

/// A call that opens a path.
#[derive(Clone, Copy)]
pub(crate) struct Open {
    /// System-call number.
    pub(crate) nr: i64,
    /// Index of the path argument.
    pub(crate) path: usize,
    /// Where the flags are.
    pub(crate) flags: Flags,
}

/// Where an open call has its flags.
#[derive(Clone, Copy)]
pub(crate) enum Flags {
    /// An argument.
    Arg(usize),
    /// The first word of the `struct open_how` that this argument points to.
    How(usize),
}

const OPENAT: Open = Open { nr: libc::SYS_openat, path: 1, flags: Flags::Arg(2) };
const OPENAT2: Open = Open { nr: libc::SYS_openat2, path: 1, flags: Flags::How(2) };

/// x86-64: `arch/x86/entry/syscalls/syscall_64.tbl`.
#[cfg(target_arch = "x86_64")]
pub(crate) const ARCH: Arch = Arch {
    audit: 0xc000_003e,
    opens: &[OPENAT, Open { nr: libc::SYS_open, path: 0, flags: Flags::Arg(1) }, OPENAT2],
    ioctl: libc::SYS_ioctl,
    mmap: libc::SYS_mmap,
    mm: MM,
};

/// arm64: `scripts/syscall.tbl`, which has no `open`.
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCH: Arch = Arch {
    audit: 0xc000_00b7,
    opens: &[OPENAT, OPENAT2],
    ioctl: libc::SYS_ioctl,
    mmap: libc::SYS_mmap,
    mm: MM,
};
