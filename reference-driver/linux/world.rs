//! The driver's world in the kernel: the host trait over shim.c.
//!
//! Owns one `fp_world`. GPU accesses go to the pages that the shim's frame table or DMA table holds,
//! inside an RCU read section, since a page leaves these tables before it is freed.
#![expect(unsafe_code, reason = "calls the C side")]

use super::memory;
use super::shim::{self, RawWorld};
use crate::host::{Aperture, Atomic, BoMem, BusError, Host, Phys, Width};
use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use core::sync::atomic::{fence, Ordering};
use fencepost_uapi::Errno;

pub(super) const PAGE: u64 = 4096;

/// The world of one device.
pub(crate) struct World {
    raw: NonNull<RawWorld>,
    number: u8,
}

// SAFETY: shim.c locks where it must; any thread may call and destroy.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

/// What a shim function returned: not negative, or an error.
pub(super) fn check(ret: c_int) -> Result<c_int, Errno> {
    if ret < 0 {
        Err(Errno(-ret))
    } else {
        Ok(ret)
    }
}

/// An RCU read section.
struct Access(());

impl Access {
    fn begin() -> Self {
        shim::fp_access_begin();
        Access(())
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        // SAFETY: begun by `begin`, on this thread: the type is private and lives in one function.
        unsafe { shim::fp_access_end() }
    }
}

impl World {
    /// The world of a device with so much device memory, which is the owner's.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn new(number: u8, owner: u64, vram_bytes: u64) -> Result<Self, Errno> {
        // SAFETY: no requirements.
        let raw = unsafe { shim::fp_world_create(vram_bytes / PAGE, number.into(), owner) };
        Ok(World { raw: NonNull::new(raw).ok_or(Errno::NOMEM)?, number })
    }

    /// The number of the device.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// The shim's world.
    pub(super) fn raw(&self) -> *mut RawWorld {
        self.raw.as_ptr()
    }

    /// The calling thread.
    ///
    /// # Errors
    /// `ENOMEM`; `EFAULT` without an address space.
    pub(super) fn current_task(&self) -> Result<u64, Errno> {
        let mut task = 0;
        // SAFETY: the world is alive.
        check(unsafe { shim::fp_task_current(self.raw(), &mut task) })?;
        Ok(task)
    }

    /// Where the byte at a GPU address is now. The pointer is valid up to the end of its page and
    /// of the access.
    fn locate(&self, _access: &Access, at: Phys) -> Result<*mut u8, BusError> {
        // SAFETY: the world is alive, and `_access` proves the read section.
        let page = unsafe {
            match at.aperture {
                Aperture::Vram => shim::fp_vram_page(self.raw(), at.addr),
                Aperture::System => shim::fp_system_page(self.raw(), at.addr),
            }
        };
        if page.is_null() {
            return Err(BusError);
        }
        Ok(page.wrapping_add((at.addr % PAGE) as usize))
    }

    /// Calls `f` for the part of the range in each page: pointer, offset in the range, length.
    fn pages(
        &self,
        at: Phys,
        len: u64,
        mut f: impl FnMut(*mut u8, usize, usize),
    ) -> Result<(), BusError> {
        let mut done = 0;
        while done < len {
            let here = Phys { aperture: at.aperture, addr: at.addr + done };
            let part = (PAGE - here.addr % PAGE).min(len - done);
            let access = Access::begin();
            f(self.locate(&access, here)?, done as usize, part as usize);
            done += part;
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: made by `fp_world_create`; nobody refers to it any more.
        unsafe { shim::fp_world_destroy(self.raw()) }
    }
}

/// Calls the closure behind `ctx`.
///
/// # Safety
/// `ctx` points at a `&mut dyn FnMut() -> bool` that nobody else uses meanwhile.
unsafe extern "C" fn call_ready(ctx: *mut c_void) -> bool {
    // SAFETY: as the caller guarantees.
    let ready = unsafe { &mut *ctx.cast::<&mut dyn FnMut() -> bool>() };
    ready()
}

#[cfg(not(all(CONFIG_HMM_MIRROR, CONFIG_DEVICE_PRIVATE)))]
crate::no_mirror!(World);

impl Host for World {
    /// Number of an address space that the shim knows.
    type Task = u64;

    #[cfg(all(CONFIG_HMM_MIRROR, CONFIG_DEVICE_PRIVATE))]
    fn mm(&self, task: u64) -> Result<Self::Mm, Errno> {
        super::mirror::Mm::of_task(self, task)
    }

    #[cfg(not(all(CONFIG_HMM_MIRROR, CONFIG_DEVICE_PRIVATE)))]
    fn mm(&self, _: u64) -> Result<Self::Mm, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    fn now_ns(&self) -> u64 {
        shim::fp_now_ns()
    }

    fn copy_from_user(&self, task: u64, addr: u64, buf: &mut [u8]) -> Result<(), Errno> {
        let to = buf.as_mut_ptr().cast();
        // SAFETY: `to` is valid for the buffer's length.
        check(unsafe { shim::fp_copy_from_user(self.raw(), task, to, addr, buf.len()) })?;
        Ok(())
    }

    fn copy_to_user(&self, task: u64, addr: u64, buf: &[u8]) -> Result<(), Errno> {
        let from = buf.as_ptr().cast();
        // SAFETY: `from` is valid for the buffer's length.
        check(unsafe { shim::fp_copy_to_user(self.raw(), task, addr, from, buf.len()) })?;
        Ok(())
    }

    fn bo_create(&self, size: u64) -> Result<BoMem, Errno> {
        let mut offset = 0;
        // SAFETY: the world is alive.
        check(unsafe { shim::fp_bo_create(self.raw(), size, &mut offset) })?;
        Ok(BoMem(offset))
    }

    fn bo_destroy(&self, mem: BoMem, _size: u64) {
        // SAFETY: the world is alive.
        unsafe { shim::fp_bo_destroy(self.raw(), mem.0) }
    }

    fn vram_bind(&self, frame: u64, mem: BoMem, page: u64, count: u64) -> Result<(), Errno> {
        // SAFETY: the world is alive; the shim checks the ranges.
        check(unsafe { shim::fp_vram_bind(self.raw(), frame, mem.0, page, count) })?;
        Ok(())
    }

    fn vram_unbind(&self, frame: u64, count: u64) {
        // SAFETY: the world is alive; the shim checks the range.
        unsafe { shim::fp_vram_unbind(self.raw(), frame, count) }
    }

    fn dma_map(&self, mem: BoMem, page: u64, count: u64) -> Result<u64, Errno> {
        let mut addr = 0;
        // SAFETY: the world is alive; the shim checks the range.
        check(unsafe { shim::fp_dma_map(self.raw(), mem.0, page, count, &mut addr) })?;
        Ok(addr)
    }

    fn dma_unmap(&self, addr: u64, count: u64) {
        // SAFETY: the world is alive.
        unsafe { shim::fp_dma_unmap(self.raw(), addr, count) }
    }

    fn gpu_read(&self, at: Phys, buf: &mut [u8]) -> Result<(), BusError> {
        self.pages(at, buf.len() as u64, |page, done, len| {
            // SAFETY: `pages` gives pointers valid for `len` bytes.
            unsafe { memory::read(page, &mut buf[done..done + len]) }
        })
    }

    fn gpu_write(&self, at: Phys, buf: &[u8]) -> Result<(), BusError> {
        self.pages(at, buf.len() as u64, |page, done, len| {
            // SAFETY: `pages` gives pointers valid for `len` bytes.
            unsafe { memory::write(page, &buf[done..done + len]) }
        })
    }

    fn gpu_load(&self, at: Phys, width: Width) -> Result<u64, BusError> {
        let access = Access::begin();
        let word = self.locate(&access, at)?;
        // SAFETY: valid during the access; the trait promises alignment.
        Ok(unsafe { memory::load_word(word, width) })
    }

    fn gpu_store(&self, at: Phys, width: Width, value: u64) -> Result<(), BusError> {
        let access = Access::begin();
        let word = self.locate(&access, at)?;
        // SAFETY: valid during the access; the trait promises alignment.
        unsafe { memory::store_word(word, width, value) };
        Ok(())
    }

    fn gpu_atomic(
        &self,
        at: Phys,
        width: Width,
        atomic: Atomic,
        _system: bool,
    ) -> Result<u64, BusError> {
        let access = Access::begin();
        let word = self.locate(&access, at)?;
        // SAFETY: valid during the access; the trait promises alignment.
        Ok(unsafe { memory::atomic(word, width, atomic) })
    }

    fn gpu_copy(&self, to: Phys, from: Phys, len: u64) -> Result<(), (BusError, bool)> {
        let mut done = 0;
        while done < len {
            let source = Phys { aperture: from.aperture, addr: from.addr + done };
            let target = Phys { aperture: to.aperture, addr: to.addr + done };
            let part = (PAGE - source.addr % PAGE).min(PAGE - target.addr % PAGE).min(len - done);
            let access = Access::begin();
            let read = self.locate(&access, source).map_err(|error| (error, false))?;
            let write = self.locate(&access, target).map_err(|error| (error, true))?;
            // SAFETY: both are valid for `part` bytes, which end within their pages.
            unsafe { memory::copy(write, read, part as usize) };
            done += part;
        }
        Ok(())
    }

    fn gpu_fill(&self, at: Phys, len: u64, width: Width, value: u64) -> Result<(), BusError> {
        self.pages(at, len, |page, _, len| {
            // SAFETY: `pages` gives pointers valid for `len` bytes; the trait promises alignment.
            unsafe { memory::fill(page, len, width, value) }
        })
    }

    fn gpu_fence(&self, _system: bool) {
        fence(Ordering::SeqCst);
    }

    fn wait_event(
        &self,
        task: Option<u64>,
        deadline_ns: Option<u64>,
        mut ready: &mut dyn FnMut() -> bool,
    ) -> Result<bool, Errno> {
        let deadline = deadline_ns.unwrap_or(u64::MAX);
        let ctx = (&raw mut ready).cast();
        // SAFETY: the world is alive; `ctx` is what `call_ready` wants, used by this call only.
        let ret = unsafe { shim::fp_wait(self.raw(), task.is_some(), deadline, call_ready, ctx) };
        Ok(check(ret)? == 1)
    }

    fn wake(&self) {
        // SAFETY: the world is alive.
        unsafe { shim::fp_wake(self.raw()) }
    }
}
