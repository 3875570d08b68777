//! Tests of the oracle's address spaces: drm_gpuvm's documented cases and the sparse rules.

use super::clock::{Clock, Clocks, Event};
use super::space::{Mapped, Op, Space, Target, Translation};
use fencepost_fixtures::Errno;

const K: u64 = 4096;
const SIZE: u64 = 64 * K;

struct World {
    clocks: Clocks,
    line: u16,
    space: Space,
}

impl World {
    fn new() -> Self {
        let mut clocks = Clocks::default();
        let line = clocks.timeline();
        let at = clocks.tick(line);
        Self { clocks, line, space: Space::new(0, 1 << 40, Some((900 * K, 910 * K)), at) }
    }

    /// Makes a call of these operations; gives what the model refuses it with.
    fn bind(&mut self, ops: &[Op]) -> Result<(), Errno> {
        let plan = self.space.plan(ops, &|_| SIZE);
        if let Some(errno) = plan.refusal {
            return Err(errno);
        }
        let events: Vec<Event> = ops.iter().map(|_| self.clocks.tick(self.line)).collect();
        let call = self.space.begin(&plan, ops, &events);
        let contested = self.space.end(call, true, &self.clocks, &Clock::default());
        assert!(!contested, "one call at a time");
        Ok(())
    }

    /// The layout in units of 4 KiB: `[start,end)object@offset`, objects from `a`.
    fn layout(&self) -> String {
        let text = |(start, end, mapped): (u64, u64, &Mapped)| {
            let what = match mapped.object {
                Some((object, shift)) => {
                    let name = (b'a' + object as u8) as char;
                    format!("{name}{}", start.wrapping_add(shift) / K)
                }
                None => "null".to_owned(),
            };
            format!("{}-{}:{what}", start / K, end / K)
        };
        self.space.mappings(0, u64::MAX).map(text).collect::<Vec<_>>().join(" ")
    }

    /// Where an address (in units of 4 KiB) leads.
    fn leads(&mut self, addr: u64) -> Translation {
        let at = self.clocks.tick(self.line);
        let pieces = self.space.translate(&self.clocks, (addr * K, addr * K + 1), at);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].2.len(), 1, "one actor knows one translation");
        pieces[0].2[0].to
    }
}

fn map(object: usize, start: u64, end: u64, offset: u64) -> Op {
    let target = Target::Object(object, offset * K);
    Op::Map { addr: start * K, range: (end - start) * K, target, readonly: false, kind: 0 }
}

fn null(start: u64, end: u64) -> Op {
    let (addr, range) = (start * K, (end - start) * K);
    Op::Map { addr, range, target: Target::Null, readonly: false, kind: 0 }
}

fn sparse(start: u64, end: u64) -> Op {
    let (addr, range) = (start * K, (end - start) * K);
    Op::Map { addr, range, target: Target::Sparse, readonly: false, kind: 0 }
}

fn unmap(start: u64, end: u64) -> Op {
    Op::Unmap { addr: start * K, range: (end - start) * K, sparse: false }
}

fn unmap_sparse(start: u64, end: u64) -> Op {
    Op::Unmap { addr: start * K, range: (end - start) * K, sparse: true }
}

#[test]
fn the_documented_cases_of_split_and_merge() {
    let (a, b, n) = (0, 1, 4);
    let table: [(u32, Op, Op, &str); 15] = [
        (1, map(a, 0, 1, n), map(a, 0, 1, n), "0-1:a4"),
        (2, map(a, 0, 1, n), map(a, 0, 1, 9), "0-1:a9"),
        (3, map(a, 0, 1, n), map(b, 0, 1, n), "0-1:b4"),
        (4, map(a, 0, 1, n), map(a, 0, 2, n), "0-2:a4"),
        (5, map(a, 0, 2, n), map(b, 0, 1, n), "0-1:b4 1-2:a5"),
        (6, map(a, 0, 2, n), map(a, 0, 1, n), "0-1:a4 1-2:a5"),
        (7, map(a, 0, 2, n), map(b, 1, 2, 9), "0-1:a4 1-2:b9"),
        (8, map(a, 0, 2, n), map(a, 1, 2, n + 1), "0-1:a4 1-2:a5"),
        (9, map(a, 0, 2, n), map(b, 1, 3, 9), "0-1:a4 1-3:b9"),
        (10, map(a, 0, 2, n), map(a, 1, 3, n + 1), "0-1:a4 1-3:a5"),
        (11, map(a, 0, 3, n), map(b, 1, 2, 9), "0-1:a4 1-2:b9 2-3:a6"),
        (12, map(a, 0, 3, n), map(a, 1, 2, n + 1), "0-1:a4 1-2:a5 2-3:a6"),
        (13, map(a, 1, 2, n + 1), map(a, 0, 2, n), "0-2:a4"),
        (14, map(a, 1, 2, n + 1), map(a, 0, 3, n), "0-3:a4"),
        (15, map(a, 1, 3, n), map(b, 0, 2, 9), "0-2:b9 2-3:a5"),
    ];
    for (case, old, request, expected) in table {
        let mut world = World::new();
        world.bind(&[old]).expect("the old mapping");
        world.bind(&[request]).expect("the request");
        assert_eq!(world.layout(), expected, "case {case}");
    }
}

#[test]
fn a_request_over_several_mappings_keeps_the_ragged_edges() {
    let mut world = World::new();
    world.bind(&[map(0, 0, 4, 0), map(1, 4, 6, 0), map(0, 8, 12, 20)]).expect("three");
    world.bind(&[map(2, 2, 10, 0)]).expect("over all");
    assert_eq!(world.layout(), "0-2:a0 2-10:c0 10-12:a22");
    world.bind(&[unmap(1, 11)]).expect("a hole");
    assert_eq!(world.layout(), "0-1:a0 11-12:a23");
    world.bind(&[unmap(100, 200)]).expect("nothing there is fine");
}

#[test]
fn neighbours_are_not_merged() {
    let mut world = World::new();
    world.bind(&[map(0, 0, 1, 0), map(0, 1, 2, 1)]).expect("two");
    assert_eq!(world.layout(), "0-1:a0 1-2:a1");
}

#[test]
fn later_operations_of_a_call_see_earlier_ones() {
    let mut world = World::new();
    world.bind(&[map(0, 0, 4, 0), unmap(1, 3), map(1, 2, 3, 7)]).expect("one call");
    assert_eq!(world.layout(), "0-1:a0 2-3:b7 3-4:a3");
    assert_eq!(world.leads(1), Translation::None);
    let to = Translation::Object {
        object: 1,
        shift: 5 * K,
        readonly: false,
        atomics: true,
        told: false,
    };
    assert_eq!(world.leads(2), to);
}

#[test]
fn bad_ranges_are_refused_and_change_nothing() {
    let mut world = World::new();
    world.bind(&[map(0, 0, 4, 0)]).expect("something");
    let top = (1 << 40) / K;
    let table = [
        ("empty", unmap(3, 3), Errno::EINVAL),
        ("beyond the top", unmap(top - 1, top + 1), Errno::EINVAL),
        ("the hole", unmap(909, 911), Errno::EINVAL),
        ("the hole's end", map(0, 899, 901, 0), Errno::EINVAL),
        ("beyond the object", map(0, 0, 2, 63), Errno::EINVAL),
        ("misaligned", Op::Unmap { addr: 8, range: K, sparse: false }, Errno::EINVAL),
        ("wrapping", Op::Unmap { addr: K, range: u64::MAX - K + 1, sparse: false }, Errno::EINVAL),
        ("no such region", unmap_sparse(0, 4), Errno::ENOENT),
    ];
    for (what, op, errno) in table {
        assert_eq!(world.bind(&[unmap(0, 4), op]), Err(errno), "{what}");
        assert_eq!(world.layout(), "0-4:a0", "{what}");
    }
    for (what, op) in [
        ("below the hole", map(0, 899, 900, 0)),
        ("above the hole", map(0, 910, 911, 0)),
        ("the top", map(0, top - 1, top, 0)),
    ] {
        assert_eq!(world.bind(&[op]), Ok(()), "{what}");
    }
}

#[test]
fn sparse_regions_follow_nouveau() {
    let mut world = World::new();
    world.bind(&[sparse(10, 20)]).expect("a region");
    assert_eq!(world.leads(15), Translation::Zero { readonly: false });
    assert_eq!(world.bind(&[sparse(15, 25)]), Err(Errno::EEXIST));
    assert_eq!(world.bind(&[map(0, 9, 11, 0)]), Err(Errno::ENOSPC), "crosses the edge");
    assert_eq!(world.bind(&[map(0, 5, 25, 0)]), Err(Errno::ENOSPC), "contains it");
    world.bind(&[map(0, 30, 31, 0)]).expect("elsewhere");
    assert_eq!(world.bind(&[sparse(29, 40)]), Err(Errno::ENOSPC), "on a mapping");
    world.bind(&[map(0, 12, 14, 0)]).expect("inside");
    assert!(matches!(world.leads(13), Translation::Object { .. }));
    world.bind(&[unmap(8, 13)]).expect("also beyond the region");
    assert_eq!(world.leads(12), Translation::Zero { readonly: false }, "sparse again");
    assert_eq!(world.leads(9), Translation::None);
    assert_eq!(world.bind(&[unmap_sparse(10, 19)]), Err(Errno::ENOENT), "not exactly it");
    let again = [unmap_sparse(10, 20), map(0, 10, 11, 0)];
    assert_eq!(world.bind(&again), Err(Errno::EINVAL), "its range is taken in that call");
    let again = [unmap_sparse(10, 20), sparse(10, 20)];
    assert_eq!(world.bind(&again), Err(Errno::EEXIST));
    world.bind(&[unmap_sparse(10, 20)]).expect("exactly it");
    assert_eq!(world.leads(13), Translation::None);
    assert_eq!(world.layout(), "30-31:a0", "what was inside went with it");
}

#[test]
fn unmap_all_takes_every_mapping_of_an_object() {
    let mut world = World::new();
    world.bind(&[map(0, 0, 4, 0), map(1, 1, 2, 0), map(0, 8, 9, 5)]).expect("some");
    world.bind(&[Op::UnmapAll(0)]).expect("all of a");
    assert_eq!(world.layout(), "1-2:b0");
}

#[test]
fn madvise_splits_null_mappings_only() {
    let mut world = World::new();
    world.bind(&[null(0, 4), map(0, 4, 8, 0)]).expect("both kinds");
    world.bind(&[Op::Madvise { addr: K, range: 5 * K, region: None }]).expect("advice");
    assert_eq!(world.layout(), "0-1:null 1-4:null 4-8:a0");
}

#[test]
fn calls_in_flight_on_the_same_addresses_leave_them_unsure() {
    let mut world = World::new();
    let (one, two) = ([map(0, 0, 4, 0)], [map(1, 2, 6, 0)]);
    let other = world.clocks.timeline();
    let begin = |world: &mut World, ops: &[Op], line| {
        let plan = world.space.plan(ops, &|_| SIZE);
        let events = [world.clocks.tick(line)];
        world.space.begin(&plan, ops, &events)
    };
    let line = world.line;
    let first = begin(&mut world, &one, line);
    let second = begin(&mut world, &two, other);
    let none = Clock::default();
    assert!(world.space.end(first, true, &world.clocks, &none));
    assert!(world.space.end(second, true, &world.clocks, &none));
    assert!(world.space.is_unsure(2 * K, 4 * K));
    assert!(!world.space.is_unsure(0, 2 * K) && !world.space.is_unsure(4 * K, 6 * K));
    world.bind(&[unmap(0, 8)]).expect("covers it");
    assert!(world.space.is_sure());
}

#[test]
fn a_refused_call_leaves_no_translation() {
    let mut world = World::new();
    let ops = [map(0, 0, 4, 0)];
    let plan = world.space.plan(&ops, &|_| SIZE);
    let events = [world.clocks.tick(world.line)];
    let call = world.space.begin(&plan, &ops, &events);
    world.space.end(call, false, &world.clocks, &Clock::default());
    assert_eq!(world.leads(1), Translation::None);
    assert_eq!(world.layout(), "");
}
