//! Scenario files: loading, checking, and the variants that the parameters give. Owns what all
//! variants of a file share, and the merging of their diagnostics.

use super::ast::{Span, Test, Tier};
use super::check;
use super::diag::{Diagnostic, Diagnostics};
use super::lower::{self, Context, Kind, Lowered};
use super::params::{Bindings, MAX_VARIANTS, Params, Source, Substitution, Values};
use super::yaml::{self, Key, Node, NodeKind, Tree};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// One scenario of a file.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// First part of its tests' names.
    pub suite: String,
    /// Second part.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// When it runs.
    pub tier: Tier,
    file: Arc<File>,
    doc: Node,
    params: Params,
}

/// One combination of a scenario's parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// `suite@scenario@variant`, or `suite@scenario`: stable as long as the values are.
    pub name: String,
    /// Parameters with the names of their values.
    pub params: Vec<(String, String)>,
    /// What runs.
    pub test: Test,
}

#[derive(Debug)]
struct File {
    name: String,
    text: Arc<str>,
    lines: Vec<u32>,
    folder: String,
    truncated: bool,
}

/// Parses and checks a file. `name` is its path: for messages, and its folder is the suite of
/// scenarios that name none.
///
/// # Errors
/// Every mistake of the file, in the order of their places.
pub fn load(name: &str, text: &str) -> Result<Vec<Scenario>, Diagnostics> {
    let (scenarios, mut diags) = read(name, text);
    let mut names = HashMap::new();
    for scenario in &scenarios {
        scenario.check(&mut diags);
        let span = scenario.doc.get("scenario").map_or(scenario.doc.span, |n| n.span);
        let full = (scenario.suite.clone(), scenario.name.clone());
        if let Some(first) = names.insert(full, span) {
            let message = format!("two scenarios are called `{}`", scenario.name);
            let help = "give one of them another name";
            let diagnostic = Diagnostic::new("duplicate-name", span, message, help);
            diags.push(diagnostic.other(first, "first here"));
        }
    }
    finish(name, text, scenarios, diags)
}

/// Parses a file that [`load`] accepted before, without checking it again: for a worker that runs
/// one test of it.
///
/// # Errors
/// Mistakes in the YAML itself.
pub fn parse(name: &str, text: &str) -> Result<Vec<Scenario>, Diagnostics> {
    let (scenarios, diags) = read(name, text);
    finish(name, text, scenarios, diags)
}

fn finish(
    name: &str,
    text: &str,
    scenarios: Vec<Scenario>,
    mut list: Vec<Diagnostic>,
) -> Result<Vec<Scenario>, Diagnostics> {
    if list.is_empty() {
        return Ok(scenarios);
    }
    list.sort_by_key(|d| (d.span.start, d.span.end));
    Err(Diagnostics { file: name.to_owned(), text: text.into(), list })
}

fn read(name: &str, text: &str) -> (Vec<Scenario>, Vec<Diagnostic>) {
    let Tree { documents, errors: mut diags, truncated } = yaml::parse(text);
    let file = Arc::new(File {
        name: name.to_owned(),
        text: text.into(),
        lines: line_starts(text),
        folder: folder(name),
        truncated,
    });
    let mut scenarios = Vec::new();
    for doc in documents {
        if matches!(doc.kind, NodeKind::Map(_)) {
            scenarios.push(Scenario::new(&file, doc, &mut diags));
        } else {
            let help = "start with `scenario: suite/name`";
            diags.push(super::params::wrong(&doc, "a scenario", help));
        }
    }
    if scenarios.is_empty() && diags.is_empty() {
        let help = "start with `scenario: suite/name`; docs/SCENARIOS.md has an example";
        diags.push(Diagnostic::new("missing-key", Span::default(), "the file is empty", help));
    }
    (scenarios, diags)
}

fn line_starts(text: &str) -> Vec<u32> {
    let newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
    let starts = newlines.map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX));
    std::iter::once(0).chain(starts).collect()
}

/// Name of the folder that holds the file.
fn folder(name: &str) -> String {
    let folder = name.rsplit(['/', '\\']).nth(1).filter(|f| !f.is_empty() && *f != ".");
    folder.unwrap_or("local").to_owned()
}

/// Keys whose `$name` are replaced while parameters are bound, not before.
const UNBOUND: &[&str] = &["params", "cases", "exclude", "smoke"];

impl Scenario {
    fn new(file: &Arc<File>, doc: Node, diags: &mut Vec<Diagnostic>) -> Self {
        let params = Params::new(&doc, diags);
        let text = |key: &str| doc.get(key).and_then(Node::text).unwrap_or_default().to_owned();
        let full = text("scenario");
        let (suite, name) = match full.split_once('/') {
            Some((suite, name)) => (suite.to_owned(), name.to_owned()),
            None => (file.folder.clone(), full),
        };
        let tier = match text("tier").as_str() {
            "smoke" => Tier::Smoke,
            "soak" => Tier::Soak,
            _ => Tier::Full,
        };
        let about = text("about");
        Scenario { suite, name, about, tier, file: Arc::clone(file), doc, params }
    }

    /// Path of the file, as it was given.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file.name
    }

    /// Text of the file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.file.text
    }

    /// Whether values of a parameter come from the device, so that [`Scenario::variants`] gives
    /// none.
    #[must_use]
    pub fn needs_device(&self) -> bool {
        self.params.needs_device()
    }

    /// Every variant. None for a scenario whose parameters need the device.
    #[must_use]
    pub fn variants(&self) -> Vec<Variant> {
        self.variants_with(&|_| Some(Vec::new()))
    }

    /// Every variant, with values of device parameters.
    #[must_use]
    pub fn variants_with(&self, values: Values<'_>) -> Vec<Variant> {
        let all = self.params.combinations(values, None);
        all.iter().take(MAX_VARIANTS).map(|b| self.variant(b)).collect()
    }

    /// Names of all variants, without building them.
    #[must_use]
    pub fn names_with(&self, values: Values<'_>) -> Vec<String> {
        let all = self.params.combinations(values, None);
        all.iter().take(MAX_VARIANTS).map(|b| self.test_name(b)).collect()
    }

    /// The variant of that full name.
    #[must_use]
    pub fn find(&self, name: &str, values: Values<'_>) -> Option<Variant> {
        let variant = name.splitn(3, '@').nth(2).unwrap_or_default();
        let all = self.params.combinations(values, Some(variant));
        all.iter().find(|b| self.test_name(b) == name).map(|b| self.variant(b))
    }

    fn test_name(&self, bindings: &Bindings) -> String {
        lower::test_name(&self.suite, &self.name, &bindings.name)
    }

    fn variant(&self, bindings: &Bindings) -> Variant {
        let (lowered, _) = self.lower(bindings, &mut BTreeSet::new());
        Variant { name: lowered.test.name.clone(), params: bindings.pairs(), test: lowered.test }
    }

    /// One variant with everything found on the way.
    fn lower(
        &self,
        bindings: &Bindings,
        used: &mut BTreeSet<String>,
    ) -> (Lowered, Vec<Diagnostic>) {
        let mut diags = Vec::new();
        let mut substitution = Substitution { bindings, used, diags: &mut diags };
        let doc = substitute(&self.doc, &mut substitution);
        let context = Context {
            lines: &self.file.lines,
            params: &self.params,
            bindings,
            folder: &self.file.folder,
            truncated: self.file.truncated,
        };
        let mut lowered = lower::lower(&doc, context);
        diags.append(&mut lowered.diags);
        (lowered, diags)
    }

    /// Checks every variant and what only all of them together tell.
    fn check(&self, diags: &mut Vec<Diagnostic>) {
        let combinations = self.params.combinations(&|_| None, None);
        let span =
            self.doc.get("params").or(self.doc.get("cases")).map_or(self.doc.span, |n| n.span);
        if combinations.len() > MAX_VARIANTS || combinations.is_empty() {
            let (message, help) = if combinations.is_empty() {
                ("`exclude` leaves no variant".to_owned(), "exclude less")
            } else {
                (format!("more than {MAX_VARIANTS} variants"), "give fewer values, or exclude some")
            };
            diags.push(Diagnostic::new("params", span, message, help));
        }
        let mut merge = Merge::default();
        let mut used_params = BTreeSet::new();
        let mut used = BTreeSet::new();
        let mut declared = Vec::new();
        let mut names = HashMap::new();
        for bindings in combinations.iter().take(MAX_VARIANTS) {
            let (lowered, mut found) = self.lower(bindings, &mut used_params);
            if !self.file.truncated {
                check::check(&lowered, &mut found);
            }
            if names.insert(bindings.name.clone(), ()).is_some() {
                let message = format!("two variants are called `{}`", bindings.name);
                let help =
                    "name values that read alike: `params: { p: { first: ..., second: ... } }`";
                found.push(Diagnostic::new("duplicate-name", span, message, help));
            }
            merge.add(&bindings.name, found);
            used.extend(lowered.used);
            declared = lowered.declared;
        }
        merge.finish(diags);
        if !self.file.truncated && !combinations.is_empty() {
            self.unused(&used_params, &declared, &used, diags);
        }
    }

    /// What no variant uses.
    fn unused(
        &self,
        params: &BTreeSet<String>,
        declared: &[(Kind, String, Span)],
        used: &BTreeSet<(Kind, String)>,
        diags: &mut Vec<Diagnostic>,
    ) {
        let mut matched = BTreeSet::new();
        matched_params(&self.doc, &mut matched);
        for (name, span) in self.params.declared() {
            if !params.contains(name) && !matched.contains(name) {
                let message = format!("the parameter `{name}` is never used");
                let help = format!("write `${name}` where its values belong, or remove it");
                diags.push(Diagnostic::new("unused", span, message, help));
            }
        }
        // Names that steps make may well stay unused; a first queue or VM is a default.
        let sections =
            [("memory", Kind::Memory), ("syncobjs", Kind::Syncobj), ("barriers", Kind::Barrier)];
        for (section, kind) in sections {
            let Some(node) = self.doc.get(section) else { continue };
            let inside = |span: &Span| node.span.start <= span.start && span.end <= node.span.end;
            for (_, name, span) in declared.iter().filter(|(k, _, s)| *k == kind && inside(s)) {
                // A name whose declaration is wrong may well be misread.
                let value = node.get(name).map_or(*span, |n| n.span);
                let wrong =
                    diags.iter().any(|d| value.start <= d.span.start && d.span.end <= value.end);
                if !wrong && !used.contains(&(kind, name.clone())) {
                    let message = format!("the {} `{name}` is never used", kind.noun());
                    let help = "use it in a step or an expectation, or remove it";
                    diags.push(Diagnostic::new("unused", *span, message, help));
                }
            }
        }
    }
}

/// Parameters that `when`, `exclude` and `smoke` ask about.
fn matched_params(node: &Node, out: &mut BTreeSet<String>) {
    match &node.kind {
        NodeKind::List(items) => items.iter().for_each(|item| matched_params(item, out)),
        NodeKind::Map(entries) => {
            for (key, value) in entries {
                if matches!(key.text.as_str(), "when" | "exclude" | "smoke") {
                    let keys = super::params::items(value).iter().filter_map(|n| match &n.kind {
                        NodeKind::Map(keys) => Some(keys.iter().map(|(k, _)| k.text.clone())),
                        _ => None,
                    });
                    out.extend(keys.flatten());
                }
                matched_params(value, out);
            }
        }
        _ => {}
    }
}

fn substitute(doc: &Node, substitution: &mut Substitution<'_>) -> Node {
    let NodeKind::Map(entries) = &doc.kind else { return doc.clone() };
    let entry = |(key, value): &(Key, Node)| {
        let unbound = UNBOUND.contains(&key.text.as_str());
        let value = if unbound { value.clone() } else { substitution.apply(value) };
        (key.clone(), value)
    };
    Node { span: doc.span, kind: NodeKind::Map(entries.iter().map(entry).collect()) }
}

/// The same mistake in several variants is one mistake.
#[derive(Default)]
struct Merge {
    variants: usize,
    found: Vec<(Diagnostic, usize)>,
    index: HashMap<(&'static str, Span), usize>,
}

impl Merge {
    fn add(&mut self, variant: &str, diags: Vec<Diagnostic>) {
        self.variants += 1;
        let mut seen = BTreeSet::new();
        for mut diagnostic in diags {
            let key = (diagnostic.code, diagnostic.span);
            // Several of one class at one place in one variant differ in their words.
            let fresh = seen.insert((key.0, key.1, diagnostic.message.clone()));
            match self.index.get(&key) {
                Some(at) => {
                    if fresh {
                        self.found[*at].1 += 1;
                    }
                }
                None => {
                    diagnostic.variant = Some(variant.to_owned()).filter(|v| !v.is_empty());
                    self.index.insert(key, self.found.len());
                    self.found.push((diagnostic, 1));
                }
            }
        }
    }

    fn finish(self, out: &mut Vec<Diagnostic>) {
        for (mut diagnostic, count) in self.found {
            if count >= self.variants {
                diagnostic.variant = None;
            }
            out.push(diagnostic);
        }
    }
}

impl Source {
    /// How it is written after `from:`.
    #[must_use]
    pub fn name(self) -> &'static str {
        super::params::SOURCES.iter().find(|(_, s)| *s == self).map_or("", |(n, _)| n)
    }
}
