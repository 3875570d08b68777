//! Where actors meet: barriers that never open, fences that nothing signals.

use super::super::ast::{Actor, Span, Test};
use super::super::diag::Diagnostic;
use super::super::step::{Action, Fence, Outcome, Point, Step};
use super::{each_step, lists};

/// Barriers whose parties are not those who come, or who come a different number of times.
pub(super) fn barriers(test: &Test, diags: &mut Vec<Diagnostic>) {
    for barrier in &test.barriers {
        let users: Vec<(&Actor, Span, Option<u64>)> =
            test.actors.iter().filter_map(|a| visits(a, &barrier.name)).collect();
        let come: u32 = users.iter().map(|(actor, ..)| actor.copies).sum();
        let Some((_, span, _)) = users.first() else {
            outside(test, &barrier.name, diags);
            continue;
        };
        if come < 2 {
            let message = format!("nobody else comes to the barrier `{}`", barrier.name);
            let other = test.barriers.iter().find(|b| b.name != barrier.name);
            let help = match other {
                Some(other) => format!("did you mean `{}`? else remove it", other.name),
                None => "let another actor meet there, or remove it".to_owned(),
            };
            diags.push(Diagnostic::new("barrier", *span, message, help));
        } else if come != barrier.parties {
            let message = format!(
                "the barrier `{}` waits for {} parties, but {come} come",
                barrier.name, barrier.parties
            );
            let help = format!("write `{}: {come}` under `barriers:`", barrier.name);
            diags.push(Diagnostic::new("barrier", *span, message, help));
        }
        let counts: Vec<u64> = users.iter().filter_map(|(.., count)| *count).collect();
        if let (Some(low), Some(high)) = (counts.iter().min(), counts.iter().max())
            && low != high
            && counts.len() == users.len()
        {
            let (fewest, ..) = users.iter().find(|(.., c)| *c == Some(*low)).unwrap_or(&users[0]);
            let message = format!(
                "actors come to the barrier `{}` {low} to {high} times; `{}` only {low}",
                barrier.name, fewest.name
            );
            let help = "let every party come equally often";
            diags.push(Diagnostic::new("barrier", *span, message, help));
        }
    }
}

/// A barrier in `setup` or `after`, where nobody else runs.
fn outside(test: &Test, name: &str, diags: &mut Vec<Diagnostic>) {
    for steps in [&test.setup, &test.after] {
        each_step(steps, &mut |step| {
            if matches!(&step.action, Action::Barrier(b) if b == name) {
                let message = "nobody else runs here to meet at a barrier";
                let help = "use barriers between actors";
                diags.push(Diagnostic::new("barrier", step.span, message, help));
            }
        });
    }
}

/// An actor that uses the barrier: where first, and how often if that is known.
fn visits<'a>(actor: &'a Actor, name: &str) -> Option<(&'a Actor, Span, Option<u64>)> {
    let mut first = None;
    each_step(&actor.steps, &mut |step| {
        if matches!(&step.action, Action::Barrier(b) if b == name) {
            first.get_or_insert(step.span);
        }
    });
    first.map(|span| (actor, span, count(&actor.steps, name)))
}

fn count(steps: &[Step], name: &str) -> Option<u64> {
    let mut total = 0u64;
    for step in steps {
        let here = match &step.action {
            Action::Barrier(b) => u64::from(b == name),
            Action::Repeat { times, body, .. } => match count(body, name)? {
                0 => 0,
                each => each.checked_mul(times.constant()?)?,
            },
            Action::Shuffle(body) | Action::Fork(body) => count(body, name)?,
            Action::Choose(choices) => {
                let mut counts = choices.iter().map(|c| count(&c.body, name));
                let first = counts.next().flatten()?;
                if counts.any(|c| c != Some(first)) {
                    return None;
                }
                first
            }
            _ => 0,
        };
        total = total.checked_add(here)?;
    }
    Some(total)
}

/// Waits for syncobjs that nothing ever signals.
pub(super) fn fences(test: &Test, diags: &mut Vec<Diagnostic>) {
    let mut signalled: Vec<&str> = Vec::new();
    signalled.extend(test.syncobjs.iter().filter(|s| s.signalled).map(|s| s.name.as_str()));
    for steps in lists(test) {
        each_step(steps, &mut |step| signalled_by(&step.action, &mut signalled));
    }
    for steps in lists(test) {
        each_step(steps, &mut |step| {
            if step.outcomes != [Outcome::Ok] {
                return;
            }
            for point in waited_by(&step.action) {
                if !signalled.contains(&point.syncobj.as_str()) {
                    let message = format!("nothing ever signals `{}`", point.syncobj);
                    let help = "signal it in a step, or by a bind or submission; or expect the \
                                errno: `expect_errno: ETIME`";
                    diags.push(Diagnostic::new("never-holds", step.span, message, help));
                }
            }
        });
    }
}

fn syncobjs(fences: &[Fence]) -> impl Iterator<Item = &Point> {
    fences.iter().filter_map(|f| match f {
        Fence::Syncobj(point) => Some(point),
        Fence::User { .. } => None,
    })
}

/// Syncobjs that an action may signal; what other files may do through an fd counts too.
fn signalled_by<'a>(action: &'a Action, out: &mut Vec<&'a str>) {
    use super::super::step::{Create, ObjectRef};
    match action {
        Action::Signal(points) => out.extend(points.iter().map(|p| p.syncobj.as_str())),
        Action::Submit(submit) => {
            out.extend(syncobjs(&submit.signal).map(|p| p.syncobj.as_str()));
        }
        Action::Bind(bind) => out.extend(syncobjs(&bind.signal).map(|p| p.syncobj.as_str())),
        Action::Transfer { to, .. } => out.push(&to.syncobj),
        Action::Create(Create::Syncobj { name, signalled: true }) => out.push(name),
        Action::Import { object: ObjectRef::Syncobj(name), .. }
        | Action::Export { object: ObjectRef::Syncobj(name), sync_file: false, .. } => {
            out.push(name);
        }
        _ => {}
    }
}

fn waited_by(action: &Action) -> Vec<&Point> {
    match action {
        Action::Wait(wait) => wait.points.iter().collect(),
        Action::Submit(submit) => syncobjs(&submit.wait).collect(),
        Action::Bind(bind) => syncobjs(&bind.wait).collect(),
        _ => Vec::new(),
    }
}
