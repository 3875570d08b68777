//! Building a kernel: configuration, key, `make`.
//!
//! A build is complete when its folder has the file `complete`; an interrupted one goes on where it
//! stopped.

use std::path::{Path, PathBuf};

use super::KernelArgs;
use super::toolchain::{Toolchain, make_folder, read, run_logged, write};
use crate::Findings;

/// Options without a prompt can only be selected: the tree's own Kconfig and this are ours.
const HELPERS: &str = "
config FENCEPOST_HELPERS
\tbool \"Helpers without a prompt that fencepost.ko and its checks use\"
\tdepends on DRM && ZONE_DEVICE
\tselect DRM_EXEC
\tselect DRM_GPUVM
\tselect RUST_DRM_GPUVM
\tselect DRM_GPUSVM
\tselect DRM_SCHED
\tselect DRM_BUDDY
\tselect DRM_GEM_SHMEM_HELPER
\tselect RUST_DRM_GEM_SHMEM_HELPER
\tselect HMM_MIRROR
\tselect MMU_NOTIFIER
";

/// Builds the kernel unless it is there, and returns its build folder.
pub(super) fn kernel(
    root: &Path,
    toolchain: &Toolchain,
    args: &KernelArgs,
) -> Result<PathBuf, Findings> {
    let source = args.source.as_ref().unwrap_or(&toolchain.linux);
    let source = source.canonicalize().map_err(|e| vec![format!("{}: {e}", source.display())])?;
    let kconfig = read(&source.join("Kconfig"))? + HELPERS;
    let mut wanted = String::new();
    for fragment in args.flavour.fragments(root).iter().chain(&args.config) {
        wanted += &read(fragment)?;
    }
    let versions = toolchain.versions(args.flavour)?;
    let key = key(&[&source.display().to_string(), &kconfig, &wanted, &versions]);
    let folder = toolchain.cache.join("kernels").join(format!("{}-{key}", args.flavour.name()));
    let build = folder.join("build");
    if folder.join("complete").exists() {
        return Ok(build);
    }
    make_folder(&build)?;
    let (kconfig_file, wanted_file) = (folder.join("Kconfig"), folder.join("wanted.config"));
    write(&kconfig_file, &kconfig)?;
    write(&wanted_file, &wanted)?;
    let make = || {
        let mut make = toolchain.make(args.flavour);
        make.arg("-C").arg(&source);
        make.arg(format!("O={}", build.display()));
        make.arg(format!("KBUILD_KCONFIG={}", kconfig_file.display()));
        make
    };
    eprintln!("kernel: configuring the {} flavour of {}", args.flavour.name(), source.display());
    let mut configure = make();
    configure.env("KCONFIG_ALLCONFIG", &wanted_file).arg("allnoconfig");
    run_logged(&mut configure, &folder.join("configure.log"))?;
    check_configuration(&wanted, &read(&build.join(".config"))?)?;
    let log = folder.join("build.log");
    eprintln!("kernel: building (5 to 15 minutes on 2 CPUs); progress in {}", log.display());
    run_logged(make().arg(jobs(args)).args(["bzImage", "modules"]), &log)?;
    write(&folder.join("complete"), "")?;
    Ok(build)
}

/// The option that says how many compilers run at a time.
pub(super) fn jobs(args: &KernelArgs) -> String {
    let cpus = || std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    format!("-j{}", args.jobs.unwrap_or_else(cpus))
}

/// Every option asked for must have come through: Kconfig drops silently what depends on something
/// that is off or gone. Of an option given several times the last one counts.
fn check_configuration(wanted: &str, got: &str) -> Result<(), Findings> {
    let name = |line: &str| line.split('=').next().unwrap_or(line).to_owned();
    let mut last = std::collections::BTreeMap::new();
    for line in wanted.lines().filter(|line| line.starts_with("CONFIG_")) {
        last.insert(name(line), line);
    }
    let lost = |line: &str| match line.strip_suffix("=n") {
        Some(off) => got.lines().any(|l| name(l) == off),
        None => !got.lines().any(|l| l == line),
    };
    let findings: Findings = last
        .values()
        .filter(|line| lost(line))
        .map(|line| format!("this kernel source does not take {line}"))
        .collect();
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// A short name for the contents of a build: FNV-1a of all parts.
pub(super) fn key(parts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_any_part_and_by_where_parts_end() {
        let base = key(&["a", "b"]);
        assert_eq!(base, key(&["a", "b"]));
        for other in [&["a", "c"][..], &["ab"], &["ab", ""], &["a", "b", ""]] {
            assert_ne!(base, key(other), "{other:?}");
        }
    }

    #[test]
    fn a_lost_option_is_named() {
        let wanted = "# text\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=n\nCONFIG_C=y\nCONFIG_D=y\n";
        let got = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\n";
        let findings = check_configuration(wanted, got).unwrap_err();
        assert_eq!(findings, ["this kernel source does not take CONFIG_D=y"]);
        let findings = check_configuration("CONFIG_B=n\n", "CONFIG_B=m\n").unwrap_err();
        assert_eq!(findings, ["this kernel source does not take CONFIG_B=n"]);
    }
}
