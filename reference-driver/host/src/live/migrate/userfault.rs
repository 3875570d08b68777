//! Migration with userfaultfd: `UFFDIO_MOVE` takes the page out of the mapping, and the CPU's accesses
//! wait for the host in the fault. Owns the descriptor of one address space.
//!
//! Source: `Documentation/admin-guide/mm/userfaultfd.rst`, `fs/userfaultfd.c`, `mm/userfaultfd.c`. The
//! kernel moves pages within one address space only, so the agent makes these calls; the host
//! registers ranges and reads the faults.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock};

use fencepost_core::gpuva::Span;
use nix::errno::Errno;

use super::super::agent::lane::{Gone, Lane, Request, Turn};
use super::super::agent::layout::{CONTROL, HELD, lane as place};
use super::super::arena::PAGE;
use super::super::mm::moved::Table;
use super::super::sys::client::{self, Way};
use super::super::sys::fd;
use super::Piece;

/// `UFFD_USER_MODE_ONLY`, which needs no privilege.
const FLAGS: i32 = 1 | libc::O_CLOEXEC | libc::O_NONBLOCK;
const API: u64 = 0xaa;
const FEATURE_MOVE: u64 = 1 << 16;
const FEATURE_THREAD_ID: u64 = 1 << 8;
/// What is asked of the kernel.
const FEATURES: u64 = FEATURE_MOVE | FEATURE_THREAD_ID;
const MODE_MISSING: u64 = 1;
const ALLOW_HOLES: u64 = 2;
/// Mode of a copy and of a move: who waits for the page is woken by whoever serves its fault, once the
/// driver is through with it. Else a client could go on before the driver has counted that.
const DONT_WAKE: u64 = 1;

const fn io(direction: u64, number: u64, size: u64) -> u64 {
    direction << 30 | size << 16 | API << 8 | number
}

const UFFDIO_API: u64 = io(3, 0x3f, 24);
const REGISTER: u64 = io(3, 0, 32);
const UNREGISTER: u64 = io(2, 1, 16);
const WAKE: u64 = io(2, 2, 16);
const COPY: u64 = io(3, 3, 40);
const ZEROPAGE: u64 = io(3, 4, 32);
const MOVE: u64 = io(3, 5, 40);

/// How often a move is tried again that lost a race.
const TRIES: u32 = 1000;

/// The descriptor of one address space.
pub(crate) struct Userfault {
    ours: OwnedFd,
    /// Its number in the agent.
    agents: u64,
    /// Shared with the table of pages that are away.
    table: std::sync::Arc<Mutex<Table>>,
    /// Pages of windows whose content was copied back, to be dropped before something moves there.
    stale: Mutex<BTreeSet<u64>>,
}

/// Whether this machine has what is needed, found out once.
pub(super) fn works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        // SAFETY: plain numbers; a descriptor that comes back is ours.
        let Ok(made) = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) }) else {
            return false;
        };
        // SAFETY: just made.
        let made = unsafe { OwnedFd::from_raw_fd(made as i32) };
        ask(made.as_fd(), UFFDIO_API, &mut [API, FEATURES, 0]).is_ok()
    })
}

fn ask(fd: BorrowedFd<'_>, request: u64, words: &mut [u64]) -> Result<(), Errno> {
    // SAFETY: every request here reads and writes a record of `u64`s of the size that its number states,
    // which the callers pass; addresses in it are the client's.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, words.as_mut_ptr()) };
    Errno::result(done).map(drop)
}

impl Userfault {
    /// Has the agent make a descriptor and send it over `socket`, of which it has the other end by
    /// this number.
    pub(crate) fn new(
        lane: &Lane,
        socket: BorrowedFd<'_>,
        theirs: u64,
        table: std::sync::Arc<Mutex<Table>>,
    ) -> Result<Userfault, Errno> {
        let mut turn = lane.turn();
        let gone = |_: Gone| Errno::ESRCH;
        let flags = FLAGS as u64;
        let made = turn.call(libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0]).map_err(gone)??;
        let agents = made.cast_unsigned();
        let record = turn.put(0, &[API, FEATURES, 0]);
        let call = [agents, UFFDIO_API, record, 0, 0, 0];
        turn.call(libc::SYS_ioctl, call).map_err(gone)??;
        // `struct msghdr`, its one part, its one control message.
        let at = CONTROL + place::BUFFER;
        let rights = u64::from(libc::SOL_SOCKET.cast_unsigned())
            | u64::from(libc::SCM_RIGHTS.cast_unsigned()) << 32;
        let message = [0, 0, at + 64, 1, at + 80, 24, 0, 0, at + 104, 1, 20, rights, agents, 0];
        let record = turn.put(0, &message);
        turn.call(libc::SYS_sendmsg, [theirs, record, 0, 0, 0, 0]).map_err(gone)??;
        drop(turn);
        let ours = fd::receive(socket).map_err(|_| Errno::EIO)?.ok_or(Errno::EIO)?;
        Ok(Userfault { ours, agents, table, stale: Mutex::default() })
    }

    /// The host's copy, to wait on.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// Has faults on missing pages of a range reported.
    pub(crate) fn register(&self, span: Span) -> Result<(), Errno> {
        ask(self.fd(), REGISTER, &mut [span.start, span.len(), MODE_MISSING, 0])
    }

    /// Ends that.
    pub(crate) fn unregister(&self, span: Span) {
        // What was unmapped meanwhile is registered no more.
        let _gone = ask(self.fd(), UNREGISTER, &mut [span.start, span.len()]);
    }

    /// Has threads that wait for a page try again.
    pub(crate) fn wake(&self, page: u64) {
        let _gone = ask(self.fd(), WAKE, &mut [page, PAGE]);
    }

    /// Gives an empty page to threads that wait for it.
    pub(crate) fn zero(&self, page: u64) {
        if ask(self.fd(), ZEROPAGE, &mut [page, PAGE, 0, 0]).is_err() {
            self.wake(page);
        }
    }

    /// Page and thread of the next fault, if there is one.
    pub(crate) fn fault(&self) -> Option<(u64, i32)> {
        let mut message = [0u8; 32];
        let read = nix::unistd::read(self.fd(), &mut message).ok()?;
        // `struct uffd_msg`: the event, then flags, address and thread.
        const PAGEFAULT: u8 = 0x12;
        let addr = u64::from_ne_bytes(message[16..24].try_into().ok()?);
        let thread = i32::from_ne_bytes(message[24..28].try_into().ok()?);
        (read == message.len() && message[0] == PAGEFAULT).then_some((addr & !(PAGE - 1), thread))
    }

    /// As [`super::Mover::out`].
    pub(super) fn out(&self, lane: &Lane, piece: Piece) -> Vec<u64> {
        let Piece { span, window, protection } = piece;
        let all = || (span.start..span.end).step_by(PAGE as usize).collect::<Vec<u64>>();
        let mut calls = self.drop_stale(window, span.len());
        calls.push(piece.populate());
        if !matches!(lane.turn().calls(&calls), Ok((_, None))) {
            return if span.len() == PAGE { all() } else { self.by_page(lane, piece) };
        }
        let watched = {
            let table = self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            table.is_watched(span)
        };
        if !watched {
            if self.register(span).is_err() {
                return all();
            }
            let mut table = self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            table.watch(span);
        }
        if protection & libc::PROT_WRITE as u64 != 0 {
            return self.transfer(lane, window, span.start, span.len(), true);
        }
        // Nobody can store to it, so a copy is as good; the kernel moves only what can be written.
        self.copy_away(lane, window, span.start, span.len()).map_or_else(|_| all(), |()| Vec::new())
    }

    fn by_page(&self, lane: &Lane, piece: Piece) -> Vec<u64> {
        (piece.span.start..piece.span.end)
            .step_by(PAGE as usize)
            .flat_map(|at| {
                let window = piece.window + (at - piece.span.start);
                self.out(lane, Piece { span: Span::new(at, at + PAGE), window, ..piece })
            })
            .collect()
    }

    /// As [`super::Mover::back`].
    pub(super) fn back(&self, lane: &Lane, piece: Piece) -> Vec<u64> {
        let Piece { span, window, protection } = piece;
        if self.copy_back(lane, piece) {
            return Vec::new();
        }
        if protection & libc::PROT_WRITE as u64 != 0 {
            let stay = self.transfer(lane, span.start, window, span.len(), false);
            return stay
                .into_iter()
                .map(|at| (at - window + span.start, at))
                .filter(|(at, from)| self.copy_away(lane, *at, *from, PAGE).is_err())
                .map(|(at, _)| at)
                .collect();
        }
        let pages = (span.start..span.end).step_by(PAGE as usize);
        match self.copy_away(lane, span.start, window, span.len()) {
            Ok(()) => Vec::new(),
            Err(_) => pages.collect(),
        }
    }

    /// A page alone of device memory, which nobody can reach by now, is copied: unlike a move that
    /// needs nothing of the agent. What is left of it in the window goes when the place is used
    /// again. An exclusive page moves, so that a stale translation does not find its data.
    fn copy_back(&self, lane: &Lane, piece: Piece) -> bool {
        let Piece { span, window, .. } = piece;
        if span.len() > PAGE || window >= HELD || client::way() != Way::ProcessVm {
            return false;
        }
        let mut page = [0u8; PAGE as usize];
        if client::read(Way::ProcessVm, lane.process(), window, &mut page).is_err() {
            return false;
        }
        let from = (&raw const page).addr() as u64;
        let copied = ask(self.fd(), COPY, &mut [span.start, from, PAGE, DONT_WAKE, 0]).is_ok();
        std::hint::black_box(&page);
        if copied {
            self.stale().insert(window);
        }
        copied
    }

    fn stale(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.stale.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The calls that empty a part of a window.
    fn drop_stale(&self, window: u64, len: u64) -> Vec<Request> {
        let mut stale = self.stale();
        let found: Vec<u64> = stale.range(window..window + len).copied().collect();
        let drop = |at: u64| {
            stale.remove(&at);
            (libc::SYS_madvise, [at, PAGE, libc::MADV_DONTNEED as u64, 0, 0, 0])
        };
        found.into_iter().map(drop).collect()
    }

    /// As [`super::Mover::across`].
    pub(super) fn across(&self, lane: &Lane, to: u64, from: u64, len: u64) -> bool {
        let calls = self.drop_stale(to, len);
        if !calls.is_empty() && !matches!(lane.turn().calls(&calls), Ok((_, None))) {
            return false;
        }
        self.transfer(lane, to, from, len, true).is_empty()
    }

    /// Moves pages; gives the source addresses of those that stay.
    fn transfer(&self, lane: &Lane, to: u64, from: u64, len: u64, holes: bool) -> Vec<u64> {
        let mut stay = Vec::new();
        let (mut done, mut tries) = (0, 0);
        let mut turn = lane.turn();
        while done < len {
            let mode = DONT_WAKE | if holes { ALLOW_HOLES } else { 0 };
            match self.one_move(&mut turn, to + done, from + done, len - done, mode) {
                Ok(moved) => done += moved,
                Err(Errno::EAGAIN) if tries < TRIES => tries += 1,
                Err(_) => {
                    stay.push(from + done);
                    done += PAGE;
                }
            }
        }
        stay
    }

    /// Bytes moved, or why none was.
    fn one_move(
        &self,
        turn: &mut Turn<'_>,
        to: u64,
        from: u64,
        len: u64,
        mode: u64,
    ) -> Result<u64, Errno> {
        let record = turn.put(0, &[to, from, len, mode, 0]);
        let call = [self.agents, MOVE, record, 0, 0, 0];
        match turn.call(libc::SYS_ioctl, call).map_err(|_| Errno::ESRCH)? {
            Ok(_) => Ok(len),
            Err(errno) => {
                let moved = turn.get(32).cast_signed();
                if moved > 0 { Ok(moved.cast_unsigned()) } else { Err(errno) }
            }
        }
    }

    /// Copies pages that nobody stores to, and drops the sources.
    fn copy_away(&self, lane: &Lane, to: u64, from: u64, len: u64) -> Result<(), Errno> {
        let mut turn = lane.turn();
        let record = turn.put(0, &[to, from, len, DONT_WAKE, 0]);
        let calls = [
            (libc::SYS_ioctl, [self.agents, COPY, record, 0, 0, 0]),
            (libc::SYS_madvise, [from, len, libc::MADV_DONTNEED as u64, 0, 0, 0]),
        ];
        match turn.calls(&calls).map_err(|_| Errno::ESRCH)? {
            (_, None) => Ok(()),
            (_, Some(errno)) => Err(errno),
        }
    }
}
