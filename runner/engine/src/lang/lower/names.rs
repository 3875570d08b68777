//! Names of one variant: what declares them, what uses them, which uses mean nothing.

use super::super::ast::Span;
use super::super::diag::Diagnostic;
use super::super::params::suggestion;
use std::collections::BTreeSet;

/// Kinds of named things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Client,
    Vm,
    Memory,
    Queue,
    Syncobj,
    Barrier,
    Actor,
    Fd,
    Job,
    Result,
}

impl Kind {
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Kind::Client => "client",
            Kind::Vm => "VM",
            Kind::Memory => "memory",
            Kind::Queue => "queue",
            Kind::Syncobj => "syncobj",
            Kind::Barrier => "barrier",
            Kind::Actor => "actor",
            Kind::Fd => "fd",
            Kind::Job => "job",
            Kind::Result => "result",
        }
    }

    /// With its article.
    pub(crate) fn a(self) -> &'static str {
        match self {
            Kind::Memory => "memory",
            Kind::Client => "a client",
            Kind::Vm => "a VM",
            Kind::Queue => "a queue",
            Kind::Syncobj => "a syncobj",
            Kind::Barrier => "a barrier",
            Kind::Actor => "an actor",
            Kind::Fd => "an fd",
            Kind::Job => "a job",
            Kind::Result => "a result",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Kind::Client => "clients",
            Kind::Vm => "VMs",
            Kind::Memory => "memory there is",
            Kind::Queue => "queues",
            Kind::Syncobj => "syncobjs",
            Kind::Barrier => "barriers",
            Kind::Actor => "actors",
            Kind::Fd => "fds",
            Kind::Job => "jobs",
            Kind::Result => "results",
        }
    }

    fn declare(self) -> &'static str {
        match self {
            Kind::Client => "declare it under `clients:`",
            Kind::Vm => "declare it under `vms:`",
            Kind::Memory => "declare it under `memory:`",
            Kind::Queue => "declare it under `queues:`",
            Kind::Syncobj => "declare it under `syncobjs:`",
            Kind::Barrier => "declare it under `barriers:`",
            Kind::Actor => "declare it under `actors:`",
            Kind::Fd => "name it by `export: OBJECT, as: NAME`",
            Kind::Job => "name a submission by `submit: [ ... ], as: NAME`",
            Kind::Result => "name a read by `as: NAME`, an index by `repeat: N, as: NAME`",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Names {
    declared: Vec<(Kind, String, Span)>,
    /// A use may be of several kinds (`destroy: x`).
    uses: Vec<(&'static [Kind], String, Span)>,
    /// Fds with the kind of what they were exported from.
    exports: Vec<(String, Kind)>,
}

impl Names {
    /// Declares; gives the place of an earlier declaration of the same name that clashes.
    pub(super) fn declare(&mut self, kind: Kind, name: &str, span: Span) -> Option<(Kind, Span)> {
        let clash = self.declared.iter().find(|(k, n, _)| n == name && clash(*k, kind));
        let clash = clash.map(|(k, _, s)| (*k, *s));
        self.declared.push((kind, name.to_owned(), span));
        clash
    }

    pub(super) fn is(&self, kind: Kind, name: &str) -> bool {
        self.declared.iter().any(|(k, n, _)| *k == kind && n == name)
    }

    pub(super) fn kind_of(&self, kinds: &[Kind], name: &str) -> Option<Kind> {
        let found = self.declared.iter().find(|(k, n, _)| n == name && kinds.contains(k));
        found.map(|(k, ..)| *k)
    }

    pub(super) fn use_of(&mut self, kinds: &'static [Kind], name: &str, span: Span) {
        self.uses.push((kinds, name.to_owned(), span));
    }

    pub(super) fn note_export(&mut self, fd: &str, kind: Kind) {
        self.exports.push((fd.to_owned(), kind));
    }

    pub(super) fn export_kind(&self, fd: &str) -> Option<Kind> {
        self.exports.iter().find(|(n, _)| n == fd).map(|(_, k)| *k)
    }

    pub(super) fn uses_of(&self, kind: Kind) -> Vec<(String, Span)> {
        let uses = self.uses.iter().filter(|(kinds, ..)| kinds.contains(&kind));
        uses.map(|(_, name, span)| (name.clone(), *span)).collect()
    }

    /// How many uses there are; [`Names::forget_since`] takes back those that came later.
    pub(super) fn mark(&self) -> usize {
        self.uses.len()
    }

    pub(super) fn forget_since(&mut self, mark: usize) {
        self.uses.truncate(mark);
    }

    pub(super) fn declared(&self) -> Vec<(Kind, String, Span)> {
        self.declared.clone()
    }

    pub(super) fn used(&self) -> BTreeSet<(Kind, String)> {
        let kind = |(kinds, name, _): &(&'static [Kind], String, Span)| {
            self.kind_of(kinds, name).map(|kind| (kind, name.clone()))
        };
        self.uses.iter().filter_map(kind).collect()
    }

    /// Reports uses of names that nothing declares.
    pub(super) fn resolve(&self, diags: &mut Vec<Diagnostic>) {
        for (kinds, name, span) in &self.uses {
            if self.kind_of(kinds, name).is_some() {
                continue;
            }
            let nouns: Vec<_> = kinds.iter().map(|k| k.noun()).collect();
            let message = match nouns.as_slice() {
                [one] => format!("no {one} is called `{name}`"),
                several => format!("nothing is called `{name}` ({} could be)", several.join(", ")),
            };
            let known = self.declared.iter().filter(|(k, ..)| kinds.contains(k));
            let known: Vec<&str> = known.map(|(_, n, _)| n.as_str()).collect();
            let help = match self.declared.iter().find(|(_, n, _)| n == name) {
                Some((other, ..)) => format!("`{name}` is {}", other.a()),
                None if known.is_empty() => kinds[0].declare().to_owned(),
                None => {
                    let near = suggestion(name, known.iter().copied(), kinds[0].plural());
                    if near.starts_with("did") {
                        near
                    } else {
                        format!("{near}; or {}", kinds[0].declare())
                    }
                }
            };
            diags.push(Diagnostic::new("unknown-name", *span, message, help));
        }
    }
}

/// Names that stand in the same places must differ; jobs, results and fds may be named again by
/// another actor or in another branch.
fn clash(a: Kind, b: Kind) -> bool {
    const OBJECTS: &[Kind] = &[Kind::Vm, Kind::Memory, Kind::Queue, Kind::Syncobj, Kind::Fd];
    let again = matches!(a, Kind::Job | Kind::Result | Kind::Fd);
    (a == b && !again)
        || (a != b && OBJECTS.contains(&a) && OBJECTS.contains(&b))
        || matches!((a, b), (Kind::Memory, Kind::Result) | (Kind::Result, Kind::Memory))
}
