//! Calls that change a client's mappings: each is made by the agent, between the begin and the end of
//! an invalidation, as Linux brackets it with its notifiers. Owns the knowledge of what each call ends.
//!
//! Three of them cannot be made by another: `fork` and `exec`, whose end nobody tells, and `mmap` of a file
//! over a mapping, whose descriptor the agent has not. Before the first two everything that is away is
//! brought back. In the place of the old mapping the agent puts one that gives nothing, and the caller's
//! own call replaces that.

use std::sync::Arc;

use fencepost_core::gpuva::Span;
use fencepost_core::host::mirror::Event;
use nix::errno::Errno;

use super::super::agent::lane::Request;
use super::super::agent::layout::{CODE, DATA, HANDLER, SIGACTION, data};
use super::super::arena::PAGE;
use super::super::sys::client::{self, Way};
use super::super::sys::notify::{Answer, Call};
use super::exec::{Exec, is_borrowed};
use super::fork::Fork;
use super::is_prepared;
use super::space::{END, Space};

/// What becomes of pages that are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    /// They go with their mapping.
    Unmapped,
    /// Their content goes, the mapping stays.
    Dropped,
    /// They stay away.
    Stay,
    /// They are brought back before.
    Back,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Effect {
    span: Span,
    /// `None`: translations stay good.
    event: Option<Event>,
    away: Away,
}

/// The pages of a range as a call gives it; `None`: the kernel refuses it, or it is empty.
fn range(start: u64, len: u64) -> Option<Span> {
    let len = len.checked_next_multiple_of(PAGE)?;
    let end = start.checked_add(len)?;
    (start.is_multiple_of(PAGE) && len > 0 && end <= END).then(|| Span::new(start, end))
}

/// Makes a call of a client, or has it made. The caller has found that it may change mappings.
pub(crate) fn serve(space: &Arc<Space>, call: &Call, way: Way) -> Answer {
    match call.nr {
        nr if is_fork(call, way) => fork(space, call, nr),
        libc::SYS_execve | libc::SYS_execveat => exec(space, call),
        libc::SYS_mmap => map(space, call),
        libc::SYS_mremap => remap(space, call),
        libc::SYS_brk => set_break(space, call),
        nr => match effect(space, nr, &call.args) {
            Some(effect) => run(space, &[effect], request(call)),
            None => Answer::Continue,
        },
    }
}

fn request(call: &Call) -> Request {
    (call.nr, call.args)
}

fn effect(space: &Space, nr: i64, args: &[u64; 6]) -> Option<Effect> {
    let everything = Span::new(0, END);
    let (span, event, away) = match nr {
        libc::SYS_munmap => (range(args[0], args[1])?, Some(Event::Unmap), Away::Unmapped),
        libc::SYS_mprotect | libc::SYS_pkey_mprotect => {
            (range(args[0], args[1])?, Some(Event::ProtectionVma), Away::Back)
        }
        libc::SYS_madvise => {
            let (event, away) = advice(args[2] as i32);
            (range(args[0], args[1])?, event, away)
        }
        libc::SYS_shmdt => {
            let found = space.kernel.at_or_after(args[0]).ok()?;
            (found.span, Some(Event::Unmap), Away::Unmapped)
        }
        libc::SYS_mlock | libc::SYS_mlock2 => (range(args[0], args[1])?, None, Away::Back),
        libc::SYS_mlockall => (everything, None, Away::Back),
        _ => return None,
    };
    Some(Effect { span, event, away })
}

/// What advice does to translations and to pages that are away.
fn advice(advice: i32) -> (Option<Event>, Away) {
    /// `MADV_DONTNEED_LOCKED`, `MADV_COLLAPSE`, `MADV_GUARD_INSTALL`.
    const DONTNEED_LOCKED: i32 = 24;
    const COLLAPSE: i32 = 25;
    const GUARD_INSTALL: i32 = 102;
    match advice {
        libc::MADV_DONTNEED | DONTNEED_LOCKED => (Some(Event::Clear), Away::Dropped),
        // Device memory is not freed lazily.
        libc::MADV_FREE => (Some(Event::Clear), Away::Stay),
        libc::MADV_REMOVE | libc::MADV_PAGEOUT | COLLAPSE | GUARD_INSTALL => {
            (Some(Event::Clear), Away::Back)
        }
        libc::MADV_NORMAL
        | libc::MADV_RANDOM
        | libc::MADV_SEQUENTIAL
        | libc::MADV_WILLNEED
        | libc::MADV_COLD => (None, Away::Stay),
        _ => (None, Away::Back),
    }
}

/// Has the agent make a call that has these effects.
fn run(space: &Arc<Space>, effects: &[Effect], request: Request) -> Answer {
    let entered = space.enter();
    let answer = run_entered(space, effects, request);
    drop(entered);
    answer
}

fn run_entered(space: &Arc<Space>, effects: &[Effect], request: Request) -> Answer {
    let begin =
        |effect: &Effect| effect.event.map(|event| space.notifiers.begin(effect.span, event, 0));
    let begun: Vec<_> = effects.iter().map(begin).collect();
    for effect in effects.iter().filter(|effect| effect.away == Away::Back) {
        space.restore(effect.span);
        space.unwatch(effect.span);
    }
    let (number, arguments) = request;
    let made = space.lane.turn().call(number, arguments);
    let answer = match made {
        Ok(Ok(value)) => {
            for effect in effects {
                match effect.away {
                    Away::Unmapped => space.dropped(effect.span, false),
                    Away::Dropped => space.dropped(effect.span, true),
                    Away::Stay | Away::Back => {}
                }
            }
            Answer::Value(value)
        }
        Ok(Err(errno)) => Answer::Error(errno as i32),
        // The process is about to end.
        Err(_) => Answer::Continue,
    };
    drop(begun);
    answer
}

/// `mmap` over what is there.
fn map(space: &Arc<Space>, call: &Call) -> Answer {
    let [start, len, _, flags, ..] = call.args;
    let Some(span) = range(start, len) else { return Answer::Continue };
    let effect = Effect { span, event: Some(Event::Unmap), away: Away::Unmapped };
    let anonymous = libc::MAP_ANONYMOUS as u64;
    if flags & anonymous != 0 {
        return run(space, &[effect], request(call));
    }
    let nothing = anonymous | (libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE) as u64;
    let place = (call.nr, [start, span.len(), libc::PROT_NONE as u64, nothing, u64::MAX, 0]);
    let _made = run(space, &[effect], place);
    Answer::Continue
}

fn remap(space: &Arc<Space>, call: &Call) -> Answer {
    let [old, old_len, new_len, flags, new, _] = call.args;
    let Some(new_span) = range(0, new_len) else { return Answer::Continue };
    let unmap = |span: Span, away: Away| Effect { span, event: Some(Event::Unmap), away };
    let mut effects = Vec::new();
    let source = range(old, old_len);
    if flags & libc::MREMAP_FIXED as u64 != 0 {
        let Some(target) = range(new, new_span.end) else { return Answer::Continue };
        effects.push(unmap(target, Away::Unmapped));
    } else if let Some(source) = source {
        let entered = space.enter();
        // Its mapping must be one again for the kernel.
        space.restore(source);
        space.unwatch(source);
        if new_span.end < source.len() {
            let tail = Span::new(source.start + new_span.end, source.end);
            return run_entered(space, &[unmap(tail, Away::Unmapped)], request(call));
        }
        // In its place nothing ends.
        let keep = flags & !(libc::MREMAP_MAYMOVE as u64);
        let stay = (call.nr, [old, old_len, new_len, keep, 0, 0]);
        let moves = flags & libc::MREMAP_DONTUNMAP as u64 != 0;
        if !moves {
            match space.lane.turn().call(stay.0, stay.1) {
                Ok(Err(Errno::ENOMEM)) if flags != keep => {}
                Ok(Ok(value)) => return Answer::Value(value),
                Ok(Err(errno)) => return Answer::Error(errno as i32),
                Err(_) => return Answer::Continue,
            }
        }
        drop(entered);
    }
    if let Some(source) = source {
        effects.push(unmap(source, Away::Back));
    }
    run(space, &effects, request(call))
}

/// `brk`: only a shrinking heap ends something.
fn set_break(space: &Arc<Space>, call: &Call) -> Answer {
    let entered = space.enter();
    let now = match space.lane.turn().call(call.nr, [0; 6]) {
        Ok(Ok(now)) => now.cast_unsigned().next_multiple_of(PAGE),
        _ => return Answer::Continue,
    };
    let wanted = call.args[0].checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
    let mut effects = Vec::new();
    if wanted > 0 && wanted < now {
        let span = Span::new(wanted, now);
        effects.push(Effect { span, event: Some(Event::Unmap), away: Away::Unmapped });
    }
    let answer = run_entered(space, &effects, request(call));
    drop(entered);
    answer
}

/// Whether a call makes a process with a copy of the address space.
fn is_fork(call: &Call, way: Way) -> bool {
    let shares = |flags: u64| flags & libc::CLONE_VM as u64 != 0;
    match call.nr {
        #[cfg(target_arch = "x86_64")]
        libc::SYS_fork => true,
        libc::SYS_clone => !shares(call.args[0]),
        libc::SYS_clone3 => {
            // The first word of `struct clone_args` has the flags.
            let mut flags = [0; 8];
            let read = client::read(way, call.tid, call.args[0], &mut flags);
            read.is_ok() && !shares(u64::from_ne_bytes(flags))
        }
        _ => false,
    }
}

fn fork(space: &Arc<Space>, call: &Call, _: i64) -> Answer {
    bring_all_back(space, Event::ProtectionPage, || space.forks(Fork::begin(call.tid)))
}

/// Should it fail, the process goes on as it was.
fn exec(space: &Arc<Space>, call: &Call) -> Answer {
    bring_all_back(space, Event::Clear, || space.execs(Exec::begin(call.tid)))
}

/// Ends all translations, and `note`s why before anybody makes new ones.
fn bring_all_back(space: &Arc<Space>, event: Event, note: impl FnOnce()) -> Answer {
    let entered = space.enter();
    let everything = Span::new(0, END);
    let begun = space.notifiers.begin(everything, event, 0);
    space.restore(everything);
    space.unwatch(everything);
    note();
    drop(begun);
    drop(entered);
    Answer::Continue
}

/// `rt_sigaction` of `SIGSEGV` or `SIGBUS`: where the agent's handler is, the program's own is kept for
/// it to go on to.
pub(crate) fn sigaction(call: &Call, way: Way) -> Answer {
    let [signal, new, old, size, ..] = call.args;
    if size != 8 || !is_prepared(call.tid, way) {
        return Answer::Continue;
    }
    // The actions of a child are its own; where they would be kept is its parent's.
    if new != 0 && is_borrowed(call.tid, way) {
        return Answer::Continue;
    }
    let index = u64::from(signal != libc::SIGSEGV as u64);
    let slot = DATA + data::HANDLERS + index * SIGACTION;
    let (mut before, mut after) = ([0; SIGACTION as usize], [0; SIGACTION as usize]);
    let copied = || -> Result<bool, Errno> {
        client::read(way, call.tid, slot, &mut before)?;
        if new != 0 {
            client::read(way, call.tid, new, &mut after)?;
            if after[..8] == (CODE + HANDLER).to_ne_bytes() {
                return Ok(false);
            }
        }
        if old != 0 {
            client::write(way, call.tid, old, &before)?;
        }
        if new != 0 {
            client::write(way, call.tid, slot, &after)?;
        }
        Ok(true)
    };
    match { copied }() {
        Ok(true) => Answer::Value(0),
        Ok(false) => Answer::Continue,
        Err(_) => Answer::Error(libc::EFAULT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_that_the_kernel_takes() {
        assert_eq!(range(0x1000, 1), Some(Span::new(0x1000, 0x2000)));
        for (start, len) in [(0x1001, 0x1000), (0x1000, 0), (u64::MAX - 0xfff, 0x1000), (0, !0)] {
            assert_eq!(range(start, len), None, "{start:#x} {len:#x}");
        }
    }

    #[test]
    fn advice_that_frees_ends_translations() {
        assert_eq!(advice(libc::MADV_DONTNEED), (Some(Event::Clear), Away::Dropped));
        assert_eq!(advice(libc::MADV_WILLNEED), (None, Away::Stay));
        assert_eq!(advice(libc::MADV_HUGEPAGE), (None, Away::Back));
    }
}
