//! For the front of `cargo test`: the bundled tests as a list, and each of them run in a process
//! and on a device of its own, without a journal.

use std::process::ExitCode as Status;
use std::time::Duration;

use fencepost_results::Verdict;

use crate::args::{Selection, TierArg};
use crate::plan::{Planned, plan};
use crate::run::{Folder, Job, describe, watch};
use crate::stop::Stop;
use crate::worker;

/// Longest time for a test that sets none itself; builds of `cargo test` are slow.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The seed of `cargo test`: the same in every run, so that a change of outcome is one of the code.
const SEED: u64 = 1;

/// Works as a worker and says how that ended, if this program was started as one. A front calls
/// this first: the tests' processes are the front's own executable.
#[must_use]
pub fn worker_role() -> Option<Status> {
    worker::if_asked()
}

/// A bundled test.
#[derive(Debug)]
pub struct Case {
    planned: Planned,
}

impl Case {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.planned.name
    }

    /// Why it cannot run here.
    #[must_use]
    pub fn skip(&self) -> Option<&str> {
        self.planned.skip.as_deref()
    }

    /// Runs it. Everything but a pass is an error, with what is needed to understand it.
    ///
    /// # Errors
    /// The test did not pass.
    pub fn run(&self) -> Result<(), String> {
        let scratch = tempfile::tempdir().map_err(|e| format!("no scratch folder: {e}"))?;
        let stop = Stop::new().map_err(|e| e.to_string())?;
        let watched = watch(&Job {
            test: &self.planned.name,
            source: &self.planned.source,
            seed: SEED,
            device: "ref",
            timeout: self.planned.timeout.unwrap_or(TIMEOUT),
            folder: &Folder::from(scratch.path().to_owned()),
            journal: None,
            stop: &stop,
        })
        .map_err(|e| e.to_string())?;
        match watched.verdict {
            Verdict::Pass => Ok(()),
            verdict => Err(format!(
                "{verdict}{}{}\nrepeat: fencepost run --seed {SEED} {}",
                watched.reason.as_ref().map_or_else(String::new, |r| format!(": {r}")),
                describe(&watched),
                crate::output::quote(&self.planned.name),
            )),
        }
    }
}

/// Every bundled test of the ordinary tiers.
///
/// # Errors
/// A scenario has mistakes, or the device cannot be made here.
pub fn cases() -> Result<Vec<Case>, String> {
    let selection = Selection {
        filters: Vec::new(),
        device: "ref".into(),
        tier: vec![TierArg::Smoke, TierArg::Full],
        partition: None,
    };
    let plan = plan(&selection).map_err(|e| e.to_string())?;
    Ok(plan.into_iter().map(|planned| Case { planned }).collect())
}
