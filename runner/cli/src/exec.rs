//! `fencepost exec`: runs any program against a reference driver of its own.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode as Status, ExitStatus};

use fencepost_host::live;
use fencepost_results::ExitCode;
use fencepost_uapi::fencepost::COUNTERS;
use nix::sys::signal::Signal;

use crate::args::ExecArgs;
use crate::device;
use crate::error::Error;
use crate::output::complain;
use crate::stop::block_signals;

/// `fencepost exec`: the status is the program's; 128 and its number for a signal.
pub(crate) fn command(args: &ExecArgs) -> Result<Status, Error> {
    if args.native {
        return native(args);
    }
    // The terminal sends Ctrl-C to the program as well; how it ends is the program's to say.
    block_signals().map_err(Error::system("block signals"))?;
    let device = live::Device::new(&live::Config::default())
        .map_err(Error::system("make the device (`fencepost doctor` says more)"))?;
    let (name, arguments) = args.program.split_first().expect("clap asks for one");
    let mut command = Command::new(name);
    command.args(arguments);
    let doing = format!("run {}", name.to_string_lossy());
    let mut child = device.spawn(command).map_err(Error::system(doing.as_str()))?;
    let status = child.wait().map_err(Error::system(doing))?;
    drop(child);
    if args.counters {
        print_counters(&device);
    }
    let leaks = device.shutdown();
    for leak in device::leaks(&leaks) {
        complain!("fencepost: left on the device: {leak}");
    }
    match device::death(&leaks) {
        Some(death) => {
            complain!("fencepost: {death}");
            Ok(Status::from(ExitCode::Aborted.code()))
        }
        None => Ok(Status::from(shell_status(status))),
    }
}

/// Without a device of its own.
fn native(args: &ExecArgs) -> Result<Status, Error> {
    let (name, arguments) = args.program.split_first().expect("clap asks for one");
    let doing = format!("run {}", name.to_string_lossy());
    let status = Command::new(name).args(arguments).status().map_err(Error::system(doing))?;
    Ok(Status::from(shell_status(status)))
}

/// The status as a shell tells it.
fn shell_status(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.unwrap_or(Signal::SIGKILL as i32),
    };
    // A status has eight bits; others do not occur.
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn print_counters(device: &live::Device) {
    let counters = device.counters().into_iter().flatten();
    for (name, value) in COUNTERS.iter().zip(counters).filter(|(_, value)| *value > 0) {
        complain!("{name:<24} {value}");
    }
}
