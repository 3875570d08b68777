//! QEMU: its command line, its life, and whether KVM can be used.
//!
//! KVM counts as usable only when a guest came up with it: a device that opens may still fail on
//! the first unusual instruction. A failure is remembered until the host is booted again.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::guest;
use crate::stop::Stop;

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// A machine to boot.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    /// The kernel's image.
    pub(super) kernel: &'a Path,
    /// The first file system.
    pub(super) initramfs: &'a Path,
    /// Shared with the guest; holds the logs.
    pub(super) results: &'a Path,
    /// Memory in MiB.
    pub(super) memory_mib: u32,
    /// Processors.
    pub(super) cpus: u32,
    /// More words for the kernel's command line.
    pub(super) append: &'a str,
    /// A person types into it: keys go to the guest, Ctrl-C as well.
    pub(super) interactive: bool,
}

/// The kernel's log, in the results folder.
pub(super) const CONSOLE: &str = "console.log";
/// QEMU's own messages, in the results folder.
const MESSAGES: &str = "qemu.log";
/// The emulator.
const PROGRAM: &str = "qemu-system-x86_64";
/// How long a guest may take to come up with KVM before it counts as unusable.
const KVM_PATIENCE: Duration = Duration::from_secs(10);
/// How often the state of a guest is looked at.
const POLL: Duration = Duration::from_millis(20);

/// QEMU reads a comma in an option's value as the end of it; two stand for one.
fn value(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

impl Machine<'_> {
    /// The command that boots it.
    fn command(&self, accelerator: Accelerator) -> Command {
        // Translated code is found again by its address: where each process has addresses of its
        // own, each is translated anew, and a test takes twice as long. A translated processor's
        // clock is the host's, so it need not be watched, and on a busy host must not. With five
        // levels of page tables KASAN's kernel may fault at boot, before its processors are known. The
        // kernel's test of its timer counts ticks against a loop, and panics where the host was busy.
        let (accel, cpu, words) = match accelerator {
            Accelerator::Kvm => ("kvm", "host", ""),
            Accelerator::Tcg => {
                ("tcg,thread=multi", "max", " norandmaps tsc=reliable no5lvl no_timer_check")
            }
        };
        // After a panic the machine resets, which ends QEMU. Two nodes, for pages to move between.
        let append = format!(
            "console=ttyS0 panic=-1 numa=fake=2{words} LD_LIBRARY_PATH={} {}",
            super::initramfs::LIBRARIES,
            self.append
        );
        let console = value(&self.results.join(CONSOLE));
        let signal = if self.interactive { "off" } else { "on" };
        let mut qemu = Command::new(PROGRAM);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(["-monitor", "none", "-machine", "q35", "-accel", accel, "-cpu", cpu])
            .args(["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory_mib)])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", append.trim_end()])
            .args(["-chardev", &format!("file,id=console,path={console}")])
            .args(["-chardev", &format!("stdio,id=terminal,signal={signal}")])
            .args(["-serial", "chardev:console", "-serial", "chardev:terminal"])
            .arg("-fsdev")
            .arg(format!("local,id=results,path={},security_model=none", value(self.results)))
            .args(["-device", "virtio-9p-pci,fsdev=results,mount_tag=results"]);
        qemu
    }

    fn start(&self, accelerator: Accelerator, stdin: Stdio) -> io::Result<Child> {
        for stale in [guest::READY, guest::STATUS, CONSOLE] {
            match fs::remove_file(self.results.join(stale)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let messages = File::create(self.results.join(MESSAGES))?;
        let mut command = self.command(accelerator);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(messages).spawn().map_err(|error| {
            match error.kind() {
                io::ErrorKind::NotFound => io::Error::other(format!(
                    "{PROGRAM} is missing; install it: apt-get install qemu-system-x86"
                )),
                _ => error,
            }
        })
    }

    /// Boots the machine with the best accelerator there is and says which.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub(super) fn boot(
        &self,
        wanted: Option<Accelerator>,
        memory: &KvmMemory,
        stdin: impl Fn() -> Stdio,
    ) -> io::Result<(Child, Accelerator)> {
        let kvm = match wanted {
            Some(accelerator) => accelerator == Accelerator::Kvm,
            None => memory.worth_trying(),
        };
        if !kvm {
            return Ok((self.start(Accelerator::Tcg, stdin())?, Accelerator::Tcg));
        }
        let mut child = self.start(Accelerator::Kvm, stdin())?;
        if wanted.is_some() || self.comes_up(&mut child)? {
            return Ok((child, Accelerator::Kvm));
        }
        end(&mut child);
        memory.note_broken();
        Ok((self.start(Accelerator::Tcg, stdin())?, Accelerator::Tcg))
    }

    /// Waits until the guest says that it is up, or something says that it will not be.
    fn comes_up(&self, child: &mut Child) -> io::Result<bool> {
        let start = Instant::now();
        loop {
            if self.results.join(guest::READY).exists() {
                return Ok(true);
            }
            let messages = fs::read_to_string(self.results.join(MESSAGES)).unwrap_or_default();
            if messages.contains("KVM internal error") || start.elapsed() > KVM_PATIENCE {
                return Ok(false);
            }
            if child.try_wait()?.is_some() {
                // It ended without coming up: a panic at boot would do so too, and TCG shows it.
                return Ok(self.results.join(guest::READY).exists());
            }
            std::thread::sleep(POLL);
        }
    }

    /// What QEMU itself had to say.
    pub(super) fn messages(&self) -> String {
        fs::read_to_string(self.results.join(MESSAGES)).unwrap_or_default()
    }
}

/// How the waiting for a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// It ended by itself.
    Ended,
    /// It took longer than it may, or showed no sign of life for longer, and was ended.
    TimedOut,
    /// The user wants no more, and it was ended.
    Stopped,
}

/// How long a guest may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// In all.
    pub(super) whole: Option<Duration>,
    /// Without a sign of life: output of the program, a line of the kernel.
    pub(super) silent: Option<Duration>,
}

/// Waits for the end of a guest, whose output it passes on. The guest is ended with the time or when
/// `stop` is raised.
pub(super) fn wait(
    child: &mut Child,
    console: &Path,
    limits: Limits,
    stop: &Stop,
) -> io::Result<Waited> {
    let start = Instant::now();
    let said = Arc::new(AtomicU64::new(0));
    let copier =
        child.stdout.take().map(|output| pass_on(output, Arc::clone(&said))).transpose()?;
    let (mut seen, mut alive) = ((0, 0), start);
    let waited = loop {
        if child.try_wait()?.is_some() {
            break Waited::Ended;
        }
        // Relaxed: only the number itself is of interest.
        let now = (said.load(Ordering::Relaxed), fs::metadata(console).map_or(0, |m| m.len()));
        if now != seen {
            (seen, alive) = (now, Instant::now());
        }
        let over = |time: Duration, limit: Option<Duration>| limit.is_some_and(|l| time >= l);
        if stop.cause().is_some() {
            break Waited::Stopped;
        }
        if over(start.elapsed(), limits.whole) || over(alive.elapsed(), limits.silent) {
            break Waited::TimedOut;
        }
        std::thread::sleep(POLL);
    };
    end(child);
    if let Some(copier) = copier {
        // It ends with the pipe; a reader of ours that went away is no trouble of the guest's.
        let _ = copier.join();
    }
    // Ctrl-C on the terminal reaches QEMU as well, perhaps first.
    Ok(if waited == Waited::Ended && stop.cause().is_some() { Waited::Stopped } else { waited })
}

/// Passes a guest's output on to ours, counting its bytes.
fn pass_on(mut output: ChildStdout, said: Arc<AtomicU64>) -> io::Result<JoinHandle<()>> {
    let copy = move || {
        let mut buffer = [0; 4 << 10];
        while let Ok(n) = output.read(&mut buffer) {
            if n == 0 {
                return;
            }
            said.fetch_add(n as u64, Ordering::Relaxed);
            let mut to = io::stdout().lock();
            // Whoever read it may have gone; the guest goes on.
            let _ = to.write_all(&buffer[..n]).and_then(|()| to.flush());
        }
    };
    std::thread::Builder::new().name("guest".into()).spawn(copy)
}

/// Ends QEMU and waits for it. It may be gone already, which is as good.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// What is known about KVM on this host since its last boot.
#[derive(Debug)]
pub(super) struct KvmMemory {
    file: PathBuf,
}

impl KvmMemory {
    /// Remembered in the cache folder.
    pub(super) fn new(cache: &Path) -> Self {
        Self { file: cache.join("vm/kvm-broken") }
    }

    fn boot_id() -> String {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
    }

    /// Whether the device is there and has not failed since the host was booted.
    fn worth_trying(&self) -> bool {
        let opens = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        opens && fs::read_to_string(&self.file).unwrap_or_default() != Self::boot_id()
    }

    fn note_broken(&self) {
        if let Some(folder) = self.file.parent() {
            // Without a note the next run tries again, which is only slower.
            let _ = fs::create_dir_all(folder);
            let _ = fs::write(&self.file, Self::boot_id());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Cause;

    #[test]
    fn the_command_line_names_all_parts() {
        let machine = Machine {
            kernel: Path::new("/k"),
            initramfs: Path::new("/i"),
            results: Path::new("/r,s"),
            memory_mib: 512,
            cpus: 2,
            append: "quiet",
            interactive: false,
        };
        let command = machine.command(Accelerator::Tcg);
        let words: Vec<String> =
            command.get_args().map(|w| w.to_string_lossy().into_owned()).collect();
        let line = words.join(" ");
        for part in [
            "-kernel /k",
            "-initrd /i",
            "-m 512M",
            "-smp 2",
            "-accel tcg,thread=multi -cpu max",
            "path=/r,,s,",
            "panic=-1 numa=fake=2 norandmaps tsc=reliable no5lvl no_timer_check LD_LIBRARY_PATH=/lib quiet",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(format!("{:?}", machine.command(Accelerator::Kvm)).contains("\"host\""));
    }

    #[test]
    fn kvm_that_failed_is_not_tried_again_on_this_boot() {
        let folder = tempfile::tempdir().unwrap();
        let memory = KvmMemory::new(folder.path());
        memory.note_broken();
        assert!(!memory.worth_trying());
    }

    #[test]
    fn a_guest_that_takes_too_long_is_ended() {
        let start = |program: &str, arguments: &[&str]| {
            Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap()
        };
        let none = Limits { whole: None, silent: None };
        let at_once = Some(Duration::ZERO);
        let stopped = Stop::new().unwrap();
        stopped.raise(Cause::Signal(nix::sys::signal::Signal::SIGINT));
        let go = Stop::new().unwrap();
        let table = [
            (start("sleep", &["1000"]), Limits { whole: at_once, ..none }, &go, Waited::TimedOut),
            (start("sleep", &["1000"]), Limits { silent: at_once, ..none }, &go, Waited::TimedOut),
            (start("sleep", &["1000"]), none, &stopped, Waited::Stopped),
            (start("true", &[]), none, &go, Waited::Ended),
        ];
        for (mut child, limits, stop, waited) in table {
            assert_eq!(wait(&mut child, Path::new("/nowhere"), limits, stop).unwrap(), waited);
        }
    }
}
