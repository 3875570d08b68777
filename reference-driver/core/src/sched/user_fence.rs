//! Waiting for a word of user memory.
//!
//! Owns the comparison and the rules of the wait's end.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::WaitUserFence;
use fencepost_uapi::Errno;

use crate::call::Call;
use crate::counters::Counter;
use crate::facade::Arc;
use crate::host::Host;
use crate::sched::queue::Queue;

/// [`fp::WAIT_USER_FENCE`].
pub fn wait<H: Host>(call: &Call<'_, H>, args: &mut WaitUserFence) -> Result<i64, Errno> {
    if args.addr % 8 != 0 || args.mask == 0 {
        return Err(Errno::INVAL);
    }
    let queue = match args.queue_id {
        0 => None,
        id => Some(call.file.queue(id)?),
    };
    let host = &call.dev.host;
    let is_absolute = args.flags & fp::WAIT_ABSOLUTE != 0;
    let deadline = u64::try_from(args.timeout_ns).ok().map(|timeout| match is_absolute {
        true => timeout,
        false => host.now_ns().saturating_add(timeout),
    });
    if let Some(done) = look(call, args, queue.as_ref()) {
        return done;
    }
    call.dev.counters.inc(Counter::FencesWaited);
    let mut result = Err(Errno::TIME);
    let mut ready = || match look(call, args, queue.as_ref()) {
        Some(done) => {
            result = done;
            true
        }
        None => false,
    };
    let waited = host.wait_event(Some(call.task), deadline, &mut ready);
    if let (Err(_), Some(deadline), false) = (&waited, deadline, is_absolute) {
        args.timeout_ns = deadline.saturating_sub(host.now_ns()) as i64;
    }
    // The rest of a relative time was written back, so the call must not start anew as it was.
    waited.map_err(|_| Errno::INTR)?;
    result
}

/// `None`: go on waiting.
fn look<H: Host>(
    call: &Call<'_, H>,
    args: &WaitUserFence,
    queue: Option<&Arc<Queue<H>>>,
) -> Option<Result<i64, Errno>> {
    let mut bytes = [0; 8];
    if let Err(errno) = call.read(args.addr, &mut bytes) {
        return Some(Err(errno));
    }
    let (seen, wanted) = (u64::from_ne_bytes(bytes) & args.mask, args.value);
    let holds = match args.op {
        fp::WAIT_OP_EQ => seen == wanted,
        fp::WAIT_OP_NEQ => seen != wanted,
        fp::WAIT_OP_GT => seen > wanted,
        fp::WAIT_OP_GTE => seen >= wanted,
        fp::WAIT_OP_LT => seen < wanted,
        _ => seen <= wanted,
    };
    if holds {
        return Some(Ok(0));
    }
    queue.is_some_and(|queue| queue.is_banned()).then_some(Err(Errno::IO))
}
