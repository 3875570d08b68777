//! Accesses and GPU programs: reads, writes, atomics, commands, submissions.

use super::super::ast::Span;
use super::super::diag::Diagnostic;
use super::super::expect::{Check, FaultAccess, FaultExpect, FaultKind};
use super::super::expr::{Expr, Op};
use super::super::grammar::{FAULT, FAULT_KINDS};
use super::super::step::{
    Atomic, AtomicOp, Batch, Command, Compare, Fence, Fill, JobEnd, Place, Point, Read, Submit,
    Width, Write,
};
use super::super::words::{COMMAND_WORDS, Side, What};
use super::super::yaml::{Node, NodeKind};
use super::call::Call;
use super::value::{comparison, poison};
use super::{Kind, Lower};
use std::time::Duration;

/// Longest wait where a step states none.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Deepest nesting of loops that devices take.
const MAX_LOOPS: u32 = 4;

impl Lower<'_> {
    pub(super) fn timeout(&mut self, call: &Call<'_>) -> Duration {
        call.get("timeout").and_then(|n| self.time(n)).unwrap_or(DEFAULT_TIMEOUT)
    }

    pub(super) fn width(&mut self, call: &Call<'_>) -> Width {
        match call.get("width").and_then(|n| self.one_of(n, &["4", "8"])) {
            Some(0) => Width::Four,
            _ => Width::Eight,
        }
    }

    /// Splits `PLACE == VALUE`: place, and check if there is one.
    pub(super) fn compared(&mut self, call: &Call<'_>) -> Option<(Place, Option<Check>)> {
        let Some(node) = call.value else {
            let at = self.must(call, "at")?;
            let place = self.place(at)?;
            return Some((place, self.check_keys(call)));
        };
        let text = self.word_text(node, "a place, and what it holds: `a == 5`")?;
        let span = self.part(node, 0, text.len());
        let (place, compact) = match self.raw_expr(node, &text, 0)? {
            Expr::Binary(op, left, right) if comparison(op).is_some() => {
                let place = self.place_of(*left, span);
                let value = self.finish_expr(*right, span);
                (place, comparison(op).map(|c| Check::Compare(c, value)))
            }
            expr => (self.place_of(expr, span), None),
        };
        let long = self.check_keys(call);
        if compact.is_some() && long.is_some() {
            let help = "keep one of the two";
            self.error("two-verbs", span, "what it holds is given twice", help);
        }
        Some((place, compact.or(long)))
    }

    /// `equals:`, `in:`, `between:`.
    fn check_keys(&mut self, call: &Call<'_>) -> Option<Check> {
        if let Some(node) = call.get("equals") {
            return Some(Check::Compare(Compare::Equal, self.expr(node)));
        }
        if let Some(node) = call.get("in") {
            let items = self.list(node);
            return Some(Check::In(items.iter().map(|n| self.expr(n)).collect()));
        }
        let node = call.get("between")?;
        match self.list(node) {
            [low, high] => Some(Check::Between(self.expr(low), self.expr(high))),
            _ => {
                let help = "write the smallest and the largest: `between: [1, 5]`";
                self.wrong(node, "two numbers", help);
                None
            }
        }
    }

    fn must<'n>(&mut self, call: &Call<'n>, key: &str) -> Option<&'n Node> {
        let node = call.get(key);
        if node.is_none() {
            let message = format!("`{}` has no `{key}`", call.word.name);
            let help = format!("write for instance `{}`", call.word.example);
            self.error("missing-key", call.span, message, help);
        }
        node
    }

    pub(super) fn read(&mut self, call: &Call<'_>) -> Option<Read> {
        let (at, check) = self.compared(call)?;
        let width = self.width(call);
        self.check_width(check.as_ref(), width, call.span);
        let name = call.get("as").and_then(|n| self.new_name(n, Kind::Result));
        Some(Read { at, width, check, name, by: self.by(call) })
    }

    /// A 4-byte read never gives more than 32 bits.
    pub(super) fn check_width(&mut self, check: Option<&Check>, width: Width, span: Span) {
        let values: Vec<&Expr> = match check {
            Some(Check::Compare(Compare::Equal, value)) => vec![value],
            Some(Check::In(values)) => values.iter().collect(),
            _ => return,
        };
        let too_big = |v: &&Expr| v.constant().is_some_and(|v| v > u64::from(u32::MAX));
        if width == Width::Four && !values.is_empty() && values.iter().all(too_big) {
            let help = "write a value of 32 bits, or leave `width: 4` out";
            let message = "4 bytes can never hold this value";
            self.error("never-holds", span, message, help);
        }
    }

    /// `PLACE SIGN VALUE`, for stores and atomics.
    fn assigned(&mut self, call: &Call<'_>, sign: &str) -> Option<(Place, Expr)> {
        let Some(node) = call.value else {
            let at = self.must(call, "at")?;
            let value = self.must(call, "value")?;
            return Some((self.place(at)?, self.expr(value)));
        };
        let text = self.word_text(node, &format!("a place and a value: `a {sign} 5`"))?;
        let Some((left, found, right, after)) = split_assignment(&text) else {
            let help = format!("write `PLACE {sign} VALUE`, such as `{}`", call.word.example);
            self.error("wrong-type", node.span, format!("`{text}` assigns nothing"), help);
            return None;
        };
        if found != sign {
            let message = format!("`{}` is written with `{sign}`, not `{found}`", call.word.name);
            let help = format!("write `{} {sign} {}`", left.trim(), right.trim());
            self.error("wrong-type", node.span, message, help);
        }
        let at = self.raw_expr(node, left, 0)?;
        let at = self.place_of(at, self.part(node, 0, left.len()));
        Some((at, self.expr_in(node, right, after)))
    }

    pub(super) fn write(&mut self, call: &Call<'_>) -> Option<Write> {
        let (at, value) = self.assigned(call, "=")?;
        let width = self.width(call);
        self.value_fits(&value, width, call.span);
        Some(Write { at, value, width, by: self.by(call) })
    }

    fn value_fits(&mut self, value: &Expr, width: Width, span: Span) {
        if width == Width::Four && value.constant().is_some_and(|v| v > u64::from(u32::MAX)) {
            let help = "write a value of 32 bits, or leave `width: 4` out";
            self.error("impossible", span, "the value has more than 4 bytes", help);
        }
    }

    pub(super) fn fill(&mut self, call: &Call<'_>) -> Option<Fill> {
        let (at, value) = self.assigned(call, "=")?;
        let width = self.width(call);
        self.value_fits(&value, width, call.span);
        let size = match (call.get("size"), &at) {
            (Some(node), _) => self.expr(node),
            (None, Place::Memory { name, offset }) => self.rest_of(name, offset, call.span),
            (None, Place::Address(_)) => {
                let help = "add `size: BYTES`";
                self.error("missing-key", call.span, "how much is filled?", help);
                poison()
            }
        };
        Some(Fill { at, size, value, width })
    }

    /// Bytes from an offset to the end of memory.
    pub(super) fn rest_of(&mut self, name: &str, offset: &Expr, span: Span) -> Expr {
        match self.sizes.get(name).cloned() {
            Some(size) => {
                let rest = Expr::Binary(Op::Sub, Box::new(size), Box::new(offset.clone()));
                self.finish_expr(rest, span)
            }
            None => {
                let help = "add `size: BYTES`";
                self.error("missing-key", span, format!("the size of `{name}` is not known"), help);
                poison()
            }
        }
    }

    pub(super) fn atomic(
        &mut self,
        call: &Call<'_>,
        op: AtomicOp,
        sign: &str,
        side: Side,
    ) -> Option<Atomic> {
        let (at, value) = self.assigned(call, sign)?;
        let width = self.width(call);
        self.value_fits(&value, width, call.span);
        let compare = call.get("compare").map(|n| self.expr(n));
        if (op == AtomicOp::CompareExchange) != compare.is_some() {
            let help = match op {
                AtomicOp::CompareExchange => "add `compare: VALUE`",
                _ => "leave `compare` out, or use `atomic_compare_exchange`",
            };
            self.error("missing-key", call.span, "`compare` belongs to compare-exchange", help);
        }
        let scope = call.get("scope").and_then(|n| self.one_of(n, &["system", "device"]));
        let system = scope != Some(1);
        if side != Side::Cpu {
            self.need(if system { "atomics.system" } else { "atomics" }, call.span);
        }
        let check = self.check_keys(call);
        let name = call.get("as").and_then(|n| self.new_name(n, Kind::Result));
        Some(Atomic { op, at, value, compare, width, system, check, name })
    }

    pub(super) fn commands(&mut self, node: &Node) -> Vec<Command> {
        self.commands_at(node, 0)
    }

    fn commands_at(&mut self, node: &Node, loops: u32) -> Vec<Command> {
        if !matches!(node.kind, NodeKind::List(_) | NodeKind::Null) {
            let help = "write a list: `[ { store: a = 5 } ]`";
            self.wrong(node, "a list of GPU commands", help);
            return Vec::new();
        }
        let items = self.list(node);
        items.iter().filter_map(|item| self.command(item, loops)).collect()
    }

    fn command(&mut self, node: &Node, loops: u32) -> Option<Command> {
        let word = COMMAND_WORDS.find("nop");
        if node.text() == Some("nop") && word.is_some() {
            return Some(Command::Nop);
        }
        let call = self.call(node, &COMMAND_WORDS, &[])?;
        match call.word.what {
            What::Atomic(op, sign, side) => self.atomic(&call, op, sign, side).map(Command::Atomic),
            What::Table(name) | What::GpuCommand(name) => self.command_named(&call, name, loops),
        }
    }

    /// The command of that name, from a call of it or of `gpu.NAME`.
    pub(super) fn command_named(
        &mut self,
        call: &Call<'_>,
        name: &str,
        loops: u32,
    ) -> Option<Command> {
        match name {
            "load" => self.read(call).map(Command::Load),
            "store" => self.write(call).map(Command::Store),
            "release" => self.write(call).map(Command::Release),
            "fill" => self.fill(call).map(Command::Fill),
            "copy" => self.copy(call),
            "wait" => self.semaphore_wait(call),
            "fence" => {
                let scope = call.value.filter(|n| !matches!(n.kind, NodeKind::Null));
                let scope = scope.and_then(|n| self.one_of(n, &["device", "system"]));
                Some(Command::Fence { system: scope == Some(1) })
            }
            "timestamp" => {
                let at = call.value.filter(|n| !matches!(n.kind, NodeKind::Null));
                let at = at.and_then(|n| self.place(n));
                let name = call.get("as").and_then(|n| self.new_name(n, Kind::Result));
                Some(Command::Timestamp { at, name })
            }
            "loop" => {
                if loops == MAX_LOOPS {
                    let help = "write fewer loops into each other";
                    let message = format!("loops nest at most {MAX_LOOPS} deep");
                    self.error("impossible", call.span, message, help);
                    return None;
                }
                let times = call.value.map_or(Expr::Const(1), |n| self.expr(n));
                let body = call.get("do").map(|n| self.commands_at(n, loops + 1));
                Some(Command::Loop { times, body: body.unwrap_or_default() })
            }
            _ => Some(Command::Nop),
        }
    }

    fn copy(&mut self, call: &Call<'_>) -> Option<Command> {
        let size = call.get("size").map_or(Expr::Const(0), |n| self.expr(n));
        let Some(node) = call.value else {
            let (from, to) = (self.must(call, "from")?, self.must(call, "to")?);
            return Some(Command::Copy { from: self.place(from)?, to: self.place(to)?, size });
        };
        let (from, to) = self.arrow(node, "a -> b")?;
        Some(Command::Copy { from: self.place(&from)?, to: self.place(&to)?, size })
    }

    /// `LEFT -> RIGHT`.
    pub(super) fn arrow(&mut self, node: &Node, example: &str) -> Option<(Node, Node)> {
        let text = self.word_text(node, &format!("from and to: `{example}`"))?;
        let Some((left, right)) = text.split_once("->") else {
            let help = format!("write `{example}`");
            self.error("wrong-type", node.span, format!("`{text}` has no `->`"), help);
            return None;
        };
        let at = left.len() + 2 + (right.len() - right.trim_start().len());
        Some((self.sub_node(node, 0, left.trim_end()), self.sub_node(node, at, right.trim())))
    }

    fn semaphore_wait(&mut self, call: &Call<'_>) -> Option<Command> {
        let width = self.width(call);
        let mask = call.get("mask").map(|n| self.expr(n));
        let (at, check) = self.compared(call)?;
        let compare_value = match check {
            Some(Check::Compare(c @ (Compare::Equal | Compare::GreaterEqual), v)) => Some((c, v)),
            _ => None,
        };
        let Some((compare, value)) = compare_value else {
            let help = "write `PLACE == VALUE` or `PLACE >= VALUE`";
            self.error("wrong-type", call.span, "a semaphore waits for `==` or `>=`", help);
            return None;
        };
        Some(Command::Wait { at, compare, value, mask, width })
    }

    /// Batches of `gpu:` and `submit:`.
    pub(super) fn batches(&mut self, node: &Node) -> Vec<Batch> {
        match &node.kind {
            NodeKind::Map(_) => self.batch(node).into_iter().collect(),
            NodeKind::List(items) if items.iter().any(is_batch) => {
                items.iter().filter_map(|item| self.batch(item)).collect()
            }
            NodeKind::List(items) if items.is_empty() => Vec::new(),
            NodeKind::Null => Vec::new(),
            _ => vec![Batch::Program(self.commands(node))],
        }
    }

    fn batch(&mut self, node: &Node) -> Option<Batch> {
        if !matches!(node.kind, NodeKind::Map(_)) {
            return Some(Batch::Program(self.commands(node)));
        }
        let (Some(at), Some(size)) = (node.get("at"), node.get("size")) else {
            let help = "write `{ at: PLACE, size: BYTES }`, or a list of commands";
            self.wrong(node, "a batch", help);
            return None;
        };
        Some(Batch::At { at: self.place(at)?, size: self.expr(size) })
    }

    /// The submission that a call describes by the keys beside it.
    pub(super) fn submission(
        &mut self,
        call: &Call<'_>,
        batches: Vec<Batch>,
        wait: bool,
    ) -> Submit {
        let queue = call.get("queue").and_then(|n| self.name_ref(n, &[Kind::Queue]));
        if queue.is_none() {
            self.needs_queue.insert(self.client.clone());
        }
        let named = What::Table("submit") == call.word.what || What::Table("gpu") == call.word.what;
        let name = call.get("as").filter(|_| named);
        let end = self.job_end(call);
        if !wait && end != JobEnd::Complete {
            let help = "put it beside `finish: JOB`";
            self.error("impossible", call.span, "`submit` does not see how its job ends", help);
        }
        Submit {
            queue,
            batches,
            wait: call.get("wait").map(|n| self.fences(n, false)).unwrap_or_default(),
            signal: call.get("signal").map(|n| self.fences(n, true)).unwrap_or_default(),
            name: name.and_then(|n| self.new_name(n, Kind::Job)),
            finish: wait.then_some(end),
            timeout: self.timeout(call),
        }
    }

    /// `ends:` and `expect_fault:`.
    pub(super) fn job_end(&mut self, call: &Call<'_>) -> JobEnd {
        if let Some(node) = call.get("expect_fault") {
            return JobEnd::Fault(self.fault(node).unwrap_or_default());
        }
        let words = ["complete", "fault", "timeout", "cancelled"];
        match call.get("ends").and_then(|n| self.one_of(n, &words)) {
            Some(1) => JobEnd::Fault(FaultExpect::default()),
            Some(2) => JobEnd::TimedOut,
            Some(3) => JobEnd::Cancelled,
            _ => JobEnd::Complete,
        }
    }

    pub(super) fn fault(&mut self, node: &Node) -> Option<FaultExpect> {
        self.need("fault_report", node.span);
        if !matches!(node.kind, NodeKind::Map(_)) {
            let kind = Some(self.fault_kind(node)?);
            return Some(FaultExpect { kind, ..FaultExpect::default() });
        }
        let map = self.shape(node, &FAULT);
        let accesses =
            [FaultAccess::Read, FaultAccess::Write, FaultAccess::Atomic, FaultAccess::Fetch];
        let access = map.get("access");
        let access = access.and_then(|n| self.one_of(n, &["read", "write", "atomic", "fetch"]));
        Some(FaultExpect {
            at: map.get("at").and_then(|n| self.place(n)),
            access: access.map(|i| accesses[i]),
            kind: map.get("kind").and_then(|n| self.fault_kind(n)),
        })
    }

    fn fault_kind(&mut self, node: &Node) -> Option<FaultKind> {
        let kinds = [
            FaultKind::NotPresent,
            FaultKind::Permission,
            FaultKind::Address,
            FaultKind::Bus,
            FaultKind::Command,
        ];
        self.one_of(node, FAULT_KINDS).map(|i| kinds[i])
    }

    /// Fences to wait for or to signal.
    pub(super) fn fences(&mut self, node: &Node, signal: bool) -> Vec<Fence> {
        let mut out = Vec::new();
        for item in self.list(node) {
            if let NodeKind::Map(_) = item.kind {
                if !signal {
                    let help = "user fences are only signalled; wait by `cpu.wait` or a semaphore";
                    let message = "a user fence cannot be waited for here";
                    self.diags.push(Diagnostic::new("impossible", item.span, message, help));
                }
                let map = self.shape(item, &super::super::grammar::USER_FENCE);
                self.need("user_fence", item.span);
                if let (Some(at), Some(value)) = (map.get("user_fence"), map.get("value"))
                    && let Some(at) = self.place(at)
                {
                    out.push(Fence::User { at, value: self.expr(value) });
                }
            } else if let Some(point) = self.point(item) {
                out.push(Fence::Syncobj(point));
            }
        }
        out
    }

    /// `s` or `t@5`.
    pub(super) fn point(&mut self, node: &Node) -> Option<Point> {
        let text = self.word_text(node, "a syncobj, such as `s` or `t@5`")?;
        self.need("syncobj", node.span);
        let Some((name, value)) = text.split_once('@') else {
            let syncobj = self.name_ref(node, &[Kind::Syncobj])?;
            return Some(Point { syncobj, value: None });
        };
        self.need("timeline", node.span);
        let at = name.len() + 1;
        let name = self.sub_node(node, 0, name.trim());
        let syncobj = self.name_ref(&name, &[Kind::Syncobj])?;
        Some(Point { syncobj, value: Some(self.expr_in(node, value, at)) })
    }
}

/// Whether an item of a list is a batch of its own.
fn is_batch(node: &Node) -> bool {
    matches!(node.kind, NodeKind::List(_))
        || (node.get("at").is_some() && node.get("size").is_some())
}

/// Left side, sign, right side and where the right side begins.
fn split_assignment(text: &str) -> Option<(&str, &str, &str, usize)> {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        if *byte != b'=' {
            continue;
        }
        let before = at.checked_sub(1).map(|i| bytes[i]);
        // Comparisons are no assignments.
        if bytes.get(at + 1) == Some(&b'=') || matches!(before, Some(b'=' | b'!' | b'<' | b'>')) {
            continue;
        }
        let signed = matches!(before, Some(b'+' | b'&' | b'|' | b'^'));
        let start = at - usize::from(signed);
        return Some((&text[..start], &text[start..=at], &text[at + 1..], at + 1));
    }
    None
}
