//! Time to check 1,000 scenario files: every bundled scenario over and over. `cargo bench -p
//! fencepost-engine --bench check` prints it, and fails above the bound of one second. It counts
//! the time that the thread really ran, where the kernel tells: other load is none of its business.

use fencepost_engine::lang;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FILES: usize = 1000;
const BOUND: Duration = Duration::from_secs(1);
/// The best of some runs: the machine is shared.
const RUNS: usize = 5;

fn bundled() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../suites");
    let mut out = Vec::new();
    for folder in std::fs::read_dir(root).expect("suites").flatten() {
        let Ok(entries) = std::fs::read_dir(folder.path()) else { continue };
        for path in entries.flatten().map(|e| e.path()) {
            if path.extension().is_some_and(|e| e == "yaml") {
                let text = std::fs::read_to_string(&path).expect("readable");
                out.push((path, text));
            }
        }
    }
    out.sort();
    out
}

/// Time that this thread was on a CPU.
fn on_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn main() {
    let files = bundled();
    let mut best = Duration::MAX;
    let mut bytes = 0;
    for _ in 0..RUNS {
        let (wall, cpu) = (Instant::now(), on_cpu());
        bytes = 0;
        for (path, text) in files.iter().cycle().take(FILES) {
            let loaded = lang::load(path.to_str().expect("ASCII"), text);
            bytes += text.len();
            black_box(loaded.expect("bundled scenarios are right"));
        }
        let cpu = on_cpu().zip(cpu).map(|(end, start)| end.saturating_sub(start));
        best = best.min(cpu.unwrap_or_else(|| wall.elapsed()));
    }
    let variants: usize = files
        .iter()
        .flat_map(|(path, text)| lang::load(path.to_str().expect("ASCII"), text).expect("right"))
        .map(|scenario| scenario.names_with(&|_| None).len())
        .sum();
    println!(
        "check {FILES} files ({} KiB, {:.1} variants each): {} ms; bound {} ms",
        bytes / 1024,
        variants as f64 / files.len() as f64,
        best.as_millis(),
        BOUND.as_millis()
    );
    assert!(best < BOUND, "checking is too slow");
}
