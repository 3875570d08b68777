//! Histories: what was put into one place by whom, and which of it can still be seen.
//!
//! Memory cells have histories of writes, addresses of a VM have histories of translations; both
//! follow the one rule of [`visible`].

use super::clock::{Clock, Clocks, Event};

/// Something put into a place at some time.
pub(super) trait Dated {
    /// When.
    fn at(&self) -> Event;

    /// Whether it takes away, for certain, what was there before.
    fn overwrites(&self) -> bool;
}

/// The entries that a look at event `at` may still see: `w` is out when an entry `v` overwrites it
/// with `w` before `v` before the look, or when the look is before `w`. `None` looks after
/// everything. Known entries come first, then those racing with the look.
///
/// Entries of one timeline must be in their order.
pub(super) fn visible<'a, T: Dated>(
    clocks: &Clocks,
    history: &'a [T],
    at: Option<Event>,
) -> Vec<&'a T> {
    if let [only] = history {
        // The usual case: everybody agrees on the last write.
        return vec![only];
    }
    let mut hidden_from: Vec<(u16, u32)> = Vec::new();
    let mut racing = Vec::new();
    let mut known: Vec<&T> = Vec::new();
    // Backwards, so that each timeline's last overwriting entry hides its earlier ones at once.
    for entry in history.iter().rev() {
        let when = entry.at();
        let before = match at {
            None => true,
            Some(at) if when == at || clocks.before(at, when) => continue,
            Some(at) => clocks.before(when, at),
        };
        if !before {
            racing.push(entry);
            continue;
        }
        let hidden = |(line, from): &(u16, u32)| *line == when.timeline && when.index < *from;
        if hidden_from.iter().any(hidden) {
            continue;
        }
        if entry.overwrites() {
            hidden_from.push((when.timeline, when.index));
        }
        known.push(entry);
    }
    let over: Vec<Event> = known.iter().filter(|v| v.overwrites()).map(|v| v.at()).collect();
    let hidden = |w: &T| over.iter().any(|v| clocks.before(w.at(), *v));
    let mut visible: Vec<&T> = known.iter().filter(|w| !hidden(w)).copied().collect();
    visible.reverse();
    racing.reverse();
    visible.extend(racing);
    visible
}

/// Drops what nobody can see any more: what was overwritten within the horizon.
pub(super) fn prune<T: Dated>(history: &mut Vec<T>, clocks: &Clocks, horizon: &Clock) {
    const ALWAYS: usize = 8;
    // Long histories are looked at each time their length doubles, so that recording stays cheap.
    if history.len() < 2 || (history.len() > ALWAYS && !history.len().is_power_of_two()) {
        return;
    }
    let over: Vec<Event> = history
        .iter()
        .filter(|v| v.overwrites() && horizon.covers(v.at()))
        .map(Dated::at)
        .collect();
    if !over.is_empty() {
        history.retain(|w| !over.iter().any(|v| clocks.before(w.at(), *v)));
    }
}
