//! What a well-formed variant can still get wrong: missing capabilities, barriers that never open,
//! steps that are never reached, bounds, races, expectations that cannot hold. Owns judgement of
//! whole tests; single values are checked while they are read, in [`super::lower`].

mod access;
mod bounds;
mod meet;
mod never;
mod race;
mod reach;
mod whole;

use super::ast::Test;
use super::diag::Diagnostic;
use super::expect::{Bound, Check};
use super::lower::Lowered;
use super::step::{Action, Compare, Step};

/// Finds mistakes of a variant.
pub(crate) fn check(lowered: &Lowered, diags: &mut Vec<Diagnostic>) {
    let test = &lowered.test;
    listed(lowered, diags);
    reach::check(test, diags);
    meet::barriers(test, diags);
    meet::fences(test, diags);
    bounds::check(test, diags);
    evidence(test, diags);
    let accesses = access::collect(test);
    race::check(test, &accesses, diags);
    never::check(test, &accesses, diags);
}

/// Capabilities that follow from how the steps meet.
pub(crate) use whole::needs as whole_needs;

/// `needs`, if given, must name what the steps imply; a finer capability covers its parent.
fn listed(lowered: &Lowered, diags: &mut Vec<Diagnostic>) {
    let Some(needs_span) = lowered.needs_span else { return };
    let covered = |capability: &str| {
        lowered.stated.iter().any(|need| {
            need == capability || need.strip_prefix(capability).is_some_and(|r| r.starts_with('.'))
        })
    };
    for (capability, span) in &lowered.implied {
        // Evidence is asked of every scenario.
        if *capability != "counters" && !covered(capability) {
            let message = format!("this needs `{capability}`, which `needs` does not list");
            let help = format!("add `{capability}` to `needs`, or leave `needs` out");
            let diagnostic = Diagnostic::new("missing-capability", *span, message, help);
            diags.push(diagnostic.other(needs_span, "not listed here"));
        }
    }
}

/// Evidence that is there whatever happens is no evidence.
fn evidence(test: &Test, diags: &mut Vec<Diagnostic>) {
    for bound in &test.evidence {
        if let Some(message) = idle(bound) {
            let help = "ask for at least one, `\">= 1\"`, of what the mechanism must do";
            diags.push(Diagnostic::new("no-evidence", bound.span, message, help));
        }
    }
    let only_negative = |bound: &Bound| match &bound.check {
        Check::Compare(Compare::Equal, value) => value.constant() == Some(0),
        _ => false,
    };
    if let Some(first) = test.evidence.first()
        && test.evidence.iter().all(only_negative)
    {
        let message = "all evidence is that nothing happened";
        let help = "name a counter that must have moved; what must not move belongs in \
                    `expect: [ { counters: ... } ]`";
        diags.push(Diagnostic::new("no-evidence", first.span, message, help));
    }
}

fn idle(bound: &Bound) -> Option<String> {
    let idle = match &bound.check {
        Check::Compare(Compare::GreaterEqual, e) => e.constant() == Some(0),
        Check::Between(low, _) => low.constant() == Some(0),
        Check::Compare(Compare::Less, e) if e.constant() == Some(0) => {
            return Some(format!("`{}` can never be below 0", bound.counter));
        }
        Check::Compare(Compare::Less | Compare::LessEqual, _) => true,
        _ => false,
    };
    idle.then(|| format!("`{}` meets this even if nothing ran", bound.counter))
}

/// Calls `f` for every step, inner ones too.
fn each_step<'a>(steps: &'a [Step], f: &mut dyn FnMut(&'a Step)) {
    for step in steps {
        f(step);
        for body in bodies(&step.action) {
            each_step(body, f);
        }
    }
}

/// Lists of steps inside an action.
fn bodies(action: &Action) -> Vec<&[Step]> {
    match action {
        Action::Repeat { body, .. } | Action::Shuffle(body) | Action::Fork(body) => vec![body],
        Action::Choose(choices) => choices.iter().map(|c| c.body.as_slice()).collect(),
        _ => Vec::new(),
    }
}

/// All lists of steps of a test.
fn lists(test: &Test) -> impl Iterator<Item = &[Step]> {
    let actors = test.actors.iter().map(|a| a.steps.as_slice());
    std::iter::once(test.setup.as_slice()).chain(actors).chain([test.after.as_slice()])
}
