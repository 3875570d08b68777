//! `journal.jsonl`: the append-only record of a run, and the only stable format.
//!
//! Owns how it is written and read. Each event is one line, written whole by one `write(2)` to a
//! file opened with `O_APPEND`, so that a kill of the runner at any byte leaves whole lines and at
//! most one torn one at the end, which the reader drops. A background thread brings the lines to
//! the disk with `fdatasync(2)`, many in one call (group commit); who must know that a line is there,
//! because the next thing may take the machine down, waits for it with [`Writer::wait`].

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::event::{Event, FORMAT_VERSION, Line, RunStarted};

/// Name of the journal in the folder of a run.
pub const FILE_NAME: &str = "journal.jsonl";

/// How long lines that nobody waits for may stay unsynced.
const LAZY_SYNC: Duration = Duration::from_millis(200);

/// Number of a line, counted from 1: what [`Writer::wait`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A journal that is being written. Shared by the threads of a runner.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    began: Instant,
    syncer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    state: Mutex<State>,
    /// Signalled when there is something to sync, and when something was synced.
    changed: Condvar,
}

/// # Invariants
/// `synced <= written`. After an error neither grows.
#[derive(Debug, Default)]
struct State {
    written: u64,
    synced: u64,
    /// Somebody waits for this line.
    wanted: u64,
    closing: bool,
    error: Option<(io::ErrorKind, String)>,
}

impl State {
    fn check(&self) -> io::Result<()> {
        match &self.error {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.error.get_or_insert((error.kind(), error.to_string()));
    }
}

impl Writer {
    /// Creates the journal of a new run in `folder`, which exists.
    ///
    /// # Errors
    /// The file cannot be created, or there is one already.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE_NAME);
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        let shared = Arc::new(Shared { file, state: Mutex::default(), changed: Condvar::new() });
        let its = Arc::clone(&shared);
        let syncer =
            std::thread::Builder::new().name("journal".into()).spawn(move || its.sync())?;
        Ok(Self { shared, began: Instant::now(), syncer: Some(syncer) })
    }

    /// Writes an event. It survives the death of this process from now on, and of the machine as
    /// soon as [`Self::wait`] says so.
    ///
    /// # Errors
    /// The file system refused it, now or before; nothing more is written then.
    pub fn append(&self, event: Event) -> io::Result<Ticket> {
        let at_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let line = to_text(&Line { at_us, event });
        let mut state = self.shared.lock();
        state.check()?;
        // Under the lock: a line cut short by a full disk must not be followed by another.
        if let Err(error) = (&self.shared.file).write_all(line.as_bytes()) {
            state.fail(&error);
            return Err(error);
        }
        let was_clean = state.written == state.synced;
        state.written += 1;
        if was_clean {
            self.shared.changed.notify_all();
        }
        Ok(Ticket(state.written))
    }

    /// Waits until the line is on the disk.
    ///
    /// # Errors
    /// The file system refused to sync.
    pub fn wait(&self, line: Ticket) -> io::Result<()> {
        let mut state = self.shared.lock();
        while state.synced < line.0 {
            state.check()?;
            state.wanted = state.wanted.max(line.0);
            self.shared.changed.notify_all();
            state = self.shared.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        Ok(())
    }

    /// Syncs what was written and ends.
    ///
    /// # Errors
    /// A line could not be written or synced.
    pub fn close(mut self) -> io::Result<()> {
        self.finish();
        self.shared.lock().check()
    }

    fn finish(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(syncer) = self.syncer.take() {
            // The thread does not panic: it holds no lock while it syncs.
            let _ = syncer.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The background thread: syncs at once what somebody waits for, the rest now and then.
    fn sync(&self) {
        let mut state = self.lock();
        let mut dirty_since = None;
        loop {
            let dirty = state.written > state.synced && state.error.is_none();
            let patience = dirty.then(|| {
                LAZY_SYNC.saturating_sub(dirty_since.get_or_insert_with(Instant::now).elapsed())
            });
            let urgent = state.wanted > state.synced || state.closing;
            match patience {
                Some(patience) if urgent || patience.is_zero() => {
                    dirty_since = None;
                    state = self.sync_now(state);
                }
                Some(patience) => {
                    let waited = self.changed.wait_timeout(state, patience);
                    state = waited.unwrap_or_else(|e| e.into_inner()).0;
                }
                None if state.closing => return,
                None => state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner()),
            }
        }
    }

    /// Syncs what is written, without the lock, so that writers go on meanwhile.
    fn sync_now<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let target = state.written;
        drop(state);
        let result = self.file.sync_data();
        let mut state = self.lock();
        match result {
            Ok(()) => state.synced = target,
            Err(error) => state.fail(&error),
        }
        self.changed.notify_all();
        state
    }
}

fn to_text(line: &Line) -> String {
    let mut text = serde_json::to_string(line).expect("an event has only string keys");
    text.push('\n');
    text
}

/// A journal cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line before the last one is damaged: something else than a runner wrote the file.
    #[error("line {line} of the journal is damaged: {reason}")]
    Damaged {
        /// Its number, from 1.
        line: usize,
        /// What the JSON parser said.
        reason: String,
    },
    /// A newer program wrote it.
    #[error("the journal has format version {0}, this program reads up to {FORMAT_VERSION}")]
    Newer(u32),
}

/// A journal that was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journal {
    /// Its events in order.
    pub lines: Vec<Line>,
    /// The last line was torn and is left out.
    pub torn: bool,
}

impl Journal {
    /// Reads the journal of the run in `folder`.
    ///
    /// # Errors
    /// See [`ReadError`]; a torn last line is none.
    pub fn read(folder: &Path) -> Result<Self, ReadError> {
        let path = folder.join(FILE_NAME);
        match std::fs::read(&path) {
            Ok(bytes) => Self::parse(&bytes),
            Err(source) => Err(ReadError::Io { path, source }),
        }
    }

    /// Reads a journal's bytes. A last line without its newline, or that does not parse, is torn.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut journal = Self::default();
        let mut rest = bytes;
        let mut number = 0;
        while !rest.is_empty() {
            number += 1;
            let end = rest.iter().position(|b| *b == b'\n');
            let (text, after) = match end {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, &[][..]),
            };
            rest = after;
            match serde_json::from_slice::<Line>(text) {
                Ok(line) if end.is_some() => journal.push(line)?,
                Err(error) if !rest.is_empty() => {
                    // A newer writer's lines need not make sense: its version says more.
                    return Err(newer(text).unwrap_or_else(|| ReadError::Damaged {
                        line: number,
                        reason: error.to_string(),
                    }));
                }
                Ok(_) | Err(_) => journal.torn = true,
            }
        }
        Ok(journal)
    }

    fn push(&mut self, line: Line) -> Result<(), ReadError> {
        if let Event::RunStarted(RunStarted { version, .. }) = &line.event
            && *version > FORMAT_VERSION
        {
            return Err(ReadError::Newer(*version));
        }
        self.lines.push(line);
        Ok(())
    }

    /// The frame of the run, unless the runner died before it wrote it.
    #[must_use]
    pub fn run(&self) -> Option<&RunStarted> {
        self.lines.iter().find_map(|line| match &line.event {
            Event::RunStarted(run) => Some(run),
            _ => None,
        })
    }
}

fn newer(text: &[u8]) -> Option<ReadError> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let version = value.pointer("/event/version")?.as_u64()?;
    let version = u32::try_from(version).ok()?;
    (version > FORMAT_VERSION).then_some(ReadError::Newer(version))
}

#[cfg(test)]
mod tests;
