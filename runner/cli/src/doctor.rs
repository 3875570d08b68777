//! `fencepost doctor`: what this machine offers, what is missing, and how to get it.

use std::io::stdout;
use std::process::ExitCode as Status;

use fencepost_host::live::{self, Probe};
use fencepost_results::ExitCode;
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::device;
use crate::error::Error;
use crate::output::{Style, say};

/// What `doctor --json` prints.
#[derive(Serialize)]
struct Report {
    version: u32,
    devices: Vec<DeviceReport>,
}

#[derive(Serialize)]
struct DeviceReport {
    name: &'static str,
    runs: bool,
    capabilities: Vec<String>,
    needs: Vec<Need>,
}

#[derive(Serialize)]
struct Need {
    name: &'static str,
    met: bool,
    detail: String,
    remedy: String,
}

/// `fencepost doctor`: success if a device can run here.
pub(crate) fn command(args: &DoctorArgs) -> Result<Status, Error> {
    let report = Report { version: 1, devices: vec![reference()] };
    if args.json {
        say!("{}", serde_json::to_string_pretty(&report).expect("all keys are strings"));
    } else {
        report.devices.iter().for_each(print);
    }
    let runs = report.devices.iter().any(|device| device.runs);
    Ok(Status::from(if runs { 0 } else { ExitCode::NothingRan.code() }))
}

fn reference() -> DeviceReport {
    let mut needs: Vec<Need> = live::probe()
        .into_iter()
        .map(|Probe { name, ok, detail, remedy }| Need { name, met: ok, detail, remedy })
        .collect();
    let (runs, detail, capabilities) = match device::capabilities("ref") {
        Ok(names) => (true, "a program opened it and asked".into(), names.into_iter().collect()),
        Err(error) => (false, error.to_string(), Vec::new()),
    };
    let remedy = if runs { "" } else { "see what is missing above" };
    needs.push(Need { name: "the device answers", met: runs, detail, remedy: remedy.into() });
    DeviceReport { name: "ref", runs, capabilities, needs }
}

fn print(device: &DeviceReport) {
    let style = Style::of(&stdout());
    let verdict = if device.runs { style.good("runs here") } else { style.bad("cannot run here") };
    say!("device {}: {verdict}", device.name);
    for need in &device.needs {
        let mark = if need.met { style.good("ok     ") } else { style.bad("missing") };
        say!("  {mark}  {}: {}", need.name, need.detail);
        if !need.met && !need.remedy.is_empty() {
            say!("           {}", need.remedy);
        }
    }
    if !device.capabilities.is_empty() {
        say!("  can: {}", device.capabilities.join(", "));
    }
}
