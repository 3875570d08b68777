//! The kernel's manager as the check sees it: gpuvm.c made safe.
//!
//! Owns the records that both sides are compared by, and the lists they go into.
#![expect(unsafe_code, reason = "calls C")]

use core::ffi::{c_int, c_void};
use core::ptr::NonNull;
use kernel::alloc::KVVec;
use kernel::prelude::*;

/// A mapping: `struct fpg_map`. `object` 0: none; `offset` is 0 then.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Map {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) object: u64,
    pub(crate) offset: u64,
}

/// Kinds of [`Op`], `enum fpg_kind`.
pub(crate) const MAP: u32 = 0;
pub(crate) const REMAP: u32 = 1;
pub(crate) const UNMAP: u32 = 2;
pub(crate) const PREFETCH: u32 = 3;

/// An elementary operation: `struct fpg_op`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) kind: u32,
    pub(crate) keep: u32,
    pub(crate) has_prev: u32,
    pub(crate) has_next: u32,
    pub(crate) map: Map,
    pub(crate) prev: Map,
    pub(crate) next: Map,
}

/// A list of operations of fixed room.
pub(crate) struct List {
    ops: KVVec<Op>,
}

impl List {
    pub(crate) fn new(room: usize) -> Result<Self> {
        Ok(Self { ops: KVVec::with_capacity(room, GFP_KERNEL)? })
    }

    pub(crate) fn clear(&mut self) {
        self.ops.clear();
    }

    /// Appends; what does not fit makes the lists differ, which is noticed.
    pub(crate) fn push(&mut self, op: Op) {
        let _ = self.ops.push_within_capacity(op);
    }

    pub(crate) fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// In the order of addresses, where the order of operations says nothing.
    pub(crate) fn sort(&mut self) {
        self.ops.sort_unstable_by_key(|op| op.map);
    }

    /// Lets C write the list.
    fn filled(&mut self, write: impl FnOnce(*mut RawList) -> c_int) -> c_int {
        self.clear();
        let room = self.ops.capacity();
        let mut raw = RawList { ops: self.ops.as_mut_ptr(), cap: room as u64, len: 0 };
        let result = write(&mut raw);
        // SAFETY: C wrote `len` operations, not more than there is room for.
        unsafe { self.ops.inc_len(raw.len as usize) };
        result
    }
}

/// `struct fpg_list`.
#[repr(C)]
struct RawList {
    ops: *mut Op,
    cap: u64,
    len: u64,
}

/// A request to map, `struct fpg_request`. To the benchmark one without object is to unmap.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) start: u64,
    pub(crate) range: u64,
    pub(crate) object: u64,
    pub(crate) offset: u64,
}

unsafe extern "C" {
    fn fpg_create(start: u64, range: u64, hole: u64, hole_range: u64, objects: u64) -> *mut c_void;
    fn fpg_destroy(vm: *mut c_void);
    fn fpg_map(vm: *mut c_void, request: *const Request, apply: bool, out: *mut RawList) -> c_int;
    fn fpg_unmap(vm: *mut c_void, start: u64, range: u64, apply: bool, out: *mut RawList) -> c_int;
    fn fpg_unmap_object(vm: *mut c_void, object: u64, out: *mut RawList) -> c_int;
    fn fpg_madvise(vm: *mut c_void, start: u64, range: u64, out: *mut RawList) -> c_int;
    fn fpg_prefetch(vm: *mut c_void, start: u64, range: u64, out: *mut RawList) -> c_int;
    fn fpg_table(vm: *mut c_void, start: u64, end: u64, out: *mut RawList) -> c_int;
    fn fpg_has_mappings(vm: *mut c_void, object: u64) -> bool;
    fn fpg_bench(vm: *mut c_void, requests: *const Request, count: u64) -> c_int;
    safe fn fpg_now_ns() -> u64;
    safe fn fpg_yield();
    pub(crate) safe fn fpg_start() -> c_int;
    pub(crate) safe fn fpg_stop();
}

/// Time since the boot.
pub(crate) fn now_ns() -> u64 {
    fpg_now_ns()
}

/// Lets others run.
pub(crate) fn breathe() {
    fpg_yield();
}

/// A VA space of the kernel's manager. Its objects are 1 to the number given.
pub(crate) struct Gpuvm {
    raw: NonNull<c_void>,
}

// Every call below hands C the VA space that `fpg_create` made and a list that `List::filled`
// prepared, and takes `&mut self` where C changes something: that is all that gpuvm.h asks for.
impl Gpuvm {
    /// Over [`start`, `end`), with a reserved part (empty: none).
    pub(crate) fn new(span: (u64, u64), hole: (u64, u64), objects: u64) -> Result<Self> {
        // SAFETY: no requirements beyond valid ranges.
        let raw = unsafe { fpg_create(span.0, span.1 - span.0, hole.0, hole.1 - hole.0, objects) };
        Ok(Self { raw: NonNull::new(raw).ok_or(ENOMEM)? })
    }

    /// The operations that map, as a list that is thrown away, or applied as they come.
    pub(crate) fn map(&mut self, request: &Request, apply: bool, out: &mut List) -> c_int {
        // SAFETY: as above.
        out.filled(|out| unsafe { fpg_map(self.raw.as_ptr(), request, apply, out) })
    }

    /// The operations that unmap, likewise.
    pub(crate) fn unmap(&mut self, start: u64, range: u64, apply: bool, out: &mut List) -> c_int {
        // SAFETY: as above.
        out.filled(|out| unsafe { fpg_unmap(self.raw.as_ptr(), start, range, apply, out) })
    }

    /// Unmaps every mapping of an object.
    pub(crate) fn unmap_object(&mut self, object: u64, out: &mut List) -> c_int {
        // SAFETY: as above.
        out.filled(|out| unsafe { fpg_unmap_object(self.raw.as_ptr(), object, out) })
    }

    /// Splits mappings without object at the edges of a range.
    pub(crate) fn madvise(&mut self, start: u64, range: u64, out: &mut List) -> c_int {
        // SAFETY: as above.
        out.filled(|out| unsafe { fpg_madvise(self.raw.as_ptr(), start, range, out) })
    }

    /// The prefetch operations of a range.
    pub(crate) fn prefetch(&mut self, start: u64, range: u64, out: &mut List) -> c_int {
        // SAFETY: as above.
        out.filled(|out| unsafe { fpg_prefetch(self.raw.as_ptr(), start, range, out) })
    }

    /// What is mapped in a range that lies in the VA space, as [`MAP`].
    pub(crate) fn table(&self, start: u64, end: u64, out: &mut List) -> c_int {
        // SAFETY: as above.
        out.filled(|out| unsafe { fpg_table(self.raw.as_ptr(), start, end, out) })
    }

    /// Whether an object is mapped somewhere.
    pub(crate) fn has_mappings(&self, object: u64) -> bool {
        // SAFETY: as above.
        unsafe { fpg_has_mappings(self.raw.as_ptr(), object) }
    }

    /// Does all requests.
    pub(crate) fn bench(&mut self, requests: &[Request]) -> Result {
        let count = requests.len() as u64;
        // SAFETY: as above; the requests are `count`.
        let result = unsafe { fpg_bench(self.raw.as_ptr(), requests.as_ptr(), count) };
        kernel::error::to_result(result)
    }
}

impl Drop for Gpuvm {
    fn drop(&mut self) {
        // SAFETY: made by `fpg_create`, gone after this.
        unsafe { fpg_destroy(self.raw.as_ptr()) }
    }
}
