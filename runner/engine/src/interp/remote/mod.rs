//! Clients in processes of their own: a forked child opens the device, or inherits an open file, and
//! makes every call; this process says which and keeps the oracle.
//!
//! A call is a message with a [`Request`] in JSON and at most one descriptor; the answer is a JSON
//! value or an errno. Each thread that calls has a connection to itself while it does, and the child a
//! thread for it, so that a call that waits holds nobody up.

mod request;
mod serve;

pub(crate) use self::serve::serve_on;

use self::request::{Answer, Batch, FAREWELL, PATIENCE, PIECE, Request, encode};
use self::serve::Server;
use super::view::View;
use fencepost_fixtures::Errno;
use fencepost_fixtures::area::{AreaSpec, MmCall, Reach};
use fencepost_fixtures::device as dev;
use fencepost_fixtures::device::{
    AtomicOp, Client, Device, Error, Gem, Program, Queue, Result, Syncobj, Vm, Width, Work,
};
use fencepost_fixtures::memory::Window;
use fencepost_fixtures::sys::message::Channel;
use fencepost_fixtures::sys::process::{self, Child, Ended, Forked, Start};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

/// A client in another process.
pub(super) struct RemoteClient {
    link: Arc<Link>,
    /// Stands in for the open file, which is the child's: nobody polls a client.
    stand_in: OwnedFd,
}

/// Taken alone to fork, and beside others while a connection's far end is open in this process: no
/// other child may inherit that, or the death of its owner would go unnoticed.
static FORKING: RwLock<()> = RwLock::new(());

/// The connections to a child.
struct Link {
    child: Mutex<Child>,
    free: Mutex<Vec<Channel>>,
    /// How many programs the child has run.
    programs: AtomicUsize,
}

/// Views and jobs that one program of a child may have.
const NUMBERS: usize = 1 << 20;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Link {
    /// A connection that nobody else uses.
    fn channel(&self) -> std::result::Result<Channel, Errno> {
        if let Some(channel) = locked(&self.free).pop() {
            return Ok(channel);
        }
        let _open = FORKING.read().unwrap_or_else(PoisonError::into_inner);
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

impl RemoteClient {
    /// Forks a child that waits to be told to open the device. To be called before this process
    /// opens it, as the child would hold those files too.
    pub(super) fn fork(device: &dyn Device) -> std::result::Result<Self, Errno> {
        let child = {
            let _alone = FORKING.write().unwrap_or_else(PoisonError::into_inner);
            Child::fork(|channel| serve::serve(Some(device), &channel, OnceLock::new()))?
        };
        Self::new(child)
    }

    /// Forks a child that has a client's open file, and memory as this process sees it: the views are
    /// given back as the child's.
    pub(super) fn inherit(
        client: &(dyn Client + 'static),
        views: Vec<Arc<dyn View>>,
    ) -> std::result::Result<(Self, Vec<Arc<dyn View>>), Errno> {
        let mut side = None;
        client.at_rest(&mut || {
            let _alone = FORKING.write().unwrap_or_else(PoisonError::into_inner);
            side = Some(process::split());
        });
        let child = match side.unwrap_or(Err(Errno::EAGAIN))? {
            Forked::Child(channel) => process::serve(|| {
                let server = OnceLock::from(Server::inherited(client, views));
                serve::serve(None, &channel, server)
            }),
            Forked::Parent(child) => child,
        };
        let remote = Self::new(child)?;
        let theirs = views.iter().enumerate().map(|(view, ours)| {
            let (link, addr) = (Arc::clone(&remote.link), ours.addr());
            Arc::new(RemoteView { link, view, addr }) as Arc<dyn View>
        });
        let theirs = theirs.collect();
        Ok((remote, theirs))
    }

    fn new(child: Child) -> std::result::Result<Self, Errno> {
        let stand_in = child.channel().as_fd().try_clone_to_owned();
        let stand_in = stand_in.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
        let (child, free) = (Mutex::new(child), Mutex::default());
        let link = Link { child, free, programs: AtomicUsize::new(1) };
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

    /// Memory of the child's own; gives its address.
    pub(super) fn area(&self, spec: &AreaSpec) -> Result<u64> {
        self.link.call("memory.area", &Request::Area(*spec))
    }

    /// Accesses to addresses of the child.
    pub(super) fn reach(&self, reach: Reach) -> Result<Arc<dyn View>> {
        self.view("memory.reach", &Request::Reach(reach))
    }

    /// Has the child change its memory.
    pub(super) fn mm(&self, call: &MmCall) -> Result<u64> {
        self.link.call("mm", &Request::Mm(*call))
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

    /// Has the child run another program, which keeps the open file and has nothing else of what was there:
    /// no memory, no submission. Nobody may be making a call.
    pub(super) fn again(&self) -> std::result::Result<(), Errno> {
        let child = locked(&self.link.child);
        locked(&self.link.free).clear();
        let first = NUMBERS * self.link.programs.fetch_add(1, Ordering::SeqCst);
        child.channel().send(&encode(&Request::Again { first }), &[])?;
        let (bytes, _) = child.channel().recv(FAREWELL)?;
        // An empty message: the process is gone.
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| Errno::ENOEXEC)?;
        answer.map(drop).map_err(Errno::from_raw)
    }

    /// The same child, for somebody else to hold.
    pub(super) fn share(&self) -> std::result::Result<Self, Errno> {
        let stand_in = self.stand_in.try_clone();
        let stand_in = stand_in.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
        Ok(Self { link: Arc::clone(&self.link), stand_in })
    }

    /// Has the child run a program in a process of its own, and wait for its end.
    pub(super) fn spawn(&self, start: Start) -> Result<()> {
        self.link.call("process.spawn", &Request::Spawn(start))
    }

    /// Moves the child into a control group. To be called before it opens the device.
    pub(super) fn join(&self, group: &dev::kernel::cgroup::Group) -> Result<()> {
        group.add(locked(&self.link.child).pid())
    }

    /// Waits until a thread of the child sleeps inside an ioctl.
    pub(super) fn wait_blocked(&self, timeout: Duration) -> std::result::Result<(), Errno> {
        // The child's lock is not held meanwhile: whoever begins a call needs it.
        let pid = locked(&self.link.child).pid();
        process::wait_blocked(pid, timeout)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        locked(&self.link.child).pid()
    }

    /// Has the child close its file of the device, and go on.
    pub(super) fn close_file(&self) -> Result<()> {
        self.link.call("device.close", &Request::Close)
    }

    /// Has the child die by a signal of which the kernel makes a core dump, and reaps it.
    pub(super) fn crash(&self) -> std::result::Result<(), Errno> {
        let allowed: Result<()> = self.link.call("process.dump", &Request::AllowDump);
        allowed.map_err(|error| error.errno)?;
        let mut child = locked(&self.link.child);
        child.abort()?;
        match child.wait(PATIENCE)? {
            Ended::Signal(_) => Ok(()),
            _ => Err(Errno::ECHILD),
        }
    }

    /// Kills the child and reaps it.
    pub(super) fn kill(&self) -> std::result::Result<(), Errno> {
        let mut child = locked(&self.link.child);
        child.kill()?;
        child.wait(FAREWELL).map(drop)
    }
}

/// Runs a program in a child of this process, and waits for its end.
pub(super) fn spawn_here(start: Start) -> std::result::Result<(), Errno> {
    let _alone = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    crate::worker::spawn(start)
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

    fn recall_vm(&self, vm: Vm, spec: &dev::VmSpec) {
        // Whoever needs what was not recalled, and finds it missing, says so.
        let _told: Result<()> = self.link.call("recall", &Request::RecallVm(vm, *spec));
    }

    fn recall_queue(&self, queue: Queue, spec: &dev::QueueSpec) {
        let _told: Result<()> = self.link.call("recall", &Request::RecallQueue(queue, *spec));
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

    fn syncobj_transfer(
        &self,
        from: (Syncobj, u64),
        to: (Syncobj, u64),
        for_submit: bool,
    ) -> Result<()> {
        self.link.call("syncobj.transfer", &Request::Transfer { from, to, for_submit })
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

    fn svm_migrate(&self, migrate: &dev::SvmMigrate) -> Result<u64> {
        self.link.call("svm.migrate", &Request::SvmMigrate(*migrate))
    }

    fn svm_exclusive(&self, range: dev::SvmRange) -> Result<u64> {
        self.link.call("svm.exclusive", &Request::SvmExclusive(range))
    }

    fn svm_query(&self, range: dev::SvmRange) -> Result<Vec<dev::SvmPage>> {
        // As many as one answer has room for.
        const PART: u64 = 64 * 4096;
        let mut pages = Vec::new();
        for addr in (range.addr..range.addr + range.len).step_by(PART as usize) {
            let len = PART.min(range.addr + range.len - addr);
            let part = Request::SvmQuery(dev::SvmRange { addr, len, ..range });
            let told: Vec<dev::SvmPage> = self.link.call("svm.query", &part)?;
            pages.extend(told);
        }
        Ok(pages)
    }

    fn svm_set(&self, range: dev::SvmRange, change: &dev::SvmChange) -> Result<()> {
        self.link.call("svm.set", &Request::SvmSet(range, *change))
    }

    fn svm_attributes(&self, range: dev::SvmRange) -> Result<dev::SvmAttributes> {
        self.link.call("svm.attributes", &Request::SvmAttributes(range))
    }

    fn svm_tune(&self, tune: &dev::SvmTune) -> Result<()> {
        self.link.call("svm.tune", &Request::SvmTune(*tune))
    }

    fn svm_faults(&self, action: dev::SvmFaultAction) -> Result<dev::SvmFaultState> {
        self.link.call("svm.faults", &Request::SvmFaults(action))
    }

    fn svm_evict(&self) -> Result<u64> {
        self.link.call("svm.evict", &Request::SvmEvict)
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
