//! Error numbers that the driver returns, with the values of Linux on x86-64 and arm64
//! (`include/uapi/asm-generic/errno*.h`).

use core::fmt;

/// An error number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $value:literal, $doc:literal;)+) => {
        impl Errno {
            $(#[doc = $doc] pub const $name: Errno = Errno($value);)+

            /// The symbolic name, `?` for a number that the driver does not use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 { $($value => concat!("E", stringify!($name)),)+ _ => "?" }
            }
        }
    };
}
errnos! {
    PERM = 1, "Operation not permitted";
    NOENT = 2, "No such object";
    INTR = 4, "Interrupted by a signal";
    IO = 5, "Input/output error";
    BADF = 9, "Bad file descriptor";
    AGAIN = 11, "Try again";
    NOMEM = 12, "Out of memory";
    ACCES = 13, "Permission denied";
    FAULT = 14, "Bad address";
    BUSY = 16, "Busy";
    EXIST = 17, "Exists";
    NODEV = 19, "No such device";
    INVAL = 22, "Invalid argument";
    NFILE = 23, "Too many open files in the system";
    MFILE = 24, "Too many open files";
    NOTTY = 25, "Not an ioctl of this file";
    NOSPC = 28, "No space left";
    OVERFLOW = 75, "Value too large";
    NOSYS = 38, "Not implemented";
    TOOBIG = 7, "Argument too big";
    TIME = 62, "Timer expired";
    OPNOTSUPP = 95, "Not supported";
    NOBUFS = 105, "No buffer space";
    CANCELED = 125, "Cancelled";
    RESTARTSYS = 512, "Interrupted: the kernel restarts the call or returns EINTR";
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
