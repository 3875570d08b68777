//! Clients that map buffer objects and pass addresses to the driver.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use fencepost_fixtures::sys::ioctl::ioctl_at;
use fencepost_fixtures::sys::mapping::{Forbidden, Mapping};
use fencepost_uapi::{command as c, drm, fencepost as fp};
use nix::errno::Errno;

use super::Role;
use super::client::{Node, PAGE, command, write_batch};

pub(crate) const ROLES: &[Role] = &[
    ("bad_pointers_fault", bad_pointers_fault),
    ("mmap_is_checked", mmap_is_checked),
    ("mappings_keep_objects_and_files", mappings_keep_objects_and_files),
    ("memory_of_closed_objects_comes_back", memory_of_closed_objects_comes_back),
    ("cpu_and_gpu_atomics_add_up", cpu_and_gpu_atomics_add_up),
];

fn bad_pointers_fault() {
    let node = Node::open();
    let none = Forbidden::no_access(PAGE).unwrap();
    let cap = drm::GetCap { capability: drm::CAP_PRIME, value: 0 };
    let mut bytes = [0; 16];
    fencepost_uapi::Record::encode(&cap, &mut bytes);
    let read_only = Forbidden::read_only(PAGE, &bytes).unwrap();
    for (name, target) in [("inaccessible", &none), ("read-only", &read_only)] {
        assert_eq!(ioctl_at(node.as_fd(), drm::GET_CAP, target), Err(Errno::EFAULT), "{name}");
    }
    let mut query =
        fp::Query { query: fp::QUERY_CAPS, size: 64, data: read_only.addr(), ..Default::default() };
    assert_eq!(node.call(fp::QUERY, &mut query), Err(Errno::EFAULT), "nested, read-only");
    for data in [0, 8, u64::MAX, 1 << 63] {
        query.data = data;
        assert_eq!(node.call(fp::QUERY, &mut query), Err(Errno::EFAULT), "nested {data:#x}");
    }
}

fn mmap_is_checked() {
    let node = Node::open();
    let other = Node::open();
    let gem = node.gem_create(2 * PAGE);
    let offset = node.mmap_offset(gem);
    let map = |node: &Node, offset, len| Mapping::shared(node.as_fd(), offset, len).map(drop);
    assert_eq!(map(&node, offset, 2 * PAGE), Ok(()));
    assert_eq!(map(&node, offset + PAGE, PAGE), Err(Errno::EINVAL), "not from its start");
    assert_eq!(map(&node, offset, 2 * PAGE - 1), Ok(()), "a part of the last page");
    assert_eq!(map(&node, offset, 2 * PAGE + 1), Err(Errno::EINVAL), "beyond the end");
    assert_eq!(map(&node, offset + PAGE, 2 * PAGE), Err(Errno::EINVAL), "across the end");
    assert_eq!(map(&node, offset + 2 * PAGE, PAGE), Err(Errno::EINVAL), "after the end");
    assert_eq!(map(&node, 0, PAGE), Err(Errno::EINVAL), "offset 0");
    assert_eq!(map(&other, offset, PAGE), Err(Errno::EACCES), "without a handle");
    node.gem_close(gem);
    assert_eq!(map(&node, offset, PAGE), Err(Errno::EINVAL), "closed");
}

fn mappings_keep_objects_and_files() {
    let node = Node::open();
    let gem = node.gem_create(PAGE);
    let memory = node.map(gem, PAGE);
    memory.write(0, b"kept").unwrap();
    node.gem_close(gem);
    assert_eq!(node.counter("live.bos"), 1, "mapped");
    let mut seen = [0; 4];
    memory.read(0, &mut seen).unwrap();
    assert_eq!(&seen, b"kept");
    drop(memory);
    assert_eq!(node.counter("live.bos"), 0, "unmapped");

    let other = Node::open();
    let gem = other.gem_create(PAGE);
    let memory = other.map(gem, PAGE);
    drop(other);
    assert_eq!(node.counter("live.files"), 2, "the mapping holds the file");
    drop(memory);
    let counters = node.counters();
    assert_eq!((counters["live.files"], counters["live.bos"]), (1, 0));
}

/// 4 GiB go through a device of 1 GiB: what is closed and unmapped must come back.
fn memory_of_closed_objects_comes_back() {
    let node = Node::open();
    let size = 32 << 20;
    for round in 0..128 {
        let gem = node.gem_create(size);
        let memory = node.map(gem, size);
        for page in 0..4 {
            let word = memory.u64(page * PAGE).unwrap();
            assert_eq!(word.swap(round, Ordering::Relaxed), 0, "fresh memory is zero");
        }
        drop(memory);
        node.gem_close(gem);
    }
    assert_eq!(node.counter("live.bos"), 0);
}

fn cpu_and_gpu_atomics_add_up() {
    const ROUNDS: u32 = 20_000;
    let node = Node::open();
    let (batch, data) = (node.gem_create(PAGE), node.gem_create(PAGE));
    let (commands, words) = (node.map(batch, PAGE), node.map(data, PAGE));
    let vm = node.vm_create();
    node.bind(vm, batch, 0x10_0000, PAGE);
    node.bind(vm, data, 0x20_0000, PAGE);
    let add = u32::from(c::ATOMIC_ADD) << 8;
    let scope = c::WIDE | c::SYSTEM_SCOPE;
    let length = write_batch(
        &commands,
        &[
            // Both sides begin when the other is there.
            command(c::SEMAPHORE_RELEASE, c::WIDE, 0, &[0x20_0008, 1]),
            command(c::SEMAPHORE_WAIT, c::WIDE, 0, &[0x20_0010, 1, !0]),
            command(c::LOOP, 0, ROUNDS, &[]),
            command(c::ATOMIC, scope, add, &[0x20_0000, 1, 0]),
            command(c::LOOP_END, 0, 0, &[]),
            command(c::END, 0, 0, &[]),
        ],
    );
    let (queue, done) = (node.queue_create(vm), node.syncobj());
    node.exec(queue, 0x10_0000, length, done);
    while words.u64(8).unwrap().load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
    words.u64(16).unwrap().store(1, Ordering::Release);
    for _ in 0..ROUNDS {
        words.u64(0).unwrap().fetch_add(1, Ordering::Relaxed);
    }
    node.wait(done).unwrap();
    assert_eq!(words.u64(0).unwrap().load(Ordering::Acquire), 2 * u64::from(ROUNDS));
}
