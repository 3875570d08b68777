//! Who touches which words of named memory, and how, as far as the text tells.

use super::super::ast::Span;
use super::super::ast::Test;
use super::super::expr::Expr;
use super::super::step::{
    Action, Atomic, AtomicOp, Batch, Command, Fence, Fill, Place, Step, Submit, Width,
};
use super::each_step;

/// One access of a step.
#[derive(Clone, Debug)]
pub(super) struct Access<'a> {
    /// Index of the actor; none in `setup`.
    pub(super) actor: Option<usize>,
    pub(super) memory: &'a str,
    /// First byte and length; none: not known before the run.
    pub(super) range: Option<(u64, u64)>,
    pub(super) kind: AccessKind<'a>,
    /// By a program of the device.
    pub(super) gpu: bool,
    /// The access says what it expects to see.
    pub(super) checked: bool,
    /// Names its result.
    pub(super) name: Option<&'a str>,
    pub(super) span: Span,
    /// How often it happens; none: not known.
    pub(super) times: Option<u64>,
    /// Its place depends on which copy of the actor it is.
    pub(super) per_copy: bool,
}

/// What an access does.
#[derive(Clone, Copy, Debug)]
pub(super) enum AccessKind<'a> {
    Read,
    /// A store of this value; none: several or unknown.
    Write(Option<&'a Expr>),
    /// A store that others may wait for.
    Release(Option<&'a Expr>),
    /// A wait for a value: orders what follows.
    Acquire,
    Atomic(AtomicOp, &'a Expr),
}

impl AccessKind<'_> {
    pub(super) fn writes(self) -> bool {
        !matches!(self, AccessKind::Read | AccessKind::Acquire)
    }

    pub(super) fn plain_write(self) -> bool {
        matches!(self, AccessKind::Write(_))
    }
}

/// Everything that the steps access.
#[derive(Debug, Default)]
pub(super) struct Accesses<'a> {
    pub(super) list: Vec<Access<'a>>,
    /// Something writes through addresses or by ways that the text does not tell.
    pub(super) unknown_writes: bool,
}

/// Collects the accesses of a test.
pub(super) fn collect(test: &Test) -> Accesses<'_> {
    let mut collector =
        Collector { out: Accesses::default(), actor: None, times: Some(1), gpu: false };
    collector.steps(&test.setup);
    for (index, actor) in test.actors.iter().enumerate() {
        collector.actor = Some(index);
        collector.times = Some(u64::from(actor.copies));
        collector.steps(&actor.steps);
    }
    collector.actor = None;
    collector.times = Some(1);
    collector.steps(&test.after);
    collector.out
}

struct Collector<'a> {
    out: Accesses<'a>,
    actor: Option<usize>,
    times: Option<u64>,
    gpu: bool,
}

impl<'a> Collector<'a> {
    fn steps(&mut self, steps: &'a [Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &'a Step) {
        let span = step.span;
        match &step.action {
            Action::Repeat { times, body, .. } => {
                let outer = self.times;
                self.times = times.constant().zip(outer).and_then(|(a, b)| a.checked_mul(b));
                self.steps(body);
                self.times = outer;
            }
            Action::Choose(choices) => {
                let outer = self.times.take();
                choices.iter().for_each(|c| self.steps(&c.body));
                self.times = outer;
            }
            Action::Shuffle(body) | Action::Fork(body) => self.steps(body),
            Action::CpuRead(read) => {
                let name = read.name.as_deref();
                let checked = read.check.is_some();
                self.touch(&read.at, read.width, AccessKind::Read, checked, name, span);
            }
            Action::CpuWrite(write) => {
                let kind = AccessKind::Write(Some(&write.value));
                self.touch(&write.at, write.width, kind, false, None, span);
            }
            Action::CpuFill(fill) => self.fill(fill, span),
            Action::CpuAtomic(atomic) => self.atomic(atomic, span),
            Action::CpuWait(wait) | Action::WaitUserFence(wait) => {
                self.touch(&wait.at, Width::Eight, AccessKind::Acquire, true, None, span);
            }
            Action::CpuProgram { .. } => self.out.unknown_writes = true,
            Action::Submit(submit) => self.submit(submit, span),
            Action::Bind(bind) => self.user_fences(&bind.signal, span),
            // Other bytes under the same name.
            Action::Mm(_) => self.out.unknown_writes = true,
            // The same bytes under another name.
            Action::Import { .. } => self.out.unknown_writes = true,
            _ => {}
        }
    }

    fn user_fences(&mut self, fences: &'a [Fence], span: Span) {
        for fence in fences {
            if let Fence::User { at, value } = fence {
                let kind = AccessKind::Release(Some(value));
                self.touch(at, Width::Eight, kind, false, None, span);
            }
        }
    }

    fn submit(&mut self, submit: &'a Submit, span: Span) {
        self.user_fences(&submit.signal, span);
        for batch in &submit.batches {
            match batch {
                Batch::Program(commands) => {
                    self.gpu = true;
                    self.commands(commands, span);
                    self.gpu = false;
                }
                Batch::At { .. } => self.out.unknown_writes = true,
            }
        }
    }

    fn commands(&mut self, commands: &'a [Command], span: Span) {
        for command in commands {
            match command {
                Command::Load(read) => {
                    let (name, checked) = (read.name.as_deref(), read.check.is_some());
                    self.touch(&read.at, read.width, AccessKind::Read, checked, name, span);
                }
                Command::Store(write) => {
                    let kind = AccessKind::Write(Some(&write.value));
                    self.touch(&write.at, write.width, kind, false, None, span);
                }
                Command::Release(write) => {
                    let kind = AccessKind::Release(Some(&write.value));
                    self.touch(&write.at, write.width, kind, false, None, span);
                }
                Command::Atomic(atomic) => self.atomic(atomic, span),
                Command::Fill(fill) => self.fill(fill, span),
                Command::Copy { from, to, size } => {
                    let bytes = size.constant();
                    self.bytes(from, bytes, AccessKind::Read, span);
                    self.bytes(to, bytes, AccessKind::Write(None), span);
                }
                Command::Wait { at, width, .. } => {
                    self.touch(at, *width, AccessKind::Acquire, true, None, span);
                }
                Command::Timestamp { at: Some(at), .. } => {
                    let kind = AccessKind::Write(None);
                    self.touch(at, Width::Eight, kind, false, None, span);
                }
                Command::Loop { times, body } => {
                    let outer = self.times;
                    self.times = times.constant().zip(outer).and_then(|(a, b)| a.checked_mul(b));
                    self.commands(body, span);
                    self.times = outer;
                }
                Command::Timestamp { .. } | Command::Fence { .. } | Command::Nop => {}
            }
        }
    }

    fn fill(&mut self, fill: &'a Fill, span: Span) {
        let value = (fill.width == Width::Eight).then_some(&fill.value);
        self.bytes(&fill.at, fill.size.constant(), AccessKind::Write(value), span);
    }

    fn atomic(&mut self, atomic: &'a Atomic, span: Span) {
        let kind = AccessKind::Atomic(atomic.op, &atomic.value);
        let (name, checked) = (atomic.name.as_deref(), atomic.check.is_some());
        self.touch(&atomic.at, atomic.width, kind, checked, name, span);
    }

    fn bytes(&mut self, at: &'a Place, bytes: Option<u64>, kind: AccessKind<'a>, span: Span) {
        self.add(at, bytes, kind, false, None, span);
    }

    fn touch(
        &mut self,
        at: &'a Place,
        width: Width,
        kind: AccessKind<'a>,
        checked: bool,
        name: Option<&'a str>,
        span: Span,
    ) {
        self.add(at, Some(width.bytes()), kind, checked, name, span);
    }

    fn add(
        &mut self,
        at: &'a Place,
        bytes: Option<u64>,
        kind: AccessKind<'a>,
        checked: bool,
        name: Option<&'a str>,
        span: Span,
    ) {
        let Place::Memory { name: memory, offset } = at else {
            self.out.unknown_writes |= kind.writes();
            return;
        };
        let mut per_copy = false;
        offset.visit(&mut |e| per_copy |= matches!(e, Expr::Var(v) if v == "copy"));
        let range = offset.constant().zip(bytes);
        let Self { actor, times, gpu, .. } = *self;
        let access =
            Access { actor, memory, range, kind, gpu, checked, name, span, times, per_copy };
        self.out.list.push(access);
    }
}

/// Whether two ranges may share a byte.
pub(super) fn overlap(a: Option<(u64, u64)>, b: Option<(u64, u64)>) -> bool {
    match (a, b) {
        (Some((a, a_len)), Some((b, b_len))) => {
            a < b.saturating_add(b_len) && b < a.saturating_add(a_len)
        }
        _ => true,
    }
}

/// Whether steps contain one that `f` holds for.
pub(super) fn any_step<'a>(steps: &'a [Step], f: impl Fn(&'a Step) -> bool) -> bool {
    let mut found = false;
    each_step(steps, &mut |step| found |= f(step));
    found
}
