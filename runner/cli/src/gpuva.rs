//! `fencepost gpuva-check`, hidden: talks to fencepost_gpuva.ko in the guest that
//! `cargo xtask gpuva-check` boots.
//!
//! Owns the order of the commands, the sums, the table and the exit code. The commands and their
//! answers are described in reference-driver/linux/gpuva-check/gpuva_check.rs.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _, stdout};
use std::process::ExitCode as Status;

use clap::Args;
use fencepost_results::ExitCode;

use crate::error::Error;

/// The module's file.
const FILE: &str = "/sys/kernel/debug/fencepost_gpuva/run";
/// Requests in one command, a whole number of the module's rounds.
const CHUNK: u64 = 20_000;
/// Requests in a round of the module.
const ROUND: u64 = 2_000;

/// `fencepost gpuva-check`
#[derive(Debug, Args)]
pub struct GpuvaArgs {
    /// Seed of the random requests; default: a new one, which is printed
    #[arg(long, value_parser = crate::args::parse_seed)]
    seed: Option<u64>,

    /// Number of random requests
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    ops: u64,

    /// Compare the speed as well, with so many live mappings; may be given several times
    #[arg(long, value_name = "LIVE")]
    bench: Vec<u64>,
}

/// Compares both managers.
pub(crate) fn command(args: &GpuvaArgs) -> Result<Status, Error> {
    let seed = args.seed.map_or_else(crate::run::new_seed, Ok)?;
    say(format_args!("gpuva-check: seed {seed}, {} requests\n", args.ops));
    let mut sums = Sums::default();
    let mut done = 0;
    while done < args.ops {
        let count = CHUNK.min(args.ops - done);
        let answer = ask(&format!("check {seed} {} {count}", done / ROUND))?;
        if !answer.starts_with("equal\n") {
            say(format_args!("{answer}"));
            say(format_args!("after {done} requests without a difference\n"));
            return Ok(ExitCode::Failures.code().into());
        }
        sums.add(&answer);
        done += count;
        if done % (10 * CHUNK) == 0 {
            say(format_args!("gpuva-check: {done} requests equal\n"));
        }
    }
    sums.print();
    say(format_args!("gpuva-check: equal, {done} requests with seed {seed}\n"));
    let slower = bench(seed, &args.bench)?;
    Ok(if slower { ExitCode::OnlyPerformance.code().into() } else { Status::SUCCESS })
}

/// Nobody is left to tell when the output is gone; the exit code says the same.
fn say(text: std::fmt::Arguments<'_>) {
    let mut out = stdout().lock();
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}

/// Writes a command and reads its answer.
fn ask(command: &str) -> Result<String, Error> {
    let ask = || -> io::Result<String> {
        let mut file = OpenOptions::new().read(true).write(true).open(FILE)?;
        file.write_all(command.as_bytes())?;
        let mut answer = String::new();
        file.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().map_err(Error::system(format!("ask {FILE} for `{command}`")))
}

/// The counts of all answers, by name, in the order of the first.
#[derive(Default)]
struct Sums {
    names: Vec<String>,
    counts: BTreeMap<String, u64>,
}

impl Sums {
    fn add(&mut self, answer: &str) {
        for line in answer.lines().filter_map(|line| line.strip_prefix("count ")) {
            let Some((name, count)) = line.rsplit_once(": ") else { continue };
            let count: u64 = count.parse().unwrap_or(0);
            if !self.counts.contains_key(name) {
                self.names.push(name.to_owned());
            }
            *self.counts.entry(name.to_owned()).or_default() += count;
        }
    }

    fn print(&self) {
        for name in &self.names {
            say(format_args!("  {name}: {}\n", self.counts[name]));
        }
    }
}

/// One row of the benchmark, `bench LIVE WORK CORE DRM_GPUVM`; times in picoseconds.
fn row(line: &str) -> Option<(&str, &str, u64, u64)> {
    let mut words = line.strip_prefix("bench ")?.split(' ');
    let (live, work) = (words.next()?, words.next()?);
    Some((live, work, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Prints the table; true when core is slower anywhere.
fn bench(seed: u64, sizes: &[u64]) -> Result<bool, Error> {
    let mut slower = false;
    if !sizes.is_empty() {
        let head = ["live mappings", "work", "core ns", "drm_gpuvm ns", "core is faster by"];
        let [live, work, core, kernel, ratio] = head;
        say(format_args!("{live:>13} {work:<10} {core:>9} {kernel:>12} {ratio:>17}\n"));
    }
    for size in sizes {
        let answer = ask(&format!("bench {seed} {size}"))?;
        for (live, work, core, kernel) in answer.lines().filter_map(row) {
            slower |= core > kernel;
            let ratio = kernel as f64 / core.max(1) as f64;
            let (core, kernel) = (core / 1000, kernel / 1000);
            say(format_args!("{live:>13} {work:<10} {core:>9} {kernel:>12} {ratio:>16.2}x\n"));
        }
    }
    Ok(slower)
}

#[cfg(test)]
#[expect(dead_code, reason = "the module uses the rest")]
#[path = "../../../reference-driver/linux/gpuva-check/random.rs"]
mod random;

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::{Rng as _, SeedableRng as _};

    #[test]
    fn the_modules_random_numbers_are_those_of_rand_chacha() {
        for (seed, stream) in [(0, 0), (1, 2), (u64::MAX, u64::MAX), (1 << 40, 77)] {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&u64::to_le_bytes(seed));
            let mut theirs = rand_chacha::ChaCha8Rng::from_seed(key);
            theirs.set_stream(stream);
            let mut ours = random::Random::new(seed, stream);
            for _ in 0..100 {
                assert_eq!(ours.next_u64(), theirs.next_u64());
            }
        }
    }

    #[test]
    fn answers_are_summed_in_their_order() {
        let mut sums = Sums::default();
        sums.add("equal\ncount request map: 2\ncount case 1: 5\n");
        sums.add("equal\ncount request map: 3\ncount case 1: 0\n");
        assert_eq!(sums.names, ["request map", "case 1"]);
        assert_eq!((sums.counts["request map"], sums.counts["case 1"]), (5, 5));
    }

    #[test]
    fn rows_of_the_benchmark_are_read() {
        assert_eq!(row("bench 1000 map-unmap 10 20"), Some(("1000", "map-unmap", 10, 20)));
        assert_eq!(row("bench 1000 map-unmap 10"), None);
        assert_eq!(row("equal"), None);
    }
}
