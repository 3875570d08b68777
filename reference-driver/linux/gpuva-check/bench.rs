//! Both managers at the same work, in turns: map and unmap among many live mappings.
//!
//! Owns the work and the clock's use. Either side does all that a driver does for a request: decide
//! the operations, make and free the records of VAs, link them to their object. drm_gpuvm's VAs are
//! allocated by `kzalloc` as the operations come; core allocates its records by chunks.

use crate::check::Bo;
use crate::gpuva::{Attrs, Changes, Manager, Mapping, Span};
use crate::gpuvm::{self, Gpuvm, Request};
use crate::random::Random;
use core::fmt::Write;
use core::hint::black_box;
use kernel::alloc::KVVec;
use kernel::prelude::*;

/// Each live mapping has a slot of its own, of which it takes the first pages.
const SLOT: u64 = 1 << 16;
const PAGE: u64 = 1 << 12;
const LIVE_PAGES: u64 = 4;
const OBJECTS: u64 = 64;
/// Pairs of requests in one turn.
const PAIRS: usize = 400;
/// Turns of each side; the median counts. Odd.
const TURNS: usize = 201;

/// What a turn does to a slot.
#[derive(Clone, Copy)]
enum Work {
    /// A page of its own in the free part of the slot: M, then U.
    MapUnmap,
    /// A page in the middle of the live mapping: R(prev,next) M, then the whole again: U U U M.
    SplitJoin,
}

struct Core {
    manager: Manager<Bo>,
}

impl Core {
    fn request(&mut self, request: &Request) -> Result {
        let span = Span::new(request.start, request.start + request.range);
        let mut changes = Changes::new();
        if request.object == 0 {
            self.manager.unmap(span, &mut changes, |op| drop(black_box(op))).map_err(|_| ENOMEM)?;
        } else {
            let bo = Bo(request.object);
            let attrs = Attrs::default();
            let map = Mapping { span, object: Some(&bo), offset: request.offset, attrs };
            self.manager.map(&map, &mut changes, |op| drop(black_box(op))).map_err(|_| ENOMEM)?;
        }
        let removed = self.manager.seal(changes);
        self.manager.release(removed, drop);
        Ok(())
    }

    fn bench(&mut self, requests: &[Request]) -> Result {
        requests.iter().try_for_each(|request| self.request(request))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.manager.clear(drop);
    }
}

fn live(slot: u64) -> Request {
    let object = 1 + slot % OBJECTS;
    Request { start: slot * SLOT, range: LIVE_PAGES * PAGE, object, offset: 0 }
}

fn pair(work: Work, slot: u64) -> [Request; 2] {
    let whole = live(slot);
    let page = |page: u64, object| Request {
        start: whole.start + page * PAGE,
        range: PAGE,
        object,
        offset: 0,
    };
    match work {
        Work::MapUnmap => [page(8, whole.object), page(8, 0)],
        Work::SplitJoin => [page(1, 1 + (slot + 1) % OBJECTS), whole],
    }
}

/// A random order of the first `count` numbers.
fn shuffled(random: &mut Random, count: u64) -> Result<KVVec<u64>> {
    let mut order = KVVec::with_capacity(count as usize, GFP_KERNEL)?;
    for slot in 0..count {
        order.push(slot, GFP_KERNEL)?;
    }
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    Ok(order)
}

fn timed(work: impl FnOnce() -> Result) -> Result<u64> {
    let start = gpuvm::now_ns();
    work()?;
    Ok(gpuvm::now_ns() - start)
}

/// Both sides with `count` live mappings. Writes `bench COUNT WORK CORE DRM_GPUVM` for each kind of
/// work, with the median picoseconds of one request.
pub(crate) fn bench(seed: u64, count: u64, answer: &mut impl Write) -> Result {
    let mut random = Random::new(seed, count);
    let span = (0, 1 << 47);
    let manager = Manager::new(Span::new(span.0, span.1), Span::new(0, 0)).map_err(|_| ENOMEM)?;
    let mut core = Core { manager };
    let mut kernel = Gpuvm::new(span, (0, 0), OBJECTS)?;
    for slots in shuffled(&mut random, count)?.chunks(PAIRS) {
        let mut requests = KVVec::new();
        for slot in slots {
            requests.push(live(*slot), GFP_KERNEL)?;
        }
        core.bench(&requests)?;
        kernel.bench(&requests)?;
        gpuvm::breathe();
    }
    for (name, work) in [("map-unmap", Work::MapUnmap), ("split-join", Work::SplitJoin)] {
        let [core_ns, kernel_ns] = measure(&mut random, count, work, &mut core, &mut kernel)?;
        let each = |turn: u64| turn * 1000 / (2 * PAIRS as u64);
        writeln!(answer, "bench {count} {name} {} {}", each(core_ns), each(kernel_ns))?;
    }
    Ok(())
}

/// The median turn of core and of the kernel, in nanoseconds.
fn measure(
    random: &mut Random,
    count: u64,
    work: Work,
    core: &mut Core,
    kernel: &mut Gpuvm,
) -> Result<[u64; 2]> {
    let (mut cores, mut kernels) = (KVVec::new(), KVVec::new());
    for turn in 0..TURNS {
        let mut requests = KVVec::with_capacity(2 * PAIRS, GFP_KERNEL)?;
        for _ in 0..PAIRS {
            requests.extend_from_slice(&pair(work, random.below(count)), GFP_KERNEL)?;
        }
        // Who comes second finds the requests in the cache: so they take turns at that, too.
        if turn % 2 == 0 {
            cores.push(timed(|| core.bench(&requests))?, GFP_KERNEL)?;
        }
        kernels.push(timed(|| kernel.bench(&requests))?, GFP_KERNEL)?;
        if turn % 2 == 1 {
            cores.push(timed(|| core.bench(&requests))?, GFP_KERNEL)?;
        }
        gpuvm::breathe();
    }
    cores.sort_unstable();
    kernels.sort_unstable();
    Ok([cores[TURNS / 2], kernels[TURNS / 2]])
}
