//! Tests of what memory may hold: which reads are allowed and which are not.

use super::atomics::{Reach, Rmw, Values};
use super::clock::{Clock, Clocks, Event, Timeline};
use super::memory::{Grain, Memory, Mismatch, What, Write};
use super::value::{Object, Source};
use fencepost_fixtures::device::{AtomicOp, Width};

/// A memory with one object of 4 KiB of zeros, and some timelines.
struct World {
    clocks: Clocks,
    memory: Memory,
    horizon: Clock,
    object: Object,
}

impl World {
    fn new(lines: usize) -> (Self, Vec<Timeline>) {
        let mut clocks = Clocks::default();
        let main = clocks.timeline();
        let start = clocks.tick(main);
        let mut memory = Memory::default();
        let object = memory.create(4096, Source::repeat(0, 8, 0), start, 0);
        let lines = (0..lines).map(|_| clocks.timeline()).collect::<Vec<_>>();
        lines.iter().for_each(|line| clocks.acquire(*line, &[start]));
        (Self { clocks, memory, horizon: Clock::default(), object }, lines)
    }

    fn put(&mut self, line: Timeline, range: (u64, u64), what: What, certain: bool) -> Event {
        let at = self.clocks.tick(line);
        let write = Write { at, origin: at.index, certain, release: false, what };
        self.memory.write(&self.clocks, &self.horizon, self.object, range, &write);
        at
    }

    fn store(&mut self, line: Timeline, offset: u64, value: u64) -> Event {
        let source = Source::repeat(value, 8, offset);
        self.put(line, (offset, offset + 8), What::Store(source), true)
    }

    fn atomic(&mut self, line: Timeline, op: AtomicOp, operand: u64, times: u32) -> Event {
        let rmw = Rmw { op, operand, width: Width::U64, times, reach: Reach::System };
        self.put(line, (0, 8), What::Rmw(rmw), true)
    }

    fn read(&mut self, line: Timeline, offset: u64, seen: u64) -> Result<(), Box<Mismatch>> {
        let at = self.clocks.tick(line);
        let bytes = seen.to_le_bytes();
        self.memory.check(&self.clocks, self.object, offset, &bytes, at, Grain::Word)
    }

    fn words(&mut self, line: Timeline) -> Values {
        let at = self.clocks.tick(line);
        self.memory.words(&self.clocks, self.object, 0, 8, at).listed()
    }

    fn join(&mut self, line: Timeline, others: &[Timeline]) {
        let events: Vec<Event> = others.iter().map(|other| self.clocks.now(*other)).collect();
        self.clocks.acquire(line, &events);
    }

    fn everybody_knows(&mut self, line: Timeline) {
        self.horizon = self.clocks.at(self.clocks.now(line));
    }
}

fn set(values: &[u64]) -> Values {
    Values::Some(values.iter().copied().collect())
}

#[test]
fn one_actor_sees_its_last_store_only() {
    let (mut world, a) = World::new(1);
    world.store(a[0], 8, 5);
    assert!(world.read(a[0], 8, 5).is_ok());
    world.store(a[0], 8, 6);
    assert!(world.read(a[0], 8, 6).is_ok());
    let stale = world.read(a[0], 8, 5).expect_err("5 was overwritten");
    assert_eq!((stale.offset, stale.stale), (8, Some(1)), "{stale:?}");
    assert!(world.read(a[0], 0, 0).is_ok() && world.read(a[0], 0, 6).is_err());
}

#[test]
fn a_racing_store_may_be_seen_or_not_and_an_ordered_one_must() {
    let (mut world, a) = World::new(2);
    world.store(a[0], 0, 5);
    assert!(world.read(a[1], 0, 0).is_ok() && world.read(a[1], 0, 5).is_ok());
    assert!(world.read(a[1], 0, 4).is_err());
    world.join(a[1], &[a[0]]);
    assert!(world.read(a[1], 0, 5).is_ok() && world.read(a[1], 0, 0).is_err());
    let later = world.store(a[1], 0, 7);
    // a0 does not know of the 7, so that it may see both; never the 0 again.
    assert!(world.read(a[0], 0, 5).is_ok() && world.read(a[0], 0, 7).is_ok());
    assert!(world.read(a[0], 0, 0).is_err());
    assert!(later.index > 0);
}

#[test]
fn a_read_before_a_store_cannot_see_it() {
    let (mut world, a) = World::new(2);
    let early = world.clocks.tick(a[0]);
    world.join(a[1], &[a[0]]);
    world.store(a[1], 0, 9);
    let seen = 9u64.to_le_bytes();
    let check = world.memory.check(&world.clocks, world.object, 0, &seen, early, Grain::Word);
    assert!(check.is_err(), "the store came after the read");
}

#[test]
fn racing_stores_leave_one_of_them() {
    let (mut world, a) = World::new(3);
    world.store(a[0], 0, 1);
    world.store(a[1], 0, 2);
    world.store(a[0], 0, 3);
    world.join(a[2], &[a[0], a[1]]);
    assert_eq!(world.words(a[2]), set(&[2, 3]), "1 was overwritten by its own actor");
    assert!(world.read(a[2], 0, 0).is_err());
}

#[test]
fn an_uncertain_store_hides_nothing() {
    let (mut world, a) = World::new(1);
    world.store(a[0], 0, 1);
    world.put(a[0], (0, 8), What::Store(Source::repeat(2, 8, 0)), false);
    assert_eq!(world.words(a[0]), set(&[1, 2]));
}

#[test]
fn additions_are_conserved() {
    let (mut world, a) = World::new(3);
    for _ in 0..100 {
        world.atomic(a[0], AtomicOp::Add, 1, 1);
        world.atomic(a[1], AtomicOp::Add, 1000, 1);
    }
    // A racing reader sees any number of each.
    let Values::Some(racing) = world.words(a[2]) else { panic!("modelled") };
    assert_eq!(racing.len(), 101 * 101);
    world.join(a[2], &[a[0], a[1]]);
    assert_eq!(world.words(a[2]), set(&[100_100]));
    assert!(world.read(a[2], 0, 100_099).is_err(), "a lost update");
    assert!(world.read(a[2], 0, 100_101).is_err(), "an update done twice");
}

#[test]
fn a_loop_of_additions_is_seen_between_its_rounds_only_by_racing_readers() {
    let (mut world, a) = World::new(2);
    world.atomic(a[0], AtomicOp::Add, 5, 3);
    assert_eq!(world.words(a[1]), set(&[0, 5, 10, 15]));
    world.join(a[1], &[a[0]]);
    assert_eq!(world.words(a[1]), set(&[15]));
}

#[test]
fn long_histories_of_additions_are_folded() {
    let (mut world, a) = World::new(1);
    for _ in 0..1000 {
        world.atomic(a[0], AtomicOp::Add, 3, 1);
        world.everybody_knows(a[0]);
    }
    assert_eq!(world.words(a[0]), set(&[3000]));
    assert!(world.memory.weight(world.object).1 < 200, "{:?}", world.memory.weight(world.object));
}

#[test]
fn bitwise_and_extremes_combine_exactly() {
    use AtomicOp::{And, Max, Min, Or, Xor};
    let table = [
        (Or, 0b0011, 0b0110, 0, 0b0111),
        (And, 0b0011, 0b0110, 0b1111, 0b0010),
        (Xor, 0b0011, 0b0110, 0b1000, 0b1101),
        (Min, 7, 4, 9, 4),
        (Max, 7, 12, 9, 12),
    ];
    for (op, left, right, first, last) in table {
        let (mut world, a) = World::new(3);
        world.store(a[2], 0, first);
        let known = world.clocks.now(a[2]);
        world.clocks.acquire(a[0], &[known]);
        world.clocks.acquire(a[1], &[known]);
        world.atomic(a[0], op, left, 1);
        world.atomic(a[1], op, right, 1);
        world.join(a[2], &[a[0], a[1]]);
        assert_eq!(world.words(a[2]), set(&[last]), "{op:?}");
    }
}

#[test]
fn atomics_that_do_not_commute_give_every_order() {
    let (mut world, a) = World::new(3);
    world.atomic(a[0], AtomicOp::Exchange, 5, 1);
    world.atomic(a[1], AtomicOp::Add, 1, 1);
    world.join(a[2], &[a[0], a[1]]);
    assert_eq!(world.words(a[2]), set(&[5, 6]));
    let (mut world, a) = World::new(3);
    let swap = AtomicOp::CompareExchange { compare: 0 };
    world.atomic(a[0], swap, 8, 1);
    world.atomic(a[1], swap, 9, 1);
    world.join(a[2], &[a[0], a[1]]);
    assert_eq!(world.words(a[2]), set(&[8, 9]), "one of them wins, the other sees it");
}

#[test]
fn the_old_value_of_an_atomic_is_checked_without_itself() {
    let (mut world, a) = World::new(2);
    world.atomic(a[0], AtomicOp::Add, 10, 1);
    let mine = world.atomic(a[1], AtomicOp::Add, 1, 1);
    let old = world.memory.words(&world.clocks, world.object, 0, 8, mine);
    assert_eq!(old, set(&[0, 10]));
}

#[test]
fn device_atomics_that_race_with_the_cpu_promise_nothing() {
    let (mut world, a) = World::new(3);
    for (line, reach) in [(0, Reach::Cpu), (1, Reach::Device)] {
        let rmw = Rmw { op: AtomicOp::Add, operand: 1, width: Width::U64, times: 1, reach };
        world.put(a[line], (0, 8), What::Rmw(rmw), true);
    }
    world.join(a[2], &[a[0], a[1]]);
    assert_eq!(world.words(a[2]), Values::Any);
}

#[test]
fn a_store_to_half_of_a_counter_keeps_the_other_half() {
    let (mut world, a) = World::new(1);
    world.atomic(a[0], AtomicOp::Add, 0x1_0000_0002, 1);
    world.put(a[0], (4, 8), What::Store(Source::repeat(9, 4, 4)), true);
    assert_eq!(world.words(a[0]), set(&[0x9_0000_0002]));
}

#[test]
fn a_copy_gives_what_its_source_held_then() {
    let (mut world, a) = World::new(1);
    world.store(a[0], 0, 5);
    let at = world.clocks.tick(a[0]);
    let source = Source::Copy { object: world.object, shift: 0u64.wrapping_sub(64), at };
    let what = What::Store(source);
    let write = Write { at, origin: 0, certain: true, release: false, what };
    world.memory.write(&world.clocks, &world.horizon, world.object, (64, 80), &write);
    world.store(a[0], 0, 6);
    assert!(world.read(a[0], 64, 5).is_ok() && world.read(a[0], 64, 6).is_err());
    assert!(world.read(a[0], 72, 0).is_ok(), "the second word of the copy");
    world.memory.settle_copies(&world.clocks, world.object, (64, 80), at);
    assert!(world.read(a[0], 64, 5).is_ok() && world.read(a[0], 64, 6).is_err());
}

#[test]
fn a_copy_racing_with_a_store_gives_either() {
    let (mut world, a) = World::new(2);
    world.store(a[0], 0, 5);
    let at = world.clocks.tick(a[1]);
    let source = Source::Copy { object: world.object, shift: 0u64.wrapping_sub(64), at };
    let write = Write { at, origin: 0, certain: true, release: false, what: What::Store(source) };
    world.memory.write(&world.clocks, &world.horizon, world.object, (64, 72), &write);
    world.memory.settle_copies(&world.clocks, world.object, (64, 72), at);
    assert!(world.read(a[1], 64, 5).is_ok() && world.read(a[1], 64, 0).is_ok());
    assert!(world.read(a[1], 64, 1).is_err());
}

#[test]
fn a_bulk_read_may_be_torn_by_a_race_and_a_word_may_not() {
    let (mut world, a) = World::new(2);
    world.store(a[0], 0, u64::MAX);
    let at = world.clocks.tick(a[1]);
    let torn = 0xffff_0000_0000_0000u64.to_le_bytes();
    let look = |grain| world.memory.check(&world.clocks, world.object, 0, &torn, at, grain);
    assert!(look(Grain::Bulk).is_ok());
    assert!(look(Grain::Word).is_err());
}

#[test]
fn large_reads_name_the_first_wrong_word_and_count_the_rest() {
    let (mut world, a) = World::new(1);
    let mut seen = vec![0; 4096];
    seen[24] = 1;
    seen[4000] = 1;
    let at = world.clocks.tick(a[0]);
    let wrong = world
        .memory
        .check(&world.clocks, world.object, 0, &seen, at, Grain::Bulk)
        .expect_err("two wrong words");
    assert_eq!((wrong.offset, wrong.wrong), (24, 16));
    assert_eq!(wrong.allowed[0].value, Some(0));
}

#[test]
fn what_everybody_knows_is_forgotten() {
    let (mut world, a) = World::new(1);
    for i in 0..1000 {
        world.store(a[0], 8 * (i % 4), i);
        world.everybody_knows(a[0]);
    }
    let (cells, writes) = world.memory.weight(world.object);
    assert!(cells <= 5 && writes <= 40, "{cells} cells, {writes} writes");
}
