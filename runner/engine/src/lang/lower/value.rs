//! Values: words, numbers, times, expressions, places, checks, with an error for each wrong one.

use super::super::ast::Span;
use super::super::diag::Diagnostic;
use super::super::expect::{Bound, Check};
use super::super::expr::{EvalError, Expr, Op};
use super::super::expr_parse::{self, ExprError};
use super::super::params::{check_name, suggestion};
use super::super::step::{Compare, Place};
use super::super::yaml::{Node, NodeKind, Scalar};
use super::{Kind, Lower};
use std::time::Duration;

/// Stands for an expression that was reported already; never reaches a test that runs.
pub(super) const POISON: &str = "?";

pub(super) fn poison() -> Expr {
    Expr::Var(POISON.to_owned())
}

impl Lower<'_> {
    /// Text of a scalar; anything else is reported.
    pub(super) fn word_text(&mut self, node: &Node, wanted: &str) -> Option<String> {
        match &node.kind {
            NodeKind::Scalar(scalar) => Some(scalar.text.clone()),
            _ => {
                self.wrong(node, wanted, format!("write {wanted} here"));
                None
            }
        }
    }

    /// One of some words; its index.
    pub(super) fn one_of(&mut self, node: &Node, words: &[&str]) -> Option<usize> {
        let text = match &node.kind {
            NodeKind::Null if words.contains(&"none") => "none".to_owned(),
            _ => self.word_text(node, &super::super::diag::one_of(words.iter().copied()))?,
        };
        let found = words.iter().position(|w| *w == text);
        if found.is_none() {
            let message = format!("`{text}` is none of the words that can stand here");
            let help = suggestion(&text, words.iter().copied(), "words");
            self.error("unknown-name", node.span, message, help);
        }
        found
    }

    /// `true` or `false`; YAML 1.1's other spellings are not taken.
    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match &node.kind {
            NodeKind::Scalar(Scalar { text, quoted: false, .. }) if text == "true" => Some(true),
            NodeKind::Scalar(Scalar { text, quoted: false, .. }) if text == "false" => Some(false),
            _ => {
                let lower = node.text().map(str::to_ascii_lowercase).unwrap_or_default();
                let help = match lower.as_str() {
                    "yes" | "on" | "y" | "1" | "true" => "write `true`",
                    "no" | "off" | "n" | "0" | "false" => "write `false`",
                    _ => "write `true` or `false`",
                };
                self.wrong(node, "`true` or `false`", help);
                None
            }
        }
    }

    pub(super) fn flag(&mut self, node: Option<&Node>, default: bool) -> bool {
        node.and_then(|n| self.boolean(n)).unwrap_or(default)
    }

    /// `10ms`, `2s`, `500us`, `1m`.
    pub(super) fn time(&mut self, node: &Node) -> Option<Duration> {
        let text = self.word_text(node, "a time such as `10ms`")?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let unit = match &text[digits..] {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            _ => 0,
        };
        let nanos = text[..digits].parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
        match nanos {
            Some(nanos) if unit != 0 && nanos <= 3_600_000_000_000 => {
                Some(Duration::from_nanos(nanos))
            }
            _ => {
                let help = "write a number and `ns`, `us`, `ms`, `s` or `m`, one hour at most";
                self.error("wrong-type", node.span, format!("`{text}` is no time"), help);
                None
            }
        }
    }

    /// The items of a list, or the value itself; nothing for an empty value.
    pub(super) fn list<'n>(&mut self, node: &'n Node) -> &'n [Node] {
        match &node.kind {
            NodeKind::Null => &[],
            _ => super::super::params::items(node),
        }
    }

    /// Entries of a mapping from names.
    pub(super) fn entries<'n>(
        &mut self,
        node: &'n Node,
        wanted: &str,
    ) -> &'n [(super::super::yaml::Key, Node)] {
        match &node.kind {
            NodeKind::Map(entries) => entries,
            NodeKind::Null => &[],
            _ => {
                self.wrong(node, wanted, "write `{ name: value }`");
                &[]
            }
        }
    }

    /// A constant number from 1 to `max`.
    pub(super) fn count(&mut self, node: &Node, what: &str, max: u32) -> Option<u32> {
        let value = self.number(node)?;
        match u32::try_from(value) {
            Ok(n) if (1..=max).contains(&n) => Some(n),
            _ => {
                let message = format!("{what} cannot be {value}");
                self.error("impossible", node.span, message, format!("write 1 to {max}"));
                None
            }
        }
    }

    /// An expression that must be constant.
    pub(super) fn number(&mut self, node: &Node) -> Option<u64> {
        let mark = self.names.mark();
        let expr = self.expr(node);
        let constant = expr.constant();
        if constant.is_none() && !mentions(&expr, POISON) {
            // Its names are no news then.
            self.names.forget_since(mark);
            let help = "use numbers, parameters, `page`, `base` and `unit` only";
            self.error("wrong-type", node.span, "this must be known before the run", help);
        }
        constant
    }

    /// An expression, folded, its names checked.
    pub(super) fn expr(&mut self, node: &Node) -> Expr {
        let Some(text) = self.word_text(node, "a number or an expression") else { return poison() };
        let offset = 0;
        self.expr_in(node, &text, offset)
    }

    /// An expression that is part of a scalar, from byte `offset` on.
    pub(super) fn expr_in(&mut self, node: &Node, text: &str, offset: usize) -> Expr {
        let Some(expr) = self.raw_expr(node, text, offset) else { return poison() };
        self.finish_expr(expr, self.part(node, offset, offset + text.len()))
    }

    /// An expression as written.
    pub(super) fn raw_expr(&mut self, node: &Node, text: &str, offset: usize) -> Option<Expr> {
        match expr_parse::parse(text) {
            Ok(expr) => Some(expr),
            Err(ExprError { start, end, message, help }) => {
                let span = self.part(node, offset + start, offset + end);
                self.error("expression", span, message, help);
                None
            }
        }
    }

    /// Folds an expression and checks its names.
    pub(super) fn finish_expr(&mut self, expr: Expr, span: Span) -> Expr {
        let (base, unit, va_end) = (self.base, self.unit, self.va_end);
        let constant = |name: &str| match name {
            "page" => Some(4096),
            "max" => Some(u64::MAX),
            "base" => base,
            "unit" => unit,
            "va_end" => va_end,
            _ => None,
        };
        match expr_parse::fold(expr, &constant) {
            Ok(expr) => {
                self.check_names(&expr, span);
                expr
            }
            Err(error) => {
                let help = match error {
                    EvalError::DivideByZero => "divide by something else",
                    _ => "results are whole numbers without sign, of 64 bits; `max` is the largest",
                };
                self.error(
                    "impossible",
                    span,
                    format!("this expression has no value: {error}"),
                    help,
                );
                poison()
            }
        }
    }

    fn check_names(&mut self, expr: &Expr, span: Span) {
        let mut names = Vec::new();
        let mut memory = Vec::new();
        expr.visit(&mut |e| match e {
            Expr::Var(name) => names.push(name.clone()),
            Expr::Content(name, _) => memory.push(name.clone()),
            _ => {}
        });
        for name in memory {
            self.names.use_of(&[Kind::Memory], &name, span);
        }
        for name in names {
            match name.as_str() {
                POISON | "va_end" | "copy" | "base" | "unit" => {}
                _ if self.indices.contains(&name) => {}
                _ if self.names.is(Kind::Memory, &name) => {
                    let message = format!("`{name}` is memory, not a number");
                    let help = format!("write `{name}@0` for the word that it holds at offset 0");
                    self.error("wrong-type", span, message, help);
                }
                _ => self.names.use_of(&[Kind::Result], &name, span),
            }
        }
    }

    /// Place of bytes `start..end` of a scalar's text.
    pub(super) fn part(&self, node: &Node, start: usize, end: usize) -> Span {
        match &node.kind {
            NodeKind::Scalar(Scalar { exact: true, .. }) => {
                let at = |n: usize| node.span.start.saturating_add(u32::try_from(n).unwrap_or(0));
                Span { start: at(start).min(node.span.end), end: at(end).min(node.span.end) }
            }
            _ => node.span,
        }
    }

    /// A name of one of these kinds.
    pub(super) fn name_ref(&mut self, node: &Node, kinds: &'static [Kind]) -> Option<String> {
        let name = self.word_text(node, &format!("the name of {}", kinds[0].a()))?;
        self.names.use_of(kinds, &name, node.span);
        Some(name)
    }

    /// A new name.
    pub(super) fn new_name(&mut self, node: &Node, kind: Kind) -> Option<String> {
        let name = self.word_text(node, "a name")?;
        self.declare(kind, &name, node.span);
        Some(name)
    }

    pub(super) fn declare(&mut self, kind: Kind, name: &str, span: Span) {
        check_name(name, span, kind.noun(), &mut self.diags);
        if let Some((other, first)) = self.names.declare(kind, name, span) {
            let message = format!("`{name}` is the name of {} already", other.a());
            let diagnostic =
                Diagnostic::new("duplicate-name", span, message, "give one of them another name");
            self.diags.push(diagnostic.other(first, "first declared here"));
        }
    }

    /// A place: `a`, `a + 8*i`, or a GPU address.
    pub(super) fn place(&mut self, node: &Node) -> Option<Place> {
        let text = self.word_text(node, "a place such as `a+8`")?;
        let expr = self.raw_expr(node, &text, 0)?;
        Some(self.place_of(expr, self.part(node, 0, text.len())))
    }

    /// A place from an expression: the name at its very left is memory, or all is an address.
    pub(super) fn place_of(&mut self, expr: Expr, span: Span) -> Place {
        match leftmost(&expr).filter(|name| self.names.is(Kind::Memory, name)) {
            Some(name) => {
                let name = name.to_owned();
                self.names.use_of(&[Kind::Memory], &name, span);
                let offset = self.finish_expr(without_leftmost(expr), span);
                Place::Memory { name, offset }
            }
            None => {
                if let Expr::Var(name) = &expr
                    && !self.known_variable(name)
                {
                    // A lone word that is nothing else was meant to be memory.
                    self.names.use_of(&[Kind::Memory, Kind::Result], name, span);
                    return Place::Address(poison());
                }
                Place::Address(self.finish_expr(expr, span))
            }
        }
    }

    fn known_variable(&self, name: &str) -> bool {
        matches!(name, "page" | "max" | "base" | "unit" | "va_end" | "copy")
            || self.indices.iter().any(|i| i == name)
    }

    /// `>= 1`, `5`, `2..4`.
    pub(super) fn bound_check(&mut self, node: &Node) -> Option<Check> {
        let text = self.word_text(node, "a bound such as `\">= 1\"`")?;
        let trimmed = text.trim_start();
        let lead = text.len() - trimmed.len();
        for (symbol, compare) in COMPARISONS {
            if let Some(rest) = trimmed.strip_prefix(symbol) {
                let expr = self.expr_in(node, rest, lead + symbol.len());
                return Some(Check::Compare(*compare, expr));
            }
        }
        if let Some((low, high)) = text.split_once("..") {
            let after = low.len() + 2;
            let (low, high) = (self.expr_in(node, low, 0), self.expr_in(node, high, after));
            return Some(Check::Between(low, high));
        }
        Some(Check::Compare(Compare::Equal, self.expr_in(node, &text, 0)))
    }

    /// `{ counter: bound }`.
    pub(super) fn bounds(&mut self, node: &Node) -> Vec<Bound> {
        let mut out = Vec::new();
        for (key, value) in self.entries(node, "a mapping from counters to bounds") {
            if !super::super::counters::is_known(&key.text) {
                let names = super::super::counters::COUNTERS.iter().map(|(n, _)| *n);
                let help = suggestion(&key.text, names, "counters");
                self.error("unknown-name", key.span, format!("`{}` is no counter", key.text), help);
                continue;
            }
            if let Some(check) = self.bound_check(value) {
                let span = Span { start: key.span.start, end: value.span.end };
                out.push(Bound { span, counter: key.text.clone(), check });
            }
        }
        out
    }
}

/// Comparisons as written, longer ones first.
pub(super) const COMPARISONS: &[(&str, Compare)] = &[
    ("==", Compare::Equal),
    ("!=", Compare::NotEqual),
    ("<=", Compare::LessEqual),
    (">=", Compare::GreaterEqual),
    ("<", Compare::Less),
    (">", Compare::Greater),
];

/// The comparison that an operator is.
pub(super) fn comparison(op: Op) -> Option<Compare> {
    COMPARISONS.iter().find(|(symbol, _)| *symbol == op.symbol()).map(|(_, c)| *c)
}

pub(super) fn mentions(expr: &Expr, name: &str) -> bool {
    let mut found = false;
    expr.visit(&mut |e| found |= matches!(e, Expr::Var(n) if n == name));
    found
}

fn leftmost(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Var(name) => Some(name),
        Expr::Binary(Op::Add | Op::Sub, left, _) => leftmost(left),
        _ => None,
    }
}

fn without_leftmost(expr: Expr) -> Expr {
    match expr {
        Expr::Binary(Op::Add, left, right) if matches!(*left, Expr::Var(_)) => *right,
        Expr::Binary(op @ (Op::Add | Op::Sub), left, right) => {
            Expr::Binary(op, Box::new(without_leftmost(*left)), right)
        }
        _ => Expr::Const(0),
    }
}
