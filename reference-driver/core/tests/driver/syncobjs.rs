//! Syncobjs, binary and timelines, as the DRM core has them.

use fencepost_uapi::drm;
use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;

use crate::client::*;

const A: u64 = 0x40_0000;

#[test]
fn a_binary_syncobj_holds_what_was_put_last() {
    let sim = sim();
    let c = Client::new(&sim);
    let s = c.syncobj();
    assert_eq!(c.wait_for(&[s], 0, 0), Err(Errno::INVAL), "there is no fence");
    assert_eq!(c.wait_for(&[s], drm::SYNCOBJ_WAIT_FOR_SUBMIT, 1000), Err(Errno::TIME));
    c.signal(s);
    assert!(c.is_signalled(s));
    c.reset(s);
    assert_eq!(c.wait_for(&[s], 0, 0), Err(Errno::INVAL));
    assert_eq!(c.wait_for(&[s, 99], 0, 0), Err(Errno::NOENT));
    assert_eq!(c.wait_for(&[], 0, 0), Ok(0), "nothing to wait for");
}

#[test]
fn any_and_all() {
    let sim = sim();
    let c = Client::new(&sim);
    let (a, b) = (c.syncobj(), c.syncobj());
    c.signal(b);
    let submit = drm::SYNCOBJ_WAIT_FOR_SUBMIT;
    assert_eq!(c.wait_for(&[a, b], submit, 0), Ok(1));
    let all = submit | drm::SYNCOBJ_WAIT_ALL;
    assert_eq!(c.wait_for(&[a, b], all, 0), Err(Errno::TIME));
    c.signal(a);
    assert_eq!(c.wait_for(&[a, b], all, 0), Ok(0));
}

#[test]
fn points_signal_in_order() {
    let sim = sim();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let (word, s) = (c.system(K4), c.syncobj());
    c.bind(gpu.vm, &[map(word, A, K4, 0)]).expect("binds");
    let other = c.queue(gpu.vm, QUEUE_CLASS_EXEC);
    c.exec(gpu.queue, &[gpu.program(0, &[wait_for(A, 1)])], &[point_out(s, 5)]).expect("submits");
    c.exec(other, &[], &[point_out(s, 8)]).expect("submits");
    sim.step();
    sim.step();
    assert_eq!((c.query(s, 0), c.query(s, drm::SYNCOBJ_QUERY_LAST_SUBMITTED)), (0, 8));
    assert_eq!(c.wait_point(s, 8, 0, 0), Err(Errno::TIME), "8 comes after 5");
    assert_eq!(c.wait_point(s, 8, drm::SYNCOBJ_WAIT_AVAILABLE, 0), Ok(0));
    assert_eq!(c.wait_point(s, 9, 0, 0), Err(Errno::INVAL), "not submitted");
    assert_eq!(c.wait_point(s, 9, drm::SYNCOBJ_WAIT_FOR_SUBMIT, 1000), Err(Errno::TIME));
    c.poke(word, 0, 1);
    assert_eq!(c.wait_point(s, 3, 0, i64::MAX), Ok(0), "3 is reached with 5");
    assert_eq!(c.wait_point(s, 8, 0, i64::MAX), Ok(0));
    assert_eq!(c.query(s, 0), 8);
}

#[test]
fn signalled_points_and_points_out_of_order() {
    let sim = sim();
    let c = Client::new(&sim);
    let s = c.syncobj();
    c.signal_point(s, 4);
    c.signal_point(s, 7);
    assert_eq!(c.query(s, 0), 7);
    c.signal_point(s, 2);
    assert_eq!(c.query(s, 0), 7, "one that is out of order takes the last number");
    assert_eq!(c.wait_point(s, 7, 0, 0), Ok(0));
    c.reset(s);
    assert_eq!(c.query(s, 0), 0);
}

#[test]
fn transfer_between_binary_and_timeline() {
    let sim = sim();
    let c = Client::new(&sim);
    let (a, b) = (c.syncobj(), c.syncobj());
    assert_eq!(c.transfer((a, 0), (b, 3), 0), Err(Errno::INVAL), "nothing to transfer");
    c.signal(a);
    c.transfer((a, 0), (b, 3), 0).expect("transfers");
    assert_eq!(c.query(b, 0), 3);
    let d = c.syncobj();
    c.transfer((b, 2), (d, 0), 0).expect("transfers");
    assert!(c.is_signalled(d));
    assert_eq!(c.transfer((b, 4), (d, 0), 0), Err(Errno::INVAL));
    assert_eq!(c.transfer((99, 0), (d, 0), 0), Err(Errno::NOENT));
    assert_eq!(c.transfer((b, 0), (d, 0), 4), Err(Errno::INVAL));
}

#[test]
fn descriptors_of_syncobjs_and_sync_files() {
    let sim = sim();
    let (c, other) = (Client::new(&sim), Client::new(&sim));
    let gpu = Gpu::new(&c);
    let (word, s) = (c.system(K4), c.syncobj());
    c.bind(gpu.vm, &[map(word, A, K4, 0)]).expect("binds");
    let mut args = drm::SyncobjHandle { handle: s, ..Default::default() };
    c.call(drm::SYNCOBJ_HANDLE_TO_FD, &mut args).expect("exports");
    let fd = sim.host().pass_fd(c.task, args.fd, other.task).expect("passes");
    let mut import = drm::SyncobjHandle { fd, ..Default::default() };
    other.call(drm::SYNCOBJ_FD_TO_HANDLE, &mut import).expect("imports");
    let flags = drm::SYNCOBJ_FD_SYNC_FILE;
    let mut file = drm::SyncobjHandle { handle: s, flags, ..Default::default() };
    assert_eq!(c.call(drm::SYNCOBJ_HANDLE_TO_FD, &mut file), Err(Errno::INVAL), "no fence");
    let job = gpu.program(0, &[wait_for(A, 1)]);
    c.exec(gpu.queue, &[job], &[sync_out(s)]).expect("submits");
    c.call(drm::SYNCOBJ_HANDLE_TO_FD, &mut file).expect("exports the fence");
    c.reset(s);
    let copy = c.syncobj();
    let mut back = drm::SyncobjHandle { handle: copy, fd: file.fd, flags, ..Default::default() };
    c.call(drm::SYNCOBJ_FD_TO_HANDLE, &mut back).expect("imports the fence");
    assert!(!c.is_signalled(copy));
    assert!(sim.host().signalled_sync_files().is_empty());
    c.poke(word, 0, 1);
    c.wait(copy);
    assert_eq!(sim.host().signalled_sync_files().len(), 1);
    c.signal(s);
    assert!(other.is_signalled(import.handle), "both handles are one syncobj");
    let mut bad = drm::SyncobjHandle { fd: 77, ..Default::default() };
    assert_eq!(c.call(drm::SYNCOBJ_FD_TO_HANDLE, &mut bad), Err(Errno::INVAL));
    bad = drm::SyncobjHandle { handle: 99, ..Default::default() };
    assert_eq!(c.call(drm::SYNCOBJ_HANDLE_TO_FD, &mut bad), Err(Errno::INVAL));
}

#[test]
fn refused_syncs_leave_the_others_alone() {
    let sim = sim();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let (a, empty) = (c.syncobj(), c.syncobj());
    let rows = [
        (sync_in(empty), Errno::INVAL),
        (sync_in(99), Errno::NOENT),
        (sync_out(99), Errno::NOENT),
        (point_in(a, 0), Errno::INVAL),
        (point_out(a, 0), Errno::INVAL),
        (point_in(a, 5), Errno::INVAL),
        (Sync { kind: 3, ..sync_in(a) }, Errno::INVAL),
        (Sync { flags: 2, ..sync_in(a) }, Errno::INVAL),
        (Sync { pad: 1, ..sync_in(a) }, Errno::INVAL),
        (Sync { value: 1, ..sync_in(a) }, Errno::INVAL),
        (Sync { flags: 0, ..user_fence(8, 1) }, Errno::OPNOTSUPP),
        (user_fence(4, 1), Errno::INVAL),
    ];
    for (sync, errno) in rows {
        let syncs = [sync_out(a), point_out(empty, 1), sync];
        assert_eq!(c.exec(gpu.queue, &[], &syncs), Err(errno), "{sync:?}");
        assert_eq!(c.bind_async(gpu.vm, 0, &[], &syncs), Err(errno), "{sync:?}");
        assert_eq!(c.wait_for(&[a], 0, 0), Err(Errno::INVAL), "{sync:?}");
    }
    let two = [user_fence(8, 1), user_fence(16, 1)];
    assert_eq!(c.exec(gpu.queue, &[], &two), Err(Errno::INVAL));
    assert_eq!(c.bind_call(gpu.vm, 0, 0, &[], &[sync_out(a)]), Err(Errno::INVAL), "synchronous");
}
