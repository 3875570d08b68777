//! Structured random calls on the driver over the simulated world: `cargo xtask fuzz`.
//!
//! Owns the loop: world after world from one printed seed, invariants checked on the way, everything
//! closed and counted at each end. The generator of calls is the fixtures' (`device::fuzz`), which drives
//! device nodes as well; its clients sit in the simulated world by [`seat`]. Any panic, leak or broken invariant ends the run with the
//! seed of its world.

mod seat;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use clap::Args;
use fencepost_core::driver::Config;
use fencepost_fixtures::device::fuzz::{self, Random};
use fencepost_host::sim::Sim;
use fencepost_uapi::fencepost::COUNTERS;

use crate::Findings;
use seat::SimSeat;

type Client = fuzz::Client<SimSeat>;

/// Options of the task.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Options {
    /// Seed of the run; the clock by default
    #[arg(long)]
    seed: Option<u64>,
    /// Calls in all
    #[arg(long, default_value_t = 1_000_000)]
    calls: u64,
    /// Calls in one world, before everything is closed and counted
    #[arg(long, default_value_t = 4_000)]
    world: u64,
    /// Calls between two checks of all invariants
    #[arg(long, default_value_t = 200)]
    check: u64,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    calls: u64,
    succeeded: u64,
    worlds: u64,
    jobs: u64,
    evictions: u64,
    unwound: u64,
    injected: u64,
    faults: u64,
    shared: u64,
    moved: u64,
}

/// Runs the task.
///
/// # Errors
/// What was found, with the command that finds it again.
pub(crate) fn task(options: Options) -> Result<String, Findings> {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = options.seed.unwrap_or(since.as_nanos() as u64);
    println!("fuzz: seed {seed}, {} calls", options.calls);
    let start = Instant::now();
    let totals = run(seed, options)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(format!(
        "fuzz: {} calls ({} succeeded) in {} worlds, {seconds:.1} s, {:.0} calls/s; {} jobs, {} evictions, \
         {} binds unwound, {} failures injected, {} faults; {} faults serviced, {} pages moved; no panic, no leak, no broken invariant",
        totals.calls,
        totals.succeeded,
        totals.worlds,
        totals.calls as f64 / seconds,
        totals.jobs,
        totals.evictions,
        totals.unwound,
        totals.injected,
        totals.faults,
        totals.shared,
        totals.moved,
    ))
}

/// Runs worlds until all calls were made.
///
/// # Errors
/// As [`task`].
pub(crate) fn run(seed: u64, options: Options) -> Result<Totals, Findings> {
    let mut totals = Totals::default();
    while totals.calls < options.calls {
        let calls = options.world.min(options.calls - totals.calls);
        let world = seed.wrapping_add(totals.worlds);
        let result = catch_unwind(AssertUnwindSafe(|| one_world(world, calls, options.check)));
        match result {
            Ok(done) => totals.add(done),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("panic");
                let again = format!("cargo xtask fuzz --seed {world} --calls {calls} --check 1");
                return Err(vec![format!("fuzz: world {world}: {text}"), again]);
            }
        }
    }
    Ok(totals)
}

impl Totals {
    fn add(&mut self, other: Totals) {
        self.calls += other.calls;
        self.succeeded += other.succeeded;
        self.worlds += 1;
        self.jobs += other.jobs;
        self.evictions += other.evictions;
        self.unwound += other.unwound;
        self.injected += other.injected;
        self.faults += other.faults;
        self.shared += other.shared;
        self.moved += other.moved;
    }
}

/// One device from its start to its end.
fn one_world(seed: u64, calls: u64, check: u64) -> Totals {
    let mut random = Random::new(seed);
    let config = Config {
        vram_bytes: [0, 1 << 20, 8 << 20][random.index(3)],
        system_bytes: 24 << 20,
        engines: 1 + random.below(3) as u32,
        testing: random.chance(7, 8),
    };
    let sim = Rc::new(Sim::new(seed, config).expect("a device"));
    let mut clients: Vec<Client> =
        (0..2).map(|_| Client::new(SimSeat::new(&sim), &mut random)).collect();
    let mut succeeded = 0;
    for made in 0..calls {
        if random.chance(1, 400) {
            replace_client(&sim, &mut clients, &mut random);
        }
        let at = random.index(clients.len());
        succeeded += u64::from(clients[at].random_call(&mut random));
        deliver(&sim, &mut clients, at, &mut random);
        if random.chance(1, 4) {
            let _ = sim.step();
        }
        if made % check == 0 {
            assert_consistent(&sim, &clients);
        }
    }
    for client in clients.drain(..) {
        client.close();
    }
    assert_nothing_left(&sim);
    Totals {
        calls,
        succeeded,
        worlds: 1,
        jobs: sim.counter("jobs.submitted"),
        evictions: sim.counter("evictions"),
        unwound: sim.counter("binds.unwound"),
        injected: sim.counter("injected"),
        faults: sim.counter("faults.device"),
        shared: sim.counter("svm.faults") - sim.counter("svm.cancels"),
        moved: sim.counter("svm.migrated.to_device"),
    }
}

/// A process dies and another one comes.
fn replace_client(sim: &Rc<Sim>, clients: &mut [Client], random: &mut Random) {
    let at = random.index(clients.len());
    let new = Client::new(SimSeat::new(sim), random);
    std::mem::replace(&mut clients[at], new).close();
}

/// Passes on the descriptors that a client wants to.
fn deliver(sim: &Sim, clients: &mut [Client], from: usize, random: &mut Random) {
    while let Some(fd) = clients[from].outbox.pop() {
        let to = random.index(clients.len());
        let (source, target) = (clients[from].seat.file.task, clients[to].seat.file.task);
        if let Ok(copy) = sim.host().pass_fd(source, fd, target) {
            clients[to].receive(copy);
        }
    }
}

fn assert_consistent(sim: &Sim, clients: &[Client]) {
    let files: Vec<_> = clients.iter().map(|client| client.seat.file.file.clone()).collect();
    sim.driver().assert_consistent(&files);
    assert_eq!(sim.counter("live.bos"), sim.host().objects() as u64, "objects of the host");
    let (_, notifiers, frames) = sim.host().mirrored();
    assert_eq!(sim.counter("live.notifiers"), notifiers as u64, "notifiers");
    assert!(sim.counter("live.svm_pages") >= frames as u64, "frames");
    assert_eq!(sim.counter("live.dma_pages"), sim.host().dma_pages(), "DMA mappings");
}

fn assert_nothing_left(sim: &Sim) {
    sim.settle();
    sim.driver().assert_consistent(&[]);
    for (name, value) in COUNTERS.iter().zip(sim.driver().counters()) {
        assert!(value == 0 || !name.starts_with("live."), "{value} {name} at the end");
    }
    assert_eq!(sim.host().objects(), 0, "objects of the host at the end");
    assert_eq!(sim.host().mirrored(), (0, 0, 0), "DMA mappings, notifiers, frames at the end");
    let made = sim.counter("jobs.submitted");
    let ends = ["jobs.completed", "jobs.failed", "jobs.timeout", "jobs.cancelled"];
    let ended: u64 = ends.iter().map(|name| sim.counter(name)).sum();
    assert_eq!(made, ended, "every job ends in one way");
}
