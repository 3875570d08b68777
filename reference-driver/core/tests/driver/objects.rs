//! Buffer objects: placement, eviction, private ones, PRIME, mmap.

use fencepost_core::driver::Config;
use fencepost_host::sim::Sim;
use fencepost_uapi::drm;
use fencepost_uapi::fencepost::*;
use fencepost_uapi::Errno;

use crate::client::*;

const A: u64 = 0x40_0000;
const EITHER: u32 = REGION_SYSTEM | REGION_VRAM;

fn small() -> Sim {
    Sim::new(3, Config { vram_bytes: M2, system_bytes: 4 * M2, ..config() }).expect("a device")
}

#[test]
fn who_must_leave_is_the_least_recently_used() {
    let sim = small();
    let c = Client::new(&sim);
    let gpu = Gpu::new(&c);
    let old: Vec<Bo> = (0..4).map(|_| c.bo(M2 / 4, EITHER)).collect();
    for (i, bo) in old.iter().enumerate() {
        c.poke(*bo, 0, i as u64 + 1);
        c.bind(gpu.vm, &[map(*bo, A + i as u64 * M2, M2 / 4, 0)]).expect("binds");
    }
    c.bind(gpu.vm, &[unmap_all(old[1])]).expect("unbinds");
    gpu.run(&[load(A, 1)]);
    let new = c.bo(M2 / 4, EITHER);
    let resident: Vec<u32> = old.iter().map(|bo| c.info(*bo).resident).collect();
    assert_eq!(resident, [2, 1, 2, 2], "the one that no job can use went");
    assert_eq!(c.info(new).resident, REGION_VRAM);
    assert_eq!((c.counter("evictions"), c.info(old[1]).evictions), (1, 1));
    assert_eq!(c.counter("evicted_bytes"), M2 / 4);
    let before = c.counter("restores");
    assert_eq!(c.evict(0), Err(Errno::PERM), "the debug group is closed");
    c.call(DEBUG_OPEN, &mut DebugOpen::default()).expect("a testing device");
    assert!(c.evict(0).expect("evicts") >= 3 * M2 / 4);
    assert_eq!([0, 2, 3].map(|i| gpu.read(A + i * M2)), [1, 3, 4], "data is where it belongs");
    assert!(c.counter("restores") > before);
}

#[test]
fn vram_only_objects_stay_or_find_no_room() {
    let sim = small();
    let c = Client::new(&sim).testing();
    let full = c.vram(M2);
    assert_eq!(c.try_bo(K4, REGION_VRAM, 0, 0).err(), Some(Errno::NOMEM));
    assert_eq!(c.evict(full.handle), Err(Errno::BUSY));
    assert_eq!(c.info(c.bo(K4, EITHER)).resident, REGION_SYSTEM);
    c.gem_close(full);
    c.vram(M2);
}

#[test]
fn sizes_and_placements_that_cannot_be() {
    let sim = small();
    let c = Client::new(&sim);
    let vm = c.vm();
    let rows = [
        (0, 1, 0, 0, Errno::INVAL),
        (K4 + 1, 1, 0, 0, Errno::INVAL),
        (K4, 0, 0, 0, Errno::INVAL),
        (K4, 4, 0, 0, Errno::INVAL),
        (K4, 1, 2, 0, Errno::INVAL),
        (K4, 1, 0, vm, Errno::INVAL),
        (K4, 1, 1, 99, Errno::NOENT),
        (MAX_BO_BYTES + K4, 1, 0, 0, Errno::INVAL),
        (5 * M2, 1, 0, 0, Errno::NOSPC),
        (2 * M2, 2, 0, 0, Errno::NOSPC),
    ];
    for (size, placement, flags, vm_id, errno) in rows {
        let made = c.try_bo(size, placement, flags, vm_id);
        assert_eq!(made.err(), Some(errno), "{size:#x} {placement} {flags} {vm_id}");
    }
    assert_eq!(c.counter("live.bos"), 0);
}

#[test]
fn a_private_object_belongs_to_its_vm() {
    let sim = sim();
    let c = Client::new(&sim);
    let (own, other) = (c.vm(), c.vm());
    let bo = c.try_bo(K64, REGION_SYSTEM, GEM_CREATE_VM_PRIVATE, own).expect("memory");
    c.bind(own, &[map(bo, A, K64, 0)]).expect("binds");
    assert_eq!(c.bind(other, &[map(bo, A, K64, 0)]), Err(Errno::INVAL));
    let mut export = drm::PrimeHandle { handle: bo.handle, ..Default::default() };
    assert_eq!(c.call(drm::PRIME_HANDLE_TO_FD, &mut export), Err(Errno::INVAL));
}

#[test]
fn an_object_shared_by_prime_lives_until_all_let_go() {
    let sim = sim();
    let (a, b) = (Client::new(&sim), Client::new(&sim));
    let bo = a.system(K64);
    a.poke(bo, 0, 42);
    let mut export = drm::PrimeHandle { handle: bo.handle, ..Default::default() };
    a.call(drm::PRIME_HANDLE_TO_FD, &mut export).expect("exports");
    let fd = sim.host().pass_fd(a.task, export.fd, b.task).expect("passes");
    let mut import = drm::PrimeHandle { fd, ..Default::default() };
    b.call(drm::PRIME_FD_TO_HANDLE, &mut import).expect("imports");
    let first = import.handle;
    b.call(drm::PRIME_FD_TO_HANDLE, &mut import).expect("imports");
    assert_eq!(import.handle, first, "one handle for one object");
    a.close();
    let gpu = Gpu::new(&b);
    let shared = Bo { handle: first, ..bo };
    b.bind(gpu.vm, &[map(shared, A, K64, 0)]).expect("binds");
    assert_eq!(gpu.read(A), 42);
    b.close();
    assert_eq!(sim.counter("live.bos"), 1, "the descriptors keep it");
    sim.close_fd(a.task, export.fd).expect("open");
    sim.close_fd(b.task, fd).expect("open");
    assert_clean(&sim);
    let c = Client::new(&sim);
    for (fd, errno) in [(fd, Errno::BADF), (1024, Errno::INVAL)] {
        let mut import = drm::PrimeHandle { fd, ..Default::default() };
        assert_eq!(c.call(drm::PRIME_FD_TO_HANDLE, &mut import), Err(errno));
    }
}

#[test]
fn mmap_needs_a_handle_and_stays_within() {
    let sim = sim();
    let (a, b) = (Client::new(&sim), Client::new(&sim));
    let bo = a.system(K64);
    let try_map = |c: &Client<'_>, offset, len| sim.mmap(&c.file, offset, len).err();
    assert_eq!(try_map(&a, bo.mem.0, K64), None);
    assert_eq!(try_map(&a, bo.mem.0 + K4, K64), Some(Errno::INVAL));
    assert_eq!(try_map(&a, bo.mem.0 + K64, K4), Some(Errno::INVAL));
    assert_eq!(try_map(&b, bo.mem.0, K4), Some(Errno::ACCES));
    let mapping = sim.mmap(&a.file, bo.mem.0, K64).expect("maps");
    a.gem_close(bo);
    assert_eq!(a.counter("live.bos"), 1, "the mapping keeps it");
    drop(mapping);
    assert_eq!(a.counter("live.bos"), 0);
}

#[test]
fn an_object_mapped_twice_moves_in_both_vms() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let (one, two) = (Gpu::new(&c), Gpu::new(&c));
    let bo = c.bo(M2, EITHER);
    c.bind(one.vm, &[map(bo, A, M2, 0)]).expect("binds");
    c.bind(two.vm, &[map(bo, 3 * A + K4, M2, 0)]).expect("binds");
    one.run(&[store(A + 8, 1)]);
    assert_eq!(c.evict(bo.handle), Ok(M2));
    two.run(&[store(3 * A + K4 + 16, 2)]);
    assert_eq!((one.read(A + 16), two.read(3 * A + K4 + 8)), (2, 1));
    c.bind(one.vm, &[prefetch(A, M2, REGION_SYSTEM)]).expect("moves");
    assert_eq!(c.info(bo).resident, REGION_SYSTEM);
    c.bind(one.vm, &[prefetch(A, M2, REGION_VRAM)]).expect("moves");
    assert_eq!(c.info(bo).resident, REGION_VRAM);
    assert_eq!((one.read(A + 16), two.read(3 * A + K4 + 8)), (2, 1));
}

#[test]
fn a_failed_copy_leaves_the_data_where_it_was() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let gpu = Gpu::new(&c);
    let bo = c.bo(K64, EITHER);
    c.poke(bo, 0, 3);
    c.bind(gpu.vm, &[map(bo, A, K64, 0)]).expect("binds");
    for (kind, errno) in [(INJECT_COPY, Errno::IO), (INJECT_DMA_MAP, Errno::NOMEM)] {
        c.inject(kind, 1);
        assert_eq!(c.evict(bo.handle), Err(errno));
        assert_eq!(c.inject(kind, 0).fired, 1);
        assert_eq!(c.info(bo).resident, REGION_VRAM);
        assert_eq!(gpu.read(A), 3);
    }
    assert_eq!(c.counter("injected"), 2);
}

#[test]
fn an_evicted_object_gives_its_sparse_region_back() {
    let sim = sim();
    let c = Client::new(&sim).testing();
    let gpu = Gpu::new(&c);
    let bo = c.bo(K64, EITHER);
    c.poke(bo, 0, 9);
    c.bind(gpu.vm, &[map_sparse(A, M2), map(bo, A, K64, 0)]).expect("binds");
    c.evict(bo.handle).expect("evicts");
    c.bind(gpu.vm, &[unmap(A, K4)]).expect("unbinds");
    assert_eq!((gpu.read(A), gpu.read(A + M2 - K4)), (0, 0));
    c.poke(bo, K4, 8);
    assert_eq!(gpu.read(A + K4), 8, "the rest was validated");
}
