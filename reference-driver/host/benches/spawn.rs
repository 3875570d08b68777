//! Cost of a process with a device of its own, from creation of the device to its shutdown, against
//! fork, exec and exit of the same executable, measured in turns in one run. Fails above the limit.

use std::io;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use fencepost_host::live::{Config, Device};

/// Highest ratio of the medians.
const LIMIT: f64 = 2.0;
const TURNS: usize = 300;

fn command() -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--nothing");
    Ok(command)
}

fn plain() -> io::Result<()> {
    command()?.spawn()?.wait().map(drop)
}

fn live() -> io::Result<()> {
    let device = Device::new(&Config::default())?;
    device.spawn(command()?)?.wait()?;
    let leaks = device.shutdown();
    assert!(leaks.is_clean(), "{leaks:?}");
    Ok(())
}

fn timed(f: fn() -> io::Result<()>) -> io::Result<Duration> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed())
}

fn main() -> io::Result<ExitCode> {
    if std::env::args().nth(1).as_deref() == Some("--nothing") {
        return Ok(ExitCode::SUCCESS);
    }
    let (mut bare, mut with_device) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        bare.push(timed(plain)?);
        with_device.push(timed(live)?);
    }
    bare.sort_unstable();
    with_device.sort_unstable();
    let (bare, with_device) = (bare[TURNS / 2], with_device[TURNS / 2]);
    let ratio = with_device.as_secs_f64() / bare.as_secs_f64();
    let (bare, with_device) = (bare.as_micros(), with_device.as_micros());
    println!("plain {bare} us, with a device {with_device} us: ratio {ratio:.2} (limit {LIMIT})");
    Ok(if ratio <= LIMIT { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
