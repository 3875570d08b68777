//! Models of the notifier, fault and commit protocol: engines, the fault worker and a CPU that changes
//! its address space. The retry rule holds in every explored schedule, and without it the models fail.

use fencepost_uapi::command as c;
use fencepost_uapi::fencepost::*;
use shuttle::thread;

use crate::mirror::PAGE;
use crate::world::Device;
use crate::{explore, map, store, BATCH};

/// Where a job's user fence is in the batch object.
const FENCE: u64 = 2048;

impl Device {
    /// Runs a program in a VM that mirrors the page, while `other` happens.
    fn run_beside(&self, words: &[u64], other: impl FnOnce(&Device) + Send + 'static) {
        let flags = VM_CREATE_LONG_RUNNING | VM_CREATE_FAULT;
        let mut vm = VmCreate { flags, ..Default::default() };
        self.call(VM_CREATE, &mut vm).expect("a VM");
        let batch = self.bo(REGION_SYSTEM);
        let mirror =
            BindOp { flags: BIND_CPU_MIRROR, addr: PAGE, range: 4096, ..Default::default() };
        self.bind(vm.vm_id, &[map(batch, BATCH), mirror], &[]).expect("binds");
        let queue = self.queue(vm.vm_id);
        let job = self.program(batch, 0, words);
        let (kind, flags) = (SYNC_USER_FENCE, SYNC_SIGNAL);
        let fence = Sync { kind, flags, addr: BATCH + FENCE, value: 1, ..Default::default() };
        self.exec(queue, job, &[fence]).expect("submits");
        let device = self.clone();
        let beside = thread::spawn(move || other(&device));
        self.wait_until(|| self.peek(batch.mem, FENCE) == 1);
        beside.join().expect("no panic");
    }
}

fn discarded_beneath_a_job(lies: bool) {
    let (device, workers) = Device::start_with(lies);
    let [header, addr, value] = store(PAGE, 7);
    let end = c::header(c::LOOP_END, 0, 0);
    let program = [c::header(c::LOOP, 0, 3), header, addr, value, end];
    device.run_beside(&program, |device| {
        device.pages().discard();
        device.pages().discard();
    });
    assert_eq!(device.counter("faults.device"), 0);
    assert_eq!(device.counter("bus_errors"), 0);
    device.stop(workers);
}

/// A page that was discarded is never written, wherever the driver was in mapping it.
#[test]
fn a_discarded_page_is_out_of_reach() {
    explore(|| discarded_beneath_a_job(false));
}

/// A world that never says "try again" stands for a driver that never asks.
#[test]
#[should_panic(expected = "a stale translation is used")]
fn without_the_retry_a_stale_page_is_found() {
    explore(|| discarded_beneath_a_job(true));
}

/// Updates by atomics of the device and by the CPU, which takes the page back each time, all count.
#[test]
fn exclusive_access_loses_no_update() {
    explore(|| {
        let (device, workers) = Device::start_with(false);
        let imm = u32::from(c::ATOMIC_ADD) << 8;
        let add = [c::header(c::ATOMIC, c::WIDE | c::SYSTEM_SCOPE, imm), PAGE, 1, 0];
        let program = [add, add, add].concat();
        device.run_beside(&program, |device| {
            device.pages().cpu_add();
            device.pages().cpu_add();
        });
        assert_eq!(device.pages().value(), 5);
        device.stop(workers);
    });
}

/// A file that closes while its job waits for a page leaves nothing.
#[test]
fn closing_with_a_fault_in_flight_leaves_nothing() {
    explore(|| {
        let (device, workers) = Device::start_with(false);
        let flags = VM_CREATE_LONG_RUNNING | VM_CREATE_FAULT;
        let mut vm = VmCreate { flags, ..Default::default() };
        device.call(VM_CREATE, &mut vm).expect("a VM");
        let batch = device.bo(REGION_SYSTEM);
        let mirror =
            BindOp { flags: BIND_CPU_MIRROR, addr: PAGE, range: 4096, ..Default::default() };
        device.bind(vm.vm_id, &[map(batch, BATCH), mirror], &[]).expect("binds");
        let job = device.program(batch, 0, &store(PAGE, 7));
        device.exec(device.queue(vm.vm_id), job, &[]).expect("submits");
        device.pages().discard();
        device.stop(workers);
    });
}
