//! Rules for Rust sources.

use std::sync::LazyLock;

use regex::Regex;

use super::Finding;
use super::tree::{File, Tree};

/// Longest file in lines.
const MAX_LINES: usize = 800;

/// Files that may be longer, as they are one table.
const TABLES: &[&str] = &["reference-driver/uapi/src/fencepost.rs"];

/// Where unsafe code may stand.
const UNSAFE_PLACES: &[&str] = &[
    "fixtures/src/sys.rs",
    "fixtures/src/sys/",
    "reference-driver/host/src/live/",
    "reference-driver/linux/",
];

/// Core's sources, and the module through which alone it reaches memory and locks.
const CORE: &str = "reference-driver/core/src/";
const FACADE: &str = "reference-driver/core/src/facade/";

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a constant")
}

/// A line without its comment and without the text of its strings: what the compiler sees. Good
/// enough for the forms that rustfmt leaves; a raw string over several lines is taken as code.
fn code(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut in_string = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                chars.next();
            }
            '\'' if !in_string => {
                // A character literal, or a lifetime, which has no second tick.
                let rest: String = chars.clone().take(3).collect();
                let literal = rest.starts_with("\\") || rest.chars().nth(1) == Some('\'');
                if literal {
                    while let Some(c) = chars.next() {
                        match c {
                            '\\' => {
                                chars.next();
                            }
                            '\'' => break,
                            _ => {}
                        }
                    }
                }
            }
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            _ if in_string => {}
            _ => out.push(c),
        }
    }
    out
}

/// The line begins what only tests compile.
fn is_gate(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test")
}

/// The file is a module that some module of the tree declares for tests only.
fn is_gated(tree: &Tree, file: &File) -> bool {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let declaration = format!("mod {};", name.trim_end_matches(".rs"));
    let declares = |parent: &File| {
        let mut previous = "";
        parent.text.lines().any(|line| {
            let gated = is_gate(previous) && line.ends_with(&declaration);
            previous = line;
            gated
        })
    };
    tree.files
        .iter()
        .filter(|f| f.path.rsplit_once('/').is_some_and(|(of, _)| of == folder))
        .any(declares)
}

/// What is compiled not for tests alone: nothing of files of tests, and of others what stands
/// before `#[cfg(test)]`, as tests stand at the end.
fn without_tests<'a>(tree: &Tree, file: &'a File) -> impl Iterator<Item = (usize, &'a str)> {
    let named_so = file.path.contains("/tests/") || file.path.ends_with("/tests.rs");
    // A declaration `#[cfg(test)] mod x;` at the top ends nothing.
    let lines: Vec<&str> = file.text.lines().collect();
    let begins_tests = |n: usize| {
        let next = lines.get(n).copied().unwrap_or("");
        is_gate(lines[n - 1]) && !next.trim_end().ends_with(';')
    };
    let end = if named_so || is_gated(tree, file) {
        0
    } else {
        (1..=lines.len()).find(|n| begins_tests(*n)).unwrap_or(usize::MAX)
    };
    file.lines().take_while(move |(n, _)| *n < end)
}

/// Core sees memory, locks and atomics through its facade only, and nothing of std's world.
pub(super) fn core_world(tree: &Tree) -> Vec<Finding> {
    static WORLD: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"\b(std|alloc)::|extern crate|\bunsafe\b|macro_use.*std"));
    let mut findings = Vec::new();
    for file in tree.ending(".rs").filter(|f| f.path.starts_with(CORE)) {
        if file.path.starts_with(FACADE) {
            continue;
        }
        for (n, line) in without_tests(tree, file) {
            if let Some(found) = WORLD.find(&code(line)) {
                let what = format!("`{}` in core, outside its facade", found.as_str());
                findings.push(Finding::new(&file.path, n, what));
            }
        }
    }
    findings
}

/// Unsafe code stands in few places, each of which says why at its top.
pub(super) fn unsafe_fence(tree: &Tree) -> Vec<Finding> {
    static UNSAFE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bunsafe\b"));
    let mut findings = Vec::new();
    for file in tree.ending(".rs") {
        let Some((n, _)) = file.lines().find(|(_, line)| UNSAFE.is_match(&code(line))) else {
            continue;
        };
        if !UNSAFE_PLACES.iter().any(|place| file.path.starts_with(place)) {
            findings.push(Finding::new(&file.path, n, "unsafe code outside the places for it"));
        } else if !has_reason(tree, file) {
            let what = "unsafe code, but no #![expect(unsafe_code, reason = ...)] at the top";
            findings.push(Finding::new(&file.path, n, what));
        }
    }
    findings
}

/// The file, or a module that it is in, has `#![expect(unsafe_code, reason = "...")]`.
fn has_reason(tree: &Tree, file: &File) -> bool {
    let says_why = |file: &File| {
        let squeezed: String = file.text.chars().filter(|c| !c.is_whitespace()).collect();
        squeezed.contains("#![expect(unsafe_code,reason=\"")
    };
    let mut folders = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
    says_why(file)
        || folders.any(|folder| tree.get(&format!("{folder}/mod.rs")).is_some_and(says_why))
}

/// Each unsafe block and impl has a comment above it that says why it is sound.
pub(super) fn safety_comments(tree: &Tree) -> Vec<Finding> {
    static BLOCK: LazyLock<Regex> = LazyLock::new(|| pattern(r"\bunsafe\s*(\{|impl\b)"));
    let mut findings = Vec::new();
    for file in tree.ending(".rs") {
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if BLOCK.is_match(&code(line)) && !explained(&lines[..at]) {
                let what = "an unsafe block without a SAFETY comment above it";
                findings.push(Finding::new(&file.path, at + 1, what));
            }
        }
    }
    findings
}

/// A SAFETY comment stands above, within the statement or right before it.
fn explained(above: &[&str]) -> bool {
    for line in above.iter().rev().take(12) {
        let line = line.trim();
        if line.starts_with("// SAFETY:") {
            return true;
        }
        let ends_statement = line.ends_with(';') || line.ends_with('}') || line.is_empty();
        if ends_statement && !line.starts_with("//") {
            return false;
        }
    }
    false
}

/// No file is too long to be read.
pub(super) fn file_length(tree: &Tree) -> Vec<Finding> {
    let long = |file: &&File| {
        !TABLES.contains(&file.path.as_str()) && file.text.lines().count() > MAX_LINES
    };
    tree.ending(".rs")
        .filter(long)
        .map(|file| {
            let lines = file.text.lines().count();
            Finding::new(&file.path, 0, format!("{lines} lines, more than {MAX_LINES}"))
        })
        .collect()
}

/// Each file begins by saying what it owns.
pub(super) fn first_line(tree: &Tree) -> Vec<Finding> {
    tree.ending(".rs")
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| {
            Finding::new(&file.path, 1, "the first line is not `//! ` and what the file owns")
        })
        .collect()
}

/// A lint is expected with a reason, never allowed.
pub(super) fn lint_reasons(tree: &Tree) -> Vec<Finding> {
    static ALLOW: LazyLock<Regex> = LazyLock::new(|| pattern(r"#!?\[(cfg_attr\(.*)?allow\("));
    static EXPECT: LazyLock<Regex> = LazyLock::new(|| pattern(r"#!?\[(cfg_attr\(.*)?expect\("));
    let mut findings = Vec::new();
    for file in tree.ending(".rs") {
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let seen = code(line);
            if ALLOW.is_match(&seen) {
                findings.push(Finding::new(&file.path, at + 1, "allow; take expect with a reason"));
            }
            let near = lines[at..lines.len().min(at + 5)].join(" ");
            if EXPECT.is_match(&seen) && !near.contains("reason") {
                findings.push(Finding::new(&file.path, at + 1, "expect without a reason"));
            }
        }
    }
    findings
}

/// Nothing is left open.
pub(super) fn leftovers(tree: &Tree) -> Vec<Finding> {
    // In parts, so that this file does not find itself.
    const MARKS: &[&str] = &[
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
        concat!("#[ign", "ore"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
    ];
    let mut findings = Vec::new();
    let sources = [".rs", ".md", ".yaml", ".toml", ".sh", ".c", ".h", ".ci/run"];
    for file in tree.files.iter().filter(|f| sources.iter().any(|end| f.path.ends_with(end))) {
        for (n, line) in file.lines() {
            if let Some(mark) = MARKS.iter().find(|mark| line.contains(*mark)) {
                findings.push(Finding::new(&file.path, n, format!("{mark} is left")));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_is_neither_comment_nor_string() {
        for (line, seen) in [
            ("let a = 1; // unsafe", "let a = 1; "),
            ("say(\"unsafe std::\", x)", "say(, x)"),
            ("fn f<'a>(x: &'a str)", "fn f<a>(x: &a str)"),
            (r"match c { '\'' => 1, '/' => 2 }", "match c {  => 1,  => 2 }"),
            ("/// std::x", ""),
        ] {
            assert_eq!(code(line), seen, "{line}");
        }
    }
}
