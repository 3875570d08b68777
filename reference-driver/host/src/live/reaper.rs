//! Learns that clients have closed something. Owns the process's one inotify instance and its thread:
//! the number of instances a user may have is small, devices are many.
//!
//! The kernel reports that some description of a memfd was closed, not which, and does so shortly
//! before it drops the locks by which the host tells. Hence the further looks. Who needs to be
//! exact, because a client's own close came before its next call, looks itself when an event is
//! unread ([`is_pending`]) or was read a short while ago ([`Owner::note`]): then the locks are gone, since
//! the client's system call has ended.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use nix::errno::Errno;
use nix::poll::{PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::sys::fd;

/// When the thread looks again after an event, in milliseconds; the sum is how long an event counts
/// as recent.
const AGAIN: [u16; 4] = [1, 10, 100, 500];

/// Somebody whose descriptions get closed.
pub(crate) trait Owner: Send + Sync + 'static {
    /// Looks for descriptions that are gone.
    fn collect(&self);

    /// Hears that an event was read now, or that the last one is long ago.
    fn note(&self, recent: bool);
}

struct Reaper {
    inotify: Inotify,
    /// Held while events are read and noted.
    owners: Mutex<HashMap<WatchDescriptor, Weak<dyn Owner>>>,
}

fn reaper() -> Result<&'static Reaper, Errno> {
    static REAPER: OnceLock<Result<&'static Reaper, Errno>> = OnceLock::new();
    *REAPER.get_or_init(|| {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let reaper: &'static Reaper =
            Box::leak(Box::new(Reaper { inotify, owners: Mutex::default() }));
        let thread = std::thread::Builder::new().name("reaper".into()).stack_size(256 << 10);
        thread.spawn(|| reaper.run()).map_err(|_| Errno::EAGAIN)?;
        Ok(reaper)
    })
}

/// Starts the thread, if it does not run yet.
pub(crate) fn start() -> Result<(), Errno> {
    reaper().map(drop)
}

/// Tells `owner` from now on when a description of the file at `path` was closed. Ends by itself with
/// the file.
pub(crate) fn watch(path: &std::ffi::CStr, owner: Weak<dyn Owner>) -> Result<(), Errno> {
    let reaper = reaper()?;
    let mut owners = reaper.owners.lock().unwrap_or_else(PoisonError::into_inner);
    let watch = reaper.inotify.add_watch(path, AddWatchFlags::IN_CLOSE)?;
    owners.retain(|_, owner| owner.strong_count() > 0);
    owners.insert(watch, owner);
    Ok(())
}

/// Whether there are events that nobody has read: everybody should look.
pub(crate) fn is_pending() -> bool {
    let Ok(reaper) = reaper() else { return true };
    let _noting = reaper.owners.lock().unwrap_or_else(PoisonError::into_inner);
    fd::unread(reaper.inotify.as_fd()) > 0
}

impl Reaper {
    fn run(&self) {
        // Weak: a device that ended meanwhile needs no looks.
        let mut looked: Vec<Weak<dyn Owner>> = Vec::new();
        let mut round = 0;
        loop {
            let timeout = match AGAIN.get(round) {
                Some(ms) if !looked.is_empty() => PollTimeout::from(*ms),
                _ => {
                    looked
                        .drain(..)
                        .filter_map(|owner| owner.upgrade())
                        .for_each(|owner| owner.note(false));
                    PollTimeout::NONE
                }
            };
            match fd::ready(self.inotify.as_fd(), PollFlags::POLLIN, timeout) {
                Ok(true) => {
                    for owner in self.read() {
                        if !looked.iter().any(|known| Weak::ptr_eq(known, &owner)) {
                            looked.push(owner);
                        }
                    }
                    round = 0;
                }
                Ok(false) => round += 1,
                // Without memory for poll: those who need to know look themselves.
                Err(_) => return,
            }
            for owner in looked.iter().filter_map(Weak::upgrade) {
                owner.collect();
            }
        }
    }

    /// Reads the events and tells their owners.
    fn read(&self) -> Vec<Weak<dyn Owner>> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let mut touched: Vec<Weak<dyn Owner>> = Vec::new();
        for event in self.inotify.read_events().unwrap_or_default() {
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                owners.remove(&event.wd);
            }
            // On overflow nobody knows whose events are lost.
            let lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
            let concerned = owners.iter().filter(|(watch, _)| lost || **watch == event.wd);
            for owner in concerned.filter_map(|(_, owner)| owner.upgrade()) {
                owner.note(true);
                touched.push(Arc::downgrade(&owner));
            }
        }
        touched
    }
}
