//! The guest's side: this program as the first process of the machine.
//!
//! Owns the life of a guest: mounts, modules, the program asked for, the way down. Talks to the
//! host by files in the shared results folder; the program's own output goes to the second serial
//! line, the kernel's log to the first. Nothing here returns to a caller: a guest ends by power-off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use fencepost_fixtures::sys::swap::swap_on;
use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};
use serde::{Deserialize, Serialize};

/// Where the plan stands in the guest's first file system.
pub(super) const PLAN: &str = "plan.json";
/// Where the results folder is mounted.
pub(crate) const RESULTS: &str = "/results";
/// In the results folder: written when the guest is up.
pub(super) const READY: &str = "guest-ready";
/// In the results folder: how it ended, see [`Status`].
pub(super) const STATUS: &str = "guest-status.json";

/// A module to load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Module {
    /// File name in `/modules`.
    pub(super) file: String,
    /// Its parameters, `name=value`, separated by spaces.
    pub(super) parameters: String,
}

/// What a guest is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// Modules in order of loading.
    pub(super) modules: Vec<Module>,
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    /// Whether a person watches; else the program writes into a pipe and makes no colours.
    pub(super) terminal: bool,
    /// What the user outside is to be told.
    pub(super) outside: Outside,
}

/// The world outside of the guest, as the user knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Outside {
    /// The command that boots the same machine.
    pub(super) command: String,
    /// What is mounted at [`RESULTS`].
    pub(super) results: String,
}

/// How a guest ended by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Status {
    /// The program's exit code.
    pub(super) code: Option<i32>,
    /// The signal that killed it.
    pub(super) signal: Option<i32>,
    /// What could not be done, in words.
    pub(super) trouble: Option<String>,
    /// `/proc/sys/kernel/tainted`, see the kernel's tainted-kernels document.
    pub(super) tainted: u64,
}

/// Whether this process is the first one of a guest of ours.
pub(crate) fn is_guest() -> bool {
    std::process::id() == 1 && Path::new("/").join(PLAN).exists()
}

/// The guest's life.
pub(crate) fn main() -> ! {
    let mut status = Status::default();
    match serve() {
        Ok(ended) => {
            status.code = ended.code();
            status.signal = ended.signal();
        }
        Err(error) => status.trouble = Some(error.to_string()),
    }
    status.tainted = crate::kernel::taint();
    let text = serde_json::to_string(&status).expect("plain data");
    // Without the folder the host sees from the missing file that something is wrong.
    let _ = fs::write(Path::new(RESULTS).join(STATUS), text);
    nix::unistd::sync();
    let error = reboot(RebootMode::RB_POWER_OFF).expect_err("a powered-off machine runs nothing");
    panic!("power-off: {error}");
}

/// An error with what was being done.
fn doing<E: Into<io::Error>>(what: String) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let error = error.into();
        io::Error::new(error.kind(), format!("{what}: {error}"))
    }
}

fn serve() -> io::Result<ExitStatus> {
    mounts()?;
    swap().map_err(doing("cannot swap to zram".to_owned()))?;
    merging()?;
    if Path::new(HUGE_PAGES).exists() {
        // As many as there is room for; tests that want one skip without.
        fs::write(HUGE_PAGES, "8")?;
    }
    fs::write(Path::new(RESULTS).join(READY), fs::read_to_string("/proc/uptime")?)?;
    let plan: Plan = serde_json::from_str(&fs::read_to_string(Path::new("/").join(PLAN))?)?;
    for module in &plan.modules {
        load(module).map_err(doing(format!("cannot load {}", module.file)))?;
    }
    let ended = run(&plan).map_err(doing(format!("cannot run {:?}", plan.command)))?;
    for module in plan.modules.iter().rev() {
        unload(module).map_err(doing(format!("cannot unload {}", module.file)))?;
    }
    leak_check()?;
    Ok(ended)
}

fn mounts() -> io::Result<()> {
    let options = "trans=virtio,version=9p2000.L,msize=262144";
    let table = [
        ("proc", "/proc", "proc", ""),
        ("sysfs", "/sys", "sysfs", ""),
        ("devtmpfs", "/dev", "devtmpfs", ""),
        ("tmpfs", "/tmp", "tmpfs", ""),
        ("debugfs", "/sys/kernel/debug", "debugfs", ""),
        ("results", RESULTS, "9p", options),
    ];
    for (source, target, kind, data) in table {
        mount(Some(source), target, Some(kind), MsFlags::empty(), Some(data))
            .map_err(doing(format!("cannot mount {target}")))?;
    }
    // Programs expect shared memory; a kernel without the folder in devtmpfs still has tmpfs.
    fs::create_dir_all("/dev/shm")?;
    let groups = Path::new("/sys/fs/cgroup");
    if groups.is_dir() {
        // A kernel without control groups is one of those that users bring.
        let _ = mount(Some("cgroup2"), groups, Some("cgroup2"), MsFlags::empty(), None::<&str>);
    }
    mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}

/// Number of huge pages that hugetlbfs has.
const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

/// Bytes of a page, and of a header of swap.
const PAGE: u64 = 4096;

/// Has the kernel merge pages that programs offer for it, so often that a test can wait for it.
fn merging() -> io::Result<()> {
    let folder = Path::new("/sys/kernel/mm/ksm");
    if folder.is_dir() {
        fs::write(folder.join("pages_to_scan"), "1000")?;
        fs::write(folder.join("run"), "1")?;
    }
    Ok(())
}

/// Makes compressed memory the swap device of the guest, where the kernel has it.
fn swap() -> io::Result<()> {
    let size = Path::new("/sys/block/zram0/disksize");
    if !size.exists() {
        return Ok(());
    }
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split(' ').rev().nth(1));
    let kib: u64 = kib.and_then(|kib| kib.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let pages = kib * 1024 / 2 / PAGE;
    fs::write(size, (pages * PAGE).to_string())?;
    let device = Path::new("/dev/zram0");
    OpenOptions::new().write(true).open(device)?.write_all(&swap_header(pages))?;
    Ok(swap_on(device)?)
}

/// `union swap_header`: version and last page in the middle, magic at the end.
fn swap_header(pages: u64) -> Vec<u8> {
    let mut header = vec![0; PAGE as usize];
    let last = u32::try_from(pages - 1).unwrap_or(u32::MAX);
    header[1024..1028].copy_from_slice(&1_u32.to_ne_bytes());
    header[1028..1032].copy_from_slice(&last.to_ne_bytes());
    let magic = b"SWAPSPACE2";
    let end = header.len();
    header[end - magic.len()..].copy_from_slice(magic);
    header
}

fn load(module: &Module) -> io::Result<()> {
    let file = File::open(Path::new("/modules").join(&module.file))?;
    let parameters = std::ffi::CString::new(module.parameters.as_str())?;
    Ok(finit_module(&file, &parameters, ModuleInitFlags::empty())?)
}

fn unload(module: &Module) -> io::Result<()> {
    let name = module.file.trim_end_matches(".ko").replace('-', "_");
    let name = std::ffi::CString::new(name)?;
    Ok(delete_module(&name, DeleteModuleFlags::O_NONBLOCK)?)
}

/// Runs the program on the second serial line until it ends. Orphans of the program become
/// children of this process; they are left to the power-off.
fn run(plan: &Plan) -> io::Result<ExitStatus> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/ttyS1")?;
    let (program, arguments) =
        plan.command.split_first().ok_or_else(|| io::Error::other("no program"))?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/tmp").env("HOME", "/tmp").env("PATH", "/bin");
    if let Some(module) = plan.modules.first() {
        // The module under test, for tests that load it again.
        let Module { file, parameters } = module;
        let text = format!("/modules/{file}:{}", parameters.replace(' ', ","));
        command.env("FENCEPOST_MODULE", text);
    }
    command.env(crate::output::OUTSIDE_COMMAND, &plan.outside.command);
    command.env(crate::output::OUTSIDE_RESULTS, &plan.outside.results);
    if plan.terminal {
        command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?).stderr(terminal);
        return command.status();
    }
    let mut settings = tcgetattr(&terminal)?;
    cfmakeraw(&mut settings);
    tcsetattr(&terminal, SetArg::TCSANOW, &settings)?;
    let (mut output, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // The command holds our copies of the pipe, whose end would never come.
    drop(command);
    io::copy(&mut output, &mut &terminal)?;
    tcdrain(&terminal)?;
    child.wait()
}

/// kmemleak looks only at objects that are older than this.
const KMEMLEAK_AGE: Duration = Duration::from_secs(6);

/// Lets kmemleak look for lost memory, where the kernel has it; what it finds it logs itself.
fn leak_check() -> io::Result<()> {
    let file = Path::new("/sys/kernel/debug/kmemleak");
    if !file.exists() {
        return Ok(());
    }
    std::thread::sleep(KMEMLEAK_AGE);
    // An object is reported when two scans in a row found no reference.
    fs::write(file, "scan")?;
    fs::write(file, "scan")?;
    let found = fs::read_to_string(file)?;
    if !found.is_empty() {
        fs::write(Path::new(RESULTS).join("kmemleak.txt"), found)?;
    }
    Ok(())
}
