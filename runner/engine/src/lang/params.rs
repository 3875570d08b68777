//! Parameters: the axes of a scenario, their combinations, and `$name` in values. Owns variant
//! names.
//!
//! `params` is crossed, `cases` is a table of which each row gives several parameters at once,
//! `exclude` drops combinations. A `$name` or `${name}` that is a whole value stands for the value,
//! be it a list or a mapping; inside a longer text it stands for the text.

use super::ast::Span;
use super::diag::{Diagnostic, nearest};
use super::yaml::{Node, NodeKind, Scalar};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Most variants of a scenario.
pub(crate) const MAX_VARIANTS: usize = 4096;

/// Where values of a parameter come from that only the device adapter knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Names of the adapter's generated uAPI cases.
    AbiCases,
    /// Cases about who may open nodes and call.
    KernelNodes,
    /// Cases about unloading the module.
    KernelUnload,
}

/// Names of sources, as in `{ from: abi.cases }`.
pub(crate) const SOURCES: &[(&str, Source)] = &[
    ("abi.cases", Source::AbiCases),
    ("kernel.nodes", Source::KernelNodes),
    ("kernel.unload", Source::KernelUnload),
];

/// Gives the values of a source; nothing while no device is known.
pub(crate) type Values<'a> = &'a dyn Fn(Source) -> Option<Vec<String>>;

/// What a parameter can be.
#[derive(Clone, Debug)]
enum Axis {
    /// One of these, named in the variant if there are several.
    Values { named: bool, values: Vec<(String, Node)> },
    /// Known to the device.
    Device(Source),
    /// Reported already: its uses are no news.
    Bad,
}

/// All parameters of a scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    axes: Vec<(String, Span, Axis)>,
    /// Rows of the table: name and parameters.
    cases: Vec<(String, Span, Row)>,
    excludes: Vec<Matcher>,
    smoke: Vec<Matcher>,
}

/// Parameters that one row of the table gives.
type Row = Vec<(String, Node)>;

/// Values that select combinations: parameter names with alternatives, in which `*` stands for any
/// text.
#[derive(Clone, Debug)]
pub(crate) struct Matcher(Vec<(String, Vec<String>)>);

/// One combination.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bindings {
    /// Its name: values joined by `-`; empty without parameters.
    pub(crate) name: String,
    /// Parameters with their value's name and value.
    values: Vec<(String, String, Node)>,
}

/// Name under which a row of `cases` is matched.
const CASE: &str = "case";

impl Params {
    /// Reads `params`, `cases`, `exclude` and `smoke` of a scenario.
    pub(crate) fn new(scenario: &Node, diags: &mut Vec<Diagnostic>) -> Self {
        let mut params = Params::default();
        if let Some(node) = scenario.get("params") {
            params.read_axes(node, diags);
        }
        if let Some(node) = scenario.get("cases") {
            params.read_cases(node, diags);
        }
        params.excludes = params.matchers(scenario.get("exclude"), diags);
        params.smoke = params.matchers(scenario.get("smoke"), diags);
        if let Some(node) = scenario.get("smoke") {
            params.check_smoke(node, scenario, diags);
        }
        params
    }

    fn matchers(&self, node: Option<&Node>, diags: &mut Vec<Diagnostic>) -> Vec<Matcher> {
        let all = node.map_or(&[][..], items).iter();
        all.filter_map(|item| self.matcher(item, diags)).collect()
    }

    /// A choice for tier smoke must leave something to choose from, and choose something.
    fn check_smoke(&self, node: &Node, scenario: &Node, diags: &mut Vec<Diagnostic>) {
        let mut tell = |message: &str, help: &'static str| {
            diags.push(Diagnostic::new("smoke", node.span, message.to_owned(), help));
        };
        if scenario.get("tier").and_then(Node::text) == Some("smoke") {
            tell("all variants are in tier smoke already", "leave out `tier`, or `smoke`");
        } else if self.axes.is_empty() && self.cases.is_empty() {
            tell("there are no variants to choose from", "write `tier: smoke` in place of it");
        } else if self.smoke.len() == items(node).len()
            && !self.needs_device()
            && !self.combinations(&|_| None, None).iter().any(|b| self.is_smoke(b))
        {
            tell(
                "this chooses no variant",
                "no combination has these values, or `exclude` drops it",
            );
        }
    }

    /// Whether the scenario wants the combination in tier smoke.
    pub(crate) fn is_smoke(&self, bindings: &Bindings) -> bool {
        self.smoke.iter().any(|matcher| bindings.matches(matcher))
    }

    fn read_axes(&mut self, node: &Node, diags: &mut Vec<Diagnostic>) {
        let NodeKind::Map(entries) = &node.kind else {
            let help = "write `params: { name: [value, value] }`";
            diags.push(wrong(node, "a mapping of parameters", help));
            return;
        };
        for (key, value) in entries {
            check_name(&key.text, key.span, "parameter", diags);
            let axis = axis(value, diags).unwrap_or(Axis::Bad);
            self.axes.push((key.text.clone(), key.span, axis));
        }
    }

    fn read_cases(&mut self, node: &Node, diags: &mut Vec<Diagnostic>) {
        let NodeKind::Map(entries) = &node.kind else {
            let help = "write `cases: { name: { param: value }, ... }`";
            diags.push(wrong(node, "a mapping of named cases", help));
            return;
        };
        for (key, row) in entries {
            let NodeKind::Map(values) = &row.kind else {
                diags.push(wrong(row, "a mapping of parameters", "write `{ param: value }`"));
                continue;
            };
            let mut bound = Vec::new();
            for (k, v) in values {
                check_name(&k.text, k.span, "parameter", diags);
                if let Some((_, first, _)) = self.axes.iter().find(|(n, ..)| *n == k.text) {
                    let message = format!("`{}` is a parameter already", k.text);
                    let help = "give one of the two another name";
                    let diagnostic = Diagnostic::new("duplicate-name", k.span, message, help);
                    diags.push(diagnostic.other(*first, "in `params`"));
                }
                bound.push((k.text.clone(), v.clone()));
            }
            self.cases.push((value_name(&key.text), key.span, bound));
        }
        self.check_rows(diags);
    }

    /// Every row must give the same parameters.
    fn check_rows(&self, diags: &mut Vec<Diagnostic>) {
        let all: BTreeSet<&str> =
            self.cases.iter().flat_map(|(_, _, row)| row.iter().map(|(k, _)| k.as_str())).collect();
        for (name, span, row) in &self.cases {
            let missing: Vec<_> =
                all.iter().filter(|k| row.iter().all(|(have, _)| have != *k)).collect();
            if let Some(first) = missing.first() {
                let message = format!("case `{name}` gives no `{first}`");
                let help = format!("add `{first}: ...`, as the other cases do");
                diags.push(Diagnostic::new("missing-key", *span, message, help));
            }
        }
    }

    /// Reads `{ param: value, param: [value, value] }`.
    pub(crate) fn matcher(&self, node: &Node, diags: &mut Vec<Diagnostic>) -> Option<Matcher> {
        let NodeKind::Map(entries) = &node.kind else {
            diags.push(wrong(
                node,
                "a mapping of parameters to values",
                "write `{ param: value }`",
            ));
            return None;
        };
        let mut parts = Vec::new();
        let errors = diags.len();
        for (key, value) in entries {
            let known = self.value_names(&key.text);
            if known.is_none() {
                let names = self.names();
                let message = format!("`{}` is no parameter", key.text);
                let help = suggestion(&key.text, names.iter().map(String::as_str), "parameters");
                diags.push(Diagnostic::new("unknown-name", key.span, message, help));
                continue;
            }
            let mut wanted = Vec::new();
            for item in items(value) {
                let text = pattern(item.text().unwrap_or("null"));
                if let Some(Some(known)) = &known
                    && !known.iter().any(|value| fits(&text, value))
                {
                    let message = format!("`{}` never has the value `{text}`", key.text);
                    let help = suggestion(&text, known.iter().map(String::as_str), "values");
                    diags.push(Diagnostic::new("unknown-name", item.span, message, help));
                }
                wanted.push(text);
            }
            parts.push((key.text.clone(), wanted));
        }
        (diags.len() == errors).then_some(Matcher(parts))
    }

    /// Names of parameters.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.axes.iter().map(|(n, ..)| n.clone()).collect();
        if let Some((_, _, row)) = self.cases.first() {
            names.push(CASE.to_owned());
            names.extend(row.iter().map(|(k, _)| k.clone()));
        }
        names
    }

    /// Names of a parameter's values; outer `None`: no such parameter, inner: not known.
    fn value_names(&self, name: &str) -> Option<Option<Vec<String>>> {
        if name == CASE && !self.cases.is_empty() {
            return Some(Some(self.cases.iter().map(|(n, ..)| n.clone()).collect()));
        }
        if let Some((_, _, axis)) = self.axes.iter().find(|(n, ..)| n == name) {
            return Some(match axis {
                Axis::Values { values, .. } => {
                    Some(values.iter().map(|(n, _)| n.clone()).collect())
                }
                Axis::Device(_) | Axis::Bad => None,
            });
        }
        let in_rows = self.cases.iter().any(|(_, _, row)| row.iter().any(|(k, _)| k == name));
        in_rows.then_some(None)
    }

    /// Names with the places where they are declared, to find unused ones.
    pub(crate) fn declared(&self) -> Vec<(&str, Span)> {
        let good = self.axes.iter().filter(|(.., axis)| !matches!(axis, Axis::Bad));
        let axes = good.map(|(n, span, _)| (n.as_str(), *span));
        let rows = self
            .cases
            .iter()
            .take(1)
            .flat_map(|(_, span, row)| row.iter().map(|(k, _)| (k.as_str(), *span)));
        axes.chain(rows).collect()
    }

    /// Whether values must come from the device.
    pub(crate) fn needs_device(&self) -> bool {
        self.axes.iter().any(|(_, _, axis)| matches!(axis, Axis::Device(_)))
    }

    /// Every combination that is not excluded, in the order of the text. With `wanted` at least
    /// those of that name: a worker looks for one among thousands.
    pub(crate) fn combinations(&self, values: Values<'_>, wanted: Option<&str>) -> Vec<Bindings> {
        // A name grows to the right, so what does not begin it cannot become it.
        let may_become = |name: &str| wanted.is_none_or(|wanted| wanted.starts_with(name));
        let mut all = vec![Bindings::default()];
        if !self.cases.is_empty() {
            let cases = self.cases.iter().filter(|(name, ..)| may_become(name));
            all = cases
                .map(|(name, ..)| Bindings {
                    name: name.clone(),
                    values: vec![(CASE.to_owned(), name.clone(), scalar(name))],
                })
                .collect();
        }
        for (name, _, axis) in &self.axes {
            let (named, values) = match axis {
                Axis::Bad => (false, vec![("bad".to_owned(), Node::bad())]),
                Axis::Values { named, values } => (*named, values.clone()),
                Axis::Device(source) => {
                    let given = values(*source).unwrap_or_else(|| vec!["device".to_owned()]);
                    (true, given.iter().map(|v| (value_name(v), scalar(v))).collect())
                }
            };
            let mut grown = Vec::new();
            for base in &all {
                for (text, node) in &values {
                    let full = base.name_with(text, named);
                    if grown.len() <= MAX_VARIANTS && may_become(&full) {
                        grown.push(base.with(name, text, node, full));
                    }
                }
            }
            all = grown;
        }
        for bindings in &mut all {
            let row = self.cases.iter().find(|(n, ..)| bindings.value(CASE) == Some(n));
            for (key, value) in row.into_iter().flat_map(|(_, _, row)| row) {
                let text = value.text().map_or(String::new(), value_name);
                bindings.values.push((key.clone(), text, value.clone()));
            }
        }
        all.retain(|b| !self.excludes.iter().any(|m| b.matches(m)));
        all
    }
}

impl Bindings {
    /// Its name with one more value.
    fn name_with(&self, text: &str, named: bool) -> String {
        match (named, self.name.is_empty()) {
            (false, _) => self.name.clone(),
            (true, true) => text.to_owned(),
            (true, false) => format!("{}-{text}", self.name),
        }
    }

    fn with(&self, param: &str, text: &str, node: &Node, name: String) -> Bindings {
        let mut values = self.values.clone();
        values.push((param.to_owned(), text.to_owned(), node.clone()));
        Bindings { name, values }
    }

    fn value(&self, param: &str) -> Option<&String> {
        self.values.iter().find(|(n, ..)| n == param).map(|(_, text, _)| text)
    }

    /// Parameters with the names of their values.
    pub(crate) fn pairs(&self) -> Vec<(String, String)> {
        self.values.iter().map(|(n, text, _)| (n.clone(), text.clone())).collect()
    }

    /// Whether every parameter of the matcher has one of its values.
    pub(crate) fn matches(&self, matcher: &Matcher) -> bool {
        matcher.0.iter().all(|(param, wanted)| {
            self.value(param).is_some_and(|value| wanted.iter().any(|w| fits(w, value)))
        })
    }

    fn node(&self, param: &str) -> Option<&Node> {
        self.values.iter().find(|(n, ..)| n == param).map(|(.., node)| node)
    }
}

/// Replaces parameters in a tree; remembers which were used and what is wrong.
pub(crate) struct Substitution<'a> {
    pub(crate) bindings: &'a Bindings,
    pub(crate) used: &'a mut BTreeSet<String>,
    pub(crate) diags: &'a mut Vec<Diagnostic>,
}

/// Parameters whose values use parameters: so deep at most.
const MAX_NESTING: u32 = 8;

impl Substitution<'_> {
    /// The tree with every `$name` replaced.
    pub(crate) fn apply(&mut self, node: &Node) -> Node {
        self.node(node, 0)
    }

    fn node(&mut self, node: &Node, depth: u32) -> Node {
        let kind = match &node.kind {
            NodeKind::Null => NodeKind::Null,
            NodeKind::Bad => NodeKind::Bad,
            NodeKind::Scalar(scalar) if !scalar.text.contains('$') => node.kind.clone(),
            NodeKind::Scalar(scalar) => return self.scalar(scalar, node.span, depth),
            NodeKind::List(items) => {
                NodeKind::List(items.iter().map(|item| self.node(item, depth)).collect())
            }
            NodeKind::Map(entries) => NodeKind::Map(
                entries.iter().map(|(key, value)| (key.clone(), self.node(value, depth))).collect(),
            ),
        };
        Node { span: node.span, kind }
    }

    fn scalar(&mut self, scalar: &Scalar, span: Span, depth: u32) -> Node {
        if depth > MAX_NESTING {
            let message = "parameters refer to each other too deeply";
            let help = "write the value out";
            self.diags.push(Diagnostic::new("params", span, message, help));
            return Node { span, kind: NodeKind::Bad };
        }
        if let Some(name) = whole(&scalar.text) {
            return match self.lookup(name, span) {
                Some(Node { kind: NodeKind::Bad, .. }) => Node { span, kind: NodeKind::Bad },
                // The place of the use says more than the place of the value, unless the value is
                // a collection with places of its own.
                Some(value) => match self.node(&value, depth + 1) {
                    Node { kind: NodeKind::Scalar(mut s), span: at } => {
                        s.exact = s.exact && at == value.span;
                        Node { span: value.span, kind: NodeKind::Scalar(s) }
                    }
                    other => other,
                },
                None => Node { span, kind: NodeKind::Bad },
            };
        }
        let Some(text) = self.text(&scalar.text, span, depth) else {
            return Node { span, kind: NodeKind::Bad };
        };
        let quoted = scalar.quoted;
        Node { span, kind: NodeKind::Scalar(Scalar { text, quoted, exact: false }) }
    }

    fn text(&mut self, text: &str, span: Span, depth: u32) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut good = true;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let (name, length) = reference(&rest[at..]);
            rest = &rest[at + length..];
            let Some(value) = self.lookup(name, span) else {
                good = false;
                continue;
            };
            let value = self.node(&value, depth + 1);
            match value.text() {
                Some(text) => out.push_str(text),
                None if matches!(value.kind, NodeKind::Bad) => good = false,
                None => {
                    good = false;
                    let message = format!("`${name}` is {}, not a word", value.noun());
                    let help = "inside a text only words and numbers can be put";
                    self.diags.push(Diagnostic::new("wrong-type", span, message, help));
                }
            }
        }
        out.push_str(rest);
        good.then_some(out)
    }

    fn lookup(&mut self, name: &str, span: Span) -> Option<Node> {
        self.used.insert(name.to_owned());
        let found = self.bindings.node(name).cloned();
        if found.is_none() {
            let message = format!("`${name}` names no parameter");
            let known = self.bindings.values.iter().map(|(n, ..)| n.as_str());
            let help = suggestion(name, known, "parameters");
            self.diags.push(Diagnostic::new("unknown-name", span, message, help));
        }
        found
    }
}

/// The name if all of `text` is one reference.
fn whole(text: &str) -> Option<&str> {
    let (name, length) = reference(text.starts_with('$').then_some(text)?);
    (length == text.len()).then_some(name)
}

/// Name and length of the reference at the start of `text`, which begins with `$`.
fn reference(text: &str) -> (&str, usize) {
    let after = &text[1..];
    if let Some(inner) = after.strip_prefix('{')
        && let Some(end) = inner.find('}')
    {
        return (&inner[..end], end + 3);
    }
    let is_word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let length = after.chars().take_while(is_word).count();
    (&after[..length], length + 1)
}

fn axis(value: &Node, diags: &mut Vec<Diagnostic>) -> Option<Axis> {
    let mut values = Vec::new();
    let mut named = true;
    match &value.kind {
        NodeKind::Map(entries) if entries.len() == 1 && entries[0].0.text == "from" => {
            let source = &entries[0].1;
            let found = SOURCES.iter().find(|(n, _)| Some(*n) == source.text());
            if found.is_none() {
                let message = "no such source of values";
                let word = source.text().unwrap_or("");
                let help = suggestion(word, SOURCES.iter().map(|(n, _)| *n), "sources");
                diags.push(Diagnostic::new("unknown-name", source.span, message, help));
            }
            return found.map(|(_, source)| Axis::Device(*source));
        }
        NodeKind::Map(entries) => {
            values.extend(entries.iter().map(|(k, v)| (value_name(&k.text), v.clone())));
        }
        NodeKind::List(items) => {
            for item in items {
                match item.text() {
                    Some(text) => values.push((value_name(text), item.clone())),
                    None => {
                        let help = "name it: `{ first: [..], second: [..] }` in place of a list";
                        let message = format!("{} has no name for the variant", item.noun());
                        diags.push(Diagnostic::new("params", item.span, message, help));
                    }
                }
            }
        }
        _ => {
            named = false;
            values.push((value_name(value.text().unwrap_or("null")), value.clone()));
        }
    }
    let mut seen = BTreeSet::new();
    for (name, node) in &values {
        if !seen.insert(name.clone()) {
            let message = format!("the value `{name}` is given twice");
            diags.push(Diagnostic::new(
                "duplicate-name",
                node.span,
                message,
                "keep one of the two",
            ));
        }
    }
    if values.is_empty() {
        if !matches!(&value.kind, NodeKind::List(items) if !items.is_empty()) {
            let message = "a parameter without values leaves no variant";
            diags.push(Diagnostic::new("params", value.span, message, "write at least one value"));
        }
        return None;
    }
    Some(Axis::Values { named, values })
}

/// A value as it stands in a variant's name: no character that file names or filters dislike.
fn value_name(text: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-' | '/');
    text.trim().chars().map(|c| if keep(c) { c } else { '_' }).take(64).collect()
}

/// A value's name as a matcher has it: each `*` stays.
fn pattern(text: &str) -> String {
    text.split('*').map(value_name).collect::<Vec<_>>().join("*")
}

/// Whether a pattern, in which `*` stands for any text, is all of a name.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    let ends = (0..=name.len()).filter(|at| name.is_char_boundary(*at));
    ends.rev().any(|at| fits(rest, &name[at..]))
}

fn scalar(text: &str) -> Node {
    let scalar = Scalar { text: text.to_owned(), quoted: false, exact: false };
    Node { span: Span::default(), kind: NodeKind::Scalar(scalar) }
}

/// The items of a list, or the one value.
pub(crate) fn items(node: &Node) -> &[Node] {
    match &node.kind {
        NodeKind::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// Names are words that expressions can hold.
pub(crate) fn check_name(name: &str, span: Span, what: &str, diags: &mut Vec<Diagnostic>) {
    const RESERVED: &[&str] = &[
        "all", "base", "copy", "max", "mirror", "none", "null", "page", "rand", "sparse", "unit",
        "va_end", CASE,
    ];
    let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !first || !rest || name.len() > 40 {
        let message = match name {
            "" => format!("an empty name of a {what}"),
            _ => format!("`{name}` cannot be the name of a {what}"),
        };
        let help = "use letters, digits and `_`, not starting with a digit, at most 40";
        diags.push(Diagnostic::new("bad-name", span, message, help));
    } else if RESERVED.contains(&name) && (what != "parameter" || name == CASE) {
        let message = format!("`{name}` has a meaning of its own");
        let help = format!("call the {what} something else, for instance `{name}_`");
        diags.push(Diagnostic::new("bad-name", span, message, help));
    }
}

/// "did you mean `x`?", or what there is.
pub(crate) fn suggestion<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
    plural: &str,
) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(near) = nearest(word, known.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    match known.len() {
        0 => format!("there are no {plural}"),
        1..=24 => format!("{plural}: {}", known.join(", ")),
        n => format!("there are {n} {plural}; docs/SCENARIOS.md lists them"),
    }
}

pub(crate) fn wrong(node: &Node, wanted: &str, help: impl Into<Cow<'static, str>>) -> Diagnostic {
    let message = format!("expected {wanted}, found {}", node.noun());
    Diagnostic::new("wrong-type", node.span, message, help.into())
}
