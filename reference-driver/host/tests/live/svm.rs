//! A client of the driver whose GPU works on the client's own memory.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fencepost_host::live::tiny::user::Pages;
use fencepost_uapi::{Record, command as c, fencepost as fp};

use super::Role;
use super::client::{Node, PAGE, command, write_batch};

pub(crate) const ROLES: &[Role] = &[("gpu_works_on_the_clients_memory", gpu_works_on_memory)];

const BATCH: u64 = 0x10_0000;
const FENCE: u64 = BATCH + 0x800;

fn gpu_works_on_memory() {
    let node = Node::open();
    let flags = fp::VM_CREATE_LONG_RUNNING | fp::VM_CREATE_FAULT;
    let mut vm = fp::VmCreate { flags, ..Default::default() };
    node.call(fp::VM_CREATE, &mut vm).expect("a VM that takes faults");
    let gem = node.gem_create(PAGE);
    let memory = node.map(gem, PAGE);
    node.bind(vm.vm_id, gem, BATCH, PAGE);
    let pages = Pages::map(64 * PAGE).expect("memory");
    mirror(&node, vm.vm_id, pages.addr & !((1 << 30) - 1), 1 << 31);
    let queue = node.queue_create(vm.vm_id);
    for round in 1..4 {
        pages.word(3).store(100 * round, Ordering::Relaxed);
        run(
            &node,
            &memory,
            queue,
            round,
            &[
                command(c::LOOP, 0, 10, &[]),
                command(
                    c::ATOMIC,
                    c::WIDE | c::SYSTEM_SCOPE,
                    u32::from(c::ATOMIC_ADD) << 8,
                    &[pages.addr + 3 * PAGE, 1, 0],
                ),
                command(c::LOOP_END, 0, 0, &[]),
                command(c::STORE, c::WIDE, 0, &[pages.addr + 20 * PAGE, round]),
            ],
        );
        assert_eq!(pages.word(3).load(Ordering::Relaxed), 100 * round + 10);
        assert_eq!(pages.word(20).load(Ordering::Relaxed), round);
        if round == 2 {
            pages.part(16, 8).unmap().expect("munmap");
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            Pages::map_at(pages.addr + 16 * PAGE, 8 * PAGE, flags).expect("mmap");
        }
    }
    let far = pages.addr + 40 * PAGE;
    let body = |times: u32| {
        let add = u32::from(c::ATOMIC_ADD) << 8;
        let scope = c::WIDE | c::SYSTEM_SCOPE;
        [
            command(c::LOOP, 0, times, &[]),
            command(c::ATOMIC, scope | c::RESULT, add | 3, &[far, 2, 0]),
            command(c::ADD_REG, 0, 5, &[1]),
            command(c::STORE_REG, c::WIDE, 5, &[far + 8]),
            command(c::STORE_REG, c::WIDE, 3, &[far + 16]),
            command(c::LOAD, 0, 6, &[far + 8]),
            command(c::STORE_REG, 0, 6, &[far + 24]),
            command(c::LOOP_END, 0, 0, &[]),
        ]
    };
    run(&node, &memory, queue, 10, &body(1));
    let start = Instant::now();
    run(&node, &memory, queue, 11, &body(50_000));
    println!("300000 accesses in a loop: {:?}", start.elapsed());
    let seen = |at: u64| {
        let word = Pages { addr: pages.addr + 40 * PAGE, len: PAGE };
        word.at(at).load(Ordering::Relaxed)
    };
    assert_eq!((seen(0), seen(8)), (100_002, 50_000), "registers begin with zero");
    assert_eq!((seen(16), seen(24)), (100_000, 50_000));
    assert!(node.counter("svm.faults") > 0);
    assert!(node.counter("svm.invalidations") > 0);
}

fn mirror(node: &Node, vm_id: u32, addr: u64, range: u64) {
    let op = fp::BindOp {
        op: fp::BIND_OP_MAP,
        flags: fp::BIND_CPU_MIRROR,
        addr,
        range,
        ..Default::default()
    };
    let mut bytes = [0; fp::BindOp::SIZE];
    op.encode(&mut bytes);
    let mut bind = fp::VmBind {
        vm_id,
        num_ops: 1,
        op_stride: fp::BindOp::SIZE as u32,
        sync_stride: fp::Sync::SIZE as u32,
        ops: bytes.as_ptr().addr() as u64,
        ..Default::default()
    };
    node.call(fp::VM_BIND, &mut bind).expect("a mirror");
    std::hint::black_box(bytes);
}

/// Runs a batch and waits for its user fence.
fn run(
    node: &Node,
    memory: &fencepost_fixtures::sys::mapping::Mapping,
    queue_id: u32,
    value: u64,
    commands: &[Vec<u64>],
) {
    let length = write_batch(memory, &[commands, &[command(c::END, 0, 0, &[])]].concat());
    let (mut batch, mut sync) = ([0; fp::Batch::SIZE], [0; fp::Sync::SIZE]);
    fp::Batch { addr: BATCH, length, flags: 0 }.encode(&mut batch);
    let out = fp::Sync {
        kind: fp::SYNC_USER_FENCE,
        flags: fp::SYNC_SIGNAL,
        addr: FENCE,
        value,
        ..Default::default()
    };
    out.encode(&mut sync);
    let mut exec = fp::Exec {
        queue_id,
        batches: batch.as_ptr().addr() as u64,
        syncs: sync.as_ptr().addr() as u64,
        num_batches: 1,
        batch_stride: fp::Batch::SIZE as u32,
        num_syncs: 1,
        sync_stride: fp::Sync::SIZE as u32,
        ..Default::default()
    };
    node.call(fp::EXEC, &mut exec).expect("EXEC");
    std::hint::black_box((batch, sync));
    let deadline = Instant::now() + Duration::from_secs(10);
    let fence = memory.u64(0x800).expect("within");
    while fence.load(Ordering::Acquire) != value {
        assert!(Instant::now() < deadline, "the job does not end: {:?}", node.counters());
        std::thread::yield_now();
    }
}
