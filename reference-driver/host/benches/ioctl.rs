//! Cost of a null ioctl through the live host against a bare notification round trip, measured in
//! turns in one run. Fails above the limit.
//!
//! The ioctl is `DRM_IOCTL_GET_CAP`, the cheapest valid one: identify the descriptor, read the
//! record, call the driver, write the record.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use drm::{Device as _, DriverCapability};
use fencepost_host::live::{Child, Config, Device, spawn_bare};

/// Highest ratio of the medians.
const LIMIT: f64 = 2.5;
/// Turns, and calls timed in each.
const TURNS: usize = 7;
const CALLS: usize = 20_000;

struct Node(File);

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Node {}

/// The client: opens a path and prints the median time of a call in nanoseconds.
fn client(path: &str) -> io::Result<()> {
    let node = Node(File::options().read(true).write(true).open(path)?);
    let mut times: Vec<u64> = (0..CALLS + CALLS / 10)
        .map(|_| {
            let start = Instant::now();
            let result = node.get_driver_capability(DriverCapability::Prime);
            let time = start.elapsed().as_nanos() as u64;
            let _x = result;
            time
        })
        .skip(CALLS / 10)
        .collect();
    times.sort_unstable();
    println!("{}", times[CALLS / 2]);
    Ok(())
}

fn command(path: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--client", path]).stdout(Stdio::piped());
    Ok(command)
}

fn median(mut child: Child) -> io::Result<f64> {
    let mut text = String::new();
    if let Some(out) = child.process_mut().stdout.as_mut() {
        out.read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    text.trim().parse().map_err(|_| io::Error::other(format!("client: {status}")))
}

fn main() -> io::Result<ExitCode> {
    let args: Vec<String> = std::env::args().collect();
    if let [_, role, path] = &args[..]
        && role == "--client"
    {
        return client(path).map(|()| ExitCode::SUCCESS);
    }
    let (mut bare, mut live) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        bare.push(median(spawn_bare(command("/dev/null")?)?)?);
        let device = Device::new(&Config::default())?;
        live.push(median(device.spawn(command("/dev/dri/renderD128")?)?)?);
        let leaks = device.shutdown();
        assert!(leaks.is_clean(), "{leaks:?}");
    }
    let middle = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[TURNS / 2] / 1000.0
    };
    let (bare, live) = (middle(&mut bare), middle(&mut live));
    let ratio = live / bare;
    println!("bare {bare:.2} us, through the host {live:.2} us: ratio {ratio:.2} (limit {LIMIT})");
    Ok(if ratio <= LIMIT { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
