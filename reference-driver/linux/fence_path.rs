//! The fence path in the kernel: `dma_fence_begin_signalling` and its end, by which lockdep finds
//! allocations and locks that may wait for the very fence.
#![expect(unsafe_code, reason = "calls the C side")]

/// What `dma_fence_begin_signalling` returned.
pub(super) struct Cookie(bool);

unsafe extern "C" {
    safe fn fp_fence_path_begin() -> bool;
    fn fp_fence_path_end(cookie: bool);
}

pub(super) fn enter() -> Cookie {
    Cookie(fp_fence_path_begin())
}

pub(super) fn leave(cookie: &Cookie) {
    // SAFETY: the guard that holds the cookie is not `Send` in effect: it lives in one function.
    unsafe { fp_fence_path_end(cookie.0) }
}

/// Nobody counts.
pub(super) fn none_held() -> bool {
    true
}

/// Lockdep and might_sleep() see to it.
pub(super) fn assert_none_held() {}
