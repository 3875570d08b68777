//! Races that the scenario says nothing about: two actors touch a word, one writes it plainly, and
//! neither barrier, fence, semaphore nor expectation relates them. Errs on the side of silence: any
//! relation between two actors counts for all of their accesses.

use super::super::ast::{Actor, Test};
use super::super::diag::Diagnostic;
use super::super::expect::{Expect, ExpectKind};
use super::super::expr::Expr;
use super::super::step::{Action, Fence, Place, Point, Step};
use super::access::{Access, AccessKind, Accesses, any_step, overlap};
use super::each_step;
use std::collections::BTreeSet;

/// Reports each pair of actors and memory once.
pub(super) fn check(test: &Test, accesses: &Accesses<'_>, diags: &mut Vec<Diagnostic>) {
    let expected = expected(test);
    let mut reported = BTreeSet::new();
    for (i, a) in accesses.list.iter().enumerate() {
        for b in &accesses.list[i..] {
            let (Some(left), Some(right)) = (a.actor, b.actor) else { continue };
            let alone = left == right && test.actors[left].copies < 2;
            if alone || a.memory != b.memory || !races(a, b) || (left == right && a.per_copy) {
                continue;
            }
            let judged = a.checked || b.checked || expected.covers(a) || expected.covers(b);
            if judged || related(test, left, right, accesses) {
                continue;
            }
            if reported.insert((a.memory, left.min(right), left.max(right))) {
                report(test, a, b, diags);
            }
        }
    }
}

fn races(a: &Access<'_>, b: &Access<'_>) -> bool {
    let plain = a.kind.plain_write() || b.kind.plain_write();
    plain && overlap(a.range, b.range)
}

fn report(test: &Test, a: &Access<'_>, b: &Access<'_>, diags: &mut Vec<Diagnostic>) {
    let name = |access: &Access<'_>| access.actor.map_or("", |i| test.actors[i].name.as_str());
    let (writer, other) = if b.kind.plain_write() { (b, a) } else { (a, b) };
    let whose = if a.actor == b.actor {
        format!("copies of `{}` race", name(a))
    } else {
        format!("`{}` and `{}` race", name(other), name(writer))
    };
    let message = format!("{whose} for `{}`, and nothing says what may come of it", a.memory);
    let help = format!(
        "order them by a barrier, a syncobj or a semaphore; or say what may be seen, such as \
         `expect: [ {{ value: {}, in: [1, 2] }} ]`",
        place(writer)
    );
    let label = if other.kind.writes() { "the other write" } else { "the other access" };
    let mut diagnostic = Diagnostic::new("race", writer.span, message, help).label("written here");
    if other.span != writer.span {
        diagnostic = diagnostic.other(other.span, label);
    }
    diags.push(diagnostic);
}

fn place(access: &Access<'_>) -> String {
    match access.range {
        Some((offset, _)) if offset > 0 => format!("{}+{offset}", access.memory),
        _ => access.memory.to_owned(),
    }
}

/// Places and results that expectations are about.
struct Expected<'a> {
    places: Vec<(&'a str, Option<(u64, u64)>)>,
    results: BTreeSet<String>,
}

impl Expected<'_> {
    fn covers(&self, access: &Access<'_>) -> bool {
        let placed = |(memory, range): &(&str, Option<(u64, u64)>)| {
            *memory == access.memory && overlap(*range, access.range)
        };
        access.name.is_some_and(|n| self.results.contains(n)) || self.places.iter().any(placed)
    }
}

fn expected(test: &Test) -> Expected<'_> {
    let mut out = Expected { places: Vec::new(), results: BTreeSet::new() };
    let mut add = |expect: &'_ Expect| results(expect, &mut out.results);
    test.expect.iter().for_each(&mut add);
    let mut all: Vec<&Expect> = test.expect.iter().collect();
    for steps in super::lists(test) {
        each_step(steps, &mut |step| {
            if let Action::Check(expects) = &step.action {
                all.extend(expects);
            }
        });
    }
    for expect in all {
        if let ExpectKind::Value { at: Place::Memory { name, offset }, width, .. } = &expect.kind {
            out.places.push((name, offset.constant().map(|o| (o, width.bytes()))));
        }
    }
    out
}

fn results(expect: &Expect, out: &mut BTreeSet<String>) {
    let (ExpectKind::Always(condition)
    | ExpectKind::Never(condition)
    | ExpectKind::Sometimes(condition)) = &expect.kind
    else {
        return;
    };
    condition.visit(&mut |e| {
        if let Expr::Var(name) = e {
            out.insert(name.clone());
        }
    });
}

/// Whether anything orders the two actors somewhere.
fn related(test: &Test, left: usize, right: usize, accesses: &Accesses<'_>) -> bool {
    let (a, b) = (&test.actors[left], &test.actors[right]);
    let meets = |actor: &Actor, name: &str| {
        any_step(&actor.steps, |s| matches!(&s.action, Action::Barrier(n) if n == name))
    };
    let barrier = test.barriers.iter().any(|n| meets(a, &n.name) && meets(b, &n.name));
    let links = |from: &Actor, to: &Actor| {
        let mut given = Links::default();
        let mut taken = Links::default();
        each_step(&from.steps, &mut |s| given.gives(s));
        each_step(&to.steps, &mut |s| taken.takes(s));
        given.0.intersection(&taken.0).next().is_some()
    };
    barrier || links(a, b) || links(b, a) || semaphore(left, right, accesses)
}

/// One actor waits for a word that the other writes.
fn semaphore(left: usize, right: usize, accesses: &Accesses<'_>) -> bool {
    let of = |actor| accesses.list.iter().filter(move |x| x.actor == Some(actor));
    let waits = |x: &Access<'_>| matches!(x.kind, AccessKind::Acquire);
    of(left).any(|x| {
        of(right).any(|y| {
            let pair = (waits(x) && y.kind.writes()) || (waits(y) && x.kind.writes());
            pair && x.memory == y.memory && overlap(x.range, y.range)
        })
    })
}

/// Names by which one actor can wait for another.
#[derive(Default)]
struct Links(BTreeSet<String>);

impl Links {
    fn points<'a>(&mut self, points: impl IntoIterator<Item = &'a Point>) {
        self.0.extend(points.into_iter().map(|p| p.syncobj.clone()));
    }

    fn fences(&mut self, fences: &[Fence]) {
        self.points(fences.iter().filter_map(|f| match f {
            Fence::Syncobj(point) => Some(point),
            Fence::User { .. } => None,
        }));
    }

    fn gives(&mut self, step: &Step) {
        match &step.action {
            Action::Signal(points) => self.points(points),
            Action::Transfer { to, .. } => self.points([to]),
            Action::Submit(submit) => {
                self.fences(&submit.signal);
                self.0.extend(submit.name.clone());
            }
            Action::Bind(bind) => self.fences(&bind.signal),
            Action::DelayRelease(point) => {
                self.0.insert(point.clone());
            }
            Action::Export { fd, .. } => {
                self.0.insert(fd.clone());
            }
            Action::Kill(name) => {
                self.0.insert(name.clone());
            }
            _ => {}
        }
    }

    fn takes(&mut self, step: &Step) {
        match &step.action {
            Action::Wait(wait) => self.points(&wait.points),
            Action::Submit(submit) => self.fences(&submit.wait),
            Action::Bind(bind) => self.fences(&bind.wait),
            Action::Finish(finish) => {
                self.0.insert(finish.job.clone());
            }
            Action::Import { fd, .. } => {
                self.0.insert(fd.clone());
            }
            _ => {}
        }
    }
}
