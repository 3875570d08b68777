//! The `fencepost` program as a library: `main.rs` and the front for `cargo test` call it.
//!
//! Owns the commands. Each is a module that takes its arguments and gives an exit status; nothing
//! here knows a scenario's meaning (the engine) or a driver (the host, the fixtures).
//!
//! The program re-executes itself as a worker for each test. That role is told apart before the
//! command line is parsed, as it is what the cost of a test hangs on.

pub mod args;
mod catalog;
mod check;
mod compare;
mod device;
mod doctor;
mod error;
mod exec;
mod expectations;
mod filter;
pub mod front;
mod fuzz;
mod generate;
mod gpuva;
mod kernel;
mod klog;
mod list;
mod output;
mod plan;
mod replay;
mod run;
mod stop;
mod vm;
mod worker;

use std::io::{Write as _, stderr};
use std::process::ExitCode as Status;

use clap::Parser as _;
use fencepost_results::ExitCode;

use args::{Cli, Command};
use error::Error;

/// The program: reads its command line, does what it says.
#[must_use]
pub fn main() -> Status {
    if vm::guest::is_guest() {
        vm::guest::main();
    }
    if let Some(status) = worker::if_asked() {
        return status;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage = error.use_stderr();
            // Nobody to tell when even this cannot be printed.
            let _ = error.print();
            return Status::from(if usage { ExitCode::Usage.code() } else { 0 });
        }
    };
    match dispatch(cli.command) {
        Ok(status) => status,
        Err(error) => {
            let style = output::Style::of(&stderr());
            let text = match &error {
                // Diagnostics say themselves what they are.
                Error::BadScenario(text) => text.trim_end().to_owned(),
                other => format!("{}: {other}", style.bad("error")),
            };
            let _ = writeln!(stderr(), "{text}");
            Status::from(error.exit_code().code())
        }
    }
}

fn dispatch(command: Command) -> Result<Status, Error> {
    match command {
        Command::Run(args) => run::command(args),
        Command::List(args) => list::command(&args),
        Command::Check(args) => check::command(&args),
        Command::Replay(args) => replay::command(args),
        Command::Compare(args) => compare::command(&args),
        Command::Exec(args) => exec::command(&args),
        Command::Doctor(args) => doctor::command(&args),
        Command::Schema => generate::schema(),
        Command::Vm(args) => vm::command(&args),
        Command::Fuzz(args) => fuzz::command(&args),
        Command::GpuvaCheck(args) => gpuva::command(&args),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man => generate::man(),
    }
}
