//! From the node tree of one variant to a [`Test`], collecting every mistake on the way. Owns
//! names, implied objects and implied capabilities; what a correct tree may still get wrong (races,
//! bounds, expectations that cannot hold) is found by [`super::check`].

mod bind;
mod call;
mod decl;
mod expect;
mod gpu;
mod kernel;
mod memory;
mod names;
mod step;
mod svm;
mod value;

use super::ast::{Queue, QueueClass, Span, Test, Tier, Vm};
use super::diag::Diagnostic;
use super::expr::Expr;
use super::grammar::SCENARIO;
use super::params::{Bindings, Matcher, Params};
use super::yaml::{Node, NodeKind};
pub(crate) use names::Kind;
use names::Names;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// A lowered variant.
pub(crate) struct Lowered {
    pub(crate) test: Test,
    pub(crate) diags: Vec<Diagnostic>,
    /// Declared names, with their places.
    pub(crate) declared: Vec<(Kind, String, Span)>,
    /// Names that something uses.
    pub(crate) used: BTreeSet<(Kind, String)>,
    /// Capabilities that the steps imply, with the first place that does.
    pub(crate) implied: Vec<(&'static str, Span)>,
    /// Capabilities as `needs` lists them.
    pub(crate) stated: Vec<String>,
    /// Place of `needs`, if given.
    pub(crate) needs_span: Option<Span>,
}

/// What all variants of a scenario share.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// Byte offsets of line starts.
    pub(crate) lines: &'a [u32],
    pub(crate) params: &'a Params,
    pub(crate) bindings: &'a Bindings,
    /// Folder of the file: the suite of a scenario that names none.
    pub(crate) folder: &'a str,
    /// The text was cut by a YAML error: do not report what is missing.
    pub(crate) truncated: bool,
}

/// Lowers a substituted document.
pub(crate) fn lower(doc: &Node, cx: Context<'_>) -> Lowered {
    let mut lower = Lower {
        cx,
        diags: Vec::new(),
        names: Names::default(),
        base: Some(0),
        unit: Some(1),
        va_end: None,
        client: String::new(),
        first_client: String::new(),
        indices: Vec::new(),
        sizes: HashMap::new(),
        barriers_declared: doc.get("barriers").is_some(),
        implied: Vec::new(),
        stated: Vec::new(),
        needs_vm: BTreeSet::new(),
        needs_queue: BTreeSet::new(),
        needs_debug: BTreeSet::new(),
    };
    let test = lower.scenario(doc);
    lower.names.resolve(&mut lower.diags);
    Lowered {
        test,
        diags: lower.diags,
        used: lower.names.used(),
        declared: lower.names.declared(),
        implied: lower.implied,
        stated: lower.stated,
        needs_span: doc.get("needs").map(|n| n.span),
    }
}

/// State while one variant is lowered.
struct Lower<'a> {
    cx: Context<'a>,
    diags: Vec<Diagnostic>,
    names: Names,
    /// Address and size of a unit of compact ranges; none: given wrongly.
    base: Option<u64>,
    unit: Option<u64>,
    /// End of the default VM if the scenario states it.
    va_end: Option<u64>,
    /// Client of the steps being lowered.
    client: String,
    first_client: String,
    /// Loop indices in scope.
    indices: Vec<String>,
    /// Sizes of memory declared so far.
    sizes: HashMap<String, Expr>,
    /// The scenario has `barriers:`, so that others are mistakes.
    barriers_declared: bool,
    implied: Vec<(&'static str, Span)>,
    stated: Vec<String>,
    /// Clients that use their default VM, queue, or the debug group.
    needs_vm: BTreeSet<String>,
    needs_queue: BTreeSet<String>,
    needs_debug: BTreeSet<String>,
}

impl Lower<'_> {
    fn error(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diags.push(Diagnostic::new(code, span, message, help));
    }

    /// Reports a value of the wrong shape, unless it was reported already.
    fn wrong(&mut self, node: &Node, wanted: &str, help: impl Into<Cow<'static, str>>) {
        if !matches!(node.kind, NodeKind::Bad) {
            self.diags.push(super::params::wrong(node, wanted, help));
        }
    }

    /// Line of a place, counted from 1.
    fn line(&self, span: Span) -> u32 {
        let line = self.cx.lines.partition_point(|start| *start <= span.start);
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    /// Notes that something needs a capability.
    fn need(&mut self, capability: &'static str, span: Span) {
        if self.implied.iter().all(|(c, _)| *c != capability) {
            self.implied.push((capability, span));
        }
    }

    fn scenario(&mut self, doc: &Node) -> Test {
        let map = self.shape(doc, &SCENARIO);
        let (suite, scenario) = self.name(doc);
        let mut test = Test {
            name: test_name(&suite, &scenario, &self.cx.bindings.name),
            about: String::new(),
            tier: Tier::default(),
            kernel: None,
            needs: Vec::new(),
            rounds: 1,
            timeout: map.get("timeout").and_then(|n| self.time(n)),
            clients: Vec::new(),
            vms: Vec::new(),
            memory: Vec::new(),
            queues: Vec::new(),
            syncobjs: Vec::new(),
            barriers: Vec::new(),
            setup: Vec::new(),
            actors: Vec::new(),
            after: Vec::new(),
            expect: Vec::new(),
            evidence: Vec::new(),
        };
        self.header(&map, &mut test);
        self.units(&map);
        self.collect_names(doc);
        self.declarations(&map, &mut test);
        self.behaviour(&map, &mut test);
        self.implied_objects(&mut test);
        self.barriers(&map, &mut test);
        for need in super::check::whole_needs(&test) {
            self.need(need, doc.span);
        }
        self.stated.clone_from(&test.needs);
        let implied: Vec<_> = self.implied.iter().map(|(c, _)| (*c).to_owned()).collect();
        for capability in implied {
            if !test.needs.contains(&capability) {
                test.needs.push(capability);
            }
        }
        test
    }

    /// Suite and scenario from `scenario: suite/name`.
    fn name(&mut self, doc: &Node) -> (String, String) {
        let folder = self.cx.folder.to_owned();
        let Some(node) = doc.get("scenario") else { return (folder, String::new()) };
        let Some(text) = self.word_text(node, "a name") else { return (folder, String::new()) };
        let (suite, name) = match text.split_once('/') {
            Some((suite, name)) => (suite.to_owned(), name.to_owned()),
            None => (folder, text.clone()),
        };
        let good = |part: &str| {
            let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
            !part.is_empty() && part.len() <= 80 && part.chars().all(word)
        };
        if !good(&suite) || !good(&name) {
            let help = "write `suite/name` of letters, digits and `-`, such as `vm-bind/replace`";
            self.error("bad-name", node.span, format!("`{text}` cannot name a scenario"), help);
        }
        (suite, name)
    }

    fn header(&mut self, map: &call::Map<'_>, test: &mut Test) {
        if let Some(node) = map.get("about") {
            test.about = self.word_text(node, "a sentence").unwrap_or_default();
        }
        if let Some(node) = map.get("kernel") {
            test.kernel = self.word_text(node, "the name of a case");
            let case = test.kernel.as_deref().unwrap_or_default();
            let needs = fencepost_fixtures::device::kernel::needs(case);
            needs.iter().for_each(|need| self.need(need, node.span));
        }
        if let Some(node) = map.get("tier") {
            let tiers = [Tier::Smoke, Tier::Full, Tier::Soak];
            let names = ["smoke", "full", "soak"];
            test.tier = self.one_of(node, &names).map_or(Tier::Full, |i| tiers[i]);
        }
        if self.cx.params.is_smoke(self.cx.bindings) {
            test.tier = Tier::Smoke;
        }
        if let Some(node) = map.get("rounds")
            && let Some(rounds) = self.count(node, "rounds", 1_000_000)
        {
            test.rounds = rounds;
        }
        if let Some(node) = map.get("needs") {
            for item in self.list(node) {
                if let Some(name) = self.capability(item) {
                    test.needs.push(name);
                }
            }
        }
    }

    fn capability(&mut self, node: &Node) -> Option<String> {
        use fencepost_fixtures::device::caps::{Caps, NAMES};
        let name = self.word_text(node, "the name of a capability")?;
        if !Caps::is_known(&name) {
            let help =
                super::params::suggestion(&name, NAMES.iter().map(|(n, _)| *n), "capabilities");
            self.error("unknown-name", node.span, format!("`{name}` is no capability"), help);
            return None;
        }
        Some(name)
    }

    fn units(&mut self, map: &call::Map<'_>) {
        // `base` may use `unit` but not the other way round.
        if let Some(node) = map.get("unit") {
            self.unit = self.number(node);
        }
        if let Some(node) = map.get("base") {
            self.base = self.number(node);
        }
    }

    fn behaviour(&mut self, map: &call::Map<'_>, test: &mut Test) {
        let first = test.clients[0].name.clone();
        self.client.clone_from(&first);
        if let Some(node) = map.get("setup") {
            test.setup = self.steps(node);
        }
        self.actors(map, test);
        self.client = first;
        if let Some(node) = map.get("after") {
            test.after = self.steps(node);
        }
        if let Some(node) = map.get("expect") {
            test.expect = self.expects(node);
            if test.expect.is_empty()
                && !self.cx.truncated
                && matches!(&node.kind, NodeKind::List(l) if l.is_empty())
            {
                self.error(
                    "no-expectation",
                    node.span,
                    "nothing is expected",
                    "say what must hold, for instance `- value: a == 5` or `- faults: []`",
                );
            }
        }
        if let Some(node) = map.get("evidence") {
            test.evidence = self.bounds(node);
            if matches!(&node.kind, NodeKind::Map(entries) if entries.is_empty()) {
                self.error("no-evidence", node.span, "no evidence is asked for", EVIDENCE_HELP);
            }
            if test.evidence.iter().any(|b| !b.counter.is_empty()) {
                self.need("counters", node.span);
            }
        }
    }

    /// Default VMs and queues of the clients that use them without declaring any.
    fn implied_objects(&mut self, test: &mut Test) {
        let mut clients = self.needs_vm.clone();
        clients.extend(self.needs_queue.iter().cloned());
        for client in clients {
            if test.vms.iter().all(|vm| vm.client != client) {
                let name = self.free_name("vm", &client);
                test.vms.push(Vm {
                    name,
                    client: client.clone(),
                    va_end: None,
                    hole: None,
                    long_running: false,
                    fault: false,
                    mirror: false,
                    span: Span::default(),
                });
            }
        }
        for client in self.needs_queue.clone() {
            if test.default_queue(&client).is_none()
                && let Some(vm) = test.default_vm(&client).map(|vm| vm.name.clone())
            {
                test.queues.push(Queue {
                    name: self.free_name("queue", &client),
                    vm,
                    class: QueueClass::Exec,
                    engine: 0,
                    priority: 1,
                    timeout: None,
                    span: Span::default(),
                });
            }
        }
        for client in &mut test.clients {
            client.debug = self.needs_debug.contains(&client.name);
        }
    }

    fn free_name(&self, plain: &str, client: &str) -> String {
        if client == self.first_client { plain.to_owned() } else { format!("{plain}_{client}") }
    }

    /// Whether a `when` holds here; true without one.
    fn when(&mut self, node: Option<&Node>) -> bool {
        let Some(node) = node else { return true };
        let matcher: Option<Matcher> = self.cx.params.matcher(node, &mut self.diags);
        matcher.is_none_or(|m| self.cx.bindings.matches(&m))
    }
}

pub(crate) const EVIDENCE_HELP: &str =
    "name a counter that the mechanism must move: `evidence: { ops.map: \">= 1\" }`";

/// `suite@scenario@variant`, or without a variant `suite@scenario`.
pub(crate) fn test_name(suite: &str, scenario: &str, variant: &str) -> String {
    if variant.is_empty() {
        format!("{suite}@{scenario}")
    } else {
        format!("{suite}@{scenario}@{variant}")
    }
}
