//! Queues, jobs, commands and faults.

use fencepost_uapi::command as c;
use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;

use crate::client::*;

const A: u64 = 0x40_0000;

/// A client's GPU with one object mapped at [`A`].
fn with_data<'a>(client: &'a Client<'a>) -> (Gpu<'a>, Bo) {
    let gpu = Gpu::new(client);
    let bo = client.system(2 * K64);
    client.bind(gpu.vm, &[map(bo, A, 2 * K64, 0)]).expect("binds");
    (gpu, bo)
}

#[test]
fn commands_do_what_they_say() {
    let sim = sim();
    let client = Client::new(&sim);
    let (gpu, bo) = with_data(&client);
    let atomic = |op: u8, operand: u64, compare: u64| {
        let imm = u32::from(op) << 8 | 2;
        vec![c::header(c::ATOMIC, c::WIDE | c::RESULT, imm), A, operand, compare]
    };
    let rows = [
        (c::ATOMIC_ADD, 3, 0, 13),
        (c::ATOMIC_EXCHANGE, 3, 0, 3),
        (c::ATOMIC_COMPARE_EXCHANGE, 3, 10, 3),
        (c::ATOMIC_COMPARE_EXCHANGE, 3, 11, 10),
        (c::ATOMIC_AND, 6, 0, 2),
        (c::ATOMIC_OR, 5, 0, 15),
        (c::ATOMIC_XOR, 3, 0, 9),
        (c::ATOMIC_MIN, 3, 0, 3),
        (c::ATOMIC_MAX, 3, 0, 10),
    ];
    for (op, operand, compare, expected) in rows {
        client.poke(bo, 0, 10);
        gpu.run(&[atomic(op, operand, compare), store_reg(A + 8, 2)]);
        assert_eq!((client.peek(bo, 0), client.peek(bo, 8)), (expected, 10), "atomic {op}");
    }
    let repeat = |times: u32| vec![c::header(c::LOOP, 0, times)];
    let end = vec![c::header(c::LOOP_END, 0, 0)];
    let add = vec![c::header(c::ADD_REG, 0, 5), 2];
    gpu.run(&[repeat(3), repeat(4), add, end.clone(), end, store_reg(A + 16, 5)]);
    assert_eq!(client.peek(bo, 16), 24, "nested loops");
    gpu.run(&[
        vec![c::header(c::FILL, 0, 0), A + 0x100, 0x20, 0x1_2222_3333],
        vec![c::header(c::COPY, 0, 0), A + 0x101, A + K64 - 3, 0x10],
    ]);
    assert_eq!(client.peek(bo, 0x118), 0x2222_3333_2222_3333);
    assert_eq!(client.peek(bo, K64), 0x2222_3333_2222_3333, "copied across a page");
    gpu.run(&[vec![c::header(c::TIMESTAMP, 0, 0), A + 24]]);
    assert!(client.peek(bo, 24) > 0);
}

#[test]
fn a_fault_is_reported_to_the_byte_and_bans_the_queue() {
    let sim = sim();
    let client = Client::new(&sim);
    let bad_length = vec![c::header(c::STORE, 0, 0) & !0xff00, 0, 0];
    let end = 1u64 << 48;
    let rows = [
        (store(0x1008, 1), 0x1008, FAULT_ACCESS_WRITE, FAULT_KIND_NOT_PRESENT),
        (load(0x1008, 1), 0x1008, FAULT_ACCESS_READ, FAULT_KIND_NOT_PRESENT),
        (store(A + 4, 1), A + 4, FAULT_ACCESS_WRITE, FAULT_KIND_ADDRESS),
        (store(end, 1), end, FAULT_ACCESS_WRITE, FAULT_KIND_ADDRESS),
        (vec![0xff], BATCH_VA, FAULT_ACCESS_FETCH, FAULT_KIND_COMMAND),
        (bad_length, BATCH_VA, FAULT_ACCESS_FETCH, FAULT_KIND_COMMAND),
        (vec![c::header(c::STORE, 0, 0)], BATCH_VA, FAULT_ACCESS_FETCH, FAULT_KIND_COMMAND),
        (vec![c::header(c::LOOP_END, 0, 0)], BATCH_VA, FAULT_ACCESS_FETCH, FAULT_KIND_COMMAND),
        (
            vec![c::header(c::ATOMIC, 0, 0), A + M2, 1, 0],
            A + M2,
            FAULT_ACCESS_ATOMIC,
            FAULT_KIND_NOT_PRESENT,
        ),
        (
            vec![c::header(c::COPY, 0, 0), A, A + 2 * K64 - 8, 32],
            A + 2 * K64,
            FAULT_ACCESS_WRITE,
            FAULT_KIND_NOT_PRESENT,
        ),
    ];
    for (program, addr, access, kind) in rows {
        let (gpu, _) = with_data(&client);
        gpu.run(std::slice::from_ref(&program));
        let fault = client.faults(gpu.vm)[0];
        let seen = (fault.addr, fault.access, fault.kind);
        assert_eq!(seen, (addr, access, kind), "{program:x?}");
        assert_eq!((fault.queue_id, fault.job), (gpu.queue, 1));
        assert_eq!(client.exec(gpu.queue, &[], &[]), Err(Errno::CANCELED));
    }
    assert_eq!(client.counter("faults.device"), 10);
}

#[test]
fn one_engine_interleaves_queues_that_wait_for_each_other() {
    let sim = sim();
    let client = Client::new(&sim);
    let (gpu, bo) = with_data(&client);
    let other = client.queue_with(QueueCreate { vm_id: gpu.vm, ..Default::default() });
    let other = other.expect("a low-priority queue");
    let waits = gpu.program(0, &[wait_for(A, 1), store(A + 8, 2)]);
    let serves = gpu.program(0x800, &[store(A, 1), wait_for(A + 8, 2), store(A + 16, 3)]);
    let (a, b) = (client.syncobj(), client.syncobj());
    client.exec(gpu.queue, &[waits], &[sync_out(a)]).expect("submits");
    client.exec(other, &[serves], &[sync_out(b)]).expect("submits");
    client.wait_for(&[a, b], 1, i64::MAX).expect("both end");
    assert_eq!(client.peek(bo, 16), 3);
}

#[test]
fn a_time_out_resets_the_engine_and_spares_the_innocent() {
    let sim = sim();
    let client = Client::new(&sim);
    let (gpu, bo) = with_data(&client);
    let guilty = client
        .queue_with(QueueCreate { vm_id: gpu.vm, timeout_ms: 5, priority: 2, ..Default::default() })
        .expect("a queue");
    let stuck = gpu.program(0x800, &[wait_for(A, 1)]);
    let (a, b) = (client.syncobj(), client.syncobj());
    client.exec(guilty, &[stuck], &[sync_out(a)]).expect("submits");
    client.exec(guilty, &[stuck], &[sync_out(b)]).expect("submits");
    gpu.run(&[store(A + 8, 5)]);
    client.wait_for(&[a, b], 1, i64::MAX).expect("both end");
    assert_eq!(client.peek(bo, 8), 5);
    let info = client.queue_info(guilty);
    assert_eq!((info.state, info.resets, info.completed), (QUEUE_STATE_BANNED, 1, 2));
    assert_eq!(client.counter("jobs.timeout"), 1);
    assert_eq!(client.counter("jobs.cancelled"), 1);
    assert_eq!(client.queue_info(gpu.queue).state, QUEUE_STATE_ACTIVE);
}

#[test]
fn destroying_a_queue_cancels_its_jobs() {
    let sim = sim();
    let client = Client::new(&sim);
    let (gpu, _) = with_data(&client);
    let fences = [client.syncobj(), client.syncobj()];
    for fence in fences {
        let stuck = gpu.program(0, &[wait_for(A, 1)]);
        client.exec(gpu.queue, &[stuck], &[sync_out(fence)]).expect("submits");
    }
    sim.step();
    assert_eq!(client.vm_destroy(gpu.vm), Err(Errno::BUSY));
    client.queue_destroy(gpu.queue);
    client.wait_for(&fences, 1, i64::MAX).expect("both end");
    assert_eq!(client.counter("jobs.cancelled"), 2);
    client.vm_destroy(gpu.vm).expect("no queue is left");
}

#[test]
fn a_process_that_dies_with_jobs_in_flight_leaves_nothing() {
    let sim = sim();
    let client = Client::new(&sim);
    let (gpu, _) = with_data(&client);
    let gate = client.syncobj();
    let stuck = gpu.program(0, &[wait_for(A, 1)]);
    client.exec(gpu.queue, &[stuck], &[sync_out(gate)]).expect("submits");
    sim.step();
    client.bind_async(gpu.vm, 0, &[unmap(A, K64)], &[sync_in(gate)]).expect("submits");
    client.close();
    assert_clean(&sim);
}

#[test]
fn a_queue_takes_256_unfinished_jobs() {
    let sim = sim();
    let client = Client::new(&sim);
    let (gpu, _) = with_data(&client);
    let stuck = gpu.program(0, &[wait_for(A, 1)]);
    for _ in 0..256 {
        client.exec(gpu.queue, &[stuck], &[]).expect("submits");
    }
    assert_eq!(client.exec(gpu.queue, &[stuck], &[]), Err(Errno::AGAIN));
}

#[test]
fn long_running_vms_have_no_fences_but_user_fences() {
    let sim = sim();
    let client = Client::new(&sim).testing();
    let flags = VM_CREATE_LONG_RUNNING;
    let vm = client.vm_with(VmCreate { flags, ..Default::default() }).expect("a VM");
    let batch = client.system(K64);
    let bo = client.bo(K64, REGION_SYSTEM | REGION_VRAM);
    let (out, queue) = (client.syncobj(), client.queue(vm, QUEUE_CLASS_EXEC));
    client.bind(vm, &[map(batch, BATCH_VA, K64, 0), map(bo, A, K64, 0)]).expect("binds");
    let gpu = Gpu { c: &client, vm, queue, batch, sync: out };
    let job = gpu.program(0, &[wait_for(A, 1), store(A + 8, 2)]);
    assert_eq!(client.exec(queue, &[job], &[sync_out(out)]), Err(Errno::OPNOTSUPP));
    let refused = client.bind_async(vm, 0, &[], &[sync_out(out)]);
    assert_eq!(refused, Err(Errno::OPNOTSUPP));
    client.exec(queue, &[job], &[user_fence(A + 16, 9)]).expect("submits");
    sim.step();
    // Its object moves under the running job, which goes on.
    assert_eq!(client.evict(bo.handle), Ok(K64));
    client.poke(bo, 0, 1);
    sim.settle();
    assert_eq!((client.peek(bo, 8), client.peek(bo, 16)), (2, 9));
    assert_eq!(client.info(bo).resident, REGION_SYSTEM);
}

#[test]
fn a_user_fence_wait_ends_by_value_time_or_ban() {
    let sim = sim();
    let client = Client::new(&sim);
    let (gpu, _) = with_data(&client);
    let addr = client.sim.bytes(client.task, &5u64.to_ne_bytes());
    let wait = |op, value, timeout_ns, queue_id| {
        let mut args = WaitUserFence {
            addr,
            op,
            value,
            mask: u64::MAX,
            timeout_ns,
            queue_id,
            ..Default::default()
        };
        client.call(WAIT_USER_FENCE, &mut args)
    };
    let rows = [
        (WAIT_OP_EQ, 5, true),
        (WAIT_OP_NEQ, 5, false),
        (WAIT_OP_GT, 4, true),
        (WAIT_OP_GT, 5, false),
        (WAIT_OP_GTE, 5, true),
        (WAIT_OP_LT, 5, false),
        (WAIT_OP_LTE, 5, true),
    ];
    for (op, value, holds) in rows {
        let expected = if holds { Ok(0) } else { Err(Errno::TIME) };
        assert_eq!(wait(op, value, 1000, 0), expected, "{op} {value}");
    }
    assert_eq!(wait(WAIT_OP_EQ, 6, -1, 0), Err(Errno::INTR));
    gpu.run(&[store(0, 0)]);
    assert_eq!(wait(WAIT_OP_EQ, 6, -1, gpu.queue), Err(Errno::IO));
}
