//! Creating and destroying VMs, and the fault report.
//!
//! Owns their checks. Binds are in [`super::bind`], the VA dump in [`super::dump`].

use fencepost_uapi::fencepost as fp;
use fencepost_uapi::fencepost::{Fault, FaultReport, VmCreate, VmDestroy};
use fencepost_uapi::Errno;

use super::{NewVm, Vm};
use crate::call::Call;
use crate::facade::{Ordering, Vec};
use crate::gpuva::Span;
use crate::host::Host;
use crate::svm::Svm;

/// [`fp::VM_CREATE`].
pub fn create<H: Host>(call: &Call<'_, H>, args: &mut VmCreate) -> Result<i64, Errno> {
    let end = match args.va_end {
        0 => fp::VA_END,
        end => end,
    };
    let hole_end = args.kernel_start.checked_add(args.kernel_size).ok_or(Errno::INVAL)?;
    if end > fp::VA_END || hole_end > end {
        return Err(Errno::INVAL);
    }
    let svm = Svm::new(call, args)?;
    let span = Span::new(0, end);
    let hole = Span::new(args.kernel_start, hole_end);
    let slot = call.file.tables().vms.reserve()?;
    match Vm::new(call.dev, NewVm { flags: args.flags, span, hole, svm }) {
        Ok(vm) => {
            args.vm_id = call.file.tables().vms.commit(slot, vm);
            Ok(0)
        }
        Err(errno) => {
            call.file.tables().vms.cancel(slot);
            Err(errno)
        }
    }
}

/// [`fp::VM_DESTROY`].
pub fn destroy<H: Host>(call: &Call<'_, H>, args: &mut VmDestroy) -> Result<i64, Errno> {
    let vm = {
        let mut tables = call.file.tables();
        let vm = tables.vms.get(args.vm_id).ok_or(Errno::NOENT)?;
        if vm.queues.load(Ordering::Acquire) > 0 {
            return Err(Errno::BUSY);
        }
        tables.vms.remove(args.vm_id)
    };
    if let Some(vm) = vm {
        vm.destroy();
    }
    Ok(0)
}

/// [`fp::FAULT_REPORT`].
pub fn fault_report<H: Host>(call: &Call<'_, H>, args: &mut FaultReport) -> Result<i64, Errno> {
    Call::<H>::check_stride::<Fault>(args.stride)?;
    let vm = call.file.any_vm(args.vm_id)?;
    let mut faults: Vec<Fault> = Vec::with_capacity(super::faults::ROOM)?;
    let (total, lost) = {
        let ring = vm.faults.lock();
        let wanted = ring.recorded().len().min(args.num as usize);
        for fault in &ring.recorded()[..wanted] {
            let fits = faults.push_within_capacity(*fault).is_ok();
            debug_assert!(fits, "room for the whole ring");
        }
        (ring.recorded().len(), ring.lost())
    };
    call.write_array(args.faults, &faults, args.stride)?;
    if args.flags & fp::FAULT_REPORT_CLEAR != 0 {
        vm.faults.lock().forget(faults.len());
    }
    args.num = total as u32;
    args.lost = lost;
    Ok(0)
}
