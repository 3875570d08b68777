//! Diagnostics of scenario files: every mistake of a file with its place, an excerpt and what to
//! write instead. Owns collecting, ordering and rendering; the mistakes are found elsewhere.

use super::ast::Span;
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its class, stable and greppable: `unknown-key`, `wrong-type`, ...
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// Where.
    pub span: Span,
    /// Words under the marked place.
    pub label: String,
    /// What to write instead.
    pub help: String,
    /// Another place that belongs to it (first definition, the other access).
    pub other: Option<(Span, String)>,
    /// The variant in which it shows, when not in all.
    pub variant: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without the optional parts.
    pub fn new(
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Diagnostic {
            code,
            message: message.into(),
            span,
            label: String::new(),
            help: help.into(),
            other: None,
            variant: None,
        }
    }

    /// Adds words under the marked place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn other(mut self, span: Span, label: impl Into<String>) -> Self {
        self.other = Some((span, label.into()));
        self
    }
}

/// All mistakes of a file in the order of their places; never empty as an error value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// The file's name as it was given.
    pub file: String,
    /// The file's text.
    pub text: Arc<str>,
    /// The mistakes.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Line and column (in characters) of a byte offset, both counted from 1.
    #[must_use]
    pub fn line_column(&self, offset: u32) -> (usize, usize) {
        line_column(&self.text, offset as usize)
    }

    /// The report as in rustc: title, excerpt, help, for each mistake. `color` for a terminal.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let mut out = String::new();
        for diagnostic in &self.list {
            out.push_str(&self.render_one(diagnostic, &renderer));
            out.push_str("\n\n");
        }
        let count = self.list.len();
        let noun = if count == 1 { "error" } else { "errors" };
        out.push_str(&format!("{}: {count} {noun}\n", self.file));
        out
    }

    fn render_one(&self, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
        let mut snippet = Snippet::source(&*self.text).path(self.file.as_str());
        let mut primary = AnnotationKind::Primary.span(self.range(diagnostic.span));
        if !diagnostic.label.is_empty() {
            primary = primary.label(diagnostic.label.as_str());
        }
        snippet = snippet.annotation(primary);
        if let Some((span, label)) = &diagnostic.other {
            let context = AnnotationKind::Context.span(self.range(*span)).label(label.as_str());
            snippet = snippet.annotation(context);
        }
        let title = Level::ERROR.primary_title(diagnostic.message.as_str()).id(diagnostic.code);
        let mut group = title.element(snippet);
        if let Some(variant) = &diagnostic.variant {
            group = group.element(Level::NOTE.message(format!("in variant {variant}")));
        }
        if !diagnostic.help.is_empty() {
            group = group.element(Level::HELP.message(diagnostic.help.as_str()));
        }
        renderer.render(&[group])
    }

    /// A range inside the text on character boundaries, one line at most: a marked block of many
    /// lines hides what is wrong with it.
    fn range(&self, span: Span) -> Range<usize> {
        let floor = |mut at: usize| {
            at = at.min(self.text.len());
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let start = floor(span.start as usize);
        let end = floor(span.end as usize).max(start);
        let line = self.text[start..end].find('\n').map_or(end, |at| start + at);
        let trimmed = self.text[start..line].trim_end().len();
        start..start + trimmed
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Line and column (in characters) of a byte offset, both counted from 1.
#[must_use]
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let mut at = offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// The word of `known` nearest to `word`, if it is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Words of one or two letters are near to everything.
    let limit = match word.chars().count() {
        0..=2 => 0,
        length => (length / 3).max(1),
    };
    let distance = |k: &str| edit_distance(word, k);
    let best = known.into_iter().map(|k| (distance(k), k)).min_by_key(|(d, _)| *d)?;
    (best.0 <= limit).then_some(best.1)
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Long words are nobody's typo, and the table is quadratic.
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// "`a`, `b` or `c`".
#[must_use]
pub fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().map(|w| format!("`{w}`")).collect();
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["memory", "actors", "expect", "evidence"];
        assert_eq!(nearest("memroy", known), Some("memory"));
        assert_eq!(nearest("evidense", known), Some("evidence"));
        assert_eq!(nearest("queues", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("b", ["a"]), None);
    }

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        assert_eq!(line_column("ab\nc\u{e9}d", 0), (1, 1));
        assert_eq!(line_column("ab\nc\u{e9}d", 6), (2, 3));
        assert_eq!(line_column("ab", 99), (1, 3));
    }

    #[test]
    fn lists_read_as_english() {
        assert_eq!(one_of([]), "nothing");
        assert_eq!(one_of(["a"]), "`a`");
        assert_eq!(one_of(["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
