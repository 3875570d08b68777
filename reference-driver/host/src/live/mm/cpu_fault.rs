//! A client's CPU touches a page that is away. Owns what follows: the driver moves it back, or the
//! page stops being exclusive, and the access is tried again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fencepost_core::gpuva::Span;
use fencepost_core::host::mirror::Event;

use super::super::arena::PAGE;
use super::super::sys::notify::Answer;
use super::moved::Place;
use super::space::{END, Entered, Space};

/// A fault, during the driver's callback.
pub(crate) struct CpuFault {
    pub(crate) space: Arc<Space>,
    /// The page.
    pub(crate) page: u64,
    /// Held from the look at the page to the migration.
    pub(crate) entered: Option<Entered>,
}

/// What becomes of the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is tried again.
    Again,
    /// The page is where it should be: the fault has another reason.
    NotAway,
    /// The page does not come back.
    Lost,
}

/// Serves a fault at a page.
pub(crate) fn serve(space: &Arc<Space>, page: u64) -> Outcome {
    loop {
        let entered = space.enter();
        let place = space.table().get(page).map(|moved| moved.place.clone());
        match place {
            None => return Outcome::NotAway,
            Some(Place::Held { locked: true, .. }) => {
                drop(entered);
                space.wait_for_change();
                continue;
            }
            Some(Place::Held { .. }) => {
                release(space, page);
                return Outcome::Again;
            }
            Some(Place::Device { home, frame, .. }) => {
                space.faults.fetch_add(1, Ordering::Relaxed);
                let mut fault = CpuFault { space: Arc::clone(space), page, entered: Some(entered) };
                let done = home.call(|sink| sink.cpu_fault(&mut fault, page, frame));
                drop(fault);
                // A driver that did not move it hears of it again, with the next try of the access.
                let again = matches!(done, Some(Ok(())));
                return if again { Outcome::Again } else { Outcome::Lost };
            }
        }
    }
}

/// Serves faults at all pages of a range that are away; true when there were some.
pub(crate) fn serve_range(space: &Arc<Space>, addr: u64, len: u64) -> bool {
    let span = Span::new(addr & !(PAGE - 1), addr.saturating_add(len));
    let away: Vec<u64> = {
        let table = space.table();
        table.pages().range(span.start..span.end.max(span.start)).map(|(page, _)| *page).collect()
    };
    let back = away.iter().filter(|page| serve(space, **page) == Outcome::Again);
    back.count() > 0
}

/// A client's thread took a signal for an access: 0, it is to try again; 1, the fault is its own.
pub(crate) fn signalled(
    space: &Arc<Space>,
    tid: i32,
    addr: u64,
    error: u64,
    signal: u64,
) -> Answer {
    /// Bits of the error code of an x86 page fault.
    const WRITE: u64 = 2;
    const FETCH: u64 = 16;
    let page = addr & !(PAGE - 1);
    if signal != libc::SIGSEGV as u64 || page >= END {
        return Answer::Value(1);
    }
    match serve(space, page) {
        Outcome::Again => Answer::Value(0),
        Outcome::NotAway => {
            // It may have come back since.
            let _entered = space.enter();
            let allowed = space.mapping(page).is_ok_and(|mapping| {
                mapping.span.start <= page
                    && match (error & WRITE != 0, error & FETCH != 0) {
                        (true, _) => mapping.write,
                        (_, true) => mapping.execute,
                        _ => mapping.read,
                    }
            });
            Answer::Value(i64::from(!allowed))
        }
        Outcome::Lost => {
            // The signal waits until the handler of the other one returns.
            fail(space, tid);
            Answer::Value(0)
        }
    }
}

/// The access that a thread waits in fails: `SIGBUS`, as of `migrate_to_ram`.
pub(crate) fn fail(space: &Space, thread: i32) {
    // SAFETY: plain numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, space.process, thread, libc::SIGBUS) };
}

/// An exclusive page becomes the client's again. The caller has entered the space.
pub(crate) fn release(space: &Arc<Space>, page: u64) {
    let span = Span::new(page, page + PAGE);
    let runs = space.table().runs(span);
    let _begun = space.notifiers.begin(span, Event::Clear, 0);
    for run in runs {
        space.move_back(&run);
    }
}
