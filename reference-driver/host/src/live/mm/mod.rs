//! Clients' address spaces as the driver mirrors them: this world's answer to Linux's `mm_struct`,
//! interval notifiers, `hmm_range_fault` and the faults on device memory. Owns the table of address
//! spaces and how one begins; moving pages is [`super::migrate`]'s.
//!
//! An address space is here from its first mirror to its end. From then on every call that changes
//! its mappings is made by the agent, between the begin and the end of an invalidation ([`trap`]).

pub(crate) mod cpu_fault;
mod exec;
mod fork;
pub(crate) mod home;
pub(crate) mod moved;
pub(crate) mod notifier;
pub(crate) mod space;
pub(crate) mod trap;
pub(crate) mod view;
pub(crate) mod vma;
mod watch;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fencepost_uapi::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

#[cfg(target_arch = "x86_64")]
use super::agent;
use super::agent::lane::Lane;
use super::agent::layout;
use super::migrate::Backend;
use super::serve::Port;
use super::sys::client::{self, Way};
use super::sys::notify::{Answer, Call};
use space::{Space, Start};

/// Address spaces at a time: part of a system address.
pub(crate) const SLOTS: usize = 16;
/// Marks what belongs to a client, in the content of a frame.
pub(crate) const CLIENTS: u64 = 1 << 63;
/// Marks a system address of a client's page: then the slot, then the virtual address.
const SYSTEM: u64 = 1 << 51;
const SLOT_SHIFT: u32 = 47;

/// The system address of a client's page.
pub(crate) const fn system_address(slot: u64, addr: u64) -> u64 {
    SYSTEM | slot << SLOT_SHIFT | addr
}

/// Slot and virtual address behind a system address, if it is of a client.
pub(crate) const fn behind(addr: u64) -> Option<(u64, u64)> {
    if addr & SYSTEM == 0 {
        return None;
    }
    let slot = addr >> SLOT_SHIFT & (SLOTS as u64 - 1);
    Some((slot, addr & ((1 << SLOT_SHIFT) - 1)))
}
/// How long an agent may take to come.
const COMING: Duration = Duration::from_secs(5);

/// An agent on its way.
enum Starting {
    /// Its code is put into the process.
    Injected,
    /// Asked for.
    Asked,
    /// There: its lane, our end of a socket, and the number of the other end there.
    Came(Lane, (OwnedFd, u64)),
}

/// The address spaces of the clients of devices that share them.
pub(crate) struct Spaces {
    backend: Backend,
    slots: RwLock<[Option<Arc<Space>>; SLOTS]>,
    count: AtomicUsize,
    next: AtomicU64,
    starting: Mutex<HashMap<i32, Starting>>,
    came: Condvar,
    watchers: Mutex<Vec<watch::Watch>>,
}

impl Spaces {
    pub(crate) fn new(backend: Backend) -> Spaces {
        Spaces {
            backend,
            slots: RwLock::default(),
            count: AtomicUsize::new(0),
            next: AtomicU64::new(1),
            starting: Mutex::default(),
            came: Condvar::new(),
            watchers: Mutex::default(),
        }
    }

    /// Whether there is none, so that nobody's calls matter.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// The one in a slot.
    pub(crate) fn at(&self, slot: u64) -> Option<Arc<Space>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(slot as usize)?.clone()
    }

    /// That of a process.
    pub(crate) fn of(&self, process: i32) -> Option<Arc<Space>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.iter().flatten().find(|space| space.process == process).cloned()
    }

    /// Every one, by number.
    pub(crate) fn all(&self) -> Vec<Arc<Space>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Arc<Space>> = slots.iter().flatten().cloned().collect();
        all.sort_unstable_by_key(|space| space.number);
        all
    }

    /// The address space of a process, one of whose threads makes a call. The agent is started if
    /// there is none: then the call is to be made again (`RESTARTSYS`).
    ///
    /// # Errors
    /// `EOPNOTSUPP`: this process is not prepared for an agent, or it did not come.
    pub(crate) fn enlist(&self, process: i32, tid: i32, way: Way) -> Result<Arc<Space>, Errno> {
        if let Some(space) = self.of(process) {
            if !space.lane.is_dead() {
                return Ok(space);
            }
            // The process has another program now.
            self.end(&space);
        }
        let deadline = Instant::now() + COMING;
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Another thread of the process may have been first: there must never be two agents.
            if let Some(space) = self.of(process) {
                return Ok(space);
            }
            match starting.get(&process) {
                None if !is_prepared(tid, way) => {
                    inject(tid, way)?;
                    starting.insert(process, Starting::Injected);
                    return Err(Errno::RESTARTSYS);
                }
                None | Some(Starting::Injected) => {
                    starting.remove(&process);
                    call_for_agent(process, tid, way)?;
                    starting.insert(process, Starting::Asked);
                    return Err(Errno::RESTARTSYS);
                }
                Some(Starting::Asked) => {
                    let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                        starting.remove(&process);
                        return Err(Errno::OPNOTSUPP);
                    };
                    let waited = self.came.wait_timeout(starting, left);
                    starting = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(Starting::Came(..)) => {
                    let Some(Starting::Came(lane, socket)) = starting.remove(&process) else {
                        return Err(Errno::OPNOTSUPP);
                    };
                    let space = self.add(process, lane, socket);
                    drop(starting);
                    self.came.notify_all();
                    return space;
                }
            }
        }
    }

    fn add(&self, process: i32, lane: Lane, socket: (OwnedFd, u64)) -> Result<Arc<Space>, Errno> {
        self.sweep();
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Slots are taken in turn, so that a stale address finds nothing for long.
        let free = (0..SLOTS).map(|i| (number as usize + i) % SLOTS).find(|i| slots[*i].is_none());
        let slot = free.ok_or(Errno::NOMEM)?;
        let (slot_number, backend) = (slot as u64, self.backend);
        let start = Start { number, slot: slot_number, process, lane, backend, socket };
        let space = Arc::new(Space::new(start).map_err(|_| Errno::OPNOTSUPP)?);
        let watch = watch::Watch::start(&space).map_err(|_| Errno::NOMEM)?;
        slots[slot] = Some(Arc::clone(&space));
        self.count.fetch_add(1, Ordering::SeqCst);
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).push(watch);
        Ok(space)
    }

    /// An address space has ended.
    pub(crate) fn end(&self, space: &Arc<Space>) {
        space.end();
        self.sweep();
    }

    /// Forgets those that have ended.
    pub(crate) fn sweep(&self) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.iter_mut() {
            if slot.take_if(|space| space.has_ended()).is_some() {
                self.count.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// An agent says that it is there: gives it the shared memory.
    pub(crate) fn hello(&self, port: &Port, call: &Call, process: i32) -> Answer {
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(starting.get(&process), Some(Starting::Asked)) {
            return Answer::Error(libc::ENOTTY);
        }
        let answer = match welcome(port, call, process) {
            Ok((lane, socket, fd)) => {
                starting.insert(process, Starting::Came(lane, socket));
                Answer::Value(fd.into())
            }
            Err(errno) => {
                starting.remove(&process);
                Answer::Error(errno)
            }
        };
        drop(starting);
        self.came.notify_all();
        answer
    }

    /// Ends all watching.
    pub(crate) fn stop(&self) {
        let watchers =
            std::mem::take(&mut *self.watchers.lock().unwrap_or_else(PoisonError::into_inner));
        for watch in watchers {
            watch.stop();
        }
    }
}

/// Has the signal handler of a prepared process start the agent, once the call in hand is answered.
fn call_for_agent(process: i32, tid: i32, way: Way) -> Result<(), Errno> {
    if !is_prepared(tid, way) {
        return Err(Errno::OPNOTSUPP);
    }
    let word = 1u64.to_ne_bytes();
    client::write(way, tid, layout::DATA + layout::data::START, &word)
        .map_err(|_| Errno::OPNOTSUPP)?;
    // SAFETY: plain numbers.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, tid, libc::SIGSEGV) };
    if sent < 0 { Err(Errno::OPNOTSUPP) } else { Ok(()) }
}

/// Puts the agent's code into the process of a thread, once the call in hand is answered.
fn inject(tid: i32, way: Way) -> Result<(), Errno> {
    #[cfg(target_arch = "x86_64")]
    return agent::inject::begin(tid, way).map_err(|_| Errno::OPNOTSUPP);
    #[cfg(not(target_arch = "x86_64"))]
    return Err(Errno::OPNOTSUPP);
}

/// Whether a process is prepared for an agent, or can be.
pub(crate) fn can_be_mirrored(tid: i32, way: Way) -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_prepared(tid, way) || agent::inject::is_allowed();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Whether the agent's code is in a process.
pub(crate) fn is_prepared(tid: i32, way: Way) -> bool {
    let mut word = [0; 8];
    client::read(way, tid, layout::CODE, &mut word).is_ok()
        && u64::from_ne_bytes(word) == layout::MAGIC
}

/// The lane to a new agent, the socket with the agent's number of its end, and the agent's number of
/// the shared memory.
fn welcome(port: &Port, call: &Call, process: i32) -> Result<(Lane, (OwnedFd, u64), i32), i32> {
    let code = |errno: nix::errno::Errno| errno as i32;
    let (lane, memory) = Lane::new(process, call.tid).map_err(code)?;
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    let (ours, theirs) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC).map_err(code)?;
    let socket = port.listener.install(call.id, theirs.as_fd(), true)?;
    let fd = port.listener.install(call.id, memory.as_fd(), true)?;
    Ok((lane, (ours, i64::from(socket).cast_unsigned()), fd))
}
