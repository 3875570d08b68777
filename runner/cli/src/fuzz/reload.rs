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

    /// Kernel threads and rescuers of work queues that bear the module's name: after it has gone there
    /// may be none.
    fn threads(&self) -> Vec<String> {
        // A rescuer's name is cut at 15 characters; a worker's ends in `-` and the queue that it last
        // worked for, in `+` and the one that it works for now.
        let name = self.name.to_string_lossy();
        let start: String = name.chars().take(5).collect();
        let of_module = |comm: &str| {
            let patterns = [format!("R-{start}"), format!("+{start}")];
            comm.starts_with(&*name) || patterns.iter().any(|pattern| comm.contains(pattern))
        };
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let names =
            entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
        names.map(|name| name.trim().to_owned()).filter(|name| of_module(name)).collect()
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
    let (mut calls, mut succeeded, mut killed) = (0, 0, 0);
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
        // Every other client is killed on its way, so that much is in flight when the module goes.
        let limit = if random.chance(1, 2) { random.below(args.calls.max(1)) } else { u64::MAX };
        let mut is_over = false;
        while !is_over && client.counts().0 < limit {
            is_over = client.is_over(Duration::from_millis(1)).map_err(wrong)?;
        }
        calls += client.counts().0;
        succeeded += client.counts().1;
        if !is_over {
            killed += 1;
            client.kill().map_err(wrong)?;
        }
        slowest = slowest.max(module.unload().map_err(wrong)?);
        let left = module.threads();
        if !left.is_empty() {
            let what = format!("threads are left of a module that is gone: {}", left.join(", "));
            return Err(wrong(vec![what]));
        }
        module.load().map_err(wrong)?;
        if (cycle + 1) % (cycles / 10).max(1) == 0 {
            say!("fuzz: {} cycles after {} s", cycle + 1, start.elapsed().as_secs());
        }
    }
    let unload = format!("the slowest unload took {slowest:?}");
    let calls = format!("{calls} calls ({succeeded} succeeded), {killed} clients killed");
    Ok(format!("{cycles} cycles of unload and load, {calls}, {unload}"))
}
