//! Steps that are never reached.

use super::super::ast::{Actor, Span, Test};
use super::super::diag::Diagnostic;
use super::super::step::{Action, Batch, Command, Step};
use super::{bodies, each_step, lists};

/// Reports the first unreachable step of each list.
pub(super) fn check(test: &Test, diags: &mut Vec<Diagnostic>) {
    for steps in lists(test) {
        list(steps, diags);
    }
    if test.rounds > 1 {
        test.actors.iter().for_each(|actor| once(test, actor, diags));
    }
}

/// What ends a client in the first round leaves the others without it.
fn once(test: &Test, actor: &Actor, diags: &mut Vec<Diagnostic>) {
    each_step(&actor.steps, &mut |step| {
        let what = match &step.action {
            Action::Close(client) => format!("closes the client `{client}`"),
            Action::Kill(name) if test.clients.iter().any(|client| client.name == *name) => {
                format!("kills the client `{name}`")
            }
            Action::Exec if !actor.process => {
                format!("runs another program in the process of `{}`", actor.client)
            }
            _ => return,
        };
        let message = format!("the first of {} rounds {what}", test.rounds);
        let help = "do it in `after`, or leave `rounds` out and `repeat` the steps before it";
        diags.push(Diagnostic::new("unreachable", step.span, message, help));
    });
}

/// Checks a list; gives the step after which the actor has ended, if there is one.
fn list(steps: &[Step], diags: &mut Vec<Diagnostic>) -> Option<Span> {
    let mut end: Option<Span> = None;
    let mut closed: Vec<(&str, Span)> = Vec::new();
    for step in steps {
        if let Some(span) = end {
            let message = "this step is never reached: the actor has ended";
            let help = "move it before the end, or remove it";
            let diagnostic = Diagnostic::new("unreachable", step.span, message, help);
            diags.push(diagnostic.other(span, "ends here"));
            return end;
        }
        after_close(step, &closed, diags);
        if let Action::Close(client) = &step.action {
            closed.push((client, step.span));
        }
        end = ends(step, diags);
    }
    end
}

/// A closed client can do nothing more; `kill` of its process closes it too, but may race.
fn after_close(step: &Step, closed: &[(&str, Span)], diags: &mut Vec<Diagnostic>) {
    let client = step.client.as_deref().or(match &step.action {
        Action::Close(client) => Some(client.as_str()),
        _ => None,
    });
    if let Some((name, span)) = closed.iter().find(|(c, _)| Some(*c) == client) {
        let message = format!("the client `{name}` is closed here");
        let help = "do this before `close`, or use another client";
        let diagnostic = Diagnostic::new("unreachable", step.span, message, help);
        diags.push(diagnostic.other(*span, "closed here"));
    }
}

/// Where the actor ends in this step, if it surely does.
fn ends(step: &Step, diags: &mut Vec<Diagnostic>) -> Option<Span> {
    match &step.action {
        Action::Exit(_) => Some(step.span),
        Action::Repeat { times, body, .. } if times.constant() == Some(0) => {
            if let Some(first) = body.first() {
                let message = "these steps are repeated 0 times";
                let help = "repeat at least once, or remove them";
                let diagnostic = Diagnostic::new("unreachable", first.span, message, help);
                diags.push(diagnostic.other(step.span, "never enters"));
            }
            None
        }
        Action::Repeat { body, .. } | Action::Shuffle(body) => list(body, diags),
        Action::Fork(body) => {
            list(body, diags);
            None
        }
        Action::Choose(_) => {
            let all: Vec<_> = bodies(&step.action).into_iter().map(|b| list(b, diags)).collect();
            all.iter().all(Option::is_some).then_some(step.span).filter(|_| !all.is_empty())
        }
        Action::Submit(submit) => {
            for batch in &submit.batches {
                if let Batch::Program(commands) = batch {
                    loops(commands, step.span, diags);
                }
            }
            None
        }
        _ => None,
    }
}

fn loops(commands: &[Command], span: Span, diags: &mut Vec<Diagnostic>) {
    for command in commands {
        if let Command::Loop { times, body } = command {
            if times.constant() == Some(0) {
                let message = "a loop of 0 rounds never runs its commands";
                let help = "loop at least once, or remove it";
                diags.push(Diagnostic::new("unreachable", span, message, help));
            }
            loops(body, span, diags);
        }
    }
}
