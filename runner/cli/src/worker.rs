//! The worker's role: this program, started again to run one test on the device that it sees.
//!
//! Owns the worker's own little command line, which is the runner's business only, and finding the
//! one scenario. The catalogue is not read and clap not asked: a worker's start is what the cost
//! of a test hangs on. What the test does is the engine's matter.

use crate::output::{complain, say};
use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode as Status;

use fencepost_engine::worker::{self, Job};
use fencepost_fixtures::DeviceSpec;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// First argument of a worker.
const ROLE: &str = "worker";

/// Exit status of a worker that could not begin, as of an IGT test with invalid options.
const CANNOT_BEGIN: u8 = 79;

/// The command line of a worker.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    test: Option<String>,
    source: Option<String>,
    /// Where the text of a user's file is, if not there any more.
    text: Option<String>,
    device: Option<String>,
    seed: u64,
    capabilities: bool,
    nothing: bool,
    /// It runs in the place of a worker's child: with what.
    again: Option<String>,
}

/// Works as a worker, if the program was started as one.
pub(crate) fn if_asked() -> Option<Status> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(ROLE) {
        return None;
    }
    let done = parse(arguments).and_then(|arguments| work(&arguments));
    Some(done.unwrap_or_else(|error| {
        complain!("fencepost worker: {error}");
        Status::from(CANNOT_BEGIN)
    }))
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--test" => arguments.test = Some(value()?),
            "--source" => arguments.source = Some(value()?),
            "--text" => arguments.text = Some(value()?),
            "--device" => arguments.device = Some(value()?),
            "--seed" => arguments.seed = value()?.parse().map_err(|e| format!("--seed: {e}"))?,
            "--capabilities" => arguments.capabilities = true,
            "--nothing" => arguments.nothing = true,
            worker::AGAIN => arguments.again = Some(value()?),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(arguments)
}

fn work(arguments: &Arguments) -> Result<Status, String> {
    // What a process costs that only begins and ends: the measure of the bench.
    if arguments.nothing {
        return Ok(Status::SUCCESS);
    }
    // Tests of shared virtual memory need the runner's hand in this process.
    fencepost_host::live::hook();
    // The runner starts workers without a fork, so it cannot ask for this on their behalf. Should it
    // be gone already, the first report finds no reader.
    set_pdeathsig(Signal::SIGKILL).map_err(|e| format!("PR_SET_PDEATHSIG: {e}"))?;
    let device: DeviceSpec = match &arguments.device {
        Some(name) => name.parse().map_err(|e| format!("--device: {e}"))?,
        None => return Err("--device is missing".into()),
    };
    if arguments.capabilities {
        return capabilities(&device);
    }
    if let Some(again) = &arguments.again {
        return worker::go_on(again, &device).map(Status::from);
    }
    let (Some(name), Some(source)) = (&arguments.test, &arguments.source) else {
        return Err("--test and --source are needed".into());
    };
    let (file, text) = scenario(source, arguments.text.as_deref())?;
    let reports = take_reports().map_err(|e| format!("the pipe for reports: {e}"))?;
    let job = Job { file, text: &text, test: name, seed: arguments.seed, device: &device };
    Ok(Status::from(worker::run(&job, reports)))
}

/// Prints the names of what the device can do, as a JSON array.
fn capabilities(device: &DeviceSpec) -> Result<Status, String> {
    let device = fencepost_fixtures::device::open(device).map_err(|e| e.to_string())?;
    let names: Vec<&str> = device.caps().iter().collect();
    say!("{}", serde_json::to_string(&names).map_err(|e| e.to_string())?);
    Ok(Status::SUCCESS)
}

/// Takes the pipe for reports away from standard input, where the runner put it; programs and
/// processes of the test find an empty one there.
fn take_reports() -> io::Result<File> {
    let reports = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(File::from(reports))
}

/// Path and text of the scenario. The file's own path counts for the test's name, wherever its
/// text is read.
fn scenario<'a>(
    source: &'a str,
    text: Option<&str>,
) -> Result<(&'a str, Cow<'static, str>), String> {
    match source.split_once(':') {
        Some(("bundled", path)) => match fencepost_suites::find(path) {
            Some(file) => Ok((path, Cow::Borrowed(file.text))),
            None => Err(format!("this program bundles no scenario {path}")),
        },
        Some(("file", path)) => {
            let place = text.unwrap_or(path);
            let text = std::fs::read_to_string(place).map_err(|e| format!("{place}: {e}"))?;
            Ok((path, Cow::Owned(text)))
        }
        _ => Err(format!("{source} is neither bundled:PATH nor file:PATH")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_of_a_worker() {
        let words = |line: &str| parse(line.split_whitespace().map(str::to_owned));
        let full = words("--test a@b --source bundled:a/b.yaml --device ref --seed 7");
        assert_eq!(
            full,
            Ok(Arguments {
                test: Some("a@b".into()),
                source: Some("bundled:a/b.yaml".into()),
                device: Some("ref".into()),
                seed: 7,
                ..Arguments::default()
            })
        );
        for bad in ["--test", "--seed x", "--what"] {
            assert!(words(bad).is_err(), "{bad}");
        }
    }
}
