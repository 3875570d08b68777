//! The folder of a run: its name, and the files in it besides the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fencepost_results::Source;
use fencepost_results::journal;
use fencepost_results::summary::Operation;

use crate::error::Error;
use crate::plan::Planned;

/// Where runs are kept unless the user says otherwise.
const RUNS: &str = "results/runs";

/// The folder of a run.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder that the user named, or a new one below `results/runs/`.
    pub(crate) fn create(named: Option<&Path>) -> Result<Self, Error> {
        let path = match named {
            Some(path) => {
                fs::create_dir_all(path).map_err(Error::system(creating(path)))?;
                if path.join(journal::FILE_NAME).exists() {
                    return Err(Error::Usage(format!("{} already holds a run", path.display())));
                }
                path.to_owned()
            }
            None => new_folder(Path::new(RUNS))?,
        };
        Ok(Self(path))
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The last part of its path: the run's name.
    pub(crate) fn name(&self) -> String {
        let whole = fs::canonicalize(&self.0).unwrap_or_else(|_| self.0.clone());
        whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned()
    }

    /// Where a test's output goes.
    pub(crate) fn output(&self, test: &str) -> PathBuf {
        self.0.join("output").join(format!("{}.txt", file_name(test)))
    }

    /// Copies users' scenario files, so that a replay runs what ran.
    pub(crate) fn keep_scenarios(&self, tests: &[Planned]) -> Result<(), Error> {
        let mut copied = BTreeSet::new();
        for test in tests {
            let Source::File(path) = &test.source else { continue };
            if !copied.insert(path) {
                continue;
            }
            let text = test.kept.as_deref().unwrap_or(Path::new(path));
            let copy = self.scenario_copy(path);
            let folder = copy.parent().unwrap_or(&self.0);
            let doing = format!("copy {} to {}", text.display(), copy.display());
            fs::create_dir_all(folder)
                .and_then(|()| fs::copy(text, &copy))
                .map_err(Error::system(doing))?;
        }
        Ok(())
    }

    /// Where the copy of a user's scenario file is.
    pub(crate) fn scenario_copy(&self, path: &str) -> PathBuf {
        self.0.join("scenarios").join(file_name(path))
    }

    /// Writes the interval log of each operation.
    pub(crate) fn write_latencies(
        &self,
        latencies: &BTreeMap<String, Operation>,
    ) -> Result<(), Error> {
        if latencies.is_empty() {
            return Ok(());
        }
        let folder = self.0.join("latency");
        fs::create_dir_all(&folder).map_err(Error::system(creating(&folder)))?;
        for (operation, latency) in latencies {
            let path = folder.join(format!("{}.hlog", file_name(operation)));
            fs::write(&path, latency.log.text())
                .map_err(Error::system(format!("write {}", path.display())))?;
        }
        Ok(())
    }
}

impl From<PathBuf> for Folder {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

fn creating(path: &Path) -> String {
    format!("create {}", path.display())
}

/// Makes a folder that did not exist, named after the time; runs that begin in one second are
/// numbered.
fn new_folder(parent: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(parent).map_err(Error::system(creating(parent)))?;
    let time = timestamp(unix_ms() / 1000);
    for number in 1.. {
        let name = if number == 1 { time.clone() } else { format!("{time}-{number}") };
        let path = parent.join(name);
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::system(creating(&path))(error)),
        }
    }
    unreachable!("the numbers do not end")
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A point in time as a name: `20261120-095218`, in UTC.
fn timestamp(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// The date that many days after 1970-01-01, by counting from 0000-03-01, so that a leap day is the
/// last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month, day)
}

/// A name as one file name: letters, digits and `-_.@=+,` stay, others become `%` and two digits.
/// A name too long for a file ends in a number of its own instead.
fn file_name(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric()
            || b"-_@=+,".contains(&byte)
            || (byte == b'.' && !out.is_empty())
        {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    if out.len() > 200 {
        // FNV-1a: only to tell names apart that begin alike.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        out.truncate(180);
        out.push_str(&format!("-{hash:016x}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        let table = [
            (0, "19700101-000000"),
            (951_782_399, "20000228-235959"),
            (951_782_400, "20000229-000000"),
            (1_709_251_199, "20240229-235959"),
            (1_795_168_338, "20261120-095218"),
            (4_107_542_400, "21000301-000000"),
        ];
        for (unix, text) in table {
            assert_eq!(timestamp(unix), text);
        }
    }

    #[test]
    fn file_names_are_safe_and_differ() {
        assert_eq!(file_name("vm-bind@a@x=1,y=2"), "vm-bind@a@x=1,y=2");
        assert_eq!(file_name("../a/b c"), "%2e./%2e".replace("./%2e", ".%2fa%2fb%20c"));
        let long = "x".repeat(300);
        assert!(file_name(&long).len() <= 200);
        assert_ne!(file_name(&format!("{long}a")), file_name(&format!("{long}b")));
    }

    #[test]
    fn runs_of_one_second_get_folders_of_their_own() {
        let scratch = tempfile::tempdir().expect("scratch folder");
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            assert!(seen.insert(new_folder(scratch.path()).expect("made")));
        }
    }

    #[test]
    fn a_folder_with_a_run_is_refused() {
        let scratch = tempfile::tempdir().expect("scratch folder");
        fs::write(scratch.path().join(journal::FILE_NAME), "").expect("written");
        assert!(matches!(Folder::create(Some(scratch.path())), Err(Error::Usage(_))));
    }
}
