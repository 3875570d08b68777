//! What a client of the smallest driver needs: its calls, and memory whose mappings it changes. Owns
//! the unsafe side of that, for tests that must not have any.

use std::sync::atomic::AtomicU64;

use nix::errno::Errno;

use super::super::arena::PAGE;
use super::{Ask, FIRST};

/// One call: the two results.
///
/// # Errors
/// The driver's.
pub fn ask(ask: Ask, addr: u64, len: u64, count: u64) -> Result<(u64, u64), Errno> {
    let mut words = [addr, len, count, 0, 0];
    // SAFETY: the driver reads and writes these five words.
    let done =
        unsafe { libc::ioctl(-1, libc::c_ulong::from(FIRST + ask as u32), words.as_mut_ptr()) };
    Errno::result(done)?;
    let [.., first, second] = std::hint::black_box(words);
    Ok((first, second))
}

/// Pages of this process that are never given back, wherever they are.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// Address of the first.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Pages {
    /// Maps private anonymous pages.
    ///
    /// # Errors
    /// Those of `mmap(2)`.
    pub fn map(len: u64) -> Result<Pages, Errno> {
        Self::map_at(0, len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
    }

    /// Maps anonymous pages with these flags.
    ///
    /// # Errors
    /// Those of `mmap(2)`.
    pub fn map_at(addr: u64, len: u64, flags: i32) -> Result<Pages, Errno> {
        let place = std::ptr::with_exposed_provenance_mut(addr as usize);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: tests replace only pages that they have mapped this way themselves.
        let got = unsafe { libc::mmap(place, len as usize, protection, flags, -1, 0) };
        if got == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Pages { addr: got.expose_provenance() as u64, len })
    }

    /// The first word of a page.
    ///
    /// # Panics
    /// Outside of the pages.
    #[must_use]
    pub fn word(&self, page: u64) -> &'static AtomicU64 {
        self.at(page * PAGE)
    }

    /// The word at an offset.
    ///
    /// # Panics
    /// Outside of the pages, or misaligned.
    #[must_use]
    pub fn at(&self, offset: u64) -> &'static AtomicU64 {
        assert!(offset < self.len && offset.is_multiple_of(8));
        let at = std::ptr::with_exposed_provenance_mut((self.addr + offset) as usize);
        // SAFETY: aligned, and mapped as long as the test leaves it so; otherwise the access ends the
        // process, as the test wants.
        unsafe { AtomicU64::from_ptr(at) }
    }

    /// A part of the pages.
    #[must_use]
    pub fn part(&self, page: u64, pages: u64) -> Pages {
        Pages { addr: self.addr + page * PAGE, len: pages * PAGE }
    }

    fn place(&self) -> *mut libc::c_void {
        std::ptr::with_exposed_provenance_mut(self.addr as usize)
    }

    /// `munmap(2)`.
    ///
    /// # Errors
    /// Its own.
    pub fn unmap(&self) -> Result<(), Errno> {
        // SAFETY: pages of the test, to which no reference is used from now on.
        Errno::result(unsafe { libc::munmap(self.place(), self.len as usize) }).map(drop)
    }

    /// `mprotect(2)`.
    ///
    /// # Errors
    /// Its own.
    pub fn protect(&self, protection: i32) -> Result<(), Errno> {
        // SAFETY: pages of the test.
        let done = unsafe { libc::mprotect(self.place(), self.len as usize, protection) };
        Errno::result(done).map(drop)
    }

    /// `madvise(2)`.
    ///
    /// # Errors
    /// Its own.
    pub fn advise(&self, advice: i32) -> Result<(), Errno> {
        // SAFETY: pages of the test.
        let done = unsafe { libc::madvise(self.place(), self.len as usize, advice) };
        Errno::result(done).map(drop)
    }

    /// `mlock(2)`.
    ///
    /// # Errors
    /// Its own.
    pub fn lock(&self) -> Result<(), Errno> {
        // SAFETY: pages of the test.
        Errno::result(unsafe { libc::mlock(self.place(), self.len as usize) }).map(drop)
    }

    /// `mremap(2)`, to an address if there is one.
    ///
    /// # Errors
    /// Its own.
    pub fn remap(&self, len: u64, flags: i32, to: u64) -> Result<Pages, Errno> {
        let target: *mut libc::c_void = std::ptr::with_exposed_provenance_mut(to as usize);
        // SAFETY: pages of the test, which uses the new place from now on.
        let got =
            unsafe { libc::mremap(self.place(), self.len as usize, len as usize, flags, target) };
        if got == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Pages { addr: got.expose_provenance() as u64, len })
    }
}

/// Runs `f` in a forked child; its exit status.
///
/// # Errors
/// Those of `fork(2)` and `waitpid(2)`.
pub fn forked(f: impl FnOnce() -> i32) -> Result<i32, Errno> {
    // SAFETY: the child only runs `f` and exits; tests that fork have one thread.
    let child = Errno::result(unsafe { libc::fork() })?;
    if child == 0 {
        let code = f();
        // SAFETY: ends the child.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the status lives.
    Errno::result(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) })
}

/// Number of mappings of this process.
#[must_use]
pub fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").map_or(0, |text| text.lines().count())
}
