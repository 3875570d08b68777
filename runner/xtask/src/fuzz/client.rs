//! A client of the fuzzer: an open file of a process, and what it believes to have.
//!
//! Owns the lists of names and the sending of a record, whole or broken.

use fencepost_core::host::BoMem;
use fencepost_host::sim::{Sim, SimFile, Task};
use fencepost_uapi::{Errno, Record, drm, ioctl};

use super::random::Random;

/// A buffer object of a client.
#[derive(Clone, Copy)]
pub(crate) struct Bo {
    pub(crate) handle: u32,
    pub(crate) mem: BoMem,
    pub(crate) size: u64,
}

/// A queue of a client.
#[derive(Clone, Copy)]
pub(crate) struct Queue {
    pub(crate) id: u32,
    pub(crate) vm: u32,
    pub(crate) is_bind: bool,
}

/// A client.
pub(crate) struct Client {
    pub(crate) file: SimFile,
    pub(crate) bos: Vec<Bo>,
    pub(crate) vms: Vec<u32>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) syncobjs: Vec<u32>,
    pub(crate) fds: Vec<i32>,
    /// Descriptors to be passed to some process.
    pub(crate) outbox: Vec<i32>,
    /// Some user memory that stays.
    pub(crate) words: u64,
}

/// A descriptor that is open but none of the device's; see the simulated host.
pub(crate) const FOREIGN_FD: i32 = 1024;

impl Client {
    /// A new process with an open file, which may be a testing one.
    pub(crate) fn new(sim: &Sim, random: &mut Random) -> Self {
        let file = super::open(sim);
        let words = sim.host().alloc_user(file.task, 4096);
        let client = Client {
            file,
            bos: vec![],
            vms: vec![],
            queues: vec![],
            syncobjs: vec![],
            fds: vec![],
            outbox: vec![],
            words,
        };
        if random.chance(3, 4) {
            let mut args = fencepost_uapi::fencepost::DebugOpen::default();
            let _ = sim.call(&client.file, fencepost_uapi::fencepost::DEBUG_OPEN, &mut args);
        }
        client
    }

    /// The process exits.
    pub(crate) fn close(mut self, sim: &Sim) {
        // Which goes first is the kernel's choice; both orders must do.
        let fds_first = self.fds.len().is_multiple_of(2);
        if fds_first {
            self.close_fds(sim);
        }
        sim.close(&self.file);
        self.close_fds(sim);
    }

    fn close_fds(&mut self, sim: &Sim) {
        // Also those that came with a broken call and that the client never got to know.
        sim.close_all_fds(self.file.task);
        self.fds.clear();
    }

    /// The process.
    pub(crate) fn task(&self) -> Task {
        self.file.task
    }

    /// Makes a call, now and then with a broken record or number.
    pub(crate) fn send<R: Record>(
        &self,
        sim: &Sim,
        random: &mut Random,
        request: u32,
        record: &mut R,
    ) -> Result<i64, Errno> {
        let mut bytes = vec![0; R::SIZE];
        record.encode(&mut bytes);
        let broken = random.chance(1, 8);
        if broken && !bytes.is_empty() {
            break_field::<R>(&mut bytes, random);
        }
        let (request, addr) = match random.chance(1, 64) {
            true => break_request(sim, self, request, random),
            false => (request, sim.host().scratch(self.task())),
        };
        let _ = sim.host().write_user(self.task(), addr, &bytes);
        let result = sim.driver().ioctl(&self.file.file, self.task(), request, addr);
        if sim.host().read_user(self.task(), addr, &mut bytes).is_ok() {
            *record = R::decode(&bytes);
        }
        if let Err(errno) = result {
            assert_ne!(errno, Errno::NOSYS, "every call is implemented");
            assert_ne!(errno.name(), "?", "a documented errno");
        }
        result
    }

    /// Closes a handle to make room.
    pub(crate) fn forget_bo(&mut self, sim: &Sim, at: usize) {
        let bo = self.bos.swap_remove(at);
        let mut args = drm::GemClose { handle: bo.handle, pad: 0 };
        let _ = sim.call(&self.file, drm::GEM_CLOSE, &mut args);
    }
}

/// Puts an odd number into a field.
fn break_field<R: Record>(bytes: &mut [u8], random: &mut Random) {
    let field = &R::FIELDS[random.index(R::FIELDS.len())];
    let value = random.odd_number().to_ne_bytes();
    let at = field.offset;
    let len = field.size.min(8);
    bytes[at..at + len].copy_from_slice(&value[..len]);
}

/// Another number, another size, or a bad pointer.
fn break_request(sim: &Sim, client: &Client, request: u32, random: &mut Random) -> (u32, u64) {
    let scratch = sim.host().scratch(client.task());
    match random.below(4) {
        0 => (random.any() as u32, scratch),
        1 => {
            let size = random.below(200) as usize;
            (ioctl::drm(ioctl::READ | ioctl::WRITE, ioctl::nr(request), size), scratch)
        }
        2 => (request, random.odd_number()),
        _ => (ioctl::drm(random.below(4) as u32, random.below(256) as u32, 64), scratch),
    }
}
