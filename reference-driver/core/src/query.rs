//! The query ioctl: capabilities, regions, counters.
//!
//! Owns the blocks it returns and the two-step rule for their size.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::{Caps, Query, Region};
use fencepost_uapi::{Errno, Record};

use crate::call::Call;
use crate::counters::COUNT;
use crate::device::Device;
use crate::facade::{Ordering, Vec};
use crate::host::Host;
use crate::sched::queue::MAX_TIMEOUT_MS;
use crate::svm;

/// Frequency of the timestamp command: it stores nanoseconds.
const TIMESTAMP_HZ: u64 = 1_000_000_000;

/// [`fp::QUERY`].
pub fn query<H: Host>(call: &Call<'_, H>, args: &mut Query) -> Result<i64, Errno> {
    let block = match args.query {
        fp::QUERY_CAPS => caps(call)?,
        fp::QUERY_REGIONS => regions(call.dev)?,
        _ => counters(call.dev)?,
    };
    let room = core::mem::replace(&mut args.size, block.len() as u64);
    if room == 0 {
        return Ok(0);
    }
    if room < block.len() as u64 {
        return Err(Errno::NOSPC);
    }
    call.write(args.data, &block)?;
    Ok(0)
}

fn append<R: Record>(block: &mut Vec<u8>, record: &R) -> Result<(), Errno> {
    let start = block.len();
    block.resize(start + R::SIZE, 0)?;
    record.encode(&mut block[start..]);
    Ok(())
}

fn caps<H: Host>(call: &Call<'_, H>) -> Result<Vec<u8>, Errno> {
    let dev = call.dev;
    let mut caps = fp::CAP_SPARSE
        | fp::CAP_NULL
        | fp::CAP_PREFETCH
        | fp::CAP_MADVISE
        | fp::CAP_PRIME
        | fp::CAP_USER_FENCE
        | fp::CAP_ATOMICS_DEVICE
        | fp::CAP_ATOMICS_SYSTEM
        | fp::CAP_FAULT_REPORT;
    if dev.config.vram_bytes > 0 {
        caps |= fp::CAP_EVICTION;
    }
    if dev.config.testing {
        caps |= fp::CAP_DEBUG;
    }
    if svm::ioctls::is_possible(call) {
        caps |= fp::CAP_SVM;
    }
    let mut block = Vec::new();
    append(
        &mut block,
        &Caps {
            caps,
            va_start: 0,
            va_end: fp::VA_END,
            page_sizes: 1 << 12 | 1 << 16 | 1 << 21,
            engines: dev.config.engines,
            max_ops: fp::MAX_OPS as u32,
            max_syncs: fp::MAX_SYNCS as u32,
            max_batches: fp::MAX_BATCHES as u32,
            max_timeout_ms: MAX_TIMEOUT_MS,
            pad: 0,
            timestamp_hz: TIMESTAMP_HZ,
        },
    )?;
    Ok(block)
}

fn regions<H: Host>(dev: &Device<H>) -> Result<Vec<u8>, Errno> {
    let region = |region, size, used| Region {
        region,
        flags: 0,
        size,
        used,
        min_page: fp::PAGE_SIZE,
        reserved: 0,
    };
    let mut block = Vec::new();
    let used = dev.system_used.load(Ordering::Relaxed);
    append(&mut block, &region(fp::REGION_SYSTEM, dev.config.system_bytes, used))?;
    if dev.config.vram_bytes > 0 {
        let used = dev.counters.get(crate::counters::Counter::LiveVramBytes);
        append(&mut block, &region(fp::REGION_VRAM, dev.config.vram_bytes, used))?;
    }
    Ok(block)
}

fn counters<H: Host>(dev: &Device<H>) -> Result<Vec<u8>, Errno> {
    // Who has unmapped something sees it gone.
    svm::devmem::drain(dev);
    let mut block = Vec::with_capacity(COUNT * 8)?;
    for value in dev.counters.all() {
        block.extend_from_slice(&value.to_ne_bytes())?;
    }
    Ok(block)
}
