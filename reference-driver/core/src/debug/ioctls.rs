//! The calls of the debug group.
//!
//! Owns their checks; what is armed lives in the open file (failures) and the device (delay points).

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::{DebugDelay, DebugEvict, DebugInject, DebugOpen};
use fencepost_uapi::Errno;

use super::delay;
use crate::call::Call;
use crate::facade::Vec;
use crate::gem::evict::{self, lock_one};
use crate::gem::GemRef;
use crate::host::Host;
use crate::svm::migrate;

/// Longest time that a point stays armed.
const MAX_DELAY_MS: u32 = 60_000;

/// [`fp::DEBUG_OPEN`].
pub fn open<H: Host>(call: &Call<'_, H>, _args: &mut DebugOpen) -> Result<i64, Errno> {
    if !call.dev.config.testing {
        return Err(Errno::PERM);
    }
    call.file.set_testing();
    Ok(0)
}

/// [`fp::DEBUG_INJECT`].
pub fn inject<H: Host>(call: &Call<'_, H>, args: &mut DebugInject) -> Result<i64, Errno> {
    let report = call.file.injection(args.kind).arm(args.nth);
    args.seen = report.seen;
    args.fired = report.fired;
    Ok(0)
}

/// [`fp::DEBUG_DELAY`].
pub fn delay<H: Host>(call: &Call<'_, H>, args: &mut DebugDelay) -> Result<i64, Errno> {
    let takes_time = matches!(args.action, fp::DELAY_ARM | fp::DELAY_WAIT);
    let range = 1..=MAX_DELAY_MS;
    if takes_time != range.contains(&args.timeout_ms) || !takes_time && args.timeout_ms != 0 {
        return Err(Errno::INVAL);
    }
    let point = delay::find(&args.name).ok_or(Errno::NOENT)?;
    let host = &call.dev.host;
    let delays = &call.dev.delays;
    let until_ns = host.now_ns().saturating_add(u64::from(args.timeout_ms) * 1_000_000);
    match args.action {
        fp::DELAY_ARM => {
            delays.arm(point, call.file.id(), until_ns);
            host.wake();
        }
        fp::DELAY_RELEASE => {
            delays.release(point);
            host.wake();
        }
        fp::DELAY_WAIT => {
            let mut ready = || delays.is_held(point);
            if !host.wait_event(Some(call.task), Some(until_ns), &mut ready)? {
                return Err(Errno::TIME);
            }
        }
        _ => {}
    }
    let report = delays.report(point, host.now_ns());
    args.hits = report.hits;
    args.held = report.held;
    Ok(0)
}

/// [`fp::DEBUG_EVICT`].
pub fn evict<H: Host>(call: &Call<'_, H>, args: &mut DebugEvict) -> Result<i64, Errno> {
    if args.flags & fp::DEBUG_EVICT_SVM != 0 {
        if args.handle != 0 {
            return Err(Errno::INVAL);
        }
        args.bytes = migrate::evict_all(call.dev, 0) * fp::PAGE_SIZE;
        return Ok(0);
    }
    if args.handle != 0 {
        let gem = call.file.handles.gem(args.handle)?;
        if gem.placement & fp::REGION_SYSTEM == 0 {
            return Err(Errno::BUSY);
        }
        args.bytes = evict_one(call, &gem)?;
        return Ok(0);
    }
    let mut all: Vec<GemRef<H>> = Vec::new();
    // Room comes without the lock, which the end of a reference takes.
    loop {
        let wanted = call.dev.objects.lock().len();
        all.reserve(wanted)?;
        let objects = call.dev.objects.lock();
        if objects.len() > all.capacity() {
            continue;
        }
        for (_, gem) in objects.iter().filter(|(_, gem)| gem.placement & fp::REGION_SYSTEM != 0) {
            let fits = GemRef::try_get(gem).is_none_or(|gem| all.push_within_capacity(gem).is_ok());
            debug_assert!(fits, "there is room for all");
        }
        break;
    }
    args.bytes = 0;
    for gem in &all {
        args.bytes += evict_one(call, gem)?;
    }
    Ok(0)
}

fn evict_one<H: Host>(call: &Call<'_, H>, gem: &GemRef<H>) -> Result<u64, Errno> {
    let _lock = lock_one(call, gem)?;
    evict::evict(call, gem)
}
