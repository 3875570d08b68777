//! The debug group: who may, delay points, failures; and what every call checks first.

use fencepost_uapi::fencepost::*;
use fencepost_uapi::{drm, ioctl};
use fencepost_uapi::{Errno, Record};

use crate::client::*;

const A: u64 = 0x40_0000;

#[test]
fn the_group_is_closed_until_it_is_opened_and_to_ordinary_devices() {
    let sim = sim();
    let c = Client::new(&sim);
    let closed = |c: &Client<'_>| {
        [
            c.call(DEBUG_INJECT, &mut DebugInject { kind: 99, ..Default::default() }),
            c.call(DEBUG_DELAY, &mut DebugDelay::default()),
            c.call(DEBUG_EVICT, &mut DebugEvict::default()),
        ]
    };
    assert_eq!(closed(&c), [Err(Errno::PERM); 3]);
    let ordinary = fencepost_core::driver::Config { testing: false, ..config() };
    let ordinary = fencepost_host::sim::Sim::new(1, ordinary).expect("a device");
    let c = Client::new(&ordinary);
    assert_eq!(c.call(DEBUG_OPEN, &mut DebugOpen::default()), Err(Errno::PERM));
    assert_eq!(closed(&c), [Err(Errno::PERM); 3]);
}

#[test]
fn a_delay_point_holds_a_job_until_it_is_released() {
    for (name, is_bind) in [("bind.commit", true), ("fence.signal", true), ("exec.start", false)] {
        let sim = sim();
        let c = Client::new(&sim).testing();
        let gpu = Gpu::new(&c);
        let (bo, done) = (c.system(K64), c.syncobj());
        c.delay(name, DELAY_ARM, 60_000).expect("a point");
        match is_bind {
            true => c.bind_async(gpu.vm, 0, &[map(bo, A, K64, 0)], &[sync_out(done)]),
            false => c.exec(gpu.queue, &[], &[sync_out(done)]),
        }
        .expect("submits");
        let held = c.delay(name, DELAY_WAIT, 1000).expect("is held");
        assert_eq!((held.hits, held.held), (1, 1), "{name}");
        assert!(!c.is_signalled(done), "{name}");
        let expected = u32::from(name == "fence.signal");
        assert_eq!(c.dump(gpu.vm)[0].ptes_64k, if is_bind { expected } else { 1 }, "{name}");
        c.delay(name, DELAY_RELEASE, 0).expect("a point");
        c.wait(done);
        assert_eq!(c.counter("delays.hit"), 1);
    }
}

#[test]
fn a_point_lets_go_by_itself_and_with_its_file() {
    let sim = sim();
    let (a, b) = (Client::new(&sim).testing(), Client::new(&sim).testing());
    let vm = b.vm();
    a.delay("bind.prepared", DELAY_ARM, 5).expect("a point");
    b.bind(vm, &[map_null(A, K4)]).expect("the time passes");
    assert_eq!(a.delay("bind.prepared", DELAY_STATE, 0).map(|state| state.hits), Ok(1));
    a.delay("bind.commit", DELAY_ARM, 60_000).expect("a point");
    a.close();
    let before = sim.counter("delays.hit");
    b.bind(vm, &[map_null(A, K4)]).expect("nobody is held");
    assert_eq!(sim.counter("delays.hit"), before);
    let rows = [
        ("no.such.point", DELAY_STATE, 0, Errno::NOENT),
        ("bind.commit", DELAY_ARM, 0, Errno::INVAL),
        ("bind.commit", DELAY_ARM, 60_001, Errno::INVAL),
        ("bind.commit", DELAY_STATE, 1, Errno::INVAL),
        ("bind.commit", 4, 0, Errno::INVAL),
        ("bind.commit", DELAY_WAIT, 5, Errno::TIME),
    ];
    for (name, action, timeout, errno) in rows {
        assert_eq!(b.delay(name, action, timeout).err(), Some(errno), "{name} {action}");
    }
}

#[test]
fn an_eviction_under_way_can_be_watched() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let gpu = Gpu::new(&c);
    let bo = c.bo(K64, REGION_VRAM | REGION_SYSTEM);
    c.poke(bo, 0, 6);
    c.bind(gpu.vm, &[map(bo, A, K64, 0)]).expect("binds");
    for (name, timeout_ms) in [("evict.unmapped", 3), ("evict.copied", 6)] {
        c.delay(name, DELAY_ARM, timeout_ms).expect("a point");
    }
    c.evict(bo.handle).expect("evicts");
    assert_eq!(c.counter("delays.hit"), 2);
    assert_eq!(gpu.read(A), 6);
}

#[test]
fn numbers_and_sizes_of_calls() {
    let sim = sim();
    let c = Client::new(&sim);
    let call = |request, arg| sim.driver().ioctl(&c.file.file, c.task, request, arg);
    let arg = sim.host().scratch(c.task);
    let rw = ioctl::READ | ioctl::WRITE;
    assert_eq!(call(0x5401, arg), Err(Errno::NOTTY));
    for unknown in [0x03, 0x0e, 0x14, 0x2f, 0x3e, 0x9f, 0xd5, 0xff] {
        assert_eq!(call(ioctl::drm(rw, unknown, 8), arg), Err(Errno::INVAL), "{unknown:#x}");
    }
    for closed in [0x01, 0x02, 0x07, 0x0a, 0x0b, 0x1f, 0x3c, 0x3f, 0xa0, 0xbe, 0xc6, 0xc9, 0xd0] {
        assert_eq!(call(ioctl::drm(rw, closed, 8), arg), Err(Errno::ACCES), "{closed:#x}");
    }
    assert_eq!(call(VM_CREATE, 0), Err(Errno::FAULT));
    // A caller of an older interface knows less of the record, one of a newer one more.
    let nr = ioctl::nr(VM_CREATE);
    sim.host().write_user(c.task, arg, &[0; 256]).expect("mapped");
    for size in [16, VmCreate::SIZE, 200] {
        assert_eq!(call(ioctl::drm(rw, nr, size), arg), Ok(0), "{size} bytes");
        sim.host().write_user(c.task, arg, &[0; 256]).expect("mapped");
    }
    let mut version = drm::Version { name_len: 64, name: arg + 256, ..Default::default() };
    c.call(drm::VERSION, &mut version).expect("a version");
    assert_eq!((version.name_len, version.version_major), (9, 1));
    let mut name = [0; 9];
    sim.host().read_user(c.task, arg + 256, &mut name).expect("mapped");
    assert_eq!(&name, b"fencepost");
}

#[test]
fn every_reserved_field_flag_and_bound_is_checked() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let arg = sim.host().scratch(c.task);
    let mut checked = 0;
    for row in IOCTLS {
        for field in row.fields {
            let bad: u64 = match field.role {
                fencepost_uapi::Role::Zero => 1,
                fencepost_uapi::Role::Flags(mask) => !mask & (mask + 1),
                fencepost_uapi::Role::Below(bound) => bound,
                fencepost_uapi::Role::Count(bound) => bound + 1,
                fencepost_uapi::Role::Stride => 12,
                fencepost_uapi::Role::Page => 1,
                _ => continue,
            };
            let mut bytes = vec![0; row.size];
            let len = field.size.min(8);
            bytes[field.offset..field.offset + len].copy_from_slice(&bad.to_ne_bytes()[..len]);
            sim.host().write_user(c.task, arg, &bytes).expect("mapped");
            let result = sim.driver().ioctl(&c.file.file, c.task, row.request, arg);
            assert_eq!(result, Err(Errno::INVAL), "{} {}", row.name, field.name);
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked} fields");
}

#[test]
fn arrays_of_older_and_newer_callers() {
    let sim = sim();
    let c = Client::new(&sim);
    let vm_id = c.vm();
    let wide = |tail: u8| {
        let mut bytes = [0; 80];
        map_null(A, K4).encode(&mut bytes);
        bytes[79] = tail;
        sim.bytes(c.task, &bytes)
    };
    let bind = |ops, op_stride| {
        let (num_ops, sync_stride) = (1, 32);
        let mut args = VmBind { vm_id, num_ops, ops, op_stride, sync_stride, ..Default::default() };
        c.call(VM_BIND, &mut args)
    };
    assert_eq!(bind(wide(0), 80), Ok(0));
    assert_eq!(bind(wide(1), 80), Err(Errno::TOOBIG));
    for stride in [56, 60, 264] {
        assert_eq!(bind(wide(0), stride), Err(Errno::INVAL), "{stride}");
    }
    assert_eq!(bind(8, 64), Err(Errno::FAULT));
}

#[test]
fn whatever_allocation_fails_a_call_leaves_no_trace() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let gpu = Gpu::new(&c);
    let (vm, queue) = (gpu.vm, gpu.queue);
    let handles = sim.bytes(c.task, &gpu.sync.to_ne_bytes());
    type Make<'a> = &'a dyn Fn() -> Result<i64, Errno>;
    let calls: [(&str, Make<'_>); 7] = [
        ("vm", &|| c.vm_with(VmCreate::default()).map(i64::from)),
        ("bo", &|| c.try_bo(K64, REGION_SYSTEM, 0, 0).map(|_| 0)),
        ("exec queue", &|| {
            c.queue_with(QueueCreate { vm_id: vm, ..Default::default() }).map(i64::from)
        }),
        ("bind queue", &|| {
            let class = QUEUE_CLASS_BIND;
            c.queue_with(QueueCreate { vm_id: vm, class, ..Default::default() }).map(i64::from)
        }),
        ("syncobj", &|| c.call(drm::SYNCOBJ_CREATE, &mut drm::SyncobjCreate::default())),
        ("exec", &|| c.exec(queue, &[], &[sync_out(gpu.sync), point_out(gpu.sync, 9)])),
        ("signal", &|| {
            let points = handles;
            let mut args =
                drm::SyncobjTimelineArray { handles, points, count_handles: 1, flags: 0 };
            c.call(drm::SYNCOBJ_TIMELINE_SIGNAL, &mut args)
        }),
    ];
    let live = || {
        let counters = sim.driver().counters();
        let named = COUNTERS.iter().zip(counters);
        named.filter(|(name, _)| name.starts_with("live.")).map(|(_, n)| n).collect::<Vec<_>>()
    };
    for (name, call) in calls {
        for nth in 1.. {
            let before = live();
            c.inject(INJECT_ALLOC, nth);
            let result = call();
            if c.inject(INJECT_ALLOC, 0).fired == 0 {
                result.unwrap_or_else(|errno| panic!("{name}: {errno}"));
                break;
            }
            assert_eq!(result, Err(Errno::NOMEM), "{name}: allocation {nth}");
            assert_eq!(live(), before, "{name}: allocation {nth}");
        }
    }
    c.close();
    assert_clean(&sim);
}
