//! What this machine lacks for serving real system calls, each with its remedy. Owns the list of
//! needs; changes nothing.

use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::migrate::Backend;
use super::serve::{Ends, Port, Service};
use super::sys::client::{self, Way};
use super::sys::notify::{Answer, Call};
use super::{arena, files, reaper, spawn};

/// One need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What was tried.
    pub name: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do where it does not work; empty where it does.
    pub remedy: String,
}

/// Tries everything that a live device needs. Takes a few milliseconds.
#[must_use]
pub fn probe() -> Vec<Probe> {
    vec![kernel(), filter(), memory(), pages(), foreign(), device(), proc_files(), inotify()]
}

fn result(name: &'static str, tried: Result<String, String>, remedy: &'static str) -> Probe {
    match tried {
        Ok(detail) => Probe { name, ok: true, detail, remedy: String::new() },
        Err(detail) => Probe { name, ok: false, detail, remedy: remedy.to_owned() },
    }
}

fn kernel() -> Probe {
    let found = nix::sys::utsname::uname().map_err(|errno| errno.to_string()).and_then(|name| {
        let release = name.release().to_string_lossy().into_owned();
        let mut parts =
            release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if version >= (5, 19) { Ok(release) } else { Err(release) }
    });
    result(
        "Linux 5.19 or newer",
        found,
        "use a newer kernel: user notifications need WAIT_KILLABLE_RECV",
    )
}

/// Lets everything run, and notes that it was asked.
struct Asked(std::sync::atomic::AtomicBool);

impl Service for Asked {
    fn serve(&self, _port: &Arc<Port>, call: &Call) -> Answer {
        let mut room = [0; 256];
        let read = client::read_str(client::way(), call.tid, call.args[1], &mut room);
        if read.is_some() {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
        Answer::Continue
    }

    fn may_block(&self, _call: &Call) -> bool {
        false
    }
}

fn filter() -> Probe {
    const REMEDY: &str = "run outside a sandbox that has a seccomp listener of its own or forbids \
        filters; under Yama set kernel.yama.ptrace_scope to 0 or 1";
    let asked = Arc::new(Asked(false.into()));
    let ends = Arc::new(Ends::default());
    let mut command = Command::new("/proc/self/exe");
    command.arg("--version").stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let service: Arc<dyn Service> = Arc::<Asked>::clone(&asked);
    let tried = spawn::spawn(command, service, &ends)
        .and_then(|mut child| child.wait_timeout(Duration::from_secs(10)));
    let seen = asked.0.load(std::sync::atomic::Ordering::SeqCst);
    let found = match tried {
        Ok(_) if seen => {
            Ok("system calls of a child are seen and its memory can be read".to_owned())
        }
        Ok(_) => Err("a child's memory cannot be read".to_owned()),
        Err(error) => Err(format!("the filter cannot be installed: {error}")),
    };
    result("seccomp user notification", found, REMEDY)
}

fn memory() -> Probe {
    let found = match client::way() {
        Way::ProcessVm => "process_vm_readv and process_vm_writev",
        Way::ProcMem => "/proc/PID/mem, slower (process_vm_readv is refused)",
    };
    result("memory of the client", Ok(found.to_owned()), "")
}

fn pages() -> Probe {
    let found = match Backend::here() {
        Backend::Userfault => "userfaultfd",
        Backend::Protect => "mprotect and SIGSEGV (userfaultfd is refused, or without UFFDIO_MOVE)",
    };
    result("pages that move", Ok(found.to_owned()), "")
}

fn foreign() -> Probe {
    #[cfg(target_arch = "x86_64")]
    let allowed = super::agent::inject::is_allowed();
    #[cfg(not(target_arch = "x86_64"))]
    let allowed = false;
    let found = if allowed { "any program's" } else { "only our own programs' (no ptrace)" };
    result("address spaces to mirror", Ok(found.to_owned()), "")
}

fn device() -> Probe {
    let found =
        arena::Arena::new().map(|arena| arena.describe()).map_err(|errno| errno.to_string());
    result("memory file of the device", found, "allow memfd_create, and address space (ulimit -v)")
}

fn proc_files() -> Probe {
    let tried = arena::Arena::new().and_then(|arena| {
        let files = files::Files::new(arena.memfd().as_fd())?;
        let made = files.create(files::What::Node, nix::fcntl::OFlag::O_RDWR)?;
        let open = files.take_closed(arena.memfd()).is_empty();
        drop(made);
        let closed = files.take_closed(arena.memfd()).len() == 1;
        if open && closed { Ok(()) } else { Err(nix::errno::Errno::ENOLCK) }
    });
    let found = tried.map(|()| "descriptors can be reopened, locked and told apart".to_owned());
    result("/proc and file locks", found.map_err(|errno| errno.to_string()), "mount /proc")
}

fn inotify() -> Probe {
    let found = reaper::start().map(|()| "closed files are noticed".to_owned());
    result(
        "inotify",
        found.map_err(|errno| errno.to_string()),
        "raise fs.inotify.max_user_instances, or end programs that use many",
    )
}
