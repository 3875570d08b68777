//! What clients share: an open node with typed calls, and lines to and from the test that started it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd};

use fencepost_fixtures::sys::ioctl::ioctl;
use fencepost_fixtures::sys::mapping::Mapping;
use fencepost_uapi::command::{Opcode, header};
use fencepost_uapi::{Record, drm, fencepost as fp};
use nix::errno::Errno;

pub(crate) const RENDER: &str = "/dev/dri/renderD128";
pub(crate) const CARD: &str = "/dev/dri/card0";
pub(crate) const PAGE: u64 = 4096;

/// An open file of the device.
pub(crate) struct Node(pub(crate) File);

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Calls with a record that comes back changed.
pub(crate) fn call<R: Record>(
    fd: BorrowedFd<'_>,
    request: u32,
    record: &mut R,
) -> Result<i32, Errno> {
    let mut bytes = vec![0; R::SIZE];
    record.encode(&mut bytes);
    let result = ioctl(fd, request, &mut bytes);
    *record = R::decode(&bytes);
    result
}

impl Node {
    pub(crate) fn open() -> Node {
        Node(File::options().read(true).write(true).open(RENDER).expect("open of the node"))
    }

    pub(crate) fn call<R: Record>(&self, request: u32, record: &mut R) -> Result<i32, Errno> {
        call(self.as_fd(), request, record)
    }

    /// A call that answers only when the node is open.
    pub(crate) fn ping(&self) -> Result<(), Errno> {
        ping(self.as_fd())
    }

    pub(crate) fn counters(&self) -> BTreeMap<&'static str, u64> {
        let mut values = vec![0; fp::COUNTERS.len()];
        let mut query = fp::Query {
            query: fp::QUERY_COUNTERS,
            size: values.len() as u64 * 8,
            data: values.as_mut_ptr().addr() as u64,
            ..Default::default()
        };
        self.call(fp::QUERY, &mut query).expect("counters");
        fp::COUNTERS.iter().copied().zip(std::hint::black_box(values)).collect()
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters()[name]
    }

    pub(crate) fn gem_create(&self, size: u64) -> u32 {
        let placement = fp::REGION_VRAM | fp::REGION_SYSTEM;
        let mut gem = fp::GemCreate { size, placement, ..Default::default() };
        self.call(fp::GEM_CREATE, &mut gem).expect("GEM_CREATE");
        gem.handle
    }

    pub(crate) fn gem_close(&self, handle: u32) {
        let mut close = drm::GemClose { handle, pad: 0 };
        self.call(drm::GEM_CLOSE, &mut close).expect("GEM_CLOSE");
    }

    pub(crate) fn mmap_offset(&self, handle: u32) -> u64 {
        let mut offset = fp::GemMmapOffset { handle, ..Default::default() };
        self.call(fp::GEM_MMAP_OFFSET, &mut offset).expect("GEM_MMAP_OFFSET");
        offset.offset
    }

    pub(crate) fn map(&self, handle: u32, size: u64) -> Mapping {
        Mapping::shared(self.as_fd(), self.mmap_offset(handle), size).expect("mmap of an object")
    }

    pub(crate) fn vm_create(&self) -> u32 {
        let mut vm = fp::VmCreate::default();
        self.call(fp::VM_CREATE, &mut vm).expect("VM_CREATE");
        vm.vm_id
    }

    /// Maps a whole object at an address.
    pub(crate) fn bind(&self, vm_id: u32, handle: u32, addr: u64, range: u64) {
        let op = fp::BindOp { op: fp::BIND_OP_MAP, handle, addr, range, ..Default::default() };
        let mut bytes = [0; fp::BindOp::SIZE];
        op.encode(&mut bytes);
        let mut bind = fp::VmBind {
            vm_id,
            num_ops: 1,
            op_stride: fp::BindOp::SIZE as u32,
            sync_stride: fp::Sync::SIZE as u32,
            ops: bytes.as_ptr().addr() as u64,
            ..Default::default()
        };
        self.call(fp::VM_BIND, &mut bind).expect("VM_BIND");
        std::hint::black_box(bytes);
    }

    pub(crate) fn queue_create(&self, vm_id: u32) -> u32 {
        let class = fp::QUEUE_CLASS_EXEC;
        let mut queue = fp::QueueCreate { vm_id, class, priority: 1, ..Default::default() };
        self.call(fp::QUEUE_CREATE, &mut queue).expect("QUEUE_CREATE");
        queue.queue_id
    }

    /// Submits a batch that stands at a GPU address; `syncobj` is signalled when it has run.
    pub(crate) fn exec(&self, queue_id: u32, addr: u64, length: u32, syncobj: u32) {
        let (mut batch, mut sync) = ([0; fp::Batch::SIZE], [0; fp::Sync::SIZE]);
        fp::Batch { addr, length, flags: 0 }.encode(&mut batch);
        let flags = fp::SYNC_SIGNAL;
        let out = fp::Sync { kind: fp::SYNC_SYNCOBJ, flags, handle: syncobj, ..Default::default() };
        out.encode(&mut sync);
        let mut exec = fp::Exec {
            queue_id,
            batches: batch.as_ptr().addr() as u64,
            syncs: sync.as_ptr().addr() as u64,
            num_batches: 1,
            batch_stride: fp::Batch::SIZE as u32,
            num_syncs: 1,
            sync_stride: fp::Sync::SIZE as u32,
            ..Default::default()
        };
        self.call(fp::EXEC, &mut exec).expect("EXEC");
        std::hint::black_box((batch, sync));
    }

    pub(crate) fn syncobj(&self) -> u32 {
        let mut create = drm::SyncobjCreate::default();
        self.call(drm::SYNCOBJ_CREATE, &mut create).expect("SYNCOBJ_CREATE");
        create.handle
    }

    pub(crate) fn signal(&self, syncobj: u32) {
        let handles = [syncobj];
        let at = handles.as_ptr().addr() as u64;
        let mut array = drm::SyncobjArray { handles: at, count_handles: 1, pad: 0 };
        self.call(drm::SYNCOBJ_SIGNAL, &mut array).expect("SYNCOBJ_SIGNAL");
        std::hint::black_box(handles);
    }

    /// Waits without end, also for a fence that does not exist yet.
    pub(crate) fn wait(&self, syncobj: u32) -> Result<(), Errno> {
        let handles = [syncobj];
        let mut wait = drm::SyncobjWait {
            handles: handles.as_ptr().addr() as u64,
            timeout_nsec: i64::MAX,
            count_handles: 1,
            flags: drm::SYNCOBJ_WAIT_FOR_SUBMIT,
            ..Default::default()
        };
        let result = self.call(drm::SYNCOBJ_WAIT, &mut wait).map(drop);
        std::hint::black_box(handles);
        result
    }
}

/// `DRM_IOCTL_GET_CAP` of PRIME.
pub(crate) fn ping(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut cap = drm::GetCap { capability: drm::CAP_PRIME, value: 0 };
    call(fd, drm::GET_CAP, &mut cap)?;
    assert_eq!(cap.value, 3, "import and export");
    Ok(())
}

/// One command of a batch.
pub(crate) fn command(op: Opcode, flags: u16, imm: u32, words: &[u64]) -> Vec<u64> {
    [&[header(op, flags, imm)], words].concat()
}

/// Writes a batch into a mapping; gives its length in bytes.
pub(crate) fn write_batch(memory: &Mapping, commands: &[Vec<u64>]) -> u32 {
    let words = commands.concat();
    for (i, word) in words.iter().enumerate() {
        memory.write(i as u64 * 8, &word.to_ne_bytes()).expect("a batch within the object");
    }
    words.len() as u32 * 8
}

/// Tells the test a line.
pub(crate) fn say(line: &str) {
    println!("{line}");
    io::stdout().flush().expect("stdout");
}

/// Waits for a line of the test.
pub(crate) fn hear() -> String {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).expect("stdin");
    line.trim().to_owned()
}
