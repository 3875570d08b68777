//! Declarations: clients, VMs, memory, queues, syncobjs, actors, barriers.

use super::super::ast::{Actor, Barrier, Client, Queue, QueueClass, Span, Syncobj, Test, Vm};
use super::super::expr::Expr;
use super::super::grammar::{ACTOR, BESIDE, CLIENT, QUEUE, SYNCOBJ, VM};
use super::super::step::{Action, Step};
use super::super::yaml::{Key, Node, NodeKind};
use super::call::Map;
use super::{Kind, Lower};

impl Lower<'_> {
    /// Declares every name of the scenario, so that steps may use names declared further down.
    pub(super) fn collect_names(&mut self, doc: &Node) {
        let sections = [
            ("clients", Kind::Client),
            ("vms", Kind::Vm),
            ("memory", Kind::Memory),
            ("queues", Kind::Queue),
            ("syncobjs", Kind::Syncobj),
            ("barriers", Kind::Barrier),
            ("actors", Kind::Actor),
        ];
        for (section, kind) in sections {
            match doc.get(section).map(|n| &n.kind) {
                Some(NodeKind::Map(entries)) => {
                    for (key, _) in entries {
                        self.declare(kind, &key.text, key.span);
                    }
                }
                Some(NodeKind::List(items)) => {
                    for item in items {
                        if let Some(name) = item.text() {
                            self.declare(kind, name, item.span);
                        }
                    }
                }
                _ => {}
            }
        }
        let implied = [("clients", Kind::Client, "main"), ("queues", Kind::Queue, "queue")];
        for (section, kind, name) in implied {
            if doc.get(section).is_none() {
                self.names.declare(kind, name, Span::default());
            }
        }
        if doc.get("vms").is_none() {
            self.names.declare(Kind::Vm, "vm", Span::default());
        }
        for section in ["setup", "steps", "actors", "after"] {
            if let Some(node) = doc.get(section) {
                self.collect_from_steps(node);
            }
        }
    }

    /// Names that steps declare: objects of `create`, fds of `export`, objects of `import`. What an
    /// import makes is what its fd was made of.
    fn collect_from_steps(&mut self, node: &Node) {
        let mut imports = Vec::new();
        self.walk_steps(node, &mut imports);
        // An import may stand before its export in the text: in another actor.
        for (fd, name, span) in imports {
            let kind = self.names.export_kind(&fd).unwrap_or(Kind::Memory);
            if self.names.kind_of(&[kind], &name).is_none() {
                self.declare(kind, &name, span);
            }
        }
    }

    fn walk_steps(&mut self, node: &Node, imports: &mut Vec<(String, String, Span)>) {
        match &node.kind {
            NodeKind::List(items) => items.iter().for_each(|item| self.walk_steps(item, imports)),
            NodeKind::Map(entries) => {
                if let Some(created) = node.get("create") {
                    let kinds = [
                        ("memory", Kind::Memory),
                        ("vm", Kind::Vm),
                        ("queue", Kind::Queue),
                        ("syncobj", Kind::Syncobj),
                    ];
                    let kind = kinds.iter().find(|(k, _)| node.get(k).is_some());
                    if let (Some((_, kind)), Some(name)) = (kind, created.text()) {
                        self.declare(*kind, name, created.span);
                    }
                }
                if let (Some(object), Some(fd)) = (node.get("export"), node.get("as"))
                    && let (Some(object), Some(name)) = (object.text(), fd.text())
                {
                    let kind = self.names.kind_of(&[Kind::Memory, Kind::Syncobj], object);
                    self.declare(Kind::Fd, name, fd.span);
                    self.names.note_export(name, kind.unwrap_or(Kind::Memory));
                }
                if let (Some(_), Some(fd)) = (node.get("merge"), node.get("as"))
                    && let Some(name) = fd.text()
                {
                    self.declare(Kind::Fd, name, fd.span);
                    self.names.note_export(name, Kind::Syncobj);
                }
                if let (Some(fd), Some(name)) = (node.get("import"), node.get("as"))
                    && let (Some(fd), Some(text)) = (fd.text(), name.text())
                {
                    imports.push((fd.to_owned(), text.to_owned(), name.span));
                }
                entries.iter().for_each(|(_, value)| self.walk_steps(value, imports));
            }
            _ => {}
        }
    }

    pub(super) fn declarations(&mut self, map: &Map<'_>, test: &mut Test) {
        self.clients(map.get("clients"), test);
        self.vms(map, test);
        if let Some(node) = map.get("memory") {
            for (key, value) in self.entries(node, "a mapping from names to memory") {
                if let Some(memory) = self.memory(key, value, &test.vms) {
                    self.sizes.insert(memory.name.clone(), memory.size.clone());
                    test.memory.push(memory);
                }
            }
        }
        if let Some(node) = map.get("queues") {
            for (key, value) in self.named(node) {
                let default_vm = test.vms.first().map(|vm| vm.name.clone());
                if let Some(queue) = self.queue(&key, value, default_vm) {
                    test.queues.push(queue);
                }
            }
        }
        if let Some(node) = map.get("syncobjs") {
            for (key, value) in self.named(node) {
                let client = test.clients[0].name.clone();
                let syncobj = self.syncobj(&key, value, client);
                test.syncobjs.push(syncobj);
            }
        }
    }

    /// Names with their options; a list gives names without options.
    fn named<'n>(&mut self, node: &'n Node) -> Vec<(Key, Option<&'n Node>)> {
        match &node.kind {
            NodeKind::List(items) => {
                let mut out = Vec::new();
                for item in items {
                    if let Some(text) = self.word_text(item, "a name") {
                        out.push((Key { span: item.span, text }, None));
                    }
                }
                out
            }
            _ => {
                let entries = self.entries(node, "a mapping from names, or a list of names");
                entries.iter().map(|(k, v)| (k.clone(), Some(v))).collect()
            }
        }
    }

    fn clients(&mut self, node: Option<&Node>, test: &mut Test) {
        for (key, options) in node.map(|n| self.named(n)).unwrap_or_default() {
            let options = options.filter(|n| !matches!(n.kind, NodeKind::Null));
            let client = self.client_of(key, options);
            test.clients.push(client);
        }
        if test.clients.is_empty() {
            let key = Key { text: "main".into(), span: Span::default() };
            let client = self.client_of(key, None);
            test.clients.push(client);
        }
        self.client.clone_from(&test.clients[0].name);
        self.first_client.clone_from(&self.client);
    }

    fn client_of(&mut self, key: Key, options: Option<&Node>) -> Client {
        let Key { text: name, span } = key;
        let (on, memory_max) = (None, None);
        let mut client = Client { name, process: false, on, memory_max, debug: false, span };
        let Some(node) = options else { return client };
        let map = self.shape(node, &CLIENT);
        client.process = self.flag(map.get("process"), false);
        if let Some(node) = map.get("on") {
            let at = self.one_of(node, BESIDE);
            client.on = at.map(|at| BESIDE[at].to_owned());
            let needs = [("vgem", "kernel.vgem"), ("twin", "kernel.twin")];
            let named = |(word, _): &&(&str, &str)| client.on.as_deref() == Some(*word);
            if let Some((_, need)) = needs.iter().find(named) {
                self.need(need, node.span);
            }
        }
        if let Some(node) = map.get("memory_max") {
            client.memory_max = self.number(node);
            self.need("kernel.cgroup", node.span);
        }
        let odd = match (&client.on, client.memory_max, client.process) {
            (Some(_), _, true) => Some("a client on another device cannot have a process"),
            (_, Some(_), false) => Some("`memory_max` is for a client with `process: true`"),
            _ => None,
        };
        if let Some(message) = odd {
            let help = "leave one of the two away, or split the client in two";
            self.error("impossible", node.span, message, help);
        }
        client
    }

    fn vms(&mut self, map: &Map<'_>, test: &mut Test) {
        let first = test.clients[0].name.clone();
        if let (Some(_), Some(span)) = (map.get("vms"), map.key_span("vm")) {
            let help = "move its options to a name under `vms:`";
            self.error("two-verbs", span, "`vm` and `vms` together", help);
        } else if let Some(node) = map.get("vm") {
            let key = Key { span: node.span, text: "vm".into() };
            let vm = self.vm(&key, Some(node), first.clone());
            self.va_end = vm.va_end.as_ref().and_then(Expr::constant);
            test.vms.push(vm);
        }
        if let Some(node) = map.get("vms") {
            for (key, value) in self.named(node) {
                let vm = self.vm(&key, value, first.clone());
                if test.vms.is_empty() {
                    self.va_end = vm.va_end.as_ref().and_then(Expr::constant);
                }
                test.vms.push(vm);
            }
        }
    }

    pub(super) fn vm(&mut self, key: &Key, node: Option<&Node>, client: String) -> Vm {
        let name = key.text.clone();
        let (va_end, hole, span) = (None, None, key.span);
        let (long_running, fault, mirror) = (false, false, false);
        let mut vm = Vm { name, client, va_end, hole, long_running, fault, mirror, span };
        let Some(node) = node.filter(|n| !matches!(n.kind, NodeKind::Null)) else { return vm };
        let map = self.shape(node, &VM);
        if let Some(client) = map.get("client").and_then(|n| self.name_ref(n, &[Kind::Client])) {
            vm.client = client;
        }
        vm.va_end = map.get("va_end").map(|n| self.expr(n));
        if let Some(node) = map.get("hole") {
            self.need("vm_bind.hole", node.span);
            // Bytes, not units: the hole is no mapping of the scenario's table.
            let (base, unit) = (self.base.replace(0), self.unit.replace(1));
            vm.hole = self.range(node);
            (self.base, self.unit) = (base, unit);
        }
        if let Some(node) = map.get("long_running") {
            vm.long_running = self.boolean(node).unwrap_or(false);
            if vm.long_running {
                self.need("long_running", node.span);
            }
        }
        vm.mirror = self.flag(map.get("svm"), false);
        vm.fault = self.flag(map.get("fault"), vm.mirror);
        if vm.fault || vm.mirror {
            let node = map.get("svm").or(map.get("fault"));
            self.need("svm", node.map_or(key.span, |n| n.span));
            vm.long_running = self.flag(map.get("long_running"), true);
        } else {
            self.need("vm_bind", key.span);
        }
        vm
    }

    pub(super) fn queue(
        &mut self,
        key: &Key,
        node: Option<&Node>,
        vm: Option<String>,
    ) -> Option<Queue> {
        let node = node.filter(|n| !matches!(n.kind, NodeKind::Null));
        let mut queue = Queue {
            name: key.text.clone(),
            vm: vm.unwrap_or_else(|| {
                self.needs_vm.insert(self.client.clone());
                "vm".into()
            }),
            class: QueueClass::Exec,
            engine: 0,
            priority: 1,
            timeout: None,
            span: key.span,
        };
        let classes = [QueueClass::Exec, QueueClass::Bind];
        match node {
            None => {}
            Some(node) if node.text().is_some() => {
                queue.class = classes[self.one_of(node, &["exec", "bind"])?];
            }
            Some(node) => {
                let map = self.shape(node, &QUEUE);
                if let Some(class) = map.get("class") {
                    queue.class = classes[self.one_of(class, &["exec", "bind"])?];
                }
                if let Some(vm) = map.get("vm").and_then(|n| self.name_ref(n, &[Kind::Vm])) {
                    queue.vm = vm;
                }
                if let Some(engine) = map.get("engine").and_then(|n| self.number(n)) {
                    queue.engine = u32::try_from(engine).unwrap_or(u32::MAX);
                }
                if let Some(priority) = map.get("priority") {
                    let priority = self.one_of(priority, &["low", "normal", "high"])?;
                    queue.priority = u32::try_from(priority).unwrap_or(1);
                }
                queue.timeout = map.get("timeout").and_then(|n| self.time(n));
            }
        }
        if queue.class == QueueClass::Bind {
            self.need("bind_queues", key.span);
        }
        Some(queue)
    }

    pub(super) fn syncobj(&mut self, key: &Key, node: Option<&Node>, client: String) -> Syncobj {
        let node = node.filter(|n| !matches!(n.kind, NodeKind::Null));
        self.need("syncobj", key.span);
        let mut out = Syncobj { name: key.text.clone(), client, signalled: false, span: key.span };
        match node {
            None => {}
            Some(node) if node.text().is_some() => {
                out.signalled = self.one_of(node, &["signalled"]).is_some();
            }
            Some(node) => {
                let map = self.shape(node, &SYNCOBJ);
                out.signalled = self.flag(map.get("signalled"), false);
                if let Some(client) =
                    map.get("client").and_then(|n| self.name_ref(n, &[Kind::Client]))
                {
                    out.client = client;
                }
            }
        }
        out
    }

    pub(super) fn actors(&mut self, map: &Map<'_>, test: &mut Test) {
        let first = test.clients[0].name.clone();
        match (map.get("steps"), map.get("actors")) {
            (Some(_), Some(node)) => {
                let help = "make `steps` an actor of its own under `actors:`";
                self.error("two-verbs", node.span, "`steps` and `actors` together", help);
            }
            (Some(node), None) => {
                let steps = self.steps(node);
                let span = map.key_span("steps").unwrap_or(node.span);
                test.actors.push(actor("main".into(), first.clone(), steps, span));
                self.names.declare(Kind::Actor, "main", Span::default());
            }
            (None, Some(node)) => {
                for (key, value) in self.entries(node, "a mapping from names to steps") {
                    let actor = self.actor(key, value, &first);
                    test.actors.push(actor);
                }
            }
            (None, None) => {}
        }
        if test.actors.is_empty() && !self.cx.truncated && map.get("actors").is_none() {
            // Everything may happen in `setup` only if nothing is to be counted.
            let span = map.key_span("scenario").unwrap_or_default();
            let help = "add `steps:` (one actor) or `actors:`";
            self.error("missing-key", span, "the scenario does nothing", help);
        }
        if test.actors.is_empty() {
            test.actors.push(actor("main".into(), first, Vec::new(), Span::default()));
        }
    }

    fn actor(&mut self, key: &Key, node: &Node, first: &str) -> Actor {
        let mut out = actor(key.text.clone(), first.to_owned(), Vec::new(), key.span);
        self.client = first.to_owned();
        if !matches!(node.kind, NodeKind::Map(_)) {
            out.steps = self.steps(node);
            return out;
        }
        let map = self.shape(node, &ACTOR);
        if let Some(client) = map.get("client").and_then(|n| self.name_ref(n, &[Kind::Client])) {
            out.client.clone_from(&client);
            self.client = client;
        }
        out.process = self.flag(map.get("process"), false);
        if let Some(node) = map.get("copies") {
            out.copies = self.count(node, "copies", 64).unwrap_or(1);
        }
        if let Some(node) = map.get("steps") {
            out.steps = self.steps(node);
        }
        out
    }

    /// Parties: as declared, or the actors that use the barrier.
    pub(super) fn barriers(&mut self, map: &Map<'_>, test: &mut Test) {
        let mut declared = Vec::new();
        if let Some(node) = map.get("barriers") {
            for (key, value) in self.entries(node, "a mapping from barriers to parties") {
                if let Some(parties) = self.count(value, "parties", 4096) {
                    declared.push((key.text.clone(), parties));
                }
            }
        }
        for (name, ..) in self.names.uses_of(Kind::Barrier) {
            if self.names.is(Kind::Barrier, &name) && declared.iter().all(|(n, _)| *n != name) {
                let users = test.actors.iter().filter(|a| uses_barrier(&a.steps, &name));
                let parties = users.map(|a| a.copies).sum();
                declared.push((name, parties));
            }
        }
        test.barriers =
            declared.into_iter().map(|(name, parties)| Barrier { name, parties }).collect();
    }
}

fn actor(name: String, client: String, steps: Vec<Step>, span: Span) -> Actor {
    Actor { name, client, process: false, copies: 1, steps, span }
}

/// Whether steps meet at a barrier.
pub(crate) fn uses_barrier(steps: &[Step], name: &str) -> bool {
    steps.iter().any(|step| match &step.action {
        Action::Barrier(barrier) => barrier == name,
        Action::Repeat { body, .. } | Action::Shuffle(body) | Action::Fork(body) => {
            uses_barrier(body, name)
        }
        Action::Choose(choices) => choices.iter().any(|c| uses_barrier(&c.body, name)),
        _ => false,
    })
}
