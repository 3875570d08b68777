//! Memory declarations, compact and long.

use super::super::ast::{CpuKind, Home, Memory, MemoryKind, Pattern, Span, Vm};
use super::super::expr::Expr;
use super::super::grammar::{MEMORY, cpu_kind};
use super::super::yaml::{Key, Node, NodeKind};
use super::call::Map;
use super::value::poison;
use super::{Kind, Lower};
use fencepost_fixtures::area::Protection;

/// Largest object that a device of this suite need offer.
const MAX_MEMORY: u64 = 1 << 34;
const PAGE: u64 = 4096;

impl Lower<'_> {
    pub(super) fn memory(&mut self, key: &Key, node: &Node, vms: &[Vm]) -> Option<Memory> {
        let (kind_node, size, map) = match &node.kind {
            NodeKind::Scalar(_) => return self.compact_memory(key, node, vms),
            NodeKind::Map(_) => {
                let map = self.shape(node, &MEMORY);
                (map.get("kind").cloned(), self.memory_size(&map, node), map)
            }
            _ => {
                let help = "write `vram 64K`, or `{ kind: vram, size: 64K }`";
                self.wrong(node, "memory", help);
                return None;
            }
        };
        let client = map.get("client").and_then(|n| self.name_ref(n, &[Kind::Client]));
        let client = client.unwrap_or_else(|| self.client.clone());
        let private = map.get("private").and_then(|n| self.name_ref(n, &[Kind::Vm]));
        let kind = match kind_node {
            Some(node) => self.memory_kind(&node, private)?,
            None => return None,
        };
        let access = self.access(map.get("access"));
        let align = map.get("align").map(|n| self.expr(n));
        self.only_cpu(&kind, &map);
        let readonly = self.flag(map.get("ro"), false);
        let home = match map.get("at") {
            Some(at) => {
                let addr = self.expr(at);
                let vm = map.get("vm").and_then(|n| self.name_ref(n, &[Kind::Vm]));
                Some(Home { vm: self.home_vm(vm, &client, vms), addr, readonly })
            }
            None => None,
        };
        if readonly {
            self.need("vm_bind.readonly", node.span);
        }
        let pattern = map.get("pattern").map(|n| self.pattern(n));
        let pattern = pattern.unwrap_or_else(|| default_pattern(&kind));
        self.memory_needs(&kind, home.is_some(), key.span);
        let (name, span) = (key.text.clone(), key.span);
        let access =
            if kind == MemoryKind::Cpu(CpuKind::ProtNone) { Protection::None } else { access };
        Some(Memory { name, kind, size, pattern, access, align, client, home, span })
    }

    /// Keys that mean something for CPU memory only, or for buffer objects only.
    fn only_cpu(&mut self, kind: &MemoryKind, map: &Map<'_>) {
        let (keys, what): (&[&str], _) = match kind {
            MemoryKind::Bo { .. } => (&["access", "align"], "CPU memory"),
            MemoryKind::Cpu(_) => (&["at", "ro"], "buffer objects"),
        };
        for key in keys {
            if let Some(span) = map.key_span(key) {
                let message = format!("`{key}` is for {what}");
                let help = match kind {
                    MemoryKind::Bo { .. } => "leave it out, or choose a kind of CPU memory",
                    MemoryKind::Cpu(_) => {
                        "the GPU reaches CPU memory at the CPU's address: leave it out"
                    }
                };
                self.error("impossible", span, message, help);
            }
        }
    }

    fn memory_size(&mut self, map: &Map<'_>, node: &Node) -> Expr {
        match (map.get("size"), map.get("pages")) {
            (Some(size), None) => self.size(size),
            (None, Some(pages)) => {
                let Some(count) = self.number(pages) else { return poison() };
                let size = Expr::Const(count.saturating_mul(PAGE));
                self.check_size(size, pages.span)
            }
            (Some(_), Some(pages)) => {
                let help = "keep one of `size` and `pages`";
                self.error("two-verbs", pages.span, "the size is given twice", help);
                poison()
            }
            (None, None) => {
                if !self.cx.truncated {
                    let help = "add `size: 64K`, or `pages: 16`";
                    self.error("missing-key", node.span, "this memory has no size", help);
                }
                poison()
            }
        }
    }

    /// `KIND SIZE [at ADDRESS] [ro] [zero]`.
    fn compact_memory(&mut self, key: &Key, node: &Node, vms: &[Vm]) -> Option<Memory> {
        let text = node.text().unwrap_or("").to_owned();
        let words = super::bind::split_words(&text);
        let scalar = |word: &(usize, &str)| self.sub_node(node, word.0, word.1);
        let nodes: Vec<Node> = words.iter().map(scalar).collect();
        let (Some(kind), Some(size)) = (nodes.first(), nodes.get(1)) else {
            let help = "write the kind and the size, such as `vram 64K`";
            self.error("missing-key", node.span, format!("`{text}` is not all of memory"), help);
            return None;
        };
        let kind = self.memory_kind(kind, None);
        let size_expr = self.size(size);
        let mut home = None;
        let mut readonly = None;
        let mut pattern = None;
        let mut rest = nodes[2..].iter();
        while let Some(word) = rest.next() {
            match (word.text(), home.is_some()) {
                (Some("at"), false) => {
                    let Some(at) = rest.next() else {
                        let help = "write an address after it, such as `at 1G`";
                        self.error("missing-key", word.span, "`at` where?", help);
                        break;
                    };
                    let addr = self.expr(at);
                    home = Some(addr);
                }
                (Some("ro"), _) => readonly = Some(word.span),
                (Some("zero"), _) => pattern = Some(Pattern::Zero),
                (Some("unique"), _) => pattern = Some(Pattern::Unique),
                _ => {
                    let help = "compact memory is `KIND SIZE [at ADDRESS] [ro] [zero] [unique]`, without \
                                spaces in expressions; use a mapping for more";
                    let message = format!("`{}` has no place here", word.text().unwrap_or(""));
                    self.error("unknown-key", word.span, message, help);
                }
            }
        }
        let kind = kind?;
        let client = self.client.clone();
        let mut access = Protection::Write;
        if let Some(span) = readonly {
            match kind {
                MemoryKind::Bo { .. } => self.need("vm_bind.readonly", span),
                MemoryKind::Cpu(_) => access = Protection::Read,
            }
        }
        if kind == MemoryKind::Cpu(CpuKind::ProtNone) {
            access = Protection::None;
        }
        if home.is_some() && matches!(kind, MemoryKind::Cpu(_)) {
            let help = "the GPU reaches CPU memory at the CPU's address: leave `at` out";
            self.error("impossible", node.span, "`at` is for buffer objects", help);
        }
        self.memory_needs(&kind, home.is_some(), key.span);
        let readonly = readonly.is_some();
        let home = home.map(|addr| Home { vm: self.home_vm(None, &client, vms), addr, readonly });
        let pattern = pattern.unwrap_or_else(|| default_pattern(&kind));
        let name = key.text.clone();
        let (size, span, align) = (size_expr, key.span, None);
        Some(Memory { name, kind, size, pattern, access, align, client, home, span })
    }

    fn home_vm(&mut self, vm: Option<String>, client: &str, vms: &[Vm]) -> String {
        let default = || vms.iter().find(|vm| vm.client == client).map(|vm| vm.name.clone());
        vm.or_else(default).unwrap_or_else(|| {
            self.needs_vm.insert(client.to_owned());
            self.free_name("vm", client)
        })
    }

    fn memory_needs(&mut self, kind: &MemoryKind, home: bool, span: Span) {
        match kind {
            MemoryKind::Bo { vram: true, system: false, .. } => self.need("vram", span),
            MemoryKind::Bo { .. } => self.need("placement", span),
            MemoryKind::Cpu(kind) => self.kind_needs(*kind, span),
        }
        if home {
            self.need("vm_bind", span);
        }
    }

    fn memory_kind(&mut self, node: &Node, private: Option<String>) -> Option<MemoryKind> {
        let names: Vec<&str> = memory_kind_names();
        let name = names[self.one_of(node, &names)?];
        let (vram, system) = match name {
            "vram" => (true, false),
            "system" => (false, true),
            "either" => (true, true),
            _ => {
                if private.is_some() {
                    let help = "leave `private` out";
                    self.error("impossible", node.span, "only buffer objects are private", help);
                }
                return cpu_kind(name).map(MemoryKind::Cpu);
            }
        };
        Some(MemoryKind::Bo { vram, system, private })
    }

    fn size(&mut self, node: &Node) -> Expr {
        let Some(bytes) = self.number(node) else { return poison() };
        self.check_size(Expr::Const(bytes), node.span)
    }

    /// The size, if it is one that an object can have.
    fn check_size(&mut self, size: Expr, span: Span) -> Expr {
        let Some(bytes) = size.constant() else { return poison() };
        if bytes != 0 && bytes % PAGE == 0 && bytes <= MAX_MEMORY {
            return size;
        }
        let up = bytes.max(1).div_ceil(PAGE).saturating_mul(PAGE).min(MAX_MEMORY);
        let message = format!("{bytes} bytes are no possible size of memory");
        let help = format!("sizes are multiples of 4K up to 16G; nearest: {up}");
        self.error("impossible", span, message, help);
        poison()
    }

    fn pattern(&mut self, node: &Node) -> Pattern {
        match node.text() {
            Some("unique") => Pattern::Unique,
            Some("zero") => Pattern::Zero,
            _ => Pattern::Word(self.expr(node)),
        }
    }
}

/// Objects tell their words apart; CPU memory is as the kernel gives it.
fn default_pattern(kind: &MemoryKind) -> Pattern {
    match kind {
        MemoryKind::Bo { .. } => Pattern::Unique,
        MemoryKind::Cpu(_) => Pattern::Zero,
    }
}

fn memory_kind_names() -> Vec<&'static str> {
    match MEMORY.keys[0].ty {
        super::super::grammar::Ty::Word(names) => names.to_vec(),
        _ => Vec::new(),
    }
}
