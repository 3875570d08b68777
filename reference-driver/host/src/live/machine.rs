//! One device at work: trapped calls in, calls of the driver out. Owns the driver, the open nodes, the
//! worker threads, and the rule that a panic of the driver ends the device, not the runner.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use fencepost_core::driver::{Driver, File, Mapping, Step, Worker};
use fencepost_core::host::Host;
use fencepost_core::host::mirror::Invalidation;
use fencepost_uapi::fencepost::{COUNTERS, EXEC, GEM_CREATE, QUERY, VM_BIND};
use fencepost_uapi::{Errno, ioctl};
use nix::fcntl::OFlag;

use super::Config;
use super::dmirror::{Dmirrors, NODES};
use super::files::{Identity, Made, What};
use super::guard::guard;
use super::mm::Spaces;
use super::mm::cpu_fault::CpuFault;
use super::mm::home::Sink;
use super::reaper::{self, Owner};
use super::serve::{Port, Service};
use super::spawn::Child;
use super::sys::client;
use super::sys::notify::{Answer, Call};
use super::sys::number::{ARCH, Flags, Open};
use super::world::{Task, World, errno, within};
use super::{maps, sync_file};

/// Memory of destroyed objects that is kept before all processes are asked who has it mapped.
const KEEP_BYTES: u64 = 256 << 20;
/// Memory that may be mapped before clients are asked what of all that is mapped still is.
const MAPPED_BYTES: u64 = 1 << 20;
/// Pauses of a worker that waits for memory to change, shortest and longest.
const STALL: [Duration; 2] = [Duration::from_micros(20), Duration::from_millis(1)];
/// Stack of a worker in bytes.
const STACK: usize = 512 << 10;

/// An open node.
struct Node {
    file: File<World>,
    /// CPU mappings made through it, by object memory.
    mappings: HashMap<u64, Mapping<World>>,
}

/// One device.
pub(crate) struct Machine {
    driver: Driver<World>,
    dmirrors: Dmirrors,
    nodes: Mutex<BTreeMap<u64, Node>>,
    paths: Vec<Vec<u8>>,
    engines: u32,
    workers: Mutex<Workers>,
    started: OnceLock<()>,
    faults: OnceLock<()>,
    watched: OnceLock<Result<(), Errno>>,
    /// Bytes mapped since clients were last asked.
    mapped_bytes: AtomicU64,
    /// Processes that were spawned.
    roots: Mutex<Vec<i32>>,
    /// Something was closed a short while ago.
    recent: AtomicBool,
    /// Held while closed descriptions are looked for and released.
    collecting: Mutex<()>,
    panic: OnceLock<String>,
    this: Weak<Machine>,
}

#[derive(Default)]
struct Workers {
    bind: Option<JoinHandle<()>>,
    /// Services faults of the GPU, once there is an address space.
    faults: Option<JoinHandle<()>>,
    engines: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// Starts a device.
    pub(crate) fn new(config: &Config) -> Result<Arc<Machine>, Errno> {
        let spaces = config.mirror.map(|backend| Arc::new(Spaces::new(backend)));
        let dmirrors = Dmirrors::new(spaces.clone());
        let world = World::new(config.driver.vram_bytes, 0, spaces).map_err(errno)?;
        let driver = Driver::new(world, config.driver)?;
        let paths = config.nodes.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
        let machine = Arc::new_cyclic(|this| Machine {
            driver,
            dmirrors,
            nodes: Mutex::default(),
            paths,
            engines: config.driver.engines,
            workers: Mutex::default(),
            started: OnceLock::new(),
            faults: OnceLock::new(),
            watched: OnceLock::new(),
            mapped_bytes: AtomicU64::new(0),
            roots: Mutex::default(),
            recent: AtomicBool::new(false),
            collecting: Mutex::default(),
            panic: OnceLock::new(),
            this: Weak::clone(this),
        });
        let sink: Weak<dyn Sink> = Arc::<Machine>::downgrade(&machine);
        machine.world().home.connect(sink);
        Ok(machine)
    }

    fn world(&self) -> &World {
        self.driver.host()
    }

    /// Starts a process and remembers it. It may map memory before it is remembered, so whoever
    /// asks what is mapped waits meanwhile.
    pub(crate) fn add_root(&self, spawn: impl FnOnce() -> io::Result<Child>) -> io::Result<Child> {
        let mut roots = lock(&self.roots);
        let child = spawn()?;
        roots.push(child.id().cast_signed());
        Ok(child)
    }

    /// What the driver's panic said, if it panicked.
    pub(crate) fn panicked(&self) -> Option<&str> {
        self.panic.get().map(String::as_str)
    }

    /// Calls the driver; its panic ends the device.
    fn call<R>(&self, f: impl FnOnce(&Driver<World>) -> R) -> Result<R, Errno> {
        if self.panic.get().is_some() {
            return Err(Errno::NODEV);
        }
        guard(|| f(&self.driver)).map_err(|said| {
            // The first panic counts; what follows on other threads is its consequence.
            let _later = self.panic.set(said);
            self.end();
            Errno::NODEV
        })
    }

    /// Makes the driver panic, for tests of what follows.
    pub(crate) fn break_driver(&self, message: &str) {
        let _dead: Result<(), Errno> = self.call(|_| panic!("{message}"));
    }

    /// Ends all waits and workers.
    pub(crate) fn end(&self) {
        self.world().over.store(true, Ordering::SeqCst);
        self.world().events.wake();
    }

    // ---- trapped calls -------------------------------------------------------------------------

    fn open(&self, port: &Arc<Port>, call: &Call, open: Open) -> Answer {
        let mut room = [0; 64];
        let nodes = self.paths.iter().map(Vec::as_slice).chain(NODES);
        let longest = nodes.map(<[u8]>::len).max().unwrap_or(0);
        let room = &mut room[..(longest + 1).min(64)];
        let path = client::read_str(client::way(), call.tid, call.args[open.path], room);
        let Some(path) = path.map(|len| &room[..len]) else { return Answer::Continue };
        let dmirror = NODES.iter().position(|node| *node == path);
        if dmirror.is_none() && !self.paths.iter().any(|node| node == path) {
            return Answer::Continue;
        }
        let flags = match open.flags {
            Flags::Arg(index) => call.args[index],
            Flags::How(index) => {
                let mut word = [0; 8];
                let at = call.args[index];
                match client::read(client::way(), call.tid, at, &mut word) {
                    Ok(()) => u64::from_ne_bytes(word),
                    Err(errno) => return Answer::Error(errno as i32),
                }
            }
        };
        let flags = OFlag::from_bits_retain(flags as i32);
        let made = match dmirror {
            Some(node) => self.open_dmirror(port, call, node, flags),
            None => self.open_node(flags),
        };
        match made {
            Ok(made) => self.hand_over(port, call, made, flags.contains(OFlag::O_CLOEXEC)),
            Err(errno) => Answer::Error(errno.0),
        }
    }

    /// Opens the device, as `open(2)` of a character device with these flags.
    fn open_node(&self, flags: OFlag) -> Result<Made, Errno> {
        if flags.contains(OFlag::O_DIRECTORY) {
            return Err(Errno(libc::ENOTDIR));
        }
        if flags.contains(OFlag::O_CREAT | OFlag::O_EXCL) {
            return Err(Errno::EXIST);
        }
        self.watch()?;
        self.catch_up(0);
        let file = self.call(Driver::open)??;
        match self.world().files.create(What::Node, flags) {
            Ok(made) => {
                let node = Node { file, mappings: HashMap::new() };
                lock(&self.nodes).insert(made.number, node);
                Ok(made)
            }
            Err(error) => {
                self.call(|driver| driver.close(&file))?;
                Err(errno(error))
            }
        }
    }

    /// Opens a device of the dmirror personality.
    fn open_dmirror(
        &self,
        port: &Arc<Port>,
        call: &Call,
        node: usize,
        flags: OFlag,
    ) -> Result<Made, Errno> {
        self.watch()?;
        self.catch_up(0);
        let task = Task { tid: call.tid, serial: 0 };
        let opened = within(port, call.id, call.tid, || self.dmirrors.open(node, task))?;
        match self.world().files.create(What::Dmirror, flags) {
            Ok(made) => {
                self.dmirrors.enter(made.number, opened);
                Ok(made)
            }
            Err(error) => {
                opened.discard();
                Err(errno(error))
            }
        }
    }

    /// Has the end of descriptions noticed.
    fn watch(&self) -> Result<(), Errno> {
        let watch = || reaper::watch(self.world().files.path(), self.this.clone());
        *self.watched.get_or_init(|| watch().map_err(errno))
    }

    /// Gives a new node to the caller.
    fn hand_over(&self, port: &Port, call: &Call, made: Made, cloexec: bool) -> Answer {
        match port.listener.install(call.id, made.fd.as_fd(), cloexec) {
            // Our copy is closed before the caller goes on, so that the caller's close is the last.
            Ok(fd) => {
                drop(made);
                Answer::Value(fd.into())
            }
            Err(code) => {
                let (number, what) = (made.number, made.what);
                self.world().files.discard(what, made);
                self.release(number, what);
                Answer::Error(code)
            }
        }
    }

    fn ioctl(&self, port: &Arc<Port>, call: &Call) -> Answer {
        let (fd, request, arg) = (call.args[0] as i32, call.args[1] as u32, call.args[2]);
        let world = self.world();
        if fd == -1 {
            return self.world().agents_call(port, call);
        }
        // What is not of this device, or not open, is the kernel's to answer.
        let Ok(Some(identity)) = world.files.identify(&world.threads, call.tid, fd) else {
            return Answer::Continue;
        };
        let result = match identity.what {
            What::Node if ioctl::kind(request) == ioctl::DRM_TYPE => {
                self.node_ioctl(port, call, identity)
            }
            What::Object(kind, id) => {
                let task = Task { tid: call.tid, serial: identity.serial };
                within(port, call.id, call.tid, || {
                    sync_file::ioctl(world, task, kind, id, request, arg)
                })
            }
            What::Dmirror => {
                let task = Task { tid: call.tid, serial: identity.serial };
                within(port, call.id, call.tid, || {
                    self.dmirrors.ioctl(identity.number, task, request, arg)
                })
            }
            What::Node => Err(Errno::NOTTY),
        };
        match result {
            Ok(value) => Answer::Value(value),
            Err(errno) => Answer::Error(errno.0),
        }
    }

    fn node_ioctl(&self, port: &Arc<Port>, call: &Call, identity: Identity) -> Result<i64, Errno> {
        let (request, arg) = (call.args[1] as u32, call.args[2]);
        let is = |other: u32| ioctl::nr(request) == ioctl::nr(other);
        let world = self.world();
        // The caller may have closed something before, if it had more.
        self.catch_up(1);
        // What counters tell, and how much memory is free, depends on what is still mapped.
        let mapped = || self.mapped_bytes.load(Ordering::Relaxed) >= MAPPED_BYTES;
        if is(QUERY) || (is(GEM_CREATE) && mapped()) {
            self.forget_unmapped();
        }
        if is(VM_BIND) || is(EXEC) {
            self.start_workers(is(EXEC));
        }
        let file = lock(&self.nodes).get(&identity.number).map(|node| node.file.clone());
        let file = file.ok_or(Errno::NODEV)?;
        let task = Task { tid: call.tid, serial: identity.serial };
        let result = within(port, call.id, call.tid, || {
            self.call(|driver| driver.ioctl(&file, task, request, arg))
        });
        if world.kept_bytes() > KEEP_BYTES {
            self.give_back();
        }
        result?
    }

    fn mmap(&self, call: &Call) -> Answer {
        let [_, len, _, flags, fd, offset] = call.args;
        let world = self.world();
        let Ok(Some(identity)) = world.files.identify(&world.threads, call.tid, fd as i32) else {
            return Answer::Continue;
        };
        match identity.what {
            What::Node => match self.map_object(identity.number, len, flags as i32, offset) {
                Ok(()) => Answer::Continue,
                Err(errno) => Answer::Error(errno.0),
            },
            // Neither a dma-buf of ours nor a syncobj can be mapped.
            What::Dmirror | What::Object(..) => Answer::Error(libc::EINVAL),
        }
    }

    /// Allows the mapping, and keeps the object's memory for it.
    fn map_object(&self, number: u64, len: u64, flags: i32, offset: u64) -> Result<(), Errno> {
        let len = len.checked_next_multiple_of(super::arena::PAGE).ok_or(Errno::NOMEM)?;
        if len == 0 || flags & libc::MAP_TYPE == libc::MAP_PRIVATE {
            return Err(Errno::INVAL);
        }
        let file = lock(&self.nodes).get(&number).map(|node| node.file.clone());
        let file = file.ok_or(Errno::NODEV)?;
        let mut mapping = self.call(|driver| driver.mmap(&file, offset, len))?;
        if mapping.as_ref().err() == Some(&Errno::ACCES) {
            // The object may be there only because we do not know yet that it was unmapped.
            self.forget_unmapped();
            mapping = self.call(|driver| driver.mmap(&file, offset, len))?;
        }
        let mapping = mapping?;
        self.world().note_mapped(mapping.mem);
        self.mapped_bytes.fetch_add(mapping.size, Ordering::Relaxed);
        let replaced = lock(&self.nodes)
            .get_mut(&number)
            .map(|node| node.mappings.insert(mapping.mem.0, mapping));
        // The end of a mapping is the driver's work: not under our lock.
        self.call(move |_| {
            let _replaced = replaced;
        })
    }

    // ---- ends ----------------------------------------------------------------------------------

    /// Looks after everything that was closed so far. The caller holds `own` descriptions itself.
    fn catch_up(&self, own: usize) {
        let files = &self.world().files;
        // What others have found is no longer among the files, but they may still be at it.
        let busy = || self.collecting.try_lock().is_err();
        // An event is either unread or noted: in this order none is missed.
        let closed = || reaper::is_pending() || self.recent.load(Ordering::SeqCst);
        if (files.len() > own && (files.has_silent() || closed())) || busy() {
            self.collect();
        }
    }

    /// A description is gone.
    fn release(&self, number: u64, what: What) {
        match what {
            What::Node => {
                let Some(node) = lock(&self.nodes).remove(&number) else { return };
                // A dead device has nothing to release.
                let _dead = self.call(|driver| {
                    driver.close(&node.file);
                    drop(node);
                });
                if lock(&self.nodes).is_empty() {
                    self.world().give_back(|_, _| false);
                }
            }
            What::Dmirror => self.dmirrors.release(number),
            What::Object(kind, id) => {
                let _dead = self.call(|driver| driver.release_fd(kind, id));
            }
        }
    }

    /// Drops the mappings that no client has any more.
    fn forget_unmapped(&self) {
        if lock(&self.nodes).values().all(|node| node.mappings.is_empty()) {
            return;
        }
        self.mapped_bytes.store(0, Ordering::Relaxed);
        let Some(inode) = self.inode() else { return };
        let mapped = maps::of_trees(&lock(&self.roots), inode);
        let mut gone = Vec::new();
        for node in lock(&self.nodes).values_mut() {
            let unused = node.mappings.extract_if(|_, map| !mapped.overlaps(map.mem.0, map.size));
            gone.extend(unused);
        }
        let _dead = self.call(move |_| gone.clear());
    }

    /// Gives back memory of destroyed objects that nobody has mapped.
    fn give_back(&self) {
        let Some(inode) = self.inode() else { return };
        let mapped = maps::of_everybody(inode);
        self.world().give_back(|offset, size| mapped.overlaps(offset, size));
    }

    fn inode(&self) -> Option<u64> {
        let stat = nix::sys::stat::fstat(self.world().arena.memfd()).ok()?;
        Some(stat.st_ino)
    }

    /// Number of descriptions that clients still hold.
    pub(crate) fn open_descriptions(&self) -> usize {
        self.world().files.len()
    }

    /// Processes that made calls and still exist.
    pub(crate) fn clients(&self) -> BTreeSet<i32> {
        self.world().threads.processes()
    }

    /// The driver's counters; `None` once it panicked.
    pub(crate) fn counters(&self) -> Option<[u64; COUNTERS.len()]> {
        self.collect();
        self.forget_unmapped();
        self.call(Driver::counters).ok()
    }

    /// Sleeps until the driver has done something, or for `limit`.
    pub(crate) fn pause(&self, limit: Duration) {
        let events = &self.world().events;
        events.sleep(events.now(), Some(limit));
    }

    // ---- workers -------------------------------------------------------------------------------

    fn start_workers(&self, engines: bool) {
        let mirrored = || self.world().spaces.as_ref().is_some_and(|spaces| !spaces.is_empty());
        let faults = self.faults.get().is_none() && mirrored();
        if self.started.get().is_some() && !faults {
            return;
        }
        let mut workers = lock(&self.workers);
        if faults && workers.faults.is_none() {
            // Apart from the others, since it waits for pages.
            workers.faults = self.start("faults".to_owned(), vec![Worker::Fault]);
            let _once = self.faults.set(());
        }
        if workers.bind.is_none() {
            let others = Worker::COMMON.into_iter().filter(|worker| *worker != Worker::Fault);
            workers.bind = self.start("bind".to_owned(), others.collect());
        }
        if engines && workers.engines.is_empty() {
            let start =
                |engine| self.start(format!("engine{engine}"), vec![Worker::Engine(engine)]);
            workers.engines = (0..self.engines).filter_map(start).collect();
            let _once = self.started.set(());
        }
    }

    fn start(&self, name: String, workers: Vec<Worker>) -> Option<JoinHandle<()>> {
        let machine = self.this.upgrade()?;
        let thread = std::thread::Builder::new().name(name).stack_size(STACK);
        thread.spawn(move || machine.work(&workers)).ok()
    }

    /// A thread's life: it serves its workers in turn, each of them while there is work.
    fn work(&self, workers: &[Worker]) {
        let events = &self.world().events;
        let mut pause = STALL[0];
        while !self.world().over.load(Ordering::SeqCst) {
            let seen = events.now();
            match self.call(|driver| step(driver, workers)) {
                Ok(Step::Worked) => pause = STALL[0],
                Ok(Step::Idle) => {
                    pause = STALL[0];
                    events.sleep(seen, None);
                }
                Ok(Step::Stalled { until_ns }) => {
                    let left = until_ns.saturating_sub(self.world().now_ns());
                    events.sleep(seen, Some(pause.min(Duration::from_nanos(left))));
                    pause = (pause * 2).min(STALL[1]);
                }
                Err(_) => return,
            }
        }
    }

    /// Waits for the workers, after [`Machine::end`].
    pub(crate) fn join(&self) {
        if let Some(spaces) = &self.world().spaces {
            spaces.stop();
        }
        let Workers { bind, faults, engines } = std::mem::take(&mut *lock(&self.workers));
        for worker in bind.into_iter().chain(faults).chain(engines) {
            // Panics of the driver were caught inside.
            let _ended = worker.join();
        }
    }
}

impl Service for Machine {
    fn serve(&self, port: &Arc<Port>, call: &Call) -> Answer {
        if call.nr == ARCH.ioctl {
            return self.ioctl(port, call);
        }
        if call.nr == ARCH.mmap {
            let flags = call.args[3];
            let file = flags & libc::MAP_ANONYMOUS as u64 == 0;
            let answer = if file { self.mmap(call) } else { Answer::Continue };
            let replaces = flags & libc::MAP_FIXED as u64 != 0 && answer == Answer::Continue;
            return if replaces { self.world().change(call) } else { answer };
        }
        match ARCH.opens.iter().find(|open| open.nr == call.nr) {
            Some(open) => self.open(port, call, *open),
            None => self.world().change(call),
        }
    }

    fn may_block(&self, call: &Call) -> bool {
        let opens = ARCH.opens.iter().any(|open| open.nr == call.nr);
        let mirrored = || self.world().spaces.as_ref().is_some_and(|spaces| !spaces.is_empty());
        // An open waits for forks of this process, and what starts a process may have mapped memory whose
        // end it waits for here.
        call.nr == ARCH.ioctl || (opens && self.mirrors()) || (!opens && mirrored())
    }

    fn mirrors(&self) -> bool {
        self.world().spaces.is_some()
    }
}

impl Owner for Machine {
    fn collect(&self) {
        // Held to the end: who comes meanwhile must find everything done.
        let _collecting = lock(&self.collecting);
        let files = &self.world().files;
        for (number, what) in files.take_closed(self.world().arena.memfd()) {
            self.release(number, what);
        }
    }

    fn note(&self, recent: bool) {
        self.recent.store(recent, Ordering::SeqCst);
    }
}

impl Sink for Machine {
    fn invalidate(
        &self,
        cookie: u64,
        invalidation: &Invalidation,
        set_seq: &mut dyn FnMut(),
    ) -> bool {
        // One that has died reads no more.
        self.call(|driver| driver.invalidate(cookie, invalidation, set_seq)).unwrap_or(true)
    }

    fn cpu_fault(&self, fault: &mut CpuFault, addr: u64, frame: u64) -> Result<(), Errno> {
        self.call(|driver| driver.cpu_fault(fault, addr, frame))?
    }

    fn wake(&self) {
        self.world().events.wake();
    }
}

/// Steps several workers; the busiest answer counts.
fn step(driver: &Driver<World>, workers: &[Worker]) -> Step {
    let mut all = Step::Idle;
    for worker in workers {
        all = match (driver.step(*worker), all) {
            (Step::Worked, _) | (_, Step::Worked) => Step::Worked,
            (Step::Stalled { until_ns: one }, Step::Stalled { until_ns: other }) => {
                Step::Stalled { until_ns: one.min(other) }
            }
            (Step::Idle, before) => before,
            (stalled, Step::Idle) => stalled,
        };
    }
    all
}
