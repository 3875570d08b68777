//! Which tests a filter means, and what was probably meant by one that means none.
//!
//! Owns the syntax of filters: a leading part of a name up to an `@` or its end, a glob over the
//! whole name, or a regular expression between slashes that is searched in it. `igt@` in front is
//! dropped. Knows names only.

use std::fmt;

use globset::{Glob, GlobMatcher};
use regex::Regex;

/// A compiled filter.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    text: String,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Leading(String),
    Glob(Box<GlobMatcher>),
    Regex(Regex),
}

impl Filter {
    /// Compiles a filter.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("igt@").unwrap_or(text);
        let rule = if let Some(pattern) = between_slashes(name) {
            Rule::Regex(Regex::new(pattern).map_err(|e| format!("filter {text}: {e}"))?)
        } else if name.contains(['*', '?', '[', '{']) {
            let glob = Glob::new(name).map_err(|e| format!("filter {text}: {}", e.kind()))?;
            Rule::Glob(Box::new(glob.compile_matcher()))
        } else {
            Rule::Leading(name.to_owned())
        };
        Ok(Self { text: text.to_owned(), rule })
    }

    /// The filter means the test of that name.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match &self.rule {
            Rule::Leading(part) => name
                .strip_prefix(part.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('@')),
            Rule::Glob(glob) => glob.is_match(name),
            Rule::Regex(regex) => regex.is_match(name),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn between_slashes(text: &str) -> Option<&str> {
    text.strip_prefix('/')?.strip_suffix('/').filter(|pattern| !pattern.is_empty())
}

/// Names near a filter that matches nothing, the nearest first, at most three. Compared is as much
/// of each name as the filter has parts, so that a misspelt suite finds the suite.
pub(crate) fn nearest(filter: &str, names: &[&str]) -> Vec<String> {
    let filter = filter.strip_prefix("igt@").unwrap_or(filter);
    let parts = filter.split('@').count();
    let mut scored: Vec<(usize, &str)> = names
        .iter()
        .map(|name| leading(name, parts))
        .map(|name| (distance(filter, name), name))
        .collect();
    scored.sort_unstable();
    scored.dedup();
    let limit = (filter.chars().count() / 2).max(3);
    scored.into_iter().filter(|(d, _)| *d <= limit).take(3).map(|(_, n)| n.to_owned()).collect()
}

/// The first `parts` parts of a name.
fn leading(name: &str, parts: usize) -> &str {
    name.match_indices('@').nth(parts - 1).map_or(name, |(at, _)| &name[..at])
}

/// Number of characters to insert, delete or replace to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = [
        "vm-bind@split@kind=vram,pages=1",
        "vm-bind@split@kind=system,pages=512",
        "vm-bind@split-many",
        "sync@timeline@points=3",
        "abi@vm-bind@flags",
    ];

    fn matched(filter: &str) -> Vec<usize> {
        let filter = Filter::new(filter).expect("compiles");
        (0..NAMES.len()).filter(|i| filter.matches(NAMES[*i])).collect()
    }

    #[test]
    fn filters_select_by_part_glob_and_expression() {
        let table: &[(&str, &[usize])] = &[
            ("vm-bind", &[0, 1, 2]),
            ("igt@vm-bind", &[0, 1, 2]),
            ("vm-bind@split", &[0, 1]),
            ("vm-bind@split@kind=vram,pages=1", &[0]),
            ("vm-b", &[]),
            ("split", &[]),
            ("*", &[0, 1, 2, 3, 4]),
            ("*@split*", &[0, 1, 2]),
            ("vm-bind@*pages=512", &[1]),
            ("*@kind={vram,none}*", &[0]),
            ("/(pages|points)=[13]$/", &[0, 3]),
            ("/^vm-bind/", &[0, 1, 2]),
            ("igt@/vm-bind/", &[0, 1, 2, 4]),
            ("", &[]),
        ];
        for (filter, expected) in table {
            assert_eq!(matched(filter), *expected, "{filter}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["/(/", "vm[", "{a"] {
            assert!(Filter::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nearest_names_have_as_many_parts() {
        let table: &[(&str, &[&str])] = &[
            ("vm-bnd", &["vm-bind"]),
            ("synch", &["sync"]),
            ("vm-bind@spilt", &["vm-bind@split"]),
            ("vm-bind@split-mny", &["vm-bind@split-many", "vm-bind@split"]),
            ("sync@timelin@points=3", &["sync@timeline@points=3"]),
            ("zzzzzzzz", &[]),
        ];
        for (filter, expected) in table {
            assert_eq!(nearest(filter, &NAMES), *expected, "{filter}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, d) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)] {
            assert_eq!(distance(a, b), d, "{a} {b}");
            assert_eq!(distance(b, a), d, "{b} {a}");
        }
    }
}
