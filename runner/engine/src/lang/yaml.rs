//! YAML to a tree of nodes with their places. The one module that knows the YAML crate: it builds
//! the tree from parser events, so that a mistake in one value never hides those in others.
//!
//! Narrower than YAML on purpose: no tags, no duplicate keys, keys are plain words; anchors,
//! aliases and `<<` merge keys work within a document, up to [`MAX_NODES`] nodes after expansion.

use super::ast::Span;
use super::diag::Diagnostic;
use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, Span as EventSpan, options};
use std::collections::HashMap;

/// Longest file in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Most nodes in a file, aliases expanded.
pub(crate) const MAX_NODES: usize = 50_000;
/// Deepest nesting.
pub(crate) const MAX_DEPTH: usize = 48;

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: NodeKind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    /// Nothing was written.
    Null,
    /// What was written was reported already: whatever it is taken for is no news.
    Bad,
    /// A word, number or text.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the text.
    Map(Vec<(Key, Node)>),
}

/// A scalar.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// In quotes or a block: never a number, boolean or null.
    pub(crate) quoted: bool,
    /// Bytes of `text` are the bytes at the span, so that places inside it can be told.
    pub(crate) exact: bool,
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) span: Span,
    pub(crate) text: String,
}

impl Node {
    /// What it is, for messages.
    pub(crate) fn noun(&self) -> &'static str {
        match &self.kind {
            NodeKind::Null | NodeKind::Bad => "nothing",
            NodeKind::Scalar(_) => "a word",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a mapping",
        }
    }

    /// A value that was reported already.
    pub(crate) fn bad() -> Node {
        Node { span: Span::default(), kind: NodeKind::Bad }
    }

    /// Value of a key, if it is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            NodeKind::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    fn count(&self) -> usize {
        match &self.kind {
            NodeKind::Null | NodeKind::Bad | NodeKind::Scalar(_) => 1,
            NodeKind::List(items) => 1 + items.iter().map(Node::count).sum::<usize>(),
            NodeKind::Map(entries) => 1 + entries.iter().map(|(_, v)| v.count()).sum::<usize>(),
        }
    }

    fn depth(&self) -> usize {
        match &self.kind {
            NodeKind::Null | NodeKind::Bad | NodeKind::Scalar(_) => 1,
            NodeKind::List(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            NodeKind::Map(entries) => 1 + entries.iter().map(|(_, v)| v.depth()).max().unwrap_or(0),
        }
    }
}

/// A parsed file.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Roots of its documents.
    pub(crate) documents: Vec<Node>,
    /// Mistakes in the YAML itself.
    pub(crate) errors: Vec<Diagnostic>,
    /// The text was not read to its end: absence of something proves nothing.
    pub(crate) truncated: bool,
}

/// Parses a file.
pub(crate) fn parse(text: &str) -> Tree {
    let mut builder = Builder { text, ..Builder::default() };
    if text.len() > MAX_BYTES {
        let message = format!("the file has more than {MAX_BYTES} bytes");
        builder.fail("too-large", Span { start: 0, end: 1 }, message, "split it".into());
        return builder.tree;
    }
    let options = options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        match next {
            Ok((event, span)) => {
                if !builder.event(event, builder.span(&span)) {
                    break;
                }
            }
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(0);
                let span = builder.clamp(at, at + 1);
                let mut message = error.info();
                if message.is_empty() {
                    message = "this is not YAML".into();
                }
                builder.fail("yaml", span, message, YAML_HELP.into());
                break;
            }
        }
    }
    builder.finish()
}

const YAML_HELP: &str = "check indentation, quotes and brackets near here; \
    quote text that has `: `, ` #`, or starts with one of `[]{}&*!|>%@`";

#[derive(Default)]
struct Builder<'a> {
    text: &'a str,
    tree: Tree,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

/// A collection that is not closed yet.
struct Open {
    start: u32,
    anchor: usize,
    kind: NodeKind,
    /// The key whose value comes next.
    key: Option<Key>,
    /// Keys that are no words are reported and their values dropped.
    bad_key: bool,
}

impl Builder<'_> {
    /// Takes one event; false when a limit is reached.
    fn event(&mut self, event: Event<'_>, span: Span) -> bool {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                let node = self.scalar(&text, style, span);
                self.value(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.open(NodeKind::List(Vec::new()), anchor, span);
                true
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                self.open(NodeKind::Map(Vec::new()), anchor, span);
                true
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span.end),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(node) => self.alias(node, span),
                None => {
                    let help = "an alias cannot stand inside the value that it names";
                    self.error("alias", span, "alias to something unfinished".into(), help);
                    self.value(Node { span, kind: NodeKind::Bad }, 0)
                }
            },
            Event::UnresolvedAlias(name) => {
                let message = format!("no anchor `&{name}` comes before this alias");
                self.error("alias", span, message, "write the value here, or define the anchor");
                self.value(Node { span, kind: NodeKind::Bad }, 0)
            }
            Event::DocumentStart(..) => {
                self.anchors.clear();
                true
            }
            _ => true,
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, span: Span) -> Node {
        let quoted = style != ScalarStyle::Plain;
        if !quoted && matches!(text, "" | "~" | "null") {
            return Node { span, kind: NodeKind::Null };
        }
        let source = self.text.get(span.start as usize..span.end as usize);
        let exact = source == Some(text);
        Node { span, kind: NodeKind::Scalar(Scalar { text: text.to_owned(), quoted, exact }) }
    }

    fn refuse_tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            self.error("tag", span, "YAML tags mean nothing here".into(), "leave the tag out");
        }
    }

    fn open(&mut self, kind: NodeKind, anchor: usize, span: Span) {
        self.stack.push(Open { start: span.start, anchor, kind, key: None, bad_key: false });
    }

    fn close(&mut self, end: u32) -> bool {
        let Some(open) = self.stack.pop() else { return true };
        let start = open.start;
        let mut node = Node { span: Span { start, end: end.max(start) }, kind: open.kind };
        self.merge(&mut node);
        self.value(node, open.anchor)
    }

    /// Puts an aliased value; false when a limit is reached.
    fn alias(&mut self, mut node: Node, span: Span) -> bool {
        node.span = span;
        if let NodeKind::Scalar(scalar) = &mut node.kind {
            scalar.exact = false;
        }
        self.nodes += node.count();
        if self.stack.len() + node.depth() > MAX_DEPTH {
            self.nodes = MAX_NODES;
        }
        self.value(node, 0)
    }

    /// Puts a finished value where it belongs; false when a limit is reached.
    fn value(&mut self, node: Node, anchor: usize) -> bool {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!(
                "more than {MAX_NODES} values with aliases expanded, or deeper than {MAX_DEPTH}"
            );
            self.fail("too-large", node.span, message, "write less, or use `params`".into());
            return false;
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.tree.documents.push(node),
            Some(Open { kind: NodeKind::List(items), .. }) => items.push(node),
            Some(open) => {
                if let Some(key) = open.key.take() {
                    self.entry(key, node);
                } else if open.bad_key {
                    open.bad_key = false;
                } else {
                    self.key(node);
                }
            }
        }
        true
    }

    fn key(&mut self, node: Node) {
        let span = node.span;
        let text = match node.kind {
            NodeKind::Scalar(scalar) => Some(scalar.text),
            _ => None,
        };
        let Some(open) = self.stack.last_mut() else { return };
        if let Some(text) = text {
            open.key = Some(Key { span, text });
        } else {
            open.bad_key = true;
            let help = "write a word, a colon and a space, and the value";
            self.error("key", span, "a key must be a word".into(), help);
        }
    }

    fn entry(&mut self, key: Key, node: Node) {
        let Some(Open { kind: NodeKind::Map(entries), .. }) = self.stack.last_mut() else { return };
        match entries.iter().find(|(k, _)| k.text == key.text).map(|(k, _)| k.span) {
            None => entries.push((key, node)),
            Some(first) => {
                let message = format!("`{}` is given twice", key.text);
                let help = "keep one of the two";
                let diagnostic = Diagnostic::new("duplicate-key", key.span, message, help);
                self.tree.errors.push(diagnostic.other(first, "first given here"));
            }
        }
    }

    /// `<<: *base` takes over the keys of `base` that the mapping does not have itself.
    fn merge(&mut self, node: &mut Node) {
        let NodeKind::Map(entries) = &mut node.kind else { return };
        let Some(at) = entries.iter().position(|(k, _)| k.text == "<<") else { return };
        let (key, base) = entries.remove(at);
        let bases = match base.kind {
            NodeKind::List(items) => items,
            _ => vec![base],
        };
        for base in bases {
            let NodeKind::Map(more) = base.kind else {
                let help = "write `<<: *name` with an anchor on a mapping";
                self.error("merge", key.span, "only mappings can be merged".into(), help);
                continue;
            };
            for (k, v) in more {
                if entries.iter().all(|(have, _)| have.text != k.text) {
                    entries.push((k, v));
                }
            }
        }
    }

    /// Closes what is still open, so that what was read before a mistake is checked too.
    fn finish(mut self) -> Tree {
        self.nodes = 0;
        let end = self.clamp(self.text.len(), self.text.len()).end;
        while !self.stack.is_empty() {
            if !self.close(end) {
                break;
            }
        }
        self.tree
    }

    fn error(&mut self, code: &'static str, span: Span, message: String, help: &str) {
        self.tree.errors.push(Diagnostic::new(code, span, message, help));
    }

    fn fail(&mut self, code: &'static str, span: Span, message: String, help: String) {
        self.tree.truncated = true;
        self.tree.errors.push(Diagnostic::new(code, span, message, help));
    }

    fn span(&self, span: &EventSpan) -> Span {
        let range = span.byte_range().unwrap_or(0..0);
        self.clamp(range.start, range.end)
    }

    fn clamp(&self, start: usize, end: usize) -> Span {
        let fit = |at: usize| u32::try_from(at.min(self.text.len())).unwrap_or(u32::MAX);
        Span { start: fit(start), end: fit(end.max(start)) }
    }
}
