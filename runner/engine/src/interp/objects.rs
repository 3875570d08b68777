//! Making and unmaking objects: at the start, by steps, and at the end.

use super::actor::{Actor, Answer, Done};
use super::area::Wanted;
use super::bind::{queue_class, region};
use super::remote::RemoteClient;
use super::stage::{
    Carries, ClientObject, FdObject, MemoryObject, QueueObject, Stage, SyncobjObject, VmObject,
    all, find, put, take,
};
use super::view::ClientHandle;
use crate::lang::ast::{Client, CpuKind, Home, Memory, MemoryKind, Pattern, Queue, Syncobj, Vm};
use crate::lang::step::{Create, ObjectRef, Step};
use crate::oracle::{self, BindRequest};
use fencepost_fixtures::Errno;
use fencepost_fixtures::device as dev;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Addresses that a mirror of everything covers: from the lowest that a kernel lets programs have to the
/// end of what 47 bits can name.
const CPU_START: u64 = 1 << 16;
const CPU_END: u64 = 1 << 47;
/// CPU memory begins at multiples of this unless a scenario says otherwise.
const AREA_ALIGN: u64 = 2 << 20;

impl Actor<'_, '_> {
    // ---- at the start ----------------------------------------------------------------------

    /// Makes all that the test declares.
    pub(super) fn set_up(&mut self) -> Done {
        let test = self.stage.test;
        for client in &test.clients {
            self.origin = self.origin_of_span(client.span);
            self.open_client(client)?;
        }
        for vm in &test.vms {
            self.origin = self.origin_of_span(vm.span);
            let answer = self.make_vm(vm)?;
            self.needs("creation of the VM", answer)?;
        }
        for memory in &test.memory {
            self.origin = self.origin_of_span(memory.span);
            let answer = self.make_memory(memory)?;
            self.needs("creation of the memory", answer)?;
        }
        for queue in &test.queues {
            self.origin = self.origin_of_span(queue.span);
            let answer = self.make_queue(queue)?;
            self.needs("creation of the queue", answer)?;
        }
        for syncobj in &test.syncobjs {
            self.origin = self.origin_of_span(syncobj.span);
            let Syncobj { name, client, signalled, .. } = syncobj;
            let answer = self.make_syncobj(name, client, *signalled)?;
            self.needs("creation of the syncobj", answer)?;
        }
        Ok(())
    }

    pub(super) fn origin_of_span(&mut self, span: crate::lang::ast::Span) -> oracle::Origin {
        let line = super::report::line_of(self.stage.text, span.start);
        self.origin_of(span, line)
    }

    fn needs(&mut self, what: &str, answer: Answer) -> Done {
        match answer {
            Ok(()) => Ok(()),
            Err(errno) => self.fail(what, "success", &super::actor::errno_name(errno)),
        }
    }

    fn open_client(&mut self, client: &Client) -> Done {
        let stage = self.stage;
        let child = {
            let mut children = stage.children.lock().unwrap_or_else(|p| p.into_inner());
            children.remove(&client.name)
        };
        let opened = self.timed("device.open", || match child {
            Some(child) => child.open(client.debug).map(|()| ClientHandle::Remote(child)),
            None => match &client.on {
                Some(beside) => stage.device.open_beside(beside).map(ClientHandle::Local),
                None => stage.device.open().map(ClientHandle::Local),
            },
        });
        let handle = match opened {
            Ok(handle) => handle,
            Err(error) => return self.fail("opening the device", "success", &error.to_string()),
        };
        if client.debug
            && let Err(error) = handle.debug_open()
        {
            return self.fail("opening for testing", "success", &error.to_string());
        }
        let name = client.name.clone();
        let beside = client.on.is_some();
        let mm = match handle {
            ClientHandle::Local(_) => stage.mm,
            ClientHandle::Remote(_) => stage.model().mm(self.line),
        };
        let object = ClientObject { name, handle, beside, mm, closed: AtomicBool::new(false) };
        put(&stage.names.clients, &client.name, object);
        Ok(())
    }

    fn make_vm(&mut self, vm: &Vm) -> Done<Answer> {
        let limits = self.stage.device.limits().clone();
        let va_end = match &vm.va_end {
            Some(end) => Some(self.value(end)?),
            None => None,
        };
        let hole = match &vm.hole {
            Some((start, size)) => Some((self.value(start)?, self.value(size)?)),
            None => None,
        };
        let client = self.client_named(&vm.client)?;
        let (long_running, fault) = (vm.long_running, vm.fault);
        let spec = dev::VmSpec { va_end, hole, long_running, fault, window: None };
        let made = self.timed("vm.create", || client.handle.vm_create(&spec));
        let handle = match made {
            Ok(handle) => handle,
            Err(error) => return Ok(Err(error.errno)),
        };
        let end = va_end.unwrap_or(limits.va_end);
        let hole = hole.filter(|(_, size)| *size > 0).map(|(start, size)| (start, start + size));
        let space = self.stage.model().space(self.line, (limits.va_start, end), hole);
        let object = VmObject {
            name: vm.name.clone(),
            client: vm.client.clone(),
            vm: handle,
            spec,
            end,
            space,
            mm: self.process.as_ref().map_or(client.mm, |process| process.mm),
            mirror: vm.mirror,
            bind_queue: self.stage.queue_number(),
            probe: Mutex::default(),
            faults_before: AtomicU64::new(0),
        };
        let object = put(&self.stage.names.vms, &vm.name, object);
        if !vm.mirror {
            return Ok(Ok(()));
        }
        // Lower addresses than the CPU ever maps, and what a smaller VM has.
        let start = limits.va_start.max(CPU_START);
        self.mirror_all(&object, start, end.min(CPU_END))
    }

    fn make_queue(&mut self, queue: &Queue) -> Done<Answer> {
        let Some(vm) = find(&self.stage.names.vms, &queue.vm) else {
            return self.broken(&format!("there is no VM {}", queue.vm));
        };
        let client = self.client_named(&vm.client)?;
        let priority = match queue.priority {
            0 => dev::Priority::Low,
            1 => dev::Priority::Normal,
            _ => dev::Priority::High,
        };
        let timeout = queue.timeout.map(|t| u32::try_from(t.as_millis()).unwrap_or(u32::MAX));
        let spec = dev::QueueSpec {
            vm: vm.vm,
            class: queue_class(queue.class),
            engine: queue.engine,
            priority,
            timeout_ms: timeout,
        };
        let made = self.timed("queue.create", || client.handle.queue_create(&spec));
        let handle = match made {
            Ok(handle) => handle,
            Err(error) => return Ok(Err(error.errno)),
        };
        let object = QueueObject {
            name: queue.name.clone(),
            vm: vm.name.clone(),
            client: vm.client.clone(),
            queue: handle,
            spec,
            class: queue.class,
            number: self.stage.queue_number(),
            submitted: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            users: Mutex::default(),
            gone: AtomicBool::new(false),
        };
        put(&self.stage.names.queues, &queue.name, object);
        Ok(Ok(()))
    }

    fn make_syncobj(&mut self, name: &str, client: &str, signalled: bool) -> Done<Answer> {
        let file = self.client_named(client)?;
        let made = self.timed("syncobj.create", || file.handle.syncobj_create(signalled));
        let handle = match made {
            Ok(handle) => handle,
            Err(error) => return Ok(Err(error.errno)),
        };
        let id = self.stage.model().syncobj(self.line, signalled);
        let object = SyncobjObject { name: name.to_owned(), client: client.to_owned(), handle, id };
        put(&self.stage.names.syncobjs, name, object);
        Ok(Ok(()))
    }

    fn make_memory(&mut self, memory: &Memory) -> Done<Answer> {
        let size = self.value(&memory.size)?;
        let word = match &memory.pattern {
            Pattern::Word(word) => self.value(word)?,
            Pattern::Zero | Pattern::Unique => 0,
        };
        let MemoryKind::Bo { vram, system, private } = &memory.kind else {
            return self.make_cpu_memory(memory, size, word);
        };
        let gem = match self.make_bo(memory, size, (*vram, *system), private.as_deref())? {
            Ok(gem) => Some(gem),
            Err(errno) => return Ok(Err(errno)),
        };
        let zeros = oracle::Source::repeat(0, 8, 0);
        let object = self.stage.model().create(self.line, size, zeros, self.origin);
        let home = match &memory.home {
            Some(home) => Some((home.vm.clone(), self.value(&home.addr)?)),
            None => None,
        };
        let object = MemoryObject {
            name: memory.name.clone(),
            index: object,
            client: memory.client.clone(),
            size,
            pattern: Stage::pattern(&memory.pattern, object, word),
            written: memory.pattern != Pattern::Zero,
            gem,
            home,
            object,
            area: None,
            view: OnceLock::new(),
        };
        let object = put(&self.stage.names.memory, &memory.name, object);
        if object.written {
            self.write_pattern(&object)?;
        }
        match &memory.home {
            Some(home) => self.bind_home(&object, home),
            None => Ok(Ok(())),
        }
    }

    /// CPU memory in the client's process.
    fn make_cpu_memory(&mut self, memory: &Memory, size: u64, word: u64) -> Done<Answer> {
        let MemoryKind::Cpu(kind) = memory.kind else { return Ok(Ok(())) };
        let align = match &memory.align {
            Some(align) => self.value(align)?,
            None => AREA_ALIGN,
        };
        let pattern = &memory.pattern;
        let index = all(&self.stage.names.memory).len();
        let index =
            self.stage.test.memory.iter().position(|m| m.name == memory.name).unwrap_or(index);
        let content = Stage::pattern(pattern, index, word);
        let (client, access) = (memory.client.as_str(), memory.access);
        let wanted = Wanted { client, kind, size, align, access, pattern };
        let (area, object, view) = match self.make_area(&wanted, &content)? {
            Ok(made) => made,
            Err(errno) => return Ok(Err(errno)),
        };
        let written = *pattern != Pattern::Zero && kind != CpuKind::Hole;
        let object = MemoryObject {
            name: memory.name.clone(),
            index,
            client: memory.client.clone(),
            size,
            pattern: content,
            written,
            gem: None,
            home: None,
            object,
            area: Some(area),
            view: OnceLock::from(view),
        };
        let object = put(&self.stage.names.memory, &memory.name, object);
        let by_file = object.area.as_ref().is_some_and(|area| area.by_file);
        if written && !by_file {
            self.write_pattern(&object)?;
        }
        self.finish_area(&object, kind == CpuKind::Zero)
    }

    fn make_bo(
        &mut self,
        memory: &Memory,
        size: u64,
        (vram, system): (bool, bool),
        private: Option<&str>,
    ) -> Done<Result<dev::Gem, Errno>> {
        let placement = match (vram, system) {
            (true, false) => dev::Placement::Vram,
            (false, true) => dev::Placement::System,
            _ => dev::Placement::Either,
        };
        let private_to = match private {
            Some(vm) => Some(self.vm(&memory.client, Some(vm))?.vm),
            None => None,
        };
        let client = self.client_named(&memory.client)?;
        let spec = dev::GemSpec { size, placement, private_to };
        let made = self.timed("gem.create", || client.handle.gem_create(&spec));
        Ok(made.map_err(|error| error.errno))
    }

    /// Binds memory at its home address.
    fn bind_home(&mut self, memory: &MemoryObject, home: &Home) -> Done<Answer> {
        let (Some((name, addr)), Some(gem)) = (&memory.home, memory.gem) else {
            return self.broken("only buffer objects have a home address");
        };
        let vm = self.vm(&memory.client, Some(name))?;
        let client = self.client_named(&vm.client)?;
        let (addr, range, readonly) = (*addr, memory.size, home.readonly);
        let target = oracle::Target::Object(memory.object, 0);
        let ops = [oracle::Op::Map { addr, range, target, readonly, kind: 0 }];
        let request = BindRequest {
            space: vm.space,
            queue: vm.bind_queue,
            is_async: false,
            ops: &ops,
            wait: &[],
            signal: &[],
            user_fence: None,
            origin: self.origin,
        };
        let id = self.stage.model().bind_begin(self.line, &request);
        let map = dev::BindOp::Map { addr, range, gem, offset: 0, readonly, kind: 0 };
        let call = dev::BindCall::sync(vm.vm, [map]);
        let done = self.timed("vm_bind.map", || client.handle.bind(&call));
        self.stage.model().bind_end(self.line, id, done.is_ok());
        Ok(done.map_err(|error| error.errno))
    }

    // ---- steps -----------------------------------------------------------------------------

    pub(super) fn create(&mut self, step: &Step, create: &Create) -> Done<Answer> {
        match create {
            Create::Memory(memory) => self.make_memory(memory),
            Create::Vm(vm) => self.make_vm(vm),
            Create::Queue(queue) => self.make_queue(queue),
            Create::Syncobj { name, signalled } => {
                let client = step.client.clone().unwrap_or_else(|| self.client.clone());
                self.make_syncobj(name, &client, *signalled)
            }
        }
    }

    pub(super) fn destroy(&mut self, step: &Step, object: &ObjectRef) -> Done<Answer> {
        let of = |own: &str| step.client.clone().unwrap_or_else(|| own.to_owned());
        match object {
            ObjectRef::Memory(name) => {
                let memory = self.memory(name)?;
                let Some(gem) = memory.gem else { return Ok(Ok(())) };
                let client = self.client_named(&of(&memory.client))?;
                let done = self.timed("gem.close", || client.handle.gem_close(gem));
                Ok(done.map_err(|error| error.errno))
            }
            ObjectRef::Vm(name) => {
                let own = self.client.clone();
                let vm = self.vm(&own, Some(name))?;
                self.drop_probes(Some(name));
                let client = self.client_named(&of(&vm.client))?;
                let done = self.timed("vm.destroy", || client.handle.vm_destroy(vm.vm));
                Ok(done.map_err(|error| error.errno))
            }
            ObjectRef::Queue(name) => {
                let Some(queue) = find(&self.stage.names.queues, name) else {
                    return self.broken(&format!("there is no queue {name}"));
                };
                let client = self.client_named(&of(&queue.client))?;
                let done = self.timed("queue.destroy", || client.handle.queue_destroy(queue.queue));
                if done.is_ok() {
                    queue.gone.store(true, Ordering::SeqCst);
                }
                Ok(done.map_err(|error| error.errno))
            }
            ObjectRef::Syncobj(name) => {
                let syncobj = self.syncobj(name)?;
                let client = self.client_named(&of(&syncobj.client))?;
                let handle = syncobj.handle;
                let done = self.timed("syncobj.destroy", || client.handle.syncobj_destroy(handle));
                Ok(done.map_err(|error| error.errno))
            }
            ObjectRef::Fd(name) => match take(&self.stage.names.fds, name) {
                Some(_) => Ok(Ok(())),
                None => self.broken(&format!("there is no fd {name}")),
            },
        }
    }

    /// Closes a client's file: its handle is dropped with everything that keeps it open.
    pub(super) fn close(&mut self, name: &str) -> Done<Answer> {
        self.close_client(name);
        Ok(Ok(()))
    }

    /// Forgets all that belongs to a client and closes its file.
    pub(super) fn close_client(&mut self, name: &str) {
        let names = &self.stage.names;
        let Some(client) = find(&names.clients, name) else { return };
        client.closed.store(true, Ordering::SeqCst);
        for queue in all(&names.queues).iter().filter(|queue| queue.client == name) {
            queue.gone.store(true, Ordering::SeqCst);
            take(&names.queues, &queue.name);
        }
        for vm in all(&names.vms).iter().filter(|vm| vm.client == name) {
            vm.probe.lock().unwrap_or_else(|p| p.into_inner()).take();
            take(&names.vms, &vm.name);
        }
        let is_remote = matches!(client.handle, ClientHandle::Remote(_));
        for memory in all(&names.memory).iter().filter(|memory| memory.client == name) {
            // CPU memory of this process is there as long as the test is.
            if memory.area.is_none() || is_remote {
                take(&names.memory, &memory.name);
            }
        }
        for syncobj in all(&names.syncobjs).iter().filter(|syncobj| syncobj.client == name) {
            take(&names.syncobjs, &syncobj.name);
        }
        let mut jobs = names.jobs.write().unwrap_or_else(|p| p.into_inner());
        jobs.retain(|_, job| job.queue.client != name);
        drop(jobs);
        take(&names.clients, name);
        client.handle.close();
    }

    /// Kills the process of an actor or client and reaps it. Of a client, all it holds is released by its death.
    pub(super) fn kill(&mut self, name: &str) -> Done<Answer> {
        if let Some(killed) = self.kill_actor(name) {
            return Ok(killed);
        }
        self.end_process_of(name, "process.kill", RemoteClient::kill)
    }

    /// Ends the process of a client as `end` does.
    pub(super) fn end_process_of(
        &mut self,
        name: &str,
        operation: &str,
        end: impl FnOnce(&RemoteClient) -> Result<(), Errno>,
    ) -> Done<Answer> {
        let Some(client) = find(&self.stage.names.clients, name) else {
            return self.broken(&format!("no process of an actor or client is called {name}"));
        };
        let ClientHandle::Remote(remote) = &client.handle else {
            return self.broken(&format!("client {name} has no process of its own"));
        };
        // Its jobs are cut off from now on, for those who wait for them.
        self.stage.note_killed(name);
        client.closed.store(true, Ordering::SeqCst);
        for queue in all(&self.stage.names.queues).iter().filter(|queue| queue.client == name) {
            queue.gone.store(true, Ordering::SeqCst);
        }
        let ended = self.timed(operation, || end(remote));
        self.close_client(name);
        Ok(ended)
    }

    /// Waits until the process of an actor, or of a client, sleeps inside a call.
    pub(super) fn blocked(&mut self, name: &str, timeout: Duration) -> Done<Answer> {
        let actor = self.stage.processes().get(name).map(|process| Arc::clone(&process.client));
        let Some(client) = actor.or_else(|| find(&self.stage.names.clients, name)) else {
            return self.broken(&format!("no process of an actor or client is called {name}"));
        };
        let ClientHandle::Remote(remote) = &client.handle else {
            return self.broken(&format!("client {name} has no process of its own"));
        };
        Ok(self.timed("process.blocked", || remote.wait_blocked(timeout)))
    }

    /// Makes one sync file of two.
    pub(super) fn merge(&mut self, first: &str, second: &str, name: &str) -> Done<Answer> {
        let fds = &self.stage.names.fds;
        let (Some(first), Some(second)) = (find(fds, first), find(fds, second)) else {
            return self.broken("an fd to merge was never made");
        };
        let (Carries::SyncFile(a), Carries::SyncFile(b)) = (&first.carries, &second.carries) else {
            return self.broken("only sync files can be merged");
        };
        // What is certain is only what both fences know.
        let fence = [a.as_slice(), b].concat();
        let (first, second) = (first.fd.as_fd(), second.fd.as_fd());
        match self.timed("sync_file.merge", || dev::sync_file::merge(first, second)) {
            Ok(fd) => {
                put(fds, name, FdObject { fd, carries: Carries::SyncFile(fence) });
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error.errno)),
        }
    }

    pub(super) fn export(
        &mut self,
        step: &Step,
        object: &ObjectRef,
        sync_file: bool,
        fd: &str,
    ) -> Done<Answer> {
        let of = |own: &str| step.client.clone().unwrap_or_else(|| own.to_owned());
        let (exported, carries) = match object {
            ObjectRef::Memory(name) => {
                let memory = self.memory(name)?;
                let Some(gem) = memory.gem else { return self.broken("CPU memory has no handle") };
                let client = self.client_named(&of(&memory.client))?;
                let exported = self.timed("prime.export", || client.handle.gem_export(gem));
                (exported, Carries::Memory(memory))
            }
            ObjectRef::Syncobj(name) => {
                let syncobj = self.syncobj(name)?;
                let client = self.client_named(&of(&syncobj.client))?;
                let form = if sync_file { dev::SyncForm::SyncFile } else { dev::SyncForm::Syncobj };
                let begun = self.stage.model().look();
                let handle = syncobj.handle;
                let exported =
                    self.timed("syncobj.export", || client.handle.syncobj_export(handle, form));
                let carries = match sync_file {
                    true => Carries::SyncFile(self.stage.model().fence((syncobj.id, 0), begun)),
                    false => Carries::Syncobj(syncobj.id),
                };
                (exported, carries)
            }
            _ => return self.broken("only memory and syncobjs are exported"),
        };
        match exported {
            Ok(descriptor) => {
                put(&self.stage.names.fds, fd, FdObject { fd: descriptor, carries });
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error.errno)),
        }
    }

    pub(super) fn import(&mut self, step: &Step, fd: &str, object: &ObjectRef) -> Done<Answer> {
        let Some(source) = find(&self.stage.names.fds, fd) else {
            return self.broken(&format!("there is no fd {fd}"));
        };
        let client = self.client(step)?;
        match (object, source.carries.clone()) {
            (ObjectRef::Memory(name), carries) => {
                let imported =
                    self.timed("prime.import", || client.handle.gem_import(source.fd.as_fd()));
                match (imported, carries) {
                    (Err(error), _) => Ok(Err(error.errno)),
                    (Ok(gem), Carries::Memory(memory)) => {
                        self.name_imported(name, &client.name, gem, &memory);
                        Ok(Ok(()))
                    }
                    (Ok(_), _) => self.fail("import of a descriptor", "EINVAL", "success"),
                }
            }
            (ObjectRef::Syncobj(name), Carries::Syncobj(id)) => {
                let imported = self
                    .timed("syncobj.import", || client.handle.syncobj_import(source.fd.as_fd()));
                match imported {
                    Ok(handle) => {
                        let (name, client) = (name.clone(), client.name.clone());
                        let object = SyncobjObject { name: name.clone(), client, handle, id };
                        put(&self.stage.names.syncobjs, &name, object);
                        Ok(Ok(()))
                    }
                    Err(error) => Ok(Err(error.errno)),
                }
            }
            (ObjectRef::Syncobj(name), Carries::SyncFile(fence)) => {
                let syncobj = self.syncobj(name)?;
                let attaching = self.stage.model().attach_begin((syncobj.id, 0), fence);
                let (handle, fd) = (syncobj.handle, source.fd.as_fd());
                let done =
                    self.timed("sync_file.import", || client.handle.sync_file_import(handle, fd));
                self.stage.model().attach_end(attaching, done.is_ok());
                Ok(done.map_err(|error| error.errno))
            }
            (ObjectRef::Syncobj(_), Carries::Memory(_)) => {
                let imported = client.handle.syncobj_import(source.fd.as_fd());
                Ok(imported.map(drop).map_err(|error| error.errno))
            }
            _ => self.broken("only memory and syncobjs are imported"),
        }
    }

    fn name_imported(&mut self, name: &str, client: &str, gem: dev::Gem, from: &MemoryObject) {
        let object = MemoryObject {
            name: name.to_owned(),
            index: from.index,
            client: client.to_owned(),
            size: from.size,
            pattern: from.pattern.clone(),
            written: false,
            gem: Some(gem),
            home: None,
            object: from.object,
            area: None,
            view: OnceLock::new(),
        };
        put(&self.stage.names.memory, name, object);
    }

    // ---- placement -------------------------------------------------------------------------

    pub(super) fn evict(&mut self, step: &Step, name: Option<&str>) -> Done<Answer> {
        let gem = match name {
            Some(name) => self.memory(name)?.gem,
            None => None,
        };
        let client = self.client(step)?;
        let done = self.timed("debug.evict", || client.handle.evict(gem));
        Ok(done.map(drop).map_err(|error| error.errno))
    }

    /// Checks where an object lives.
    pub(super) fn check_resident(
        &mut self,
        name: &str,
        expected: crate::lang::step::Region,
    ) -> Done {
        let memory = self.memory(name)?;
        let Some(gem) = memory.gem else {
            return self.broken("CPU memory is always in system memory");
        };
        let client = self.client_named(&memory.client)?;
        match client.handle.gem_info(gem) {
            Ok(info) if info.resident == Some(region(expected)) => Ok(()),
            Ok(info) => {
                let seen = info.resident.map_or("nowhere".to_owned(), |r| format!("{r:?}"));
                self.fail(&format!("where {name} lives"), &format!("{:?}", region(expected)), &seen)
            }
            Err(error) => self.fail("information about memory", "success", &error.to_string()),
        }
    }
}
