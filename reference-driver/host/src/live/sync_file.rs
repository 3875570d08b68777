//! Ioctls on exported descriptors. Owns `SYNC_IOC_FILE_INFO` of sync files; everything else is
//! refused as by a file that has no ioctls.

use fencepost_core::host::{FdKind, Host};
use fencepost_uapi::{Errno, ioctl};

use super::world::{Task, World};

/// Type and number of `SYNC_IOC_FILE_INFO` (`include/uapi/linux/sync_file.h`).
const SYNC_TYPE: u32 = b'>' as u32;
const FILE_INFO: u32 = 4;
/// Sizes of `struct sync_file_info` and `struct sync_fence_info` in bytes.
const INFO: usize = 56;
const FENCE: usize = 80;
/// Room for names in both.
const NAME: usize = 32;

/// Serves an ioctl on an exported descriptor.
///
/// `ENOTTY`: any call but `SYNC_IOC_FILE_INFO` on a sync file, merging included.
pub(crate) fn ioctl(
    world: &World,
    task: Task,
    kind: FdKind,
    id: u64,
    request: u32,
    arg: u64,
) -> Result<i64, Errno> {
    let info = ioctl::kind(request) == SYNC_TYPE && ioctl::nr(request) == FILE_INFO;
    if kind == FdKind::SyncFile && info {
        file_info(world, task, id, arg)
    } else {
        Err(Errno::NOTTY)
    }
}

/// As `sync_file_ioctl_fence_info`: flags and padding must be zero; with room for a fence it is
/// described, else only the number of fences is told.
fn file_info(world: &World, task: Task, id: u64, arg: u64) -> Result<i64, Errno> {
    let mut info = [0; INFO];
    world.copy_from_user(task, arg, &mut info)?;
    if word(&info, 36) != 0 || word(&info, 44) != 0 {
        return Err(Errno::INVAL);
    }
    let (room, list) = (word(&info, 40), u64::from_ne_bytes(eight(&info, 48)));
    let status = world.files.status(id);
    if room > 0 {
        let mut fence = [0; FENCE];
        name(&mut fence[..NAME], b"fencepost");
        name(&mut fence[NAME..2 * NAME], b"fencepost");
        fence[64..68].copy_from_slice(&status.to_ne_bytes());
        world.copy_to_user(task, list, &fence)?;
    }
    name(&mut info[..NAME], b"fencepost");
    info[32..36].copy_from_slice(&status.to_ne_bytes());
    info[40..44].copy_from_slice(&1u32.to_ne_bytes());
    world.copy_to_user(task, arg, &info)?;
    Ok(0)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(word)
}

fn eight(bytes: &[u8], at: usize) -> [u8; 8] {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    word
}

fn name(to: &mut [u8], text: &[u8]) {
    to.fill(0);
    to[..text.len()].copy_from_slice(text);
}
