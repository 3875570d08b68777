//! The nodes of the dmirror personality: `/dev/hmm_dmirror0` and `/dev/hmm_dmirror1`, two devices that
//! answer the ioctls of the kernel's test_hmm. Owns the devices, each of which has a world of its
//! own, and their open files; they share the address spaces of their clients.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use fencepost_core::dmirror::{Dmirror, File};
use fencepost_core::host::mirror::Invalidation;
use fencepost_uapi::Errno;

use super::guard::guard;
use super::mm::Spaces;
use super::mm::cpu_fault::CpuFault;
use super::mm::home::Sink;
use super::world::{Task, World, errno};

/// The nodes, by device.
pub(crate) const NODES: [&[u8]; 2] = [b"/dev/hmm_dmirror0", b"/dev/hmm_dmirror1"];
/// Bytes of device memory of each.
const VRAM: u64 = 1 << 30;

/// One device.
struct Unit {
    device: Dmirror<World>,
}

/// An open file.
struct Open {
    unit: Arc<Unit>,
    file: File<World>,
}

/// All of them.
pub(crate) struct Dmirrors {
    spaces: Option<Arc<Spaces>>,
    units: [OnceLock<Arc<Unit>>; 2],
    open: Mutex<BTreeMap<u64, Arc<Open>>>,
}

/// A panic of the personality is an error of the call.
fn call<R>(f: impl FnOnce() -> Result<R, Errno>) -> Result<R, Errno> {
    guard(f).unwrap_or(Err(Errno::NODEV))
}

/// A file that is about to get its number.
pub(crate) struct Opened(Open);

impl Dmirrors {
    pub(crate) fn new(spaces: Option<Arc<Spaces>>) -> Dmirrors {
        Dmirrors { spaces, units: Default::default(), open: Mutex::default() }
    }

    /// Opens a device for a thread that this thread serves.
    pub(crate) fn open(&self, node: usize, task: Task) -> Result<Opened, Errno> {
        let unit = self.unit(node)?;
        let file = call(|| unit.device.open(task))?;
        Ok(Opened(Open { unit, file }))
    }

    fn unit(&self, node: usize) -> Result<Arc<Unit>, Errno> {
        let place = self.units.get(node).ok_or(Errno::NOENT)?;
        if let Some(unit) = place.get() {
            return Ok(Arc::clone(unit));
        }
        let spaces = self.spaces.clone();
        // Number 0 is the driver's own device.
        let world = World::new(VRAM, node as u8 + 1, spaces).map_err(errno)?;
        let unit = Arc::new(Unit { device: call(|| Dmirror::new(world, VRAM))? });
        let sink: Weak<dyn Sink> = Arc::<Unit>::downgrade(&unit);
        unit.device.host().home.connect(sink);
        Ok(Arc::clone(place.get_or_init(|| unit)))
    }

    /// A file has got its number.
    pub(crate) fn enter(&self, number: u64, opened: Opened) {
        self.lock().insert(number, Arc::new(opened.0));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `ioctl(2)` on a file.
    pub(crate) fn ioctl(
        &self,
        number: u64,
        task: Task,
        request: u32,
        arg: u64,
    ) -> Result<i64, Errno> {
        let open = self.lock().get(&number).cloned().ok_or(Errno::NODEV)?;
        call(|| open.unit.device.ioctl(&open.file, task, request, arg))
    }

    /// The last copy of a file is closed.
    pub(crate) fn release(&self, number: u64) {
        let Some(mut open) = self.lock().remove(&number) else { return };
        // A call of another thread may have it still, for as long as it lasts.
        let open = loop {
            match Arc::try_unwrap(open) {
                Ok(open) => break open,
                Err(shared) => open = shared,
            }
            std::thread::yield_now();
        };
        close(open);
    }
}

fn close(open: Open) {
    let Open { unit, file } = open;
    let _panicked: Result<(), Errno> = call(|| {
        unit.device.close(file);
        Ok(())
    });
}

impl Opened {
    /// Nobody got it.
    pub(crate) fn discard(self) {
        close(self.0);
    }
}

impl Sink for Unit {
    fn invalidate(
        &self,
        cookie: u64,
        invalidation: &Invalidation,
        set_seq: &mut dyn FnMut(),
    ) -> bool {
        call(|| Ok(self.device.invalidate(cookie, invalidation, set_seq))).unwrap_or(true)
    }

    fn cpu_fault(&self, fault: &mut CpuFault, addr: u64, frame: u64) -> Result<(), Errno> {
        call(|| self.device.cpu_fault(fault, addr, frame))
    }

    fn wake(&self) {
        self.device.host().events.wake();
    }
}
