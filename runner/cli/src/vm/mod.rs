//! `fencepost vm`: boots a kernel with the driver's module and runs a fencepost command inside.
//!
//! Owns the order: find kernel and modules, make the first file system, boot, wait, judge. The
//! guest is this very program ([`guest`]); nothing of a distribution is in it.

mod end;
pub(crate) mod guest;
mod initramfs;
pub(crate) mod qemu;

use std::fs;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode as Status, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::Error;
use crate::klog;
use end::{Evidence, judge};
use guest::{Module, Plan};

/// The device of the module in the guest.
const DEVICE: &str = "path:/dev/dri/renderD128";

/// Which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flavour {
    /// What the suites need, nothing else.
    Plain,
    /// With lockdep, kmemleak, object debugging.
    Debug,
    /// Debug with KASAN and UBSAN.
    Kasan,
}

/// Who executes the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accel {
    /// KVM where a guest comes up with it, else TCG.
    Auto,
    /// The processor.
    Kvm,
    /// QEMU's translator: works everywhere, slower.
    Tcg,
}

/// `fencepost vm`
#[derive(Debug, Args)]
pub struct VmArgs {
    /// Kernel of `cargo xtask kmod` to boot; in a source tree it is built if needed
    #[arg(long, value_enum, default_value = "plain")]
    flavour: Flavour,

    /// Kernel image to boot instead; then --module says what to load
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// Module to load, in this order, after fencepost.ko: `FILE` or `FILE:name=value,name=value`
    #[arg(long, value_name = "FILE")]
    module: Vec<String>,

    /// Parameters of fencepost.ko: `name=value,name=value`
    #[arg(long, value_name = "LIST", default_value = "")]
    parameters: String,

    /// Folder that the guest shares as /results; default: a new one below results/vm/
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,

    /// Who executes the guest's instructions
    #[arg(long, value_enum, default_value = "auto")]
    accel: Accel,

    /// Memory of the guest in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,

    /// Processors of the guest
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,

    /// Longest time for the guest; then it is ended and counts as hanging
    #[arg(long, value_name = "TIME", value_parser = crate::args::parse_duration)]
    timeout: Option<Duration>,

    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,

    /// An interactive shell instead of a command (needs a static /bin/busybox on this machine)
    #[arg(long)]
    shell: bool,

    /// The fencepost command to run in the guest, e.g. `run --tier smoke`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    #[arg(required_unless_present = "shell")]
    command: Vec<String>,
}

/// What to boot.
#[derive(Debug)]
struct Parts {
    kernel: PathBuf,
    /// Module files with their parameters.
    modules: Vec<(PathBuf, String)>,
}

/// The command.
pub(crate) fn command(args: &VmArgs) -> Result<Status, Error> {
    let parts = find_parts(args)?;
    let results = results_folder(args)?;
    let initramfs = results.join("initramfs.cpio");
    write_initramfs(args, &parts, &initramfs)?;
    let machine = qemu::Machine {
        kernel: &parts.kernel,
        initramfs: &initramfs,
        results: &results,
        memory_mib: args.memory,
        cpus: args.cpus,
        append: &args.append,
    };
    let wanted = match args.accel {
        Accel::Auto => None,
        Accel::Kvm => Some(qemu::Accelerator::Kvm),
        Accel::Tcg => Some(qemu::Accelerator::Tcg),
    };
    let stdin = || if args.shell { Stdio::inherit() } else { Stdio::null() };
    let memory = qemu::KvmMemory::new(&cache_folder()?);
    let (mut child, _) =
        machine.boot(wanted, &memory, stdin).map_err(Error::system("start the virtual machine"))?;
    let in_time =
        qemu::wait(&mut child, args.timeout).map_err(Error::system("wait for the machine"))?;
    // It can be made again and is large.
    let _ = fs::remove_file(&initramfs);
    let end = judge(&evidence(&results, !in_time));
    tell(&end, &machine, &results);
    Ok(Status::from(end.exit_code()))
}

/// Collects what the guest left.
fn evidence(results: &Path, timed_out: bool) -> Evidence {
    let status = fs::read_to_string(results.join(guest::STATUS))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok());
    let log = fs::read(results.join(qemu::CONSOLE)).unwrap_or_default();
    let reports = klog::scan(&String::from_utf8_lossy(&log));
    Evidence { status, reports, timed_out }
}

/// Says how it ended, and records it.
fn tell(end: &end::End, machine: &qemu::Machine<'_>, results: &Path) {
    let record = format!("{} {}\n", end.verdict(), end.exit_code());
    // The caller has the exit code; the record is for those who come later.
    let _ = fs::write(results.join("guest-end"), record);
    let Some(headline) = end.headline() else { return };
    let mut err = stderr().lock();
    let _ = writeln!(err, "vm: {headline}");
    match end {
        end::End::Kernel(report) => {
            let _ = writeln!(err, "{}", report.excerpt);
        }
        end::End::Lost => {
            let _ = write!(err, "{}", machine.messages());
        }
        _ => {}
    }
    let _ = writeln!(err, "vm: the kernel's log: {}", results.join(qemu::CONSOLE).display());
}

/// `$FENCEPOST_CACHE`, else `$XDG_CACHE_HOME/fencepost`, else `~/.cache/fencepost`.
fn cache_folder() -> Result<PathBuf, Error> {
    let of = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    of("FENCEPOST_CACHE")
        .or_else(|| of("XDG_CACHE_HOME").map(|dir| dir.join("fencepost")))
        .or_else(|| of("HOME").map(|dir| dir.join(".cache/fencepost")))
        .ok_or_else(|| Error::Usage("neither FENCEPOST_CACHE nor HOME is set".to_owned()))
}

/// The source tree around the current folder.
fn source_tree() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let is_tree = |dir: &&Path| dir.join("reference-driver/linux/setup.sh").exists();
    here.ancestors().find(is_tree).map(Path::to_owned)
}

/// Kernel and modules: those named, or those of the flavour, built first in a source tree.
fn find_parts(args: &VmArgs) -> Result<Parts, Error> {
    let mut parts = match &args.kernel {
        Some(kernel) => Parts { kernel: kernel.clone(), modules: Vec::new() },
        None => recorded_parts(args)?,
    };
    for module in &args.module {
        let (file, parameters) = module.split_once(':').unwrap_or((module, ""));
        parts.modules.push((file.into(), parameters.replace(',', " ")));
    }
    Ok(parts)
}

fn recorded_parts(args: &VmArgs) -> Result<Parts, Error> {
    let flavour = match args.flavour {
        Flavour::Plain => "plain",
        Flavour::Debug => "debug",
        Flavour::Kasan => "kasan",
    };
    if let Some(tree) = source_tree() {
        let mut build = Command::new("cargo");
        build.args(["xtask", "kmod", "--flavour", flavour]).current_dir(tree);
        build.stdout(Stdio::null());
        let status = build.status().map_err(Error::system("run cargo xtask kmod"))?;
        if !status.success() {
            return Err(Error::Usage(format!("cargo xtask kmod --flavour {flavour}: {status}")));
        }
    }
    let record = cache_folder()?.join("vm").join(flavour);
    let text = fs::read_to_string(&record).map_err(|_| {
        let what = "there is no kernel of this flavour";
        let how = "run `cargo xtask kmod` in a source tree, or give --kernel and --module";
        Error::Usage(format!("{what} ({}); {how}", record.display()))
    })?;
    let value = |name: &str| {
        text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).map(PathBuf::from)
    };
    let (Some(kernel), Some(module)) = (value("KERNEL"), value("MODULE")) else {
        return Err(Error::Usage(format!("{} is not a record of a kernel", record.display())));
    };
    let mut modules = vec![(module, args.parameters.replace(',', " "))];
    // Shares objects with the device under test; other extra modules are loaded by --module.
    let extra = text.lines().filter_map(|line| line.strip_prefix("EXTRA=")).map(PathBuf::from);
    modules
        .extend(extra.filter(|file| file.ends_with("vgem.ko")).map(|file| (file, String::new())));
    Ok(Parts { kernel, modules })
}

/// The folder for results, new unless named.
fn results_folder(args: &VmArgs) -> Result<PathBuf, Error> {
    let folder = args.results.clone().unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let name = format!("{}-{}", now.map_or(0, |d| d.as_secs()), std::process::id());
        Path::new("results/vm").join(name)
    });
    let doing = format!("make the folder {}", folder.display());
    fs::create_dir_all(&folder).map_err(Error::system(doing.clone()))?;
    folder.canonicalize().map_err(Error::system(doing))
}

/// The command in the guest: device and results folder of a run are known.
fn guest_command(args: &VmArgs) -> Vec<String> {
    if args.shell {
        return ["/bin/sh", "-l"].map(str::to_owned).to_vec();
    }
    let mut command = vec!["/init".to_owned()];
    command.extend(args.command.iter().cloned());
    let given =
        |name: &str| args.command.iter().any(|w| w == name || w.starts_with(&format!("{name}=")));
    if args.command.first().is_some_and(|word| word == "run") {
        for (name, value) in [("--device", DEVICE), ("--results", "/results/run")] {
            if !given(name) {
                command.extend([name.to_owned(), value.to_owned()]);
            }
        }
    }
    command
}

fn write_initramfs(args: &VmArgs, parts: &Parts, to: &Path) -> Result<(), Error> {
    let files: Vec<PathBuf> = parts.modules.iter().map(|(file, _)| file.clone()).collect();
    let module = |(file, parameters): &(PathBuf, String)| Module {
        file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        parameters: parameters.clone(),
    };
    let plan = Plan {
        modules: parts.modules.iter().map(module).collect(),
        command: guest_command(args),
        terminal: args.shell || std::io::stdout().is_terminal(),
    };
    let plan = serde_json::to_vec(&plan).expect("plain data");
    let busybox = Path::new("/bin/busybox");
    let shell = if args.shell {
        Some(fs::read(busybox).map_err(Error::system("read /bin/busybox (busybox-static)"))?)
    } else {
        None
    };
    let archive = initramfs::with_program(&files, &plan, shell.as_deref())
        .map_err(Error::system("make the guest's first file system"))?;
    fs::write(to, archive).map_err(Error::system(format!("write {}", to.display())))
}
