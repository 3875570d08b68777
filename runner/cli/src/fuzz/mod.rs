//! `fencepost fuzz`: random calls on a device node, clients killed at random points, the module
//! loaded and unloaded under traffic.
//!
//! Owns the order of a run: what is there before, the work ([`crowd`], [`reload`]), what is there
//! after. All randomness comes from one printed seed. With more than one client, or with kills, the
//! kernel's scheduling decides how calls meet; each client's own choices follow from the seed.

mod crowd;
mod reload;
mod state;

use std::process::ExitCode as Status;
use std::time::{Duration, Instant};

use clap::Args;
use fencepost_fixtures::DeviceSpec;
use fencepost_results::ExitCode;

use crate::error::Error;
use crate::kernel::Kernel;
use crate::output::{complain, program, say};
use state::State;

/// `fencepost fuzz`
#[derive(Clone, Debug, Args)]
pub struct FuzzArgs {
    /// Node of a fencepost device
    #[arg(long, value_name = "NAME", default_value = "path:/dev/dri/renderD128")]
    device: DeviceSpec,

    /// Seed of all random choices, decimal or 0x hexadecimal; default: a new one, which is printed
    #[arg(long, value_parser = crate::args::parse_seed)]
    seed: Option<u64>,

    /// Calls in all (with --reload: in each cycle)
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    calls: u64,

    /// Processes that call at a time, with two open files each
    #[arg(long, value_name = "N", default_value_t = 2)]
    clients: u32,

    /// Calls of a client before it closes everything and begins anew
    #[arg(long, value_name = "N", default_value_t = 4_000)]
    world: u64,

    /// In place of --calls: kill clients by SIGKILL at random points for so long
    #[arg(long, value_name = "TIME", value_parser = crate::args::parse_duration)]
    kill_for: Option<Duration>,

    /// Load and unload the module so many times, with traffic before each unload
    #[arg(long, value_name = "N", conflicts_with = "kill_for")]
    reload: Option<u64>,

    /// With --reload: the module's file, and its parameters after a colon: `FILE:name=value,...`
    #[arg(long, value_name = "FILE", default_value = "/modules/fencepost.ko")]
    module: String,
}

/// What was found wrong, one message each.
type Findings = Vec<String>;

/// The command.
pub(crate) fn command(args: &FuzzArgs) -> Result<Status, Error> {
    let seed = match args.seed {
        Some(seed) => seed,
        None => crate::run::new_seed()?,
    };
    say!("fuzz: seed {seed:#x}; again by: {}", replay_line(args, seed));
    // Caches of the first use are no leak.
    let warm = crowd::warm_up(args, seed);
    // Without the right to read the log it says nothing.
    let kernel = Kernel::watch().ok();
    let before = State::read(&args.device)?;
    let start = Instant::now();
    let result = match (warm, args.reload, args.kill_for) {
        (Err(findings), _, _) => Err(findings),
        (_, Some(cycles), _) => reload::run(args, seed, cycles),
        (_, None, Some(time)) => crowd::run_killing(args, seed, time),
        (_, None, None) => crowd::run(args, seed),
    };
    let seconds = start.elapsed().as_secs_f64();
    let mut findings = Findings::new();
    match result {
        Ok(text) => say!("fuzz: {text}; {seconds:.1} s"),
        Err(found) => findings = found,
    }
    match State::read(&args.device) {
        Ok(_) => findings.extend(before.compare(&args.device)),
        Err(error) => findings.push(format!("the device afterwards: {error}")),
    }
    findings.extend(kernel.into_iter().flat_map(|mut kernel| kernel.since().findings()));
    if findings.is_empty() {
        say!("fuzz: counters and memory are as before, the kernel's log is clean");
        return Ok(Status::SUCCESS);
    }
    for finding in &findings {
        complain!("fuzz: {finding}");
    }
    complain!("fuzz: again by: {}", replay_line(args, seed));
    Ok(Status::from(ExitCode::Failures.code()))
}

/// The command that does the same.
fn replay_line(args: &FuzzArgs, seed: u64) -> String {
    let FuzzArgs { device, clients, world, .. } = args;
    let mut line =
        format!("{} fuzz --device {device} --seed {seed:#x} --clients {clients}", program());
    match args.kill_for {
        Some(time) => line += &format!(" --kill-for {}s", time.as_secs()),
        None => line += &format!(" --calls {} --world {world}", args.calls),
    }
    if let Some(cycles) = args.reload {
        line += &format!(" --reload {cycles} --module {}", args.module);
    }
    line
}
