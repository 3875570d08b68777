//! The calls about buffer objects.
//!
//! Owns their checks; placing and moving is [`super::evict`]'s.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::{GemCreate, GemInfo, GemMmapOffset};
use fencepost_uapi::Errno;

use super::{evict, Gem, NewGem};
use crate::call::Call;
use crate::facade::Ordering;
use crate::host::Host;
use crate::sync::resv::{ExecLock, Resv};

/// [`fp::GEM_CREATE`].
pub fn create<H: Host>(call: &Call<'_, H>, args: &mut GemCreate) -> Result<i64, Errno> {
    let dev = call.dev;
    let is_private = args.flags & fp::GEM_CREATE_VM_PRIVATE != 0;
    if args.size == 0 || args.size > fp::MAX_BO_BYTES || args.placement == 0 {
        return Err(Errno::INVAL);
    }
    if !is_private && args.vm_id != 0 {
        return Err(Errno::INVAL);
    }
    let (private_to, resv) = match is_private {
        true => {
            let vm = call.file.vm(args.vm_id)?;
            (vm.id, vm.resv.clone())
        }
        false => (0, Resv::new()?),
    };
    let limit = |region, bytes| if args.placement & region != 0 { bytes } else { 0 };
    let vram = limit(fp::REGION_VRAM, dev.config.vram_bytes);
    let system = limit(fp::REGION_SYSTEM, dev.config.system_bytes);
    if args.size > vram.max(system) {
        return Err(Errno::NOSPC);
    }
    let mem = dev.host.bo_create(args.size)?;
    let (size, placement, flags) = (args.size, args.placement, args.flags);
    let gem = Gem::create(dev, NewGem { size, placement, flags, private_to, resv }, mem)?;
    let mut lock = ExecLock::new(dev, Some(call.task));
    evict::place_new(call, &mut lock, &gem)?;
    drop(lock);
    args.handle = call.file.handles.add_gem(gem)?;
    Ok(0)
}

/// [`fp::GEM_MMAP_OFFSET`].
pub fn mmap_offset<H: Host>(call: &Call<'_, H>, args: &mut GemMmapOffset) -> Result<i64, Errno> {
    args.offset = call.file.handles.mmap_offset(args.handle)?;
    Ok(0)
}

/// [`fp::GEM_INFO`].
pub fn info<H: Host>(call: &Call<'_, H>, args: &mut GemInfo) -> Result<i64, Errno> {
    let gem = call.file.handles.gem(args.handle)?;
    args.size = gem.size;
    args.placement = gem.placement;
    args.resident = gem.resident();
    args.flags = gem.flags;
    args.mappings = gem.mappings.load(Ordering::Relaxed);
    args.evictions = gem.evictions.load(Ordering::Relaxed);
    Ok(0)
}
