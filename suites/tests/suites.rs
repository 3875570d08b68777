//! Every bundled scenario as a test of `cargo test`, by libtest-mimic, as the standard harness
//! cannot be given tests that are files. Each variant runs in a process and on a device of its own;
//! that process is this program again, as a worker.
//!
//! What cannot run here is decided before anything runs and shown as ignored, with the reason in
//! a line of its own, because runners that only see exit statuses would take it for a pass.

use std::process::ExitCode;

use fencepost::front::{Case, cases, worker_role};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(status) = worker_role() {
        return status;
    }
    let arguments = Arguments::from_args();
    let cases = match cases() {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if !arguments.list {
        for case in &cases {
            if let Some(reason) = case.skip() {
                println!("ignored: {}: {reason}", case.name());
            }
        }
    }
    libtest_mimic::run(&arguments, cases.into_iter().map(trial).collect()).exit_code()
}

fn trial(case: Case) -> Trial {
    let (name, ignored) = (case.name().to_owned(), case.skip().is_some());
    Trial::test(name, move || Ok(case.run()?)).with_ignored_flag(ignored)
}
