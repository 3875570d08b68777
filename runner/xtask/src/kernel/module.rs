//! Building fencepost.ko against a built kernel, and recording it for `fencepost vm`.

use std::fs;
use std::path::{Path, PathBuf};

use super::KernelArgs;
use super::build::{jobs, key};
use super::toolchain::{Toolchain, make_folder, run_logged, write};
use crate::Findings;

/// Modules of the kernel itself that the suites use, besides ours.
const KERNEL_MODULES: [&str; 2] = ["lib/test_hmm.ko", "drivers/gpu/drm/vgem/vgem.ko"];

/// What a kernel must have for the module to be built for it, as its configuration says it.
const NEEDED: [&str; 4] =
    ["CONFIG_RUST=y", "CONFIG_MODULES=y", "CONFIG_DRM=y", "CONFIG_ZONE_DEVICE=y"];

/// A user's own built kernel, refused unless it can take the module.
pub(super) fn own_kernel(folder: &Path) -> Result<PathBuf, Findings> {
    let folder = folder.canonicalize().map_err(|e| vec![format!("{}: {e}", folder.display())])?;
    let says = |what: &str| vec![format!("{} {what}", folder.display())];
    let Ok(options) = fs::read_to_string(folder.join("include/config/auto.conf")) else {
        return Err(says("is no configured kernel: it has no include/config/auto.conf"));
    };
    let has = |wanted: &&str| options.lines().any(|line| line == *wanted);
    let missing: Vec<&str> = NEEDED.iter().copied().filter(|wanted| !has(wanted)).collect();
    if missing.is_empty() {
        return Ok(folder);
    }
    let help = "build it so, or boot it with --kernel and load another module with --module";
    Err(says(&format!("cannot take fencepost.ko: it lacks {}; {help}", missing.join(", "))))
}

/// Whether a built kernel was built by clang, as its modules must be then.
pub(super) fn is_clang(kernel: &Path) -> bool {
    let options = fs::read_to_string(kernel.join("include/config/auto.conf")).unwrap_or_default();
    options.lines().any(|line| line == "CONFIG_CC_IS_CLANG=y")
}

/// Builds the driver's module; `variables` of Kbuild make another one, which stands beside it.
pub(super) fn build(
    root: &Path,
    toolchain: &Toolchain,
    args: &KernelArgs,
    kernel: &Path,
    variables: &[&str],
) -> Result<PathBuf, Findings> {
    let source = root.join("reference-driver/linux");
    build_in(&source, "fencepost.ko", toolchain, args, kernel, variables)
}

/// Builds the module `name` of the folder `source`; Kbuild does only what is needed.
pub(super) fn build_in(
    source: &Path,
    name: &str,
    toolchain: &Toolchain,
    args: &KernelArgs,
    kernel: &Path,
    variables: &[&str],
) -> Result<PathBuf, Findings> {
    if !kernel.join("Module.symvers").exists() {
        let what = "is no built kernel: it has no Module.symvers";
        return Err(vec![format!("{} {what}", kernel.display())]);
    }
    let (from, to) = (source.display().to_string(), kernel.display().to_string());
    let place = key(&[&from, &to, &variables.join(" ")]);
    let out = toolchain.cache.join("modules").join(place);
    make_folder(&out)?;
    let mut make = toolchain.make(args.flavour);
    make.arg("-C").arg(kernel);
    make.arg(format!("M={}", source.display())).arg(format!("MO={}", out.display()));
    make.args(variables).arg(jobs(args)).arg("modules");
    run_logged(&mut make, &out.join("build.log"))?;
    Ok(out.join(name))
}

/// Writes `vm/NAME` in the cache folder: lines `NAME=PATH`, which `fencepost vm` reads.
pub(super) fn record(
    toolchain: &Toolchain,
    name: &str,
    kernel: &Path,
    module: &Path,
) -> Result<PathBuf, Findings> {
    let image = kernel.join("arch/x86/boot/bzImage");
    let mut text = format!("KERNEL={}\nMODULE={}\n", image.display(), module.display());
    for module in KERNEL_MODULES {
        let path = kernel.join(module);
        if fs::exists(&path).unwrap_or(false) {
            text += &format!("EXTRA={}\n", path.display());
        }
    }
    let folder = toolchain.cache.join("vm");
    make_folder(&folder)?;
    let record = folder.join(name);
    write(&record, &text)?;
    Ok(record)
}
