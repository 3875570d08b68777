//! The calls of SVM.
//!
//! Owns their checks; what they do stands in the other parts.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::{SvmAttr, SvmExclusive, SvmFaults, SvmMigrate, SvmQuery, SvmTune};
use fencepost_uapi::Errno;

use super::attrs::Attr;
use super::buffer::{MAX_BATCH, MAX_ENTRIES};
use super::Inside;
use crate::call::Call;
use crate::counters::Counter;
use crate::gpuva::Span;
use crate::host::Host;

/// Longest wait for faults.
const MAX_WAIT_MS: u32 = 60_000;
/// Longest range of a query in bytes.
const MAX_QUERY: u64 = 1 << 30;

/// Whether the caller's address space can be mirrored.
pub fn is_possible<H: Host>(call: &Call<'_, H>) -> bool {
    call.dev.host.can_mirror(call.task)
}

/// Runs a call in the gate of a VM that takes faults.
fn inside<H: Host, T>(
    call: &Call<'_, H>,
    vm_id: u32,
    f: impl FnOnce(&Inside<'_, H>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let vm = call.file.vm(vm_id)?;
    if vm.svm.is_none() {
        return Err(Errno::OPNOTSUPP);
    }
    if !vm.try_hold() {
        return Err(Errno::NOENT);
    }
    let result = Inside::enter(&vm, call.task)
        .and_then(|inside| f(inside.as_ref().ok_or(Errno::OPNOTSUPP)?));
    vm.unhold();
    result
}

/// A range of a call, within the VM.
fn span_of<H: Host>(inside: &Inside<'_, H>, start: u64, size: u64) -> Result<Span, Errno> {
    let span = Span::sized(start, size).ok_or(Errno::INVAL)?;
    inside.vm.span.contains(span).then_some(span).ok_or(Errno::INVAL)
}

/// [`fp::SVM_ATTR`].
pub fn attr<H: Host>(call: &Call<'_, H>, args: &mut SvmAttr) -> Result<i64, Errno> {
    inside(call, args.vm_id, |inside| {
        let span = span_of(inside, args.start, args.size)?;
        if args.op == fp::SVM_ATTR_GET {
            args.value = inside.get_attr(span, args.attr);
            return Ok(());
        }
        Attr::check(args.attr, args.value)?;
        inside.set_attr(span, args.attr, args.value)
    })?;
    Ok(0)
}

/// [`fp::SVM_MIGRATE`].
pub fn migrate<H: Host>(call: &Call<'_, H>, args: &mut SvmMigrate) -> Result<i64, Errno> {
    let strict = args.flags & fp::SVM_MIGRATE_STRICT != 0;
    args.pages = 0;
    args.pages = inside(call, args.vm_id, |inside| {
        let span = span_of(inside, args.start, args.size)?;
        match args.region {
            fp::REGION_VRAM if strict => inside.all_to_device(span),
            fp::REGION_VRAM => inside.to_device(span),
            fp::REGION_SYSTEM if strict => inside.all_to_system(span),
            fp::REGION_SYSTEM => inside.to_system(span),
            _ => Err(Errno::INVAL),
        }
    })?;
    Ok(0)
}

/// [`fp::SVM_EXCLUSIVE`].
pub fn exclusive<H: Host>(call: &Call<'_, H>, args: &mut SvmExclusive) -> Result<i64, Errno> {
    args.pages = 0;
    inside(call, args.vm_id, |inside| {
        let span = span_of(inside, args.start, args.size)?;
        let mut covered = span.start;
        while covered < span.end {
            covered = inside.mirror_at(covered).ok_or(Errno::INVAL)?.end;
        }
        for page in (span.start..span.end).step_by(fp::PAGE_SIZE as usize) {
            let mirror = inside.mirror_at(page).ok_or(Errno::INVAL)?;
            if inside.attr_at(page).atomic == fp::SVM_ATOMIC_CPU {
                return Err(Errno::ACCES);
            }
            inside.make_exclusive(page, mirror).map_err(|errno| match errno {
                Errno::NOENT | Errno::PERM => Errno::FAULT,
                Errno::IO => Errno::OPNOTSUPP,
                errno => errno,
            })?;
            args.pages += 1;
        }
        Ok(0)
    })
}

/// [`fp::SVM_QUERY`].
pub fn query<H: Host>(call: &Call<'_, H>, args: &mut SvmQuery) -> Result<i64, Errno> {
    let pages = inside(call, args.vm_id, |inside| {
        let span = span_of(inside, args.start, args.size)?;
        match span.len() <= MAX_QUERY {
            true => inside.query(span),
            false => Err(Errno::INVAL),
        }
    })?;
    call.write(args.pages, &pages)?;
    Ok(0)
}

/// [`fp::SVM_TUNE`].
pub fn tune<H: Host>(call: &Call<'_, H>, args: &mut SvmTune) -> Result<i64, Errno> {
    if !is_possible(call) {
        return Err(Errno::OPNOTSUPP);
    }
    let buffer = &call.dev.svm.buffer;
    let set = args.flags & fp::SVM_TUNE_SET != 0;
    let value = args.value;
    let upto = |most: usize| match usize::try_from(value) {
        Ok(value) if (1..=most).contains(&value) => Ok(Some(value)),
        _ => Err(Errno::INVAL),
    };
    match args.param {
        fp::SVM_TUNE_FAULT_ENTRIES => {
            args.value = buffer.report().room;
            if set {
                buffer.tune(call.file.id(), upto(MAX_ENTRIES)?, None);
            }
        }
        fp::SVM_TUNE_FAULT_BATCH => {
            args.value = buffer.batch() as u64;
            if set {
                buffer.tune(call.file.id(), None, upto(MAX_BATCH)?);
            }
        }
        param => {
            let mut tunes = call.file.tunes();
            args.value = tunes.get(param);
            if set {
                tunes.set(param, value)?;
                call.file.set_tunes(tunes);
            }
        }
    }
    Ok(0)
}

/// [`fp::SVM_FAULTS`].
pub fn faults<H: Host>(call: &Call<'_, H>, args: &mut SvmFaults) -> Result<i64, Errno> {
    if !is_possible(call) {
        return Err(Errno::OPNOTSUPP);
    }
    let waits = args.action == fp::SVM_FAULTS_WAIT;
    let time = (1..=MAX_WAIT_MS).contains(&args.timeout_ms);
    if waits != time || !waits && (args.timeout_ms != 0 || args.entries != 0) {
        return Err(Errno::INVAL);
    }
    let (dev, host) = (call.dev, &call.dev.host);
    let buffer = &dev.svm.buffer;
    match args.action {
        fp::SVM_FAULTS_PAUSE => buffer.pause(call.file.id()),
        fp::SVM_FAULTS_RESUME => buffer.resume(),
        fp::SVM_FAULTS_FLUSH => flush(call),
        fp::SVM_FAULTS_WAIT => {
            let until_ns = host.now_ns().saturating_add(u64::from(args.timeout_ms) * 1_000_000);
            let wanted = args.entries;
            let mut ready = || buffer.report().entries >= wanted;
            if !host.wait_event(Some(call.task), Some(until_ns), &mut ready)? {
                return Err(Errno::TIME);
            }
        }
        _ => {}
    }
    host.wake();
    let report = buffer.report();
    args.entries = report.entries;
    args.put = report.put;
    args.get = report.get;
    args.room = report.room;
    args.parked = dev.counters.get(Counter::LiveParked);
    args.paused = u64::from(report.paused);
    Ok(0)
}

/// Drops the entries there are and lets their accesses be tried again.
fn flush<H: Host>(call: &Call<'_, H>) {
    // Those that come meanwhile stay.
    let there = call.dev.svm.buffer.report().entries;
    for _ in 0..there {
        let Some(entry) = call.dev.svm.buffer.flush_one() else { break };
        if entry.park.replay() {
            call.dev.counters.dec(Counter::LiveParked);
        }
    }
    call.dev.counters.inc(Counter::SvmReplays);
}
