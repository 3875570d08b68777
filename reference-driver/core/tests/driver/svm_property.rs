//! SVM: random events of the CPU, accesses of the GPU, moves, evictions and exclusive access against a
//! model of values and permissions. Whatever is where, everybody sees the same, nothing is accessible
//! that should not be, and nothing is left over.

use fencepost_core::gpuva::Span;
use fencepost_host::sim::cpu::Kind;
use fencepost_uapi::fencepost::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::client::{load, prefetch, sim, store, store_reg, Client, K4, M2};
use super::svm::{Svm, A, RESULT};
use super::svm_atomic::add;

/// Pages of the region, at the edge of two ranges of 2 MiB.
const PAGES: u64 = 96;
const START: u64 = A + M2 - 64 * K4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    read: bool,
    write: bool,
    shared: bool,
    value: u64,
}

struct World<'a> {
    svm: Svm<'a>,
    pages: Vec<Option<Known>>,
    modes: Vec<u64>,
    pinned: Vec<u64>,
    random: ChaCha8Rng,
    queue: u32,
}

impl World<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        (u64::from(self.random.next_u32()) * bound) >> 32
    }

    /// Some pages: first and end.
    fn some(&mut self, most: u64) -> (u64, u64) {
        let first = self.below(PAGES);
        (first, (first + 1 + self.below(most)).min(PAGES))
    }

    fn span(first: u64, end: u64) -> Span {
        Span::new(START + first * K4, START + end * K4)
    }

    fn word(page: u64) -> u64 {
        START + page * K4 + page % 16 * 8
    }

    fn known(&self, page: u64) -> Option<Known> {
        self.pages[page as usize]
    }

    fn each(&mut self, (first, end): (u64, u64), f: impl Fn(&mut Known)) {
        self.pages[first as usize..end as usize].iter_mut().flatten().for_each(f);
    }

    fn run(&mut self, parts: &[Vec<u64>]) -> bool {
        let turn = self.svm.start_on(self.queue, parts);
        self.svm.c.sim.settle();
        let done = self.svm.is_done(turn);
        if !done {
            self.svm.c.queue_destroy(self.queue);
            self.queue = self.svm.c.queue(self.svm.vm, QUEUE_CLASS_EXEC);
        }
        done
    }

    // ---- accesses

    fn cpu(&mut self) {
        let page = self.below(PAGES);
        let (host, task) = (self.svm.host(), self.svm.task());
        let seen = host.cpu_load(task, Self::word(page));
        match self.known(page).filter(|known| known.read) {
            Some(known) => assert_eq!(seen, Ok(known.value), "CPU loads page {page}"),
            None => assert!(seen.is_err(), "page {page}"),
        }
        if self.below(2) == 0 {
            let value = self.random.next_u64();
            let done = self.svm.host().cpu_store(self.svm.task(), Self::word(page), value).is_ok();
            let may = self.known(page).is_some_and(|known| known.read && known.write);
            assert_eq!(done, may, "CPU stores to page {page}");
            if done {
                self.each((page, page + 1), |known| known.value = value);
            }
        }
    }

    fn gpu(&mut self) {
        let page = self.below(PAGES);
        let (word, known) = (Self::word(page), self.known(page));
        let readable = known.filter(|known| known.read);
        match self.below(3) {
            0 => {
                let done = self.run(&[load(word, 1), store_reg(RESULT, 1)]);
                assert_eq!(done, readable.is_some(), "GPU loads page {page}");
                if let Some(known) = readable {
                    assert_eq!(self.svm.result(), known.value, "GPU loads page {page}");
                }
            }
            1 => {
                let value = self.random.next_u64();
                let done = self.run(&[store(word, value)]);
                assert_eq!(done, readable.is_some_and(|k| k.write), "GPU stores to page {page}");
                if done {
                    self.each((page, page + 1), |known| known.value = value);
                }
            }
            _ => {
                let done = self.run(&[add(word, 3)]);
                let may = readable.is_some_and(|known| {
                    let mode = self.modes[page as usize];
                    known.write
                        && mode != SVM_ATOMIC_CPU
                        && (!known.shared || mode == SVM_ATOMIC_DEVICE)
                });
                assert_eq!(done, may, "GPU adds to page {page}: {readable:?}");
                if done {
                    self.each((page, page + 1), |known| known.value = known.value.wrapping_add(3));
                }
            }
        }
    }

    // ---- events of the CPU

    fn event(&mut self) {
        let part = self.some(24);
        let span = Self::span(part.0, part.1);
        let task = self.svm.task();
        match self.below(9) {
            0 => {
                self.unpin(part);
                self.svm.host().munmap(task, span);
                self.pages[part.0 as usize..part.1 as usize].fill(None);
            }
            1 | 2 => {
                self.unpin(part);
                let (shared, order) = (self.below(5) == 0, 4 * self.below(2) as u32);
                let kind = if shared { Kind::Shared } else { Kind::Anon(order) };
                self.svm.host().mmap_cpu(task, span, true, kind);
                let fresh = Known { read: true, write: true, shared, value: 0 };
                self.pages[part.0 as usize..part.1 as usize].fill(Some(fresh));
            }
            3 => {
                let (read, write) =
                    [(true, true), (true, false), (false, false)][self.below(3) as usize];
                self.svm.host().mprotect(task, span, read, write);
                self.each(part, |known| (known.read, known.write) = (read, write));
            }
            4 => {
                self.unpin(part);
                self.svm.host().discard(task, span);
                self.each(part, |known| known.value = 0);
            }
            5 => self.svm.host().swap_out(task, span),
            6 => self.fork(),
            7 => {
                let page = self.below(PAGES);
                if self.known(page).is_some_and(|k| k.read) && !self.pinned.contains(&page) {
                    self.svm.cpu_load(START + page * K4);
                    if self.svm.host().pin(task, START + page * K4, true) {
                        self.pinned.push(page);
                    }
                }
            }
            _ => self.unpin((0, PAGES)),
        }
    }

    fn unpin(&mut self, (first, end): (u64, u64)) {
        let (host, task) = (self.svm.host(), self.svm.task());
        self.pinned.retain(|page| {
            let stays = !(first..end).contains(page);
            if !stays {
                host.pin(task, START + page * K4, false);
            }
            stays
        });
    }

    /// A child sees what there was, writes, and ends.
    fn fork(&mut self) {
        self.unpin((0, PAGES));
        let child = self.svm.host().fork(self.svm.task());
        for _ in 0..6 {
            let page = self.below(PAGES);
            let Some(known) = self.known(page).filter(|known| known.read) else { continue };
            let word = Self::word(page);
            assert_eq!(self.svm.host().cpu_load(child, word), Ok(known.value), "page {page}");
            if known.write && !known.shared {
                let value = self.random.next_u64();
                self.svm.host().cpu_store(child, word, value).expect("its own copy");
                let now = self.svm.host().cpu_load(self.svm.task(), word);
                assert_eq!(now, Ok(known.value), "the child's store to page {page} is its own");
                // It sees its own, once: the model does not follow children.
                assert_eq!(self.svm.host().cpu_load(child, word), Ok(value));
                break;
            }
        }
        self.svm.host().exit_mm(child);
    }

    // ---- what the driver is asked for

    fn ask(&mut self) {
        let (first, end) = self.some(PAGES);
        let Span { start, end: stop } = Self::span(first, end);
        let (vm_id, size) = (self.svm.vm, stop - start);
        let region = 1 + self.below(2) as u32;
        match self.below(6) {
            0 | 1 => {
                let flags = self.below(2) as u32;
                let mut args =
                    SvmMigrate { vm_id, flags, start, size, region, ..Default::default() };
                let moved = self.svm.c.call(SVM_MIGRATE, &mut args);
                if moved.is_err() {
                    assert!(flags == SVM_MIGRATE_STRICT);
                }
                if moved.is_ok() && flags == SVM_MIGRATE_STRICT {
                    let wanted = if region == REGION_VRAM { SVM_LOCATION_DEVICE } else { 9 };
                    for bits in self.svm.query(start, size) {
                        // Without permissions nothing is told of them.
                        if bits & SVM_PAGE_ERROR != 0 {
                            continue;
                        }
                        let location = (bits & SVM_PAGE_LOCATION_MASK) >> SVM_PAGE_LOCATION_SHIFT;
                        match wanted {
                            SVM_LOCATION_DEVICE => assert_eq!(location, wanted, "all of them"),
                            _ => assert_ne!(location, SVM_LOCATION_DEVICE, "none of them"),
                        }
                    }
                }
            }
            2 => {
                let mut args = SvmExclusive { vm_id, start, size, ..Default::default() };
                let made = self.svm.c.call(SVM_EXCLUSIVE, &mut args);
                let all = (first..end).all(|page| {
                    self.modes[page as usize] != SVM_ATOMIC_CPU
                        && self.known(page).is_some_and(|k| k.read && k.write && !k.shared)
                });
                assert_eq!(made.is_ok(), all, "exclusive {first}..{end}");
            }
            3 => {
                self.svm.c.bind(vm_id, &[prefetch(start, size, region)]).expect("prefetches");
            }
            4 => {
                let (attr, value) = match self.below(2) {
                    0 => (SVM_ATTR_PREFERRED, self.below(3)),
                    _ => (SVM_ATTR_ATOMIC, self.below(4)),
                };
                let mut args = SvmAttr { vm_id, attr, start, size, value, ..Default::default() };
                self.svm.c.call(SVM_ATTR, &mut args).expect("an attribute");
                if attr == SVM_ATTR_ATOMIC {
                    self.modes[first as usize..end as usize].fill(value);
                }
            }
            _ => drop(self.svm.c.evict_svm().expect("evicts")),
        }
    }

    fn check(&self) {
        let svm = &self.svm;
        svm.c.sim.driver().assert_consistent(std::slice::from_ref(&svm.c.file.file));
        let (_, notifiers, frames) = svm.host().mirrored();
        assert_eq!(svm.counter("live.svm_pages"), frames as u64, "frames");
        assert_eq!(svm.counter("live.notifiers"), notifiers as u64, "notifiers");
        assert_eq!(svm.counter("live.dma_pages"), svm.host().dma_pages(), "DMA mappings");
        assert_eq!((svm.counter("bus_errors"), svm.counter("live.parked")), (0, 0));
        // What the GPU is shown is no more than what the CPU may do.
        for (page, bits) in (0..).zip(svm.query(START, PAGES * K4)) {
            let known = self.known(page);
            let readable = known.is_some_and(|known| known.read);
            let writable = known.is_some_and(|known| known.write);
            assert!(bits & SVM_PAGE_GPU_READ == 0 || readable, "page {page}: {bits:#x}");
            assert!(bits & SVM_PAGE_GPU_WRITE == 0 || writable, "page {page}: {bits:#x}");
        }
    }
}

/// What must have happened.
const EVIDENCE: [&str; 11] = [
    "svm.faults.read",
    "svm.faults.write",
    "svm.faults.atomic",
    "svm.cancels",
    "svm.invalidations",
    "svm.range_splits",
    "svm.migrated.to_device",
    "svm.cpu_faults",
    "svm.evictions",
    "svm.exclusive",
    "svm.revokes",
];

/// Plays a seed. Returns the evidence.
fn play(seed: u64, steps: u32) -> [u64; EVIDENCE.len()] {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let svm = Svm::new(&c);
    let queue = svm.queue;
    let (pages, modes) = (vec![None; PAGES as usize], vec![0; PAGES as usize]);
    let random = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World { svm, pages, modes, pinned: vec![], random, queue };
    for step in 0..steps {
        match world.below(10) {
            0..=1 => world.cpu(),
            2..=5 => world.gpu(),
            6..=7 => world.event(),
            _ => world.ask(),
        }
        if step % 8 == 0 {
            world.check();
        }
    }
    world.check();
    world.unpin((0, PAGES));
    for page in 0..PAGES {
        if let Some(known) = world.known(page).filter(|known| known.read) {
            assert_eq!(
                world.svm.cpu_load(World::word(page)),
                known.value,
                "page {page} at the end"
            );
        }
    }
    world.svm.host().munmap(world.svm.task(), World::span(0, PAGES));
    let seen = EVIDENCE.map(|name| world.svm.counter(name));
    world.svm.end();
    seen
}

#[test]
fn values_and_permissions_are_the_models() {
    let one: Option<u64> = std::env::var("FENCEPOST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..40, |seed| seed..seed + 1);
    let mut sums = [0; EVIDENCE.len()];
    for seed in seeds {
        println!("FENCEPOST_SEED={seed}");
        let seen = play(seed, 250);
        sums.iter_mut().zip(seen).for_each(|(sum, seen)| *sum += seen);
    }
    if one.is_none() {
        for (name, sum) in EVIDENCE.iter().zip(sums) {
            assert!(sum > 0, "{name}: the test shows what it says");
        }
    }
}
