//! The VA dump: the mappings and sparse regions of a VM as records.
//!
//! Owns their order and what each field says.

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::{Va, VaDump};
use fencepost_uapi::Errno;

use super::{Space, Vm};
use crate::call::Call;
use crate::facade::Vec;
use crate::gem::GemRef;
use crate::gpuva::{Mapping, Span};
use crate::host::Host;

/// A record before the handle of its object is looked up.
struct Listed<H: Host> {
    va: Va,
    gem: Option<GemRef<H>>,
}

/// [`fp::VA_DUMP`].
pub fn va_dump<H: Host>(call: &Call<'_, H>, args: &mut VaDump) -> Result<i64, Errno> {
    Call::<H>::check_stride::<Va>(args.stride)?;
    let vm = call.file.any_vm(args.vm_id)?;
    let end = match args.end {
        0 => vm.span.end,
        end => end,
    };
    let span = Span::new(args.start, end);
    if args.start > end {
        return Err(Errno::INVAL);
    }
    let (listed, total) = list(&vm, span, args.num as usize)?;
    let mut vas = Vec::with_capacity(listed.len())?;
    for Listed { mut va, gem } in listed {
        if let Some(gem) = gem {
            va.handle = call.file.handles.handle_of(&gem);
            va.resident = gem.resident();
            va.object = gem.id;
        }
        vas.push(va)?;
    }
    call.write_array(args.vas, &vas, args.stride)?;
    args.num = u32::try_from(total).unwrap_or(u32::MAX);
    Ok(0)
}

/// Every record of a VM, as nobody in particular sees it: without handles.
///
/// # Errors
/// `ENOMEM`.
pub fn all<H: Host>(vm: &Vm<H>) -> Result<Vec<Va>, Errno> {
    let (listed, _) = list(vm, vm.span, usize::MAX)?;
    let mut vas = Vec::with_capacity(listed.len())?;
    for Listed { mut va, gem } in listed {
        if let Some(gem) = gem {
            va.resident = gem.resident();
            va.object = gem.id;
        }
        vas.push(va)?;
    }
    Ok(vas)
}

/// Up to `room` records of a range, and how many there are.
fn list<H: Host>(vm: &Vm<H>, span: Span, room: usize) -> Result<(Vec<Listed<H>>, usize), Errno> {
    let space = vm.space();
    let Space { manager, .. } = &*space;
    if span.is_empty() {
        return Ok((Vec::new(), 0));
    }
    let total = manager.iter(span).count() + manager.regions(span).count();
    let mut listed = Vec::with_capacity(room.min(total))?;
    let mut regions = manager.regions(span).peekable();
    let mut mappings = manager.iter(span).peekable();
    while listed.len() < room {
        // A region comes before what is inside of it.
        let region_first = match (regions.peek(), mappings.peek()) {
            (Some(region), Some(mapping)) => region.start <= mapping.span.start,
            (region, _) => region.is_some(),
        };
        let record = match region_first {
            true => regions.next().map(|region| sparse(vm, region)),
            false => mappings.next().map(|mapping| mapped(vm, &mapping)),
        };
        let Some(record) = record else { break };
        listed.push(record)?;
    }
    Ok((listed, total))
}

fn sparse<H: Host>(vm: &Vm<H>, region: Span) -> Listed<H> {
    let va = Va { flags: fp::BIND_SPARSE, ..counted(vm, region) };
    Listed { va, gem: None }
}

fn mapped<H: Host>(vm: &Vm<H>, mapping: &Mapping<&GemRef<H>>) -> Listed<H> {
    let va = Va {
        offset: mapping.offset,
        flags: mapping.attrs.flags,
        kind: u32::from(mapping.attrs.kind),
        preferred: mapping.attrs.preferred,
        ..counted(vm, mapping.span)
    };
    Listed { va, gem: mapping.object.cloned() }
}

fn counted<H: Host>(vm: &Vm<H>, span: Span) -> Va {
    let [ptes_4k, ptes_64k, ptes_2m] =
        vm.mmu().table.count(span).map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    Va { addr: span.start, range: span.len(), ptes_4k, ptes_64k, ptes_2m, ..Va::default() }
}
