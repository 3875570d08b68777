//! Helpers of this crate's benchmarks and tests, not part of its interface: the cheapest possible
//! service, to measure against; a driver that panics; filters like a container's.

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

/// System calls that the default profile of a container runtime (`docker`, `podman`) refuses to a
/// container without capabilities (moby profiles/seccomp, containers/common pkg/seccomp), in the
/// stricter reading where versions differ; `None`: no such profile.
#[must_use]
pub fn container_profile(name: &str) -> Option<Vec<i64>> {
    let mut refused = vec![
        libc::SYS_userfaultfd,
        libc::SYS_pidfd_getfd,
        libc::SYS_kcmp,
        libc::SYS_process_madvise,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_fanotify_init,
        libc::SYS_move_pages,
        libc::SYS_mbind,
        libc::SYS_set_mempolicy,
        libc::SYS_get_mempolicy,
        libc::SYS_open_by_handle_at,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_clone3,
    ];
    match name {
        "docker" => {}
        "podman" => refused.extend([
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_ptrace,
        ]),
        _ => return None,
    }
    Some(refused)
}
