//! Which parts of a device's memory clients have mapped, from `/proc/PID/maps`. A client's `munmap` is
//! not trapped, so this is asked where the answer matters: before counters are reported, and before
//! memory of destroyed objects is given back.

use std::collections::HashSet;
use std::fs::{File, read_dir, read_to_string};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;

/// Mapped parts of one file: offset and one past the end.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    parts: Vec<(u64, u64)>,
    /// A process could not be asked: everything may be mapped.
    unknown: bool,
}

impl Mapped {
    /// Whether any byte of the range is mapped.
    pub(crate) fn overlaps(&self, offset: u64, size: u64) -> bool {
        let hit = |(from, to): &(u64, u64)| *from < offset.saturating_add(size) && offset < *to;
        self.unknown || self.parts.iter().any(hit)
    }

    /// Adds what a process has mapped of the file with this inode number.
    fn add(&mut self, pid: i32, inode: u64) {
        let file = match File::open(format!("/proc/{pid}/maps")) {
            Ok(file) => file,
            Err(error) => {
                self.unknown |= error.kind() != std::io::ErrorKind::NotFound;
                return;
            }
        };
        for line in BufReader::with_capacity(16 << 10, file).lines() {
            match line {
                Ok(line) => self.parts.extend(part(&line, inode)),
                // A process that has ended maps nothing.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return,
                Err(_) => {
                    self.unknown = true;
                    return;
                }
            }
        }
    }
}

/// Offset and end of the mapping of one line of `/proc/PID/maps`, if it is of that file.
fn part(line: &str, inode: u64) -> Option<(u64, u64)> {
    if !line.contains("/memfd:fencepost") {
        return None;
    }
    let (from, to, _) = super::sys::client::mapping(line)?;
    let mut words = line.split_ascii_whitespace().skip(2);
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let found = words.nth(1)?.parse::<u64>().ok()?;
    (found == inode).then(|| (offset, offset + (to - from)))
}

/// What these processes and their descendants have mapped.
pub(crate) fn of_trees(roots: &[i32], inode: u64) -> Mapped {
    let mut mapped = Mapped::default();
    let mut seen: HashSet<i32> = HashSet::new();
    let mut todo = roots.to_vec();
    while let Some(pid) = todo.pop() {
        if seen.insert(pid) {
            mapped.add(pid, inode);
            todo.extend(children(pid));
            // A child that was forked meanwhile, before its parent was asked, is found in this pass.
            if todo.is_empty() {
                let again: Vec<i32> = seen.iter().flat_map(|pid| children(*pid)).collect();
                todo.extend(again.into_iter().filter(|pid| !seen.contains(pid)));
            }
        }
    }
    mapped
}

/// The children of a process, of all its threads.
fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().map(|task| read_to_string(task.path().join("children")));
    let lists: Vec<String> = lists.flatten().collect();
    lists.iter().flat_map(|list| list.split_whitespace().flat_map(str::parse)).collect()
}

/// Whether a process is under a seccomp filter, as every client is.
fn is_filtered(pid: i32) -> bool {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// What any process of this user has mapped. Looks at all processes, so it takes milliseconds.
pub(crate) fn of_everybody(inode: u64) -> Mapped {
    let mut mapped = Mapped::default();
    let user = nix::unistd::geteuid().as_raw();
    let own = std::process::id().cast_signed();
    let mut seen = HashSet::from([own]);
    loop {
        let before = seen.len();
        let Ok(entries) = read_dir("/proc") else {
            return Mapped { unknown: true, ..mapped };
        };
        for entry in entries.flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            let Some(pid) = pid.filter(|pid| seen.insert(*pid)) else { continue };
            let ours = entry.metadata().is_ok_and(|data| user == 0 || data.uid() == user);
            if ours && is_filtered(pid) {
                mapped.add(pid, inode);
            }
        }
        // Until a pass finds nobody new: a fork may have copied a mapping behind our back.
        if seen.len() == before {
            return mapped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_of_the_device_count() {
        let line = "7f00000-7f03000 rw-s 100002000 00:01 1042 /memfd:fencepost (deleted)";
        assert_eq!(part(line, 1042), Some((0x1_0000_2000, 0x1_0000_5000)));
        assert_eq!(part(line, 1043), None, "another device");
        assert_eq!(part("7f00000-7f03000 rw-s 100002000 00:01 1042 /memfd:x", 1042), None);
    }

    #[test]
    fn ranges_overlap_by_the_byte() {
        let mapped = Mapped { parts: vec![(8192, 12288)], unknown: false };
        for (offset, size, want) in
            [(0, 8192, false), (0, 8193, true), (12287, 1, true), (12288, 9, false)]
        {
            assert_eq!(mapped.overlaps(offset, size), want, "{offset} {size}");
        }
        assert!(Mapped { parts: Vec::new(), unknown: true }.overlaps(0, 1));
    }
}
