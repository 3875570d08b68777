//! SVM: what the GPU sees of the CPU's address space, and what the CPU sees of the GPU.

use fencepost_core::gpuva::Span;
use fencepost_host::sim::cpu::Kind;
use fencepost_host::sim::{SimHost, Task};
use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;

use super::client::{load, map, sim, store, store_reg, unmap, user_fence, Bo, Client, K4, K64, M2};

/// Where tests have memory of the CPU: aligned to 2 MiB.
pub(crate) const A: u64 = 0x7000_0000_0000;
const BATCH: u64 = 0x1000_0000;
const FENCE: u64 = BATCH + K64 - 8;
pub(crate) const RESULT: u64 = BATCH + K64 - 64;

/// A mirror of the CPU's addresses around [`A`].
pub(crate) fn mirror(addr: u64, range: u64) -> BindOp {
    BindOp { op: BIND_OP_MAP, flags: BIND_CPU_MIRROR, addr, range, ..Default::default() }
}

/// A VM that takes faults, with a mirror of 1 GiB, a queue and a place for batches.
pub(crate) struct Svm<'a> {
    pub(crate) c: &'a Client<'a>,
    pub(crate) vm: u32,
    pub(crate) queue: u32,
    batch: Bo,
    turn: std::cell::Cell<u64>,
}

impl<'a> Svm<'a> {
    pub(crate) fn new(c: &'a Client<'a>) -> Self {
        let flags = VM_CREATE_LONG_RUNNING | VM_CREATE_FAULT;
        let vm = c.vm_with(VmCreate { flags, ..Default::default() }).expect("a VM");
        let batch = c.system(K64);
        c.bind(vm, &[map(batch, BATCH, K64, 0), mirror(A, 1 << 30)]).expect("binds");
        let queue = c.queue(vm, QUEUE_CLASS_EXEC);
        Svm { c, vm, queue, batch, turn: std::cell::Cell::new(0) }
    }

    pub(crate) fn host(&self) -> &SimHost {
        self.c.sim.host()
    }

    pub(crate) fn task(&self) -> Task {
        self.c.task
    }

    /// Starts a program; its user fence has the number that is returned.
    pub(crate) fn start(&self, parts: &[Vec<u64>]) -> u64 {
        self.start_on(self.queue, parts)
    }

    /// The same in another queue.
    pub(crate) fn start_on(&self, queue: u32, parts: &[Vec<u64>]) -> u64 {
        let turn = self.turn.get() + 1;
        self.turn.set(turn);
        let words: Vec<u64> = parts.concat();
        let offset = turn % 8 * 0x1000;
        for (i, word) in words.iter().enumerate() {
            self.c.poke(self.batch, offset + i as u64 * 8, *word);
        }
        let batch = Batch { addr: BATCH + offset, length: words.len() as u32 * 8, flags: 0 };
        self.c.exec(queue, &[batch], &[user_fence(FENCE, turn)]).expect("submits");
        turn
    }

    pub(crate) fn is_done(&self, turn: u64) -> bool {
        self.c.peek(self.batch, FENCE - BATCH) == turn
    }

    /// Runs a program to its end; true when it completed.
    pub(crate) fn run(&self, parts: &[Vec<u64>]) -> bool {
        let turn = self.start(parts);
        self.c.sim.settle();
        self.is_done(turn)
    }

    pub(crate) fn gpu_store(&self, addr: u64, value: u64) {
        assert!(self.run(&[store(addr, value)]), "a store to {addr:#x}");
    }

    pub(crate) fn gpu_load(&self, addr: u64) -> u64 {
        assert!(self.run(&[load(addr, 1), store_reg(RESULT, 1)]), "a load of {addr:#x}");
        self.c.peek(self.batch, RESULT - BATCH)
    }

    /// What a program stored at [`RESULT`].
    pub(crate) fn result(&self) -> u64 {
        self.c.peek(self.batch, RESULT - BATCH)
    }

    pub(crate) fn mmap(&self, addr: u64, len: u64) {
        self.host().mmap_cpu(self.task(), Span::new(addr, addr + len), true, Kind::Anon(0));
    }

    pub(crate) fn munmap(&self, addr: u64, len: u64) {
        self.host().munmap(self.task(), Span::new(addr, addr + len));
    }

    pub(crate) fn cpu_store(&self, addr: u64, value: u64) {
        self.host().cpu_store(self.task(), addr, value).expect("accessible");
    }

    pub(crate) fn cpu_load(&self, addr: u64) -> u64 {
        self.host().cpu_load(self.task(), addr).expect("accessible")
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.c.counter(name)
    }

    /// Ends everything and checks that nothing is left.
    pub(crate) fn end(self) {
        self.c.close();
        for name in
            ["live.svm_ranges", "live.notifiers", "live.svm_pages", "live.dma_pages", "live.parked"]
        {
            assert_eq!(self.counter(name), 0, "{name}");
        }
        for name in ["live.vms", "live.jobs", "live.pt_nodes", "live.vram_bytes", "leaks"] {
            assert_eq!(self.counter(name), 0, "{name}");
        }
        assert_eq!(self.host().mirrored(), (0, 0, 0), "DMA mappings, notifiers, frames");
    }
}

pub(crate) fn check(test: impl FnOnce(&Svm<'_>)) {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let svm = Svm::new(&c);
    test(&svm);
    svm.end();
}

#[test]
fn a_store_reaches_memory_that_the_cpu_never_touched() {
    check(|svm| {
        svm.mmap(A, M2);
        svm.gpu_store(A + 8, 7);
        assert_eq!((svm.cpu_load(A), svm.cpu_load(A + 8)), (0, 7));
        assert_eq!(svm.counter("svm.faults.write"), 1);
        assert_eq!(svm.counter("svm.ranges_2m"), 1, "the largest range is not checked");
        svm.gpu_store(A + M2 - 8, 8);
        assert_eq!(svm.counter("svm.faults"), 1, "one fault for all of the range");
    });
}

#[test]
fn a_load_sees_what_the_cpu_wrote_before_and_after() {
    check(|svm| {
        svm.mmap(A, K64);
        svm.cpu_store(A + 16, 3);
        assert_eq!(svm.gpu_load(A + 16), 3);
        svm.cpu_store(A + 16, 4);
        assert_eq!(svm.gpu_load(A + 16), 4);
        // The zero page gives way when it is written.
        assert_eq!(svm.gpu_load(A + K4), 0);
        svm.cpu_store(A + K4, 5);
        assert_eq!(svm.gpu_load(A + K4), 5, "the old page is not shown any more");
    });
}

#[test]
fn an_access_without_memory_is_a_precise_fault() {
    check(|svm| {
        svm.mmap(A, K4);
        assert!(!svm.run(&[store(A, 1), store(A + K4 + 24, 2)]));
        let faults = svm.c.faults(svm.vm);
        let fault = &faults[0];
        assert_eq!((fault.addr, fault.access), (A + K4 + 24, FAULT_ACCESS_WRITE));
        assert_eq!((fault.kind, faults.len()), (FAULT_KIND_NOT_PRESENT, 1));
        assert_eq!(svm.cpu_load(A), 1, "what came before has happened");
        assert_eq!(svm.c.queue_info(svm.queue).state, QUEUE_STATE_BANNED);
        assert_eq!(svm.counter("svm.cancels"), 1);
    });
}

#[test]
fn a_store_to_memory_for_reading_is_refused_and_a_load_is_not() {
    check(|svm| {
        svm.mmap(A, K4);
        svm.cpu_store(A, 9);
        svm.host().mprotect(svm.task(), Span::new(A, A + K4), true, false);
        assert_eq!(svm.gpu_load(A), 9);
        assert!(!svm.run(&[store(A, 1)]));
        assert_eq!(svm.c.faults(svm.vm)[0].kind, FAULT_KIND_PERMISSION);
        assert_eq!(svm.cpu_load(A), 9);
    });
}

#[test]
fn an_unmapped_page_is_out_of_reach_at_once() {
    check(|svm| {
        svm.mmap(A, M2);
        svm.gpu_store(A, 1);
        svm.gpu_store(A + K4, 2);
        svm.munmap(A + K4, K4);
        assert_eq!(svm.counter("svm.range_splits"), 1);
        assert_eq!(svm.gpu_load(A), 1, "the rest is intact");
        svm.mmap(A + K4, K4);
        assert_eq!(svm.gpu_load(A + K4), 0, "a new mapping is zero");
        svm.munmap(A, M2);
        svm.c.sim.settle();
        assert_eq!((svm.counter("live.svm_ranges"), svm.counter("live.notifiers")), (0, 0));
        assert!(!svm.run(&[store(A, 1)]));
    });
}

#[test]
fn a_mirror_with_live_ranges_is_busy() {
    check(|svm| {
        svm.mmap(A, K64);
        svm.gpu_store(A, 1);
        let bo = svm.c.system(K64);
        assert_eq!(svm.c.bind(svm.vm, &[unmap(A, K64)]), Err(Errno::BUSY));
        assert_eq!(svm.c.bind(svm.vm, &[map(bo, A, K64, 0)]), Err(Errno::BUSY));
        assert_eq!(svm.c.bind(svm.vm, &[unmap(A + M2, M2)]), Ok(0), "elsewhere it is not");
        assert_eq!(svm.c.bind(svm.vm, &[mirror(A, 1 << 30)]), Ok(0), "by a mirror it is replaced");
        assert_eq!(svm.gpu_load(A), 1);
        svm.munmap(A, K64);
        assert_eq!(svm.c.bind(svm.vm, &[map(bo, A, K64, 0)]), Ok(0));
        svm.gpu_store(A, 5);
        assert_eq!(svm.c.peek(bo, 0), 5, "the object is shown");
        assert_eq!(svm.c.bind(svm.vm, &[mirror(A, M2)]), Ok(0));
        svm.mmap(A, K64);
        assert_eq!(svm.gpu_load(A), 0, "and gone again");
    });
}

#[test]
fn a_user_fence_may_lie_in_mirrored_memory() {
    check(|svm| {
        svm.mmap(A, K4);
        let words = store(A + 8, 2);
        for (i, word) in words.iter().enumerate() {
            svm.c.poke(svm.batch, i as u64 * 8, *word);
        }
        let batch = Batch { addr: BATCH, length: words.len() as u32 * 8, flags: 0 };
        svm.c.exec(svm.queue, &[batch], &[user_fence(A, 3)]).expect("submits");
        svm.c.exec(svm.queue, &[], &[user_fence(A + 16, 4)]).expect("submits");
        svm.c.sim.settle();
        assert_eq!([0, 8, 16].map(|at| svm.cpu_load(A + at)), [3, 2, 4]);
    });
}

#[test]
fn only_vms_that_take_faults_have_mirrors() {
    let sim = sim();
    let c = Client::new(&sim);
    let with = |flags| VmCreate { flags, ..Default::default() };
    assert_eq!(c.vm_with(with(VM_CREATE_FAULT)), Err(Errno::INVAL));
    let plain = c.vm_with(with(VM_CREATE_LONG_RUNNING)).expect("a VM");
    assert_eq!(c.bind(plain, &[mirror(A, M2)]), Err(Errno::OPNOTSUPP));
    let vm = c.vm_with(with(VM_CREATE_LONG_RUNNING | VM_CREATE_FAULT)).expect("a VM");
    let null = BindOp { flags: BIND_CPU_MIRROR | BIND_NULL, ..mirror(A, M2) };
    let offset = BindOp { offset: K4, ..mirror(A, M2) };
    for op in [null, offset, BindOp { kind: 1, ..mirror(A, M2) }] {
        assert_eq!(c.bind(vm, &[op]), Err(Errno::INVAL));
    }
    assert_eq!(c.bind(vm, &[mirror(A, M2)]), Ok(0));
}

#[test]
fn closing_ends_jobs_that_wait() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let svm = Svm::new(&c);
    svm.mmap(A, K4);
    c.call(SVM_FAULTS, &mut SvmFaults { action: SVM_FAULTS_PAUSE, ..Default::default() })
        .expect("pauses");
    let turn = svm.start(&[store(A, 1)]);
    sim.settle();
    assert_eq!((svm.is_done(turn), c.counter("live.parked")), (false, 1));
    svm.end();
}
