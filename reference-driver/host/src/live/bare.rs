//! The cheapest possible service, to measure against: every DRM ioctl succeeds without being looked at.

use std::io;
use std::process::Command;
use std::sync::Arc;

use super::serve::{Ends, Port, Service};
use super::spawn::{self, Child};
use super::sys::notify::{Answer, Call};
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
