//! Notifiers: the windows in which the CPU's address space reports changes, what the driver does then,
//! and the collecting of what was unmapped.
//!
//! Owns the windows of a VM and the invalidation. A window has the size that the VM was tuned to, is
//! aligned to it, comes with its first range and goes with its last.

use fencepost_uapi::Errno;

use super::range::{Ranges, Zap};
use super::{exclusive_owner, Inside};
use crate::counters::Counter;
use crate::device::Device;
use crate::driver::Step;
use crate::facade::{Arc, Ordering, Slab, SortedMap, Vec};
use crate::gpuva::Span;
use crate::host::mirror::{Event, Invalidation};
use crate::host::Host;
use crate::vm::Vm;

/// Who an invalidation is for.
pub struct Hook<H: Host> {
    vm: Arc<Vm<H>>,
    window: Span,
}

impl<H: Host> Clone for Hook<H> {
    fn clone(&self) -> Self {
        Hook { vm: self.vm.clone(), window: self.window }
    }
}

/// A window with its notifier.
pub struct Window<H: Host> {
    span: Span,
    cookie: u32,
    notifier: H::Notifier,
}

impl<H: Host> Window<H> {
    /// Its addresses.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The world's part of it.
    pub fn notifier(&self) -> &H::Notifier {
        &self.notifier
    }

    /// Opens a window.
    ///
    /// # Errors
    /// `ENOMEM`, `EFAULT`.
    pub fn open(vm: &Arc<Vm<H>>, mm: &H::Mm, span: Span) -> Result<Self, Errno> {
        let dev = vm.dev();
        let hook = Hook { vm: vm.clone(), window: span };
        let cookie = Slab::insert_locked(&dev.svm.hooks, |hooks| hooks, hook)?;
        match dev.host.notifier_insert(mm, span, u64::from(cookie)) {
            Ok(notifier) => {
                dev.counters.inc(Counter::LiveNotifiers);
                Ok(Window { span, cookie, notifier })
            }
            Err(errno) => {
                let hook = dev.svm.hooks.lock().remove(cookie);
                drop(hook);
                Err(errno)
            }
        }
    }

    /// Closes it; invalidations under way have returned then. No lock is held.
    pub fn remove(self, dev: &Device<H>) {
        dev.host.notifier_remove(self.notifier);
        let hook = dev.svm.hooks.lock().remove(self.cookie);
        dev.counters.dec(Counter::LiveNotifiers);
        drop(hook);
    }
}

/// The windows of a VM, by where they begin.
pub struct Windows<H: Host>(SortedMap<u64, Window<H>>);

impl<H: Host> Windows<H> {
    /// None.
    pub const fn new() -> Self {
        Windows(SortedMap::new())
    }

    /// Takes one out.
    pub fn pop(&mut self) -> Option<Window<H>> {
        self.0.pop_last().map(|(_, window)| window)
    }
}

impl<H: Host> Default for Windows<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: Host> Inside<'_, H> {
    /// The window around an address.
    pub fn window_of(&self, addr: u64) -> Span {
        let size = self.svm.tunes.window;
        let start = addr & !(size - 1);
        Span::new(start, start.saturating_add(size)).clip(self.vm.span)
    }

    /// Opens the window around an address unless it is open.
    ///
    /// # Errors
    /// `ENOMEM`, `EFAULT`.
    pub fn open_window(&self, addr: u64) -> Result<(), Errno> {
        let span = self.window_of(addr);
        {
            let mut windows = self.svm.windows.lock();
            if windows.0.get(&span.start).is_some() {
                return Ok(());
            }
            windows.0.reserve(1)?;
        }
        let window = Window::open(self.vm, &self.svm.mm, span)?;
        let before = self.svm.windows.lock().0.insert(span.start, window)?;
        debug_assert!(before.is_none(), "who is in the gate is alone");
        Ok(())
    }

    /// Does something with the open window around an address.
    ///
    /// # Errors
    /// `EFAULT`: it is not open. What `f` says.
    pub fn in_window<T>(
        &self,
        addr: u64,
        f: impl FnOnce(&Window<H>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let start = self.window_of(addr).start;
        let windows = self.svm.windows.lock();
        f(windows.0.get(&start).ok_or(Errno::FAULT)?)
    }

    /// Closes the window around an address when it has no range.
    pub fn close_window(&self, addr: u64) {
        let span = self.window_of(addr);
        if self.svm.ranges.lock().in_span(span).next().is_some() {
            return;
        }
        let window = self.svm.windows.lock().0.remove(&span.start);
        if let Some(window) = window {
            window.remove(self.dev());
        }
    }

    /// Drops the ranges that the CPU has unmapped, and the windows that are empty then.
    pub fn collect(&self) {
        let dev = self.dev();
        loop {
            let wanted = self.svm.ranges.lock().unmapped();
            if wanted == 0 {
                return;
            }
            // Without memory the next one who comes collects; one at a time needs none.
            let Ok(mut gone) = Vec::with_capacity(wanted.min(256) as usize) else { return };
            self.svm.ranges.lock().take_unmapped(&mut gone);
            let count = gone.len() as u64;
            dev.svm.unmapped.fetch_sub(count, Ordering::AcqRel);
            dev.counters.add(Counter::SvmCollected, count);
            dev.counters.sub(Counter::LiveSvmRanges, count);
            for range in gone {
                self.close_window(range.span().start);
            }
        }
    }
}

/// Translations end: see [`crate::driver::Driver::invalidate`].
pub fn invalidate<H: Host>(
    dev: &Device<H>,
    cookie: u64,
    invalidation: &Invalidation,
    set_seq: &mut dyn FnMut(),
) -> bool {
    let hook = dev.svm.hooks.lock().get(cookie as u32).cloned();
    let Some((hook, svm)) = hook.as_ref().and_then(|hook| Some((hook, hook.vm.svm.as_ref()?)))
    else {
        set_seq();
        return true;
    };
    let own = exclusive_owner(&dev.host);
    if invalidation.event == Event::Exclusive && invalidation.owner == own {
        // The device takes the page for itself: who does maps it anew, and other VMs of the device may
        // go on.
        return true;
    }
    if !invalidation.blockable {
        return false;
    }
    let mut zap = Zap::new();
    let mut ranges = svm.ranges.lock();
    set_seq();
    let span = invalidation.span.clip(hook.window);
    let marked = match invalidation.event {
        _ if span.is_empty() => (0, 0),
        Event::Unmap | Event::Release => ranges.unmap(&hook.vm, span, &mut zap),
        _ => {
            ranges.clear(&hook.vm, span, &mut zap);
            (0, 0)
        }
    };
    drop(ranges);
    dev.counters.inc(Counter::SvmInvalidations);
    dev.counters.add(Counter::SvmRevokes, zap.revoked);
    if marked.0 > 0 {
        dev.counters.add(Counter::SvmRangeSplits, marked.1);
        dev.svm.unmapped.fetch_add(marked.0, Ordering::AcqRel);
        dev.host.wake();
    }
    true
}

/// Collects for one VM, for the worker that cleans up.
pub fn collect_step<H: Host>(dev: &Device<H>) -> Step {
    if dev.svm.unmapped.load(Ordering::Acquire) == 0 {
        return Step::Idle;
    }
    let mut busy = false;
    let mut after = 0;
    while let Some((id, vm)) = next_to_collect(dev, after) {
        after = id;
        if !vm.try_hold() {
            continue;
        }
        let inside = Inside::try_enter(&vm);
        let done = inside.is_some();
        if let Some(inside) = inside {
            inside.collect();
        }
        vm.unhold();
        if done {
            return Step::Worked;
        }
        busy = true;
    }
    match busy {
        // Whoever is in the gate wakes us.
        true => Step::Stalled { until_ns: dev.host.now_ns().saturating_add(1_000_000) },
        false => Step::Idle,
    }
}

/// The VM of the next notifier whose VM has something to collect.
fn next_to_collect<H: Host>(dev: &Device<H>, after: u32) -> Option<(u32, Arc<Vm<H>>)> {
    let mut after = after;
    loop {
        let (id, vm) = {
            let hooks = dev.svm.hooks.lock();
            let rest = hooks.iter().filter(|(id, _)| *id > after);
            rest.min_by_key(|(id, _)| *id).map(|(id, hook)| (id, hook.vm.clone()))?
        };
        let has = |ranges: &Ranges| ranges.unmapped() > 0;
        if vm.svm.as_ref().is_some_and(|svm| has(&svm.ranges.lock())) {
            return Some((id, vm));
        }
        after = id;
    }
}
