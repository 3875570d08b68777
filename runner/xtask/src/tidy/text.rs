//! Rules for any text: characters, documents, licences.

use super::Finding;
use super::tree::{File, Tree};

/// Sources are ASCII.
pub(super) fn ascii(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| !file.path.ends_with(".hlog")) {
        for (n, line) in file.lines() {
            if let Some(c) = line.chars().find(|c| !c.is_ascii()) {
                let what = format!("the character {} is not ASCII", c.escape_unicode());
                findings.push(Finding::new(&file.path, n, what));
            }
        }
    }
    findings
}

/// No blanks at the end of a line, a newline at the end of a file.
pub(super) fn whitespace(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| !is_expected_output(file)) {
        for (n, line) in file.lines() {
            if line.ends_with([' ', '\t', '\r']) {
                findings.push(Finding::new(&file.path, n, "blanks at the end of the line"));
            }
        }
        if !file.text.is_empty() && !file.text.ends_with('\n') {
            findings.push(Finding::new(&file.path, 0, "no newline at its end"));
        }
    }
    findings
}

/// What a program printed, kept byte by byte.
fn is_expected_output(file: &File) -> bool {
    [".snap", ".stdout", ".stderr", ".txt", ".term.svg"].iter().any(|e| file.path.ends_with(e))
}

/// No path of somebody's machine is in the tree.
pub(super) fn foreign_paths(tree: &Tree) -> Vec<Finding> {
    // In parts, so that this file does not find itself.
    const PATHS: &[&str] = &[concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let mut findings = Vec::new();
    for file in &tree.files {
        for (n, line) in file.lines() {
            if let Some(path) = PATHS.iter().find(|path| line.contains(*path)) {
                findings.push(Finding::new(
                    &file.path,
                    n,
                    format!("{path} is a path of one machine"),
                ));
            }
        }
    }
    findings
}

/// A document has one title, at its top.
pub(super) fn one_title(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.ending(".md") {
        let titles = titles(file);
        if titles.first() != Some(&1) {
            findings.push(Finding::new(&file.path, 1, "does not begin with its title, `# ...`"));
        }
        for line in titles.into_iter().skip_while(|line| *line == 1) {
            findings.push(Finding::new(&file.path, line, "is a second title"));
        }
    }
    findings
}

/// The lines with a title, outside of blocks of code.
fn titles(file: &File) -> Vec<usize> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (n, line) in file.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code && line.starts_with("# ") {
            found.push(n);
        }
    }
    found
}

/// The licences that the manifests name are there.
pub(super) fn licences(tree: &Tree) -> Vec<Finding> {
    ["LICENSE-MIT", "LICENSE-APACHE"]
        .into_iter()
        .filter(|path| tree.get(path).is_none_or(|file| file.text.len() < 500))
        .map(|path| Finding::new(path, 0, "the licence is missing"))
        .collect()
}

/// Every folder of scenarios says what it is about.
pub(super) fn suite_readme(tree: &Tree) -> Vec<Finding> {
    let mut folders: Vec<&str> = tree
        .ending(".yaml")
        .filter_map(|file| file.path.strip_prefix("suites/"))
        .filter_map(|below| below.split_once('/').map(|(folder, _)| folder))
        .collect();
    folders.dedup();
    folders
        .into_iter()
        .map(|folder| format!("suites/{folder}/README.md"))
        .filter(|readme| tree.get(readme).is_none())
        .map(|readme| Finding::new(&readme, 0, "is missing: say what the suite covers"))
        .collect()
}
