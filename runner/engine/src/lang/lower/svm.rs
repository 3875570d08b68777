//! Steps and expectations about CPU memory and what the device has of it.

use super::super::ast::CpuKind;
use super::super::expect::{ExpectKind, Reader};
use super::super::expr::Expr;
use super::super::grammar::{ACCESS, FAULT_BUFFER, REGIONS_OR_NONE, TUNE, cpu_kind};
use super::super::step::{Action, Place, Region};
use super::super::svm::{
    ACCESSED_BY, ADVICE, Attributes, By, FaultAction, MmStep, PLACES, PagesExpect, Part, REACH,
    Sees, SvmStep, TOLD, TRAPS, Told, Trap, Tune,
};
use super::super::verbs::{
    ACCESSED_BY_WORDS, ADVICE_WORDS, ATOMIC_MODES, CPU_KINDS, FAULT_ACTIONS, NODES, POLICIES,
    TOLD_WORDS, TRAP_WORDS,
};
use super::super::yaml::Node;
use super::call::Call;
use super::value::poison;
use super::{Kind, Lower};
use fencepost_fixtures::area::{Advice, Protection};
use fencepost_fixtures::device::{SvmAtomic, SvmReach};

impl Lower<'_> {
    /// The part of memory that a call is about.
    pub(super) fn cpu_part(&mut self, call: &Call<'_>) -> Option<Part> {
        let at = self.place(call.value.or(call.get("at"))?)?;
        Some(self.sized(call, at))
    }

    fn sized(&mut self, call: &Call<'_>, at: Place) -> Part {
        let size = match (call.get("size"), &at) {
            (Some(node), _) => self.expr(node),
            (None, Place::Memory { name, offset }) => self.rest_of(name, offset, call.span),
            (None, Place::Address(address)) => {
                if *address != poison() {
                    let help = "name memory, such as `a + 4K`";
                    self.error("wrong-type", call.span, "this is about memory with a name", help);
                }
                poison()
            }
        };
        Part { at, size }
    }

    /// What the CPU may do.
    pub(super) fn access(&mut self, node: Option<&Node>) -> Protection {
        let all = [Protection::None, Protection::Read, Protection::Write];
        let given = node.and_then(|n| self.one_of(n, ACCESS));
        given.map_or(Protection::Write, |i| all[i])
    }

    /// `mm.*`.
    pub(super) fn mm_step(&mut self, call: &Call<'_>, name: &str) -> Option<Action> {
        let step = match name {
            "mm.remap" => self.remap(call)?,
            "mm.map" if call.get("of").is_some() => {
                let part = self.cpu_part(call)?;
                MmStep::Show { part, object: self.shown(call)? }
            }
            "mm.map" => {
                let part = self.cpu_part(call)?;
                let kind = call.get("kind").and_then(|n| self.one_of(n, CPU_KINDS));
                let kind = kind.and_then(|i| cpu_kind(CPU_KINDS[i])).unwrap_or(CpuKind::Anon);
                self.kind_needs(kind, call.span);
                MmStep::Map { part, kind, access: self.access(call.get("access")) }
            }
            "mm.unmap" => MmStep::Unmap(self.cpu_part(call)?),
            "mm.protect" => {
                let part = self.cpu_part(call)?;
                MmStep::Protect { part, access: self.access(call.get("access")) }
            }
            "mm.advise" => {
                let part = self.cpu_part(call)?;
                let word = call.get("advice")?;
                let (_, advice) = ADVICE[self.one_of(word, ADVICE_WORDS)?];
                if matches!(advice, Advice::HwPoison | Advice::SoftOffline) {
                    self.need("mm.page_identity", call.span);
                    self.need("mm.hwpoison", call.span);
                }
                MmStep::Advise { part, advice }
            }
            "mm.pin" | "mm.unpin" => {
                self.need("mm.page_identity", call.span);
                MmStep::Pin { part: self.cpu_part(call)?, pinned: name == "mm.pin" }
            }
            "mm.trap" | "mm.untrap" => {
                self.need("mm.page_identity", call.span);
                let word = call.get("of").and_then(|n| self.one_of(n, TRAP_WORDS));
                let trap = TRAPS[word.unwrap_or(0)].1;
                if trap == Trap::Writes {
                    self.need("mm.uffd_wp", call.span);
                }
                MmStep::Trap { part: self.cpu_part(call)?, trapped: name == "mm.trap", trap }
            }
            "mm.move" => {
                self.need("mm.numa", call.span);
                self.need("mm.page_identity", call.span);
                let part = self.cpu_part(call)?;
                let node = self.one_of(call.get("node")?, NODES)? as u8;
                let pages = call.get("pages").and_then(|n| self.bound_check(n));
                MmStep::Move { part, node, pages }
            }
            "mm.wait" => self.told(call)?,
            _ => MmStep::Lock { part: self.cpu_part(call)?, locked: name == "mm.lock" },
        };
        Some(Action::Mm(step))
    }

    /// The object that is to be mapped; whether the GPU reaches it there is the device's affair.
    fn shown(&mut self, call: &Call<'_>) -> Option<String> {
        let object = self.name_ref(call.get("of")?, &[Kind::Memory])?;
        if let Some(kind) = call.get("kind") {
            let help = "keep one of `of` and `kind`";
            self.error("two-verbs", kind.span, "it is said twice what to map", help);
        }
        Some(object)
    }

    fn told(&mut self, call: &Call<'_>) -> Option<MmStep> {
        let part = self.cpu_part(call)?;
        let (_, told) = TOLD[self.one_of(call.get("told")?, TOLD_WORDS)?];
        self.need("mm.page_identity", call.span);
        match told {
            Told::Swap => self.need("mm.swap", call.span),
            Told::Ksm => self.need("mm.ksm", call.span),
            Told::Huge => self.need("mm.thp", call.span),
            Told::Node(_) => self.need("mm.numa", call.span),
        }
        let pages = self.bound_check(call.get("pages")?)?;
        Some(MmStep::Wait { part, told, pages, timeout: self.timeout(call) })
    }

    /// Who accesses memory, if not an instruction.
    pub(super) fn by(&mut self, call: &Call<'_>) -> Option<By> {
        let word = self.one_of(call.get("by")?, ACCESSED_BY_WORDS)?;
        self.need("mm.page_identity", call.span);
        Some(ACCESSED_BY[word].1)
    }

    fn remap(&mut self, call: &Call<'_>) -> Option<MmStep> {
        let node = call.value.or(call.get("at"))?;
        let (from, to) = match node.text() {
            Some(text) if text.contains("->") => {
                let (from, to) = self.arrow(node, "a -> b")?;
                (self.place(&from)?, Some(self.place(&to)?))
            }
            _ => (self.place(node)?, None),
        };
        let part = self.sized(call, from);
        let new_size = call.get("new_size").map(|n| self.expr(n));
        let keep = self.flag(call.get("keep"), false);
        if to.is_none() && new_size.is_none() {
            let help = "write `mm.remap: a -> b` to move it, or add `new_size: BYTES`";
            self.error("missing-key", call.span, "nothing would change", help);
        }
        Some(MmStep::Remap { part, to, new_size, keep })
    }

    fn in_vm(&mut self, call: &Call<'_>) -> Option<String> {
        let vm = call.get("vm").and_then(|n| self.name_ref(n, &[Kind::Vm]));
        if vm.is_none() {
            self.needs_vm.insert(self.client.clone());
        }
        vm
    }

    /// `svm.*` as steps.
    pub(super) fn svm_step(&mut self, call: &Call<'_>, name: &str) -> Option<Action> {
        let step = match name {
            "svm.migrate" => {
                self.need("svm.migrate", call.span);
                let strict = self.flag(call.get("strict"), false);
                if strict {
                    self.need("svm.migrate.strict", call.span);
                }
                let to = call.get("to").and_then(|n| self.region(n)).unwrap_or(Region::Vram);
                SvmStep::Migrate {
                    part: self.cpu_part(call)?,
                    vm: self.in_vm(call),
                    to,
                    strict,
                    pages: call.get("pages").and_then(|n| self.bound_check(n)),
                }
            }
            "svm.exclusive" => {
                self.need("svm.exclusive", call.span);
                SvmStep::Exclusive {
                    part: self.cpu_part(call)?,
                    vm: self.in_vm(call),
                    pages: call.get("pages").and_then(|n| self.bound_check(n)),
                }
            }
            "svm.set" => {
                self.need("svm.attributes", call.span);
                let (part, vm) = (self.cpu_part(call)?, self.in_vm(call));
                SvmStep::Set { part, vm, attributes: self.attributes(call) }
            }
            "svm.tune" => {
                self.need("svm.tune", call.span);
                self.needs_debug.insert(self.client.clone());
                self.tune(call.value?)
            }
            _ => {
                self.need("svm.fault_buffer", call.span);
                self.needs_debug.insert(self.client.clone());
                let actions = [
                    FaultAction::Pause,
                    FaultAction::Resume,
                    FaultAction::Flush,
                    FaultAction::Wait,
                ];
                SvmStep::Faults {
                    action: actions[self.one_of(call.value?, FAULT_ACTIONS)?],
                    count: call.get("count").map_or(Expr::Const(1), |n| self.expr(n)),
                    timeout: self.timeout(call),
                }
            }
        };
        Some(Action::Svm(step))
    }

    fn attributes(&mut self, call: &Call<'_>) -> Attributes {
        let regions = [Some(Region::Vram), Some(Region::System), None];
        let modes = [SvmAtomic::Undefined, SvmAtomic::Device, SvmAtomic::Global, SvmAtomic::Cpu];
        let mut one = |key: &str, words: &[&str]| {
            let node = call.get(key);
            node.and_then(|node| self.one_of(node, words))
        };
        let preferred = one("preferred", REGIONS_OR_NONE).map(|i| regions[i]);
        let atomic = one("atomic", ATOMIC_MODES).map(|i| modes[i]);
        let system_only = one("policy", POLICIES).map(|i| i == 1);
        let timeslice = call.get("timeslice").and_then(|n| self.time(n));
        let attributes = Attributes { preferred, atomic, system_only, timeslice };
        if attributes == Attributes::default() {
            let help = "add `preferred`, `atomic`, `policy` or `timeslice`";
            self.error("missing-key", call.span, "no attribute is named", help);
        }
        attributes
    }

    fn tune(&mut self, node: &Node) -> SvmStep {
        let map = self.shape(node, &TUNE);
        let chunks = map.get("chunks").map(|n| self.list(n)).unwrap_or_default();
        let chunks: Vec<Expr> = chunks.iter().map(|n| self.expr(n)).collect();
        let mixed = map.get("mixed").map(|n| self.flag(Some(n), true));
        let mut one = |key: &str| map.get(key).map(|n| self.expr(n));
        SvmStep::Tune(Tune {
            mixed,
            notifier: one("notifier"),
            check_pages: one("check_pages"),
            fault_entries: one("fault_entries"),
            fault_batch: one("fault_batch"),
            chunks,
        })
    }

    /// Expectations about CPU memory.
    pub(super) fn svm_expect(&mut self, call: &Call<'_>, name: &str) -> Option<ExpectKind> {
        match name {
            "sees" => {
                let part = self.cpu_part(call)?;
                let by = call.get("by").and_then(|n| self.one_of(n, &["both", "cpu", "gpu"]));
                let by = by.map_or(Reader::Both, |i| [Reader::Both, Reader::Cpu, Reader::Gpu][i]);
                let vm = match by {
                    Reader::Cpu => None,
                    _ => {
                        self.need("svm", call.span);
                        self.in_vm(call)
                    }
                };
                let holes = self.flag(call.get("holes"), true);
                Some(ExpectKind::Sees(Box::new(Sees { part, vm, by, holes })))
            }
            "svm.pages" => {
                self.need("svm.query", call.span);
                self.pages_expect(call)
            }
            "svm.attributes" => {
                self.need("svm.attributes", call.span);
                let (part, vm) = (self.cpu_part(call)?, self.in_vm(call));
                Some(ExpectKind::Attributes { part, vm, attributes: self.attributes(call) })
            }
            _ => {
                self.need("svm.fault_buffer", call.span);
                self.needs_debug.insert(self.client.clone());
                let map = self.shape(call.value?, &FAULT_BUFFER);
                Some(ExpectKind::FaultBuffer {
                    pending: map.get("pending").and_then(|n| self.bound_check(n)),
                    paused: map.get("paused").and_then(|n| self.boolean(n)),
                })
            }
        }
    }

    fn pages_expect(&mut self, call: &Call<'_>) -> Option<ExpectKind> {
        let places = self.words_of(call.get("place"), PLACES);
        let gpu = self.words_of(call.get("gpu"), REACH);
        if call.get("gpu_order").is_some() || gpu.iter().any(|reach| *reach != SvmReach::Atomic) {
            self.need("svm.query.gpu", call.span);
        }
        let (part, vm) = (self.cpu_part(call)?, self.in_vm(call));
        let expect = PagesExpect {
            part,
            vm,
            places,
            access: call.get("access").map(|n| self.access(Some(n))),
            gpu,
            order: call.get("order").and_then(|n| self.bound_check(n)),
            gpu_order: call.get("gpu_order").and_then(|n| self.bound_check(n)),
            count: call.get("count").and_then(|n| self.bound_check(n)),
        };
        let said = !expect.places.is_empty() || expect.access.is_some() || !expect.gpu.is_empty();
        if !said && expect.order.is_none() && expect.gpu_order.is_none() {
            let help = "add `place`, `access`, `gpu`, `order` or `gpu_order`";
            self.error("missing-key", call.span, "nothing is said of the pages", help);
        }
        Some(ExpectKind::Pages(Box::new(expect)))
    }

    /// One or several words of a table.
    fn words_of<T: Copy>(&mut self, node: Option<&Node>, names: &[(&str, T)]) -> Vec<T> {
        let words: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let list = node.map(|n| self.list(n)).unwrap_or_default();
        let found = list.iter().filter_map(|item| self.one_of(item, &words));
        found.map(|i| names[i].1).collect()
    }

    /// Capabilities that a kind of CPU memory needs.
    pub(super) fn kind_needs(&mut self, kind: CpuKind, span: super::super::ast::Span) {
        match kind {
            CpuKind::Hugetlb => self.need("mm.hugetlb", span),
            CpuKind::Thp => self.need("mm.thp", span),
            CpuKind::DeviceFile => {
                self.need("svm.device_file", span);
                self.need("mm.mixed_map", span);
            }
            _ => {}
        }
    }
}
