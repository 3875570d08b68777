//! Clients that open, close, share and inherit descriptors.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use fencepost_fixtures::sys::process::Child;
use fencepost_uapi::{drm, fencepost as fp};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, open, openat2};
use nix::sys::stat::Mode;

use super::Role;
use super::client::{CARD, Node, PAGE, RENDER, call, ping};

pub(crate) const ROLES: &[Role] = &[
    ("only_the_nodes_are_served", only_the_nodes_are_served),
    ("other_files_are_the_kernels", other_files_are_the_kernels),
    ("own_close_is_seen_at_once", own_close_is_seen_at_once),
    ("duplicates_are_one_file", duplicates_are_one_file),
    ("fork_shares_the_file", fork_shares_the_file),
    ("cloexec_is_honoured", cloexec_is_honoured),
    ("exported_descriptors_are_released", exported_descriptors_are_released),
    ("prime_between_processes", prime_between_processes),
    ("many_files_and_threads", many_files_and_threads),
    ("position_is_kept_from_clients", position_is_kept_from_clients),
];

const LONG: Duration = Duration::from_secs(20);

fn only_the_nodes_are_served() {
    let open_at = |path: &str, flags| open(path, flags, Mode::empty());
    for path in [CARD, RENDER] {
        let node = Node(open_at(path, OFlag::O_RDWR | OFlag::O_NONBLOCK).unwrap().into());
        node.ping().unwrap();
        let how = OpenHow::new().flags(OFlag::O_RDWR | OFlag::O_CLOEXEC);
        let here = open_at(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY).unwrap();
        let node = Node(openat2(&here, path, how).unwrap().into());
        node.ping().unwrap();
        let dir = open_at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        assert_eq!(dir.unwrap_err(), Errno::ENOTDIR);
        let new = open_at(path, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL);
        assert_eq!(new.unwrap_err(), Errno::EEXIST);
    }
    for path in ["/dev/dri/renderD1280", "/dev/dri/renderD12", "/dev/dri/renderD128/x", ""] {
        let error = open_at(path, OFlag::O_RDWR).unwrap_err();
        assert!(matches!(error, Errno::ENOENT | Errno::ENOTDIR), "{path}: {error}");
    }
    assert!(std::fs::read("/proc/self/status").unwrap().starts_with(b"Name:"));
}

fn other_files_are_the_kernels() {
    let null = File::open("/dev/null").unwrap();
    assert_eq!(ping(null.as_fd()), Err(Errno::ENOTTY));
    let node = Node::open();
    let mut version = drm::Version::default();
    let other_type = fp::QUERY & !0xff00 | 0x4800;
    assert_eq!(call(node.as_fd(), other_type, &mut version), Err(Errno::ENOTTY), "type H");
    let sync_type = fp::QUERY & !0xff00 | 0x3e00;
    assert_eq!(call(node.as_fd(), sync_type, &mut version), Err(Errno::ENOTTY), "sync ioctl");
    let unknown = fp::QUERY & !0xff | 0x9f;
    assert_eq!(call(node.as_fd(), unknown, &mut version), Err(Errno::EINVAL), "unknown number");
    nix::unistd::close(node.0.as_raw_fd()).unwrap();
    assert_eq!(node.ping(), Err(Errno::EBADF), "closed");
    let again = Node::open();
    assert_eq!(again.0.as_raw_fd(), node.0.as_raw_fd(), "the number is used again");
    node.ping().unwrap();
    std::mem::forget(node);
}

fn own_close_is_seen_at_once() {
    let node = Node::open();
    for round in 0..200 {
        let other = Node::open();
        other.gem_create(PAGE);
        assert_eq!(node.counter("live.files"), 2, "round {round}");
        drop(other);
        let counters = node.counters();
        assert_eq!((counters["live.files"], counters["live.bos"]), (1, 0), "round {round}");
    }
}

fn duplicates_are_one_file() {
    let node = Node::open();
    let other = Node::open();
    let gem = other.gem_create(PAGE);
    let copy = Node(other.0.try_clone().unwrap());
    drop(other);
    assert_eq!(node.counter("live.files"), 2);
    copy.gem_close(gem);
    drop(copy);
    assert_eq!(node.counter("live.files"), 1);
}

fn fork_shares_the_file() {
    let node = Node::open();
    let shared = Node::open();
    let gem = shared.gem_create(PAGE);
    let mut child = Child::fork(|channel| {
        shared.gem_close(gem);
        let second = shared.gem_create(PAGE);
        channel.send(&second.to_ne_bytes(), &[]).unwrap();
        channel.recv(LONG).unwrap();
        shared.ping().unwrap();
        0
    })
    .unwrap();
    let (bytes, _) = child.channel().recv(LONG).unwrap();
    let second = u32::from_ne_bytes(bytes.try_into().unwrap());
    shared.gem_close(second);
    drop(shared);
    assert_eq!(node.counter("live.files"), 2, "the child holds it");
    child.channel().send(b"go", &[]).unwrap();
    assert_eq!(format!("{:?}", child.wait(LONG)), "Ok(Exit(0))");
    assert_eq!(node.counter("live.files"), 1);
}

fn cloexec_is_honoured() {
    let node = Node::open();
    let kept = open(RENDER, OFlag::O_RDWR, Mode::empty()).unwrap();
    let closed = open(RENDER, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--role", "after_exec"]);
    command.args([kept.as_raw_fd().to_string(), closed.as_raw_fd().to_string()]);
    let status = command.status().unwrap();
    assert!(status.success(), "{status}");
    drop((kept, closed));
    assert_eq!(node.counter("live.files"), 1);
}

fn exported_descriptors_are_released() {
    let node = Node::open();
    let gem = node.gem_create(PAGE);
    let mut prime = drm::PrimeHandle { handle: gem, flags: 0o2_000_002, ..Default::default() };
    node.call(drm::PRIME_HANDLE_TO_FD, &mut prime).unwrap();
    node.gem_close(gem);
    assert_eq!(node.counter("live.bos"), 1, "the dma-buf holds the object");
    let mut import = drm::PrimeHandle { fd: prime.fd, ..Default::default() };
    node.call(drm::PRIME_FD_TO_HANDLE, &mut import).unwrap();
    node.gem_close(import.handle);
    nix::unistd::close(prime.fd).unwrap();
    assert_eq!(node.counter("live.bos"), 0);

    let syncobj = node.syncobj();
    let mut handle = drm::SyncobjHandle { handle: syncobj, ..Default::default() };
    node.call(drm::SYNCOBJ_HANDLE_TO_FD, &mut handle).unwrap();
    let mut wrong = drm::PrimeHandle { fd: handle.fd, ..Default::default() };
    assert_eq!(node.call(drm::PRIME_FD_TO_HANDLE, &mut wrong), Err(Errno::EINVAL), "no dma-buf");
    node.call(drm::SYNCOBJ_DESTROY, &mut drm::SyncobjDestroy { handle: syncobj, pad: 0 }).unwrap();
    assert_eq!(node.counter("live.syncobjs"), 1);
    nix::unistd::close(handle.fd).unwrap();
    assert_eq!(node.counter("live.syncobjs"), 0);
    let mut closed = drm::PrimeHandle { fd: handle.fd, ..Default::default() };
    assert_eq!(node.call(drm::PRIME_FD_TO_HANDLE, &mut closed), Err(Errno::EBADF), "closed");
}

fn prime_between_processes() {
    let node = Node::open();
    // Forked before it has anything: it opens the device itself.
    let mut child = Child::fork(|channel| {
        let own = Node::open();
        let (_, fds) = channel.recv(LONG).unwrap();
        let mut import = drm::PrimeHandle { fd: fds[0].as_raw_fd(), ..Default::default() };
        own.call(drm::PRIME_FD_TO_HANDLE, &mut import).unwrap();
        drop(fds);
        let memory = own.map(import.handle, PAGE);
        let mut seen = [0; 4];
        memory.read(8, &mut seen).unwrap();
        assert_eq!(&seen, b"ping");
        memory.write(8, b"pong").unwrap();
        channel.send(b"done", &[]).unwrap();
        0
    })
    .unwrap();
    let gem = node.gem_create(PAGE);
    let memory = node.map(gem, PAGE);
    memory.write(8, b"ping").unwrap();
    let mut prime = drm::PrimeHandle { handle: gem, flags: 0o2_000_002, ..Default::default() };
    node.call(drm::PRIME_HANDLE_TO_FD, &mut prime).unwrap();
    let fd = fencepost_fixtures::sys::fd::duplicate(prime.fd).unwrap();
    nix::unistd::close(prime.fd).unwrap();
    child.channel().send(b"take", &[fd.as_fd()]).unwrap();
    drop(fd);
    assert_eq!(child.channel().recv(LONG).unwrap().0, b"done");
    assert_eq!(format!("{:?}", child.wait(LONG)), "Ok(Exit(0))");
    let mut seen = [0; 4];
    memory.read(8, &mut seen).unwrap();
    assert_eq!(&seen, b"pong");
    drop(memory);
    node.gem_close(gem);
    let counters = node.counters();
    assert_eq!((counters["live.bos"], counters["live.files"]), (0, 1));
    assert_eq!((counters["prime.exports"], counters["prime.imports"]), (1, 1));
}

fn many_files_and_threads() {
    let node = Node::open();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let nodes: Vec<Node> = (0..10).map(|_| Node::open()).collect();
                    for node in &nodes {
                        node.ping().unwrap();
                        node.gem_create(PAGE);
                    }
                }
            });
        }
    });
    let counters = node.counters();
    assert_eq!((counters["live.files"], counters["live.bos"]), (1, 0));
}

fn position_is_kept_from_clients() {
    use std::io::Read;
    let mut node = Node::open();
    let mut byte = [0];
    let _whatever = node.0.read(&mut byte);
    node.ping().unwrap();
}
