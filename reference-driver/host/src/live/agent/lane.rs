//! The host's end of the shared page: gives the agent commands and waits for their results. Owns the
//! mapping and who may use it when; what a command is for is the callers'.
//!
//! One command is in hand at a time. None of them waits for the host, so a caller may hold locks.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fencepost_core::host::{Atomic, BusError, Step, Width};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use super::layout::{CONTROL, CONTROL_SIZE, Command, lane};

/// How often either side looks before it sleeps; a look takes some 50 ns.
const LOOKS: u32 = 40;
/// How long the host sleeps before it asks whether the agent lives.
const DOUBT: Duration = Duration::from_millis(20);

/// A system call for the agent: number and arguments.
pub(crate) type Request = (i64, [u64; 6]);

/// The host's end.
pub(crate) struct Lane {
    memory: NonNull<u8>,
    turn: Mutex<()>,
    process: i32,
    thread: AtomicI32,
    dead: AtomicBool,
    /// Commands given so far.
    messages: AtomicU64,
}

// SAFETY: the mapping lives as long as the lane, and is reached by atomics only.
unsafe impl Send for Lane {}
// SAFETY: as for `Send`.
unsafe impl Sync for Lane {}

/// The agent is gone, and its address space with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

impl From<Gone> for BusError {
    fn from(_: Gone) -> BusError {
        BusError
    }
}

/// The lane in the hands of one caller.
pub(crate) struct Turn<'a> {
    lane: &'a Lane,
    _alone: MutexGuard<'a, ()>,
}

impl Lane {
    /// A lane to the agent of a process; gives the memory that the agent is to map.
    pub(crate) fn new(process: i32, thread: i32) -> Result<(Lane, OwnedFd), Errno> {
        let memfd = memfd_create(c"fencepost-agent", MFdFlags::MFD_CLOEXEC)?;
        ftruncate(&memfd, CONTROL_SIZE.cast_signed())?;
        let (size, fd) = (CONTROL_SIZE as usize, memfd.as_fd().as_raw_fd());
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping of our own file, wherever there is room.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_SHARED, fd, 0) };
        if memory == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let memory = NonNull::new(memory.cast()).ok_or(Errno::ENOMEM)?;
        let lane = Lane {
            memory,
            turn: Mutex::default(),
            process,
            thread: AtomicI32::new(thread),
            dead: AtomicBool::new(false),
            messages: AtomicU64::new(0),
        };
        lane.half(lane::LOOKS).store(LOOKS, Ordering::Relaxed);
        Ok((lane, memfd))
    }

    fn half(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset < CONTROL_SIZE);
        // SAFETY: aligned, within the mapping, which lives as long as `self`; both sides use atomics or
        // single instructions.
        unsafe { self.memory.byte_add(offset as usize).cast().as_ref() }
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < CONTROL_SIZE);
        // SAFETY: as in `half`.
        unsafe { self.memory.byte_add(offset as usize).cast().as_ref() }
    }

    /// Waits for the lane.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let alone = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Turn { lane: self, _alone: alone }
    }

    /// Commands given so far.
    pub(crate) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// The agent's process.
    pub(crate) fn process(&self) -> i32 {
        self.process
    }

    /// The agent's thread id.
    pub(crate) fn thread(&self) -> i32 {
        self.thread.load(Ordering::Relaxed)
    }

    /// Whether the agent is gone.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed) || self.look_for_death()
    }

    /// As seen now. A thread that is no process's first is gone at once when it ends.
    fn look_for_death(&self) -> bool {
        // SAFETY: plain numbers; signal 0 is none.
        let found = unsafe { libc::syscall(libc::SYS_tgkill, self.process, self.thread(), 0) };
        let dead = found < 0 && Errno::last() == Errno::ESRCH;
        if dead {
            self.dead.store(true, Ordering::Relaxed);
        }
        dead
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more. Failing to unmap leaks
        // address space, no more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), CONTROL_SIZE as usize) };
    }
}

impl Turn<'_> {
    /// Has a command done: its result, and whether it faulted.
    fn run(&mut self, command: Command, arguments: [u64; 4]) -> Result<(u64, bool), Gone> {
        let lane = self.lane;
        if lane.dead.load(Ordering::Relaxed) {
            return Err(Gone);
        }
        lane.messages.fetch_add(1, Ordering::Relaxed);
        lane.half(lane::COMMAND).store(command as u32, Ordering::Relaxed);
        for (index, argument) in (0..).zip(arguments) {
            lane.word(lane::ARGUMENTS + 8 * index).store(argument, Ordering::Relaxed);
        }
        let request = lane.half(lane::REQUEST);
        let number = request.load(Ordering::Relaxed).wrapping_add(1);
        request.store(number, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if lane.half(lane::ASLEEP).load(Ordering::SeqCst) != 0 {
            let _woken = futex(request, libc::FUTEX_WAKE, 1, None);
        }
        self.wait(number)?;
        let result = lane.word(lane::RESULT).load(Ordering::Relaxed);
        Ok((result, lane.word(lane::FAULTED).load(Ordering::Relaxed) != 0))
    }

    fn wait(&self, number: u32) -> Result<(), Gone> {
        let response = self.lane.half(lane::RESPONSE);
        for _ in 0..LOOKS {
            if response.load(Ordering::Acquire) == number {
                return Ok(());
            }
            std::hint::spin_loop();
        }
        let waiting = self.lane.half(lane::WAITING);
        waiting.store(1, Ordering::SeqCst);
        let end = loop {
            let seen = response.load(Ordering::SeqCst);
            if seen == number {
                break Ok(());
            }
            let slept = futex(response, libc::FUTEX_WAIT, seen, Some(DOUBT));
            if slept == Err(Errno::ETIMEDOUT) && self.lane.look_for_death() {
                break if response.load(Ordering::SeqCst) == number { Ok(()) } else { Err(Gone) };
            }
        };
        waiting.store(0, Ordering::Relaxed);
        end
    }

    fn access(&mut self, command: Command, arguments: [u64; 4]) -> Result<u64, BusError> {
        match self.run(command, arguments)? {
            (value, false) => Ok(value),
            (_, true) => Err(BusError),
        }
    }

    // ---- system calls --------------------------------------------------------------------------

    /// Has system calls made in turn, up to the first that fails: their number, and its error. The
    /// errors of calls that give addresses are told from those.
    pub(crate) fn calls(&mut self, calls: &[Request]) -> Result<(usize, Option<Errno>), Gone> {
        let mut done = 0;
        for part in calls.chunks(lane::MAX_CALLS as usize) {
            for (at, (number, arguments)) in (lane::CALLS..).step_by(64).zip(part) {
                self.lane.word(at).store(number.cast_unsigned(), Ordering::Relaxed);
                for (index, argument) in (1..).zip(arguments) {
                    self.lane.word(at + 8 * index).store(*argument, Ordering::Relaxed);
                }
            }
            let count = part.len() as u64;
            let first = CONTROL + lane::CALLS;
            let (good, _) = self.run(Command::Calls, [first, count, 0, 0])?;
            done += good as usize;
            if good < count {
                let result = self.result(good as usize);
                return Ok((done, Some(Errno::from_raw(-(result as i32)))));
            }
        }
        Ok((done, None))
    }

    /// Result of a call of the last [`Turn::calls`], by its place.
    pub(crate) fn result(&self, index: usize) -> i64 {
        let at = lane::CALLS + 64 * index as u64 + 56;
        self.lane.word(at).load(Ordering::Relaxed).cast_signed()
    }

    /// Has one system call made.
    pub(crate) fn call(
        &mut self,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<Result<i64, Errno>, Gone> {
        let (_, error) = self.calls(&[(number, arguments)])?;
        Ok(error.map_or_else(|| Ok(self.result(0)), Err))
    }

    // ---- data ----------------------------------------------------------------------------------

    /// Puts words into the buffer; gives their address for the agent. `place` is an offset there.
    pub(crate) fn put(&mut self, place: u64, words: &[u64]) -> u64 {
        for (at, word) in (lane::BUFFER + place..).step_by(8).zip(words) {
            self.lane.word(at).store(*word, Ordering::Relaxed);
        }
        CONTROL + lane::BUFFER + place
    }

    /// A word of the buffer.
    pub(crate) fn get(&self, place: u64) -> u64 {
        self.lane.word(lane::BUFFER + place).load(Ordering::Relaxed)
    }

    // ---- accesses ------------------------------------------------------------------------------

    /// Loads a word.
    pub(crate) fn load(&mut self, addr: u64, width: Width) -> Result<u64, BusError> {
        let command = if width == Width::Four { Command::Load4 } else { Command::Load8 };
        self.access(command, [addr, 0, 0, 0])
    }

    /// Stores a word.
    pub(crate) fn store(&mut self, addr: u64, width: Width, value: u64) -> Result<(), BusError> {
        let command = if width == Width::Four { Command::Store4 } else { Command::Store8 };
        self.access(command, [addr, value, 0, 0]).map(drop)
    }

    /// Does an atomic; the old value.
    pub(crate) fn atomic(
        &mut self,
        addr: u64,
        width: Width,
        atomic: Atomic,
    ) -> Result<u64, BusError> {
        let command = if width == Width::Four { Command::Atomic4 } else { Command::Atomic8 };
        self.access(command, [addr, atomic.op.into(), atomic.operand, atomic.compare])
    }

    /// Copies between addresses of the client.
    pub(crate) fn copy(&mut self, to: u64, from: u64, len: u64) -> Result<(), BusError> {
        self.access(Command::Copy, [to, from, len, 0]).map(drop)
    }

    /// Fills with a word.
    pub(crate) fn fill(
        &mut self,
        addr: u64,
        len: u64,
        width: Width,
        value: u64,
    ) -> Result<(), BusError> {
        self.access(Command::Fill, [addr, len, value, width.bytes()]).map(drop)
    }

    /// Does steps, again and again; how many were done.
    pub(crate) fn steps(
        &mut self,
        steps: &[(Step, u64)],
        repeat: u32,
        registers: &mut [u64; 16],
    ) -> Option<u64> {
        const STEPS: u64 = 128;
        let file = self.put(0, registers);
        let mut first = 0;
        for (place, (step, addr)) in (STEPS..).step_by(32).zip(steps) {
            let at = self.put(place, &words(*step, *addr));
            first = if place == STEPS { at } else { first };
        }
        let arguments = [first, steps.len() as u64, repeat.into(), file];
        let (done, _) = self.run(Command::Loop, arguments).ok()?;
        for (place, register) in (0..).step_by(8).zip(registers) {
            *register = self.get(place);
        }
        Some(done)
    }

    /// Reads bytes.
    pub(crate) fn read(&mut self, addr: u64, buf: &mut [u8]) -> Result<(), BusError> {
        let (mut at, skew) = (addr, addr % 8);
        for part in buf.chunks_mut(lane::BUFFER_SIZE as usize - 8) {
            let place = CONTROL + lane::BUFFER + skew;
            self.copy(place, at, part.len() as u64)?;
            self.take(lane::BUFFER + skew, part);
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Writes bytes.
    pub(crate) fn write(&mut self, addr: u64, buf: &[u8]) -> Result<(), BusError> {
        let (mut at, skew) = (addr, addr % 8);
        for part in buf.chunks(lane::BUFFER_SIZE as usize - 8) {
            self.give(lane::BUFFER + skew, part);
            self.copy(at, CONTROL + lane::BUFFER + skew, part.len() as u64)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    // The agent is not at work meanwhile: bytes of the buffer need no order.

    /// Copies bytes out of the buffer.
    fn take(&self, offset: u64, bytes: &mut [u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let word = self.lane.word(at - at % 8).load(Ordering::Relaxed).to_ne_bytes();
            let part = &word[(at % 8) as usize..];
            let len = part.len().min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(&part[..len]);
            (at, rest) = (at + len as u64, later);
        }
    }

    /// Copies bytes into the buffer.
    fn give(&mut self, offset: u64, bytes: &[u8]) {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let word = self.lane.word(at - at % 8);
            let first = (at % 8) as usize;
            let len = (8 - first).min(rest.len());
            let mut whole = word.load(Ordering::Relaxed).to_ne_bytes();
            whole[first..first + len].copy_from_slice(&rest[..len]);
            word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
            (at, rest) = (at + len as u64, &rest[len..]);
        }
    }
}

/// A step as the agent reads it.
fn words(step: Step, addr: u64) -> [u64; 4] {
    let wide = |kind: u64, width: Width| kind + u64::from(width == Width::Eight);
    let (kind, register, result, op, operand, compare) = match step {
        Step::Load { width, register, .. } => (wide(0, width), register, 0, 0, 0, 0),
        Step::Store { width, value, .. } => (wide(2, width), 0, 0, 0, value, 0),
        Step::StoreRegister { width, register, .. } => (wide(4, width), register, 0, 0, 0, 0),
        Step::Atomic { width, atomic, result, .. } => {
            let (has, register) = (u64::from(result.is_some()), result.unwrap_or(0));
            (wide(6, width), register, has, atomic.op.into(), atomic.operand, atomic.compare)
        }
        Step::AddRegister { register, value } => (8, register, 0, 0, value, 0),
        Step::Fence => (9, 0, 0, 0, 0, 0),
    };
    [kind | u64::from(register & 15) << 8 | result << 16 | op << 24, addr, operand, compare]
}

/// `futex(2)` on memory that processes share.
fn futex(
    word: &AtomicU32,
    operation: i32,
    value: u32,
    limit: Option<Duration>,
) -> Result<i64, Errno> {
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().cast_signed(),
        tv_nsec: libc::c_long::from(limit.subsec_nanos().cast_signed()),
    });
    let at = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word and the time live through the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, at) })
}
