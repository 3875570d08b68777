//! Cost of shared virtual memory in user space, each thing against a cheaper one of the same run, on
//! each way to move pages that this machine has:
//!
//! - the CPU's access to a page in device memory, which brings it back, against a bare fault of the
//!   same backend: one that userfaultfd reports and the host answers with an empty page; one that ends
//!   in `SIGSEGV`, of which the host says that it is the program's own. Fails above the limit;
//! - moving 2 MiB to device memory against copying them; no limit;
//! - a GPU access that hits the page table, in a loop, against one by message. Fails above the limit.
//!
//! First on CPUs that halt when nobody needs them, where the limits do not count: to wake a halted one
//! takes a virtual machine some 30 us, more than a bare fault does, and that is what the ratio shows then.
//! Then on CPUs that are kept awake by threads which give way to all others.

use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::time::Instant;
use std::{hint, io};

use fencepost_fixtures::sys::{guard, mm};
use fencepost_host::live::tiny::user::{Pages, ask};
use fencepost_host::live::tiny::{Ask, Tiny};
use fencepost_host::live::{Backend, hook};

/// Highest ratios of the medians.
const FAULT_LIMIT: f64 = 2.5;
const HIT_LIMIT: f64 = 1.0 / 20.0;

const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;
const TURNS: u64 = 2000;

/// Median of the nanoseconds that `f` takes, `before` not counted.
fn median(turns: u64, mut before: impl FnMut(u64), mut f: impl FnMut(u64)) -> f64 {
    let mut times: Vec<u64> = (0..turns)
        .map(|turn| {
            before(turn);
            let start = Instant::now();
            f(turn);
            start.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2] as f64
}

fn to_device(pages: Pages) {
    ask(Ask::ToDevice, pages.addr, pages.len, 0).expect("a migration");
}

/// Fault-back of a page, and a bare fault.
fn faults(backend: Backend) -> (f64, f64) {
    let pages = Pages::map(64 * PAGE).expect("pages");
    let touch = |turn: u64| {
        hint::black_box(pages.word(turn % 32).load(Ordering::Relaxed));
    };
    // Half of them are away all the time, so that the whole range stays watched.
    to_device(pages);
    (0..32).for_each(touch);
    let away = |turn: u64| {
        pages.word(turn % 32).store(turn, Ordering::Relaxed);
        to_device(pages.part(turn % 32, 1));
    };
    let back = median(TURNS, away, touch);
    let bare = match backend {
        Backend::Userfault => {
            let drop = |turn: u64| {
                pages.part(turn % 32, 1).advise(libc::MADV_DONTNEED).expect("advice");
            };
            median(TURNS, drop, touch)
        }
        Backend::Protect => {
            let closed = guard::ZONE.start;
            mm::map(closed, PAGE, mm::Protection::None, mm::Behind::Private).expect("a page");
            let refused = |_| assert_eq!(guard::load8(closed), Err(nix::errno::Errno::EFAULT));
            median(TURNS, |_| (), refused)
        }
    };
    (back, bare)
}

/// Moving 2 MiB there, and copying them.
fn moves() -> (f64, f64) {
    let room = Pages::map(2 * HUGE).expect("pages");
    let pages = room.part((room.addr.next_multiple_of(HUGE) - room.addr) / PAGE, HUGE / PAGE);
    // A kernel without huge pages moves small ones.
    let _ = pages.advise(libc::MADV_HUGEPAGE);
    let back = |_| {
        ask(Ask::ToSystem, pages.addr, pages.len, 0).expect("a migration");
        (0..HUGE / PAGE).for_each(|page| pages.word(page).store(page, Ordering::Relaxed));
    };
    let there = median(50, back, |_| to_device(pages));
    let (from, mut to) = (vec![1u8; HUGE as usize], vec![0u8; HUGE as usize]);
    let copy = median(50, |_| (), |_| hint::black_box(&mut to).copy_from_slice(&from));
    (there, copy)
}

/// A GPU access that hits, and one by message.
fn accesses() -> (f64, f64) {
    const LOOP: u64 = 100_000;
    const MANY: u64 = 200;
    let pages = Pages::map(PAGE).expect("pages");
    let run = |how: Ask, count: u64| {
        assert_eq!(ask(how, pages.addr, 8, count).expect("accesses").0, count);
    };
    run(Ask::Add, 1);
    let call = median(TURNS, |_| (), |_| run(Ask::Nothing, 0));
    let hit = median(50, |_| (), |_| run(Ask::Loop, LOOP));
    let message = median(50, |_| (), |_| run(Ask::Add, MANY));
    ((hit - call) / LOOP as f64, (message - call) / MANY as f64)
}

/// The client: prints what it has measured, and whether the limits hold.
fn client(backend: Backend) -> bool {
    let line = |what: &str, one: f64, other: f64, limit: Option<f64>| {
        let ratio = one / other;
        let bound = limit.map(|limit| format!(" (limit {limit})")).unwrap_or_default();
        println!("{backend:?}: {what}: {one:.0} ns, {other:.0} ns: ratio {ratio:.4}{bound}");
        limit.is_none_or(|limit| ratio <= limit)
    };
    let (back, bare) = faults(backend);
    let (there, copy) = moves();
    let (hit, message) = accesses();
    let fault = line("CPU fault-back of a page, a bare fault", back, bare, Some(FAULT_LIMIT));
    line("2 MiB to the device, copied", there, copy, None);
    let hit = line("GPU access that hits, by message", hit, message, Some(HIT_LIMIT));
    fault && hit
}

/// A process for each CPU that keeps it awake and gives way to all others, until this is dropped.
struct Awake(Vec<Child>);

impl Awake {
    fn new() -> io::Result<Awake> {
        let mut all = Awake(Vec::new());
        for _ in 0..std::thread::available_parallelism()?.get() {
            let mut spin = Command::new("nice");
            spin.args(["-n", "19"]).arg(std::env::current_exe()?).arg("--spin");
            // It ends with us also where we are killed.
            all.0.push(spin.stdin(Stdio::piped()).spawn()?);
        }
        Ok(all)
    }

    /// What such a process does: until its standard input ends.
    fn spin() -> ExitCode {
        std::thread::spawn(|| {
            let _ended = io::copy(&mut io::stdin(), &mut io::sink());
            std::process::exit(0);
        });
        loop {
            hint::spin_loop();
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.stdin.take());
            let _ended = child.wait();
        }
    }
}

fn main() -> io::Result<ExitCode> {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|role| role == "--spin") {
        return Ok(Awake::spin());
    }
    if let [_, role, name] = &args[..]
        && role == "--client"
    {
        hook();
        guard::install();
        let backend = if name == "protect" { Backend::Protect } else { Backend::Userfault };
        return Ok(if client(backend) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    println!("CPUs that halt:");
    measure()?;
    println!("CPUs that are awake:");
    let _awake = Awake::new()?;
    Ok(if measure()? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures each way in a client of its own; whether all limits hold.
fn measure() -> io::Result<bool> {
    let mut good = true;
    for (backend, name) in [(Backend::Userfault, "userfault"), (Backend::Protect, "protect")] {
        if backend == Backend::Userfault && Backend::here() != backend {
            println!("{backend:?}: not on this machine");
            continue;
        }
        let tiny = Tiny::new(backend);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--client", name]).stdin(Stdio::null());
        good &= tiny.spawn(command)?.wait()?.success();
        tiny.stop();
    }
    Ok(good)
}
