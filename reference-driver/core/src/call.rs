//! One call of a program: who calls, and how arguments come in and results go out.
//!
//! Owns the copying of records and arrays with the rules that hold for all of them (strides, unknown
//! tails, bounds). What the values mean is the handlers'.

use fencepost_uapi::{Errno, Record};

use crate::counters::Counter;
use crate::device::Device;
use crate::facade::inject::Injection;
use crate::facade::{Arc, Vec};
use crate::file::OpenFile;
use crate::host::Host;

/// Longest array element that a caller may pass, in bytes.
const MAX_STRIDE: u32 = 256;

/// Longest array in bytes, as the kernel's `kmalloc` would refuse more.
const MAX_ARRAY_BYTES: usize = 4 << 20;

/// A call in progress.
pub struct Call<'a, H: Host> {
    /// The device.
    pub dev: &'a Arc<Device<H>>,
    /// The open file that the call came through.
    pub file: &'a Arc<OpenFile<H>>,
    /// The calling thread.
    pub task: H::Task,
}

impl<H: Host> Call<'_, H> {
    /// Reads user memory.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        match buf.is_empty() {
            true => Ok(()),
            false => self.dev.host.copy_from_user(self.task, addr, buf),
        }
    }

    /// Writes user memory.
    ///
    /// # Errors
    /// `EFAULT`.
    pub fn write(&self, addr: u64, buf: &[u8]) -> Result<(), Errno> {
        match buf.is_empty() {
            true => Ok(()),
            false => self.dev.host.copy_to_user(self.task, addr, buf),
        }
    }

    /// Checks the caller's element size for an array of `R`.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn check_stride<R: Record>(stride: u32) -> Result<(), Errno> {
        let fits = stride >= R::SIZE as u32 && stride <= MAX_STRIDE && stride % 8 == 0;
        fits.then_some(()).ok_or(Errno::INVAL)
    }

    /// Reads an array of records whose stride was checked.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM`; `E2BIG` when bytes beyond the driver's record are set.
    pub fn read_array<R: Record>(
        &self,
        addr: u64,
        count: u32,
        stride: u32,
    ) -> Result<Vec<R>, Errno> {
        let stride = stride as usize;
        let mut bytes = Vec::new();
        bytes.resize(count as usize * stride, 0)?;
        self.read(addr, &mut bytes)?;
        let mut records = Vec::with_capacity(count as usize)?;
        for element in bytes.chunks_exact(stride.max(1)) {
            if element[R::SIZE..].iter().any(|byte| *byte != 0) {
                return Err(Errno::TOOBIG);
            }
            records.push(R::decode(element))?;
        }
        Ok(records)
    }

    /// Writes records to an array with the caller's stride; what lies beyond the driver's record
    /// is filled with zeros.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM`.
    pub fn write_array<R: Record>(
        &self,
        addr: u64,
        records: &[R],
        stride: u32,
    ) -> Result<(), Errno> {
        let mut bytes = Vec::new();
        bytes.resize(records.len() * stride as usize, 0)?;
        for (record, element) in records.iter().zip(bytes.chunks_exact_mut(stride as usize)) {
            record.encode(element);
        }
        self.write(addr, &bytes)
    }

    /// Reads an array of plain numbers.
    ///
    /// # Errors
    /// `EFAULT`, `ENOMEM`.
    pub fn read_numbers<const N: usize, T>(
        &self,
        addr: u64,
        count: u32,
        from: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Errno> {
        let len = (count as usize).saturating_mul(N);
        if len > MAX_ARRAY_BYTES {
            return Err(Errno::NOMEM);
        }
        let mut bytes = Vec::new();
        bytes.resize(len, 0)?;
        self.read(addr, &mut bytes)?;
        let mut numbers = Vec::with_capacity(count as usize)?;
        for chunk in bytes.chunks_exact(N) {
            let mut raw = [0; N];
            raw.copy_from_slice(chunk);
            numbers.push(from(raw))?;
        }
        Ok(numbers)
    }

    /// Counts an operation that an armed failure of this open file may hit.
    ///
    /// # Errors
    /// `errno` when it does.
    pub fn inject(&self, injection: &Injection, errno: Errno) -> Result<(), Errno> {
        injection.hit().map_err(|_| {
            self.dev.counters.inc(Counter::Injected);
            errno
        })
    }
}
