//! Clients that block in the driver.

use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use fencepost_fixtures::sys::fd::duplicate;
use fencepost_fixtures::sys::message::wait_readable;
use fencepost_fixtures::sys::signal::{ThreadId, interrupt_on, restart_on};
use fencepost_uapi::drm;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::Role;
use super::client::Node;

pub(crate) const ROLES: &[Role] = &[
    ("blocked_calls_block_nobody_else", blocked_calls_block_nobody_else),
    ("signals_interrupt_waits", signals_interrupt_waits),
    ("restarted_waits_go_on", restarted_waits_go_on),
    ("timers_disturb_no_call", timers_disturb_no_call),
    ("sync_files_poll", sync_files_poll),
];

const LONG: Duration = Duration::from_secs(20);

fn blocked_calls_block_nobody_else() {
    let node = Node::open();
    let syncobjs: Vec<u32> = (0..24).map(|_| node.syncobj()).collect();
    let (begin, begun) = mpsc::channel();
    std::thread::scope(|scope| {
        for syncobj in &syncobjs {
            let (node, begin) = (&node, begin.clone());
            scope.spawn(move || {
                begin.send(()).unwrap();
                node.wait(*syncobj).unwrap();
            });
        }
        for _ in &syncobjs {
            begun.recv_timeout(LONG).unwrap();
        }
        for _ in 0..100 {
            node.ping().unwrap();
            drop(Node::open());
        }
        // In an order of its own.
        syncobjs.iter().rev().for_each(|syncobj| node.signal(*syncobj));
    });
}

/// Runs a wait in a thread, sends it signals until it returns or `enough` were sent; then signals
/// the syncobj.
fn wait_under_signals(node: &Node, signal: Signal, enough: u32) -> Result<(), Errno> {
    let syncobj = node.syncobj();
    let (say, hear) = mpsc::channel();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            say.send(ThreadId::current()).unwrap();
            let result = node.wait(syncobj);
            drop(say);
            result
        });
        let thread = hear.recv_timeout(LONG).unwrap();
        for _ in 0..enough {
            thread.signal(signal).unwrap();
            let over = hear.recv_timeout(Duration::from_millis(5));
            if over == Err(mpsc::RecvTimeoutError::Disconnected) {
                return waiting.join().unwrap();
            }
        }
        node.signal(syncobj);
        waiting.join().unwrap()
    })
}

fn signals_interrupt_waits() {
    let node = Node::open();
    interrupt_on(Signal::SIGUSR1).unwrap();
    for _ in 0..5 {
        assert_eq!(wait_under_signals(&node, Signal::SIGUSR1, 4000), Err(Errno::EINTR));
    }
}

fn restarted_waits_go_on() {
    let node = Node::open();
    restart_on(Signal::SIGUSR2).unwrap();
    assert_eq!(wait_under_signals(&node, Signal::SIGUSR2, 20), Ok(()));
}

/// Signals that come while a call is served neither break nor repeat it.
fn timers_disturb_no_call() {
    let node = Node::open();
    interrupt_on(Signal::SIGUSR1).unwrap();
    let target = ThreadId::current();
    let (stop, stopped) = mpsc::channel::<()>();
    let calls = node.counter("ioctls");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                target.signal(Signal::SIGUSR1).unwrap();
                std::thread::yield_now();
            }
        });
        for _ in 0..2000 {
            // EINTR before the host has the call is the kernel's right.
            while let Err(errno) = node.ping() {
                assert_eq!(errno, Errno::EINTR);
            }
        }
        drop(stop);
    });
    assert_eq!(node.counter("ioctls"), calls + 2001, "each call once");
}

fn sync_files_poll() {
    let node = Node::open();
    let syncobj = node.syncobj();
    node.signal(syncobj);
    let mut export = drm::SyncobjHandle {
        handle: syncobj,
        flags: drm::SYNCOBJ_FD_SYNC_FILE,
        ..Default::default()
    };
    node.call(drm::SYNCOBJ_HANDLE_TO_FD, &mut export).unwrap();
    let file = duplicate(export.fd).unwrap();
    nix::unistd::close(export.fd).unwrap();
    wait_readable(file.as_fd(), LONG).unwrap();
    let second = node.syncobj();
    let mut import = drm::SyncobjHandle {
        handle: second,
        flags: drm::SYNCOBJ_FD_SYNC_FILE,
        fd: std::os::fd::AsRawFd::as_raw_fd(&file),
        ..Default::default()
    };
    node.call(drm::SYNCOBJ_FD_TO_HANDLE, &mut import).unwrap();
    node.wait(second).unwrap();
}
