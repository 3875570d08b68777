//! Actors in processes of their own, and steps in a forked child.
//!
//! A child is forked from this process when its client's file is open, so it has that file and the
//! memory that is mapped by then; every call of the actor is made there (`remote`). The oracle, the
//! order of steps and the barriers stay here.

use super::actor::{Actor, Answer, Done, Stop, errno_name};
use super::remote::RemoteClient;
use super::stage::{ClientObject, MemoryObject, all};
use super::view::{ClientHandle, View};
use crate::lang::step::{Action, Step};
use crate::oracle::{MmId, Object};
use fencepost_fixtures::Errno;
use fencepost_fixtures::area::Reach;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A forked child.
pub(super) struct Process {
    /// Its client, of which it has the open file.
    pub(super) client: Arc<ClientObject>,
    /// The oracle's number of its address space.
    pub(super) mm: MmId,
    /// Memory as it sees it.
    views: Mutex<BTreeMap<Object, Arc<dyn View>>>,
    killed: AtomicBool,
}

impl Process {
    /// The same process with another program: it has none of the memory.
    pub(super) fn with_client(&self, client: &Arc<ClientObject>) -> Self {
        let killed = AtomicBool::new(self.killed.load(Ordering::SeqCst));
        Self { client: Arc::clone(client), mm: client.mm, views: Mutex::default(), killed }
    }

    fn views(&self) -> MutexGuard<'_, BTreeMap<Object, Arc<dyn View>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remote(&self) -> &RemoteClient {
        match &self.client.handle {
            ClientHandle::Remote(remote) => remote,
            ClientHandle::Local(_) => unreachable!("made with a child's handle only"),
        }
    }
}

/// Whether a step that is cut off leaves nothing behind that the oracle would have to know.
fn only_looks(action: &Action) -> bool {
    matches!(
        action,
        Action::Wait(_)
            | Action::WaitUserFence(_)
            | Action::CpuWait(_)
            | Action::CpuRead(_)
            | Action::Finish(_)
            | Action::Query(_)
            | Action::Poll { .. }
            | Action::DelayWait { .. }
            | Action::Barrier(_)
            | Action::Check(_)
    )
}

impl Actor<'_, '_> {
    /// Forks a child that has the actor's client's file.
    fn child(&mut self) -> Done<Process> {
        let name = self.client.clone();
        let client = self.client_named(&name)?;
        if matches!(client.handle, ClientHandle::Remote(_)) {
            return self.broken(&format!("client {name} lives in another process: it cannot fork"));
        }
        let seen: Vec<(Object, Arc<dyn View>)> = all(&self.stage.names.memory)
            .into_iter()
            .filter(|memory| self.is_local(memory))
            .filter_map(|memory| Some((memory.object, Arc::clone(memory.view.get()?))))
            .collect();
        let (objects, views): (Vec<_>, Vec<_>) = seen.into_iter().unzip();
        let forked = self.timed("process.fork", || RemoteClient::inherit(&*client.handle, views));
        let (remote, views) = match forked {
            Ok(forked) => forked,
            Err(errno) => return self.fail("fork", "success", &errno_name(errno)),
        };
        let handle = ClientHandle::Remote(remote);
        let mm = self.stage.model().mm_fork(self.line, self.stage.mm, self.origin);
        let closed = AtomicBool::new(false);
        let client = Arc::new(ClientObject { name, handle, beside: false, mm, closed });
        let views = Mutex::new(objects.into_iter().zip(views).collect());
        Ok(Process { client, mm, views, killed: AtomicBool::new(false) })
    }

    /// Whether memory is mapped in this process rather than in that of a client.
    fn is_local(&self, memory: &MemoryObject) -> bool {
        let client = super::stage::find(&self.stage.names.clients, &memory.client);
        client.is_some_and(|client| matches!(client.handle, ClientHandle::Local(_)))
    }

    /// Forks the process of an actor, which others can kill by the actor's name.
    pub(super) fn start_process(&mut self) -> Done<Arc<Process>> {
        let process = Arc::new(self.child()?);
        let mut processes = self.stage.processes();
        processes.insert(self.name.to_string(), Arc::clone(&process));
        Ok(process)
    }

    /// The actor is over: its process ends.
    pub(super) fn end_process(&mut self) {
        let Some(process) = self.process.take() else { return };
        if !process.killed.load(Ordering::SeqCst) {
            process.remote().close();
        }
    }

    /// Runs steps in a forked child and waits for its end.
    pub(super) fn fork(&mut self, body: &[Step]) -> Done {
        // The child is one of this process even if the actor has one of its own: what it inherits is
        // the same open file.
        let outer = self.process.take();
        let child = self.child();
        let child = match child {
            Ok(child) => Arc::new(child),
            Err(stop) => {
                self.process = outer;
                return Err(stop);
            }
        };
        self.process = Some(Arc::clone(&child));
        let jobs = std::mem::take(&mut self.open_jobs);
        let mut ended = self.run(body);
        if ended == Err(Stop::Exit) {
            // `exit` ends the child only.
            ended = Ok(());
        }
        if ended.is_ok() {
            // Nobody can ask for its submissions once it is gone.
            ended = self.close_jobs();
        }
        self.timed("process.wait", || child.remote().close());
        self.open_jobs = jobs;
        self.process = outer;
        if self.is_killed() { Err(Stop::Exit) } else { ended }
    }

    /// Kills the process of an actor, or of each of its copies; `ESRCH` for one that has ended. None: the
    /// name is of no process.
    pub(super) fn kill_actor(&mut self, name: &str) -> Option<Answer> {
        let of_it = |other: &str| {
            let copy = other.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
            other == name || copy.is_some_and(|copy| copy.parse::<u32>().is_ok())
        };
        let processes: Vec<Arc<Process>> = {
            let processes = self.stage.processes();
            processes.iter().filter(|(other, _)| of_it(other)).map(|(_, p)| p.clone()).collect()
        };
        if processes.is_empty() {
            return None;
        }
        let mut answer = Ok(());
        for process in processes {
            process.killed.store(true, Ordering::SeqCst);
            let killed = self.timed("process.kill", || process.remote().kill());
            answer = answer.and(killed);
        }
        self.stage.wake();
        Some(answer)
    }

    /// Does something by this process, whoever makes the actor's calls: what it makes is to be used by
    /// other actors as well.
    pub(super) fn outside<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let process = self.process.take();
        let done = work(self);
        self.process = process;
        done
    }

    /// Whether the process of this actor, or of its client, was killed.
    pub(super) fn is_killed(&self) -> bool {
        let own =
            self.process.as_ref().is_some_and(|process| process.killed.load(Ordering::SeqCst));
        own || self.stage.was_killed(&self.client)
    }

    /// The end of a step of an actor that was killed: no failure, if it is clear what the step did.
    pub(super) fn after_kill(&mut self, action: &Action, ended: Done) -> Done {
        match ended {
            // What a client's process changed went with it; an actor's is there for others.
            Err(Stop::Killed) if !only_looks(action) && self.process.is_some() => {
                self.process = None;
                self.fail(
                    "kill of the actor",
                    "a kill while it waits or between its steps",
                    "a kill within a step that changes something: nobody can tell whether it did",
                )
            }
            Err(Stop::Killed) => Err(Stop::Exit),
            other => other,
        }
    }

    /// How the actor's process sees memory.
    pub(super) fn process_view(
        &mut self,
        process: &Process,
        memory: &MemoryObject,
    ) -> Done<Result<Arc<dyn View>, Errno>> {
        if let Some(view) = process.views().get(&memory.object) {
            return Ok(Ok(Arc::clone(view)));
        }
        if let Some(area) = &memory.area {
            // An address: what is there, if anything, the access will tell.
            let reach = Reach { addr: area.addr, len: memory.size };
            let view = process.remote().reach(reach);
            return Ok(view.map_err(|error| error.errno).inspect(|view| {
                process.views().insert(memory.object, Arc::clone(view));
            }));
        }
        let Some(gem) = memory.gem else {
            let what = format!("{}: a forked process does not share this memory", memory.name);
            return self.broken(&what);
        };
        let client = self.client_named(&memory.client)?;
        let mapped = self.timed("gem.map", || client.handle.map(gem, memory.size));
        Ok(mapped.map_err(|error| error.errno).inspect(|view| {
            process.views().insert(memory.object, Arc::clone(view));
        }))
    }
}
