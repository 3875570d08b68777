//! The guest's first file system: a cpio archive in the kernel's `newc` format, made in memory.
//!
//! Owns the archive format (`Documentation/driver-api/early-userspace/buffer-format.rst`) and what
//! goes in: this very program as `/init`, with the libraries that it is running with, and modules.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER: u32 = 0o020_600;

/// An archive being written.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    folders: BTreeSet<PathBuf>,
}

impl Archive {
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(data.len()).expect("no file of 4 GiB goes into memory");
        let name_size = u32::try_from(path.len() + 1).expect("paths are short");
        let links = if mode == FOLDER { 2 } else { 1 };
        self.bytes.extend(b"070701");
        let fields =
            [self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes().chain([0]));
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    /// A folder, its parents first.
    pub(super) fn folder(&mut self, path: &str) {
        let path = Path::new(path);
        let mut missing: Vec<&Path> =
            path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
        missing.reverse();
        for folder in missing {
            if self.folders.insert(folder.to_owned()) {
                self.entry(&folder.display().to_string(), FOLDER, (0, 0), &[]);
            }
        }
    }

    fn parent(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
    }

    /// An executable file.
    pub(super) fn file(&mut self, path: &str, data: &[u8]) {
        self.parent(path);
        self.entry(path, FILE, (0, 0), data);
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) {
        self.parent(path);
        self.entry(path, LINK, (0, 0), target.as_bytes());
    }

    /// A character device.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.parent(path);
        self.entry(path, CHARACTER, (major, minor), &[]);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

/// The files mapped executable or read-only into this process that are libraries, the dynamic
/// loader among them.
fn own_libraries() -> io::Result<BTreeSet<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
    Ok(paths.filter(|p| p.to_string_lossy().contains(".so")).collect())
}

/// The path of the dynamic loader that an ELF64 program asks for, `None` for a static one.
fn interpreter(elf: &[u8]) -> Option<String> {
    let number = |at: usize, len: usize| -> Option<usize> {
        let mut raw = [0; 8];
        raw[..len].copy_from_slice(elf.get(at..at + len)?);
        usize::try_from(u64::from_le_bytes(raw)).ok()
    };
    const PT_INTERP: usize = 3;
    let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    (0..count).map(|i| table + i * size).find_map(|header| {
        if number(header, 4)? != PT_INTERP {
            return None;
        }
        let (start, len) = (number(header + 8, 8)?, number(header + 0x20, 8)?);
        let text = elf.get(start..start + len)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    })
}

/// Folder of the libraries in the guest.
pub(super) const LIBRARIES: &str = "/lib";

/// An archive with this program as `/init`, the modules in `/modules`, the guest's plan, and a
/// busybox for those who want a shell.
pub(super) fn with_program(
    modules: &[PathBuf],
    plan: &[u8],
    busybox: Option<&[u8]>,
) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "tmp", "results", "modules"] {
        archive.folder(folder);
    }
    // The kernel opens it for the first process, before anything is mounted.
    archive.device("dev/console", 5, 1);
    let program = fs::read("/proc/self/exe")?;
    if let Some(loader) = interpreter(&program) {
        let mut loader_name = None;
        for library in own_libraries()? {
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            archive.file(&format!("lib/{name}"), &fs::read(&library)?);
            if name.starts_with("ld-") || name.starts_with("ld.") {
                loader_name = Some(name);
            }
        }
        let name =
            loader_name.ok_or_else(|| io::Error::other("the dynamic loader is not mapped"))?;
        let place = loader.trim_start_matches('/');
        if place != format!("lib/{name}") {
            archive.link(place, &format!("{LIBRARIES}/{name}"));
        }
    }
    archive.file("init", &program);
    archive.file(super::guest::PLAN, plan);
    if let Some(busybox) = busybox {
        archive.file("bin/busybox", busybox);
        for name in ["sh", "ls", "cat", "dmesg", "insmod", "lsmod", "mount", "ps", "rmmod"] {
            archive.link(&format!("bin/{name}"), "busybox");
        }
    }
    for module in modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.file(&format!("modules/{name}"), &fs::read(module)?);
    }
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_end_with_the_trailer() {
        let mut archive = Archive::default();
        archive.file("a/b/c", b"12345");
        archive.folder("a/b");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let magics: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(magics.len(), 4, "a, a/b, a/b/c, trailer");
        assert!(magics.iter().all(|at| at % 4 == 0), "{magics:?}");
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"));
        // The size field of the file.
        assert_eq!(&text[magics[2] + 6 + 6 * 8..][..8], "00000005");
    }

    #[test]
    fn this_test_program_fits() {
        let archive = with_program(&[], b"{}", None).unwrap();
        assert!(archive.len() > fs::metadata("/proc/self/exe").unwrap().len() as usize);
    }
}
