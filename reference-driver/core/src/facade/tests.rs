//! Tests of the facade: lock order, fence path, injection, containers.

use super::inject::{self, Injection};
use super::rank::{assert_none_held, FencePath, FENCE_PATH_FROM, RANKS};
use super::{AllocError, Arc, Box, Fifo, Mutex, Rank, Slab, SortedMap, Vec};
use crate::seed::for_seeds;
use std::panic::{catch_unwind, AssertUnwindSafe};

fn mutex(rank: Rank) -> Mutex<u32> {
    Mutex::new(rank, 0).expect("memory")
}

/// What a piece of work says when it panics.
fn panic_of(work: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(work)).err()?;
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
}

/// Each pair of ranks: only outer before inner.
#[test]
fn locks_are_taken_in_the_order_of_ranks() {
    for outer in RANKS {
        for inner in RANKS {
            let (first, second) = (mutex(*outer), mutex(*inner));
            let panic = panic_of(|| {
                let _first = first.lock();
                let _second = second.lock();
            });
            let expected = format!("lock order: {inner:?} wanted while {outer:?} is held");
            assert_eq!(panic, (inner <= outer).then_some(expected));
            assert_none_held();
        }
    }
}

#[test]
fn dropping_in_any_order_and_trying_are_fine() {
    let (device, leaf) = (mutex(Rank::Device), mutex(Rank::Leaf));
    let outer = device.lock();
    let inner = leaf.lock();
    drop(outer);
    assert!(panic_of(assert_none_held).is_some_and(|text| text.contains("Leaf")));
    // A lock that is not waited for cannot deadlock.
    let tried = device.try_lock().expect("free");
    assert!(leaf.try_lock().is_none(), "held");
    drop(inner);
    drop(tried);
    assert_none_held();
    // A lock outlives the panic of its holder.
    *leaf.lock() = 7;
    let crash = panic_of(|| {
        let _held = leaf.lock();
        panic!("crash");
    });
    assert_eq!(crash.as_deref(), Some("crash"));
    assert_eq!(*leaf.lock(), 7);
}

#[test]
fn the_fence_path_neither_allocates_nor_takes_outer_locks() {
    for rank in RANKS {
        let lock = mutex(*rank);
        let panic = panic_of(|| {
            let _path = FencePath::enter();
            drop(lock.lock());
        });
        assert_eq!(panic.is_none(), *rank >= FENCE_PATH_FROM, "{rank:?}");
    }
    let mut room: Vec<u32> = Vec::with_capacity(1).expect("memory");
    let path = FencePath::enter();
    let nested = FencePath::enter();
    drop(nested);
    while room.len() < room.capacity() {
        room.push(1).expect("room is there");
    }
    assert!(panic_of(|| assert!(room.push(2).is_err())).is_some(), "growth");
    assert!(panic_of(|| drop(Box::new(1))).is_some(), "a box");
    assert!(panic_of(|| drop(Arc::new(1))).is_some(), "an arc");
    assert!(panic_of(|| drop(Mutex::new(Rank::Leaf, 1))).is_some(), "a lock");
    drop(path);
    room.push(2).expect("outside it may");
}

#[test]
fn the_armed_allocation_fails_once() {
    let injection = Arc::new(Injection::new()).expect("memory");
    let run = || -> std::vec::Vec<bool> {
        let _scope = inject::scope(injection.clone());
        let mut vec = Vec::new();
        let results = [
            Box::new(1).map(drop),
            vec.reserve(4),
            vec.push(1),
            Arc::new(1).map(drop),
            Mutex::new(Rank::Leaf, 1).map(drop),
            vec.reserve(4),
        ];
        results.iter().map(Result::is_ok).collect()
    };
    assert_eq!(run(), [true; 6], "not armed");
    assert_eq!(injection.arm(3).seen, 5, "the push had room");
    assert_eq!(run(), [true, true, true, false, true, true]);
    assert_eq!(run(), [true; 6], "once only");
    let report = injection.arm(1);
    assert_eq!((report.seen, report.fired), (10, 1));
    assert!(Box::new(1).is_ok(), "outside the scope nothing counts");
    {
        let _scope = inject::scope(injection.clone());
        {
            let _off = inject::suspend();
            assert!(Box::new(1).is_ok(), "suspended");
        }
        assert_eq!(Box::new(1).err(), Some(AllocError), "in force again");
    }
    assert_eq!(injection.arm(0).seen, 1);
}

/// A failed reserve leaves a vector as it was.
#[test]
fn a_vector_survives_failed_growth() {
    let mut vec = Vec::new();
    vec.extend_from_slice(&[1, 2, 3]).expect("memory");
    let _scope = inject::scope(Arc::new(Injection::exhausted()).expect("memory"));
    let full = vec.capacity();
    while vec.len() < full {
        vec.push(0).expect("room");
    }
    let before = vec.len();
    assert_eq!(vec.push(9), Err(AllocError));
    assert_eq!(vec.push_within_capacity(9), Err(9));
    assert_eq!(vec.insert(0, 9), Err(AllocError));
    assert_eq!(vec.extend_from_slice(&[9, 9]), Err(AllocError));
    assert_eq!(vec.resize(before + 1, 9), Err(AllocError));
    assert_eq!((vec.len(), &vec[..3]), (before, &[1, 2, 3][..]));
}

#[test]
fn slab_numbers_from_one_and_reuses() {
    let mut slab = Slab::new();
    let reserved = slab.reserve().expect("memory");
    assert_eq!((reserved.id(), slab.len(), slab.get(1)), (1, 0, None), "not visible yet");
    assert_eq!(slab.insert('b').expect("memory"), 2);
    assert_eq!(slab.commit(reserved, 'a'), 1);
    assert_eq!((slab.get(0), slab.get(1), slab.get(3)), (None, Some(&'a'), None));
    assert_eq!((slab.remove(1), slab.remove(1), slab.len()), (Some('a'), None, 1));
    let reserved = slab.reserve().expect("memory");
    assert_eq!(reserved.id(), 1, "used again");
    assert_eq!(slab.remove(1), None, "not visible");
    slab.cancel(reserved);
    assert_eq!(slab.insert('c').expect("memory"), 1);
    assert_eq!(slab.iter().collect::<std::vec::Vec<_>>(), [(1, &'c'), (2, &'b')]);
    assert_eq!((slab.pop(), slab.pop(), slab.pop()), (Some((2, 'b')), Some((1, 'c')), None));
    assert_eq!(slab.insert('d').expect("memory"), 1);
}

/// A number that was reserved needs no memory to be filled.
#[test]
fn slab_commits_without_memory() {
    let mut slab = Slab::new();
    let reserved = slab.reserve().expect("memory");
    let _path = FencePath::enter();
    assert_eq!(slab.commit(reserved, 5), 1);
}

#[test]
fn fifo_agrees_with_a_deque() {
    for_seeds(20, |mut random| {
        let (mut fifo, mut model) = (Fifo::new(), std::collections::VecDeque::new());
        for value in 0..300 {
            match random.below(7) {
                0..4 => {
                    fifo.push_back(value).expect("memory");
                    model.push_back(value);
                }
                4 | 5 => assert_eq!(fifo.pop_front(), model.pop_front()),
                _ => {
                    let bound = random.below(5);
                    fifo.retain(|v| v % 5 != bound);
                    model.retain(|v| v % 5 != bound);
                }
            }
            assert!(fifo.iter().eq(model.iter()));
            assert_eq!((fifo.front(), fifo.back()), (model.front(), model.back()));
            assert_eq!(fifo.front_mut().copied(), model.front().copied());
            assert_eq!((fifo.len(), fifo.is_empty()), (model.len(), model.is_empty()));
        }
    });
}

#[test]
fn sorted_map_agrees_with_a_btree() {
    for_seeds(10, |mut random| {
        let (mut map, mut model) = (SortedMap::new(), std::collections::BTreeMap::new());
        for value in 0..300 {
            let key = random.below(40);
            if random.one_in(3) {
                assert_eq!(map.remove(&key), model.remove(&key));
            } else {
                assert_eq!(map.insert(key, value), Ok(model.insert(key, value)));
            }
            assert!(map.iter().eq(model.iter()));
            assert!(map.from(&20).eq(model.range(20..)));
            assert_eq!(map.get(&key), model.get(&key));
        }
    });
}
