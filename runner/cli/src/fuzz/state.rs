//! What a device and its kernel hold: counters, memory, references to modules.
//! Owns what counts as grown.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use fencepost_fixtures::{DeviceSpec, device};

use crate::error::Error;

/// How long what is being released may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Kinds of memory that may not grow by more than so many KiB. Caches of the allocators themselves
/// move by some pages a CPU.
const MEMORY: &[(&str, i64)] =
    &[("SUnreclaim", 4 << 10), ("VmallocUsed", 1 << 10), ("Percpu", 512), ("in use", 12 << 10)];

/// What is there.
#[derive(Clone, Debug)]
pub(super) struct State {
    live: BTreeMap<String, u64>,
    memory: BTreeMap<String, i64>,
    users: Option<u64>,
}

impl State {
    /// Reads it all. The device is opened for it.
    pub(super) fn read(spec: &DeviceSpec) -> Result<Self, Error> {
        let cannot = |e: device::Error| {
            Error::system(format!("use the device {spec}"))(std::io::Error::other(e.to_string()))
        };
        let client = device::open(spec).and_then(|device| device.open()).map_err(cannot)?;
        let mut live = client.counters().map_err(cannot)?;
        live.retain(|name, _| name.starts_with("live.") || name == "leaks");
        drop(client);
        Ok(Self { live, memory: memory(), users: users() })
    }

    /// What has grown since, in words; looks until nothing has, or patience ends.
    pub(super) fn compare(&self, spec: &DeviceSpec) -> Vec<String> {
        let start = Instant::now();
        loop {
            let grown = match Self::read(spec) {
                Ok(now) => self.grown(&now),
                Err(error) => vec![error.to_string()],
            };
            if grown.is_empty() || start.elapsed() > PATIENCE {
                return grown;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn grown(&self, now: &Self) -> Vec<String> {
        let counter = |(name, value): (&String, &u64)| {
            let before = self.live.get(name).copied().unwrap_or(0);
            (*value > before).then(|| format!("{name} was {before}, is {value}"))
        };
        let mut grown: Vec<String> = now.live.iter().filter_map(counter).collect();
        for (name, allowed) in MEMORY {
            let of = |state: &Self| state.memory.get(*name).copied().unwrap_or(0);
            let (before, after) = (of(self), of(now));
            if after - before > *allowed + quarantine(name, now.memory.get("MemTotal")) {
                grown.push(format!("memory ({name}) was {before} KiB, is {after} KiB"));
            }
        }
        if now.users > self.users {
            grown.push(format!("users of the module: {:?}, were {:?}", now.users, self.users));
        }
        grown
    }
}

/// Kernel memory in KiB, caches dropped where that is allowed.
fn memory() -> BTreeMap<String, i64> {
    // Only root may; without it the numbers are less sharp.
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut memory = BTreeMap::new();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let number = value.trim().trim_end_matches(" kB").parse();
        memory.insert(name.to_owned(), number.unwrap_or(0));
    }
    let of = |name: &str| memory.get(name).copied().unwrap_or(0);
    let in_use = of("MemTotal") - of("MemFree") - of("Buffers") - of("Cached");
    memory.insert("in use".to_owned(), in_use);
    memory
}

/// What KASAN may keep of freed memory before it gives it back: a part of all memory.
fn quarantine(kind: &str, total: Option<&i64>) -> i64 {
    let freed = matches!(kind, "SUnreclaim" | "in use");
    let is_there = || {
        let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        symbols.lines().any(|line| line.ends_with(" kasan_quarantine_put"))
    };
    if freed && is_there() { total.copied().unwrap_or(0) / 32 } else { 0 }
}

/// References to the module, if there is one.
fn users() -> Option<u64> {
    fs::read_to_string("/sys/module/fencepost/refcnt").ok()?.trim().parse().ok()
}
