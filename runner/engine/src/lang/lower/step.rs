//! Steps.

use super::super::ast::Span;
use super::super::errno::{ERRNOS, errno};
use super::super::expect::Check;
use super::super::grammar::CHOICE;
use super::super::params::suggestion;
use super::super::step::{
    Action, Atomic, Batch, Bind, Choice, Create, Finish, InjectEvery, InjectKind, ObjectRef,
    Outcome, Point, Step, Wait, WordWait,
};
use super::super::verbs::{INJECT_KINDS, STARTS, STEP_KEYS};
use super::super::words::{STEP_WORDS, Side, What};
use super::super::yaml::{Key, Node, NodeKind};
use super::call::Call;
use super::{Kind, Lower};
use fencepost_fixtures::sys::process::Start;
use std::sync::Arc;

/// Longest `repeat`.
const MAX_REPEAT: u64 = 10_000_000;
/// Rounds of an injected step before the test gives up.
const INJECT_LIMIT: u32 = 1000;

impl Lower<'_> {
    pub(super) fn steps(&mut self, node: &Node) -> Vec<Step> {
        match &node.kind {
            NodeKind::Null => Vec::new(),
            NodeKind::List(items) => items.iter().filter_map(|item| self.step(item)).collect(),
            _ => {
                let help = "write a list: one `- STEP` a line";
                self.wrong(node, "a list of steps", help);
                Vec::new()
            }
        }
    }

    fn step(&mut self, node: &Node) -> Option<Step> {
        let call = self.call(node, &STEP_WORDS, STEP_KEYS)?;
        if !self.when(call.get("when")) {
            return None;
        }
        let own = call.get("client").and_then(|n| self.name_ref(n, &[Kind::Client]));
        let before = self.client.clone();
        if let Some(client) = &own {
            self.client.clone_from(client);
        }
        let outcomes = self.outcomes(call.get("expect_errno"));
        let inject = call.get("inject").and_then(|n| self.inject_every(n));
        let latency = call.get("latency").and_then(|n| self.latency(n));
        let action = self.action(&call);
        self.client = before;
        let (span, line) = (call.span, self.line(call.span));
        Some(Step { span, line, client: own, outcomes, inject, latency, action: action? })
    }

    /// A name for times: it becomes a column of reports and a part of file names.
    fn latency(&mut self, node: &Node) -> Option<Arc<str>> {
        let name = self.word_text(node, "a name such as `fault`")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            self.wrong(node, "a name of letters, digits, `.`, `_` and `-`", "write one as `fault`");
            return None;
        }
        Some(name.into())
    }

    pub(super) fn outcomes(&mut self, node: Option<&Node>) -> Vec<Outcome> {
        let Some(node) = node else { return vec![Outcome::Ok] };
        let mut out = Vec::new();
        for item in self.list(node) {
            let Some(name) = self.word_text(item, "an errno such as `EINVAL`") else { continue };
            match (name.as_str(), errno(&name)) {
                ("ok", _) => out.push(Outcome::Ok),
                ("any", _) => out.push(Outcome::Any),
                (_, Some(errno)) => out.push(Outcome::Errno(errno)),
                (_, None) => {
                    let help = suggestion(&name, ERRNOS.iter().map(|e| e.name), "errnos");
                    self.error("unknown-name", item.span, format!("`{name}` is no errno"), help);
                }
            }
        }
        if out.is_empty() { vec![Outcome::Ok] } else { out }
    }

    fn inject_kind(&mut self, key: &Key) -> Option<InjectKind> {
        let kinds = [
            InjectKind::Alloc,
            InjectKind::Copy,
            InjectKind::DmaMap,
            InjectKind::AsyncBind,
            InjectKind::Migrate,
        ];
        let found = INJECT_KINDS.iter().position(|k| *k == key.text);
        if found.is_none() {
            let help = suggestion(&key.text, INJECT_KINDS.iter().copied(), "kinds");
            let message = format!("`{}` cannot be made to fail", key.text);
            self.error("unknown-name", key.span, message, help);
        }
        found.map(|i| kinds[i])
    }

    /// `{ alloc: every, errno: [...], limit: N }` beside another step.
    fn inject_every(&mut self, node: &Node) -> Option<InjectEvery> {
        self.debug(node.span);
        let mut outcomes = None;
        let mut limit = INJECT_LIMIT;
        let mut kind = None;
        for (key, value) in self.entries(node, "`{ alloc: every }`") {
            match key.text.as_str() {
                "errno" => outcomes = Some(self.outcomes(Some(value))),
                "limit" => limit = self.count(value, "the limit", 100_000).unwrap_or(limit),
                _ => {
                    kind = self.inject_kind(key);
                    if value.text() != Some("every") {
                        let help = "write `every`; to fail one operation only, make `inject` a \
                                    step of its own before this one";
                        self.wrong(value, "`every`", help);
                    }
                }
            }
        }
        let default = || vec![Outcome::Errno(errno("ENOMEM").unwrap_or(ERRNOS[0]))];
        Some(InjectEvery { kind: kind?, outcomes: outcomes.unwrap_or_else(default), limit })
    }

    fn debug(&mut self, span: Span) {
        self.need("debug", span);
        self.needs_debug.insert(self.client.clone());
    }

    fn action(&mut self, call: &Call<'_>) -> Option<Action> {
        match call.word.what {
            What::GpuCommand(name) => {
                let command = self.command_named(call, name, 0)?;
                let batch = vec![Batch::Program(vec![command])];
                Some(Action::Submit(self.submission(call, batch, true)))
            }
            What::Atomic(op, sign, side) => {
                let atomic = self.atomic(call, op, sign, side)?;
                Some(self.atomic_step(call, atomic, side))
            }
            What::Table(name) => self.table_action(call, name),
        }
    }

    fn atomic_step(&mut self, call: &Call<'_>, atomic: Atomic, side: Side) -> Action {
        if side == Side::Cpu {
            return Action::CpuAtomic(atomic);
        }
        let batch = vec![Batch::Program(vec![super::super::step::Command::Atomic(atomic)])];
        Action::Submit(self.submission(call, batch, true))
    }

    fn table_action(&mut self, call: &Call<'_>, name: &str) -> Option<Action> {
        match name {
            "repeat" | "choose" | "shuffle" | "barrier" | "check" | "fork" | "exit" | "kill"
            | "blocked" => self.sequence(call, name),
            "cpu.read" => self.read(call).map(Action::CpuRead),
            "cpu.write" => self.write(call).map(Action::CpuWrite),
            "cpu.fill" => self.fill(call).map(Action::CpuFill),
            "cpu.wait" => self.word_wait(call).map(Action::CpuWait),
            "cpu.program" => {
                let at = call.value.and_then(|n| self.place(n))?;
                let body = call.get("do").map(|n| self.commands(n)).unwrap_or_default();
                Some(Action::CpuProgram { at, body })
            }
            "gpu" | "submit" => {
                let batches = call.value.map(|n| self.batches(n)).unwrap_or_default();
                Some(Action::Submit(self.submission(call, batches, name == "gpu")))
            }
            "finish" => {
                let job = self.name_ref(call.value?, &[Kind::Job])?;
                let end = self.job_end(call);
                Some(Action::Finish(Finish { job, end, timeout: self.timeout(call) }))
            }
            "bind" => self.bind(call),
            "create" | "destroy" | "close" | "export" | "import" => self.object(call, name),
            "inject" | "delay.arm" | "delay.wait" | "delay.release" | "evict" => {
                self.debug_action(call, name)
            }
            "mm.compact" | "mm.khugepaged" | "mm.dump" => self.kernel_step(call, name),
            name if name.starts_with("mm.") => self.mm_step(call, name),
            name if name.starts_with("svm.") => self.svm_step(call, name),
            "merge" => self.merge(call),
            "exec" => Some(Action::Exec),
            "spawn" => {
                let start = self.one_of(call.value?, STARTS)?;
                Some(Action::Spawn([Start::Vfork, Start::Fork][start]))
            }
            "abi" => self.word_text(call.value?, "the name of a case").map(Action::Abi),
            _ => self.sync(call, name),
        }
    }

    fn sequence(&mut self, call: &Call<'_>, name: &str) -> Option<Action> {
        let value = call.value?;
        match name {
            "repeat" => self.repeat(call, value),
            "choose" => {
                let mut choices = Vec::new();
                for item in self.list(value) {
                    let map = self.shape(item, &CHOICE);
                    let weight = map.get("weight");
                    let weight = weight.and_then(|n| self.count(n, "a weight", 1_000_000));
                    let body = map.get("do").map(|n| self.steps(n)).unwrap_or_default();
                    choices.push(Choice { weight: weight.unwrap_or(1), body });
                }
                if choices.is_empty() {
                    let help = "write `[ { weight: 3, do: [ ... ] }, { do: [ ... ] } ]`";
                    self.error("missing-key", value.span, "nothing to choose from", help);
                }
                Some(Action::Choose(choices))
            }
            "shuffle" => Some(Action::Shuffle(self.steps(value))),
            "fork" => Some(Action::Fork(self.steps(value))),
            "check" => Some(Action::Check(self.expects(value))),
            "barrier" => {
                let name = self.word_text(value, "the name of a barrier")?;
                if !self.barriers_declared && !self.names.is(Kind::Barrier, &name) {
                    self.declare(Kind::Barrier, &name, value.span);
                }
                self.names.use_of(&[Kind::Barrier], &name, value.span);
                Some(Action::Barrier(name))
            }
            "exit" => {
                let code = self.number(value)?;
                Some(Action::Exit(i32::try_from(code & 0xff).unwrap_or(0)))
            }
            "blocked" => {
                let process = self.name_ref(value, &[Kind::Actor, Kind::Client])?;
                Some(Action::Blocked { process, timeout: self.timeout(call) })
            }
            _ => self.name_ref(value, &[Kind::Actor, Kind::Client]).map(Action::Kill),
        }
    }

    fn repeat(&mut self, call: &Call<'_>, value: &Node) -> Option<Action> {
        let times = self.expr(value);
        if times.constant().is_some_and(|n| n > MAX_REPEAT) {
            let help = format!("repeat at most {MAX_REPEAT} times; use `rounds` or a tier");
            self.error("impossible", value.span, "nobody waits for so many rounds", help);
        }
        let index = call.get("as").and_then(|n| self.word_text(n, "a name"));
        if let (Some(index), Some(node)) = (&index, call.get("as")) {
            super::super::params::check_name(index, node.span, "index", &mut self.diags);
            self.indices.push(index.clone());
        }
        let body = call.get("do").map(|n| self.steps(n)).unwrap_or_default();
        if index.is_some() {
            self.indices.pop();
        }
        Some(Action::Repeat { times, index, body })
    }

    fn word_wait(&mut self, call: &Call<'_>) -> Option<WordWait> {
        let (at, check) = self.compared(call)?;
        let Some(Check::Compare(compare, value)) = check else {
            let help = format!("write for instance `{}`", call.word.example);
            self.error("wrong-type", call.span, "wait until it is what?", help);
            return None;
        };
        Some(WordWait {
            at,
            compare,
            value,
            mask: call.get("mask").map(|n| self.expr(n)),
            timeout: self.timeout(call),
            queue: call.get("queue").and_then(|n| self.name_ref(n, &[Kind::Queue])),
        })
    }

    fn bind(&mut self, call: &Call<'_>) -> Option<Action> {
        self.need("vm_bind", call.span);
        let vm = call.get("vm").and_then(|n| self.name_ref(n, &[Kind::Vm]));
        if vm.is_none() {
            self.needs_vm.insert(self.client.clone());
        }
        let run_async = self.flag(call.get("async"), false);
        if run_async {
            self.need("vm_bind.async", call.span);
        }
        Some(Action::Bind(Bind {
            vm,
            queue: call.get("queue").and_then(|n| self.name_ref(n, &[Kind::Queue])),
            run_async,
            ops: self.bind_ops(call.value?),
            wait: call.get("wait").map(|n| self.fences(n, false)).unwrap_or_default(),
            signal: call.get("signal").map(|n| self.fences(n, true)).unwrap_or_default(),
        }))
    }

    fn object(&mut self, call: &Call<'_>, name: &str) -> Option<Action> {
        let value = call.value?;
        match name {
            "create" => self.create(call, value),
            "destroy" => {
                let kinds: &'static [Kind] =
                    &[Kind::Memory, Kind::Vm, Kind::Queue, Kind::Syncobj, Kind::Fd];
                let name = self.name_ref(value, kinds)?;
                let kind = self.names.kind_of(kinds, &name)?;
                Some(Action::Destroy(object_ref(kind, name)))
            }
            "close" => self.name_ref(value, &[Kind::Client]).map(Action::Close),
            "export" => {
                let kinds: &'static [Kind] = &[Kind::Memory, Kind::Syncobj];
                let object = self.name_ref(value, kinds)?;
                let kind = self.names.kind_of(kinds, &object)?;
                let sync_file = self.flag(call.get("sync_file"), false);
                if kind == Kind::Memory {
                    self.need("prime", call.span);
                } else if sync_file {
                    self.need("sync_file", call.span);
                }
                let fd = self.word_text(call.get("as")?, "a name for the fd")?;
                Some(Action::Export { object: object_ref(kind, object), sync_file, fd })
            }
            _ => self.import(call, value),
        }
    }

    fn import(&mut self, call: &Call<'_>, value: &Node) -> Option<Action> {
        let fd = self.name_ref(value, &[Kind::Fd])?;
        if let Some(into) = call.get("into") {
            let syncobj = self.name_ref(into, &[Kind::Syncobj])?;
            self.need("sync_file", call.span);
            return Some(Action::Import {
                fd,
                object: ObjectRef::Syncobj(syncobj),
                sync_file: true,
            });
        }
        let Some(name) = call.get("as").and_then(|n| self.word_text(n, "a name")) else {
            let help = "add `as: NAME` for a new object, or `into: SYNCOBJ` for a sync file";
            self.error("missing-key", call.span, "import as what?", help);
            return None;
        };
        let kind = self.names.kind_of(&[Kind::Memory, Kind::Syncobj], &name)?;
        if kind == Kind::Memory {
            self.need("prime", call.span);
        }
        Some(Action::Import { fd, object: object_ref(kind, name), sync_file: false })
    }

    fn merge(&mut self, call: &Call<'_>) -> Option<Action> {
        let value = call.value?;
        self.need("sync_file.merge", call.span);
        let items = self.list(value);
        let fds: Vec<String> =
            items.iter().filter_map(|item| self.name_ref(item, &[Kind::Fd])).collect();
        let Ok([first, second]) = <[String; 2]>::try_from(fds) else {
            self.wrong(value, "two fds", "write `merge: [ fd1, fd2 ], as: both`");
            return None;
        };
        let fd = self.word_text(call.get("as")?, "a name for the fd")?;
        Some(Action::Merge { first, second, fd })
    }

    fn create(&mut self, call: &Call<'_>, value: &Node) -> Option<Action> {
        let key = Key { span: value.span, text: self.word_text(value, "a name")? };
        let client = self.client.clone();
        if let Some(node) = call.get("vm") {
            return Some(Action::Create(Create::Vm(self.vm(&key, Some(node), client))));
        }
        if let Some(node) = call.get("queue") {
            let queue = self.queue(&key, Some(node), None)?;
            return Some(Action::Create(Create::Queue(queue)));
        }
        if let Some(node) = call.get("syncobj") {
            let syncobj = self.syncobj(&key, Some(node), client);
            let (name, signalled) = (syncobj.name, syncobj.signalled);
            return Some(Action::Create(Create::Syncobj { name, signalled }));
        }
        let Some(node) = call.get("memory") else {
            let help = "add one of `memory: ...`, `vm: ...`, `queue: ...`, `syncobj: ...`";
            self.error("missing-key", call.span, "create what?", help);
            return None;
        };
        // A size that the driver must refuse is what such a step may be about.
        let errors = self.diags.len();
        let memory = self.memory(&key, node, &[])?;
        if call.get("expect_errno").is_some() {
            let mut at = 0;
            self.diags.retain(|d| {
                at += 1;
                at <= errors || d.code != "impossible"
            });
        }
        Some(Action::Create(Create::Memory(Box::new(memory))))
    }

    fn sync(&mut self, call: &Call<'_>, name: &str) -> Option<Action> {
        let value = call.value;
        match name {
            "wait" => {
                let points = self.points(value?);
                Some(Action::Wait(Wait {
                    points,
                    all: !self.flag(call.get("any"), false),
                    for_submit: self.flag(call.get("for_submit"), false),
                    available: self.flag(call.get("available"), false),
                    timeout: self.timeout(call),
                }))
            }
            "signal" => Some(Action::Signal(self.points(value?))),
            "reset" => {
                let items = self.list(value?);
                let names = items.iter().filter_map(|n| self.name_ref(n, &[Kind::Syncobj]));
                Some(Action::Reset(names.collect()))
            }
            "query" => {
                self.need("timeline", call.span);
                let mut out = Vec::new();
                for (key, bound) in self.entries(value?, "a mapping from syncobjs to values") {
                    self.names.use_of(&[Kind::Syncobj], &key.text, key.span);
                    if let Some(check) = self.bound_check(bound) {
                        out.push((key.text.clone(), check));
                    }
                }
                Some(Action::Query(out))
            }
            "transfer" => {
                let (from, to) = self.arrow(value?, "t@3 -> s")?;
                self.need("timeline", call.span);
                let for_submit = self.flag(call.get("for_submit"), false);
                Some(Action::Transfer {
                    from: self.point(&from)?,
                    to: self.point(&to)?,
                    for_submit,
                })
            }
            "wait_user_fence" => {
                self.need("user_fence", call.span);
                self.word_wait(call).map(Action::WaitUserFence)
            }
            _ => {
                let fd = self.name_ref(value?, &[Kind::Fd])?;
                let ready = self.flag(call.get("ready"), true);
                Some(Action::Poll { fd, timeout: self.timeout(call), ready })
            }
        }
    }

    fn points(&mut self, node: &Node) -> Vec<Point> {
        let items = self.list(node);
        items.iter().filter_map(|n| self.point(n)).collect()
    }

    fn debug_action(&mut self, call: &Call<'_>, name: &str) -> Option<Action> {
        let value = call.value?;
        if name == "evict" && value.text() == Some("svm") {
            self.need("svm.evict", call.span);
            self.needs_debug.insert(self.client.clone());
            return Some(Action::EvictSvm);
        }
        self.debug(call.span);
        match name {
            "inject" => {
                let mut action = None;
                for (key, nth) in self.entries(value, "`{ alloc: 3 }`") {
                    let kind = self.inject_kind(key)?;
                    if nth.text() == Some("every") {
                        let help = "write it beside the step that is to fail: \
                                    `- bind: ...` and below `inject: { alloc: every }`";
                        self.error("wrong-type", nth.span, "every step of what?", help);
                        return None;
                    }
                    action = Some(Action::Inject { kind, nth: self.expr(nth) });
                }
                action
            }
            "evict" => {
                if value.text() == Some("all") {
                    return Some(Action::Evict(None));
                }
                Some(Action::Evict(Some(self.name_ref(value, &[Kind::Memory])?)))
            }
            _ => {
                let point = self.word_text(value, "the name of a delay point")?;
                if point.is_empty() || point.len() > 31 {
                    let help = "docs/UAPI.md lists the delay points";
                    self.error(
                        "bad-name",
                        value.span,
                        format!("`{point}` is no delay point"),
                        help,
                    );
                }
                let timeout = self.timeout(call);
                Some(match name {
                    "delay.arm" => Action::DelayArm { point, timeout },
                    "delay.wait" => Action::DelayWait { point, timeout },
                    _ => Action::DelayRelease(point),
                })
            }
        }
    }
}

fn object_ref(kind: Kind, name: String) -> ObjectRef {
    match kind {
        Kind::Vm => ObjectRef::Vm(name),
        Kind::Queue => ObjectRef::Queue(name),
        Kind::Syncobj => ObjectRef::Syncobj(name),
        Kind::Fd => ObjectRef::Fd(name),
        _ => ObjectRef::Memory(name),
    }
}
