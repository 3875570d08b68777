//! Clients in processes of their own: a forked child opens the device and makes every call, this
//! process says which and keeps the oracle.
//!
//! A call is a message with a [`Request`] in JSON and at most one descriptor; the answer is a JSON
//! value or an errno. Each thread that calls has a connection to itself while it does, and the child a
//! thread for it, so that a call that waits holds nobody up.

use super::view::View;
use fencepost_fixtures::Errno;
use fencepost_fixtures::device as dev;
use fencepost_fixtures::device::{
    AtomicOp, Client, Device, Error, Gem, Program, Queue, Result, Syncobj, Vm, Width, Work,
};
use fencepost_fixtures::memory::Window;
use fencepost_fixtures::sys::message::Channel;
use fencepost_fixtures::sys::process::Child;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// Longest time that an answer takes: beyond every time-out of a call.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a child may take to end when told to.
const FAREWELL: Duration = Duration::from_secs(10);
/// Bytes in one message that carries memory.
const PIECE: usize = 8 * 1024;

/// A call.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Request {
    Lane,
    Open { debug: bool },
    Exit,
    GemCreate(dev::GemSpec),
    GemClose(Gem),
    GemInfo(Gem),
    GemExport(Gem),
    GemImport,
    MapGem { gem: Gem, size: u64 },
    MapMemory { size: u64 },
    Load { view: usize, offset: u64, width: Width },
    Store { view: usize, offset: u64, width: Width, value: u64 },
    Atomic { view: usize, offset: u64, width: Width, op: AtomicOp, operand: u64 },
    Read { view: usize, offset: u64, len: usize },
    Write { view: usize, offset: u64, bytes: Vec<u8> },
    Fill { view: usize, offset: u64, bytes: u64, width: Width, value: u64 },
    VmCreate(dev::VmSpec),
    VmDestroy(Vm),
    Bind(dev::BindCall),
    VaDump(Vm),
    Faults { vm: Vm, clear: bool },
    Window(Vm),
    QueueCreate(dev::QueueSpec),
    QueueDestroy(Queue),
    QueueInfo(Queue),
    Submit { queue: Queue, work: Vec<Batch>, syncs: Vec<dev::SyncPoint> },
    Finish { job: usize, timeout: Duration },
    Encode(Program),
    SyncobjCreate(bool),
    SyncobjDestroy(Syncobj),
    SyncobjWait { points: Vec<(Syncobj, u64)>, flags: [bool; 3], timeout: Duration },
    SyncobjReset(Vec<Syncobj>),
    SyncobjSignal(Vec<Syncobj>),
    TimelineSignal(Vec<(Syncobj, u64)>),
    TimelineQuery { syncobjs: Vec<Syncobj>, last_submitted: bool },
    Transfer { from: (Syncobj, u64), to: (Syncobj, u64) },
    SyncobjExport { syncobj: Syncobj, form: dev::SyncForm },
    SyncobjImport,
    SyncFileImport(Syncobj),
    UserFence(dev::UserFenceWait),
    Counters,
    Regions,
    Inject { kind: dev::Inject, nth: u64 },
    Delay { point: String, action: dev::DelayAction },
    Evict(Option<Gem>),
}

/// A batch of a submission.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Batch {
    Program(Program),
    At { addr: u64, bytes: u32 },
}

/// An answer: a value or an errno.
type Answer = std::result::Result<Value, i32>;

// ---- this side ---------------------------------------------------------------------------------

/// A client in another process.
pub(super) struct RemoteClient {
    link: Arc<Link>,
    /// Stands in for the open file, which is the child's: nobody polls a client.
    stand_in: OwnedFd,
}

/// The connections to a child.
struct Link {
    child: Mutex<Child>,
    free: Mutex<Vec<Channel>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Link {
    /// A connection that nobody else uses.
    fn channel(&self) -> std::result::Result<Channel, Errno> {
        if let Some(channel) = locked(&self.free).pop() {
            return Ok(channel);
        }
        let (ours, theirs) = Channel::pair()?;
        let request = encode(&Request::Lane);
        locked(&self.child).channel().send(&request, &[theirs.as_fd()])?;
        Ok(ours)
    }

    fn exchange(
        &self,
        request: &Request,
        fd: Option<BorrowedFd<'_>>,
    ) -> std::result::Result<(Value, Option<OwnedFd>), Errno> {
        let channel = self.channel()?;
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        channel.send(&encode(request), &fds)?;
        let (bytes, fds) = channel.recv(PATIENCE)?;
        // An empty message: the process is gone.
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| Errno::EPIPE)?;
        locked(&self.free).push(channel);
        let value = answer.map_err(Errno::from_raw)?;
        Ok((value, fds.into_iter().next()))
    }

    /// Makes a call whose answer is a value.
    fn call<T: DeserializeOwned>(&self, op: &'static str, request: &Request) -> Result<T> {
        let done = self.exchange(request, None);
        let (value, _) = done.map_err(|errno| Error::new(op, errno))?;
        serde_json::from_value(value).map_err(|_| Error::new(op, Errno::EPROTO))
    }

    /// Makes a call that hands a descriptor over.
    fn give<T: DeserializeOwned>(
        &self,
        op: &'static str,
        request: &Request,
        fd: BorrowedFd<'_>,
    ) -> Result<T> {
        let done = self.exchange(request, Some(fd));
        let (value, _) = done.map_err(|errno| Error::new(op, errno))?;
        serde_json::from_value(value).map_err(|_| Error::new(op, Errno::EPROTO))
    }

    /// Makes a call whose answer is a descriptor.
    fn take(&self, op: &'static str, request: &Request) -> Result<OwnedFd> {
        let done = self.exchange(request, None);
        let (_, fd) = done.map_err(|errno| Error::new(op, errno))?;
        fd.ok_or(Error::new(op, Errno::EPROTO))
    }
}

fn encode(request: &Request) -> Vec<u8> {
    serde_json::to_vec(request).expect("requests have string keys only")
}

impl RemoteClient {
    /// Forks a child that waits to be told to open the device. To be called before this process
    /// opens it, as the child would hold those files too.
    pub(super) fn fork(device: &dyn Device) -> std::result::Result<Self, Errno> {
        let child = Child::fork(|channel| serve(device, &channel))?;
        let stand_in = child.channel().as_fd().try_clone_to_owned();
        let stand_in = stand_in.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
        let link = Link { child: Mutex::new(child), free: Mutex::default() };
        Ok(Self { link: Arc::new(link), stand_in })
    }

    /// Has the child open the device.
    pub(super) fn open(&self, debug: bool) -> Result<()> {
        self.link.call("device.open", &Request::Open { debug })
    }

    /// Maps an object for the child's CPU.
    pub(super) fn map(&self, gem: Gem, size: u64) -> Result<Arc<dyn View>> {
        self.view("gem.map", &Request::MapGem { gem, size })
    }

    /// Memory of the child's own.
    pub(super) fn memory(&self, size: u64) -> Result<Arc<dyn View>> {
        self.view("memory.anon", &Request::MapMemory { size })
    }

    fn view(&self, op: &'static str, request: &Request) -> Result<Arc<dyn View>> {
        let (view, addr) = self.link.call(op, request)?;
        Ok(Arc::new(RemoteView { link: Arc::clone(&self.link), view, addr }))
    }

    /// Has the child end, which closes all it has.
    pub(super) fn close(&self) {
        let mut child = locked(&self.link.child);
        // A child that is gone already needs no farewell.
        let _ = child.channel().send(&encode(&Request::Exit), &[]);
        let _ = child.wait(FAREWELL);
    }

    /// Kills the child and reaps it.
    pub(super) fn kill(&self) -> std::result::Result<(), Errno> {
        let mut child = locked(&self.link.child);
        child.kill()?;
        child.wait(FAREWELL).map(drop)
    }
}

/// Memory that the child sees.
struct RemoteView {
    link: Arc<Link>,
    view: usize,
    addr: u64,
}

impl View for RemoteView {
    fn addr(&self) -> u64 {
        self.addr
    }

    fn load(&self, offset: u64, width: Width) -> Result<u64> {
        self.link.call("cpu.load", &Request::Load { view: self.view, offset, width })
    }

    fn store(&self, offset: u64, width: Width, value: u64) -> Result<()> {
        self.link.call("cpu.store", &Request::Store { view: self.view, offset, width, value })
    }

    fn atomic(&self, offset: u64, width: Width, op: AtomicOp, operand: u64) -> Result<u64> {
        let view = self.view;
        self.link.call("cpu.atomic", &Request::Atomic { view, offset, width, op, operand })
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        for (i, piece) in out.chunks_mut(PIECE).enumerate() {
            let (view, len) = (self.view, piece.len());
            let offset = offset + (i * PIECE) as u64;
            let bytes: Vec<u8> =
                self.link.call("cpu.read", &Request::Read { view, offset, len })?;
            piece.copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        for (i, piece) in bytes.chunks(PIECE).enumerate() {
            let (view, bytes) = (self.view, piece.to_vec());
            let offset = offset + (i * PIECE) as u64;
            let () = self.link.call("cpu.write", &Request::Write { view, offset, bytes })?;
        }
        Ok(())
    }

    fn fill(&self, offset: u64, bytes: u64, width: Width, value: u64) -> Result<()> {
        let view = self.view;
        self.link.call("cpu.fill", &Request::Fill { view, offset, bytes, width, value })
    }
}

struct RemoteSubmission {
    link: Arc<Link>,
    job: usize,
    over: OnceLock<dev::Completion>,
}

impl dev::Submission for RemoteSubmission {
    fn wait(&self, timeout: Duration) -> Result<dev::Completion> {
        if let Some(completion) = self.over.get() {
            return Ok(completion.clone());
        }
        let request = Request::Finish { job: self.job, timeout };
        let completion: dev::Completion = self.link.call("gpu.wait", &request)?;
        Ok(self.over.get_or_init(|| completion).clone())
    }

    fn poll(&self) -> Result<Option<dev::Completion>> {
        match self.wait(Duration::ZERO) {
            Ok(completion) => Ok(Some(completion)),
            Err(error) if error.errno == Errno::ETIME => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Client for RemoteClient {
    fn fd(&self) -> BorrowedFd<'_> {
        self.stand_in.as_fd()
    }

    fn gem_create(&self, spec: &dev::GemSpec) -> Result<Gem> {
        self.link.call("gem.create", &Request::GemCreate(*spec))
    }

    fn gem_close(&self, gem: Gem) -> Result<()> {
        self.link.call("gem.close", &Request::GemClose(gem))
    }

    fn gem_map(&self, _: Gem, _: u64, _: u64) -> Result<Window> {
        // A window would be this process's: see `map`.
        Err(Error::unsupported("gem.map"))
    }

    fn gem_info(&self, gem: Gem) -> Result<dev::GemInfo> {
        self.link.call("gem.info", &Request::GemInfo(gem))
    }

    fn gem_export(&self, gem: Gem) -> Result<OwnedFd> {
        self.link.take("prime.export", &Request::GemExport(gem))
    }

    fn gem_import(&self, fd: BorrowedFd<'_>) -> Result<Gem> {
        self.link.give("prime.import", &Request::GemImport, fd)
    }

    fn vm_create(&self, spec: &dev::VmSpec) -> Result<Vm> {
        self.link.call("vm.create", &Request::VmCreate(*spec))
    }

    fn vm_destroy(&self, vm: Vm) -> Result<()> {
        self.link.call("vm.destroy", &Request::VmDestroy(vm))
    }

    fn bind(&self, call: &dev::BindCall) -> Result<()> {
        self.link.call("vm.bind", &Request::Bind(call.clone()))
    }

    fn va_dump(&self, vm: Vm) -> Result<Vec<dev::Mapping>> {
        self.link.call("vm.va_dump", &Request::VaDump(vm))
    }

    fn faults(&self, vm: Vm, clear: bool) -> Result<dev::FaultLog> {
        self.link.call("vm.faults", &Request::Faults { vm, clear })
    }

    fn internal_window(&self, vm: Vm) -> Range<u64> {
        self.link.call("vm.window", &Request::Window(vm)).unwrap_or(0..0)
    }

    fn queue_create(&self, spec: &dev::QueueSpec) -> Result<Queue> {
        self.link.call("queue.create", &Request::QueueCreate(*spec))
    }

    fn queue_destroy(&self, queue: Queue) -> Result<()> {
        self.link.call("queue.destroy", &Request::QueueDestroy(queue))
    }

    fn queue_info(&self, queue: Queue) -> Result<dev::QueueInfo> {
        self.link.call("queue.info", &Request::QueueInfo(queue))
    }

    fn submit(&self, call: &dev::SubmitCall<'_>) -> Result<Box<dyn dev::Submission>> {
        let batch = |work: &Work<'_>| match *work {
            Work::Program(program) => Batch::Program(program.clone()),
            Work::At { addr, bytes } => Batch::At { addr, bytes },
        };
        let work = call.work.iter().map(batch).collect();
        let request = Request::Submit { queue: call.queue, work, syncs: call.syncs.clone() };
        let job = self.link.call("gpu.submit", &request)?;
        let link = Arc::clone(&self.link);
        Ok(Box::new(RemoteSubmission { link, job, over: OnceLock::new() }))
    }

    fn encode(&self, program: &Program) -> Result<Vec<u8>> {
        self.link.call("gpu.encode", &Request::Encode(program.clone()))
    }

    fn syncobj_create(&self, signalled: bool) -> Result<Syncobj> {
        self.link.call("syncobj.create", &Request::SyncobjCreate(signalled))
    }

    fn syncobj_destroy(&self, syncobj: Syncobj) -> Result<()> {
        self.link.call("syncobj.destroy", &Request::SyncobjDestroy(syncobj))
    }

    fn syncobj_wait(&self, wait: &dev::SyncobjWait<'_>) -> Result<u32> {
        let flags = [wait.all, wait.for_submit, wait.available];
        let (points, timeout) = (wait.points.to_vec(), wait.timeout);
        self.link.call("syncobj.wait", &Request::SyncobjWait { points, flags, timeout })
    }

    fn syncobj_reset(&self, syncobjs: &[Syncobj]) -> Result<()> {
        self.link.call("syncobj.reset", &Request::SyncobjReset(syncobjs.to_vec()))
    }

    fn syncobj_signal(&self, syncobjs: &[Syncobj]) -> Result<()> {
        self.link.call("syncobj.signal", &Request::SyncobjSignal(syncobjs.to_vec()))
    }

    fn timeline_signal(&self, points: &[(Syncobj, u64)]) -> Result<()> {
        self.link.call("timeline.signal", &Request::TimelineSignal(points.to_vec()))
    }

    fn timeline_query(&self, syncobjs: &[Syncobj], last_submitted: bool) -> Result<Vec<u64>> {
        let syncobjs = syncobjs.to_vec();
        self.link.call("timeline.query", &Request::TimelineQuery { syncobjs, last_submitted })
    }

    fn syncobj_transfer(&self, from: (Syncobj, u64), to: (Syncobj, u64)) -> Result<()> {
        self.link.call("syncobj.transfer", &Request::Transfer { from, to })
    }

    fn syncobj_export(&self, syncobj: Syncobj, form: dev::SyncForm) -> Result<OwnedFd> {
        self.link.take("syncobj.export", &Request::SyncobjExport { syncobj, form })
    }

    fn syncobj_import(&self, fd: BorrowedFd<'_>) -> Result<Syncobj> {
        self.link.give("syncobj.import", &Request::SyncobjImport, fd)
    }

    fn sync_file_import(&self, syncobj: Syncobj, fd: BorrowedFd<'_>) -> Result<()> {
        self.link.give("sync_file.import", &Request::SyncFileImport(syncobj), fd)
    }

    fn user_fence_wait(&self, wait: &dev::UserFenceWait) -> Result<()> {
        self.link.call("user_fence.wait", &Request::UserFence(*wait))
    }

    fn counters(&self) -> Result<BTreeMap<String, u64>> {
        self.link.call("device.counters", &Request::Counters)
    }

    fn regions(&self) -> Result<Vec<dev::RegionInfo>> {
        self.link.call("device.regions", &Request::Regions)
    }

    fn debug_open(&self) -> Result<()> {
        // Done by the child when it opens the device.
        Ok(())
    }

    fn inject(&self, kind: dev::Inject, nth: u64) -> Result<dev::InjectState> {
        self.link.call("debug.inject", &Request::Inject { kind, nth })
    }

    fn delay(&self, point: &str, action: dev::DelayAction) -> Result<dev::DelayState> {
        self.link.call("debug.delay", &Request::Delay { point: point.to_owned(), action })
    }

    fn evict(&self, gem: Option<Gem>) -> Result<u64> {
        self.link.call("debug.evict", &Request::Evict(gem))
    }
}

// ---- the child ---------------------------------------------------------------------------------

/// What the child has.
struct Server {
    client: Box<dyn Client>,
    views: Mutex<Vec<Window>>,
    jobs: Mutex<Vec<Arc<dyn dev::Submission>>>,
}

/// The child's life: opens connections, opens the device, ends when told to or left alone.
fn serve(device: &dyn Device, channel: &Channel) -> i32 {
    let server: OnceLock<Server> = OnceLock::new();
    let server = &server;
    std::thread::scope(|scope| {
        loop {
            let Ok((bytes, fds)) = channel.recv(PATIENCE) else { end() };
            match (serde_json::from_slice(&bytes), fds.into_iter().next()) {
                (Ok(Request::Lane), Some(fd)) => {
                    scope.spawn(move || lane(device, server, &Channel::from(fd)));
                }
                // Told to go, or the other side is gone.
                _ => end(),
            }
        }
    })
}

/// Ends the process: threads may be within calls that wait.
fn end() -> ! {
    fencepost_fixtures::sys::process::exit_now(0)
}

/// Serves one connection.
fn lane(device: &dyn Device, server: &OnceLock<Server>, channel: &Channel) {
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

fn open(device: &dyn Device, server: &OnceLock<Server>, debug: bool) -> Result<Value> {
    let client = device.open()?;
    if debug {
        client.debug_open()?;
    }
    let fresh = Server { client, views: Mutex::default(), jobs: Mutex::default() };
    // A second open would be a mistake of this module; the first one stays.
    let _ = server.set(fresh);
    Ok(Value::Null)
}

impl Server {
    fn view(&self, view: usize) -> Result<Window> {
        locked(&self.views).get(view).cloned().ok_or(Error::new("cpu", Errno::EFAULT))
    }

    fn add_view(&self, window: Window) -> Value {
        let mut views = locked(&self.views);
        let addr = window.addr();
        views.push(window);
        json!((views.len() - 1, addr))
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
                *out = Some(self.client.gem_export(gem)?);
                Ok(Value::Null)
            }
            Request::SyncobjExport { syncobj, form } => {
                *out = Some(self.client.syncobj_export(syncobj, form)?);
                Ok(Value::Null)
            }
            Request::Submit { queue, work, syncs } => self.submit(queue, &work, syncs),
            Request::Finish { job, timeout } => {
                let job = locked(&self.jobs).get(job).cloned();
                let job = job.ok_or(Error::new("gpu.wait", Errno::ENOENT))?;
                Ok(json!(job.wait(timeout)?))
            }
            other => self.plain(other),
        }
    }

    fn cpu(&self, request: Request) -> Result<Value> {
        Ok(match request {
            Request::Load { view, offset, width } => {
                json!(self.view(view)?.load_acquire(offset, width)?)
            }
            Request::Store { view, offset, width, value } => {
                json!(self.view(view)?.store_release(offset, width, value)?)
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
        Ok(match request {
            Request::GemImport => json!(self.client.gem_import(fd.as_fd())?),
            Request::SyncobjImport => json!(self.client.syncobj_import(fd.as_fd())?),
            Request::SyncFileImport(syncobj) => {
                json!(self.client.sync_file_import(*syncobj, fd.as_fd())?)
            }
            _ => return Err(Error::unsupported("import")),
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
        let job = self.client.submit(&dev::SubmitCall { queue, work, syncs })?;
        let mut jobs = locked(&self.jobs);
        jobs.push(Arc::from(job));
        Ok(json!(jobs.len() - 1))
    }

    fn plain(&self, request: Request) -> Result<Value> {
        let client = &*self.client;
        Ok(match request {
            Request::GemCreate(spec) => json!(client.gem_create(&spec)?),
            Request::GemClose(gem) => json!(client.gem_close(gem)?),
            Request::GemInfo(gem) => json!(client.gem_info(gem)?),
            Request::MapGem { gem, size } => self.add_view(client.gem_map(gem, 0, size)?),
            Request::MapMemory { size } => self.add_view(Window::anon(size)?),
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
            Request::Transfer { from, to } => json!(client.syncobj_transfer(from, to)?),
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
