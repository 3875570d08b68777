//! Developer tasks, one file each: `cargo xtask TASK`.
//!
//! Owns what keeps the tree in order and what is generated from it. Nothing that a user of
//! fencepost needs is here.

mod bare;
mod bugs;
mod confined;
mod fuzz;
mod header;
mod kernel;
mod share;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer tasks
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check the rules of the tree that no other tool checks
    Tidy,
    /// Build uapi and core in a world that has neither std nor alloc
    Bare,
    /// Make random calls on the driver over the simulated world, all invariants checked
    Fuzz(fuzz::Options),
    /// Plant bugs of one line in SVM in a copy of the tree and check that tests catch each
    Bugs(bugs::Options),
    /// Run a command under a filter like the default profile of a container runtime
    Confined(confined::Options),
    /// Generate the C header and the tables of docs/UAPI.md from fencepost-uapi
    Header,
    /// Build a kernel to run the driver in; does nothing when it is there
    Kernel(kernel::KernelArgs),
    /// Boot modules with bugs on purpose and check that each is reported as what it is
    Plants(kernel::PlantsArgs),
    /// Build fencepost.ko, its kernel first, for `fencepost vm`
    Kmod(kernel::ModuleArgs),
    /// Count the driver's lines that user space and the module have in common
    Share,
    /// Compare core's VA manager with the kernel's drm_gpuvm in a virtual machine, from a seed
    GpuvaCheck(kernel::GpuvaArgs),
    /// Run the kernel's own hmm-tests in a virtual machine, on test_hmm and on fencepost.ko
    HmmTests(kernel::HmmArgs),
}

/// Why a task failed, one message for each thing found.
type Findings = Vec<String>;

fn main() -> ExitCode {
    let root = root();
    let result = match Cli::parse().task {
        Task::Tidy => tidy::task(&root),
        Task::Bare => bare::task(&root),
        Task::Fuzz(options) => fuzz::task(options),
        Task::Bugs(options) => bugs::task(&root, &options),
        Task::Confined(options) => confined::task(&options),
        Task::Header => header::task(&root),
        Task::Kernel(args) => kernel::kernel_task(&root, &args),
        Task::Plants(args) => kernel::plants_task(&root, &args),
        Task::Kmod(args) => kernel::module_task(&root, &args),
        Task::Share => share::task(&root),
        Task::GpuvaCheck(args) => kernel::gpuva_task(&root, &args),
        Task::HmmTests(args) => kernel::hmm_task(&root, &args),
    };
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(findings) => {
            findings.iter().for_each(|finding| eprintln!("{finding}"));
            ExitCode::FAILURE
        }
    }
}

/// The top of the source tree.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate is two folders below the root").to_owned()
}
