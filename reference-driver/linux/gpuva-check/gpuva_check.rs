//! `fencepost_gpuva.ko`: core's VA manager and the kernel's drm_gpuvm at the same requests.
//!
//! Owns the module and its commands. Written to `/sys/kernel/debug/fencepost_gpuva/run`, read back
//! from the same open file:
//!
//! - `check SEED ROUND REQUESTS`: `equal` and counts, or `different` and how to see it again;
//! - `bench SEED LIVE`: `bench LIVE WORK CORE DRM_GPUVM` in picoseconds a request.
//!
//! Of core it has the manager and the facade, from the files that the driver is made of.
#![deny(unsafe_code)]

#[path = "core/facade/mod.rs"]
pub mod facade;
#[path = "core/gpuva/mod.rs"]
pub mod gpuva;

mod bench;
mod check;
mod entry;
mod gpuvm;
mod plan;
mod random;
mod rounds;
mod tally;

use core::fmt;
use kernel::alloc::KVVec;
use kernel::error::to_result;
use kernel::prelude::*;

module! {
    type: Check,
    name: "fencepost_gpuva",
    authors: ["fencepost developers"],
    description: "fencepost's VA manager against drm_gpuvm",
    license: "Dual MIT/GPL",
}

struct Check;

impl kernel::Module for Check {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        to_result(gpuvm::fpg_start())?;
        Ok(Check)
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        gpuvm::fpg_stop();
    }
}

/// The text of an answer.
struct Answer(KVVec<u8>);

impl fmt::Write for Answer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes(), GFP_KERNEL).map_err(|_| fmt::Error)
    }
}

fn command(text: &[u8]) -> Result<Answer> {
    let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
    let mut words = text.split_ascii_whitespace();
    let name = words.next().ok_or(EINVAL)?;
    let mut number = || words.next().and_then(|word| word.parse().ok()).ok_or(EINVAL);
    let mut answer = Answer(KVVec::new());
    match name {
        "check" => {
            let (seed, first_round, requests) = (number()?, number()?, number()?);
            rounds::check(&rounds::Order { seed, first_round, requests }, &mut answer)?;
        }
        "bench" => {
            let (seed, live): (u64, u64) = (number()?, number()?);
            if !(1..=10_000_000).contains(&live) {
                return Err(EINVAL);
            }
            bench::bench(seed, live, &mut answer)?;
        }
        _ => return Err(EINVAL),
    }
    Ok(answer)
}
