//! What builds a kernel on this machine: the cache folder, what setup.sh found or fetched, and
//! commands that run with both.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::flavour::Flavour;
use crate::Findings;

/// A prepared machine.
pub(super) struct Toolchain {
    /// Where everything built lies.
    pub(super) cache: PathBuf,
    /// The Linux source.
    pub(super) linux: PathBuf,
    rust_lib_src: String,
    bindgen: String,
    libclang_path: String,
}

impl Toolchain {
    /// Runs setup.sh, which does nothing on a prepared machine, and reads what it found.
    pub(super) fn prepare(root: &Path, flavour: Flavour) -> Result<Self, Findings> {
        let cache = cache_folder()?;
        let mut setup = Command::new(root.join("reference-driver/linux/setup.sh"));
        setup.env("FENCEPOST_CACHE", &cache);
        if flavour == Flavour::Kasan {
            setup.arg("--kasan");
        }
        run(&mut setup)?;
        let text = read(&cache.join("setup.env"))?;
        let value = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned).ok_or_else(|| vec![format!("setup.env lacks {name}")])
        };
        Ok(Self {
            linux: value("LINUX")?.into(),
            rust_lib_src: value("RUST_LIB_SRC")?,
            bindgen: value("BINDGEN")?,
            libclang_path: value("LIBCLANG_PATH")?,
            cache,
        })
    }

    /// `make` with the environment and the variables of every kernel build, at low priority: a
    /// build takes minutes.
    pub(super) fn make(&self, flavour: Flavour) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut with_ccache = std::ffi::OsString::from("/usr/lib/ccache:");
        with_ccache.push(path);
        let mut make = Command::new("nice");
        make.args(["-n", "10", "make"])
            .env("PATH", with_ccache)
            .env("CCACHE_DIR", self.cache.join("ccache"))
            .env("CCACHE_BASEDIR", &self.cache)
            .env("CCACHE_NOHASHDIR", "1")
            // Equal inputs give equal outputs, which ccache and users like.
            .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00")
            .env("KBUILD_BUILD_USER", "fencepost")
            .env("KBUILD_BUILD_HOST", "fencepost")
            .env("LIBCLANG_PATH", &self.libclang_path)
            // Cargo's own variables are no business of the kernel's.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .arg(format!("RUST_LIB_SRC={}", self.rust_lib_src))
            .arg(format!("BINDGEN={}", self.bindgen))
            .args(flavour.make_args());
        make
    }

    /// The versions of all tools that decide what a build gives.
    pub(super) fn versions(&self, flavour: Flavour) -> Result<String, Findings> {
        let mut all = output(Command::new("rustc").arg("-vV"))?;
        all += &output(Command::new(&self.bindgen).arg("--version"))?;
        all += &output(Command::new(flavour.compiler()).arg("--version"))?;
        Ok(all)
    }
}

/// `$FENCEPOST_CACHE`, else `$XDG_CACHE_HOME/fencepost`, else `~/.cache/fencepost`.
fn cache_folder() -> Result<PathBuf, Findings> {
    let of = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    of("FENCEPOST_CACHE")
        .or_else(|| of("XDG_CACHE_HOME").map(|dir| dir.join("fencepost")))
        .or_else(|| of("HOME").map(|dir| dir.join(".cache/fencepost")))
        .ok_or_else(|| vec!["neither FENCEPOST_CACHE nor HOME is set".to_owned()])
}

/// Runs a command whose messages the user sees on standard error.
pub(super) fn run(command: &mut Command) -> Result<(), Findings> {
    let name = shown(command);
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|e| vec![format!("cannot run {name}: {e}")])?;
    if status.success() { Ok(()) } else { Err(vec![format!("{name}: {status}")]) }
}

/// Runs a command into a log file; the end of the log is the message when it fails.
pub(super) fn run_logged(command: &mut Command, log: &Path) -> Result<(), Findings> {
    let name = shown(command);
    let file = fs::File::create(log).map_err(|e| vec![format!("{}: {e}", log.display())])?;
    let copy = file.try_clone().map_err(|e| vec![format!("{}: {e}", log.display())])?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy)
        .status()
        .map_err(|e| vec![format!("cannot run {name}: {e}")])?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(40)..].join("\n");
    Err(vec![format!("{name}: {status}; the end of {}:\n{tail}", log.display())])
}

fn output(command: &mut Command) -> Result<String, Findings> {
    let name = shown(command);
    let done = command.output().map_err(|e| vec![format!("cannot run {name}: {e}")])?;
    if !done.status.success() {
        return Err(vec![format!("{name}: {}", done.status)]);
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String, Findings> {
    fs::read_to_string(path).map_err(|e| vec![format!("{}: {e}", path.display())])
}

/// Writes a file.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Findings> {
    fs::write(path, text).map_err(|e| vec![format!("{}: {e}", path.display())])
}

/// Makes a folder and its parents.
pub(super) fn make_folder(path: &Path) -> Result<(), Findings> {
    fs::create_dir_all(path).map_err(|e| vec![format!("{}: {e}", path.display())])
}
