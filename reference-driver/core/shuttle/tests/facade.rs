//! The facade's flavour over shuttle: locks exclude, ranks are kept for each thread, and a missing lock
//! is found.

use fencepost_core_shuttle::facade::inject::{self, Injection};
use fencepost_core_shuttle::facade::rank::assert_none_held;
use fencepost_core_shuttle::facade::{Arc, AtomicU32, Box, Mutex, Ordering, Rank};
use shuttle::{check_random, thread};

const SCHEDULES: usize = 200;

#[test]
fn a_lock_excludes_on_every_schedule() {
    check_random(
        || {
            let lock = Arc::new(Mutex::new(Rank::Vm, 0).expect("memory")).expect("memory");
            let other = lock.clone();
            let worker = thread::spawn(move || {
                let mut value = other.lock();
                let seen = *value;
                thread::yield_now();
                *value = seen + 1;
            });
            let outer = Mutex::new(Rank::Device, ()).expect("memory");
            {
                // The other thread's lock says nothing about this one's order.
                let _outer = outer.lock();
                *lock.lock() += 1;
            }
            worker.join().expect("the worker does not panic");
            assert_eq!(*lock.lock(), 2);
            assert_none_held();
        },
        SCHEDULES,
    );
}

#[test]
#[should_panic(expected = "an update was lost")]
fn a_missing_lock_is_found() {
    check_random(
        || {
            let value = Arc::new(AtomicU32::new(0)).expect("memory");
            let add = |value: &AtomicU32| {
                let seen = value.load(Ordering::SeqCst);
                value.store(seen + 1, Ordering::SeqCst);
            };
            let other = value.clone();
            let worker = thread::spawn(move || add(&other));
            add(&value);
            worker.join().expect("the worker does not panic");
            assert_eq!(value.load(Ordering::SeqCst), 2, "an update was lost");
        },
        SCHEDULES,
    );
}

#[test]
fn injection_is_for_one_thread() {
    check_random(
        || {
            let injection = Arc::new(Injection::exhausted()).expect("memory");
            let scope = inject::scope(injection);
            let worker = thread::spawn(|| Box::new(1).is_ok());
            assert!(Box::new(1).is_err(), "in force here");
            assert!(worker.join().expect("the worker does not panic"), "but not there");
            drop(scope);
            assert!(Box::new(1).is_ok());
        },
        SCHEDULES,
    );
}
