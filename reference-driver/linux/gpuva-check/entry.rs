//! What gpuvm.c calls: a command's text comes in, its answer goes out.
//!
//! Owns the crossing only; `command` of the crate's root does the work.
#![expect(unsafe_code, reason = "called by C with raw pointers; each function says what it needs")]

use crate::{command, Answer};
use core::ffi::{c_char, c_int, c_void};
use kernel::prelude::*;

/// Runs a command, from gpuvm.c.
///
/// # Safety
/// `text` is valid for `len` bytes, the others for writes.
#[no_mangle]
unsafe extern "C" fn fpg_rust_command(
    text: *const u8,
    len: usize,
    kept: *mut *mut c_void,
    bytes: *mut *const c_char,
    size: *mut usize,
) -> c_int {
    // SAFETY: as the caller guarantees.
    let text = unsafe { core::slice::from_raw_parts(text, len) };
    let answer = command(text).and_then(|answer| Ok(KBox::new(answer, GFP_KERNEL)?));
    match answer {
        Ok(answer) => {
            // SAFETY: as the caller guarantees; the bytes stay as long as the box.
            unsafe {
                *bytes = answer.0.as_ptr().cast();
                *size = answer.0.len();
                *kept = KBox::into_raw(answer).cast();
            }
            0
        }
        Err(error) => error.to_errno(),
    }
}

/// Frees an answer.
///
/// # Safety
/// `kept` comes from `fpg_rust_command`, once.
#[no_mangle]
unsafe extern "C" fn fpg_rust_free(kept: *mut c_void) {
    // SAFETY: as the caller guarantees.
    drop(unsafe { KBox::from_raw(kept.cast::<Answer>()) });
}
