//! `cargo xtask hmm-tests`: the kernel's own hmm-tests, unmodified, in a guest of `fencepost vm`, on
//! test_hmm or on fencepost.ko.
//!
//! Owns building the program (statically, from the kernel's source) and counting what it reports. The
//! nodes that it opens are the drivers' business.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};

use super::flavour::Flavour;
use super::toolchain::{make_folder, run_logged, write};
use super::{KernelArgs, Toolchain, build, module};
use crate::Findings;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// The kernel's own.
    TestHmm,
    /// fencepost.ko with `dmirror=2`.
    Fencepost,
}

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct HmmArgs {
    #[command(flatten)]
    kernel: KernelArgs,

    /// Whom to test
    #[arg(long, value_enum, value_delimiter = ',', default_value = "test-hmm,fencepost")]
    driver: Vec<Driver>,

    /// Only build the program, and say where it is
    #[arg(long)]
    build_only: bool,

    /// Instead of the tests, time the same work on both drivers in one guest, so many rounds
    #[arg(long, value_name = "ROUNDS", conflicts_with = "build_only")]
    bench: Option<u32>,

    /// Arguments of hmm-tests, such as `-t migrate`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// A test of thirty seconds, whose limit the checking flavours exceed.
const BENCHMARK: &str = "benchmark_thp_migration";

/// Tests for private device memory; the others need coherent memory, which is no part of a guest.
const PRIVATE: u32 = 38;

/// Builds, boots once for each driver, and fails when a test does or when one is missing.
pub(crate) fn task(root: &Path, args: &HmmArgs) -> Result<String, Findings> {
    let flavour = args.kernel.flavour;
    let toolchain = Toolchain::prepare(root, flavour)?;
    if let Some(rounds) = args.bench {
        return bench(root, &toolchain, args, rounds);
    }
    let program = build_program(&toolchain)?;
    if args.build_only {
        return Ok(program.display().to_string());
    }
    let kernel = build::kernel(root, &toolchain, &args.kernel)?;
    let mut seen = Vec::new();
    for driver in &args.driver {
        let under_test = match driver {
            Driver::TestHmm => kernel.join("lib/test_hmm.ko").display().to_string(),
            Driver::Fencepost => {
                let built = module::build(root, &toolchain, &args.kernel, &kernel, &[])?;
                format!("{}:dmirror=2", built.display())
            }
        };
        let mut vm = guest(root, &kernel);
        vm.args(["--module", &under_test]);
        vm.args(["exec", "--native", "--"]).arg(&program).args(&args.arguments);
        if flavour != Flavour::Plain && args.arguments.is_empty() {
            vm.args(["-T", BENCHMARK]);
        }
        let totals = run(vm)?;
        let wanted = match flavour {
            _ if !args.arguments.is_empty() => totals.pass.max(1),
            Flavour::Plain => PRIVATE,
            Flavour::Debug | Flavour::Kasan => PRIVATE - 1,
        };
        let line = format!("{driver:?}: {} passed, {} failed", totals.pass, totals.fail);
        if totals.fail > 0 || totals.pass != wanted {
            return Err(vec![format!("{line}; {wanted} should pass")]);
        }
        seen.push(line);
    }
    Ok(seen.join("\n"))
}

/// `fencepost vm` with a kernel; modules and command are to be added.
fn guest(root: &Path, kernel: &Path) -> Command {
    let mut vm = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    vm.current_dir(root).args(["run", "--quiet", "--package", "fencepost", "--", "vm"]);
    vm.arg("--kernel").arg(kernel.join("arch/x86/boot/bzImage")).args(["--memory", "2048"]);
    vm
}

/// Times both drivers in one guest. The figures are printed, for a person to judge: a loaded machine gives
/// others.
fn bench(
    root: &Path,
    toolchain: &Toolchain,
    args: &HmmArgs,
    rounds: u32,
) -> Result<String, Findings> {
    let folder = toolchain.cache.join("hmm-tests");
    make_folder(&folder)?;
    let program = folder.join("hmm-bench");
    let mut compile = Command::new("gcc");
    compile.args(["-static", "-O2", "-Wall", "-o"]).arg(&program);
    compile.arg(root.join("reference-driver/linux/hmm-bench/hmm-bench.c"));
    run_logged(&mut compile, &folder.join("bench.log"))?;
    let kernel = build::kernel(root, toolchain, &args.kernel)?;
    let ours = module::build(root, toolchain, &args.kernel, &kernel, &[])?;
    let mut vm = guest(root, &kernel);
    vm.arg("--module").arg(kernel.join("lib/test_hmm.ko"));
    vm.arg("--module").arg(format!("{}:dmirror=2,dmirror_first=4", ours.display()));
    vm.args(["exec", "--native", "--"]).arg(&program);
    vm.args(["/dev/hmm_dmirror0", "/dev/hmm_dmirror4", &rounds.to_string()]);
    let status = vm.stdin(Stdio::null()).status();
    match status.map_err(|e| vec![format!("cannot run cargo: {e}")])? {
        status if status.success() => Ok(format!("{rounds} rounds; test_hmm's p99 is the first")),
        status => Err(vec![format!("hmm-bench: fencepost vm: {status}")]),
    }
}

/// What the program counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    pass: u32,
    fail: u32,
}

/// Runs a guest, passing on what it writes, and gives the program's own count.
fn run(mut vm: Command) -> Result<Totals, Findings> {
    let failed = |e| vec![format!("cannot run cargo: {e}")];
    let mut child = vm.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut totals = None;
    let output = child.stdout.take().expect("asked for");
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        eprintln!("{line}");
        totals = parse(&line).or(totals);
    }
    let status = child.wait().map_err(failed)?;
    match (totals, status.code()) {
        // 1: tests failed, which the totals say better.
        (Some(totals), Some(0 | 1)) => Ok(totals),
        (Some(_), _) => Err(vec![format!("hmm-tests: fencepost vm: {status}")]),
        (None, _) => Err(vec![format!("hmm-tests ended without its totals ({status})")]),
    }
}

/// `# Totals: pass:38 fail:0 xfail:0 xpass:0 skip:38 error:0`
fn parse(line: &str) -> Option<Totals> {
    let mut totals = Totals::default();
    for word in line.trim().strip_prefix("# Totals:")?.split_whitespace() {
        let (name, number) = word.split_once(':')?;
        let number: u32 = number.parse().ok()?;
        match name {
            "pass" => totals.pass = number,
            "fail" | "error" => totals.fail += number,
            _ => {}
        }
    }
    Some(totals)
}

/// The `snapshot` test lets the driver write a page into seven bytes of malloc's; whether the program
/// survives that depends on the C library. With this there is room, and the source stays as it is.
const WIDE_MALLOC: &str = "
#include <stddef.h>
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size) { return __real_malloc(size + 4096); }
";

/// Builds the program unless it is there.
fn build_program(toolchain: &Toolchain) -> Result<PathBuf, Findings> {
    let source = &toolchain.linux;
    let name = source.file_name().unwrap_or_default();
    let folder = toolchain.cache.join("hmm-tests").join(name);
    let program = folder.join("hmm-tests");
    if program.exists() {
        return Ok(program);
    }
    let (out, headers) = (folder.join("out"), folder.join("usr"));
    make_folder(&out)?;
    let mut install = toolchain.make(Flavour::Plain);
    install.arg("-C").arg(source).arg(format!("O={}", out.display()));
    install.arg("headers_install").arg(format!("INSTALL_HDR_PATH={}", headers.display()));
    run_logged(&mut install, &folder.join("headers.log"))?;
    let wide_malloc = folder.join("wide_malloc.c");
    write(&wide_malloc, WIDE_MALLOC)?;
    let selftests = source.join("tools/testing/selftests");
    let new = folder.join("hmm-tests.new");
    let mut compile = Command::new("gcc");
    compile.args(["-static", "-O2", "-D_GNU_SOURCE=", "-I"]).arg(source);
    compile.arg("-I").arg(&selftests).arg("-isystem").arg(headers.join("include"));
    for file in ["hmm-tests.c", "vm_util.c", "hugepage_settings.c"] {
        compile.arg(selftests.join("mm").join(file));
    }
    compile.arg("-Wl,--wrap=malloc").arg(&wide_malloc);
    compile.arg("-o").arg(&new).arg("-lpthread");
    run_logged(&mut compile, &folder.join("build.log"))?;
    let done = fs::rename(&new, &program);
    done.map_err(|e| vec![format!("{}: {e}", program.display())])?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read_and_other_lines_are_not() {
        let line = "# Totals: pass:37 fail:1 xfail:0 xpass:0 skip:38 error:2";
        assert_eq!(parse(line), Some(Totals { pass: 37, fail: 3 }));
        for other in ["", "# Totals", "ok 1 # Totals: pass:1", "# Totals: pass:x fail:0"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
