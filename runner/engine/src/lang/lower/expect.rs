//! Expectations.

use super::super::ast::Span;
use super::super::expect::{Check, Expect, ExpectKind, FaultExpect, Reader};
use super::super::verbs::EXPECT_KEYS;
use super::super::words::{EXPECT_WORDS, What};
use super::super::yaml::Node;
use super::call::Call;
use super::{Kind, Lower};

impl Lower<'_> {
    /// A list of expectations, or one.
    pub(super) fn expects(&mut self, node: &Node) -> Vec<Expect> {
        let mut out = Vec::new();
        for item in self.list(node) {
            self.expect(item, &mut out);
        }
        out
    }

    fn expect(&mut self, node: &Node, out: &mut Vec<Expect>) {
        let Some(call) = self.call(node, &EXPECT_WORDS, EXPECT_KEYS) else { return };
        if !self.when(call.get("when")) {
            return;
        }
        let span = call.span;
        let line = self.line(span);
        if call.word.what == What::Table("resident") {
            for kind in self.resident(&call) {
                out.push(Expect { span, line, kind });
            }
        } else if let Some(kind) = self.expect_kind(&call) {
            out.push(Expect { span, line, kind });
        }
    }

    fn expect_kind(&mut self, call: &Call<'_>) -> Option<ExpectKind> {
        let What::Table(name) = call.word.what else { return None };
        match name {
            "value" => self.value_expect(call),
            "maps" => self.maps_expect(call),
            "faults" => {
                let vm = self.expect_vm(call);
                let value = call.value?;
                self.need("fault_report", call.span);
                let items = self.list(value);
                let faults: Vec<FaultExpect> = items.iter().filter_map(|n| self.fault(n)).collect();
                Some(ExpectKind::Faults { vm, faults })
            }
            "queue" => Some(ExpectKind::Queue {
                name: self.name_ref(call.value?, &[Kind::Queue])?,
                banned: call.get("banned").and_then(|n| self.boolean(n)),
                resets: self.optional_bound(call, "resets"),
                submitted: self.optional_bound(call, "submitted"),
                completed: self.optional_bound(call, "completed"),
            }),
            "vm" => Some(ExpectKind::VmBanned {
                name: self.name_ref(call.value?, &[Kind::Vm])?,
                banned: self.flag(call.get("banned"), true),
            }),
            "syncobj" => self.syncobj_expect(call),
            "sees" | "svm.pages" | "svm.attributes" | "svm.fault_buffer" => {
                self.svm_expect(call, name)
            }
            "counters" => {
                self.need("counters", call.span);
                let bounds = self.bounds(call.value?);
                if bounds.iter().any(|bound| is_inner(&bound.counter)) {
                    self.need("svm.counters", call.span);
                }
                Some(ExpectKind::Counters(bounds))
            }
            _ => {
                let condition = self.expr(call.value?);
                self.constant_condition(call.span, name, condition.constant());
                Some(match name {
                    "always" => ExpectKind::Always(condition),
                    "never" => ExpectKind::Never(condition),
                    _ => ExpectKind::Sometimes(condition),
                })
            }
        }
    }

    fn optional_bound(&mut self, call: &Call<'_>, key: &str) -> Option<Check> {
        call.get(key).and_then(|n| self.bound_check(n))
    }

    fn constant_condition(&mut self, span: Span, name: &str, value: Option<u64>) {
        let help = "name results of reads (`as: r1`) in the condition";
        match (name, value) {
            (_, None) => {}
            ("always" | "sometimes", Some(0)) | ("never", Some(1..)) => {
                self.error("never-holds", span, "this expectation can never hold", help);
            }
            _ => self.error("always-holds", span, "this expectation always holds", help),
        }
    }

    fn value_expect(&mut self, call: &Call<'_>) -> Option<ExpectKind> {
        let (at, check) = self.compared(call)?;
        let Some(check) = check else {
            let help = "write `value: a == 5`, or add `equals:`, `in:` or `between:`";
            self.error("missing-key", call.span, "what value is expected?", help);
            return None;
        };
        let width = self.width(call);
        self.check_width(Some(&check), width, call.span);
        let by = call.get("by").and_then(|n| self.one_of(n, &["both", "cpu", "gpu"]));
        let by = by.map_or(Reader::Both, |i| [Reader::Both, Reader::Cpu, Reader::Gpu][i]);
        self.empty_check(&check, call.span);
        Some(ExpectKind::Value { at, width, check, by })
    }

    /// Checks that no value passes.
    fn empty_check(&mut self, check: &Check, span: Span) {
        let never = match check {
            Check::In(values) => values.is_empty(),
            Check::Between(low, high) => {
                matches!((low.constant(), high.constant()), (Some(l), Some(h)) if l > h)
            }
            Check::Compare(..) => false,
        };
        if never {
            let help = "write values that can be seen";
            self.error("never-holds", span, "no value can meet this", help);
        }
    }

    fn maps_expect(&mut self, call: &Call<'_>) -> Option<ExpectKind> {
        self.need("va_dump", call.span);
        self.need("vm_bind", call.span);
        let vm = self.expect_vm(call);
        let maps = self.mappings(call.value?);
        let within = call.get("within").and_then(|n| self.between(n));
        let read = self.flag(call.get("read"), true);
        Some(ExpectKind::Maps {
            vm,
            maps,
            within,
            read,
            holes: self.flag(call.get("holes"), false),
        })
    }

    fn expect_vm(&mut self, call: &Call<'_>) -> Option<String> {
        let vm = call.get("vm").and_then(|n| self.name_ref(n, &[Kind::Vm]));
        if vm.is_none() {
            self.needs_vm.insert(self.client.clone());
        }
        vm
    }

    fn syncobj_expect(&mut self, call: &Call<'_>) -> Option<ExpectKind> {
        let name = self.name_ref(call.value?, &[Kind::Syncobj])?;
        let signalled = call.get("signalled").and_then(|n| self.boolean(n));
        let value = self.optional_bound(call, "value");
        if signalled.is_none() && value.is_none() {
            let help = "add `signalled: true` or `value: N`";
            self.error("missing-key", call.span, "what is expected of the syncobj?", help);
        }
        if value.is_some() {
            self.need("timeline", call.span);
        }
        Some(ExpectKind::Syncobj { name, signalled, value })
    }

    fn resident(&mut self, call: &Call<'_>) -> Vec<ExpectKind> {
        let Some(value) = call.value else { return Vec::new() };
        let mut out = Vec::new();
        self.need("placement", call.span);
        for (key, region) in self.entries(value, "a mapping from memory to regions") {
            self.names.use_of(&[Kind::Memory], &key.text, key.span);
            if let Some(region) = self.region(region) {
                out.push(ExpectKind::Resident { memory: key.text.clone(), region });
            }
        }
        out
    }
}

/// Whether only a driver that tells about its inside has the counter: the others a device can know from
/// what it was asked and answered.
fn is_inner(counter: &str) -> bool {
    let outer = ["svm.faults", "svm.cancels", "svm.exclusive"];
    let moved = counter.starts_with("svm.migrated.");
    counter.starts_with("svm.") && !moved && !outer.contains(&counter)
}
