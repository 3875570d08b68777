//! Errnos by name, with Linux's numbers as on x86-64 and every architecture that follows
//! `asm-generic/errno.h`. Owns the names that `expect_errno` takes.

use super::step::Errno;

macro_rules! errnos {
    ($($name:ident = $code:literal),+ $(,)?) => {
        /// Every errno that a scenario can name.
        pub const ERRNOS: &[Errno] = &[$(Errno { name: stringify!($name), code: $code }),+];
    };
}
errnos! {
    EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7, EBADF = 9,
    ECHILD = 10, EAGAIN = 11, ENOMEM = 12, EACCES = 13, EFAULT = 14, EBUSY = 16, EEXIST = 17,
    ENODEV = 19, EINVAL = 22, ENFILE = 23, EMFILE = 24, ENOTTY = 25, EFBIG = 27, ENOSPC = 28,
    ESPIPE = 29, EPIPE = 32, EDOM = 33, ERANGE = 34, EDEADLK = 35, ENOSYS = 38, ENODATA = 61,
    ETIME = 62, ENOLINK = 67, EPROTO = 71, EOVERFLOW = 75, EOPNOTSUPP = 95, ENOBUFS = 105,
    ETIMEDOUT = 110, ESTALE = 116, ECANCELED = 125, EHWPOISON = 133, ENOEXEC = 8,
}

/// The errno of that name.
#[must_use]
pub fn errno(name: &str) -> Option<Errno> {
    ERRNOS.iter().copied().find(|e| e.name == name)
}
