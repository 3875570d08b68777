//! `cargo xtask plants`: builds the module with bugs on purpose (plant.c), lets `fencepost vm` run a
//! test on each, and checks that each is reported with its verdict and exit code.
//!
//! Owns the table of what each bug must give, on the flavour whose checks are made for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Args;

use super::flavour::Flavour;
use super::{KernelArgs, Toolchain, build, module};
use crate::Findings;

/// Which bugs.
#[derive(Debug, Args)]
pub(crate) struct PlantsArgs {
    /// Bugs by the names of plant.c; default: all
    #[arg(value_name = "BUG")]
    bugs: Vec<String>,
}

/// A bug, the flavour that finds it, and what `fencepost vm` must call it.
type Row = (&'static str, Flavour, &'static str);

/// Any of them ends the run: exit code 6.
const BUGS: &[Row] = &[
    ("null", Flavour::Plain, "oops 6"),
    ("lock-inversion", Flavour::Debug, "locking 6"),
    ("leak", Flavour::Debug, "leak 6"),
    ("fence-allocation", Flavour::Debug, "locking 6"),
    ("use-after-free", Flavour::Kasan, "memory error 6"),
];

/// A test whose jobs go through the engines' fence path, and which is over soon.
const TEST: &str = "sync@binary-syncobj";

/// Runs them all; a finding for each that was not reported as it must be.
pub(crate) fn task(root: &Path, args: &PlantsArgs) -> Result<String, Findings> {
    let known = |name: &String| BUGS.iter().any(|bug| bug.0 == name);
    if let Some(unknown) = args.bugs.iter().find(|name| !known(name)) {
        let names: Vec<&str> = BUGS.iter().map(|bug| bug.0).collect();
        return Err(vec![format!("there is no bug {unknown}; there are {}", names.join(", "))]);
    }
    let wanted = |bug: &&Row| args.bugs.is_empty() || args.bugs.iter().any(|name| name == bug.0);
    let mut findings = Findings::new();
    let mut reported = Vec::new();
    for (name, flavour, expected) in BUGS.iter().filter(wanted) {
        let seen = run(root, name, *flavour)?;
        let line = format!("{name} on {}: {seen}", flavour.name());
        eprintln!("plants: {line}");
        if seen == *expected {
            reported.push(line);
        } else {
            findings.push(format!("{line}, not {expected}"));
        }
    }
    if findings.is_empty() { Ok(reported.join("\n")) } else { Err(findings) }
}

/// Builds and boots; gives verdict and exit code as one text.
fn run(root: &Path, bug: &str, flavour: Flavour) -> Result<String, Findings> {
    let args = KernelArgs { flavour, source: None, config: None, jobs: None };
    let toolchain = Toolchain::prepare(root, flavour)?;
    let kernel = build::kernel(root, &toolchain, &args)?;
    let module = module::build(root, &toolchain, &args, &kernel, &["FENCEPOST_PLANT=y"])?;
    let results = toolchain.cache.join("plants").join(bug);
    // What an earlier run left would be taken for this one's.
    let _ = fs::remove_dir_all(&results);
    let mut vm = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    vm.current_dir(root).args(["run", "--quiet", "--package", "fencepost", "--", "vm"]);
    vm.arg("--kernel").arg(kernel.join("arch/x86/boot/bzImage"));
    vm.arg("--module").arg(format!("{}:plant={bug}", module.display()));
    vm.arg("--results").arg(&results).args(["run", TEST]);
    let status = vm.status().map_err(|e| vec![format!("cannot run cargo: {e}")])?;
    let end = fs::read_to_string(results.join("guest-end")).unwrap_or_default();
    let code = status.code().map_or_else(|| status.to_string(), |code| code.to_string());
    let verdict = end.trim().strip_suffix(&format!(" {code}")).unwrap_or("no record of its end");
    Ok(format!("{verdict} {code}"))
}
