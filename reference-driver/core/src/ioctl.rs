//! The ioctl table, and the way of a call from its number to its handler and back.
//!
//! Owns the dispatch as the DRM core's `drm_ioctl` does it: the low byte of the number selects the
//! row, whatever size the caller has; a shorter record is extended with zeros, the tail of a longer
//! one is ignored. For the driver's own calls the fields are then checked by their role in the
//! uAPI's table; the DRM core's calls check what the DRM core checks.

#[cfg(not(MODULE))]
use fencepost_uapi::drm;
use fencepost_uapi::ioctl as nr;
use fencepost_uapi::{fencepost as fp, Errno, Field, Record, Role};

use crate::call::Call;
use crate::counters::Counter;
use crate::debug::ioctls as debug;
#[cfg(not(MODULE))]
use crate::drm as core_drm;
use crate::facade::inject;
use crate::host::Host;
use crate::{gem, query, sched, svm, vm};

/// Fields are checked by their roles before the handler is called.
const CHECKED: u32 = 1;
/// Only for testing opens: `EPERM` before anything else.
const DEBUG: u32 = 2;
/// Not subject to the caller's armed allocation failure.
const QUIET: u32 = 4;

/// Largest record of any ioctl in bytes.
const MAX_RECORD: usize = 128;

macro_rules! ioctls {
    ($name:ident: $($request:path, $record:path, $flags:expr, $handler:path;)+) => {
        /// Finds the row of a number and runs its handler.
        fn $name<H: Host>(call: &Call<'_, H>, request: u32, arg: u64) -> Result<i64, Errno> {
            match nr::nr(request) {
                $(row if row == nr::nr($request) => {
                    run::<H, $record>(call, request, $request, arg, $flags, $handler)
                })+
                other => Err(refusal(other)),
            }
        }
    };
}

/// What the DRM core says to a number that nothing here answers. Its own calls that it does not open
/// to render nodes (no `DRM_RENDER_ALLOW` in `drm_ioctls`, drivers/gpu/drm/drm_ioctl.c: display,
/// authentication, global names) are refused there by `drm_ioctl_permit`; the rest is unknown.
const fn refusal(number: u32) -> Errno {
    match number {
        0x01..=0x02 | 0x05..=0x07 | 0x0a..=0x0b | 0x10..=0x13 | 0x1e..=0x1f => Errno::ACCES,
        0x27..=0x28 | 0x2c | 0x3a..=0x3c | 0x3f => Errno::ACCES,
        0xa0..=0xbe | 0xc6..=0xc9 | 0xce | 0xd0 => Errno::ACCES,
        _ => Errno::INVAL,
    }
}

#[cfg(not(MODULE))]
ioctls! {
    core:
    drm::VERSION,                 drm::Version,               0, core_drm::device::version;
    drm::GET_CAP,                 drm::GetCap,                0, core_drm::device::get_cap;
    drm::SET_CLIENT_CAP,          drm::SetClientCap,          0, core_drm::device::set_client_cap;
    drm::GEM_CLOSE,               drm::GemClose,              0, core_drm::prime::gem_close;
    drm::PRIME_HANDLE_TO_FD,      drm::PrimeHandle,           0, core_drm::prime::handle_to_fd;
    drm::PRIME_FD_TO_HANDLE,      drm::PrimeHandle,           0, core_drm::prime::fd_to_handle;
    drm::SYNCOBJ_CREATE,          drm::SyncobjCreate,         0, core_drm::syncobj::create;
    drm::SYNCOBJ_DESTROY,         drm::SyncobjDestroy,        0, core_drm::syncobj::destroy;
    drm::SYNCOBJ_HANDLE_TO_FD,    drm::SyncobjHandle,         0, core_drm::syncobj_fd::handle_to_fd;
    drm::SYNCOBJ_FD_TO_HANDLE,    drm::SyncobjHandle,         0, core_drm::syncobj_fd::fd_to_handle;
    drm::SYNCOBJ_WAIT,            drm::SyncobjWait,           0, core_drm::syncobj_wait::wait;
    drm::SYNCOBJ_TIMELINE_WAIT,   drm::SyncobjTimelineWait,   0, core_drm::syncobj_wait::timeline_wait;
    drm::SYNCOBJ_RESET,           drm::SyncobjArray,          0, core_drm::syncobj::reset;
    drm::SYNCOBJ_SIGNAL,          drm::SyncobjArray,          0, core_drm::syncobj::signal;
    drm::SYNCOBJ_QUERY,           drm::SyncobjTimelineArray,  0, core_drm::syncobj::query;
    drm::SYNCOBJ_TIMELINE_SIGNAL, drm::SyncobjTimelineArray,  0, core_drm::syncobj::timeline_signal;
    drm::SYNCOBJ_TRANSFER,        drm::SyncobjTransfer,       0, core_drm::syncobj::transfer;
}
ioctls! {
    driver:
    fp::QUERY,           fp::Query,         CHECKED,                 query::query;
    fp::GEM_CREATE,      fp::GemCreate,     CHECKED,                 gem::ioctls::create;
    fp::GEM_MMAP_OFFSET, fp::GemMmapOffset, CHECKED,                 gem::ioctls::mmap_offset;
    fp::GEM_INFO,        fp::GemInfo,       CHECKED,                 gem::ioctls::info;
    fp::VM_CREATE,       fp::VmCreate,      CHECKED,                 vm::ioctls::create;
    fp::VM_DESTROY,      fp::VmDestroy,     CHECKED,                 vm::ioctls::destroy;
    fp::VM_BIND,         fp::VmBind,        CHECKED,                 vm::bind::bind;
    fp::QUEUE_CREATE,    fp::QueueCreate,   CHECKED,                 sched::queue::create;
    fp::QUEUE_DESTROY,   fp::QueueDestroy,  CHECKED,                 sched::queue::destroy;
    fp::QUEUE_INFO,      fp::QueueInfo,     CHECKED,                 sched::queue::info;
    fp::EXEC,            fp::Exec,          CHECKED,                 sched::submit::exec;
    fp::WAIT_USER_FENCE, fp::WaitUserFence, CHECKED,                 sched::user_fence::wait;
    fp::FAULT_REPORT,    fp::FaultReport,   CHECKED,                 vm::ioctls::fault_report;
    fp::VA_DUMP,         fp::VaDump,        CHECKED,                 vm::dump::va_dump;
    fp::SVM_ATTR,        fp::SvmAttr,       CHECKED,                 svm::ioctls::attr;
    fp::SVM_MIGRATE,     fp::SvmMigrate,    CHECKED,                 svm::ioctls::migrate;
    fp::SVM_EXCLUSIVE,   fp::SvmExclusive,  CHECKED,                 svm::ioctls::exclusive;
    fp::SVM_QUERY,       fp::SvmQuery,      CHECKED,                 svm::ioctls::query;
    fp::DEBUG_OPEN,      fp::DebugOpen,     CHECKED | QUIET,         debug::open;
    fp::DEBUG_INJECT,    fp::DebugInject,   CHECKED | QUIET | DEBUG, debug::inject;
    fp::DEBUG_DELAY,     fp::DebugDelay,    CHECKED | QUIET | DEBUG, debug::delay;
    fp::DEBUG_EVICT,     fp::DebugEvict,    CHECKED | QUIET | DEBUG, debug::evict;
    fp::SVM_TUNE,        fp::SvmTune,       CHECKED | QUIET | DEBUG, svm::ioctls::tune;
    fp::SVM_FAULTS,      fp::SvmFaults,     CHECKED | QUIET | DEBUG, svm::ioctls::faults;
}

/// Runs one ioctl.
///
/// # Errors
/// `ENOTTY` for a number of another type; `EINVAL` for an unknown one; the handler's.
pub fn ioctl<H: Host>(call: &Call<'_, H>, request: u32, arg: u64) -> Result<i64, Errno> {
    call.dev.counters.inc(Counter::Ioctls);
    if nr::kind(request) != nr::DRM_TYPE {
        return Err(Errno::NOTTY);
    }
    match (nr::DRM_COMMAND_BASE..nr::DRM_COMMAND_END).contains(&nr::nr(request)) {
        true => driver(call, request, arg),
        // In the module Linux has answered it.
        #[cfg(MODULE)]
        false => Err(Errno::INVAL),
        #[cfg(not(MODULE))]
        false => core(call, request, arg),
    }
}

/// Copies the record in, checks it, calls the handler, copies the record out.
fn run<H: Host, R: Record>(
    call: &Call<'_, H>,
    request: u32,
    row: u32,
    arg: u64,
    flags: u32,
    handler: fn(&Call<'_, H>, &mut R) -> Result<i64, Errno>,
) -> Result<i64, Errno> {
    const { assert!(R::SIZE <= MAX_RECORD, "records fit the buffer") };
    if flags & DEBUG != 0 && !call.file.is_testing() {
        return Err(Errno::PERM);
    }
    let direction = nr::direction(request) & nr::direction(row);
    let size = nr::size(request).min(R::SIZE);
    let mut bytes = [0; MAX_RECORD];
    if direction & nr::WRITE != 0 {
        call.read(arg, &mut bytes[..size])?;
    }
    if flags & CHECKED != 0 {
        check_fields(R::FIELDS, &bytes)?;
    }
    let mut record = R::decode(&bytes);
    let result = match flags & QUIET != 0 {
        true => handler(call, &mut record),
        false => injected(call, || handler(call, &mut record)),
    };
    if direction & nr::READ != 0 {
        // As drm_ioctl: the record goes back even when the call failed.
        record.encode(&mut bytes);
        call.write(arg, &bytes[..size]).or(Err(result.err().unwrap_or(Errno::FAULT)))?;
    }
    result
}

/// Runs a handler under the allocation failure that its open file has armed.
fn injected<H: Host>(
    call: &Call<'_, H>,
    handler: impl FnOnce() -> Result<i64, Errno>,
) -> Result<i64, Errno> {
    let injection = call.file.injection(fp::INJECT_ALLOC);
    let before = injection.report().fired;
    let scope = inject::scope(injection.clone());
    let result = handler();
    drop(scope);
    if before == 0 && injection.report().fired != 0 {
        call.dev.counters.inc(Counter::Injected);
    }
    result
}

/// Checks the fields of a record by their roles.
///
/// # Errors
/// `EINVAL`.
pub fn check_fields(fields: &[Field], bytes: &[u8]) -> Result<(), Errno> {
    for field in fields {
        let raw = &bytes[field.offset..field.offset + field.size];
        let ok = match field.role {
            Role::Zero => raw.iter().all(|byte| *byte == 0),
            Role::Flags(mask) => number(raw) & !mask == 0,
            Role::Below(bound) => number(raw) < bound,
            Role::Count(bound) => number(raw) <= bound,
            Role::Page => number(raw) % fp::PAGE_SIZE == 0,
            Role::Stride => number(raw) % 8 == 0,
            Role::In | Role::Out | Role::InOut | Role::Handle(_) | Role::Pointer => true,
        };
        if !ok {
            return Err(Errno::INVAL);
        }
    }
    Ok(())
}

/// A field's value, in native byte order; fields with a checked value have 4 or 8 bytes.
fn number(raw: &[u8]) -> u64 {
    match *raw {
        [a, b, c, d] => u64::from(u32::from_ne_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}
