//! Steps about what a kernel does with pages by itself.

use super::super::kernel::KernelStep;
use super::super::step::Action;
use super::call::Call;
use super::{Kind, Lower};

impl Lower<'_> {
    /// The verbs of `KERNEL_STEPS`.
    pub(super) fn kernel_step(&mut self, call: &Call<'_>, name: &str) -> Option<Action> {
        self.need("mm.page_identity", call.span);
        let part = self.cpu_part(call)?;
        let pages = call.get("pages").and_then(|n| self.bound_check(n));
        let step = match name {
            "mm.compact" => {
                self.need("mm.compact", call.span);
                let name = call.get("as").and_then(|n| self.new_name(n, Kind::Result));
                KernelStep::Compact { part, pages, name }
            }
            "mm.khugepaged" => {
                self.need("mm.khugepaged", call.span);
                KernelStep::Collapse { part, pages: pages?, timeout: self.timeout(call) }
            }
            _ => {
                self.need("mm.core_dump", call.span);
                let lost = call.get("lost").and_then(|n| self.bound_check(n));
                KernelStep::Dump { part, lost, closed: self.flag(call.get("closed"), false) }
            }
        };
        Some(Action::Kernel(step))
    }
}
