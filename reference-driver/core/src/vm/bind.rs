//! The bind call: its checks, and its way through the three stages.
//!
//! Owns what of a call can be refused by looking at it, and the looking up of objects. Updating the
//! address space is [`super::prepare`]'s, page tables are [`crate::sched::bind`]'s.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::{BindOp, Sync, VmBind};
use fencepost_uapi::{Errno, Record};

use super::prepare::{self, Request};
use super::Vm;
use crate::call::Call;
use crate::counters::Counter;
use crate::facade::{Arc, Vec};
use crate::gem::GemRef;
use crate::gpuva::{Attrs, Span};
use crate::host::Host;
use crate::ioctl::check_fields;
use crate::sched::queue::Queue;
use crate::sync::args::{self, Syncs};

/// How often a call that only unmaps asks again for memory before it gives up: it must not fail
/// for want of it, as an allocation with `__GFP_NOFAIL` must not.
const UNMAP_TRIES: u32 = 16;

/// One operation, checked, with its object.
pub enum Action<H: Host> {
    /// Map an object or, without, NULL.
    Map {
        /// The range.
        span: Span,
        /// The object.
        gem: Option<GemRef<H>>,
        /// Offset in it.
        offset: u64,
        /// Flags and kind.
        attrs: Attrs,
    },
    /// Make a sparse region.
    MapSparse(Span),
    /// Unmap a range.
    Unmap(Span),
    /// Remove a sparse region and all within.
    UnmapSparse(Span),
    /// Unmap every mapping of an object.
    UnmapAll(GemRef<H>),
    /// Move the objects mapped in the range to a region.
    Prefetch(Span, u32),
    /// Set the preferred region of NULL mappings.
    Madvise(Span, u32),
}

impl<H: Host> Action<H> {
    /// The range, if it has one.
    pub fn span(&self) -> Option<Span> {
        match self {
            Action::Map { span, .. }
            | Action::MapSparse(span)
            | Action::Unmap(span)
            | Action::UnmapSparse(span)
            | Action::Prefetch(span, _)
            | Action::Madvise(span, _) => Some(*span),
            Action::UnmapAll(_) => None,
        }
    }
}

/// [`fp::VM_BIND`].
pub fn bind<H: Host>(call: &Call<'_, H>, args: &mut VmBind) -> Result<i64, Errno> {
    let result = attempt(call, args);
    if result.is_err() {
        call.dev.counters.inc(Counter::BindsFailed);
    }
    result
}

fn attempt<H: Host>(call: &Call<'_, H>, args: &VmBind) -> Result<i64, Errno> {
    let is_async = args.flags & fp::VM_BIND_ASYNC != 0;
    Call::<H>::check_stride::<BindOp>(args.op_stride)?;
    Call::<H>::check_stride::<Sync>(args.sync_stride)?;
    if !is_async && args.num_syncs != 0 {
        return Err(Errno::INVAL);
    }
    let mut tries = 0;
    loop {
        match once(call, args, is_async) {
            Err(Errno::NOMEM) if tries < UNMAP_TRIES && only_unmaps(call, args) => tries += 1,
            done => return done,
        }
    }
}

/// Whether a call, for which there may be no memory at all, takes away only.
fn only_unmaps<H: Host>(call: &Call<'_, H>, args: &VmBind) -> bool {
    let is_unmap = |index: u32| {
        let mut op = [0; 4];
        let at = args.ops.wrapping_add(u64::from(index) * u64::from(args.op_stride));
        call.read(at, &mut op).is_ok()
            && matches!(u32::from_ne_bytes(op), fp::BIND_OP_UNMAP | fp::BIND_OP_UNMAP_ALL)
    };
    args.num_ops > 0 && (0..args.num_ops).all(is_unmap)
}

fn once<H: Host>(call: &Call<'_, H>, args: &VmBind, is_async: bool) -> Result<i64, Errno> {
    let ops: Vec<BindOp> = call.read_array(args.ops, args.num_ops, args.op_stride)?;
    let syncs: Vec<Sync> = call.read_array(args.syncs, args.num_syncs, args.sync_stride)?;
    for op in &ops {
        check_op(call, op)?;
    }
    args::check(&syncs)?;
    let vm = call.file.vm(args.vm_id)?;
    let queue = find_queue(call, &vm, args.queue_id)?;
    let mut actions = Vec::with_capacity(ops.len())?;
    for op in &ops {
        actions.push(find_action(call, &vm, op)?)?;
    }
    let syncs = Syncs::find(call, &syncs, vm.is_long_running())?;
    prepare::submit(call, Request { vm, queue, actions, syncs, is_async })?;
    Ok(0)
}

fn find_queue<H: Host>(
    call: &Call<'_, H>,
    vm: &Arc<Vm<H>>,
    id: u32,
) -> Result<Option<Arc<Queue<H>>>, Errno> {
    if id == 0 {
        return Ok(None);
    }
    let queue = call.file.queue(id)?;
    let fits = queue.class == fp::QUEUE_CLASS_BIND && Arc::ptr_eq(&queue.vm, vm);
    fits.then_some(Some(queue)).ok_or(Errno::INVAL)
}

/// Checks what needs no object: the rules of each operation.
fn check_op<H: Host>(call: &Call<'_, H>, op: &BindOp) -> Result<(), Errno> {
    let mut bytes = [0; BindOp::SIZE];
    op.encode(&mut bytes);
    check_fields(BindOp::FIELDS, &bytes)?;
    let none = |values: &[u64]| values.iter().all(|value| *value == 0);
    let (handle, kind) = (u64::from(op.handle), u64::from(op.kind));
    let only = |flags: u32| op.flags & !flags == 0;
    let vram = match call.dev.config.vram_bytes {
        0 => 0,
        _ => fp::REGION_VRAM,
    };
    let is_region = op.value == u64::from(fp::REGION_SYSTEM) || op.value == u64::from(vram);
    let fits = match op.op {
        fp::BIND_OP_MAP => op.range != 0 && op.value == 0 && check_map(op),
        fp::BIND_OP_UNMAP => {
            op.range != 0 && only(fp::BIND_SPARSE) && none(&[handle, kind, op.offset, op.value])
        }
        fp::BIND_OP_UNMAP_ALL => {
            handle != 0 && only(0) && none(&[kind, op.addr, op.range, op.offset, op.value])
        }
        fp::BIND_OP_PREFETCH => {
            op.range != 0
                && only(0)
                && none(&[handle, kind, op.offset])
                && op.value != 0
                && is_region
        }
        _ => {
            op.range != 0
                && only(0)
                && none(&[handle, kind, op.offset])
                && (op.value == 0 || is_region)
        }
    };
    fits.then_some(()).ok_or(Errno::INVAL)
}

/// The rules of a map operation.
fn check_map(op: &BindOp) -> bool {
    let no_object = op.handle == 0 && op.offset == 0;
    if op.flags & fp::BIND_CPU_MIRROR != 0 {
        return op.flags == fp::BIND_CPU_MIRROR && no_object && op.kind == 0;
    }
    match op.flags & (fp::BIND_NULL | fp::BIND_SPARSE) {
        0 => op.handle != 0,
        fp::BIND_NULL => no_object,
        fp::BIND_SPARSE => no_object && op.kind == 0 && op.flags == fp::BIND_SPARSE,
        _ => false,
    }
}

/// Looks up the object of an operation and checks the range against it and the VM.
fn find_action<H: Host>(call: &Call<'_, H>, vm: &Vm<H>, op: &BindOp) -> Result<Action<H>, Errno> {
    if op.op == fp::BIND_OP_UNMAP_ALL {
        return Ok(Action::UnmapAll(call.file.handles.gem(op.handle)?));
    }
    let gem = match op.handle {
        0 => None,
        handle => Some(call.file.handles.gem(handle)?),
    };
    let span = Span::sized(op.addr, op.range).ok_or(Errno::INVAL)?;
    vm.space().manager.check(span)?;
    let is_sparse = op.flags & fp::BIND_SPARSE != 0;
    Ok(match op.op {
        fp::BIND_OP_MAP if is_sparse => Action::MapSparse(span),
        fp::BIND_OP_MAP => {
            if op.flags & fp::BIND_CPU_MIRROR != 0 && vm.svm.is_none() {
                return Err(Errno::OPNOTSUPP);
            }
            if let Some(gem) = &gem {
                let end = op.offset.checked_add(op.range).ok_or(Errno::INVAL)?;
                if end > gem.size || !vm.may_map(gem) {
                    return Err(Errno::INVAL);
                }
            }
            let flags = op.flags & (fp::BIND_READONLY | fp::BIND_NULL | fp::BIND_CPU_MIRROR);
            let attrs = Attrs { flags, kind: op.kind as u8, preferred: 0 };
            Action::Map { span, gem, offset: op.offset, attrs }
        }
        fp::BIND_OP_UNMAP if is_sparse => Action::UnmapSparse(span),
        fp::BIND_OP_UNMAP => Action::Unmap(span),
        fp::BIND_OP_PREFETCH => Action::Prefetch(span, op.value as u32),
        _ => Action::Madvise(span, op.value as u32),
    })
}
