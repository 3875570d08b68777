//! Where device memory of SVM belongs: one device, as clients' address spaces see it. Owns the way to
//! its driver, and the frames that came free.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use fencepost_core::host::mirror::Invalidation;
use fencepost_uapi::Errno;

use super::super::agent::layout::{WINDOW, WINDOW_SIZE};
use super::super::arena::PAGE;
use super::cpu_fault::CpuFault;

/// The driver, as an address space calls it.
pub(crate) trait Sink: Send + Sync {
    /// `Driver::invalidate`.
    fn invalidate(
        &self,
        cookie: u64,
        invalidation: &Invalidation,
        set_seq: &mut dyn FnMut(),
    ) -> bool;

    /// `Driver::cpu_fault`.
    fn cpu_fault(&self, fault: &mut CpuFault, addr: u64, frame: u64) -> Result<(), Errno>;

    /// Something changed.
    fn wake(&self);
}

/// A device.
pub(crate) struct Home {
    /// Its number among the devices.
    pub(crate) number: u8,
    /// Number of frames.
    pub(crate) frames: u64,
    /// What the GPU finds in each frame.
    content: Arc<Box<[AtomicU64]>>,
    sink: OnceLock<Weak<dyn Sink>>,
    freed: Mutex<Vec<(u64, u64)>>,
}

impl Home {
    pub(crate) fn new(number: u8, content: Arc<Box<[AtomicU64]>>, frames: u64) -> Home {
        Home { number, frames, content, sink: OnceLock::new(), freed: Mutex::default() }
    }

    /// Where a frame's memory is in an address space.
    pub(crate) fn window(&self, frame: u64) -> u64 {
        WINDOW + u64::from(self.number) * WINDOW_SIZE + frame * PAGE
    }

    /// From now on a frame's memory is in the window of the address space in a slot.
    pub(crate) fn fill(&self, frame: u64, slot: u64) {
        if let Some(content) = self.content.get(frame as usize) {
            content.store(super::CLIENTS | slot, Ordering::Release);
        }
    }

    /// Says whom to call, once.
    pub(crate) fn connect(&self, sink: Weak<dyn Sink>) {
        let _again = self.sink.set(sink);
    }

    /// Calls the driver, if it is still there.
    pub(crate) fn call<R>(&self, f: impl FnOnce(&dyn Sink) -> R) -> Option<R> {
        let sink = self.sink.get()?.upgrade()?;
        Some(f(&*sink))
    }

    /// Frames came free.
    pub(crate) fn free(&self, frames: impl IntoIterator<Item = u64>) {
        let mut freed = self.freed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut any = false;
        for frame in frames {
            any = true;
            if let Some(content) = self.content.get(frame as usize) {
                content.store(0, Ordering::Release);
            }
            match freed.last_mut() {
                Some((first, count)) if *first + *count == frame => *count += 1,
                _ => freed.push((frame, 1)),
            }
        }
        drop(freed);
        if any {
            self.call(|sink| sink.wake());
        }
    }

    /// Takes the runs of frames that came free since the last call.
    pub(crate) fn take_freed(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.freed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
