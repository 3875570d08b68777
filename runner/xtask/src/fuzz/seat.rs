//! The generator's clients in the simulated world: each is a process of it.

use std::rc::Rc;

use fencepost_core::gpuva::Span;
use fencepost_fixtures::device::fuzz::{Change, Seat};
use fencepost_host::sim::cpu::Kind;
use fencepost_host::sim::{Sim, SimFile};
use fencepost_uapi::Errno;

/// An open file of a simulated process.
pub(super) struct SimSeat {
    sim: Rc<Sim>,
    pub(super) file: SimFile,
}

/// A descriptor that is open but none of the device's; see the simulated host.
const FOREIGN_FD: i32 = 1024;

impl SimSeat {
    /// Opens a file of a new process.
    pub(super) fn new(sim: &Rc<Sim>) -> Self {
        let file = sim.open(sim.process()).expect("memory");
        Self { sim: Rc::clone(sim), file }
    }
}

impl Seat for SimSeat {
    fn ioctl(&self, request: u32, addr: u64) -> Result<i64, Errno> {
        let result = self.sim.driver().ioctl(&self.file.file, self.file.task, request, addr);
        if let Err(errno) = result {
            assert_ne!(errno, Errno::NOSYS, "every call is implemented");
            assert_ne!(errno.name(), "?", "a documented errno");
        }
        result
    }

    fn mmap(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.sim.mmap(&self.file, offset, len).map(drop)
    }

    fn poke(&self, offset: u64, bytes: &[u8]) {
        self.sim.host().poke(fencepost_core::host::BoMem(offset), 0, bytes);
    }

    fn close(&self) {
        self.sim.host().exit_mm(self.file.task);
        self.sim.close(&self.file);
    }

    fn close_fd(&self, fd: i32) -> Result<(), Errno> {
        self.sim.close_fd(self.file.task, fd)
    }

    fn close_fds(&self) {
        self.sim.close_all_fds(self.file.task);
    }

    fn foreign_fd(&self) -> i32 {
        FOREIGN_FD
    }

    fn scratch(&self) -> u64 {
        self.sim.host().scratch(self.file.task)
    }

    fn alloc(&self, len: u64) -> u64 {
        self.sim.host().alloc_user(self.file.task, len)
    }

    fn mark(&self) -> u64 {
        self.sim.host().mark_user(self.file.task)
    }

    fn free(&self, mark: u64) {
        self.sim.host().free_user(self.file.task, mark);
    }

    fn field(&self) -> u64 {
        0x7000_0000_0000
    }

    fn change(&self, change: Change, start: u64, len: u64) {
        let (host, task, span) = (self.sim.host(), self.file.task, Span::new(start, start + len));
        match change {
            Change::Map => host.mmap_cpu(task, span, true, Kind::Anon(0)),
            Change::MapHuge => host.mmap_cpu(task, span, true, Kind::Anon(9)),
            Change::MapShared => host.mmap_cpu(task, span, true, Kind::Shared),
            Change::Unmap => host.munmap(task, span),
            Change::ReadOnly => host.mprotect(task, span, true, false),
            Change::Forbid => host.mprotect(task, span, false, false),
            Change::Allow => host.mprotect(task, span, true, true),
            Change::Discard => host.discard(task, span),
            Change::PageOut => host.swap_out(task, span),
            // A segmentation fault, or a page that cannot come back: the process catches the signal.
            Change::Load => drop(host.cpu_load(task, start)),
            Change::Store(value) => drop(host.cpu_store(task, start, value)),
        }
    }

    fn apart(&self, len: u64) -> u64 {
        self.alloc(len)
    }

    fn read(&self, addr: u64, bytes: &mut [u8]) -> bool {
        self.sim.host().read_user(self.file.task, addr, bytes).is_ok()
    }

    fn write(&self, addr: u64, bytes: &[u8]) -> bool {
        self.sim.host().write_user(self.file.task, addr, bytes).is_ok()
    }
}
