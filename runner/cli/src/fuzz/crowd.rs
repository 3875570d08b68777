//! Clients as processes: they make random calls until their number is reached, or until they are
//! killed. Owns their seeds, their progress in shared memory, and noticing one that hangs or breaks.

use std::fs;
use std::time::{Duration, Instant};

use fencepost_fixtures::device::fuzz::{Random, run_world};
use fencepost_fixtures::device::{DeviceSpec, Width};
use fencepost_fixtures::memory::Window;
use fencepost_fixtures::sys::process::{Child, Ended};
use fencepost_fixtures::sys::signal::interrupt_every;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{Findings, FuzzArgs};
use crate::output::say;

/// No interruptible wait of a client lasts longer.
const LONGEST_WAIT: Duration = Duration::from_millis(5);
/// A client that makes no call for so long hangs.
const HANG: Duration = Duration::from_secs(60);
/// Exit code of a client that could not open the device.
const CANNOT_OPEN: i32 = 3;
/// Places of the progress words.
const CALLS: u64 = 0;
const SUCCEEDED: u64 = 8;
const WORLD: u64 = 16;

/// What a client process is to do.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) device: DeviceSpec,
    pub(super) seed: u64,
    pub(super) calls: u64,
    pub(super) world: u64,
}

/// A client process.
pub(super) struct Client {
    task: Task,
    child: Child,
    progress: Window,
    seen: (u64, Instant),
}

impl Client {
    pub(super) fn start(task: Task) -> Result<Self, Findings> {
        let cannot = |what: &str, error: String| vec![format!("{what}: {error}")];
        let progress = Window::shared(4096).map_err(|e| cannot("shared memory", e.to_string()))?;
        let (its_task, its_progress) = (task.clone(), progress.clone());
        let child = Child::fork(move |_| play(&its_task, &its_progress));
        let child = child.map_err(|e| cannot("fork", e.to_string()))?;
        Ok(Self { task, child, progress, seen: (0, Instant::now()) })
    }

    fn word(&self, at: u64) -> u64 {
        self.progress.load(at, Width::U64).unwrap_or(0)
    }

    /// Calls made and calls that succeeded.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.word(CALLS), self.word(SUCCEEDED))
    }

    /// Whether it is over; a finding if it ended otherwise than by itself, or hangs.
    pub(super) fn is_over(&mut self, patience: Duration) -> Result<bool, Findings> {
        match self.child.wait(patience) {
            Ok(Ended::Exit(0)) => Ok(true),
            Ok(ended) => Err(self.finding(&format!("ended by {ended:?}"))),
            Err(Errno::ETIME) => self.check_progress().map(|()| false),
            Err(errno) => Err(self.finding(&format!("cannot be waited for: {errno}"))),
        }
    }

    fn check_progress(&mut self) -> Result<(), Findings> {
        let calls = self.word(CALLS);
        if calls != self.seen.0 {
            self.seen = (calls, Instant::now());
        }
        if self.seen.1.elapsed() > HANG {
            return Err(self.finding(&format!("hangs: {}", self.whereabouts())));
        }
        Ok(())
    }

    /// Where in the kernel it is.
    fn whereabouts(&self) -> String {
        let read = |name: &str| {
            let path = format!("/proc/{}/{name}", self.child.pid());
            fs::read_to_string(path).unwrap_or_default().trim().to_owned()
        };
        format!("syscall {}, wchan {}, stack {}", read("syscall"), read("wchan"), read("stack"))
    }

    /// Whether it is inside an ioctl and not on a CPU.
    fn is_blocked(&self) -> bool {
        let path = format!("/proc/{}/syscall", self.child.pid());
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split(' ').next().and_then(|nr| nr.parse().ok()) == Some(libc::SYS_ioctl)
    }

    /// Kills it; gives how long it took to die.
    pub(super) fn kill(mut self) -> Result<Duration, Findings> {
        let start = Instant::now();
        let _ = self.child.kill();
        match self.child.wait(HANG) {
            Ok(Ended::Signal(Signal::SIGKILL)) => Ok(start.elapsed()),
            Ok(ended) => Err(self.finding(&format!("was killed and ended by {ended:?}"))),
            Err(_) => {
                let what = format!("does not die: {}", self.whereabouts());
                let finding = self.finding(&what);
                // Reaping it would take for ever.
                std::mem::forget(self.child);
                Err(finding)
            }
        }
    }

    fn finding(&self, what: &str) -> Findings {
        let Task { device, world, .. } = &self.task;
        let (seed, calls) = (self.word(WORLD), self.counts().0 % world + 1);
        vec![format!(
            "a client {what}; its world alone: fencepost fuzz --device {device} --clients 1 --seed \
             {seed:#x} --calls {calls} --world {world}"
        )]
    }
}

/// The seed of a client's world.
fn world_seed(seed: u64, world: u64) -> u64 {
    if world == 0 { seed } else { Random::new(seed.wrapping_add(world)).any() }
}

/// A client's life.
fn play(task: &Task, progress: &Window) -> i32 {
    if interrupt_every(LONGEST_WAIT).is_err() {
        return CANNOT_OPEN;
    }
    let (mut made, mut succeeded) = (0, 0);
    for world in 0.. {
        let seed = world_seed(task.seed, world);
        let _ = progress.store(WORLD, Width::U64, seed);
        let calls = task.world.min(task.calls - made);
        let done = run_world(&task.device, seed, calls, &mut |success| {
            made += 1;
            succeeded += u64::from(success);
            let _ = progress.store(CALLS, Width::U64, made);
            let _ = progress.store(SUCCEEDED, Width::U64, succeeded);
        });
        if done.is_err() {
            return CANNOT_OPEN;
        }
        if made >= task.calls {
            break;
        }
    }
    0
}

/// The seed of the n-th client: the run's own for the first, so that one client replays a world.
fn client_seed(seed: u64, client: u64) -> u64 {
    if client == 0 { seed } else { Random::new(seed ^ client << 48).any() }
}

fn task(args: &FuzzArgs, seed: u64, calls: u64) -> Task {
    Task { device: args.device.clone(), seed, calls, world: args.world.max(1) }
}

/// A short world, and one client that is killed.
pub(super) fn warm_up(args: &FuzzArgs, seed: u64) -> Result<(), Findings> {
    const CALLS: u64 = 500;
    let mut client = Client::start(task(args, !seed, CALLS))?;
    while !client.is_over(Duration::from_millis(100))? {}
    Ok(())
}

/// All clients make their calls.
pub(super) fn run(args: &FuzzArgs, seed: u64) -> Result<String, Findings> {
    let clients = u64::from(args.clients.max(1));
    let start = Instant::now();
    let mut running = Vec::new();
    for n in 0..clients {
        let calls = args.calls / clients + u64::from(n < args.calls % clients);
        running.push(Client::start(task(args, client_seed(seed, n), calls))?);
    }
    let (mut calls, mut succeeded) = (0, 0);
    let mut told = 0;
    while !running.is_empty() {
        let mut left = Vec::new();
        for mut client in running {
            if client.is_over(Duration::from_millis(200))? {
                calls += client.counts().0;
                succeeded += client.counts().1;
            } else {
                left.push(client);
            }
        }
        running = left;
        let now = calls + running.iter().map(|client| client.counts().0).sum::<u64>();
        if now / (args.calls / 10).max(1) > told {
            told = now / (args.calls / 10).max(1);
            say!("fuzz: {now} calls after {} s", start.elapsed().as_secs());
        }
    }
    let rate = calls as f64 / start.elapsed().as_secs_f64();
    Ok(format!("{calls} calls ({succeeded} succeeded) by {clients} clients, {rate:.0} calls/s"))
}

/// Clients are killed at random points and replaced, for so long.
pub(super) fn run_killing(args: &FuzzArgs, seed: u64, time: Duration) -> Result<String, Findings> {
    let mut random = Random::new(seed);
    let mut started = 0;
    let mut start_one = |random: &mut Random| {
        started += 1;
        // Most are killed in their first world, where more is new.
        Client::start(task(args, random.any(), u64::MAX))
    };
    let mut clients = Vec::new();
    for _ in 0..args.clients.max(1) {
        clients.push(start_one(&mut random)?);
    }
    let start = Instant::now();
    let mut told = Instant::now();
    let (mut killed, mut blocked, mut calls) = (0_u64, 0_u64, 0_u64);
    let mut longest = Duration::ZERO;
    while start.elapsed() < time {
        let at = random.index(clients.len());
        let wanted = random.below(600);
        while clients[at].counts().0 < wanted && start.elapsed() < time {
            if clients[at].is_over(Duration::from_millis(1))? {
                return Err(clients[at].finding("ended by itself"));
            }
        }
        // Half of them in a wait, the others somewhere within the next calls. Looks and spins rather
        // than sleeps, which would wait for a tick.
        let in_wait = random.chance(1, 2);
        let limit = if in_wait { 100_000 } else { random.below(3_000) };
        let until = Instant::now() + Duration::from_micros(limit);
        while Instant::now() < until && !(in_wait && clients[at].is_blocked()) {
            std::hint::spin_loop();
        }
        let new = start_one(&mut random)?;
        let old = std::mem::replace(&mut clients[at], new);
        calls += old.counts().0;
        blocked += u64::from(old.is_blocked());
        killed += 1;
        longest = longest.max(old.kill()?);
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            say!("fuzz: {killed} clients killed after {} s", start.elapsed().as_secs());
        }
    }
    for client in clients {
        calls += client.counts().0;
        killed += 1;
        longest = longest.max(client.kill()?);
    }
    let blocked = format!("{blocked} of them inside a call that waited");
    let calls = format!("{calls} calls made");
    Ok(format!("{killed} clients killed, {blocked}, {calls}, the slowest death took {longest:?}"))
}
