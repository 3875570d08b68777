//! Memory: a call that fails for lack of it changes nothing; unmapping and unwinding need none.

use super::{Changes, Obj, Op, Space, Span};
use crate::facade::inject::{self, Injection};
use crate::facade::rank::FencePath;
use crate::facade::Arc;
use crate::gpuva::STANDBY;
use fencepost_uapi::Errno;

/// Every allocation of a map fails once: the space is as before, and in the end the map succeeds.
#[test]
fn map_fails_at_every_allocation_and_changes_nothing() {
    let mut space = Space::new();
    let injection = Arc::new(Injection::new()).expect("memory");
    let mut failures = 0;
    // More mappings than the arenas have room for, so that each of them grows.
    for start in 0..400 {
        for nth in 1.. {
            let before = (space.list(), space.manager.retained());
            let request = space.request(('a', start * 2, start * 2 + 1, start));
            let mut changes = Changes::new();
            injection.arm(nth);
            let scope = inject::scope(injection.clone());
            let result = space.manager.map(&request.as_ref(), &mut changes, |_| {});
            drop(scope);
            let fired = injection.arm(0).fired;
            if result.is_ok() {
                space.finish(changes);
                assert_eq!(fired, 0, "a failed allocation fails a map");
                break;
            }
            failures += 1;
            assert_eq!((result.err(), fired), (Some(Errno::NOMEM), 1));
            assert!(changes.is_empty());
            assert_eq!((space.list(), space.manager.retained()), before);
            space.finish(changes);
        }
    }
    assert!(failures > 10, "allocations were hit: {failures}");
}

/// Without any memory, unmaps that split still work as long as the stock lasts.
#[test]
fn unmap_splits_without_memory() {
    let mut space = Space::with(&[('a', 0, 800, 0)]);
    for i in 0..STANDBY as u64 / 2 {
        let mut changes = Changes::new();
        let result = without_memory(|| {
            let span = Span::new(10 * i + 4, 10 * i + 5);
            space.manager.unmap(span, &mut changes, |_| {})
        });
        assert_eq!(result, Ok(()), "split {i}");
        space.finish(changes);
    }
    assert_eq!(space.list().len(), STANDBY / 2 + 1);
}

/// Maps leave the stock to the unmaps: they fail first.
#[test]
fn maps_do_not_touch_the_stock() {
    let mut space = Space::with(&[('0', 0, 700, 0)]);
    let map = |space: &mut Space, start| {
        let request = space.request(('0', start, start + 1, 0));
        let mut changes = Changes::new();
        let each = |_: &Op<&Obj>| {};
        let result =
            without_memory(|| space.manager.map(&request.as_ref(), &mut changes, each).map(drop));
        space.finish(changes);
        result
    };
    let maps = (700..900).take_while(|start| map(&mut space, *start).is_ok()).count();
    assert!((1..200).contains(&maps), "{maps} maps had room");
    // Nothing is released meanwhile, so that each of them takes two records.
    let mut removed = Vec::new();
    for i in 0..STANDBY as u64 / 2 {
        assert_eq!(map(&mut space, 899), Err(Errno::NOMEM), "map {i}");
        let mut changes = Changes::new();
        let span = Span::new(10 * i + 4, 10 * i + 5);
        let result = without_memory(|| space.manager.unmap(span, &mut changes, |_| {}));
        assert_eq!(result, Ok(()), "split {i}");
        removed.push(space.manager.seal(changes));
    }
    space.check();
}

/// Undoing a call, however large, allocates nothing: an allocation in the fence path panics.
#[test]
fn revert_seal_and_release_allocate_nothing() {
    let mut space = Space::new();
    for start in 0..400 {
        space.map(('a', 2 * start, 2 * start + 1, start));
    }
    let before = space.list();
    let mut changes = Changes::new();
    space.manager.unmap(Span::new(0, 800), &mut changes, |_| {}).expect("unmap");
    for start in 0..100 {
        let request = space.request(('b', 7 * start, 7 * start + 5, 0));
        space.manager.map(&request.as_ref(), &mut changes, |_| {}).expect("memory");
    }
    {
        let _path = FencePath::enter();
        space.manager.revert(changes, drop);
    }
    space.check();
    assert_eq!(space.list(), before);

    let mut changes = Changes::new();
    space.manager.unmap(Span::new(1, 800), &mut changes, |_| {}).expect("unmap");
    {
        let _path = FencePath::enter();
        let removed = space.manager.seal(changes);
        space.manager.release(removed, drop);
    }
    space.check();
    assert_eq!(space.list(), [('a', 0, 1, 0)]);
}

/// Calls that are under way at the same time may be cleaned up in any order.
#[test]
fn release_in_any_order() {
    let mut space = Space::new();
    let mut calls = Vec::new();
    for (name, start, end) in [('a', 0, 10), ('b', 5, 15), ('a', 2, 7), ('c', 0, 20)] {
        let request = space.request((name, start, end, 0));
        let mut changes = Changes::new();
        space.manager.map(&request.as_ref(), &mut changes, |_| {}).expect("memory");
        calls.push(space.manager.seal(changes));
        space.check();
    }
    while !calls.is_empty() {
        space.manager.release(calls.remove(calls.len() / 2), drop);
        space.check();
    }
    assert_eq!((space.list(), space.manager.retained()), ([('c', 0, 20, 0)].into(), 0));
}

/// Runs `work` while every allocation fails.
fn without_memory<T>(work: impl FnOnce() -> T) -> T {
    let _scope = inject::scope(Arc::new(Injection::exhausted()).expect("memory"));
    work()
}
