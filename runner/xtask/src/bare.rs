//! Builds uapi and core in a world that has neither `std` nor `alloc`.
//!
//! Owns that world: a temporary sysroot with the `core` library and nothing else, so that naming any other
//! is a compile error, in whatever way it is named. Proves each time that the world is as
//! bare as it should be. What core does without memory is `core/src/facade`'s affair.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Findings;

/// Libraries that the world has: the language's own, and what the compiler calls by itself.
const LIBRARIES: [&str; 2] = ["libcore-", "libcompiler_builtins-"];
/// Edition of both crates.
const EDITION: &str = "2021";

/// Builds both crates in the bare world.
pub(crate) fn task(root: &Path) -> Result<String, Findings> {
    let world = World::new()?;
    for library in ["std", "alloc"] {
        let source = world.folder.path().join(format!("names_{library}.rs"));
        let text = format!("#![no_std]\nextern crate {library};\n");
        fs::write(&source, text).map_err(|error| vec![format!("{}: {error}", source.display())])?;
        if world.build(&source, &format!("names_{library}"), &[]).is_ok() {
            return Err(vec![format!("bare: the world without {library} has {library}")]);
        }
    }
    let driver = root.join("reference-driver");
    let uapi = world.build(&driver.join("uapi/src/fencepost_uapi.rs"), "fencepost_uapi", &[])?;
    let mut linked = uapi.into_os_string();
    linked = [OsStr::new("fencepost_uapi="), &linked].into_iter().collect();
    let core = driver.join("core/src/fencepost_core.rs");
    world.build(&core, "fencepost_core", &[OsStr::new("--extern"), &linked])?;
    Ok("bare: uapi and core build with neither std nor alloc".to_owned())
}

/// A sysroot without std and alloc.
struct World {
    folder: tempfile::TempDir,
    compiler: PathBuf,
}

impl World {
    fn new() -> Result<Self, Findings> {
        let compiler = PathBuf::from(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let real = PathBuf::from(run(Command::new(&compiler).args(["--print", "target-libdir"]))?);
        let fail = |error: std::io::Error| vec![format!("bare: {error}")];
        let folder = tempfile::tempdir().map_err(fail)?;
        // SYSROOT/lib/rustlib/TARGET/lib, as the real one.
        let triple = real.parent().and_then(Path::file_name).unwrap_or_default();
        let libraries = folder.path().join("lib/rustlib").join(triple).join("lib");
        fs::create_dir_all(&libraries).map_err(fail)?;
        for entry in fs::read_dir(&real).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            let text = name.to_string_lossy();
            if LIBRARIES.iter().any(|prefix| text.starts_with(prefix)) {
                symlink(real.join(&name), libraries.join(&name)).map_err(fail)?;
            }
        }
        Ok(Self { folder, compiler })
    }

    /// Compiles a crate as far as its metadata; returns where that is.
    fn build(&self, source: &Path, name: &str, more: &[&OsStr]) -> Result<PathBuf, Findings> {
        let out = self.folder.path().join(format!("lib{name}.rmeta"));
        let mut command = Command::new(&self.compiler);
        command.arg("--sysroot").arg(self.folder.path());
        command.args(["--crate-type", "lib", "--emit", "metadata", "--edition", EDITION]);
        command.args(["--crate-name", name, "-D", "warnings"]);
        // The features that core knows, none of which is on, and the kernel's configuration.
        command.args(["--check-cfg", "cfg(feature, values(\"std\", \"shuttle\"))"]);
        command.args(["--check-cfg", "cfg(MODULE, test)"]);
        command.arg("-o").arg(&out).arg(source).args(more);
        run(&mut command)?;
        Ok(out)
    }
}

/// Runs a command to its end; its output, or what it complained of.
fn run(command: &mut Command) -> Result<String, Findings> {
    let output = command.output().map_err(|error| vec![format!("{command:?}: {error}")])?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(vec![String::from_utf8_lossy(&output.stderr).into_owned()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_builds_with_neither_std_nor_alloc() {
        if let Err(findings) = task(&crate::root()) {
            panic!("{}", findings.join("\n"));
        }
    }

    /// The world refuses what it should: each way of naming memory is an error.
    #[test]
    fn the_bare_world_has_no_memory() {
        let world = World::new().expect("a compiler");
        let rows = [
            ("nothing", "#![no_std]\n", true),
            ("core", "#![no_std]\npub use core::cell::Cell;\n", true),
            ("prelude", "pub fn f() -> Vec<u8> { Vec::new() }\n", false),
            ("alloc", "#![no_std]\nextern crate alloc;\n", false),
            ("path", "#![no_std]\npub use std::sync::Mutex;\n", false),
        ];
        for (name, text, expected) in rows {
            let source = world.folder.path().join("source.rs");
            fs::write(&source, text).expect("a writable folder");
            assert_eq!(world.build(&source, name, &[]).is_ok(), expected, "{name}");
        }
    }
}
