//! Making room in device memory for SVM.
//!
//! Owns who must leave: the least recently used of chunks and of idle objects that may live in system
//! memory, as long as not much more was freed than is needed.

use fencepost_uapi::fencepost::PAGE_SIZE;
use fencepost_uapi::Errno;

use super::devmem::{self, NewChunk, Reserved};
use super::{migrate, Inside};
use crate::call::Call;
use crate::gem::evict;
use crate::host::Host;
use crate::sync::resv::ExecLock;

/// Takes a block of frames, evicting others if need be.
///
/// # Errors
/// `ENOMEM`: none of this size can be had.
pub fn reserve<H: Host>(inside: &Inside<'_, H>, new: &NewChunk<'_>) -> Result<Reserved, Errno> {
    let dev = inside.dev();
    if dev.config.vram_bytes < PAGE_SIZE << new.order {
        return Err(Errno::NOMEM);
    }
    if let Ok(reserved) = devmem::reserve(dev, new) {
        return Ok(reserved);
    }
    devmem::drain(dev);
    let enough = 2 * (PAGE_SIZE << new.order);
    let (mut freed, mut after_chunk, mut after_object) = (0, (0, 0), (0, 0));
    loop {
        match devmem::reserve(dev, new) {
            Err(Errno::NOMEM) if freed < enough => {}
            done => return done,
        }
        let chunk = devmem::oldest(dev, after_chunk, 0);
        let object = evict::next_victim(dev, after_object)?;
        let chunk_first = match (&chunk, &object) {
            (Some(chunk), Some((key, _))) => chunk.key.0 < key.0,
            (chunk, _) => chunk.is_some(),
        };
        match (chunk, object) {
            (Some(chunk), _) if chunk_first => {
                after_chunk = chunk.key;
                freed += migrate::evict(dev, &chunk) * PAGE_SIZE;
            }
            (_, Some((key, gem))) => {
                after_object = key;
                let call = Call { dev, file: &inside.svm.file, task: inside.svm.task };
                let mut lock = ExecLock::new(dev, None);
                evict::evict_victim(&call, &mut lock, &gem, false)?;
                if gem.resident() != fencepost_uapi::fencepost::REGION_VRAM {
                    freed += gem.size;
                }
            }
            _ => return Err(Errno::NOMEM),
        }
    }
}
