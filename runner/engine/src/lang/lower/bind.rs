//! Ranges, mappings and bind operations, compact and long.
//!
//! Compact: `map 0..2 a+1 ro kind=3`, `unmap 0..8 sparse`, `unmap_all a`, `prefetch 0..2 vram`,
//! `madvise 0..2 none`; numbers count units from `base`. Words are split at blanks, so expressions
//! inside have none. In place of a range stands the name of CPU memory, or `a@FROM..TO` in bytes of it.

use super::super::ast::Span;
use super::super::expect::{Mapping, Target};
use super::super::expr::{Expr, Op};
use super::super::grammar::{MAPPING, RANGE_OP, REGIONS};
use super::super::step::{BindOp, Region};
use super::super::yaml::{Node, NodeKind, Scalar};
use super::value::{mentions, poison};
use super::{Kind, Lower};

/// Words of a compact text with their byte offsets.
pub(super) fn split_words(text: &str) -> Vec<(usize, &str)> {
    let start = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split_ascii_whitespace().map(|word| (start(word), word)).collect()
}

impl Lower<'_> {
    /// A node for a part of a compact text, with its own place.
    pub(super) fn sub_node(&self, node: &Node, offset: usize, text: &str) -> Node {
        let exact = matches!(&node.kind, NodeKind::Scalar(Scalar { exact: true, .. }));
        let span = self.part(node, offset, offset + text.len());
        let kind = NodeKind::Scalar(Scalar { text: text.to_owned(), quoted: false, exact });
        Node { span, kind }
    }

    /// `base + text * unit`.
    fn address(&mut self, node: &Node, text: &str, offset: usize) -> Expr {
        let bytes = self.scaled(node, text, offset);
        self.combine(Op::Add, self.base.unwrap_or(0).into(), bytes, node.span)
    }

    /// `text * unit`.
    fn scaled(&mut self, node: &Node, text: &str, offset: usize) -> Expr {
        let count = self.expr_in(node, text, offset);
        self.combine(Op::Mul, count, self.unit.unwrap_or(1).into(), node.span)
    }

    fn combine(&mut self, op: Op, left: Expr, right: Expr, span: Span) -> Expr {
        if mentions(&left, super::value::POISON) || mentions(&right, super::value::POISON) {
            return poison();
        }
        self.finish_expr(Expr::Binary(op, Box::new(left), Box::new(right)), span)
    }

    /// `START..END` in units: address and size in bytes.
    pub(super) fn range(&mut self, node: &Node) -> Option<(Expr, Expr)> {
        let text = self.word_text(node, "a range such as `0..2`")?;
        let Some((start, end)) = text.split_once("..") else {
            let help = "write `START..END`, such as `0..2`";
            self.error("wrong-type", node.span, format!("`{text}` is no range"), help);
            return None;
        };
        let after = start.len() + 2;
        let first = self.scaled(node, start, 0);
        let last = self.scaled(node, end, after);
        if let (Some(a), Some(b)) = (first.constant(), last.constant())
            && b < a
        {
            let help = "write the smaller number first; for a size that wraps use the long form";
            self.error("impossible", node.span, format!("`{text}` ends before it starts"), help);
            return None;
        }
        let size = self.combine(Op::Sub, last, first, node.span);
        Some((self.address(node, start, 0), size))
    }

    /// `START..END` in units: both as addresses in bytes.
    pub(super) fn between(&mut self, node: &Node) -> Option<(Expr, Expr)> {
        let (start, size) = self.range(node)?;
        let end = self.combine(Op::Add, start.clone(), size, node.span);
        Some((start, end))
    }

    /// The mappings of `maps:`.
    pub(super) fn mappings(&mut self, node: &Node) -> Vec<Mapping> {
        let items = self.list(node);
        items.iter().filter_map(|item| self.mapping(item)).collect()
    }

    fn mapping(&mut self, node: &Node) -> Option<Mapping> {
        match &node.kind {
            NodeKind::Map(_) => self.long_mapping(node),
            _ => {
                let text = self.word_text(node, "a mapping such as `0..2 a+1`")?;
                self.compact_mapping(node, &split_words(&text))
            }
        }
    }

    /// One or several operations of a call.
    pub(super) fn bind_ops(&mut self, node: &Node) -> Vec<BindOp> {
        let items = self.list(node);
        items.iter().filter_map(|item| self.bind_op(item)).collect()
    }

    fn bind_op(&mut self, node: &Node) -> Option<BindOp> {
        if matches!(node.kind, NodeKind::Map(_)) {
            return self.long_op(node);
        }
        let text = self.word_text(node, "a bind operation such as `map 0..2 a`")?;
        let words = split_words(&text);
        let Some(((at, verb), rest)) = words.split_first() else {
            let help = "write for instance `map 0..2 a`";
            self.error("missing-key", node.span, "an empty bind operation", help);
            return None;
        };
        match *verb {
            "map" => Some(BindOp::Map(Box::new(self.compact_mapping(node, rest)?))),
            "unmap" => self.compact_unmap(node, rest),
            "unmap_all" => self.compact_unmap_all(node, rest),
            "prefetch" | "madvise" => self.compact_region(node, verb, rest),
            other => {
                let known = ["map", "unmap", "unmap_all", "prefetch", "madvise"];
                let help = super::super::params::suggestion(other, known, "operations");
                let span = self.part(node, *at, at + other.len());
                self.error("unknown-name", span, format!("`{other}` is no bind operation"), help);
                None
            }
        }
    }

    fn compact_range(&mut self, node: &Node, words: &[(usize, &str)]) -> Option<(Expr, Expr)> {
        let Some((at, word)) = words.first() else {
            let help = "write `START..END` after the operation";
            self.error("missing-key", node.span, "the range is missing", help);
            return None;
        };
        let part = self.sub_node(node, *at, word);
        let memory = word.split('@').next().unwrap_or(word);
        if !word.contains("..") || word.contains('@') {
            if self.names.is(Kind::Memory, memory) {
                return self.range_of_memory(&part, memory);
            }
            if word.contains('@') {
                // Not declared: it says so itself.
                self.names.use_of(&[Kind::Memory], memory, part.span);
                return None;
            }
        }
        self.range(&part)
    }

    /// `NAME` or `NAME@FROM..TO` in bytes: the addresses of CPU memory.
    fn range_of_memory(&mut self, node: &Node, name: &str) -> Option<(Expr, Expr)> {
        self.names.use_of(&[Kind::Memory], name, node.span);
        let text = self.word_text(node, "CPU memory")?;
        let start = Expr::Var(format!("&{name}"));
        let Some((_, part)) = text.split_once('@') else {
            let size = self.sizes.get(name).cloned().unwrap_or_else(poison);
            return Some((start, size));
        };
        let Some((from, to)) = part.split_once("..") else {
            let help = format!("write `{name}@0..4K`");
            self.error("wrong-type", node.span, format!("`{text}` is no part of memory"), help);
            return None;
        };
        let at = name.len() + 1;
        let first = self.expr_in(node, from, at);
        let last = self.expr_in(node, to, at + from.len() + 2);
        let size = self.combine(Op::Sub, last, first.clone(), node.span);
        let addr = Expr::Binary(Op::Add, Box::new(start), Box::new(first));
        Some((addr, size))
    }

    fn extra_words(&mut self, node: &Node, words: &[(usize, &str)], help: &str) {
        if let Some((at, word)) = words.first() {
            let span = self.part(node, *at, at + word.len());
            self.error("unknown-key", span, format!("`{word}` has no place here"), help);
        }
    }

    fn compact_unmap(&mut self, node: &Node, words: &[(usize, &str)]) -> Option<BindOp> {
        let (addr, size) = self.compact_range(node, words)?;
        let sparse = matches!(words.get(1), Some((_, "sparse")));
        self.extra_words(node, &words[1 + usize::from(sparse)..], "write `unmap RANGE [sparse]`");
        if sparse {
            self.need("vm_bind.sparse", node.span);
        }
        Some(BindOp::Unmap { addr, size, sparse })
    }

    fn compact_unmap_all(&mut self, node: &Node, words: &[(usize, &str)]) -> Option<BindOp> {
        let Some((at, name)) = words.first() else {
            let help = "write `unmap_all MEMORY`";
            self.error("missing-key", node.span, "unmap all of what?", help);
            return None;
        };
        let part = self.sub_node(node, *at, name);
        let name = self.name_ref(&part, &[Kind::Memory])?;
        self.extra_words(node, &words[1..], "write `unmap_all MEMORY`");
        self.need("vm_bind.unmap_all", node.span);
        Some(BindOp::UnmapAll(name))
    }

    fn compact_region(
        &mut self,
        node: &Node,
        verb: &str,
        words: &[(usize, &str)],
    ) -> Option<BindOp> {
        let (addr, size) = self.compact_range(node, words)?;
        let Some((at, word)) = words.get(1) else {
            let help = format!("write `{verb} RANGE vram` or `{verb} RANGE system`");
            self.error("missing-key", node.span, "the region is missing", help);
            return None;
        };
        let region = self.sub_node(node, *at, word);
        self.extra_words(node, &words[2..], "nothing follows the region");
        if verb == "prefetch" {
            self.prefetch(addr, size, &region)
        } else {
            self.madvise(addr, size, &region)
        }
    }

    fn prefetch(&mut self, addr: Expr, size: Expr, region: &Node) -> Option<BindOp> {
        self.need("vm_bind.prefetch", region.span);
        let region = self.region(region)?;
        Some(BindOp::Prefetch { addr, size, region })
    }

    fn madvise(&mut self, addr: Expr, size: Expr, region: &Node) -> Option<BindOp> {
        self.need("vm_bind.madvise", region.span);
        let region = self.region_or_none(region)?;
        Some(BindOp::Madvise { addr, size, region })
    }

    pub(super) fn region(&mut self, node: &Node) -> Option<Region> {
        let index = self.one_of(node, REGIONS)?;
        Some([Region::Vram, Region::System][index])
    }

    fn region_or_none(&mut self, node: &Node) -> Option<Option<Region>> {
        let index = self.one_of(node, &["vram", "system", "none"])?;
        Some([Some(Region::Vram), Some(Region::System), None][index])
    }

    /// `RANGE TARGET[+OFFSET] [ro] [kind=N] [pages=SIZE] [ptes=A/B/C] [preferred=REGION]`.
    fn compact_mapping(&mut self, node: &Node, words: &[(usize, &str)]) -> Option<Mapping> {
        let (addr, size) = self.compact_range(node, words)?;
        let Some((at, word)) = words.get(1) else {
            let help = "write memory (`a+1`), `null` or `sparse` after the range";
            self.error("missing-key", node.span, "nothing is mapped there", help);
            return None;
        };
        let (name, offset) = match word.find('+') {
            Some(plus) => (&word[..plus], Some((at + plus + 1, &word[plus + 1..]))),
            None => (*word, None),
        };
        let name = self.sub_node(node, *at, name);
        let offset = offset.map_or(Expr::Const(0), |(at, text)| self.scaled(node, text, at));
        let target = self.target(&name, offset)?;
        let mut mapping = Mapping {
            span: node.span,
            addr,
            size,
            target,
            readonly: false,
            kind: Expr::Const(0),
            ptes: None,
            pages: None,
            preferred: None,
        };
        for (at, word) in &words[2..] {
            self.mapping_flag(node, *at, word, &mut mapping);
        }
        Some(mapping)
    }

    fn mapping_flag(&mut self, node: &Node, at: usize, word: &str, mapping: &mut Mapping) {
        let (flag, value) = word.split_once('=').unwrap_or((word, ""));
        let after = at + flag.len() + 1;
        let span = self.part(node, at, at + word.len());
        match flag {
            "ro" if value.is_empty() => {
                mapping.readonly = true;
                self.need("vm_bind.readonly", span);
            }
            "kind" => mapping.kind = self.expr_in(node, value, after),
            "pages" => {
                mapping.pages = Some(self.expr_in(node, value, after));
                self.page_size_need(mapping.pages.as_ref(), span);
            }
            "ptes" => {
                let mut at = after;
                let mut counts = Vec::new();
                for part in value.split('/') {
                    counts.push(self.expr_in(node, part, at));
                    at += part.len() + 1;
                }
                self.set_ptes(counts, span, mapping);
            }
            "preferred" => {
                let region = self.sub_node(node, after, value);
                mapping.preferred = self.region_or_none(&region);
            }
            _ => {
                let known = ["ro", "kind=", "pages=", "ptes=", "preferred="];
                let help = super::super::params::suggestion(word, known, "flags");
                self.error("unknown-key", span, format!("`{word}` is no flag of a mapping"), help);
            }
        }
    }

    fn set_ptes(&mut self, counts: Vec<Expr>, span: Span, mapping: &mut Mapping) {
        match <[Expr; 3]>::try_from(counts) {
            Ok(counts) => mapping.ptes = Some(counts),
            Err(_) => {
                let help = "write three numbers: entries of 2M, 64K and 4K, such as `ptes=1/0/16`";
                self.error("wrong-type", span, "these are not three numbers", help);
            }
        }
    }

    fn page_size_need(&mut self, pages: Option<&Expr>, span: Span) {
        match pages.and_then(Expr::constant) {
            Some(0x1000) | None => {}
            Some(0x1_0000) => self.need("pages.64k", span),
            Some(0x20_0000) => self.need("pages.2m", span),
            Some(other) => {
                let message = format!("{other} bytes are no page size");
                self.error("impossible", span, message, "page sizes are 4K, 64K and 2M");
            }
        }
    }

    fn target(&mut self, node: &Node, offset: Expr) -> Option<Target> {
        let name = match &node.kind {
            NodeKind::Null => "null".to_owned(),
            _ => self.word_text(node, "memory, `null` or `sparse`")?,
        };
        let capability = match name.as_str() {
            "null" => "vm_bind.null",
            "sparse" => "vm_bind.sparse",
            "mirror" => "svm",
            _ => {
                self.names.use_of(&[Kind::Memory], &name, node.span);
                return Some(Target::Memory { name, offset });
            }
        };
        if offset != Expr::Const(0) && offset != poison() {
            let help = format!("write `{name}` alone");
            self.error("impossible", node.span, format!("`{name}` has no offset"), help);
        }
        self.need(capability, node.span);
        Some(match name.as_str() {
            "null" => Target::Null,
            "sparse" => Target::Sparse,
            _ => Target::CpuMirror,
        })
    }

    fn long_mapping(&mut self, node: &Node) -> Option<Mapping> {
        let map = self.shape(node, &MAPPING);
        let offset = map.get("offset").map_or(Expr::Const(0), |n| self.expr(n));
        let target = self.target(map.get("map")?, offset)?;
        let mut mapping = Mapping {
            span: node.span,
            addr: self.expr(map.get("at")?),
            size: self.expr(map.get("size")?),
            target,
            readonly: self.flag(map.get("ro"), false),
            kind: map.get("kind").map_or(Expr::Const(0), |n| self.expr(n)),
            ptes: None,
            pages: map.get("pages").map(|n| self.expr(n)),
            preferred: map.get("preferred").and_then(|n| self.region_or_none(n)),
        };
        if mapping.readonly {
            self.need("vm_bind.readonly", node.span);
        }
        self.page_size_need(mapping.pages.as_ref(), node.span);
        if let Some(ptes) = map.get("ptes") {
            let items = self.list(ptes);
            let counts = items.iter().map(|n| self.expr(n)).collect();
            self.set_ptes(counts, ptes.span, &mut mapping);
        }
        Some(mapping)
    }

    fn long_op(&mut self, node: &Node) -> Option<BindOp> {
        if node.get("map").is_some() {
            return Some(BindOp::Map(Box::new(self.long_mapping(node)?)));
        }
        if let Some(memory) = node.get("unmap_all") {
            let name = self.name_ref(memory, &[Kind::Memory])?;
            self.need("vm_bind.unmap_all", node.span);
            return Some(BindOp::UnmapAll(name));
        }
        let map = self.shape(node, &RANGE_OP);
        let addr = map.get("at").map_or(Expr::Const(0), |n| self.expr(n));
        let size = map.get("size").map_or(Expr::Const(0), |n| self.expr(n));
        if let Some(what) = map.get("unmap") {
            let sparse = self.one_of(what, &["memory", "sparse"])? == 1;
            if sparse {
                self.need("vm_bind.sparse", what.span);
            }
            return Some(BindOp::Unmap { addr, size, sparse });
        }
        if let Some(region) = map.get("prefetch") {
            return self.prefetch(addr, size, region);
        }
        if let Some(region) = map.get("madvise") {
            return self.madvise(addr, size, region);
        }
        let help = "write one of `map`, `unmap: memory`, `unmap_all`, `prefetch` and `madvise`";
        self.wrong(node, "a bind operation", help);
        None
    }
}
