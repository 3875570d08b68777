//! What the runner holds: a device, its counters, its end. Owns the order in which a device is taken
//! down.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fencepost_core::driver;
use fencepost_uapi::fencepost::COUNTERS;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::machine::Machine;
use super::migrate::Backend;
use super::serve::{Ends, Service};
use super::spawn::{self, Child};

/// How long the end of killed processes is awaited.
const END: Duration = Duration::from_secs(2);
/// How long the kernel may take to drop the last descriptors of processes that have ended.
const SETTLE: Duration = Duration::from_millis(500);

/// How a live device is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Paths that clients open; at most 63 bytes each.
    pub nodes: Vec<PathBuf>,
    /// The device itself.
    pub driver: driver::Config,
    /// How clients' address spaces are mirrored; `None`: they are not, and the calls that change
    /// them run at native speed.
    pub mirror: Option<Backend>,
}

impl Default for Config {
    /// `/dev/dri/card0` and `/dev/dri/renderD128`, the driver's defaults, the best backend.
    fn default() -> Self {
        let nodes = ["/dev/dri/card0", "/dev/dri/renderD128"].map(PathBuf::from).to_vec();
        let mirror = cfg!(target_arch = "x86_64").then(Backend::here);
        Config { nodes, driver: driver::Config::default(), mirror }
    }
}

/// A device of its own, as long as this lives. Independent of all others.
pub struct Device {
    machine: Arc<Machine>,
    ends: Arc<Ends>,
}

/// What was left when a device ended. All empty: nothing leaked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Objects that still existed after the last client had gone: name of the `live.*` counter and its
    /// value; also the driver's own `leaks`.
    pub objects: Vec<(&'static str, u64)>,
    /// Descriptions of the device that somebody still held: a process outside the tree, to which
    /// they were passed.
    pub descriptors: usize,
    /// Processes of the tree that had outlived the child and were killed.
    pub stragglers: usize,
    /// What the driver's panic said.
    pub panic: Option<String>,
}

impl Leaks {
    /// Whether nothing was left and nothing panicked.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Leaks::default()
    }
}

impl Device {
    /// Starts a device. Costs some microseconds; its threads start with their work.
    ///
    /// # Errors
    /// Out of memory, descriptors or address space; the driver's refusal of its config.
    pub fn new(config: &Config) -> io::Result<Device> {
        let machine =
            Machine::new(config).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        Ok(Device { machine, ends: Arc::default() })
    }

    /// Starts a process that sees this device at the configured paths; so do its descendants. It
    /// gives up the right to gain privileges (`no_new_privs`) and dies with the calling thread.
    ///
    /// # Errors
    /// Those of [`Command::spawn`]; `EBUSY` where another seccomp listener is in the way.
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        let service: Arc<dyn Service> = Arc::<Machine>::clone(&self.machine);
        self.machine.add_root(|| spawn::spawn(command, service, &self.ends))
    }

    /// The driver's counters now, in the order of [`COUNTERS`], after everything that was closed
    /// before; `None` once the driver has panicked.
    #[must_use]
    pub fn counters(&self) -> Option<[u64; COUNTERS.len()]> {
        self.machine.counters()
    }

    /// What the driver's panic said: from then on every call of a client is `ENODEV`.
    #[must_use]
    pub fn panicked(&self) -> Option<String> {
        self.machine.panicked().map(str::to_owned)
    }

    /// Ends the device and says what was left. To be called after the end of every [`Child`]; what
    /// descendants live on are killed.
    #[must_use]
    pub fn shutdown(self) -> Leaks {
        let stragglers = self.end_clients();
        let deadline = Instant::now() + SETTLE;
        let mut objects = self.left();
        while !(objects.is_empty() && self.machine.open_descriptions() == 0)
            && Instant::now() < deadline
        {
            // A worker may be in the middle of a step with what was cancelled.
            self.machine.pause(Duration::from_millis(1));
            objects = self.left();
        }
        let descriptors = self.machine.open_descriptions();
        Leaks { objects, descriptors, stragglers, panic: self.panicked() }
    }

    /// Counters that would be 0 if nothing was left.
    fn left(&self) -> Vec<(&'static str, u64)> {
        let counters = self.machine.counters();
        let named = COUNTERS.iter().copied().zip(counters.into_iter().flatten());
        let of_objects = |name: &str| name.starts_with("live.") || name == "leaks";
        named.filter(|(name, value)| *value > 0 && of_objects(name)).collect()
    }

    /// What is behind it, for this crate's tests.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Waits for the clients' end, killing those that stay.
    fn end_clients(&self) -> usize {
        // Threads end with their clients, which the kernel tells right after the exit.
        if self.ends.wait(Duration::from_millis(100)) {
            return 0;
        }
        let mut killed = BTreeSet::new();
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            for process in self.machine.clients() {
                if kill(Pid::from_raw(process), Signal::SIGKILL).is_ok() {
                    killed.insert(process);
                }
            }
            if self.ends.wait(Duration::from_millis(20)) {
                break;
            }
        }
        killed.len()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.machine.end();
        self.machine.join();
    }
}
