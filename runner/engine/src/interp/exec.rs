//! Other programs: in the place of a process, and in one of their own.
//!
//! After `exec` a process has its open file and nothing else of what it had: no memory, no submission to wait
//! for. The names of its memory stand for addresses at which nothing is mapped any more. VMs and queues are the
//! file's; what a VM mirrors is the address space that has ended.

use super::actor::{Actor, Answer, Done};
use super::process::Process;
use super::stage::{ClientObject, all, put};
use super::view::ClientHandle;
use crate::lang::step::Step;
use crate::oracle::{MmId, MmOp};
use fencepost_fixtures::Errno;
use fencepost_fixtures::sys::process::Start;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

impl Actor<'_, '_> {
    /// The process that makes this step's calls runs another program.
    pub(super) fn exec(&mut self, step: &Step) -> Done<Answer> {
        let Some(process) = self.process.clone() else {
            let client = self.client(step)?;
            return self.exec_client(&client);
        };
        // What it has submitted is waited for by it or by nobody.
        self.close_jobs()?;
        Ok(match self.replaced(&process.client, process.mm)? {
            Ok(client) => {
                let client = Arc::new(client);
                self.recall(&client);
                self.new_program(&process, &client);
                Ok(())
            }
            Err(errno) => Err(errno),
        })
    }

    fn exec_client(&mut self, client: &Arc<ClientObject>) -> Done<Answer> {
        let queues = all(&self.stage.names.queues);
        let own = |name: &str| name == client.name;
        for queue in queues.iter().filter(|queue| own(&queue.client)) {
            queue.cut.store(queue.submitted.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        Ok(match self.replaced(client, client.mm)? {
            Ok(new) => {
                let new = put(&self.stage.names.clients, &client.name, new);
                self.recall(&new);
                Ok(())
            }
            Err(errno) => Err(errno),
        })
    }

    /// Has a process run another program; gives it as a client in its new address space.
    fn replaced(&mut self, client: &ClientObject, mm: MmId) -> Done<Result<ClientObject, Errno>> {
        let ClientHandle::Remote(remote) = &client.handle else {
            return self.broken(&format!("client {} has no process of its own", client.name));
        };
        let everything = MmOp::Unmap { addr: 0, len: u64::MAX };
        let begun = self.stage.model().mm_begin(self.line, mm, &everything);
        let done = self.timed("process.exec", || remote.again().and_then(|()| remote.share()));
        self.stage.model().mm_end(self.line, &begun, done.is_ok());
        let remote = match done {
            Ok(remote) => remote,
            Err(errno) => return Ok(Err(errno)),
        };
        let new = {
            let mut model = self.stage.model();
            model.mm_ended(mm);
            model.mm(self.line)
        };
        Ok(Ok(ClientObject {
            name: client.name.clone(),
            handle: ClientHandle::Remote(remote),
            beside: client.beside,
            mm: new,
            closed: AtomicBool::new(false),
        }))
    }

    /// Tells a new program's adapter what its file has.
    fn recall(&self, client: &ClientObject) {
        let names = &self.stage.names;
        let vms = all(&names.vms);
        let own: Vec<_> = vms.iter().filter(|vm| vm.client == client.name).collect();
        for vm in &own {
            client.handle.recall_vm(vm.vm, &vm.spec);
        }
        let probe = |vm: &super::stage::VmObject| {
            vm.probe.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
        };
        let probes = own.iter().filter_map(|vm| probe(vm));
        for queue in all(&names.queues).into_iter().chain(probes) {
            if queue.client == client.name && !queue.gone.load(Ordering::SeqCst) {
                client.handle.recall_queue(queue.queue, &queue.spec);
            }
        }
    }

    /// A forked child has another program.
    fn new_program(&mut self, old: &Arc<Process>, client: &Arc<ClientObject>) {
        let new = Arc::new(old.with_client(client));
        for process in self.stage.processes().values_mut() {
            if Arc::ptr_eq(process, old) {
                *process = Arc::clone(&new);
            }
        }
        self.process = Some(new);
    }

    /// The process that makes this step's calls has a child run another program, and waits for its end.
    pub(super) fn spawn(&mut self, step: &Step, start: Start) -> Done<Answer> {
        let client = match &self.process {
            Some(process) => Arc::clone(&process.client),
            None => self.client(step)?,
        };
        let done = self.timed("process.spawn", || match &client.handle {
            ClientHandle::Remote(remote) => remote.spawn(start).map_err(|error| error.errno),
            ClientHandle::Local(local) => {
                let mut done = Err(Errno::EAGAIN);
                local.at_rest(&mut || done = super::remote::spawn_here(start));
                done
            }
        });
        Ok(done)
    }
}
