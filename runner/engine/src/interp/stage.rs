//! What all actors of a test share: the device's objects by their names, the oracle, what was found
//! wrong. Owns naming and life time; what steps do is in the modules beside.

use super::process::Process;
use super::remote::RemoteClient;
use super::rendezvous::Rendezvous;
use super::report::{Label, Labels};
use super::view::{ClientHandle, View};
use crate::lang::ast::{Pattern, QueueClass, Test};
use crate::oracle::fences::Fence;
use crate::oracle::{JobId, MmId, Model, Object, Origin, Source, SpaceId, SyncId};
use fencepost_fixtures::area::Protection;
use fencepost_fixtures::device::{self as dev, Device, Program};
use fencepost_results::{Failure, Report};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};
use std::time::Instant;

/// Objects of one kind by name.
pub(super) type Named<T> = RwLock<BTreeMap<String, Arc<T>>>;

/// An open file.
pub(super) struct ClientObject {
    pub(super) name: String,
    pub(super) handle: ClientHandle,
    /// A file of another device than the one under test.
    pub(super) beside: bool,
    /// The oracle's number of its process's address space.
    pub(super) mm: MmId,
    pub(super) closed: AtomicBool,
}

/// CPU memory at addresses of its own.
pub(super) struct AreaObject {
    pub(super) addr: u64,
    /// The address space of the process that made it.
    pub(super) mm: MmId,
    pub(super) kind: fencepost_fixtures::area::Kind,
    /// Permissions at first.
    pub(super) access: Protection,
    /// Keeps it mapped, if it is this process's.
    #[expect(dead_code, reason = "its end unmaps the area")]
    pub(super) area: Option<fencepost_fixtures::area::Area>,
    /// Its first content was put into the file behind it.
    pub(super) by_file: bool,
}

/// Memory.
pub(super) struct MemoryObject {
    pub(super) name: String,
    /// Place in the test's list: names its unique pattern.
    pub(super) index: usize,
    pub(super) client: String,
    pub(super) size: u64,
    pub(super) pattern: Source,
    /// Whether the initial content must be written (zeros come from the device).
    pub(super) written: bool,
    pub(super) gem: Option<dev::Gem>,
    pub(super) home: Option<(String, u64)>,
    pub(super) object: Object,
    pub(super) area: Option<AreaObject>,
    pub(super) view: OnceLock<Arc<dyn View>>,
}

/// A GPU address space.
pub(super) struct VmObject {
    pub(super) name: String,
    pub(super) client: String,
    pub(super) vm: dev::Vm,
    pub(super) spec: dev::VmSpec,
    pub(super) end: u64,
    pub(super) space: SpaceId,
    /// The address space that its mirrors show.
    pub(super) mm: MmId,
    /// It mirrors all addresses of the CPU.
    pub(super) mirror: bool,
    /// The oracle's number of the VM's default bind queue.
    pub(super) bind_queue: u32,
    /// A queue of the interpreter's own to read memory by.
    pub(super) probe: Mutex<Option<Arc<QueueObject>>>,
    /// Faults recorded when the counters were read.
    pub(super) faults_before: AtomicU64,
}

/// A queue.
pub(super) struct QueueObject {
    pub(super) name: String,
    pub(super) vm: String,
    pub(super) client: String,
    pub(super) queue: dev::Queue,
    pub(super) spec: dev::QueueSpec,
    pub(super) class: QueueClass,
    /// The oracle's number.
    pub(super) number: u32,
    /// Submissions accepted so far.
    pub(super) submitted: AtomicU64,
    /// How many of these went with the program that had made them: nobody can wait for them.
    pub(super) cut: AtomicU64,
    /// Actors that have submitted to it: with several, numbers of jobs are not known.
    pub(super) users: Mutex<Vec<u16>>,
    /// It was destroyed, or its client closed.
    pub(super) gone: AtomicBool,
}

/// A syncobj.
pub(super) struct SyncobjObject {
    pub(super) name: String,
    pub(super) client: String,
    pub(super) handle: dev::Syncobj,
    pub(super) id: SyncId,
}

/// A file descriptor.
pub(super) struct FdObject {
    pub(super) fd: OwnedFd,
    pub(super) carries: Carries,
}

/// What a descriptor stands for.
#[derive(Clone)]
pub(super) enum Carries {
    /// An object of memory.
    Memory(Arc<MemoryObject>),
    /// A syncobj.
    Syncobj(SyncId),
    /// A fence.
    SyncFile(Fence),
}

/// A submission.
pub(super) struct JobObject {
    pub(super) id: JobId,
    pub(super) queue: Arc<QueueObject>,
    /// The job's number on its queue, if that is known.
    pub(super) number: u64,
    pub(super) submission: Box<dyn dev::Submission>,
    pub(super) reads: Vec<super::gpu::Read>,
    pub(super) origin: Origin,
    pub(super) started: Instant,
    pub(super) finished: AtomicBool,
}

impl JobObject {
    /// Whether nobody can wait for it: its queue is gone, or the program that had made it.
    pub(super) fn is_lost(&self) -> bool {
        self.queue.gone.load(Ordering::SeqCst)
            || self.number <= self.queue.cut.load(Ordering::SeqCst)
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Names {
    pub(super) clients: Named<ClientObject>,
    pub(super) memory: Named<MemoryObject>,
    pub(super) vms: Named<VmObject>,
    pub(super) queues: Named<QueueObject>,
    pub(super) syncobjs: Named<SyncobjObject>,
    pub(super) fds: Named<FdObject>,
    pub(super) jobs: Named<JobObject>,
    /// Numbers that the driver gave objects, by the object.
    pub(super) numbers: Mutex<BTreeMap<u64, Object>>,
}

/// What all actors share.
pub(super) struct Stage<'t> {
    pub(super) test: &'t Test,
    pub(super) text: &'t str,
    pub(super) device: &'t dyn Device,
    pub(super) seed: u64,
    pub(super) names: Names,
    pub(super) labels: Labels,
    pub(super) barriers: BTreeMap<String, Rendezvous>,
    model: Mutex<Model>,
    failures: Mutex<Vec<Failure>>,
    stopped: AtomicBool,
    next_queue: AtomicU32,
    pub(super) sink: &'t (dyn Fn(Report) + Sync),
    /// Named results of the round, in the order of their reading.
    pub(super) results: Mutex<BTreeMap<String, Vec<u64>>>,
    /// Conditions of `sometimes` that have held, by their line.
    pub(super) sometimes: Mutex<BTreeMap<u32, bool>>,
    /// Names of objects that steps make of memory that has one.
    pub(super) other_objects: Mutex<BTreeMap<Object, String>>,
    /// The oracle's number of this process's address space.
    pub(super) mm: MmId,
    /// Programs that stand in memory, by object and offset.
    pub(super) programs: Mutex<BTreeMap<(Object, u64), Program>>,
    /// Processes that wait to be told to open the device, by the client's name.
    pub(super) children: Mutex<BTreeMap<String, RemoteClient>>,
    /// Control groups of clients, removed when their processes are gone.
    pub(super) groups: Mutex<Vec<dev::kernel::cgroup::Group>>,
    /// Clients whose process was killed.
    killed: Mutex<BTreeSet<String>>,
    /// Processes of actors, by the actor's name.
    processes: Mutex<BTreeMap<String, Arc<Process>>>,
    /// Counters when the setup had ended.
    pub(super) base: Mutex<BTreeMap<String, u64>>,
}

/// Looks a name up.
pub(super) fn find<T>(named: &Named<T>, name: &str) -> Option<Arc<T>> {
    named.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(name).cloned()
}

/// Gives an object a name.
pub(super) fn put<T>(named: &Named<T>, name: &str, object: T) -> Arc<T> {
    let object = Arc::new(object);
    let mut map = named.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    map.insert(name.to_owned(), Arc::clone(&object));
    object
}

/// Takes a name away.
pub(super) fn take<T>(named: &Named<T>, name: &str) -> Option<Arc<T>> {
    named.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(name)
}

/// All objects of a kind, in the order of their names.
pub(super) fn all<T>(named: &Named<T>) -> Vec<Arc<T>> {
    named.read().unwrap_or_else(|poisoned| poisoned.into_inner()).values().cloned().collect()
}

impl<'t> Stage<'t> {
    /// An empty stage, and the main actor's timeline.
    pub(super) fn new(
        test: &'t Test,
        text: &'t str,
        device: &'t dyn Device,
        seed: u64,
        sink: &'t (dyn Fn(Report) + Sync),
    ) -> (Self, u16) {
        let (mut model, main) = Model::new();
        let mm = model.mm(main);
        let barriers =
            test.barriers.iter().map(|b| (b.name.clone(), Rendezvous::new(b.parties))).collect();
        let stage = Self {
            test,
            text,
            device,
            seed,
            names: Names::default(),
            labels: Labels::default(),
            barriers,
            model: Mutex::new(model),
            failures: Mutex::default(),
            stopped: AtomicBool::new(false),
            next_queue: AtomicU32::new(1),
            sink,
            results: Mutex::default(),
            sometimes: Mutex::default(),
            other_objects: Mutex::default(),
            mm,
            programs: Mutex::default(),
            children: Mutex::default(),
            groups: Mutex::default(),
            killed: Mutex::default(),
            processes: Mutex::default(),
            base: Mutex::default(),
        };
        (stage, main)
    }

    /// The oracle. Not to be held while the device is called.
    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes that something did not hold; all actors stop.
    pub(super) fn fail(&self, failure: Failure) {
        let mut failures = self.failures.lock().unwrap_or_else(|p| p.into_inner());
        // What others find after the first failure may be its consequence; a few are enough.
        const ENOUGH: usize = 8;
        if failures.len() < ENOUGH {
            (self.sink)(Report::Failure(failure.clone()));
            failures.push(failure);
        }
        drop(failures);
        self.stop();
    }

    /// Has all actors stop before their next step.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Has those who wait at barriers look whether they are to go on.
    pub(super) fn wake(&self) {
        self.barriers.values().for_each(Rendezvous::wake);
    }

    /// Processes of actors.
    pub(super) fn processes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Process>>> {
        self.processes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Notes that a client's process is about to be killed.
    pub(super) fn note_killed(&self, client: &str) {
        self.killed.lock().unwrap_or_else(|p| p.into_inner()).insert(client.to_owned());
    }

    /// Whether a client's process was killed.
    pub(super) fn was_killed(&self, client: &str) -> bool {
        self.killed.lock().unwrap_or_else(|p| p.into_inner()).contains(client)
    }

    /// Whether the actors are to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// What was found wrong first.
    pub(super) fn first_failure(&self) -> Option<Failure> {
        self.failures.lock().unwrap_or_else(|p| p.into_inner()).first().cloned()
    }

    /// A number for a queue that the oracle can tell from all others.
    pub(super) fn queue_number(&self) -> u32 {
        self.next_queue.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes a step that writes or is looked at.
    pub(super) fn label(&self, label: Label) -> Origin {
        self.labels.add(label)
    }

    /// The content that a memory's pattern gives.
    pub(super) fn pattern(pattern: &Pattern, index: usize, word: u64) -> Source {
        match pattern {
            Pattern::Zero => Source::repeat(0, 8, 0),
            Pattern::Unique => Source::Unique { index, shift: 0 },
            Pattern::Word(_) => Source::repeat(word, 8, 0),
        }
    }

    /// The name of an object of the oracle.
    pub(super) fn object_name(&self, object: Object) -> String {
        let found = all(&self.names.memory).into_iter().find(|m| m.object == object);
        let other = || {
            let others = self.other_objects.lock().unwrap_or_else(|p| p.into_inner());
            others.get(&object).cloned().unwrap_or_else(|| format!("object {object}"))
        };
        found.map_or_else(other, |memory| memory.name.clone())
    }

    /// The default VM of a client, if it was made.
    pub(super) fn default_vm(&self, client: &str) -> Option<Arc<VmObject>> {
        let listed = self.test.default_vm(client).and_then(|vm| find(&self.names.vms, &vm.name));
        listed.or_else(|| all(&self.names.vms).into_iter().find(|vm| vm.client == client))
    }

    /// The default exec queue of a client, if it was made.
    pub(super) fn default_queue(&self, client: &str) -> Option<Arc<QueueObject>> {
        let listed = self.test.default_queue(client);
        let listed = listed.and_then(|queue| find(&self.names.queues, &queue.name));
        let is_it = |q: &Arc<QueueObject>| q.client == client && q.class == QueueClass::Exec;
        listed.or_else(|| all(&self.names.queues).into_iter().find(is_it))
    }
}
