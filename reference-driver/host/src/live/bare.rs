//! Helpers of this crate's benchmarks and tests, not part of its interface: the cheapest possible
//! service, to measure against; a driver that panics; a filter like a container's.

use std::io;
use std::process::Command;
use std::sync::Arc;

use super::serve::{Ends, Port, Service};
use super::spawn::{self, Child};
use super::sys::filter;
use super::sys::notify::{self, Answer, Call};
use super::sys::number::ARCH;

struct Bare;

impl Service for Bare {
    fn serve(&self, _port: &Arc<Port>, call: &Call) -> Answer {
        if call.nr == ARCH.ioctl { Answer::Value(0) } else { Answer::Continue }
    }

    fn may_block(&self, _call: &Call) -> bool {
        false
    }
}

/// Starts a process whose DRM ioctls return 0 on any descriptor: a bare notification round trip.
///
/// # Errors
/// As [`super::Device::spawn`].
pub fn spawn_bare(command: Command) -> io::Result<Child> {
    spawn::spawn(command, Arc::new(Bare), &Arc::<Ends>::default())
}

/// Makes the driver of a device panic.
pub fn break_driver(device: &super::Device, message: &str) {
    device.machine().break_driver(message);
}

/// Refuses these system calls to the calling thread and its descendants from now on, with `EPERM`,
/// or `ENOSYS` for `clone3`, as container runtimes do.
///
/// # Errors
/// Those of `seccomp(2)`.
pub fn refuse_calls(calls: &[i64]) -> io::Result<()> {
    notify::confine_plainly(&filter::refusing(calls))
}
