//! Tests of the whole model: jobs, binds, fences and actors together.

use super::clock::Timeline;
use super::jobs::{End, Wrong};
use super::memory::Grain;
use super::model::{Batch, BindAnswer, BindRequest, JobId, Model, Point, SpaceId, SubmitRequest};
use super::space::{Op, Target};
use super::value::{Object, Source};
use fencepost_fixtures::Errno;
use fencepost_fixtures::device::{
    AtomicOp, Compare, Fault, FaultAccess, FaultKind, GpuOp, Program, Queue, Scope, Width,
};

const K: u64 = 4096;
const W: Width = Width::U64;

struct World {
    model: Model,
    main: Timeline,
    space: SpaceId,
    a: Object,
    b: Object,
}

impl World {
    /// Objects `a` at 0x10000 and `b` at 0x20000, zeros of 16 KiB.
    fn new() -> Self {
        let (mut model, main) = Model::new();
        let space = model.space(main, (0, 1 << 40), None);
        let zeros = || Source::repeat(0, 8, 0);
        let a = model.create(main, 4 * K, zeros(), 0);
        let b = model.create(main, 4 * K, zeros(), 0);
        let mut world = Self { model, main, space, a, b };
        world.map(a, 0x10000);
        world.map(b, 0x20000);
        world
    }

    fn bind(
        &mut self,
        actor: Timeline,
        ops: &[Op],
        wait: &[Point],
        signal: &[Point],
        is_async: bool,
    ) -> BindAnswer {
        let request = BindRequest {
            space: self.space,
            queue: 100,
            is_async,
            ops,
            wait,
            signal,
            user_fence: None,
            origin: 0,
        };
        let call = self.model.bind_begin(actor, &request);
        self.model.bind_end(actor, call, true)
    }

    fn map(&mut self, object: Object, addr: u64) {
        let target = Target::Object(object, 0);
        let op = Op::Map { addr, range: 4 * K, target, readonly: false, kind: 0 };
        let main = self.main;
        assert_eq!(self.bind(main, &[op], &[], &[], false), BindAnswer::Accept);
    }

    fn submit(
        &mut self,
        actor: Timeline,
        queue: u32,
        ops: Vec<GpuOp>,
        wait: &[Point],
        signal: &[Point],
    ) -> JobId {
        let batches = [Batch::placed(Program::new(ops), vec![7; 16])];
        let request = SubmitRequest {
            space: self.space,
            queue,
            batches: &batches,
            wait,
            signal,
            user_fence: None,
            origin: 7,
        };
        let job = self.model.submit_begin(actor, &request);
        self.model.submit_end(job, true);
        job
    }

    fn finish(&mut self, actor: Timeline, job: JobId, results: &[u64]) -> Vec<Wrong> {
        self.model.finished(actor, job, End::Finished, vec![results.to_vec()])
    }

    fn sees(&mut self, actor: Timeline, object: Object, value: u64) -> bool {
        let bytes = value.to_le_bytes();
        self.model.cpu_read(actor, object, 0, &bytes, Grain::Word).is_ok()
    }
}

fn store(addr: u64, value: u64) -> GpuOp {
    GpuOp::Store { addr, value, width: W }
}

fn load(addr: u64) -> GpuOp {
    GpuOp::Load { addr, width: W }
}

#[test]
fn a_store_is_seen_for_certain_once_its_job_is_waited_for() {
    let mut world = World::new();
    let main = world.main;
    let job = world.submit(main, 1, vec![store(0x10000, 5)], &[], &[]);
    assert!(world.sees(main, world.a, 0) && world.sees(main, world.a, 5));
    assert!(world.finish(main, job, &[]).is_empty());
    assert!(!world.sees(main, world.a, 0) && world.sees(main, world.a, 5));
    assert_eq!(world.model.pending(), 0);
}

#[test]
fn a_fence_carries_what_its_job_did() {
    let mut world = World::new();
    let main = world.main;
    let fence = world.model.syncobj(main, false);
    world.submit(main, 1, vec![store(0x10000, 5)], &[], &[(fence, 0)]);
    let begun = world.model.look();
    world.model.waited(main, &[(fence, 0)], begun);
    assert!(!world.sees(main, world.a, 0), "the fence was signalled early");
}

#[test]
fn jobs_of_one_queue_are_in_order_and_those_of_two_are_not() {
    let mut world = World::new();
    let main = world.main;
    let first = world.submit(main, 1, vec![store(0x10000, 5)], &[], &[]);
    let same = world.submit(main, 1, vec![load(0x10000)], &[], &[]);
    let other = world.submit(main, 2, vec![load(0x10000)], &[], &[]);
    assert!(world.finish(main, same, &[0]).len() == 1, "it must see the store before it");
    assert!(world.finish(main, other, &[0]).is_empty(), "it may run earlier");
    assert!(world.finish(main, first, &[]).is_empty());
}

#[test]
fn an_in_fence_orders_two_queues() {
    let mut world = World::new();
    let main = world.main;
    let fence = world.model.syncobj(main, false);
    world.submit(main, 1, vec![store(0x10000, 5)], &[], &[(fence, 3)]);
    let reader = world.submit(main, 2, vec![load(0x10000)], &[(fence, 3)], &[]);
    let wrong = world.finish(main, reader, &[0]);
    assert!(matches!(&wrong[..], [Wrong::Value { seen: 0, origin: 7, .. }]), "{wrong:?}");
}

#[test]
fn actors_race_until_they_are_joined() {
    let mut world = World::new();
    let main = world.main;
    let (one, two) = (world.model.start(main), world.model.start(main));
    world.model.pause(main);
    for (actor, queue) in [(one, 1), (two, 2)] {
        let add = GpuOp::Atomic {
            addr: 0x10000,
            op: AtomicOp::Add,
            operand: 1,
            width: W,
            scope: Scope::System,
        };
        for _ in 0..50 {
            let job = world.submit(actor, queue, vec![add.clone()], &[], &[]);
            let old = 0;
            world.model.finished(actor, job, End::Cut, vec![vec![old]]);
        }
    }
    world.model.join(main, &[one, two]);
    assert!(world.sees(main, world.a, 100) && world.sees(main, world.a, 0), "all were cut off");
}

#[test]
fn a_counter_added_to_by_cpu_and_gpu_is_exact() {
    let mut world = World::new();
    let main = world.main;
    let (cpu, gpu) = (world.model.start(main), world.model.start(main));
    world.model.pause(main);
    let object = world.a;
    for _ in 0..50 {
        world.model.cpu_atomic(cpu, object, 0, W, (AtomicOp::Add, 1), 0);
    }
    let add = GpuOp::Atomic {
        addr: 0x10000,
        op: AtomicOp::Add,
        operand: 1,
        width: W,
        scope: Scope::System,
    };
    let job = world.submit(gpu, 1, vec![GpuOp::Loop { times: 50, body: vec![add] }], &[], &[]);
    assert!(world.finish(gpu, job, &[77]).is_empty());
    world.model.join(main, &[cpu, gpu]);
    assert!(world.sees(main, object, 100) && !world.sees(main, object, 99));
}

#[test]
fn barriers_order_what_was_before_them() {
    let mut world = World::new();
    let main = world.main;
    let (one, two) = (world.model.start(main), world.model.start(main));
    world.model.pause(main);
    let object = world.a;
    world.model.cpu_write(one, object, (0, 8), Source::repeat(5, 8, 0), 0);
    assert!(world.sees(two, object, 0));
    let met = [world.model.arrive(one), world.model.arrive(two)];
    world.model.leave(one, &met);
    world.model.leave(two, &met);
    assert!(!world.sees(two, object, 0) && world.sees(two, object, 5));
}

#[test]
fn an_access_after_an_unmap_must_fault_and_one_beside_it_may() {
    let mut world = World::new();
    let main = world.main;
    let beside = world.submit(main, 1, vec![store(0x10000, 5)], &[], &[]);
    let unmap = Op::Unmap { addr: 0x10000, range: 4 * K, sparse: false };
    world.bind(main, &[unmap], &[], &[], false);
    let after = world.submit(main, 2, vec![store(0x10008, 6)], &[], &[]);
    let wrong = world.finish(main, after, &[]);
    assert!(matches!(wrong[..], [Wrong::NoFault { addr: 0x10008, .. }]), "{wrong:?}");
    assert!(world.finish(main, beside, &[]).is_empty());
    assert!(world.sees(main, world.a, 5), "it ran to its end, so it was translated");
}

fn fault(addr: u64, access: FaultAccess, kind: FaultKind) -> End {
    End::Fault(Fault { addr, access, kind, queue: Queue(1), job: 1 })
}

#[test]
fn a_fault_ends_a_job_where_it_happened() {
    let mut world = World::new();
    let main = world.main;
    let ops = vec![store(0x10000, 1), store(0x90000, 2), store(0x10008, 3)];
    let job = world.submit(main, 1, ops, &[], &[]);
    let end = fault(0x90000, FaultAccess::Write, FaultKind::NotPresent);
    assert!(world.model.finished(main, job, end, vec![vec![]]).is_empty());
    assert!(world.sees(main, world.a, 1));
    let second = 3u64.to_le_bytes();
    assert!(world.model.cpu_read(main, world.a, 8, &second, Grain::Word).is_err());
}

#[test]
fn faults_that_nothing_explains_are_reported() {
    let mut world = World::new();
    let main = world.main;
    for (end, what) in [
        (fault(0x10000, FaultAccess::Write, FaultKind::NotPresent), "it is mapped"),
        (fault(0x10000, FaultAccess::Write, FaultKind::Bus), "a stale translation"),
        (fault(0x50000, FaultAccess::Read, FaultKind::NotPresent), "nobody went there"),
    ] {
        let job = world.submit(main, 1, vec![store(0x10000, 1)], &[], &[]);
        let wrong = world.model.finished(main, job, end, vec![vec![]]);
        assert!(matches!(wrong[..], [Wrong::Fault { .. }]), "{what}: {wrong:?}");
    }
}

#[test]
fn a_read_only_mapping_refuses_writes() {
    let mut world = World::new();
    let main = world.main;
    let target = Target::Object(world.a, 0);
    let op = Op::Map { addr: 0x10000, range: 4 * K, target, readonly: true, kind: 0 };
    world.bind(main, &[op], &[], &[], false);
    let job = world.submit(main, 1, vec![store(0x10000, 1)], &[], &[]);
    assert!(matches!(world.finish(main, job, &[])[..], [Wrong::NoFault { .. }]));
    let job = world.submit(main, 1, vec![store(0x10000, 1)], &[], &[]);
    let end = fault(0x10000, FaultAccess::Write, FaultKind::Permission);
    assert!(world.model.finished(main, job, end, vec![vec![]]).is_empty());
    let job = world.submit(main, 1, vec![load(0x10000)], &[], &[]);
    assert!(world.finish(main, job, &[0]).len() <= 1);
}

#[test]
fn sparse_and_null_read_zero_and_drop_writes() {
    let mut world = World::new();
    let main = world.main;
    let map = |addr, target| Op::Map { addr, range: K, target, readonly: false, kind: 0 };
    let ops = [map(0x100000, Target::Sparse), map(0x200000, Target::Null)];
    assert_eq!(world.bind(main, &ops, &[], &[], false), BindAnswer::Accept);
    for addr in [0x100000, 0x200000] {
        let job = world.submit(main, 1, vec![store(addr, 1), load(addr)], &[], &[]);
        assert!(world.finish(main, job, &[0]).is_empty());
        let job = world.submit(main, 1, vec![store(addr, 1), load(addr)], &[], &[]);
        let wrong = world.finish(main, job, &[1]);
        assert!(matches!(wrong[..], [Wrong::Value { mismatch: None, .. }]), "{wrong:?}");
    }
}

#[test]
fn an_asynchronous_bind_takes_effect_between_its_fences() {
    let mut world = World::new();
    let main = world.main;
    let (go, done) = (world.model.syncobj(main, false), world.model.syncobj(main, false));
    world.model.cpu_write(main, world.b, (0, 8), Source::repeat(9, 8, 0), 0);
    // A job on another queue signals `go` when it is done; the bind waits for it.
    world.submit(main, 2, vec![store(0x10008, 1)], &[], &[(go, 0)]);
    let target = Target::Object(world.b, 0);
    let op = Op::Map { addr: 0x10000, range: K, target, readonly: false, kind: 0 };
    world.bind(main, &[op], &[(go, 0)], &[(done, 0)], true);
    for value in [0, 9] {
        let job = world.submit(main, 1, vec![load(0x10000)], &[], &[]);
        assert!(world.finish(main, job, &[value]).is_empty(), "old and new are both allowed");
    }
    let job = world.submit(main, 1, vec![load(0x10000)], &[(done, 0)], &[]);
    assert_eq!(world.finish(main, job, &[0]).len(), 1, "after the out-fence only the new one");
}

#[test]
fn a_bind_beside_a_running_job_sends_its_stores_either_way() {
    let mut world = World::new();
    let main = world.main;
    let job = world.submit(main, 1, vec![store(0x10000, 5)], &[], &[]);
    let target = Target::Object(world.b, 0);
    let op = Op::Map { addr: 0x10000, range: K, target, readonly: false, kind: 0 };
    world.bind(main, &[op], &[], &[], false);
    assert!(world.finish(main, job, &[]).is_empty());
    assert!(world.sees(main, world.a, 5) && world.sees(main, world.a, 0));
    assert!(world.sees(main, world.b, 5) && world.sees(main, world.b, 0));
    assert!(!world.sees(main, world.b, 6));
}

#[test]
fn copies_carry_values_between_objects() {
    let mut world = World::new();
    let main = world.main;
    world.model.cpu_write(main, world.a, (0, 4 * K), Source::Unique { index: 0, shift: 0 }, 0);
    let copy = GpuOp::Copy { src: 0x10008, dst: 0x20010, bytes: 4096 };
    let job = world.submit(main, 1, vec![copy, store(0x10008, 1), load(0x20010)], &[], &[]);
    let word = crate::lang::ast::pattern_word(0, 8);
    assert!(world.finish(main, job, &[word]).is_empty());
    let mut bytes = [0; 16];
    assert!(Source::Unique { index: 0, shift: 0 }.fill(8, &mut bytes));
    assert!(world.model.cpu_read(main, world.b, 0x10, &bytes, Grain::Bulk).is_ok());
    bytes[3] ^= 1;
    assert!(world.model.cpu_read(main, world.b, 0x10, &bytes, Grain::Bulk).is_err());
}

#[test]
fn stored_results_are_known_when_the_job_has_ended() {
    let mut world = World::new();
    let main = world.main;
    world.model.cpu_write(main, world.a, (0, 8), Source::repeat(40, 8, 0), 0);
    let ops =
        vec![load(0x10000), GpuOp::StoreResult { addr: 0x20000, result: 0, add: 2, width: W }];
    let job = world.submit(main, 1, ops, &[], &[]);
    assert!(world.finish(main, job, &[40]).is_empty());
    assert!(world.sees(main, world.b, 42) && !world.sees(main, world.b, 40));
}

#[test]
fn a_semaphore_passes_on_what_its_releaser_did() {
    let mut world = World::new();
    let main = world.main;
    let wait = GpuOp::SemaphoreWait {
        addr: 0x20000,
        value: 1,
        mask: u64::MAX,
        compare: Compare::Equal,
        width: W,
    };
    let release = GpuOp::SemaphoreRelease { addr: 0x20000, value: 1, width: W };
    let waiter = world.submit(main, 1, vec![wait, load(0x10000)], &[], &[]);
    let releaser = world.submit(main, 2, vec![store(0x10000, 5), release], &[], &[]);
    let wrong = world.finish(main, waiter, &[0]);
    assert_eq!(wrong.len(), 1, "the load came after the release: {wrong:?}");
    assert!(world.finish(main, releaser, &[]).is_empty());
}

#[test]
fn a_wait_for_a_word_is_an_acquire() {
    let mut world = World::new();
    let main = world.main;
    let (one, two) = (world.model.start(main), world.model.start(main));
    world.model.pause(main);
    world.model.cpu_write(one, world.a, (0, 8), Source::repeat(5, 8, 0), 0);
    world.model.cpu_write(one, world.b, (0, 8), Source::repeat(1, 8, 0), 0);
    assert!(world.sees(two, world.a, 0));
    let object = world.b;
    assert!(world.model.cpu_acquire(two, object, 0, W, 1).is_ok());
    assert!(!world.sees(two, world.a, 0) && world.sees(two, world.a, 5));
}

#[test]
fn refused_work_leaves_no_trace() {
    let mut world = World::new();
    let main = world.main;
    let batches = [Batch::placed(Program::new(vec![store(0x10000, 5)]), vec![0])];
    let request = SubmitRequest {
        space: world.space,
        queue: 1,
        batches: &batches,
        wait: &[],
        signal: &[],
        user_fence: None,
        origin: 0,
    };
    let job = world.model.submit_begin(main, &request);
    world.model.submit_end(job, false);
    assert!(!world.sees(main, world.a, 5));
    let op = Op::Unmap { addr: 1, range: K, sparse: false };
    let answer = world.bind(main, &[op], &[], &[], false);
    assert_eq!(answer, BindAnswer::Refuse(Errno::EINVAL));
}
