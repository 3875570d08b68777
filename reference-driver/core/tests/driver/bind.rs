//! VM_BIND: layouts, page tables, atomicity, order, asynchronous binds.

use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;

use crate::client::*;

const A: u64 = 0x40_0000;

#[test]
fn replacing_the_middle_leaves_both_ends_with_their_data() {
    let sim = sim();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let (old, new) = (c.vram(3 * K64), c.system(K64));
    for i in 0..3 {
        c.poke(old, i * K64, 100 + i);
    }
    c.poke(new, 0, 7);
    c.bind(gpu.vm, &[map(old, A, 3 * K64, 0)]).expect("binds");
    c.bind(gpu.vm, &[map(new, A + K64, K64, 0)]).expect("binds");
    let layout = c.layout(gpu.vm);
    let expected = [
        (A, K64, old.handle, 0),
        (A + K64, K64, new.handle, 0),
        (A + 2 * K64, K64, old.handle, 2 * K64),
    ];
    assert_eq!(layout[..3], expected);
    assert_eq!([0, 1, 2].map(|i| gpu.read(A + i * K64)), [100, 7, 102]);
    assert_eq!(c.counter("ops.remap"), 1);
    assert_eq!(c.info(old).mappings, 2);
}

#[test]
fn a_call_that_maps_again_what_it_unmaps_shows_no_gap() {
    let sim = sim();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let (old, new) = (c.vram(3 * K64), c.system(K64));
    c.poke(old, 0, 1);
    c.poke(new, 0, 2);
    c.bind(gpu.vm, &[map(old, A, 3 * K64, 0)]).expect("binds");
    assert_eq!(gpu.read(A), 1);
    let clears = c.counter("pt.clears");
    c.bind(gpu.vm, &[unmap(A, K64), map(new, A, K64, 0)]).expect("binds");
    assert_eq!(c.counter("pt.clears"), clears, "nothing was cleared in between");
    assert_eq!(gpu.read(A), 2);
    c.bind(gpu.vm, &[unmap(A, 2 * K64), map(new, A, K64, 0)]).expect("binds");
    assert_ne!(c.counter("pt.clears"), clears, "what stays unmapped is cleared");
    assert_eq!(gpu.read(A), 2);
}

#[test]
fn the_largest_page_that_fits_everywhere_is_chosen() {
    let rows = [
        // address, size, offset; pages of 4K, 64K, 2M
        (2 * M2, M2, 0, [0, 0, 1]),
        (2 * M2 + K64, M2, 0, [0, 32, 0]),
        (2 * M2 + K4, K64, 0, [16, 0, 0]),
        (2 * M2, M2, K4, [512, 0, 0]),
        (2 * M2, M2 + K64 + K4, 0, [1, 1, 1]),
    ];
    let sim = sim();
    let c = Client::new(&sim);
    let bo = c.system(2 * M2);
    for (addr, size, offset, expected) in rows {
        let vm = c.vm();
        c.bind(vm, &[map(bo, addr, size, offset)]).expect("binds");
        let va = c.dump(vm)[0];
        assert_eq!([va.ptes_4k, va.ptes_64k, va.ptes_2m], expected, "{addr:#x} {size:#x}");
    }
}

#[test]
fn keep_does_not_keep_flags_or_kind() {
    let sim = sim();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let bo = c.system(K64);
    c.bind(gpu.vm, &[map(bo, A, K64, 0)]).expect("binds");
    gpu.run(&[store(A, 1)]);
    let again = BindOp { kind: 9, ..readonly(map(bo, A, K64, 0)) };
    c.bind(gpu.vm, &[again]).expect("binds");
    assert_eq!(c.counter("ops.keep"), 1);
    assert_eq!(c.dump(gpu.vm)[0].kind, 9);
    gpu.run(&[store(A, 2)]);
    assert_eq!(c.peek(bo, 0), 1, "the store was refused");
    let fault = c.faults(gpu.vm)[0];
    assert_eq!((fault.addr, fault.kind), (A, FAULT_KIND_PERMISSION));
    assert_eq!(fault.access, FAULT_ACCESS_WRITE);
    assert_eq!(c.queue_info(gpu.queue).state, QUEUE_STATE_BANNED);
}

#[test]
fn an_unmap_is_seen_by_a_warm_tlb() {
    let sim = sim();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let bo = c.system(K64);
    c.bind(gpu.vm, &[map(bo, A, K64, 0)]).expect("binds");
    gpu.run(&[store(A, 1)]);
    c.bind(gpu.vm, &[unmap(A, K64)]).expect("unbinds");
    gpu.run(&[store(A, 2)]);
    assert_eq!(c.peek(bo, 0), 1);
    assert_eq!(c.faults(gpu.vm)[0].kind, FAULT_KIND_NOT_PRESENT);
}

#[test]
fn null_and_sparse_read_as_zero_and_drop_writes() {
    let sim = sim();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let bo = c.system(K64);
    c.poke(bo, 0, 5);
    c.bind(gpu.vm, &[map_null(A, K64), map_sparse(A + M2, M2)]).expect("binds");
    gpu.run(&[store(A, 1), store(A + M2, 1)]);
    assert_eq!((gpu.read(A), gpu.read(A + M2)), (0, 0));
    c.bind(gpu.vm, &[map(bo, A + M2, K64, 0)]).expect("binds in the region");
    assert_eq!((gpu.read(A + M2), gpu.read(A + M2 + K64)), (5, 0));
    c.bind(gpu.vm, &[unmap(A + M2, K64)]).expect("unbinds");
    assert_eq!(gpu.read(A + M2), 0, "the sparse behaviour is back");
    c.bind(gpu.vm, &[unmap_sparse(A + M2, M2)]).expect("removes the region");
    assert_eq!(c.dump(gpu.vm).len(), 2);
    assert!(c.counter("sparse.reads") > 0 && c.counter("sparse.writes") > 0);
}

#[test]
fn huge_null_and_sparse_ranges_cost_little() {
    let sim = sim();
    let c = Client::new(&sim);
    let vm = c.vm();
    let before = c.counter("live.pt_nodes");
    c.bind(vm, &[map_null(0, 1 << 46), map_sparse(1 << 46, 1 << 46)]).expect("binds");
    assert!(c.counter("live.pt_nodes") < before + 16);
    c.bind(vm, &[unmap(K4, (1 << 46) - K4)]).expect("unbinds");
    assert_eq!(c.layout(vm)[0], (0, K4, 0, 0));
}

#[test]
fn errors_of_sparse_regions() {
    let sim = sim();
    let c = Client::new(&sim);
    let vm = c.vm();
    let bo = c.system(M2);
    c.bind(vm, &[map_sparse(A, M2), map(bo, A + 2 * M2, K64, 0)]).expect("binds");
    let rows = [
        (map(bo, A - K4, 2 * K4, 0), Errno::NOSPC),
        (map(bo, A + M2 - K4, 2 * K4, 0), Errno::NOSPC),
        (map_sparse(A + K4, K4), Errno::EXIST),
        (map_sparse(A + 2 * M2, K4), Errno::NOSPC),
        (unmap_sparse(A, M2 - K4), Errno::NOENT),
        (unmap_sparse(A + 4 * M2, M2), Errno::NOENT),
    ];
    let before = c.layout(vm);
    for (op, errno) in rows {
        assert_eq!(c.bind(vm, &[op]), Err(errno), "{op:?}");
        assert_eq!(c.layout(vm), before);
    }
    let pair = [unmap_sparse(A, M2), map(bo, A, K4, 0)];
    assert_eq!(c.bind(vm, &pair), Err(Errno::INVAL), "a region that goes takes no mapping");
    c.bind(vm, &[map(bo, A, K4, 0)]).expect("the failed call left the region as it was");
}

#[test]
fn a_call_happens_as_a_whole_or_not_at_all() {
    let sim = sim();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let (a, b) = (c.system(M2), c.vram(K64));
    c.poke(a, 0, 1);
    c.bind(gpu.vm, &[map(a, A, M2, 0)]).expect("binds");
    let before = c.dump(gpu.vm);
    // No region is there, which shows only when the operations before have been applied.
    let bad = unmap_sparse(1 << 40, M2);
    let good = [map(b, A + K64, K64, 0), unmap(A, K4), unmap_all(a), map_sparse(1 << 41, M2)];
    for len in 0..=good.len() {
        let ops = [&good[..len], &[bad]].concat();
        assert_eq!(c.bind(gpu.vm, &ops), Err(Errno::NOENT));
        assert_eq!(c.dump(gpu.vm), before, "{len} good operations before");
        assert_eq!(gpu.read(A), 1);
    }
    assert!(c.counter("binds.unwound") >= 3);
}

#[test]
fn any_failed_allocation_leaves_no_trace_and_unmap_needs_none() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let gpu = Gpu::new(&c);
    let (a, b) = (c.system(2 * M2), c.vram(K64));
    c.bind(gpu.vm, &[map(a, A, 2 * M2, 0)]).expect("binds");
    c.poke(a, 0, 1);
    let (before, alive) = (c.dump(gpu.vm), live(&c));
    let ops = [map(b, A + K64, K64, 0), map_null(A + M2 + K4, K64), map_sparse(1 << 40, M2)];
    let mut failures = 0;
    loop {
        c.inject(INJECT_ALLOC, failures + 1);
        let result = c.bind(gpu.vm, &ops);
        if c.inject(INJECT_ALLOC, 0).fired == 0 {
            result.expect("no failure was left");
            break;
        }
        failures += 1;
        assert_eq!(result, Err(Errno::NOMEM), "allocation {failures}");
        assert_eq!(c.dump(gpu.vm), before);
        assert_eq!(live(&c), alive, "allocation {failures}");
        assert_eq!(gpu.read(A), 1);
    }
    assert!(failures > 5, "{failures} allocations");
    for nth in 1..=40 {
        c.bind(gpu.vm, &[map(a, A, 2 * M2, 0), map_null(1 << 41, 1 << 30)]).expect("binds");
        c.inject(INJECT_ALLOC, nth);
        c.bind(gpu.vm, &[unmap(A + K4, K4), unmap((1 << 41) + K4, K4)])
            .expect("an unmap never fails");
        c.bind(gpu.vm, &[unmap_all(a)]).expect("an unmap never fails");
        c.inject(INJECT_ALLOC, 0);
    }
}

/// The `live.*` counters, but for page-table nodes set aside and the like.
fn live(c: &Client<'_>) -> Vec<(&'static str, u64)> {
    let values = c.sim.driver().counters();
    let all = COUNTERS.iter().copied().zip(values);
    all.filter(|(name, _)| name.starts_with("live.")).collect()
}

#[test]
fn an_async_bind_waits_for_its_fence_and_signals_after_the_page_tables() {
    let sim = sim();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let bo = c.system(K64);
    let (word, gate, done) = (c.system(K4), c.syncobj(), c.syncobj());
    c.bind(gpu.vm, &[map(word, A + M2, K4, 0)]).expect("binds");
    let blocker = gpu.program(0x800, &[wait_for(A + M2, 1)]);
    c.exec(gpu.queue, &[blocker], &[sync_out(gate)]).expect("submits");
    let syncs = [sync_in(gate), sync_out(done), point_out(c.syncobj(), 3)];
    c.bind_async(gpu.vm, 0, &[map(bo, A, K64, 0)], &syncs).expect("submits");
    let va = c.dump(gpu.vm)[0];
    assert_eq!((va.addr, va.ptes_64k), (A, 0), "the address space is updated, the pages not");
    sim.step();
    assert!(!c.is_signalled(done));
    c.poke(word, 0, 1);
    c.wait(done);
    assert_eq!(c.dump(gpu.vm)[0].ptes_64k, 1);
    assert_eq!(c.query(syncs[2].handle, 0), 3);
}

#[test]
fn bind_queues_keep_their_order_and_no_other() {
    let sim = sim();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let (first, second) = (c.queue(gpu.vm, QUEUE_CLASS_BIND), c.queue(gpu.vm, QUEUE_CLASS_BIND));
    let (bo, word, gate) = (c.system(K64), c.system(K4), c.syncobj());
    c.bind(gpu.vm, &[map(word, A, K4, 0)]).expect("binds");
    c.exec(gpu.queue, &[gpu.program(0x800, &[wait_for(A, 1)])], &[sync_out(gate)])
        .expect("submits");
    let done: [u32; 4] = std::array::from_fn(|_| c.syncobj());
    let at = |i: u64| [map(bo, A + i * M2, K4, 0)];
    c.bind_async(gpu.vm, first, &at(1), &[sync_in(gate), sync_out(done[0])]).expect("submits");
    c.bind_async(gpu.vm, first, &at(2), &[sync_out(done[1])]).expect("submits");
    c.bind_async(gpu.vm, second, &at(3), &[sync_out(done[2])]).expect("submits");
    // The same addresses as the first: the second queue must wait here all the same.
    c.bind_async(gpu.vm, second, &[unmap(A + M2, K4)], &[sync_out(done[3])]).expect("submits");
    c.wait(done[2]);
    assert_eq!([0, 1, 3].map(|i| c.is_signalled(done[i])), [false; 3]);
    c.poke(word, 0, 1);
    c.wait_for(&done, 1, i64::MAX).expect("all signal");
    assert_eq!(c.dump(gpu.vm).iter().filter(|va| va.handle == bo.handle).count(), 2);
}

#[test]
fn a_call_without_operations_only_synchronises() {
    let sim = sim();
    let c = Client::new(&sim);
    let vm = c.vm();
    let (a, b) = (c.syncobj(), c.syncobj());
    c.signal(a);
    c.bind_async(vm, 0, &[], &[sync_in(a), sync_out(b)]).expect("submits");
    c.wait(b);
    c.bind(vm, &[]).expect("nothing to do");
    let fence = c.sim.host().alloc_user(c.task, 8);
    c.bind_async(vm, 0, &[], &[user_fence(fence, 77)]).expect("submits");
    let mut wait = WaitUserFence {
        addr: fence,
        value: 77,
        mask: u64::MAX,
        timeout_ns: 1 << 40,
        ..Default::default()
    };
    c.call(WAIT_USER_FENCE, &mut wait).expect("is written");
}

#[test]
fn a_failed_asynchronous_update_bans_the_vm() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let gpu = Gpu::new(&c);
    let (bo, done) = (c.system(K64), c.syncobj());
    c.inject(INJECT_ASYNC_BIND, 1);
    c.bind_async(gpu.vm, 0, &[map(bo, A, K64, 0)], &[sync_out(done)]).expect("submits");
    c.wait(done);
    assert_eq!(c.bind(gpu.vm, &[unmap(A, K4)]), Err(Errno::NOENT));
    assert_eq!(c.exec(gpu.queue, &[], &[]), Err(Errno::NOENT));
    assert_eq!(c.layout(gpu.vm)[0], (A, K64, bo.handle, 0), "the dump still works");
    c.close();
    assert_clean(&sim);
}

#[test]
fn the_hole_and_the_edges_of_the_address_space() {
    let sim = sim();
    let c = Client::new(&sim);
    let vm = c
        .vm_with(VmCreate { kernel_start: A, kernel_size: M2, va_end: 4 * A, ..Default::default() })
        .expect("a VM");
    let bo = c.system(M2);
    let rows = [
        (A - K4, K4, Ok(0)),
        (A - K4, 2 * K4, Err(Errno::INVAL)),
        (A, K4, Err(Errno::INVAL)),
        (A + M2 - K4, K4, Err(Errno::INVAL)),
        (A + M2, K4, Ok(0)),
        (4 * A - K4, K4, Ok(0)),
        (4 * A - K4, 2 * K4, Err(Errno::INVAL)),
        (4 * A, K4, Err(Errno::INVAL)),
        (u64::MAX - K4 + 1, 2 * K4, Err(Errno::INVAL)),
    ];
    for (addr, size, expected) in rows {
        assert_eq!(c.bind(vm, &[map(bo, addr, size, 0)]), expected, "{addr:#x}+{size:#x}");
    }
}

#[test]
fn madvise_splits_null_mappings_only() {
    let sim = sim();
    let c = Client::new(&sim);
    let vm = c.vm();
    let bo = c.system(K64);
    c.bind(vm, &[map_null(A, 4 * K4), map(bo, A + 4 * K4, K4, 0)]).expect("binds");
    c.bind(vm, &[madvise(A + K4, 4 * K4, REGION_SYSTEM)]).expect("advises");
    let seen: Vec<_> = c.dump(vm).iter().map(|va| (va.addr, va.range, va.preferred)).collect();
    assert_eq!(seen, [(A, K4, 0), (A + K4, 3 * K4, REGION_SYSTEM), (A + 4 * K4, K4, 0)]);
}

#[test]
fn a_reverted_call_still_knows_who_maps_an_object() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let gpu = Gpu::new(&c);
    let bo = c.bo(K64, REGION_SYSTEM | REGION_VRAM);
    c.poke(bo, 0, 4);
    c.bind(gpu.vm, &[map(bo, A, K64, 0), map_sparse(A + M2, M2)]).expect("binds");
    // The object's only mapping goes, and the new one is refused.
    let ops = [unmap(A, K64), map(bo, A + M2 - K4, K64, 0)];
    assert_eq!(c.bind(gpu.vm, &ops), Err(Errno::NOSPC));
    c.evict(bo.handle).expect("evicts");
    assert_eq!(gpu.read(A), 4, "it was validated where it is now");
    assert_eq!(c.counter("bus_errors"), 0);
}
