//! The child's side: it makes the calls that it is told to.

use super::super::view::View;
use super::locked;
use super::request::{Answer, Batch, PATIENCE, Request};
use crate::worker;
use fencepost_fixtures::Errno;
use fencepost_fixtures::area::Area;
use fencepost_fixtures::device as dev;
use fencepost_fixtures::device::{Client, Device, Error, Queue, Result, Work};
use fencepost_fixtures::sys::message::Channel;
use fencepost_fixtures::sys::process;
use serde_json::{Value, json};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};

/// What the child has.
pub(super) struct Server<'c> {
    file: Mutex<File<'c>>,
    /// Number of its first view and its first job.
    first: usize,
    views: Mutex<Vec<Arc<dyn View>>>,
    areas: Mutex<Vec<Area>>,
    jobs: Mutex<Vec<Arc<dyn dev::Submission>>>,
}

/// The child's open file.
#[derive(Clone)]
enum File<'c> {
    /// Opened by itself.
    Own(Arc<dyn Client>),
    /// Its parent's.
    Inherited(&'c (dyn Client + 'static)),
    /// It was closed.
    Closed,
}

/// The child's life: opens connections, opens the device unless it inherits a file, ends when told to
/// or left alone.
pub(super) fn serve(
    device: Option<&dyn Device>,
    channel: &Channel,
    server: OnceLock<Server<'_>>,
) -> i32 {
    let server = &server;
    std::thread::scope(|scope| {
        loop {
            let Ok((bytes, fds)) = channel.recv(PATIENCE) else { end() };
            match (serde_json::from_slice(&bytes), fds.into_iter().next()) {
                (Ok(Request::Lane), Some(fd)) => {
                    scope.spawn(move || lane(device, server, &Channel::from(fd)));
                }
                (Ok(Request::Again { first }), _) => again(channel, server, first),
                // Told to go, or the other side is gone.
                _ => end(),
            }
        }
    })
}

/// Runs another program, which serves on.
fn again(channel: &Channel, server: &OnceLock<Server<'_>>, first: usize) {
    let Some(server) = server.get() else { end() };
    // Without an answer the other side knows that it failed.
    let _: Result<()> = server.on_file(|client| {
        let file = client.fd();
        let words = worker::again(channel.as_fd(), file, first);
        let Err(errno) = process::again(&[channel.as_fd(), file], &words);
        Err(Error::new("process.exec", errno))
    });
    end()
}

/// The life of a program that was run in the place of a child: it has the open file, and nothing else of what
/// the child had.
pub(crate) fn serve_on(device: &dyn Device, channel: OwnedFd, file: OwnedFd, first: usize) -> i32 {
    let channel = Channel::from(channel);
    let Ok(client) = device.adopt(file) else { return 1 };
    let server = Server { first, ..Server::new(File::Own(Arc::from(client)), Vec::new()) };
    let there = serde_json::to_vec(&Answer::Ok(Value::Null)).unwrap_or_default();
    if channel.send(&there, &[]).is_err() {
        return 1;
    }
    serve(None, &channel, OnceLock::from(server))
}

/// Ends the process: threads may be within calls that wait.
fn end() -> ! {
    process::exit_now(0)
}

/// Serves one connection.
fn lane(device: Option<&dyn Device>, server: &OnceLock<Server<'_>>, channel: &Channel) {
    while let Ok((bytes, fds)) = channel.recv(PATIENCE) {
        let Ok(request) = serde_json::from_slice(&bytes) else { return };
        let mut out = None;
        let answer: Answer = match (request, server.get()) {
            (Request::Open { debug }, _) => open(device, server, debug),
            (request, Some(server)) => server.answer(request, fds.into_iter().next(), &mut out),
            (_, None) => Err(Error::new("device.open", Errno::EBADF)),
        }
        .map_err(|error| error.errno as i32);
        let bytes = serde_json::to_vec(&answer).unwrap_or_default();
        let fds: Vec<BorrowedFd<'_>> = out.iter().map(AsFd::as_fd).collect();
        if channel.send(&bytes, &fds).is_err() {
            return;
        }
    }
}

fn open(device: Option<&dyn Device>, server: &OnceLock<Server<'_>>, debug: bool) -> Result<Value> {
    let device = device.ok_or(Error::new("device.open", Errno::EBUSY))?;
    let client = device.open()?;
    if debug {
        client.debug_open()?;
    }
    let fresh = Server::new(File::Own(Arc::from(client)), Vec::new());
    // A second open would be a mistake of this module; the first one stays.
    let _ = server.set(fresh);
    Ok(Value::Null)
}

impl<'c> Server<'c> {
    /// A child with its parent's file and memory.
    pub(super) fn inherited(client: &'c (dyn Client + 'static), views: Vec<Arc<dyn View>>) -> Self {
        Self::new(File::Inherited(client), views)
    }

    fn new(file: File<'c>, views: Vec<Arc<dyn View>>) -> Self {
        let (file, views) = (Mutex::new(file), Mutex::new(views));
        Self { file, first: 0, views, areas: Mutex::default(), jobs: Mutex::default() }
    }

    /// Makes a call on the file, which stays open as long.
    fn on_file<T>(&self, call: impl FnOnce(&dyn Client) -> Result<T>) -> Result<T> {
        let file = locked(&self.file).clone();
        match file {
            File::Own(client) => call(&*client),
            File::Inherited(client) => call(client),
            File::Closed => Err(Error::new("device", Errno::EBADF)),
        }
    }

    /// Closes the file, with what holds it open.
    fn close(&self) {
        locked(&self.jobs).clear();
        let file = std::mem::replace(&mut *locked(&self.file), File::Closed);
        drop(file);
    }

    fn view(&self, view: usize) -> Result<Arc<dyn View>> {
        // Those of the program before are gone with its memory.
        let view = view.checked_sub(self.first);
        let view = view.and_then(|view| locked(&self.views).get(view).cloned());
        view.ok_or(Error::new("cpu", Errno::EFAULT))
    }

    fn add_view(&self, view: impl View + 'static) -> Value {
        let mut views = locked(&self.views);
        let addr = view.addr();
        views.push(Arc::new(view));
        json!((self.first + views.len() - 1, addr))
    }

    fn answer(
        &self,
        request: Request,
        fd: Option<OwnedFd>,
        out: &mut Option<OwnedFd>,
    ) -> Result<Value> {
        match request {
            Request::Load { .. }
            | Request::Store { .. }
            | Request::Atomic { .. }
            | Request::Read { .. }
            | Request::Write { .. }
            | Request::Fill { .. } => self.cpu(request),
            Request::GemImport | Request::SyncobjImport | Request::SyncFileImport(_) => {
                self.import(&request, fd)
            }
            Request::GemExport(gem) => {
                *out = Some(self.on_file(|client| client.gem_export(gem))?);
                Ok(Value::Null)
            }
            Request::SyncobjExport { syncobj, form } => {
                *out = Some(self.on_file(|client| client.syncobj_export(syncobj, form))?);
                Ok(Value::Null)
            }
            Request::Submit { queue, work, syncs } => self.submit(queue, &work, syncs),
            Request::Finish { job, timeout } => {
                let job = job.checked_sub(self.first);
                let job = job.and_then(|job| locked(&self.jobs).get(job).cloned());
                let job = job.ok_or(Error::new("gpu.wait", Errno::ENOENT))?;
                Ok(json!(job.wait(timeout)?))
            }
            Request::Close => {
                self.close();
                Ok(Value::Null)
            }
            Request::AllowDump => {
                let allowed = fencepost_fixtures::upkeep::dump::allow();
                allowed.map(|()| Value::Null).map_err(|errno| Error::new("process.dump", errno))
            }
            other => self.on_file(|client| self.plain(client, other)),
        }
    }

    fn cpu(&self, request: Request) -> Result<Value> {
        Ok(match request {
            Request::Load { view, offset, width } => {
                json!(self.view(view)?.load(offset, width)?)
            }
            Request::Store { view, offset, width, value } => {
                json!(self.view(view)?.store(offset, width, value)?)
            }
            Request::Atomic { view, offset, width, op, operand } => {
                json!(self.view(view)?.atomic(offset, width, op, operand)?)
            }
            Request::Read { view, offset, len } => {
                let mut bytes = vec![0; len];
                self.view(view)?.read(offset, &mut bytes)?;
                json!(bytes)
            }
            Request::Write { view, offset, bytes } => {
                json!(self.view(view)?.write(offset, &bytes)?)
            }
            Request::Fill { view, offset, bytes, width, value } => {
                json!(self.view(view)?.fill(offset, bytes, width, value)?)
            }
            _ => return Err(Error::unsupported("cpu")),
        })
    }

    fn import(&self, request: &Request, fd: Option<OwnedFd>) -> Result<Value> {
        let fd = fd.ok_or(Error::new("import", Errno::EBADF))?;
        self.on_file(|client| {
            Ok(match request {
                Request::GemImport => json!(client.gem_import(fd.as_fd())?),
                Request::SyncobjImport => json!(client.syncobj_import(fd.as_fd())?),
                Request::SyncFileImport(syncobj) => {
                    json!(client.sync_file_import(*syncobj, fd.as_fd())?)
                }
                _ => return Err(Error::unsupported("import")),
            })
        })
    }

    fn submit(&self, queue: Queue, work: &[Batch], syncs: Vec<dev::SyncPoint>) -> Result<Value> {
        let work = work
            .iter()
            .map(|batch| match batch {
                Batch::Program(program) => Work::Program(program),
                Batch::At { addr, bytes } => Work::At { addr: *addr, bytes: *bytes },
            })
            .collect();
        let call = dev::SubmitCall { queue, work, syncs };
        let job = self.on_file(|client| client.submit(&call))?;
        let mut jobs = locked(&self.jobs);
        jobs.push(Arc::from(job));
        Ok(json!(self.first + jobs.len() - 1))
    }

    fn plain(&self, client: &dyn Client, request: Request) -> Result<Value> {
        Ok(match request {
            Request::GemCreate(spec) => json!(client.gem_create(&spec)?),
            Request::GemClose(gem) => json!(client.gem_close(gem)?),
            Request::GemInfo(gem) => json!(client.gem_info(gem)?),
            Request::MapGem { gem, size } => self.add_view(client.gem_map(gem, 0, size)?),
            Request::Area(spec) => {
                let area = Area::new(&spec)?;
                let addr = area.addr();
                locked(&self.areas).push(area);
                json!(addr)
            }
            Request::Reach(reach) => {
                // What a child inherits is reached by the same accesses, whose faults it must survive.
                fencepost_fixtures::sys::guard::install();
                self.add_view(reach)
            }
            Request::Mm(call) => json!(call.run()?),
            Request::SvmMigrate(migrate) => json!(client.svm_migrate(&migrate)?),
            Request::SvmExclusive(range) => json!(client.svm_exclusive(range)?),
            Request::SvmQuery(range) => json!(client.svm_query(range)?),
            Request::SvmSet(range, change) => json!(client.svm_set(range, &change)?),
            Request::SvmAttributes(range) => json!(client.svm_attributes(range)?),
            Request::SvmTune(tune) => json!(client.svm_tune(&tune)?),
            Request::SvmFaults(action) => json!(client.svm_faults(action)?),
            Request::SvmEvict => json!(client.svm_evict()?),
            Request::Spawn(start) => {
                json!(worker::spawn(start).map_err(|errno| Error::new("process.spawn", errno))?)
            }
            Request::RecallVm(vm, spec) => json!(client.recall_vm(vm, &spec)),
            Request::RecallQueue(queue, spec) => json!(client.recall_queue(queue, &spec)),
            Request::VmCreate(spec) => json!(client.vm_create(&spec)?),
            Request::VmDestroy(vm) => json!(client.vm_destroy(vm)?),
            Request::Bind(call) => json!(client.bind(&call)?),
            Request::VaDump(vm) => json!(client.va_dump(vm)?),
            Request::Faults { vm, clear } => json!(client.faults(vm, clear)?),
            Request::Window(vm) => json!(client.internal_window(vm)),
            Request::QueueCreate(spec) => json!(client.queue_create(&spec)?),
            Request::QueueDestroy(queue) => json!(client.queue_destroy(queue)?),
            Request::QueueInfo(queue) => json!(client.queue_info(queue)?),
            Request::Encode(program) => json!(client.encode(&program)?),
            Request::SyncobjCreate(signalled) => json!(client.syncobj_create(signalled)?),
            Request::SyncobjDestroy(syncobj) => json!(client.syncobj_destroy(syncobj)?),
            Request::SyncobjWait { points, flags: [all, for_submit, available], timeout } => {
                let points = &points;
                json!(client.syncobj_wait(&dev::SyncobjWait {
                    points,
                    all,
                    for_submit,
                    available,
                    timeout
                })?)
            }
            Request::SyncobjReset(syncobjs) => json!(client.syncobj_reset(&syncobjs)?),
            Request::SyncobjSignal(syncobjs) => json!(client.syncobj_signal(&syncobjs)?),
            Request::TimelineSignal(points) => json!(client.timeline_signal(&points)?),
            Request::TimelineQuery { syncobjs, last_submitted } => {
                json!(client.timeline_query(&syncobjs, last_submitted)?)
            }
            Request::Transfer { from, to, for_submit } => {
                json!(client.syncobj_transfer(from, to, for_submit)?)
            }
            Request::UserFence(wait) => json!(client.user_fence_wait(&wait)?),
            Request::Counters => json!(client.counters()?),
            Request::Regions => json!(client.regions()?),
            Request::Inject { kind, nth } => json!(client.inject(kind, nth)?),
            Request::Delay { point, action } => json!(client.delay(&point, action)?),
            Request::Evict(gem) => json!(client.evict(gem)?),
            _ => return Err(Error::unsupported("remote")),
        })
    }
}
