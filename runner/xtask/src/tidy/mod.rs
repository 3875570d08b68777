//! `cargo xtask tidy`: the rules of the tree that no other tool checks.
//!
//! Owns the list of rules; each is a function from the tree to its findings and is broken once by
//! [`tests`]. Rules that rustc, clippy or rustfmt can check are left to them. The design's
//! invariants, with their reasons, stand in docs/ARCHITECTURE.md.

mod generated;
mod manifest;
mod rust;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use std::fmt;
use std::path::Path;

use crate::Findings;
use tree::Tree;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    /// From 1; 0 for the file as a whole.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// A rule: its name and its check.
type Rule = (&'static str, fn(&Tree) -> Vec<Finding>);

/// Every rule.
const RULES: &[Rule] = &[
    ("engine-independent", manifest::engine_independent),
    ("dependency-reasons", manifest::dependency_reasons),
    ("workspace-manifests", manifest::workspace_manifests),
    ("core-world", rust::core_world),
    ("unsafe-fence", rust::unsafe_fence),
    ("safety-comments", rust::safety_comments),
    ("file-length", rust::file_length),
    ("first-line", rust::first_line),
    ("lint-reasons", rust::lint_reasons),
    ("leftovers", rust::leftovers),
    ("ascii", text::ascii),
    ("whitespace", text::whitespace),
    ("foreign-paths", text::foreign_paths),
    ("one-title", text::one_title),
    ("licences", text::licences),
    ("suite-readme", text::suite_readme),
];

/// The task: every finding of every rule.
pub(crate) fn task(root: &Path) -> Result<String, Findings> {
    let tree = Tree::read(root).map_err(|e| vec![e])?;
    let mut findings: Findings = RULES
        .iter()
        .flat_map(|(name, check)| check(&tree).into_iter().map(move |f| format!("{f} [{name}]")))
        .collect();
    findings.extend(generated::stale(root));
    if findings.is_empty() {
        Ok(format!("tidy: {} files keep {} rules", tree.files.len(), RULES.len() + 1))
    } else {
        Err(findings)
    }
}
