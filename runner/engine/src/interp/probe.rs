//! Reads that the interpreter makes by itself, through queues of its own, so that the scenario's
//! queues and their counts stay as they are.

use super::actor::{Actor, Done, LAST_WAIT};
use super::gpu::Syncs;
use super::stage::{JobObject, QueueObject, VmObject, all, find};
use crate::lang::ast::QueueClass;
use crate::lang::expect::{FaultExpect, FaultKind};
use crate::lang::step::JobEnd;
use crate::oracle::{self, End};
use fencepost_fixtures::Errno;
use fencepost_fixtures::device::{self as dev, GpuOp, Program};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

impl Actor<'_, '_> {
    /// Reads words by the GPU through a queue of the interpreter's own; the oracle checks each.
    pub(super) fn probe(&mut self, vm: &Arc<VmObject>, addrs: &[u64]) -> Done<Vec<u64>> {
        self.outside(|actor| actor.probe_words(vm, addrs))
    }

    fn probe_words(&mut self, vm: &Arc<VmObject>, addrs: &[u64]) -> Done<Vec<u64>> {
        let queue = self.probe_queue(vm)?;
        let mut values = Vec::new();
        for part in addrs.chunks(256) {
            let ops: Vec<GpuOp> = part
                .iter()
                .map(|addr| GpuOp::Load { addr: *addr, width: dev::Width::U64 })
                .collect();
            let origins = vec![self.origin; ops.len()];
            let batches = [oracle::Batch::placed(Program::new(ops), origins)];
            let (completion, fault) = self.run_probe(&queue, vm, &batches)?;
            self.judge_end(&JobEnd::Complete, &completion, fault)?;
            values.extend(completion.results.into_iter().flatten());
        }
        Ok(values)
    }

    /// Submits reads and waits for their end, which the caller judges.
    fn run_probe(
        &mut self,
        queue: &Arc<QueueObject>,
        vm: &VmObject,
        batches: &[oracle::Batch],
    ) -> Done<(dev::Completion, Option<dev::Fault>)> {
        let submitted = self.submit_batches(queue, vm, batches, &Syncs::default(), None)?;
        let (id, number, submission, started) = match submitted {
            Ok(submitted) => submitted,
            Err(errno) => {
                let seen = super::actor::errno_name(errno);
                return self.fail("submission of GPU reads", "success", &seen);
            }
        };
        let job = JobObject {
            id,
            queue: Arc::clone(queue),
            number,
            submission,
            reads: Vec::new(),
            origin: self.origin,
            started,
            finished: AtomicBool::new(false),
        };
        let completion = match job.submission.wait(LAST_WAIT) {
            Ok(completion) => completion,
            Err(error) => return self.fail("GPU reads", "to end", &error.to_string()),
        };
        let (end, fault) = self.job_end(&job, &completion)?;
        self.finished(&job, end, &completion)?;
        Ok((completion, fault))
    }

    /// Checks that a GPU read faults because nothing is mapped there.
    pub(super) fn probe_fault(&mut self, vm: &Arc<VmObject>, addr: u64) -> Done {
        self.outside(|actor| actor.probe_hole(vm, addr))
    }

    /// The same where memory may be mapped that nobody may access: the oracle knows the kinds of fault.
    pub(super) fn probe_shut(&mut self, vm: &Arc<VmObject>, addr: u64) -> Done {
        self.outside(|actor| actor.probe_refusal(vm, addr, FaultExpect::default()))
    }

    fn probe_hole(&mut self, vm: &Arc<VmObject>, addr: u64) -> Done {
        let expect = FaultExpect { kind: Some(FaultKind::NotPresent), ..FaultExpect::default() };
        self.probe_refusal(vm, addr, expect)
    }

    fn probe_refusal(&mut self, vm: &Arc<VmObject>, addr: u64, expect: FaultExpect) -> Done {
        let queue = self.new_probe_queue(vm)?;
        let program = Program::new([GpuOp::Load { addr, width: dev::Width::U64 }]);
        let batches = [oracle::Batch::placed(program, vec![self.origin])];
        let (completion, fault) = self.run_probe(&queue, vm, &batches)?;
        self.judge_end(&JobEnd::Fault(expect), &completion, fault)?;
        let client = self.client_named(&vm.client)?;
        // A banned queue goes like any other; if it does not, the leak check tells.
        let _ = client.handle.queue_destroy(queue.queue);
        Ok(())
    }

    fn probe_queue(&mut self, vm: &Arc<VmObject>) -> Done<Arc<QueueObject>> {
        let kept = vm.probe.lock().unwrap_or_else(|p| p.into_inner()).clone();
        if let Some(queue) = kept {
            return Ok(queue);
        }
        let queue = self.new_probe_queue(vm)?;
        *vm.probe.lock().unwrap_or_else(|p| p.into_inner()) = Some(Arc::clone(&queue));
        Ok(queue)
    }

    fn new_probe_queue(&mut self, vm: &Arc<VmObject>) -> Done<Arc<QueueObject>> {
        let client = self.client_named(&vm.client)?;
        let spec = dev::QueueSpec::exec(vm.vm);
        match client.handle.queue_create(&spec) {
            Ok(queue) => Ok(Arc::new(QueueObject {
                name: String::new(),
                vm: vm.name.clone(),
                client: vm.client.clone(),
                queue,
                spec,
                class: QueueClass::Exec,
                number: self.stage.queue_number(),
                submitted: 0.into(),
                cut: 0.into(),
                users: std::sync::Mutex::default(),
                gone: AtomicBool::new(false),
            })),
            Err(error) => self.fail("queue for GPU reads", "success", &error.to_string()),
        }
    }

    /// Makes the probe queue and its memory, so that later reads make nothing new.
    pub(super) fn warm_probe(&mut self, vm: &Arc<VmObject>) -> Done {
        self.outside(|actor| actor.probe_nothing(vm))
    }

    fn probe_nothing(&mut self, vm: &Arc<VmObject>) -> Done {
        if vm.probe.lock().unwrap_or_else(|p| p.into_inner()).is_some() {
            return Ok(());
        }
        let queue = self.probe_queue(vm)?;
        let program = Program::new([GpuOp::Nop]);
        let batches = [oracle::Batch::placed(program, vec![self.origin])];
        let submitted = self.submit_batches(&queue, vm, &batches, &Syncs::default(), None)?;
        let Ok((id, _, submission, _)) = submitted else {
            return self.fail("submission of nothing", "success", "refused");
        };
        match submission.wait(LAST_WAIT) {
            Ok(_) => {
                self.stage.model().finished(self.line, id, End::Finished, Vec::new());
                Ok(())
            }
            Err(error) => self.fail("submission of nothing", "to end", &error.to_string()),
        }
    }

    /// Whether a VM refuses everything because an asynchronous bind failed.
    pub(super) fn is_banned(&mut self, vm: &VmObject) -> Done<bool> {
        let client = self.client_named(&vm.client)?;
        let asked = client.handle.bind(&dev::BindCall::sync(vm.vm, []));
        Ok(asked.is_err_and(|error| error.errno == Errno::ENOENT))
    }

    /// Gives the probe queues back, before a VM is destroyed or at the end.
    pub(super) fn drop_probes(&mut self, of: Option<&str>) {
        for vm in all(&self.stage.names.vms) {
            if of.is_some_and(|name| name != vm.name) {
                continue;
            }
            let probe = vm.probe.lock().unwrap_or_else(|p| p.into_inner()).take();
            if let (Some(queue), Some(client)) =
                (probe, find(&self.stage.names.clients, &vm.client))
                && !client.closed.load(Ordering::SeqCst)
            {
                // If it does not go, the leak check tells.
                let _ = client.handle.queue_destroy(queue.queue);
            }
        }
    }
}
