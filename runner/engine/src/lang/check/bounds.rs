//! Sizes, alignments and addresses that the step must be refused for, in steps that expect success.

use super::super::ast::{Memory, MemoryKind, Span, Test, Vm};
use super::super::diag::Diagnostic;
use super::super::expect::{Expect, ExpectKind, Mapping, Target};
use super::super::expr::Expr;
use super::super::step::{
    Action, Atomic, Batch, Bind, BindOp, Command, Create, Fence, Fill, JobEnd, Outcome, Place,
    Step, Submit, Width,
};
use super::{each_step, lists};

const PAGE: u64 = 4096;

/// Checks every step and expectation.
pub(super) fn check(test: &Test, diags: &mut Vec<Diagnostic>) {
    let mut bounds = Bounds { test, diags };
    for steps in lists(test) {
        each_step(steps, &mut |step| bounds.step(step));
    }
    for expect in &test.expect {
        bounds.expect(expect);
    }
    for memory in &test.memory {
        bounds.home(memory);
    }
}

struct Bounds<'a> {
    test: &'a Test,
    diags: &'a mut Vec<Diagnostic>,
}

impl Bounds<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.diags.push(Diagnostic::new("impossible", span, message, help));
    }

    fn step(&mut self, step: &Step) {
        if let Action::Check(expects) = &step.action {
            expects.iter().for_each(|e| self.expect(e));
        }
        // What is to be refused may be as wrong as it likes.
        if step.outcomes != [Outcome::Ok] {
            return;
        }
        let span = step.span;
        match &step.action {
            Action::CpuRead(read) => self.cpu(&read.at, read.width, span),
            Action::CpuWrite(write) => self.cpu(&write.at, write.width, span),
            Action::CpuAtomic(atomic) => self.cpu_atomic(atomic, span),
            Action::CpuWait(wait) => self.cpu(&wait.at, Width::Eight, span),
            Action::CpuFill(fill) => {
                self.cpu(&fill.at, fill.width, span);
                self.fill(fill, span);
            }
            Action::CpuProgram { at, .. } => self.cpu(at, Width::Eight, span),
            Action::WaitUserFence(wait) => self.cpu(&wait.at, Width::Eight, span),
            Action::Submit(submit) => self.submit(submit, span),
            Action::Bind(bind) => self.bind(bind, span),
            _ => {}
        }
    }

    /// A CPU access: memory only, aligned, inside.
    fn cpu(&mut self, at: &Place, width: Width, span: Span) {
        match at {
            Place::Memory { name, offset } => {
                self.inside(name, offset, width.bytes(), span);
                self.aligned(offset, width, span);
            }
            Place::Address(address) if *address != poison() => {
                let help = "name memory, such as `a+8`";
                self.error(span, "the CPU has no GPU addresses", help);
            }
            Place::Address(_) => {}
        }
    }

    fn cpu_atomic(&mut self, atomic: &Atomic, span: Span) {
        self.cpu(&atomic.at, atomic.width, span);
    }

    fn aligned(&mut self, offset: &Expr, width: Width, span: Span) {
        if let Some(offset) = offset.constant().filter(|o| o % width.bytes() != 0) {
            let bytes = width.bytes();
            let help = format!("use a multiple of {bytes}, or `width: 4`");
            let message = format!("{offset:#x} is not aligned for {bytes} bytes");
            self.error(span, message, help);
        }
    }

    fn inside(&mut self, name: &str, offset: &Expr, bytes: u64, span: Span) {
        let size = self.test.memory(name).and_then(|m| m.size.constant());
        let (Some(size), Some(offset)) = (size, offset.constant()) else { return };
        if offset.checked_add(bytes).is_none_or(|end| end > size) {
            let message = format!("`{name}` has {size:#x} bytes; this reaches beyond them");
            let help = format!("the last word is at `{name}+{:#x}`", size.saturating_sub(8));
            self.error(span, message, help);
        }
    }

    fn fill(&mut self, fill: &Fill, span: Span) {
        if let Place::Memory { name, offset } = &fill.at
            && let Some(size) = fill.size.constant()
        {
            self.inside(name, offset, size, span);
        }
        if let Some(size) = fill.size.constant().filter(|s| s % fill.width.bytes() != 0) {
            let bytes = fill.width.bytes();
            let help = format!("write a multiple of {bytes}");
            self.error(span, format!("{size} bytes are no multiple of the width"), help);
        }
    }

    fn submit(&mut self, submit: &Submit, span: Span) {
        self.fences(&submit.signal, false, span);
        // Async submissions may be meant to fault; their end is checked by `finish`.
        if submit.finish != Some(JobEnd::Complete) {
            return;
        }
        for batch in &submit.batches {
            if let Batch::Program(commands) = batch {
                self.commands(commands, span);
            }
        }
    }

    fn commands(&mut self, commands: &[Command], span: Span) {
        for command in commands {
            match command {
                Command::Load(read) => self.gpu(&read.at, read.width, span),
                Command::Store(write) | Command::Release(write) => {
                    self.gpu(&write.at, write.width, span);
                }
                Command::Atomic(atomic) => self.gpu(&atomic.at, atomic.width, span),
                Command::Wait { at, width, .. } => self.gpu(at, *width, span),
                Command::Fill(fill) => {
                    self.gpu(&fill.at, fill.width, span);
                    self.fill(fill, span);
                }
                Command::Copy { from, to, size } => {
                    for place in [from, to] {
                        self.gpu(place, Width::Four, span);
                        if let (Place::Memory { name, offset }, Some(size)) =
                            (place, size.constant())
                        {
                            self.inside(name, offset, size, span);
                        }
                    }
                }
                Command::Timestamp { at: Some(at), .. } => self.gpu(at, Width::Eight, span),
                Command::Loop { body, .. } => self.commands(body, span),
                Command::Timestamp { .. } | Command::Fence { .. } | Command::Nop => {}
            }
        }
    }

    /// A GPU access that is to succeed: memory needs a home address.
    fn gpu(&mut self, at: &Place, width: Width, span: Span) {
        match at {
            Place::Memory { name, offset } => {
                self.inside(name, offset, width.bytes(), span);
                let Some(memory) = self.test.memory(name) else { return };
                let is_bo = matches!(memory.kind, MemoryKind::Bo { .. });
                if is_bo && memory.home.is_none() {
                    self.no_home(name, span);
                } else if !is_bo && !self.mirrors() {
                    self.no_mirror(name, span);
                }
            }
            Place::Address(address) => self.aligned(address, width, span),
        }
    }

    fn no_home(&mut self, name: &str, span: Span) {
        let message = format!("`{name}` has no GPU address");
        let help =
            format!("give it one (`{name}: vram 64K at 1G`), or use the address where it is bound");
        self.error(span, message, help);
    }

    /// Whether something mirrors CPU memory, as far as the text tells.
    fn mirrors(&self) -> bool {
        let mut found = self.test.vms.iter().any(|vm| vm.mirror || vm.fault);
        for steps in lists(self.test) {
            each_step(steps, &mut |step| {
                found |= matches!(&step.action, Action::Create(Create::Vm(vm)) if vm.fault);
            });
        }
        found
    }

    fn no_mirror(&mut self, name: &str, span: Span) {
        let message = format!("`{name}` is CPU memory, which no VM of this scenario reaches");
        self.error(span, message, "add `vm: { svm: true }`, or use a buffer object");
    }

    fn fences(&mut self, fences: &[Fence], cpu: bool, span: Span) {
        for fence in fences {
            if let Fence::User { at, .. } = fence {
                match (cpu, at) {
                    (true, at) => self.cpu(at, Width::Eight, span),
                    (false, at) => self.gpu(at, Width::Eight, span),
                }
            }
        }
    }

    fn bind(&mut self, bind: &Bind, span: Span) {
        self.fences(&bind.signal, true, span);
        let fences = bind.wait.len() + bind.signal.len();
        if !bind.run_async && fences > 0 {
            let help = "add `async: true`, or expect the refusal: `expect_errno: EINVAL`";
            self.error(span, "a synchronous bind takes no fences", help);
        }
        let vm = match &bind.vm {
            Some(name) => self.test.vm(name),
            None => self.test.vms.first(),
        };
        for op in &bind.ops {
            self.op(op, vm, span);
        }
    }

    fn op(&mut self, op: &BindOp, vm: Option<&Vm>, span: Span) {
        match op {
            BindOp::Map(mapping) => self.mapping(mapping, vm),
            BindOp::Unmap { addr, size, .. }
            | BindOp::Prefetch { addr, size, .. }
            | BindOp::Madvise { addr, size, .. } => self.range(addr, size, vm, span),
            BindOp::UnmapAll(_) => {}
        }
    }

    fn mapping(&mut self, mapping: &Mapping, vm: Option<&Vm>) {
        self.range(&mapping.addr, &mapping.size, vm, mapping.span);
        if let Some(kind) = mapping.kind.constant().filter(|k| *k > 255) {
            self.error(mapping.span, format!("page kind {kind} is above 255"), "write 0 to 255");
        }
        let Target::Memory { name, offset } = &mapping.target else { return };
        let Some(memory) = self.test.memory(name) else { return };
        if !matches!(memory.kind, MemoryKind::Bo { .. }) {
            let help = "bind buffer objects: kinds `vram`, `system` and `either`";
            self.error(mapping.span, format!("`{name}` is no buffer object"), help);
        }
        let (Some(offset), Some(size)) = (offset.constant(), mapping.size.constant()) else {
            return;
        };
        if offset % PAGE != 0 {
            let help = "offsets are multiples of 4K";
            self.error(mapping.span, format!("{offset:#x} is no possible offset"), help);
        } else if let Some(bytes) = memory.size.constant()
            && offset.checked_add(size).is_none_or(|end| end > bytes)
        {
            let message = format!(
                "`{name}` has {bytes:#x} bytes; [{offset:#x}, {:#x}) is not inside",
                offset.saturating_add(size)
            );
            let help = "make the object larger or the mapping smaller; or `expect_errno: EINVAL`";
            self.error(mapping.span, message, help);
        }
    }

    fn range(&mut self, addr: &Expr, size: &Expr, vm: Option<&Vm>, span: Span) {
        let constants = (addr.constant(), size.constant());
        let (Some(addr), Some(size)) = constants else { return };
        if addr % PAGE != 0 || size % PAGE != 0 {
            let (what, value) = if addr % PAGE != 0 { ("address", addr) } else { ("size", size) };
            let message = format!("{value:#x} is no possible {what} of a mapping");
            let help = "addresses and sizes are multiples of 4K; or `expect_errno: EINVAL`";
            self.error(span, message, help);
            return;
        }
        if size == 0 {
            let help = "write a range that has pages; or `expect_errno: EINVAL`";
            self.error(span, "a range of 0 bytes", help);
            return;
        }
        let va_end = vm.and_then(|vm| vm.va_end.as_ref()).and_then(Expr::constant);
        let end = addr.checked_add(size);
        if end.is_none_or(|end| va_end.is_some_and(|va_end| end > va_end)) {
            let help = "choose a lower address; or `expect_errno: EINVAL`";
            self.error(span, "the range ends beyond the address space", help);
        }
        if let (Some(end), Some((start, length))) = (end, vm.and_then(|vm| vm.hole.as_ref()))
            && let (Some(start), Some(length)) = (start.constant(), length.constant())
            && addr < start.saturating_add(length)
            && start < end
        {
            let help = "choose another address; or `expect_errno: EINVAL`";
            self.error(span, "the range touches the VM's reserved hole", help);
        }
    }

    fn home(&mut self, memory: &Memory) {
        if let Some(home) = &memory.home {
            let vm = self.test.vm(&home.vm);
            self.range(&home.addr, &memory.size, vm, memory.span);
        }
    }

    fn expect(&mut self, expect: &Expect) {
        match &expect.kind {
            ExpectKind::Value { at: Place::Memory { name, offset }, width, .. } => {
                self.inside(name, offset, width.bytes(), expect.span);
                self.aligned(offset, *width, expect.span);
            }
            ExpectKind::Maps { maps, .. } => {
                for mapping in maps {
                    self.mapping(mapping, None);
                }
            }
            _ => {}
        }
    }
}

/// What stands for an expression that was reported already.
fn poison() -> Expr {
    Expr::Var("?".to_owned())
}
