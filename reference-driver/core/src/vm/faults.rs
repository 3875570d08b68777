//! The faults of a VM's jobs, kept for the fault report.
//!
//! Owns the ring: the oldest are kept, those for which there is no room are counted.

use fencepost_uapi::fencepost::Fault;

/// Faults kept.
pub const ROOM: usize = 64;

/// The faults of a VM, oldest first.
pub struct FaultRing {
    faults: [Fault; ROOM],
    len: usize,
    lost: u64,
}

impl FaultRing {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        FaultRing { faults: [Fault::default(); ROOM], len: 0, lost: 0 }
    }

    /// Records a fault.
    pub fn push(&mut self, fault: Fault) {
        match self.faults.get_mut(self.len) {
            Some(place) => {
                *place = fault;
                self.len += 1;
            }
            None => self.lost += 1,
        }
    }

    /// What is recorded, oldest first.
    #[must_use]
    pub fn recorded(&self) -> &[Fault] {
        &self.faults[..self.len]
    }

    /// How many there was no room for.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Forgets the oldest `count`, and the lost ones once all are forgotten.
    pub fn forget(&mut self, count: usize) {
        let count = count.min(self.len);
        self.faults.copy_within(count..self.len, 0);
        self.len -= count;
        if self.len == 0 {
            self.lost = 0;
        }
    }
}

impl Default for FaultRing {
    fn default() -> Self {
        Self::new()
    }
}
