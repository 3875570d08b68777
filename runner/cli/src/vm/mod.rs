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
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use fencepost_results::journal;

use crate::error::Error;
use crate::klog;
use crate::output::{program, quote};
use crate::stop::{Stop, block_signals, on_signals};
use end::{Evidence, judge};
use guest::{Module, Outside, Plan};

/// The device of the module in the guest.
const DEVICE: &str = "path:/dev/dri/renderD128";

/// The folder of the run in the guest.
const RUN: &str = "/results/run";
/// In the results folder: the record of what is replayed.
const REPLAYED: &str = "replayed";
/// In the results folder: files that the command names.
const BROUGHT: &str = "brought";
/// In the folder of a run: copies of users' scenarios.
const SCENARIOS: &str = "scenarios";

/// Some scenarios want another device beside the one under test, or a node of the dmirror
/// personality, which leaves the names of test_hmm's alone.
const PARAMETERS: &str = "devices=2,dmirror=1,dmirror_first=4";

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

impl Flavour {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Debug => "debug",
            Self::Kasan => "kasan",
        }
    }

    /// How much longer than on the bare machine a test may take. The largest are what lockdep and KASAN
    /// cost in a guest that QEMU translates.
    const fn slowness(self) -> &'static str {
        match self {
            Self::Plain => "2",
            Self::Debug => "5",
            Self::Kasan => "8",
        }
    }
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

    /// Your own built kernel (its build folder), for which fencepost.ko is built first; needs a
    /// source tree of fencepost around the current folder
    #[arg(long, value_name = "DIR", conflicts_with = "kernel")]
    kdir: Option<PathBuf>,

    /// Module to load, in this order, after fencepost.ko: `FILE` or `FILE:name=value,name=value`; of the
    /// kernel's own `test_hmm.ko` the name is enough
    #[arg(long, value_name = "FILE")]
    module: Vec<String>,

    /// Parameters of fencepost.ko: `name=value,name=value`
    #[arg(long, value_name = "LIST", default_value = PARAMETERS)]
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

    /// Longest time for the guest, however busy it is; then it is ended and counts as hanging
    #[arg(long, value_name = "TIME", value_parser = crate::args::parse_duration)]
    timeout: Option<Duration>,

    /// Longest time without output of the command or the kernel; then it counts as hanging
    #[arg(long, value_name = "TIME", value_parser = crate::args::parse_duration)]
    #[arg(default_value = "10m")]
    patience: Duration,

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
    /// Modules of the kernel's own that were built along.
    extra: Vec<PathBuf>,
}

/// The command.
pub(crate) fn command(args: &VmArgs) -> Result<Status, Error> {
    let signals = block_signals().map_err(Error::system("block signals"))?;
    let stop = Arc::new(Stop::new().map_err(Error::system("create an event descriptor"))?);
    on_signals(signals, Arc::clone(&stop)).map_err(Error::system("start a thread"))?;
    let parts = find_parts(args)?;
    let results = results_folder(args)?;
    let initramfs = results.join("initramfs.cpio");
    write_initramfs(args, &parts, &results, &initramfs)?;
    let machine = qemu::Machine {
        kernel: &parts.kernel,
        initramfs: &initramfs,
        results: &results,
        memory_mib: args.memory,
        cpus: args.cpus,
        append: &args.append,
        interactive: args.shell,
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
    let limits =
        qemu::Limits { whole: args.timeout, silent: (!args.shell).then_some(args.patience) };
    let waited = qemu::wait(&mut child, &results.join(qemu::CONSOLE), limits, &stop)
        .map_err(Error::system("wait for the machine"))?;
    // It can be made again and is large.
    let _ = fs::remove_file(&initramfs);
    let end = match waited {
        qemu::Waited::Stopped => end::End::Stopped,
        other => judge(&evidence(&results, other == qemu::Waited::TimedOut)),
    };
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
        Some(kernel) => Parts { kernel: kernel.clone(), modules: Vec::new(), extra: Vec::new() },
        None => recorded_parts(args)?,
    };
    for module in &args.module {
        let (file, parameters) = module.split_once(':').unwrap_or((module, ""));
        let file = of_kernel(&parts.extra, file).unwrap_or_else(|| file.into());
        parts.modules.push((file, parameters.replace(',', " ")));
    }
    Ok(parts)
}

/// A module of the kernel's own that is named without a folder, such as `test_hmm.ko`.
fn of_kernel(extra: &[PathBuf], name: &str) -> Option<PathBuf> {
    let is_bare = !name.contains('/') && !Path::new(name).exists();
    extra.iter().find(|file| is_bare && file.ends_with(name)).cloned()
}

fn recorded_parts(args: &VmArgs) -> Result<Parts, Error> {
    let flavour = args.flavour.name();
    if let Some(tree) = source_tree() {
        let mut build = Command::new("cargo");
        build.args(["xtask", "kmod"]).current_dir(tree).stdout(Stdio::null());
        match &args.kdir {
            Some(own) => {
                let doing = format!("find the kernel {}", own.display());
                build.arg("--kdir").arg(own.canonicalize().map_err(Error::system(doing))?)
            }
            None => build.args(["--flavour", flavour]),
        };
        let status = build.status().map_err(Error::system("run cargo xtask kmod"))?;
        if !status.success() {
            let what = "there is no module to boot, see above";
            return Err(Error::Usage(format!("{what} (cargo xtask kmod: {status})")));
        }
    } else if args.kdir.is_some() {
        let what = "--kdir builds fencepost.ko, which needs a source tree of fencepost around the";
        return Err(Error::Usage(format!("{what} current folder")));
    }
    let record = cache_folder()?.join("vm").join(if args.kdir.is_some() { "own" } else { flavour });
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
    let extra: Vec<PathBuf> = extra.collect();
    let vgem = extra.iter().filter(|file| file.ends_with("vgem.ko"));
    modules.extend(vgem.map(|file| (file.clone(), String::new())));
    Ok(Parts { kernel, modules, extra })
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
fn guest_command(args: &VmArgs, results: &Path) -> Result<Vec<String>, Error> {
    if args.shell {
        return Ok(["/bin/sh", "-l"].map(str::to_owned).to_vec());
    }
    let mut command = vec!["/init".to_owned()];
    command.extend(args.command.iter().cloned());
    let own: &[(&str, &str)] = match args.command.first().map(String::as_str) {
        Some("run") => &[("--device", DEVICE), ("--results", RUN), ("--slow", "")],
        Some("replay") => &[("--results", RUN), ("--slow", "")],
        _ => &[],
    };
    if args.command.first().is_some_and(|word| word == "replay") {
        bring_record(&mut command, results)?;
    } else {
        bring_files(&mut command, results)?;
    }
    for (name, value) in own {
        let given = |word: &String| word == name || word.starts_with(&format!("{name}="));
        if !args.command.iter().any(given) {
            let value = if *name == "--slow" { args.flavour.slowness() } else { value };
            command.extend([(*name).to_owned(), value.to_owned()]);
        }
    }
    Ok(command)
}

/// Copies files that the command names, scenarios and the like, to where the guest sees them. The
/// folder keeps its name, which is a part of the names of tests.
fn bring_files(command: &mut [String], results: &Path) -> Result<(), Error> {
    for word in command.iter_mut().skip(2) {
        let file = Path::new(word.as_str());
        if !file.is_file() {
            continue;
        }
        let doing = format!("copy {word} into the guest");
        let whole = file.canonicalize().map_err(Error::system(doing.as_str()))?;
        let folder = whole.parent().and_then(Path::file_name).unwrap_or_default();
        let place = Path::new(BROUGHT).join(folder).join(whole.file_name().unwrap_or_default());
        let copy = results.join(&place);
        fs::create_dir_all(copy.parent().unwrap_or(results))
            .and_then(|()| fs::copy(&whole, &copy))
            .map_err(Error::system(doing))?;
        *word = Path::new(guest::RESULTS).join(place).display().to_string();
    }
    Ok(())
}

/// Copies the record of what is to be replayed to where the guest sees it, and names it so.
fn bring_record(command: &mut [String], results: &Path) -> Result<(), Error> {
    let Some((word, (folder, test))) = command.iter_mut().skip(2).find_map(|word| {
        let found = crate::replay::split(word).ok()?;
        Some((word, found))
    }) else {
        let what = "replay what? Name the folder of a run, or DIR@TEST for a test of one";
        return Err(Error::Usage(what.to_owned()));
    };
    let copy = results.join(REPLAYED);
    let doing = format!("copy {} to {}", folder.display(), copy.display());
    copy_record(&folder, &copy).map_err(Error::system(doing))?;
    *word = format!("{}/{REPLAYED}", guest::RESULTS);
    if let Some(test) = test {
        word.push_str(&format!("@{test}"));
    }
    Ok(())
}

/// Copies a run's journal and the scenarios that it kept.
fn copy_record(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to.join(SCENARIOS))?;
    fs::copy(from.join(journal::FILE_NAME), to.join(journal::FILE_NAME))?;
    if from.join(SCENARIOS).is_dir() {
        for entry in fs::read_dir(from.join(SCENARIOS))? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(SCENARIOS).join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The command that boots the same machine, to be continued with what is to run.
fn same_machine(args: &VmArgs) -> String {
    let mut words = vec![program(), "vm".to_owned()];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), quote(&value)]);
    if args.flavour != Flavour::Plain {
        option("--flavour", args.flavour.name().to_owned());
    }
    for (name, path) in [("--kdir", &args.kdir), ("--kernel", &args.kernel)] {
        if let Some(path) = path {
            option(name, path.display().to_string());
        }
    }
    args.module.iter().for_each(|module| option("--module", module.clone()));
    for (name, value, default) in
        [("--parameters", &args.parameters, PARAMETERS), ("--append", &args.append, "")]
    {
        if value != default {
            option(name, value.clone());
        }
    }
    words.join(" ")
}

fn write_initramfs(args: &VmArgs, parts: &Parts, results: &Path, to: &Path) -> Result<(), Error> {
    let files: Vec<PathBuf> = parts.modules.iter().map(|(file, _)| file.clone()).collect();
    let module = |(file, parameters): &(PathBuf, String)| Module {
        file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        parameters: parameters.clone(),
    };
    let plan = Plan {
        modules: parts.modules.iter().map(module).collect(),
        command: guest_command(args, results)?,
        outside: Outside { command: same_machine(args), results: results.display().to_string() },
        terminal: args.shell || std::io::stdout().is_terminal(),
    };
    let plan = serde_json::to_vec(&plan).expect("plain data");
    let busybox = Path::new("/bin/busybox");
    let shell = if args.shell {
        let help = "there is no /bin/busybox for the shell; apt-get install busybox-static";
        Some(fs::read(busybox).map_err(|_| Error::Usage(help.to_owned()))?)
    } else {
        None
    };
    let archive = initramfs::with_program(&files, &plan, shell.as_deref())
        .map_err(Error::system("make the guest's first file system"))?;
    fs::write(to, archive).map_err(Error::system(format!("write {}", to.display())))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        vm: VmArgs,
    }

    fn parse(words: &[&str]) -> VmArgs {
        Line::try_parse_from([&["vm"], words].concat()).unwrap_or_else(|e| panic!("{e}")).vm
    }

    #[test]
    fn a_run_in_the_guest_gets_device_folder_and_patience() {
        let scratch = tempfile::tempdir().unwrap();
        let table: &[(&[&str], &str)] = &[
            (
                &["run", "vm-bind"],
                "/init run vm-bind --device path:/dev/dri/renderD128 --results /results/run --slow 2",
            ),
            (
                &["--flavour", "kasan", "run", "--device=ref", "--slow", "3"],
                "/init run --device=ref --slow 3 --results /results/run",
            ),
            (&["list"], "/init list"),
            (&["--shell"], "/bin/sh -l"),
        ];
        for (words, expected) in table {
            let command = guest_command(&parse(words), scratch.path()).unwrap();
            assert_eq!(command.join(" "), *expected);
        }
    }

    #[test]
    fn files_and_records_are_brought_in() {
        let (here, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = here.path().join("own");
        fs::create_dir_all(own.join(SCENARIOS)).unwrap();
        fs::write(own.join("mine.yaml"), "text").unwrap();
        fs::write(own.join(journal::FILE_NAME), "").unwrap();
        fs::write(own.join(SCENARIOS).join("x"), "kept").unwrap();
        let command = |words: &[&str]| guest_command(&parse(words), results.path());
        let file = own.join("mine.yaml").display().to_string();
        let run = command(&["run", &file]).unwrap();
        assert_eq!(run[2], "/results/brought/own/mine.yaml");
        assert_eq!(fs::read(results.path().join("brought/own/mine.yaml")).unwrap(), b"text");
        let test = format!("{}@own@mine", own.display());
        let replay = command(&["replay", "--verbose", &test]).unwrap();
        assert_eq!(replay[3], "/results/replayed@own@mine");
        assert_eq!(fs::read(results.path().join("replayed/scenarios/x")).unwrap(), b"kept");
        assert!(matches!(command(&["replay", "nowhere@x"]), Err(Error::Usage(_))));
    }

    #[test]
    fn the_same_machine_is_said_as_it_was_asked_for() {
        let words = ["--flavour", "debug", "--module", "a b.ko", "--append", "quiet", "run"];
        let line = same_machine(&parse(&words));
        assert!(line.ends_with(" vm --flavour debug --module 'a b.ko' --append quiet"), "{line}");
    }
}
