//! One actor: it runs steps, one after the other, and knows its variables, its random stream, its
//! last steps and how long each operation took. Owns control flow, outcomes and expressions; what
//! the steps do to the device is in the modules beside.

use super::process::Process;
use super::report::{Label, excerpt};
use super::stage::{ClientObject, JobObject, Stage, find};
use crate::lang::ast::Span;
use crate::lang::expect::Check;
use crate::lang::expr::{EvalError, Expr};
use crate::lang::step::{Action, Compare, Outcome, Step};
use crate::oracle::clock::Timeline;
use crate::oracle::{Mismatch, Origin};
use crate::seed::Random;
use fencepost_fixtures::Errno;
use fencepost_results::latency::{Histogram, histogram};
use fencepost_results::{Failure, Latency, Report};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The actor ends before its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Something did not hold (and is noted), or another actor stopped the test.
    Failed,
    /// An `exit` step, or a `kill` of its process.
    Exit,
    /// Its process was killed within a step.
    Killed,
}

/// What a step's call answered.
pub(super) type Answer = Result<(), Errno>;
/// An answer, unless the actor is to stop.
pub(super) type Done<T = ()> = Result<T, Stop>;

/// How long an actor waits at a barrier.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many of its last steps an actor remembers.
const RECENT: usize = 8;
/// How long submissions that no step waits for are waited for when their actor ends.
pub(super) const LAST_WAIT: Duration = Duration::from_secs(20);

/// An actor.
pub(super) struct Actor<'s, 't> {
    pub(super) stage: &'s Stage<'t>,
    pub(super) name: Arc<str>,
    pub(super) client: String,
    pub(super) line: Timeline,
    /// The process that makes its calls, if that is not this one.
    pub(super) process: Option<Arc<Process>>,
    pub(super) vars: HashMap<String, u64>,
    pub(super) random: Random,
    /// Submissions made by it that nobody has waited for.
    pub(super) open_jobs: Vec<Arc<JobObject>>,
    origins: HashMap<(u32, u32, u32), Origin>,
    recent: VecDeque<Origin>,
    latencies: BTreeMap<String, Histogram<u64>>,
    /// What the times of the step that runs are recorded as, besides their operation.
    latency: Option<Arc<str>>,
    /// The step that runs: what failures name.
    pub(super) origin: Origin,
}

impl<'s, 't> Actor<'s, 't> {
    /// An actor on a timeline of the oracle.
    pub(super) fn new(
        stage: &'s Stage<'t>,
        name: &str,
        client: &str,
        line: Timeline,
        random: Random,
    ) -> Self {
        let name: Arc<str> = name.into();
        let start = Label { actor: Arc::clone(&name), line: 0, text: "start".into(), part: None };
        let origin = stage.label(start);
        Self {
            stage,
            name,
            client: client.to_owned(),
            line,
            process: None,
            vars: HashMap::new(),
            random,
            open_jobs: Vec::new(),
            origins: HashMap::new(),
            recent: VecDeque::new(),
            latencies: BTreeMap::new(),
            latency: None,
            origin,
        }
    }

    // ---- steps -----------------------------------------------------------------------------

    /// Runs steps in order.
    pub(super) fn run(&mut self, steps: &[Step]) -> Done {
        steps.iter().try_for_each(|step| self.step(step))
    }

    /// Runs one step and judges its outcome.
    pub(super) fn step(&mut self, step: &Step) -> Done {
        if self.stage.is_stopped() {
            return Err(Stop::Failed);
        }
        // At a barrier it makes no difference whether the kill comes just before or while it waits.
        if self.is_killed() && !matches!(step.action, Action::Barrier(_)) {
            return Err(Stop::Exit);
        }
        self.enter(step);
        let before = self.latency.clone();
        if let Some(name) = &step.latency {
            self.latency = Some(Arc::clone(name));
        }
        let ended = self.dispatch(step);
        self.latency = before;
        self.after_kill(&step.action, ended)
    }

    fn dispatch(&mut self, step: &Step) -> Done {
        match &step.action {
            Action::Repeat { times, index, body } => self.repeat(times, index.as_deref(), body),
            Action::Choose(choices) => {
                let weights: Vec<u64> = choices.iter().map(|c| u64::from(c.weight)).collect();
                match self.random.weighted(&weights) {
                    Some(choice) => self.run(&choices[choice].body),
                    None => Ok(()),
                }
            }
            Action::Shuffle(body) => {
                let mut order: Vec<&Step> = body.iter().collect();
                self.random.shuffle(&mut order);
                order.into_iter().try_for_each(|step| self.step(step))
            }
            Action::Barrier(name) => self.barrier(name),
            Action::Check(expects) => self.check_all(expects),
            Action::Exit(_) => Err(Stop::Exit),
            Action::Fork(body) => self.fork(body),
            _ => match &step.inject {
                Some(inject) => self.inject_every(step, inject),
                None => {
                    let answer = self.perform(step)?;
                    self.judge(&step.outcomes, answer)
                }
            },
        }
    }

    /// Notes which step runs.
    fn enter(&mut self, step: &Step) {
        self.origin = self.origin_of(step.span, step.line);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(self.origin);
    }

    /// The number of a step for the oracle: the same each time it runs.
    pub(super) fn origin_of(&mut self, span: Span, line: u32) -> Origin {
        let (stage, name) = (self.stage, &self.name);
        *self.origins.entry((span.start, span.end, line)).or_insert_with(|| {
            let text = excerpt(stage.text, span).into();
            stage.label(Label { actor: Arc::clone(name), line, text, part: None })
        })
    }

    /// The number of a part of the step that runs.
    pub(super) fn part(&mut self, part: String) -> Origin {
        let whole = self.stage.labels.get(self.origin);
        let (line, text) = whole.map_or((0, "".into()), |label| (label.line, label.text));
        self.stage.label(Label { actor: Arc::clone(&self.name), line, text, part: Some(part) })
    }

    fn repeat(&mut self, times: &Expr, index: Option<&str>, body: &[Step]) -> Done {
        let times = self.value(times)?;
        for round in 0..times {
            if let Some(index) = index {
                self.vars.insert(index.to_owned(), round);
            }
            self.run(body)?;
        }
        Ok(())
    }

    fn barrier(&mut self, name: &str) -> Done {
        let stage = self.stage;
        let Some(barrier) = stage.barriers.get(name) else {
            return self.fail("barrier", "a barrier of that name", name);
        };
        let mine = stage.model().arrive(self.line);
        match barrier.meet(mine, PATIENCE, &|| stage.is_stopped() || self.is_killed()) {
            Ok(met) => {
                stage.model().leave(self.line, &met);
                Ok(())
            }
            Err(super::rendezvous::Missed::Stopped) if self.is_killed() => Err(Stop::Killed),
            Err(super::rendezvous::Missed::Stopped) => Err(Stop::Failed),
            Err(super::rendezvous::Missed::Late(came)) => {
                let seen = format!("{came} after {} s", PATIENCE.as_secs());
                self.fail(&format!("barrier {name}"), "all parties to come", &seen)
            }
        }
    }

    // ---- outcomes --------------------------------------------------------------------------

    /// Compares an answer with the outcomes that are right.
    pub(super) fn judge(&mut self, outcomes: &[Outcome], answer: Answer) -> Done {
        let right = outcomes.iter().any(|outcome| match (outcome, answer) {
            (Outcome::Any, _) | (Outcome::Ok, Ok(())) => true,
            (Outcome::Errno(errno), Err(seen)) => errno.code == seen as i32,
            _ => false,
        });
        if right {
            return Ok(());
        }
        let expected: Vec<String> = outcomes.iter().map(outcome_text).collect();
        self.fail("outcome of the step", &expected.join(" or "), &answer_text(answer))
    }

    /// Notes a failure of this step.
    pub(super) fn fail<T>(&mut self, what: &str, expected: &str, seen: &str) -> Done<T> {
        self.fail_with(Failure {
            step: None,
            what: what.to_owned(),
            expected: expected.to_owned(),
            seen: seen.to_owned(),
            details: Vec::new(),
        })
    }

    /// Notes a failure of this step, with its last steps and the seed.
    pub(super) fn fail_with<T>(&mut self, mut failure: Failure) -> Done<T> {
        if self.is_killed() {
            // What a dead process did not do is no failure; the step knows what to make of it.
            return Err(Stop::Killed);
        }
        failure.step = self.stage.labels.get(self.origin).map(|label| label.step());
        failure.details.push(format!("seed {:#x}", self.stage.seed));
        let recent: Vec<String> =
            self.recent.iter().map(|origin| self.stage.labels.inline(*origin)).collect();
        failure.details.push("last steps of this actor, the failed one last:".to_owned());
        failure.details.extend(recent.into_iter().map(|step| format!("  {step}")));
        self.stage.fail(failure);
        Err(Stop::Failed)
    }

    /// Notes a wrong value.
    pub(super) fn wrong_value<T>(&mut self, what: &str, wrong: &Mismatch) -> Done<T> {
        let stage = self.stage;
        let name = |object| stage.object_name(object);
        let failure = super::report::mismatch(&stage.labels, &name, what, wrong);
        self.fail_with(failure)
    }

    /// Something that the checker should not have let pass, or that this process cannot do.
    pub(super) fn broken<T>(&mut self, what: &str) -> Done<T> {
        self.fail("the step as such", "something that can be done", what)
    }

    // ---- values ----------------------------------------------------------------------------

    /// The value of an expression now.
    pub(super) fn value(&mut self, expr: &Expr) -> Done<u64> {
        if let Expr::Const(value) = expr {
            return Ok(*value);
        }
        match expr.eval(self) {
            Ok(value) => Ok(value),
            Err(error) => self.no_value(expr, &error),
        }
    }

    fn no_value(&mut self, expr: &Expr, error: &EvalError) -> Done<u64> {
        self.fail(&format!("expression {expr}"), "a number", &error.to_string())
    }

    /// Values of several expressions.
    pub(super) fn values(&mut self, exprs: &[Expr]) -> Done<Vec<u64>> {
        exprs.iter().map(|expr| self.value(expr)).collect()
    }

    /// Checks a value; in words what it should have been, if it is wrong.
    pub(super) fn check_value(&mut self, check: &Check, seen: u64) -> Done<Option<String>> {
        let (holds, text) = match check {
            Check::Compare(compare, expr) => {
                let value = self.value(expr)?;
                (holds(*compare, seen, value), format!("{} {value:#x}", symbol(*compare)))
            }
            Check::In(exprs) => {
                let values = self.values(exprs)?;
                let list: Vec<String> = values.iter().map(|v| format!("{v:#x}")).collect();
                (values.contains(&seen), format!("one of {}", list.join(", ")))
            }
            Check::Between(low, high) => {
                let (low, high) = (self.value(low)?, self.value(high)?);
                ((low..=high).contains(&seen), format!("from {low:#x} to {high:#x}"))
            }
        };
        Ok((!holds).then_some(text))
    }

    /// Checks a value and notes a failure if it is wrong.
    pub(super) fn must(&mut self, what: &str, check: Option<&Check>, seen: u64) -> Done {
        let Some(check) = check else { return Ok(()) };
        match self.check_value(check, seen)? {
            None => Ok(()),
            Some(expected) => self.fail(what, &expected, &format!("{seen:#x}")),
        }
    }

    /// Keeps a named result.
    pub(super) fn keep(&mut self, name: Option<&str>, value: u64) {
        let Some(name) = name else { return };
        self.vars.insert(name.to_owned(), value);
        let mut results = self.stage.results.lock().unwrap_or_else(|p| p.into_inner());
        results.entry(name.to_owned()).or_default().push(value);
    }

    // ---- helpers ---------------------------------------------------------------------------

    /// The client that a step uses.
    pub(super) fn client(&mut self, step: &Step) -> Done<Arc<ClientObject>> {
        let name = step.client.clone().unwrap_or_else(|| self.client.clone());
        self.client_named(&name)
    }

    /// The client of that name.
    pub(super) fn client_named(&mut self, name: &str) -> Done<Arc<ClientObject>> {
        if let Some(process) = &self.process {
            return match process.client.name == name {
                true => Ok(Arc::clone(&process.client)),
                false => self.broken(&format!("a forked process has no file of client {name}")),
            };
        }
        match find(&self.stage.names.clients, name) {
            Some(client) => Ok(client),
            None => self.broken(&format!("there is no client {name}")),
        }
    }

    /// Does something to the device and notes how long it took.
    pub(super) fn timed<T>(&mut self, operation: &str, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = call();
        self.took(operation, start.elapsed());
        result
    }

    /// Notes how long something took.
    pub(super) fn took(&mut self, operation: &str, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let named = self.latency.as_ref().map(|name| format!("{operation}:{name}"));
        let operation = named.as_deref().unwrap_or(operation);
        if let Some(histogram) = self.latencies.get_mut(operation) {
            histogram.saturating_record(nanos);
            return;
        }
        let mut first = histogram();
        first.saturating_record(nanos);
        self.latencies.insert(operation.to_owned(), first);
    }

    /// Reports the latencies; the actor is over.
    pub(super) fn send_latencies(&mut self) {
        for (operation, histogram) in std::mem::take(&mut self.latencies) {
            (self.stage.sink)(Report::Latency(Latency {
                actor: self.name.to_string(),
                operation,
                histogram: fencepost_results::latency::encode(&histogram),
            }));
        }
    }

    /// Waits for the submissions that no step waited for, so that what they did is judged too.
    pub(super) fn close_jobs(&mut self) -> Done {
        for job in std::mem::take(&mut self.open_jobs) {
            if !job.finished.load(Ordering::SeqCst) {
                self.finish_any(&job)?;
            }
        }
        Ok(())
    }
}

impl crate::lang::expr::Env for Actor<'_, '_> {
    fn var(&mut self, name: &str) -> Option<u64> {
        if let Some(value) = self.vars.get(name) {
            return Some(*value);
        }
        // The address of CPU memory; no name of a scenario begins so.
        if let Some(memory) = name.strip_prefix('&') {
            let memory = find(&self.stage.names.memory, memory)?;
            return memory.area.as_ref().map(|area| area.addr);
        }
        if name == "va_end" {
            return self.stage.default_vm(&self.client).map(|vm| vm.end);
        }
        let vm = name.strip_suffix(".va_end")?;
        find(&self.stage.names.vms, vm).map(|vm| vm.end)
    }

    fn content(&mut self, memory: &str, offset: u64) -> Option<u64> {
        let memory = find(&self.stage.names.memory, memory)?;
        let (object, offset) = self.behind(&memory, offset);
        self.stage.model().content(self.line, object, offset, 8).single()
    }

    fn rand(&mut self, bound: u64) -> Option<u64> {
        Some(self.random.below(bound))
    }
}

/// Whether two numbers compare so.
pub(super) fn holds(compare: Compare, left: u64, right: u64) -> bool {
    match compare {
        Compare::Equal => left == right,
        Compare::NotEqual => left != right,
        Compare::Less => left < right,
        Compare::LessEqual => left <= right,
        Compare::Greater => left > right,
        Compare::GreaterEqual => left >= right,
    }
}

/// How a comparison is written.
pub(super) fn symbol(compare: Compare) -> &'static str {
    match compare {
        Compare::Equal => "==",
        Compare::NotEqual => "!=",
        Compare::Less => "<",
        Compare::LessEqual => "<=",
        Compare::Greater => ">",
        Compare::GreaterEqual => ">=",
    }
}

/// An outcome in words.
pub(super) fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ok => "success".to_owned(),
        Outcome::Errno(errno) => errno.name.to_owned(),
        Outcome::Any => "anything".to_owned(),
    }
}

/// An answer in words.
pub(super) fn answer_text(answer: Answer) -> String {
    match answer {
        Ok(()) => "success".to_owned(),
        Err(errno) => errno_name(errno),
    }
}

/// The errno's name and meaning.
pub(super) fn errno_name(errno: Errno) -> String {
    format!("{errno:?} ({})", errno.desc())
}
