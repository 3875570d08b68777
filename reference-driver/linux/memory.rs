//! Access to pages that CPU and GPU share: word by word, never as a reference, since others write
//! meanwhile.
//!
//! Owns nothing; the callers guarantee that the pages stay (see `world`).
#![expect(unsafe_code, reason = "memory that CPU and GPU share is reached by raw pointers")]

use crate::host::{Atomic, Width};
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicU8, Ordering};

/// The largest unit that both addresses are aligned to and that fits: 8, 4, 2 or 1 bytes.
fn unit(addresses: usize, left: usize) -> usize {
    let aligned = 1 << (addresses | 8).trailing_zeros();
    let mut unit = aligned;
    while unit > left {
        unit /= 2;
    }
    unit
}

/// One unit from memory that others may write.
///
/// # Safety
/// `at` is valid and aligned for `unit` bytes.
#[inline(always)]
unsafe fn load(at: *mut u8, unit: usize) -> u64 {
    // SAFETY: as the caller guarantees; all accesses of such memory by the kernel are atomic.
    unsafe {
        match unit {
            8 => AtomicU64::from_ptr(at.cast()).load(Ordering::Acquire),
            4 => AtomicU32::from_ptr(at.cast()).load(Ordering::Acquire).into(),
            2 => AtomicU16::from_ptr(at.cast()).load(Ordering::Acquire).into(),
            _ => AtomicU8::from_ptr(at).load(Ordering::Acquire).into(),
        }
    }
}

/// One unit to memory that others may read.
///
/// # Safety
/// `at` is valid and aligned for `unit` bytes.
#[inline(always)]
unsafe fn store(at: *mut u8, unit: usize, value: u64) {
    // SAFETY: as in `load`.
    unsafe {
        match unit {
            8 => AtomicU64::from_ptr(at.cast()).store(value, Ordering::Release),
            4 => AtomicU32::from_ptr(at.cast()).store(value as u32, Ordering::Release),
            2 => AtomicU16::from_ptr(at.cast()).store(value as u16, Ordering::Release),
            _ => AtomicU8::from_ptr(at).store(value as u8, Ordering::Release),
        }
    }
}

/// Bytes that are read or written in one step, by words.
const STEP: usize = 64;

/// How many bytes from the start go by whole words, so many bytes in a step, when both addresses are
/// aligned: pages are copied by this driver all the time, and the general way asks for the unit of
/// each word.
fn whole(addresses: usize, len: usize, step: usize) -> usize {
    if addresses % 8 == 0 {
        len / step * step
    } else {
        0
    }
}

/// Reads bytes; words of the natural alignment are not torn.
///
/// # Safety
/// `from` is valid for reads of `buf.len()` bytes.
pub(super) unsafe fn read(from: *mut u8, buf: &mut [u8]) {
    let mut done = whole(from as usize, buf.len(), STEP);
    for (index, part) in buf[..done].chunks_exact_mut(STEP).enumerate() {
        let at = from.wrapping_add(index * STEP);
        for (word, bytes) in part.chunks_exact_mut(8).enumerate() {
            // SAFETY: inside the caller's range, and aligned.
            let value = unsafe { load(at.wrapping_add(word * 8), 8) };
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }
    while done < buf.len() {
        let at = from.wrapping_add(done);
        let unit = unit(at as usize, buf.len() - done);
        // SAFETY: inside the caller's range, and aligned by the choice of the unit.
        let value = unsafe { load(at, unit) }.to_le_bytes();
        buf[done..done + unit].copy_from_slice(&value[..unit]);
        done += unit;
    }
}

/// Writes bytes; words of the natural alignment are not torn.
///
/// # Safety
/// `to` is valid for writes of `buf.len()` bytes.
pub(super) unsafe fn write(to: *mut u8, buf: &[u8]) {
    let mut done = whole(to as usize, buf.len(), STEP);
    for (index, part) in buf[..done].chunks_exact(STEP).enumerate() {
        let at = to.wrapping_add(index * STEP);
        for (word, bytes) in part.chunks_exact(8).enumerate() {
            let mut value = [0; 8];
            value.copy_from_slice(bytes);
            // SAFETY: inside the caller's range, and aligned.
            unsafe { store(at.wrapping_add(word * 8), 8, u64::from_le_bytes(value)) };
        }
    }
    while done < buf.len() {
        let at = to.wrapping_add(done);
        let unit = unit(at as usize, buf.len() - done);
        let mut value = [0; 8];
        value[..unit].copy_from_slice(&buf[done..done + unit]);
        // SAFETY: inside the caller's range, and aligned by the choice of the unit.
        unsafe { store(at, unit, u64::from_le_bytes(value)) };
        done += unit;
    }
}

/// Copies bytes, ascending.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes.
pub(super) unsafe fn copy(to: *mut u8, from: *mut u8, len: usize) {
    let mut done = whole(to as usize | from as usize, len, 8);
    for at in (0..done).step_by(8) {
        // SAFETY: inside the caller's ranges, and aligned.
        unsafe { store(to.wrapping_add(at), 8, load(from.wrapping_add(at), 8)) };
    }
    while done < len {
        let (source, target) = (from.wrapping_add(done), to.wrapping_add(done));
        let unit = unit(source as usize | target as usize, len - done);
        // SAFETY: inside the caller's ranges, and both aligned by the choice of the unit.
        unsafe { store(target, unit, load(source, unit)) };
        done += unit;
    }
}

/// Fills words.
///
/// # Safety
/// `to` is valid for writes of `len` bytes; it and `len` are multiples of the width.
pub(super) unsafe fn fill(to: *mut u8, len: usize, width: Width, value: u64) {
    let step = width.bytes() as usize;
    for done in (0..len).step_by(step) {
        // SAFETY: inside the caller's range.
        unsafe { store(to.wrapping_add(done), step, value) };
    }
}

/// Loads a word.
///
/// # Safety
/// `at` is valid and aligned for the width.
pub(super) unsafe fn load_word(at: *mut u8, width: Width) -> u64 {
    // SAFETY: as the caller guarantees.
    unsafe { load(at, width.bytes() as usize) }
}

/// Stores a word.
///
/// # Safety
/// `at` is valid and aligned for the width.
pub(super) unsafe fn store_word(at: *mut u8, width: Width, value: u64) {
    // SAFETY: as the caller guarantees.
    unsafe { store(at, width.bytes() as usize, value) }
}

/// Does an atomic operation, atomic against the CPU too, and returns the old value.
///
/// # Safety
/// `at` is valid and aligned for the width.
pub(super) unsafe fn atomic(at: *mut u8, width: Width, atomic: Atomic) -> u64 {
    match width {
        Width::Eight => {
            // SAFETY: as the caller guarantees.
            let word = unsafe { AtomicU64::from_ptr(at.cast()) };
            let change = |old| atomic.apply(old, width);
            match word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change) {
                Ok(old) | Err(old) => old,
            }
        }
        Width::Four => {
            // SAFETY: as the caller guarantees.
            let word = unsafe { AtomicU32::from_ptr(at.cast()) };
            let change = |old| atomic.apply(u64::from(old), width).map(|new| new as u32);
            match word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change) {
                Ok(old) | Err(old) => old.into(),
            }
        }
    }
}
