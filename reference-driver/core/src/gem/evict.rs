//! Placing objects, moving them, and who must make room.
//!
//! Owns the order of a move: take the object out of every page table, copy, switch, and let the next
//! exec of each VM validate it; in a long-running VM, whose jobs no fence waits for, jobs are paused
//! and the page tables written again at once. Victims are the least recently used objects that may
//! live in system memory; idle ones first.

use fencepost_uapi::fencepost::{INJECT_COPY, REGION_SYSTEM, REGION_VRAM};
use fencepost_uapi::Errno;

use super::placement::{alloc_system, alloc_vram, fill_vram, free_vram, Frames, Place};
use super::{Gem, GemRef};
use crate::call::Call;
use crate::counters::Counter;
use crate::debug::delay::Point;
use crate::device::Device;
use crate::facade::{Arc, Vec};
use crate::host::Host;
use crate::svm::devmem::{self, Known};
use crate::svm::migrate;
use crate::sync::resv::ExecLock;
use crate::vm::Vm;

/// Gives a new object, which nobody else knows yet, its first backing.
///
/// # Errors
/// `ENOMEM`.
pub fn place_new<H: Host>(
    call: &Call<'_, H>,
    lock: &mut ExecLock<'_, H>,
    gem: &GemRef<H>,
) -> Result<(), Errno> {
    if gem.placement & REGION_VRAM != 0 {
        let may_wait = gem.placement & REGION_SYSTEM == 0;
        let placed = make_room(call, lock, gem.size, may_wait)
            .and_then(|frames| fill_vram(call, gem, frames, false));
        match placed {
            Ok(place) => {
                gem.set_place(place);
                return Ok(());
            }
            Err(Errno::NOMEM) if !may_wait => {}
            Err(errno) => return Err(errno),
        }
    }
    gem.set_place(alloc_system(call, gem)?);
    Ok(())
}

/// Frames of VRAM, evicting others if need be; with `may_wait` also those that are in use.
fn make_room<H: Host>(
    call: &Call<'_, H>,
    lock: &mut ExecLock<'_, H>,
    size: u64,
    may_wait: bool,
) -> Result<Frames, Errno> {
    if size > call.dev.config.vram_bytes {
        return Err(Errno::NOMEM);
    }
    for wait in [false, true] {
        if wait && !may_wait {
            break;
        }
        let (mut after, mut after_chunk) = ((0, 0), (0, 0));
        loop {
            devmem::drain(call.dev);
            match alloc_vram(call.dev, size) {
                Err(Errno::NOMEM) => {}
                done => return done,
            }
            let victim = next_victim(call.dev, after)?;
            let chunk = devmem::oldest(call.dev, after_chunk, 0);
            let older = |chunk: &Known| victim.as_ref().is_none_or(|(key, _)| chunk.key.0 < key.0);
            if let Some(chunk) = chunk.filter(older) {
                after_chunk = chunk.key;
                migrate::evict(call.dev, &chunk);
                continue;
            }
            let Some((key, victim)) = victim else { break };
            after = key;
            evict_victim(call, lock, &victim, wait)?;
        }
    }
    Err(Errno::NOMEM)
}

type Key = (u64, u64);

/// The least recently used object behind `after` that is in VRAM and may leave it.
///
/// # Errors
/// None now.
pub fn next_victim<H: Host>(
    dev: &Device<H>,
    mut after: Key,
) -> Result<Option<(Key, GemRef<H>)>, Errno> {
    loop {
        let objects = dev.objects.lock();
        let mut best: Option<(Key, &Arc<Gem<H>>)> = None;
        for (_, gem) in objects.iter() {
            let key = (gem.last_use(), gem.id);
            let may_leave = gem.placement & REGION_SYSTEM != 0;
            let comes_next = key > after && best.as_ref().is_none_or(|(least, _)| key < *least);
            if may_leave && comes_next && gem.resident() == REGION_VRAM {
                best = Some((key, gem));
            }
        }
        let found = best.map(|(key, gem)| (key, GemRef::try_get(gem)));
        drop(objects);
        match found {
            None => return Ok(None),
            Some((key, Some(gem))) => return Ok(Some((key, gem))),
            // It is about to go: its frames will be free soon; look behind it.
            Some((key, None)) => after = key,
        }
    }
}

/// Moves a victim to system memory if it can be had without trouble; with `wait` also when it is in use.
///
/// # Errors
/// `RESTARTSYS`, `EIO`.
pub fn evict_victim<H: Host>(
    call: &Call<'_, H>,
    lock: &mut ExecLock<'_, H>,
    gem: &GemRef<H>,
    wait: bool,
) -> Result<(), Errno> {
    // Those that this context holds are needed where they are.
    if !lock.try_lock(&gem.resv)? {
        return Ok(());
    }
    let moved = match !wait && !gem.resv.is_idle() {
        true => Ok(()),
        false => gem.resv.wait_idle(call.dev, Some(call.task)).and_then(|()| {
            match gem.resident() == REGION_VRAM {
                true => move_to(call, gem, None).map(|_| ()),
                false => Ok(()),
            }
        }),
    };
    lock.unlock(&gem.resv);
    match moved {
        // This one cannot go now; another one may.
        Err(Errno::NOMEM) => Ok(()),
        other => other,
    }
}

/// Moves an object to system memory, to which it may go; its reservation is held. Returns the bytes
/// moved: 0 when it was there already.
///
/// # Errors
/// `ENOMEM`, `EIO`, `RESTARTSYS`; the object stays where it was.
pub fn evict<H: Host>(call: &Call<'_, H>, gem: &GemRef<H>) -> Result<u64, Errno> {
    gem.resv.wait_idle(call.dev, Some(call.task))?;
    if gem.resident() != REGION_VRAM {
        return Ok(0);
    }
    move_to(call, gem, None)?;
    Ok(gem.size)
}

/// Moves an object to a region it may live in, making room; its reservation is held. No effect when
/// it is there already.
///
/// # Errors
/// `ENOMEM`, `EIO`, `RESTARTSYS`; the object stays where it was.
pub fn prefetch<H: Host>(
    call: &Call<'_, H>,
    lock: &mut ExecLock<'_, H>,
    gem: &GemRef<H>,
    region: u32,
) -> Result<(), Errno> {
    if gem.placement & region == 0 || gem.resident() == region {
        return Ok(());
    }
    gem.resv.wait_idle(call.dev, Some(call.task))?;
    if region == REGION_SYSTEM {
        return move_to(call, gem, None);
    }
    let frames = make_room(call, lock, gem.size, true)?;
    move_to(call, gem, Some(frames))
}

/// Brings an object that a VM has found evicted back to VRAM, its first choice, if there is room
/// without driving others out and nobody uses it; its reservation is held. If that fails, it serves
/// from where it is.
pub fn bring_back<H: Host>(call: &Call<'_, H>, gem: &GemRef<H>) {
    let wanted = gem.placement & REGION_VRAM != 0 && gem.resident() == REGION_SYSTEM;
    if wanted && gem.resv.is_idle() {
        if let Ok(frames) = alloc_vram(call.dev, gem.size) {
            let _ = move_to(call, gem, Some(frames));
        }
    }
}

/// Lets a VM's page tables show an object that had moved, wherever it is now. Its reservation is held.
///
/// # Errors
/// `ENOMEM`.
pub fn validate<H: Host>(vm: &Vm<H>, gem: &GemRef<H>) -> Result<(), Errno> {
    if gem.is_evicted(vm) {
        vm.restore_object(gem)?;
        gem.set_evicted(vm, false);
        vm.dev().counters.inc(Counter::Restores);
    }
    Ok(())
}

/// Moves an object into frames of VRAM or, without, to system memory. Its reservation is held and
/// idle.
fn move_to<H: Host>(
    call: &Call<'_, H>,
    gem: &GemRef<H>,
    frames: Option<Frames>,
) -> Result<(), Errno> {
    let dev = call.dev;
    let to_vram = frames.is_some();
    let system = match to_vram {
        true => Place::Nowhere,
        false => alloc_system(call, gem)?,
    };
    let paused = match take_out(gem) {
        Ok(paused) => paused,
        Err(errno) => {
            system.free(dev, gem.size);
            if let Some(frames) = frames {
                free_vram(dev, frames);
            }
            return Err(errno);
        }
    };
    dev.delay(Point::EvictUnmapped);
    let copied = match frames {
        Some(frames) => fill_vram(call, gem, frames, true),
        None => match call.inject(call.file.injection(INJECT_COPY), Errno::IO) {
            Ok(()) => Ok(system),
            Err(errno) => {
                system.free(dev, gem.size);
                Err(errno)
            }
        },
    };
    let result = copied.map(|place| {
        dev.delay(Point::EvictCopied);
        gem.set_place(place).free(dev, gem.size);
        count_move(dev, gem, to_vram);
    });
    put_back(gem, &paused);
    result
}

fn count_move<H: Host>(dev: &Device<H>, gem: &Gem<H>, to_vram: bool) {
    if to_vram {
        dev.counters.inc(Counter::MovesToVram);
        gem.touch();
    } else {
        dev.counters.inc(Counter::MovesToSystem);
        dev.counters.inc(Counter::Evictions);
        dev.counters.add(Counter::EvictedBytes, gem.size);
        gem.evictions.fetch_add(1, crate::facade::Ordering::Relaxed);
    }
}

/// Long-running VMs that are paused for a move. Those, whatever maps the object by then, must be
/// resumed: a VM lets go of an object without its reservation.
type Paused<H> = Vec<Arc<Vm<H>>>;

/// Takes an object out of the page tables of every VM. Long-running VMs are paused first, with what
/// the way back needs reserved.
fn take_out<H: Host>(gem: &GemRef<H>) -> Result<Paused<H>, Errno> {
    let mut paused = Vec::new();
    let mut after = 0;
    while let Some(vm) = gem.next_link(after) {
        after = vm.id;
        if !vm.is_long_running() {
            continue;
        }
        let room = paused.reserve(1).map_err(Errno::from);
        if let Err(errno) = room.and_then(|()| vm.pause_for_move(gem)) {
            put_back(gem, &paused);
            return Err(errno);
        }
        let fits = paused.push_within_capacity(vm).is_ok();
        debug_assert!(fits, "the room was made");
    }
    after = 0;
    while let Some(vm) = gem.next_link(after) {
        after = vm.id;
        hide(gem, &vm);
    }
    Ok(paused)
}

fn hide<H: Host>(gem: &GemRef<H>, vm: &Arc<Vm<H>>) {
    if !vm.is_long_running() {
        gem.set_evicted(vm, true);
    }
    vm.clear_object(gem);
}

/// Writes the page tables of paused VMs again, wherever the object is now, and lets them go on.
fn put_back<H: Host>(gem: &GemRef<H>, paused: &[Arc<Vm<H>>]) {
    for vm in paused {
        vm.resume_after_move(gem);
    }
}

/// Locks an object alone for a move.
///
/// # Errors
/// `RESTARTSYS`, `ENOMEM`.
pub fn lock_one<'a, H: Host>(
    call: &Call<'a, H>,
    gem: &GemRef<H>,
) -> Result<ExecLock<'a, H>, Errno> {
    let mut lock = ExecLock::new(call.dev, Some(call.task));
    lock.until_all_locked(|lock| lock.lock(&gem.resv))?;
    Ok(lock)
}
