//! Rules for Cargo manifests.

use super::Finding;
use super::tree::{File, Tree};

/// The engine must not be able to borrow the driver's logic for its oracle.
const ENGINE: &str = "runner/engine/Cargo.toml";
const FORBIDDEN_TO_ENGINE: &[&str] = &["fencepost-core", "fencepost-host"];

pub(super) fn engine_independent(tree: &Tree) -> Vec<Finding> {
    let Some(manifest) = tree.get(ENGINE) else {
        return vec![Finding::new(ENGINE, 0, "is missing")];
    };
    let mut findings = Vec::new();
    for (n, line) in manifest.lines() {
        for name in FORBIDDEN_TO_ENGINE {
            if line.contains(name) {
                let what =
                    format!("the engine may not depend on {name}: its oracle is independent");
                findings.push(Finding::new(ENGINE, n, what));
            }
        }
    }
    findings
}

/// Lines of the tables of dependencies, with the line's number.
fn dependency_lines(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    file.lines().filter(move |(_, line)| {
        if line.starts_with('[') {
            inside = line.trim_end().ends_with("dependencies]");
            return false;
        }
        inside && line.contains('=') && !line.trim_start().starts_with('#')
    })
}

/// Each outside dependency says what it is for.
pub(super) fn dependency_reasons(tree: &Tree) -> Vec<Finding> {
    let Some(manifest) = tree.get("Cargo.toml") else {
        return vec![Finding::new("Cargo.toml", 0, "is missing")];
    };
    dependency_lines(manifest)
        .filter(|(_, line)| !line.contains("path = \"") && !line.contains(" # "))
        .map(|(n, line)| {
            let name = line.split('=').next().unwrap_or("").trim();
            Finding::new("Cargo.toml", n, format!("{name} has no comment that says what it is for"))
        })
        .collect()
}

/// Members take versions, lints and licence from the workspace.
pub(super) fn workspace_manifests(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.ending("/Cargo.toml") {
        for (n, line) in dependency_lines(file) {
            if !line.contains("workspace = true") {
                let what = "the version is not the workspace's: take `workspace = true`";
                findings.push(Finding::new(&file.path, n, what));
            }
        }
        if !file.text.contains("[lints]\nworkspace = true") {
            findings.push(Finding::new(&file.path, 0, "does not take the workspace's lints"));
        }
        if !file.text.contains("license.workspace = true") {
            findings.push(Finding::new(&file.path, 0, "does not take the workspace's licence"));
        }
    }
    findings
}
