//! The device under test as the runner sees it: which names there are, what a device can do, what
//! it left behind. The device itself is the host's; what it can do is asked by a process that sees
//! it, through the fixtures, as a test would.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::process::{Command, Stdio};

use fencepost_fixtures::DeviceSpec;
use fencepost_host::live;

use crate::error::Error;

/// This program, also when the file it was started from is gone by now.
const PROGRAM: &str = "/proc/self/exe";

/// The device of one test.
pub(crate) enum Subject {
    /// Served by this process, fresh for each test.
    Served(live::Device),
    /// A node of the machine, shared by all tests.
    Machine,
}

impl Subject {
    /// The device of that name.
    pub(crate) fn new(device: &str) -> io::Result<Self> {
        match device.parse() {
            Ok(DeviceSpec::Reference) => {
                live::Device::new(&live::Config::default()).map(Self::Served)
            }
            Ok(_) => Ok(Self::Machine),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Starts a process that sees the device.
    pub(crate) fn spawn(&self, command: Command) -> io::Result<live::Child> {
        match self {
            Self::Served(device) => device.spawn(command),
            Self::Machine => live::spawn_outside(command),
        }
    }
}

/// Refuses what names no device.
pub(crate) fn check_name(device: &str) -> Result<(), Error> {
    match device.parse::<DeviceSpec>() {
        Ok(DeviceSpec::Reference | DeviceSpec::Path(_)) => Ok(()),
        Ok(DeviceSpec::Fd(_)) => {
            Err(Error::Usage(format!("device {device}: an open file cannot be run on")))
        }
        Err(error) => Err(Error::Usage(error.to_string())),
    }
}

/// Whether tests share the device, so that one at a time must run: counters are the evidence.
pub(crate) fn is_shared(device: &str) -> bool {
    device != "ref"
}

/// A test may take the machine down with it: its start must be on the disk before it begins. The
/// bundled driver in user space cannot.
pub(crate) fn may_take_the_machine_down(device: &str) -> bool {
    device != "ref"
}

/// A command that runs this program in another role.
pub(crate) fn program(role: &str) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(PROGRAM);
    command.arg0("fencepost").arg(role);
    command
}

/// Asks the device for the names of what it can do.
pub(crate) fn capabilities(device: &str) -> Result<BTreeSet<String>, Error> {
    check_name(device)?;
    ask(device).map_err(Error::system(format!(
        "ask device {device} what it can do (`fencepost doctor` says more)"
    )))
}

fn ask(device: &str) -> io::Result<BTreeSet<String>> {
    let subject = Subject::new(device)?;
    let (mut answer, its_answer) = io::pipe()?;
    let (mut trouble, its_trouble) = io::pipe()?;
    let mut command = program("worker");
    command.arg("--capabilities").args(["--device", device]).stdin(Stdio::null());
    command.stdout(Stdio::from(its_answer)).stderr(Stdio::from(its_trouble));
    let mut child = subject.spawn(command)?;
    // A worker that hangs is killed with this process, on which the user loses patience first.
    let mut said = String::new();
    answer.read_to_string(&mut said)?;
    let mut complaint = String::new();
    trouble.read_to_string(&mut complaint)?;
    if !child.wait()?.success() {
        return Err(io::Error::other(complaint.trim().to_owned()));
    }
    serde_json::from_str(&said).map_err(io::Error::other)
}

/// What was left on a device, in words.
pub(crate) fn leaks(leaks: &live::Leaks) -> Vec<String> {
    let mut words: Vec<String> =
        leaks.objects.iter().map(|(name, value)| format!("{name} {value}")).collect();
    if leaks.descriptors > 0 {
        words.push(format!("open descriptors {}", leaks.descriptors));
    }
    words
}

/// What killed a device, in words.
pub(crate) fn death(leaks: &live::Leaks) -> Option<String> {
    leaks.panic.as_ref().map(|text| format!("the driver panicked: {text}"))
}
