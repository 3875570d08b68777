//! A whole test: from opening the device to its leak counters. Owns the order of things.

use super::actor::{Actor, Done, Stop};
use super::process::Process;
use super::remote::RemoteClient;
use super::stage::{Stage, all};
use crate::lang::ast::{self, Test};
use crate::lang::step::{Action, Step};
use crate::seed::Random;
use fencepost_fixtures::Errno;
use fencepost_fixtures::device::{self as dev, Client, Device};
use fencepost_results::{Failure, Outcome, Report, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a test runs with.
pub struct Setting<'t> {
    /// The test.
    pub test: &'t Test,
    /// The text that it comes from, for excerpts.
    pub text: &'t str,
    /// The device.
    pub device: &'t dyn Device,
    /// The test's seed.
    pub seed: u64,
    /// Where reports go, the outcome excepted.
    pub sink: &'t (dyn Fn(Report) + Sync),
}

/// Runs a test and judges it.
#[must_use]
pub fn run(setting: &Setting<'_>) -> Outcome {
    let test = setting.test;
    let missing = setting.device.caps().missing(test.needs.iter().map(String::as_str));
    if !missing.is_empty() {
        let reason = format!("the device has no {}", missing.join(", "));
        return Outcome { verdict: Verdict::Skip, reason: Some(reason) };
    }
    if let Some(case) = &test.kernel
        && let Err(broken) = setting.device.run_kernel_case(case)
    {
        return judge(Some(kernel_failure(case, broken)), None, Vec::new(), &|report| {
            (setting.sink)(report);
        });
    }
    let (stage, main) = Stage::new(test, setting.text, setting.device, setting.seed, setting.sink);
    if let Err(errno) = fork_clients(&stage) {
        let reason = format!("a process of a client cannot be started: {errno}");
        return Outcome { verdict: Verdict::Fail, reason: Some(reason) };
    }
    let watch = Leaks::before(setting.device);
    let mut director =
        Actor::new(&stage, "setup", &test.clients[0].name, main, Random::new(setting.seed, 0));
    let missing = play(&mut director, setting.seed);
    director.send_latencies();
    director.drop_probes(None);
    let closed = Instant::now();
    for client in all(&stage.names.clients) {
        let name = client.name.clone();
        drop(client);
        director.close_client(&name);
    }
    drop(director);
    let failure = stage.first_failure();
    drop(stage);
    let leak = watch.and_then(|watch| watch.after(closed));
    judge(failure, leak, missing.unwrap_or_default(), setting.sink)
}

/// A case of the kernel's that did not hold.
fn kernel_failure(case: &str, broken: dev::kernel::Broken) -> Failure {
    let dev::kernel::Broken { what, expected, seen } = broken;
    let what = format!("kernel case {case}: {what}");
    Failure { step: None, what, expected, seen, details: Vec::new() }
}

/// Starts the processes of clients that have one: before anything is open or any thread runs, as they
/// would share it.
fn fork_clients(stage: &Stage<'_>) -> Result<(), Errno> {
    for client in stage.test.clients.iter().filter(|client| client.process) {
        let child = RemoteClient::fork(stage.device)?;
        if let Some(max) = client.memory_max {
            let group = dev::kernel::cgroup::Group::with_memory(max);
            let group = group.map_err(|error| error.errno)?;
            child.join(&group).map_err(|error| error.errno)?;
            stage.groups.lock().unwrap_or_else(|p| p.into_inner()).push(group);
        }
        let mut children = stage.children.lock().unwrap_or_else(|p| p.into_inner());
        children.insert(client.name.clone(), child);
    }
    Ok(())
}

/// The verdict from what was found.
fn judge(
    failure: Option<Failure>,
    leak: Option<Failure>,
    missing: Vec<String>,
    sink: &(dyn Fn(Report) + Sync),
) -> Outcome {
    if let Some(leak) = &leak {
        sink(Report::Failure(leak.clone()));
    }
    if let Some(failure) = failure.or(leak) {
        let line = failure.step.as_ref().filter(|step| step.line > 0);
        let place = line.map_or_else(String::new, |step| format!("line {}: ", step.line));
        let Failure { what, expected, seen, .. } = failure;
        let reason = format!("{place}{what}: expected {expected}, saw {seen}");
        return Outcome { verdict: Verdict::Fail, reason: Some(reason) };
    }
    if missing.is_empty() {
        return Outcome { verdict: Verdict::Pass, reason: None };
    }
    Outcome { verdict: Verdict::Inconclusive, reason: Some(missing.join("; ")) }
}

/// Setup, rounds, evidence. Gives what evidence was missing.
fn play(director: &mut Actor<'_, '_>, seed: u64) -> Done<Vec<String>> {
    let stage = director.stage;
    let test = stage.test;
    director.set_up()?;
    director.run(&test.setup)?;
    director.close_jobs()?;
    let has_counters = stage.device.caps().has("counters");
    note_base(director, has_counters)?;
    let mut now = BTreeMap::new();
    for round in 0..u64::from(test.rounds) {
        if round > 0 {
            reset_memory(director)?;
        }
        act(director, seed, round)?;
        director.name = "after".into();
        director.run(&test.after)?;
        director.close_jobs()?;
        if has_counters {
            // Before the expectations, whose own reads must not count as evidence.
            now = director.counters()?;
        }
        director.name = "expect".into();
        director.check_all(&test.expect)?;
    }
    check_end(director)?;
    let mut missing = director.weigh_evidence(&test.evidence, &now)?;
    let sometimes = stage.sometimes.lock().unwrap_or_else(|p| p.into_inner());
    for (line, _) in sometimes.iter().filter(|(_, held)| !**held) {
        missing.push(format!("line {line}: what must happen sometimes never did"));
    }
    Ok(missing)
}

fn note_base(director: &mut Actor<'_, '_>, has_counters: bool) -> Done {
    let stage = director.stage;
    if has_counters {
        let counters = director.counters()?;
        *stage.base.lock().unwrap_or_else(|p| p.into_inner()) = counters;
    }
    if stage.device.caps().has("fault_report") {
        for vm in all(&stage.names.vms) {
            let client = director.client_named(&vm.client)?;
            if let Ok(log) = client.handle.faults(vm.vm, false) {
                vm.faults_before.store(log.faults.len() as u64, Ordering::SeqCst);
            }
        }
    }
    Ok(())
}

/// Every object's content is set back to what it was at first.
fn reset_memory(director: &mut Actor<'_, '_>) -> Done {
    let stage = director.stage;
    stage.results.lock().unwrap_or_else(|p| p.into_inner()).clear();
    for memory in all(&stage.names.memory) {
        match memory.area {
            Some(_) => director.renew_area(&memory)?,
            None => director.write_pattern(&memory)?,
        }
    }
    Ok(())
}

/// One actor, with the number of its random stream.
struct Role<'t> {
    actor: &'t ast::Actor,
    copy: u32,
    stream: u64,
    process: Option<Arc<Process>>,
}

impl Role<'_> {
    fn name(&self) -> String {
        match self.actor.copies {
            1 => self.actor.name.clone(),
            _ => format!("{}.{}", self.actor.name, self.copy),
        }
    }
}

/// Starts all actors together and waits for their end.
fn act(director: &mut Actor<'_, '_>, seed: u64, round: u64) -> Done {
    let stage = director.stage;
    let mut roles = Vec::new();
    for actor in &stage.test.actors {
        for copy in 0..actor.copies {
            let stream = 1 + roles.len() as u64;
            roles.push(Role { actor, copy, stream, process: None });
        }
    }
    // Before any thread runs that could hold something which a child needs.
    for role in roles.iter_mut().filter(|role| role.actor.process) {
        role.process = Some(fork_actor(director, role)?);
    }
    let count = roles.len() as u64;
    let lines: Vec<u16> = {
        let mut model = stage.model();
        let lines = roles.iter().map(|_| model.start(director.line)).collect();
        model.pause(director.line);
        lines
    };
    let play = |(role, line): (&Role<'_>, u16)| {
        // Each round has streams of its own.
        let random = Random::new(seed, role.stream + round * count);
        let mut actor = Actor::new(stage, &role.name(), &role.actor.client, line, random);
        actor.vars.insert("copy".to_owned(), u64::from(role.copy));
        actor.process = role.process.clone();
        perform_role(&mut actor, role.actor);
    };
    if let [role] = &roles[..] {
        // Nobody to race with: no thread is needed.
        play((role, lines[0]));
    } else {
        std::thread::scope(|scope| {
            for (role, line) in roles.iter().zip(&lines) {
                scope.spawn(|| play((role, *line)));
            }
        });
    }
    stage.model().join(director.line, &lines);
    if stage.is_stopped() { Err(Stop::Failed) } else { Ok(()) }
}

/// Forks the process of an actor.
fn fork_actor(director: &mut Actor<'_, '_>, role: &Role<'_>) -> Done<Arc<Process>> {
    let name = std::mem::replace(&mut director.name, role.name().into());
    let client = std::mem::replace(&mut director.client, role.actor.client.clone());
    director.origin = director.origin_of_span(role.actor.span);
    let process = director.start_process();
    (director.name, director.client) = (name, client);
    process
}

fn perform_role(actor: &mut Actor<'_, '_>, role: &ast::Actor) {
    let steps = &role.steps;
    let ended = actor.run(steps);
    if ended != Err(Stop::Failed) {
        // What is in flight is judged too; a failure there is noted like any other.
        let _ = actor.close_jobs();
    }
    actor.end_process();
    actor.send_latencies();
}

/// When all is over the device must agree with the oracle about mappings and memory.
fn check_end(director: &mut Actor<'_, '_>) -> Done {
    for memory in all(&director.stage.names.memory) {
        // What no CPU has mapped so far is not mapped for this alone.
        if memory.area.as_ref().is_some_and(|area| director.stage.model().mm_has_ended(area.mm)) {
            continue;
        }
        if memory.view.get().is_some() {
            director.query_area(&memory)?;
            director.cpu_survey(&memory)?;
        }
    }
    for vm in all(&director.stage.names.vms) {
        if !director.is_banned(&vm)? {
            director.check_layout(&vm, "at the end")?;
        }
    }
    Ok(())
}

impl Actor<'_, '_> {
    /// Does what a step says, once; gives what the call answered.
    pub(super) fn perform(&mut self, step: &Step) -> Done<Result<(), Errno>> {
        match &step.action {
            Action::CpuRead(read) => self.cpu_read(read),
            Action::CpuWrite(write) => self.cpu_write(write),
            Action::CpuFill(fill) => self.cpu_fill(fill),
            Action::CpuAtomic(atomic) => self.cpu_atomic(atomic),
            Action::CpuProgram { at, body } => self.cpu_program(step, at, body),
            Action::CpuWait(wait) => self.cpu_wait(wait),
            Action::Submit(submit) => self.submit(step, submit),
            Action::Finish(finish) => self.finish(finish),
            Action::Bind(bind) => self.bind(step, bind),
            Action::Create(create) => self.create(step, create),
            Action::Destroy(object) => self.destroy(step, object),
            Action::Close(client) => self.close(client),
            Action::Export { object, sync_file, fd } => self.export(step, object, *sync_file, fd),
            Action::Import { fd, object, .. } => self.import(step, fd, object),
            Action::Wait(wait) => self.wait(step, wait),
            Action::Signal(points) => self.signal(step, points),
            Action::Reset(names) => self.reset(step, names),
            Action::Query(queries) => self.query(step, queries),
            Action::Transfer { from, to, for_submit } => self.transfer(step, from, to, *for_submit),
            Action::WaitUserFence(wait) => self.wait_user_fence(step, wait),
            Action::Poll { fd, timeout, ready } => self.poll(fd, *timeout, *ready),
            Action::Inject { kind, nth } => {
                let nth = self.value(nth)?;
                self.inject(step, *kind, nth)
            }
            Action::DelayArm { point, timeout } => {
                self.delay(step, point, dev::DelayAction::Arm(*timeout))
            }
            Action::DelayWait { point, timeout } => {
                self.delay(step, point, dev::DelayAction::Wait(*timeout))
            }
            Action::DelayRelease(point) => self.delay(step, point, dev::DelayAction::Release),
            Action::Evict(memory) => self.evict(step, memory.as_deref()),
            Action::EvictSvm => self.evict_svm(step),
            Action::Mm(mm) => self.mm_step(mm),
            Action::Kernel(kernel) => self.kernel_step(kernel),
            Action::Svm(svm) => self.svm_step(step, svm),
            Action::Abi(case) => self.abi(case),
            Action::Kill(client) => self.kill(client),
            Action::Exec => self.exec(step),
            Action::Spawn(start) => self.spawn(step, *start),
            Action::Blocked { process, timeout } => self.blocked(process, *timeout),
            Action::Merge { first, second, fd } => self.merge(first, second, fd),
            Action::Repeat { .. }
            | Action::Choose(_)
            | Action::Shuffle(_)
            | Action::Barrier(_)
            | Action::Check(_)
            | Action::Fork(_)
            | Action::Exit(_) => self.broken("control flow has no answer"),
        }
    }

    fn abi(&mut self, case: &str) -> Done<Result<(), Errno>> {
        let stage = self.stage;
        let outcome = match self.timed("abi.case", || stage.device.run_abi(case)) {
            Ok(outcome) => outcome,
            Err(error) => {
                return self.fail(&format!("uAPI case {case}"), "to run", &error.to_string());
            }
        };
        let text = |errno: Option<Errno>| {
            errno.map_or_else(|| "success".to_owned(), super::actor::errno_name)
        };
        if let Some(violation) = outcome.violations.first() {
            let what = format!("uAPI case {case}");
            return self.fail(&what, "nothing else to change", violation);
        }
        if !outcome.holds() {
            let what = format!("uAPI case {case}");
            return self.fail(&what, &text(outcome.expected), &text(outcome.seen));
        }
        Ok(Ok(()))
    }
}

/// The leak check: what lives on the device before and after.
struct Leaks<'d> {
    device: &'d dyn Device,
    before: BTreeMap<String, u64>,
}

impl<'d> Leaks<'d> {
    /// Looks before anything is made. None: the device does not count.
    fn before(device: &'d dyn Device) -> Option<Self> {
        if !device.caps().has("counters") {
            return None;
        }
        Some(Self { device, before: live(&*device.open().ok()?)? })
    }

    /// Looks when all is closed. A close may take a moment to be worked off.
    fn after(&self, closed: Instant) -> Option<Failure> {
        const LOOK_EVERY: Duration = Duration::from_millis(1);
        const PATIENCE: Duration = Duration::from_secs(3);
        let client = self.device.open().ok()?;
        loop {
            let now = live(&*client)?;
            let grown = |(name, value): &(&String, &u64)| {
                **value > self.before.get(*name).copied().unwrap_or(0)
            };
            let leaked: Vec<String> =
                now.iter().filter(grown).map(|(name, value)| format!("{name} = {value}")).collect();
            if leaked.is_empty() {
                return None;
            }
            if closed.elapsed() > PATIENCE {
                let was = |(name, value): (&String, &u64)| format!("{name} = {value}");
                let before: Vec<String> = self.before.iter().map(was).collect();
                return Some(Failure {
                    step: None,
                    what: "what lives on the device after all was closed".to_owned(),
                    expected: "as before the test".to_owned(),
                    seen: leaked.join(", "),
                    details: vec![format!("before: {}", before.join(", "))],
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn live(client: &dyn Client) -> Option<BTreeMap<String, u64>> {
    let mut counters = client.counters().ok()?;
    counters.retain(|name, _| name.starts_with("live.") || name == "leaks");
    Some(counters)
}
