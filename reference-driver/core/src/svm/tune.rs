//! Parameters of SVM.
//!
//! Owns their ranges and defaults. Those of VMs are kept by the open file and taken over when a VM is
//! made; those of the device are the fault buffer's.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::Errno;

use crate::pgtable::{SIZE_2M, SIZE_4K, SIZE_64K};

/// Longest timeslice in nanoseconds.
pub const MAX_TIMESLICE_NS: u64 = 1_000_000_000;

/// Parameters of a VM that takes faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunes {
    /// Size of the window of a notifier, a power of two.
    pub window: u64,
    /// Bit n: ranges of 1 << n bytes.
    pub chunks: u64,
    /// Up to this size a range is made only where the CPU has all pages.
    pub check_pages: u64,
    /// How long pages stay in device memory where no attribute says.
    pub timeslice_ns: u64,
    /// A range may have pages in device and system memory.
    pub mixed: bool,
}

impl Default for Tunes {
    fn default() -> Self {
        Tunes {
            window: 512 << 20,
            chunks: SIZE_4K | SIZE_64K | SIZE_2M,
            check_pages: SIZE_64K,
            timeslice_ns: 0,
            mixed: true,
        }
    }
}

impl Tunes {
    /// The value of a parameter of VMs.
    pub fn get(&self, param: u32) -> u64 {
        match param {
            fp::SVM_TUNE_NOTIFIER => self.window,
            fp::SVM_TUNE_CHUNKS => self.chunks,
            fp::SVM_TUNE_CHECK_PAGES => self.check_pages,
            fp::SVM_TUNE_MIXED => u64::from(self.mixed),
            _ => self.timeslice_ns,
        }
    }

    /// Sets a parameter of VMs.
    ///
    /// # Errors
    /// `EINVAL`: a value out of range.
    pub fn set(&mut self, param: u32, value: u64) -> Result<(), Errno> {
        if param == fp::SVM_TUNE_MIXED {
            self.mixed = value != 0;
            return if value <= 1 { Ok(()) } else { Err(Errno::INVAL) };
        }
        let (place, fits) = match param {
            fp::SVM_TUNE_NOTIFIER => {
                let range = SIZE_64K..=1 << 40;
                (&mut self.window, value.is_power_of_two() && range.contains(&value))
            }
            fp::SVM_TUNE_CHUNKS => {
                let known = SIZE_4K | SIZE_64K | SIZE_2M;
                (&mut self.chunks, value & !known == 0 && value & SIZE_4K != 0)
            }
            fp::SVM_TUNE_CHECK_PAGES => (&mut self.check_pages, value <= SIZE_2M),
            _ => (&mut self.timeslice_ns, value <= MAX_TIMESLICE_NS),
        };
        if !fits {
            return Err(Errno::INVAL);
        }
        *place = value;
        Ok(())
    }

    /// The sizes of ranges, the largest first.
    pub fn sizes(&self) -> impl Iterator<Item = u64> + '_ {
        [SIZE_2M, SIZE_64K, SIZE_4K].into_iter().filter(|size| self.chunks & size != 0)
    }
}
