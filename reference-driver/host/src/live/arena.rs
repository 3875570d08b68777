//! The memory behind a device: one sparse memfd in which every buffer object has a region of its own,
//! at the fake offset that clients pass to `mmap`. Owns the memfd, the host's mapping of it and the
//! allocation of regions; whose pages they are is [`super::vram`]'s and the driver's.
//!
//! Clients write this memory at any time, so it is reached only through atomics: never through a
//! reference to plain bytes. Regions are not reused, with gaps between, so that a stale
//! address leads nowhere rather than into a newer object.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::ftruncate;

/// Size of a page of the arena in bytes.
pub(crate) const PAGE: u64 = 4096;
/// First offset, as `DRM_FILE_PAGE_OFFSET_START` of the DRM core on 64-bit. Filters rely on it.
pub(crate) const START: u64 = 1 << 32;
/// Regions start at multiples of this, so that large GPU pages are possible.
const ALIGN: u64 = 2 << 20;
/// Address space of one device in bytes; smaller is tried when a machine limits it.
const SIZES: [u64; 4] = [1 << 42, 1 << 40, 1 << 38, 1 << 36];

/// Memory of one device.
#[derive(Debug)]
pub(crate) struct Arena {
    memfd: OwnedFd,
    base: NonNull<u8>,
    size: u64,
    next: AtomicU64,
}

// SAFETY: `base` points to a mapping that lives as long as the arena and is accessed by atomics only.
unsafe impl Send for Arena {}
// SAFETY: as for `Send`.
unsafe impl Sync for Arena {}

impl Arena {
    /// Makes the memory. Costs no memory yet.
    pub(crate) fn new() -> Result<Arena, Errno> {
        let memfd = create()?;
        let mut failure = Errno::ENOMEM;
        for size in SIZES {
            match map(&memfd, size) {
                Ok(base) => {
                    // Clients hold the file too: they must not change its size.
                    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
                    let seals = seals | SealFlag::F_SEAL_SEAL;
                    fcntl(memfd.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
                    return Ok(Arena { memfd, base, size, next: AtomicU64::new(START) });
                }
                Err(errno) => failure = errno,
            }
        }
        Err(failure)
    }

    /// The file.
    pub(crate) fn memfd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }

    /// Its size in words.
    pub(crate) fn describe(&self) -> String {
        format!("{} GiB of address space a device", self.size >> 30)
    }

    /// Takes a fresh region of zeros; gives its offset.
    pub(crate) fn allocate(&self, size: u64) -> Result<u64, Errno> {
        let step = size.checked_next_multiple_of(ALIGN).and_then(|n| n.checked_add(ALIGN));
        let step = step.ok_or(Errno::ENOMEM)?;
        let take = |next: u64| next.checked_add(step).filter(|end| *end <= self.size);
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map_err(|_| Errno::ENOMEM)
    }

    /// Gives memory of a range back to the system; it reads as zeros afterwards.
    pub(crate) fn punch(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(self.memfd.as_fd(), flags, offset.cast_signed(), len.cast_signed())
    }

    /// The address of `len` bytes at `offset`, which lie within the mapping.
    fn at(&self, offset: u64, len: u64) -> Result<NonNull<u8>, Errno> {
        let end = offset.checked_add(len).ok_or(Errno::EFAULT)?;
        if end > self.size {
            return Err(Errno::EFAULT);
        }
        let offset = usize::try_from(offset).map_err(|_| Errno::EFAULT)?;
        // SAFETY: within the mapping of `size` bytes, as just checked.
        Ok(unsafe { self.base.byte_add(offset) })
    }

    /// The 64-bit word at `offset`, a multiple of 8.
    pub(crate) fn word(&self, offset: u64) -> Result<&AtomicU64, Errno> {
        let at = self.at(offset, 8)?.cast::<AtomicU64>();
        if !at.is_aligned() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: aligned, inside a mapping that lives as long as `self`, and every access to it, by
        // us and by clients' hardware, is tolerated by an atomic.
        Ok(unsafe { at.as_ref() })
    }

    /// The 32-bit word at `offset`, a multiple of 4.
    pub(crate) fn half(&self, offset: u64) -> Result<&AtomicU32, Errno> {
        let at = self.at(offset, 4)?.cast::<AtomicU32>();
        if !at.is_aligned() {
            return Err(Errno::EINVAL);
        }
        // SAFETY: as in `word`.
        Ok(unsafe { at.as_ref() })
    }

    /// The byte at `offset`.
    fn byte(&self, offset: u64) -> Result<&AtomicU8, Errno> {
        let at = self.at(offset, 1)?.cast::<AtomicU8>();
        // SAFETY: as in `word`; bytes are always aligned.
        Ok(unsafe { at.as_ref() })
    }

    /// Reads bytes; aligned words come whole.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Errno> {
        self.at(offset, buf.len() as u64)?;
        let mut at = offset;
        for part in pieces(offset, buf.len()) {
            let to = (at - offset) as usize;
            match part {
                8 => buf[to..to + 8]
                    .copy_from_slice(&self.word(at)?.load(Ordering::Relaxed).to_ne_bytes()),
                4 => buf[to..to + 4]
                    .copy_from_slice(&self.half(at)?.load(Ordering::Relaxed).to_ne_bytes()),
                _ => buf[to] = self.byte(at)?.load(Ordering::Relaxed),
            }
            at += part;
        }
        // What is read after this happened after what the writer had published before.
        fence(Ordering::Acquire);
        Ok(())
    }

    /// Writes bytes; aligned words go whole.
    pub(crate) fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Errno> {
        self.at(offset, buf.len() as u64)?;
        fence(Ordering::Release);
        let mut at = offset;
        for part in pieces(offset, buf.len()) {
            let from = &buf[(at - offset) as usize..];
            match part {
                8 => self.word(at)?.store(u64::from_ne_bytes(first(from)), Ordering::Relaxed),
                4 => self.half(at)?.store(u32::from_ne_bytes(first(from)), Ordering::Relaxed),
                _ => self.byte(at)?.store(from[0], Ordering::Relaxed),
            }
            at += part;
        }
        Ok(())
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more. Failing to unmap leaks
        // address space, no more.
        let _unmapped = unsafe { munmap(self.base.cast(), self.size as usize) };
    }
}

/// The first `N` bytes of a slice that is known to have them.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut all = [0; N];
    all.copy_from_slice(&bytes[..N]);
    all
}

/// Cuts a range into the largest aligned words: 8, 4 or 1 bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = u64> {
    let (mut at, end) = (offset, offset + len as u64);
    std::iter::from_fn(move || {
        let part = [8, 4].into_iter().find(|n| at.is_multiple_of(*n) && end - at >= *n);
        let part = part.unwrap_or(1);
        (at < end).then(|| {
            at += part;
            part
        })
    })
}

fn create() -> Result<OwnedFd, Errno> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Machines may insist on files that cannot be executed (vm.memfd_noexec); kernels before 6.3 do
    // not know the flag.
    let noexec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    match memfd_create(c"fencepost", flags | noexec) {
        Err(Errno::EINVAL) => memfd_create(c"fencepost", flags),
        result => result,
    }
}

fn map(memfd: &OwnedFd, size: u64) -> Result<NonNull<u8>, Errno> {
    ftruncate(memfd, size.cast_signed())?;
    let len = usize::try_from(size).ok().and_then(std::num::NonZero::new).ok_or(Errno::ENOMEM)?;
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    unsafe { mmap(None, len, prot, flags, memfd, 0) }.map(NonNull::cast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_apart_zeroed_and_readable_at_any_alignment() {
        let arena = Arena::new().unwrap();
        let (a, b) = (arena.allocate(3 * PAGE).unwrap(), arena.allocate(PAGE).unwrap());
        assert!(a >= START && b >= a + 3 * PAGE + PAGE && a.is_multiple_of(ALIGN));
        let bytes: Vec<u8> = (0..100).collect();
        for (start, len) in [(0, 100), (1, 99), (3, 5), (4, 12), (7, 1), (5, 0)] {
            let mut seen = vec![0xff; len];
            arena.write(a + 8, &[0; 100]).unwrap();
            arena.write(a + start as u64, &bytes[..len]).unwrap();
            arena.read(a + start as u64, &mut seen).unwrap();
            assert_eq!(seen, bytes[..len], "{len} bytes at {start}");
        }
        let mut seen = [1; 16];
        arena.read(b, &mut seen).unwrap();
        assert_eq!(seen, [0; 16]);
    }

    #[test]
    fn nothing_outside_is_reachable() {
        let arena = Arena::new().unwrap();
        for offset in [arena.size, arena.size - 7, u64::MAX - 3] {
            assert!(arena.word(offset).is_err(), "{offset:#x}");
            assert!(arena.read(offset, &mut [0; 8]).is_err(), "{offset:#x}");
            assert!(arena.write(offset, &[0; 8]).is_err(), "{offset:#x}");
        }
        assert_eq!(arena.word(START + 4).unwrap_err(), Errno::EINVAL);
        assert_eq!(arena.allocate(u64::MAX - 8).unwrap_err(), Errno::ENOMEM);
        assert_eq!(arena.allocate(arena.size).unwrap_err(), Errno::ENOMEM);
    }

    #[test]
    fn punched_memory_reads_as_zeros() {
        let arena = Arena::new().unwrap();
        let at = arena.allocate(2 * PAGE).unwrap();
        arena.word(at).unwrap().store(7, Ordering::Relaxed);
        arena.word(at + PAGE).unwrap().store(8, Ordering::Relaxed);
        arena.punch(at, PAGE).unwrap();
        assert_eq!(arena.word(at).unwrap().load(Ordering::Relaxed), 0);
        assert_eq!(arena.word(at + PAGE).unwrap().load(Ordering::Relaxed), 8);
    }
}
