//! Whole-process tests of the live world: this executable runs itself as the clients, which make
//! plain system calls, and as runners of their own where the host must be restricted or killed.
//! A table of tests; clients stand in the other files.

mod client;
mod files;
mod host;
mod memory;
mod mirror;
mod svm;
mod waits;

use std::process::ExitCode;

use fencepost_host::live::Backend;
use libtest_mimic::{Arguments, Trial};

/// A client: runs under the device, panics when something is wrong.
type Role = (&'static str, fn());

/// Clients whose test is only that they succeed and leave nothing behind.
fn clients() -> Vec<Role> {
    [files::ROLES, memory::ROLES, waits::ROLES, svm::ROLES].concat()
}

/// Tests with more to them.
fn others() -> Vec<(&'static str, fn())> {
    host::TESTS.to_vec()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, role, rest @ ..] = &args[..]
        && flag == "--role"
    {
        return run(role, rest);
    }
    let mut trials = Vec::new();
    for (name, _) in clients() {
        trials.push(trial(name, move || host::client_succeeds(name)));
    }
    for (name, _) in mirror::ROLES {
        for (backend, word) in [(Backend::Userfault, "userfault"), (Backend::Protect, "protect")] {
            let test = move || mirror::client_succeeds(name, backend);
            trials.push(trial(&format!("{word}::{name}"), test));
        }
    }
    for (name, test) in others() {
        trials.push(trial(name, test));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test that fails by a panic.
fn trial(name: &str, test: impl Fn() + Send + 'static) -> Trial {
    Trial::test(format!("live::{name}"), move || {
        test();
        Ok(())
    })
}

fn run(name: &str, args: &[String]) -> ExitCode {
    fencepost_host::live::hook();
    if let Some((_, role)) = clients().iter().chain(mirror::ROLES).find(|(role, _)| *role == name) {
        role();
        return ExitCode::SUCCESS;
    }
    match host::helper(name) {
        Some(helper) => {
            helper(args);
            ExitCode::SUCCESS
        }
        None => ExitCode::from(2),
    }
}
