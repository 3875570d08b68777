//! Building fencepost.ko against a built kernel, and recording it for `fencepost vm`.

use std::fs;
use std::path::{Path, PathBuf};

use super::KernelArgs;
use super::build::{jobs, key};
use super::flavour::Flavour;
use super::toolchain::{Toolchain, make_folder, run_logged, write};
use crate::Findings;

/// Modules of the kernel itself that the suites use, besides ours.
const KERNEL_MODULES: [&str; 2] = ["lib/test_hmm.ko", "drivers/gpu/drm/vgem/vgem.ko"];

/// Builds the driver's module.
pub(super) fn build(
    root: &Path,
    toolchain: &Toolchain,
    args: &KernelArgs,
    kernel: &Path,
) -> Result<PathBuf, Findings> {
    build_in(&root.join("reference-driver/linux"), "fencepost.ko", toolchain, args, kernel)
}

/// Builds the module `name` of the folder `source`; Kbuild does only what is needed.
pub(super) fn build_in(
    source: &Path,
    name: &str,
    toolchain: &Toolchain,
    args: &KernelArgs,
    kernel: &Path,
) -> Result<PathBuf, Findings> {
    if !kernel.join("Module.symvers").exists() {
        let what = "is no built kernel: it has no Module.symvers";
        return Err(vec![format!("{} {what}", kernel.display())]);
    }
    let place = key(&[&source.display().to_string(), &kernel.display().to_string()]);
    let out = toolchain.cache.join("modules").join(place);
    make_folder(&out)?;
    let mut make = toolchain.make(args.flavour);
    make.arg("-C").arg(kernel);
    make.arg(format!("M={}", source.display())).arg(format!("MO={}", out.display()));
    make.arg(jobs(args)).arg("modules");
    run_logged(&mut make, &out.join("build.log"))?;
    Ok(out.join(name))
}

/// Writes `vm/FLAVOUR` in the cache folder: lines `NAME=PATH`, which `fencepost vm` reads.
pub(super) fn record(
    toolchain: &Toolchain,
    flavour: Flavour,
    kernel: &Path,
    module: &Path,
) -> Result<PathBuf, Findings> {
    let image = kernel.join("arch/x86/boot/bzImage");
    let mut text = format!("KERNEL={}\nMODULE={}\n", image.display(), module.display());
    for name in KERNEL_MODULES {
        let path = kernel.join(name);
        if fs::exists(&path).unwrap_or(false) {
            text += &format!("EXTRA={}\n", path.display());
        }
    }
    let folder = toolchain.cache.join("vm");
    make_folder(&folder)?;
    let record = folder.join(flavour.name());
    write(&record, &text)?;
    Ok(record)
}
