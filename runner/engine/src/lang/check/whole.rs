//! Capabilities that no single step tells, but how the steps of a test meet.

use super::super::ast::Test;
use super::super::step::{Action, Place, Region, Step};
use super::super::svm::{MmStep, Part, SvmStep};
use super::access::{self, Access};
use super::{bodies, lists};

/// What a test needs for the way its steps meet.
pub(crate) fn needs(test: &Test) -> impl Iterator<Item = &'static str> {
    let words = writes_beside_others(test).then_some("gpu.words");
    let moved = used_while_moved(test).then_some("svm.migrate.shared");
    let inherited = lists(test).any(runs_after_exec).then_some("file.inherited");
    [words, moved, inherited].into_iter().flatten()
}

/// Whether a program that was run afterwards has jobs in queues that were made before.
fn runs_after_exec(steps: &[Step]) -> bool {
    let exec = steps.iter().position(|step| matches!(step.action, Action::Exec));
    let after = exec.map_or(&[][..], |at| &steps[at..]);
    access::any_step(after, |step| matches!(step.action, Action::Submit(_)))
        || steps.iter().any(|step| bodies(&step.action).into_iter().any(runs_after_exec))
}

/// A device that writes more than it is asked to would undo what others write at the same time.
fn writes_beside_others(test: &Test) -> bool {
    if test.actors.iter().all(|actor| actor.copies == 1) && test.actors.len() < 2 {
        return false;
    }
    let accesses = access::collect(test);
    let meet = |actor: usize, other: usize| actor != other || test.actors[actor].copies > 1;
    let gpu = |access: &&Access<'_>| access.gpu && access.kind.writes();
    accesses.list.iter().filter(gpu).any(|store| {
        let Some(actor) = store.actor else { return false };
        let written = accesses.list.iter().any(|access| {
            let at_once = access.actor.is_some_and(|other| meet(actor, other));
            at_once && access.memory == store.memory && access.kind.writes()
        });
        let changed = |(other, it): (usize, &super::super::ast::Actor)| {
            meet(actor, other) && access::any_step(&it.steps, |step| changes(step, store.memory))
        };
        written || test.actors.iter().enumerate().any(changed)
    })
}

/// Whether a step gives memory of that name other contents or another place.
fn changes(step: &Step, memory: &str) -> bool {
    let is = |at: &Place| matches!(at, Place::Memory { name, .. } if name == memory);
    let Action::Mm(mm) = &step.action else { return false };
    match mm {
        MmStep::Remap { part, to, .. } => is(&part.at) || to.as_ref().is_some_and(is),
        MmStep::Map { part: Part { at, .. }, .. }
        | MmStep::Show { part: Part { at, .. }, .. }
        | MmStep::Unmap(Part { at, .. })
        | MmStep::Advise { part: Part { at, .. }, .. } => is(at),
        MmStep::Protect { .. }
        | MmStep::Lock { .. }
        | MmStep::Pin { .. }
        | MmStep::Trap { .. }
        | MmStep::Move { .. }
        | MmStep::Wait { .. } => false,
    }
}

/// Whether memory is used while it moves: by another VM of the process, or by a program beside the one who
/// moves it or the CPU.
fn used_while_moved(test: &Test) -> bool {
    let here = |name: &str| test.clients.iter().any(|c| c.name == name && !c.process);
    let mirrors = test.vms.iter().filter(|vm| vm.mirror && here(&vm.client)).count();
    let moves = |step: &Step| {
        matches!(&step.action, Action::Svm(SvmStep::Migrate { to: Region::Vram, .. }))
    };
    let submits = |step: &Step| matches!(step.action, Action::Submit(_));
    let beside = test.actors.len() > 1
        && test.actors.iter().any(|actor| access::any_step(&actor.steps, submits));
    (mirrors > 1 || beside) && lists(test).any(|steps| access::any_step(steps, moves))
}
