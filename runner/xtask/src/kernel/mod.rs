//! `cargo xtask kernel` and `cargo xtask kmod`: the kernel of a flavour, and fencepost.ko for it.
//!
//! Owns the order of the steps and the record that `fencepost vm` reads. What a machine needs is
//! setup.sh's business, which runs first and does nothing on a prepared machine. Everything built
//! lies in the cache folder, below a key of all that went into it; the source tree stays clean.

mod build;
mod flavour;
mod gpuva;
mod hmm;
mod module;
mod plants;
mod toolchain;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::Findings;
use flavour::Flavour;
use toolchain::Toolchain;

pub(crate) use gpuva::{GpuvaArgs, task as gpuva_task};
pub(crate) use hmm::{HmmArgs, task as hmm_task};
pub(crate) use plants::{PlantsArgs, task as plants_task};

/// The record of a user's own kernel.
const OWN_KERNEL: &str = "own";

/// What to build.
#[derive(Clone, Debug, Args)]
pub(crate) struct KernelArgs {
    /// Which kernel: plain; debug (lockdep, kmemleak, object debugging); kasan (debug and KASAN,
    /// UBSAN, by clang)
    #[arg(long, value_enum, default_value = "plain")]
    flavour: Flavour,

    /// Kernel source to use instead of Debian's
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,

    /// Configuration lines to add, the last word on an option
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Number of compilers at a time; default: the number of CPUs
    #[arg(long, short)]
    jobs: Option<usize>,
}

/// What to build the module for.
#[derive(Debug, Args)]
pub(crate) struct ModuleArgs {
    #[command(flatten)]
    kernel: KernelArgs,

    /// A kernel that is already built, with Rust: its build folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["source", "config"])]
    kdir: Option<PathBuf>,
}

/// Builds a kernel; says where it is.
pub(crate) fn kernel_task(root: &Path, args: &KernelArgs) -> Result<String, Findings> {
    let toolchain = Toolchain::prepare(root, args.flavour)?;
    let built = build::kernel(root, &toolchain, args)?;
    Ok(built.display().to_string())
}

/// Builds the module, its kernel first, and records both for `fencepost vm`.
pub(crate) fn module_task(root: &Path, args: &ModuleArgs) -> Result<String, Findings> {
    let mut kernel_args = args.kernel.clone();
    let own = args.kdir.as_deref().map(module::own_kernel).transpose()?;
    if own.as_deref().is_some_and(module::is_clang) {
        // The flavour that is built by clang.
        kernel_args.flavour = Flavour::Kasan;
    }
    let toolchain = Toolchain::prepare(root, kernel_args.flavour)?;
    let (kernel, name) = match own {
        Some(built) => (built, OWN_KERNEL),
        None => (build::kernel(root, &toolchain, &kernel_args)?, kernel_args.flavour.name()),
    };
    let module = module::build(root, &toolchain, &kernel_args, &kernel, &[])?;
    let record = module::record(&toolchain, name, &kernel, &module)?;
    Ok(format!("{}\nrecorded in {}", module.display(), record.display()))
}
