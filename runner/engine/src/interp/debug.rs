//! The debug group: single failures, failures at every step of a call, delay points.

use super::actor::{Actor, Answer, Done, answer_text, errno_name, outcome_text};
use super::stage::{all, find};
use crate::lang::ast::QueueClass;
use crate::lang::step::{InjectEvery, InjectKind, Outcome, Step};
use fencepost_fixtures::device as dev;
use std::collections::BTreeMap;
use std::time::Duration;

fn kind(kind: InjectKind) -> dev::Inject {
    match kind {
        InjectKind::Alloc => dev::Inject::Alloc,
        InjectKind::Copy => dev::Inject::Copy,
        InjectKind::DmaMap => dev::Inject::DmaMap,
        InjectKind::AsyncBind => dev::Inject::AsyncBind,
        InjectKind::Migrate => dev::Inject::Migrate,
    }
}

/// What must not change when a call was refused, besides mappings and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    live: BTreeMap<String, u64>,
    queues: Vec<(String, bool, u64)>,
    syncobjs: Vec<(String, bool, Option<u64>)>,
}

impl Actor<'_, '_> {
    pub(super) fn inject(&mut self, step: &Step, what: InjectKind, nth: u64) -> Done<Answer> {
        let client = self.client(step)?;
        let done = client.handle.inject(kind(what), nth);
        Ok(done.map(drop).map_err(|error| error.errno))
    }

    pub(super) fn delay(
        &mut self,
        step: &Step,
        point: &str,
        action: dev::DelayAction,
    ) -> Done<Answer> {
        let client = self.client(step)?;
        let done = self.timed("debug.delay", || client.handle.delay(point, action));
        Ok(done.map(drop).map_err(|error| error.errno))
    }

    /// Runs a step with a failure at its first, second, ... operation until none is left to fail.
    pub(super) fn inject_every(&mut self, step: &Step, inject: &InjectEvery) -> Done {
        let client = self.client(step)?;
        let what = kind(inject.kind);
        for nth in 1..=u64::from(inject.limit) {
            let before = self.state()?;
            if let Err(error) = client.handle.inject(what, nth) {
                return self.fail("arming a failure", "success", &errno_name(error.errno));
            }
            let answer = self.perform(step)?;
            let state = match client.handle.inject(what, 0) {
                Ok(state) => state,
                Err(error) => {
                    return self.fail("disarming a failure", "success", &errno_name(error.errno));
                }
            };
            if !state.fired {
                // Past the last operation: the step ran as if nothing had been armed.
                return self.judge(&step.outcomes, answer);
            }
            self.injected(inject, nth, answer)?;
            // A driver that does without has done the step; the next round tests it from there.
            if answer.is_err() {
                self.unchanged(&before, nth)?;
            }
        }
        let expected = format!("an end within {} injected failures", inject.limit);
        self.fail("injected failures", &expected, "the call still has operations that can fail")
    }

    fn injected(&mut self, inject: &InjectEvery, nth: u64, answer: Answer) -> Done {
        let right = inject.outcomes.iter().any(|outcome| match (outcome, answer) {
            (Outcome::Any, _) | (Outcome::Ok, Ok(())) => true,
            (Outcome::Errno(errno), Err(seen)) => errno.code == seen as i32,
            _ => false,
        });
        if right {
            return Ok(());
        }
        let expected: Vec<String> = inject.outcomes.iter().map(outcome_text).collect();
        let what = format!("outcome with {:?} {nth} made to fail", inject.kind);
        self.fail(&what, &expected.join(" or "), &answer_text(answer))
    }

    /// A failed call left all as it was: counters, queues, syncobjs, mappings, and through the GPU
    /// what is mapped.
    fn unchanged(&mut self, before: &State, nth: u64) -> Done {
        let after = self.state()?;
        let what = format!("after the call whose operation {nth} failed");
        if *before != after {
            let (expected, seen) = difference(before, &after);
            return self.fail(&format!("state {what}"), &expected, &seen);
        }
        for vm in all(&self.stage.names.vms) {
            self.check_vm(&vm, &what)?;
        }
        Ok(())
    }

    fn state(&mut self) -> Done<State> {
        let names = &self.stage.names;
        let mut queues = Vec::new();
        for queue in all(&names.queues) {
            let Some(client) = find(&names.clients, &queue.client) else { continue };
            if let (QueueClass::Exec, Ok(info)) =
                (queue.class, client.handle.queue_info(queue.queue))
            {
                queues.push((queue.name.clone(), info.banned, info.submitted));
            }
        }
        let mut syncobjs = Vec::new();
        for syncobj in all(&names.syncobjs) {
            let Some(client) = find(&names.clients, &syncobj.client) else { continue };
            let points = [(syncobj.handle, 0)];
            let look = dev::SyncobjWait {
                points: &points,
                all: true,
                for_submit: false,
                available: true,
                timeout: Duration::ZERO,
            };
            let has_fence = client.handle.syncobj_wait(&look).is_ok();
            let timeline = self.stage.device.caps().has("timeline");
            let query = || client.handle.timeline_query(&points.map(|(handle, _)| handle), false);
            let value = if timeline { query().ok() } else { None };
            let value = value.and_then(|values| values.first().copied());
            syncobjs.push((syncobj.name.clone(), has_fence, value));
        }
        // The probes' own objects come and go: they are made once, before anything is compared.
        for vm in all(&names.vms) {
            self.warm_probe(&vm)?;
        }
        let mut live = self.counters()?;
        live.retain(|name, _| name.starts_with("live."));
        Ok(State { live, queues, syncobjs })
    }
}

/// Where two states differ, in words.
fn difference(before: &State, after: &State) -> (String, String) {
    for (name, value) in &before.live {
        let now = after.live.get(name).copied().unwrap_or(0);
        if now != *value {
            return (format!("{name} = {value}"), format!("{name} = {now}"));
        }
    }
    for (old, new) in before.queues.iter().zip(&after.queues) {
        if old != new {
            let text = |q: &(String, bool, u64)| format!("{}: banned {}, {} jobs", q.0, q.1, q.2);
            return (text(old), text(new));
        }
    }
    for (old, new) in before.syncobjs.iter().zip(&after.syncobjs) {
        if old != new {
            let text = |s: &(String, bool, Option<u64>)| {
                let value = s.2.map_or(String::new(), |value| format!(", value {value}"));
                format!("{}: {}{value}", s.0, if s.1 { "a fence" } else { "no fence" })
            };
            return (text(old), text(new));
        }
    }
    ("the same objects".to_owned(), "others".to_owned())
}
