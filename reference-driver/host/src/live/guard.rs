//! Keeps a panic of the driver from taking the runner with it. Owns the process's panic hook, chained
//! to the one before: panics inside the driver are recorded, all others are reported as usual.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// `Some` while this thread is inside a driver: what its panic said.
    static INSIDE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `f`; a panic comes back as its message and place.
pub(crate) fn guard<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    install();
    let outer = INSIDE.replace(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(f));
    let said = INSIDE.replace(outer).unwrap_or_default();
    result.map_err(|payload| if said.is_empty() { text(&*payload).to_owned() } else { said })
}

fn install() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let recorded = INSIDE.with_borrow_mut(|inside| {
                inside.as_mut().map(|said| {
                    let place = info.location().map(|at| format!(" at {at}")).unwrap_or_default();
                    *said = format!("{}{place}", text(info.payload()));
                })
            });
            if recorded.is_none() {
                before(info);
            }
        }));
    });
}

fn text(payload: &dyn Any) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_as_text_and_place() {
        assert_eq!(guard(|| 7), Ok(7));
        let said = guard(|| panic!("boom {}", 1)).unwrap_err();
        assert!(said.starts_with("boom 1 at ") && said.contains("guard.rs:"), "{said}");
        let nested = guard(|| guard(|| panic!("inner")).map_or(3, |()| 4));
        assert_eq!(nested, Ok(3));
    }
}
