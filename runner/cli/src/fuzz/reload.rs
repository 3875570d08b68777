//! The module is unloaded and loaded again, with traffic before each unload. Owns the cycle.

use std::ffi::CString;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use fencepost_fixtures::device::fuzz::Random;
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};

use super::crowd::{Client, Task};
use super::{Findings, FuzzArgs};
use crate::output::say;

/// How long a module may stay in use after its last user went.
const PATIENCE: Duration = Duration::from_secs(10);

/// The module: its file, name and parameters.
struct Module {
    file: String,
    name: CString,
    parameters: CString,
}

impl Module {
    fn new(text: &str) -> Result<Self, Findings> {
        let (file, parameters) = text.split_once(':').unwrap_or((text, ""));
        let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
        let bad = |_| vec![format!("{text} is no module")];
        Ok(Self {
            file: file.to_owned(),
            name: CString::new(stem.replace('-', "_")).map_err(bad)?,
            parameters: CString::new(parameters.replace(',', " ")).map_err(bad)?,
        })
    }

    /// Unloads; gives how long its users took to go.
    fn unload(&self) -> Result<Duration, Findings> {
        let start = Instant::now();
        loop {
            match delete_module(&self.name, DeleteModuleFlags::O_NONBLOCK) {
                Ok(()) => return Ok(start.elapsed()),
                // An address space that an engine has just left may still hold a file.
                Err(Errno::EWOULDBLOCK) if start.elapsed() < PATIENCE => std::thread::yield_now(),
                Err(errno) => return Err(vec![format!("the module does not unload: {errno}")]),
            }
        }
    }

    fn load(&self) -> Result<(), Findings> {
        let cannot = |what: String| vec![format!("the module does not load: {what}")];
        let file = File::open(&self.file).map_err(|e| cannot(format!("{}: {e}", self.file)))?;
        finit_module(&file, &self.parameters, ModuleInitFlags::empty())
            .map_err(|errno| cannot(errno.to_string()))
    }
}

/// Cycles of traffic, unload, load.
pub(super) fn run(args: &FuzzArgs, seed: u64, cycles: u64) -> Result<String, Findings> {
    let module = Module::new(&args.module)?;
    let mut random = Random::new(seed);
    let (mut calls, mut succeeded) = (0, 0);
    let mut slowest = Duration::ZERO;
    let start = Instant::now();
    for cycle in 0..cycles {
        let task = Task {
            device: args.device.clone(),
            seed: random.any(),
            calls: args.calls,
            world: args.world.max(1),
        };
        let in_cycle = |found: Findings| found.into_iter().map(|f| format!("cycle {cycle}: {f}"));
        let wrong = |found: Findings| in_cycle(found).collect::<Findings>();
        let mut client = Client::start(task).map_err(wrong)?;
        while !client.is_over(Duration::from_millis(100)).map_err(wrong)? {}
        calls += client.counts().0;
        succeeded += client.counts().1;
        drop(client);
        slowest = slowest.max(module.unload().map_err(wrong)?);
        module.load().map_err(wrong)?;
        if (cycle + 1) % (cycles / 10).max(1) == 0 {
            say!("fuzz: {} cycles after {} s", cycle + 1, start.elapsed().as_secs());
        }
    }
    let unload = format!("the slowest unload took {slowest:?}");
    Ok(format!(
        "{cycles} cycles of unload and load, {calls} calls ({succeeded} succeeded), {unload}"
    ))
}
