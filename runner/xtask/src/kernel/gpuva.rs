//! `cargo xtask gpuva-check`: builds fencepost_gpuva.ko and lets `fencepost vm` run it in a guest.
//!
//! Owns the building and the options. What is compared is the module's business
//! (reference-driver/linux/gpuva-check); who talks to it is a command of fencepost in the guest.

use std::path::Path;
use std::process::Command;

use clap::Args;

use super::{ModuleArgs, Toolchain, build, module};
use crate::Findings;

/// What to compare.
#[derive(Debug, Args)]
pub(crate) struct GpuvaArgs {
    #[command(flatten)]
    module: ModuleArgs,

    /// Seed of the random requests; default: a new one, which is printed
    #[arg(long)]
    seed: Option<u64>,

    /// Number of random requests
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    ops: u64,

    /// Compare the speed as well, with these numbers of live mappings
    #[arg(long, value_name = "LIVE", value_delimiter = ',', num_args = 0..)]
    #[arg(default_missing_value = "1000,10000,100000,1000000")]
    bench: Vec<u64>,

    /// Memory of the guest in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,

    /// Longest time for the guest, as `fencepost vm` takes it; default: many times what the work
    /// takes without KVM
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
}

impl GpuvaArgs {
    fn timeout(&self) -> String {
        let seconds = || 300 + self.ops / 1000 + 120 * self.bench.len() as u64;
        self.timeout.clone().unwrap_or_else(|| format!("{}s", seconds()))
    }
}

/// Builds, boots, and fails when the managers differ or core is the slower one.
pub(crate) fn task(root: &Path, args: &GpuvaArgs) -> Result<String, Findings> {
    let kernel_args = &args.module.kernel;
    let toolchain = Toolchain::prepare(root, kernel_args.flavour)?;
    let kernel = match &args.module.kdir {
        Some(built) => built.clone(),
        None => build::kernel(root, &toolchain, kernel_args)?,
    };
    let source = root.join("reference-driver/linux/gpuva-check");
    let module = module::build_in(&source, MODULE, &toolchain, kernel_args, &kernel, &[])?;
    let status = vm(root, args, &kernel.join("arch/x86/boot/bzImage"), &module)
        .status()
        .map_err(|e| vec![format!("cannot run cargo: {e}")])?;
    match status.code() {
        Some(0) => Ok("equal".to_owned()),
        _ => Err(vec![format!("gpuva-check: fencepost vm: {status}")]),
    }
}

const MODULE: &str = "fencepost_gpuva.ko";

fn vm(root: &Path, args: &GpuvaArgs, image: &Path, module: &Path) -> Command {
    let mut vm = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    vm.current_dir(root).args(["run", "--quiet", "--package", "fencepost", "--", "vm"]);
    vm.arg("--kernel").arg(image).arg("--module").arg(module);
    vm.args(["--memory", &args.memory.to_string(), "--timeout", &args.timeout()]);
    vm.arg("gpuva-check");
    if let Some(seed) = args.seed {
        vm.args(["--seed", &seed.to_string()]);
    }
    vm.args(["--ops", &args.ops.to_string()]);
    for live in &args.bench {
        vm.args(["--bench", &live.to_string()]);
    }
    vm
}
