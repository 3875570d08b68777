//! Mappings: known keys, required keys, and the one verb of a step, command or expectation.

use super::super::ast::Span;
use super::super::diag::{Diagnostic, nearest, one_of};
use super::super::grammar::{Key, Shape, Ty};
use super::super::verbs::LONG_KEYS;
use super::super::words::{Word, Words};
use super::super::yaml::{Key as NodeKey, Node, NodeKind};
use super::Lower;

/// A mapping whose keys were checked.
pub(super) struct Map<'n> {
    entries: Vec<(&'n NodeKey, &'n Node)>,
}

impl<'n> Map<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, v)| *v)
    }

    pub(super) fn key_span(&self, key: &str) -> Option<Span> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(k, _)| k.span)
    }
}

/// A verb with its value and the keys beside it.
pub(super) struct Call<'n> {
    pub(super) word: &'static Word,
    /// From the verb to the end of its value.
    pub(super) span: Span,
    /// None: the value is a mapping, whose keys are in `map`.
    pub(super) value: Option<&'n Node>,
    pub(super) map: Map<'n>,
}

impl<'n> Call<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.map.get(key)
    }
}

impl Lower<'_> {
    /// Checks the keys of a mapping against a shape; anything else is reported and gives none.
    pub(super) fn shape<'n>(&mut self, node: &'n Node, shape: &Shape) -> Map<'n> {
        let NodeKind::Map(entries) = &node.kind else {
            let help = format!("{}; write `{{ key: value }}`", shape.doc);
            self.wrong(node, "a mapping", help);
            return Map { entries: Vec::new() };
        };
        let mut out = Vec::new();
        for (key, value) in entries {
            if shape.keys.iter().any(|k| k.name == key.text) {
                out.push((key, value));
            } else {
                self.unknown_key(key, &format!("`{}`", shape.name), shape.keys.iter());
            }
        }
        if !self.cx.truncated {
            for key in shape.keys.iter().filter(|k| k.required) {
                if entries.iter().all(|(k, _)| k.text != key.name) {
                    self.missing_key(node.span, shape.name, key);
                }
            }
        }
        Map { entries: out }
    }

    fn missing_key(&mut self, span: Span, noun: &str, key: &Key) {
        let (code, help) = match key.name {
            "evidence" => ("no-evidence", super::EVIDENCE_HELP.to_owned()),
            "expect" => {
                ("no-expectation", "say what must hold: `expect: [ { value: a == 5 } ]`".to_owned())
            }
            name => ("missing-key", format!("add `{name}: ...`: {}", key.doc)),
        };
        let message = match code {
            "no-evidence" => "the scenario asks for no evidence: it could pass without having run",
            "no-expectation" => "the scenario expects nothing",
            _ => {
                let message = format!("this {noun} has no `{}`", key.name);
                self.error(code, span, message, help);
                return;
            }
        };
        self.error(code, span, message, help);
    }

    fn unknown_key<'k>(&mut self, key: &NodeKey, noun: &str, known: impl Iterator<Item = &'k Key>) {
        let known: Vec<&str> = known.map(|k| k.name).collect();
        let message = format!("`{}` is no key of {noun}", key.text);
        let help = match nearest(&key.text, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("keys here: {}", known.join(", ")),
        };
        let diagnostic = Diagnostic::new("unknown-key", key.span, message, help);
        self.diags.push(diagnostic.label("unknown key"));
    }

    /// Reads `{ VERB: value, key: value, ... }`.
    pub(super) fn call<'n>(
        &mut self,
        node: &'n Node,
        words: &'static Words,
        common: &'static [Key],
    ) -> Option<Call<'n>> {
        let NodeKind::Map(entries) = &node.kind else {
            let example = words.list.first().map_or("", |w| w.example.as_str());
            let help = format!("write for instance `{{ {example} }}`");
            self.wrong(node, words.wanted, help);
            return None;
        };
        let (at, word) = self.main_verb(node, entries, words, common)?;
        let allowed: Vec<&Key> = word.beside.iter().copied().chain(common).collect();
        let (verb_key, value) = (&entries[at].0, &entries[at].1);
        let mut keys = Vec::new();
        for (i, (key, node)) in entries.iter().enumerate() {
            if i == at {
                continue;
            }
            if allowed.iter().any(|k| k.name == key.text) {
                keys.push((key, node));
            } else if words.find(&key.text).is_some() {
                let message =
                    format!("one {} does one thing: `{}` or `{}`", words.noun, word.name, key.text);
                let help = format!("make `{}` an item of its own: `- {}`", key.text, key.text);
                self.error("two-verbs", key.span, message, help);
            } else {
                let noun = format!("the {} `{}`", words.noun, word.name);
                self.unknown_key(key, &noun, allowed.iter().copied());
            }
        }
        let value = self.long_form(value, word, &allowed, &mut keys);
        let end = entries[at].1.span.end.max(verb_key.span.end);
        let span = Span { start: verb_key.span.start, end };
        for key in word.beside.iter().filter(|k| k.required) {
            if keys.iter().all(|(k, _)| k.text != key.name) {
                self.missing_key(span, &format!("`{}`", word.name), key);
            }
        }
        Some(Call { word, span, value, map: Map { entries: keys } })
    }

    /// A compact value may be given as a mapping `{ at: a, value: 1 }` as well.
    fn long_form<'n>(
        &mut self,
        value: &'n Node,
        word: &Word,
        allowed: &[&Key],
        keys: &mut Vec<(&'n NodeKey, &'n Node)>,
    ) -> Option<&'n Node> {
        let NodeKind::Map(entries) = &value.kind else { return Some(value) };
        if !matches!(word.value, Ty::Compact(_)) {
            return Some(value);
        }
        for (key, node) in entries {
            let known = allowed.iter().copied().chain(LONG_KEYS);
            if known.clone().any(|k| k.name == key.text) {
                keys.push((key, node));
            } else {
                self.unknown_key(key, &format!("`{}`", word.name), known);
            }
        }
        None
    }

    /// The entry that says what it is: the verb beside which all other keys may stand.
    fn main_verb(
        &mut self,
        node: &Node,
        entries: &[(NodeKey, Node)],
        words: &'static Words,
        common: &[Key],
    ) -> Option<(usize, &'static Word)> {
        let verbs: Vec<(usize, &Word)> = entries
            .iter()
            .enumerate()
            .filter_map(|(i, (k, _))| words.find(&k.text).map(|w| (i, w)))
            .collect();
        // Not `all`: a mistyped key must not make its verb another one.
        let fits = |(i, word): &(usize, &Word)| {
            entries.iter().enumerate().filter(|(j, _)| j != i).fold(0usize, |n, (_, (key, _))| {
                let known = word.beside.iter().any(|k| k.name == key.text);
                n + usize::from(known || common.iter().any(|k| k.name == key.text))
            })
        };
        if let Some(best) = verbs.iter().rev().max_by_key(|v| fits(v)) {
            return Some(*best);
        }
        self.no_verb(node, entries, words, common);
        None
    }

    fn no_verb(&mut self, node: &Node, entries: &[(NodeKey, Node)], words: &Words, common: &[Key]) {
        let other = entries.iter().find(|(k, _)| common.iter().all(|c| c.name != k.text));
        let Some((key, _)) = other else {
            let message = format!("this {} says nothing", words.noun);
            let help = "name what it does; docs/SCENARIOS.md lists everything";
            self.error("missing-key", node.span, message, help);
            return;
        };
        let names = || words.list.iter().map(|w| w.name.as_str());
        let near = nearest(&key.text, names());
        // `store` for `gpu.store` and the like is a slip that no edit distance finds.
        let tails = names().filter(|n| n.rsplit('.').next() == Some(&key.text));
        let tails: Vec<_> = tails.collect();
        let help = match (near, tails.as_slice()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, []) if words.list.len() > 24 => "docs/SCENARIOS.md lists them all".to_owned(),
            (None, []) => format!("there are {}", one_of(names())),
            (None, tails) => format!("did you mean {}?", one_of(tails.iter().copied())),
        };
        let message = format!("`{}` is no {}", key.text, words.noun);
        let diagnostic = Diagnostic::new("unknown-key", key.span, message, help);
        self.diags.push(diagnostic.label(format!("unknown {}", words.noun)));
    }
}
