//! The invariants of a device, checked by walking all of it: for tests and the fuzzer.
//!
//! Owns what must hold between the parts; each part checks itself. To be called while no call and no
//! worker runs.

use fencepost_uapi::fencepost as fp;

use crate::counters::Counter;
use crate::driver::{Driver, File};
use crate::gem::GemRef;
use crate::gpuva::{Mapping, Span};
use crate::host::Host;
use crate::pgtable::Target;
use crate::vm::{Space, Vm};

/// What the parts add up to.
#[derive(Default)]
struct Sums {
    vas: u64,
    vms: u64,
    nodes: u64,
}

impl<H: Host> Driver<H> {
    /// Panics if an invariant is broken. `files` are all open files.
    pub fn assert_consistent(&self, files: &[File<H>]) {
        let dev = self.device();
        let mut sums = Sums::default();
        for file in files {
            for (_, vm) in file.inner().tables().vms.iter() {
                check_vm(vm, &mut sums);
            }
        }
        let live = |counter| dev.counters.get(counter);
        assert_eq!(live(Counter::LiveFiles), files.len() as u64, "files");
        assert_eq!(live(Counter::LiveVms), sums.vms, "VMs");
        // Those of VMs that are gone but for their last bind jobs come on top.
        assert!(live(Counter::LiveVas) >= sums.vas, "mappings");
        assert!(live(Counter::LivePtNodes) >= sums.nodes, "page-table nodes");
        self.check_objects();
        assert_eq!(live(Counter::Leaks), 0, "leaks");
    }

    fn check_objects(&self) {
        let dev = self.device();
        let (mut bos, mut vram, mut system) = (0, 0, 0);
        for (_, gem) in dev.objects.lock().iter() {
            bos += 1;
            match gem.resident() {
                fp::REGION_VRAM => vram += gem.size,
                fp::REGION_SYSTEM => system += gem.size,
                _ => {}
            }
            assert!(gem.placement & gem.resident() == gem.resident(), "where it may be");
        }
        crate::svm::devmem::drain(dev);
        let chunks = crate::svm::devmem::check(dev) * fp::PAGE_SIZE;
        let allocator = dev.vram.lock();
        allocator.assert_consistent();
        let vram = vram + chunks;
        assert_eq!(allocator.used() * fp::PAGE_SIZE, vram, "frames of objects and address spaces");
        assert_eq!(dev.counters.get(Counter::LiveBos), bos, "objects");
        assert_eq!(dev.counters.get(Counter::LiveVramBytes), vram, "VRAM");
        assert_eq!(dev.counters.get(Counter::LiveSystemBytes), system, "system memory");
    }
}

fn check_vm<H: Host>(vm: &Vm<H>, sums: &mut Sums) {
    let space = vm.space();
    space.manager.assert_consistent();
    sums.vms += 1;
    sums.vas += space.manager.len() as u64;
    let mmu = vm.mmu();
    mmu.table.assert_consistent();
    sums.nodes += mmu.table.nodes();
    drop(mmu);
    let pending = space.pending.iter().any(|pending| !pending.fence.is_signalled());
    if pending || vm.is_banned() {
        return;
    }
    let evicted = space.manager.objects().filter(|gem| gem.is_evicted(vm)).count() as u64;
    let noted = vm.evicted.load(crate::facade::Ordering::Relaxed);
    assert_eq!(evicted, noted, "evicted objects");
    check_pages(vm, &space);
}

/// Without bind jobs under way the page table shows what the address space says.
fn check_pages<H: Host>(vm: &Vm<H>, space: &Space<H>) {
    let mut at = vm.span.start;
    for mapping in space.manager.iter(vm.span) {
        if mapping.attrs.is_mirror() {
            check_gap(vm, space, Span::new(at, mapping.span.start));
            at = mapping.span.end;
            continue;
        }
        check_gap(vm, space, Span::new(at, mapping.span.start));
        for addr in samples(mapping.span) {
            check_page(vm, &mapping, addr);
        }
        at = mapping.span.end;
    }
    check_gap(vm, space, Span::new(at, vm.span.end));
}

/// Some pages of a range: the edges and one in between.
fn samples(span: Span) -> [u64; 3] {
    let middle = span.start + span.len() / 2 / fp::PAGE_SIZE * fp::PAGE_SIZE;
    [span.start, middle, span.end - fp::PAGE_SIZE]
}

fn check_gap<H: Host>(vm: &Vm<H>, space: &Space<H>, gap: Span) {
    if gap.is_empty() {
        return;
    }
    for addr in samples(gap) {
        let page = Span::new(addr, addr + fp::PAGE_SIZE);
        let in_region = space.manager.regions(page).next().is_some();
        let shown = vm.mmu().table.walk(addr).map(|entry| entry.target);
        let expected = in_region.then_some(Target::Sparse);
        assert_eq!(shown, expected, "{addr:#x} in a gap of the VA space");
    }
    if space.manager.regions(gap).next().is_none() {
        assert_eq!(vm.mmu().table.count(gap), [0; 3], "nothing is shown in a gap");
    }
}

fn check_page<H: Host>(vm: &Vm<H>, mapping: &Mapping<&GemRef<H>>, addr: u64) {
    let entry = vm.mmu().table.walk(addr);
    let Some(gem) = mapping.object else {
        let entry = entry.unwrap_or_else(|| panic!("NULL at {addr:#x}"));
        assert_eq!(entry.target, Target::Null, "{addr:#x}");
        return;
    };
    // Of an evicted object only what was mapped since is shown.
    let is_hidden = entry.is_none_or(|entry| entry.target == Target::Sparse);
    if is_hidden && gem.is_evicted(vm) {
        return;
    }
    let entry = entry.unwrap_or_else(|| panic!("object at {addr:#x}"));
    let offset = mapping.offset + (addr - mapping.span.start);
    let expected = gem.place.lock().run(offset, gem.size).map(|(phys, _)| phys);
    assert_eq!(entry.phys(addr), expected, "{addr:#x}");
    let readonly = mapping.attrs.flags & fp::BIND_READONLY != 0;
    assert_eq!((entry.readonly, entry.kind), (readonly, mapping.attrs.kind), "{addr:#x}");
}
